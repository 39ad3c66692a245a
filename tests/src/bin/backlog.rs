//! What a backlog costs: memory by part, the start with it, how fast it goes to Kafka; and exactly once against at least once.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin backlog`, then `target/release/backlog [MIB]`
//!
//! The agent is this very program, started again with another first argument.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement prints and reads the clock")]
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hark::buffer::{Log, LogSettings};
use hark_protocol::topics::LaneName;
use hark_tests::support::{
    Agent, Kafka, Mosquitto, Settings,
    machine::{self, Usage},
    reading, start_ready, wait_for, wait_until,
};

const WITHIN: Duration = Duration::from_secs(1_200);
/// Readings of one round of the comparison.
const COMPARED: u64 = 500_000;
const ROUNDS: usize = 3;
/// Readings between two looks at the disk.
const LOOK_EVERY: u64 = 100_000;
/// Until what the start used is given back.
const AT_REST: Duration = Duration::from_secs(3);
/// Between two looks at the metrics, for which the agent measures its directory: often enough, and no load beside what is measured.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // As `Agent` calls it.
    if std::env::args().nth(1).is_some_and(|argument| argument.parse::<u64>().is_err()) {
        return hark::main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where gateways are made, and the broker they listen to.
struct Plant<'a> {
    dir: &'a Path,
    mqtt_port: u16,
}

fn measure() -> Result<()> {
    let mib: u64 = std::env::args().nth(1).map_or(Ok(1024), |text| text.parse()).context("the argument is a number of MiB")?;
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    // Nobody sends anything; an agent without a source does not start.
    let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let plant = Plant { dir: dir.path(), mqtt_port: mosquitto.port() };
    println!("{}\nload {}\n", machine::describe()?, machine::load_average()?);
    shares(&plant, &kafka, mib)?;
    outage(&plant, &kafka, mib)?;
    compare(&plant, &kafka)
}

/// What each part takes of the resident memory at rest: the agent with it, less the agent without it.
fn shares(plant: &Plant<'_>, kafka: &Kafka, mib: u64) -> Result<()> {
    let at_rest = |name: &str, kafka: Option<&Kafka>, model: bool, mib: u64| {
        let mut agent = gateway(plant, name, kafka, "exactly_once", model)?;
        fill(&agent.dir().join("data"), Enough::Mib(mib))?;
        start_ready(&mut agent)?;
        if kafka.is_some() {
            wait_until("a connection", WITHIN, || agent.metrics().is_ok_and(|metrics| metrics.sum("hark_forward_connected") == Some(1.0)))?;
        }
        std::thread::sleep(AT_REST);
        let resident = resident_mib(&agent)?;
        agent.stop()?;
        std::fs::remove_dir_all(agent.dir())?;
        anyhow::Ok(resident)
    };
    let bare = at_rest("bare", None, false, 0)?;
    let (log, client, model) = (at_rest("log", None, false, mib)?, at_rest("client", Some(kafka), false, 0)?, at_rest("model", None, true, 0)?);
    println!(
        "at rest, resident: {bare:.1} MiB with an empty log, no Kafka and no model; a log of {mib} MiB (sled) {:+.1}, a connection to Kafka (librdkafka) \
         {:+.1}, a model (tract) {:+.1}",
        log - bare,
        client - bare,
        model - bare
    );
    Ok(())
}

