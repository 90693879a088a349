//! Load jobs as a client sees them: what the real worker answers, and coordinators that go away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluxio_client::{Client, ErrorKind, Followed};
use alluxio_config::Config;
use alluxio_wire::{LoadOptions, LoadState, ProgressFormat, ProgressQuery, UfsUri};
use serde_json::Value;
use support::{Reply, ScriptedWorker};

const TRANSCRIPT: &str = include_str!("vectors/worker-transcript.jsonl");
const POLL: Duration = Duration::from_millis(2);

/// The recorded answer of this name.
fn recorded(name: &str) -> Reply {
    let mut records = TRANSCRIPT
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let record = records.find(|record| record["name"] == name).unwrap();
    match record["response"]["body"].as_str() {
        Some(body) => Reply::Answer(200, body.as_bytes().to_vec()),
        None => Reply::EmptyClose,
    }
}

/// A cluster that gives the first answer that the script has for what is asked, again and again
/// the last one.
async fn cluster(
    script: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (Client, ScriptedWorker) {
    let worker = ScriptedWorker::start(script).await;
    let client = client(&[worker.host_port()]).await;
    (client, worker)
}

async fn client(workers: &[String]) -> Client {
    let yaml = format!(
        "ufs: {{uri: 'file:///srv/ufs'}}\n\
         cluster: {{membership: {{type: static, workers: ['{}']}}}}\n\
         client: {{fallback: {{policy: never}}}}\n",
        workers.join("', '")
    );
    Client::connect(&Config::from_yaml(&yaml).unwrap())
        .await
        .unwrap()
}

fn path() -> UfsUri {
    UfsUri::parse("file:///srv/ufs/load").unwrap()
}

fn stopped_as_json() -> Reply {
    let Reply::Answer(_, body) = recorded("load-progress-running-json") else {
        panic!("it is recorded");
    };
    let text = String::from_utf8(body).unwrap();
    Reply::Answer(200, text.replace("RUNNING", "STOPPED").into_bytes())
}

#[tokio::test]
async fn a_stopped_job_is_resumed_by_a_submit_that_is_closed_on() {
    let asked = AtomicUsize::new(0);
    let (client, _worker) = cluster(move |target| {
        if target.contains("opType=submit") {
            return Reply::EmptyClose;
        }
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => stopped_as_json(),
            _ => recorded("load-progress-running-json"),
        }
    })
    .await;
    let resumed = client
        .loads()
        .submit(&path(), &LoadOptions::default())
        .await;
    let resumed = resumed.unwrap();
    assert!(
        resumed.success && resumed.message.contains("goes on"),
        "{resumed:?}"
    );
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_refused_with_the_job_id_none() {
    let body = br#"{"success":false,"jobId":"NONE","path":"p","message":"no such path"}"#;
    let (client, _worker) = cluster(|_| Reply::Answer(200, body.to_vec())).await;
    let refused = client
        .loads()
        .submit(&path(), &LoadOptions::default())
        .await;
    let refused = refused.unwrap();
    assert_eq!((refused.success, refused.job_id.as_str()), (false, "NONE"));
}

#[tokio::test]
async fn a_load_that_no_worker_knows_is_failed_without_numbers() {
    let (client, _worker) = cluster(|_| recorded("load-progress-missing")).await;
    let unknown = client.loads().progress(&path()).await.unwrap();
    assert!(unknown.is_unknown() && unknown.state == LoadState::Failed);
}

#[tokio::test]
async fn both_forms_of_progress_are_asked_for_in_upper_case_and_read() {
    let (client, worker) = cluster(|target| {
        recorded(if target.contains("progressFormat=JSON") {
            "load-progress-running-json"
        } else {
            "load-progress-running-verbose"
        })
    })
    .await;
    for format in [ProgressFormat::Json, ProgressFormat::Text] {
        let query = ProgressQuery {
            format,
            verbose: true,
            ..ProgressQuery::default()
        };
        let answer = client.loads().progress_with(&path(), &query).await.unwrap();
        assert_eq!(answer.state, LoadState::Running);
        let counts = answer.progress.unwrap();
        assert_eq!((counts.files_total, counts.listing_done), (4, None));
        if format == ProgressFormat::Json {
            assert_eq!(counts.bytes_per_second, Some(41_943_040));
            assert_eq!(counts.elapsed_ms, Some(2980));
        }
    }
    let targets = worker.targets();
    assert!(
        targets[0].ends_with("&progressFormat=JSON&verbose=true"),
        "{targets:?}"
    );
    assert!(
        targets[1].ends_with("&progressFormat=TEXT&verbose=true"),
        "{targets:?}"
    );
}

#[tokio::test]
async fn every_option_is_sent_under_alluxios_name() {
    let (client, worker) = cluster(|_| recorded("load-submit-dir")).await;
    let options = LoadOptions {
        verify: true,
        bandwidth_bytes_per_second: Some(1000),
        partial_listing: true,
        metadata_only: true,
        skip_if_exists: true,
        file_filter: Some(".*jpg".to_owned()),
        verbose: true,
    };
    client.loads().submit(&path(), &options).await.unwrap();
    let target = worker.targets().remove(0);
    for parameter in [
        "verify=true",
        "bandwidth=1000",
        "partialListing=true",
        "loadMetadataOnly=true",
        "skipIfExists=true",
        "fileFilterRegx=.%2Ajpg",
        "verbose=true",
    ] {
        assert!(target.contains(parameter), "{parameter} is not in {target}");
    }
}

/// Two workers: the one that is asked first coordinates, then dies after some answers; the other
/// knows nothing until it is submitted to, and ends the load at once.
async fn dying_coordinator() -> (Client, [ScriptedWorker; 2]) {
    let (answers, submits) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let script = move |answers: Arc<AtomicUsize>, submits: Arc<AtomicUsize>| {
        let first = AtomicUsize::new(usize::MAX);
        move |target: &str| {
            // Which of the two is asked first is for the ring to say.
            let role = first.load(Ordering::Relaxed);
            let role = if role == usize::MAX {
                let role = answers.load(Ordering::Relaxed).min(1);
                first.store(role, Ordering::Relaxed);
                role
            } else {
                role
            };
            let answered = answers.fetch_add(1, Ordering::Relaxed);
            if role == 0 {
                return match answered {
                    0..5 => recorded("load-progress-running-json"),
                    // What a gateway says of a worker that is gone.
                    _ => Reply::Answer(502, Vec::new()),
                };
            }
            if target.contains("opType=submit") {
                submits.fetch_add(1, Ordering::Relaxed);
                return recorded("load-submit-dir");
            }
            match submits.load(Ordering::Relaxed) {
                0 => recorded("load-progress-missing"),
                _ => recorded("load-progress-done-json"),
            }
        }
    };
    let one = ScriptedWorker::start(script(Arc::clone(&answers), Arc::clone(&submits))).await;
    let two = ScriptedWorker::start(script(answers, submits)).await;
    let client = client(&[one.host_port(), two.host_port()]).await;
    (client, [one, two])
}

#[tokio::test]
async fn a_load_whose_coordinator_died_is_submitted_to_the_next_worker() {
    let (client, _workers) = dying_coordinator().await;
    let mut resubmitted = 0;
    let options = LoadOptions::default();
    let loads = client.loads();
    let path = path();
    let ended = loads.follow(&path, Some(&options), POLL, |seen| {
        resubmitted += usize::from(matches!(seen, Followed::Resubmitted(_)));
    });
    assert_eq!(ended.await.unwrap().state, LoadState::Succeeded);
    assert_eq!(resubmitted, 1);
}

#[tokio::test]
async fn who_only_watches_is_told_that_the_coordinator_is_gone_and_what_to_do() {
    let (client, _workers) = dying_coordinator().await;
    let loads = client.loads();
    let ended = loads.follow(&path(), None, POLL, |_| {}).await;
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("Submit it again"), "{error}");
}
