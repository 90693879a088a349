//! `worker`: the embedded worker as a process.

use alluxio_worker::Worker;
use anyhow::{Context, Result};

use crate::args::WorkerArguments;
use crate::signals;

/// Serves until a signal asks it to end, then takes itself off the ring.
pub(crate) async fn run(arguments: WorkerArguments) -> Result<()> {
    let mut config = crate::dataset::read(&arguments.config)?;
    if arguments.advertised_host.is_some() {
        config.worker.advertised_host = arguments.advertised_host;
    }
    if arguments.identity.is_some() {
        config.worker.identity = arguments.identity;
    }
    let logging = &config.logging;
    crate::logs::start(&logging.level, logging.path.as_deref(), logging.format)?;
    let ended = signals::end()?;
    let worker = Worker::start(&config)
        .await
        .with_context(|| format!("cannot start the worker of {}", config.ufs.uri))?;
    tracing::info!(address = %worker.address(), id = %worker.record().id, "worker is ready");
    ended.await;
    tracing::info!("worker ends");
    worker.shutdown().await;
    Ok(())
}
