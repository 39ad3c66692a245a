//! What a time to limit is worth: simulated machines that run to their failure, and others that do not fail, before the agent's inference.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin lives`, then `target/release/lives [--lives N] [--seed S]`
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use hark::{
    buffer::Position,
    config,
    inference::Engine,
    record::{Body, Entry, Stamp},
    signal::{BlockUnit, Features, Setting},
};
use hark_firmware_sim::machine::{Fault, Law, Machine, MachineConfig, Noise, Profile};
use hark_protocol::topics::{Clock, Origin, Quality, Reading, Timestamp, TsSource};

const ASSET: &str = "fan-3";
/// A block comes so often, s; it is a row of the model.
const BLOCK_EVERY_S: f64 = 600.0;
const BLOCK_SAMPLES: usize = 8_192;
const BLOCK_HZ: f64 = 13_333.0;
const DAY_S: f64 = 86_400.0;
/// Zone boundaries of the class, mm/s.
const ZONES: [(&str, f64); 2] = [("de.v_rms:zone_c", 2.8), ("de.v_rms:zone_d", 4.5)];

/// Lets simulated fans live: healthy for 10 to 40 days, then with damage by each law of the simulator for another 10 to 60, whose unbalance takes their
/// velocity through zones C and D. Compares what the agent forecasts with when the velocity got there. Prints, per law, how many lives had a median within
/// 30 % of the truth in most of the last third of the way, how often the 80 % interval held the truth, and how many windows of healthy running had a date.
#[derive(Debug, Parser)]
#[command(name = "lives")]
struct Arguments {
    /// Lives per law
    #[arg(long, value_name = "N", default_value_t = 20)]
    lives: u64,
    /// All randomness follows from it; figures are of a seed that nothing was chosen on
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// What became of the lives of a law.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    lives: u64,
    near: u64,
    held: u64,
    asked: u64,
    /// Rows of healthy running, and of those the ones with a date.
    healthy: u64,
    dated: u64,
}

impl Tally {
    fn join(&mut self, other: Self) {
        self.lives += other.lives;
        self.near += other.near;
        self.held += other.held;
        self.asked += other.asked;
        self.healthy += other.healthy;
        self.dated += other.dated;
    }

    fn line(self, name: &str) -> String {
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let Self { lives, near, held, asked, healthy, dated } = self;
        format!("| {name} | {lives} | {:.0} | {:.0} ({asked}) | {:.2} |", percent(near, lives), percent(held, asked), percent(dated, healthy))
    }
}

/// A row of a life: the zone that was forecast, with p10, p50 and p90, s.
#[derive(Clone, Copy, Debug)]
struct Row {
    at_s: f64,
    /// Without noise.
    velocity_mm_s: f64,
    told: Option<(usize, [f64; 3])>,
}

fn main() -> Result<ExitCode> {
    let Arguments { lives, seed } = Arguments::parse();
    let directory = tempfile::tempdir().context("failed to make a directory")?;
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
    std::fs::create_dir_all(directory.path().join("assets"))?;
    std::fs::write(
        directory.path().join("hark.toml"),
        format!("[gateway]\nid = \"lives\"\norigin = \"simulated\"\n[inference]\nmodels = \"{models}\"\n"),
    )?;
    std::fs::write(directory.path().join("assets/fan-3.toml"), ASSET_FILE)?;
    let config = config::load(directory.path()).context("the configuration of the machine is refused")?;
    println!(
        "| law | lives | median within 30 % in most of the last third, % | 80 % interval holds, % (lives asked) | healthy rows with a date, % |"
    );
    println!("|---|---|---|---|---|");
    let mut all = Tally::default();
    for (law, number) in Law::ALL.into_iter().zip(0_u64..) {
        let mut tally = Tally::default();
        for life in 0..lives {
            tally.join(live(&config, law, seed * 1_000_003 + number * 10_007 + life)?);
        }
        println!("{}", tally.line(&format!("{law:?}")));
        all.join(tally);
    }
    println!("{}", all.line("all"));
    Ok(ExitCode::SUCCESS)
}

const ASSET_FILE: &str = "id = \"fan-3\"\ngrid = \"10m\"\npredict_every = \"0s\"\n[commissioning]\nrows = 432\n\
    [[point]]\nid = \"de.v_rms\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n[[point]]\nid = \"de.a_rms\"\nunit = \"[g]\"\n\
    [[point]]\nid = \"temperature\"\nunit = \"Cel\"\n[[point]]\nid = \"current\"\nunit = \"A\"\n";

