//! Step 1: what is there now? Reads only, each bounded.
//!
//! Of a Secret only the names of its keys are kept: its values are dropped while they are parsed,
//! and the kubelet alone hands them to the mount. No error and no log repeats what was read.

use std::collections::HashMap;

use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret};
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};

use super::{client_config, validate};
use crate::context::Context;
use crate::names;
use crate::workers::Survey;

/// Objects a page of a list; a namespace rarely has more loads.
pub(crate) const PAGE: u32 = 500;

/// Everything a plan for one dataset is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Secret of the under-store's credentials.
    pub secret: SecretState,
    /// The PersistentVolume of this dataset's name.
    pub volume: Option<PersistentVolume>,
    /// The PersistentVolumeClaim of the dataset's name.
    pub claim: Option<PersistentVolumeClaim>,
    /// All loads of this dataset, of the operator's and of users' making.
    pub loads: Vec<AlluxioDataLoad>,
    /// The workers.
    pub survey: Survey,
}

/// What is known of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// The spec refers to none.
    NotNeeded,
    /// It does not exist.
    Missing,
    /// It has these keys.
    Keys(Vec<String>),
}

/// Why the cluster could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The API server did not give an object.
    #[error("{what} of AlluxioDataset {dataset} cannot be read: {source}")]
    Read {
        /// What was asked for.
        what: &'static str,
        /// `namespace/name`.
        dataset: String,
        /// What the API server said.
        source: kube::Error,
    },
}

/// The keys of a Secret, and nothing else of it.
#[derive(Deserialize)]
struct SecretKeys {
    #[serde(default)]
    #[allow(
        clippy::zero_sized_map_values,
        reason = "serde reads an object as a map; that its values are dropped is the point"
    )]
    data: HashMap<String, IgnoredAny>,
}

/// Reads what belongs to the dataset.
pub async fn observe(
    context: &Context,
    dataset: &AlluxioDataset,
) -> Result<Observed, ObserveError> {
    let namespace = dataset.metadata.namespace.as_deref().unwrap_or_default();
    let name = dataset.metadata.name.as_deref().unwrap_or_default();
    let uid = dataset.metadata.uid.as_deref().unwrap_or_default();
    let failed = |what| {
        move |source| ObserveError::Read {
            what,
            dataset: dataset.qualified_name(),
            source,
        }
    };
    let client = &context.client;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let volume_name = names::volume(namespace, name, uid);
    let (secret, volume, claim, loads, survey) = tokio::join!(
        secret(context, namespace, validate::secret_name(dataset)),
        volumes.get_opt(&volume_name),
        claims.get_opt(name),
        loads_of(context, namespace, name),
        survey(context, dataset, uid),
    );
    Ok(Observed {
        secret: secret.map_err(failed("the Secret"))?,
        volume: volume.map_err(failed("the PersistentVolume"))?,
        claim: claim.map_err(failed("the PersistentVolumeClaim"))?,
        loads: loads.map_err(failed("the list of AlluxioDataLoads"))?,
        survey,
    })
}

/// All loads of a dataset. A stored object that this version cannot read is left out and logged:
/// it must not hide the others.
pub async fn loads_of(
    context: &Context,
    namespace: &str,
    dataset: &str,
) -> Result<Vec<AlluxioDataLoad>, kube::Error> {
    let loads: Api<DeserializeGuard<AlluxioDataLoad>> =
        Api::namespaced(context.client.clone(), namespace);
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = loads.list(&page).await?;
        let next = list
            .metadata
            .continue_
            .clone()
            .filter(|token| !token.is_empty());
        for guarded in list.items {
            match guarded.0 {
                Ok(load) if load.spec.dataset_ref.name == dataset => found.push(load),
                Ok(_) => {}
                Err(invalid) => {
                    let name = invalid.metadata.name.as_deref().unwrap_or_default();
                    tracing::warn!(name, error = %invalid, "AlluxioDataLoad left out");
                }
            }
        }
        match next {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn survey(context: &Context, dataset: &AlluxioDataset, uid: &str) -> Survey {
    let generation = dataset.metadata.generation.unwrap_or_default();
    match client_config(dataset) {
        Ok(config) => {
            context
                .surveys
                .get(uid, generation, &config, &context.workers)
                .await
        }
        Err(_) => Survey::none(),
    }
}

async fn secret(
    context: &Context,
    namespace: &str,
    name: Option<&str>,
) -> Result<SecretState, kube::Error> {
    let Some(name) = name else {
        return Ok(SecretState::NotNeeded);
    };
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let url = format!("{}/{name}", secrets.resource_url());
    let request = http_get(&url)?;
    // As text: where the client parses an answer itself, it logs one that it cannot read.
    match context.client.request_text(request).await {
        Ok(text) => Ok(SecretState::Keys(keys_in(&text)?)),
        Err(kube::Error::FromUtf8(_)) => Err(no_secret()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(SecretState::Missing),
        Err(error) => Err(error),
    }
}

/// The names of a Secret's keys.
fn keys_in(text: &str) -> Result<Vec<String>, kube::Error> {
    let secret: SecretKeys = serde_json::from_str(text).map_err(|_| no_secret())?;
    Ok(secret.data.into_keys().collect())
}

/// A parser's own words may quote a value.
fn no_secret() -> kube::Error {
    kube::Error::SerdeError(serde_json::Error::custom("the answer is not a Secret"))
}

fn http_get(url: &str) -> Result<http::Request<Vec<u8>>, kube::Error> {
    http::Request::get(url)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn of_a_secret_only_the_keys_are_kept() {
        let keys = keys_in(r#"{"kind":"Secret","data":{"key":"aHVudGVy"}}"#).unwrap();
        assert_eq!(keys, ["key"]);
        assert!(keys_in(r#"{"kind":"Secret"}"#).unwrap().is_empty());
    }

    #[test]
    fn an_unreadable_secret_is_not_repeated() {
        for text in [r#"{"data":"aHVudGVy"}"#, r#"{"data":{"key":"aHVudGVy"#] {
            let error = keys_in(text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("aHVudGVy"), "{said}");
        }
    }
}
