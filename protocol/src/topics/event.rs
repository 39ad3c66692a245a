//! `hark.events.v1`: what an operator must be able to account for that is neither a reading nor an alarm.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LaneName, Name, OperatingState};

/// Kind of an event. New kinds are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Records that will never be delivered; `gap_*` say which and why.
    Gap,
    /// The agent started: a new incarnation; `predecessor` and `last_seq_json` name what came before.
    IncarnationOpened,
    /// A silent asset: time goes on without readings.
    Tick,
    /// Something a person asked for: `command`, `actor`.
    Command,
    /// Configuration, bundle, weights or program changed: `what`, `hash_before`, `hash_after`.
    Change,
    /// An unsynced clock became known: `boot`, `offset_ms`, `uncertainty_ms`.
    Clock,
    /// The operating state changed: `state`, and `detail_json` has `previous` and `regime`. With `what` `unseen_regime`: the machine is in a regime that
    /// its commissioning has not seen; `detail_json` has `regime`, the `point` that tells it, `low` and `high`. No alarm.
    OperatingState,
    /// Maintenance was reported done.
    Maintenance,
    /// Commissioning began, went on, ended: `what` says which. With `what` `limit`: the limit of the score moved, after it; `detail_json` has the
    /// `baseline_id`, the `previous` one, and the peaks behind it.
    Commissioning,
    /// An operator did something worth keeping: `what`, `actor`, `result`.
    Audit,
    /// A source lost data before Hark could store it: `source`, `count`.
    SourceLoss,
    /// A source said something of itself, such as that a sensor is stuck: `source`, `what`.
    Source,
    /// Another agent runs under the same gateway id: the two shut each other out of Kafka.
    DuplicateGateway,
    /// The status of an instrument changed (NAMUR NE 107): `source` names the instrument, `what` is its status now, `detail_json` has `status`,
    /// `previous` and `reason`. No alarm of the machine.
    Instrument,
    /// More new alarms than a person can deal with: `what` is `began` or `ended`, `count` says how many there were, `detail_json` has `from`, at the end
    /// `to`, and `by_asset`.
    AlarmFlood,
}

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Evicted: the buffer reached its quota.
    Quota,
    /// Evicted: older than allowed.
    Age,
    /// Evicted: the disk was full.
    DiskFull,
    /// A damaged part of the buffer was put into quarantine.
    Damaged,
    /// Kafka refused the record for good.
    Refused,
    /// The tail of an incarnation did not survive a power cut.
    TornTail,
    /// Not lost: delivered before the gateway had this id, the topics this prefix, or Kafka was this cluster.
    DeliveredElsewhere,
}

/// An event. Fields that do not belong to its kind are `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// What kind.
    pub kind: EventKind,
    /// One sentence for a person.
    pub text: Option<Name>,
    /// Subject of the event where the kind has several (`configuration`, `bundle`, `started` …).
    pub what: Option<Name>,
    /// Who caused it.
    pub actor: Option<Name>,
    /// `success`, `refused`, `failed`.
    pub result: Option<Name>,
    /// Name of the source concerned.
    pub source: Option<Name>,
    /// How many.
    pub count: Option<u64>,
    /// Operating state after the change.
    pub state: Option<OperatingState>,
    /// Lane of a gap.
    pub gap_lane: Option<LaneName>,
    /// Incarnation of a gap.
    pub gap_inc: Option<Name>,
    /// First missing seq.
    pub gap_from_seq: Option<u64>,
    /// Last missing seq.
    pub gap_to_seq: Option<u64>,
    /// Bytes that went with it.
    pub gap_bytes: Option<u64>,
    /// Why.
    pub gap_reason: Option<GapReason>,
    /// Incarnation before this one.
    pub predecessor: Option<Name>,
    /// Last seq of each lane of the predecessor, a JSON object as text.
    pub last_seq_json: Option<Name>,
    /// `acknowledge`, `shelve`, `out_of_service`, `label` …
    pub command: Option<Name>,
    /// Id of the command, applied once.
    pub command_id: Option<Name>,
    /// Alarm that a command is about.
    pub alarm_id: Option<Name>,
    /// Hash before a change.
    pub hash_before: Option<Name>,
    /// Hash after it.
    pub hash_after: Option<Name>,
    /// Boot id that a clock record is about.
    pub boot: Option<Name>,
    /// True time minus the gateway's clock, milliseconds.
    pub offset_ms: Option<f64>,
    /// How far `offset_ms` may be wrong, milliseconds.
    pub uncertainty_ms: Option<f64>,
    /// Anything further, a JSON object as text.
    pub detail_json: Option<Name>,
}

impl Event {
    /// An event of `kind` with nothing else said.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            text: None,
            what: None,
            actor: None,
            result: None,
            source: None,
            count: None,
            state: None,
            gap_lane: None,
            gap_inc: None,
            gap_from_seq: None,
            gap_to_seq: None,
            gap_bytes: None,
            gap_reason: None,
            predecessor: None,
            last_seq_json: None,
            command: None,
            command_id: None,
            alarm_id: None,
            hash_before: None,
            hash_after: None,
            boot: None,
            offset_ms: None,
            uncertainty_ms: None,
            detail_json: None,
        }
    }
}
