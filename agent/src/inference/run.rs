//! One asset at work: an entry of the log in, outputs out. What must survive a restart is in its [`AssetState`] alone.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use hark_protocol::topics::{
    Alarm, AlarmState, Baseline, Clock, Event, EventKind, InstrumentStatus, LaneName, Name, Quality, QualityReason, Reading, Timestamp, TsSource,
    Zone,
};

use super::{
    BASELINES_MAX, Emit, Shared,
    alarm::Delays as AlarmDelays,
    alarm_record::{self, Told},
    alarms::{Condition, Shown, is_beyond},
    asset::{AssetState, Stage, micros, stale_of_scored},
    clean::{self, Cleaner, Fault, Pace},
    collected::Amiss,
    commissioning::Commissioned,
    evidence::Evidence,
    forecast,
    grid::{Row, Sample},
    health,
    instrument::{self, Delays, status_of},
    operating::{Operating, StaleOf},
    raised::AlarmId,
    ready::Ready,
    report, service,
    stage_a::StageA,
    still::Nature,
    stretch::Judged,
};
use crate::{
    buffer::Position,
    config::{self, InstrumentSettings, Level},
    record::Body,
    signal::severity::Class,
};

/// An asset with what is made from its configuration and weights, and need not be stored.
#[derive(Debug)]
pub(super) struct AssetRun {
    pub(super) config: config::Asset,
    /// Index in the configuration, and among the scored points; `None` for a point that is not scored.
    points: BTreeMap<Name, (usize, Option<usize>)>,
    /// Indices of the scored points in the configuration.
    scored: Vec<usize>,
    /// Ids of the points whose readings are judged, and how often each is read.
    cleaned: Vec<(Name, Pace)>,
    /// Ids of the instruments, with the indices of their points among these.
    pub(super) instruments: Vec<(Name, Vec<usize>)>,
    /// Of each point, the instrument that it comes from.
    pub(super) instrument_of: BTreeMap<Name, Name>,
    /// Indices in the configuration of the points that hold the strength of a fault.
    strengths: BTreeSet<usize>,
    /// The same of those that hold a tracked speed.
    speeds: BTreeSet<usize>,
    /// Scored points with a severity class, by their index among the scored ones.
    velocities: Vec<(usize, Name, Class)>,
    /// What each scored point is to the machine.
    pub(super) natures: Vec<Nature>,
    /// Inputs of the forecasting model, by the indices of their points in the configuration.
    pub(super) model_inputs: BTreeMap<usize, usize>,
    pub(super) state: AssetState,
    pub(super) ready: Ready,
}

impl AssetRun {
    /// An asset of which nothing is known yet.
    pub(super) fn new(config: config::Asset, lags: usize) -> Self {
        let state = AssetState::new(&config, lags);
        let mut run = Self::with_state(config, state);
        // It has no alarm yet that this would change.
        run.state.alarms.set_inapplicable(run.inapplicable(), run.config.alarm.latch);
        run
    }

    /// An asset that goes on from `state`, which fits its configuration; [`Self::prepare`] follows.
    pub(super) fn with_state(config: config::Asset, mut state: AssetState) -> Self {
        let mut indices = 0..;
        let of_point = |(index, point): (usize, &config::Point)| (point.id.clone(), (index, if point.scored { indices.next() } else { None }));
        let points = config.points.iter().enumerate().map(of_point).collect();
        let scored = config.points.iter().enumerate().filter(|(_, point)| point.scored).map(|(index, _)| index).collect();
        let ids = state.cleaned();
        let instruments = instrument::of_points(&ids);
        let pace = |id: Name| config.points.iter().find(|point| point.id == id).map(|point| (id, Pace::of(&config, point)));
        let cleaned = ids.into_iter().filter_map(pace).collect();
        let of_faults = |waveform: &config::Waveform| waveform.faults().into_iter().map(|fault| waveform.point_of(fault)).collect::<Vec<_>>();
        let indices_of =
            |ids: BTreeSet<Name>| config.points.iter().enumerate().filter(|(_, point)| ids.contains(&point.id)).map(|(index, _)| index).collect();
        let strengths = indices_of(config.waveforms.iter().flat_map(of_faults).collect());
        let speeds = indices_of(config.waveforms.iter().map(config::Waveform::speed_tracked).collect());
        state.grid.set_stale(stale_of_scored(&config));
        if let (Some(operating), Some(settings)) = (&mut state.operating, &config.operating) {
            operating.configure(settings, StaleOf::new(settings, &config));
        }
        let instrument_of = service::instruments_of(&config);
        let class = |point: &config::Point| Class::named(point.severity.as_deref()?);
        let of_scored = config.points.iter().filter(|point| point.scored).enumerate();
        state.severity.retain(|id| config.points.iter().any(|point| point.id == *id && point.severity.is_some()));
        let velocities = of_scored.filter_map(|(scored, point)| Some((scored, point.id.clone(), class(point)?))).collect();
        Self {
            state,
            points,
            scored,
            cleaned,
            instruments,
            instrument_of,
            strengths,
            speeds,
            velocities,
            natures: config.points.iter().filter(|point| point.scored).map(|point| Nature::of(point, config.operating.as_ref())).collect(),
            model_inputs: BTreeMap::new(),
            config,
            ready: Ready::default(),
        }
    }

