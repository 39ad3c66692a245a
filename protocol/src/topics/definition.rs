//! The topics themselves: name, key, retention, as operations create them.
/// How Kafka forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// After so many days, counted from arrival.
    Days(u32),
    /// The latest value of each key stays.
    Compact,
}

/// A topic of generation 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name without the configurable prefix (`hark.` by default).
    pub name: &'static str,
    /// What the key is.
    pub key: &'static str,
    /// Partitions at creation. They are not raised in place: that would break the order per key.
    pub partitions: u32,
    /// How long records stay.
    pub cleanup: Cleanup,
    /// What it holds, one line.
    pub holds: &'static str,
}

impl Topic {
    /// The full name under `prefix`.
    pub fn full_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name)
    }

    /// Topic settings that operations must set. `LogAppendTime`: retention counts from arrival, so that a backlog of days is not deleted on arrival.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("message.timestamp.type", "LogAppendTime".to_owned())];
        match self.cleanup {
            Cleanup::Days(days) => {
                settings.push(("cleanup.policy", "delete".to_owned()));
                settings.push(("retention.ms", (u64::from(days) * 86_400_000).to_string()));
            }
            Cleanup::Compact => settings.push(("cleanup.policy", "compact".to_owned())),
        }
        settings
    }
}

/// Readings and features.
pub const READINGS: Topic = Topic { name: "readings.v1", key: "asset", partitions: 6, cleanup: Cleanup::Days(7), holds: "readings and features" };
/// Scores, health, forecasts.
pub const PREDICTIONS: Topic =
    Topic { name: "predictions.v1", key: "asset", partitions: 6, cleanup: Cleanup::Days(90), holds: "scores, health and forecasts" };
/// Alarm state changes.
pub const ALARMS: Topic =
    Topic { name: "alarms.v1", key: "asset", partitions: 6, cleanup: Cleanup::Days(365), holds: "alarm state changes with evidence and advice" };
/// Gaps, incarnations, commands and the like.
pub const EVENTS: Topic = Topic {
    name: "events.v1",
    key: "asset or gateway",
    partitions: 6,
    cleanup: Cleanup::Days(365),
    holds: "gaps, incarnations, ticks, commands, changes, clock, operating state, maintenance, commissioning, audit",
};
/// Raw blocks.
pub const SNAPSHOTS: Topic =
    Topic { name: "snapshots.v1", key: "asset", partitions: 6, cleanup: Cleanup::Days(30), holds: "raw waveform blocks in chunks" };
/// Heartbeats.
pub const GATEWAYS: Topic =
    Topic { name: "gateways.v1", key: "gateway", partitions: 1, cleanup: Cleanup::Compact, holds: "heartbeat of each gateway" };
/// Inventory.
pub const ASSETS: Topic =
    Topic { name: "assets.v1", key: "asset", partitions: 1, cleanup: Cleanup::Compact, holds: "inventory and present state of each asset" };
/// Weights.
pub const BASELINES: Topic =
    Topic { name: "baselines.v1", key: "asset/baseline", partitions: 1, cleanup: Cleanup::Compact, holds: "weights, limits and verdicts" };
/// Commands from people.
pub const FEEDBACK: Topic =
    Topic { name: "feedback.v1", key: "asset", partitions: 1, cleanup: Cleanup::Days(365), holds: "commands and labels from people, inbound" };

/// All topics.
pub const TOPICS: [Topic; 9] = [READINGS, PREDICTIONS, ALARMS, EVENTS, SNAPSHOTS, GATEWAYS, ASSETS, BASELINES, FEEDBACK];
