//! What Alluxio's workers and its etcd say, as types without IO.
//!
//! Everything that crosses the wire is parsed here once, at the edge, into types that cannot hold
//! a wrong value: a [`UfsUri`] is canonical, a [`PageSize`] is possible, a [`WorkerId`] is what the
//! ring hashes. Sources of the facts are named where they are used: the open-source Alluxio 3.x
//! worker's recorded answers (`tests/vectors/worker-transcript.jsonl` of the client crate) and its
//! etcd records (`tests/vectors/etcd-keys.json`).

pub mod load;
pub mod page;
pub mod route;
pub mod status;
pub mod uri;
pub mod worker;

pub use load::{
    LoadCounts, LoadFailure, LoadOp, LoadOptions, LoadState, LoadWorker, ProgressAnswer,
    ProgressFormat, ProgressQuery, StopAnswer, SubmitAnswer,
};
pub use page::{PageRange, PageSize, PageSizeError, PageSlice, page_length, parse_size, split};
pub use status::{FileKind, FileStatus, FileVersion, StatusError};
pub use uri::{FileId, UfsUri, UriError};
pub use worker::{RecordError, WorkerAddress, WorkerId, WorkerRecord, etcd};
