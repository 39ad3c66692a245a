//! Local annunciation: alarms on the plant's own network, whether Kafka is there or not.
//!
//! Each asset has a [`Summary`] of the alarms that are shown. When one changes, [`mqtt`] replaces a retained message on a broker of the plant, and
//! [`command`] runs a program, as for a horn or a lamp, in an alarm flood only for what is most urgent ([`queue`]). Both tell the present state and not a history: who comes late sees what stands, and what was
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