/// Kafka was away until there were so many MiB, which inference has seen; now the agent starts and Kafka is back.
fn outage(plant: &Plant<'_>, kafka: &Kafka, mib: u64) -> Result<()> {
    let mut agent = gateway(plant, "outage", None, "exactly_once", true)?;
    let began = Instant::now();
    let readings = fill(&agent.dir().join("data"), Enough::Mib(mib))?;
    println!("backlog: {readings} readings, {mib} MiB on disk, written in {:.0} s", began.elapsed().as_secs_f64());
    start_ready(&mut agent)?;
    wait_for("inference to have seen it", WITHIN, || {
        let status = agent.command(&["buffer", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let inputs = &status["lanes"][LaneName::Inputs as usize];
        Ok((inputs["checkpoint"] == inputs["last"]).then_some(()))
    })?;
    agent.stop()?;

    let mut agent = gateway(plant, "outage", Some(kafka), "exactly_once", true)?;
    let began = Instant::now();
    start_ready(&mut agent)?;
    println!("start: ready after {:.2} s, resident {:.1} MiB", began.elapsed().as_secs_f64(), resident_mib(&agent)?);
    let rate = drain(&mut agent, readings)?;
    let usage = Usage::of(agent.process()?.pid())?;
    let connections = agent.metrics()?.sum("hark_forward_recycled_total").unwrap_or_default() + 1.0;
    println!(
        "drained at {rate:.0} readings/s, {:.2} µs of processor each, in {connections} connections; resident at most {:.1} MiB; load {}",
        usage.cpu_s * 1e6 / readings as f64,
        mib_of(usage.peak_kib),
        machine::load_average()?
    );
    agent.stop().map(drop)
}

/// Exactly once and at least once in turn.
fn compare(plant: &Plant<'_>, kafka: &Kafka) -> Result<()> {
    let mut rates = [0.0; 2];
    for round in 0..ROUNDS {
        for (mode, delivery) in ["exactly_once", "at_least_once"].into_iter().enumerate() {
            let mut agent = gateway(plant, &format!("{delivery}-{round}"), Some(kafka), delivery, false)?;
            let readings = fill(&agent.dir().join("data"), Enough::Readings(COMPARED))?;
            start_ready(&mut agent)?;
            let rate = drain(&mut agent, readings)?;
            println!("{delivery}: {rate:.0} readings/s, load {}", machine::load_average()?);
            rates[mode] += rate / ROUNDS as f64;
            agent.stop()?;
        }
    }
    println!("exactly once / at least once = {:.2}", rates[0] / rates[1]);
    Ok(())
}

fn gateway(plant: &Plant<'_>, name: &str, kafka: Option<&Kafka>, delivery: &str, model: bool) -> Result<Agent> {
    let mqtt = format!(
        "[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\n\n[[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
        plant.mqtt_port
    );
    let mut tables = mqtt;
    if let Some(kafka) = kafka {
        let prefix = format!("{name}.");
        kafka.create_topics(&prefix)?;
        tables += &format!("\n[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\ndelivery = \"{delivery}\"\n", kafka.bootstrap());
    }
    // Not those of the backlog, which is not to be scored.
    let points: String = (0..8).map(|n| format!("[[point]]\nid = \"p{n}\"\nunit = \"1\"\nscored = {model}\n\n")).collect();
    let program = std::env::current_exe()?.display().to_string();
    let buffer = "dir = \"data\"\nquota = \"8 GiB\"";
    Agent::configure_buffer(
        &program,
        &plant.dir.join(name),
        name,
        buffer,
        &tables,
        &[("pump-17".to_owned(), format!("id = \"pump-17\"\n\n{points}"))],
    )
}

fn resident_mib(agent: &Agent) -> Result<f64> {
    Ok(mib_of(Usage::of(agent.process()?.pid())?.rss_kib))
}

fn mib_of(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Readings per second from the first thousand that Kafka has to the last: connecting is not draining.
fn drain(agent: &mut Agent, readings: u64) -> Result<f64> {
    let delivered = |agent: &Agent| {
        std::thread::sleep(LOOK_PAUSE);
        anyhow::Ok(agent.metrics()?.sum("hark_forward_delivered_total").unwrap_or_default())
    };
    let (began, first) = wait_for("delivery to begin", WITHIN, || {
        let delivered = delivered(agent)?;
        Ok((delivered > 1_000.0).then(|| (Instant::now(), delivered)))
    })?;
    wait_until("the end of it", WITHIN, || delivered(agent).is_ok_and(|delivered| delivered >= readings as f64))?;
    Ok((readings as f64 - first) / began.elapsed().as_secs_f64())
}

/// How much a log is to hold.
#[derive(Clone, Copy)]
enum Enough {
    Readings(u64),
    Mib(u64),
}

fn fill(dir: &Path, enough: Enough) -> Result<u64> {
    std::fs::create_dir_all(dir)?;
    let (log, mut writer) = Log::open(dir, LogSettings::new(8 << 30))?;
    let mut count = 0;
    loop {
        let full = match enough {
            Enough::Readings(readings) => count >= readings,
            Enough::Mib(mib) => count % LOOK_EVERY == 0 && log.lane_bytes(LaneName::Inputs)? >= mib << 20,
        };
        if full {
            writer.commit()?;
            return Ok(count);
        }
        writer.append(LaneName::Inputs, &reading(count))?;
        if writer.pending_bytes() > 256 << 10 {
            writer.commit()?;
        }
        count += 1;
    }
}
