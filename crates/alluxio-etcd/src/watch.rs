//! A watch: the changes of a prefix, in order and without gaps, until it ends.

use std::sync::Arc;

use tonic::Streaming;

use crate::error::EtcdError;
use crate::messages::{Event, WatchResponse};

/// The `type` of an event that deleted a key.
const DELETED: i32 = 1;

/// A stream of changes. It ends with an error: a lost connection, or [`EtcdError::Compacted`].
pub struct Watch {
    answers: Streaming<WatchResponse>,
    endpoints: Arc<str>,
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was written.
    Put {
        /// Its name.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// The key was deleted, or its lease ended.
    Delete {
        /// Its name.
        key: Vec<u8>,
    },
}

impl Watch {
    pub(crate) fn new(answers: Streaming<WatchResponse>, endpoints: Arc<str>) -> Self {
        Self { answers, endpoints }
    }

    /// Waits for the next changes, those of one revision or more; `None` when etcd ended the watch.
    /// The first answer has no events: it tells that the watch stands.
    pub async fn next(&mut self) -> Result<Option<Vec<WatchEvent>>, EtcdError> {
        let answer = self.answers.message().await.map_err(|status| {
            EtcdError::from_status(
                self.endpoints.to_string(),
                "/etcdserverpb.Watch/Watch",
                &status,
            )
        })?;
        match answer {
            Some(answer) if answer.compact_revision > 0 => {
                Err(EtcdError::Compacted(answer.compact_revision))
            }
            Some(answer) if !answer.canceled => {
                Ok(Some(answer.events.into_iter().filter_map(event).collect()))
            }
            _ => Ok(None),
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

fn event(event: Event) -> Option<WatchEvent> {
    let pair = event.kv?;
    Some(match event.kind {
        DELETED => WatchEvent::Delete { key: pair.key },
        _ => WatchEvent::Put {
            key: pair.key,
            value: pair.value,
        },
    })
}
