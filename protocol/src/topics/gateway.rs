//! `hark.gateways.v1`: heartbeat of a gateway, compacted by gateway id.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// Heartbeat. A gateway silent for three of its periods is stale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gateway {
    /// Seconds between heartbeats.
    pub period_s: f64,
    /// Program version.
    pub version: Name,
    /// Version of the running kernel.
    pub os: Name,
    /// Seconds since the agent started.
    pub uptime_s: f64,
    /// Ordinal of the incarnation.
    pub inc_ordinal: u32,
    /// `connected`, `reconnecting`, `blocked`, `duplicate_gateway`.
    pub link: Name,
    /// `exactly_once` or `at_least_once`.
    pub delivery: Name,
    /// Plain text was accepted, by destination and with its reason.
    pub plaintext_accepted: Option<Name>,
    /// Records found in the buffer at the start or appended since: `delivered + buffered + gap_records`.
    pub accepted: u64,
    /// Records acknowledged by Kafka since the start.
    pub delivered: u64,
    /// Records now in the buffer, neither acknowledged nor lost.
    pub buffered: u64,
    /// Bytes under the data directory.
    pub buffer_bytes: u64,
    /// The allowed maximum.
    pub buffer_quota_bytes: u64,
    /// Age of the oldest record not acknowledged, by its event time, seconds.
    pub buffer_oldest_s: Option<f64>,
    /// Records named in gaps: passed since the start, or still to be passed.
    pub gap_records: u64,
    /// Buffer per lane, a JSON object as text: `first`, `last`, `acked` (places, `ordinal/seq`), `buffered` records, `bytes`, `oldest_s`.
    pub lanes_json: Name,
    /// Sources, a JSON array as text: `name`, `kind`, `state`, `guarantee` (`replay`, `redelivery`, `none`), `accepted` readings.
    pub sources_json: Name,
    /// Counters by `source.group.cause`, a JSON object as text.
    pub counters_json: Name,
    /// Certificates with their expiry, a JSON array as text.
    pub certificates_json: Name,
    /// Resident memory of the agent, bytes.
    pub rss_bytes: Option<u64>,
}
