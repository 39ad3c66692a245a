//! The real agent, built beside the scenarios so that they can start it as a process of its own and kill it by its pid.
use std::process::ExitCode;

fn main() -> ExitCode {
    hark::main()
}
