//! The alarms of one asset: what is watched, what is silenced (ISA-18.2-2016, states F, G and H), and the case that collects what belongs together.
//!
//! A condition goes on being judged while its alarm is silenced; only what is shown changes. When a shelving ends, or the asset returns to service, what
//! still holds is shown again as unacknowledged. That needs the condition to apply: where the limits of a point do not, since the machine does not run
//! (suppressed by design) or the instrument is worked on (out of service), its alarm belongs to no case, counts as none of the machine's, and is judged
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
            Self::Limit(_, Level::Low | Level::High) => Priority::Medium,
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

impl Shown {
    fn is_silenced(&self) -> bool {
        matches!(self.state, AlarmState::Shelved | AlarmState::OutOfService | AlarmState::Suppressed)
    }
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

    /// Whether the condition held when it was judged last.
    pub(super) fn holds(&self, condition: &Condition) -> bool {
        self.timers.get(condition).is_some_and(AlarmTimer::holds)
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

    /// Silences the alarm with this id, or the whole asset.
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
        Ok(self.change(&meant.clone(), |alarms| match alarm_id {
            None => alarms.silenced = Some(silence),
            Some(_) => alarms.shelved.extend(meant.into_iter().map(|condition| (condition, silence))),
        }))
    }

    /// Ends what [`Self::silence`] began, where it is of the state `kind`.
    ///
    /// # Errors
    /// A word for a person if nothing was silenced.
    pub(super) fn end_silence(&mut self, alarm_id: Option<&Name>, kind: AlarmState) -> Result<Vec<Shown>, &'static str> {
        let meant = self.meant(alarm_id);
        let is_kind = |silence: &Silence| silence.state() == kind;
        let is_meant = meant.iter().any(|condition| self.shelved.get(condition).is_some_and(is_kind));
        if !is_meant && (alarm_id.is_some() || !self.silenced.as_ref().is_some_and(is_kind)) {
            return Err("nothing of it is silenced so");
        }
        Ok(self.end_where(&meant, |silence| silence.state() == kind, alarm_id.is_none()))
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

