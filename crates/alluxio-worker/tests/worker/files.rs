//! The enterprise worker's requests: bytes of whole files, and changes of the under-store.

use alluxio_wire::UfsUri;

use crate::loads::cluster;
use crate::s3::S3Server;
use crate::support::{Answer, PAGE, Setup, TestWorker, content, put_object};

impl TestWorker {
    fn named(&self, endpoint: &str, name: &str, rest: &str) -> String {
        let uri = self.root().join(name).unwrap();
        format!("/v1/{endpoint}/{}?ufsFullPath={uri}{rest}", uri.file_id())
    }

    async fn change(&self, endpoint: &str, name: &str, rest: &str) -> Answer {
        self.post(&self.named(endpoint, name, rest), Vec::new())
            .await
    }

    async fn pair(&self, endpoint: &str, from: &str, to: &str, rest: &str) -> Answer {
        let [from, to] = [from, to].map(|name| self.root().join(name).unwrap());
        let id = from.file_id();
        let target = format!("/v1/{endpoint}/{id}?srcPath={from}&dstPath={to}{rest}");
        self.post(&target, Vec::new()).await
    }
}

#[tokio::test]
async fn a_file_is_read_over_its_pages() {
    let files = tempfile::tempdir().unwrap();
    let bytes = content(1, 2 * PAGE + 100);
    std::fs::write(files.path().join("f"), &bytes).unwrap();
    std::fs::write(files.path().join("empty"), "").unwrap();
    let worker = Setup::local(&files).start().await;
    let get = async |endpoint: &str, rest: &str| {
        let answer = worker.get(&worker.named(endpoint, "f", rest)).await;
        assert_eq!(answer.code, 200, "{endpoint} {rest}: {answer:?}");
        assert_eq!(answer.content_type, "application/octet-stream");
        answer.body
    };
    let end = bytes.len();
    assert_eq!(get("chunk", "&chunkSize=1000").await, bytes);
    assert_eq!(get("chunk", "").await, bytes);
    assert_eq!(get("range", "").await, bytes);
    let (from, to) = (PAGE - 5, PAGE + 5);
    assert_eq!(
        get("range", &format!("&offset={from}&length=10")).await,
        bytes[from..to]
    );
    assert_eq!(
        get("range", &format!("&offset={from}&length=-1")).await,
        bytes[from..]
    );
    assert_eq!(get("range", &format!("&offset={end}&length=1")).await, "");
    assert_eq!(get("head", "&numOfBytes=10").await, bytes[..10]);
    assert_eq!(get("head", "").await, bytes[..1024]);
    assert_eq!(get("tail", "&numOfBytes=200").await, bytes[end - 200..]);
    assert_eq!(get("tail", "&numOfBytes=1GB").await, bytes);
    let beyond = worker
        .get(&worker.named("range", "f", "&offset=9999999"))
        .await;
    assert_eq!((beyond.code, beyond.error().as_str()), (416, "OutOfRange"));
    assert_eq!(
        worker.get(&worker.named("chunk", "empty", "")).await.body,
        ""
    );
    for endpoint in ["chunk", "range", "head", "tail"] {
        let missing = worker.get(&worker.named(endpoint, "none", "")).await;
        assert_eq!((missing.code, missing.error().as_str()), (404, "NotFound"));
    }
    // A file that changed is read anew, whole.
    std::fs::write(files.path().join("f"), "changed").unwrap();
    let after = worker.get(&worker.named("tail", "f", "")).await;
    assert_eq!(after.text(), "changed");
    let info = worker.get("/v1/ufsInfo").await.json();
    assert_eq!(info["ufsUri"], worker.root().as_str());
    assert_eq!(info["pageSizeBytes"], PAGE);
}

