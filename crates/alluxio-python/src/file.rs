//! Open files: a reader at any offset, a writer from the first byte to the last.
//!
//! A reader may be carried over a fork: the child opens the file again at its first read, and goes on
//! only where it is still of the same version.

use std::ops::Range;
use std::sync::Arc;

use alluxio_client::{Error, ErrorKind, FileReader, FileWriter, ReadBytes};
use alluxio_config::AccessProfile;
use alluxio_wire::FileStatus;
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyMemoryView};

use crate::answer::{Naming, entry, joined};
use crate::buffer::{self, Room};
use crate::process::{Owned, wait};
use crate::session::{STEP_BYTES, Shared};

/// Reads up to this length are gathered first and copied once, with the GIL held for the copy (some
/// 0.1 ms); longer ones are copied into the `bytes` as they come, without the GIL.
const GATHERED_BYTES: usize = 1024 * 1024;

/// A file that was opened in this process.
pub(crate) struct Opened {
    uri: String,
    reader: FileReader,
    status: FileStatus,
}

impl Opened {
    pub(crate) async fn new(
        shared: &Shared,
        uri: String,
        profile: Option<AccessProfile>,
    ) -> Result<Self, Error> {
        let (client, path) = shared.client(&uri).await?;
        let reader = match profile {
            Some(profile) => client.open_as(&path, profile).await?,
            None => client.open(&path).await?,
        };
        let status = reader.status().clone();
        Ok(Self {
            uri,
            reader,
            status,
        })
    }

    /// The part of a range that the file has.
    pub(crate) fn clamp(&self, start: u64, end: Option<u64>) -> Range<u64> {
        let length = self.status.length;
        let end = end.map_or(length, |end| end.min(length));
        start.min(end)..end
    }

    /// The chunks of a range that lies within the file.
    pub(crate) async fn chunks(&self, range: Range<u64>) -> Result<Vec<Bytes>, Error> {
        let mut chunks = Vec::new();
        let mut offset = range.start;
        while offset < range.end {
            let read = self.some(offset..range.end).await?;
            offset += read.len() as u64;
            chunks.extend(read.chunks);
        }
        Ok(chunks)
    }

    /// The first bytes of a range that lies within the file, as many as one step has.
    async fn some(&self, range: Range<u64>) -> Result<ReadBytes, Error> {
        let length = range.end - range.start;
        let length = usize::try_from(length).map_or(STEP_BYTES, |left| left.min(STEP_BYTES));
        let read = self.reader.read_at(range.start, length).await?;
        if read.is_empty() {
            return Err(self.shortened(range.start));
        }
        Ok(read)
    }

    /// The bytes of a range that lies within the file.
    pub(crate) fn bytes<'py>(
        &self,
        py: Python<'py>,
        range: Range<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if length <= GATHERED_BYTES {
            return joined(py, &wait(py, &self.uri, self.chunks(range))?);
        }
        buffer::filled(py, length, |room| {
            wait(py, &self.uri, self.fill(range, room))
        })
    }

    async fn fill(&self, range: Range<u64>, room: &mut Room<'_>) -> Result<(), Error> {
        let mut offset = range.start;
        while offset < range.end {
            let read = self.some(offset..range.end).await?;
            for chunk in &read.chunks {
                room.push(chunk);
                offset += chunk.len() as u64;
            }
        }
        Ok(())
    }

    /// Copies the bytes of a range that lies within the file into a view that has room for them.
    fn copy_into(
        &self,
        py: Python<'_>,
        range: Range<u64>,
        view: &Bound<'_, PyMemoryView>,
    ) -> PyResult<usize> {
        let mut place = 0;
        while range.start + (place as u64) < range.end {
            let left = range.start + place as u64..range.end;
            let read = wait(py, &self.uri, self.some(left))?;
            for chunk in &read.chunks {
                buffer::copy(chunk, view, place)?;
                place += chunk.len();
            }
        }
        Ok(place)
    }

    fn shortened(&self, offset: u64) -> Error {
        let context = format!(
            "{} ends at {offset} bytes, {} were told; open it again",
            self.uri, self.status.length
        );
        Error::new(ErrorKind::Stale, "read", context)
    }
}

