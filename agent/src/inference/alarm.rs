//! One alarm, from its condition to a state after ISA-18.2: on-delay, off-delay, acknowledgement, latch, all in event time.
use hark_protocol::topics::{AlarmState, Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::evidence::Evidence;

/// How long a condition must stand or be gone, microseconds, and what follows then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) on_us: i64,
    pub(super) off_us: i64,
    /// What has returned waits for a person, also where one has seen it before.
    pub(super) latch: bool,
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
    /// What the condition was judged by last.
    pub(super) evidence: Option<Evidence>,
}

impl Default for AlarmTimer {
    fn default() -> Self {
        Self { state: AlarmState::Normal, alarm_id: None, since: Timestamp(0), rising: None, falling: None, evidence: None }
    }
}

impl AlarmTimer {
    /// Takes whether the condition `holds` at event time `ts`. The alarm comes after it held for the on-delay and goes after it was gone for the
    /// off-delay. `new_id` names a new occurrence.
    pub(super) fn update(&mut self, holds: bool, ts: Timestamp, delays: Delays, new_id: impl FnOnce() -> Name) {
        if self.is_active() {
            self.rising = None;
            // `min`: after a clock was set back, the delay begins anew instead of waiting for the old time.
            self.falling = if holds { None } else { Some(self.falling.unwrap_or(ts).min(ts)) };
            if self.falling.is_some_and(|since| ts.0.saturating_sub(since.0) >= delays.off_us) {
                let seen = self.state == AlarmState::ActiveAcknowledged && !delays.latch;
                self.go_to(if seen { AlarmState::Normal } else { AlarmState::ReturnedUnacknowledged });
            }
            return;
        }
        self.falling = None;
        self.rising = if holds { Some(self.rising.unwrap_or(ts).min(ts)) } else { None };
        let Some(since) = self.rising.filter(|since| ts.0.saturating_sub(since.0) >= delays.on_us) else { return };
        (self.rising, self.since, self.alarm_id) = (None, since, Some(new_id()));
        // What an earlier occurrence left unacknowledged is history of another alarm id.
        self.go_to(AlarmState::ActiveUnacknowledged);
    }

    /// A person has seen the alarm.
    pub(super) fn acknowledge(&mut self) {
        match self.state {
            AlarmState::ActiveUnacknowledged => self.go_to(AlarmState::ActiveAcknowledged),
            AlarmState::ReturnedUnacknowledged => self.go_to(AlarmState::Normal),
            _ => {}
        }
    }

    /// Nobody has: it is shown again after a time in which it was silenced. What returned meanwhile is over.
    pub(super) fn show_again(&mut self) {
        match self.state {
            AlarmState::ActiveAcknowledged => self.go_to(AlarmState::ActiveUnacknowledged),
            AlarmState::ReturnedUnacknowledged => self.go_to(AlarmState::Normal),
            _ => {}
        }
    }

    /// The condition is no longer watched: what is active or waits for a person ends.
    pub(super) fn end(&mut self) {
        (self.rising, self.falling) = (None, None);
        self.go_to(AlarmState::Normal);
    }

    /// Delays that run begin anew: the clock they are measured by was corrected.
    pub(super) fn restart_delays(&mut self) {
        (self.rising, self.falling) = (None, None);
    }

    /// The condition holds, and did so for long enough.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, AlarmState::ActiveUnacknowledged | AlarmState::ActiveAcknowledged)
    }

    /// The condition held when it was judged last.
    pub(super) fn holds(&self) -> bool {
        self.rising.is_some() || (self.is_active() && self.falling.is_none())
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

    const DELAYS: Delays = Delays { on_us: 3_000_000, off_us: 2_000_000, latch: false };

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
        let delays = Delays { on_us: 0, off_us: 0, latch: false };
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
        timer.show_again();
        assert_eq!(timer.state(), ActiveUnacknowledged);
        run(&mut timer, 4, "...");
        timer.show_again();
        assert_eq!(timer.state(), Normal);
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
}
