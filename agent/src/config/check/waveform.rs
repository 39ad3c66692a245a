//! `[[waveform]]`: blocks of vibration, the features that are made of them, and the rules that name faults by them.
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use hark_protocol::topics::Name;

use super::{
    faults::{DAY, Faults},
    limits,
};
use crate::{
    config::{
        Bearing, Checks, Limits, Point, Waveform,
        file::{BearingTable, WaveformTable},
    },
    signal::{FEATURES, feature_unit, speed},
};

/// Teeth of a gear, vanes of a pump.
const COUNT_MAX: u32 = 1_000;
/// Unit of a speed where no point says another.
const PER_MINUTE: &str = "/min";
/// An answer of the rules takes some milliseconds, and what wears does so for hours.
const DIAGNOSE_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;

/// Blocks come every ten minutes where they come slowly: what they said holds for three of them.
const STALE_AFTER: Duration = Duration::from_secs(1_800);

/// For how long what is made of a block holds, `of_asset` at least unless it is said.
pub(super) fn check_stale_after(raw: &WaveformTable, of_asset: Duration, within: RangeInclusive<Duration>, faults: &mut Faults) -> Duration {
    raw.stale_after.as_deref().map_or(STALE_AFTER.max(of_asset), |text| faults.duration("waveform.stale_after", text, within))
}

/// Whether values of `point` are made of the blocks of `raw`.
pub(super) fn is_derived(point: &str, raw: &WaveformTable) -> bool {
    let Some(name) = point.strip_prefix(&raw.id).and_then(|rest| rest.strip_prefix('.')) else { return false };
    let features = raw.features.clone().unwrap_or_else(|| default_features(raw.bearing.is_some()));
    features.iter().any(|feature| feature == name) || name == "speed_tracked" || name.starts_with("fault.")
}

/// `points` are those that the file names: the class of machine is that of the velocity.
pub(super) fn check_waveform(raw: WaveformTable, points: &[Point], faults: &mut Faults) -> Waveform {
    if !matches!(raw.unit.as_str(), "[g]" | "g" | "m/s2") {
        faults.add("waveform.unit", format!("`{}` of `{}` is no acceleration; use `[g]` or `m/s2`", raw.unit, raw.id));
    }
    let diagnose_every = check_rules(&raw, faults);
    let bearing = raw.bearing.as_ref().map(|bearing| check_bearing(&raw.id, bearing, faults));
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
    let velocity = format!("{}.v_rms", raw.id);
    Waveform {
        id: faults.name("waveform.id", &raw.id),
        class: points.iter().find(|point| *point.id == *velocity).and_then(|point| point.severity.clone()),
        teeth: raw.teeth,
        vanes: raw.vanes,
        diagnose_every,
        unit: raw.unit.into(),
        features: features.into_iter().map(Into::into).collect(),
        speed_hz: raw.speed_rpm.map(|rpm| rpm / 60.0),
        speed_point: raw.speed_point.map(Into::into),
        speed_search: check_search(raw.speed_search, &raw.id, faults),
        bearing,
        envelope_band_hz: band,
    }
}

/// The search spans less than an octave, within which 2x cannot be taken for 1x.
fn check_search(share: Option<f64>, id: &str, faults: &mut Faults) -> f64 {
    let share = share.unwrap_or(speed::SHARE);
    if !(0.0..=speed::SHARE_MAX).contains(&share) {
        faults.add(
            "waveform.speed_search",
            format!("of `{id}` is {share}; expected a part of the speed up to {}, or 0 for no search", speed::SHARE_MAX),
        );
    }
    share
}

/// How often the rules that name faults are asked; never where no speed is known.
fn check_rules(raw: &WaveformTable, faults: &mut Faults) -> Option<Duration> {
    let is_driven = raw.speed_rpm.is_some() || raw.speed_point.is_some();
    for (key, count) in [("teeth", raw.teeth), ("vanes", raw.vanes)] {
        if count.is_some_and(|count| !(1..=COUNT_MAX).contains(&count)) {
            faults.add(&format!("waveform.{key}"), format!("of `{}` must be 1 to {COUNT_MAX}", raw.id));
        }
        if count.is_some() && !is_driven {
            faults.add(
                &format!("waveform.{key}"),
                format!("of `{}` tell nothing without a speed; expected `speed_rpm` or `speed_point` beside it", raw.id),
            );
        }
    }
    if raw.diagnose_every.is_some() && !is_driven {
        faults.add("waveform.diagnose_every", format!("of `{}` needs a speed; expected `speed_rpm` or `speed_point` beside it", raw.id));
    }
    let every = faults.duration("waveform.diagnose_every", raw.diagnose_every.as_deref().unwrap_or("60s"), DIAGNOSE_EVERY);
    is_driven.then_some(every)
}

/// What is made of its blocks: features, which are scored, and the speed and the strength of each fault that its rules can name, which are not. `points` are
/// those that the file names.
pub(super) fn derived_points(waveform: &Waveform, stale_after: Duration, points: &[Point], has_states: bool) -> Vec<Point> {
    let point = |name: &str, unit: &str| Point {
        id: format!("{}.{name}", waveform.id).into(),
        unit: unit.into(),
        column: None,
        range: None,
        map: BTreeMap::new(),
        scored: true,
        stale_after: Some(stale_after),
        checks: Checks::default(),
        limits: None,
        severity: None,
        ignore_fall: false,
    };
    let features = waveform.features.iter().map(|feature| point(feature, feature_unit(feature)));
    let strengths = waveform.faults().into_iter().map(|fault| {
        // In a run-up or a run-down no line stands where it belongs.
        let limits = Limits { only_running: has_states, ..limits::of_fault(fault, &waveform.id) };
        Point { scored: false, limits: Some(limits.into()), ..point(&fault.indicator(), "1") }
    });
    // In the unit of the point that tells the speed at other times.
    let unit_of = |id: &Name| points.iter().find(|point| point.id == *id).map(|point| &*point.unit);
    let speed_unit = waveform.speed_point.as_ref().and_then(unit_of).unwrap_or(PER_MINUTE);
    let speed = waveform.search().map(|_| Point { id: waveform.speed_tracked(), scored: false, ..point("", speed_unit) });
    features.chain(speed).chain(strengths).collect()
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

/// A shaft speed is a number per minute or per second, by the unit of its point.
pub(super) fn check_speed_point(waveform: &Waveform, points: &[Point], faults: &mut Faults) {
    const KEY: &str = "waveform.speed_point";
    let tracked = waveform.search().map(|_| waveform.speed_tracked());
    for id in waveform.speed_point.iter().chain(&tracked) {
        match points.iter().find(|point| point.id == *id) {
            None => faults.add(KEY, format!("`{id}` of `{}` is no point of this asset; expected the id of one", waveform.id)),
            Some(point) if !matches!(&*point.unit, PER_MINUTE | "Hz") => {
                faults.add(KEY, format!("`{id}` of `{}` has unit `{}`; expected `/min` or `Hz`", waveform.id, point.unit));
            }
            Some(_) => {}
        }
    }
}

fn default_features(bearing: bool) -> Vec<String> {
    let lines: &[&str] = if bearing { &["env.bpfo", "env.bpfi"] } else { &[] };
    ["v_rms", "a_rms", "crest", "kurtosis"].iter().chain(lines).map(|&name| name.to_owned()).collect()
}
