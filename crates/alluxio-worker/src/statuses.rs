//! Statuses of files, believed for a short bounded time.
//!
//! A client that reads a file page by page, and names no version, would else cost a HEAD a page.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use alluxio_ufs::{Ufs, UfsError};
use alluxio_wire::{FileStatus, UfsUri};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a status is believed. A client that cares for freshness names the version it wants,
/// and then a status that does not fit is asked for again at once.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// Statuses kept: some 500 bytes each, so about 30 MB.
const MAX_STATUSES: usize = 65_536;

/// The under-store's statuses, with a short memory.
#[derive(Debug)]
pub(crate) struct Statuses {
    ufs: Ufs,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    statuses: HashMap<UfsUri, (Instant, Arc<FileStatus>)>,
    /// When a status was dropped last: answers to earlier questions are not remembered, for they
    /// may be of the file as it was before.
    dropped: Instant,
}

impl Statuses {
    pub(crate) fn new(ufs: Ufs) -> Self {
        Self {
            ufs,
            known: Mutex::new(Known {
                statuses: HashMap::new(),
                dropped: Instant::now(),
            }),
        }
    }

    /// The status as it was at most a few seconds ago.
    pub(crate) async fn get(&self, uri: &UfsUri) -> Result<Arc<FileStatus>, UfsError> {
        let known = self.known.lock().statuses.get(uri).cloned();
        match known {
            Some((asked, status)) if asked.elapsed() < BELIEVED_FOR => Ok(status),
            _ => self.refreshed(uri).await,
        }
    }

    /// The status as it is now.
    pub(crate) async fn refreshed(&self, uri: &UfsUri) -> Result<Arc<FileStatus>, UfsError> {
        let asked = Instant::now();
        match self.ufs.status(uri).await {
            Ok(status) => {
                let status = Arc::new(status);
                self.remember(uri, asked, Arc::clone(&status));
                Ok(status)
            }
            Err(error) => {
                self.known.lock().statuses.remove(uri);
                Err(error)
            }
        }
    }

    /// Asks the under-store the next time.
    pub(crate) fn forget(&self, uri: &UfsUri) {
        let mut known = self.known.lock();
        known.statuses.remove(uri);
        known.dropped = Instant::now();
    }

    fn remember(&self, uri: &UfsUri, asked: Instant, status: Arc<FileStatus>) {
        let mut known = self.known.lock();
        if asked < known.dropped {
            return;
        }
        let statuses = &mut known.statuses;
        if statuses.len() >= MAX_STATUSES {
            statuses.retain(|_, (asked, _)| asked.elapsed() < BELIEVED_FOR);
        }
        if statuses.len() >= MAX_STATUSES {
            statuses.clear();
        }
        statuses.insert(uri.clone(), (asked, status));
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_config::Config;

    use super::*;

    #[tokio::test]
    async fn an_answer_to_a_question_from_before_a_change_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "old").unwrap();
        let yaml = format!("ufs: {{uri: 'file://{}'}}", folder.path().display());
        let ufs = Ufs::connect(&Config::from_yaml(&yaml).unwrap().ufs).unwrap();
        let uri = ufs.root().join("f").unwrap();
        let statuses = Statuses::new(ufs);
        let asked = Instant::now();
        let before = statuses.get(&uri).await.unwrap();
        std::fs::write(folder.path().join("f"), "longer").unwrap();
        assert_eq!(statuses.get(&uri).await.unwrap().length, 3);
        statuses.forget(&uri);
        statuses.remember(&uri, asked, before);
        assert_eq!(statuses.get(&uri).await.unwrap().length, 6);
    }
}
