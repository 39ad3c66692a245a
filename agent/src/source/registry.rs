//! Which points exist, and what a decoded value becomes: the step from a source's words to a [`Reading`] in the log.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hark_protocol::topics::{Clock as ClockState, Name, Origin, Quality, QualityReason, Reading, Timestamp, TsSource};

use super::{
    counters::{Dropped, SourceCounters},
    decode::{Sample, Value},
    ring::Kept,
    silence::{self, Rhythm, Rhythms},
    waveform::WaveformPoint,
};
use crate::{
    clock::Now,
    config::{Asset, Point},
    record::{Body, Entry, Stamp},
};

/// A source's time before this (2000-01-01) is a clock that was never set.
const EARLIEST: Timestamp = Timestamp(946_684_800_000_000);
/// A source's time further ahead of the gateway's than this is not believed.
const AHEAD_REFUSED_US: i64 = 86_400_000_000;
/// Further ahead than this it is marked uncertain (domain reference section 11).
const AHEAD_UNCERTAIN_US: i64 = 300_000_000;
/// Integers in our records are below this: JSON readers hold no larger one exactly.
const SEQUENCE_MAX: u64 = 1 << 53;
/// A gateway whose own clock stands before this (2024-01-01) cannot judge others.
const GATEWAY_CLOCK_SET: Timestamp = Timestamp(1_704_067_200_000_000);

/// All points of all assets, by the names that sources use. Shared by the sources; each has its own [`Intake`].
#[derive(Debug)]
pub struct Registry {
    assets: BTreeMap<Name, AssetEntry>,
    rhythms: Arc<Rhythms>,
    origin: Origin,
}

#[derive(Debug)]
struct AssetEntry {
    points: BTreeMap<String, Arc<Point>>,
    waveforms: BTreeMap<Name, WaveformPoint>,
    /// Shaft speed, Hz, as its point said last, for features that need it. Speed and blocks may come through different sources.
    speed_hz: Mutex<Option<f64>>,
    rhythm: Option<Arc<Mutex<Rhythm>>>,
}

impl AssetEntry {
    fn speed_hz(&self) -> MutexGuard<'_, Option<f64>> {
        self.speed_hz.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Indexes the points by id and by column, and keeps no raw blocks.
    pub fn new(assets: &BTreeMap<Name, Asset>, origin: Origin) -> Self {
        Self::keeping(assets, origin, 0)
    }

    /// The same with up to `ring_bytes` of raw blocks in memory, an equal part for each waveform.
    pub fn keeping(assets: &BTreeMap<Name, Asset>, origin: Origin, ring_bytes: usize) -> Self {
        let part = ring_bytes / assets.values().map(|asset| asset.waveforms.len()).sum::<usize>().max(1);
        let rhythms = Rhythms::new(assets);
        let assets = assets
            .values()
            .map(|asset| {
                let mut points = BTreeMap::new();
                for point in &asset.points {
                    let point_arc = Arc::new(point.clone());
                    if let Some(column) = &point.column {
                        points.insert(column.clone(), point_arc.clone());
                    }
                    points.insert(point.id.to_string(), point_arc);
                }
                let waveforms = asset.waveforms.iter().map(|w| (w.id.clone(), WaveformPoint::new(w.clone(), part))).collect();
                let rhythm = rhythms.of(&asset.id).cloned();
                (asset.id.clone(), AssetEntry { points, waveforms, speed_hz: Mutex::new(None), rhythm })
            })
            .collect();
        Self { assets, rhythms: rhythms.into(), origin }
    }

    /// The raw blocks of an asset that are kept: the newest one of `point`, or all of all its waveforms.
    pub fn blocks(&self, asset: &Name, point: Option<&Name>) -> Vec<(Name, Arc<Kept>)> {
        let Some(asset) = self.assets.get(asset) else { return Vec::new() };
        let of = |(id, waveform): (&Name, &WaveformPoint)| waveform.ring().blocks().map(|block| (id.clone(), block.clone())).collect::<Vec<_>>();
        match point {
            Some(point) => asset.waveforms.get_key_value(point).and_then(|waveform| of(waveform).pop()).into_iter().collect(),
            None => asset.waveforms.iter().flat_map(of).collect(),
        }
    }

