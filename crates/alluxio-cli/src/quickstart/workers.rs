//! Three embedded workers, each a process of its own, so that one can be killed for real.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use alluxio_config::Config;
use alluxio_config::{HostPort, Membership};
use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Workers to start: with fewer the ring has nothing to fail over between.
const WORKERS: u8 = 3;
/// How long a worker may take until its HTTP port answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at a port that is not open yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The running workers.
pub(crate) struct Workers {
    children: Vec<(HostPort, Child)>,
}

/// Finds a free port on an address of its own for each worker.
///
/// Alluxio identifies a worker of a static list by its host, so each has its own loopback address.
pub(crate) async fn addresses() -> Result<Vec<HostPort>> {
    let mut found = Vec::new();
    for last in 1..=WORKERS {
        let host = format!("127.0.0.{last}");
        let listener = TcpListener::bind((host.as_str(), 0)).await?;
        let port = listener.local_addr()?.port();
        found.push(HostPort { host, port });
    }
    Ok(found)
}

impl Workers {
    /// Starts a worker at each address of the configuration, with folders below `state`.
    pub(crate) async fn start(config: &Config, state: &Path) -> Result<Self> {
        let Membership::Static { workers } = &config.cluster.membership else {
            bail!("the quickstart's workers are listed statically");
        };
        let mut started = Self {
            children: Vec::new(),
        };
        for (index, worker) in workers.iter().enumerate() {
            let directory = state.join(format!("worker-{index}"));
            std::fs::create_dir_all(&directory)?;
            let file = directory.join("config.yaml");
            write_private(&file, &own_config(config, worker, &directory)?)?;
            let log = std::fs::File::create(directory.join("log.txt"))?;
            let child = Command::new(std::env::current_exe()?)
                .arg("worker")
                .arg("--config")
                .arg(&file)
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .context("cannot start a worker process")?;
            started.children.push((worker.clone(), child));
        }
        for (worker, child) in &mut started.children {
            wait_until_open(worker, child, state).await?;
        }
        Ok(started)
    }

    /// Kills the first worker with SIGKILL and waits until it is gone; tells which it was.
    pub(crate) async fn kill_one(&mut self) -> Result<HostPort> {
        if self.children.is_empty() {
            bail!("no worker is left to kill");
        }
        let (worker, mut child) = self.children.remove(0);
        child.kill().await?;
        Ok(worker)
    }

    /// Ends all workers.
    pub(crate) async fn stop(mut self) {
        for (_, child) in &mut self.children {
            // One that ended by itself is as good as killed.
            let _gone = child.kill().await;
        }
    }
}

fn own_config(config: &Config, worker: &HostPort, directory: &Path) -> Result<String> {
    let mut own = config.clone();
    own.worker.listen = format!("{}:{}", worker.host, worker.port).parse()?;
    own.worker.advertised_host = Some(worker.host.clone());
    own.worker.page_store.first.path = directory.join("pages");
    Ok(own.to_yaml_with_secrets())
}

/// Writes a file that holds keys, for this user only.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

async fn wait_until_open(worker: &HostPort, child: &mut Child, state: &Path) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let target = (worker.host.as_str(), worker.port);
        if tokio::net::TcpStream::connect(target).await.is_ok() {
            return Ok(());
        }
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let logs = state.display();
            bail!(
                "the worker at {}:{} did not start: see the logs in {logs}",
                worker.host,
                worker.port
            );
        }
        sleep(LOOK_INTERVAL).await;
    }
}
