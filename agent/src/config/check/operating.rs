//! `[operating]` of a machine's file: how its state and its load regimes are told.
use std::{ops::RangeInclusive, time::Duration};

use super::faults::Faults;
use crate::config::{
    Load, Operating, Point, Threshold,
    file::{LoadTable, OperatingTable},
};

/// Most regimes, each with a commissioning and weights of its own.
const REGIMES_MAX: usize = 8;
/// Unless configured, a deadband is this part of its threshold.
const DEADBAND_PART: f64 = 0.05;
const SETTLE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);

/// Checks the table against the `points` of the machine.
pub(super) fn check_operating(raw: OperatingTable, points: &[Point], faults: &mut Faults) -> Operating {
    let unit = unit_of("operating.point", &raw.point, points, faults);
    let settle = faults.duration("operating.settle", &raw.settle, SETTLE);
    check_thresholds(&raw, unit, faults);
    check_steady_rate(raw.steady_rate, settle, unit, faults);
    let threshold = |reached_at: f64, below: f64| Threshold {
        reached_at,
        left_below: reached_at - raw.deadband.unwrap_or((DEADBAND_PART * reached_at).min((reached_at - below) / 2.0)),
    };
    let (idle, running) = (raw.idle.map(|idle| threshold(idle, 0.0)), threshold(raw.running, raw.idle.unwrap_or(0.0)));
    if raw.score_idle && idle.is_none() {
        faults.add("operating.score_idle", "scores a state that there is not; expected `idle` beside it");
    }
    let load = raw.load.map(|load| check_load(load, points, faults));
    let operating = Operating { point: raw.point.into(), idle, running, settle, steady_rate: raw.steady_rate, score_idle: raw.score_idle, load };
    if operating.regimes() > REGIMES_MAX {
        faults.add(
            "operating.load.bounds",
            format!("make {} regimes with the idle one, if it is scored; expected {REGIMES_MAX} at most", operating.regimes()),
        );
    }
    operating
}

/// The unit of the point `id`, which must be one of the machine's.
fn unit_of<'a>(key: &str, id: &str, points: &'a [Point], faults: &mut Faults) -> &'a str {
    let point = points.iter().find(|point| *point.id == *id);
    if point.is_none() {
        faults.add(key, format!("`{id}` is no point of this asset; expected the id of one, such as one with `scored = false`"));
    }
    point.map_or("1", |point| &*point.unit)
}

fn check_thresholds(raw: &OperatingTable, unit: &str, faults: &mut Faults) {
    for (key, value) in [("idle", raw.idle), ("running", Some(raw.running))] {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
            faults.add(&format!("operating.{key}"), format!("is {value}; expected a value above 0, in `{unit}`"));
        }
    }
    if let Some(idle) = raw.idle.filter(|idle| *idle >= raw.running) {
        faults.add("operating.idle", format!("is {idle}; expected less than `running`, {}", raw.running));
    }
    // A deadband as wide as the way to the next threshold: the state below could never be reached again.
    let lowest = raw.idle.map_or(raw.running, |idle| idle.min(raw.running - idle));
    if let Some(deadband) = raw.deadband.filter(|deadband| !(0.0..lowest).contains(deadband)) {
        faults.add(
            "operating.deadband",
            format!("is {deadband}; expected 0 up to, not including, {lowest}, the way from a threshold to the one below it"),
        );
    }
}

fn check_steady_rate(rate: Option<f64>, settle: Duration, unit: &str, faults: &mut Faults) {
    let Some(rate) = rate else { return };
    if !(rate.is_finite() && rate > 0.0) {
        faults.add("operating.steady_rate", format!("is {rate}; expected a rate above 0, in `{unit}` per second"));
    }
    if settle.is_zero() {
        faults.add("operating.steady_rate", "is measured over `settle`, which is 0s; expected a longer one");
    }
}

fn check_load(raw: LoadTable, points: &[Point], faults: &mut Faults) -> Load {
    unit_of("operating.load.point", &raw.point, points, faults);
    let narrowest = raw.bounds.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    if raw.bounds.is_empty() {
        faults.add("operating.load.bounds", "is empty; expected at least one value between two regimes");
    } else if raw.bounds.iter().any(|bound| !bound.is_finite()) || narrowest <= 0.0 {
        faults.add("operating.load.bounds", format!("is {:?}; expected finite values in ascending order", raw.bounds));
    } else if let Some(deadband) = raw.deadband.filter(|deadband| !(0.0..narrowest).contains(deadband)) {
        faults.add(
            "operating.load.deadband",
            format!("is {deadband}; expected 0 up to, not including, {narrowest}, the width of the narrowest regime"),
        );
    }
    let largest = raw.bounds.iter().fold(0.0, |largest: f64, bound| largest.max(bound.abs()));
    let deadband = raw.deadband.unwrap_or((DEADBAND_PART * largest).min(narrowest / 2.0));
    let bounds = raw.bounds.iter().map(|&reached_at| Threshold { reached_at, left_below: reached_at - deadband }).collect();
    Load { point: raw.point.into(), bounds }
}
