//! What inference says: predictions, alarms, commissioning events and the bodies of the compacted topics, from the state of an asset.
use std::collections::BTreeMap;

use hark_protocol::topics::{
    Asset, Baseline, Event, EventKind, InstrumentStatus, Name, OperatingState, Prediction, Quality, QualityReason, ScoreReason, Timestamp, Zone,
};
use serde_json::{Map, Value, json};

use super::{
    asset::AssetState,
    baseline::{Fit, Refusal, Weights},
    bundle::Bundle,
    doubts::Doubts,
    forecast::Prognosis,
    instrument,
    limit::LIMIT,
    operating::{Operating, Regime},
    second_opinion::SecondOpinion,
    severity,
    verdict::Verdict,
};
use crate::config;

/// Verdict of a baseline that was made from another one, for some of its points.
const REDUCED: &str = "reduced";

/// Name, version and hashes of the bundle in use, shared by all records.
#[derive(Clone, Debug)]
pub(super) struct ModelNames {
    pub(super) name: Name,
    pub(super) version: Name,
    /// Of the model itself, as records name it.
    pub(super) hash: Name,
    /// Of the whole bundle, as change records name it.
    pub(super) bundle: Name,
}

impl ModelNames {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let manifest = bundle.manifest();
        Self {
            name: manifest.name.as_str().into(),
            version: manifest.version.as_str().into(),
            hash: bundle.model_hash().into(),
            bundle: bundle.hash().into(),
        }
    }
}

/// Records of the inputs lane behind an output, as `inc/seq`.
#[derive(Clone, Debug, Default)]
pub(super) struct InputRange {
    pub(super) from: Option<Name>,
    pub(super) to: Option<Name>,
}

/// Health and the word for what sets it, or for why it is not known: the lower one of what the score and the severity zone allow. A point that was in a bad
/// zone when it fell silent leaves it unknown, unless it is known to be as low.
pub(super) fn health_of(state: &AssetState, asset: &config::Asset) -> (Option<f64>, Name) {
    let (health, word) = health_by_score_and_zone(state, asset);
    let lost = state.lost_zone(asset).filter(|zone| *zone >= Zone::C).map(severity::ceiling);
    match lost {
        Some(ceiling) if health.is_none_or(|health| health > ceiling) => (None, "severity_stale".into()),
        _ => (health, word),
    }
}

fn health_by_score_and_zone(state: &AssetState, asset: &config::Asset) -> (Option<f64>, Name) {
    let (by_score, word) = health_by_score(state);
    // A zone of A or B does not make a machine healthy of which nothing else is known.
    let ceiling = state.zone(asset).filter(|zone| *zone >= Zone::C).map(severity::ceiling);
    match ceiling {
        Some(ceiling) if by_score.is_none_or(|health| health > ceiling) => (Some(ceiling), "severity".into()),
        _ => (by_score, word),
    }
}

fn health_by_score(state: &AssetState) -> (Option<f64>, Name) {
    if state.scored.is_empty() {
        return (None, "no_scored_points".into());
    }
    let Some(verdict) = &state.verdict else { return (None, "no_reading".into()) };
    match (verdict.score, state.scoring()) {
        (Some(score), Some(scoring)) => {
            // Some of the sensors can show that a machine is ill, and not that it is well.
            let known = verdict.reason != Some(ScoreReason::Reduced) || score > scoring.limit;
            match state.health.value().filter(|_| known) {
                Some(health) => (Some(health), "anomaly".into()),
                None if known => (None, "settling".into()),
                None => (None, reason_word(verdict.reason).into()),
            }
        }
        _ => (None, reason_word(verdict.reason).into()),
    }
}

/// The word of a reason in records.
pub(super) fn reason_word(reason: Option<ScoreReason>) -> &'static str {
    match reason {
        None => "none",
        Some(ScoreReason::Commissioning) => "commissioning",
        Some(ScoreReason::MissingPoint) => "missing_point",
        Some(ScoreReason::WindowFilling) => "window_filling",
        Some(ScoreReason::OperatingState) => "operating_state",
        Some(ScoreReason::ModelFailed) => "model_failed",
        Some(ScoreReason::CommissioningRefused) => "commissioning_refused",
        Some(ScoreReason::InputGap) => "input_gap",
        Some(ScoreReason::Reduced) => "reduced",
        Some(ScoreReason::UnseenRegime) => "unseen_regime",
    }
}

