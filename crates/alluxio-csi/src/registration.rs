//! How the kubelet learns of the driver.
//!
//! The kubelet watches a folder; for each socket that appears there it asks who it is and then says
//! how the registration went. No sidecar is needed for that. A refusal is logged and kept for the
//! health endpoint; the kubelet itself tries again while the socket is there.

use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};

/// The kubelet's name for this kind of plugin.
const PLUGIN_TYPE: &str = "CSIPlugin";
/// The interface version that the kubelet checks: any 1.x is fine.
const SUPPORTED_VERSION: &str = "1.0.0";

/// Where the registration with the kubelet stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Registration {
    /// The kubelet has not answered yet.
    #[default]
    Pending,
    /// The kubelet took the driver.
    Registered,
    /// The kubelet refused, for this reason.
    Refused(String),
}

/// The registration service.
pub(crate) struct Registrar {
    driver_name: String,
    endpoint: PathBuf,
    state: watch::Sender<Registration>,
}

impl Registrar {
    /// A service that offers the driver's own socket, as the kubelet sees it, at `endpoint`.
    pub(crate) fn new(
        driver_name: String,
        endpoint: PathBuf,
        state: watch::Sender<Registration>,
    ) -> Self {
        Self {
            driver_name,
            endpoint,
            state,
        }
    }
}

/// Where the kubelet looks for the driver's registration.
///
/// The kubelet (1.35, `operation_generator.go`) dials this socket without naming an authority, so
/// its gRPC library sends the path, `/` as `%2F`, in the `:authority` header. The HTTP libraries
/// under tonic take a `%` only in the user part of an authority and reset every other call with
/// PROTOCOL_ERROR. With an `@` in the file's name, which that gRPC library leaves as it is, the
/// folders become the user part. The driver's own socket needs no such name: for it the kubelet
/// sends `localhost`.
pub(crate) fn socket_path(registration_dir: &Path, driver_name: &str) -> PathBuf {
    registration_dir.join(format!("reg@{driver_name}.sock"))
}

#[tonic::async_trait]
impl registration_server::Registration for Registrar {
    async fn get_info(
        &self,
        _request: Request<InfoRequest>,
    ) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: vec![SUPPORTED_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        let state = if status.plugin_registered {
            tracing::info!(driver = %self.driver_name, "registered with the kubelet");
            Registration::Registered
        } else {
            tracing::error!(
                driver = %self.driver_name,
                endpoint = %self.endpoint.display(),
                error = %status.error,
                "the kubelet refused the driver; check that the endpoint is the host's path"
            );
            Registration::Refused(status.error)
        };
        self.state.send_replace(state);
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
