//! What the agent can say of itself at any moment: the ground for the heartbeat, `/metrics` and the status page.
//!
//! Stages write here what changed; none of them waits here.
pub mod http;
mod metrics;
mod page;

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    sync::Arc,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{self, LaneName, Name};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    buffer::{BufferCounters, Gap, Log, Position},
    clock::Clock,
    config, feedback,
    inference::AlarmFlood,
    source::{counters::SourceCounters, snapshot::SnapshotCounters},
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
    /// Another agent runs under this gateway id.
    DuplicateGateway,
}

impl Link {
    const ALL: [Self; 5] = [Self::NotConfigured, Self::Reconnecting, Self::Connected, Self::Blocked, Self::DuplicateGateway];

    /// Word in records and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Reconnecting => "reconnecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
            Self::DuplicateGateway => "duplicate_gateway",
        }
    }
}

/// What forward did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardNumbers {
    /// Records that Kafka has acknowledged.
    pub delivered: u64,
    /// Records passed that are named in gaps.
    pub gap_records: u64,
    /// Transactions committed; without transactions, batches acknowledged.
    pub transactions: u64,
    /// The same that failed, whatever became of them.
    pub aborted: u64,
    /// Connections given up on mere suspicion that something was still under way.
    pub recycled: u64,
    /// Records that Kafka refused for good.
    pub refused: u64,
    /// Times that another producer was first.
    pub fenced: u64,
    /// Connections at which Kafka had no cursors though this disk has a mark.
    pub cursor_expired: u64,
    /// Kafka's cursor of a lane was behind what Kafka had acknowledged.
    pub cursor_behind: u64,
    /// Other disks whose place was taken.
    pub take_over: u64,
}

/// Where forward stands, changed as one.
#[derive(Clone, Copy, Debug, Default)]
struct Forwarded {
    /// Kafka has each lane up to here.
    acknowledged: [Position; LaneName::ALL.len()],
    /// Records in the buffer when the agent started.
    found: u64,
    numbers: ForwardNumbers,
}

/// Records at one moment: `accepted = delivered + buffered + gaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conservation {
    /// Found in the buffer at the start, or appended since.
    pub accepted: u64,
    /// Acknowledged by Kafka.
    pub delivered: u64,
    /// Still to be delivered.
    pub buffered: u64,
    /// Named in gaps: passed by forward, or ahead of it.
    pub gaps: u64,
}

/// Counters of inference, copied from the engine after each batch.
#[derive(Clone, Debug, Default)]
pub struct InferenceNumbers {
    /// By name, for `/metrics`.
    pub counters: Vec<(&'static str, u64)>,
}

/// What became of a command: done, or why not.
pub type Outcome = Result<(), &'static str>;

/// Outcomes that are remembered: who asked waits for some seconds.
const OUTCOMES_MAX: usize = 256;

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
    delivery: config::Delivery,
    forwarded: Mutex<Forwarded>,
    assets: Mutex<BTreeMap<Name, topics::Asset>>,
    alarms: Mutex<Vec<(Name, topics::Alarm)>>,
    alarm_flood: Mutex<Option<AlarmFlood>>,
    alarm_changes: watch::Sender<u64>,
    outcomes: watch::Sender<VecDeque<(Name, Outcome)>>,
    baselines: Mutex<Vec<(Name, Arc<topics::Baseline>)>>,
    inference: Mutex<InferenceNumbers>,
    snapshots: Arc<SnapshotCounters>,
    feedback: Arc<feedback::Counters>,
}

impl Status {
    /// A status of an agent that has just opened its log.
    pub fn new(config: &config::Config, log: Log, sources: Vec<Arc<SourceCounters>>, clock: &Clock) -> Self {
        let link = if config.kafka.is_some() { Link::Reconnecting } else { Link::NotConfigured };
        let found = found(&log, &[Position::default(); LaneName::ALL.len()]);
        Self {
            buffer: log.counters(),
            log,
            quota_bytes: config.buffer.quota_bytes,
            plaintext_accepted: plaintext_accepted(config),
            clock: clock.clone(),
            started: clock.monotonic(),
            sources,
            link: AtomicU8::new(link as u8),
            delivery: config.kafka.as_ref().map(|kafka| kafka.delivery).unwrap_or_default(),
            forwarded: Mutex::new(Forwarded { found, ..Forwarded::default() }),
            assets: Mutex::default(),
            alarms: Mutex::default(),
            alarm_flood: Mutex::default(),
            alarm_changes: watch::Sender::default(),
            outcomes: watch::Sender::default(),
            baselines: Mutex::default(),
            inference: Mutex::default(),
            snapshots: Arc::default(),
            feedback: Arc::default(),
        }
    }