/// A file that is read, at the version that was opened.
#[pyclass(frozen, module = "alluxio_dataset._native")]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    uri: String,
    naming: Naming,
    status: FileStatus,
    opened: ArcSwap<Owned<Opened>>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, uri: String, naming: Naming, opened: Opened) -> Self {
        Self {
            shared,
            uri,
            naming,
            status: opened.status.clone(),
            opened: ArcSwap::from_pointee(Owned::new(opened)),
        }
    }

    /// The file in this process.
    fn opened(&self, py: Python<'_>) -> PyResult<Arc<Owned<Opened>>> {
        let opened = self.opened.load_full();
        if opened.get().is_some() {
            return Ok(opened);
        }
        let again = wait(py, &self.uri, async {
            let again = Opened::new(&self.shared, self.uri.clone(), None).await?;
            if again.status.version() == self.status.version() {
                return Ok(again);
            }
            let context = format!("{} changed since it was opened; open it again", self.uri);
            Err(Error::new(ErrorKind::Stale, "read", context))
        })?;
        let again = Arc::new(Owned::new(again));
        self.opened.store(Arc::clone(&again));
        Ok(again)
    }
}

#[pymethods]
impl Reader {
    /// The length of the file in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.status.length
    }

    /// The version that is read.
    #[getter]
    fn version(&self) -> String {
        self.status.version().as_str().to_owned()
    }

    /// The entry of the version that is read.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        entry(py, self.naming, &self.status)
    }

    /// Up to `length` bytes from `offset`, fewer only at the end of the file.
    fn read<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let owned = self.opened(py)?;
        let Some(opened) = owned.get() else {
            return Ok(PyBytes::new(py, b""));
        };
        let range = opened.clamp(offset, Some(offset.saturating_add(length)));
        opened.bytes(py, range)
    }

    /// Fills a view of bytes with those from `offset`; fewer only at the end of the file. Returns how
    /// many.
    fn read_into(
        &self,
        py: Python<'_>,
        offset: u64,
        view: &Bound<'_, PyMemoryView>,
    ) -> PyResult<usize> {
        let owned = self.opened(py)?;
        let Some(opened) = owned.get() else {
            return Ok(0);
        };
        let length = view.len()? as u64;
        let range = opened.clamp(offset, Some(offset.saturating_add(length)));
        opened.copy_into(py, range, view)
    }
}

/// A file that is written. It is seen at [`Writer::finish`]; without it, what was there stays.
#[pyclass(frozen, module = "alluxio_dataset._native")]
pub(crate) struct Writer {
    uri: String,
    writer: Mutex<Option<Owned<FileWriter>>>,
}

impl Writer {
    pub(crate) fn new(uri: String, writer: FileWriter) -> Self {
        Self {
            uri,
            writer: Mutex::new(Some(Owned::new(writer))),
        }
    }

    /// Takes the writer for one call; another one at the same time finds none.
    fn take(&self) -> PyResult<FileWriter> {
        let writer = self.writer.lock().take().and_then(Owned::into_inner);
        writer.ok_or_else(|| {
            PyValueError::new_err(format!(
                "{} cannot be written any more: it is closed, in use by another thread, or was \
                 opened before a fork",
                self.uri
            ))
        })
    }
}

#[pymethods]
impl Writer {
    /// Adds bytes; waits while as many as may are on their way.
    fn write(&self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        let mut writer = self.take()?;
        wait(py, &self.uri, writer.write(Bytes::from_owner(data)))?;
        *self.writer.lock() = Some(Owned::new(writer));
        Ok(())
    }

    /// Sends what is left and makes the file visible.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let writer = self.take()?;
        wait(py, &self.uri, async { writer.finish().await.map(drop) })
    }

    /// Gives up; what was there before stays. A writer that is closed is left alone.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        let Ok(writer) = self.take() else {
            return Ok(());
        };
        wait(py, &self.uri, async {
            writer.abort().await;
            Ok(())
        })
    }
}
