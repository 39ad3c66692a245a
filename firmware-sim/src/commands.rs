//! What a person asks for: `node`, `mqtt`, `replay`.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hark_firmware_sim::disturbance::{Disturbance, Kind};
use hark_firmware_sim::machine::{Fault, Law, MachineConfig, Profile};
use hark_firmware_sim::mqtt::Broker;
use hark_firmware_sim::replay::{Pace, Positive, Shape, TimeText};
use hark_firmware_sim::{
    MqttNode, MqttNodeConfig, NodeHandle, ReplayConfig, ReplayReport, SerialNode, SerialNodeConfig, Stop, StopHandle, replay_to_mqtt, replay_to_pty,
};

/// Sensor nodes without hardware: a machine that ages in minutes, a node on a pseudo terminal, sensors on MQTT, recorded files played again.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A sensor node on a serial port (a pseudo terminal) that speaks Hark's node protocol.
    ///
    /// The agent opens the port under the name of --link. Frames that it does not acknowledge are sent again, so agent and node may start
    /// in any order. Example, a bearing that is healthy for 35 s and has failed 60 s later:
    ///
    ///   firmware-sim node --link /tmp/hark/node1 --fault outer-race --healthy 35 --life 60
    #[command(verbatim_doc_comment)]
    Node(NodeArguments),
    /// A machine behind an MQTT broker: JSON scalars and raw blocks of acceleration, QoS 1.
    ///
    ///   firmware-sim mqtt --host 127.0.0.1 --asset fan-2 --fault unbalance --healthy 35 --life 60
    #[command(verbatim_doc_comment)]
    Mqtt(MqttArguments),
    /// Plays a CSV file with a header to a pseudo terminal or to MQTT, and prints how many rows were sent.
    ///
    /// Numbers are passed on as the text that stands in the file. Examples:
    ///
    ///   firmware-sim replay recording.csv --link /tmp/hark/logger --speed 60
    ///   firmware-sim replay recording.csv --host 127.0.0.1 --topic 'plant/demo/pump-1/{point}' --rfc3339
    #[command(verbatim_doc_comment)]
    Replay(ReplayArguments),
}

#[derive(Debug, Args)]
struct MachineArguments {
    /// What goes wrong.
    #[arg(long, value_enum, default_value = "none")]
    fault: FaultName,
    /// How it goes wrong.
    #[arg(long, value_enum, default_value = "exponential")]
    law: LawName,
    /// Seconds before damage begins.
    #[arg(long, default_value_t = 35.0, value_name = "SECONDS")]
    healthy: f64,
    /// Nominal life from then on, seconds: until failure if it runs all the time at nominal load. Without --day it runs at 80 % load; this
    /// matters to the law `load-dependent` alone, by which 80 % load makes it almost twice as long. Stops of a --day add to it under every law.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    life: f64,
    /// Speed and load change through a working day of so many seconds, instead of staying constant.
    #[arg(long, value_name = "SECONDS")]
    day: Option<f64>,
    /// Everything random follows from it: machine, sensor, line.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FaultName {
    None,
    OuterRace,
    Unbalance,
    Misalignment,
    Looseness,
    Cage,
    Gear,
    Cavitation,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LawName {
    Exponential,
    Linear,
    TwoSlope,
    Step,
    Plateau,
    DipBeforeFailure,
    RandomSlope,
    LoadDependent,
}

#[derive(Debug, Args)]
struct NodeArguments {
    /// Name under which the port appears; an older link is replaced.
    #[arg(long)]
    link: PathBuf,
    /// Node id, above 0.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    node: u32,
    /// Boot id, for the same bytes from the same seed. Without it each start draws a new one, as a node does; an agent that knows a boot id
    /// takes its frames for repetitions.
    #[arg(long, value_name = "ID")]
    boot: Option<u32>,
    #[command(flatten)]
    machine: MachineArguments,
    /// Milliseconds between blocks of features.
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u64).range(20..))]
    every_ms: u64,
    /// Something wrong with sensor or line, such as `bit-flip@30..60:0.2`; may be given several times.
    #[arg(long, value_name = "KIND@FROM..TO[:CHANCE]")]
    disturb: Vec<Disturbance>,
}

