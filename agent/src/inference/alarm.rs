//! One alarm, from its condition to a state after ISA-18.2: on-delay, off-delay, acknowledgement, latch, chattering, all in event time.
use std::collections::VecDeque;

use hark_protocol::topics::{AlarmState, Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::evidence::Evidence;

/// An alarm that is raised so often within [`CHATTERS_WITHIN_US`] chatters: it goes to and fro between alarm and normal (ISA-18.2-2016, 3.1, "chattering
/// alarm", gives no number; three in a minute is that of Hollifield and Habibi, Alarm Management Handbook).
const CHATTERS: usize = 3;
/// A minute.
const CHATTERS_WITHIN_US: i64 = 60_000_000;

/// How long a condition must stand or be gone, microseconds, and what follows then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) on_us: i64,
    pub(super) off_us: i64,
    /// After so long without a judgement nothing is known of what was: what was waited for begins anew.
    pub(super) lasts_us: i64,
    /// What has returned waits for a person, also where one has seen it before.
    pub(super) latch: bool,
}

impl Delays {
    /// Time that the delays themselves hold an alarm back is no rest: with 15 s and 60 s none could ever be raised three times in a minute.
    fn chatters_within_us(self) -> i64 {
        let held_back_us = self.on_us.saturating_add(self.off_us);
        CHATTERS_WITHIN_US.saturating_add(held_back_us.saturating_mul(CHATTERS as i64 - 1))
    }
}

/// The alarm of one condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AlarmTimer {
    state: AlarmState,
    alarm_id: Option<Name>,
    /// Start of the present or last condition.
    since: Timestamp,
    /// The condition holds since then, not long enough yet.
    rising: Option<Timestamp>,
    /// It is gone since then, not long enough yet.
    falling: Option<Timestamp>,
    /// When it was judged last.
    judged: Option<Timestamp>,
    /// People were told of the present occurrence, or of one before it that none of them has acknowledged.
    told: bool,
    /// When they were told of the last [`CHATTERS`] occurrences, the oldest first.
    raised: VecDeque<Timestamp>,
    /// The present occurrence is one of so many within this time, microseconds.
    chatter_us: Option<i64>,
    /// What the condition was judged by last.
    pub(super) evidence: Option<Evidence>,
}

impl Default for AlarmTimer {
    fn default() -> Self {
        Self {
            state: AlarmState::Normal,
            alarm_id: None,
            since: Timestamp(0),
            rising: None,
            falling: None,
            judged: None,
            told: false,
            raised: VecDeque::new(),
            chatter_us: None,
            evidence: None,
        }
    }
}

impl AlarmTimer {
    /// Takes whether the condition `holds` at event time `ts`. The alarm comes after it held for the on-delay and goes after it was gone for the
    /// off-delay, each without a gap. `new_id` names a new occurrence. True where one began; [`Self::tell`] follows if people hear of it.
    pub(super) fn update(&mut self, holds: bool, ts: Timestamp, delays: Delays, new_id: impl FnOnce() -> Name) -> bool {
        if self.is_gap(ts, delays) {
            self.restart_delays();
        }
        self.judged = Some(ts);
        if self.is_active() {
            self.rising = None;
            // `min`: after a clock was set back, the delay begins anew instead of waiting for the old time.
            self.falling = if holds { None } else { Some(self.falling.unwrap_or(ts).min(ts)) };
            if self.falling.is_some_and(|since| ts.0.saturating_sub(since.0) >= delays.off_us) {
                let seen = self.state == AlarmState::ActiveAcknowledged && !delays.latch;
                self.go_to(if seen { AlarmState::Normal } else { AlarmState::ReturnedUnacknowledged });
            }
            return false;
        }
        self.falling = None;
        self.rising = if holds { Some(self.rising.unwrap_or(ts).min(ts)) } else { None };
        let Some(since) = self.rising.filter(|since| ts.0.saturating_sub(since.0) >= delays.on_us) else { return false };
        (self.rising, self.since, self.alarm_id, self.chatter_us) = (None, since, Some(new_id()), None);
        self.told &= self.state == AlarmState::ReturnedUnacknowledged;
        // What an earlier occurrence left unacknowledged is history of another alarm id.
        self.go_to(AlarmState::ActiveUnacknowledged);
        true
    }

