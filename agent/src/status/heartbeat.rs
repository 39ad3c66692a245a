//! The heartbeat: the record of `hark.gateways.v1`.
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, atomic::Ordering},
};

use hark_protocol::topics::{self, LaneName};
use serde_json::json;

use super::Status;
use crate::{config, source::counters::SourceCounters};

impl Status {
    /// The heartbeat.
    pub fn heartbeat(&self, gateway: &config::Gateway) -> topics::Gateway {
        let counters: BTreeMap<String, u64> = self
            .sources
            .iter()
            .flat_map(|s| s.causes().into_iter().map(|(group, cause, count)| (format!("{}.{group}.{cause}", s.name), count)))
            .collect();
        let records = self.conservation();
        topics::Gateway {
            period_s: gateway.heartbeat_every.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").into(),
            os: os_release().into(),
            uptime_s: self.clock.monotonic().saturating_sub(self.started).as_secs_f64(),
            inc_ordinal: self.log.incarnation().ordinal,
            link: self.link().as_str().into(),
            delivery: self.delivery.as_str().into(),
            plaintext_accepted: self.plaintext_accepted.clone(),
            accepted: records.accepted,
            delivered: records.delivered,
            buffered: records.buffered,
            buffer_bytes: self.log.disk_bytes().unwrap_or(0),
            buffer_quota_bytes: self.quota_bytes,
            buffer_oldest_s: LaneName::ALL.iter().filter_map(|&lane| self.oldest_s(lane)).reduce(f64::max),
            gap_records: records.gaps,
            lanes_json: self.lanes_json().into(),
            sources_json: self.sources_json().into(),
            counters_json: json!(counters).to_string().into(),
            certificates_json: "[]".into(),
            rss_bytes: rss_bytes(),
        }
    }

    fn lanes_json(&self) -> String {
        let lane_json = |lane| {
            json!({
                "first": self.log.start(lane).to_string(),
                "last": self.log.committed(lane).to_string(),
                "acked": self.acknowledged(lane).to_string(),
                "buffered": self.buffered(lane),
                "bytes": self.log.lane_bytes(lane).unwrap_or(0),
                "oldest_s": self.oldest_s(lane),
            })
        };
        let lanes: serde_json::Map<_, _> = LaneName::ALL.iter().map(|&lane| (lane.to_string(), lane_json(lane))).collect();
        serde_json::Value::Object(lanes).to_string()
    }

    fn sources_json(&self) -> String {
        let source_json = |source: &Arc<SourceCounters>| {
            json!({
                "name": source.name,
                "kind": source.kind,
                "state": if source.connected.load(Ordering::Relaxed) { "connected" } else { "not_connected" },
                "guarantee": source.guarantee,
                "accepted": source.accepted.load(Ordering::Relaxed),
            })
        };
        json!(self.sources.iter().map(source_json).collect::<Vec<_>>()).to_string()
    }
}

fn os_release() -> String {
    let uname = rustix::system::uname();
    format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())
}

/// Resident memory of this process, from `/proc`.
pub(super) fn rss_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::{
        buffer::{Log, LogSettings},
        clock::Clock,
        record::{Body, Entry, Stamp},
    };

    /// Keys of an object; of an array, those of its first element.
    fn keys(json: &Value) -> Vec<&str> {
        let object = json.as_object().or_else(|| json.get(0)?.as_object());
        object.unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_heartbeat_has_the_keys_of_its_published_example() {
        let dir = tempfile::tempdir().unwrap();
        let config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        let (log, mut writer) = Log::open(dir.path(), LogSettings::new(64 << 20)).unwrap();
        let clock = Clock::new();
        let ts = topics::Timestamp(clock.now().ts.0 - 60_000_000);
        let stamp = Stamp { asset: None, ts, ts_source: topics::TsSource::Gateway, clock: topics::Clock::Synced, origin: topics::Origin::Live };
        let event = topics::Event::new(topics::EventKind::Tick);
        writer.append(LaneName::Events, &Entry { stamp, cause: None, body: Body::Event(event.into()) }).unwrap();
        writer.commit().unwrap();
        let status = Status::new(&config, log, vec![Arc::new(SourceCounters::new("hall-3".into(), "mqtt", "redelivery", clock.clone()))], &clock);
        let heartbeat = status.heartbeat(&config.gateway);

        let example = include_str!("../../../config/kafka/schemas/hark.gateways.v1.example.json");
        let example: Value = serde_json::from_str(example).unwrap();
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let of_example = |field: &str| parsed(example[field].as_str().unwrap());
        let (lanes, expected) = (parsed(&heartbeat.lanes_json), of_example("lanes_json"));
        assert_eq!(keys(&lanes), keys(&expected));
        assert_eq!(keys(&lanes["inputs"]), keys(&expected["inputs"]));
        assert_eq!(keys(&parsed(&heartbeat.sources_json)), keys(&of_example("sources_json")));
        assert!((60.0..120.0).contains(&heartbeat.buffer_oldest_s.unwrap()), "{:?}", heartbeat.buffer_oldest_s);
        assert_eq!((&lanes["events"]["acked"], &lanes["events"]["last"]), (&Value::from("0/0"), &Value::from("1/1")));
        assert_eq!(lanes["inputs"]["oldest_s"], Value::Null);
    }
}
