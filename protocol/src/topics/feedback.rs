//! `hark.feedback.v1`: what people tell a gateway, inbound.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Clock, Name, Origin, TsSource};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackAction {
    /// Seen.
    Acknowledge,
    /// Silence until `until`.
    Shelve,
    /// End the silence.
    Unshelve,
    /// Out of service until `until`.
    OutOfService,
    /// Back in service.
    ReturnToService,
    /// Say what was found: `label`.
    Label,
    /// Maintenance was done: a new baseline begins.
    MaintenanceDone,
    /// Accept the commissioning.
    CommissioningAccepted,
    /// Send a raw block of `point`.
    SnapshotRequest,
}

/// A command to a gateway. Applied once, for own assets only; expired ones are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Feedback {
    /// `gw/feedback.v1/asset/command_id`.
    pub event_id: String,
    /// Gateway meant.
    pub gw: Name,
    /// Incarnation of that gateway as the sender last saw it; `null` if it never did.
    pub inc: Option<String>,
    /// Schema version.
    pub sv: u32,
    /// Asset meant.
    pub asset: Name,
    /// When it was written, RFC 3339, UTC, six decimals.
    #[schemars(extend("format" = "date-time"))]
    pub ts: String,
    /// The same in milliseconds since 1970, for Kafka's own timestamp and for SQL.
    pub ts_ms: i64,
    /// Whose clock gave `ts`: the sender's.
    pub ts_source: TsSource,
    /// State of that clock.
    pub clock: Clock,
    /// Live, simulated or replayed.
    pub origin: Origin,
    /// Chosen by the sender, unique: a repeated command is applied once.
    pub command_id: Name,
    /// Who asks.
    pub actor: Name,
    /// Role of that person.
    pub role: Name,
    /// When it was issued, RFC 3339.
    pub issued_at: Name,
    /// After this it is ignored, RFC 3339.
    pub expires_at: Name,
    /// Alarm meant, where there is one.
    pub alarm_id: Option<Name>,
    /// What is asked for.
    pub action: FeedbackAction,
    /// Point, for a snapshot; instrument, to take it out of service or return it instead of the whole asset.
    pub point: Option<Name>,
    /// End of a shelving, RFC 3339.
    pub until: Option<Name>,
    /// `true_alarm`, `false_alarm`, `not_a_fault`, `fixed`.
    pub label: Option<Name>,
    /// ISO 14224 failure mode found.
    pub failure_mode: Option<Name>,
    /// Free text.
    pub comment: Option<Name>,
}
