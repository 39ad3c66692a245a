//! `hark.alarms.v1`: alarm state changes with evidence and advice (ISA-18.2, IEC 62682).
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, Quality, Zone};

/// State of an alarm, ISA-18.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// The condition is absent and nothing waits for a person.
    Normal,
    /// Present, seen by nobody.
    ActiveUnacknowledged,
    /// Present, acknowledged.
    ActiveAcknowledged,
    /// Gone before anyone acknowledged it.
    ReturnedUnacknowledged,
    /// Silenced by a person until `until`.
    Shelved,
    /// Silenced by design: it does not apply in the present operating state.
    Suppressed,
    /// Taken out by maintenance, it or its instrument.
    OutOfService,
}

impl AlarmState {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ActiveUnacknowledged => "active, not acknowledged",
            Self::ActiveAcknowledged => "active, acknowledged",
            Self::ReturnedUnacknowledged => "gone, not acknowledged",
            Self::Shelved => "shelved",
            Self::Suppressed => "suppressed by design: it does not apply in the present operating state",
            Self::OutOfService => "out of service",
        }
    }

    /// People are not to hear of it, by their own decision or by design.
    pub fn is_silenced(self) -> bool {
        matches!(self, Self::Shelved | Self::Suppressed | Self::OutOfService)
    }
}

/// How soon a response is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Worth a look; no alarm in the sense of ISA-18.2.
    Advice,
    /// At the next opportunity.
    Low,
    /// Within the shift.
    Medium,
    /// At once.
    High,
}

/// One change of state of one alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alarm {
    /// The same for all changes of one occurrence.
    pub alarm_id: Name,
    /// The asset's open case that collects evidence.
    pub case_id: Option<Name>,
    /// State after the change.
    pub state: AlarmState,
    /// State before it.
    pub previous_state: AlarmState,
    /// How soon a response is needed.
    pub priority: Priority,
    /// What is wrong, in a few words.
    pub what: Name,
    /// Since when the condition holds, RFC 3339.
    pub since: Name,
    /// Point or output that is over its limit.
    pub point: Option<Name>,
    /// Its value.
    pub value: Option<f64>,
    /// The limit it passed.
    pub limit: Option<f64>,
    /// UCUM unit of both.
    pub unit: Option<Name>,
    /// Severity zone.
    pub zone: Option<Zone>,
    /// ISO 14224 failure mode.
    pub failure_mode: Option<Name>,
    /// Likely cause.
    pub cause: Option<Name>,
    /// What to check.
    pub advice: Option<Name>,
    /// What happens otherwise.
    pub consequence: Option<Name>,
    /// By when to respond, RFC 3339.
    pub respond_by: Option<Name>,
    /// Support, 0 to 1, no calibrated probability: of a score the share of judges over their limits, of a fault its strength as odds, of a forecast its own, else 1.
    pub confidence: Option<f64>,
    /// Quality of the data behind it.
    pub quality: Quality,
    /// Shelved or out of service until, RFC 3339.
    pub until: Option<Name>,
    /// Who acknowledged, shelved or returned it.
    pub actor: Option<Name>,
    /// What that person wrote.
    pub comment: Option<Name>,
    /// Point that contributes most.
    pub contrib_1_point: Option<Name>,
    /// Its share, 0 to 1.
    pub contrib_1_share: Option<f64>,
    /// Second point.
    pub contrib_2_point: Option<Name>,
    /// Its share.
    pub contrib_2_share: Option<f64>,
    /// Third point.
    pub contrib_3_point: Option<Name>,
    /// Its share.
    pub contrib_3_share: Option<f64>,
    /// Bundle name.
    pub model: Option<Name>,
    /// Bundle version.
    pub model_version: Option<Name>,
    /// SHA-256 of the model, hex.
    pub model_hash: Option<Name>,
    /// Key of the weights in `hark.baselines.v1`.
    pub baseline_id: Option<Name>,
    /// SHA-256 of the asset's resolved configuration, hex.
    pub config_hash: Name,
    /// First record of the inputs lane behind it: `inc/seq`.
    pub input_from: Option<Name>,
    /// Last one.
    pub input_to: Option<Name>,
    /// Further evidence, a JSON object as text.
    pub evidence_json: Option<Name>,
}