    /// Ends what was silenced until `now` at most.
    pub(super) fn pass(&mut self, now: Timestamp) -> Vec<Shown> {
        let over = |silence: Silence| silence.until().is_some_and(|until| until <= now);
        if !self.silenced.is_some_and(over) && !self.shelved.values().any(|silence| over(*silence)) {
            return Vec::new();
        }
        self.end_where(&self.meant(None), over, true)
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

    /// A condition holds, whether a person has silenced it or not; one that does not apply does not.
    pub(super) fn is_active(&self) -> bool {
        self.timers.iter().any(|(condition, timer)| timer.is_active() && self.applies(condition))
    }

    /// What is shown, the most urgent first, then the oldest; behind it what is silenced while it holds.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.timers.iter().filter_map(|(condition, timer)| self.shown_of(condition, timer)).collect();
        shown.retain(|alarm| alarm.state != AlarmState::Normal);
        let order = |shown: &Shown| (shown.is_silenced(), Reverse(shown.condition.priority()), shown.since, shown.condition.clone());
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

    fn end_where(&mut self, meant: &[Condition], over: impl Fn(Silence) -> bool, of_all: bool) -> Vec<Shown> {
        self.change(meant, |alarms| {
            if of_all && alarms.silenced.is_some_and(&over) {
                alarms.silenced = None;
            }
            for condition in meant {
                if alarms.shelved.get(condition).copied().is_some_and(&over) {
                    alarms.shelved.remove(condition);
                }
                if alarms.silence_of(condition).is_none() {
                    alarms.timers.get_mut(condition).into_iter().for_each(AlarmTimer::show_again);
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
mod tests {
    use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, OutOfService, ReturnedUnacknowledged, Shelved, Suppressed};
    use hark_protocol::topics::Quality;

    use super::*;

    const NOW: Delays = Delays { on_us: 0, off_us: 0, latch: false };

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn high() -> Condition {
        Condition::Limit("temperature".into(), Level::High)
    }

    fn judge(alarms: &mut Alarms, condition: &Condition, holds: bool, second: i64) -> Option<(AlarmState, AlarmState)> {
        let evidence = Evidence { value: 1.5, quality: Quality::Good, range: None, of_score: None };
        let shown = alarms.update(condition, (holds, evidence), at(second), NOW, || format!("{condition:?}{second}").into())?;
        Some((shown.previous, shown.state))
    }

    fn states(changes: &[Shown]) -> Vec<(AlarmState, AlarmState)> {
        changes.iter().map(|shown| (shown.previous, shown.state)).collect()
    }

    #[test]
    fn a_case_stays_open_until_no_alarm_is_left() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &Condition::Anomaly, true, 1);
        let first = alarms.shown()[0].alarm_id.clone();
        judge(&mut alarms, &high(), true, 2);
        assert!(alarms.shown().iter().all(|shown| shown.case_id.as_ref() == Some(&first)));
        assert_eq!(alarms.shown()[0].condition, high(), "the more urgent one comes first");
        assert_eq!(alarms.acknowledge(None).len(), 2);
        judge(&mut alarms, &Condition::Anomaly, false, 3);
        assert_eq!(alarms.case_id(), Some(&first));
        judge(&mut alarms, &high(), false, 4);
        assert_eq!((alarms.case_id(), alarms.state(), alarms.shown().len()), (None, Normal, 0));
        judge(&mut alarms, &high(), true, 5);
        assert!(alarms.case_id().is_some_and(|case| *case != first));
    }

    #[test]
    fn shelving_ends_by_itself_and_shows_what_still_holds() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        alarms.acknowledge(None);
        let id = alarms.shown()[0].alarm_id.clone();
        let until = Silence::Shelved { until: at(10) };
        assert!(alarms.silence(Some(&"other".into()), until).is_err());
        assert_eq!(states(&alarms.silence(Some(&id), until).unwrap()), [(ActiveAcknowledged, Shelved)]);
        assert_eq!((alarms.shown()[0].until, alarms.is_active()), (Some(at(10)), true));
        assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 5), Some((Normal, ActiveUnacknowledged)), "others are heard");
        assert_eq!(alarms.pass(at(9)), []);
        assert_eq!(states(&alarms.pass(at(10))), [(Shelved, ActiveUnacknowledged)]);
        assert_eq!(alarms.pass(at(11)), []);
    }

    #[test]
    fn what_comes_and_goes_while_silenced_is_not_shown() {
        let mut alarms = Alarms::default();
        alarms.silence(None, Silence::OutOfService { until: None }).unwrap();
        assert_eq!(alarms.state(), OutOfService);
        assert_eq!(judge(&mut alarms, &high(), true, 1), Some((Normal, OutOfService)), "it is told, and not as active");
        assert_eq!(judge(&mut alarms, &high(), false, 2), None);
        assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 3), Some((Normal, OutOfService)));
        assert_eq!(alarms.pass(at(1_000_000)), []);
        assert!(alarms.silence(None, Silence::Shelved { until: at(5) }).is_err(), "it would end what another person began");
        assert_eq!(alarms.end_silence(None, Shelved), Err("nothing of it is silenced so"));
        let shown = alarms.end_silence(None, OutOfService).unwrap();
        assert_eq!(states(&shown), [(OutOfService, ActiveUnacknowledged), (OutOfService, Normal)]);
    }

    #[test]
    fn an_unshelved_alarm_that_returned_is_over() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        let id = alarms.shown()[0].alarm_id.clone();
        alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
        judge(&mut alarms, &high(), false, 2);
        assert_eq!(states(&alarms.end_silence(Some(&id), Shelved).unwrap()), [(Shelved, Normal)]);
        judge(&mut alarms, &high(), true, 3);
        assert_eq!(judge(&mut alarms, &high(), false, 4), Some((ActiveUnacknowledged, ReturnedUnacknowledged)));
        assert_eq!(states(&alarms.end_all()), [(ReturnedUnacknowledged, Normal)]);
    }

    #[test]
    fn an_alarm_that_is_over_is_none_and_its_shelving_went_with_it() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        let id = alarms.shown()[0].alarm_id.clone();
        alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
        assert_eq!(alarms.end(&high()).map(|shown| shown.state), Some(Normal));
        assert_eq!(alarms.silence(Some(&id), Silence::Shelved { until: at(100) }), Err("there is no such alarm"));
        assert_eq!(judge(&mut alarms, &high(), true, 2), Some((Normal, ActiveUnacknowledged)));
    }

    #[test]
    fn the_silence_of_all_does_not_end_by_that_of_one() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        let id = alarms.shown()[0].alarm_id.clone();
        alarms.silence(None, Silence::Shelved { until: at(100) }).unwrap();
        assert_eq!(alarms.end_silence(Some(&id), Shelved), Err("nothing of it is silenced so"));
        assert_eq!((alarms.state(), states(&alarms.end_silence(None, Shelved).unwrap())), (Shelved, vec![(Shelved, ActiveUnacknowledged)]));
    }

    #[test]
    fn the_end_of_one_silence_shows_nothing_that_another_hides() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        let id = alarms.shown()[0].alarm_id.clone();
        alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
        alarms.silence(None, Silence::OutOfService { until: None }).unwrap();
        judge(&mut alarms, &high(), false, 2);
        assert_eq!(states(&alarms.end_silence(None, OutOfService).unwrap()), [(OutOfService, Shelved)]);
        // Nobody was told of what began while it did not apply; that goes on.
        let mut alarms = Alarms::default();
        suppress(&mut alarms, true);
        judge(&mut alarms, &high(), true, 1);
        let in_hand = BTreeMap::from([("temperature".into(), Silence::OutOfService { until: None })]);
        assert_eq!(states(&alarms.set_inapplicable(in_hand, false)), [(Suppressed, OutOfService)]);
    }

    #[test]
    fn of_equals_the_oldest_stands_first() {
        let mut alarms = Alarms::default();
        let of = |point: &str| Condition::Limit(point.into(), Level::Low);
        judge(&mut alarms, &of("b"), true, 1);
        judge(&mut alarms, &of("a"), true, 2);
        judge(&mut alarms, &Condition::Anomaly, true, 0);
        assert_eq!(alarms.shown().into_iter().map(|shown| shown.condition).collect::<Vec<_>>(), [of("b"), of("a"), Condition::Anomaly]);
    }

    #[test]
    fn what_is_far_beyond_is_urgent_and_a_score_is_advice() {
        let of = |level| Condition::Limit("a".into(), level).priority();
        assert_eq!(Level::ALL.map(of), [Priority::High, Priority::Medium, Priority::Medium, Priority::High]);
        assert_eq!(Condition::Anomaly.priority(), Priority::Advice);
    }

    fn suppress(alarms: &mut Alarms, is_suppressed: bool) -> Vec<(AlarmState, AlarmState)> {
        let points = if is_suppressed { BTreeMap::from([("temperature".into(), Silence::Suppressed)]) } else { BTreeMap::new() };
        states(&alarms.set_inapplicable(points, false))
    }

    #[test]
    fn what_does_not_apply_is_shown_as_suppressed_and_is_no_alarm_of_the_machine() {
        let mut alarms = Alarms::default();
        assert_eq!(suppress(&mut alarms, true), []);
        assert_eq!(judge(&mut alarms, &high(), true, 1), Some((Normal, Suppressed)));
        assert_eq!((alarms.state(), alarms.is_active(), alarms.case_id()), (Suppressed, false, None));
        assert_eq!(alarms.acknowledge(None), []);
        // An alarm that somebody should look at stands before it, however urgent that would be.
        assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 2), Some((Normal, ActiveUnacknowledged)), "it is of no point");
        assert_eq!(alarms.shown().iter().map(|shown| shown.state).collect::<Vec<_>>(), [ActiveUnacknowledged, Suppressed]);
        assert_eq!((alarms.state(), alarms.case_id().is_some()), (ActiveUnacknowledged, true));
        judge(&mut alarms, &Condition::Anomaly, false, 3);
        alarms.acknowledge(None);
        assert_eq!(alarms.case_id(), None, "it is of no case");
        // Nobody heard of it: it is over, and what holds on is another one.
        assert_eq!(suppress(&mut alarms, false), [(Suppressed, Normal)]);
        assert_eq!(judge(&mut alarms, &high(), true, 4), Some((Normal, ActiveUnacknowledged)));
        assert_eq!((alarms.is_active(), alarms.case_id().is_some()), (true, true));
    }

    #[test]
    fn an_alarm_that_nobody_has_seen_waits_for_a_person_after_its_suppression() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        let case = alarms.case_id().cloned();
        assert_eq!(suppress(&mut alarms, true), [(ActiveUnacknowledged, Suppressed)]);
        assert_eq!((alarms.is_active(), alarms.case_id() == case.as_ref()), (false, true));
        assert_eq!(suppress(&mut alarms, false), [(Suppressed, ReturnedUnacknowledged)]);
        assert_eq!(alarms.case_id(), case.as_ref());
        assert_eq!((states(&alarms.acknowledge(None)), alarms.case_id()), (vec![(ReturnedUnacknowledged, Normal)], None));
    }

    #[test]
    fn of_two_silences_the_one_of_a_person_is_told_and_the_other_outlasts_it() {
        let mut alarms = Alarms::default();
        judge(&mut alarms, &high(), true, 1);
        let id = alarms.shown()[0].alarm_id.clone();
        alarms.silence(Some(&id), Silence::Shelved { until: at(10) }).unwrap();
        assert_eq!(suppress(&mut alarms, true), []);
        assert_eq!(states(&alarms.pass(at(10))), [(Shelved, Suppressed)]);
        let in_hand = BTreeMap::from([("temperature".into(), Silence::OutOfService { until: Some(at(20)) })]);
        assert_eq!(states(&alarms.set_inapplicable(in_hand, false)), [(Suppressed, OutOfService)]);
        assert_eq!((alarms.shown()[0].until, alarms.pass(at(20))), (Some(at(20)), Vec::new()), "who took it out ends it");
        assert_eq!(suppress(&mut alarms, false), [(OutOfService, ReturnedUnacknowledged)]);
    }

    /// What is silenced may chatter as it likes.
    #[test]
    fn only_what_people_hear_chatters() {
        let mut alarms = Alarms::default();
        let raise = |alarms: &mut Alarms, second: i64| {
            judge(alarms, &high(), true, second);
            let chatter = alarms.shown()[0].chatter;
            judge(alarms, &high(), false, second + 1);
            chatter
        };
        suppress(&mut alarms, true);
        assert_eq!([0, 2, 4].map(|second| raise(&mut alarms, second)), [None; 3]);
        suppress(&mut alarms, false);
        assert_eq!([6, 8, 10].map(|second| raise(&mut alarms, second)), [None, None, Some((3, 4_000_000))]);
        suppress(&mut alarms, true);
        assert_eq!(raise(&mut alarms, 12), None, "that was another one");
    }

    #[test]
    fn a_value_is_back_behind_the_deadband() {
        let limits = Limits { high: Some(80.0), low: Some(10.0), deadband: 2.0, ..Limits::default() };
        for (level, value, was, beyond) in [
            (Level::High, 80.0, false, Some(false)),
            (Level::High, 80.1, false, Some(true)),
            (Level::High, 79.0, true, Some(true)),
            (Level::High, 78.0, true, Some(false)),
            (Level::Low, 9.9, false, Some(true)),
            (Level::Low, 11.0, true, Some(true)),
            (Level::Low, 12.0, true, Some(false)),
            (Level::HighHigh, 1e9, false, None),
        ] {
            assert_eq!(is_beyond(&limits, level, value, was), beyond, "{level:?} {value} {was}");
        }
    }
}
