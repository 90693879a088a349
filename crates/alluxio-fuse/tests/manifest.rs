//! A mount's tree over a manifest asks the store for nothing until a file is read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use alluxio_client::manifest::ManifestBuilder;
use alluxio_fuse::{ClientTree, Tree};
use alluxio_wire::{FileKind, FileStatus, UfsUri};

const DIRECTORIES: usize = 16;
const FILES_EACH: usize = 1000;

fn file(root: &UfsUri, path: &str, length: u64) -> FileStatus {
    let uri = root.join(path).unwrap();
    FileStatus {
        kind: FileKind::File,
        name: uri.name().to_owned(),
        path: format!("/{path}"),
        ufs_uri: uri.to_string(),
        modified_ms: 1_700_000_000_000,
        length,
        content_hash: None,
    }
}

/// The store is a folder that does not exist: whoever asks it for anything is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_16000_files_is_looked_through_without_asking_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("file://{}/none", folder.path().display());
    let root = UfsUri::parse(&root).unwrap();
    let target = folder.path().join("m");
    let mut builder = ManifestBuilder::new(root.clone(), &target, 1_700_000_000_000);
    for number in 0..DIRECTORIES * FILES_EACH {
        let path = format!("d{:02}/sub/f{number:05}", number % DIRECTORIES);
        builder.add(&file(&root, &path, number as u64)).unwrap();
    }
    builder.finish().unwrap();
    for consistency in ["live", "pinned"] {
        let yaml = format!(
            "ufs: {{uri: '{root}'}}\nclient: {{consistency: {consistency}, manifest: {{path: \
             '{}'}}}}\n",
            target.display()
        );
        let tree = ClientTree::connect(&yaml).await.unwrap();
        let mut found = 0;
        assert!(tree.status("").await.unwrap().is_directory());
        for directory in tree.list("").await.unwrap().iter() {
            let below = format!("{}/sub", directory.name);
            for entry in tree.list(&below).await.unwrap().iter() {
                let status = tree.status(&format!("{below}/{}", entry.name)).await;
                assert_eq!(*status.unwrap(), *entry);
                found += 1;
            }
        }
        assert_eq!(found, DIRECTORIES * FILES_EACH);
        // The store would have said no: what the manifest does not have is asked for, live.
        let missing = tree.status("other").await;
        assert!(missing.is_err());
        let opened = tree.open("d00/sub/f00016").await.unwrap();
        let read = alluxio_fuse::TreeFile::read_at(&opened, 0, 16).await;
        assert!(read.is_err(), "there are no bytes to be read");
    }
}
