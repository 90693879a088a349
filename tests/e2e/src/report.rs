//! What the run prints: a line for each step with its time, and a closing line with the counts.

use std::future::Future;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The longest any step may take: a busy two-core machine needs two minutes for the slowest one.
const STEP_LIMIT: Duration = Duration::from_mins(7);

/// Counts and prints.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    passed: u32,
    failed: u32,
}

impl Report {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            passed: 0,
            failed: 0,
        }
    }

    /// Does one step and prints how it went. Its name is a sentence that is true afterwards.
    pub(crate) async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = match tokio::time::timeout(STEP_LIMIT, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("not done in {} s", STEP_LIMIT.as_secs())),
        };
        let seconds = started.elapsed().as_secs_f64();
        match &outcome {
            Ok(_) => {
                self.passed += 1;
                line(&format!("ok   {seconds:7.1} s  {name}"));
            }
            Err(error) => {
                self.failed += 1;
                line(&format!("FAIL {seconds:7.1} s  {name}"));
                self.detail(&format!("{error:#}"));
            }
        }
        outcome
    }

    /// Counts a failure that is no step's.
    pub(crate) fn fail(&mut self, why: &str) {
        self.failed += 1;
        line(&format!("FAIL            {why}"));
    }

    /// Prints lines that belong to the step before.
    #[allow(clippy::unused_self, reason = "details are the report's, as steps are")]
    pub(crate) fn detail(&self, text: &str) {
        for text_line in text.lines() {
            line(&format!("                  {text_line}"));
        }
    }

    /// Whether any step has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Prints the closing line; whether all passed.
    pub(crate) fn finish(&self) -> bool {
        let seconds = self.started.elapsed().as_secs();
        let (passed, failed) = (self.passed, self.failed);
        line(&format!("{passed} passed, {failed} failed in {seconds} s"));
        self.failed == 0
    }
}

/// Prints one line at once; a reader that went away is no failure of the test.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Fails with both values unless they are equal.
pub(crate) fn expect_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    seen: &T,
    expected: &T,
) -> Result<()> {
    if seen != expected {
        bail!("{what}: expected {expected:?}, seen {seen:?}");
    }
    Ok(())
}
