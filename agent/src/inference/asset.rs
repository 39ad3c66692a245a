//! One asset on its way from readings to a verdict: clean → row → window → score → above → alarm.
//!
//! [`AssetState`] is all that inference remembers of an asset. It changes by readings and ticks alone and is what a checkpoint holds.
use std::collections::BTreeMap;

use hark_protocol::topics::{Name, OperatingState, Phase, Quality, ScoreReason, Timestamp, Zone};
use serde::{Deserialize, Serialize};

use super::{
    EngineCounters,
    alarms::{Alarms, Condition},
    baseline::Weights,
    cadence::Cadence,
    centre::Centre,
    clean::Cleaner,
    collected::{Amiss, Collected},
    commissioning::Commissioned,
    diagnosis::Diagnoses,
    forecast::{Forecasts, Prognosis},
    grid::{Grid, Row},
    health::Health,
    instrument::{self, Instrument},
    limit::{self, Smoothed},
    novelty::Novelty,
    operating::{Operating, StaleOf},
    raised::Raised,
    ready::Ready,
    reduced::{self, Moments},
    regimes::Regimes,
    remaining::Remaining,
    second_opinion::SecondOpinion,
    seldom,
    service::Service,
    severity::Severity,
    stage_a::StageA,
    still::{Machine, Stillness},
    stretch::Stretch,
    tail::Tail,
    verdict::{Signature, Verdict},
    window::{UsableRow, Window},
};
use crate::{buffer::Position, config};

/// How far the asset is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Collecting normal rows.
    Commissioning(Collected),
    /// Commissioning ended without usable weights, for this reason.
    Refused(Name),
    /// Weights are fitted.
    Scoring(Box<Scoring>),
}

/// What scoring needs and remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scoring {
    pub(super) baseline_id: Name,
    pub(super) weights: Weights,
    pub(super) moments: Moments,
    pub(super) score_median: f64,
    /// Of the score: that of commissioning, or where the tail moved it.
    pub(super) limit: f64,
    pub(super) tail: Tail,
    pub(super) centre: Centre,
    pub(super) forecasts: Forecasts,
    pub(super) smoothed: Smoothed,
    pub(super) novelty: Novelty,
    pub(super) second_opinion: Option<SecondOpinion>,
}

/// All that inference remembers of an asset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AssetState {
    /// Ids of the scored points, in the order of the weights.
    pub(super) scored: Vec<Name>,
    /// Indices of those whose fall is no anomaly.
    pub(super) falling: Vec<usize>,
    pub(super) grid_us: i64,
    /// One per scored point.
    pub(super) cleaners: Vec<Cleaner>,
    /// How the scored points move.
    pub(super) stillness: Stillness,
    /// Those of the points that tell the operating state and are not scored.
    pub(super) state_cleaners: BTreeMap<Name, Cleaner>,
    /// One per instrument behind the points of [`Self::cleaned`], as [`instrument::of_points`] names them.
    pub(super) instruments: Vec<Instrument>,
    pub(super) service: Service,
    pub(super) grid: Grid,
    pub(super) window: Window,
    /// `None` where it is not configured.
    pub(super) operating: Option<Operating>,
    /// Starts of the machine since its commissioning began.
    pub(super) starts: u32,
    /// How far the present regime is.
    pub(super) stage: Stage,
    /// How far the others are.
    pub(super) regimes: Regimes,
    pub(super) stretch: Stretch,
    pub(super) verdict: Option<Verdict>,
    pub(super) health: Health,
    /// Where a model knows how such machines fail.
    pub(super) remaining: Option<Remaining>,
    pub(super) alarms: Alarms,
    pub(super) raised: Raised,
    pub(super) severity: Severity,
    /// Of the points that have limits.
    pub(super) cadence: Cadence,
    pub(super) diagnoses: Diagnoses,
    /// Largest score since the last prediction.
    pub(super) score_max: Option<f64>,
    /// Signature and row time of the last prediction.
    pub(super) predicted: Option<(Signature, Timestamp)>,
    /// Event time of the newest reading.
    pub(super) last_reading: Option<Timestamp>,
    /// Event time of the last reading of a scored point in the order of the log: silence is measured from here.
    pub(super) heard: Option<Timestamp>,
    /// How far ticks have come since then.
    pub(super) ticked: Option<Timestamp>,
    /// It was found silent since then.
    pub(super) silent: bool,
    /// A reading since the last start of the windows had its time from the gateway's clock.
    pub(super) gateway_time: bool,
    /// The gateway's clock was set back by so much since then; a sensor that follows it comes late by about as much, once.
    pub(super) set_back_us: i64,
    /// The windows were started by a gap in the inputs and are not full yet.
    pub(super) after_gap: bool,
}

