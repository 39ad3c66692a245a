//! Waveform blocks become features before the log: each feature is a reading of a derived point (`de-h.v_rms`), and so is the strength of each fault that
//! the rules name (`de-h.fault.outer`). Rules are asked now and then only: they cost more, and what wears does so for hours.
//!
//! The speed behind orders and lines is that of the tachometer, else that of the line at 1x, told by `de-h.speed_tracked`; where that is null, it is the
//! nominal one.
use std::sync::{Mutex, MutexGuard, PoisonError};

use hark_protocol::topics::Name;

use super::{
    decode::Block,
    ring::{Kept, Ring},
};
use crate::{
    config::Waveform,
    record::Stamp,
    signal::{
        BlockUnit, Features, Setting,
        diagnosis::{self, Fault},
        severity::Class,
        speed::{Origin, Speed},
    },
};

/// A point that carries blocks, with the plans and scratch memory of its transforms.
#[derive(Debug)]
pub struct WaveformPoint {
    config: Waveform,
    /// Of blocks that do not tell theirs.
    unit: BlockUnit,
    /// What the rules can name.
    faults: Vec<Fault>,
    work: Mutex<Work>,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Work {
    features: Features,
    /// When the rules were asked last, milliseconds since boot.
    asked_ms: Option<u64>,
    /// The speed that the line at 1x told last, Hz.
    tracked_hz: Option<f64>,
}

impl WaveformPoint {
    /// A point as configured, which keeps up to `ring_bytes` of raw blocks.
    pub fn new(config: Waveform, ring_bytes: usize) -> Self {
        // The check of the configuration lets no other unit pass.
        let unit = BlockUnit::named(&config.unit).unwrap_or(BlockUnit::G);
        Self { faults: config.faults(), config, unit, work: Mutex::default(), ring: Mutex::new(Ring::new(ring_bytes)) }
    }

    /// The point that tells the shaft speed.
    pub fn speed_point(&self) -> Option<&Name> {
        self.config.speed_point.as_ref()
    }

    /// The shaft's speed in a `block`: as `measured_hz` by a tachometer, else by its line at 1x, else as configured; `None` where none is known.
    pub fn speed(&self, block: &Block, measured_hz: Option<f64>) -> Option<Speed> {
        let of = |origin| move |hz| Speed { hz, origin };
        let track = || {
            let search = self.config.search()?;
            let mut work = self.work();
            let last_hz = work.tracked_hz;
            let tracked = work.features.track_speed(&block.samples, &self.setting(block, None), &search, last_hz)?;
            work.tracked_hz = Some(tracked.hz);
            Some(tracked.hz)
        };
        measured_hz.map(of(Origin::Tachometer)).or_else(|| track().map(of(Origin::Tracked))).or(self.config.speed_hz.map(of(Origin::Nominal)))
    }

    /// The derived point that tells a tracked `speed`, and what it tells in Hz, if anything; `None` where no line was looked for.
    pub fn told(&self, speed: Option<Speed>) -> Option<(Name, Option<f64>)> {
        let looked_for = |speed: &Speed| speed.origin != Origin::Tachometer && self.config.search().is_some();
        speed.filter(looked_for).map(|speed| (self.config.speed_tracked(), (speed.origin == Origin::Tracked).then_some(speed.hz)))
    }

    /// What a `block` that came at `log_ms` says: its configured features, and the strengths of faults where the rules are due, as (derived point, value in
    /// its unit); `None` where one needs what is not known, such as the speed.
    pub fn features(&self, block: &Block, speed: Option<Speed>, log_ms: u64) -> Vec<(String, Option<f64>)> {
        let mut work = self.work();
        let setting = self.setting(block, speed);
        let named = |name: &str| format!("{}.{name}", self.config.id);
        let features = work.features.block_features(&block.samples, &setting, &self.config.features);
        let mut values: Vec<_> = features.into_iter().map(|(feature, _, value)| (named(&feature), value)).collect();
        if self.is_due(work.asked_ms, log_ms) {
            let diagnosis = work.features.diagnose(&block.samples, &setting, &self.machine());
            // Of a block that cannot be used they were not asked: the next one is for them.
            work.asked_ms = if diagnosis.as_ref().is_some_and(|said| !said.asked.is_empty()) { Some(log_ms) } else { work.asked_ms };
            values.extend(self.faults.iter().map(|fault| (named(&fault.indicator()), diagnosis.as_ref().and_then(|said| said.strength(*fault)))));
        }
        values
    }

