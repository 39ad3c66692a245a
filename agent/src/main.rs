//! The `hark` program; everything is in the library, so that the demo and the tests can start the real agent from their own binary.
fn main() {}