impl AssetState {
    pub(super) fn new(asset: &config::Asset, lags: usize) -> Self {
        let scored: Vec<Name> = asset.points.iter().filter(|point| point.scored).map(|point| point.id.clone()).collect();
        let falling =
            asset.points.iter().filter(|point| point.scored).enumerate().filter(|(_, point)| point.ignore_fall).map(|(index, _)| index).collect();
        let grid_us = micros(asset.grid).max(1);
        let state_cleaners: BTreeMap<Name, Cleaner> = unscored_state_points(asset, &scored).map(|point| (point, Cleaner::default())).collect();
        Self {
            cleaners: vec![Cleaner::default(); scored.len()],
            stillness: Stillness::new(scored.len()),
            instruments: vec![Instrument::default(); instrument::of_points(&cleaned(&scored, &state_cleaners)).len()],
            state_cleaners,
            service: Service::default(),
            grid: Grid::new(stale_of_scored(asset), grid_us),
            window: Window::new(lags + 1, grid_us),
            operating: asset.operating.clone().map(|settings| {
                let stale_of = StaleOf::new(&settings, asset);
                Operating::new(settings, stale_of)
            }),
            starts: 0,
            stage: Stage::Commissioning(Collected::new(scored.len())),
            regimes: Regimes::default(),
            stretch: Stretch::default(),
            scored,
            falling,
            grid_us,
            verdict: None,
            health: Health::default(),
            remaining: None,
            alarms: Alarms::default(),
            raised: Raised::default(),
            severity: Severity::default(),
            cadence: Cadence::default(),
            diagnoses: Diagnoses::default(),
            score_max: None,
            predicted: None,
            last_reading: None,
            heard: None,
            ticked: None,
            silent: false,
            gateway_time: false,
            set_back_us: 0,
            after_gap: false,
        }
    }

    /// Takes over from the state before a change of the points or the grid what does not depend on them: time, the status of instruments, and the
    /// alarms that a person may be dealing with.
    pub(super) fn carry_over(&mut self, before: Self) {
        let known = instrument::of_points(&before.cleaned());
        let Self { alarms, raised, last_reading, heard, ticked, silent, instruments, service, remaining, cadence, .. } = before;
        (self.remaining, self.cadence) = (remaining, cadence);
        for ((id, _), state) in instrument::of_points(&self.cleaned()).iter().zip(&mut self.instruments) {
            if let Some((_, before)) = known.iter().zip(&instruments).find(|((known, _), _)| known == id) {
                *state = *before;
            }
        }
        (self.alarms, self.raised, self.service) = (alarms, raised, service);
        (self.last_reading, self.heard, self.ticked, self.silent) = (last_reading, heard, ticked, silent);
    }

    /// True where this state was made for the points, order, grid and regimes of `asset` as configured now, and for a model of `lags`.
    pub(super) fn fits(&self, asset: &config::Asset, lags: usize) -> bool {
        let fresh = Self::new(asset, lags);
        let same_regimes = match (&self.operating, &asset.operating) {
            (Some(before), Some(now)) => now.has_regimes_of(before.settings()),
            (before, now) => before.is_none() && now.is_none(),
        };
        let same_points = self.scored == fresh.scored && self.falling == fresh.falling;
        same_regimes && same_points && self.grid_us == fresh.grid_us && self.window.length() == fresh.window.length()
    }

    /// Ids of the points whose readings are judged: the scored ones, then those that tell the operating state and are not.
    pub(super) fn cleaned(&self) -> Vec<Name> {
        cleaned(&self.scored, &self.state_cleaners)
    }

    /// What judges them, in the same order.
    pub(super) fn cleaners_mut(&mut self) -> impl Iterator<Item = &mut Cleaner> {
        self.cleaners.iter_mut().chain(self.state_cleaners.values_mut())
    }

