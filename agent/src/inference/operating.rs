//! Operating state: off, idle, running or transient, told from one point in event time; and in running the load regime.
//!
//! Each threshold has a deadband, so noise at one does not flap. After every change of level or load, and while the point moves faster than the
//! configured rate, the machine is transient until nothing has changed for `settle`. Without a usable value within the point's stale limit the state is
//! unknown, and what comes next may be another one: it settles first. It is unknown too where the point says that the machine is off or idle and the others
//! go on for long as they did while it ran: its sensor may be dead, and what is off is heard of nobody.
use std::collections::VecDeque;

use hark_protocol::topics::{Name, OperatingState, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    asset::{micros, stale_of},
    grid::LATE_RUN_MAX,
    still::RunningOn,
};
use crate::config::{self, Threshold};

/// A move is measured from so many values within `settle`.
const REFERENCES: i64 = 8;
/// So long, or for so many times `settle`, the others contradict the point before it is not believed. A machine that runs down leaves what was learned of its
/// running within seconds, be it for minutes until it stands; this is longer than any of its points then passes through that again.
const CONTRADICTED_FOR_US: i64 = 300_000_000;
const CONTRADICTED_FOR_SETTLES: i64 = 10;

/// Rows of one regime are like one another; each regime has weights of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Regime {
    /// Idle, where it is scored.
    Idle,
    /// All of running, where no load is configured.
    Running,
    /// Running with the load between two bounds; 0 is below the first.
    Load(u8),
}

/// State and regime at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// The state.
    pub state: OperatingState,
    /// `None` unless rows of then can be learned and scored.
    pub regime: Option<Regime>,
}

/// The state became another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Before.
    pub from: OperatingState,
    /// From now on.
    pub to: Condition,
    /// The machine was told off or idle, and now it runs.
    pub is_start: bool,
}

/// What is known of the operating state of one asset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Operating {
    settings: config::Operating,
    stale_us: StaleOf,
    level: Signal,
    load: Signal,
    /// The last change of either, or the last quick move.
    changed: Option<Timestamp>,
    /// Values that a move of the point is measured from, one for each part of `settle`, the oldest first.
    references: VecDeque<(Timestamp, f64)>,
    /// What was told last, and how far time has come for it.
    told: OperatingState,
    told_at: Option<Timestamp>,
    /// It was told off or idle since it was told running last.
    stood: bool,
    contradiction: Contradiction,
}

/// How long the other points have said that the machine runs, less the time in which they did not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Contradiction {
    weighed: Option<Timestamp>,
    for_us: i64,
    holds: bool,
}

/// How old a value may be, microseconds, of the point that tells the state and of the one that tells the load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct StaleOf {
    pub(super) level: i64,
    pub(super) load: i64,
}

impl StaleOf {
    pub(super) fn new(settings: &config::Operating, asset: &config::Asset) -> Self {
        let load = settings.load.as_ref().map_or(&settings.point, |load| &load.point);
        Self { level: stale_of(asset, &settings.point), load: stale_of(asset, load) }
    }
}

/// A point against thresholds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Signal {
    /// Thresholds reached, and the time of the newest value.
    last: Option<(usize, Timestamp)>,
    late_run: u32,
}

/// What a value shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is older than another one and changes nothing.
    Late,
    Same,
    Changed,
    /// So many were late that the clock was set back.
    SetBack,
}

impl Regime {
    /// Its name in records, unique within the asset.
    pub(super) fn name(self) -> Name {
        match self {
            Self::Idle => "idle".into(),
            Self::Running => "running".into(),
            Self::Load(band) => format!("load-{}", u32::from(band) + 1).into(),
        }
    }
}

