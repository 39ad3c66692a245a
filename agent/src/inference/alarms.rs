//! The alarms of one asset: what is watched, what is silenced (ISA-18.2-2016, states F, G and H), and the case that collects what belongs together.
//!
//! A condition goes on being judged while its alarm is silenced; only what is shown changes. When a shelving ends, or the asset returns to service, what
//! still holds is shown again as unacknowledged, and with a latch what returned meanwhile. That needs the condition to apply: where the limits of a point do not, since the machine is known not to
//! run (suppressed by design) or the instrument is worked on (out of service), its alarm belongs to no case, counts as none of the machine's, and is judged
//! anew once they apply again.
use std::{cmp::Reverse, collections::BTreeMap};

use hark_protocol::topics::{AlarmState, Name, Priority, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    alarm::{AlarmTimer, Delays},
    evidence::Evidence,
};
use crate::config::{Level, Limits};

/// What an alarm is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Condition {
    /// The anomaly score is over its limit.
    Anomaly,
    /// A point is beyond one of its limits.
    Limit(Name, Level),
    /// An end that has a name is likely within the first horizon.
    Forecast,
}

impl Condition {
    /// The point whose limit it is.
    fn point(&self) -> Option<&Name> {
        if let Self::Limit(point, _) = self { Some(point) } else { None }
    }

    /// A score alone says that something is unusual and not what, hence advice; a limit was set by someone who knows what to do about it.
    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::Anomaly => Priority::Advice,
            Self::Limit(_, Level::Low | Level::High) | Self::Forecast => Priority::Medium,
            Self::Limit(_, Level::LowLow | Level::HighHigh) => Priority::High,
        }
    }
}

/// What is not to be heard of, by the decision of a person or by design.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Silence {
    /// For a time, which always ends.
    Shelved { until: Timestamp },
    /// The asset, or the instrument, is being worked on; without an end it is returned by a person.
    OutOfService { until: Option<Timestamp> },
    /// It does not apply in the present operating state, as configured.
    Suppressed,
}

impl Silence {
    fn state(self) -> AlarmState {
        match self {
            Self::Shelved { .. } => AlarmState::Shelved,
            Self::OutOfService { .. } => AlarmState::OutOfService,
            Self::Suppressed => AlarmState::Suppressed,
        }
    }

    fn until(self) -> Option<Timestamp> {
        match self {
            Self::Shelved { until } => Some(until),
            Self::OutOfService { until } => until,
            Self::Suppressed => None,
        }
    }
}

/// An alarm as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) condition: Condition,
    pub(super) state: AlarmState,
    /// Before a change; else the same as `state`.
    pub(super) previous: AlarmState,
    pub(super) alarm_id: Name,
    pub(super) case_id: Option<Name>,
    pub(super) since: Timestamp,
    pub(super) until: Option<Timestamp>,
    /// How often it was raised within how many microseconds, where it chatters.
    pub(super) chatter: Option<(usize, i64)>,
    pub(super) evidence: Option<Evidence>,
}

/// All alarms of an asset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Alarms {
    timers: BTreeMap<Condition, AlarmTimer>,
    /// Silence of single conditions.
    shelved: BTreeMap<Condition, Silence>,
    /// Silence of the limits of single points, which do not apply meanwhile.
    inapplicable: BTreeMap<Name, Silence>,
    /// Silence of all of them.
    silenced: Option<Silence>,
    /// Opened by the first alarm, closed when none is left: its id is that of the first.
    case: Option<Name>,
}

impl Alarms {
    /// Judges one condition at event time `ts`; see [`AlarmTimer::update`]. Gives the alarm if what is shown of it has changed.
    pub(super) fn update(
        &mut self,
        condition: &Condition,
        (holds, evidence): (bool, Evidence),
        ts: Timestamp,
        delays: Delays,
        new_id: impl FnOnce() -> Name,
    ) -> Option<Shown> {
        // A condition that never held needs no place: most limits never alarm.
        if !holds && !self.timers.contains_key(condition) {
            return None;
        }
        let (before, applies) = (self.shown_state(condition), self.applies(condition));
        let is_heard = self.silence_of(condition).is_none();
        let timer = self.timers.entry(condition.clone()).or_default();
        timer.evidence = Some(evidence);
        if timer.update(holds, ts, delays, new_id) && is_heard {
            timer.tell(ts, delays);
        }
        if timer.is_active() && applies && self.case.is_none() {
            self.case = timer.alarm_id().cloned();
        }
        let changed = self.changed(condition, before);
        self.close_case();
        changed
    }

