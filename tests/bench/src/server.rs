//! Servers of a run: processes on loopback that end with their handle.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::child::peak_rss_bytes_in;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const END: Duration = Duration::from_secs(3);
/// Between two looks whether it listens, or has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
}

impl Server {
    /// Starts `command` with its output in `log`, and waits until `port` accepts connections.
    pub(crate) fn start(command: &mut Command, port: u16, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = std::fs::File::create(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}; run `scripts/tools ensure bench`"))?;
        let mut server = Self { child, port };
        let until = Instant::now() + START;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended with {status}; see {}", log.display());
            }
            if Instant::now() > until {
                bail!(
                    "{name} did not listen on port {port} within 20 s; see {}",
                    log.display()
                );
            }
            std::thread::sleep(LOOK);
        }
        Ok(server)
    }

    /// The most memory that it held so far.
    pub(crate) fn peak_rss_bytes(&self) -> Result<f64> {
        let file = format!("/proc/{}/status", self.child.id());
        Ok(peak_rss_bytes_in(&std::fs::read_to_string(file)?))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    /// Asks the server to end, since only it ends its own workers, and then does not ask any more.
    /// That it has ended already is as good.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let until = Instant::now() + END;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
