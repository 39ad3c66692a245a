//! The Kafka records: one type per topic, flat JSON objects of primitives.
//!
//! Every value is an [`Identity`] (who, where in the log, when) beside the body of its topic, flattened into one object, so that Flink SQL and
//! ksqlDB read it as it is. Free structure travels only as text in `*_json`. Integers stay below 2^53, floats are in shortest round-trip form,
//! NaN and infinity never appear: an unknown number is `null`.
//!
//! The bodies are also what the agent's log stores (in a compact encoding), so their field order and the order of enum variants are frozen:
//! additions go to the end.
mod alarm;
mod asset;
mod baseline;
mod definition;
mod event;
mod feedback;
mod gateway;
mod identity;
mod prediction;
mod reading;
mod snapshot;

pub use alarm::{Alarm, AlarmState, Priority};
pub use asset::{Asset, InstrumentStatus};
pub use baseline::Baseline;
pub use definition::{ALARMS, ASSETS, BASELINES, Cleanup, EVENTS, FEEDBACK, GATEWAYS, PREDICTIONS, READINGS, SNAPSHOTS, TOPICS, Topic};
pub use event::{Event, EventKind, GapReason};
pub use feedback::{Feedback, FeedbackAction};
pub use gateway::Gateway;
pub use identity::{Clock, CompactedRecord, Identity, LaneName, Name, Origin, Record, SCHEMA_VERSION, Subject, Timestamp, TsSource};
pub use prediction::{OperatingState, Phase, Prediction, ScoreReason, Zone};
pub use reading::{Quality, QualityReason, Reading};
pub use snapshot::Snapshot;
