//! What coordinator and owner say to each other: a batch of files, and lines of events.

use std::io;

use alluxio_wire::{FileKind, FileStatus, UfsUri};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Events of one batch that wait for who reads them, before loading waits too.
pub(super) const WAITING_EVENTS: usize = 64;

/// Files that one worker is to load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Batch {
    /// The load that it belongs to; batches of one load share its bandwidth.
    pub(super) job: String,
    pub(super) mode: Mode,
    /// Believe the index that a page is kept, without reading it.
    pub(super) skip_if_exists: bool,
    pub(super) bandwidth_bytes_per_second: Option<u64>,
    pub(super) files: Vec<FileToLoad>,
}

/// What to do with each file of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Have all pages on the disk.
    Load,
    /// Know its status.
    Metadata,
    /// Have all pages on the disk and read each against its checksum.
    Verify,
}

/// A file and its version, as the coordinator's listing told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileToLoad {
    pub(super) uri: UfsUri,
    pub(super) length: u64,
    pub(super) modified_ms: i64,
    pub(super) content_hash: Option<String>,
    /// Its place in the coordinator's listing, which is the coordinator's alone.
    #[serde(skip)]
    pub(super) number: u64,
}

/// One step of a batch; `file` counts the batch's files from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Event {
    /// Some more bytes of the file are on the disk; `kept` where they were before. No bytes at all
    /// say only that the owner is at work: it may wait for its bandwidth.
    Bytes {
        file: usize,
        bytes: u64,
        #[serde(default)]
        kept: bool,
    },
    /// The file is done.
    Done { file: usize },
    /// The file could not be loaded.
    Failed {
        file: usize,
        reason: String,
        retryable: bool,
    },
    /// The batch is done; a stream that ends without it broke off.
    End,
}

impl Mode {
    /// The bytes of the file that this mode moves.
    pub(super) fn bytes_of(self, file: &FileToLoad) -> u64 {
        match self {
            Self::Metadata => 0,
            Self::Load | Self::Verify => file.length,
        }
    }
}

impl FileToLoad {
    pub(super) fn new(status: &FileStatus, uri: UfsUri) -> Self {
        Self {
            uri,
            length: status.length,
            modified_ms: status.modified_ms,
            content_hash: status.content_hash.clone(),
            number: 0,
        }
    }

    pub(super) fn status(&self) -> FileStatus {
        FileStatus {
            kind: FileKind::File,
            name: self.uri.name().to_owned(),
            path: self.uri.path().to_owned(),
            ufs_uri: self.uri.to_string(),
            modified_ms: self.modified_ms,
            length: self.length,
            content_hash: self.content_hash.clone(),
        }
    }
}

/// Events as lines of JSON. Those that wait go out together: a small file has two of them, and a
/// write to the network for each would cost more than the file.
pub(super) fn lines(
    events: mpsc::Receiver<Event>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + use<> {
    ReceiverStream::new(events)
        .ready_chunks(WAITING_EVENTS)
        .map(|events| {
            let mut lines = Vec::new();
            for event in events {
                serde_json::to_writer(&mut lines, &event)?;
                lines.push(b'\n');
            }
            Ok(Bytes::from(lines))
        })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[test]
    fn events_are_lines_that_read_back() {
        for event in [
            Event::Bytes {
                file: 1,
                bytes: 2,
                kept: true,
            },
            Event::Done { file: 0 },
            Event::Failed {
                file: 3,
                reason: "gone\nfor good".to_owned(),
                retryable: false,
            },
            Event::End,
        ] {
            let line = serde_json::to_string(&event).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
