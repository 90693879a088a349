//! Developer commands of this workspace: `cargo xtask codegen | layers | image`.
//!
//! What a shell script would do, in the language of the rest: typed, tested and the same on every
//! machine. Each command is one module; this file only reads the command line.

mod codegen;
mod image;
mod layers;
mod tools;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Developer commands of the alluxio-dataset workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One developer command.
#[derive(Subcommand)]
enum Command {
    /// Write every generated file, or check that all are up to date.
    Codegen(codegen::Options),
    /// Check the one-way graph of the workspace's crates.
    Layers,
    /// Make the container image, as an OCI archive and without a daemon.
    Image(image::Options),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Codegen(options) => codegen::run(&options),
        Command::Layers => layers::run(),
        Command::Image(options) => image::run(&options),
    }
}

/// The folder of the workspace's Cargo.toml.
fn workspace_root() -> Result<PathBuf> {
    let xtask = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = xtask
        .parent()
        .context("xtask lies in no folder; build it inside the workspace")?;
    Ok(root.to_owned())
}

/// Says one line to whoever ran the command: the one place that writes to standard output.
fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("writing to standard output")
}

/// Whether nothing may be left out: CI sets `CI=true`.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