    /// Keeps a `block` for snapshots; false where it is too large.
    pub fn keep(&self, block: &Block, stamp: &Stamp, speed: Option<Speed>) -> bool {
        if self.ring().is_off() {
            return true;
        }
        let unit = block.unit.unwrap_or(self.unit).name().into();
        self.ring().keep(Kept::of(block, stamp.clone(), unit, speed.map(|speed| speed.hz)))
    }

    /// The blocks that are kept, the oldest first.
    pub fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn setting(&self, block: &Block, speed: Option<Speed>) -> Setting<'_> {
        Setting {
            fs_hz: block.fs_hz,
            unit: block.unit.unwrap_or(self.unit),
            speed_hz: speed.map(|speed| speed.hz),
            bearing: self.config.bearing.as_ref(),
            envelope_band_hz: self.config.envelope_band_hz,
        }
    }

    fn is_due(&self, asked_ms: Option<u64>, log_ms: u64) -> bool {
        let Some(every) = self.config.diagnose_every.filter(|_| !self.faults.is_empty()) else { return false };
        asked_ms.is_none_or(|asked_ms| u128::from(log_ms.saturating_sub(asked_ms)) >= every.as_millis())
    }

    /// What is known beside speed and bearing.
    fn machine(&self) -> diagnosis::Machine {
        let class = self.config.class.as_deref().and_then(Class::named);
        diagnosis::Machine { class, teeth: self.config.teeth, vanes: self.config.vanes, ..diagnosis::Machine::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Shape,
        signal::simulated::{Machine, Strikes},
        source::decode::{Value, json},
    };

    /// Velocity RMS that a point configured in `unit` tells of a block of 1 m/s2 (in its samples) at 100 Hz.
    fn v_rms(configured: &str, unit: &str) -> Option<f64> {
        let samples: Vec<f64> = (0..8192).map(|i| (std::f64::consts::TAU * 100.0 * f64::from(i) / 8192.0).sin()).collect();
        let mut block = serde_json::json!({"fs": 8192, "samples": samples});
        if !unit.is_empty() {
            block["unit"] = serde_json::from_str(unit).unwrap();
        }
        let shape = Shape { waveform: true, ..Shape::default() };
        let sample = json::decode(block.to_string().as_bytes(), &shape).ok()?.remove(0).ok()?;
        let Value::Block(block) = sample.value else { return None };
        let config = Waveform {
            id: "de-h".into(),
            unit: configured.into(),
            features: vec!["v_rms".into()],
            speed_hz: None,
            speed_point: None,
            speed_search: 0.0,
            bearing: None,
            envelope_band_hz: (2_000.0, 3_000.0),
            class: None,
            teeth: None,
            vanes: None,
            diagnose_every: None,
        };
        WaveformPoint::new(config, 0).features(&block, None, 0)[0].1
    }

    #[test]
    fn a_block_is_in_its_own_unit_else_in_the_configured_one() {
        // 1 m/s2 at 100 Hz is 1000 / (2 pi 100 sqrt 2) = 1.125 mm/s.
        #[track_caller]
        fn check(configured: &str, unit: &str, expected: f64) {
            let v_rms = v_rms(configured, unit).unwrap();
            assert!((v_rms / expected - 1.0).abs() < 0.02, "{v_rms} for {expected}");
        }
        check("m/s2", "", 1.125);
        check("m/s2", "null", 1.125);
        check("m/s2", "\"[g]\"", 1.125 * 9.80665);
        check("[g]", "", 1.125 * 9.80665);
        check("g", "", 1.125 * 9.80665);
        check("[g]", "\"m/s2\"", 1.125);
        for unknown in ["\"um\"", "7", "\"\""] {
            assert_eq!(v_rms("m/s2", unknown), None, "{unknown}");
        }
    }

    /// What a point with this speed, bearing and class says of faults when a block of `machine` comes at `log_ms`.
    fn strengths(point: &WaveformPoint, machine: &Machine, log_ms: u64) -> Vec<(String, Option<f64>)> {
        let block = Block { fs_hz: machine.fs_hz, unit: None, scale: 1.0, samples: machine.samples() };
        let values = point.features(&block, point.speed(&block, None), log_ms);
        values.into_iter().filter_map(|(name, value)| Some((name.strip_prefix("de-h.fault.")?.to_owned(), value))).collect()
    }

    fn diagnosed(speed_hz: Option<f64>) -> WaveformPoint {
        WaveformPoint::new(
            Waveform {
                id: "de-h".into(),
                unit: "m/s2".into(),
                features: vec!["v_rms".into()],
                speed_hz,
                speed_point: None,
                speed_search: 0.05,
                bearing: Some(crate::config::Bearing { elements: 9, element_mm: 7.940, pitch_mm: 39.04, contact_deg: 0.0 }),
                envelope_band_hz: (2_000.0, 5_000.0),
                class: Some("2-rigid".into()),
                teeth: None,
                vanes: None,
                diagnose_every: Some(std::time::Duration::from_secs(60)),
            },
            0,
        )
    }

    #[test]
    fn the_rules_tell_the_strength_of_what_they_name_when_they_are_due() {
        let (point, healthy) = (diagnosed(Some(29.95)), Machine::healthy(1));
        let struck = Machine { strikes: Some(Strikes::at(3.5848 * 29.95, 0.5)), ..healthy };
        let names = ["outer", "inner", "ball", "cage", "looseness", "misalignment", "unbalance"];
        let none: Vec<(String, Option<f64>)> = names.iter().map(|name| ((*name).to_owned(), Some(0.0))).collect();
        assert_eq!(strengths(&point, &healthy, 5_000), none);
        assert_eq!(strengths(&point, &struck, 64_999), [], "not due");
        let said = strengths(&point, &struck, 65_000);
        assert!(said[0].1 >= Some(1.0) && said[1..] == none[1..], "{said:?}");
        assert_eq!(strengths(&point, &struck, 65_001), [], "not due");
    }

    #[test]
    fn the_speed_is_that_of_the_tachometer_else_that_of_the_line_else_the_nominal_one() {
        let point = diagnosed(Some(29.2));
        #[track_caller]
        fn check(point: &WaveformPoint, machine: &Machine, measured_hz: Option<f64>, origin: Origin, hz: f64, told: Option<Option<f64>>) {
            let block = Block { fs_hz: machine.fs_hz, unit: None, scale: 1.0, samples: machine.samples() };
            let speed = point.speed(&block, measured_hz).unwrap();
            assert!(speed.origin == origin && (speed.hz / hz - 1.0).abs() < 1e-3, "{speed:?}");
            let near = |told: Option<f64>| told.map(|told| (10.0 * told).round() / 10.0);
            assert_eq!(
                point.told(Some(speed)).map(|(name, told)| (name.to_string(), near(told))),
                told.map(|told| ("de-h.speed_tracked".to_owned(), near(told)))
            );
        }
        let (running, still) = (Machine::healthy(1), Machine { orders_mm_s: [(0.0, 0.0); 12], ..Machine::healthy(1) });
        check(&point, &running, Some(31.0), Origin::Tachometer, 31.0, None);
        check(&point, &running, None, Origin::Tracked, 29.95, Some(Some(29.95)));
        check(&point, &still, None, Origin::Nominal, 29.2, Some(None));
        let mut without = point;
        without.config.speed_search = 0.0;
        check(&without, &running, None, Origin::Nominal, 29.2, None);
    }

    /// A nominal speed 3 % beside the true one moves the lines out of their places.
    #[test]
    fn faults_are_named_by_the_tracked_speed() {
        let struck = Machine { strikes: Some(Strikes::at(3.5848 * 29.95, 0.5)), ..Machine::healthy(1) };
        let outer = |search: f64| {
            let mut point = diagnosed(Some(1.03 * 29.95));
            point.config.speed_search = search;
            strengths(&point, &struck, 0)[0].1
        };
        assert_eq!(outer(0.0), Some(0.0), "by the nominal speed");
        assert!(outer(0.05) >= Some(1.0), "by the line at 1x");
    }

    #[test]
    fn a_rule_that_lacks_what_it_looks_at_says_nothing() {
        let (point, healthy) = (diagnosed(None), Machine::healthy(1));
        let said = strengths(&point, &healthy, 0);
        assert!(said.len() == 7 && said.iter().all(|(_, strength)| strength.is_none()), "{said:?}");
        // Nine turns do not tell the lines of a bearing from those of the shaft.
        let short = Machine { length: 3_600, ..healthy };
        let said = strengths(&diagnosed(Some(29.95)), &short, 0);
        assert!(said[..4].iter().all(|(_, strength)| strength.is_none()) && said[4..].iter().all(|(_, strength)| *strength == Some(0.0)), "{said:?}");
    }
}
