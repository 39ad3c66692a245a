//! Alarm flood: more new alarms on this gateway than a person can deal with (ISA-18.2-2016 and IEC 62682, "alarm flood"; EEMUA 191).
//!
//! It begins with more than ten alarms within ten minutes, and ends with fewer than five. What counts is what people are told of, of all machines of the
//! gateway, advice too, and a value that passes `high` and then `high_high` once, since a person's attention makes no difference. The time is that of the log: the newest event time of any of its entries, so a
//! sensor that comes late with old values counts for the moment at which its alarm is raised, and a replay finds the same floods.
use std::collections::{BTreeMap, VecDeque};

use hark_protocol::topics::{Event, EventKind, Name, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Ten minutes.
const WITHIN_US: i64 = 600_000_000;
/// A flood begins with more than so many alarms within that time …
const BEGINS_ABOVE: usize = 10;
/// … and ends with fewer than so many.
const ENDS_BELOW: usize = 5;

/// What is remembered of the alarms of all machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flood {
    now: Option<Timestamp>,
    /// The newest alarms, the oldest first; more than begin a flood say nothing further.
    newest: VecDeque<(Timestamp, Name)>,
    present: Option<Present>,
}

/// A flood that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Present {
    /// The first of the alarms that made it one.
    since: Timestamp,
    by_asset: BTreeMap<Name, u64>,
}

/// A flood as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmFlood {
    /// The first of the alarms that made it one, RFC 3339.
    pub since: Name,
    /// New alarms since then.
    pub alarms: u64,
}

impl Flood {
    /// Time comes to `ts`. Gives the event of a flood that is over.
    pub(super) fn pass(&mut self, ts: Timestamp) -> Option<Event> {
        let now = self.now.map_or(ts, |now| now.max(ts));
        self.now = Some(now);
        let present = self.present.as_ref()?;
        if self.recent(now) >= ENDS_BELOW {
            return None;
        }
        let event = present.event("ended", now);
        self.present = None;
        Some(event)
    }

    /// People are told of a new alarm of `asset`. Gives the event of a flood that begins.
    pub(super) fn count(&mut self, asset: &Name) -> Option<Event> {
        let now = self.now?;
        if self.newest.len() > BEGINS_ABOVE {
            self.newest.pop_front();
        }
        self.newest.push_back((now, asset.clone()));
        if let Some(present) = &mut self.present {
            *present.by_asset.entry(asset.clone()).or_default() += 1;
            return None;
        }
        if self.recent(now) <= BEGINS_ABOVE {
            return None;
        }
        let mut present = Present { since: self.newest.front().map_or(now, |(first, _)| *first), by_asset: BTreeMap::new() };
        self.newest.iter().for_each(|(_, asset)| *present.by_asset.entry(asset.clone()).or_default() += 1);
        let event = present.event("began", now);
        self.present = Some(present);
        Some(event)
    }

    /// The gateway's clock was corrected: alarms before and after are no time apart that is known.
    pub(super) fn restart(&mut self) {
        self.now = None;
        self.newest.clear();
    }

    /// The present flood.
    pub(super) fn shown(&self) -> Option<AlarmFlood> {
        let present = self.present.as_ref()?;
        Some(AlarmFlood { since: present.since.to_string().into(), alarms: present.alarms() })
    }

    fn recent(&self, now: Timestamp) -> usize {
        self.newest.iter().filter(|(ts, _)| now.0.saturating_sub(ts.0) < WITHIN_US).count()
    }
}

impl Present {
    fn alarms(&self) -> u64 {
        self.by_asset.values().sum()
    }

