//! Placeholder so that the workspace parses; the FUSE owner replaces it.
fn main() {}
