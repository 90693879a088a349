//! The one binary of alluxio-dataset. It only composes: what it does is in the libraries.

mod args;
mod commands;
mod dataset;
mod exit;
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
            let text = format!("{error:#}");
            if !text.is_empty() {
                output::note(format!("error: {text}"));
            }
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
        Command::Info(arguments) => commands::info::run(arguments).await,
        Command::Isdir(arguments) => commands::info::is_directory(arguments).await,
        Command::Cat(arguments) => commands::cat::run(arguments).await,
        Command::Head(arguments) => commands::cat::head(arguments).await,
        Command::Tail(arguments) => commands::cat::tail(arguments).await,
        Command::ReadBytes(arguments) => commands::cat::range(arguments).await,
        Command::WriteBytes(arguments) => commands::change::write_bytes(arguments).await,
        Command::Touch(arguments) => commands::change::touch(arguments).await,
        Command::Mkdir(arguments) => commands::change::mkdir(arguments).await,
        Command::Rm(arguments) => commands::change::rm(arguments).await,
        Command::Cp(arguments) => commands::transfer::cp(arguments).await,
        Command::Mv(arguments) => commands::transfer::mv(arguments).await,
        Command::Upload(arguments) => commands::transfer::upload(arguments).await,
        Command::Download(arguments) => commands::transfer::download(arguments).await,
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

/// Some ends have a code of their own.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    error
        .downcast_ref::<exit::Ended>()
        .map_or(ExitCode::FAILURE, |ended| ExitCode::from(ended.code))
}

/// `alluxio-dataset ls | head` ends when head does, and that is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