/// One machine from new to failed.
fn live(config: &config::Config, law: Law, seed: u64) -> Result<Tally> {
    let mut drawn = Noise::new(seed, 7);
    let (healthy_s, life_s) = ((10.0 + 30.0 * drawn.uniform()) * DAY_S, (10.0 + 50.0 * drawn.uniform()) * DAY_S);
    let profile = Profile::Constant { speed_rpm: 1_480.0, load: 0.7 + 0.3 * drawn.uniform() };
    let mut machine = Machine::new(MachineConfig { profile, fault: Fault::Unbalance, law, healthy_s, life_s, ..MachineConfig::default() }, seed);
    let mut engine = Engine::new(&config.assets, &config.models)?;
    let (mut features, mut samples) = (Features::new(), vec![0.0; BLOCK_SAMPLES]);
    let wanted = ["v_rms".into(), "a_rms".into()];
    let setting =
        Setting { fs_hz: BLOCK_HZ, unit: BlockUnit::G, speed_hz: Some(1_480.0 / 60.0), bearing: None, envelope_band_hz: (2_000.0, 5_000.0) };
    let (mut seq, mut rows, mut mood) = (0, Vec::new(), 0.0);
    let mut out = Vec::new();
    while !machine.failed() {
        machine.advance(BLOCK_EVERY_S);
        let at_s = rows.len() as f64 * BLOCK_EVERY_S;
        machine.write_block(&mut samples, BLOCK_HZ);
        // Surroundings and mounting wander by 3 % within hours.
        mood = 0.97 * mood + 0.007 * drawn.gauss();
        samples.iter_mut().for_each(|sample| *sample *= f64::exp(mood));
        let found = features.block_features(&samples, &setting, &wanted);
        let process = machine.process_values();
        let value = |index: usize| found.get(index).and_then(|(_, _, value)| *value);
        let values = [value(0), value(1), process.temperature_c.map(f64::from), process.current_a.map(f64::from)];
        for ((point, unit), value) in [("de.v_rms", "mm/s"), ("de.a_rms", "[g]"), ("temperature", "Cel"), ("current", "A")].into_iter().zip(values) {
            seq += 1;
            engine.process(Position { ordinal: 1, seq }, "lives", &reading(at_s, point, unit, value), &mut out);
        }
        out.clear();
        let told = engine.view(ASSET).and_then(|view| view.prognosis).and_then(|found| {
            let zone = ZONES.iter().position(|(zone, _)| *zone == &*found.end_event)?;
            Some((zone, [found.p10_s, found.p50_s, found.p90_s]))
        });
        let velocity_mm_s = machine.signal().velocity_mm_s.iter().map(|of_order| of_order * of_order).sum::<f64>().sqrt();
        rows.push(Row { at_s, velocity_mm_s, told });
    }
    Ok(judge(&rows, healthy_s, &mut drawn))
}

/// Compares with when each zone was reached to stay, but for noise: the last row below its boundary.
fn judge(rows: &[Row], healthy_s: f64, drawn: &mut Noise) -> Tally {
    let reached = ZONES.map(|(_, level)| rows.iter().rposition(|row| row.velocity_mm_s < level).map_or(0.0, |row| rows[row].at_s));
    // The machine's last zone is the end that counts.
    let end_s = reached[1].min(rows.last().map_or(0.0, |row| row.at_s));
    let third = |row: &&Row| row.at_s >= healthy_s + (end_s - healthy_s) * 2.0 / 3.0 && row.at_s < end_s - BLOCK_EVERY_S;
    let is_near = |row: &&Row| {
        row.told.is_some_and(|(zone, [_, p50, _])| {
            let truth = reached[zone] - row.at_s;
            (p50 - truth).abs() <= 0.3 * truth.abs().max(BLOCK_EVERY_S)
        })
    };
    let (last, near) = (rows.iter().filter(third).count(), rows.iter().filter(third).filter(is_near).count());
    let healthy = rows.iter().filter(|row| row.at_s < healthy_s);
    let dated: Vec<&Row> = rows.iter().filter(|row| row.at_s >= healthy_s && row.at_s < end_s && row.told.is_some()).collect();
    let asked = dated.get((drawn.uniform() * dated.len() as f64) as usize).and_then(|row| Some((row.at_s, row.told?)));
    let held = asked.is_some_and(|(at_s, (zone, [p10, _, p90]))| (p10..=p90).contains(&(reached[zone] - at_s)));
    Tally {
        lives: 1,
        near: u64::from(2 * near >= last),
        held: u64::from(held),
        asked: u64::from(asked.is_some()),
        healthy: healthy.clone().count() as u64,
        dated: healthy.filter(|row| row.told.is_some()).count() as u64,
    }
}

fn reading(at_s: f64, point: &str, unit: &str, value: Option<f64>) -> Entry {
    let quality = if value.is_some() { Quality::Good } else { Quality::Bad };
    let reading = Reading { point: point.into(), value, unit: unit.into(), quality, reason: None, source_seq: None, boot: "lives".into(), log_ms: 0 };
    let ts = Timestamp(1_750_000_000_000_000 / 600_000_000 * 600_000_000 + (at_s * 1e6) as i64);
    let stamp = Stamp { asset: Some(ASSET.into()), ts, ts_source: TsSource::Sensor, clock: Clock::Synced, origin: Origin::Simulated };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}