    /// Whether its alarm stands; see [`AlarmTimer::stands`].
    pub(super) fn stands(&self, condition: &Condition) -> bool {
        self.timers.get(condition).is_some_and(AlarmTimer::stands)
    }

    /// A person has seen the alarm with this id, or all that are shown.
    pub(super) fn acknowledge(&mut self, alarm_id: Option<&Name>) -> Vec<Shown> {
        let waits = |state| matches!(state, AlarmState::ActiveUnacknowledged | AlarmState::ReturnedUnacknowledged);
        let meant = self.meant(alarm_id);
        let meant: Vec<Condition> = meant.into_iter().filter(|condition| waits(self.shown_state(condition))).collect();
        self.change(&meant, |alarms| {
            for condition in &meant {
                alarms.timers.get_mut(condition).into_iter().for_each(AlarmTimer::acknowledge);
            }
        })
    }

    /// Silences the alarm with this id, or the whole asset: out of service all that may come, shelved what stands now, for nobody has seen what is to come.
    ///
    /// # Errors
    /// A word for a person if there is no such alarm, or the asset is out of service already, which shelving would end.
    pub(super) fn silence(&mut self, alarm_id: Option<&Name>, silence: Silence) -> Result<Vec<Shown>, &'static str> {
        let meant = self.meant(alarm_id);
        if alarm_id.is_some() && meant.is_empty() {
            return Err("there is no such alarm");
        }
        if matches!((self.silenced, silence), (Some(Silence::OutOfService { .. }), Silence::Shelved { .. })) {
            return Err("the asset is out of service, and silent as long as that lasts");
        }
        let is_whole = alarm_id.is_none() && !matches!(silence, Silence::Shelved { .. });
        let standing: Vec<Condition> = meant.iter().filter(|condition| self.is_standing(condition)).cloned().collect();
        if !is_whole && standing.is_empty() {
            return Err("no alarm of it stands; what is still to come is silenced by taking it out of service");
        }
        Ok(self.change(&meant, |alarms| {
            if is_whole {
                alarms.silenced = Some(silence);
            } else {
                alarms.shelved.extend(standing.into_iter().map(|condition| (condition, silence)));
            }
        }))
    }

    /// Ends what [`Self::silence`] began, where it is of the state `kind`; with `latch`, what returned meanwhile waits for a person.
    ///
    /// # Errors
    /// A word for a person if nothing was silenced.
    pub(super) fn end_silence(&mut self, alarm_id: Option<&Name>, kind: AlarmState, latch: bool) -> Result<Vec<Shown>, &'static str> {
        let meant = self.meant(alarm_id);
        let is_kind = |silence: &Silence| silence.state() == kind;
        let is_meant = meant.iter().any(|condition| self.shelved.get(condition).is_some_and(is_kind));
        if !is_meant && (alarm_id.is_some() || !self.silenced.as_ref().is_some_and(is_kind)) {
            return Err("nothing of it is silenced so");
        }
        Ok(self.end_where(&meant, |silence| silence.state() == kind, alarm_id.is_none(), latch))
    }

    /// From now on the limits of these points, and of no others, do not apply, and their alarms are silenced so. Those of other points apply again, and are
    /// judged anew; with `latch` an alarm that was seen waits for a person once more.
    pub(super) fn set_inapplicable(&mut self, points: BTreeMap<Name, Silence>, latch: bool) -> Vec<Shown> {
        if self.inapplicable == points {
            return Vec::new();
        }
        self.change(&self.meant(None), |alarms| {
            let before = std::mem::replace(&mut alarms.inapplicable, points);
            for (condition, timer) in &mut alarms.timers {
                if condition.point().is_some_and(|point| before.contains_key(point) && !alarms.inapplicable.contains_key(point)) {
                    timer.apply_again(latch);
                }
            }
        })
    }

    /// Ends what was silenced until `now` at most, as [`Self::end_silence`] does.
    pub(super) fn pass(&mut self, now: Timestamp, latch: bool) -> Vec<Shown> {
        let over = |silence: Silence| silence.until().is_some_and(|until| until <= now);
        if !self.silenced.is_some_and(over) && !self.shelved.values().any(|silence| over(*silence)) {
            return Vec::new();
        }
        self.end_where(&self.meant(None), over, true, latch)
    }

    /// When the next silence ends by itself.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.shelved.values().chain(&self.silenced).filter_map(|silence| silence.until()).min()
    }

    /// The condition is watched no longer.
    pub(super) fn end(&mut self, condition: &Condition) -> Option<Shown> {
        let before = self.shown_state(condition);
        self.timers.get_mut(condition)?.end();
        self.shelved.remove(condition);
        let changed = self.changed(condition, before);
        self.close_case();
        changed
    }

    /// Nothing is watched any more.
    pub(super) fn end_all(&mut self) -> Vec<Shown> {
        self.meant(None).iter().filter_map(|condition| self.end(condition)).collect()
    }

    /// Conditions of points that are watched no longer after a change of the configuration.
    pub(super) fn end_unwatched(&mut self, is_watched: impl Fn(&Condition) -> bool) -> Vec<Shown> {
        self.meant(None).iter().filter(|condition| !is_watched(condition)).filter_map(|condition| self.end(condition)).collect()
    }

    pub(super) fn restart_delays(&mut self) {
        self.timers.values_mut().for_each(AlarmTimer::restart_delays);
    }

    /// The delays of one condition alone begin anew: it is not judged for a while.
    pub(super) fn restart_delays_of(&mut self, condition: &Condition) {
        self.timers.get_mut(condition).into_iter().for_each(AlarmTimer::restart_delays);
    }

    /// The alarm of this condition is active, whether it is silenced or not.
    pub(super) fn is_active_for(&self, condition: &Condition) -> bool {
        self.timers.get(condition).is_some_and(AlarmTimer::is_active)
    }

    /// Whether an alarm that is heard began what the value of its point does: the first of those on the same side of its limits, by time. Scores and
    /// forecasts stand for themselves.
    pub(super) fn begins_excursion(&self, condition: &Condition) -> bool {
        let Condition::Limit(point, level) = condition else { return true };
        let Some(began) = self.timers.get(condition).map(|timer| (timer.since(), condition)) else { return true };
        let of_same = Level::ALL.into_iter().filter(|other| other.is_upper() == level.is_upper()).map(|level| Condition::Limit(point.clone(), level));
        let is_earlier = |other: Condition| {
            let is_heard = self.is_active_for(&other) && self.silence_of(&other).is_none();
            is_heard && self.timers.get(&other).is_some_and(|timer| (timer.since(), &other) < began)
        };
        !of_same.into_iter().any(is_earlier)
    }

    /// A condition holds, whether a person has silenced it or not; one that does not apply does not.
    pub(super) fn is_active(&self) -> bool {
        self.timers.iter().any(|(condition, timer)| timer.is_active() && self.applies(condition))
    }

    /// A point is beyond one of its limits, and was for long enough; a limit that does not apply does not count.
    pub(super) fn is_beyond_limit(&self) -> bool {
        self.timers.iter().any(|(condition, timer)| condition.point().is_some() && timer.is_active() && self.applies(condition))
    }

    /// One of them asks for a response: a bare anomaly is advice, and no alarm in the sense of ISA-18.2.
    pub(super) fn is_alarm(&self) -> bool {
        self.timers.iter().any(|(condition, timer)| timer.is_active() && self.applies(condition) && condition.priority() > Priority::Advice)
    }

    /// What is shown, the most urgent first, then the oldest; behind it what is silenced while it holds.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.timers.iter().filter_map(|(condition, timer)| self.shown_of(condition, timer)).collect();
        shown.retain(|alarm| alarm.state != AlarmState::Normal);
        let order = |shown: &Shown| (shown.state.is_silenced(), Reverse(shown.condition.priority()), shown.since, shown.condition.clone());
        shown.sort_by_cached_key(order);
        shown
    }

    /// The state that stands for the asset: that of its most urgent alarm, or why it has none.
    pub(super) fn state(&self) -> AlarmState {
        let of_all = self.silenced.map(Silence::state);
        of_all.or_else(|| Some(self.shown().first()?.state)).unwrap_or(AlarmState::Normal)
    }

    /// There is no alarm, no case, and nobody has silenced the asset.
    pub(super) fn is_quiet(&self) -> bool {
        self.case.is_none() && self.silenced.is_none()
    }

    /// The open case.
    pub(super) fn case_id(&self) -> Option<&Name> {
        self.case.as_ref()
    }

    fn meant(&self, alarm_id: Option<&Name>) -> Vec<Condition> {
        let is_meant = |timer: &AlarmTimer| alarm_id.is_none() || (timer.state() != AlarmState::Normal && timer.alarm_id() == alarm_id);
        self.timers.iter().filter(|(_, timer)| is_meant(timer)).map(|(condition, _)| condition.clone()).collect()
    }

    fn end_where(&mut self, meant: &[Condition], over: impl Fn(Silence) -> bool, of_all: bool, latch: bool) -> Vec<Shown> {
        self.change(meant, |alarms| {
            // What was heard all the time stays as it is.
            let silent: Vec<&Condition> = meant.iter().filter(|condition| alarms.silence_of(condition).is_some()).collect();
            if of_all && alarms.silenced.is_some_and(&over) {
                alarms.silenced = None;
            }
            for condition in silent {
                if alarms.shelved.get(condition).copied().is_some_and(&over) {
                    alarms.shelved.remove(condition);
                }
                if alarms.silence_of(condition).is_none() {
                    alarms.timers.get_mut(condition).into_iter().for_each(|timer| timer.show_again(latch));
                }
            }
        })
    }

    /// Does `change` and gives what of `meant` is shown otherwise afterwards.
    fn change(&mut self, meant: &[Condition], change: impl FnOnce(&mut Self)) -> Vec<Shown> {
        let before: Vec<AlarmState> = meant.iter().map(|condition| self.shown_state(condition)).collect();
        change(self);
        let changed = meant.iter().zip(before).filter_map(|(condition, before)| self.changed(condition, before)).collect();
        self.close_case();
        changed
    }

    fn changed(&self, condition: &Condition, before: AlarmState) -> Option<Shown> {
        let shown = self.shown_of(condition, self.timers.get(condition)?)?;
        (shown.state != before).then_some(Shown { previous: before, ..shown })
    }

    /// `None` for a condition that never was an alarm.
    fn shown_of(&self, condition: &Condition, timer: &AlarmTimer) -> Option<Shown> {
        let state = self.shown_state(condition);
        Some(Shown {
            condition: condition.clone(),
            state,
            previous: state,
            alarm_id: timer.alarm_id()?.clone(),
            case_id: self.case.clone(),
            since: timer.since(),
            until: self.silence_of(condition).and_then(Silence::until),
            chatter: timer.chatter(),
            evidence: timer.evidence.clone(),
        })
    }

    fn is_standing(&self, condition: &Condition) -> bool {
        self.timers.get(condition).is_some_and(|timer| timer.state() != AlarmState::Normal)
    }

    /// What does not hold is normal, whatever is silenced.
    fn shown_state(&self, condition: &Condition) -> AlarmState {
        let state = self.timers.get(condition).map_or(AlarmState::Normal, AlarmTimer::state);
        let silence = if state == AlarmState::Normal { None } else { self.silence_of(condition) };
        silence.map_or(state, Silence::state)
    }

    fn silence_of(&self, condition: &Condition) -> Option<Silence> {
        let of_condition = || self.shelved.get(condition).copied();
        self.silenced.or_else(of_condition).or_else(|| self.inapplicable.get(condition.point()?).copied())
    }

    fn applies(&self, condition: &Condition) -> bool {
        !condition.point().is_some_and(|point| self.inapplicable.contains_key(point))
    }

    /// What was told before it ceased to apply belongs to its case still.
    fn close_case(&mut self) {
        let is_over =
            |(condition, timer): (&Condition, &AlarmTimer)| timer.state() == AlarmState::Normal || !(self.applies(condition) || timer.is_told());
        if self.timers.iter().all(is_over) {
            self.case = None;
        }
    }
}

/// Whether `value` is beyond the limit of `level`, given whether it `was`: it is back only behind the deadband. `None` where there is no such limit.
pub(super) fn is_beyond(limits: &Limits, level: Level, value: f64, was: bool) -> Option<bool> {
    let limit = limits.of(level)?;
    let back = if was { limits.deadband } else { 0.0 };
    Some(match level {
        Level::High | Level::HighHigh => value > limit - back,
        Level::Low | Level::LowLow => value < limit + back,
    })
}

#[cfg(test)]
mod tests;
