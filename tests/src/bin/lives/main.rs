//! What a forecast is worth: simulated machines that run to their failure before the agent's inference.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin lives`, then `target/release/lives [--lives N] [--seed S]`
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]
mod judge;
mod life;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use hark::{
    buffer::Position,
    config::{self, Config},
    inference::{
        Bundles, Engine,
        assignment::{Accepted, assign},
        verification,
    },
    record::{Body, Entry, Stamp},
};
use hark_firmware_sim::machine::Law;
use hark_protocol::topics::{Clock, Origin, Quality, Reading, Timestamp, TsSource};

use crate::{
    judge::{Tally, judge},
    life::{Life, POINTS},
};

const ASSET: &str = "fan-3";

/// Lets simulated fans live: healthy for 10 to 40 days, then with damage by each law of the simulator for another 10 to 60, whose unbalance takes their
/// velocity through zones C and D. Compares what the agent forecasts with what came: without a model when the velocity reached the zone that was told, with one when
/// the hidden damage was complete. Prints, per law, how many lives had a median within 30 % of the truth in most of the last third of the way, how often the 80 %
/// interval held the truth, and how many rows of healthy running had a date.
#[derive(Debug, Parser)]
#[command(name = "lives")]
struct Arguments {
    /// Lives per law
    #[arg(long, value_name = "N", default_value_t = 20)]
    lives: u64,
    /// All randomness follows from it; figures are of a seed that nothing was chosen on
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only these laws, such as Linear,Step
    #[arg(long, value_name = "LAWS", value_delimiter = ',')]
    laws: Vec<String>,
    /// Forecast with the bundle in this folder
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Write the rows of the lives to this file instead, as separated values, to train on
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    export: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    // The agent verifies a bundle in a process of its own, which is this program.
    if std::env::args_os().nth(1).is_some_and(|argument| hark::is_part(&argument)) {
        return Ok(hark::main());
    }
    let arguments = Arguments::parse();
    let laws = arguments.laws()?;
    if let Some(file) = &arguments.export {
        return export(file, &laws, &arguments);
    }
    let directory = tempfile::tempdir().context("failed to make a directory")?;
    let config = configured(directory.path(), arguments.model.as_deref())?;
    println!(
        "| law | lives | median within 30 % in most of the last third, % | 80 % interval holds, % (lives asked) | healthy rows with a date, % |"
    );
    println!("|---|---|---|---|---|");
    let mut all = Tally::default();
    for law in &laws {
        let mut tally = Tally::default();
        for life in 0..arguments.lives {
            tally.join(live(&config, Life::new(*law, arguments.seed_of(*law, life)))?);
        }
        println!("{}", tally.line(&format!("{law:?}")));
        all.join(tally);
    }
    println!("{}", all.line("all"));
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn laws(&self) -> Result<Vec<Law>> {
        let named = |name: &String| {
            Law::ALL.into_iter().find(|law| format!("{law:?}") == *name).with_context(|| format!("`{name}` is no law; there are {:?}", Law::ALL))
        };
        if self.laws.is_empty() { Ok(Law::ALL.to_vec()) } else { self.laws.iter().map(named).collect() }
    }

    fn seed_of(&self, law: Law, life: u64) -> u64 {
        let number = Law::ALL.iter().position(|of| *of == law).unwrap_or(0) as u64;
        self.seed * 1_000_003 + number * 10_007 + life
    }
}

/// The configuration of the machine, with the bundle in `model` where one is named.
fn configured(directory: &Path, model: Option<&Path>) -> Result<Config> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let model = model.map(std::fs::canonicalize).transpose().context("failed to find the bundle")?;
    // Stage A is the shipped one, whichever directory the forecasting bundle lies in.
    let models = match &model {
        Some(folder) => {
            let models = directory.join("models");
            std::fs::create_dir_all(&models)?;
            std::os::unix::fs::symlink(shipped.join("stage-a").canonicalize()?, models.join("stage-a"))?;
            std::os::unix::fs::symlink(folder, models.join("of-lives"))?;
            models
        }
        None => shipped,
    };
    let forecast = if model.is_some() { "[forecast]\nmodel = \"of-lives\"\nage = 0\n" } else { "" };
    let mut asset = format!("id = \"{ASSET}\"\ngrid = \"10m\"\npredict_every = \"0s\"\n[commissioning]\nrows = 432\n{forecast}");
    for (point, unit) in POINTS {
        let severity = if point == "de.v_rms" { "severity = \"2-rigid\"\n" } else { "" };
        write!(asset, "[[point]]\nid = \"{point}\"\nunit = \"{unit}\"\n{severity}")?;
    }
    std::fs::create_dir_all(directory.join("assets"))?;
    let gateway = format!("[gateway]\nid = \"lives\"\norigin = \"simulated\"\n[inference]\nmodels = \"{}\"\n", models.display());
    std::fs::write(directory.join("hark.toml"), gateway)?;
    std::fs::write(directory.join("assets/fan-3.toml"), asset)?;
    let mut config = config::load(directory).context("the configuration of the machine is refused")?;
    let assigned = assign(&mut config.assets, &Bundles::offered_in(&config.models), &Accepted::new(), verification::in_child);
    if let Some((_, reason)) = assigned.refused.first() {
        bail!("the bundle is refused: {reason}");
    }
    Ok(config)
}

/// One machine from new to failed, before the agent's inference.
fn live(config: &Config, mut life: Life) -> Result<Tally> {
    let mut engine = Engine::new(&config.assets, &config.models)?;
    let (mut seq, mut rows, mut out) = (0, Vec::new(), Vec::new());
    for row in life.by_ref() {
        for ((point, unit), value) in POINTS.into_iter().zip(row.values) {
            seq += 1;
            engine.process(Position { ordinal: 1, seq }, "lives", &reading(row.at_s, point, unit, value), &mut out);
        }
        out.clear();
        rows.push((row, engine.view(ASSET).and_then(|view| view.prognosis)));
    }
    let drawn = life.draw();
    Ok(judge(&rows, life.healthy_s, drawn))
}

/// Rows of lives that all end in failure, with names of points as columns.
fn export(file: &Path, laws: &[Law], arguments: &Arguments) -> Result<ExitCode> {
    let mut table = csv::Writer::from_path(file).with_context(|| format!("failed to open {}", file.display()))?;
    table.write_record(["life", "law", "row"].into_iter().chain(POINTS.map(|(point, _)| point)))?;
    for law in laws {
        for life in 0..arguments.lives {
            let name = format!("{law:?}-{}-{life}", arguments.seed);
            for (number, row) in (1_u64..).zip(Life::new(*law, arguments.seed_of(*law, life))) {
                let values = row.values.map(|value| value.map_or_else(String::new, |value| format!("{value:?}")));
                table.write_record([name.clone(), format!("{law:?}"), number.to_string()].into_iter().chain(values))?;
            }
        }
    }
    table.flush()?;
    ensure!(file.is_file(), "nothing was written");
    Ok(ExitCode::SUCCESS)
}

fn reading(at_s: f64, point: &str, unit: &str, value: Option<f64>) -> Entry {
    let quality = if value.is_some() { Quality::Good } else { Quality::Bad };
    let reading = Reading { point: point.into(), value, unit: unit.into(), quality, reason: None, source_seq: None, boot: "lives".into(), log_ms: 0 };
    let ts = Timestamp(1_750_000_000_000_000 / 600_000_000 * 600_000_000 + (at_s * 1e6) as i64);
    let stamp = Stamp { asset: Some(ASSET.into()), ts, ts_source: TsSource::Sensor, clock: Clock::Synced, origin: Origin::Simulated };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}
