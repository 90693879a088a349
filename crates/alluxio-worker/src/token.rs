//! The token that clients show, where one is asked for: `Authorization: Bearer <token>`.

use std::io;
use std::path::PathBuf;

use alluxio_client::worker::reloaded::{Reloaded, read_token};
use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::failure::{Failure, FailureKind};

/// The token that is asked for; renewed when its file changes.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    expected: Reloaded<String>,
}

impl Token {
    /// Reads the file.
    pub(crate) fn load(file: PathBuf) -> io::Result<Self> {
        let read = file.clone();
        Ok(Self {
            expected: Reloaded::new(vec![file], move || read_token(&read))?,
        })
    }

    /// Refuses who does not show it.
    pub(crate) async fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let shown = headers.get(header::AUTHORIZATION);
        let shown = shown.and_then(|value| bearer(value.as_bytes()));
        let expected = self.expected.current().await;
        if shown.is_some_and(|shown| is_same(shown, expected.as_bytes())) {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Unauthorized,
            "this worker asks for a token: set cluster.workers.token_file, or send the header \
             Authorization: Bearer <token>",
        ))
    }
}

/// Takes as long for a wrong token as for the right one of the same length.
fn is_same(shown: &[u8], expected: &[u8]) -> bool {
    shown.ct_eq(expected).into()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"abc"[..], b"Basic abc", b"Bearerabc", b""] {
            assert_eq!(bearer(other), None);
        }
    }

    #[test]
    fn only_the_whole_token_is_the_same() {
        assert!(is_same(b"secret", b"secret"));
        for other in [&b"secre"[..], b"secret1", b"Secret", b""] {
            assert!(!is_same(other, b"secret"));
        }
    }
}
