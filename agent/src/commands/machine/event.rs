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
    /// Somebody wants to look closer: the newest raw block of a waveform goes to the topic of snapshots.
    #[command(after_help = EXIT_CODES)]
    Snapshot(SnapshotArgs),
}

#[derive(Debug, clap::Args)]
struct SnapshotArgs {
    /// Asset id
    asset: String,
    /// Id of its `[[waveform]]`, such as de-h
    point: String,
    #[command(flatten)]
    word: WordArgs,
    #[command(flatten)]
    agent: AgentArgs,
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
    end(match args.command {
        EventCommand::Maintenance(MaintenanceArgs { asset, failure_mode, word, agent }) => {
            let request = CommandRequest { failure_mode, ..CommandRequest::new(&asset, FeedbackAction::MaintenanceDone) };
            agent.command(request, word, "maintenance noted, commissioning begins anew")
        }
        EventCommand::Snapshot(SnapshotArgs { asset, point, word, agent }) => {
            let request = CommandRequest { point: Some(point), ..CommandRequest::new(&asset, FeedbackAction::SnapshotRequest) };
            agent.command(request, word, "snapshot granted; it comes from memory, if a block is kept")
        }
    })
}