    /// Takes a row that its operating state admits, sets [`Self::verdict`], and says whether it completed commissioning, in which `amiss` speaks
    /// against the row.
    pub(super) fn take(
        &mut self,
        mut row: Row,
        amiss: Amiss,
        settings: config::Commissioning,
        stage_a: &mut StageA,
        ready: &mut Ready,
        counters: &mut EngineCounters,
    ) -> Option<Commissioned> {
        counters.rows += 1;
        let (ts, fresh) = (row.ts, std::mem::take(&mut row.fresh));
        let row = match self.usable(row) {
            Ok(row) => row,
            Err(range) => {
                self.window.clear();
                counters.rows_missing_point += 1;
                self.conclude(Verdict { range, ..self.missing_point(ts) });
                return None;
            }
        };
        let (range, values) = (row.range, row.values.iter().flatten().copied().collect::<Vec<f64>>());
        let continues = self.window.push(row);
        let mut verdict = Verdict { quality: self.window.quality(), range: self.window.range(), ..self.unscored(ts) };
        let (mut completed, unseen, spare) = (None, self.is_unseen(), self.rows_to_settle());
        match &mut self.stage {
            Stage::Refused(_) => verdict.reason = Some(ScoreReason::CommissioningRefused),
            Stage::Commissioning(rows) => {
                verdict.reason = Some(if unseen { ScoreReason::UnseenRegime } else { ScoreReason::Commissioning });
                rows.push(&values, &fresh, continues, range, amiss);
                let enough = settings.rows.saturating_add(spare);
                if rows.len() >= enough && self.starts < settings.starts {
                    rows.keep_newest(enough);
                } else if rows.len() >= enough {
                    rows.drop_last(spare);
                    completed = self.commission(stage_a.lags());
                }
            }
            Stage::Scoring(_) => verdict = self.scored(verdict, &fresh, stage_a, ready, counters),
        }
        // The gap is the reason as long as it keeps the window from being full, whatever else would be.
        self.after_gap &= !self.window.is_full();
        if self.after_gap {
            verdict.reason = Some(ScoreReason::InputGap);
        }
        self.conclude(verdict);
        completed
    }

    /// What of `row` goes to the window: all points while the machine is learned, more than half of them once it is scored. Else the records behind it.
    fn usable(&self, mut row: Row) -> Result<UsableRow, Option<(Position, Position)>> {
        let points = self.scored.len();
        let is_scoring = self.scoring().is_some();
        let mut left = row.values.iter().flatten().count();
        // What is held over is a guess: a score does without it, if enough is left.
        let certain = left - row.held_over.len();
        if is_scoring && reduced::suffices(certain, points) {
            row.held_over.iter().for_each(|&point| row.values[point] = None);
            left = certain;
        }
        let enough = if is_scoring { reduced::suffices(left, points) } else { left == points };
        let range = row.range.filter(|_| enough).ok_or(row.range)?;
        let doubted = self.after_gap || left < points;
        let quality = if doubted { row.quality.max(Quality::Uncertain) } else { row.quality };
        Ok(UsableRow { ts: row.ts, values: row.values, quality, range })
    }

    /// `verdict` with what the model says of the window, or with the reason why it says nothing. `fresh` says which values of its newest row are new.
    fn scored(&mut self, verdict: Verdict, fresh: &[bool], stage_a: &mut StageA, ready: &mut Ready, counters: &mut EngineCounters) -> Verdict {
        let Stage::Scoring(scoring) = &mut self.stage else { return verdict };
        if !self.window.is_full() {
            return Verdict { reason: Some(ScoreReason::WindowFilling), ..verdict };
        }
        let (left, points) = (self.window.left(), self.scored.len());
        let of_regressed = left.iter().any(|point| !scoring.weights.seldom.contains(point));
        if !(of_regressed && reduced::suffices(left.len(), points)) {
            // Each row had enough, but not of the same points, or of none that tells of the moment.
            counters.rows_missing_point += 1;
            return Verdict { reason: Some(ScoreReason::MissingPoint), quality: Quality::Bad, ..verdict };
        }
        if let Some(operating) = &self.operating {
            self.stretch.mark(verdict.ts, &scoring.smoothed, verdict.above, micros(operating.settings().settle));
        }
        let mut values = self.window.values(&left);
        scoring.smoothed.levels.take(self.window.newest(), fresh);
        scoring.smoothed.levels.stand_in(&mut values, &left);
        let scored = match ready.score(&values, &left, scoring, stage_a) {
            Ok(scored) => scored,
            Err(error) => {
                counters.model_failures += 1;
                if self.verdict.as_ref().is_none_or(|last| last.reason != Some(ScoreReason::ModelFailed)) {
                    tracing::warn!(%error, "the model failed on a window; logged once until it works again");
                }
                return Verdict { reason: Some(ScoreReason::ModelFailed), ..verdict };
            }
        };
        let left_out: Vec<usize> = (0..points).filter(|point| !left.contains(point)).collect();
        counters.rows_scored += 1;
        counters.rows_reduced += u64::from(!left_out.is_empty());
        let score = scoring.smoothed.push(&scored.fast, &scored.slow);
        let z: Vec<Option<f64>> = scoring.z(self.window.newest()).collect();
        // It has no weights for some of the points.
        let whole: Option<Vec<f64>> = z.iter().copied().collect();
        let opinion = scoring.second_opinion.as_mut().zip(whole).map(|(second, z)| second.push(z.iter().copied()));
        Verdict {
            opinion,
            reason: (!left_out.is_empty()).then_some(ScoreReason::Reduced),
            score: Some(score),
            anomaly: Some(scoring.novelty.push(&seldom::motion(scored.fast.whitened, &scoring.weights.seldom), &z)),
            above: limit::is_above(verdict.above, score, scoring.limit, scoring.score_median),
            shares: scoring.smoothed.top_shares(),
            left_out,
            ..verdict
        }
    }

