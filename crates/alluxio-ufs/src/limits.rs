//! The bounds of every operation, and the loop that keeps them.

use std::future::Future;
use std::time::Duration;

use crate::error::{Subject, UfsError};

/// Operations in flight per store. An S3 connection carries some 100 MB/s at best, so this is far
/// above what a 100 Gbit/s link needs, and well below the usual limit of 1,024 open files.
pub(crate) const PARALLEL_OPERATIONS: usize = 128;

/// Time for one attempt of a small operation (status, one page of a listing). S3's slow tail is
/// some seconds; beyond this the connection is dead more often than slow.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for one attempt of a read. The largest page is 64 MiB, which takes this long at 2 MB/s.
pub(crate) const READ_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to connect. A handshake that takes longer is a lost packet or a dead host.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts in all. AWS' SDKs make three; a fourth rides over a short restart of a local store.
pub(crate) const ATTEMPTS: u32 = 4;

/// Wait before the second attempt; doubled for each further one, less a random part of up to a
/// half so that many clients do not come back at the same instant.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Entries of one directory that are held in memory: some 300 bytes each, so about 300 MB.
pub(crate) const MAX_LIST_ENTRIES: usize = 1_000_000;

/// Runs `attempt` until it succeeds, fails for good, or has failed [`ATTEMPTS`] times.
pub(crate) async fn with_retries<T, F, Fut>(
    subject: &Subject,
    timeout: Duration,
    mut attempt: F,
) -> Result<T, UfsError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, UfsError>>,
{
    let mut number = 1;
    loop {
        let error = match tokio::time::timeout(timeout, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => subject.timed_out(timeout),
        };
        if number >= ATTEMPTS || !error.retryable() {
            return Err(error);
        }
        tracing::debug!(%error, attempt = number, "the store failed, trying again");
        wait_before_attempt(number).await;
        number += 1;
    }
}

/// Sleeps for the doubled wait after attempt `number`, less a random part of up to a half.
pub(crate) async fn wait_before_attempt(number: u32) {
    let wait = FIRST_WAIT * 2u32.saturating_pow(number - 1);
    tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::sync::atomic::{AtomicU32, Ordering};

    use alluxio_wire::UfsUri;

    use super::*;
    use crate::UfsErrorKind;

    fn subject() -> Subject {
        Subject::new("read", &UfsUri::parse("s3://b/k").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_ridden_over() {
        let calls = AtomicU32::new(0);
        let result = with_retries(&subject(), ATTEMPT_TIMEOUT, || async {
            match calls.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(subject().unavailable("503".to_owned())),
                _ => Ok(7),
            }
        })
        .await;
        assert_eq!(result.unwrap(), 7);
        assert_eq!(calls.into_inner(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_failure_is_not_repeated() {
        let calls = AtomicU32::new(0);
        let result: Result<(), _> = with_retries(&subject(), ATTEMPT_TIMEOUT, || async {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(subject().not_found())
        })
        .await;
        assert_eq!(result.unwrap_err().kind(), UfsErrorKind::NotFound);
        assert_eq!(calls.into_inner(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_and_their_time_are_bounded() {
        let calls = AtomicU32::new(0);
        let result: Result<(), _> = with_retries(&subject(), ATTEMPT_TIMEOUT, || async {
            calls.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        })
        .await;
        assert_eq!(result.unwrap_err().kind(), UfsErrorKind::TimedOut);
        assert_eq!(calls.into_inner(), ATTEMPTS);
    }
}
