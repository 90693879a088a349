//! Measures whole paths, each against a limit or a peer in the same run.
//!
//! `bench run` starts real servers (embedded worker, versitygw, nginx) on loopback, takes each row's
//! two sides in turn, and prints the medians' ratio beside what it must reach. What is measured runs
//! in processes of its own (`bench child ...`), so that CPU time and memory are the measured side's
//! alone. `bench report` draws the table and the plot of `docs/performance.md` from the JSON.

mod child;
mod figure;
mod report;
mod row;
mod scene;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::child::Work;

/// Measures alluxio-dataset against limits and peers.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  bench run --json dist/bench.json            all rows, about ten minutes
  bench run --only worker,ring                rows whose name contains one of these
  bench report dist/bench.json                write docs/performance.{json,svg} and its table")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure.
    Run(RunArguments),
    /// Write table and plot from the figures of a run.
    Report {
        /// What `run --json` wrote.
        figures: PathBuf,
        /// Folder of the document.
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// One side of a measurement, in a process of its own.
    #[command(subcommand, hide = true)]
    Child(Work),
}

/// `run`.
#[derive(clap::Args)]
struct RunArguments {
    /// Where the figures go.
    #[arg(long, value_name = "FILE", default_value = "dist/bench.json")]
    json: PathBuf,
    /// Rows whose name contains one of these words.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often each side is taken; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The product's binary.
    #[arg(long, default_value = "target/release/alluxio-dataset")]
    product: PathBuf,
    /// A Python with the published SDK (`alluxio` 1.0.0).
    #[arg(long, env = "BENCH_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Folder for data, about 8 GiB; a temporary one where it is left out.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Fail when a row does not reach its target.
    #[arg(long)]
    strict: bool,
}

/// The product's own: what is measured is what is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode> {
    // Fails only where one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Run(arguments) => row::run(&arguments),
        Command::Report { figures, docs } => {
            report::write(&figures, &docs)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Child(work) => {
            child::run(work)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The one writer to standard output.
fn say(line: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
