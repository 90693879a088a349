//! The pod that reads: runs one command in it and turns what it prints into sums. Other pods, too.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::cluster::Cluster;
use crate::objects::{NAMESPACE, READER};
use crate::process;

/// Prints `<sha256>  ./<path>` for every file.
const SUM_EVERYTHING: &str = "cd /data && find . -type f -exec sha256sum {} +";
/// The longest that one line may take: the largest file's sum, on a busy machine.
const LINE_LIMIT: Duration = Duration::from_mins(2);

/// One pass over everything, as it goes.
#[derive(Debug)]
pub(crate) struct Pass {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
    sums: BTreeMap<String, String>,
}

impl Pass {
    /// Starts reading.
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_in(cluster, READER)
    }

    /// Starts reading in another pod.
    pub(crate) fn start_in(cluster: &Cluster, pod: &str) -> Result<Self> {
        let mut child = exec(cluster, pod, &["sh", "-c", SUM_EVERYTHING])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start kubectl; `make tools` installs it")?;
        let output = child.stdout.take().context("kubectl's output")?;
        let errors = child.stderr.take().context("kubectl's errors")?;
        Ok(Self {
            child,
            lines: BufReader::new(output).lines(),
            errors,
            sums: BTreeMap::new(),
        })
    }

    /// Reads on until this many files are summed, or all are.
    pub(crate) async fn read_until(&mut self, files: usize) -> Result<()> {
        while self.sums.len() < files && self.read_line().await? {}
        Ok(())
    }

    /// Reads to the end; the sums of all files.
    pub(crate) async fn finish(mut self) -> Result<BTreeMap<String, String>> {
        while self.read_line().await? {}
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).await?;
        let status = self.child.wait().await?;
        if !status.success() || !errors.trim().is_empty() {
            bail!(
                "the reader saw errors ({status}) after {} files: {}",
                self.sums.len(),
                errors.trim()
            );
        }
        Ok(self.sums)
    }

    /// Takes one line; false at the end.
    async fn read_line(&mut self) -> Result<bool> {
        let line = tokio::time::timeout(LINE_LIMIT, self.lines.next_line())
            .await
            .with_context(|| {
                let (done, limit) = (self.sums.len(), LINE_LIMIT.as_secs());
                format!("the reader was silent for {limit} s after {done} files")
            })??;
        let Some(line) = line else { return Ok(false) };
        let (path, sum) = parse(&line).with_context(|| format!("the reader printed `{line}`"))?;
        self.sums.insert(path, sum);
        Ok(true)
    }
}

/// The path and the sum in a line of sha256sum.
fn parse(line: &str) -> Option<(String, String)> {
    let (sum, path) = line.split_once("  ")?;
    Some((path.strip_prefix("./")?.to_owned(), sum.to_owned()))
}

/// Runs a command in the reader pod to its end.
pub(crate) async fn run(cluster: &Cluster, command: &[&str]) -> Result<String> {
    run_in(cluster, READER, command).await
}

/// Runs a command in a pod to its end.
pub(crate) async fn run_in(cluster: &Cluster, pod: &str, command: &[&str]) -> Result<String> {
    process::run(&mut exec(cluster, pod, command)).await
}

fn exec(cluster: &Cluster, pod: &str, command: &[&str]) -> tokio::process::Command {
    let mut kubectl = cluster.tool("kubectl");
    kubectl.args(["--namespace", NAMESPACE, "exec", pod, "--"]);
    kubectl.args(command);
    kubectl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_sha256sum_is_read() {
        let parsed = parse("ab12  ./names/with a space.txt");
        let expected = ("names/with a space.txt".to_owned(), "ab12".to_owned());
        assert_eq!(parsed, Some(expected));
        assert_eq!(parse("sha256sum: ./x: Input/output error"), None);
    }
}
