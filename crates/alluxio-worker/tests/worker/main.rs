//! The worker over real HTTP on loopback, on real stores: local files, an S3 server, an etcd.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says in a line what it left out"
)]

#[allow(
    dead_code,
    reason = "shared with the ufs crate's tests, which use more"
)]
#[path = "../../../alluxio-ufs/tests/support/s3.rs"]
mod s3;

mod clients;
mod etcd;
mod files;
mod invalidate;
mod loads;
mod pages;
mod registration;
mod rest;
mod resumed_loads;
mod sdk;
mod security;
mod support;