/// What kind of a forecast there is: `None` before commissioning has ended, unless a model of failures speaks.
pub(super) fn forecast_word(state: &AssetState, ahead: Option<&Prognosis>) -> Option<Name> {
    match ahead {
        Some(Prognosis { of_model: Some(_), .. }) => Some("remaining_life".into()),
        Some(_) => Some("time_to_limit".into()),
        None => state.scoring().map(|_| "no_trend".into()),
    }
}

/// Which weights the present score is from.
pub(super) fn baseline_id(state: &AssetState) -> Option<Name> {
    let id = &state.scoring()?.baseline_id;
    let left_out = state.verdict.as_ref().map_or(&[][..], |verdict| &verdict.left_out);
    Some(if left_out.is_empty() { id.clone() } else { reduced_id(id, left_out) })
}

/// Id of the weights without the points of these indices.
fn reduced_id(baseline_id: &Name, left_out: &[usize]) -> Name {
    let indices: Vec<String> = left_out.iter().map(usize::to_string).collect();
    format!("{baseline_id}-without-{}", indices.join("+")).into()
}

fn share(state: &AssetState, verdict: &Verdict, place: usize) -> (Option<Name>, Option<f64>) {
    verdict.shares.get(place).map_or((None, None), |&(point, share)| (state.scored.get(point).cloned(), Some(share)))
}

/// The prediction for the present verdict.
pub(super) fn prediction(
    state: &AssetState,
    verdict: &Verdict,
    asset: &config::Asset,
    model: &ModelNames,
    ahead: Option<&Prognosis>,
    inputs: InputRange,
    of_life: InputRange,
) -> Prediction {
    let (health, health_reason) = health_of(state, asset);
    let [first, second, third] = [0, 1, 2].map(|place| share(state, verdict, place));
    let scoring = state.scoring();
    let horizon_s = |place: usize| ahead.map(|_| asset.forecast.horizons[place].as_secs_f64());
    let within = |place: usize| ahead.map(|ahead| ahead.within[place]);
    let of_model = ahead.and_then(|ahead| ahead.of_model.as_ref());
    Prediction {
        phase: verdict.phase,
        state: verdict.state,
        reason: verdict.reason,
        regime: verdict.regime.map(Regime::name),
        score: verdict.score,
        score_max: state.score_max,
        limit: scoring.map(|scoring| scoring.limit),
        above: verdict.above,
        alarm: state.alarms.is_alarm(),
        health,
        health_reason: Some(health_reason),
        zone: state.zone(asset),
        forecast: forecast_word(state, ahead),
        end_event: ahead.map(|ahead| ahead.end_event.clone()),
        failure_mode: of_model.and_then(|model| model.failure_mode.clone()),
        t_p10_s: ahead.map(|ahead| ahead.p10_s),
        t_p50_s: ahead.map(|ahead| ahead.p50_s),
        t_p90_s: ahead.map(|ahead| ahead.p90_s),
        capped: ahead.map(|ahead| ahead.capped),
        horizon_1_s: horizon_s(0),
        p_fail_1: within(0),
        horizon_2_s: horizon_s(1),
        p_fail_2: within(1),
        horizon_3_s: horizon_s(2),
        p_fail_3: within(2),
        t2: verdict.opinion.map(|opinion| opinion.t2),
        q: verdict.opinion.and_then(|opinion| opinion.q),
        contrib_1_point: first.0,
        contrib_1_share: first.1,
        contrib_2_point: second.0,
        contrib_2_share: second.1,
        contrib_3_point: third.0,
        contrib_3_share: third.1,
        quality: verdict.quality,
        model: Some(model.name.clone()),
        model_version: Some(model.version.clone()),
        model_hash: Some(model.hash.clone()),
        baseline_id: baseline_id(state),
        config_hash: asset.hash.clone(),
        input_from: inputs.from,
        input_to: inputs.to,
        remaining_life_s: of_model.map(|model| model.mean_s),
        life_rows: of_model.map(|model| model.rows),
        forecast_model: of_model.map(|model| model.name.clone()),
        forecast_model_version: of_model.map(|model| model.version.clone()),
        forecast_model_hash: of_model.map(|model| model.hash.clone()),
        forecast_input_from: of_life.from,
        forecast_input_to: of_life.to,
    }
}

