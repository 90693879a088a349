//! An image as an OCI archive: a tar of blobs named by their digests, and an index.
//!
//! containerd imports it under the name in the index; `manifest.json` is there for tools that know
//! only the older form.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::root::{Layer, append};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Time zero: an image made of the same files is the same image.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The archive of an image called `tag` with one layer.
pub(super) fn archive(tag: &str, layer: &Layer) -> Result<Vec<u8>> {
    let config = serde_json::to_vec(&config(&layer.diff_id))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer.bytes)],
    }))?;
    let mut tar = tar::Builder::new(Vec::new());
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    let older = json!([{
        "Config": blob_path(&config),
        "RepoTags": [tag],
        "Layers": [blob_path(&layer.bytes)],
    }]);
    append(
        &mut tar,
        "oci-layout",
        EntryType::Regular,
        0o644,
        &serde_json::to_vec(&layout)?,
    )?;
    append(
        &mut tar,
        "index.json",
        EntryType::Regular,
        0o644,
        &index(tag, &manifest)?,
    )?;
    append(
        &mut tar,
        "manifest.json",
        EntryType::Regular,
        0o644,
        &serde_json::to_vec(&older)?,
    )?;
    for folder in ["blobs/", "blobs/sha256/"] {
        append(&mut tar, folder, EntryType::Directory, 0o755, &[])?;
    }
    for blob in [&config, &manifest, &layer.bytes] {
        append(&mut tar, &blob_path(blob), EntryType::Regular, 0o644, blob)?;
    }
    tar.into_inner().context("closing the archive")
}

/// What runs, and as what.
fn config(diff_id: &str) -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {
            "Entrypoint": ["/alluxio-dataset"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "alluxio-dataset",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created": CREATED, "created_by": "cargo xtask image"}],
    })
}

fn index(tag: &str, manifest: &[u8]) -> Result<Vec<u8>> {
    let mut entry = descriptor(MANIFEST, manifest);
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    // The first is the full name that containerd reads, the second the tag alone, as the standard says.
    entry["annotations"] = json!({
        "io.containerd.image.name": tag,
        "org.opencontainers.image.ref.name": version_of(tag),
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    Ok(serde_json::to_vec(&index)?)
}

/// What follows the last colon of the last part of an image's name.
fn version_of(tag: &str) -> &str {
    let name = tag.rsplit('/').next().unwrap_or(tag);
    name.split_once(':')
        .map_or("latest", |(_, version)| version)
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", hex::encode(Sha256::digest(blob))),
        "size": blob.len(),
    })
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", hex::encode(Sha256::digest(blob)))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn every_blob_is_where_its_digest_says() {
        let layer = super::super::root::layer(b"program").unwrap();
        let bytes = archive("registry.local:5000/x/alluxio-dataset:1.2", &layer).unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, content);
        }
        let follow = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let blob = &files[&format!("blobs/{digest}")];
            assert_eq!(blob.len() as u64, descriptor["size"].as_u64().unwrap());
            blob.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(
            entry["annotations"]["org.opencontainers.image.ref.name"],
            "1.2"
        );
        let manifest: Value = serde_json::from_slice(&follow(entry)).unwrap();
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).unwrap();
        follow(&manifest["layers"][0]);
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", layer.diff_id)
        );
    }

    #[test]
    fn the_version_of_a_name_is_not_its_registrys_port() {
        assert_eq!(version_of("registry.local:5000/a"), "latest");
        assert_eq!(version_of("a/b:7"), "7");
    }
}