    /// Makes the weights ready for the bundle in use.
    pub(super) fn prepare(&mut self, stage_a: &StageA) {
        self.ready = Ready::new(&self.config.id, self.state.scoring(), stage_a);
    }

    pub(super) fn reading(&mut self, reading: &Reading, position: Position, shared: &mut Shared, emit: &mut Emit<'_>) {
        shared.counters.readings += 1;
        let ts = emit.stamp.ts;
        let Some(&(index, scored)) = self.points.get(&reading.point) else {
            shared.counters.unknown_point += 1;
            return;
        };
        // A time of the sensor's that runs ahead of the gateway's: it would open a slot for which all other points come late.
        if reading.reason == Some(QualityReason::Clock) && emit.stamp.ts_source == TsSource::Sensor {
            shared.counters.ahead += 1;
            let now = self.state.now();
            let cleaner = scored.map_or_else(|| self.state.state_cleaners.get_mut(&reading.point), |point| self.state.cleaners.get_mut(point));
            if let Some((cleaner, now)) = cleaner.zip(now) {
                cleaner.ahead(now);
            }
            return;
        }
        self.state.last_reading = self.state.last_reading.max(Some(ts));
        if reading.reason != Some(QualityReason::CheckFunction) {
            self.end_test_by(&reading.point, shared, emit);
        }
        let given = if self.is_worked_on(&reading.point) { clean::Judged::NOTHING } else { clean::Judged::of(reading) };
        let Some(point) = scored else {
            if self.scored.is_empty() {
                // No row does it.
                self.tell_state(ts, shared, emit);
            }
            let judged = self.unscored_reading(reading, given, shared, emit);
            self.feed_model(index, judged, ts, position, shared, emit);
            self.watch_limits(index, judged, position, shared, emit);
            // A machine may have no scored point, and then neither rows nor ticks.
            return self.end_silences(ts, shared, emit);
        };
        (self.state.heard, self.state.ticked, self.state.silent) = (Some(ts), None, false);
        if self.state.follows_set_back(ts) {
            shared.counters.clock_set_back += 1;
            self.restart_for_clock();
            self.state.last_reading = Some(ts);
        }
        let judged = self.clean(point, given, ts);
        if emit.stamp.clock == Clock::Stepped {
            self.state.cleaners[point].excuse_clock();
        }
        shared.counters.cleaned += u64::from(given.value.is_some() && judged.quality > given.quality);
        shared.counters.bad += u64::from(judged.value.is_none());
        if let Some(value) = judged.value {
            self.observe_state(&reading.point, ts, value, shared, emit);
        }
        let offered = self.state.grid.offer(Sample { point, ts, value: judged.value, quality: judged.quality, position });
        shared.counters.late += u64::from(offered.late);
        if offered.restarted {
            shared.counters.clock_set_back += 1;
            self.state.window.clear();
            self.state.restart_cleaning();
            self.state.restart_state();
            self.state.severity.clock_stepped();
            self.state.gateway_time = false;
            self.state.last_reading = Some(ts);
        }
        self.state.gateway_time |= emit.stamp.ts_source == TsSource::Gateway;
        self.feed_model(index, judged, ts, position, shared, emit);
        self.watch_limits(index, judged, position, shared, emit);
        let closed = offered.overdue.is_some() || offered.complete.is_some();
        for row in offered.overdue.into_iter().chain(offered.complete) {
            self.row(row, shared, emit);
        }
        if closed {
            self.observe(ts, shared, emit);
            self.end_silences(ts, shared, emit);
        }
    }

    /// Id of the point with this index among those whose readings are judged.
    pub(super) fn cleaned_id(&self, index: usize) -> Option<&Name> {
        self.cleaned.get(index).map(|(id, _)| id)
    }

