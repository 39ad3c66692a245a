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
            plaintext_accepted: config.kafka.as_ref().and_then(|kafka| kafka.plaintext_accepted.as_deref().map(Into::into)),
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

    /// So many more records are named in gaps.
    pub fn gap(&self, records: u64) {
        self.gap_records.fetch_add(records, Ordering::Relaxed);
    }

    /// Kafka has `lane` up to `position`.
    pub fn acknowledged(&self, lane: LaneName, position: Position) {
        lock(&self.acknowledged)[lane as usize] = position;
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

    /// The heartbeat at `now` (time since boot).
    pub fn heartbeat(&self, gateway: &config::Gateway, now: Duration) -> topics::Gateway {
        let counters: BTreeMap<String, u64> = self
            .sources
            .iter()
            .flat_map(|s| s.causes().into_iter().map(|(group, cause, count)| (format!("{}.{group}.{cause}", s.name), count)))
            .collect();
        topics::Gateway {
            period_s: gateway.heartbeat_every.as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").into(),
            os: os_release().into(),
            uptime_s: now.saturating_sub(self.started).as_secs_f64(),
            inc_ordinal: self.log.incarnation().ordinal,
            link: self.link().as_str().into(),
            delivery: "at_least_once".into(),
            plaintext_accepted: self.plaintext_accepted.clone(),
            accepted: self.accepted(),
            delivered: self.delivered.load(Ordering::Relaxed),
            buffered: LaneName::ALL.iter().map(|&lane| self.buffered(lane)).sum(),
            buffer_bytes: self.log.disk_bytes().unwrap_or(0),
            buffer_quota_bytes: self.quota_bytes,
            buffer_oldest_s: None,
            gap_records: self.gap_records.load(Ordering::Relaxed),
            lanes_json: self.lanes_json().into(),
            sources_json: self.sources_json().into(),
            counters_json: json!(counters).to_string().into(),
            certificates_json: "[]".into(),
            rss_bytes: rss_bytes(),
        }
    }

    fn lanes_json(&self) -> String {
        let lanes: serde_json::Map<_, _> = LaneName::ALL
            .iter()
            .map(|&lane| {
                let acked = lock(&self.acknowledged)[lane as usize];
                let last = self.log.committed(lane);
                (lane.to_string(), json!({"last": last.to_string(), "acked": acked.to_string(), "buffered": self.buffered(lane)}))
            })
            .collect();
        serde_json::Value::Object(lanes).to_string()
    }

    fn sources_json(&self) -> String {
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|s| json!({"name": s.name, "guarantee": s.guarantee, "connected": s.connected.load(Ordering::Relaxed), "accepted": s.accepted.load(Ordering::Relaxed)}))
            .collect();
        json!(sources).to_string()
    }
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
