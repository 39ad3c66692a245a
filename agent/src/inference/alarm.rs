//! From "over the limit" to an alarm: on-delay, off-delay, acknowledgement (ISA-18.2), all in event time.
use hark_protocol::topics::{AlarmState, Name, Timestamp};
use serde::{Deserialize, Serialize};

/// A change of the alarm of an asset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// State before it.
    pub from: AlarmState,
    /// State after it.
    pub to: AlarmState,
    /// The occurrence.
    pub alarm_id: Name,
    /// Since when the score was over the limit.
    pub since: Timestamp,
}

/// The alarm of one asset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AlarmTimer {
    state: AlarmState,
    alarm_id: Option<Name>,
    /// Start of the present or last condition.
    since: Timestamp,
    /// Over the limit since then, not long enough yet.
    rising: Option<Timestamp>,
    /// Back since then, not long enough yet.
    falling: Option<Timestamp>,
}

impl Default for AlarmTimer {
    fn default() -> Self {
        Self { state: AlarmState::Normal, alarm_id: None, since: Timestamp(0), rising: None, falling: None }
    }
}

impl AlarmTimer {
    /// Takes whether the score is `above` at event time `ts`. The alarm comes after `on_delay_us` above and goes after `off_delay_us` back.
    /// `new_id` names a new occurrence.
    pub(super) fn update(
        &mut self,
        above: bool,
        ts: Timestamp,
        on_delay_us: i64,
        off_delay_us: i64,
        new_id: impl FnOnce() -> Name,
    ) -> Option<Change> {
        if self.is_active() {
            self.rising = None;
            // `min`: after a clock was set back, the delay begins anew instead of waiting for the old time.
            let falling = if above { None } else { Some(self.falling.unwrap_or(ts).min(ts)) };
            self.falling = falling;
            let over = ts.0.saturating_sub(falling?.0) >= off_delay_us;
            return if over { self.go_to(self.returned_state()) } else { None };
        }
        self.falling = None;
        let rising = if above { Some(self.rising.unwrap_or(ts).min(ts)) } else { None };
        self.rising = rising;
        let since = rising?;
        if ts.0.saturating_sub(since.0) < on_delay_us {
            return None;
        }
        (self.rising, self.since, self.alarm_id) = (None, since, Some(new_id()));
        // A new occurrence: what an earlier one left unacknowledged is history of another alarm id.
        self.state = AlarmState::Normal;
        self.go_to(AlarmState::ActiveUnacknowledged)
    }

    /// A person has seen the alarm. Nothing happens where there is none to acknowledge, or where `alarm_id` names another one.
    pub(super) fn acknowledge(&mut self, alarm_id: Option<&Name>) -> Option<Change> {
        if alarm_id.is_some_and(|id| self.alarm_id.as_ref() != Some(id)) {
            return None;
        }
        match self.state {
            AlarmState::ActiveUnacknowledged => self.go_to(AlarmState::ActiveAcknowledged),
            AlarmState::ReturnedUnacknowledged => self.go_to(AlarmState::Normal),
            _ => None,
        }
    }

    /// The asset is no longer watched: what is active or waits for a person ends.
    pub(super) fn end(&mut self) -> Option<Change> {
        (self.rising, self.falling) = (None, None);
        if self.state == AlarmState::Normal { None } else { self.go_to(AlarmState::Normal) }
    }

    /// Delays that run begin anew: the clock they are measured by was corrected.
    pub(super) fn restart_delays(&mut self) {
        (self.rising, self.falling) = (None, None);
    }

    /// The condition holds.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, AlarmState::ActiveUnacknowledged | AlarmState::ActiveAcknowledged)
    }

    /// State now.
    pub(super) fn state(&self) -> AlarmState {
        self.state
    }

    /// The occurrence that is active or waits for a person.
    pub(super) fn alarm_id(&self) -> Option<&Name> {
        if self.state == AlarmState::Normal { None } else { self.alarm_id.as_ref() }
    }

    fn returned_state(&self) -> AlarmState {
        if self.state == AlarmState::ActiveAcknowledged { AlarmState::Normal } else { AlarmState::ReturnedUnacknowledged }
    }

    fn go_to(&mut self, to: AlarmState) -> Option<Change> {
        self.falling = None;
        let from = std::mem::replace(&mut self.state, to);
        Some(Change { from, to, alarm_id: self.alarm_id.clone()?, since: self.since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, ReturnedUnacknowledged};

    /// Feeds one `above` a second, on-delay 3 s, off-delay 2 s; gives the changes with their second.
    fn run(timer: &mut AlarmTimer, from: i64, above: &str) -> Vec<(i64, AlarmState, AlarmState)> {
        let mut changes = Vec::new();
        for (second, letter) in (from..).zip(above.chars()) {
            let ts = Timestamp(second * 1_000_000);
            if let Some(change) = timer.update(letter == '#', ts, 3_000_000, 2_000_000, || format!("a{second}").into()) {
                changes.push((second, change.from, change.to));
            }
        }
        changes
    }

    #[test]
    fn comes_after_the_on_delay_and_goes_after_the_off_delay() {
        let mut timer = AlarmTimer::default();
        let changes = run(&mut timer, 0, "###.####.####.....");
        assert_eq!(changes, [(7, Normal, ActiveUnacknowledged), (15, ActiveUnacknowledged, ReturnedUnacknowledged)]);
        assert_eq!(timer.alarm_id().unwrap().as_ref(), "a7");
        assert!(!timer.is_active());
    }

    #[test]
    fn without_delays_it_follows_at_once() {
        let mut timer = AlarmTimer::default();
        assert_eq!(timer.update(true, Timestamp(5), 0, 0, || "a".into()).unwrap().to, ActiveUnacknowledged);
        assert_eq!(timer.update(false, Timestamp(6), 0, 0, || "b".into()).unwrap().to, ReturnedUnacknowledged);
    }

    #[test]
    fn an_acknowledged_alarm_returns_to_normal_and_a_new_occurrence_has_a_new_id() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####");
        assert_eq!(timer.acknowledge(Some(&"other".into())), None);
        assert_eq!(timer.acknowledge(Some(&"a3".into())).unwrap().to, ActiveAcknowledged);
        assert_eq!(run(&mut timer, 4, "...####"), [(6, ActiveAcknowledged, Normal), (10, Normal, ActiveUnacknowledged)]);
        assert_eq!(timer.alarm_id().unwrap().as_ref(), "a10");
    }

    #[test]
    fn a_returned_alarm_waits_for_its_acknowledgement() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "####...");
        assert_eq!(timer.state(), ReturnedUnacknowledged);
        assert_eq!(timer.acknowledge(None).unwrap().to, Normal);
        assert_eq!(timer.acknowledge(None), None);
        assert_eq!(timer.alarm_id(), None);
    }

    #[test]
    fn a_corrected_clock_satisfies_no_delay() {
        let mut timer = AlarmTimer::default();
        run(&mut timer, 0, "##");
        timer.restart_delays();
        assert_eq!(run(&mut timer, 1_000_000, "####"), [(1_000_003, Normal, ActiveUnacknowledged)]);
        assert_eq!(timer.end().unwrap().to, Normal);
        assert_eq!(timer.end(), None);
    }
}
