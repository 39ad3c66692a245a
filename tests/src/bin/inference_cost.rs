//! What scoring and vibration cost, on one core: the agent's own engine and features on data that is made up here.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin inference_cost`, then `target/release/inference_cost`
#![expect(clippy::print_stdout, reason = "the figures are what the program is for")]
#![expect(clippy::disallowed_methods, reason = "time on one thread is measured")]
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hark::{
    buffer::Position,
    clock::Clock,
    config::{self, Bearing},
    inference::{Bundle, Engine},
    record::{Body, Entry, Stamp},
    signal::{BlockUnit, Features, Setting, diagnosis::Machine, severity::Class},
};
use hark_firmware_sim::machine::Noise;
use hark_protocol::topics::{self, Name, Origin, Quality, Reading, Timestamp, TsSource};
use hark_tests::support::machine::{describe, load_average};

const POINTS: usize = 8;
const COMMISSIONING_ROWS: usize = 2_000;
const ROWS: usize = 50_000;
const START_US: i64 = 1_750_000_000_000_000;
/// A second of the vibration of 300 channels, as the issue of cost counts it.
const CHANNELS: f64 = 300.0;
const FS_HZ: f64 = 10_000.0;
const SAMPLES: usize = 8_192;
const BLOCKS: usize = 400;
/// Runs of a bundle that are timed.
const RUNS: usize = 20_000;
const RUNS_WITHIN: Duration = Duration::from_secs(60);
/// Rules are asked so often, per channel.
const DIAGNOSE_EVERY_S: f64 = 60.0;

fn main() -> Result<()> {
    println!("{}\nload {}\n", describe()?, load_average()?);
    let (p50, p99, mean) = scoring()?;
    println!("a row of {POINTS} points, from readings to a verdict: p50 {p50:.1} µs, p99 {p99:.1} µs, mean {mean:.1} µs");
    println!("100 machines at one row a second: {:.2} % of a core", 100.0 * mean * 1e-6 * 100.0);
    let (features_us, rules_us) = vibration()?;
    let blocks_per_s = CHANNELS * FS_HZ / SAMPLES as f64;
    let (of_features, of_rules) = (features_us * 1e-6 * blocks_per_s, rules_us * 1e-6 * CHANNELS / DIAGNOSE_EVERY_S);
    println!("a block of {SAMPLES} samples: features {features_us:.0} µs, rules {rules_us:.0} µs (medians)");
    println!(
        "{CHANNELS} channels at {FS_HZ} Hz without overlap: {:.1} % of a core for features, {:.1} % for rules asked every {DIAGNOSE_EVERY_S} s",
        100.0 * of_features,
        100.0 * of_rules
    );
    bundles()?;
    println!("\nload {}", load_average()?);
    Ok(())
}

/// What a run of each shipped bundle costs on its golden input.
fn bundles() -> Result<()> {
    let models = models();
    let clock = Clock::new();
    for folder in ["stage-a", "turbofan-rul/with-age", "turbofan-rul/without-age", "fan-rul"] {
        let bundle = Bundle::open(&models.join(folder))?;
        let times = bundle.times(RUNS, RUNS_WITHIN, || clock.monotonic())?;
        let [p50, p99] = [times.len() / 2, times.len() * 99 / 100].map(|place| times[place].as_secs_f64() * 1e6);
        println!("a run of {folder}: p50 {p50:.1} µs, p99 {p99:.1} µs");
    }
    Ok(())
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// Median, 99th percentile and mean of what a row costs, µs.
fn scoring() -> Result<(f64, f64, f64)> {
    let points: String = (0..POINTS).map(|point| format!("[[point]]\nid = \"p{point}\"\nunit = \"1\"\n")).collect();
    let asset = config::check_asset_text("asset", &format!("id = \"m\"\n[commissioning]\nrows = {COMMISSIONING_ROWS}\n{points}"))?;
    let mut engine = Engine::new(&BTreeMap::from([(asset.id.clone(), asset)]), &models())?;
    let (mut noise, mut state, mut seq, mut out) = (Noise::new(1, 1), [0.0; POINTS], 0, Vec::new());
    let mut costs = Vec::with_capacity(ROWS);
    for row in 0..COMMISSIONING_ROWS + ROWS {
        let shared = noise.gauss();
        state.iter_mut().for_each(|value| *value = 0.9 * *value + 0.3 * shared + 0.1 * noise.gauss());
        let entries: Vec<Entry> = state.iter().enumerate().map(|(point, value)| reading(row, point, *value)).collect();
        let began = Instant::now();
        for entry in &entries {
            seq += 1;
            engine.process(Position { ordinal: 1, seq }, "cost", entry, &mut out);
        }
        let cost = began.elapsed().as_secs_f64() * 1e6;
        out.clear();
        if row >= COMMISSIONING_ROWS {
            costs.push(cost);
        }
    }
    ensure!(engine.view("m").is_some_and(|view| view.score.is_some()), "the machine was not scored");
    let mean = costs.iter().sum::<f64>() / costs.len() as f64;
    costs.sort_by(f64::total_cmp);
    Ok((costs[costs.len() / 2], costs[costs.len() * 99 / 100], mean))
}

fn reading(row: usize, point: usize, value: f64) -> Entry {
    let ts = Timestamp(START_US + 1_000_000 * row as i64 + 1_000 * point as i64);
    let point: Name = format!("p{point}").into();
    let reading =
        Reading { point, value: Some(value), unit: "1".into(), quality: Quality::Good, reason: None, source_seq: None, boot: "b".into(), log_ms: 0 };
    let stamp = Stamp { asset: Some("m".into()), ts, ts_source: TsSource::Sensor, clock: topics::Clock::Synced, origin: Origin::Simulated };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}

/// Medians of what a block costs, µs: the features that a bearing has by default, and the rules.
fn vibration() -> Result<(f64, f64)> {
    let bearing = Bearing { elements: 9, element_mm: 7.94, pitch_mm: 39.04, contact_deg: 0.0 };
    let setting = Setting { fs_hz: FS_HZ, unit: BlockUnit::G, speed_hz: Some(29.95), bearing: Some(&bearing), envelope_band_hz: (2_000.0, 4_500.0) };
    let wanted: Vec<Name> = ["v_rms", "a_rms", "crest", "kurtosis", "env.bpfo", "env.bpfi"].map(Into::into).to_vec();
    let machine = Machine { class: Class::named("2-rigid"), ..Machine::default() };
    let mut noise = Noise::new(2, 1);
    let mut features = Features::new();
    let (mut of_features, mut of_rules) = (Vec::with_capacity(BLOCKS), Vec::with_capacity(BLOCKS));
    for _ in 0..BLOCKS {
        let samples: Vec<f64> = (0..SAMPLES).map(|_| 1.0 + 0.02 * noise.gauss()).collect();
        let began = Instant::now();
        let values = features.block_features(&samples, &setting, &wanted);
        of_features.push(began.elapsed().as_secs_f64() * 1e6);
        ensure!(values.iter().all(|(_, _, value)| value.is_some()), "a feature is missing: {values:?}");
        let began = Instant::now();
        features.diagnose(&samples, &setting, &machine).context("the rules say nothing")?;
        of_rules.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let median = |mut costs: Vec<f64>| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    };
    Ok((median(of_features), median(of_rules)))
}
