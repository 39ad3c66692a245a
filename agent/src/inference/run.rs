//! One asset at work: an entry of the log in, outputs out. What must survive a restart is in its [`AssetState`] alone.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hark_protocol::topics::{Baseline, Clock, Event, EventKind, LaneName, Name, QualityReason, Reading, Timestamp, TsSource};

use super::{
    BASELINES_MAX, Emit, Shared, alarm,
    asset::{AssetState, Commissioned, Stage, micros},
    clean::{Fault, Judged, Pace},
    grid::{Row, Sample},
    instrument::{self, Delays, status_of},
    ready::Ready,
    report,
    stage_a::StageA,
};
use crate::{
    buffer::Position,
    config::{self, InstrumentSettings},
    record::Body,
};

/// An asset with what is made from its configuration and weights, and need not be stored.
#[derive(Debug)]
pub(super) struct AssetRun {
    pub(super) config: config::Asset,
    /// Index among the scored points; `None` for a point that is not scored.
    points: BTreeMap<Name, Option<usize>>,
    /// Indices of the scored points in the configuration.
    scored: Vec<usize>,
    /// Ids of the instruments, with the indices of their points among the scored ones.
    instruments: Vec<(Name, Vec<usize>)>,
    pub(super) state: AssetState,
    ready: Ready,
}

impl AssetRun {
    /// An asset of which nothing is known yet.
    pub(super) fn new(config: config::Asset, lags: usize) -> Self {
        let state = AssetState::new(&config, lags);
        Self::with_state(config, state)
    }

    /// An asset that goes on from `state`, which fits its configuration; [`Self::prepare`] follows.
    pub(super) fn with_state(config: config::Asset, mut state: AssetState) -> Self {
        let mut indices = 0..;
        let points = config.points.iter().map(|point| (point.id.clone(), if point.scored { indices.next() } else { None })).collect();
        let scored = config.points.iter().enumerate().filter(|(_, point)| point.scored).map(|(index, _)| index).collect();
        let instruments = instrument::of_points(&state.scored);
        state.grid.set_stale(micros(config.stale_after));
        Self { state, points, scored, instruments, config, ready: Ready::default() }
    }

    /// Makes the weights ready for the bundle in use.
    pub(super) fn prepare(&mut self, stage_a: &StageA) {
        self.ready = Ready::new(&self.config.id, self.state.scoring(), stage_a);
    }

    pub(super) fn reading(&mut self, reading: &Reading, position: Position, shared: &mut Shared, emit: &mut Emit<'_>) {
        shared.counters.readings += 1;
        let ts = emit.stamp.ts;
        let Some(&scored) = self.points.get(&reading.point) else {
            shared.counters.unknown_point += 1;
            return;
        };
        // A time of the sensor's that runs ahead of the gateway's: it would open a slot for which all other points come late.
        if reading.reason == Some(QualityReason::Clock) && emit.stamp.ts_source == TsSource::Sensor {
            shared.counters.ahead += 1;
            if let Some((point, now)) = scored.zip(self.state.now()) {
                self.state.cleaners[point].ahead(now);
            }
            return;
        }
        self.state.last_reading = self.state.last_reading.max(Some(ts));
        let Some(point) = scored else { return };
        (self.state.heard, self.state.ticked, self.state.silent) = (Some(ts), None, false);
        if self.state.follows_set_back(ts) {
            shared.counters.clock_set_back += 1;
            self.restart_for_clock();
            self.state.last_reading = Some(ts);
        }
        let given = Judged { value: reading.value.filter(|value| value.is_finite()), quality: reading.quality, reason: reading.reason };
        let pace = self.pace();
        let cleaner = &mut self.state.cleaners[point];
        let judged = cleaner.judge(ts, given, &self.config.points[self.scored[point]], pace);
        if emit.stamp.clock == Clock::Stepped {
            cleaner.excuse_clock();
        }
        shared.counters.cleaned += u64::from(given.value.is_some() && judged.quality > given.quality);
        shared.counters.bad += u64::from(judged.value.is_none());
        let offered = self.state.grid.offer(Sample { point, ts, value: judged.value, quality: judged.quality, position });
        shared.counters.late += u64::from(offered.late);
        if offered.restarted {
            shared.counters.clock_set_back += 1;
            self.state.window.clear();
            self.state.restart_cleaning();
            self.state.gateway_time = false;
            self.state.last_reading = Some(ts);
        }
        self.state.gateway_time |= emit.stamp.ts_source == TsSource::Gateway;
        let closed = offered.overdue.is_some() || offered.complete.is_some();
        for row in offered.overdue.into_iter().chain(offered.complete) {
            self.row(row, shared, emit);
        }
        if closed {
            self.observe(ts, shared, emit);
        }
    }