#[derive(Debug, Args)]
struct BrokerArguments {
    /// Broker's host.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Broker's port.
    #[arg(long, default_value_t = 1883)]
    port: u16,
    /// Client id, unique at the broker.
    #[arg(long, default_value = "firmware-sim")]
    client_id: String,
    /// User name.
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// File with the password.
    #[arg(long, requires = "user")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct MqttArguments {
    #[command(flatten)]
    broker: BrokerArguments,
    #[command(flatten)]
    machine: MachineArguments,
    /// Topic of scalars.
    #[arg(long, default_value = "plant/{area}/{asset}/{point}")]
    topic: String,
    /// Topic of raw blocks.
    #[arg(long, default_value = "plant/{area}/{asset}/{point}/waveform")]
    waveform_topic: String,
    /// Area in the topics.
    #[arg(long, default_value = "demo")]
    area: String,
    /// Asset in the topics.
    #[arg(long)]
    asset: String,
    /// Point of the raw blocks.
    #[arg(long, default_value = "de-h")]
    point: String,
    /// Samples in a raw block; 0 for none.
    #[arg(long, default_value_t = 8_192)]
    samples: usize,
    /// Milliseconds between blocks.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..))]
    every_ms: u64,
    /// Something wrong with the sensor: `stuck-axis`, `clipping` or `sample-rate-error`; may be given several times. What `node` knows beyond
    /// these strikes a serial line or the node on it, and here is neither.
    #[arg(long, value_name = "KIND@FROM..TO", value_parser = of_sensor)]
    disturb: Vec<Disturbance>,
}

/// A disturbance of the sensor itself.
fn of_sensor(text: &str) -> Result<Disturbance, String> {
    let disturbance: Disturbance = text.parse().map_err(|error| format!("{error}"))?;
    if disturbance.kind.is_of_sensor() {
        return Ok(disturbance);
    }
    let kinds: Vec<_> = Kind::NAMES.into_iter().filter(|(_, kind)| kind.is_of_sensor()).map(|(name, _)| name).collect();
    Err(format!("it strikes a serial line or its node; on MQTT there are {}", kinds.join(", ")))
}

#[derive(Debug, Args)]
struct ReplayArguments {
    /// CSV file with a header; comma, semicolon or tab.
    file: PathBuf,
    /// Play to a pseudo terminal of this name, line by line.
    #[arg(long, conflicts_with = "topic", required_unless_present = "topic")]
    link: Option<PathBuf>,
    /// Play to MQTT under this topic; `{point}` is the column.
    #[arg(long)]
    topic: Option<String>,
    /// One message per row, `{"ts":…,"values":{…}}`, instead of one per cell.
    #[arg(long, requires = "topic")]
    batch: bool,
    #[command(flatten)]
    broker: BrokerArguments,
    /// Column of the time; otherwise `ts`, `time`, `timestamp` or `datetime`.
    #[arg(long)]
    time_column: Option<String>,
    /// Pass times on as RFC 3339 in UTC instead of as given.
    #[arg(long)]
    rfc3339: bool,
    /// Recorded seconds per second, above 0: 1 is real time with all its pauses, 60 a minute in a second. `max` is as fast as the other side
    /// takes it, whatever the times say.
    #[arg(long, default_value = "max", value_name = "NUMBER|max", value_parser = speed, allow_negative_numbers = true)]
    speed: Pace,
    /// Rows per second, whatever their times say.
    #[arg(long, conflicts_with = "speed", value_name = "NUMBER", allow_negative_numbers = true)]
    rows_per_second: Option<Positive>,
}

fn speed(text: &str) -> Result<Pace, String> {
    if text == "max" {
        return Ok(Pace::Fastest);
    }
    text.parse().map(Pace::Speed).map_err(|error| format!("{error}, or `max`"))
}

