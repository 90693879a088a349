//! Other programs: those that are run to their end, and servers that live as long as the test.

use std::fs::File;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// How long a program may take that does one thing; bringing the cluster up is the slowest.
const RUN_LIMIT: Duration = Duration::from_mins(5);

/// How much of a failed program's output an error quotes.
const QUOTED_BYTES: usize = 2000;

/// A server that is killed when the test is over.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
}

/// Runs a program to its end and gives its standard output.
pub(crate) async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().display().to_string();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(RUN_LIMIT, command.output())
        .await
        .with_context(|| format!("{name} did not end in {} s", RUN_LIMIT.as_secs()))?
        .with_context(|| format!("cannot start {name}; `make tools` installs what is needed"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, last_bytes(&errors));
    }
    Ok(text)
}

fn last_bytes(text: &str) -> &str {
    let start = text.len().saturating_sub(QUOTED_BYTES);
    text[text.ceil_char_boundary(start)..].trim()
}

impl Server {
    /// Starts it with both outputs in `log`.
    pub(crate) fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}; `make tools` installs it"))?;
        Ok(Self { name, child })
    }

    /// Fails when it has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot stop {}", self.name))
    }

    /// Lets it live on after the test.
    pub(crate) fn leave_running(self) {
        // Dropping the child would kill it; the process is about to end anyway.
        std::mem::forget(self.child);
    }
}

/// A port that nobody listens on at this address.
pub(crate) fn free_port(address: IpAddr) -> Result<u16> {
    let listener = TcpListener::bind((address, 0))
        .with_context(|| format!("{address} is no address of this machine"))?;
    Ok(listener.local_addr()?.port())
}
