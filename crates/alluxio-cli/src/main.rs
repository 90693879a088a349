//! The one binary of alluxio-dataset. It only composes: what it does is in the libraries.

mod args;
mod commands;
mod dataset;
mod logs;
mod mounting;
mod output;
mod quickstart;
mod report;
mod signals;

use std::process::ExitCode;

use anyhow::{Context, Result};
use args::{Arguments, Command};
use clap::Parser;

/// musl's own allocator takes one lock for all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("error: {error:#}"));
            exit_code(&error)
        }
    }
}

fn run(command: Command) -> Result<()> {
    // Fails only when a provider stands already, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    if let Command::MountDaemon = command {
        // It builds its own runtime after it took over what its supervisor handed to it.
        return commands::mount::daemon();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(dispatch(command));
    // A thread may wait for ever by design, such as the mounter's for its next caller.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Ls(arguments) => commands::ls::run(arguments).await,
        Command::Ring(arguments) => commands::ring::run(arguments).await,
        Command::Stat(arguments) => commands::stat::run(arguments).await,
        Command::Cat(arguments) => commands::cat::run(arguments).await,
        Command::Cp(arguments) => commands::cp::run(arguments).await,
        Command::Load(arguments) => commands::load::run(arguments).await,
        Command::Manifest(arguments) => commands::manifest::run(arguments).await,
        Command::Mount(arguments) => commands::mount::run(arguments).await,
        Command::MountDaemon => commands::mount::daemon(),
        Command::Worker(arguments) => commands::worker::run(arguments).await,
        Command::Operator(arguments) => commands::service::operator(arguments).await,
        Command::Csi(arguments) => commands::service::csi(arguments).await,
        Command::Mounter(arguments) => commands::mounter::run(arguments).await,
        Command::Crd => commands::crd::run(),
        Command::Quickstart(arguments) => quickstart::run(arguments).await,
    }
}

/// A load that ended otherwise than well says so by a code of its own.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    error
        .downcast_ref::<commands::load::Ended>()
        .map_or(ExitCode::FAILURE, |ended| ExitCode::from(ended.code))
}

/// `alluxio-dataset ls | head` ends when head does, and that is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
