//! The gate before the window: which rows are learned and scored, by operating state, and as those of which regime.
use hark_protocol::topics::{Clock, Event, EventKind, LaneName, Name, OperatingState, Reading, ScoreReason, Timestamp};
use serde_json::json;

use super::{
    Emit, Shared,
    alarm_record::Told,
    asset::{AssetState, Stage},
    baseline::Refusal,
    clean::{Judged, Pace},
    commissioning::Commissioned,
    grid::Row,
    operating::{Change, Condition, Operating, Regime},
    regimes::Entered,
    report,
    run::AssetRun,
};
use crate::{config, record::Body, status::Outcome};

impl AssetRun {
    /// A reading of a point that is not scored: it may be one that tells the operating state, and is cleaned for that. Gives what it is worth.
    pub(super) fn unscored_reading(&mut self, reading: &Reading, given: Judged, shared: &mut Shared, emit: &mut Emit<'_>) -> Judged {
        let ts = emit.stamp.ts;
        let Some(cleaner) = self.state.state_cleaners.get_mut(&reading.point) else { return given };
        let Some(point) = self.config.points.iter().find(|point| point.id == reading.point) else { return given };
        let judged = cleaner.judge(ts, given, point, Pace::of(&self.config, point));
        if emit.stamp.clock == Clock::Stepped {
            cleaner.excuse_clock();
        }
        if let Some(value) = judged.value {
            self.observe_state(&reading.point, ts, value, shared, emit);
        }
        judged
    }

    /// A usable value of a point, by which the operating state may change.
    pub(super) fn observe_state(&mut self, point: &str, ts: Timestamp, value: f64, shared: &mut Shared, emit: &mut Emit<'_>) {
        let Some(operating) = &mut self.state.operating else { return };
        if operating.observe(point, ts, value) {
            self.tell_state(ts, shared, emit);
        }
    }

    /// An event tells that the operating state changed by `ts`.
    pub(super) fn tell_state(&mut self, ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        let Some(change) = self.state.operating.as_mut().and_then(|operating| operating.pass(ts)) else { return };
        shared.counters.state_changes += 1;
        self.state.starts = self.state.starts.saturating_add(u32::from(change.is_start));
        let contradicted = self.state.operating.as_ref().and_then(Operating::contradicted);
        emit.push(LaneName::Events, Body::Event(changed(change, contradicted).into()));
        self.silence_inapplicable(&Told::default(), shared, emit);
    }

    /// Whether `row` is to be learned or scored, as one of the regime that the asset is in by then; otherwise its verdict says why not.
    pub(super) fn admits(&mut self, row: &Row, shared: &mut Shared, emit: &mut Emit<'_>) -> bool {
        self.tell_state(row.ts, shared, emit);
        let Some(condition) = self.state.operating.as_ref().map(|operating| operating.at(row.ts)) else { return true };
        if let Some(regime) = condition.regime {
            self.enter(regime, row.ts, shared, emit);
        }
        let Some(reason) = self.reason_against(condition) else {
            self.state.stretch.begin();
            return true;
        };
        shared.counters.rows += 1;
        let counter =
            if reason == ScoreReason::MissingPoint { &mut shared.counters.rows_missing_point } else { &mut shared.counters.rows_not_steady };
        *counter += 1;
        self.state.set_aside(row, reason);
        false
    }

    fn reason_against(&self, condition: Condition) -> Option<ScoreReason> {
        match condition {
            // What runs in an alarm is not learned as normal.
            Condition { regime: Some(_), .. } => (self.state.is_unseen() && self.state.alarms.is_active()).then_some(ScoreReason::UnseenRegime),
            Condition { state: OperatingState::Unknown | OperatingState::Running, .. } => Some(ScoreReason::MissingPoint),
            Condition { .. } => Some(ScoreReason::OperatingState),
        }
    }

    fn enter(&mut self, regime: Regime, ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        if !self.state.is_in(regime) {
            // Without time to settle there is no row between two regimes that would have ended the stretch.
            self.state.break_off(ts);
        }
        let entered = self.state.enter(regime);
        if entered != Entered::Same {
            self.prepare(&shared.stage_a);
        }
        if entered == Entered::Unseen {
            shared.counters.regimes_unseen += 1;
            emit.push(LaneName::Events, Body::Event(unseen(regime, &self.config).into()));
        }
    }

