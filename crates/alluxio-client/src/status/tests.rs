//! What is kept is what was told last, once for all who ask, and nothing that was forgotten.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::future::ready;
use std::time::Duration;

use alluxio_wire::FileKind;
use tokio::sync::oneshot;

use super::kept::{Fetch, Kept, Limits};
use super::*;

const LONG: Duration = Duration::from_hours(1);

type Found = Result<Arc<FileStatus>>;

fn keeping(ttl: Duration, negative_ttl: Duration, bytes: u64) -> Arc<Kept> {
    Arc::new(Kept::new(Limits {
        ttl,
        negative_ttl,
        bytes,
    }))
}

fn believing() -> Arc<Kept> {
    keeping(LONG, LONG, 1 << 20)
}

fn uri(path: &str) -> UfsUri {
    UfsUri::parse(&format!("s3://b/{path}")).unwrap()
}

fn file(path: &str, length: u64) -> FileStatus {
    FileStatus {
        kind: FileKind::File,
        name: uri(path).name().to_owned(),
        path: format!("/{path}"),
        ufs_uri: uri(path).to_string(),
        modified_ms: 0,
        length,
        content_hash: None,
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "status", "of the test")
}

/// Looks up; a request that has to be made answers so.
async fn look_up(kept: &Arc<Kept>, path: &str, answer: Found) -> Found {
    if let Some(known) = kept.status(&uri(path)) {
        return known;
    }
    let fetch: Fetch<_> = Box::pin(ready(answer));
    Kept::fetch_status(kept, &Handle::current(), &uri(path), fetch).await
}

async fn list(kept: &Arc<Kept>, path: &str, entries: Vec<FileStatus>) {
    let fetch: Fetch<_> = Box::pin(ready(Ok(Arc::new(entries))));
    let listed = Kept::fetch_listing(kept, &Handle::current(), &uri(path), fetch).await;
    listed.unwrap();
}

fn length(kept: &Kept, path: &str) -> Option<u64> {
    kept.status(&uri(path)).map(|found| found.unwrap().length)
}

#[tokio::test]
async fn a_listing_answers_lookups_of_its_names_and_that_others_are_missing() {
    let kept = believing();
    list(&kept, "d", vec![file("d/a", 1), file("d/b", 2)]).await;
    assert_eq!(
        (length(&kept, "d/a"), length(&kept, "d/b")),
        (Some(1), Some(2))
    );
    let error = kept.status(&uri("d/c")).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(kept.status(&uri("d")).is_none() && kept.status(&uri("d/a/x")).is_none());
    let brief = keeping(LONG, Duration::ZERO, 1 << 20);
    list(&brief, "d", vec![file("d/a", 1)]).await;
    assert!(brief.status(&uri("d/a")).is_some() && brief.status(&uri("d/c")).is_none());
}

#[tokio::test]
async fn the_later_of_a_listing_and_a_lookup_is_believed() {
    let kept = believing();
    look_up(&kept, "d/a", Ok(Arc::new(file("d/a", 1))))
        .await
        .unwrap();
    list(&kept, "d", vec![file("d/a", 2)]).await;
    assert_eq!(length(&kept, "d/a"), Some(2));
    let kept = believing();
    assert!(look_up(&kept, "d/a", Err(missing())).await.is_err());
    list(&kept, "d", vec![file("d/a", 2)]).await;
    assert_eq!(length(&kept, "d/a"), Some(2));
}

#[tokio::test]
async fn a_missing_name_is_kept_for_its_own_time_and_other_failures_are_not() {
    let kept = believing();
    assert!(look_up(&kept, "a", Err(missing())).await.is_err());
    assert!(kept.status(&uri("a")).unwrap().is_err());
    let busy = Error::new(ErrorKind::Throttled, "status", "of the test");
    assert!(look_up(&kept, "b", Err(busy)).await.is_err());
    assert!(kept.status(&uri("b")).is_none());
    let brief = keeping(LONG, Duration::ZERO, 1 << 20);
    assert!(look_up(&brief, "a", Err(missing())).await.is_err());
    assert!(brief.status(&uri("a")).is_none());
}

