//! A session: the clients of one configuration, one for each bucket or host that is asked for.
//!
//! fsspec's file systems speak of any bucket that their credentials open, a [`Client`] of one dataset.
//! So a session connects a client the first time a root is named, and keeps it. All paths are URIs
//! of the under-store, such as `s3://bucket/key`.
//!
//! Each method takes `done` last: without it the call blocks (without the GIL), with it the call
//! returns a `Task` at once (see [`crate::process::answer`]).

use std::collections::HashMap;
use std::sync::Arc;

use alluxio_client::{
    Client, Error, ErrorKind, Existing, RemoveOptions, TouchOptions, TransferOptions, WriteMode,
    WriteOptions,
};
use alluxio_config::AccessProfile;
use alluxio_wire::{FileStatus, UfsUri};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use tokio::sync::OnceCell;

use crate::answer::{Chunks, Described, Json, Listed, Naming};
use crate::file::{Opened, Reader, Writer};
use crate::loads;
use crate::options::Template;
use crate::process::{Owned, answer, owned, wait};
use crate::ranges::{self, Range};

/// Roots that one session is connected to. Past it the client of some root is let go, and connected
/// anew when it is asked for: each holds up to `client.memory_limit`.
const MAX_ROOTS: usize = 16;

/// Bytes asked for at once: as many pages of the default size as one read fetches side by side.
pub(crate) const STEP_BYTES: usize = 16 * 1024 * 1024;

type Connected = Mutex<HashMap<String, Arc<OnceCell<Client>>>>;

/// What every call and open file of a session shares.
pub(crate) struct Shared {
    template: Template,
    clients: ArcSwapOption<Owned<Connected>>,
}

/// The clients of one configuration.
///
/// `Session(document)`: the configuration file's document as JSON; `ufs.uri` is set by what is asked
/// for, and names in it are options of the store.
#[pyclass(frozen, module = "alluxio_dataset._native")]
pub(crate) struct Session {
    shared: Arc<Shared>,
}

impl Shared {
    /// The client of a URI's root, and the path below it.
    pub(crate) async fn client(&self, uri: &str) -> Result<(Client, String), Error> {
        let (root, path) = split(uri)?;
        let Ok(clients) = owned(&self.clients, || {
            Ok::<_, std::convert::Infallible>(Mutex::default())
        });
        let Some(clients) = clients.get() else {
            return Err(Error::new(
                ErrorKind::Unexpected,
                "connect",
                "forked meanwhile",
            ));
        };
        let cell = {
            let mut clients = clients.lock();
            if clients.len() >= MAX_ROOTS && !clients.contains_key(root.as_str()) {
                let other = clients.keys().next().cloned();
                other.and_then(|other| clients.remove(&other));
            }
            Arc::clone(clients.entry(root.as_str().to_owned()).or_default())
        };
        let client = cell.get_or_try_init(|| self.connect(&root)).await?;
        Ok((client.clone(), path))
    }

    async fn connect(&self, root: &UfsUri) -> Result<Client, Error> {
        let config = self
            .template
            .config(root)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, "connect", error.to_string()))?;
        Client::connect(&config).await
    }
}

/// The root of a URI, and the path below it.
fn split(uri: &str) -> Result<(UfsUri, String), Error> {
    let invalid = |cause: String| Error::new(ErrorKind::InvalidInput, "open", cause);
    let uri = UfsUri::parse(uri).map_err(|error| invalid(format!("`{uri}`: {error}")))?;
    let root = match uri.authority() {
        "" => format!("{}:///", uri.scheme()),
        authority => format!("{}://{authority}", uri.scheme()),
    };
    let root = UfsUri::parse(&root).map_err(|error| invalid(error.to_string()))?;
    let path = uri.relative_to(&root).unwrap_or_default().to_owned();
    Ok((root, path))
}

fn naming(uri: &str) -> Naming {
    Naming::of_scheme(uri.split(':').next().unwrap_or_default())
}

fn mode(exclusive: bool) -> WriteMode {
    if exclusive {
        WriteMode::CreateNew
    } else {
        WriteMode::Replace
    }
}

fn transfer(recursive: bool) -> TransferOptions {
    TransferOptions {
        recursive,
        existing: Existing::Replace,
        progress: None,
    }
}