    /// The asset has said nothing for longer than its stale limit at `ts`. The grid stays where it is: what a node kept while it was cut off comes
    /// in order later.
    pub(super) fn fall_silent(&mut self, ts: Timestamp) {
        self.conclude(self.missing_point(ts));
    }

    /// Forgets held values and window; weights, smoothing and alarm stay.
    pub(super) fn restart_windows(&mut self) {
        self.grid.restart();
        self.restart_cleaning();
        self.window.clear();
        self.restart_state();
        self.remaining.iter_mut().for_each(Remaining::restart);
        self.gateway_time = false;
        self.set_back_us = 0;
    }

    /// What points and instruments showed so far is not continued; the status of instruments stays.
    pub(super) fn restart_cleaning(&mut self) {
        self.cleaners_mut().for_each(Cleaner::restart);
        self.stillness.restart();
        self.instruments.iter_mut().for_each(Instrument::restart);
    }

    /// What the machine did before is not continued.
    pub(super) fn restart_state(&mut self) {
        self.operating.iter_mut().for_each(Operating::restart);
        self.stretch = Stretch::default();
    }

    /// The worst severity zone now, of values that are not stale.
    pub(super) fn zone(&self, asset: &config::Asset) -> Option<Zone> {
        self.severity.worst(self.newest()?, |point| stale_of(asset, point))
    }

    /// The worst severity zone in which a point was that has said nothing since, for longer than `stale_us`, of a machine that may run.
    pub(super) fn lost_zone(&self, asset: &config::Asset) -> Option<Zone> {
        // Before the first reading behind a step of the clock all are lost.
        let now = self.newest().unwrap_or(Timestamp(i64::MAX));
        // Of one that does not run no value is taken.
        self.severity.worst_lost(now, |point| stale_of(asset, point)).filter(|_| self.is_running())
    }

    /// What it does, to what tells points that stand still.
    pub(super) fn machine(&self) -> Machine {
        let is_learned = self.verdict.as_ref().is_some_and(|verdict| verdict.reason == Some(ScoreReason::Commissioning));
        let settle_us = self.operating.as_ref().map_or(0, |operating| micros(operating.settings().settle));
        match self.operating.as_ref().map(Operating::told) {
            None | Some(OperatingState::Running) if is_learned => Machine::Teaches { settle_us },
            Some(OperatingState::Running) => Machine::Runs,
            None | Some(OperatingState::Unknown) => Machine::Untold,
            Some(OperatingState::Off | OperatingState::Idle) if self.scoring().is_none() => Machine::TeachesStop,
            Some(OperatingState::Off | OperatingState::Idle | OperatingState::Transient) => Machine::Stands,
        }
    }

    /// It runs as it should, or nothing tells its state: a machine whose speed sensor is dead is not known to be off.
    pub(super) fn is_running(&self) -> bool {
        let told = self.operating.as_ref().map_or(OperatingState::Unknown, Operating::told);
        matches!(told, OperatingState::Running | OperatingState::Unknown)
    }

