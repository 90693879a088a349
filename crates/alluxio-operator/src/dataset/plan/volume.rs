//! The PersistentVolume and PersistentVolumeClaim of a dataset, and whether existing ones fit.

use std::collections::BTreeMap;

use alluxio_config::Config;
use alluxio_crds::dataset::MountSpec;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeSpec, SecretReference, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde_json::json;

use super::Misfit;
use crate::dataset::validate::{self, ValidDataset};
use crate::names;

/// What volume and claim say about their size. The field is required and means nothing for a
/// read-only view; it is small because a namespace's quota counts it.
const NOMINAL_CAPACITY: &str = "1Gi";

/// The volume and claim a dataset should have.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedVolume {
    /// Cluster-scoped.
    pub volume: PersistentVolume,
    /// Named as the dataset, in its namespace.
    pub claim: PersistentVolumeClaim,
}

impl WantedVolume {
    /// Builds both.
    pub fn of(dataset: &ValidDataset<'_>) -> Self {
        let volume_name = names::volume(dataset.namespace, dataset.name, dataset.uid);
        Self {
            claim: claim(dataset, &volume_name),
            volume: volume(dataset, &volume_name),
        }
    }
}

/// The labels of everything that the operator makes for a dataset.
pub(super) fn labels(dataset: &ValidDataset<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".to_owned(),
            names::MANAGER.to_owned(),
        ),
        (
            names::LABEL_DATASET.to_owned(),
            names::label_value(dataset.name),
        ),
        (names::LABEL_DATASET_UID.to_owned(), dataset.uid.to_owned()),
    ])
}

/// Why an existing volume cannot stay.
pub(super) fn misfit(
    wanted: &WantedVolume,
    volume: &PersistentVolume,
    claim: Option<&PersistentVolumeClaim>,
) -> Option<Misfit> {
    if !same_source(&wanted.volume, volume) {
        return Some(Misfit::Edited);
    }
    let bound_to = volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_ref();
    let claim_uid = claim.and_then(|claim| claim.metadata.uid.as_ref());
    bound_to
        .is_some_and(|uid| Some(uid) != claim_uid)
        .then_some(Misfit::Released)
}

fn same_source(wanted: &PersistentVolume, found: &PersistentVolume) -> bool {
    let (Some(wanted), Some(found)) = (&wanted.spec, &found.spec) else {
        return false;
    };
    let (Some(wanted_csi), Some(found_csi)) = (&wanted.csi, &found.csi) else {
        return false;
    };
    wanted.access_modes == found.access_modes
        && wanted_csi.driver == found_csi.driver
        && wanted_csi.node_stage_secret_ref == found_csi.node_stage_secret_ref
        && same_attributes(wanted_csi, found_csi)
}

/// The configuration is compared by meaning, and only what a mount reads of it: another release may
/// write the same one differently, and must not replace every volume for that.
fn same_attributes(wanted: &CSIPersistentVolumeSource, found: &CSIPersistentVolumeSource) -> bool {
    let attribute = |source: &CSIPersistentVolumeSource, name: &str| {
        source.volume_attributes.as_ref()?.get(name).cloned()
    };
    let config = |source| {
        let text = attribute(source, names::ATTRIBUTE_CONFIG)?;
        let config = Config::from_yaml(&text).ok()?;
        let Config {
            ufs,
            cluster,
            client,
            mount,
            logging,
            worker: _,
        } = config;
        Some((ufs, cluster, client, mount, logging))
    };
    let same = |name| attribute(wanted, name) == attribute(found, name);
    config(wanted) == config(found)
        && same(names::ATTRIBUTE_DATASET)
        && same(names::ATTRIBUTE_MOUNT_OPTIONS)
}

fn volume(dataset: &ValidDataset<'_>, name: &str) -> PersistentVolume {
    let qualified = dataset.object.qualified_name();
    PersistentVolume {
        metadata: ObjectMeta {
            labels: Some(labels(dataset)),
            annotations: Some(BTreeMap::from([(
                names::ANNOTATION_DATASET.to_owned(),
                qualified,
            )])),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(access_modes(dataset)),
            capacity: Some(nominal_capacity()),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: Some(dataset.namespace.to_owned()),
                name: Some(dataset.name.to_owned()),
                ..ObjectReference::default()
            }),
            csi: Some(source(dataset, name)),
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    }
}

fn source(dataset: &ValidDataset<'_>, volume_name: &str) -> CSIPersistentVolumeSource {
    let attributes = BTreeMap::from([
        (names::ATTRIBUTE_CONFIG.to_owned(), dataset.config.to_yaml()),
        (
            names::ATTRIBUTE_DATASET.to_owned(),
            dataset.object.qualified_name(),
        ),
        (
            names::ATTRIBUTE_MOUNT_OPTIONS.to_owned(),
            mount_options(&dataset.object.spec.mount),
        ),
    ]);
    let secret = validate::secret_name(dataset.object);
    let identity = json!([attributes, secret]).to_string();
    CSIPersistentVolumeSource {
        driver: names::DRIVER.to_owned(),
        node_stage_secret_ref: secret.map(|secret| SecretReference {
            name: Some(secret.to_owned()),
            namespace: Some(dataset.namespace.to_owned()),
        }),
        read_only: Some(dataset.config.mount.read_only),
        volume_handle: names::volume_handle(volume_name, &identity),
        volume_attributes: Some(attributes),
        ..CSIPersistentVolumeSource::default()
    }
}

fn mount_options(mount: &MountSpec) -> String {
    json!({
        "uid": mount.uid,
        "gid": mount.gid,
        "fileMode": mount.file_mode,
        "directoryMode": mount.directory_mode,
    })
    .to_string()
}

fn claim(dataset: &ValidDataset<'_>, volume_name: &str) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            labels: Some(labels(dataset)),
            name: Some(dataset.name.to_owned()),
            namespace: Some(dataset.namespace.to_owned()),
            owner_references: dataset
                .object
                .controller_owner_ref(&())
                .map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(access_modes(dataset)),
            resources: Some(VolumeResourceRequirements {
                requests: Some(nominal_capacity()),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Filesystem".to_owned()),
            volume_name: Some(volume_name.to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn access_modes(dataset: &ValidDataset<'_>) -> Vec<String> {
    let mode = if dataset.config.mount.read_only {
        "ReadOnlyMany"
    } else {
        "ReadWriteMany"
    };
    vec![mode.to_owned()]
}

fn nominal_capacity() -> BTreeMap<String, Quantity> {
    BTreeMap::from([("storage".to_owned(), Quantity(NOMINAL_CAPACITY.to_owned()))])
}
