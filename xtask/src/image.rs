//! The container image, made without a daemon: build -> check the binary -> pack -> check the size.
//!
//! It holds one static binary and the few files that it needs: root certificates, a user to run as
//! and a `/tmp`. The same inputs give the same bytes: every time stamp is zero and every owner root.

mod binary;
mod oci;
mod root;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{say, workspace_root};

/// Under this the image is pulled in seconds on any network, and it is what the README promises.
const MAX_IMAGE_BYTES: u64 = 60_000_000;

/// Which image to make.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Full name of the image.
    #[arg(long, default_value = concat!("registry.local/alluxio-dataset:", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// Where to write the archive; `dist/alluxio-dataset-<version>.oci.tar` if not given.
    #[arg(long)]
    output: Option<PathBuf>,
    /// A static binary to pack; built from the workspace if not given.
    #[arg(long, env = "ALLUXIO_DATASET_BINARY")]
    binary: Option<PathBuf>,
}

/// Makes the image.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace_root()?;
    let path = match &options.binary {
        Some(path) => path.clone(),
        None => binary::build(&root)?,
    };
    let program = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    binary::check_static(&program).with_context(|| format!("checking {}", path.display()))?;
    let layer = root::layer(&program).context("packing the image's files")?;
    let archive = oci::archive(&options.tag, &layer).context("packing the image")?;
    let size = archive.len() as u64;
    if size > MAX_IMAGE_BYTES {
        bail!("the image is {size} bytes; it must stay below {MAX_IMAGE_BYTES}: see what grew");
    }
    let name = format!("alluxio-dataset-{}.oci.tar", env!("CARGO_PKG_VERSION"));
    let output = options
        .output
        .clone()
        .unwrap_or_else(|| root.join("dist").join(name));
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(&output, &archive).with_context(|| format!("writing {}", output.display()))?;
    say(&format!(
        "{}: {} MB, {}",
        output.display(),
        megabytes(size),
        options.tag
    ))
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn the_same_program_gives_the_same_image() {
        let make =
            || oci::archive("registry.local/x:1", &root::layer(b"program").unwrap()).unwrap();
        assert!(make() == make());
    }

    #[test]
    fn sizes_are_shown_in_megabytes() {
        assert_eq!(megabytes(41_250_000), "41.2");
    }
}
