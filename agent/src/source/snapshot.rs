//! Raw blocks for people and training: those around an alarm, or the newest one where somebody asks, in chunks through the inputs lane.
//!
//! Inference asks, once for each alarm and command: what it says again after a crash it has said before. What was only in memory by then is gone, and
//! counted as not kept. Blocks are large, so there is a budget: what is beyond it is counted, told by an event `raw_block_given_up`, and not sent.
//!
//! What is left of the budget no replay knows. So who takes a command asks for it ([`Allowance`]), and a refusal travels within the command: inference
//! answers by the record alone.
//!
//! Blocks of MQTT lie in the rings of the [`Registry`]. Those of a serial node lie in the node: its line is asked, and hands over what came, which goes the
//! same way from there.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hark_protocol::topics::{AlarmState, Event, EventKind, LaneName, Name, Snapshot, TsSource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    budget::{Budget, Spent, bytes_of},
    node_block::SAMPLES_MAX,
    registry::Registry,
    ring::Kept,
};
use crate::{
    buffer::commit::{Append, AppendError, Appender},
    clock::Clock,
    config::{Node, Snapshots as Settings},
    record::{Body, Entry, Stamp},
};

/// Samples of a chunk: 16 KiB, and a third more as text.
const CHUNK_SAMPLES: usize = 8_192;
/// Requests that wait; more at a time are alarms of a whole plant.
const WAITING_MAX: usize = 64;
/// Blocks of nodes that wait for the commit loop.
const FETCHED_MAX: usize = 4;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose blocks.
    pub asset: Name,
    /// The newest block of this waveform; else all that are kept of all of the asset's.
    pub point: Option<Name>,
    /// Alarm or command behind it.
    pub cause_id: Name,
}

/// A block that a serial node gave.
#[derive(Debug)]
pub struct Fetched {
    /// Its point.
    pub point: Name,
    /// Alarm or command behind it.
    pub cause_id: Name,
    /// The block.
    pub block: Kept,
}

impl Wanted {
    /// Whether a block of a node's `channel` at `asset` is among what is wanted. A channel without a name is no point.
    pub fn is_of(&self, asset: &Name, channel: &str) -> bool {
        self.asset == *asset && !channel.is_empty() && self.point.as_deref().is_none_or(|point| point == channel)
    }

    /// What an output of inference asks for: an alarm that begins, or a command that was granted.
    pub fn by(output: &Entry) -> Option<Self> {
        let asset = output.stamp.asset.clone()?;
        match &output.body {
            Body::Alarm(alarm) if alarm.state == AlarmState::ActiveUnacknowledged && alarm.previous_state != AlarmState::Shelved => {
                Some(Self { asset, point: None, cause_id: alarm.alarm_id.clone() })
            }
            Body::Event(event) if event.result.as_deref() == Some("success") && event.what.as_deref() == Some(COMMAND) => {
                Some(Self { asset, point: event.detail_json.as_deref().and_then(point_of), cause_id: event.command_id.clone()? })
            }
            _ => None,
        }
    }
}

/// The command that asks for one.
pub const COMMAND: &str = "snapshot_request";

/// The point that the detail of a command names.
pub fn point_of(detail_json: &str) -> Option<Name> {
    serde_json::from_str::<serde_json::Value>(detail_json).ok()?.get("point")?.as_str().map(Into::into)
}

/// Why the block that `command` asks for is not sent, as who took the command knew.
pub fn refusal_of(command: &Event) -> Option<Name> {
    let detail: serde_json::Value = serde_json::from_str(command.detail_json.as_deref()?).ok()?;
    detail.get(REFUSED)?.as_str().map(Into::into)
}

/// Where it stands in the detail of a command.
const REFUSED: &str = "refused";

/// What became of blocks that were wanted, since the start.
#[derive(Debug, Default)]
pub struct SnapshotCounters {
    /// Blocks handed to the log.
    pub sent: AtomicU64,
    /// Requests for which no block was kept, and no node could be asked.
    pub not_kept: AtomicU64,
    /// Blocks left out because the day's bytes were used up.
    pub over_budget: AtomicU64,
    /// Requests, and blocks of nodes, left out because too many waited.
    pub busy: AtomicU64,
}

