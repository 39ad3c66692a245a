//! Hark's agent: listens to machines and warns before they fail.
//!
//! ```text
//! source ──► buffer ──► inference ──► buffer ──► forward ──► Kafka
//! ```
//! Start reading at [`pipeline`], which wires these stages; each folder's `mod.rs` is its story.
#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests start their own threads and join them, and give up by the clock"))]

pub mod annunciate;
pub mod audit;
pub mod backoff;
pub mod buffer;
pub mod causes;
pub mod clock;
pub mod commands;
pub mod config;
pub mod feedback;
pub mod forward;
pub mod hold;
pub mod inference;
pub mod local;
pub mod pipeline;
pub mod record;
pub mod signal;
pub mod source;
pub mod status;
pub mod stop;
pub mod words;

use std::process::ExitCode;

use clap::Parser;

/// Whether the agent starts a part of itself with this first argument: a program that is an agent too hands such a start to [`main`].
pub fn is_part(argument: &std::ffi::OsStr) -> bool {
    [feedback::ROLE, inference::verification::ROLE].iter().any(|role| argument == *role)
}

/// The agent's `main`: parses the arguments of this process and runs the subcommand.
pub fn main() -> ExitCode {
    commands::run(commands::Arguments::parse())
}
