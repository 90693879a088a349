//! Invalidation: what was changed behind the worker's back is asked for anew.

use alluxio_wire::UfsUri;

use crate::support::{Answer, Setup, TestWorker};

async fn invalidate(worker: &TestWorker, uri: &UfsUri) -> Answer {
    let target = format!(
        "/v1/internal/invalidate/{}?ufsFullPath={uri}",
        uri.file_id()
    );
    worker.post(&target, Vec::new()).await
}

#[tokio::test]
async fn an_invalidated_file_is_read_anew_and_others_stay() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("f"), "old").unwrap();
    std::fs::write(files.path().join("g"), "other").unwrap();
    let worker = Setup::local(&files).start().await;
    let uri = worker.root().join("f").unwrap();
    assert_eq!(worker.page("f", 0).await.text(), "old");
    assert_eq!(worker.page("g", 0).await.text(), "other");
    std::fs::write(files.path().join("f"), "new bytes").unwrap();
    let answer = invalidate(&worker, &uri).await;
    assert_eq!(answer.json()["success"], true);
    assert_eq!(answer.json()["droppedPages"], 1);
    assert_eq!(worker.pages_kept().await, 1);
    assert_eq!(worker.page("f", 0).await.text(), "new bytes");
    // Pages that a client wrote by the file's id go too.
    let written = format!("/v1/file/{}/page/0", uri.file_id());
    worker.post(&written, b"a client's".to_vec()).await;
    assert_eq!(invalidate(&worker, &uri).await.json()["droppedPages"], 2);
    assert_eq!(worker.get(&written).await.code, 404);
    assert_eq!(invalidate(&worker, &uri).await.json()["droppedPages"], 0);
}

#[tokio::test]
async fn an_invalidation_names_a_file_below_the_root() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let outside = UfsUri::parse("file:///etc/passwd").unwrap();
    assert_eq!(invalidate(&worker, &outside).await.error(), "Forbidden");
    let id = outside.file_id();
    let wrong = format!("/v1/internal/invalidate/{id}?ufsFullPath=/f");
    assert_eq!(worker.post(&wrong, Vec::new()).await.error(), "BadRequest");
    let by_get = format!("/v1/internal/invalidate/{id}");
    assert_eq!(worker.get(&by_get).await.error(), "MethodNotAllowed");
}
