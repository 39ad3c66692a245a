//! From an entry of the log to a message for Kafka: topic, key, value, headers. Pure.
use hark_protocol::topics::{self, CompactedRecord, Identity, LaneName, Name, Record, SCHEMA_VERSION, Subject, Timestamp};
use serde::Serialize;

use crate::{
    buffer::Position,
    record::{Body, Entry, Stamp},
};

/// What is handed to Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Full topic name.
    pub topic: String,
    /// Key: order is kept per key.
    pub key: Name,
    /// JSON object.
    pub value: Vec<u8>,
    /// Event time, milliseconds since 1970. Topics with `LogAppendTime` replace it.
    pub ts_ms: i64,
    /// `gw`, `inc`, `lane`, `seq`, `sv` as text; lane and seq only for records of a lane.
    pub headers: Vec<(&'static str, String)>,
}

/// Who sends.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Gateway id.
    pub gateway: Name,
    /// Before each topic name.
    pub topic_prefix: String,
}

impl Sender {
    /// The message for the entry at `position` of `lane`, written by incarnation `inc`.
    pub fn message(&self, lane: LaneName, position: Position, inc: &str, entry: &Entry) -> Message {
        let identity = Identity::new(self.gateway.clone(), inc.to_owned(), lane, position.seq, subject(&entry.stamp));
        let ts_ms = entry.stamp.ts.as_millis();
        let (topic, value) = match &entry.body {
            Body::Reading(body) => (topics::READINGS, json(&Record { identity, body })),
            Body::Event(body) => (topics::EVENTS, json(&Record { identity, body })),
            Body::Snapshot(body) => (topics::SNAPSHOTS, json(&Record { identity, body })),
            Body::Prediction(body) => (topics::PREDICTIONS, json(&Record { identity, body })),
            Body::Alarm(body) => (topics::ALARMS, json(&Record { identity, body })),
        };
        let mut headers = self.headers(inc);
        headers.push(("lane", lane.as_str().to_owned()));
        headers.push(("seq", position.seq.to_string()));
        let key = entry.stamp.asset.clone().unwrap_or_else(|| self.gateway.clone());
        Message { topic: topic.full_name(&self.topic_prefix), key, value, ts_ms, headers }
    }

    /// The message for the latest value of `key` on a compacted topic.
    pub fn compacted<B: Serialize>(&self, topic: topics::Topic, key: Name, inc: &str, asset: Option<Name>, stamp: &Stamp, body: B) -> Message {
        let ts_ms = stamp.ts.as_millis();
        let name = topic.full_name(&self.topic_prefix);
        let subject = subject(&Stamp { asset, ..stamp.clone() });
        let record = CompactedRecord {
            event_id: format!("{}/{inc}/{}/{key}/{ts_ms}", self.gateway, topic.name),
            gw: self.gateway.clone(),
            inc: inc.to_owned(),
            subject,
            body,
        };
        Message { topic: name, key, value: json(&record), ts_ms, headers: self.headers(inc) }
    }

    fn headers(&self, inc: &str) -> Vec<(&'static str, String)> {
        vec![("gw", self.gateway.to_string()), ("inc", inc.to_owned()), ("sv", SCHEMA_VERSION.to_string())]
    }
}

fn subject(stamp: &Stamp) -> Subject {
    Subject::new(stamp.asset.clone(), stamp.ts, stamp.ts_source, stamp.clock, stamp.origin)
}

fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys and no failing field")
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
        let sender = Sender { gateway: "gw".into(), topic_prefix: "hark.".into() };
        let message = sender.message(LaneName::Inputs, Position { ordinal: 1, seq: 9 }, "inc", &entry);
        assert_eq!((message.topic.as_str(), &*message.key, message.ts_ms), ("hark.readings.v1", "pump-1", 1));
        let value: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
        assert_eq!(value["event_id"], "gw/inc/inputs/9");
        assert_eq!(value["ts"], "1970-01-01T00:00:00.001500Z");
        assert_eq!(value["value"], 0.1);
        assert!(value.as_object().unwrap().values().all(|v| !v.is_object() && !v.is_array()));
        let read: Record<Reading> = serde_json::from_slice(&message.value).unwrap();
        assert_eq!(read.identity.seq, 9);
    }
}