    /// How far all its points have come, scored or not; `None` before the first reading.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.last_reading.max(self.ticked)
    }

    /// How far the asset's time has come; `None` before its first reading.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.heard.max(self.ticked)
    }

    /// Whether a reading at `ts` is late because the sensor follows the gateway's clock, which was set back, such as a node that compares the two.
    pub(super) fn follows_set_back(&self, ts: Timestamp) -> bool {
        self.set_back_us > 0 && self.grid.late_us(ts).is_some_and(|late| late > self.set_back_us / 2 && late < self.set_back_us.saturating_mul(2))
    }

    /// Inputs are missing here: what was held does not go on behind the gap, and who reads the next rows shall know of it.
    pub(super) fn pass_gap(&mut self) {
        self.restart_windows();
        (self.heard, self.ticked, self.silent, self.after_gap) = (None, None, false, true);
    }

    pub(super) fn scoring(&self) -> Option<&Scoring> {
        if let Stage::Scoring(scoring) = &self.stage { Some(scoring) } else { None }
    }

    /// What is ahead: the end that a model of failures tells, else the limit that is reached first; `None` where no trend leads to one.
    pub(super) fn prognosis(&self) -> Option<Prognosis> {
        let remaining = self.remaining.as_ref().zip(self.newest()).and_then(|(remaining, now)| remaining.told(now));
        remaining.cloned().or_else(|| self.scoring()?.forecasts.soonest())
    }

    pub(super) fn phase(&self) -> Phase {
        if matches!(self.stage, Stage::Scoring(_)) { Phase::Scoring } else { Phase::Commissioning }
    }

    /// True where a prediction is due for the present verdict: its signature changed, or `every_us` passed since the last.
    pub(super) fn prediction_due(&self, verdict: &Verdict, every_us: i64) -> bool {
        let now = self.signature(verdict);
        // A row older than the last prediction follows a clock that was set back.
        self.predicted.is_none_or(|(signature, at)| signature != now || verdict.ts < at || verdict.ts.0.saturating_sub(at.0) >= every_us)
    }

    pub(super) fn signature(&self, verdict: &Verdict) -> Signature {
        Signature { state: verdict.state, phase: verdict.phase, above: verdict.above, alarm: self.alarms.is_alarm(), reason: verdict.reason }
    }

    fn missing_point(&self, ts: Timestamp) -> Verdict {
        Verdict { reason: Some(ScoreReason::MissingPoint), ..self.unscored(ts) }
    }

    /// A verdict without a score; `above` stays as it was.
    pub(super) fn unscored(&self, ts: Timestamp) -> Verdict {
        let condition = self.operating.as_ref().map(|operating| operating.at(ts));
        let above = self.verdict.as_ref().is_some_and(|verdict| verdict.above);
        Verdict {
            ts,
            state: condition.map_or(OperatingState::Unknown, |condition| condition.state),
            regime: condition.and_then(|condition| condition.regime),
            phase: self.phase(),
            reason: None,
            score: None,
            anomaly: None,
            opinion: None,
            above,
            quality: Quality::Bad,
            range: None,
            shares: Vec::new(),
            left_out: Vec::new(),
        }
    }

    pub(super) fn conclude(&mut self, verdict: Verdict) {
        if verdict.score.is_none() {
            // Nothing is known of the machine meanwhile, so what was seen before did not last.
            self.alarms.restart_delays_of(&Condition::Anomaly);
        }
        self.score_max = match (self.score_max, verdict.score) {
            (Some(max), Some(score)) => Some(max.max(score)),
            (max, score) => max.or(score),
        };
        self.verdict = Some(verdict);
    }
}

fn cleaned(scored: &[Name], state_cleaners: &BTreeMap<Name, Cleaner>) -> Vec<Name> {
    scored.iter().chain(state_cleaners.keys()).cloned().collect()
}

fn unscored_state_points<'a>(asset: &'a config::Asset, scored: &'a [Name]) -> impl Iterator<Item = Name> + 'a {
    let points = asset.operating.iter().flat_map(|operating| [Some(&operating.point), operating.load.as_ref().map(|load| &load.point)]);
    points.flatten().filter(|point| !scored.contains(point)).cloned()
}

/// How old a value of the point with this id may be, microseconds.
pub(super) fn stale_of(asset: &config::Asset, id: &str) -> i64 {
    micros(asset.points.iter().find(|point| *point.id == *id).map_or(asset.stale_after, |point| asset.stale_after(point)))
}

/// The same of each scored point, in their order.
pub(super) fn stale_of_scored(asset: &config::Asset) -> Vec<i64> {
    asset.points.iter().filter(|point| point.scored).map(|point| micros(asset.stale_after(point))).collect()
}

/// Whole microseconds of a configured duration; saturates.
pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
