//! From an entry of the log to a message for Kafka: topic, key, value, headers. Pure.
use std::{cell::RefCell, collections::BTreeMap};

use hark_protocol::topics::{self, CompactedRecord, Identity, LaneName, Name, Record, SCHEMA_VERSION, Subject, Timestamp};
use serde::Serialize;

use crate::{
    buffer::Position,
    record::{Body, Entry, Stamp},
};

/// What is handed to Kafka. It bears no time of its own, so that no topic setting can refuse it or let it expire early: brokers put the time of arrival
/// where they are told to, and the time of the event is in the value.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Full topic name.
    pub topic: Name,
    /// Key: order is kept per key.
    pub key: Name,
    /// JSON object.
    pub value: Vec<u8>,
    /// Gateway, for header `gw`.
    pub gateway: Name,
    /// Incarnation, for header `inc`.
    pub inc: Name,
    /// Lane and seq, for headers `lane` and `seq`; only records of a lane have them.
    pub place: Option<(LaneName, u64)>,
}

impl Message {
    /// `gw`, `inc`, `lane`, `seq`, `sv` as text.
    pub fn for_each_header(&self, mut header: impl FnMut(&'static str, &str)) {
        header("gw", &self.gateway);
        header("inc", &self.inc);
        header("sv", SCHEMA_VERSION_TEXT);
        if let Some((lane, seq)) = self.place {
            header("lane", lane.as_str());
            header("seq", &seq.to_string());
        }
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        let name = || "example".into();
        Self { topic: name(), key: name(), value: b"{}".to_vec(), gateway: name(), inc: name(), place: None }
    }
}

const SCHEMA_VERSION_TEXT: &str = "1";
const _: () = assert!(SCHEMA_VERSION == 1, "the header says it too");

/// Who sends, and the full names of the topics.
#[derive(Clone, Debug)]
pub struct Sender {
    gateway: Name,
    topics: BTreeMap<&'static str, Name>,
}

impl Sender {
    /// A sender with `topic_prefix` before each topic name.
    pub fn new(gateway: Name, topic_prefix: &str) -> Self {
        Self { gateway, topics: topics::TOPICS.iter().map(|topic| (topic.name, topic.full_name(topic_prefix).into())).collect() }
    }

    fn topic(&self, topic: topics::Topic) -> Name {
        self.topics[topic.name].clone()
    }

    /// The message for the entry at `position` of `lane`, written by incarnation `inc`.
    pub fn message(&self, lane: LaneName, position: Position, inc: &Name, entry: &Entry) -> Message {
        let identity = Identity::new(self.gateway.clone(), inc.to_string(), lane, position.seq, subject(&entry.stamp));
        let (topic, value) = match &entry.body {
            Body::Reading(body) => (topics::READINGS, json(&Record { identity, body })),
            Body::Event(body) => (topics::EVENTS, json(&Record { identity, body })),
            Body::Snapshot(body) => (topics::SNAPSHOTS, json(&Record { identity, body })),
            Body::Prediction(body) => (topics::PREDICTIONS, json(&Record { identity, body })),
            Body::Alarm(body) => (topics::ALARMS, json(&Record { identity, body })),
        };
        let key = entry.stamp.asset.clone().unwrap_or_else(|| self.gateway.clone());
        let place = Some((lane, position.seq));
        Message { topic: self.topic(topic), key, value, gateway: self.gateway.clone(), inc: inc.clone(), place }
    }

    /// The message for the latest value of `key` on a compacted topic.
    pub fn compacted<B: Serialize>(&self, topic: topics::Topic, key: Name, inc: &Name, asset: Option<Name>, stamp: &Stamp, body: B) -> Message {
        let ts_ms = stamp.ts.as_millis();
        let subject = subject(&Stamp { asset, ..stamp.clone() });
        let record = CompactedRecord {
            event_id: format!("{}/{inc}/{}/{key}/{ts_ms}", self.gateway, topic.name),
            gw: self.gateway.clone(),
            inc: inc.to_string(),
            subject,
            body,
        };
        Message { topic: self.topic(topic), key, value: json(&record), gateway: self.gateway.clone(), inc: inc.clone(), place: None }
    }
}

fn subject(stamp: &Stamp) -> Subject {
    Subject::new(stamp.asset.clone(), stamp.ts, stamp.ts_source, stamp.clock, stamp.origin)
}

/// Exactly as much memory as it takes: a batch holds thousands.
fn json(record: &impl Serialize) -> Vec<u8> {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        serde_json::to_writer(&mut *scratch, record).expect("records have text keys and no failing field");
        scratch.as_slice().into()
    })
}

/// The stamp of what the gateway says of itself at `ts`.
pub fn gateway_stamp(ts: Timestamp, clock: topics::Clock, origin: topics::Origin) -> Stamp {
    Stamp { asset: None, ts, ts_source: topics::TsSource::Gateway, clock, origin }
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::{Clock, Origin, Quality, Reading, TsSource};

    use super::*;

    #[test]
    fn a_reading_is_one_flat_object() {
        let entry = Entry {
            stamp: Stamp {
                asset: Some("pump-1".into()),
                ts: Timestamp(1_500),
                ts_source: TsSource::Sensor,
                clock: Clock::Synced,
                origin: Origin::Live,
            },
            cause: None,
            body: Body::Reading(Reading {
                point: "flow".into(),
                value: Some(0.1),
                unit: "l/min".into(),
                quality: Quality::Good,
                reason: None,
                source_seq: None,
                boot: "b".into(),
                log_ms: 7,
            }),
        };
        let sender = Sender::new("gw".into(), "hark.");
        let message = sender.message(LaneName::Inputs, Position { ordinal: 1, seq: 9 }, &"inc".into(), &entry);
        assert_eq!((&*message.topic, &*message.key), ("hark.readings.v1", "pump-1"));
        let mut headers = Vec::new();
        message.for_each_header(|key, value| headers.push(format!("{key}={value}")));
        assert_eq!(headers, ["gw=gw", "inc=inc", "sv=1", "lane=inputs", "seq=9"]);
        let value: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
        assert_eq!(value["event_id"], "gw/inc/inputs/9");
        assert_eq!(value["ts"], "1970-01-01T00:00:00.001500Z");
        assert_eq!(value["value"], 0.1);
        assert!(value.as_object().unwrap().values().all(|v| !v.is_object() && !v.is_array()));
        let read: Record<Reading> = serde_json::from_slice(&message.value).unwrap();
        assert_eq!(read.identity.seq, 9);
    }
}
