//! What a person asks for: one file per subcommand.
pub mod replay;
pub mod run;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Exit codes are stable: 0 done, 1 failed, 2 wrong arguments or configuration.
pub const EXIT_CONFIG: u8 = 2;

/// Listens to machines and warns before they fail.
///
/// Hark reads sensors over serial lines and MQTT, keeps every reading in a crash-proof buffer, scores it on the spot and forwards readings and
/// predictions to Kafka whenever the link allows. It is not a safety function: never wire it to a trip.
#[derive(Debug, Parser)]
#[command(name = "hark", version = VERSION, max_term_width = 110)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: read, buffer, score, forward, until SIGINT or SIGTERM.
    Run(run::RunArgs),
    /// Run a recorded file through the same inference and alarms, as fast as the machine allows.
    Replay(replay::ReplayArgs),
}

/// Where the configuration is; shared by the subcommands.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// Directory with hark.toml and assets/*.toml
    #[arg(long, value_name = "DIR", default_value = "/etc/hark")]
    pub config: PathBuf,
}

#[cfg(feature = "tls")]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (with TLS)");
#[cfg(not(feature = "tls"))]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (without TLS)");

/// Runs the subcommand.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run(args) => run::main(&args),
        Command::Replay(args) => replay::main(&args),
    }
}
