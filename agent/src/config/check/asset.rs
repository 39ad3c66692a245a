//! `assets/*.toml`: one machine, its points and waveforms.
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use hark_protocol::topics::Name;
use sha2::{Digest, Sha256};

use super::{
    faults::{DAY, Faults},
    limits,
    operating::check_operating,
};
use crate::{
    config::{
        AlarmSettings, Asset, Bearing, Checks, Commissioning, InstrumentSettings, Point, Stuck, Waveform,
        file::{AssetFile, BearingTable, PointTable, WaveformTable},
    },
    inference::checkpoint::COLLECTED_MAX_BYTES,
    signal::{FEATURES, feature_unit},
    source::decode::lines::TIME_COLUMNS,
};

const GRID: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;
/// The slowest of readings, a person's round, comes once a month.
const STALE_AFTER_MOST: Duration = Duration::from_secs(31 * DAY.as_secs());
/// Fewer rows say nothing of how far a score strays.
const ROWS_LEAST: usize = 130;
const UP_TO_A_DAY: RangeInclusive<Duration> = Duration::ZERO..=DAY;

pub(super) fn check_asset(raw: AssetFile, faults: &mut Faults) -> Asset {
    // The raw tables in their debug form hold every key with its default, so the hash changes with any of them and with nothing else.
    let hash: Name = Sha256::digest(format!("{raw:?}")).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    let grid = faults.duration("grid", &raw.grid, GRID);
    // A value must last for one row at least.
    let stale_after = raw.stale_after.map_or(grid * 5, |text| faults.duration("stale_after", &text, grid..=STALE_AFTER_MOST.max(grid)));
    let mut points: Vec<Point> = raw.points.into_iter().map(|point| check_point(point, stale_after, faults)).collect();
    let waveforms: Vec<Waveform> = raw.waveforms.into_iter().map(|waveform| check_waveform(waveform, faults)).collect();
    for waveform in &waveforms {
        for feature in &waveform.features {
            let id: Name = format!("{}.{feature}", waveform.id).into();
            // A point of that name in the file says more about the feature: its range, or that it is not scored.
            if !points.iter().any(|point| point.id == id) {
                points.push(Point {
                    id,
                    unit: feature_unit(feature).into(),
                    column: None,
                    range: None,
                    map: BTreeMap::new(),
                    scored: true,
                    checks: Checks::default(),
                    limits: None,
                    severity: None,
                });
            }
        }
    }
    if raw.operating.is_none() {
        for point in points.iter().filter(|point| point.limits.as_ref().is_some_and(|limits| limits.only_running)) {
            faults.add("point.limits.only_running", format!("of `{}` needs to know when the machine runs; expected `[operating]`", point.id));
        }
    }
    refuse_clashes(&points, &waveforms, faults);
    waveforms.iter().for_each(|waveform| check_speed_point(waveform, &points, faults));
    let rows = raw.commissioning.rows;
    if rows < ROWS_LEAST {
        faults.add("commissioning.rows", format!("{rows} are too few to learn from: expected {ROWS_LEAST} at least"));
    }
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
        commissioning: Commissioning { rows },
        alarm: AlarmSettings {
            on_delay: faults.duration("alarm.on_delay", &raw.alarm.on_delay, UP_TO_A_DAY),
            off_delay: faults.duration("alarm.off_delay", &raw.alarm.off_delay, UP_TO_A_DAY),
            latch: raw.alarm.latch,
        },
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

/// While machines are commissioned, all their rows are kept, those of each regime, and a checkpoint must hold them.
pub(super) fn refuse_too_many_rows<'a>(assets: impl Iterator<Item = &'a Asset>, faults: &mut Faults) {
    let bytes = |asset: &Asset| {
        let scored = asset.points.iter().filter(|point| point.scored).count();
        let (regimes, settle) = asset.operating.as_ref().map_or((1, Duration::ZERO), |operating| (operating.regimes(), operating.settle));
        // Rows of a machine that may have begun to change are left out in the end, and kept until then.
        let spare = (settle.as_nanos() / asset.grid.as_nanos().max(1)) as usize;
        asset.commissioning.rows.saturating_add(spare).saturating_mul(scored * regimes * size_of::<f64>())
    };
    let of_each: Vec<(usize, &Asset)> = assets.map(|asset| (bytes(asset), asset)).collect();
    let found = of_each.iter().fold(0_usize, |sum, (bytes, _)| sum.saturating_add(*bytes));
    let Some((most, largest)) = of_each.iter().max_by_key(|(bytes, _)| *bytes).filter(|_| found > COLLECTED_MAX_BYTES) else { return };
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    faults.add(
        "commissioning.rows",
        format!(
            "of all machines take {} MiB while they are collected (rows × scored points × regimes × 8 bytes; most of all `{}` with {} MiB); expected {} MiB at most: \
             fewer rows, such as those of a coarser `grid`",
            mib(found),
            largest.id,
            mib(*most),
            mib(COLLECTED_MAX_BYTES)
        ),
    );
}

