//! Time of inference per row: one asset of eight points, `Engine::process` for each reading, scored rows only.
//!
//! `cargo run -p hark --example bench_score` prints median, 99 % point and largest time of a row, in microseconds.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use hark::{
    buffer::Position,
    config::{AlarmSettings, Asset, Checks, Commissioning, InstrumentSettings, Point},
    inference::Engine,
    record::{Body, Entry, Stamp},
};
use hark_protocol::topics::{Clock, Origin, Quality, Reading, Timestamp, TsSource};

const POINTS: usize = 8;
const COMMISSIONING: usize = 400;
const ROWS: usize = 50_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut engine = Engine::new(&BTreeMap::from([("bench".into(), asset())]), &Path::new(env!("CARGO_MANIFEST_DIR")).join("../models"))?;
    let (mut seq, mut random, mut out) = (0, 1u64, Vec::new());
    let mut times: Vec<Duration> = Vec::with_capacity(ROWS);
    let mut fit = Duration::ZERO;
    for row in 0..COMMISSIONING + ROWS {
        let entries: Vec<Entry> = (0..POINTS).map(|point| reading(row, point, &mut random)).collect();
        out.clear();
        let started = Instant::now();
        for entry in &entries {
            seq += 1;
            engine.process(Position { ordinal: 1, seq }, "bench", entry, &mut out);
        }
        match row {
            _ if row + 1 == COMMISSIONING => fit = started.elapsed(),
            _ if row >= COMMISSIONING => times.push(started.elapsed()),
            _ => {}
        }
    }
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    let scored = engine.counters().rows_scored;
    #[expect(clippy::print_stdout, reason = "a benchmark prints its result")]
    {
        println!(
            "{scored} rows of {POINTS} points: p50 {:.1} us, p99 {:.1} us, max {:.0} us; fit {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0),
            fit.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

fn reading(row: usize, point: usize, random: &mut u64) -> Entry {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let value = (*random >> 40) as f64 / (1u64 << 24) as f64;
    let stamp = Stamp {
        asset: Some("bench".into()),
        ts: Timestamp(row as i64 * 1_000_000),
        ts_source: TsSource::Sensor,
        clock: Clock::Synced,
        origin: Origin::Simulated,
    };
    let reading = Reading {
        point: format!("point-{point}").into(),
        value: Some(value),
        unit: "1".into(),
        quality: Quality::Good,
        reason: None,
        source_seq: None,
        boot: "boot".into(),
        log_ms: 0,
    };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}

fn asset() -> Asset {
    let point = |number: usize| Point {
        id: format!("point-{number}").into(),
        unit: "1".into(),
        column: None,
        range: None,
        map: BTreeMap::new(),
        scored: true,
        checks: Checks::default(),
        limits: None,
        severity: None,
    };
    Asset {
        id: "bench".into(),
        name: "Benchmark".into(),
        path: None,
        class: None,
        grid: Duration::from_secs(1),
        stale_after: Duration::from_secs(5),
        // A prediction per row: the most work there is.
        predict_every: Duration::ZERO,
        commissioning: Commissioning { rows: COMMISSIONING },
        alarm: AlarmSettings { on_delay: Duration::from_secs(15), off_delay: Duration::from_secs(60), latch: false },
        instrument: InstrumentSettings::default(),
        operating: None,
        points: (0..POINTS).map(point).collect(),
        waveforms: Vec::new(),
        hash: "bench".into(),
    }
}
