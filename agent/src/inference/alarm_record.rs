//! What an alarm says to a person: what, since when, value against limit, likely cause, what to check, by when, what happens otherwise, and how much
//! speaks for it.
use hark_protocol::topics::{Alarm, AlarmState, Name, OperatingState, Priority, Quality, Timestamp, Zone};
use serde_json::{Value, json};

use super::{
    alarms::{Condition, Shown},
    asset::AssetState,
    diagnosis::Named,
    evidence::{Evidence, OfScore},
    operating::{Operating, Regime},
    report::{InputRange, ModelNames},
};
use crate::{
    config::{self, Level, Limits},
    signal::{channel_and_feature, feature_words, severity::Class},
    words::age,
};

/// Within so long a person must have answered, microseconds: `high` is for what cannot wait, `medium` for the shift, the rest for the next weekly round.
const RESPOND_HIGH_US: i64 = 10 * 60 * 1_000_000;
const RESPOND_MEDIUM_US: i64 = 8 * 3_600 * 1_000_000;
const RESPOND_ROUND_US: i64 = 7 * 24 * 3_600 * 1_000_000;

/// ISO 14224 failure modes: too little is known to name one, and what the rules for vibration name.
const UNKNOWN: &str = "UNK";
const VIBRATION: &str = "VIB";

/// Who brought a change about and wrote what; empty where the machine did.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) actor: Option<Name>,
    pub(super) comment: Option<Name>,
}

/// What an alarm says about its condition.
struct Words {
    what: String,
    point: Option<Name>,
    limit: Option<f64>,
    unit: Option<Name>,
    failure_mode: Option<Name>,
    cause: Option<Name>,
    check: Option<Name>,
    otherwise: Option<Name>,
    zone: Option<Zone>,
}

/// The record of `shown`, after a change or as it stands.
pub(super) fn alarm(shown: &Shown, state: &AssetState, asset: &config::Asset, model: &ModelNames, inputs: InputRange, told: &Told) -> Alarm {
    let evidence = shown.evidence.as_ref();
    let of_score = evidence.and_then(|evidence| evidence.of_score.as_ref());
    let shares = of_score.map_or(&[][..], |score| &score.shares);
    let [first, second, third] = [0, 1, 2].map(|place| shares.get(place).map(|(point, share)| (point.clone(), *share)).unzip());
    let words = match &shown.condition {
        Condition::Anomaly => words_of_score(shares, of_score.and_then(|score| score.limit), named_faults(state, asset).as_deref()),
        Condition::Limit(point, level) => {
            let words = words_of_limit(point, *level, evidence, asset);
            // A velocity in a bad zone is a symptom.
            let cause = words.cause.clone().or_else(|| words.zone.and_then(|_| Some(likely(&named_faults(state, asset)?).0)));
            Words { cause: cause.or_else(|| Some("not determined: none is configured for this limit".into())), ..words }
        }
        Condition::Forecast => words_of_forecast(evidence, named_faults(state, asset).map(|named| likely(&named).0), asset),
    };
    let priority = shown.condition.priority();
    // The model has no part in what a limit says, and a forecast may be of another.
    let of_model = evidence.and_then(|evidence| evidence.of_forecast.as_ref()?.of_model.as_ref());
    let [model, model_version, model_hash] = match (&shown.condition, of_model) {
        (Condition::Anomaly, _) => [&model.name, &model.version, &model.hash].map(|name| Some(name.clone())),
        (Condition::Forecast, Some(of)) => [&of.name, &of.version, &of.hash].map(|name| Some(name.clone())),
        _ => [None, None, None],
    };
    Alarm {
        alarm_id: shown.alarm_id.clone(),
        case_id: shown.case_id.clone(),
        state: shown.state,
        previous_state: shown.previous,
        priority,
        what: words.what.into(),
        since: shown.since.to_string().into(),
        point: words.point,
        value: evidence.map(|evidence| evidence.value),
        limit: words.limit,
        unit: words.unit,
        zone: words.zone,
        failure_mode: words.failure_mode,
        cause: words.cause,
        advice: words.check,
        consequence: words.otherwise,
        respond_by: respond_by(shown, priority).map(|by| by.to_string().into()),
        confidence: evidence.map(|evidence| confidence(&shown.condition, evidence, asset)),
        quality: evidence.map_or(Quality::Bad, |evidence| evidence.quality),
        until: shown.until.map(|until| until.to_string().into()),
        actor: told.actor.clone(),
        comment: told.comment.clone(),
        contrib_1_point: first.0,
        contrib_1_share: first.1,
        contrib_2_point: second.0,
        contrib_2_share: second.1,
        contrib_3_point: third.0,
        contrib_3_share: third.1,
        model,
        model_version,
        model_hash,
        baseline_id: of_score.and_then(|score| score.baseline_id.clone()),
        config_hash: asset.hash.clone(),
        input_from: inputs.from,
        input_to: inputs.to,
        evidence_json: Some(beside(shown, state, asset, of_score).to_string().into()),
    }
}