fn check_point(raw: PointTable, stale_after: Duration, faults: &mut Faults) -> Point {
    let checks = check_checks(&raw, stale_after, faults);
    let class = limits::check_severity(&raw, faults);
    let limits = raw.limits.as_ref().map(|limits| limits::check_limits(&raw, limits, faults)).or(class.map(limits::of_severity)).map(Into::into);
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
        checks,
        limits,
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

fn check_waveform(raw: WaveformTable, faults: &mut Faults) -> Waveform {
    if !matches!(raw.unit.as_str(), "[g]" | "g" | "m/s2") {
        faults.add("waveform.unit", format!("`{}` of `{}` is no acceleration; use `[g]` or `m/s2`", raw.unit, raw.id));
    }
    let bearing = raw.bearing.map(|bearing| check_bearing(&raw.id, &bearing, faults));
    if raw.speed_rpm.is_some_and(|rpm| !(rpm.is_finite() && rpm > 0.0)) {
        faults.add("waveform.speed_rpm", format!("of `{}` must be above 0", raw.id));
    }
    let features = raw.features.unwrap_or_else(|| default_features(bearing.is_some()));
    for feature in &features {
        if !FEATURES.contains(&feature.as_str()) {
            faults.add("waveform.features", format!("`{feature}` is none of {}", FEATURES.join(", ")));
        }
        if feature.starts_with("env.") && feature != "env.rms" && bearing.is_none() {
            faults.add("waveform.features", format!("`{feature}` needs `bearing`"));
        }
    }
    let band = raw.envelope_band_hz.unwrap_or((2_000.0, 5_000.0));
    if !(band.0 > 0.0 && band.0 < band.1 && band.1.is_finite()) {
        faults.add("waveform.envelope_band_hz", "must be [low, high] with 0 < low < high");
    }
    Waveform {
        id: faults.name("waveform.id", &raw.id),
        unit: raw.unit.into(),
        features: features.into_iter().map(Into::into).collect(),
        speed_hz: raw.speed_rpm.map(|rpm| rpm / 60.0),
        speed_point: raw.speed_point.map(Into::into),
        bearing,
        envelope_band_hz: band,
    }
}

fn check_bearing(waveform: &str, raw: &BearingTable, faults: &mut Faults) -> Bearing {
    let BearingTable { elements, element_mm, pitch_mm, contact_deg } = *raw;
    let mut refuse = |key: &str, what: String| faults.add(&format!("waveform.bearing.{key}"), format!("of `{waveform}` {what}"));
    let is_length = |mm: f64| mm.is_finite() && mm > 0.0;
    if elements < 3 {
        refuse("elements", format!("is {elements}; expected at least 3 rolling elements"));
    }
    for (key, mm) in [("element_mm", element_mm), ("pitch_mm", pitch_mm)] {
        if !is_length(mm) {
            refuse(key, format!("is {mm}; expected a diameter in mm above 0"));
        }
    }
    if is_length(element_mm) && is_length(pitch_mm) {
        if element_mm >= pitch_mm {
            refuse("element_mm", format!("is {element_mm}; expected less than the pitch diameter of {pitch_mm}"));
        } else if f64::from(elements) * element_mm > std::f64::consts::PI * pitch_mm {
            refuse("elements", format!("is {elements}; so many of {element_mm} mm have no room on a pitch diameter of {pitch_mm} mm"));
        }
    }
    if !(0.0..90.0).contains(&contact_deg) {
        refuse("contact_deg", format!("is {contact_deg}; expected 0 up to, not including, 90 degrees"));
    }
    Bearing { elements, element_mm, pitch_mm, contact_deg }
}

/// A shaft speed is read as a number per minute or per second, by its unit.
fn check_speed_point(waveform: &Waveform, points: &[Point], faults: &mut Faults) {
    const KEY: &str = "waveform.speed_point";
    let Some(id) = &waveform.speed_point else { return };
    match points.iter().find(|point| point.id == *id) {
        None => faults.add(KEY, format!("`{id}` of `{}` is no point of this asset; expected the id of one", waveform.id)),
        Some(point) if !matches!(&*point.unit, "/min" | "Hz") => {
            faults.add(KEY, format!("`{id}` of `{}` has unit `{}`; expected `/min` or `Hz`", waveform.id, point.unit));
        }
        Some(_) => {}
    }
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

fn default_features(bearing: bool) -> Vec<String> {
    let lines: &[&str] = if bearing { &["env.bpfo", "env.bpfi"] } else { &[] };
    ["v_rms", "a_rms", "crest", "kurtosis"].iter().chain(lines).map(|&name| name.to_owned()).collect()
}