    /// Time passes without readings: the open row is closed, and past the stale limit there is a verdict that says so, at once and then at the pace
    /// of predictions.
    pub(super) fn tick(&mut self, ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        if let Some(row) = self.state.grid.pass(ts) {
            self.row(row, shared, emit);
        }
        // What was said last before this tick may be lost in a gap: then silence counts from the tick on.
        if self.state.after_gap && self.state.heard.is_none() {
            self.state.heard = Some(ts);
        }
        let Some(heard) = self.state.heard else { return };
        self.state.ticked = self.state.ticked.max(Some(ts));
        self.observe(ts, shared, emit);
        if ts.0.saturating_sub(heard.0) <= micros(self.config.stale_after) {
            return;
        }
        shared.counters.silences += u64::from(!std::mem::replace(&mut self.state.silent, true));
        self.state.fall_silent(ts);
        self.predict(shared, emit);
    }

    /// Looks at the instruments at `now`; an event tells of each whose status changed.
    fn observe(&mut self, now: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        let InstrumentSettings { on_delay, off_delay } = self.config.instrument;
        let (pace, delays) = (self.pace(), Delays { on_us: micros(on_delay), off_us: micros(off_delay) });
        for ((id, points), instrument) in self.instruments.iter().zip(&mut self.state.instruments) {
            let faults = points.iter().filter_map(|&point| Some((self.state.cleaners[point].fault(now, pace)?, point)));
            // Of equally bad points the first is named.
            let worse = |worst: (Fault, usize), other: (Fault, usize)| if status_of(other.0) > status_of(worst.0) { other } else { worst };
            let (fault, point) = faults.reduce(worse).unzip();
            if let Some(change) = instrument.observe(fault, now, delays) {
                shared.counters.instrument_changes += 1;
                let point = point.and_then(|point: usize| self.state.scored.get(point));
                emit.push(LaneName::Events, Body::Event(report::instrument(id, &change, point).into()));
            }
        }
    }

    fn pace(&self) -> Pace {
        Pace { grid_us: self.state.grid_us, stale_us: micros(self.config.stale_after) }
    }

