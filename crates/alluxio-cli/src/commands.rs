//! One file a subcommand; each is a function from its arguments to a result.

pub(crate) mod cat;
pub(crate) mod change;
pub(crate) mod crd;
pub(crate) mod info;
pub(crate) mod load;
pub(crate) mod ls;
pub(crate) mod manifest;
pub(crate) mod mount;
pub(crate) mod mounter;
pub(crate) mod ring;
pub(crate) mod service;
pub(crate) mod transfer;
pub(crate) mod worker;
