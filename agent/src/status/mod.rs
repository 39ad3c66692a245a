//! What the agent can say of itself at any moment: the ground for the heartbeat, `/metrics` and the status page.
//!
//! Stages write here what changed; nobody waits here.
pub mod http;
mod metrics;
mod page;

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{self, LaneName, Name};
use serde_json::json;

use crate::{
    buffer::{BufferCounters, Log, Position},
    clock::Clock,
    config,
    source::counters::SourceCounters,
};

/// State of the way to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No Kafka is configured.
    NotConfigured,
    /// Not reached yet, or lost; trying again.
    Reconnecting,
    /// Records are taken.
    Connected,
    /// Reached, but something must be done there first.
    Blocked,
}

impl Link {
    const ALL: [Self; 4] = [Self::NotConfigured, Self::Reconnecting, Self::Connected, Self::Blocked];

    /// Word in records and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Reconnecting => "reconnecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
        }
    }
}

/// Counters of inference, copied from the engine after each batch.
#[derive(Clone, Debug, Default)]
pub struct InferenceNumbers {
    /// By name, for `/metrics`.
    pub counters: Vec<(&'static str, u64)>,
}

/// Everything that can be asked.
pub struct Status {
    log: Log,
    buffer: Arc<BufferCounters>,
    quota_bytes: u64,
    plaintext_accepted: Option<Name>,
    clock: Clock,
    started: Duration,
    sources: Vec<Arc<SourceCounters>>,
    link: AtomicU8,
    delivered: AtomicU64,
    gap_records: AtomicU64,
    acknowledged: Mutex<[Position; LaneName::ALL.len()]>,
    assets: Mutex<BTreeMap<Name, topics::Asset>>,
    baselines: Mutex<Vec<(Name, Arc<topics::Baseline>)>>,
    inference: Mutex<InferenceNumbers>,
}

impl Status {
    /// A status of an agent that has just opened its log.
    pub fn new(config: &config::Config, log: Log, sources: Vec<Arc<SourceCounters>>, clock: &Clock) -> Self {
        let link = if config.kafka.is_some() { Link::Reconnecting } else { Link::NotConfigured };
        Self {
            buffer: log.counters(),
            log,
            quota_bytes: config.buffer.quota_bytes,
            plaintext_accepted: plaintext_accepted(config),
            clock: clock.clone(),
            started: clock.monotonic(),
            sources,
            link: AtomicU8::new(link as u8),
            delivered: AtomicU64::new(0),
            gap_records: AtomicU64::new(0),
            acknowledged: Mutex::new([Position::default(); LaneName::ALL.len()]),
            assets: Mutex::default(),
            baselines: Mutex::default(),
            inference: Mutex::default(),
        }
    }

    /// Why plain text may leave this box, by destination.
    pub fn plaintext_accepted(&self) -> Option<&Name> {
        self.plaintext_accepted.as_ref()
    }

    /// The way to Kafka changed.
    pub fn set_link(&self, link: Link) {
        self.link.store(link as u8, Ordering::Relaxed);
    }

    /// State of the way to Kafka.
    pub fn link(&self) -> Link {
        Link::ALL[usize::from(self.link.load(Ordering::Relaxed))]
    }

    /// Kafka acknowledged so many more records.
    pub fn delivered(&self, records: u64) {
        self.delivered.fetch_add(records, Ordering::Relaxed);
    }

