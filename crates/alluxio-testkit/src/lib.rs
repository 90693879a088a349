//! Sample objects and fault servers for tests.
