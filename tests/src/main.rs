//! The real agent as a program of this package: scenarios start it as a child process and kill it by its pid.
use std::process::ExitCode;

fn main() -> ExitCode {
    hark::main()
}
