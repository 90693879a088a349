//! The driver's two sockets: its own, and the one by which the kubelet finds it.
//!
//! Both are bound before anything is served, and the driver's own first, so that the kubelet never
//! learns of a socket that is not there.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

use crate::host::Patience;
use crate::identity::Identity;
use crate::mounter::Mounter;
use crate::node::Node;
use crate::proto::csi::identity_server::IdentityServer;
use crate::proto::csi::node_server::NodeServer;
use crate::proto::pluginregistration::registration_server::RegistrationServer;
use crate::registration::{Registrar, Registration, socket_path};
use crate::socket::{PrivateSocket, SocketError};

/// The driver's name, as CSIDriver and PersistentVolume objects spell it.
pub const DRIVER_NAME: &str = "csi.alluxio-dataset.io";

/// How long calls may go on after the driver is told to stop: less than the 10 seconds after which
/// the chart has its pod killed, so that the sockets are removed.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);

/// The longest name that the interface allows.
const MAX_DRIVER_NAME_LENGTH: usize = 63;

/// How the driver is set up.
#[derive(Debug, Clone)]
pub struct CsiOptions {
    /// The driver's own socket.
    pub socket: PathBuf,
    /// The same socket as the kubelet sees it, where that differs.
    pub kubelet_socket_path: PathBuf,
    /// The kubelet's plugin registry folder; none registers nowhere, as in tests.
    pub registration_dir: Option<PathBuf>,
    /// The driver's name.
    pub driver_name: String,
    /// This node's name in the cluster.
    pub node_id: String,
    /// How long things are waited for.
    pub patience: Patience,
}

/// Why the driver could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A name that the interface does not allow.
    #[error(
        "driver name {0:?}: must be 1 to {MAX_DRIVER_NAME_LENGTH} letters, digits, '.' and '-', \
         with a letter or digit at both ends"
    )]
    DriverName(String),
    /// No node name.
    #[error("the node's name is empty; pass the name that `kubectl get nodes` shows")]
    NodeId,
    /// A socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Serving ended with an error.
    #[error("serving {path} failed: {source}")]
    Transport {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: tonic::transport::Error,
    },
}

/// The driver, bound to its sockets and not serving yet.
pub struct Server {
    sockets: Vec<Listening>,
    registration: watch::Receiver<Registration>,
}

/// One socket and what it serves.
struct Listening {
    socket: PrivateSocket,
    path: PathBuf,
    routes: Routes,
}

/// Serves the driver until it fails.
pub async fn serve(options: CsiOptions, mounter: Arc<dyn Mounter>) -> Result<(), ServeError> {
    Server::bind(options, mounter)?
        .run(std::future::pending())
        .await
}

impl CsiOptions {
    /// The options of a driver at `socket` on `node_id`, under its usual name, not registered with
    /// a kubelet.
    pub fn new(socket: PathBuf, node_id: impl Into<String>) -> Self {
        Self {
            kubelet_socket_path: socket.clone(),
            socket,
            registration_dir: None,
            driver_name: DRIVER_NAME.to_owned(),
            node_id: node_id.into(),
            patience: Patience::default(),
        }
    }

    fn check(&self) -> Result<(), ServeError> {
        let name = self.driver_name.as_bytes();
        let ends = name.first().zip(name.last());
        let is_valid = name.len() <= MAX_DRIVER_NAME_LENGTH
            && ends.is_some_and(|(a, b)| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
            && name
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        if !is_valid {
            return Err(ServeError::DriverName(self.driver_name.clone()));
        }
        if self.node_id.is_empty() {
            return Err(ServeError::NodeId);
        }
        Ok(())
    }
}

impl Server {
    /// Opens the sockets. Must be called on a tokio runtime.
    pub fn bind(options: CsiOptions, mounter: Arc<dyn Mounter>) -> Result<Self, ServeError> {
        options.check()?;
        let identity = Identity::new(options.driver_name.clone(), Arc::clone(&mounter));
        let node = Node::new(options.node_id, mounter, options.patience);
        let routes = Routes::new(IdentityServer::new(identity)).add_service(NodeServer::new(node));
        let mut sockets = vec![Listening::bind(options.socket, routes)?];
        let (sender, registration) = watch::channel(Registration::Pending);
        if let Some(dir) = &options.registration_dir {
            let path = socket_path(dir, &options.driver_name);
            let registrar =
                Registrar::new(options.driver_name, options.kubelet_socket_path, sender);
            let routes = Routes::new(RegistrationServer::new(registrar));
            sockets.push(Listening::bind(path, routes)?);
        }
        Ok(Self {
            sockets,
            registration,
        })
    }

    /// Where the registration with the kubelet stands, now and later.
    pub fn registration(&self) -> watch::Receiver<Registration> {
        self.registration.clone()
    }

    /// Serves until `shutdown` is ready and the calls that run then have ended, or one socket fails.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (stop, stopped) = watch::channel(false);
        let mut serving = tokio::task::JoinSet::new();
        for listening in self.sockets {
            let mut stopped = stopped.clone();
            serving.spawn(listening.serve(async move {
                // An error means that the sender is gone, which is a stop as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            }));
        }
        let first = tokio::select! {
            () = shutdown => None,
            first = serving.join_next() => first,
        };
        stop.send_replace(true);
        let rest = tokio::time::timeout(SHUTDOWN_GRACE, serving.join_all());
        let mut results: Vec<_> = first.and_then(Result::ok).into_iter().collect();
        if let Ok(ended) = rest.await {
            results.extend(ended);
        } else {
            tracing::warn!("calls were still running when the driver stopped");
        }
        results.into_iter().collect()
    }
}

impl Listening {
    fn bind(path: PathBuf, routes: Routes) -> Result<Self, ServeError> {
        let socket = PrivateSocket::bind(&path)?;
        Ok(Self {
            socket,
            path,
            routes,
        })
    }

    async fn serve(mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Some(listener) = self.socket.take_listener() else {
            return Ok(());
        };
        tonic::transport::Server::builder()
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop)
            .await
            .map_err(|source| ServeError::Transport {
                path: self.path,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    fn named(driver_name: &str) -> Result<(), ServeError> {
        let options = CsiOptions::new("/run/csi.sock".into(), "node-1");
        CsiOptions {
            driver_name: driver_name.to_owned(),
            ..options
        }
        .check()
    }

    #[test]
    fn driver_names_follow_the_interface() {
        named(DRIVER_NAME).unwrap();
        for bad in ["", "-a", "a.", "a/b", "a_b", &"a".repeat(64)] {
            assert!(
                matches!(named(bad), Err(ServeError::DriverName(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_node_without_a_name_is_refused() {
        let options = CsiOptions::new("/run/csi.sock".into(), "");
        assert!(matches!(options.check(), Err(ServeError::NodeId)));
    }
}
