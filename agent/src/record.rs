//! The nouns in the log: an [`Entry`] is what is appended, read back, inferred from and forwarded.
//!
//! All times in it are fixed before it is appended. Inference uses these stored times and no other, so that a replay sees what the first run saw.
use hark_protocol::topics::{Alarm, Clock, Event, Name, Origin, Prediction, Reading, Snapshot, Timestamp, TsSource};
use serde::{Deserialize, Serialize};

/// What an entry is about and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// Asset id; `None` where the entry is about the gateway.
    pub asset: Option<Name>,
    /// Event time, UTC.
    pub ts: Timestamp,
    /// Whose clock gave it.
    pub ts_source: TsSource,
    /// State of the gateway's clock at append.
    pub clock: Clock,
    /// Live, simulated or replayed.
    pub origin: Origin,
}

/// What an entry says. Variants are stored by number: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Inputs lane: a scalar or a feature.
    Reading(Reading),
    /// Inputs lane (tick, command, change, clock) or events lane.
    Event(Box<Event>),
    /// Inputs lane: a chunk of a raw block; inference passes over it.
    Snapshot(Snapshot),
    /// Predictions lane.
    Prediction(Box<Prediction>),
    /// Alarms lane.
    Alarm(Box<Alarm>),
}

/// The input that an output follows from: `n`-th output of the input at `seq` of incarnation `ordinal`.
/// After a crash inference runs again from its checkpoint and leaves out what the log already holds, by this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// Ordinal of the incarnation of the input.
    pub ordinal: u32,
    /// Its seq in the inputs lane.
    pub seq: u64,
    /// Which of the outputs of that input, from 0.
    pub n: u32,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// About what, when.
    pub stamp: Stamp,
    /// For outputs of inference: the input behind it.
    pub cause: Option<Cause>,
    /// What.
    pub body: Body,
}
