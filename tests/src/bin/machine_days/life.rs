//! One machine through the agent's inference, in simulated time.
#![expect(clippy::disallowed_methods, reason = "the processor time of the engine is measured")]
use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use hark::{
    buffer::Position,
    config::Config,
    inference::Engine,
    record::{Body, Entry, Stamp},
};
use hark_protocol::topics::{
    Alarm, AlarmState, Clock, Event, EventKind, LaneName, Name, Origin, Priority, Quality, QualityReason, Reading, Timestamp, TsSource,
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    pump::{PROCESS, Pump, VIBRATION},
    scenario::{DAY_S, Scenario, Schedule},
    tally::{Raised, Tally},
};

const ASSET: &str = "pump-7";
/// 2025-06-15, on the grid.
const START_US: i64 = 1_750_000_000_000_000;
/// A block of vibration comes so often, s.
const BLOCK_EVERY_S: usize = 600;
/// The engine is asked what it thinks so often, s.
const LOOK_EVERY_S: usize = 60;

/// Writes the configuration of the machine into `dir` and reads it as the agent does.
///
/// # Errors
/// What the file system or the check of the configuration says.
pub fn configuration(dir: &Path) -> Result<Config> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
    let hark = format!(
        "[gateway]\nid = \"machine-days\"\norigin = \"simulated\"\n[buffer]\ndir = \"buffer\"\nquota = \"64 MiB\"\n[inference]\nmodels = \"{models}\"\n"
    );
    for (file, text) in [
        ("hark.toml", hark.as_str()),
        ("assets/pump-7.toml", include_str!("pump.toml")),
        ("templates/pump.toml", include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/templates/pump.toml"))),
    ] {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        std::fs::write(&path, text)?;
    }
    hark::config::load(dir).context("the configuration of the machine is refused")
}

/// A machine, its plant and the engine that watches it.
pub struct Life {
    engine: Engine,
    schedule: Schedule,
    pump: Pump,
    /// One per point, rewritten for each reading.
    process: Vec<Entry>,
    vibration: Vec<Entry>,
    seq: u64,
    out: Vec<(LaneName, Entry)>,
    /// Seconds from the start at which a commissioning ended last.
    commissioned_s: Option<f64>,
    tally: Tally,
}

impl Life {
    /// A machine of `scenario` that is to live for `days`.
    ///
    /// # Errors
    /// Where the model bundle is refused.
    pub fn new(config: &Config, scenario: Scenario, days: f64, seed: u64) -> Result<Self> {
        let mut schedule = Schedule::new(scenario, days * DAY_S, seed);
        let pump = Pump::new(&schedule.at(0.0), seed);
        Ok(Self {
            engine: Engine::new(&config.assets, &config.models)?,
            schedule,
            pump,
            process: PROCESS.iter().map(|(id, unit)| reading(id, unit)).collect(),
            vibration: VIBRATION.iter().map(|(id, unit)| reading(id, unit)).collect(),
            seq: 0,
            out: Vec::new(),
            commissioned_s: None,
            tally: Tally::default(),
        })
    }

    /// Lives for `days` and tells what came of it.
    pub fn live(mut self, days: f64) -> Tally {
        let blocks = (days * DAY_S) as usize / BLOCK_EVERY_S;
        for block in 0..blocks {
            let first_s = block * BLOCK_EVERY_S;
            let mut duty = self.schedule.at(first_s as f64);
            let vibration = self.pump.block(&duty);
            let mut seconds = Vec::with_capacity(BLOCK_EVERY_S);
            for second in 0..BLOCK_EVERY_S {
                if second > 0 {
                    duty = self.schedule.at((first_s + second) as f64);
                }
                seconds.push(self.pump.second(&duty));
            }
            let cpu_before = cpu_time();
            self.feed(first_s, &seconds, vibration);
            self.tally.cpu += cpu_time().saturating_sub(cpu_before);
        }
        let counters = self.engine.counters();
        self.tally.rows = (blocks * BLOCK_EVERY_S) as u64;
        self.tally.scored = counters.rows_scored;
        self.tally
    }

    /// The readings of one block and of the seconds that follow it, in the order of time.
    fn feed(&mut self, first_s: usize, seconds: &[[f64; 6]], vibration: [Option<f64>; 2]) {
        for (index, value) in vibration.into_iter().enumerate() {
            rewrite(&mut self.vibration[index], first_s as f64, value);
            process(&mut self.engine, &mut self.seq, &self.vibration[index], &mut self.out);
        }
        for (at_s, values) in (first_s..).zip(seconds) {
            if self.schedule.remounted_s() == Some(at_s as f64) {
                let command = maintenance_done(at_s as f64);
                process(&mut self.engine, &mut self.seq, &command, &mut self.out);
            }
            for (index, value) in values.iter().enumerate() {
                rewrite(&mut self.process[index], at_s as f64, Some(*value));
                process(&mut self.engine, &mut self.seq, &self.process[index], &mut self.out);
            }
            self.take_note(at_s as f64);
            if at_s % LOOK_EVERY_S == 0 {
                self.look();
            }
        }
    }

