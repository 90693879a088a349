//! A session: the clients of one configuration, one for each bucket or host that is asked for.
//!
//! fsspec's file systems speak of any bucket that their credentials open, a [`Client`] of one dataset.
//! So a session connects a client the first time a root is named, and keeps it. All paths are URIs
//! of the under-store, such as `s3://bucket/key`.
//!
//! Each method takes `done` last: without it the call blocks (without the GIL), with it the call
//! returns a `Task` at once (see [`crate::process::answer`]).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use alluxio_client::{
    Client, Error, ErrorKind, RemoveOptions, TouchOptions, Transferred, WriteMode, WriteOptions,
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

use crate::answer::{Answer, Chunks, Described, Json, Listed, Naming, Texts};
use crate::file::{Opened, Reader, Writer};
use crate::loads;
use crate::options::Template;
use crate::process::{Owned, answer, owned, wait};
use crate::ranges::{self, Range};
use crate::transfer::{self, Progress};

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

type Answered<'py> = PyResult<Bound<'py, PyAny>>;

impl Session {
    /// Answers with what is done by the client of a URI's root, given the path below it.
    fn by_client<'py, T: Answer, F: Future<Output = Result<T, Error>> + Send + 'static>(
        &self,
        py: Python<'py>,
        uri: String,
        done: Done,
        operation: impl FnOnce(Client, String) -> F + Send + 'static,
    ) -> Answered<'py> {
        let shared = Arc::clone(&self.shared);
        let named = uri.clone();
        answer(py, &named, done, async move {
            let (client, path) = shared.client(&uri).await?;
            operation(client, path).await
        })
    }

    /// The same of two URIs, which must be of one root.
    fn by_client_of_both<'py, F: Future<Output = Result<Transferred, Error>> + Send + 'static>(
        &self,
        py: Python<'py>,
        [source, target]: [String; 2],
        done: Done,
        name: &'static str,
        operation: impl FnOnce(Client, String, String) -> F + Send + 'static,
    ) -> Answered<'py> {
        let shared = Arc::clone(&self.shared);
        let named = source.clone();
        answer(py, &named, done, async move {
            let (root, to) = split(&target)?;
            let (client, from) = shared.client(&source).await?;
            if *client.root() != root {
                let context = format!("{source} and {target} are not of one bucket");
                return Err(Error::new(ErrorKind::Unsupported, name, context));
            }
            Ok(operation(client, from, to).await?.files)
        })
    }
}

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
    fn status<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        let naming = naming(&uri);
        self.by_client(py, uri, done, move |client, path| async move {
            Ok(Described(naming, client.info(&path).await?))
        })
    }

    /// The entries of a directory, sorted by name; of a file, its own.
    #[pyo3(signature = (uri, done=None))]
    fn ls<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        let naming = naming(&uri);
        self.by_client(py, uri, done, move |client, path| async move {
            Ok(Listed(naming, client.ls(&path).await?))
        })
    }

    /// The entries of all files below a directory.
    #[pyo3(signature = (uri, done=None))]
    fn walk<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        let naming = naming(&uri);
        self.by_client(py, uri, done, move |client, path| async move {
            let files: Vec<FileStatus> = client.walk(&path).try_collect().await?;
            Ok(Listed(naming, Arc::new(files)))
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
    ) -> Answered<'py> {
        if done.is_some() {
            let shared = Arc::clone(&self.shared);
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
    fn read_ranges<'py>(&self, py: Python<'py>, ranges: Vec<Range>, done: Done) -> Answered<'py> {
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
    ) -> Answered<'py> {
        let bytes = Bytes::from_owner(data);
        self.by_client(py, uri, done, move |client, path| async move {
            let written = client.write_bytes(&path, bytes, mode(exclusive)).await;
            written.map(drop)
        })
    }

    /// Makes a directory and those above it.
    #[pyo3(signature = (uri, done=None))]
    fn make_dir<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        self.by_client(py, uri, done, |client, path| async move {
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
    ) -> Answered<'py> {
        let options = RemoveOptions {
            recursive,
            even_root: false,
        };
        self.by_client(py, uri, done, move |client, path| async move {
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
    ) -> Answered<'py> {
        self.by_client(py, uri, done, move |client, path| async move {
            client.touch(&path, TouchOptions { truncate }).await
        })
    }

    /// Copies a file, or with `recursive` a directory, within one bucket; replaces what is there.
    /// Returns how many files were copied.
    #[pyo3(signature = (source, target, recursive=false, done=None))]
    fn copy<'py>(
        &self,
        py: Python<'py>,
        source: String,
        target: String,
        recursive: bool,
        done: Done,
    ) -> Answered<'py> {
        let options = transfer::replacing(recursive);
        let copy = |client: Client, from: String, to: String| async move {
            client.cp(&from, &to, options).await
        };
        self.by_client_of_both(py, [source, target], done, "cp", copy)
    }

    /// Moves a file, or with `recursive` a directory, within one bucket; replaces what is there.
    /// Returns how many files were moved.
    #[pyo3(signature = (source, target, recursive=false, done=None))]
    fn rename<'py>(
        &self,
        py: Python<'py>,
        source: String,
        target: String,
        recursive: bool,
        done: Done,
    ) -> Answered<'py> {
        let options = transfer::replacing(recursive);
        let rename = |client: Client, from: String, to: String| async move {
            client.mv(&from, &to, options).await
        };
        self.by_client_of_both(py, [source, target], done, "mv", rename)
    }

    /// Copies a file to the local disk, and goes on with what a download that was cut has left.
    /// Returns how many bytes it has.
    #[pyo3(signature = (uri, path, progress=None, done=None))]
    fn download<'py>(
        &self,
        py: Python<'py>,
        uri: String,
        path: PathBuf,
        progress: Option<&Bound<'py, Progress>>,
        done: Done,
    ) -> Answered<'py> {
        let options = transfer::of_one_file(true, progress);
        self.by_client(py, uri, done, move |client, from| async move {
            let downloaded = client.download(&from, &path, options).await;
            downloaded.map(|it| it.bytes)
        })
    }

    /// Copies a local file to the store. `exclusive` fails where one is. Returns how many bytes it has.
    #[pyo3(signature = (path, uri, exclusive=false, progress=None, done=None))]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of Python's")]
    fn upload<'py>(
        &self,
        py: Python<'py>,
        path: PathBuf,
        uri: String,
        exclusive: bool,
        progress: Option<&Bound<'py, Progress>>,
        done: Done,
    ) -> Answered<'py> {
        let options = transfer::of_one_file(!exclusive, progress);
        self.by_client(py, uri, done, move |client, to| async move {
            let uploaded = client.upload(&path, &to, options).await;
            uploaded.map(|it| it.bytes)
        })
    }

    /// Forgets what is known of a path and of all below it.
    #[pyo3(signature = (uri, done=None))]
    fn forget<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        self.by_client(py, uri, done, |client, path| async move {
            client.forget(&path)?;
            client.forget_below(&path)
        })
    }

    /// The order in which the files of one bucket will be opened: the next ones are fetched ahead.
    #[pyo3(signature = (uris, done=None))]
    fn follow_list<'py>(&self, py: Python<'py>, uris: Vec<String>, done: Done) -> Answered<'py> {
        let Some(first) = uris.first().cloned() else {
            return Ok(py.None().into_bound(py));
        };
        self.by_client(py, first, done, move |client, _path| async move {
            let paths = uris.iter().map(|uri| split(uri).map(|(_root, path)| path));
            client.follow_list(paths.collect::<Result<_, _>>()?)
        })
    }

    /// What the client of a URI's bucket did so far, as JSON: bytes, requests and time by source.
    #[pyo3(signature = (uri, done=None))]
    fn summary<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        self.by_client(py, uri, done, |client, _path| async move {
            let summary = serde_json::to_string(&client.summary());
            summary.map(Json).map_err(|error| {
                Error::new(ErrorKind::Unexpected, "summary", "cannot be written").with_source(error)
            })
        })
    }

    /// The workers that are known now, as URLs.
    #[pyo3(signature = (uri, done=None))]
    fn workers<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        self.by_client(py, uri, done, |client, _path| async move {
            let workers = client.workers();
            let urls = workers.endpoints().map(|it| it.base_url.to_string());
            Ok(Texts(urls.collect()))
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
    ) -> Answered<'py> {
        let options = loads::options(options)?;
        self.by_client(py, uri, done, move |client, path| async move {
            loads::submit(&client, &path, &options).await.map(Json)
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
    ) -> Answered<'py> {
        self.by_client(py, uri, done, move |client, path| async move {
            loads::progress(&client, &path, verbose).await.map(Json)
        })
    }

    /// Ends a load. Returns the worker's answer as JSON.
    #[pyo3(signature = (uri, done=None))]
    fn stop_load<'py>(&self, py: Python<'py>, uri: String, done: Done) -> Answered<'py> {
        self.by_client(py, uri, done, |client, path| async move {
            loads::stop(&client, &path).await.map(Json)
        })
    }
}