/// Runs a command until it ends or Ctrl-C.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let (handle, stop) = Stop::new();
    std::thread::spawn(move || ask_on_signal(&handle));
    match arguments.command {
        Command::Node(arguments) => node(arguments, stop),
        Command::Mqtt(arguments) => mqtt(arguments, stop),
        Command::Replay(arguments) => replay(arguments, stop),
    }
}

/// Waits for SIGINT or SIGTERM, then asks to stop. Without signals it stops at once rather than never.
fn ask_on_signal(handle: &StopHandle) {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(async {
            if let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
        });
    }
    handle.ask();
}

fn node(arguments: NodeArguments, stop: Stop) -> Result<()> {
    let config = SerialNodeConfig {
        machine: machine(&arguments.machine)?,
        node: arguments.node,
        boot: arguments.boot,
        seed: arguments.machine.seed,
        block_every: Duration::from_millis(arguments.every_ms),
        disturbances: arguments.disturb,
        ..SerialNodeConfig::new(&arguments.link)
    };
    let handle = SerialNode::spawn(config).with_context(|| format!("failed to open a port as `{}`", arguments.link.display()))?;
    eprintln!("node {} on {} until Ctrl-C", arguments.node, arguments.link.display());
    watch(handle, stop)
}

fn mqtt(arguments: MqttArguments, stop: Stop) -> Result<()> {
    let config = MqttNodeConfig {
        machine: machine(&arguments.machine)?,
        seed: arguments.machine.seed,
        topic: arguments.topic,
        waveform_topic: arguments.waveform_topic,
        area: arguments.area,
        waveform_point: arguments.point,
        waveform_samples: arguments.samples,
        block_every: Duration::from_millis(arguments.every_ms),
        disturbances: arguments.disturb,
        ..MqttNodeConfig::new(broker(&arguments.broker)?, arguments.asset)
    };
    let handle = MqttNode::spawn(config).context("failed to start")?;
    eprintln!("publishing to {}:{} until Ctrl-C", arguments.broker.host, arguments.broker.port);
    watch(handle, stop)
}

/// Prints once in a while what the node does, until it is to stop.
fn watch(handle: NodeHandle, mut stop: Stop) -> Result<()> {
    const EVERY: Duration = Duration::from_secs(5);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        while !handle.is_finished() && tokio::time::timeout(EVERY, stop.asked()).await.is_err() {
            let stats = handle.stats();
            eprintln!("blocks {} damage {:.3} sent {} waiting {} dropped {}", stats.blocks, stats.damage, stats.sent, stats.waiting, stats.dropped);
        }
    });
    let stats = handle.stop().context("node failed")?;
    eprintln!("stopped: blocks {} sent {} waiting {} dropped {}", stats.blocks, stats.sent, stats.waiting, stats.dropped);
    Ok(())
}

fn replay(arguments: ReplayArguments, stop: Stop) -> Result<()> {
    let pace = pace(&arguments);
    let config = ReplayConfig {
        file: arguments.file,
        time_column: arguments.time_column,
        time: if arguments.rfc3339 { TimeText::Rfc3339 } else { TimeText::Given },
        pace,
    };
    let report = match (arguments.link, arguments.topic) {
        (Some(link), _) => replay_to_pty(&config, &link, stop)?,
        (None, Some(topic)) => {
            let shape = if arguments.batch { Shape::Batch } else { Shape::Scalars };
            replay_to_mqtt(&config, broker(&arguments.broker)?, &topic, &shape, stop)?
        }
        (None, None) => bail!("either --link or --topic is needed"),
    };
    print_report(&report)
}

fn pace(arguments: &ReplayArguments) -> Pace {
    arguments.rows_per_second.map_or(arguments.speed, Pace::RowsPerSecond)
}

#[expect(clippy::print_stdout, reason = "the result of the command, for a script to read")]
fn print_report(report: &ReplayReport) -> Result<()> {
    println!(
        "rows {} messages {} empty {} acknowledged {} refused {}",
        report.rows, report.messages, report.empty, report.acknowledged, report.refused
    );
    if report.stopped {
        bail!("stopped before the end");
    }
    Ok(())
}