/// What stood beside it: the operating state, the time of its value, whether another model of the machine sees it too, and whether it chatters.
fn beside(shown: &Shown, state: &AssetState, asset: &config::Asset, of_score: Option<&OfScore>) -> Value {
    // A limit is judged reading by reading, whatever regime the last row was of.
    let regime = of_score.map_or_else(|| state.verdict.as_ref()?.regime, |score| score.regime);
    let mut beside = json!({ "state": state.operating.as_ref().map_or(OperatingState::Unknown, Operating::told) });
    if let Some(regime) = regime.map(Regime::name) {
        beside["regime"] = json!(*regime);
    }
    if let Some(evidence) = &shown.evidence {
        beside["value_at"] = json!(evidence.ts.to_string());
    }
    if let Some((times, within_us)) = shown.chatter {
        beside["chattering"] = json!({ "times": times, "within_s": within_us as f64 / 1e6 });
    }
    if let Some(opinion) = of_score.and_then(|score| score.opinion) {
        beside["t2"] = json!(opinion.t2);
        beside["q"] = json!(opinion.q);
    }
    if let Some(named) = state.newest().and_then(|now| state.diagnoses.named(asset, now)) {
        beside["faults"] = named.iter().map(told).collect();
    }
    beside
}

/// A named fault, with the speed by which it was found.
fn told(named: &Named<'_>) -> Value {
    let mut told = json!({ "point": **named.point, "strength": named.strength });
    if let Some(origin) = named.origin {
        told["speed_origin"] = json!(origin);
    }
    if let Some(speed) = named.tracked {
        told["speed"] = json!(speed);
    }
    told
}

/// What the rules for vibration name at this time, the strongest first, each with its failure mode; `None` where none was asked.
fn named_faults(state: &AssetState, asset: &config::Asset) -> Option<Vec<(Name, Name)>> {
    let named = state.diagnoses.named(asset, state.newest()?)?;
    let words = |named: &Named<'_>| {
        let limits = asset.points.iter().find(|point| point.id == *named.point).and_then(|point| point.limits.as_deref());
        let said = |of: fn(&Limits) -> Option<Name>| limits.and_then(of);
        let what = said(|limits| limits.what.clone()).unwrap_or_else(|| named.point.clone());
        (what, said(|limits| limits.failure_mode.clone()).unwrap_or_else(|| VIBRATION.into()))
    };
    Some(named.iter().map(words).collect())
}

/// The likely cause, and the failure mode of the likeliest.
fn likely(named: &[(Name, Name)]) -> (Name, Name) {
    match named {
        [] => ("not determined: the rules for vibration name no fault".into(), UNKNOWN.into()),
        [(_, mode), ..] => (named.iter().map(|(what, _)| &**what).collect::<Vec<&str>>().join("; ").into(), mode.clone()),
    }
}