    /// Commissioning ends with the rows that there are, in every regime that has enough of them; the others go on collecting. Says of each, in a line, what
    /// became of it; refused where nothing was accepted, or the rows of a regime make no baseline.
    pub(super) fn accept_commissioning(&mut self, actor: Option<&Name>, shared: &mut Shared, emit: &mut Emit<'_>) -> Outcome {
        let mut said: Vec<Name> = Vec::new();
        let (mut accepted, mut refused) = (false, false);
        for regime in self.state.met() {
            if let Some(regime) = regime {
                self.state.enter(regime);
            }
            let event = match self.state.fit_early(shared.stage_a.lags()) {
                None => report::of_regime(not_collecting(&self.state), regime.map(Regime::name)),
                // The rows that there are would be lost with a refusal.
                Some(Commissioned::Refused { refusal: refusal @ (Refusal::TooFewRows { .. } | Refusal::FewRows { .. }), .. }) => {
                    let event = report::of_regime(too_few_rows(&refusal, actor), regime.map(Regime::name));
                    emit.push(LaneName::Events, Body::Event(event.clone().into()));
                    event
                }
                Some(commissioned) => {
                    self.state.end_commissioning(&commissioned);
                    let is_accepted = matches!(commissioned, Commissioned::Accepted { .. });
                    (accepted, refused) = (accepted || is_accepted, refused || !is_accepted);
                    self.commissioned(commissioned, actor.cloned(), shared, emit)
                }
            };
            said.extend(event.text);
        }
        self.prepare(&shared.stage_a);
        let said = said.join("\n").into();
        if accepted && !refused { Ok(Some(said)) } else { Err(said) }
    }
}

/// What is said of a regime in which nothing is to be accepted; no event of the log.
fn not_collecting(state: &AssetState) -> Event {
    let text = match &state.stage {
        Stage::Scoring(scoring) => format!("it is learned already, its baseline is {}", scoring.baseline_id),
        Stage::Refused(reason) => format!("its commissioning was refused: {reason}; it begins anew with `hark event maintenance`"),
        Stage::Commissioning(_) => "it has no usable row; commissioning goes on".to_owned(),
    };
    Event { text: Some(text.into()), ..Event::new(EventKind::Commissioning) }
}

/// The event of a commissioning that nobody can end yet.
fn too_few_rows(refusal: &Refusal, actor: Option<&Name>) -> Event {
    Event {
        what: Some("too_few_rows".into()),
        text: Some(format!("{refusal}; commissioning goes on").into()),
        result: Some("refused".into()),
        actor: actor.cloned(),
        ..Event::new(EventKind::Commissioning)
    }
}

/// The event of another operating state; the point that tells it may be contradicted by the others.
fn changed(change: Change, contradicted: Option<&Name>) -> Event {
    let Change { from, to, .. } = change;
    let regime = to.regime.map(Regime::name);
    let state = match to.state {
        OperatingState::Unknown if contradicted.is_some() => {
            "is in a state that is not known: the point that tells it says that it does not run, and most of the others go on as they did while it ran"
        }
        OperatingState::Unknown => "is in a state that is not known: the point that tells it has no usable value",
        OperatingState::Off => "is off",
        OperatingState::Idle => "is idle",
        OperatingState::Running => "is running",
        OperatingState::Transient => "is starting, stopping or changing its load",
    };
    let of_regime = regime.as_ref().filter(|_| to.state == OperatingState::Running).map_or_else(String::new, |regime| format!(", regime `{regime}`"));
    Event {
        text: Some(format!("the machine {state}{of_regime}").into()),
        state: Some(to.state),
        detail_json: Some(json!({ "state": to.state, "previous": from, "regime": regime.as_deref() }).to_string().into()),
        ..Event::new(EventKind::OperatingState)
    }
}

/// The event of a regime that commissioning has not seen.
fn unseen(regime: Regime, asset: &config::Asset) -> Event {
    let (state, name) = (if regime == Regime::Idle { OperatingState::Idle } else { OperatingState::Running }, regime.name());
    let (point, low, high) = span(regime, asset.operating.as_ref());
    let text = format!(
        "the machine is in a regime that its commissioning has not seen: `{name}`{}; no score and no alarm until {} rows of it are learned",
        point.as_ref().map_or_else(String::new, |point| format!(", `{point}` {}", words(low, high))),
        asset.commissioning.rows
    );
    Event {
        what: Some("unseen_regime".into()),
        text: Some(text.into()),
        state: Some(state),
        detail_json: Some(json!({ "regime": *name, "point": point.as_deref(), "low": low, "high": high }).to_string().into()),
        ..Event::new(EventKind::OperatingState)
    }
}

/// The point that tells the load, and where the regime begins and ends.
fn span(regime: Regime, operating: Option<&config::Operating>) -> (Option<Name>, Option<f64>, Option<f64>) {
    let (Regime::Load(band), Some(load)) = (regime, operating.and_then(|operating| operating.load.as_ref())) else { return (None, None, None) };
    let bound = |index: usize| load.bounds.get(index).map(|bound| bound.reached_at);
    let band = usize::from(band);
    (Some(load.point.clone()), band.checked_sub(1).and_then(bound), bound(band))
}

fn words(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (None, Some(high)) => format!("below {high}"),
        (Some(low), None) => format!("from {low} on"),
        (Some(low), Some(high)) => format!("from {low} to {high}"),
        (None, None) => String::new(),
    }
}
