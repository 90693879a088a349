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
    known: Mutex<HashMap<UfsUri, (Instant, Arc<FileStatus>)>>,
}

impl Statuses {
    pub(crate) fn new(ufs: Ufs) -> Self {
        Self {
            ufs,
            known: Mutex::new(HashMap::new()),
        }
    }

    /// The status as it was at most a few seconds ago.
    pub(crate) async fn get(&self, uri: &UfsUri) -> Result<Arc<FileStatus>, UfsError> {
        let known = self.known.lock().get(uri).cloned();
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
                self.known.lock().remove(uri);
                Err(error)
            }
        }
    }

    fn remember(&self, uri: &UfsUri, asked: Instant, status: Arc<FileStatus>) {
        let mut known = self.known.lock();
        if known.len() >= MAX_STATUSES {
            known.retain(|_, (asked, _)| asked.elapsed() < BELIEVED_FOR);
        }
        if known.len() >= MAX_STATUSES {
            known.clear();
        }
        known.insert(uri.clone(), (asked, status));
    }
}
