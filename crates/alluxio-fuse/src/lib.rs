//! The FUSE mount: a privileged supervisor and an unprivileged daemon.
//!
//! ```text
//!  supervisor (root, small)                     daemon (no privilege; parses remote data)
//!  opens /dev/fuse, mounts, answers INIT  --->  session: kernel -> slot of the journal
//!  keeps: the connection, the journal,          fs: request -> tree -> answer
//!  the inode log, the configuration             tree: the embedded client
//!  starts another daemon when one dies          ends when the mount is gone
//! ```
//!
//! The two meet in [`handover`](CONTROL_FD): one message, six descriptors. A daemon may die at any
//! instruction: requests that it held lie in the journal, inode numbers that it gave lie in the log,
//! and its successor goes on with both, so that readers see a pause and never an error. A supervisor
//! may die as well: the daemon hands everything back to the next one. In
//! Kubernetes the two live in different pods, with an [`agent`] between them.
//!
//! A file that lies whole in the disk cache is opened in passthrough: the daemon sends the cache's file
//! to the supervisor's broker (`backing`), and the kernel reads it by itself.
//!
//! One read: `session` takes the request off the kernel and `protocol` decodes it; `fs::read` finds
//! the open file in `handles`; the tree answers with pieces of cached memory; `session` writes them
//! to the kernel as they are.

mod backing;
mod broker;
mod client_tree;
mod errno;
mod fs;
mod handles;
mod handover;
mod inodes;
mod journal;
mod keeper;
mod metrics;
mod opens;
mod options;
mod passthrough;
mod protocol;
mod rendezvous;
mod sandbox;
mod session;
mod spawner;
mod staging;
mod supervisor;
mod sys;
mod tree;
mod xattrs;

pub mod agent;
pub mod daemon;

pub use agent::AgentSpawner;
pub use backing::Passthrough;
pub use client_tree::ClientTree;
pub use handover::CONTROL_FD;
pub use options::{MountOptions, MountRequest, Staging};
pub use spawner::{DaemonProcess, DaemonSpawner, End, LocalSpawner};
pub use supervisor::{
    Found, Mount, MountError, find_abandoned, find_abandoned_at, unmount_abandoned,
};
pub use tree::{NoWriter, Placement, Tree, TreeError, TreeFile, TreeWriter};
