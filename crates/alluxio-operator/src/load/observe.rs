//! Step 1: which dataset is it for, and can that one be loaded?

use alluxio_config::Config;
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use kube::ResourceExt;
use kube::api::Api;

use crate::context::Context;
use crate::dataset::client_config;

/// The dataset as a load sees it.
#[derive(Clone, Debug)]
pub(super) enum Observed {
    /// It can be loaded with this configuration.
    Dataset(Box<Config>),
    /// It cannot: why, and what to do.
    NotLoadable(String),
}

/// Why the dataset could not be read.
#[derive(Debug, thiserror::Error)]
#[error("AlluxioDataset {dataset} of AlluxioDataLoad {load} cannot be read: {source}")]
pub struct ObserveError {
    dataset: String,
    load: String,
    source: kube::Error,
}

/// Reads the dataset of a load.
pub(super) async fn observe(
    context: &Context,
    load: &AlluxioDataLoad,
) -> Result<Observed, ObserveError> {
    let namespace = load.namespace().unwrap_or_default();
    let name = &load.spec.dataset_ref.name;
    let datasets: Api<AlluxioDataset> = Api::namespaced(context.client.clone(), &namespace);
    let found = datasets
        .get_opt(name)
        .await
        .map_err(|source| ObserveError {
            dataset: format!("{namespace}/{name}"),
            load: super::qualified_name(load),
            source,
        })?;
    let Some(dataset) = found else {
        return Ok(Observed::NotLoadable(format!(
            "AlluxioDataset {namespace}/{name} does not exist: create it, or correct \
             spec.datasetRef by making another load"
        )));
    };
    Ok(match client_config(&dataset) {
        Ok(config) => Observed::Dataset(Box::new(config)),
        Err(invalid) => Observed::NotLoadable(invalid.to_string()),
    })
}
