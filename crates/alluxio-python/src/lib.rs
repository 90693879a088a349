//! `alluxio_dataset._native`: the embedded client for Python.
//!
//! The package's Python half (`python/alluxio_dataset`) is the fsspec file system and speaks of paths;
//! this half speaks of URIs and bytes, and translates, nothing more:
//!
//! 1. [`session`] keeps a client for each root (bucket, host) that is asked for.
//! 2. [`process`] has the one runtime of a process, made anew after a fork, and waits for it without
//!    the GIL, or calls back; [`fork`] is what happens around a fork, [`exit`] at
//!    the interpreter's end.
//! 3. [`answer`] and [`errors`] turn what comes into Python's own values and exceptions; every
//!    exception is decided in one `match`.
//! 4. [`file`] has open files (and [`buffer`] how bytes become Python's), [`transfer`] those that go to and from the local disk, [`loads`] the load
//!    jobs, [`logs`] the way to Python's logging.

mod answer;
mod buffer;
mod errors;
mod exit;
mod file;
mod fork;
mod loads;
mod logs;
mod options;
mod process;
mod ranges;
mod session;
mod transfer;

use pyo3::prelude::*;

/// The embedded client of alluxio-dataset.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::file::{Reader, Writer};
    #[pymodule_export]
    use crate::logs::{log_to_file, log_to_logger};
    #[pymodule_export]
    use crate::options::{option_names, schemes};
    #[pymodule_export]
    use crate::process::Task;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::transfer::Progress;
    use pyo3::prelude::*;

    /// Installs the one crypto provider; a second import of the module changes nothing.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        crate::fork::register(module)?;
        crate::exit::register(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
