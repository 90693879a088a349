//! Names and labels of what the operator makes, and the limits Kubernetes puts on them.
//!
//! A name that is too long is hashed, not cut: two datasets whose names share their first 63
//! characters must never share a volume.

use sha2::{Digest, Sha256};

/// The field manager of every server-side apply.
pub const MANAGER: &str = "alluxio-dataset-operator";
/// The finalizer on datasets and loads.
pub const FINALIZER: &str = "data.alluxio.io/cleanup";
/// The CSI driver that mounts our volumes.
pub const DRIVER: &str = "csi.alluxio-dataset.io";
/// Label: the dataset's name, hashed when it is too long for a label.
pub const LABEL_DATASET: &str = "data.alluxio.io/dataset";
/// Label: the dataset's uid. An object that does not carry it is not ours and is left alone, but
/// for the loads that users made for a dataset: they are deleted with it.
pub const LABEL_DATASET_UID: &str = "data.alluxio.io/dataset-uid";
/// Annotation on the cluster-scoped volume: `namespace/name` of the dataset, in full.
pub const ANNOTATION_DATASET: &str = "data.alluxio.io/dataset";
/// Volume attribute: the client's configuration as YAML, without secrets.
pub const ATTRIBUTE_CONFIG: &str = "alluxio-dataset.io/config";
/// Volume attribute: `namespace/name` of the dataset.
pub const ATTRIBUTE_DATASET: &str = "alluxio-dataset.io/dataset";
/// Volume attribute: JSON with uid, gid, fileMode, directoryMode.
pub const ATTRIBUTE_MOUNT_OPTIONS: &str = "alluxio-dataset.io/mount-options";

/// The longest label value and DNS label.
const MAX_LABEL: usize = 63;
/// Hex digits of a hash within a name: 32 bits tell the few objects of one dataset apart.
const SHORT_HASH: usize = 8;
/// Hex digits that replace the end of a long name: 64 bits tell all names of a cluster apart.
const LONG_HASH: usize = 16;

/// The dataset's PersistentVolume, which has no namespace of its own.
pub fn volume(namespace: &str, dataset: &str, uid: &str) -> String {
    let hash = short_hash(&[namespace, dataset, uid]);
    bounded(&format!("alluxio-{namespace}-{dataset}-{hash}"))
}

/// What the CSI driver knows a volume by. Another configuration is another volume, so that a node
/// never meets one handle with two meanings.
pub fn volume_handle(volume: &str, attributes: &str) -> String {
    format!("{volume}-{}", short_hash(&[attributes]))
}

/// The AlluxioDataLoad for one version of a dataset's load spec.
pub fn load(dataset: &str, uid: &str, wanted: &str) -> String {
    let hash = short_hash(&[uid, wanted]);
    bounded(&format!("{dataset}-load-{hash}"))
}

/// A text as a label's value.
pub fn label_value(text: &str) -> String {
    bounded(text)
}

fn bounded(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    let keep = name.floor_char_boundary(MAX_LABEL - LONG_HASH - 1);
    let readable = name[..keep].trim_end_matches(['-', '.']);
    format!("{readable}-{}", &hash(&[name])[..LONG_HASH])
}

fn short_hash(parts: &[&str]) -> String {
    hash(parts)[..SHORT_HASH].to_owned()
}

/// Parts are told apart by a byte that no part has.
fn hash(parts: &[&str]) -> String {
    hex::encode(Sha256::digest(parts.join("\0").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_readable() {
        let name = volume("vision", "imagenet", "uid-1");
        assert!(name.starts_with("alluxio-vision-imagenet-"), "{name}");
        assert!(load("imagenet", "uid-1", "spec").starts_with("imagenet-load-"));
        assert_eq!(label_value("imagenet"), "imagenet");
    }

    #[test]
    fn long_names_that_differ_at_the_end_stay_different() {
        let long = "x".repeat(80);
        let (one, two) = (format!("{long}1"), format!("{long}2"));
        assert_ne!(label_value(&one), label_value(&two));
        assert_ne!(load(&one, "u", "s"), load(&two, "u", "s"));
        for name in [
            label_value(&one),
            volume("ns", &one, "u"),
            load(&one, "u", "s"),
        ] {
            assert!(name.len() <= 63, "{name}");
        }
    }

    #[test]
    fn a_border_between_parts_is_part_of_the_name() {
        assert_ne!(volume("a-b", "c", "u"), volume("a", "b-c", "u"));
        assert_ne!(volume("a", "b", "u1"), volume("a", "b", "u2"));
    }

    #[test]
    fn another_configuration_is_another_handle() {
        assert_ne!(volume_handle("v", "one"), volume_handle("v", "two"));
    }
}
