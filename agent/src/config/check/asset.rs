//! `assets/*.toml`: one machine, its points and waveforms.
use std::{ops::RangeInclusive, time::Duration};

use hark_protocol::topics::Name;
use sha2::{Digest, Sha256};

use super::{
    commissioning::check_commissioning,
    faults::{DAY, Faults},
    forecast::check_forecast,
    limits,
    operating::check_operating,
    waveform::{check_speed_point, check_stale_after, check_waveform, derived_points, is_derived},
};
use crate::{
    config::{
        AlarmSettings, Asset, Checks, InstrumentSettings, Point, Stuck, Waveform,
        file::{AssetFile, PointTable},
    },
    source::decode::lines::TIME_COLUMNS,
};

const GRID: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;
/// The slowest of readings, a person's round, comes once a month.
const STALE_AFTER_MOST: Duration = Duration::from_secs(31 * DAY.as_secs());
const UP_TO_A_DAY: RangeInclusive<Duration> = Duration::ZERO..=DAY;

pub(super) fn check_asset(raw: AssetFile, faults: &mut Faults) -> Asset {
    // The raw tables in their debug form hold every key with its default, so the hash changes with any of them and with nothing else.
    let hash: Name = Sha256::digest(format!("{raw:?}")).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    let grid = faults.duration("grid", &raw.grid, GRID);
    // A value must last for one row at least.
    let stale_within = grid..=STALE_AFTER_MOST.max(grid);
    let stale_after = raw.stale_after.map_or(grid * 5, |text| faults.duration("stale_after", &text, stale_within.clone()));
    let stale_of_blocks: Vec<Duration> =
        raw.waveforms.iter().map(|waveform| check_stale_after(waveform, stale_after, stale_within.clone(), faults)).collect();
    let has_states = raw.operating.is_some();
    let of_point = |point: PointTable| {
        // A feature that has a table of its own comes with the blocks all the same.
        let mut blocks = raw.waveforms.iter().zip(&stale_of_blocks);
        let of_its_blocks = blocks.find(|(waveform, _)| is_derived(&point.id, waveform)).map(|(_, stale_after)| *stale_after);
        let own = point.stale_after.as_deref().map(|text| faults.duration("point.stale_after", text, stale_within.clone())).or(of_its_blocks);
        check_point(point, own, stale_after, has_states, faults)
    };
    let mut points: Vec<Point> = raw.points.into_iter().map(of_point).collect();
    let waveforms: Vec<Waveform> = raw.waveforms.into_iter().map(|waveform| check_waveform(waveform, &points, faults)).collect();
    let derived: Vec<Point> = waveforms
        .iter()
        .zip(stale_of_blocks)
        .flat_map(|(waveform, stale_after)| derived_points(waveform, stale_after, &points, has_states))
        .collect();
    for derived in derived {
        // A point of that name in the file says more about it: its range, its limits, or that it is not scored.
        if !points.iter().any(|point| point.id == derived.id) {
            points.push(derived);
        }
    }
    if raw.operating.is_none() {
        for point in points.iter().filter(|point| point.limits.as_ref().is_some_and(|limits| limits.only_running)) {
            faults.add("point.limits.only_running", format!("of `{}` needs to know when the machine runs; expected `[operating]`", point.id));
        }
    }
    refuse_clashes(&points, &waveforms, faults);
    waveforms.iter().for_each(|waveform| check_speed_point(waveform, &points, faults));
    let operating = raw.operating.map(|operating| check_operating(operating, &points, faults));
    let id = faults.name("id", &raw.id);
    Asset {
        name: raw.name.map_or_else(|| id.clone(), Into::into),
        id,
        path: raw.path.map(Into::into),
        class: raw.class.map(Into::into),
        grid,
        stale_after,
        predict_every: faults.duration("predict_every", &raw.predict_every, UP_TO_A_DAY),
        commissioning: check_commissioning(&raw.commissioning, grid, operating.is_some(), faults),
        alarm: AlarmSettings {
            on_delay: faults.duration("alarm.on_delay", &raw.alarm.on_delay, UP_TO_A_DAY),
            off_delay: faults.duration("alarm.off_delay", &raw.alarm.off_delay, UP_TO_A_DAY),
            latch: raw.alarm.latch,
        },
        forecast: check_forecast(&raw.forecast, grid, faults),
        instrument: InstrumentSettings {
            on_delay: faults.duration("instrument.on_delay", &raw.instrument.on_delay, UP_TO_A_DAY),
            off_delay: faults.duration("instrument.off_delay", &raw.instrument.off_delay, UP_TO_A_DAY),
        },
        operating,
        points,
        waveforms,
        hash,
    }
}