    /// When each asset was heard last.
    pub fn rhythms(&self) -> Arc<Rhythms> {
        self.rhythms.clone()
    }
}

/// Turns the samples of one source into entries.
#[derive(Debug)]
pub struct Intake {
    registry: Arc<Registry>,
}

/// Names that the topic or the configuration gives where the message does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Asset id.
    pub asset: Option<&'a str>,
    /// Point id.
    pub point: Option<&'a str>,
    /// The instrument tests itself: what it says is no measurement.
    pub self_test: bool,
}

impl Intake {
    /// An intake of `registry`'s points.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// What the readings of this gateway come from.
    pub fn origin(&self) -> Origin {
        self.registry.origin
    }

    /// Names by which the points of `asset` may be called: ids and columns.
    pub fn names(&self, asset: &str) -> BTreeSet<String> {
        self.registry.assets.get(asset).map(|asset| asset.points.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a raw block of `asset` that came at `now` is stamped with; `time` is that of its last sample.
    pub fn stamp(&self, asset: &Name, time: Option<Timestamp>, now: &Now) -> Stamp {
        let time = judge_time(time.map(Ok), now);
        Stamp { asset: Some(asset.clone()), ts: time.ts, ts_source: time.source, clock: now.state, origin: self.registry.origin }
    }

    /// Appends the entries of `sample` to `entries`; what cannot become an entry is counted by cause.
    pub fn take(&self, sample: Sample, context: Context<'_>, now: &Now, counters: &SourceCounters, entries: &mut Vec<Entry>) {
        let registry = self.registry.clone();
        let (Some(asset), Some(point)) = (sample.asset.as_deref().or(context.asset), sample.point.as_deref().or(context.point)) else {
            return counters.dropped(Dropped::Unnamed, String::new);
        };
        let Some((asset_id, asset)) = registry.assets.get_key_value(asset) else {
            return counters.dropped(Dropped::UnknownAsset, || asset.to_owned());
        };
        let time = judge_time(sample.time, now);
        if time.replaced {
            counters.count("replaced", "implausible_time", 1);
        }
        let sequence = sample.sequence.filter(|sequence| *sequence < SEQUENCE_MAX);
        if sequence != sample.sequence {
            counters.count("replaced", "sequence_too_large", 1);
        }
        let stamp = Stamp { asset: Some(asset_id.clone()), ts: time.ts, ts_source: time.source, clock: now.state, origin: registry.origin };
        let mut push = |point: &Point, value: Result<f64, QualityReason>, worth: Worth| {
            let reading = assemble(point, value, worth, &time, sequence, now, counters);
            // What inference does not go by is no sign of life: points without a part in the score, times that run ahead.
            let ahead = time.uncertain && time.source == TsSource::Sensor;
            if let Some(rhythm) = asset.rhythm.as_ref().filter(|_| point.scored && !ahead) {
                silence::lock(rhythm).heard(time.ts, now.log_ms);
            }
            entries.push(Entry { stamp: stamp.clone(), cause: None, body: Body::Reading(reading) });
        };
        let of_source = match context.self_test {
            true => Worth { quality: Quality::Bad, reason: QualityReason::CheckFunction },
            false => Worth { quality: sample.quality, reason: QualityReason::Source },
        };
        match &sample.value {
            Value::Block(block) => {
                let Some(waveform) = asset.waveforms.get(point) else {
                    return counters.dropped(Dropped::UnknownPoint, || format!("{asset_id}/{point}"));
                };
                let fault = block.fault();
                let worth = of_source.or_worse(fault);
                let unusable = fault.filter(|(quality, _)| *quality == Quality::Bad).map(|(_, reason)| reason);
                let speed = waveform.speed(block, *asset.speed_hz());
                // A hole would be kept as zero; a flat line is one.
                if unusable == Some(QualityReason::NotANumber) {
                    counters.count("not_kept", "not_a_number", 1);
                } else if !waveform.keep(block, &stamp, speed) {
                    counters.count("not_kept", "block_too_large", 1);
                }
                // Before the faults that are named by it.
                if let Some((id, tracked_hz)) = waveform.told(speed)
                    && let Some(derived) = asset.points.get(&*id)
                {
                    push(derived, tracked_hz.map(|hz| hz * per_unit(derived)).ok_or(unusable.unwrap_or(QualityReason::Source)), worth);
                }
                for (feature, value) in waveform.features(block, speed, now.log_ms) {
                    let Some(derived) = asset.points.get(&feature) else { continue };
                    match (value, unusable) {
                        (Some(value), _) => push(derived, Ok(value), worth),
                        (None, Some(reason)) => push(derived, Err(reason), worth),
                        (None, None) => counters.dropped(Dropped::FeatureUnavailable, || format!("{asset_id}/{feature}")),
                    }
                }
            }
            value => {
                let Some(point) = asset.points.get(point) else { return counters.dropped(Dropped::UnknownPoint, || format!("{asset_id}/{point}")) };
                let number = to_number(point, value);
                if let Ok(speed) = number
                    && asset.waveforms.values().any(|w| w.speed_point() == Some(&point.id))
                {
                    *asset.speed_hz() = Some(speed / per_unit(point));
                }
                push(point, number, of_source);
            }
        }
    }
}

/// What a speed of 1 Hz is in the unit of its point.
fn per_unit(point: &Point) -> f64 {
    if &*point.unit == "/min" { 60.0 } else { 1.0 }
}

/// Nothing is measured beyond it in any unit, and squares of what is within it still are numbers.
const MAGNITUDE_MAX: f64 = 1e30;

fn to_number(point: &Point, value: &Value) -> Result<f64, QualityReason> {
    match value {
        Value::Number(number) if number.is_finite() => Ok(*number),
        Value::Number(_) => Err(QualityReason::NotANumber),
        Value::Text(text) => point.map.get(text.trim()).copied().ok_or(QualityReason::NotMapped),
        Value::Missing | Value::Block(_) => Err(QualityReason::Source),
    }
}

/// What is known of a value before its point is looked at.
#[derive(Clone, Copy, Debug)]
struct Worth {
    quality: Quality,
    /// Why, where it is not good.
    reason: QualityReason,
}

impl Worth {
    /// The same, unless a `fault` makes it worse, or says more of why.
    fn or_worse(self, fault: Option<(Quality, QualityReason)>) -> Self {
        fault.filter(|(quality, _)| *quality >= self.quality).map_or(self, |(quality, reason)| Self { quality, reason })
    }
}

fn assemble(
    point: &Point,
    value: Result<f64, QualityReason>,
    worth: Worth,
    time: &JudgedTime,
    source_seq: Option<u64>,
    now: &Now,
    counters: &SourceCounters,
) -> Reading {
    let out_of_range = |v: f64| v.abs() > MAGNITUDE_MAX || point.range.is_some_and(|(low, high)| !(low..=high).contains(&v));
    let (value, quality, reason) = match value {
        Err(reason) => (None, Quality::Bad, Some(reason)),
        Ok(_) if worth.quality == Quality::Bad => (None, Quality::Bad, Some(worth.reason)),
        Ok(value) if out_of_range(value) => (None, Quality::Bad, Some(QualityReason::OutOfRange)),
        Ok(value) if time.uncertain => (Some(value), Quality::Uncertain, Some(QualityReason::Clock)),
        Ok(value) if worth.quality == Quality::Uncertain => (Some(value), Quality::Uncertain, Some(worth.reason)),
        Ok(value) => (Some(value), Quality::Good, None),
    };
    if let Some(reason) = reason {
        counters.quality(reason);
    }
    Reading {
        point: point.id.clone(),
        // Negative zero would be the one float whose text differs between encoders.
        value: value.map(|v| v + 0.0),
        unit: point.unit.clone(),
        quality,
        reason,
        source_seq,
        boot: now.boot.clone(),
        log_ms: now.log_ms,
    }
}

#[derive(Debug, PartialEq)]
struct JudgedTime {
    ts: Timestamp,
    source: TsSource,
    uncertain: bool,
    replaced: bool,
}

/// The sensor's time if it can be believed, else the time of reception; decided once, here.
fn judge_time(given: Option<Result<Timestamp, ()>>, now: &Now) -> JudgedTime {
    let received = JudgedTime { ts: now.ts, source: TsSource::Gateway, uncertain: now.state == ClockState::Stepped, replaced: false };
    match given {
        None => received,
        Some(Err(())) => JudgedTime { uncertain: true, replaced: true, ..received },
        Some(Ok(ts)) => {
            let ahead_us = ts.0.saturating_sub(now.ts.0);
            let gateway_knows = now.ts >= GATEWAY_CLOCK_SET;
            if ts < EARLIEST || (gateway_knows && ahead_us > AHEAD_REFUSED_US) {
                return JudgedTime { uncertain: true, replaced: true, ..received };
            }
            JudgedTime { ts, source: TsSource::Sensor, uncertain: gateway_knows && ahead_us > AHEAD_UNCERTAIN_US, replaced: false }
        }
    }
}

#[cfg(test)]
mod block_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now { ts: Timestamp(1_750_000_000_000_000), log_ms: 5, boot: "boot".into(), state: ClockState::Synced }
    }