fn profile(name: Option<&str>) -> PyResult<Option<AccessProfile>> {
    match name {
        None => Ok(None),
        Some("adaptive") => Ok(Some(AccessProfile::Adaptive)),
        Some("sequential") => Ok(Some(AccessProfile::Sequential)),
        Some("random") => Ok(Some(AccessProfile::Random)),
        Some("parquet") => Ok(Some(AccessProfile::Parquet)),
        Some("safetensors") => Ok(Some(AccessProfile::Safetensors)),
        Some(other) => Err(PyValueError::new_err(format!(
            "access_profile `{other}` is not known; give adaptive, sequential, random, parquet or \
             safetensors"
        ))),
    }
}

type Done = Option<Py<PyAny>>;

#[pymethods]
impl Session {
    #[new]
    fn new(document: &str, uri: &str) -> PyResult<Self> {
        let template = Template::parse(document)?;
        // What is wrong with an option is told now, not at the first read.
        let root = UfsUri::parse(uri).map_err(|e| PyValueError::new_err(e.to_string()))?;
        template.config(&root)?;
        Ok(Self {
            shared: Arc::new(Shared {
                template,
                clients: ArcSwapOption::empty(),
            }),
        })
    }

    /// The entry of a file or directory.
    #[pyo3(signature = (uri, done=None))]
    fn status<'py>(&self, py: Python<'py>, uri: String, done: Done) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            Ok(Described(naming(&uri), client.info(&path).await?))
        })
    }

    /// The entries of a directory, sorted by name; of a file, its own.
    #[pyo3(signature = (uri, done=None))]
    fn list<'py>(&self, py: Python<'py>, uri: String, done: Done) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            Ok(Listed(naming(&uri), client.ls(&path).await?))
        })
    }

    /// The entries of all files below a directory.
    #[pyo3(signature = (uri, done=None))]
    fn walk<'py>(&self, py: Python<'py>, uri: String, done: Done) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            let files: Vec<FileStatus> = client.walk(&path).try_collect().await?;
            Ok(Listed(naming(&uri), Arc::new(files)))
        })
    }

    /// The bytes of a file from `start` to `end` (to its end where that is None or past it).
    #[pyo3(signature = (uri, start=0, end=None, done=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        start: u64,
        end: Option<u64>,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        if done.is_some() {
            return answer(py, &uri.clone(), done, async move {
                let opened = Opened::new(&shared, uri, None).await?;
                let range = opened.clamp(start, end);
                Ok(Chunks(opened.chunks(range).await?))
            });
        }
        let opened = wait(py, &uri, Opened::new(&self.shared, uri.clone(), None))?;
        let range = opened.clamp(start, end);
        Ok(opened.bytes(py, range)?.into_any())
    }

    /// The bytes of many ranges `(uri, start, end)`, side by side: a list of `bytes`, and of
    /// exceptions where a range could not be read.
    #[pyo3(signature = (ranges, done=None))]
    fn read_ranges<'py>(
        &self,
        py: Python<'py>,
        ranges: Vec<Range>,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, "", done, async move {
            Ok(ranges::read(&shared, ranges).await)
        })
    }

    /// Opens a file for reading, at the version that is there now.
    #[pyo3(signature = (uri, access_profile=None))]
    fn open(&self, py: Python<'_>, uri: &str, access_profile: Option<&str>) -> PyResult<Reader> {
        let profile = profile(access_profile)?;
        let shared = Arc::clone(&self.shared);
        let opened = wait(py, uri, Opened::new(&shared, uri.to_owned(), profile))?;
        Ok(Reader::new(shared, uri.to_owned(), naming(uri), opened))
    }

    /// Opens a file for writing; it is seen when it is finished. `exclusive` fails where one is.
    #[pyo3(signature = (uri, exclusive=false))]
    fn create(&self, py: Python<'_>, uri: String, exclusive: bool) -> PyResult<Writer> {
        let options = WriteOptions {
            mode: mode(exclusive),
            expected_bytes: None,
        };
        let writer = wait(py, &uri, async {
            let (client, path) = self.shared.client(&uri).await?;
            client.create(&path, options).await
        })?;
        Ok(Writer::new(uri, writer))
    }

    /// Writes a whole file in one step.
    #[pyo3(signature = (uri, data, exclusive=false, done=None))]
    fn write<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        data: PyBackedBytes,
        exclusive: bool,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            let bytes = Bytes::from_owner(data);
            client
                .write_bytes(&path, bytes, mode(exclusive))
                .await
                .map(drop)
        })
    }

    /// Makes a directory and those above it.
    #[pyo3(signature = (uri, done=None))]
    fn make_dir<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            client.mkdir(&path).await
        })
    }

    /// Removes a file, an empty directory, or with `recursive` a directory with all below it.
    /// Returns how many files went.
    #[pyo3(signature = (uri, recursive=false, done=None))]
    fn remove<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        recursive: bool,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            let options = RemoveOptions {
                recursive,
                even_root: false,
            };
            client.rm(&path, options).await.map(|removed| removed.files)
        })
    }

    /// Makes an empty file; one that is there becomes empty with `truncate`, else stays.
    #[pyo3(signature = (uri, truncate=true, done=None))]
    fn touch<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        truncate: bool,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            let (client, path) = shared.client(&uri).await?;
            client.touch(&path, TouchOptions { truncate }).await
        })
    }

    /// Copies a file, or with `recursive` a directory, within one bucket; replaces what is there.
    #[pyo3(signature = (source, target, recursive=false, done=None))]
    fn copy<'py>(
        &self,
        py: Python<'py>,
        source: String,
        target: String,
        recursive: bool,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &source.clone(), done, async move {
            let (client, from, to) = pair(&shared, "cp", &source, &target).await?;
            let copied = client.cp(&from, &to, transfer(recursive)).await?;
            Ok(copied.files)
        })
    }

    /// Moves a file, or with `recursive` a directory, within one bucket; replaces what is there.
    #[pyo3(signature = (source, target, recursive=false, done=None))]
    fn rename<'py>(
        &self,
        py: Python<'py>,
        source: String,
        target: String,
        recursive: bool,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &source.clone(), done, async move {
            let (client, from, to) = pair(&shared, "mv", &source, &target).await?;
            let moved = client.mv(&from, &to, transfer(recursive)).await?;
            Ok(moved.files)
        })
    }

    /// Forgets what is known of a path and of all below it.
    fn forget(&self, py: Python<'_>, uri: &str) -> PyResult<()> {
        wait(py, uri, async {
            let (client, path) = self.shared.client(uri).await?;
            client.forget(&path)?;
            client.forget_below(&path)
        })
    }

    /// The order in which the files of one bucket will be opened: the next ones are fetched ahead.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list comes from Python by value"
    )]
    fn follow_list(&self, py: Python<'_>, uris: Vec<String>) -> PyResult<()> {
        let Some(first) = uris.first() else {
            return Ok(());
        };
        wait(py, first, async {
            let (client, _path) = self.shared.client(first).await?;
            let paths = uris.iter().map(|uri| split(uri).map(|(_root, path)| path));
            client.follow_list(paths.collect::<Result<_, _>>()?)
        })
    }

    /// What the client of a URI's bucket did so far, as JSON: bytes, requests and time by source.
    fn summary(&self, py: Python<'_>, uri: &str) -> PyResult<String> {
        wait(py, uri, async {
            let (client, _path) = self.shared.client(uri).await?;
            serde_json::to_string(&client.summary()).map_err(|error| {
                Error::new(ErrorKind::Unexpected, "summary", "cannot be written").with_source(error)
            })
        })
    }

    /// The workers that are known now, as `host:port`.
    fn workers(&self, py: Python<'_>, uri: &str) -> PyResult<Vec<String>> {
        wait(py, uri, async {
            let (client, _path) = self.shared.client(uri).await?;
            let workers = client.workers();
            let names = workers
                .endpoints()
                .map(|worker| worker.base_url.to_string());
            Ok(names.collect())
        })
    }

    /// Starts a load; the options as JSON. Returns the worker's answer as JSON.
    #[pyo3(signature = (uri, options, done=None))]
    fn submit_load<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        options: &str,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = loads::options(options)?;
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            loads::submit(&shared, &uri, &options).await.map(Json)
        })
    }

    /// How far a load is, as JSON; with the failures where `verbose`.
    #[pyo3(signature = (uri, verbose=false, done=None))]
    fn load_progress<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        verbose: bool,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            loads::progress(&shared, &uri, verbose).await.map(Json)
        })
    }

    /// Ends a load. Returns the worker's answer as JSON.
    #[pyo3(signature = (uri, done=None))]
    fn stop_load<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        done: Done,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        answer(py, &uri.clone(), done, async move {
            loads::stop(&shared, &uri).await.map(Json)
        })
    }
}

/// The client of two URIs of one root, and the paths below it.
async fn pair(
    shared: &Shared,
    operation: &'static str,
    source: &str,
    target: &str,
) -> Result<(Client, String, String), Error> {
    let (root, to) = split(target)?;
    let (client, from) = shared.client(source).await?;
    if *client.root() != root {
        let context = format!("{source} and {target} are not of one bucket");
        return Err(Error::new(ErrorKind::Unsupported, operation, context));
    }
    Ok((client, from, to))
}
