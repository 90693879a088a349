//! Who the driver is: the Identity service.
//!
//! It announces no Controller service, because there is none: the operator makes PersistentVolumes
//! from AlluxioDatasets, and nothing is provisioned or attached by the driver.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::mounter::Mounter;
use crate::proto::csi;

/// The Identity service.
pub struct Identity {
    driver_name: String,
    mounter: Arc<dyn Mounter>,
}

impl Identity {
    /// The identity of the driver called `driver_name`.
    pub fn new(driver_name: String, mounter: Arc<dyn Mounter>) -> Self {
        Self {
            driver_name,
            mounter,
        }
    }
}

#[tonic::async_trait]
impl csi::identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _request: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::GetPluginCapabilitiesResponse::default()))
    }

    async fn probe(
        &self,
        _request: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse {
            ready: Some(self.mounter.ready().await),
        }))
    }
}