#[tokio::test]
async fn changes_are_made_in_the_under_store_and_seen_at_once() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let on_disk = |name: &str| std::fs::read_to_string(files.path().join(name)).ok();
    assert_eq!(
        worker.change("mkdir", "d", "").await.json()["success"],
        true
    );
    assert!(files.path().join("d").is_dir());
    worker.change("touch", "d/f", "").await;
    assert_eq!(on_disk("d/f").unwrap(), "");
    let bytes = content(3, 2 * PAGE + 7);
    let written = worker
        .post(
            &worker.named("chunk", "d/f", "&chunkSize=1000"),
            bytes.clone(),
        )
        .await;
    assert_eq!(written.json()["success"], true);
    assert_eq!(std::fs::read(files.path().join("d/f")).unwrap(), bytes);
    assert_eq!(
        worker.get(&worker.named("chunk", "d/f", "")).await.body,
        bytes
    );
    assert_eq!(worker.pages_kept().await, 3);
    // Touching what is there changes nothing.
    worker.change("touch", "d/f", "").await;
    assert_eq!(worker.status("d/f").await.length, bytes.len() as u64);

    assert_eq!(worker.pair("mv", "d/f", "d/g", "").await.code, 200);
    assert_eq!(worker.pages_kept().await, 0);
    assert_eq!(worker.page("d/f", 0).await.code, 404);
    assert_eq!(worker.page("d/g", 2).await.body, bytes[2 * PAGE..]);
    assert_eq!(worker.pair("copy", "d/g", "d/h", "").await.code, 200);
    let twice = worker.pair("copy", "d/g", "d/h", "&forced=False").await;
    assert_eq!((twice.code, twice.error().as_str()), (409, "Conflict"));
    assert_eq!(
        worker.pair("copy", "d/g", "d/h", "&forced=True").await.code,
        200
    );
    assert_eq!(
        worker.pair("copy", "d", "e", "&recursive=True").await.code,
        200
    );
    assert_eq!(std::fs::read(files.path().join("e/h")).unwrap(), bytes);

    let full = worker.change("rm", "d", "").await;
    assert_eq!((full.code, full.error().as_str()), (409, "Conflict"));
    let cached = worker.change("rm", "d", "&remove_alluxio_only=True").await;
    assert_eq!(cached.code, 200);
    assert_eq!(worker.pages_kept().await, 0);
    assert!(files.path().join("d/g").exists());
    assert_eq!(worker.change("rm", "d", "&recursive=True").await.code, 200);
    assert!(!files.path().join("d").exists());
    assert_eq!(worker.change("rm", "d", "").await.code, 404);
    for (method, state) in [
        ("mkdir", "success"),
        ("rm", "client_error"),
        ("mv", "success"),
    ] {
        let line =
            format!("alluxio_http_server_result_total{{method=\"{method}\",state=\"{state}\"}}");
        assert!(worker.metric(&line).await > 0, "{line}");
    }
}

#[tokio::test]
async fn nothing_outside_the_root_is_changed_and_never_the_root_itself() {
    let parent = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir_in(&parent).unwrap();
    let outside = parent.path().join("outside");
    std::fs::write(&outside, "stays").unwrap();
    std::fs::write(files.path().join("f"), "stays").unwrap();
    let worker = Setup::local(&files).start().await;
    let other = UfsUri::parse(&format!("file://{}", outside.display())).unwrap();
    let (id, own) = (other.file_id(), worker.root().join("f").unwrap());
    for target in [
        format!("rm/{id}?ufsFullPath={other}"),
        format!("touch/{id}?ufsFullPath={other}x"),
        format!("chunk/{id}?ufsFullPath={other}"),
        format!("mv/{id}?srcPath={other}&dstPath=/g"),
        format!("mv/{}?srcPath={own}&dstPath={other}", own.file_id()),
        format!("copy/{}?srcPath={own}&dstPath=/../outside", own.file_id()),
    ] {
        let refused = worker.post(&format!("/v1/{target}"), Vec::new()).await;
        assert_eq!(
            (refused.code, refused.error().as_str()),
            (403, "Forbidden"),
            "{target}"
        );
    }
    let root = worker.root();
    let all = format!(
        "/v1/rm/{}?ufsFullPath={root}&recursive=true",
        root.file_id()
    );
    assert_eq!(worker.post(&all, Vec::new()).await.code, 400);
    for file in [&outside, &files.path().join("f")] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "stays");
    }
}

#[tokio::test]
async fn a_change_through_one_worker_takes_its_pages_from_the_ring() {
    let server = S3Server::start(false).await;
    for number in 0..6 {
        put_object(&server, &format!("train/{number}"), content(number, 1000));
    }
    let workers = cluster(&server, 2, 2).await;
    for worker in &workers {
        for number in 0..6 {
            assert_eq!(worker.page(&format!("train/{number}"), 0).await.code, 200);
        }
        assert_eq!(worker.pages_kept().await, 6);
    }
    assert_eq!(workers[0].change("rm", "train/0", "").await.code, 200);
    let written = workers[0].named("chunk", "train/1", "");
    assert_eq!(workers[0].post(&written, b"new".to_vec()).await.code, 200);
    for worker in &workers {
        assert_eq!(worker.pages_kept().await, 4);
        assert_eq!(worker.page("train/1", 0).await.text(), "new");
    }
    let all = workers[0].change("rm", "train", "&recursive=True").await;
    assert_eq!(all.code, 200);
    for worker in &workers {
        assert_eq!(worker.pages_kept().await, 0);
    }
}
