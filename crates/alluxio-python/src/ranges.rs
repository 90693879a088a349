//! Many ranges of many files at once: each file is opened once, and all ranges are read side by side.

use std::collections::HashMap;
use std::sync::Arc;

use alluxio_client::Error;
use bytes::Bytes;
use futures::{StreamExt, stream};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::sync::OnceCell;

use crate::answer::{Answer, joined};
use crate::errors;
use crate::file::Opened;
use crate::session::Shared;

/// Ranges that are read at one time: as many as the client sends requests by default.
const AT_ONCE: usize = 64;

/// URI, first byte, and the byte after the last one, or None for the end of the file.
pub(crate) type Range = (String, u64, Option<u64>);

/// One answer for each range, in order.
pub(crate) struct Answers(Vec<(String, Result<Vec<Bytes>, Error>)>);

pub(crate) async fn read(shared: &Shared, ranges: Vec<Range>) -> Answers {
    let mut files: HashMap<String, Arc<OnceCell<Opened>>> = HashMap::new();
    let asked: Vec<_> = ranges
        .into_iter()
        .map(|(uri, start, end)| {
            let file = Arc::clone(files.entry(uri.clone()).or_default());
            (uri, start, end, file)
        })
        .collect();
    drop(files);
    let answers = stream::iter(asked).map(|(uri, start, end, file)| async move {
        let read = async {
            let opened = file
                .get_or_try_init(|| Opened::new(shared, uri.clone(), None))
                .await?;
            opened.chunks(opened.clamp(start, end)).await
        };
        let answer = read.await;
        (uri, answer)
    });
    Answers(answers.buffered(AT_ONCE).collect().await)
}

impl Answer for Answers {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let answers = PyList::empty(py);
        for (uri, answer) in self.0 {
            match answer {
                Ok(chunks) => answers.append(joined(py, &chunks)?)?,
                Err(error) => answers.append(errors::exception(&uri, &error).into_value(py))?,
            }
        }
        Ok(answers.into_any())
    }
}
