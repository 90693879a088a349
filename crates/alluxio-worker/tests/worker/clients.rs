//! The product's own client against its own workers: what one says the other understands.

use alluxio_client::Client;
use alluxio_config::Config;
use alluxio_wire::{LoadOptions, LoadState};
use futures::TryStreamExt;

use crate::loads::{cluster, put_files};
use crate::s3::S3Server;
use crate::support::{TestWorker, object_reads, put_object, until};

async fn connect(worker: &TestWorker) -> Client {
    Client::connect(&worker.config).await.unwrap()
}

/// Reads every file of the dataset; returns how many bytes there were.
async fn read_all(client: &Client) -> u64 {
    let files: Vec<_> = client.walk("train").try_collect().await.unwrap();
    let mut bytes = 0;
    for file in files {
        let reader = client
            .open(file.path.trim_start_matches('/'))
            .await
            .unwrap();
        let length = usize::try_from(file.length).unwrap();
        let read = reader.read_at(0, length).await.unwrap();
        assert_eq!(read.len(), length, "{}", file.path);
        bytes += file.length;
    }
    bytes
}

#[tokio::test]
async fn a_loaded_dataset_is_read_from_its_owners_alone() {
    let server = S3Server::start(false).await;
    let (pages, bytes) = put_files(&server);
    let workers = cluster(&server, 3, 3).await;
    let client = connect(&workers[0]).await;
    let uri = client.root().join("train").unwrap();
    let loads = client.loads();
    assert!(
        loads
            .submit(&uri, &LoadOptions::default())
            .await
            .unwrap()
            .success
    );
    let end = until("the load ends", || async {
        let progress = loads.progress(&uri).await.unwrap();
        Some(progress.state).filter(|state| state.is_final())
    })
    .await;
    assert_eq!(end, LoadState::Succeeded);
    assert_eq!(object_reads(&server), pages);
    assert_eq!(read_all(&client).await, bytes);
    let by_source = client.bytes_by_source();
    assert_eq!(
        (by_source.worker, by_source.ufs),
        (bytes, 0),
        "{by_source:?}"
    );
    assert_eq!(object_reads(&server), pages);
}

#[tokio::test]
async fn readers_go_on_when_a_worker_dies_and_when_a_file_changes() {
    let server = S3Server::start(false).await;
    let (_, bytes) = put_files(&server);
    let mut workers = cluster(&server, 3, 3).await;
    let config: Config = workers[0].config.clone();
    workers.pop().unwrap().worker.shutdown().await;
    let client = Client::connect(&config).await.unwrap();
    assert_eq!(read_all(&client).await, bytes);
    let by_source = client.bytes_by_source();
    assert_eq!(
        by_source.worker + by_source.next_worker,
        bytes,
        "{by_source:?}"
    );
    assert!(by_source.next_worker > 0, "{by_source:?}");

    put_object(&server, "train/0/0.jpg", "rewritten");
    let fresh = Client::connect(&config).await.unwrap();
    let reader = fresh.open("train/0/0.jpg").await.unwrap();
    let read = reader.read_at(0, 100).await.unwrap().into_bytes();
    assert_eq!(read, "rewritten");
}
