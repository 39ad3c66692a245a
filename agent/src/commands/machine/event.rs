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
    ///
    /// Refused where the bytes of a day (`per_day` of `[snapshots]`) are used up, with the time from which on it is worth asking again. What is refused of a
    /// node later, when its block is there and larger than what is left, an event `raw_block_given_up` tells.
    ///
    /// A block of MQTT comes from the agent's memory, one of a serial node from the node, within seconds on a fast line and a minute on a slow one. Where
    /// the node gives none (its firmware has none, it is silent or starts anew), an event `raw_block_given_up` says why, and hark_source_cause_total with
    /// the group raw_block counts it; hark_snapshots_total counts the rest.
    #[command(after_help = EXIT_CODES)]
    Snapshot(SnapshotArgs),
}

#[derive(Debug, clap::Args)]
struct SnapshotArgs {
    /// Asset id
    asset: String,
    /// Id of its `[[waveform]]`, or name of its node's channel, such as de-h
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
            agent.command(request, word, "snapshot granted; the block comes from memory or from its sensor node, if one is kept (an event `raw_block_given_up` says why where not)")
        }
    })
}