    /// What the engine has put out up to second `at_s`.
    fn take_note(&mut self, at_s: f64) {
        for (lane, entry) in self.out.drain(..) {
            match entry.body {
                Body::Event(event) if event.kind == EventKind::Commissioning => match event.what.as_deref() {
                    Some("accepted") => {
                        self.commissioned_s = Some(at_s);
                        self.tally.learned_s.get_or_insert(at_s);
                    }
                    Some("refused") => self.tally.refused += 1,
                    Some("limit") => self.tally.moved.push((at_s / DAY_S, limit_of(&event))),
                    _ => {}
                },
                Body::Prediction(prediction) => {
                    self.tally.score_max = self.tally.score_max.max(prediction.score_max.unwrap_or(0.0));
                }
                Body::Alarm(alarm) if lane == LaneName::Alarms && is_new(&alarm) => {
                    let since_learned_s = self.commissioned_s.map_or(f64::INFINITY, |from_s| at_s - from_s);
                    self.tally.raised.push(raised(&alarm, at_s, since_learned_s));
                }
                _ => {}
            }
        }
    }

    fn look(&mut self) {
        let Some(view) = self.engine.view(ASSET) else { return };
        self.tally.looks += 1;
        self.tally.looks_scored += u64::from(view.score.is_some());
        self.tally.looks_above += u64::from(view.score.is_some() && view.above);
        self.tally.looks_in_alarm += u64::from(view.alarm || view.advice);
    }
}

/// The limit that an event says has moved.
fn limit_of(event: &Event) -> f64 {
    let detail = event.detail_json.as_deref().and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    detail.and_then(|detail| detail["limit"].as_f64()).unwrap_or(f64::NAN)
}

/// An alarm that was not there before: nobody acknowledges here, so each occurrence comes once.
fn is_new(alarm: &Alarm) -> bool {
    alarm.state == AlarmState::ActiveUnacknowledged && alarm.previous_state != AlarmState::ActiveUnacknowledged
}

fn raised(alarm: &Alarm, at_s: f64, since_learned_s: f64) -> Raised {
    let point = alarm.point.as_ref().or(alarm.contrib_1_point.as_ref());
    Raised {
        day: at_s / DAY_S,
        is_advice: alarm.priority == Priority::Advice,
        in_first_day: since_learned_s < DAY_S,
        point: point.map_or_else(|| "none".to_owned(), |point| point.to_string()),
        value: alarm.value,
    }
}

fn process(engine: &mut Engine, seq: &mut u64, entry: &Entry, out: &mut Vec<(LaneName, Entry)>) {
    *seq += 1;
    engine.process(Position { ordinal: 1, seq: *seq }, "machine-days", entry, out);
}

fn stamp(at_s: f64) -> Stamp {
    Stamp { asset: Some(ASSET.into()), ts: time(at_s), ts_source: TsSource::Sensor, clock: Clock::Synced, origin: Origin::Simulated }
}

fn time(at_s: f64) -> Timestamp {
    Timestamp(START_US + (at_s * 1e6) as i64)
}

/// A reading of `point` whose time and value are still to be written.
fn reading(point: &str, unit: &str) -> Entry {
    let boot: Name = "machine-days".into();
    let reading =
        Reading { point: point.into(), value: None, unit: unit.into(), quality: Quality::Bad, reason: None, source_seq: None, boot, log_ms: 0 };
    Entry { stamp: stamp(0.0), cause: None, body: Body::Reading(reading) }
}

fn rewrite(entry: &mut Entry, at_s: f64, value: Option<f64>) {
    entry.stamp.ts = time(at_s);
    if let Body::Reading(reading) = &mut entry.body {
        (reading.value, reading.quality) = (value, if value.is_some() { Quality::Good } else { Quality::Bad });
        reading.reason = value.is_none().then_some(QualityReason::NotANumber);
    }
}

fn maintenance_done(at_s: f64) -> Entry {
    let event = Event {
        command: Some("maintenance_done".into()),
        command_id: Some("remounted".into()),
        actor: Some("plant".into()),
        text: Some("sensor mounted anew".into()),
        ..Event::new(EventKind::Command)
    };
    Entry { stamp: stamp(at_s), cause: None, body: Body::Event(event.into()) }
}

/// Of this thread, so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
