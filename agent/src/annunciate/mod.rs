//! Local annunciation: alarms on the plant's own network, whether Kafka is there or not.
//!
//! Each asset has a [`Summary`] of the alarms that are shown. When one changes, [`mqtt`] replaces a retained message on a broker of the plant, and
//! [`command`] runs a program, as for a horn or a lamp, in an alarm flood only for what is most urgent. Both tell the present state and not a history: who comes late sees what stands, and what was
//! missed needs no repeating. The history is in `hark.alarms.v1`.
pub mod command;
pub mod mqtt;
mod queue;

use std::{collections::BTreeMap, sync::Arc};

use hark_protocol::topics::{Alarm, AlarmState, Name};
use serde::Serialize;

use crate::status::Status;

/// Alarms of an asset that a summary holds, the most urgent ones: brokers have a limit for a message.
pub const ALARMS_MAX: usize = 16;

/// The alarms of one asset, as they are shown now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Gateway id.
    pub gw: Name,
    /// Asset id.
    pub asset: Name,
    /// Name for people.
    pub name: Name,
    /// State of its most urgent alarm, or why it has none.
    pub alarm_state: AlarmState,
    /// How many are shown.
    pub count: usize,
    /// The most urgent ones first, at most [`ALARMS_MAX`], as in `hark.alarms.v1`.
    pub alarms: Vec<Alarm>,
}

impl Summary {
    /// What makes it another one: values that move while an alarm stands do not.
    fn signs(&self) -> Signs {
        let sign = |alarm: &Alarm| (alarm.alarm_id.clone(), alarm.state, alarm.until.clone());
        (self.alarm_state, self.alarms.iter().map(sign).collect())
    }
}

type Signs = (AlarmState, Vec<(Name, AlarmState, Option<Name>)>);

/// What was told of each asset.
pub(crate) struct Panel {
    gateway: Name,
    status: Arc<Status>,
    told: BTreeMap<Name, Signs>,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// It is another one now.
    Changed(Box<Summary>),
    /// The asset is configured no longer.
    Removed(Name),
}

impl Panel {
    pub(crate) fn new(gateway: Name, status: Arc<Status>) -> Self {
        Self { gateway, status, told: BTreeMap::new() }
    }

    /// What differs from what was told, by asset; from then on it counts as told.
    pub(crate) fn news(&mut self) -> Vec<News> {
        let summaries = self.summaries();
        let removed: Vec<Name> = self.told.keys().filter(|asset| !summaries.contains_key(*asset)).cloned().collect();
        removed.iter().for_each(|asset| drop(self.told.remove(asset)));
        let changed = summaries.into_values().filter(|summary| {
            let signs = summary.signs();
            self.told.insert(summary.asset.clone(), signs.clone()).is_none_or(|before| before != signs)
        });
        removed.into_iter().map(News::Removed).chain(changed.map(|summary| News::Changed(summary.into()))).collect()
    }

    /// Everything is to be told again.
    pub(crate) fn forget(&mut self) {
        self.told.clear();
    }

    /// What was told of `asset` did not arrive.
    pub(crate) fn forget_one(&mut self, asset: &Name) {
        self.told.remove(asset);
    }

    fn summaries(&self) -> BTreeMap<Name, Summary> {
        let alarms = self.status.alarms();
        let summary = |(asset, state): (Name, hark_protocol::topics::Asset)| {
            let shown: Vec<&Alarm> = alarms.iter().filter(|(id, _)| *id == asset).map(|(_, alarm)| alarm).collect();
            let summary = Summary {
                gw: self.gateway.clone(),
                asset: asset.clone(),
                name: state.name,
                alarm_state: state.alarm_state,
                count: shown.len(),
                alarms: shown.into_iter().take(ALARMS_MAX).cloned().collect(),
            };
            (asset, summary)
        };
        self.status.assets().into_iter().map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, OutOfService, Shelved};
    use hark_protocol::topics::{Asset, Priority};

    use super::*;
    use crate::{
        buffer::{Log, LogSettings},
        clock::Clock,
        config,
    };

    fn status(dir: &Path) -> Arc<Status> {
        let config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        let (log, _) = Log::open(dir, LogSettings::new(64 << 20)).unwrap();
        Arc::new(Status::new(&config, log, Vec::new(), &Clock::new()))
    }

    fn asset(id: &str, alarm_state: AlarmState) -> (Name, Asset) {
        let example: Asset = serde_json::from_str(include_str!("../../../config/kafka/schemas/hark.assets.v1.example.json")).unwrap();
        (id.into(), Asset { name: id.to_uppercase().into(), alarm_state, ..example })
    }

    fn alarm(asset: &str, id: &str, state: AlarmState) -> (Name, Alarm) {
        let example: Alarm = serde_json::from_str(include_str!("../../../config/kafka/schemas/hark.alarms.v1.example.json")).unwrap();
        (asset.into(), Alarm { alarm_id: id.into(), state, priority: Priority::Medium, ..example })
    }

    /// State of an asset, how many alarms it has, and the ids that are told.
    type Told = (AlarmState, usize, Vec<String>);

    /// What is new, by asset; a removed one has nothing.
    fn news(panel: &mut Panel) -> Vec<(String, Option<Told>)> {
        let of = |news: News| match news {
            News::Removed(asset) => (asset.to_string(), None),
            News::Changed(summary) => {
                assert_eq!((&*summary.gw, &*summary.name), ("gw", &*summary.asset.to_uppercase()));
                let ids = summary.alarms.iter().map(|alarm| alarm.alarm_id.to_string()).collect();
                (summary.asset.to_string(), Some((summary.alarm_state, summary.count, ids)))
            }
        };
        panel.news().into_iter().map(of).collect()
    }

