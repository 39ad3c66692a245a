//! `hark.readings.v1`: one scalar at one time.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// Quality of a value, after OPC UA Part 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Usable as it is.
    #[default]
    Good,
    /// Usable with care; `reason` says why.
    Uncertain,
    /// Not usable: `value` is `null`, never zero.
    Bad,
}

/// Why a value is not good. New reasons are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QualityReason {
    /// The source said so, without saying why.
    Source,
    /// Not a number, or infinite.
    NotANumber,
    /// Outside the point's configured range.
    OutOfRange,
    /// Changed faster than the point can.
    RateOfChange,
    /// The same value for longer than the point allows.
    Stuck,
    /// A single value far from its neighbours.
    Spike,
    /// No value for longer than the point allows.
    Stale,
    /// The instrument's converter was at its end stop.
    Clipping,
    /// The time of the value could not be trusted.
    Clock,
    /// The instrument reported a fault of its own.
    SensorFault,
    /// The line to the instrument failed.
    Communication,
    /// The value is text that the point's map does not name.
    NotMapped,
    /// The instrument tests itself: what it says is no measurement (NE 107 check function).
    CheckFunction,
    /// What the other points show is not what it says. Of instruments alone: the reading stays as it came.
    Contradicted,
}

/// A scalar of one point, or a feature of a waveform (`de-h.v_rms`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    /// Point id, unique within the asset.
    pub point: Name,
    /// The value in `unit`; `null` when `quality` is bad.
    pub value: Option<f64>,
    /// UCUM code of the unit; `1` for a pure number.
    pub unit: Name,
    /// Good, uncertain or bad.
    pub quality: Quality,
    /// Why it is not good.
    pub reason: Option<QualityReason>,
    /// The source's own sequence number, where it has one.
    pub source_seq: Option<u64>,
    /// Boot id of the gateway when the reading was appended.
    pub boot: Name,
    /// Milliseconds since that boot: orders readings even where the clock stepped.
    pub log_ms: u64,
}