/// How much speaks for it, 0 to 1: a degree of support, no calibrated probability but that of a forecast. Of a score the share of its judges (the score, T² and Q) that are over
/// their limits; of a named fault its strength as odds; of another limit 1, since it was measured. Half of it where the data is uncertain, none where it is bad.
fn confidence(condition: &Condition, evidence: &Evidence, asset: &config::Asset) -> f64 {
    let support = match condition {
        Condition::Anomaly => {
            let opinion = evidence.of_score.as_ref().and_then(|score| score.opinion);
            let judges = [Some(evidence.value), opinion.map(|opinion| opinion.t2), opinion.and_then(|opinion| opinion.q)];
            let judges = judges.into_iter().flatten();
            judges.clone().filter(|judge| *judge >= 1.0).count() as f64 / judges.count() as f64
        }
        Condition::Limit(point, _) if asset.is_fault(point) => evidence.value / (1.0 + evidence.value),
        Condition::Limit(..) => 1.0,
        Condition::Forecast => evidence.value,
    };
    match evidence.quality {
        Quality::Good => support,
        Quality::Uncertain => support / 2.0,
        Quality::Bad => 0.0,
    }
}

/// Nobody must respond to what is over or silenced.
fn respond_by(shown: &Shown, priority: Priority) -> Option<Timestamp> {
    let within_us = match priority {
        Priority::High => RESPOND_HIGH_US,
        Priority::Medium => RESPOND_MEDIUM_US,
        Priority::Low | Priority::Advice => RESPOND_ROUND_US,
    };
    let waits = matches!(shown.state, AlarmState::ActiveUnacknowledged | AlarmState::ActiveAcknowledged);
    waits.then(|| Timestamp(shown.since.0.saturating_add(within_us)))
}

fn words_of_score(shares: &[(Name, f64)], limit: Option<f64>, named_faults: Option<&[(Name, Name)]>) -> Words {
    let look = match shares {
        [] => "Compare its readings with usual ones.".to_owned(),
        [(first, _), rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|(point, _)| named(point)).collect();
            let rest = if rest.is_empty() { String::new() } else { format!(", then {}", rest.join(" and ")) };
            format!("Look first at {}{rest}, and at what they measure.", named(first))
        }
    };
    let (cause, mode) = named_faults.map_or_else(|| ("not determined: no rule for a fault of this machine was asked".into(), UNKNOWN.into()), likely);
    Words {
        what: "anomaly score over its limit".to_owned(),
        point: None,
        limit,
        unit: Some("1".into()),
        failure_mode: Some(mode),
        cause: Some(cause),
        check: Some(format!("The machine behaves otherwise than when it was commissioned. {look}").into()),
        otherwise: Some("Not known: a score tells that something is unusual, not what it is.".into()),
        zone: None,
    }
}

/// What is likely to come, of a model that knows failures or of a trend.
fn words_of_forecast(evidence: Option<&Evidence>, cause: Option<Name>, asset: &config::Asset) -> Words {
    let ahead = evidence.and_then(|evidence| evidence.of_forecast.as_ref());
    let within = age(asset.forecast.horizons[0].as_secs_f64());
    let event = ahead.map_or_else(String::new, |ahead| ahead.words());
    let chance = evidence.map_or(0.0, |evidence| 100.0 * evidence.value);
    let half = ahead.map_or_else(String::new, |ahead| format!(" Half of such machines are there within {}.", age(ahead.p50_s)));
    let of_model = ahead.and_then(|ahead| ahead.of_model.as_ref());
    let (check, otherwise) = match of_model {
        Some(_) => ("Plan the overhaul, and look at what the model warns of.", "The machine fails."),
        None => ("Look at what grows, and plan the repair.", "The limit is reached, and its own alarm follows."),
    };
    Words {
        what: format!("{event} within {within} is likely: {chance:.0} %"),
        point: None,
        limit: Some(asset.forecast.alarm),
        unit: Some("1".into()),
        failure_mode: None,
        cause: of_model.and_then(|model| model.failure_mode.clone()).or(cause).or_else(|| Some("not determined: a trend tells when, not why".into())),
        check: Some(format!("{check}{half}").into()),
        otherwise: Some(otherwise.into()),
        zone: None,
    }
}