    /// Why plain text may leave this box, by destination.
    pub fn plaintext_accepted(&self) -> Option<&Name> {
        self.plaintext_accepted.as_ref()
    }

    /// Where commands from Kafka are counted.
    pub fn feedback(&self) -> &Arc<feedback::Counters> {
        &self.feedback
    }

    /// The disk does not take what is appended at the moment.
    pub fn is_stalled(&self) -> bool {
        self.buffer.stalled.load(Ordering::Relaxed)
    }

    /// The way to Kafka changed.
    pub fn set_link(&self, link: Link) {
        self.link.store(link as u8, Ordering::Relaxed);
    }

    /// State of the way to Kafka.
    pub fn link(&self) -> Link {
        Link::ALL[usize::from(self.link.load(Ordering::Relaxed))]
    }

    /// Forward begins here: Kafka is known to have the lanes up to `acknowledged`. Before anything is appended in this incarnation.
    pub fn placed(&self, acknowledged: [Position; LaneName::ALL.len()]) {
        let mut forwarded = lock(&self.forwarded);
        (forwarded.acknowledged, forwarded.found) = (acknowledged, found(&self.log, &acknowledged));
    }

    /// Kafka has the lanes up to `acknowledged`: so many more records were delivered, and so many passed that are named in gaps.
    pub fn moved(&self, acknowledged: [Position; LaneName::ALL.len()], delivered: u64, gap_records: u64) {
        let mut forwarded = lock(&self.forwarded);
        forwarded.acknowledged = acknowledged;
        forwarded.numbers.delivered += delivered;
        forwarded.numbers.gap_records += gap_records;
    }

    /// Counts what forward did.
    pub fn forward(&self, count: impl FnOnce(&mut ForwardNumbers)) {
        count(&mut lock(&self.forwarded).numbers);
    }

    /// What forward did since the start.
    pub fn forward_numbers(&self) -> ForwardNumbers {
        lock(&self.forwarded).numbers
    }

    /// Where all records are, at one moment.
    pub fn conservation(&self) -> Conservation {
        const TRIES: usize = 100;
        let mut tries = 0;
        loop {
            let appended = self.appended();
            let forwarded = *lock(&self.forwarded);
            let numbers = forwarded.numbers;
            let gaps = self.log.gaps();
            let ahead: u64 = LaneName::ALL.iter().map(|&lane| named_after(&gaps, lane, forwarded.acknowledged[lane as usize])).sum();
            let buffered = LaneName::ALL.iter().map(|&lane| self.log.depth(lane, forwarded.acknowledged[lane as usize])).sum();
            tries += 1;
            // A commit came in between: what was read belongs to two moments.
            if tries < TRIES && (appended != self.appended() || gaps.len() != self.log.gaps().len()) {
                continue;
            }
            return Conservation { accepted: forwarded.found + appended, delivered: numbers.delivered, buffered, gaps: numbers.gap_records + ahead };
        }
    }

    fn appended(&self) -> u64 {
        LaneName::ALL.iter().map(|&lane| self.log.committed(lane).seq).sum()
    }

    /// The last record of `lane` that Kafka has.
    pub fn acknowledged(&self, lane: LaneName) -> Position {
        lock(&self.forwarded).acknowledged[lane as usize]
    }

    /// The present state of all assets.
    pub fn set_assets(&self, assets: Vec<(Name, topics::Asset)>) {
        let assets: BTreeMap<Name, topics::Asset> = assets.into_iter().collect();
        let mut known = lock(&self.assets);
        let states = |assets: &BTreeMap<Name, topics::Asset>| assets.iter().map(|(id, asset)| (id.clone(), asset.alarm_state)).collect::<Vec<_>>();
        let changed = states(&known) != states(&assets);
        *known = assets;
        drop(known);
        if changed {
            self.tell_of_alarms();
        }
    }