fn machine(arguments: &MachineArguments) -> Result<MachineConfig> {
    let seconds = |name: &str, value: f64| Duration::try_from_secs_f64(value).with_context(|| format!("--{name} is no time"));
    let fault = match arguments.fault {
        FaultName::None => Fault::None,
        FaultName::OuterRace => Fault::OuterRace,
        FaultName::Unbalance => Fault::Unbalance,
        FaultName::Misalignment => Fault::Misalignment,
        FaultName::Looseness => Fault::Looseness,
        FaultName::Cage => Fault::Cage,
        FaultName::Gear => Fault::Gear,
        FaultName::Cavitation => Fault::Cavitation,
    };
    let law = match arguments.law {
        LawName::Exponential => Law::Exponential,
        LawName::Linear => Law::Linear,
        LawName::TwoSlope => Law::TwoSlope,
        LawName::Step => Law::Step,
        LawName::Plateau => Law::Plateau,
        LawName::DipBeforeFailure => Law::DipBeforeFailure,
        LawName::RandomSlope => Law::RandomSlope,
        LawName::LoadDependent => Law::LoadDependent,
    };
    let life = seconds("life", arguments.life)?;
    if life.is_zero() {
        bail!("--life must be above 0");
    }
    let mut machine = MachineConfig::watched(fault, law, seconds("healthy", arguments.healthy)?, life);
    if let Some(day) = arguments.day {
        let period_s = seconds("day", day)?.as_secs_f64() * machine.acceleration;
        if period_s == 0.0 {
            bail!("--day must be above 0");
        }
        machine.profile = Profile::Changing { speed_rpm: machine.profile.nominal_rpm(), period_s };
    }
    Ok(machine)
}

fn broker(arguments: &BrokerArguments) -> Result<Broker> {
    let mut broker = Broker::new(&arguments.host, arguments.port, &arguments.client_id);
    if let (Some(user), Some(file)) = (&arguments.user, &arguments.password_file) {
        let password = std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
        broker.credentials = Some((user.clone(), password.trim_end().to_owned()));
    }
    Ok(broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay_with(words: &[&str]) -> Result<Pace, clap::Error> {
        let arguments = Arguments::try_parse_from([&["firmware-sim", "replay", "a.csv", "--link", "port"], words].concat())?;
        let Command::Replay(arguments) = arguments.command else { panic!("{arguments:?}") };
        Ok(pace(&arguments))
    }

    #[test]
    fn a_speed_that_is_none_is_an_error_and_max_is_the_default() {
        for bad in ["0", "-1", "nan", "inf", "fast"] {
            for option in ["--speed", "--rows-per-second"] {
                let error = replay_with(&[option, bad]).unwrap_err();
                assert_eq!((error.exit_code(), error.kind()), (2, clap::error::ErrorKind::ValueValidation), "{option} {bad}");
            }
        }
        let two = Positive::new(2.0).unwrap();
        assert_eq!(replay_with(&[]).unwrap(), Pace::Fastest);
        assert_eq!(replay_with(&["--speed", "max"]).unwrap(), Pace::Fastest);
        assert_eq!(replay_with(&["--speed", "2"]).unwrap(), Pace::Speed(two));
        assert_eq!(replay_with(&["--rows-per-second", "2"]).unwrap(), Pace::RowsPerSecond(two));
        assert!(replay_with(&["--rows-per-second", "2", "--speed", "2"]).is_err());
    }

    #[test]
    fn mqtt_takes_the_disturbances_of_a_sensor_and_says_so_of_others() {
        let parse = |disturbance: &str| Arguments::try_parse_from(["firmware-sim", "mqtt", "--asset", "fan", "--disturb", disturbance]);
        for (name, kind) in Kind::NAMES {
            assert_eq!(parse(&format!("{name}@1..2")).is_ok(), kind.is_of_sensor(), "{name}");
        }
        assert!(parse("bit-flip@1..2").unwrap_err().to_string().contains("stuck-axis, clipping, sample-rate-error"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