/// A point as a person who has not written the configuration understands it: what stands behind the name of a feature.
fn named(point: &str) -> String {
    let what = channel_and_feature(point).and_then(|(_, feature)| feature_words(feature));
    what.map_or_else(|| format!("`{point}`"), |what| format!("`{point}` ({what})"))
}

fn words_of_limit(id: &Name, level: Level, evidence: Option<&Evidence>, asset: &config::Asset) -> Words {
    let point = asset.points.iter().find(|point| point.id == *id);
    let limits = point.and_then(|point| point.limits.as_deref());
    let side = if matches!(level, Level::Low | Level::LowLow) { "below" } else { "above" };
    let given = |of: fn(&Limits) -> Option<Name>| limits.and_then(of);
    let check = format!("Read `{id}` on the spot and compare; then look at what it measures.");
    Words {
        what: given(|limits| limits.what.clone()).map_or_else(|| format!("`{id}` {side} its {} limit", level.words()), |what| what.to_string()),
        point: Some(id.clone()),
        limit: limits.and_then(|limits| limits.of(level)),
        unit: point.map(|point| point.unit.clone()),
        failure_mode: given(|limits| limits.failure_mode.clone()).or_else(|| Some(failure_mode(point?, level).into())),
        cause: given(|limits| limits.cause.clone()),
        check: given(|limits| limits.check.clone()).or(Some(check.into())),
        otherwise: given(|limits| limits.otherwise.clone()).or_else(|| Some("Not known: nothing is configured for this limit.".into())),
        zone: point.and_then(|point| Class::named(point.severity.as_deref()?)).zip(evidence).map(|(class, evidence)| class.zone(evidence.value)),
    }
}

/// The ISO 14224 failure mode that a limit speaks of, by the unit of its point: what nobody has named is a parameter that deviates.
fn failure_mode(point: &config::Point, level: Level) -> &'static str {
    let high = matches!(level, Level::High | Level::HighHigh);
    match &*point.unit {
        "Cel" | "K" | "[degF]" if high => "OHE",
        "mm/s" | "m/s2" | "[g]" | "g" if high => "VIB",
        _ => "PDE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::FEATURES;

    #[test]
    fn features_are_explained() {
        assert_eq!(named("de-h.env.bpfo"), "`de-h.env.bpfo` (impacts at the rate of a bearing's outer ring)");
        assert_eq!(["flow", "v_rms", "de.fault.outer"].map(named), ["`flow`", "`v_rms`", "`de.fault.outer`"]);
        assert!(FEATURES.iter().all(|feature| feature_words(feature).is_some()));
    }

    /// What is too cold, or shakes too little, deviates; what is too hot overheats, and what shakes too much vibrates.
    #[test]
    fn a_failure_mode_goes_by_unit_and_side() {
        let text = "id = \"m\"\n[[point]]\nid = \"p\"\nunit = \"1\"\n";
        let point = config::check_asset_text("m.toml", text).unwrap().points.remove(0);
        for (unit, modes) in
            [("Cel", ["PDE", "OHE"]), ("K", ["PDE", "OHE"]), ("mm/s", ["PDE", "VIB"]), ("[g]", ["PDE", "VIB"]), ("bar", ["PDE", "PDE"])]
        {
            let point = config::Point { unit: unit.into(), ..point.clone() };
            let of = |levels: [Level; 2], mode: &str| levels.iter().all(|level| failure_mode(&point, *level) == mode);
            assert!(of([Level::LowLow, Level::Low], modes[0]) && of([Level::High, Level::HighHigh], modes[1]), "{unit}");
        }
    }
}
