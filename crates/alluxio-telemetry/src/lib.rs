//! Logs, the metrics endpoint and health, alike in every process.
//!
//! A process calls [`logging::init`] once and keeps the guard; it calls [`metrics::serve`] with
//! whatever holds its metrics and with a [`Health`](health::Health) that the rest of the process
//! turns to ready or not. A process that speaks for others (the mounter's agent for its mount
//! daemons) joins their texts with [`metrics::merge()`].

pub mod health;
pub mod logging;
pub mod metrics;