impl SnapshotCounters {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 4] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("sent", of(&self.sent)), ("not_kept", of(&self.not_kept)), ("over_budget", of(&self.over_budget)), ("busy", of(&self.busy))]
    }
}

/// Inference's end: asks, and never waits.
#[derive(Clone, Debug)]
pub struct Requests {
    sender: mpsc::Sender<Wanted>,
    counters: Arc<SnapshotCounters>,
}

impl Requests {
    /// Asks for what is `wanted`; where too many wait it is counted and left.
    pub fn ask(&self, wanted: Wanted) {
        if self.sender.try_send(wanted).is_err() {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What may still be sent, for who takes commands.
#[derive(Clone, Debug)]
pub struct Allowance {
    budget: Arc<Mutex<Budget>>,
    registry: Arc<Registry>,
    clock: Clock,
}

impl Allowance {
    /// The `command` about `asset` as it goes to the log: one that asks for a block for which nothing is left says so, and from when on it is worth asking.
    pub fn judged(&self, asset: &Name, command: Event) -> Event {
        let detail = command.detail_json.as_deref().and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
        let asked = detail.filter(|_| command.command.as_deref() == Some(COMMAND)).and_then(|detail| {
            let point: Name = detail.get("point")?.as_str()?.into();
            Some((detail, point))
        });
        let Some((mut detail, point)) = asked else { return command };
        let now = self.clock.now();
        let refusal = {
            let mut budget = lock(&self.budget);
            // How large a block of a node is shows once one was sent.
            let kept = self.registry.blocks(asset, Some(&point)).first().map(|(_, block)| bytes_of(block));
            let bytes = kept.or_else(|| budget.known(asset, &point)).unwrap_or(1);
            budget.spent(bytes, self.clock.monotonic()).map(|spent| spent.words(budget.per_day(), now.ts))
        };
        let Some(refusal) = refusal else { return command };
        detail[REFUSED] = refusal.into();
        Event { detail_json: Some(detail.to_string().into()), ..command }
    }
}

/// A serial line's end: what is wanted of its nodes, and where their blocks go.
#[derive(Debug)]
pub struct LineEnd {
    wanted: mpsc::Receiver<Wanted>,
    fetched: mpsc::Sender<Fetched>,
    counters: Arc<SnapshotCounters>,
    /// Most samples of a block: what memory there is for one.
    pub samples_max: usize,
}

impl LineEnd {
    /// The next request, if one waits.
    pub fn wanted(&mut self) -> Option<Wanted> {
        self.wanted.try_recv().ok()
    }

    /// Hands over a block; where too many wait it is counted and left.
    pub fn hand_over(&self, fetched: Fetched) {
        if self.fetched.try_send(fetched).is_err() {
            self.busy();
        }
    }

    /// A node has too many to give.
    pub fn busy(&self) {
        self.counters.busy.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends what is asked for.
#[derive(Debug)]
pub struct Snapshots {
    receiver: mpsc::Receiver<Wanted>,
    lines: Vec<(Vec<Node>, mpsc::Sender<Wanted>)>,
    fetched: (mpsc::Sender<Fetched>, mpsc::Receiver<Fetched>),
    memory_bytes: usize,
    registry: Arc<Registry>,
    appender: Appender,
    clock: Clock,
    budget: Arc<Mutex<Budget>>,
    counters: Arc<SnapshotCounters>,
}

enum Next {
    Wanted(Wanted),
    Fetched(Fetched),
}

impl Snapshots {
    /// Both ends, with the budget and the memory of `settings`.
    pub fn new(registry: Arc<Registry>, appender: Appender, clock: Clock, settings: &Settings, counters: Arc<SnapshotCounters>) -> (Requests, Self) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let budget = Arc::new(Mutex::new(Budget::new(settings.bytes_per_day, clock.monotonic())));
        let (fetched, memory_bytes) = (mpsc::channel(FETCHED_MAX), settings.memory_bytes);
        let requests = Requests { sender, counters: counters.clone() };
        (requests, Self { receiver, lines: Vec::new(), fetched, memory_bytes, registry, appender, clock, budget, counters })
    }

    /// For who takes commands.
    pub fn allowance(&self) -> Allowance {
        Allowance { budget: self.budget.clone(), registry: self.registry.clone(), clock: self.clock.clone() }
    }

    /// The end of a line with these `nodes`, which is asked from here on; not at all where no memory is given to raw blocks.
    pub fn line(&mut self, nodes: &BTreeMap<u32, Node>) -> LineEnd {
        let (sender, wanted) = mpsc::channel(WAITING_MAX);
        if self.memory_bytes > 0 {
            self.lines.push((nodes.values().cloned().collect(), sender));
        }
        let samples_max = SAMPLES_MAX.min(self.memory_bytes / size_of::<i16>());
        LineEnd { wanted, fetched: self.fetched.0.clone(), counters: self.counters.clone(), samples_max }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(next)) = stop.run_until_cancelled(self.next()).await {
            // What was handed over when a stop comes is stored all the same.
            if stop.run_until_cancelled(self.send(next)).await.flatten().is_none() {
                return;
            }
        }
    }

    /// May be cancelled.
    async fn next(&mut self) -> Option<Next> {
        tokio::select! {
            wanted = self.receiver.recv() => wanted.map(Next::Wanted),
            fetched = self.fetched.1.recv() => fetched.map(Next::Fetched),
        }
    }

    /// `None` once the log takes nothing more.
    async fn send(&mut self, next: Next) -> Option<()> {
        let wanted = match next {
            Next::Wanted(wanted) => wanted,
            Next::Fetched(Fetched { point, cause_id, block }) => return self.send_blocks(&cause_id, &[(point, Arc::new(block))]).await,
        };
        let blocks = self.registry.blocks(&wanted.asset, wanted.point.as_ref());
        let asked = self.ask_lines(&wanted);
        if blocks.is_empty() && !asked {
            self.counters.not_kept.fetch_add(1, Ordering::Relaxed);
        }
        self.send_blocks(&wanted.cause_id, &blocks).await
    }

    /// Whether there are nodes to be asked.
    fn ask_lines(&self, wanted: &Wanted) -> bool {
        let is_of = |nodes: &[Node]| nodes.iter().any(|node| node.channels.iter().any(|channel| wanted.is_of(&node.asset, channel)));
        let mut asked = false;
        for (_, sender) in self.lines.iter().filter(|(nodes, _)| is_of(nodes)) {
            asked = true;
            if sender.try_send(wanted.clone()).is_err() {
                self.counters.busy.fetch_add(1, Ordering::Relaxed);
            }
        }
        asked
    }

    /// Blocks of one asset, as far as the day's bytes go; an event tells of the rest. `None` once the log takes nothing more.
    async fn send_blocks(&mut self, cause_id: &Name, blocks: &[(Name, Arc<Kept>)]) -> Option<()> {
        let mut left_out = Vec::new();
        for (point, block) in blocks {
            let granted = lock(&self.budget).take(point, block, self.clock.monotonic());
            match granted {
                Ok(()) => self.send_block(point, cause_id, block).await?,
                Err(spent) => left_out.push((point, block, spent)),
            }
        }
        let Some((_, block, spent)) = left_out.last() else { return Some(()) };
        self.counters.over_budget.fetch_add(left_out.len() as u64, Ordering::Relaxed);
        let points: BTreeSet<&str> = left_out.iter().map(|(point, ..)| &***point).collect();
        let event = self.over_budget(&points, left_out.len(), cause_id, spent);
        let now = self.clock.now();
        let stamp = Stamp { ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, ..block.stamp.clone() };
        let entries = vec![Entry { stamp, cause: None, body: Body::Event(event.into()) }];
        self.appender.append(Append { lane: LaneName::Events, entries, marks: Vec::new(), urgent: false, done: None }).await.ok()
    }

    fn over_budget(&self, points: &BTreeSet<&str>, count: usize, cause_id: &Name, spent: &Spent) -> Event {
        let words = spent.words(lock(&self.budget).per_day(), self.clock.now().ts);
        let names = points.iter().copied().collect::<Vec<&str>>().join("`, `");
        let blocks = if count == 1 { "a raw block" } else { "raw blocks" };
        Event {
            what: Some("raw_block_given_up".into()),
            count: Some(count as u64),
            text: Some(format!("{blocks} of `{names}` for {cause_id} cannot be sent: {words}").into()),
            detail_json: Some(serde_json::json!({ "points": points, "reason": "over_budget", "cause_id": **cause_id }).to_string().into()),
            ..Event::new(EventKind::Source)
        }
    }

    /// `None` once the log takes nothing more.
    async fn send_block(&mut self, point: &Name, cause_id: &Name, block: &Kept) -> Option<()> {
        let entries = chunks(block, point, cause_id);
        let asset = block.stamp.asset.as_deref().unwrap_or_default();
        info!(asset, %point, cause = %cause_id, chunks = entries.len(), "a raw block is stored");
        // One block at a time: what waits for the commit loop is not counted in any window of a source.
        match self.appender.append_durably(LaneName::Inputs, entries, false).await {
            Ok(_) => drop(self.counters.sent.fetch_add(1, Ordering::Relaxed)),
            Err(AppendError::Stopped) => return None,
            Err(refused @ AppendError::Refused(_)) => warn!(asset, %point, %refused, "a raw block cannot be stored"),
        }
        Some(())
    }
}

/// The records of a block.
fn chunks(block: &Kept, point: &Name, cause_id: &Name) -> Vec<Entry> {
    let snapshot_id: Name = format!("{cause_id}/{point}/{}", block.stamp.ts.0).into();
    let parts: Vec<&[i16]> = block.counts.chunks(CHUNK_SAMPLES).collect();
    let chunks = parts.len() as u32;
    let entry = |(index, part): (usize, &&[i16])| {
        let bytes: Vec<u8> = part.iter().flat_map(|count| count.to_le_bytes()).collect();
        let snapshot = Snapshot {
            point: point.clone(),
            snapshot_id: snapshot_id.clone(),
            cause_id: Some(cause_id.clone()),
            chunk: index as u32 + 1,
            chunks,
            fs_hz: block.fs_hz,
            unit: block.unit.clone(),
            scale: block.scale,
            samples: part.len() as u32,
            speed_hz: block.speed_hz,
            data_b64: STANDARD.encode(bytes).into(),
        };
        Entry { stamp: block.stamp.clone(), cause: None, body: Body::Snapshot(snapshot) }
    };
    parts.iter().enumerate().map(entry).collect()
}

fn lock(budget: &Mutex<Budget>) -> MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::{Clock as ClockState, Origin, Timestamp};

    use super::*;
    use crate::buffer::commit::{self, CommitPolicy};

    fn stamp() -> crate::record::Stamp {
        let ts = Timestamp(7_000_000);
        crate::record::Stamp { asset: Some("pump".into()), ts, ts_source: TsSource::Sensor, clock: ClockState::Synced, origin: Origin::Simulated }
    }

    #[test]
    fn a_block_is_in_its_chunks_in_order() {
        let counts: Vec<i16> = (0..20_000).map(|n| (n % 40_000 - 20_000) as i16).collect();
        let block = Kept { stamp: stamp(), fs_hz: 12_000.0, unit: "[g]".into(), scale: 0.001, counts: counts.clone(), speed_hz: Some(29.95) };
        let entries = chunks(&block, &"de-h".into(), &"2/17".into());
        let mut found = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let Body::Snapshot(snapshot) = &entry.body else { panic!("{entry:?}") };
            assert_eq!((snapshot.chunk, snapshot.chunks, &*snapshot.snapshot_id), (index as u32 + 1, 3, "2/17/de-h/7000000"));
            let bytes = STANDARD.decode(&*snapshot.data_b64).unwrap();
            assert_eq!(bytes.len(), 2 * snapshot.samples as usize);
            found.extend(bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        }
        assert_eq!(found, counts);
    }

    fn block(bytes: usize) -> Kept {
        Kept { stamp: stamp(), fs_hz: 12_000.0, unit: "[g]".into(), scale: 0.001, counts: vec![1; bytes / 2], speed_hz: None }
    }

    /// Sends a block of a node, of 2 000 bytes, within a budget of `per_day`; gives the events and snapshots of the log, and what a command for the next one
    /// becomes.
    async fn sent(per_day: u64) -> (Vec<Event>, usize, Event) {
        let dir = tempfile::tempdir().unwrap();
        let (log, writer) = crate::buffer::Log::open(dir.path(), crate::buffer::LogSettings::new(1 << 30)).unwrap();
        let (appender, requests) = commit::channel(16);
        let commit_log = log.clone();
        let committing = std::thread::spawn(move || commit::run(writer, commit_log, requests, commit::Settings::unbounded(CommitPolicy::default())));
        let registry = Arc::new(Registry::new(&BTreeMap::new(), Origin::Simulated));
        let settings = Settings { memory_bytes: 1 << 20, bytes_per_day: per_day };
        let (requests, mut snapshots) = Snapshots::new(registry, appender.clone(), Clock::new(), &settings, Arc::default());
        let (allowance, line) = (snapshots.allowance(), snapshots.line(&BTreeMap::new()));
        line.hand_over(Fetched { point: "de-h".into(), cause_id: "2/17".into(), block: block(2_000) });
        let next = snapshots.next().await.unwrap();
        snapshots.send(next).await.unwrap();
        let command = Event { command: Some(COMMAND.into()), detail_json: Some("{\"point\":\"de-h\"}".into()), ..Event::new(EventKind::Command) };
        let judged = allowance.judged(&"pump".into(), command);
        drop((requests, snapshots, line, appender));
        committing.join().unwrap().unwrap();
        let of = |lane| log.reader(lane).unwrap().read(log.start(lane), 100, 1 << 20).unwrap();
        let event = |entry: Entry| if let Body::Event(event) = entry.body { Some(*event) } else { None };
        (of(LaneName::Events).into_iter().filter_map(|(_, entry)| event(entry)).collect(), of(LaneName::Inputs).len(), judged)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_budget_does_not_allow_is_told_and_refused_from_then_on() {
        let (events, chunks, judged) = sent(10_000).await;
        assert_eq!((events, chunks, refusal_of(&judged)), (Vec::new(), 1, None));
        let (events, chunks, judged) = sent(3_000).await;
        assert_eq!((events, chunks), (Vec::new(), 1));
        let refusal = refusal_of(&judged).unwrap();
        assert!(refusal.starts_with("the 3000 bytes of a day") && refusal.contains("possible again from 2"), "{refusal}");
        assert_eq!(judged.detail_json.as_deref().and_then(point_of).as_deref(), Some("de-h"));
        let (events, chunks, judged) = sent(1_000).await;
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.what.as_deref(), event.count, chunks), (Some("raw_block_given_up"), Some(1), 0));
        let text = "a raw block of `de-h` for 2/17 cannot be sent: it has 2000 bytes, more than the 1000 of a day (`per_day` of `[snapshots]`)";
        assert_eq!((event.text.as_deref(), refusal_of(&judged).is_some()), (Some(text), true));
        assert!(event.detail_json.as_deref().unwrap().contains("over_budget"));
    }

    #[test]
    fn a_command_for_anything_else_goes_as_it_came() {
        let (appender, _requests) = commit::channel(1);
        let registry = Arc::new(Registry::new(&BTreeMap::new(), Origin::Simulated));
        let settings = Settings { memory_bytes: 0, bytes_per_day: 0 };
        let (_, snapshots) = Snapshots::new(registry, appender, Clock::new(), &settings, Arc::default());
        let event = |command: &str, detail: Option<&str>| Event {
            command: Some(command.into()),
            detail_json: detail.map(Into::into),
            ..Event::new(EventKind::Command)
        };
        for (command, detail) in [("label", Some("{\"point\":\"de-h\"}")), (COMMAND, None), (COMMAND, Some("{\"point\":null}"))] {
            let given = event(command, detail);
            assert_eq!(snapshots.allowance().judged(&"pump".into(), given.clone()), given);
        }
    }

    #[test]
    fn a_granted_command_asks_for_one_point() {
        let event = |result: &str| Event {
            what: Some(COMMAND.into()),
            result: Some(result.into()),
            command_id: Some("c1".into()),
            detail_json: Some("{\"point\":\"de-h\"}".into()),
            ..Event::new(EventKind::Audit)
        };
        let wanted = |result: &str| Wanted::by(&Entry { stamp: stamp(), cause: None, body: Body::Event(event(result).into()) });
        assert_eq!(wanted("success"), Some(Wanted { asset: "pump".into(), point: Some("de-h".into()), cause_id: "c1".into() }));
        assert_eq!(wanted("refused"), None);
    }
}