    /// Does what a person asks for; otherwise says why not.
    pub(super) fn command(&mut self, event: &Event, shared: &mut Shared, emit: &mut Emit<'_>) -> Result<(), &'static str> {
        match event.command.as_deref() {
            Some("acknowledge") => {
                let change = self.state.alarm.acknowledge(event.alarm_id.as_ref()).ok_or("there is no such alarm to acknowledge")?;
                self.emit_alarm(change, event.actor.clone(), shared, emit);
                Ok(())
            }
            Some("commissioning_accepted") => {
                let commissioned = self.state.commission(shared.stage_a.lags());
                let commissioned = commissioned.ok_or("the asset is not being commissioned, or has no usable row")?;
                let refused = matches!(commissioned, Commissioned::Refused { .. });
                self.commissioned(commissioned, event.actor.clone(), shared, emit);
                if refused { Err("the rows do not make a baseline") } else { Ok(()) }
            }
            Some("maintenance_done") => {
                self.state.recommission();
                self.ready = Ready::default();
                emit.push(LaneName::Events, Body::Event(started(event.actor.clone()).into()));
                Ok(())
            }
            _ => Err("this version does not know the command"),
        }
    }

    /// The gateway's clock was corrected by `offset_us` (0: not known): if the asset's times are from it, they do not continue those before.
    pub(super) fn clock_corrected(&mut self, offset_us: i64) -> bool {
        let concerned = self.state.gateway_time;
        if concerned {
            self.restart_for_clock();
        } else {
            self.state.set_back_us = offset_us.saturating_neg().max(0);
        }
        concerned
    }

    fn restart_for_clock(&mut self) {
        self.state.restart_windows();
        self.state.alarm.restart_delays();
        self.state.last_reading = None;
    }

    /// Takes a row to its end: commissioning, score, alarm, prediction, in this order.
    fn row(&mut self, row: Row, shared: &mut Shared, emit: &mut Emit<'_>) {
        let settings = self.config.commissioning;
        let completed = self.state.take(row, settings, &mut shared.stage_a, &mut self.ready, &mut shared.counters);
        self.tell_reduced(shared);
        if let Some(commissioned) = completed {
            self.commissioned(commissioned, None, shared, emit);
        }
        let Some(verdict) = &self.state.verdict else { return };
        if verdict.score.is_some() {
            let delays = self.config.alarm;
            let new_id = || format!("{}/{}", emit.cause.ordinal, emit.cause.seq).into();
            let change = self.state.alarm.update(verdict.above, verdict.ts, micros(delays.on_delay), micros(delays.off_delay), new_id);
            if let Some(change) = change {
                self.emit_alarm(change, None, shared, emit);
            }
        }
        self.predict(shared, emit);
    }

    /// Weights that were made for some of the points are a baseline of their own, by which a prediction of theirs can be recomputed.
    fn tell_reduced(&mut self, shared: &mut Shared) {
        let Some(scoring) = self.state.scoring() else { return };
        let Some((left, weights)) = self.ready.news() else { return };
        let Some(known) = shared.baselines.get_mut(&self.config.id) else { return };
        let Some(whole) = known.iter().find(|baseline| baseline.baseline_id == scoring.baseline_id) else { return };
        let reduced = Arc::new(report::reduced_baseline(whole, left, weights, &self.state.scored));
        match known.iter_mut().find(|baseline| baseline.baseline_id == reduced.baseline_id) {
            Some(same) => *same = reduced,
            None => keep(known, reduced),
        }
    }

    /// Gives a prediction for the present verdict, if one is due.
    fn predict(&mut self, shared: &mut Shared, emit: &mut Emit<'_>) {
        let Some(verdict) = self.state.verdict.clone() else { return };
        if !self.state.prediction_due(&verdict, micros(self.config.predict_every)) {
            return;
        }
        shared.counters.predictions += 1;
        let inputs = shared.input_range(verdict.range);
        let prediction = report::prediction(&self.state, &verdict, &self.config, &shared.model, inputs);
        self.state.predicted = Some((self.state.signature(&verdict), verdict.ts));
        self.state.score_max = None;
        emit.push(LaneName::Predictions, Body::Prediction(Box::new(prediction)));
    }

    pub(super) fn emit_alarm(&mut self, change: alarm::Change, actor: Option<Name>, shared: &mut Shared, emit: &mut Emit<'_>) {
        shared.counters.alarm_changes += 1;
        let inputs = shared.input_range(self.state.verdict.as_ref().and_then(|verdict| verdict.range));
        let alarm = report::alarm(&self.state, change, &self.config, &shared.model, inputs, actor);
        emit.push(LaneName::Alarms, Body::Alarm(Box::new(alarm)));
    }

    fn commissioned(&mut self, commissioned: Commissioned, actor: Option<Name>, shared: &mut Shared, emit: &mut Emit<'_>) {
        let event = match commissioned {
            Commissioned::Refused { refusal, rows } => report::refused(&refusal, rows, actor),
            Commissioned::Accepted { fit, rows, range } => {
                // Named after the input that completed it: unique within the asset, and the same in a replay.
                let baseline_id: Name = format!("{}-{}", emit.cause.ordinal, emit.cause.seq).into();
                if let Stage::Scoring(scoring) = &mut self.state.stage {
                    scoring.baseline_id = baseline_id.clone();
                }
                self.prepare(&shared.stage_a);
                let event = report::accepted(&fit, &baseline_id, rows, actor.clone(), &self.state.scored);
                let inputs = shared.input_range(Some(range));
                let made = report::BaselineOf { fit: &fit, id: &baseline_id, rows, inputs, actor };
                let baseline = report::baseline(made, &self.config, &self.state.scored, &shared.model);
                let kept = shared.baselines.entry(self.config.id.clone()).or_default();
                keep(kept, baseline.into());
                event
            }
        };
        emit.push(LaneName::Events, Body::Event(event.into()));
    }
}

/// Adds a baseline; of its sort, of all points or of some, the newest [`BASELINES_MAX`] stay.
fn keep(baselines: &mut VecDeque<Arc<Baseline>>, baseline: Arc<Baseline>) {
    let is_of_sort = |other: &Arc<Baseline>| report::is_reduced(other) == report::is_reduced(&baseline);
    if baselines.iter().filter(|other| is_of_sort(other)).count() >= BASELINES_MAX
        && let Some(oldest) = baselines.iter().position(is_of_sort)
    {
        baselines.remove(oldest);
    }
    baselines.push_back(baseline);
}

/// The event of a commissioning that begins.
pub(super) fn started(actor: Option<Name>) -> Event {
    Event { what: Some("started".into()), actor, ..Event::new(EventKind::Commissioning) }
}
