//! The order in which a caller will open files: the next ones are fetched ahead.

use std::path::Path;
use std::sync::Arc;

use super::{Client, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::reader::{Bounds, Order};

/// Lookups for files ahead at one time: a small part of the requests, which reads come before.
pub(super) const LOOKUPS_AHEAD: usize = 4;
/// The longest file with a list of files that is read.
const MAX_LIST_BYTES: u64 = 512 * 1024 * 1024;

impl Client {
    /// Tells the order in which files will be opened, such as that of a shuffled epoch: while one is
    /// read, the beginning of the next ones is fetched, at most 16 files of at most 4 MiB and a
    /// quarter of the page store. Replaces an earlier list; an empty one ends it. Opening files in
    /// another order is no mistake: after a few steps out of order nothing is fetched ahead, until the
    /// order is kept again.
    pub fn follow_list(&self, paths: Vec<String>) -> Result<()> {
        let readers = &self.inner.readers;
        let page_bytes = self.inner.page_size.bytes();
        let bounds = Bounds::new(readers.readahead_total_bytes, page_bytes);
        let order = Order::new(paths, bounds)?;
        *readers.order.lock() = Some(order);
        Ok(())
    }

    /// Follows the list in a file, a path below the dataset in each line.
    pub(super) async fn follow_file(&self, list: &Path) -> Result<()> {
        let failed = |cause: String| {
            let context = format!("the list of files {} {cause}", list.display());
            Error::new(ErrorKind::InvalidInput, "connect", context)
        };
        let read = async {
            let length = tokio::fs::metadata(list).await?.len();
            if length > MAX_LIST_BYTES {
                return Ok(None);
            }
            tokio::fs::read_to_string(list).await.map(Some)
        };
        let text = read.await.map_err(|error| {
            failed("cannot be read: check client.file_list".to_owned()).with_source(error)
        })?;
        let text = text
            .ok_or_else(|| failed(format!("is over {MAX_LIST_BYTES} bytes: give it in parts")))?;
        let lines = text.lines().map(|line| line.trim_matches('/'));
        self.follow_list(
            lines
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    /// Starts to fetch the files that come after this one in the caller's list.
    pub(super) fn fetch_ahead_of(&self, path: &str) {
        let readers = &self.inner.readers;
        let told = match readers.order.lock().as_mut() {
            Some(order) => order.opened(path),
            None => return,
        };
        for place in told {
            let (client, turns) = (Arc::downgrade(&self.inner), Arc::clone(&self.inner.ahead));
            readers.runtime.spawn(async move {
                // The semaphore is never closed.
                let _turn = turns.acquire().await.ok();
                if let Some(inner) = client.upgrade() {
                    inner.fetch_beginning(place).await;
                }
            });
        }
    }
}

impl Inner {
    /// Fetches the beginning of the file at this place of the list, unless its reader has come there
    /// or left the order meanwhile. A file that is not there is the reader's to find out.
    async fn fetch_beginning(&self, place: usize) {
        let (path, bytes) = match self.readers.order.lock().as_ref() {
            Some(order) if order.is_ahead(place) => (order.path(place), order.bounds().file_bytes),
            _ => return,
        };
        let uri = path.and_then(|path| self.root.join(&path).ok());
        let Some(uri) = uri else {
            return;
        };
        match self.metadata.status(&uri).await {
            Ok(status) if !status.is_directory() => {
                let file = Arc::new(self.opened(uri, &status));
                self.readers.prefetch_beginning(&file, bytes);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a file of the list cannot be fetched ahead"),
        }
    }
}
