//! What the alarm command is still to be told, and in which order. Pure.
//!
//! Of a machine that changes while others are told the newest state is. In an alarm flood only a change among alarms of the highest priority goes on; the
//! rest waits for its end, is counted, and is told then as it stands.
use std::collections::BTreeMap;

use hark_protocol::topics::{AlarmState, Name, Priority};

use super::Summary;

/// Machines that are to be told of.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Name, Box<Summary>>,
    /// What was told of each last, or passed since nobody need hear of it.
    told: BTreeMap<Name, Told>,
}

#[derive(Debug)]
struct Told {
    state: AlarmState,
    urgent: Vec<(Name, AlarmState)>,
}

impl Told {
    fn of(summary: &Summary) -> Self {
        Self { state: summary.alarm_state, urgent: urgent(summary) }
    }
}

/// What is to be told now.
#[derive(Debug, PartialEq)]
pub(super) struct Next {
    pub(super) summary: Box<Summary>,
    /// Machines whose news is held back until the flood is over.
    pub(super) held_back: usize,
}

impl Queue {
    /// A machine is another one now. Of what is normal, or suppressed by design, and was not told otherwise before nobody need hear.
    pub(super) fn add(&mut self, summary: Box<Summary>) {
        let asset = summary.asset.clone();
        if is_quiet(summary.alarm_state) && self.told.get(&asset).is_none_or(|told| is_quiet(told.state)) {
            self.waiting.remove(&asset);
            self.told.insert(asset, Told::of(&summary));
        } else {
            self.waiting.insert(asset, summary);
        }
    }

    /// The next one, which counts as told.
    pub(super) fn next(&mut self, in_flood: bool) -> Option<Next> {
        let due = self.waiting.values().find(|summary| !in_flood || self.is_urgent(summary))?;
        let asset = due.asset.clone();
        let summary = self.waiting.remove(&asset)?;
        self.told.insert(asset, Told::of(&summary));
        let held_back = if in_flood { self.waiting.values().filter(|summary| !self.is_urgent(summary)).count() } else { 0 };
        Some(Next { summary, held_back })
    }

    /// Among its alarms of the highest priority something is otherwise than it was told.
    fn is_urgent(&self, summary: &Summary) -> bool {
        let before = self.told.get(&summary.asset).map_or(&[][..], |told| &told.urgent);
        before != urgent(summary)
    }
}

/// Its alarms of the highest priority, with their states.
fn urgent(summary: &Summary) -> Vec<(Name, AlarmState)> {
    let of_high = summary.alarms.iter().filter(|alarm| alarm.priority == Priority::High && !is_quiet(alarm.state));
    of_high.map(|alarm| (alarm.alarm_id.clone(), alarm.state)).collect()
}

fn is_quiet(state: AlarmState) -> bool {
    matches!(state, AlarmState::Normal | AlarmState::Suppressed)
}

#[cfg(test)]
mod tests {
    use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, ReturnedUnacknowledged, Suppressed};
    use hark_protocol::topics::Alarm;
    use serde_json::Value;

    use super::*;

    /// A machine with these alarms, the most urgent first.
    fn summary(asset: &str, alarms: &[(&str, Priority, AlarmState)]) -> Box<Summary> {
        let example: Value = serde_json::from_str(include_str!("../../../config/kafka/schemas/hark.alarms.v1.example.json")).unwrap();
        let of = |(id, priority, state): &(&str, Priority, AlarmState)| {
            let example: Alarm = serde_json::from_value(example.clone()).unwrap();
            Alarm { alarm_id: (*id).into(), priority: *priority, state: *state, ..example }
        };
        let alarms: Vec<Alarm> = alarms.iter().map(of).collect();
        let alarm_state = alarms.first().map_or(Normal, |alarm| alarm.state);
        Box::new(Summary { gw: "gw".into(), asset: asset.into(), name: asset.into(), alarm_state, count: alarms.len(), alarms })
    }

    fn next(queue: &mut Queue, in_flood: bool) -> Option<(String, AlarmState, usize)> {
        queue.next(in_flood).map(|next| (next.summary.asset.to_string(), next.summary.alarm_state, next.held_back))
    }

    fn told(asset: &str, state: AlarmState, held_back: usize) -> Option<(String, AlarmState, usize)> {
        Some((asset.to_owned(), state, held_back))
    }

    #[test]
    fn the_newest_state_is_told_and_a_quiet_one_only_after_another() {
        let mut queue = Queue::default();
        queue.add(summary("fan", &[]));
        queue.add(summary("mill", &[("m", Priority::High, Suppressed)]));
        assert_eq!(next(&mut queue, false), None, "nothing was wrong, as far as anybody heard");
        queue.add(summary("fan", &[("1", Priority::Medium, ActiveUnacknowledged)]));
        queue.add(summary("fan", &[("1", Priority::Medium, ReturnedUnacknowledged)]));
        assert_eq!((next(&mut queue, false), next(&mut queue, false)), (told("fan", ReturnedUnacknowledged, 0), None));
        queue.add(summary("fan", &[]));
        assert_eq!(next(&mut queue, false), told("fan", Normal, 0), "the lamp goes out");
        queue.add(summary("fan", &[("2", Priority::Medium, ActiveUnacknowledged)]));
        queue.add(summary("fan", &[]));
        assert_eq!(next(&mut queue, false), None, "it came and went before anybody heard");
        queue.add(summary("mill", &[("m", Priority::High, ActiveUnacknowledged)]));
        queue.add(summary("mill", &[("m", Priority::High, Suppressed)]));
        assert_eq!(next(&mut queue, false), None);
    }

    #[test]
    fn in_a_flood_only_what_is_urgent_goes_on_and_the_rest_is_told_behind_it() {
        let mut queue = Queue::default();
        let medium = ("m", Priority::Medium, ActiveUnacknowledged);
        let high = ("h", Priority::High, ActiveUnacknowledged);
        queue.add(summary("a", &[medium]));
        queue.add(summary("b", &[("l", Priority::Advice, ActiveUnacknowledged)]));
        queue.add(summary("c", &[high]));
        queue.add(summary("d", &[high, medium]));
        assert_eq!(next(&mut queue, true), told("c", ActiveUnacknowledged, 2));
        assert_eq!(next(&mut queue, true), told("d", ActiveUnacknowledged, 2));
        // What is told of its high one already says nothing new by another medium one, and does by an acknowledgement.
        queue.add(summary("d", &[high, medium, ("n", Priority::Medium, ActiveUnacknowledged)]));
        assert_eq!(next(&mut queue, true), None);
        queue.add(summary("d", &[("h", Priority::High, ActiveAcknowledged), medium]));
        assert_eq!(next(&mut queue, true), told("d", ActiveAcknowledged, 2));
        queue.add(summary("d", &[medium]));
        assert_eq!(next(&mut queue, true), told("d", ActiveUnacknowledged, 2), "the urgent one is over");
        // An urgent one that does not apply is nothing to hear of.
        queue.add(summary("e", &[medium, ("h", Priority::High, Suppressed)]));
        assert_eq!(next(&mut queue, true), None);
        // Nothing is lost.
        queue.add(summary("a", &[("m", Priority::Medium, ReturnedUnacknowledged)]));
        assert_eq!(next(&mut queue, true), None);
        assert_eq!(next(&mut queue, false), told("a", ReturnedUnacknowledged, 0));
        assert_eq!([next(&mut queue, false), next(&mut queue, false)], [told("b", ActiveUnacknowledged, 0), told("e", ActiveUnacknowledged, 0)]);
        assert_eq!(next(&mut queue, false), None);
    }
}
