//! `limits` and `severity` of a point: what is beyond them is an alarm.
use super::faults::Faults;
use crate::{
    config::{
        Asset, Level, Limits, Point,
        file::{LimitsTable, PointTable},
    },
    signal::{
        diagnosis::Fault,
        severity::{CLASSES, Class, SOURCE},
    },
};

/// Failure modes of rotating machines and their instruments, ISO 14224 (excerpt as in the manual of alarms).
pub(super) const FAILURE_MODES: [&str; 17] =
    ["VIB", "NOI", "OHE", "BRD", "AIR", "PDE", "ERO", "ELU", "INL", "LOO", "HIO", "PLU", "STD", "FTS", "FTF", "OTH", "UNK"];
/// Of a point's range, unless configured: less than that is noise of the instrument.
const DEADBAND_SHARE: f64 = 0.01;
/// Of the lower limit: velocities move by so much from one block to the next.
const SEVERITY_DEADBAND_SHARE: f64 = 0.1;

/// The class of machines of a velocity.
pub(super) fn check_severity(point: &PointTable, faults: &mut Faults) -> Option<Class> {
    let name = point.severity.as_deref()?;
    let class = Class::named(name);
    if class.is_none() {
        let known: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
        faults.add("point.severity", format!("`{name}` of `{}` is none of {}", point.id, known.join(", ")));
    }
    if point.unit != "mm/s" {
        faults.add("point.severity", format!("of `{}` judges a velocity RMS in `mm/s`; its unit is `{}`", point.id, point.unit));
    }
    class
}

/// The limits of a point with a class and none of its own: zone C asks for a response, zone D for one at once. Zones are those of steady running, so where
/// something tells the operating state they apply only then: a start passes through resonances.
pub(super) fn of_severity(class: Class, has_states: bool) -> Limits {
    Limits {
        only_running: has_states,
        high: Some(class.b_c),
        high_high: Some(class.c_d),
        deadband: SEVERITY_DEADBAND_SHARE * class.b_c,
        check: Some("Is the operating point as usual? Look at foundation bolts and coupling; then take a spectrum.".into()),
        otherwise: Some(format!("Zone C is unsatisfactory for long-term operation, zone D may cause damage ({SOURCE}).").into()),
        failure_mode: Some("VIB".into()),
        ..Limits::default()
    }
}

/// The limits of the strength of a fault at the sensor `at`: from 1 on it is named. The words are common practice.
pub(super) fn of_fault(fault: Fault, at: &str) -> Limits {
    let bearing = "Listen to the bearing and feel it, look at the grease, take an envelope spectrum and compare its lines.";
    let spreads = "The damage spreads; bearings have failed within days to months of the first lines.";
    let (what, cause, check, otherwise) = match fault {
        Fault::Outer => ("fault of a bearing's outer ring", "Spalling, wear or a wrong fit of the outer ring.", bearing, spreads),
        Fault::Inner => ("fault of a bearing's inner ring", "Spalling or a crack of the inner ring.", bearing, spreads),
        Fault::Ball => ("fault of a bearing's rolling element", "A spalled or worn rolling element.", bearing, spreads),
        Fault::Cage => (
            "fault of a bearing's cage",
            "A worn or broken cage, often for want of grease.",
            bearing,
            "A broken cage stops the bearing without further warning.",
        ),
        Fault::Unbalance => (
            "unbalance",
            "Deposits, wear or a lost part on the rotor.",
            "Clean the rotor and look for what is missing; then balance it.",
            "Bearings and foundation wear faster.",
        ),
        Fault::Misalignment => (
            "misalignment",
            "Shafts out of line, by settling, heat or pull of a pipe; or a coupling that is worn.",
            "Measure the alignment, warm and cold; look at the coupling.",
            "Coupling, seal and bearings wear faster.",
        ),
        Fault::Looseness => (
            "looseness",
            "A loose foundation bolt, a cracked foot, or too much play in a bearing.",
            "Check bolts, feet and frame; then the play of the bearing.",
            "What is loose gets looser, and cracks.",
        ),
        Fault::Gear => (
            "fault of a gear",
            "A worn, chipped or cracked tooth.",
            "Look at the teeth and for metal in the oil.",
            "A tooth may break, and the gear with it.",
        ),
        Fault::Cavitation => (
            "cavitation",
            "Too little pressure at the suction: a clogged strainer, a throttled valve, a liquid too warm; or a flow far from the best point.",
            "Check suction pressure, strainer, valves and temperature.",
            "The impeller wears, and seal and bearings are shaken.",
        ),
    };
    Limits {
        high: Some(1.0),
        what: Some(format!("{what} at `{at}`").into()),
        cause: Some(cause.into()),
        check: Some(check.into()),
        otherwise: Some(otherwise.into()),
        failure_mode: Some("VIB".into()),
        ..Limits::default()
    }
}

/// The highest limit of the lower side and the lowest one of the upper side: between them a value is back.
fn innermost(limits: &Limits) -> [Option<(Level, f64)>; 2] {
    let of = |level| limits.of(level).map(|limit| (level, limit));
    [of(Level::Low).or_else(|| of(Level::LowLow)), of(Level::High).or_else(|| of(Level::HighHigh))]
}

