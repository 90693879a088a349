//! Every generated file of the repository, from one command.
//!
//! Each generator returns texts by path and touches no file, so that writing and checking are the
//! same work with another end. A check also finds files that nothing generates any more.

mod crds;
mod install;
mod proto;
mod reference;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{say, workspace_root};

/// What to generate, and whether to write it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing; fail if a generated file is missing, outdated or left over.
    #[arg(long)]
    check: bool,
    /// Generate these parts alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// One kind of generated file.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Rust code of the gRPC interfaces.
    Proto,
    /// The custom resources' definitions.
    Crds,
    /// The field reference.
    Reference,
    /// The install manifest, rendered from the chart.
    Install,
}

/// What a generator made.
#[derive(Default)]
pub(crate) struct Generated {
    /// Texts by path below the workspace's root.
    files: BTreeMap<PathBuf, String>,
    /// Folders in which nothing else may lie.
    folders: Vec<PathBuf>,
}

impl Generated {
    /// Adds a file.
    pub(crate) fn file(&mut self, path: impl Into<PathBuf>, text: String) {
        self.files.insert(path.into(), text);
    }

    /// Claims a folder.
    pub(crate) fn folder(&mut self, path: impl Into<PathBuf>) {
        self.folders.push(path.into());
    }
}

/// Runs the generators that were asked for.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace_root()?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut generated = Generated::default();
    if wanted(Part::Proto) {
        proto::generate(&root, &mut generated)?;
    }
    if wanted(Part::Crds) {
        crds::generate(&mut generated)?;
    }
    if wanted(Part::Reference) {
        reference::generate(&mut generated)?;
    }
    if wanted(Part::Install) {
        // The chart as it will be, not as it lies there: its CRDs are generated as well.
        let mut fresh = Generated::default();
        crds::generate(&mut fresh)?;
        install::generate(&root, &fresh.files, &mut generated)?;
    }
    if options.check {
        check(&root, &generated)
    } else {
        write(&root, &generated)
    }
}

fn write(root: &Path, generated: &Generated) -> Result<()> {
    for (path, text) in &generated.files {
        let full = root.join(path);
        if fs::read_to_string(&full).is_ok_and(|old| old == *text) {
            continue;
        }
        let folder = full.parent().context("a generated file has no folder")?;
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(&full, text).with_context(|| format!("writing {}", full.display()))?;
        say(&format!("wrote {}", path.display()))?;
    }
    for path in strays(root, generated)? {
        fs::remove_file(root.join(&path))
            .with_context(|| format!("removing {}", path.display()))?;
        say(&format!("removed {}", path.display()))?;
    }
    Ok(())
}

fn check(root: &Path, generated: &Generated) -> Result<()> {
    let mut wrong = Vec::new();
    for (path, text) in &generated.files {
        match fs::read_to_string(root.join(path)) {
            Ok(found) if found == *text => {}
            Ok(found) => wrong.push(format!("{}: {}", path.display(), difference(&found, text))),
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    let strays = strays(root, generated)?;
    wrong.extend(
        strays
            .iter()
            .map(|path| format!("{}: nothing generates it", path.display())),
    );
    if wrong.is_empty() {
        return say(&format!(
            "{} generated files are up to date",
            generated.files.len()
        ));
    }
    bail!(
        "generated files differ; run `cargo xtask codegen`:\n  {}",
        wrong.join("\n  ")
    );
}

/// Where two texts part, in words.
fn difference(found: &str, wanted: &str) -> String {
    let same = found
        .lines()
        .zip(wanted.lines())
        .take_while(|(a, b)| a == b)
        .count();
    format!("outdated from line {}", same + 1)
}

/// Files in claimed folders that nothing generates.
fn strays(root: &Path, generated: &Generated) -> Result<Vec<PathBuf>> {
    let mut strays = Vec::new();
    for folder in &generated.folders {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = folder.join(entry?.file_name());
            if !generated.files.contains_key(&path) {
                strays.push(path);
            }
        }
    }
    Ok(strays)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    fn sample() -> Generated {
        let mut generated = Generated::default();
        generated.file("out/a.txt", "one\ntwo\n".into());
        generated.folder("out");
        generated
    }

    #[test]
    fn what_was_written_passes_the_check() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &sample()).unwrap();
        check(root.path(), &sample()).unwrap();
    }

    #[test]
    fn an_edited_a_missing_and_a_left_over_file_fail_the_check() {
        let root = tempfile::tempdir().unwrap();
        let message = check(root.path(), &sample()).unwrap_err().to_string();
        assert!(message.contains("out/a.txt"), "{message}");
        write(root.path(), &sample()).unwrap();
        fs::write(root.path().join("out/a.txt"), "one\n2\n").unwrap();
        fs::write(root.path().join("out/old.txt"), "").unwrap();
        let message = check(root.path(), &sample()).unwrap_err().to_string();
        assert!(message.contains("outdated from line 2"), "{message}");
        assert!(
            message.contains("out/old.txt: nothing generates it"),
            "{message}"
        );
        write(root.path(), &sample()).unwrap();
        check(root.path(), &sample()).unwrap();
    }
}
