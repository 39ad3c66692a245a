//! Who a record is about, where it stands in the log, and how far its time can be trusted.
use std::{fmt, str::FromStr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The schema version written in `sv`. It rises only with a new topic generation (`.v2`).
pub const SCHEMA_VERSION: u32 = 1;

/// A name from the plant floor: asset, point, gateway. Shared, since the same few names stand on every reading.
pub type Name = Arc<str>;

/// Microseconds since 1970-01-01T00:00:00Z. In records it appears as `ts` (RFC 3339 UTC text, six decimals) and `ts_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since the epoch, rounded towards the past.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// From milliseconds since the epoch; saturates at the ends of the range.
    pub fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every i64 of microseconds outside years -9999..9999 is refused at the source; the fallback keeps `Display` total.
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(ts) => write!(f, "{ts:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// The text is no RFC 3339 time with an offset.
#[derive(Debug, PartialEq, Eq)]
pub struct NotATimestamp;

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        text.parse::<jiff::Timestamp>().map(|ts| Self(ts.as_microsecond())).map_err(|_| NotATimestamp)
    }
}

/// Where `ts` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TsSource {
    /// The sensor's own clock, found plausible.
    Sensor,
    /// The gateway's clock at reception.
    #[default]
    Gateway,
    /// The clock of the program that wrote a command to a gateway.
    Sender,
}

/// State of the gateway's clock when the record was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Disciplined by a time service.
    Synced,
    /// Not known to be right (no time service yet, or booted without a battery clock).
    #[default]
    Unsynced,
    /// Jumped since the previous record.
    Stepped,
}

/// What produced the measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A machine, now.
    #[default]
    Live,
    /// The firmware simulator or the demo.
    Simulated,
    /// A recorded file.
    Replay,
}

/// A lane of the log: its own sequence, its own place in the order of sending and of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaneName {
    /// Readings, ticks, commands, changes, clock records, snapshots: all that inference reacts to.
    Inputs,
    /// Scores and forecasts.
    Predictions,
    /// Alarm state changes.
    Alarms,
    /// Gaps, incarnations and what else an operator must be able to account for. Never evicted.
    Events,
}

impl LaneName {
    /// All lanes, the first to be evicted first.
    pub const ALL: [Self; 4] = [Self::Inputs, Self::Predictions, Self::Alarms, Self::Events];

    /// The name in records, metrics and directories.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Predictions => "predictions",
            Self::Alarms => "alarms",
            Self::Events => "events",
        }
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fields that every record of a lane carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// `gw/inc/lane/seq`: the same record has the same id wherever it is stored.
    pub event_id: String,
    /// Gateway id, unique in the fleet.
    pub gw: Name,
    /// Incarnation: UUID of one start of the agent.
    pub inc: String,
    /// Lane of the log.
    pub lane: LaneName,
    /// Position in the lane, from 1 in each incarnation, without holes.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub seq: u64,
    /// What the record is about and when.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Identity {
    /// The identity of position `seq` of `lane` in incarnation `inc` of gateway `gw`.
    pub fn new(gw: Name, inc: String, lane: LaneName, seq: u64, subject: Subject) -> Self {
        Self { event_id: format!("{gw}/{inc}/{lane}/{seq}"), gw, inc, lane, seq, subject }
    }
}

/// What a record is about, and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Schema version.
    pub sv: u32,
    /// Asset id, unique in the fleet; `null` where the record is about the gateway.
    pub asset: Option<Name>,
    /// Time of the event, RFC 3339, UTC, six decimals.
    #[schemars(extend("format" = "date-time"))]
    pub ts: String,
    /// The same in milliseconds since 1970, for Kafka's own timestamp and for SQL.
    pub ts_ms: i64,
    /// Whose clock gave `ts`.
    pub ts_source: TsSource,
    /// State of the gateway's clock.
    pub clock: Clock,
    /// Live, simulated or replayed.
    pub origin: Origin,
}

impl Subject {
    /// A subject at `ts`, with both forms of the time.
    pub fn new(asset: Option<Name>, ts: Timestamp, ts_source: TsSource, clock: Clock, origin: Origin) -> Self {
        Self { sv: SCHEMA_VERSION, asset, ts: ts.to_string(), ts_ms: ts.as_millis(), ts_source, clock, origin }
    }
}

/// A record of a lane: identity and body in one flat object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record<B> {
    /// Who, where, when.
    #[serde(flatten)]
    pub identity: Identity,
    /// What.
    #[serde(flatten)]
    pub body: B,
}

/// A record of a compacted topic: the latest value of its key, outside the sequence and the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompactedRecord<B> {
    /// `gw/inc/<topic>/<key>/<ts_ms>`.
    pub event_id: String,
    /// Gateway that wrote it.
    pub gw: Name,
    /// Incarnation that wrote it.
    pub inc: String,
    /// What the record is about and when.
    #[serde(flatten)]
    pub subject: Subject,
    /// What.
    #[serde(flatten)]
    pub body: B,
}