    /// What a reading of a scored point that came as `given` is worth.
    fn clean(&mut self, point: usize, given: clean::Judged, ts: Timestamp) -> clean::Judged {
        let settings = &self.config.points[self.scored[point]];
        let cleaner = &mut self.state.cleaners[point];
        let judged = cleaner.judge(ts, given, settings, Pace::of(&self.config, settings));
        let Some(value) = judged.value else { return judged };
        let machine = self.state.machine();
        let found = self.state.stillness.take(point, (ts, value), self.natures[point], machine);
        if settings.checks.stuck.is_some() { judged } else { self.state.cleaners[point].stands(judged, found) }
    }

    /// Time passes without readings: the open row is closed, and past the stale limit there is a verdict that says so, at once and then at the pace
    /// of predictions.
    pub(super) fn tick(&mut self, ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        if let Some(row) = self.state.remaining.as_mut().and_then(|remaining| remaining.pass(ts)) {
            self.live(&row, shared, emit);
        }
        if let Some(row) = self.state.grid.pass(ts) {
            self.row(row, shared, emit);
        }
        self.tell_state(ts, shared, emit);
        self.state.forget_unless_quiet();
        // What was said last before this tick may be lost in a gap: then silence counts from the tick on.
        if self.state.after_gap && self.state.heard.is_none() {
            self.state.heard = Some(ts);
        }
        let Some(heard) = self.state.heard else { return };
        self.state.ticked = self.state.ticked.max(Some(ts));
        self.observe(ts, shared, emit);
        self.end_silences(ts, shared, emit);
        if ts.0.saturating_sub(heard.0) <= micros(self.config.silent_after()) {
            return;
        }
        shared.counters.silences += u64::from(!std::mem::replace(&mut self.state.silent, true));
        self.state.fall_silent(ts);
        self.predict(shared, emit);
    }