/// What is wrong with a `deadband` by which an alarm could never be over; `ends` are those that no value passes, as far as they are known.
fn too_wide(limits: &Limits, ends: [Option<f64>; 2]) -> Option<String> {
    let deadband = limits.deadband;
    let (expected, from, to) = match (innermost(limits), ends) {
        // Limits out of order, or beyond the range, are faults of their own.
        ([Some((lower, low)), Some((upper, high))], _) => {
            let way = high - low;
            (low < high && deadband >= way).then(|| (format!("less than {way}"), lower.words(), format!("to {}", upper.words())))?
        }
        ([Some((lower, low)), None], [_, Some(end)]) => at_most(deadband, end - low, lower, end)?,
        ([None, Some((upper, high))], [Some(end), _]) => at_most(deadband, high - end, upper, end)?,
        _ => return None,
    };
    Some(format!("is {deadband}, unless set 1 % of the range; expected {expected}, the way from {from} {to}: an alarm could never be over"))
}

fn at_most(deadband: f64, way: f64, level: Level, end: f64) -> Option<(String, &'static str, String)> {
    (way > 0.0 && deadband > way).then(|| (format!("at most {way}"), level.words(), format!("to {end}, beyond which no value comes")))
}

/// Deadbands of `asset` that leave a value little or no room to be back in, where nothing says how far it may go.
pub(super) fn doubts(asset: &Asset) -> Vec<String> {
    let doubt = |point: &Point| {
        let limits = point.limits.as_deref()?;
        let has_end = point.range.is_some() || point.severity.is_some();
        let (level, limit, back) = match innermost(limits) {
            [Some((level, limit)), None] => (level, limit, limit + limits.deadband),
            [None, Some((level, limit))] => (level, limit, limit - limits.deadband),
            _ => return None,
        };
        (!has_end && limits.deadband > limit.abs()).then(|| {
            let (asset, id, level, deadband) = (&asset.id, &point.id, level.words(), limits.deadband);
            format!("{asset}: the deadband of `{id}`, {deadband}, is more than its {level} limit of {limit}: an alarm of it is over only at {back}; give the point a `range`, or a smaller one if it never gets there")
        })
    };
    asset.points.iter().filter_map(doubt).collect()
}

/// What a file says of limits. Where it names none, those of the point's class stand, and what it says besides goes before what they say.
pub(super) fn check_limits(point: &PointTable, raw: &LimitsTable, of_class: Option<Limits>, faults: &mut Faults) -> Limits {
    let mut refuse = |key: &str, what: String| faults.add(&format!("point.limits{key}"), format!("of `{}` {what}", point.id));
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    let share_of_range = point.range.map_or(0.0, |(low, high)| DEADBAND_SHARE * (high - low));
    // An RMS is never below 0.
    let ends = [point.range.map(|(low, _)| low).or(of_class.as_ref().map(|_| 0.0)), point.range.map(|(_, high)| high)];
    let names_none = [raw.low_low, raw.low, raw.high, raw.high_high].iter().all(Option::is_none);
    let own = Limits { low_low: raw.low_low, low: raw.low, high: raw.high, high_high: raw.high_high, deadband: share_of_range, ..Limits::default() };
    let base = of_class.filter(|_| names_none).unwrap_or(own);
    let limits = Limits {
        deadband: raw.deadband.unwrap_or(base.deadband),
        only_running: raw.only_running.unwrap_or(base.only_running),
        what: text(&raw.what),
        cause: text(&raw.cause),
        check: text(&raw.check).or(base.check),
        otherwise: text(&raw.otherwise).or(base.otherwise),
        failure_mode: text(&raw.failure_mode).or(base.failure_mode),
        ..base
    };
    let set: Vec<(Level, f64)> = Level::ALL.into_iter().filter_map(|level| Some((level, limits.of(level)?))).collect();
    if set.is_empty() {
        refuse("", "say nothing; expected one at least of low_low, low, high, high_high".to_owned());
    }
    for (level, limit) in &set {
        if !limit.is_finite() {
            refuse("", format!("have a {} limit of {limit}; expected a number", level.words()));
        } else if let Some((low, high)) = point.range.filter(|(low, high)| limit <= low || limit >= high) {
            refuse(
                "",
                format!(
                    "have a {} limit of {limit}, not inside the range [{low}, {high}]: beyond that a value is bad and never an alarm",
                    level.words()
                ),
            );
        }
    }
    for ((lower, low), (upper, high)) in set.iter().zip(set.iter().skip(1)) {
        if low >= high {
            refuse("", format!("have {} = {low} and {} = {high}; expected the second above the first", lower.words(), upper.words()));
        }
    }
    if !(limits.deadband.is_finite() && limits.deadband >= 0.0) {
        refuse(".deadband", format!("is {}; expected 0 or more, in `{}`", limits.deadband, point.unit));
    } else if let Some(what) = too_wide(&limits, ends) {
        refuse(".deadband", what);
    }
    if let Some(mode) = limits.failure_mode.as_deref().filter(|mode| !FAILURE_MODES.contains(mode)) {
        refuse(".failure_mode", format!("`{mode}` is none of {}", FAILURE_MODES.join(", ")));
    }
    limits
}
