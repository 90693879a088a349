//! What calls return, as Python's values. Bytes are copied once, from the page into the `bytes`.

use std::sync::Arc;

use alluxio_wire::FileStatus;
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList};
use pyo3::{IntoPyObjectExt, intern};

use crate::buffer;

/// What a call returns to Python.
pub(crate) trait Answer: Send + 'static {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>>;
}

/// How the URIs of a store are named in fsspec: object stores leave out the scheme, local files are
/// absolute paths, all others keep the whole URI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Naming {
    strips_scheme: bool,
}

/// Chunks of a file, in order.
pub(crate) struct Chunks(pub(crate) Vec<Bytes>);

/// A status.
pub(crate) struct Described(pub(crate) Naming, pub(crate) Arc<FileStatus>);

/// A listing.
pub(crate) struct Listed(pub(crate) Naming, pub(crate) Arc<Vec<FileStatus>>);

/// A list of texts.
pub(crate) struct Texts(pub(crate) Vec<String>);

/// JSON that Python's half turns into its types.
pub(crate) struct Json(pub(crate) String);

impl Naming {
    pub(crate) fn of_scheme(scheme: &str) -> Self {
        let strips_scheme = matches!(
            scheme,
            "s3" | "s3a"
                | "gs"
                | "gcs"
                | "oss"
                | "cos"
                | "cosn"
                | "obs"
                | "az"
                | "abfs"
                | "abfss"
                | "file"
        );
        Self { strips_scheme }
    }

    fn name(self, uri: &str) -> &str {
        match uri.split_once("://") {
            Some((_scheme, rest)) if self.strips_scheme => rest,
            _ => uri,
        }
    }
}

/// fsspec's entry of a file or directory.
pub(crate) fn entry<'py>(
    py: Python<'py>,
    naming: Naming,
    status: &FileStatus,
) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    entry.set_item(intern!(py, "name"), naming.name(&status.ufs_uri))?;
    entry.set_item(intern!(py, "size"), status.length)?;
    let kind = if status.is_directory() {
        intern!(py, "directory")
    } else {
        intern!(py, "file")
    };
    entry.set_item(intern!(py, "type"), kind)?;
    let modified_ms = status.modified_ms;
    entry.set_item(intern!(py, "last_modification_time_ms"), modified_ms)?;
    if modified_ms != 0 {
        let whole_seconds = modified_ms.div_euclid(1000);
        let rest = modified_ms.rem_euclid(1000);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a double holds every second of the next hundred million years"
        )]
        let seconds = whole_seconds as f64 + rest as f64 / 1000.0;
        entry.set_item(intern!(py, "mtime"), seconds)?;
    }
    if let Some(hash) = &status.content_hash {
        entry.set_item(intern!(py, "ETag"), hash)?;
    }
    Ok(entry)
}

/// One `bytes` of several chunks.
pub(crate) fn joined<'py>(py: Python<'py>, chunks: &[Bytes]) -> PyResult<Bound<'py, PyBytes>> {
    if let [chunk] = chunks {
        return Ok(PyBytes::new(py, chunk));
    }
    let length = chunks.iter().map(Bytes::len).sum();
    buffer::filled(py, length, |room| {
        for chunk in chunks {
            room.push(chunk);
        }
        Ok(())
    })
}

impl Answer for () {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(py.None().into_bound(py))
    }
}

impl Answer for bool {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(PyBool::new(py, self).to_owned().into_any())
    }
}

impl Answer for u64 {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        self.into_bound_py_any(py)
    }
}

impl Answer for Texts {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl Answer for Json {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        self.0.into_bound_py_any(py)
    }
}

impl Answer for Chunks {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(joined(py, &self.0)?.into_any())
    }
}

impl Answer for Described {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(entry(py, self.0, &self.1)?.into_any())
    }
}

impl Answer for Listed {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let entries = PyList::empty(py);
        for status in self.1.iter() {
            entries.append(entry(py, self.0, status)?)?;
        }
        Ok(entries.into_any())
    }
}