    fn told(asset: &str, state: AlarmState, ids: &[&str]) -> (String, Option<Told>) {
        (asset.to_owned(), Some((state, ids.len(), ids.iter().map(|id| (*id).to_owned()).collect())))
    }

    #[test]
    fn each_change_of_what_is_shown_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let status = status(dir.path());
        let mut panel = Panel::new("gw".into(), status.clone());
        assert_eq!(news(&mut panel), []);
        status.set_assets(vec![asset("fan", Normal), asset("pump", ActiveUnacknowledged)]);
        status.set_alarms(vec![alarm("pump", "1", ActiveUnacknowledged)]);
        assert_eq!(news(&mut panel), [told("fan", Normal, &[]), told("pump", ActiveUnacknowledged, &["1"])]);
        assert_eq!(news(&mut panel), []);
        // Values that move while it stands are none.
        let (id, moved) = alarm("pump", "1", ActiveUnacknowledged);
        status.set_alarms(vec![(id.clone(), Alarm { value: Some(9.0), ..moved.clone() })]);
        assert_eq!(news(&mut panel), []);
        // The state of the second one is, and the end of a shelving.
        let second = |state| vec![alarm("pump", "1", ActiveUnacknowledged), alarm("pump", "2", state)];
        for state in [ActiveUnacknowledged, ActiveAcknowledged] {
            status.set_alarms(second(state));
            assert_eq!(news(&mut panel), [told("pump", ActiveUnacknowledged, &["1", "2"])], "{state:?}");
        }
        status.set_assets(vec![asset("fan", Normal), asset("pump", Shelved)]);
        let shelved = |until: &str| vec![(id.clone(), Alarm { state: Shelved, until: Some(until.into()), ..moved.clone() })];
        for until in ["2026-05-11T22:00:00Z", "2026-05-12T06:00:00Z"] {
            status.set_alarms(shelved(until));
            assert_eq!(news(&mut panel), [told("pump", Shelved, &["1"])], "{until}");
        }
        // An asset without an alarm may be out of service.
        status.set_assets(vec![asset("fan", OutOfService), asset("pump", Shelved)]);
        assert_eq!(news(&mut panel), [told("fan", OutOfService, &[])]);
    }

    #[test]
    fn a_removed_asset_is_told_of_and_what_did_not_arrive_again() {
        let dir = tempfile::tempdir().unwrap();
        let status = status(dir.path());
        let mut panel = Panel::new("gw".into(), status.clone());
        let both = || vec![asset("fan", Normal), asset("pump", Normal)];
        status.set_assets(both());
        news(&mut panel);
        panel.forget_one(&"fan".into());
        assert_eq!(news(&mut panel), [told("fan", Normal, &[])]);
        panel.forget();
        assert_eq!(news(&mut panel).len(), 2);
        status.set_assets(vec![asset("pump", Normal)]);
        assert_eq!(news(&mut panel), [("fan".to_owned(), None)]);
        assert_eq!(news(&mut panel), []);
        status.set_assets(both());
        assert_eq!(news(&mut panel), [told("fan", Normal, &[])], "it is back");
    }

    #[test]
    fn a_summary_holds_the_most_urgent_ones_and_counts_all() {
        let dir = tempfile::tempdir().unwrap();
        let status = status(dir.path());
        status.set_assets(vec![asset("pump", ActiveUnacknowledged)]);
        status.set_alarms((0..20).map(|n| alarm("pump", &n.to_string(), ActiveUnacknowledged)).collect());
        let (_, told) = news(&mut Panel::new("gw".into(), status)).remove(0);
        let (_, count, ids) = told.unwrap();
        assert_eq!((count, ids), (20, (0..16).map(|n| n.to_string()).collect()));
    }

    /// Who waits hears of each of these, and of nothing else.
    #[test]
    fn listeners_wake_for_changes_alone() {
        let dir = tempfile::tempdir().unwrap();
        let status = status(dir.path());
        let mut changes = status.alarm_changes();
        let mut woken = |what: &str, expected: bool| {
            assert_eq!(changes.has_changed().unwrap(), expected, "{what}");
            changes.mark_unchanged();
        };
        woken("nothing", false);
        status.set_assets(vec![asset("pump", Normal)]);
        woken("an asset", true);
        status.set_assets(vec![asset("pump", Normal)]);
        woken("the same asset", false);
        status.set_assets(vec![asset("pump", OutOfService)]);
        woken("its state", true);
        status.set_alarms(vec![alarm("pump", "1", ActiveUnacknowledged)]);
        woken("an alarm", true);
        status.set_alarms(vec![alarm("pump", "1", ActiveUnacknowledged)]);
        woken("the same alarm", false);
        let flood = |alarms| crate::inference::AlarmFlood { since: "2026-05-11T22:00:00Z".into(), alarms };
        status.set_alarm_flood(Some(flood(11)));
        woken("a flood", true);
        status.set_alarm_flood(Some(flood(12)));
        woken("it goes on", false);
        status.set_alarm_flood(None);
        woken("it is over", true);
        assert_eq!(status.alarm_flood(), None);
    }
}
