//! The configuration that every front end hands to the client.
//!
//! One YAML file serves CLI, mount, CSI plugin and embedded worker. It is read in two phases, as
//! ripgrep does with its arguments: [`raw`] is what may be written, with units, defaults and
//! Alluxio's own property names as aliases; [`Config`] is what is meant, and holds no wrong value.
//! An error names the path of the field it is about.

pub mod alias;
pub mod credentials;
pub mod disk_cache;
pub mod mount;
pub mod raw;
pub mod robust;
pub mod secret;
pub mod store;
pub mod validated;

pub use credentials::Credentials;
pub use disk_cache::DiskCacheConfig;
pub use mount::MountConfig;
pub use robust::{BreakerOptions, HedgeOptions, RobustOptions};
pub use secret::SecretString;
pub use store::{StoreKind, StoreOptions};
pub use validated::{
    AccessProfile, AddressingStyle, ClientOptions, ClusterConfig, Config, Consistency, EtcdConfig,
    EtcdTlsConfig, FallbackConfig, FallbackPolicy, HostPort, LogFormat, LoggingConfig,
    ManifestConfig, Membership, OnChange, PageDirectory, PageStoreConfig, RingMembership,
    RingPolicy, ServiceConfig, UfsConfig, WorkerOptions, WorkerSecurity, WorkerTlsConfig,
    WorkersTlsConfig,
};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not YAML of the right shape.
    #[error("configuration field `{path}`: {reason}")]
    Shape {
        /// Path of the field, such as `client.fallback.policy`.
        path: String,
        /// What is wrong there, and what would be right.
        reason: String,
    },
    /// The value has the right shape and is impossible.
    #[error("configuration field `{path}`: {reason}")]
    Value {
        /// Path of the field.
        path: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// An Alluxio property and a field of ours say the same thing twice.
    #[error("configuration sets both `{property}` and `{field}`: keep one of them")]
    Twice {
        /// Alluxio's property name.
        property: String,
        /// Our field.
        field: String,
    },
    /// An Alluxio property that this client does not have.
    #[error(
        "Alluxio property `{0}` is not known to this client: remove it, or see the reference for the properties that are"
    )]
    UnknownProperty(String),
}

impl ConfigError {
    pub(crate) fn value(path: &'static str, reason: impl Into<String>) -> Self {
        Self::Value {
            path,
            reason: reason.into(),
        }
    }
}