/// The event of an accepted commissioning.
pub(super) fn accepted(of: &BaselineOf<'_>, scored: &[Name]) -> Event {
    let BaselineOf { fit, id, rows, starts, actor, .. } = of;
    let after = match starts {
        Some(1) => " after one start".to_owned(),
        Some(starts @ 2..) => format!(" after {starts} starts"),
        _ => String::new(),
    };
    let mut text = format!("commissioned on {rows} rows{after}, on the median at {:.0} % of the limit", 100.0 * fit.score_median / LIMIT);
    if let Some(remark) = remarks(of, scored) {
        text.push_str("; ");
        text.push_str(&remark);
    }
    Event {
        text: Some(text.into()),
        what: Some("accepted".into()),
        actor: actor.clone(),
        result: Some("success".into()),
        count: Some(*rows as u64),
        detail_json: Some(json!({ "baseline_id": ***id, "limit": LIMIT, "score_median": fit.score_median }).to_string().into()),
        ..Event::new(EventKind::Commissioning)
    }
}

/// The event of a refused commissioning, after which `attempts` ended so and another begins by itself, unless there is none.
pub(super) fn refused(refusal: &Refusal, rows: usize, attempts: Option<usize>, actor: Option<Name>) -> Event {
    let next = match attempts {
        Some(attempts) => format!("; it begins anew by itself, attempt {}", attempts + 1),
        None => "; it begins anew with `hark event maintenance`".into(),
    };
    Event {
        text: Some(format!("commissioning refused: {refusal}{next}").into()),
        what: Some("refused".into()),
        actor,
        result: Some("refused".into()),
        count: Some(rows as u64),
        ..Event::new(EventKind::Commissioning)
    }
}

/// An event of commissioning says which regime it is about.
pub(super) fn of_regime(event: Event, regime: Option<Name>) -> Event {
    let text = event.text.map(|text| regime.map_or(text.clone(), |regime| format!("regime `{regime}`: {text}").into()));
    Event { text, ..event }
}

fn remarks(of: &BaselineOf<'_>, scored: &[Name]) -> Option<String> {
    let BaselineOf { fit, doubts, rows, starts, wanted, .. } = of;
    let names = |points: &[usize]| points.iter().filter_map(|&point| scored.get(point)).map(|name| &**name).collect::<Vec<&str>>().join(", ");
    let still = (!fit.still.is_empty()).then(|| format!("without any change of {}", names(&fit.still)));
    let unjudged = (!fit.unjudged.is_empty()).then(|| format!("too few values of {} to judge it", names(&fit.unjudged)));
    // Where a person alone says when it is enough, no number was wanted.
    let is_early = *rows < wanted.rows && wanted.rows < config::ROWS_UNTIL_ACCEPTED;
    let rows = is_early.then(|| format!("on {rows} of {} rows", wanted.rows));
    let starts = starts.filter(|starts| *starts < wanted.starts).map(|starts| format!("after {starts} of {} starts", wanted.starts));
    let remarks: Vec<String> = rows.into_iter().chain(starts).chain(doubts.remarks()).chain(still).chain(unjudged).collect();
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// An accepted commissioning: what was fitted, from which rows, by whose word.
pub(super) struct BaselineOf<'a> {
    pub(super) fit: &'a Fit,
    pub(super) doubts: &'a Doubts,
    pub(super) id: &'a Name,
    pub(super) regime: Option<Name>,
    pub(super) rows: usize,
    /// Of the machine by then; `None` where nothing tells the operating state.
    pub(super) starts: Option<u32>,
    /// As configured.
    pub(super) wanted: config::Commissioning,
    pub(super) inputs: InputRange,
    pub(super) actor: Option<Name>,
}

/// The baseline record of an accepted commissioning.
pub(super) fn baseline(of: BaselineOf<'_>, asset: &config::Asset, scored: &[Name], model: &ModelNames) -> Baseline {
    let remarks = remarks(&of, scored);
    let BaselineOf { fit, id, regime, rows, starts, inputs, actor, .. } = of;
    let ranges: Map<String, Value> = scored.iter().zip(&fit.ranges).map(|(id, (low, high))| (id.to_string(), json!([low, high]))).collect();
    Baseline {
        baseline_id: id.clone(),
        regime,
        model: model.name.clone(),
        model_version: model.version.clone(),
        model_hash: model.hash.clone(),
        config_hash: asset.hash.clone(),
        verdict: if remarks.is_some() { "accepted_with_remarks" } else { "accepted" }.into(),
        remarks: remarks.map(Into::into),
        accepted_by: Some(actor.unwrap_or_else(|| "policy".into())),
        rows: rows as u64,
        starts,
        rows_held_back: fit.windows as u64,
        input_from: inputs.from.unwrap_or_else(|| "".into()),
        input_to: inputs.to.unwrap_or_else(|| "".into()),
        limit: LIMIT,
        limit_by: None,
        score_median: fit.score_median,
        points_json: json!(scored.iter().map(|id| &**id).collect::<Vec<&str>>()).to_string().into(),
        weights_json: weights_json(&fit.weights, fit.second_opinion.as_ref()).into(),
        range_json: Value::Object(ranges).to_string().into(),
        means_by: None,
    }
}

