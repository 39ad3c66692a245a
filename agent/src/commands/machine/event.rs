//! `hark event`: what happened to a machine that no sensor tells.
use std::process::ExitCode;

use clap::Subcommand;
use hark_protocol::topics::FeedbackAction;

use super::{AgentArgs, EXIT_CODES, WordArgs, end};
use crate::local::message::CommandRequest;

/// Arguments of `hark event`.
#[derive(Debug, clap::Args)]
pub struct EventArgs {
    #[command(subcommand)]
    command: EventCommand,
}

#[derive(Debug, Subcommand)]
enum EventCommand {
    /// The machine was repaired, overhauled or refitted: it is commissioned anew, and its old baseline stays published.
    #[command(after_help = EXIT_CODES)]
    Maintenance(MaintenanceArgs),
}

#[derive(Debug, clap::Args)]
struct MaintenanceArgs {
    /// Asset id
    asset: String,
    /// ISO 14224 failure mode that was found, such as VIB or OHE
    #[arg(long, value_name = "CODE")]
    failure_mode: Option<String>,
    #[command(flatten)]
    word: WordArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Runs the subcommand.
pub fn main(args: EventArgs) -> ExitCode {
    let EventCommand::Maintenance(MaintenanceArgs { asset, failure_mode, word, agent }) = args.command;
    let request = CommandRequest { failure_mode, ..CommandRequest::new(&asset, FeedbackAction::MaintenanceDone) };
    end(agent.command(request, word, "maintenance noted, commissioning begins anew"))
}
