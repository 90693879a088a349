//! A worker's REST as far as the operator uses it, over real HTTP on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use alluxio_wire::{FileKind, FileStatus, LoadCounts, LoadState, ProgressAnswer, status};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Files and bytes of every load.
pub(crate) const FILES: u64 = 3;
/// See [`FILES`].
pub(crate) const BYTES: u64 = 3 << 20;

/// A worker that is alive until it is dropped or killed.
pub(crate) struct Worker {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
    server: JoinHandle<()>,
}

/// How a worker answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// The HTTP status of `info`.
    pub(crate) info: u16,
    /// How a load stands when it is asked about.
    pub(crate) load: LoadState,
}

/// What the worker was told to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Paths in order.
    pub(crate) submitted: Vec<String>,
    /// Paths in order.
    pub(crate) stopped: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    behaviour: Behaviour,
    told: Arc<Mutex<Told>>,
}

/// A worker whose under-store is fine and whose loads succeed.
pub(crate) const GOOD: Behaviour = Behaviour {
    info: 200,
    load: LoadState::Succeeded,
};

impl Worker {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let shared = Shared {
            behaviour,
            told: told.clone(),
        };
        let router = Router::new()
            .route("/v1/health", get(|| async { "worker is active" }))
            .route("/v1/info", get(info))
            .route("/v1/load", get(load))
            .with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            told,
            server,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// From now on nobody listens on its port.
    pub(crate) fn kill(&self) {
        self.server.abort();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn info(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> (StatusCode, String) {
    let code = StatusCode::from_u16(shared.behaviour.info).unwrap();
    if !code.is_success() {
        return (
            code,
            json!({ "message": "the under-store said no" }).to_string(),
        );
    }
    let directory = FileStatus {
        kind: FileKind::Directory,
        name: String::new(),
        path: "/".to_owned(),
        ufs_uri: query["path"].clone(),
        modified_ms: 0,
        length: 0,
        content_hash: None,
    };
    (code, status::to_json(&[directory]))
}

async fn load(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> String {
    let path = query["path"].clone();
    let mut told = shared.told.lock().unwrap();
    match query["opType"].as_str() {
        "submit" => {
            told.submitted.push(path);
            json!({ "success": true, "jobId": "job-1" }).to_string()
        }
        "stop" => {
            told.stopped.push(path);
            json!({ "success": true }).to_string()
        }
        _ => progress(path, shared.behaviour.load),
    }
}

fn progress(path: String, state: LoadState) -> String {
    let done = if state == LoadState::Succeeded {
        BYTES
    } else {
        BYTES / 3
    };
    let counts = LoadCounts {
        files_total: FILES,
        files_done: FILES * done / BYTES,
        bytes_total: BYTES,
        bytes_done: done,
        ..LoadCounts::default()
    };
    let message = "said the worker".to_owned();
    ProgressAnswer {
        state,
        path,
        message,
        progress: Some(counts),
    }
    .to_json()
}