/// The baseline of the points with the indices `left`, as weights were made for them from `whole`.
pub(super) fn reduced_baseline(whole: &Baseline, left: &[usize], weights: &Weights, scored: &[Name]) -> Baseline {
    let left_out: Vec<usize> = (0..scored.len()).filter(|point| !left.contains(point)).collect();
    let names = |points: &[usize]| points.iter().filter_map(|&point| scored.get(point)).map(|id| &**id).collect::<Vec<&str>>();
    let mut ranges: Map<String, Value> = serde_json::from_str(&whole.range_json).unwrap_or_default();
    ranges.retain(|id, _| names(left).contains(&id.as_str()));
    Baseline {
        baseline_id: reduced_id(&whole.baseline_id, &left_out),
        verdict: REDUCED.into(),
        remarks: Some(format!("without {}, from the moments of {}; the limit is estimated", names(&left_out).join(", "), whole.baseline_id).into()),
        points_json: json!(names(left)).to_string().into(),
        weights_json: weights_json(weights, None).into(),
        range_json: Value::Object(ranges).to_string().into(),
        ..whole.clone()
    }
}

/// Whether a baseline is one of some of the points.
pub(super) fn is_reduced(baseline: &Baseline) -> bool {
    &*baseline.verdict == REDUCED
}

/// The weight inputs of the graph by name, and the second opinion.
pub(super) fn weights_json(weights: &Weights, second_opinion: Option<&SecondOpinion>) -> String {
    let Weights { seldom, mean, inv_std, least, fast, slow, .. } = weights;
    let mut json = json!({
        "mean": mean, "inv_std": inv_std, "least": least, "regression": fast.regression, "bias": fast.bias, "whitening": fast.whitening,
        "slow_regression": slow.regression, "slow_bias": slow.bias, "slow_whitening": slow.whitening,
    });
    if !seldom.is_empty() {
        json["seldom"] = json!(seldom);
    }
    second_opinion.into_iter().for_each(|second| second.add_to(&mut json));
    json.to_string()
}

/// Status of each instrument: those of points that are scored or tell the operating state, and what people work on.
pub(super) fn instruments(state: &AssetState) -> BTreeMap<Name, InstrumentStatus> {
    let ids = instrument::of_points(&state.cleaned());
    let found = ids.iter().zip(&state.instruments).map(|((id, _), instrument)| (id.clone(), instrument.status()));
    // Whatever it shows meanwhile comes from the work.
    found.chain(state.service.instruments().map(|id| (id.clone(), InstrumentStatus::CheckFunction))).collect()
}

/// The event of an instrument whose status changed, with the point that shows why.
pub(super) fn instrument(id: &Name, change: &instrument::Change, point: Option<&Name>) -> Event {
    let why = match (change.reason, change.from) {
        (Some(QualityReason::Stuck), _) if change.to == InstrumentStatus::OffSpec => {
            "its value does not move, which may be the machine where it can be so: its values are uncertain until it moves"
        }
        (Some(reason), _) => fault_words(reason),
        (None, InstrumentStatus::CheckFunction) => "it is back in service",
        (None, _) => "nothing is wrong any more",
    };
    let text = match change.to {
        InstrumentStatus::Normal => format!("instrument `{id}` is in order again: {why}"),
        InstrumentStatus::Failure => format!("instrument `{id}` has failed: {why}"),
        InstrumentStatus::OffSpec => format!("instrument `{id}` works outside its specification: {why}"),
        InstrumentStatus::CheckFunction => format!("instrument `{id}` is out of service: its values do not count until it returns"),
        InstrumentStatus::MaintenanceRequired => format!("instrument `{id}` needs maintenance: {why}"),
    };
    let detail = json!({ "status": change.to, "previous": change.from, "reason": change.reason, "point": point.map(|point| &**point) });
    let what = json!(change.to).as_str().map(Into::into);
    Event {
        source: Some(id.clone()),
        what,
        text: Some(text.into()),
        detail_json: Some(detail.to_string().into()),
        ..Event::new(EventKind::Instrument)
    }
}

