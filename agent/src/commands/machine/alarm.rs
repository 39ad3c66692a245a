//! `hark alarm`: what is wrong on this gateway's machines, and what a person says to it (ISA-18.2).
use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{Subcommand, ValueEnum};
use hark_protocol::topics::{FeedbackAction, Timestamp};

use super::{AgentArgs, EXIT_CODES, Failure, WordArgs, end, page};
use crate::{clock::Clock, config::parse_duration, local::message::CommandRequest};

/// Arguments of `hark alarm`.
#[derive(Debug, clap::Args)]
pub struct AlarmArgs {
    #[command(subcommand)]
    command: AlarmCommand,
}

#[derive(Debug, Subcommand)]
enum AlarmCommand {
    /// What is wrong, the most urgent first, with what to check and by when.
    #[command(after_help = EXIT_CODES)]
    List(ListArgs),
    /// Say that you have seen an alarm, or all of an asset.
    #[command(visible_alias = "acknowledge", after_help = EXIT_CODES)]
    Ack(OnAlarm),
    /// Silence an alarm, or all of an asset that stand now, for a time; they come back by themselves. Nothing stops being watched, and what is still to come is heard.
    #[command(after_help = EXIT_CODES)]
    Shelve(ShelveArgs),
    /// End the shelving now.
    #[command(after_help = EXIT_CODES)]
    Unshelve(OnAlarm),
    /// Silence an asset that is being worked on, or one of its instruments, until it is returned.
    #[command(after_help = EXIT_CODES)]
    OutOfService(OutOfServiceArgs),
    /// Return an asset, or an instrument, to service.
    #[command(name = "return", after_help = EXIT_CODES)]
    Return(OnService),
    /// Say what an alarm turned out to be: what models are trained on.
    #[command(after_help = EXIT_CODES)]
    Label(LabelArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only this asset
    asset: Option<String>,
    /// Print the records of `hark.alarms.v1`, one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
struct OnAsset {
    /// Asset id
    asset: String,
    #[command(flatten)]
    word: WordArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
struct OnAlarm {
    /// Asset id
    asset: String,
    /// Alarm id, as `hark alarm list` shows it; all of the asset if left out
    alarm: Option<String>,
    #[command(flatten)]
    word: WordArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
struct ShelveArgs {
    /// For so long, such as 30m or 8h; 7 days at most
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Duration,
    #[command(flatten)]
    on: OnAlarm,
}

#[derive(Debug, clap::Args)]
struct OutOfServiceArgs {
    /// Returns by itself after so long, such as 2d
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    #[command(flatten)]
    on: OnService,
}

#[derive(Debug, clap::Args)]
struct OnService {
    /// Only this instrument: the id of a point, or of the waveform that points are computed from. Its values do not count meanwhile (NE 107: check_function)
    #[arg(long, value_name = "ID")]
    instrument: Option<String>,
    #[command(flatten)]
    on: OnAsset,
}

#[derive(Debug, clap::Args)]
struct LabelArgs {
    /// What it was
    #[arg(long, value_enum)]
    label: Label,
    /// ISO 14224 failure mode found, such as VIB or OHE
    #[arg(long, value_name = "CODE")]
    failure_mode: Option<String>,
    #[command(flatten)]
    on: OnAlarm,
}

/// The labels.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Label {
    /// The machine had what the alarm said, or something like it.
    #[value(alias = "true-alarm")]
    TrueAlarm,
    /// Nothing was found.
    #[value(alias = "false-alarm")]
    FalseAlarm,
    /// Something was found, and it is no fault: a new product, a test run.
    #[value(alias = "not-a-fault")]
    NotAFault,
    /// It was a fault, and it is repaired.
    Fixed,
}

impl Label {
    fn word(self) -> &'static str {
        match self {
            Self::TrueAlarm => "true_alarm",
            Self::FalseAlarm => "false_alarm",
            Self::NotAFault => "not_a_fault",
            Self::Fixed => "fixed",
        }
    }
}

/// Runs the subcommand.
pub fn main(args: AlarmArgs) -> ExitCode {
    end(match args.command {
        AlarmCommand::List(args) => list(&args),
        AlarmCommand::Ack(on) => give(on, FeedbackAction::Acknowledge, |request| request, "acknowledged"),
        AlarmCommand::Shelve(ShelveArgs { time, on }) => {
            let until = later(time);
            give(on, FeedbackAction::Shelve, |request| CommandRequest { until: Some(until.clone()), ..request }, &format!("shelved until {until}"))
        }
        AlarmCommand::Unshelve(on) => give(on, FeedbackAction::Unshelve, |request| request, "no longer shelved"),
        AlarmCommand::OutOfService(OutOfServiceArgs { time, on }) => {
            let until = time.map(later);
            let OnService { instrument, on } = on;
            let done = of_instrument(
                instrument.as_deref(),
                &until.as_ref().map_or_else(|| "out of service".to_owned(), |until| format!("out of service until {until}")),
            );
            give(on.into(), FeedbackAction::OutOfService, |request| CommandRequest { until, point: instrument, ..request }, &done)
        }
        AlarmCommand::Return(OnService { instrument, on }) => {
            let done = of_instrument(instrument.as_deref(), "returned to service");
            give(on.into(), FeedbackAction::ReturnToService, |request| CommandRequest { point: instrument, ..request }, &done)
        }
        AlarmCommand::Label(LabelArgs { label, failure_mode, on }) => {
            let label = Some(label.word().to_owned());
            give(on, FeedbackAction::Label, |request| CommandRequest { label, failure_mode, ..request }, "label taken")
        }
    })
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let (machines, flood) = args.agent.machines(args.asset.as_deref())?;
    let mut out = io::stdout().lock();
    if args.json {
        for machine in &machines {
            for alarm in &machine.alarms {
                let mut line = serde_json::to_value(alarm).map_err(io::Error::from)?;
                line["asset"] = (*machine.asset).into();
                writeln!(out, "{line}")?;
            }
        }
        return Ok(());
    }
    Ok(out.write_all(page::alarms(&machines, flood.as_ref(), Clock::new().now().ts).as_bytes())?)
}

fn give(on: OnAlarm, action: FeedbackAction, with: impl FnOnce(CommandRequest) -> CommandRequest, done: &str) -> Result<(), Failure> {
    let request = with(CommandRequest { alarm_id: on.alarm, ..CommandRequest::new(&on.asset, action) });
    on.agent.command(request, on.word, done)
}

fn of_instrument(instrument: Option<&str>, done: &str) -> String {
    instrument.map_or_else(|| done.to_owned(), |instrument| format!("instrument `{instrument}` {done}"))
}

impl From<OnAsset> for OnAlarm {
    fn from(OnAsset { asset, word, agent }: OnAsset) -> Self {
        Self { asset, alarm: None, word, agent }
    }
}

fn later(time: Duration) -> String {
    let time_us = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    Timestamp(Clock::new().now().ts.0.saturating_add(time_us)).to_string()
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).filter(|time| !time.is_zero()).ok_or_else(|| "write for example 30m, 8h or 2d".to_owned())
}
