//! The operator: turns an `AlluxioDataset` into a volume that pods mount and a load that fills the
//! workers, and says truly how that stands.
//!
//! It never links the data plane. What it knows of files it learns from workers over REST; what it
//! tells the data plane is one configuration in a volume's attributes. Two controllers share one
//! [`context::Context`]: [`dataset`] for the long-lived object, [`load`] for one run of a load.

pub mod context;
mod controllers;
pub mod dataset;
pub mod load;
pub mod metrics;
pub mod names;
#[cfg(test)]
mod samples;
pub mod worker_api;
pub mod workers;

pub use context::Limits;
pub use controllers::{OperatorOptions, RunError, run, run_until};