    /// All assets.
    pub fn assets(&self) -> Vec<(Name, topics::Asset)> {
        lock(&self.assets).iter().map(|(id, asset)| (id.clone(), asset.clone())).collect()
    }

    /// The alarms that are shown, by asset, the most urgent first.
    pub fn set_alarms(&self, alarms: Vec<(Name, topics::Alarm)>) {
        let mut known = lock(&self.alarms);
        let changed = *known != alarms;
        *known = alarms;
        drop(known);
        if changed {
            self.tell_of_alarms();
        }
    }

    /// Whether there are more new alarms than a person can deal with.
    pub fn set_alarm_flood(&self, flood: Option<AlarmFlood>) {
        let before = std::mem::replace(&mut *lock(&self.alarm_flood), flood.clone());
        if before.is_some() != flood.is_some() {
            self.tell_of_alarms();
        }
    }

    /// The present flood of alarms.
    pub fn alarm_flood(&self) -> Option<AlarmFlood> {
        lock(&self.alarm_flood).clone()
    }

    /// Says to who listens that alarms may have changed.
    fn tell_of_alarms(&self) {
        self.alarm_changes.send_modify(|changes| *changes += 1);
    }

    /// Counts what may have changed in [`Self::alarms`], in [`Self::alarm_flood`], or in the states of [`Self::assets`].
    pub fn alarm_changes(&self) -> watch::Receiver<u64> {
        self.alarm_changes.subscribe()
    }

    /// The same, as they are now.
    pub fn alarms(&self) -> Vec<(Name, topics::Alarm)> {
        lock(&self.alarms).clone()
    }

    /// What inference did with commands, by their ids.
    pub fn add_outcomes(&self, outcomes: impl IntoIterator<Item = (Name, Outcome)>) {
        let mut outcomes = outcomes.into_iter().peekable();
        if outcomes.peek().is_some() {
            self.outcomes.send_modify(|known| {
                known.extend(outcomes);
                let superfluous = known.len().saturating_sub(OUTCOMES_MAX);
                known.drain(..superfluous);
            });
        }
    }

    /// What inference does with the command with this id, once it has come to it.
    pub async fn outcome(&self, command_id: &str) -> Outcome {
        let of = |known: &VecDeque<(Name, Outcome)>| known.iter().rev().find(|(id, _)| **id == *command_id).map(|(_, outcome)| *outcome);
        let mut told = self.outcomes.subscribe();
        let known = told.wait_for(|known| of(known).is_some()).await;
        // It cannot be closed while this is borrowed.
        known.ok().and_then(|known| of(&known)).unwrap_or(Err("the agent is stopping"))
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

    /// What became of raw blocks that were wanted.
    pub fn snapshots(&self) -> &Arc<SnapshotCounters> {
        &self.snapshots
    }

    /// Records in `lane` that Kafka has not acknowledged and that are not lost.
    pub fn buffered(&self, lane: LaneName) -> u64 {
        self.log.depth(lane, self.acknowledged(lane))
    }

    /// Seconds since the event of the oldest record in `lane` that Kafka has not acknowledged; `None` without one, or where it cannot be read.
    pub fn oldest_s(&self, lane: LaneName) -> Option<f64> {
        let acknowledged = self.acknowledged(lane);
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

/// Records behind `acknowledged`.
fn found(log: &Log, acknowledged: &[Position; LaneName::ALL.len()]) -> u64 {
    let gaps = log.gaps();
    let behind = |&lane: &LaneName| {
        let at = acknowledged[lane as usize];
        (log.depth(lane, at) + named_after(&gaps, lane, at)).saturating_sub(log.committed(lane).seq)
    };
    LaneName::ALL.iter().map(behind).sum()
}

/// Records of `lane` after `at` that events name in `gaps`.
fn named_after(gaps: &[Gap], lane: LaneName, at: Position) -> u64 {
    let ahead = gaps.iter().filter(|gap| gap.lane == lane && gap.to > at && gap.event != Position::default());
    ahead.map(|gap| if gap.from > at { gap.records() } else { gap.to.seq - at.seq }).sum()
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
