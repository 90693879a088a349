//! The embedded client: ring, membership, page cache, worker routing, UFS fallback.

mod error;
pub mod membership;
pub mod ring;

pub use error::{Error, ErrorKind, Result};