/// `stale_after` is its own, or that of its blocks; `of_asset` holds without one.
fn check_point(raw: PointTable, stale_after: Option<Duration>, of_asset: Duration, has_states: bool, faults: &mut Faults) -> Point {
    let checks = check_checks(&raw, stale_after.unwrap_or(of_asset), faults);
    let class = limits::check_severity(&raw, faults);
    let of_class = class.map(|class| limits::of_severity(class, has_states));
    let limits = match &raw.limits {
        Some(limits) => Some(limits::check_limits(&raw, limits, of_class, faults)),
        None => of_class,
    };
    if let Some((low, high)) = raw.range
        && !(low.is_finite() && high.is_finite() && low < high)
    {
        faults.add("point.range", format!("of `{}` must be [low, high] with low below high", raw.id));
    }
    if raw.map.values().any(|number| !number.is_finite()) {
        faults.add("point.map", format!("of `{}` must give finite numbers", raw.id));
    }
    Point {
        id: faults.name("point.id", &raw.id),
        unit: raw.unit.into(),
        column: raw.column,
        range: raw.range,
        map: raw.map,
        scored: raw.scored,
        stale_after,
        checks,
        limits: limits.map(Into::into),
        ignore_fall: raw.ignore_fall,
        severity: class.map(|class| class.name.into()),
    }
}

fn check_checks(raw: &PointTable, stale_after: Duration, faults: &mut Faults) -> Checks {
    let mut refuse = |key: &str, what: String| faults.add(&format!("point.{key}"), format!("of `{}` {what}", raw.id));
    if let Some(rate) = raw.max_rate
        && !(rate.is_finite() && rate > 0.0)
    {
        refuse("max_rate", format!("is {rate}; expected a rate above 0, in `{}` per second", raw.unit));
    }
    if let Some(within) = raw.stuck_within {
        if !(within.is_finite() && within >= 0.0) {
            refuse("stuck_within", format!("is {within}; expected 0 or more, in `{}`", raw.unit));
        }
        if raw.stuck_after.is_none() {
            refuse("stuck_within", "says nothing alone; expected `stuck_after` beside it".to_owned());
        }
    }
    if raw.clips.is_some() && raw.range.is_none() {
        refuse("clips", "names ends of a range; expected `range` beside it".to_owned());
    }
    // Of values that come just before each is stale, three at least are seen to be the same.
    let stuck_least = (stale_after * 2).min(STALE_AFTER_MOST);
    let stuck = raw.stuck_after.as_ref().map(|text| Stuck {
        after: faults.duration("point.stuck_after", text, stuck_least..=STALE_AFTER_MOST),
        within: raw.stuck_within.unwrap_or(0.0),
    });
    Checks { max_rate: raw.max_rate, stuck, clips: raw.clips }
}

/// Sources find a point by its id or its column, so none may be that of another.
fn refuse_clashes(points: &[Point], waveforms: &[Waveform], faults: &mut Faults) {
    for (i, waveform) in waveforms.iter().enumerate() {
        if waveforms[..i].iter().any(|other| other.id == waveform.id) {
            faults.add("waveform.id", format!("`{}` stands twice", waveform.id));
        }
    }
    for (i, point) in points.iter().enumerate() {
        if points[..i].iter().any(|other| other.id == point.id) {
            faults.add("point.id", format!("`{}` stands twice", point.id));
        }
        let Some(column) = point.column.as_deref() else { continue };
        if column.is_empty() || TIME_COLUMNS.contains(&column) {
            faults.add("point.column", format!("`{column}` of `{}` names no point: it stands for a column to leave out or for the time", point.id));
        }
        let others = points.iter().enumerate().filter(|(j, _)| *j != i);
        for (j, other) in others {
            // Of two equal columns the later one is told.
            if &*other.id == column || (j < i && other.column.as_deref() == Some(column)) {
                faults.add(
                    "point.column",
                    format!("`{column}` of `{}` is the id or column of `{}` too; expected a name of its own", point.id, other.id),
                );
            }
        }
    }
}