    /// People are told at `ts` of the occurrence that has just begun.
    pub(super) fn tell(&mut self, ts: Timestamp, delays: Delays) {
        self.told = true;
        if self.raised.back().is_some_and(|last| ts < *last) {
            // The clock was set back.
            self.raised.clear();
        }
        if self.raised.len() == CHATTERS {
            self.raised.pop_front();
        }
        self.raised.push_back(ts);
        let span_us = self.raised.front().filter(|_| self.raised.len() == CHATTERS).map(|first| ts.0.saturating_sub(first.0));
        self.chatter_us = span_us.filter(|span_us| *span_us <= delays.chatters_within_us());
    }

    /// A person has seen the alarm.
    pub(super) fn acknowledge(&mut self) {
        match self.state {
            AlarmState::ActiveUnacknowledged => self.go_to(AlarmState::ActiveAcknowledged),
            AlarmState::ReturnedUnacknowledged => self.go_to(AlarmState::Normal),
            _ => {}
        }
    }

    /// Nobody has: it is shown again after a time in which it was silenced. What returned meanwhile is over, other than with `latch`, which asks for a person.
    pub(super) fn show_again(&mut self, latch: bool) {
        match self.state {
            AlarmState::ActiveAcknowledged => self.go_to(AlarmState::ActiveUnacknowledged),
            AlarmState::ReturnedUnacknowledged if !latch => self.go_to(AlarmState::Normal),
            _ => {}
        }
        self.told = true;
    }

    /// The condition applies again. What it was judged by meanwhile, or before, says nothing of now: its delays begin anew. An alarm that people were told
    /// of, and that waits for one of them, is gone and goes on waiting.
    pub(super) fn apply_again(&mut self, latch: bool) {
        self.restart_delays();
        let waits = match self.state {
            AlarmState::ActiveUnacknowledged | AlarmState::ReturnedUnacknowledged => self.told,
            AlarmState::ActiveAcknowledged => latch,
            _ => false,
        };
        self.go_to(if waits { AlarmState::ReturnedUnacknowledged } else { AlarmState::Normal });
    }

    /// The condition is no longer watched: what is active or waits for a person ends.
    pub(super) fn end(&mut self) {
        (self.rising, self.falling) = (None, None);
        self.go_to(AlarmState::Normal);
    }

    /// Delays that run begin anew: the clock they are measured by was corrected.
    pub(super) fn restart_delays(&mut self) {
        (self.rising, self.falling, self.judged) = (None, None, None);
    }

    fn is_gap(&self, ts: Timestamp, delays: Delays) -> bool {
        self.judged.is_some_and(|judged| ts.0.saturating_sub(judged.0) > delays.lasts_us)
    }

