//! An asset as a person sees it on the status page, and as a replay prints it.
use hark_protocol::topics::{AlarmState, Name, OperatingState, Phase, Quality, ScoreReason, Timestamp};
use serde::Serialize;

use super::{asset::AssetState, forecast::Prognosis, operating::Regime, report};
use crate::config;

/// What is known of an asset after its newest row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AssetView {
    /// Asset id.
    pub id: Name,
    /// Name for people.
    pub name: Name,
    /// Operating state at the newest row; unknown where it is not configured.
    pub state: OperatingState,
    /// Regime of that row; `None` in a state that is not scored.
    pub regime: Option<Name>,
    /// Of the newest row; commissioning before the first.
    pub phase: Phase,
    /// 0 to 1 while commissioning.
    pub progress: Option<f64>,
    /// Starts of the machine that commissioning still waits for.
    pub starts_missing: u32,
    /// Why there is no score.
    pub reason: Option<ScoreReason>,
    /// Start of the newest row's slot.
    pub row_ts: Option<Timestamp>,
    /// Smoothed score of the newest row, same scale as `limit`.
    pub score: Option<f64>,
    /// Limit of the score.
    pub limit: Option<f64>,
    /// How new the newest row is for this machine, 0 to 1; 0.5 where it is a fifth beyond the largest moment of its recent past (a peak halves in some
    /// 2000 rows). High says that something just happened, and not whether it is over or harmful: it falls back while `score` stays over its limit, rises
    /// at a return to normal too, is blind to what comes by degrees, and noise alone takes it to 0.5 in about one row of a thousand. No alarm follows
    /// from it. There where `score` is.
    pub anomaly: Option<f64>,
    /// 0 to 100.
    pub health: Option<f64>,
    /// What sets it, or why it is not known.
    pub health_reason: Name,
    /// `remaining_life`, `time_to_limit` or `no_trend`; `None` before commissioning has ended, unless a model of failures speaks.
    pub forecast: Option<Name>,
    /// The end that a model tells, else the first limit that a trend leads to.
    pub prognosis: Option<Prognosis>,
    /// Score over limit, after hysteresis.
    pub above: bool,
    /// An alarm is active that asks for a response, shown or not; advice is none.
    pub alarm: bool,
    /// Advice is active, and no alarm.
    pub advice: bool,
    /// State of the most urgent alarm.
    pub alarm_state: AlarmState,
    /// That alarm, if there is one.
    pub alarm_id: Option<Name>,
    /// Worst quality among the inputs of the newest row.
    pub quality: Quality,
    /// The points that contribute most, with shares, largest first; at most three.
    pub contributions: Vec<(Name, f64)>,
    /// Scored points whose latest reading was bad.
    pub bad_points: Vec<Name>,
    /// Points without a usable value at the newest row, by now: scored ones, and those that tell the operating state.
    pub missing_points: Vec<Name>,
    /// Event time of the newest reading: silent since then.
    pub last_reading: Option<Timestamp>,
    /// Weights in use.
    pub baseline_id: Option<Name>,
}

impl AssetView {
    pub(super) fn of(asset: &config::Asset, state: &AssetState) -> Self {
        let verdict = state.verdict.as_ref();
        let scoring = state.scoring();
        let prognosis = state.prognosis();
        let (health, health_reason) = report::health_of(state, asset);
        let score = verdict.and_then(|verdict| verdict.score);
        let limit = scoring.map(|scoring| scoring.limit);
        let point = |index: usize| state.scored.get(index).cloned();
        let shares = verdict.map_or(&[][..], |verdict| &verdict.shares);
        Self {
            id: asset.id.clone(),
            name: asset.name.clone(),
            state: verdict.map_or(OperatingState::Unknown, |verdict| verdict.state),
            regime: verdict.and_then(|verdict| verdict.regime).map(Regime::name),
            phase: verdict.map_or(Phase::Commissioning, |verdict| verdict.phase),
            progress: state.progress_part(asset.commissioning),
            starts_missing: state.progress(asset.commissioning).map_or(0, |progress| progress.of.starts - progress.starts),
            reason: verdict.and_then(|verdict| verdict.reason),
            row_ts: verdict.map(|verdict| verdict.ts),
            score,
            limit,
            anomaly: verdict.and_then(|verdict| verdict.anomaly),
            health,
            health_reason,
            forecast: report::forecast_word(state, prognosis.as_ref()),
            prognosis,
            above: verdict.is_some_and(|verdict| verdict.above),
            alarm: state.alarms.is_alarm(),
            advice: !state.alarms.is_alarm() && state.alarms.is_active(),
            alarm_state: state.alarms.state(),
            alarm_id: state.alarms.shown().first().map(|alarm| alarm.alarm_id.clone()),
            quality: verdict.map_or(Quality::Bad, |verdict| verdict.quality),
            contributions: shares.iter().filter_map(|&(index, share)| Some((point(index)?, share))).collect(),
            bad_points: state.grid.bad_points().filter_map(point).collect(),
            missing_points: verdict.map_or_else(Vec::new, |verdict| missing(state, verdict.ts)),
            last_reading: state.last_reading,
            baseline_id: scoring.map(|scoring| scoring.baseline_id.clone()),
        }
    }
}

fn missing(state: &AssetState, ts: Timestamp) -> Vec<Name> {
    let mut points: Vec<Name> = state.grid.missing(ts).filter_map(|index| state.scored.get(index).cloned()).collect();
    let of_state = state.operating.iter().flat_map(|operating| operating.missing(ts));
    of_state.for_each(|point| {
        if !points.contains(point) {
            points.push(point.clone())
        }
    });
    points
}