impl Signal {
    fn take(&mut self, ts: Timestamp, value: f64, thresholds: &[Threshold], stale_us: i64) -> Seen {
        let late = self.last.is_some_and(|(_, last)| ts < last);
        self.late_run = if late { self.late_run + 1 } else { 0 };
        if late && self.late_run < LATE_RUN_MAX {
            return Seen::Late;
        }
        // A clock that was set back, or a silence: what was reached before says nothing of now.
        let before = self.last.filter(|(_, last)| !late && ts.0.saturating_sub(last.0) <= stale_us).map(|(band, _)| band);
        let reached = |&(index, threshold): &(usize, &Threshold)| {
            let held = before.is_some_and(|before| before > index);
            value >= if held { threshold.left_below } else { threshold.reached_at }
        };
        let band = thresholds.iter().enumerate().filter(reached).map(|(index, _)| index + 1).max().unwrap_or(0);
        (self.last, self.late_run) = (Some((band, ts)), 0);
        match before {
            _ if late => Seen::SetBack,
            Some(before) if before == band => Seen::Same,
            _ => Seen::Changed,
        }
    }

    /// Thresholds reached as far as is known at `ts`.
    fn band(&self, ts: Timestamp, stale_us: i64) -> Option<usize> {
        self.last.filter(|(_, last)| ts.0.saturating_sub(last.0) <= stale_us).map(|(band, _)| band)
    }
}

impl Operating {
    /// Nothing known yet. Values older than `stale_us` say nothing.
    pub(super) fn new(settings: config::Operating, stale_us: StaleOf) -> Self {
        let [level, load] = [Signal::default(), Signal::default()];
        Self {
            settings,
            stale_us,
            level,
            load,
            changed: None,
            references: VecDeque::new(),
            told: OperatingState::Unknown,
            told_at: None,
            stood: false,
            contradiction: Contradiction::default(),
        }
    }

    /// From now on `settings` hold, whose regimes are the same.
    pub(super) fn configure(&mut self, settings: &config::Operating, stale_us: StaleOf) {
        (self.settings, self.stale_us) = (settings.clone(), stale_us);
    }

    /// How it is told.
    pub(super) fn settings(&self) -> &config::Operating {
        &self.settings
    }

    /// What was before is not continued; what was told stays told.
    pub(super) fn restart(&mut self) {
        *self = Self { told: self.told, stood: self.stood, ..Self::new(self.settings.clone(), self.stale_us) };
    }

    /// Takes a usable value of `point`. True where the state depends on this point.
    pub(super) fn observe(&mut self, point: &str, ts: Timestamp, value: f64) -> bool {
        let is_level = *self.settings.point == *point;
        if is_level {
            let thresholds: Vec<Threshold> = self.settings.idle.into_iter().chain([self.settings.running]).collect();
            let seen = self.level.take(ts, value, &thresholds, self.stale_us.level);
            let moved = seen != Seen::Late && self.moved(ts, value);
            self.note(ts, if moved && seen == Seen::Same { Seen::Changed } else { seen });
        }
        let load = self.settings.load.as_ref().filter(|load| *load.point == *point);
        let is_load = load.is_some();
        if let Some(load) = load {
            let seen = self.load.take(ts, value, &load.bounds, self.stale_us.load);
            self.note(ts, seen);
        }
        is_level || is_load
    }

    /// Weighs what the point says at `ts` against the others. Idle is much like running, so all of them must say so; of a stop most.
    pub(super) fn weigh(&mut self, ts: Timestamp, RunningOn { points, of }: RunningOn) {
        let is_contradicted = match self.state_by_point(ts) {
            OperatingState::Off => points > 1 && 2 * points > of,
            OperatingState::Idle => points > 1 && points == of,
            // It may be about to say either.
            OperatingState::Transient => return self.contradiction.weighed = Some(ts),
            OperatingState::Running | OperatingState::Unknown => return self.contradiction = Contradiction::default(),
        };
        let after_us = CONTRADICTED_FOR_US.max(CONTRADICTED_FOR_SETTLES.saturating_mul(micros(self.settings.settle)));
        let Contradiction { weighed, for_us, holds } = &mut self.contradiction;
        // Of a silence nothing is known.
        let passed_us = weighed.replace(ts).map_or(0, |before| ts.0.saturating_sub(before.0).clamp(0, self.stale_us.level));
        *for_us = (*for_us + if is_contradicted { passed_us } else { -passed_us }).clamp(0, after_us);
        *holds = *for_us == after_us || *holds && *for_us > 0;
    }

    /// The point that tells the state, where the others contradict it.
    pub(super) fn contradicted(&self) -> Option<&Name> {
        self.contradiction.holds.then_some(&self.settings.point)
    }

