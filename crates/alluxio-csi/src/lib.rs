//! The CSI driver of one node.
//!
//! The kubelet finds the driver through [`registration`], asks it who it is through [`identity`]
//! and has volumes mounted through [`node`]. Staging mounts a dataset once for the node; publishing
//! binds that mount into a pod. What "mount" means is the caller's business: the driver holds a
//! [`Mounter`] and never links the data plane, so all of it is tested with a tmpfs in place of FUSE.
//!
//! One rule shapes the rest: a mount may be dead. So every system call that could touch one runs
//! with a deadline ([`host`]), whether something is mounted is read from the kernel's table
//! ([`mountinfo`]) and never from the mount itself, and OK is said only after another look there.

pub mod error;
pub mod host;
pub mod identity;
pub mod inflight;
pub mod mounter;
pub mod mountinfo;
pub mod node;
pub mod proto;
pub mod registration;
pub mod server;
pub mod socket;
pub mod staged;
pub mod volume;

pub use error::NodeError;
pub use host::Patience;
pub use mounter::{MountError, MountErrorKind, Mounter, VolumeMount, VolumeUsage};
pub use registration::Registration;
pub use server::{CsiOptions, DRIVER_NAME, ServeError, Server, serve};
pub use volume::{DatasetName, MountOptions, Volume, VolumeError};