    /// The condition holds, and did so for long enough.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, AlarmState::ActiveUnacknowledged | AlarmState::ActiveAcknowledged)
    }

    /// It is active and its condition held when it was judged last: what a deadband goes by. What waits for its on-delay has none, or one value beyond a
    /// limit and many within the deadband would be an alarm (ISA-18.2: a deadband is for the way back).
    pub(super) fn stands(&self) -> bool {
        self.is_active() && self.falling.is_none()
    }

    /// People were told of it.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// The time within which this occurrence and those before it were raised, microseconds, where it chatters; and how many.
    pub(super) fn chatter(&self) -> Option<(usize, i64)> {
        self.chatter_us.map(|span_us| (CHATTERS, span_us))
    }

    /// State now, whether it is silenced or not.
    pub(super) fn state(&self) -> AlarmState {
        self.state
    }

    /// The newest occurrence.
    pub(super) fn alarm_id(&self) -> Option<&Name> {
        self.alarm_id.as_ref()
    }

    /// Since when its condition holds or held.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    fn go_to(&mut self, to: AlarmState) {
        (self.falling, self.state) = (None, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, ReturnedUnacknowledged};

    const DELAYS: Delays = Delays { on_us: 3_000_000, off_us: 2_000_000, lasts_us: 5_000_000, latch: false };

    /// Feeds one letter a second, `#` while the condition holds; gives the changes with their second.
    fn run_with(delays: Delays, timer: &mut AlarmTimer, from: i64, holds: &str) -> Vec<(i64, AlarmState, AlarmState)> {
        let mut changes = Vec::new();
        for (second, letter) in (from..).zip(holds.chars()) {
            let before = timer.state();
            timer.update(letter == '#', Timestamp(second * 1_000_000), delays, || format!("a{second}").into());
            if timer.state() != before {
                changes.push((second, before, timer.state()));
            }
        }
        changes
    }

    fn run(timer: &mut AlarmTimer, from: i64, holds: &str) -> Vec<(i64, AlarmState, AlarmState)> {
        run_with(DELAYS, timer, from, holds)
    }

    #[test]
    fn comes_after_the_on_delay_and_goes_after_the_off_delay() {
        let mut timer = AlarmTimer::default();
        let changes = run(&mut timer, 0, "###.####.####.....");
        assert_eq!(changes, [(7, Normal, ActiveUnacknowledged), (15, ActiveUnacknowledged, ReturnedUnacknowledged)]);
        assert_eq!(timer.alarm_id().unwrap().as_ref(), "a7");
        assert_eq!((timer.since(), timer.is_active()), (Timestamp(4_000_000), false));
    }

    #[test]
    fn without_delays_it_follows_at_once() {
        let delays = Delays { on_us: 0, off_us: 0, ..DELAYS };
        let changes = run_with(delays, &mut AlarmTimer::default(), 5, "#.");
        assert_eq!(changes, [(5, Normal, ActiveUnacknowledged), (6, ActiveUnacknowledged, ReturnedUnacknowledged)]);
    }

    #[test]
    fn an_acknowledged_alarm_returns_to_normal_and_a_new_occurrence_has_a_new_id() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####");
        timer.acknowledge();
        assert_eq!(timer.state(), ActiveAcknowledged);
        assert_eq!(run(&mut timer, 4, "...####"), [(6, ActiveAcknowledged, Normal), (10, Normal, ActiveUnacknowledged)]);
        assert_eq!(timer.alarm_id().unwrap().as_ref(), "a10");
    }

    #[test]
    fn a_returned_alarm_waits_for_its_acknowledgement_and_a_latched_one_for_another() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####...");
        assert_eq!(timer.state(), ReturnedUnacknowledged);
        timer.acknowledge();
        assert_eq!(timer.state(), Normal);
        let latch = Delays { latch: true, ..DELAYS };
        run_with(latch, &mut timer, 10, "####");
        timer.acknowledge();
        assert_eq!(run_with(latch, &mut timer, 14, "..."), [(16, ActiveAcknowledged, ReturnedUnacknowledged)]);
        timer.acknowledge();
        assert_eq!(timer.state(), Normal);
    }

    #[test]
    fn what_was_silenced_is_shown_again_while_it_holds() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####");
        timer.acknowledge();
        timer.show_again(false);
        assert_eq!(timer.state(), ActiveUnacknowledged);
        run(&mut timer, 4, "...");
        timer.show_again(true);
        assert_eq!(timer.state(), ReturnedUnacknowledged, "nobody has acknowledged it");
        timer.show_again(false);
        assert_eq!(timer.state(), Normal);
    }

    /// Time goes back by itself, as when a node is set right: what is waited for begins anew then, and is not waited for until the old time.
    #[test]
    fn a_clock_set_back_holds_no_delay_up() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 1_000, "##");
        assert_eq!(run(&mut timer, 0, "####"), [(3, Normal, ActiveUnacknowledged)]);
        run(&mut timer, 1_000, ".");
        assert_eq!(run(&mut timer, 10, "..."), [(12, ActiveUnacknowledged, ReturnedUnacknowledged)]);
    }

    #[test]
    fn what_is_watched_no_longer_has_no_delay_either() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "##");
        timer.end();
        assert_eq!(run(&mut timer, 2, "####"), [(5, Normal, ActiveUnacknowledged)]);
    }

    #[test]
    fn what_applies_again_has_its_delay_before_it() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "##");
        timer.apply_again(false);
        assert_eq!(run(&mut timer, 2, "####"), [(5, Normal, ActiveUnacknowledged)]);
    }

    #[test]
    fn it_stands_from_when_it_is_an_alarm_until_that_goes() {
        let mut timer = AlarmTimer::default();
        let mut stands = |second: i64, letters: &str| {
            run(&mut timer, second, letters);
            timer.stands()
        };
        assert_eq!([stands(0, "#"), stands(1, "."), stands(2, "####"), stands(6, "."), stands(7, "#")], [false, false, true, false, true]);
    }

    /// Two values beyond a limit, hours apart, are two values and no three hours.
    #[test]
    fn a_gap_satisfies_no_delay() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "#");
        assert_eq!(run(&mut timer, 10_800, "####"), [(10_803, Normal, ActiveUnacknowledged)]);
        assert_eq!(timer.since(), Timestamp(10_800_000_000));
        run(&mut timer, 10_804, ".");
        assert_eq!(run(&mut timer, 20_000, "..."), [(20_002, ActiveUnacknowledged, ReturnedUnacknowledged)]);
        // As long as a value counts it is no gap.
        run(&mut timer, 30_000, "#");
        assert_eq!(run(&mut timer, 30_005, "#"), [(30_005, ReturnedUnacknowledged, ActiveUnacknowledged)]);
    }

    #[test]
    fn a_corrected_clock_satisfies_no_delay() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "##");
        timer.restart_delays();
        assert_eq!(run(&mut timer, 1_000_000, "####"), [(1_000_003, Normal, ActiveUnacknowledged)]);
        timer.end();
        assert_eq!(timer.state(), Normal);
    }

    /// Raised at `seconds`, each time acknowledged and gone a moment later; says of each whether it chatters, and within how many seconds.
    fn chatter(delays: Delays, seconds: &[i64]) -> Vec<Option<i64>> {
        let mut timer = AlarmTimer::default();
        let mut raise = |second: &i64| {
            let (ts, gone) = (Timestamp(second * 1_000_000), Timestamp(second * 1_000_000 + 1));
            assert!(timer.update(true, ts, Delays { on_us: 0, ..delays }, || "a".into()));
            timer.tell(ts, delays);
            timer.update(false, gone, Delays { off_us: 0, ..delays }, || "a".into());
            timer.chatter().map(|(times, span_us)| (times == 3).then_some(span_us / 1_000_000).unwrap())
        };
        seconds.iter().map(&mut raise).collect()
    }

    #[test]
    fn an_alarm_raised_three_times_in_a_minute_chatters() {
        let at_once = Delays { on_us: 0, off_us: 0, ..DELAYS };
        assert_eq!(chatter(at_once, &[0, 30, 60, 91, 122, 123]), [None, None, Some(60), None, None, Some(32)]);
        assert_eq!(chatter(at_once, &[100, 10, 20]), [None, None, None], "the clock was set back");
        // Its delays hold it back: 75 s are the least between two.
        let delayed = Delays { on_us: 15_000_000, off_us: 60_000_000, ..DELAYS };
        assert_eq!(chatter(delayed, &[0, 75, 150, 300, 361]), [None, None, Some(150), None, None]);
        assert_eq!(chatter(delayed, &[0, 105, 210]), [None, None, Some(210)]);
    }

    #[test]
    fn what_applies_again_is_judged_anew_and_waits_for_a_person_only_if_one_was_told() {
        let after = |told: bool, acknowledged: bool, latch: bool| {
            let mut timer = AlarmTimer::default();
            assert!((0..4).any(|second| timer.update(true, Timestamp(second * 1_000_000), DELAYS, || "a".into())));
            if told {
                timer.tell(Timestamp(3_000_000), DELAYS);
            }
            if acknowledged {
                timer.acknowledge();
            }
            timer.apply_again(latch);
            // It holds on, and that is new.
            let before = timer.state();
            assert_eq!(run(&mut timer, 10, "####"), [(13, before, ActiveUnacknowledged)]);
            before
        };
        assert_eq!(after(false, false, true), Normal, "nobody heard of it");
        assert_eq!(after(true, false, false), ReturnedUnacknowledged);
        assert_eq!((after(true, true, false), after(true, true, true)), (Normal, ReturnedUnacknowledged));
    }

    #[test]
    fn what_is_shown_again_is_told_of() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####");
        assert!(!timer.is_told());
        timer.show_again(false);
        timer.apply_again(false);
        assert_eq!(timer.state(), ReturnedUnacknowledged);
    }

    /// What people were told of and have not seen is not forgotten over an occurrence that they were not told of.
    #[test]
    fn a_debt_outlives_a_silent_occurrence() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####");
        timer.tell(Timestamp(3_000_000), DELAYS);
        run(&mut timer, 4, "...####");
        assert!(timer.is_told());
        timer.apply_again(false);
        assert_eq!(timer.state(), ReturnedUnacknowledged);
        timer.acknowledge();
        run(&mut timer, 20, "####");
        assert!(!timer.is_told());
        timer.apply_again(false);
        assert_eq!(timer.state(), Normal);
    }
}
