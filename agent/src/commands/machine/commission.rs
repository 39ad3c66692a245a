//! `hark commission`: how far machines are learned, and a person's word that it is enough.
use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Subcommand;
use hark_protocol::topics::FeedbackAction;

use super::{AgentArgs, EXIT_CODES, Failure, WordArgs, end, page};
use crate::local::message::CommandRequest;

/// Arguments of `hark commission`.
#[derive(Debug, clap::Args)]
pub struct CommissionArgs {
    #[command(subcommand)]
    command: CommissionCommand,
}

#[derive(Debug, Subcommand)]
enum CommissionCommand {
    /// How far each machine is learned, and what its scores compare with.
    #[command(after_help = EXIT_CODES)]
    Show(ShowArgs),
    /// End commissioning with the rows that were collected: only when the machine ran well all the time.
    ///
    /// Says of each regime on how many rows and starts it was accepted, with what remarks, or why not: one with too few rows goes on collecting. Refused
    /// (exit code 1) where nothing was accepted, or where the rows of a regime make no baseline.
    #[command(after_help = EXIT_CODES)]
    Accept(AcceptArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Only this asset
    asset: Option<String>,
    /// Print one JSON object per machine
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
struct AcceptArgs {
    /// Asset id
    asset: String,
    #[command(flatten)]
    word: WordArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Runs the subcommand.
pub fn main(args: CommissionArgs) -> ExitCode {
    end(match args.command {
        CommissionCommand::Show(args) => show(&args),
        CommissionCommand::Accept(AcceptArgs { asset, word, agent }) => {
            agent.command(CommandRequest::new(&asset, FeedbackAction::CommissioningAccepted), word, "accepted")
        }
    })
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let (machines, _) = args.agent.machines(args.asset.as_deref())?;
    let mut out = io::stdout().lock();
    if args.json {
        return machines.iter().try_for_each(|machine| Ok(writeln!(out, "{}", serde_json::to_string(machine).map_err(io::Error::from)?)?));
    }
    Ok(out.write_all(page::commissioning(&machines).as_bytes())?)
}
