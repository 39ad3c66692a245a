//! The `hark` program. Everything is in the library, so that the demo and the tests can start the real agent from their own binary.
use std::process::ExitCode;

fn main() -> ExitCode {
    hark::main()
}
