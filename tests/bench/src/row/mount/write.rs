//! What an application writes through a mount, until the under-store has it.

use std::fs;

use anyhow::{Result, bail};

use super::{Beside, Mounted, Run, cache_folder, native};
use crate::child::spawn;
use crate::figure::Figure;
use crate::row::{Side, megabytes};
use crate::scene::BIG;

/// The name of the file that is written.
const NAME: &str = "written.bin";

/// A large file, beside the same on the disk. The mount writes it twice: to its staging folder, and to
/// the under-store, which is a folder of the same disk here, so half of the disk is all there is.
pub(in crate::row) fn large(run: &Run) -> Result<Vec<Figure>> {
    let from = native(run, BIG.0);
    let [ufs, staging, plain] = [
        "mount-write-ufs",
        "mount-write-staging",
        "mount-write-plain",
    ]
    .map(|name| cache_folder(run, name));
    let (ufs, plain) = (ufs?, plain?);
    let config = run.scene.writable_config("mount-write", &ufs, &staging?)?;
    let mounted = Mounted::start(run, &config)?;
    let write = |path: String| -> Side<'_> {
        let from = from.clone();
        Box::new(move || {
            let taken = spawn(&["file-write".to_owned(), from.clone(), path.clone()])?;
            // The next turn makes it anew and does not write over it.
            fs::remove_file(&path)?;
            Ok(taken)
        })
    };
    let taken = run.in_turn(&mut [write(mounted.at(NAME)), write(format!("{plain}/{NAME}"))])?;
    if taken[0].iter().any(|taken| taken.bytes < 1e9) {
        bail!("{NAME} was written in part");
    }
    let row = Beside {
        name: "mount-write",
        what: "1 GiB written in order and synchronised, on files",
        peer: "the same on the disk",
        unit: "MB/s",
        target: 0.4,
    };
    Ok(vec![row.figure(&taken, megabytes)])
}
