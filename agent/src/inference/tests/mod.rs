//! The engine on a small machine: two points that follow each other, with commissioning, a fault, gaps and restarts.
mod adaptation;
mod alarm;
mod change;
mod clock;
mod command;
mod commissioning;
mod diagnosis;
mod examples;
mod forecast;
mod instrument;
mod operating;
mod remaining;
mod row;
mod seldom;
mod silence;
mod snapshot;
mod still;
mod templates;
mod zone;

use std::{path::PathBuf, time::Duration};

use hark_protocol::topics::{Alarm, AlarmState, Clock, Origin, Phase, Prediction, Priority, Quality, QualityReason, Reading, ScoreReason, TsSource};

use super::{baseline::tests::Noise, *};

const SECOND: i64 = 1_000_000;
/// Rows of commissioning in these tests, of which the last 30 are held back.
const ROWS: usize = 150;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn asset() -> config::Asset {
    let point = |id: &str, scored| config::Point {
        id: id.into(),
        unit: "1".into(),
        column: None,
        range: None,
        map: BTreeMap::new(),
        scored,
        checks: config::Checks::default(),
        limits: None,
        severity: None,
        ignore_fall: false,
        stale_after: None,
    };
    config::Asset {
        id: "pump".into(),
        name: "Pump".into(),
        path: None,
        class: None,
        grid: Duration::from_secs(1),
        stale_after: Duration::from_secs(3),
        predict_every: Duration::ZERO,
        commissioning: config::Commissioning { rows: ROWS, starts: 0, adapts: true },
        alarm: config::AlarmSettings { on_delay: Duration::from_secs(5), off_delay: Duration::from_secs(10), latch: false },
        forecast: config::Forecast::default(),
        instrument: config::InstrumentSettings { on_delay: Duration::from_secs(5), off_delay: Duration::from_secs(10) },
        operating: None,
        points: vec![point("a", true), point("note", false), point("b", true)],
        waveforms: Vec::new(),
        hash: "c0ffee".into(),
    }
}

fn engine_with(edit: impl FnOnce(&mut config::Asset)) -> Engine {
    let mut asset = asset();
    edit(&mut asset);
    Engine::new(&BTreeMap::from([(asset.id.clone(), asset)]), &models()).unwrap()
}

fn stamp(second: f64) -> Stamp {
    let ts = Timestamp((second * SECOND as f64) as i64);
    Stamp { asset: Some("pump".into()), ts, ts_source: TsSource::Sensor, clock: Clock::Synced, origin: Origin::Simulated }
}

fn reading(second: f64, point: &str, value: Option<f64>) -> Entry {
    let quality = if value.is_some() { Quality::Good } else { Quality::Bad };
    let reading = Reading { point: point.into(), value, unit: "1".into(), quality, reason: None, source_seq: None, boot: "boot".into(), log_ms: 0 };
    Entry { stamp: stamp(second), cause: None, body: Body::Reading(reading) }
}

fn event(second: f64, kind: EventKind, command: Option<&str>) -> Entry {
    let event = Event { command: command.map(Into::into), actor: Some("mw".into()), ..Event::new(kind) };
    Entry { stamp: stamp(second), cause: None, body: Body::Event(event.into()) }
}

/// `b` follows `a` one row later; from `fault` on it no longer does.
fn machine(rows: usize, fault: usize) -> Vec<Entry> {
    let (mut noise, mut a) = (Noise(7), 0.0);
    let mut entries = Vec::new();
    for row in 0..rows {
        let b = if row < fault { 2.0 * a + 0.1 * noise.next() } else { 5.0 * noise.next() };
        a = 0.8 * a + noise.next();
        entries.push(reading(1000.0 + row as f64, "a", Some(a)));
        entries.push(reading(1000.1 + row as f64, "b", Some(b)));
    }
    entries
}

/// Feeds `entries` from `first_seq` on and gives the outputs.
fn feed(engine: &mut Engine, first_seq: u64, entries: &[Entry]) -> Vec<(LaneName, Entry)> {
    let mut out = Vec::new();
    for (seq, entry) in (first_seq..).zip(entries) {
        engine.process(Position { ordinal: 2, seq }, "inc", entry, &mut out);
    }
    out
}

fn predictions(out: &[(LaneName, Entry)]) -> Vec<&Prediction> {
    out.iter().filter_map(|(_, entry)| if let Body::Prediction(p) = &entry.body { Some(&**p) } else { None }).collect()
}

fn alarms(out: &[(LaneName, Entry)]) -> Vec<&Alarm> {
    out.iter().filter_map(|(_, entry)| if let Body::Alarm(a) = &entry.body { Some(&**a) } else { None }).collect()
}

/// Where there is a prediction per row, the index of the row whose judgement was the first alarm.
fn rows_before_the_first_alarm(out: &[(LaneName, Entry)]) -> usize {
    out.iter().take_while(|(lane, _)| *lane != LaneName::Alarms).filter(|(lane, _)| *lane == LaneName::Predictions).count()
}

/// Kind, subject and result of the events in `out`.
fn events(out: &[(LaneName, Entry)]) -> Vec<(&'static str, &str, &str)> {
    let kind = |kind| match kind {
        EventKind::Commissioning => "commissioning",
        EventKind::Audit => "audit",
        _ => "other",
    };
    let event = |entry: &'_ Entry| if let Body::Event(event) = &entry.body { Some(event.clone()) } else { None };
    let leak = |name: Option<Name>| -> &'static str { Box::leak(name.as_deref().unwrap_or("").to_owned().into_boxed_str()) };
    out.iter().filter_map(|(_, entry)| event(entry)).map(|event| (kind(event.kind), leak(event.what), leak(event.result))).collect()
}

fn reasons(out: &[(LaneName, Entry)]) -> Vec<Option<ScoreReason>> {
    predictions(out).iter().map(|prediction| prediction.reason).collect()
}
