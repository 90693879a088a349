//! A real S3 server in this process (s3s-fs over a temporary folder), with faults on demand.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const ACCESS_KEY: &str = "AKIATEST";
pub(crate) const SECRET_KEY: &str = "test-secret";

/// What the next requests meet, in order; a request takes one off.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// This status, with this S3 error code in the body.
    Answer(u16, &'static str),
    /// No fault: the request is served.
    None,
}

/// A running server; objects are files below [`S3Server::bucket_folder`].
pub(crate) struct S3Server {
    pub(crate) address: SocketAddr,
    folder: TempDir,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    folder: PathBuf,
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<String>>,
}

impl S3Server {
    /// A server with one empty bucket; `signed` makes it refuse requests without the test's key.
    pub(crate) async fn start(signed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        if signed {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            folder: folder.path().to_owned(),
            faults: Mutex::default(),
            requests: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, builder.build(), Arc::clone(&shared)));
        Self {
            address,
            folder,
            shared,
            task,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// The next requests meet these faults.
    pub(crate) fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// No faults any more.
    pub(crate) fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Method and target of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes a file, with the folders above it.
pub(crate) fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn accept(listener: TcpListener, service: S3Service, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, service.clone(), Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, service: S3Service, shared: Arc<Shared>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, shared) = (service.clone(), Arc::clone(&shared));
        async move { Ok::<_, Infallible>(shared.answer(&service, request).await) }
    });
    let connection = auto::Builder::new(TokioExecutor::new());
    // A client that goes away is none of the test's business.
    let _ = connection
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

impl Shared {
    async fn answer(&self, service: &S3Service, request: Request<Incoming>) -> Response<Body> {
        let line = format!("{} {}", request.method(), request.uri());
        self.requests.lock().unwrap().push(line);
        let fault = self.faults.lock().unwrap().pop_front();
        if let Some(Fault::Answer(status, code)) = fault {
            return failure(status, code);
        }
        if self.reads_a_directory(&request) {
            return failure(404, "NoSuchKey");
        }
        match service.call(request.map(Body::from)).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = Response::new(Body::from(format!("{error:?}")));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    /// s3s-fs fails a GET of a directory's name with 500, where S3 says that there is no such key.
    fn reads_a_directory(&self, request: &Request<Incoming>) -> bool {
        let (bucket_and_key, query) = (request.uri().path(), request.uri().query());
        let folder = self.folder.join(bucket_and_key.trim_start_matches('/'));
        request.method() == Method::GET
            && query.is_none_or(|query| query.starts_with("x-id="))
            && folder.is_dir()
    }
}

fn failure(status: u16, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>of the test</Message></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