    #[track_caller]
    fn check_time(given: Option<Result<i64, ()>>, source: TsSource, uncertain: bool) {
        let judged = judge_time(given.map(|r| r.map(|s| Timestamp(s * 1_000_000))), &now());
        assert_eq!((judged.source, judged.uncertain), (source, uncertain));
    }

    #[test]
    fn times_that_cannot_be_believed_are_replaced() {
        check_time(None, TsSource::Gateway, false);
        check_time(Some(Err(())), TsSource::Gateway, true);
        check_time(Some(Ok(1_580_000_000)), TsSource::Sensor, false);
        check_time(Some(Ok(0)), TsSource::Gateway, true);
        check_time(Some(Ok(4_291_747_200)), TsSource::Gateway, true);
        check_time(Some(Ok(1_750_000_000 + 7_200)), TsSource::Sensor, true);
    }

    #[test]
    fn what_nothing_measures_is_out_of_range_without_a_configured_one() {
        let text = "id = \"m\"\n[[point]]\nid = \"p\"\nunit = \"1\"\n";
        let point = crate::config::check_asset_text("m.toml", text).unwrap().points.remove(0);
        let time = judge_time(None, &now());
        let counters = SourceCounters::new("s".into(), "mqtt", "none", crate::clock::Clock::new());
        let judged =
            |value: f64| assemble(&point, Ok(value), Worth { quality: Quality::Good, reason: QualityReason::Source }, &time, None, &now(), &counters);
        assert_eq!([1e30, -1e30].map(|value| judged(value).reason), [None; 2]);
        for value in [1.1e30, -1e308] {
            let judged = judged(value);
            assert_eq!((judged.value, judged.quality, judged.reason), (None, Quality::Bad, Some(QualityReason::OutOfRange)));
        }
    }

    #[test]
    fn a_gateway_that_booted_in_1970_believes_its_sensors() {
        let judged = judge_time(Some(Ok(Timestamp(1_750_000_000_000_000))), &Now { ts: Timestamp(60_000_000), ..now() });
        assert_eq!((judged.source, judged.uncertain), (TsSource::Sensor, false));
    }
}