    fn event(&self, what: &str, now: Timestamp) -> Event {
        let alarms = self.alarms();
        let minutes = (now.0.saturating_sub(self.since.0) as f64 / 60e6).ceil().max(1.0);
        // Where to begin: of equals the first by name.
        let most = self.by_asset.iter().rev().max_by_key(|(_, alarms)| **alarms);
        let most = most.map(|(asset, alarms)| format!(", {alarms} of them of `{asset}`")).unwrap_or_default();
        let mut detail = json!({ "from": self.since.to_string(), "by_asset": self.by_asset });
        let text = if what == "ended" {
            detail["to"] = json!(now.to_string());
            format!("the alarm flood is over: {alarms} new alarms in {minutes} min{most}")
        } else {
            format!(
                "an alarm flood: {alarms} new alarms in {minutes} min{most}; until it is over the alarm command is run for those of high priority alone"
            )
        };
        Event {
            what: Some(what.into()),
            text: Some(text.into()),
            count: Some(alarms),
            detail_json: Some(detail.to_string().into()),
            ..Event::new(EventKind::AlarmFlood)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    /// An alarm at each of `seconds`; gives what was said, with the second.
    fn alarms(flood: &mut Flood, seconds: impl IntoIterator<Item = i64>) -> Vec<(i64, String, u64)> {
        let mut told = Vec::new();
        for second in seconds {
            let ended = flood.pass(at(second));
            let began = flood.count(&if second % 3 == 0 { "fan" } else { "pump" }.into());
            told.extend(ended.into_iter().chain(began).map(|event| (second, event.what.unwrap().to_string(), event.count.unwrap())));
        }
        told
    }

    #[test]
    fn it_begins_above_ten_in_ten_minutes() {
        let mut flood = Flood::default();
        // One a minute: ten within any ten minutes.
        assert_eq!(alarms(&mut flood, (0..60).map(|minute| 60 * minute)), []);
        assert_eq!(flood.shown(), None);
        // The eleventh at the very end of the ten minutes is one too late, a second before it is in time.
        assert_eq!(alarms(&mut Flood::default(), (0..10).chain([600])), []);
        assert_eq!(alarms(&mut Flood::default(), (0..10).chain([599])), [(599, "began".to_owned(), 11)]);
    }

    #[test]
    fn it_ends_below_five_in_ten_minutes_and_counts_all() {
        let mut flood = Flood::default();
        assert_eq!(alarms(&mut flood, 0..30), [(10, "began".to_owned(), 11)]);
        assert_eq!(flood.shown(), Some(AlarmFlood { since: "1970-01-01T00:00:00.000000Z".into(), alarms: 30 }));
        // The last five are those from 25 on.
        assert_eq!(flood.pass(at(624)), None);
        let ended = flood.pass(at(625)).unwrap();
        assert_eq!((ended.what.as_deref(), ended.count, ended.kind), (Some("ended"), Some(30), EventKind::AlarmFlood));
        assert_eq!(ended.text.as_deref(), Some("the alarm flood is over: 30 new alarms in 11 min, 20 of them of `pump`"));
        let detail: serde_json::Value = serde_json::from_str(ended.detail_json.as_deref().unwrap()).unwrap();
        assert_eq!((&detail["by_asset"]["fan"], &detail["from"]), (&json!(10), &json!("1970-01-01T00:00:00.000000Z")));
        assert_eq!((flood.pass(at(2_000)), flood.shown()), (None, None), "said once");
        assert_eq!(alarms(&mut flood, 3_000..3_011), [(3_010, "began".to_owned(), 11)], "another one");
    }

    /// A sensor that was cut off comes with values of an hour ago: its alarms are raised now.
    #[test]
    fn time_does_not_go_back_and_a_corrected_clock_begins_anew() {
        let mut flood = Flood::default();
        flood.pass(at(10_000));
        assert_eq!(alarms(&mut flood, 0..11), [(10, "began".to_owned(), 11)]);
        assert_eq!(flood.shown().unwrap().since, at(10_000).to_string().into());
        flood.restart();
        assert_eq!(flood.pass(at(5)).unwrap().what.as_deref(), Some("ended"));
        assert_eq!(alarms(&mut flood, 6..16), []);
    }
}
