//! The dataset under test: what training data looks like, with its sha256 sums as the truth.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use opendal::services::S3;
use opendal::{HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use sha2::{Digest as _, Sha256};

use crate::services::{BUCKET, ObjectStore, http_client};

/// Where the dataset is in the bucket.
pub(crate) const PREFIX: &str = "imagenet/train";
/// Uploads at one time.
const UPLOADS: usize = 8;
/// Parts of a large upload: S3's smallest part is 5 MiB.
const PART_BYTES: usize = 16 << 20;
/// How many differences an error names.
const NAMED_DIFFERENCES: usize = 5;

/// One file to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FilePlan {
    path: String,
    bytes: usize,
    /// What its format begins with.
    magic: &'static [u8],
    seed: u64,
}

/// What was uploaded.
#[derive(Clone, Debug)]
pub(crate) struct Dataset {
    /// Hexadecimal sha256 by path below the dataset's root.
    pub(crate) sums: BTreeMap<String, String>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

impl Dataset {
    /// Makes the files and uploads them.
    pub(crate) async fn upload(store: &ObjectStore) -> Result<Self> {
        let operator = operator(store)?;
        let uploads = plan().into_iter().map(|file| put(&operator, file));
        let uploaded: Vec<(String, String, u64)> = futures::stream::iter(uploads)
            .buffer_unordered(UPLOADS)
            .try_collect()
            .await?;
        let bytes = uploaded.iter().map(|(_, _, bytes)| bytes).sum();
        let sums = uploaded.into_iter().map(|(path, sum, _)| (path, sum));
        Ok(Self {
            sums: sums.collect(),
            bytes,
        })
    }

    /// Fails unless a reader saw exactly these files with these bytes.
    pub(crate) fn compare(&self, seen: &BTreeMap<String, String>) -> Result<()> {
        let missing = self.sums.keys().filter(|path| !seen.contains_key(*path));
        let missing = missing.map(|path| format!("{path} was not seen"));
        let others = seen
            .iter()
            .filter_map(|(path, sum)| match self.sums.get(path) {
                Some(expected) if expected == sum => None,
                Some(expected) => Some(format!("{path}: expected {expected}, seen {sum}")),
                None => Some(format!("{path} is not in the dataset")),
            });
        let differences: Vec<String> = missing.chain(others).collect();
        if differences.is_empty() {
            return Ok(());
        }
        let named = differences.iter().take(NAMED_DIFFERENCES).cloned();
        bail!(
            "{} of {} files differ: {}",
            differences.len(),
            self.sums.len(),
            named.collect::<Vec<_>>().join("; ")
        )
    }
}

/// The sums of all objects below a folder of the bucket, as the server has them.
pub(crate) async fn stored_sums(
    store: &ObjectStore,
    folder: &str,
) -> Result<BTreeMap<String, String>> {
    let operator = operator(store)?;
    let mut sums = BTreeMap::new();
    for entry in operator.list_with(folder).recursive(true).await? {
        let path = entry.path();
        if entry.metadata().is_dir() {
            continue;
        }
        let bytes = operator.read(path).await?.to_bytes();
        let path = path.strip_prefix(folder).unwrap_or(path).to_owned();
        sums.insert(path, hex::encode(Sha256::digest(&bytes)));
    }
    Ok(sums)
}

/// Puts one object.
pub(crate) async fn put_object(store: &ObjectStore, key: &str, bytes: &'static [u8]) -> Result<()> {
    operator(store)?.write(key, bytes).await?;
    Ok(())
}

/// Hundreds of small files, some of several pages, one of many, and the corner cases of names and
/// sizes: an empty file, exact pages, a byte more and less, a space, letters beyond ASCII.
fn plan() -> Vec<FilePlan> {
    const PAGE: usize = 1 << 20;
    let mut files = Vec::new();
    let mut add = |path: String, bytes: usize, magic: &'static [u8]| {
        let seed = files.len() as u64;
        files.push(FilePlan {
            path,
            bytes,
            magic,
            seed,
        });
    };
    for class in 0..12 {
        for image in 0..25 {
            let bytes = 8_000 + 4_321 * (class * 25 + image) % 120_000;
            let path = format!("images/class-{class:02}/{image:04}.jpg");
            add(path, bytes, b"\xff\xd8\xff\xe0\x00\x10JFIF\x00");
        }
    }
    for part in 0..4 {
        let path = format!("tables/part-{part:05}.parquet");
        add(path, 5 * PAGE + 77_777 * (part + 1), b"PAR1");
    }
    add(
        "model/weights.safetensors".to_owned(),
        72 * PAGE + 12_345,
        b"",
    );
    add("deep/a/b/c/d/e/leaf.bin".to_owned(), 3_000, b"");
    add("sizes/empty".to_owned(), 0, b"");
    add("sizes/one-byte".to_owned(), 1, b"");
    add("sizes/page".to_owned(), PAGE, b"");
    add("sizes/page-minus-one".to_owned(), PAGE - 1, b"");
    add("sizes/page-plus-one".to_owned(), PAGE + 1, b"");
    add("names/with a space.txt".to_owned(), 500, b"");
    add("names/größe-データ.txt".to_owned(), 500, b"");
    files
}

