//! How fast a backlog goes to Kafka, exactly once and at least once, in turn on one machine.
//!
//! `cargo build --config 'profile.dev.opt-level=3' --workspace --features hark-tests/real-brokers --bin drain`, then `target/debug/drain [READINGS]`
//!
//! The agent is this very program, started again with `run` as its first argument.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement prints and reads the clock")]
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hark::{
    buffer::{Log, LogSettings},
    record::{Body, Entry, Stamp},
};
use hark_protocol::topics::{Clock, LaneName, Origin, Quality, Reading, Timestamp, TsSource};
use hark_tests::support::{Agent, Kafka, wait_for, wait_until};

const WITHIN: Duration = Duration::from_secs(600);
const ROUNDS: usize = 2;

fn main() -> ExitCode {
    // As `Agent::start` calls it.
    if std::env::args().nth(1).as_deref() == Some("run") {
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

fn measure() -> Result<()> {
    let readings: u64 = std::env::args().nth(1).map_or(Ok(500_000), |text| text.parse()).context("the argument is a number of readings")?;
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    let mut rates = [0.0; 2];
    for round in 0..ROUNDS {
        for (mode, delivery) in ["exactly_once", "at_least_once"].into_iter().enumerate() {
            let name = format!("{delivery}-{round}");
            let prefix = format!("{name}.");
            kafka.create_topics(&prefix)?;
            let tables = format!("[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\ndelivery = \"{delivery}\"\n", kafka.bootstrap());
            let program = std::env::current_exe()?.display().to_string();
            let assets = [("pump-17".to_owned(), "id = \"pump-17\"\n\n[[point]]\nid = \"other\"\nunit = \"1\"\n".to_owned())];
            let mut agent = Agent::configure(&program, &dir.path().join(&name), &name, &tables, &assets)?;
            fill(&agent.dir().join("data"), readings)?;
            let rate = drain(&mut agent, readings)?;
            println!("{name}: {rate:.0} readings/s, load {}", std::fs::read_to_string("/proc/loadavg")?.trim());
            rates[mode] += rate / ROUNDS as f64;
        }
    }
    println!("exactly once / at least once = {:.2}", rates[0] / rates[1]);
    Ok(())
}

fn drain(agent: &mut Agent, readings: u64) -> Result<f64> {
    agent.start()?;
    let delivered = |agent: &Agent| anyhow::Ok(agent.metrics()?.sum("hark_forward_delivered_total").unwrap_or_default());
    // Connecting is not draining.
    let (began, first) = wait_for("delivery to begin", WITHIN, || {
        let delivered = delivered(agent)?;
        Ok((delivered > 1_000.0).then(|| (Instant::now(), delivered)))
    })?;
    wait_until("the end of it", WITHIN, || delivered(agent).is_ok_and(|delivered| delivered >= readings as f64))?;
    let rate = (readings as f64 - first) / began.elapsed().as_secs_f64();
    agent.stop()?;
    Ok(rate)
}

fn fill(dir: &std::path::Path, readings: u64) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let (_log, mut writer) = Log::open(dir, LogSettings::new(8 << 30))?;
    for n in 0..readings {
        writer.append(LaneName::Inputs, &reading(n))?;
        if writer.pending_bytes() > 256 << 10 {
            writer.commit()?;
        }
    }
    Ok(writer.commit()?)
}

/// About 100 bytes encoded, with digits that differ as those of real sensors do.
fn reading(n: u64) -> Entry {
    let noise = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / 16_777_216.0;
    let reading = Reading {
        point: ["de-h.v_rms", "de-h.kurtosis", "de-v.v_rms", "winding.temperature", "shaft.speed"][n as usize % 5].into(),
        value: Some(20.0 + noise),
        unit: "mm/s".into(),
        quality: Quality::Good,
        reason: None,
        source_seq: Some(n),
        boot: "5f0c1a52-90a1-4a8b-a2a5-0c5a2f9f7a11".into(),
        log_ms: n * 10,
    };
    let asset = ["pump-17", "fan-03", "gearbox-line-2", "pump-18", "fan-04", "mixer-1"][n as usize % 6];
    let ts = Timestamp(1_760_000_000_000_000 + n as i64 * 10_000);
    let stamp = Stamp { asset: Some(asset.into()), ts, ts_source: TsSource::Gateway, clock: Clock::Synced, origin: Origin::Simulated };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}