#[tokio::test]
async fn nothing_is_kept_with_a_ttl_of_zero() {
    let kept = keeping(Duration::ZERO, LONG, 1 << 20);
    look_up(&kept, "a", Ok(Arc::new(file("a", 1))))
        .await
        .unwrap();
    assert!(look_up(&kept, "b", Err(missing())).await.is_err());
    list(&kept, "d", vec![file("d/a", 1)]).await;
    for path in ["a", "b", "d/a"] {
        assert!(kept.status(&uri(path)).is_none(), "{path}");
    }
}

/// A lookup of `path` whose answer is sent by the test.
fn waiting(
    kept: &Arc<Kept>,
    path: &str,
) -> (oneshot::Sender<Found>, tokio::task::JoinHandle<Found>) {
    let (sender, answer) = oneshot::channel::<Found>();
    let fetch: Fetch<_> = Box::pin(async move { answer.await.unwrap() });
    let (kept, asked) = (Arc::clone(kept), uri(path));
    let lookup = async move { Kept::fetch_status(&kept, &Handle::current(), &asked, fetch).await };
    (sender, tokio::spawn(lookup))
}

#[tokio::test]
async fn one_request_serves_all_who_wait_also_when_the_first_goes() {
    let kept = believing();
    let (sender, first) = waiting(&kept, "a");
    tokio::task::yield_now().await;
    let others: Vec<_> = (0..8).map(|_| waiting(&kept, "a").1).collect();
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    sender.send(Ok(Arc::new(file("a", 5)))).unwrap();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().length, 5);
    }
    assert_eq!(length(&kept, "a"), Some(5));
}

#[tokio::test]
async fn an_answer_that_was_on_its_way_when_its_file_was_written_is_not_kept() {
    for below in [false, true] {
        let kept = believing();
        let (sender, lookup) = waiting(&kept, "d/a");
        tokio::task::yield_now().await;
        if below {
            kept.forget_below(&uri("d"));
        } else {
            kept.forget(&uri("d/a"));
        }
        // Who asks after the write gets an answer of after the write.
        let later = look_up(&kept, "d/a", Ok(Arc::new(file("d/a", 2)))).await;
        assert_eq!(later.unwrap().length, 2);
        sender.send(Ok(Arc::new(file("d/a", 1)))).unwrap();
        assert_eq!(lookup.await.unwrap().unwrap().length, 1);
        assert_eq!(length(&kept, "d/a"), Some(2));
    }
}

#[tokio::test]
async fn forgetting_reaches_above_and_below_but_not_beside() {
    let paths = ["d", "d/e", "d/e/a", "d/e/b", "d-x"];
    let filled = async || {
        let kept = believing();
        for path in paths {
            look_up(&kept, path, Ok(Arc::new(file(path, 1))))
                .await
                .unwrap();
        }
        list(&kept, "d/f", vec![file("d/f/x", 1)]).await;
        kept
    };
    let known = |kept: &Kept| -> Vec<_> {
        let known = |path: &&&str| kept.status(&uri(path)).is_some();
        paths
            .iter()
            .chain(&["d/f/x"])
            .filter(known)
            .copied()
            .collect()
    };
    let kept = filled().await;
    kept.forget(&uri("d/e/a"));
    assert_eq!(known(&kept), ["d/e/b", "d-x", "d/f/x"]);
    let kept = filled().await;
    kept.forget_below(&uri("d"));
    assert_eq!(known(&kept), ["d-x"]);
}

#[tokio::test]
async fn what_is_kept_stays_within_its_bytes() {
    let kept = keeping(LONG, LONG, 64 * 1024);
    for number in 0..2000 {
        let path = format!("d{number}");
        look_up(&kept, &path, Ok(Arc::new(file(&path, 1))))
            .await
            .unwrap();
        list(&kept, &path, vec![file(&format!("{path}/a"), 1)]).await;
    }
    kept.settle();
    assert!(kept.bytes() <= 64 * 1024, "{}", kept.bytes());
    assert_eq!(length(&kept, "d1999"), Some(1));
}
