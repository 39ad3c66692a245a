//! What a person asks for: one file per subcommand.
pub mod audit;
pub mod buffer;
pub mod features;
pub mod machine;
pub mod model;
pub mod replay;
pub mod run;
mod table;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{feedback, inference::verification, stop::Stop};

/// Exit codes are stable: 0 done, 1 failed, 2 wrong arguments or configuration, 3 the store hung, 130 interrupted before the end.
pub const EXIT_CONFIG: u8 = 2;
/// Of `hark run` when a call of the store made no progress for `buffer.store_timeout`.
pub const EXIT_STORE_HUNG: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;

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
    /// Run a recorded file through the same log, inference and alarms, as fast as the machine allows.
    Replay(replay::ReplayArgs),
    /// Features and a candidate fault of a recorded waveform, one line of JSON per block.
    Features(features::FeaturesArgs),
    /// What is wrong, and what you say to it: list, ack, shelve, unshelve, out-of-service, return, label.
    Alarm(machine::alarm::AlarmArgs),
    /// Tell what happened to a machine: maintenance.
    Event(machine::event::EventArgs),
    /// How far machines are learned: show, accept.
    Commission(machine::commission::CommissionArgs),
    /// Bundles of models: list, verify, show.
    Model(model::ModelArgs),
    /// Look into the buffer, with the agent running or stopped.
    Buffer(buffer::BufferArgs),
    /// Prove from Kafka alone that a gateway's records are there exactly once, or named in a gap.
    Audit(audit::AuditArgs),
    /// Read the commands of people from Kafka, for the agent that starts this.
    #[command(name = feedback::ROLE, hide = true)]
    FeedbackReader,
    /// Look at a bundle, for the agent that starts this.
    #[command(name = verification::ROLE, hide = true)]
    BundleVerifier {
        /// Its folder.
        folder: PathBuf,
    },
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
        Command::Features(args) => features::main(&args),
        Command::Alarm(args) => machine::alarm::main(args),
        Command::Event(args) => machine::event::main(args),
        Command::Commission(args) => machine::commission::main(args),
        Command::Model(args) => model::main(&args),
        Command::Buffer(args) => buffer::main(&args),
        Command::Audit(args) => audit::main(&args),
        Command::FeedbackReader => feedback::reader::main(),
        Command::BundleVerifier { folder } => verification::main(&folder),
    }
}

/// Says on standard error why a command was not done.
fn complain(text: &str) {
    use std::io::Write;
    // Where even that fails, the exit code is left.
    let _ = writeln!(std::io::stderr().lock(), "hark: {text}");
}

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
/// What the operating system says when it takes no handler.
async fn terminated() -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// For a command without a runtime of its own: asks for the stop at SIGINT and SIGTERM as long as the value lives, and ends the program at the second one.
/// Without it, as where no thread can be had, the first one does.
fn stop_on_signal(stop: Arc<Stop>) -> Option<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("signals").enable_all().build().ok()?;
    #[expect(clippy::disallowed_methods, reason = "it ends with the runtime, which the command holds")]
    runtime.spawn(async move {
        if terminated().await.is_ok() {
            stop.request();
        }
        // The command may be held up by who reads its output and reads no more.
        if terminated().await.is_ok() {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    });
    Some(runtime)
}