/// The event of an instrument that begins to test itself, or has ended.
pub(super) fn self_test(id: &Name, change: &instrument::Change) -> Event {
    let text = match change.to {
        InstrumentStatus::CheckFunction => format!("instrument `{id}` tests itself: what it says meanwhile is no measurement"),
        _ => format!("instrument `{id}` has ended its self-test"),
    };
    Event { text: Some(text.into()), ..instrument(id, change, None) }
}

/// What is wrong with the values of an instrument, for people.
fn fault_words(reason: QualityReason) -> &'static str {
    match reason {
        QualityReason::Source => "its source says so",
        QualityReason::NotANumber => "its value is no number",
        QualityReason::OutOfRange => "its value is outside the range of the point",
        QualityReason::RateOfChange => "its value moves faster than the point can",
        QualityReason::Stuck => "its value, or the signal behind it, does not move",
        QualityReason::Spike => "single values stand far from their neighbours, again and again",
        QualityReason::Stale => "no reading comes from it",
        QualityReason::Clipping => "its value, or the signal behind it, stands at an end of its range",
        QualityReason::Clock => "its time cannot be trusted",
        QualityReason::SensorFault => "it reports a fault of its own",
        QualityReason::Communication => "the line to it fails",
        QualityReason::NotMapped => "it sends text that is not configured",
        QualityReason::CheckFunction => "it tests itself",
        QualityReason::Contradicted => "it says that the machine does not run, and most other points go on as they did while it ran",
    }
}

/// The body of `hark.assets.v1` at `now`.
pub(super) fn asset(state: &AssetState, asset: &config::Asset, model: &ModelNames, now: Timestamp) -> Asset {
    let (health, health_reason) = health_of(state, asset);
    let instruments = instruments(state);
    let points: Vec<Value> = asset.points.iter().map(|point| json!({ "point": *point.id, "unit": *point.unit, "scored": point.scored })).collect();
    let scoring = state.scoring();
    let progress = state.progress(asset.commissioning);
    let running_s = |rows: usize| rows as f64 * asset.grid.as_secs_f64();
    let ahead = state.prognosis();
    Asset {
        name: asset.name.clone(),
        path: asset.path.clone(),
        class: asset.class.clone(),
        lifecycle: "active".into(),
        phase: state.phase(),
        commissioning_progress: state.progress_part(asset.commissioning),
        commissioning_rows: progress.map(|progress| progress.rows as u64),
        commissioning_running_s: progress.map(|progress| running_s(progress.rows)),
        commissioning_running_needed_s: progress.map(|progress| running_s(progress.of.rows)),
        commissioning_starts: progress.map(|progress| progress.starts),
        commissioning_starts_needed: progress.map(|progress| progress.of.starts),
        commissioning_refused: state.refused(),
        state: state.operating.as_ref().map_or(OperatingState::Unknown, Operating::told),
        regime: state.verdict.as_ref().and_then(|verdict| verdict.regime).map(Regime::name),
        health,
        health_reason: Some(health_reason),
        zone: state.zone(asset),
        above: state.verdict.as_ref().is_some_and(|verdict| verdict.above),
        alarm_state: state.alarms.state(),
        alarm_id: state.alarms.shown().first().map(|alarm| alarm.alarm_id.clone()),
        case_id: state.alarms.case_id().cloned(),
        instrument_status: instruments.values().copied().max().unwrap_or(InstrumentStatus::Normal),
        instruments_json: json!(instruments).to_string().into(),
        quality: state.verdict.as_ref().map_or(Quality::Bad, |verdict| verdict.quality),
        silent_s: state.last_reading.map(|last| (now.0.saturating_sub(last.0).max(0)) as f64 / 1e6),
        points_json: Value::Array(points).to_string().into(),
        model: Some(model.name.clone()),
        model_version: Some(model.version.clone()),
        model_hash: Some(model.hash.clone()),
        baseline_id: scoring.map(|scoring| scoring.baseline_id.clone()),
        config_hash: asset.hash.clone(),
        forecast: forecast_word(state, ahead.as_ref()),
        end_event: ahead.as_ref().map(|ahead| ahead.end_event.clone()),
        t_p10_s: ahead.as_ref().map(|ahead| ahead.p10_s),
        t_p50_s: ahead.as_ref().map(|ahead| ahead.p50_s),
        t_p90_s: ahead.as_ref().map(|ahead| ahead.p90_s),
        capped: ahead.as_ref().map(|ahead| ahead.capped),
        forecast_model: ahead.as_ref().and_then(|ahead| ahead.of_model.as_ref()).map(|model| model.name.clone()),
        forecast_model_refused: asset.forecast.model.as_ref().and_then(|model| model.refused.clone()),
    }
}
