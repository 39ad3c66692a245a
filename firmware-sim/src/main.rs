//! `firmware-sim`: sensor nodes without hardware, for tests and for a first look.
#![expect(clippy::disallowed_methods, reason = "the program waits for a signal on a thread of its own")]
mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(commands::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firmware-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