/// The file's bytes: different in every 4 KiB of every file, so that no wrong page goes unseen.
fn content(file: &FilePlan) -> Vec<u8> {
    let mut state = (file.seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(file.bytes + 8);
    while bytes.len() < file.bytes {
        // xorshift64: fast without optimisation, and never repeats within a file.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(file.bytes);
    let magic = file.magic.len().min(file.bytes);
    bytes[..magic].copy_from_slice(&file.magic[..magic]);
    bytes
}

async fn put(operator: &Operator, file: FilePlan) -> Result<(String, String, u64)> {
    let made = tokio::task::spawn_blocking(move || {
        let bytes = content(&file);
        let sum = hex::encode(Sha256::digest(&bytes));
        (file.path, bytes, sum)
    });
    let (path, bytes, sum) = made.await?;
    let length = bytes.len() as u64;
    let key = format!("{PREFIX}/{path}");
    operator
        .write_with(&key, bytes)
        .chunk(PART_BYTES)
        .await
        .with_context(|| format!("cannot upload {key}"))?;
    Ok((path, sum, length))
}

fn operator(store: &ObjectStore) -> Result<Operator> {
    let service = S3::default()
        .bucket(BUCKET)
        .endpoint(&store.endpoint)
        .region("us-east-1")
        .access_key_id(&store.access_key)
        .secret_access_key(&store.secret_key)
        .disable_config_load();
    let transport = HttpTransporter::new(ReqwestTransport::new(http_client()?));
    let context = OperationContext::new().with_http_transport(transport);
    Ok(Operator::new(service)?.with_context(context))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_plan_has_what_training_data_has() {
        let files = plan();
        assert!(files.len() > 300);
        assert!(files.iter().any(|file| file.bytes > 64 << 20));
        let paths: std::collections::BTreeSet<&String> = files.iter().map(|f| &f.path).collect();
        assert_eq!(paths.len(), files.len(), "paths are unique");
    }

    #[test]
    fn content_is_the_files_own_and_begins_with_its_magic() {
        let files = plan();
        let (first, second) = (content(&files[0]), content(&files[1]));
        assert_eq!(first.len(), files[0].bytes);
        assert!(first.starts_with(b"\xff\xd8"));
        assert_ne!(first[100..200], second[100..200]);
    }

    #[test]
    fn a_difference_of_any_kind_is_named() {
        let dataset = Dataset {
            sums: BTreeMap::from([
                ("a".to_owned(), "1".to_owned()),
                ("b".to_owned(), "2".to_owned()),
            ]),
            bytes: 0,
        };
        assert!(dataset.compare(&dataset.sums).is_ok());
        let seen = BTreeMap::from([
            ("b".to_owned(), "3".to_owned()),
            ("c".to_owned(), "4".to_owned()),
        ]);
        let text = dataset.compare(&seen).unwrap_err().to_string();
        assert!(text.contains("a was not seen"), "{text}");
        assert!(text.contains("b: expected 2, seen 3"), "{text}");
        assert!(text.contains("c is not in the dataset"), "{text}");
    }
}