    fn note(&mut self, ts: Timestamp, seen: Seen) {
        match seen {
            Seen::Late | Seen::Same => {}
            Seen::Changed => self.changed = Some(ts),
            Seen::SetBack => (self.changed, self.told_at) = (Some(ts), None),
        }
    }

    /// Whether the point moved faster than is steady, measured over `settle` at least: the noise of neighbouring values is no move. A move that goes on
    /// faster than that is told within `settle` of its beginning.
    fn moved(&mut self, ts: Timestamp, value: f64) -> bool {
        let Some(rate) = self.settings.steady_rate else { return false };
        let (settle_us, references) = (micros(self.settings.settle), &mut self.references);
        let elapsed_us = |from: Timestamp| ts.0.saturating_sub(from.0);
        // One that is as old as `settle` is kept, however old; later ones are of a clock that was set back.
        while references.get(1).is_some_and(|&(second, _)| elapsed_us(second) >= settle_us)
            || references.front().is_some_and(|&(first, _)| ts < first)
        {
            references.pop_front();
        }
        let is_far = |&(from, before): &(Timestamp, f64)| (value - before).abs() > rate * elapsed_us(from).max(settle_us) as f64 / 1e6;
        let moved = references.iter().any(is_far);
        if moved {
            references.clear();
        }
        if references.back().is_none_or(|&(newest, _)| elapsed_us(newest) >= settle_us / REFERENCES) {
            references.push_back((ts, value));
        }
        moved
    }

    /// State and regime at `ts`, by all that is known by now: a row before a change that was seen since is not steady either.
    pub(super) fn at(&self, ts: Timestamp) -> Condition {
        let state = self.state(ts);
        let regime = match (state, &self.settings.load) {
            (OperatingState::Running, None) => Some(Regime::Running),
            (OperatingState::Running, Some(_)) => self.load.band(ts, self.stale_us.load).and_then(|band| u8::try_from(band).ok()).map(Regime::Load),
            (OperatingState::Idle, _) => self.settings.score_idle.then_some(Regime::Idle),
            _ => None,
        };
        Condition { state, regime }
    }

    fn state(&self, ts: Timestamp) -> OperatingState {
        match self.state_by_point(ts) {
            OperatingState::Off | OperatingState::Idle if self.contradiction.holds => OperatingState::Unknown,
            state => state,
        }
    }

    fn state_by_point(&self, ts: Timestamp) -> OperatingState {
        let Some((level, changed)) = self.level.band(ts, self.stale_us.level).zip(self.changed) else { return OperatingState::Unknown };
        if ts.0.saturating_sub(changed.0) < micros(self.settings.settle) || ts < changed {
            return OperatingState::Transient;
        }
        match (level, self.settings.idle) {
            (0, _) => OperatingState::Off,
            (1, Some(_)) => OperatingState::Idle,
            _ => OperatingState::Running,
        }
    }

    /// Lets time come to `ts`; gives what changed since it was asked last. Time does not go back here, other than after [`Self::restart`].
    pub(super) fn pass(&mut self, ts: Timestamp) -> Option<Change> {
        let now = self.told_at.map_or(ts, |told_at| told_at.max(ts));
        self.told_at = Some(now);
        let to = self.at(now);
        let from = std::mem::replace(&mut self.told, to.state);
        let is_start = to.state == OperatingState::Running && self.stood;
        self.stood = match to.state {
            OperatingState::Off | OperatingState::Idle => true,
            OperatingState::Running => false,
            OperatingState::Transient | OperatingState::Unknown => self.stood,
        };
        (from != to.state).then_some(Change { from, to, is_start })
    }

    /// The points, of state and of load, that say nothing at `ts`.
    pub(super) fn missing(&self, ts: Timestamp) -> impl Iterator<Item = &Name> {
        let level = self.level.band(ts, self.stale_us.level).is_none().then_some(&self.settings.point);
        let load = self.settings.load.as_ref().filter(|_| self.load.band(ts, self.stale_us.load).is_none()).map(|load| &load.point);
        level.into_iter().chain(load)
    }

    /// What was told last.
    pub(super) fn told(&self) -> OperatingState {
        self.told
    }
}

#[cfg(test)]
mod tests;