    /// Records that Kafka acknowledged since the start.
    pub fn delivered_records(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// So many more records are named in gaps.
    pub fn gap(&self, records: u64) {
        self.gap_records.fetch_add(records, Ordering::Relaxed);
    }

    /// Kafka has `lane` up to `position`.
    pub fn acknowledged(&self, lane: LaneName, position: Position) {
        lock(&self.acknowledged)[lane as usize] = position;
    }

    /// The last record of `lane` that Kafka has.
    pub fn acknowledged_upto(&self, lane: LaneName) -> Position {
        lock(&self.acknowledged)[lane as usize]
    }

    /// The present state of an asset.
    pub fn set_asset(&self, id: Name, asset: topics::Asset) {
        lock(&self.assets).insert(id, asset);
    }

    /// All assets.
    pub fn assets(&self) -> Vec<(Name, topics::Asset)> {
        lock(&self.assets).iter().map(|(id, asset)| (id.clone(), asset.clone())).collect()
    }

    /// The baselines that predictions name, by asset.
    pub fn set_baselines(&self, baselines: Vec<(Name, Arc<topics::Baseline>)>) {
        *lock(&self.baselines) = baselines;
    }

    /// The baselines that predictions name, by asset.
    pub fn baselines(&self) -> Vec<(Name, Arc<topics::Baseline>)> {
        lock(&self.baselines).clone()
    }

    /// What inference has done.
    pub fn set_inference(&self, numbers: InferenceNumbers) {
        *lock(&self.inference) = numbers;
    }

    /// Records in `lane` that Kafka has not acknowledged.
    pub fn buffered(&self, lane: LaneName) -> u64 {
        self.log.depth(lane, lock(&self.acknowledged)[lane as usize])
    }

    /// Records appended since the start.
    pub fn accepted(&self) -> u64 {
        LaneName::ALL.iter().map(|&lane| self.buffer.appended(lane)).sum()
    }

    /// Seconds since the event of the oldest record in `lane` that Kafka has not acknowledged; `None` without one, or where it cannot be read.
    pub fn oldest_s(&self, lane: LaneName) -> Option<f64> {
        let acknowledged = lock(&self.acknowledged)[lane as usize];
        let (_, oldest) = self.log.reader(lane).ok()?.read(acknowledged, 1, 1).ok()?.pop()?;
        Some(self.clock.now().ts.0.saturating_sub(oldest.stamp.ts.0) as f64 / 1e6)
    }

    /// The heartbeat.
    pub fn heartbeat(&self, gateway: &config::Gateway) -> topics::Gateway {
        let counters: BTreeMap<String, u64> = self
            .sources
            .iter()
            .flat_map(|s| s.causes().into_iter().map(|(group, cause, count)| (format!("{}.{group}.{cause}", s.name), count)))
            .collect();
        topics::Gateway {
            period_s: gateway.heartbeat_every.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").into(),
            os: os_release().into(),
            uptime_s: self.clock.monotonic().saturating_sub(self.started).as_secs_f64(),
            inc_ordinal: self.log.incarnation().ordinal,
            link: self.link().as_str().into(),
            delivery: "at_least_once".into(),
            plaintext_accepted: self.plaintext_accepted.clone(),
            accepted: self.accepted(),
            delivered: self.delivered.load(Ordering::Relaxed),
            buffered: LaneName::ALL.iter().map(|&lane| self.buffered(lane)).sum(),
            buffer_bytes: self.log.disk_bytes().unwrap_or(0),
            buffer_quota_bytes: self.quota_bytes,
            buffer_oldest_s: LaneName::ALL.iter().filter_map(|&lane| self.oldest_s(lane)).reduce(f64::max),
            gap_records: self.gap_records.load(Ordering::Relaxed),
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
                "acked": lock(&self.acknowledged)[lane as usize].to_string(),
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

/// Why plain text leaves this box, by destination; `None` where nothing says that it may.
fn plaintext_accepted(config: &config::Config) -> Option<Name> {
    let kafka = config.kafka.iter().map(|kafka| ("kafka", &kafka.plaintext_accepted));
    let mqtt = config.mqtt.iter().map(|mqtt| (&*mqtt.name, &mqtt.plaintext_accepted));
    let reasons: Vec<String> = kafka.chain(mqtt).filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_deref()?))).collect();
    (!reasons.is_empty()).then(|| reasons.join("; ").into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn os_release() -> String {
    let uname = rustix::system::uname();
    format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())
}

/// Resident memory of this process, from `/proc`.
fn rss_bytes() -> Option<u64> {
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
        buffer::LogSettings,
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