    /// Looks at the instruments at `now`; an event tells of each whose status changed.
    fn observe(&mut self, now: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        let InstrumentSettings { on_delay, off_delay } = self.config.instrument;
        let delays = Delays { on_us: micros(on_delay), off_us: micros(off_delay) };
        let contradicted = self.state.operating.as_ref().and_then(Operating::contradicted).cloned();
        let fault = |(cleaner, (id, pace)): (&mut Cleaner, &(Name, Pace))| {
            let fault = cleaner.fault(now, *pace);
            let is_failure = fault.is_some_and(|fault| status_of(fault) == InstrumentStatus::Failure);
            if contradicted.as_ref() == Some(id) && !is_failure { Some(Fault::CONTRADICTED) } else { fault }
        };
        let faults: Vec<Option<Fault>> = self.state.cleaners_mut().zip(&self.cleaned).map(fault).collect();
        for ((id, points), instrument) in self.instruments.iter().zip(&mut self.state.instruments) {
            if self.state.service.is_out(id) {
                continue;
            }
            let faults = points.iter().filter_map(|&point| Some((faults[point]?, point)));
            // Of equally bad points the first is named.
            let worse = |worst: (Fault, usize), other: (Fault, usize)| if status_of(other.0) > status_of(worst.0) { other } else { worst };
            let (fault, point) = faults.reduce(worse).unzip();
            if let Some(change) = instrument.observe(fault, now, delays) {
                shared.counters.instrument_changes += 1;
                let point = point.and_then(|point: usize| self.cleaned.get(point)).map(|(id, _)| id);
                emit.push(LaneName::Events, Body::Event(report::instrument(id, &change, point).into()));
            }
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
        self.state.severity.clock_stepped();
        self.state.cadence.restart();
        self.state.alarms.restart_delays();
        self.state.last_reading = None;
    }

    /// Takes a row to its end: commissioning, score, alarm, prediction, in this order.
    fn row(&mut self, row: Row, shared: &mut Shared, emit: &mut Emit<'_>) {
        self.state.forget_unless_quiet();
        if let Some(operating) = &mut self.state.operating {
            operating.weigh(row.ts, self.state.stillness.running_on(&self.natures));
        }
        if !self.admits(&row, shared, emit) {
            return self.predict(shared, emit);
        }
        let settings = self.config.commissioning;
        let amiss = Amiss { in_bad_zone: self.state.zone(&self.config) >= Some(Zone::C), beyond_limit: self.state.alarms.is_beyond_limit() };
        let completed = self.state.take(row, amiss, settings, &mut shared.stage_a, &mut self.ready, &mut shared.counters);
        self.tell_reduced(shared);
        if let Some(commissioned) = completed {
            self.commissioned(commissioned, None, shared, emit);
        }
        if let Some(Judged { ts, above, evidence }) = self.state.confirm() {
            self.follow(ts, &evidence);
            if self.state.remaining.is_none() && evidence.quality == Quality::Good {
                let ahead = self.state.scoring().and_then(|scoring| scoring.forecasts.soonest());
                self.judge_forecast(ahead, evidence.quality, ts, shared, emit);
            }
            self.watch(&Condition::Anomaly, (above, evidence), ts, shared, emit);
        }
        self.predict(shared, emit);
        if let Some(adapted) = self.state.adapt(self.config.commissioning.adapts) {
            self.adapted(&adapted, shared, emit);
        }
    }

    /// What has been confirmed moves health and trends.
    fn follow(&mut self, ts: Timestamp, evidence: &Evidence) {
        let Stage::Scoring(scoring) = &mut self.state.stage else { return };
        let is_good = evidence.quality == Quality::Good;
        self.state.health.follow(health::from_score(evidence.value, scoring.score_median, scoring.limit), !is_good);
        if !is_good {
            return;
        }
        let newest = self.state.window.newest();
        let velocities = self.velocities.iter().filter_map(|(scored, point, class)| Some((point, newest.get(*scored).copied().flatten()?, class)));
        scoring.forecasts.push(
            forecast::Row { ts, score: evidence.value / scoring.limit, grid_us: self.state.grid_us },
            velocities,
            &self.config.forecast,
        );
    }

    /// A name for the baseline that the present input makes: unique within the asset, and the same in a replay.
    pub(super) fn name_baseline(&self, emit: &Emit<'_>) -> Name {
        let of_regime = self.state.regimes.name().map_or_else(String::new, |regime| format!("-{regime}"));
        format!("{}-{}{of_regime}", emit.cause.ordinal, emit.cause.seq).into()
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
        let ahead = self.state.prognosis();
        let of_life = shared.input_range(ahead.as_ref().and_then(|ahead| Some(ahead.of_model.as_ref()?.range)));
        let prediction = report::prediction(&self.state, &verdict, &self.config, &shared.model, ahead.as_ref(), inputs, of_life);
        self.state.predicted = Some((self.state.signature(&verdict), verdict.ts));
        self.state.score_max = None;
        emit.push(LaneName::Predictions, Body::Prediction(Box::new(prediction)));
    }

    /// Judges the limits of a point by its newest value: from the first reading on, whatever is known of the machine.
    fn watch_limits(&mut self, index: usize, judged: clean::Judged, position: Position, shared: &mut Shared, emit: &mut Emit<'_>) {
        if self.speeds.contains(&index) {
            self.state.diagnoses.take_speed(&self.config.points[index].id, judged.value, emit.stamp.ts);
        }
        let Some(value) = judged.value else { return };
        self.judge_severity(index, value, emit.stamp.ts);
        if self.strengths.contains(&index) {
            self.state.diagnoses.take(&self.config.points[index].id, value, emit.stamp.ts);
        }
        let ts = emit.stamp.ts;
        let evidence = Evidence { value, ts, quality: judged.quality, range: Some((position, position)), of_score: None, of_forecast: None };
        for level in Level::ALL {
            let point = &self.config.points[index];
            let Some(limits) = &point.limits else { return };
            let condition = Condition::Limit(point.id.clone(), level);
            if let Some(beyond) = is_beyond(limits, level, value, self.state.alarms.stands(&condition)) {
                self.watch(&condition, (beyond, evidence.clone()), ts, shared, emit);
            }
        }
        self.state.cadence.take(&self.config.points[index].id, ts);
    }

    fn judge_severity(&mut self, index: usize, value: f64, ts: Timestamp) {
        let point = &self.config.points[index];
        let Some(class) = point.severity.as_deref().and_then(Class::named) else { return };
        if self.state.is_running() {
            self.state.severity.take(&point.id, class.zone(value), ts);
        }
    }

    pub(super) fn watch(&mut self, condition: &Condition, judged: (bool, Evidence), ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        let delays = self.delays_of(condition);
        let AssetState { alarms, raised, .. } = &mut self.state;
        let new_id = || {
            let id = AlarmId(emit.cause);
            raised.remember(id);
            id.to_string().into()
        };
        if let Some(alarm) = alarms.update(condition, judged, ts, delays, new_id) {
            self.emit_alarm(&alarm, &Told::default(), shared, emit);
        }
    }

    pub(super) fn delays_of(&self, condition: &Condition) -> AlarmDelays {
        let settings = self.config.alarm;
        AlarmDelays {
            on_us: micros(settings.on_delay),
            off_us: micros(settings.off_delay),
            lasts_us: self.lasts_us(condition),
            latch: settings.latch,
        }
    }

    /// How long what a condition was judged by says something.
    fn lasts_us(&self, condition: &Condition) -> i64 {
        let of_asset = self.config.stale_after;
        let Condition::Limit(id, _) = condition else { return micros(of_asset) };
        let of_point = self.points.get(id).map(|(index, _)| self.config.stale_after(&self.config.points[*index]));
        self.state.cadence.lasts_us(id, micros(of_point.unwrap_or(of_asset)))
    }

    /// What was silenced until now is shown again.
    fn end_silences(&mut self, now: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        self.end_service(now, shared, emit);
        for alarm in self.state.alarms.pass(now, self.config.alarm.latch) {
            self.emit_alarm(&alarm, &Told::default(), shared, emit);
        }
    }

    pub(super) fn emit_alarm(&mut self, shown: &Shown, told: &Told, shared: &mut Shared, emit: &mut Emit<'_>) {
        shared.counters.alarm_changes += 1;
        emit.push(LaneName::Alarms, Body::Alarm(Box::new(self.alarm_record(shown, told, shared))));
        let is_new = shown.state == AlarmState::ActiveUnacknowledged && self.state.alarms.begins_excursion(&shown.condition);
        if let Some(flood) = is_new.then(|| shared.flood.count(&self.config.id)).flatten() {
            shared.counters.alarm_floods += 1;
            emit.push_about(None, LaneName::Events, Body::Event(flood.into()));
        }
    }

    /// Limits that are not configured any more raise no alarm, and none of theirs stays for ever.
    pub(super) fn end_unwatched(&mut self) -> Vec<Shown> {
        let points = &self.config.points;
        let has_limit = |id: &Name, level| points.iter().any(|point| point.id == *id && point.limits.as_ref().is_some_and(|l| l.of(level).is_some()));
        self.state.alarms.end_unwatched(|condition| match condition {
            Condition::Anomaly | Condition::Forecast => true,
            Condition::Limit(id, level) => has_limit(id, *level),
        })
    }

    /// The alarms that are shown, as records of how they stand now: what a point said before it fell silent says nothing of now.
    pub(super) fn alarms(&self, shared: &Shared) -> Vec<Alarm> {
        let as_it_stands = |mut shown: Shown| {
            let lasts_us = self.lasts_us(&shown.condition);
            if let Some((evidence, now)) = shown.evidence.as_mut().zip(self.state.newest())
                && now.0.saturating_sub(evidence.ts.0) > lasts_us
            {
                evidence.quality = Quality::Bad;
            }
            self.alarm_record(&shown, &Told::default(), shared)
        };
        self.state.alarms.shown().into_iter().map(as_it_stands).collect()
    }

    fn alarm_record(&self, shown: &Shown, told: &Told, shared: &Shared) -> Alarm {
        let inputs = shared.input_range(shown.evidence.as_ref().and_then(|evidence| evidence.range));
        alarm_record::alarm(shown, &self.state, &self.config, &shared.model, inputs, told)
    }

    /// Tells how commissioning ended; gives the event that does.
    pub(super) fn commissioned(&mut self, commissioned: Commissioned, actor: Option<Name>, shared: &mut Shared, emit: &mut Emit<'_>) -> Event {
        let regime = self.state.regimes.name();
        let event = match commissioned {
            Commissioned::Refused { refusal, rows, then } => report::refused(&refusal, rows, then.map(|rows| rows.drifted().len()), actor),
            Commissioned::Accepted { fit, doubts, rows, range } => {
                let baseline_id = self.name_baseline(emit);
                if let Stage::Scoring(scoring) = &mut self.state.stage {
                    scoring.baseline_id = baseline_id.clone();
                }
                self.prepare(&shared.stage_a);
                let inputs = shared.input_range(Some(range));
                let starts = self.state.operating.as_ref().map(|_| self.state.starts);
                let wanted = self.config.commissioning;
                let made =
                    report::BaselineOf { fit: &fit, doubts: &doubts, id: &baseline_id, regime: regime.clone(), rows, starts, wanted, inputs, actor };
                let event = report::accepted(&made, &self.state.scored);
                let baseline = report::baseline(made, &self.config, &self.state.scored, &shared.model);
                let kept = shared.baselines.entry(self.config.id.clone()).or_default();
                keep(kept, baseline.into());
                event
            }
        };
        let event = report::of_regime(event, regime);
        emit.push(LaneName::Events, Body::Event(event.clone().into()));
        event
    }
}

/// Adds a baseline; of its sort, of its regime and of all points or of some, the newest [`BASELINES_MAX`] stay.
pub(super) fn keep(baselines: &mut VecDeque<Arc<Baseline>>, baseline: Arc<Baseline>) {
    let is_of_sort = |other: &Arc<Baseline>| report::is_reduced(other) == report::is_reduced(&baseline) && other.regime == baseline.regime;
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
