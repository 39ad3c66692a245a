//! The log against a plain list: random appends, commits, reads, acknowledgements, reclaims, evictions, restarts, kills and power cuts, over the production
//! code of the store. A power cut keeps what was made durable and random pages of what was not.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use hark_protocol::topics::{EventKind, GapReason, LaneName};
use proptest::prelude::*;

use super::{
    BufferError, Log, LogSettings, Position,
    barrier::recorder,
    commit::{Append, CommitPolicy, Request, Settings},
    group::Group,
    header::Key,
    lane::Expendable,
    samples,
};
use crate::{
    hold::Hold,
    record::{Body, Entry},
};

/// What the log must do, in memory.
#[derive(Default)]
struct Oracle {
    ordinal: u32,
    lanes: [OracleLane; 4],
}

#[derive(Default)]
struct OracleLane {
    committed: Vec<(Position, u64)>,
    pending: Vec<(Position, u64)>,
    last_seq: u64,
    /// Kafka has them up to here; they may be missing.
    acknowledged: Position,
    /// Given up and named.
    lost: BTreeSet<Position>,
    /// Where the test's reader stands.
    cursor: Position,
}

/// The tag of an event that the log wrote itself.
const ITS_OWN: u64 = u64::MAX;

impl OracleLane {
    fn after(&self, at: Position) -> &[(Position, u64)] {
        &self.committed[self.committed.partition_point(|(position, _)| *position <= at)..]
    }

    fn last_seq_of(&self, ordinal: u32) -> u64 {
        self.committed.iter().rfind(|(position, _)| position.ordinal == ordinal).map_or(0, |(position, _)| position.seq)
    }

    fn share(&self, percent: usize) -> Position {
        self.committed.get((self.committed.len() * percent / 100).saturating_sub(1)).map_or(Position::default(), |(at, _)| *at)
    }
}

impl Oracle {
    fn append(&mut self, lane: LaneName, tag: u64) {
        let ordinal = self.ordinal;
        let lane = &mut self.lanes[lane as usize];
        lane.last_seq += 1;
        lane.pending.push((Position { ordinal, seq: lane.last_seq }, tag));
    }

    fn commit(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.committed.append(&mut lane.pending));
    }

    fn restart(&mut self) {
        self.ordinal += 1;
        for lane in &mut self.lanes {
            lane.pending.clear();
            lane.last_seq = 0;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { lane: LaneName, records: u64, bytes: usize },
    Commit,
    Read { lane: LaneName, max_records: usize, max_bytes: usize },
    Acknowledge { lane: LaneName, percent: usize },
    Reclaim { lane: LaneName },
    Evict { lane: LaneName },
    Name { lane: LaneName, percent: usize },
    CloseIdle,
    Restart,
    Kill,
    PowerCut { seed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = || prop::sample::select(LaneName::ALL.to_vec());
    let evictable = prop::sample::select(vec![LaneName::Inputs, LaneName::Predictions, LaneName::Alarms]);
    let step = prop_oneof![
        8 => (lane(), 1..400_u64, prop_oneof![8 => Just(0), 2 => 1..9_000_usize, 1 => Just(70_000)])
            .prop_map(|(lane, records, bytes)| Step::Append { lane, records: if bytes > 0 { records % 8 + 1 } else { records }, bytes }),
        6 => Just(Step::Commit),
        6 => (lane(), 1..900_usize, 1..60_000_usize).prop_map(|(lane, max_records, max_bytes)| Step::Read { lane, max_records, max_bytes }),
        2 => (lane(), 0..=100_usize).prop_map(|(lane, percent)| Step::Acknowledge { lane, percent }),
        2 => lane().prop_map(|lane| Step::Reclaim { lane }),
        2 => evictable.prop_map(|lane| Step::Evict { lane }),
        2 => (lane(), 0..=100_usize).prop_map(|(lane, percent)| Step::Name { lane, percent }),
        1 => Just(Step::CloseIdle),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ];
    prop::collection::vec(step, 1..40)
}

struct Bench {
    root: tempfile::TempDir,
    dir: PathBuf,
    copies: u32,
    open: Option<(Log, Group)>,
    hold: Arc<Hold>,
    oracle: Oracle,
    tags: u64,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("log-0");
        let mut bench = Self { root, dir, copies: 0, open: None, hold: Arc::default(), oracle: Oracle::default(), tags: 0 };
        bench.reopen();
        bench
    }

    fn reopen(&mut self) {
        drop(self.open.take());
        recorder::start(&self.dir);
        let log_settings = LogSettings { partition_min_bytes: 20_000, partition_max_bytes: 20_000, ..LogSettings::new(1 << 30) };
        let (log, writer) = Log::open(&self.dir, log_settings).unwrap();
        self.oracle.restart();
        assert_eq!(log.incarnation().ordinal, self.oracle.ordinal);
        self.check_predecessor(&log);
        self.hold = Arc::default();
        LaneName::ALL.into_iter().for_each(|lane| self.hold.forward_stored(lane, self.oracle.lanes[lane as usize].acknowledged));
        self.hold.checkpoint_stored(self.oracle.lanes[LaneName::Inputs as usize].acknowledged);
        let settings = Settings { hold: self.hold.clone(), ..Settings::unbounded(CommitPolicy::default()) };
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut group = Group::new(writer, log.clone(), settings, timer).unwrap();
        group.start().unwrap();
        self.open = Some((log, group));
    }

    fn check_predecessor(&self, log: &Log) {
        let lanes = &self.oracle.lanes;
        let last = lanes.iter().filter_map(|lane| lane.committed.last()).map(|(position, _)| position.ordinal).max();
        let predecessor = log.predecessor();
        assert_eq!(predecessor.map(|ended| ended.incarnation.ordinal), last);
        if let Some(ended) = predecessor {
            let expected = LaneName::ALL.map(|lane| lanes[lane as usize].last_seq_of(ended.incarnation.ordinal));
            assert_eq!(ended.last_seq, expected);
        }
    }

    fn run(&mut self, step: &Step) {
        let (log, group) = self.open.as_mut().unwrap();
        match *step {
            Step::Append { lane, records, bytes } => {
                let tags = self.tags + 1..=self.tags + records;
                self.tags += records;
                let entries = tags.clone().map(|number| entry(number, bytes)).collect();
                group.take(Request::Append(Append { lane, entries, marks: Vec::new(), urgent: false, done: None })).unwrap();
                tags.for_each(|number| self.oracle.append(lane, tag(number, bytes)));
            }
            Step::Commit => self.commit(),
            Step::Read { lane, max_records, max_bytes } => read(log, &mut self.oracle.lanes[lane as usize], lane, max_records, max_bytes),
            Step::Acknowledge { lane, percent } => {
                let model = &mut self.oracle.lanes[lane as usize];
                model.acknowledged = model.acknowledged.max(model.share(percent));
                self.hold.forward_stored(lane, model.acknowledged);
                if lane == LaneName::Inputs {
                    self.hold.checkpoint_stored(model.acknowledged);
                }
            }
            Step::Reclaim { lane } => group.reclaim(lane),
            Step::Evict { lane } => self.evict(lane),
            Step::Name { lane, percent } => self.name(lane, percent),
            Step::CloseIdle => drop(log.close_idle()),
            Step::Restart => self.reopen(),
            Step::Kill => self.crash(copy_tree),
            Step::PowerCut { seed } => self.crash(|dir, copy| recorder::cut(dir, copy, &mut fastrand::Rng::with_seed(seed))),
        }
    }

    fn commit(&mut self) {
        self.open.as_mut().unwrap().1.commit().unwrap();
        self.oracle.commit();
    }

    /// Gives up the oldest partition of `lane`: what Kafka does not have of it is lost, and each range is named by an event.
    fn evict(&mut self, lane: LaneName) {
        self.commit();
        let (log, group) = self.open.as_mut().unwrap();
        let Expendable::Oldest(key) = log.shared.lane(lane).expendable() else { return };
        let end = log.shared.lane(lane).following(key).map(Key::first);
        let events_before = log.committed(LaneName::Events);
        group.evict(lane, key, GapReason::Quota).unwrap();
        self.take_named(lane, events_before, |at| at >= key.first() && end.is_none_or(|end| at < end));
    }

    /// Names a committed record, and then all up to it: as forward does with what Kafka refuses.
    fn name(&mut self, lane: LaneName, percent: usize) {
        self.commit();
        let to = self.oracle.lanes[lane as usize].share(percent);
        let (log, group) = self.open.as_mut().unwrap();
        let events_before = log.committed(LaneName::Events);
        for from in [to, Position { seq: 1, ..to }].into_iter().filter(|_| to.seq > 0) {
            let (done, _) = tokio::sync::oneshot::channel();
            group.take(Request::NameGap { lane, from, to, reason: GapReason::Refused, done }).unwrap();
        }
        self.take_named(lane, events_before, |at| at.ordinal == to.ordinal && at <= to);
    }

    /// Of the committed records of `lane` that are `meant` the events after `events_before` name those, once each, that Kafka does not have and that
    /// were not named before.
    fn take_named(&mut self, lane: LaneName, events_before: Position, meant: impl Fn(Position) -> bool) {
        let (log, _) = self.open.as_ref().unwrap();
        let model = &mut self.oracle.lanes[lane as usize];
        let committed = model.committed.iter().map(|(at, _)| *at).filter(|at| meant(*at));
        let expected: BTreeSet<_> = committed.filter(|at| *at > model.acknowledged && !model.lost.contains(at)).collect();
        let mut named = named(log, events_before, lane);
        if lane == LaneName::Events {
            // What a lost event named is named again.
            named.retain(|at| !model.lost.contains(at));
        }
        named.sort_unstable();
        assert_eq!(named, expected.iter().copied().collect::<Vec<_>>(), "what the events name");
        model.lost.extend(expected);
        let own = log.committed(LaneName::Events).seq - events_before.seq;
        (0..own).for_each(|_| self.oracle.append(LaneName::Events, ITS_OWN));
        self.oracle.commit();
    }

    /// `leave` makes a copy of what the disk holds after the crash.
    fn crash(&mut self, leave: impl FnOnce(&Path, &Path)) {
        self.copies += 1;
        let copy = self.root.path().join(format!("log-{}", self.copies));
        leave(&self.dir, &copy);
        drop(self.open.take());
        recorder::end(&self.dir);
        self.dir = copy;
        self.reopen();
    }

    fn read_everything(&mut self) {
        let (log, _) = self.open.as_ref().unwrap();
        for lane in LaneName::ALL {
            let model = &mut self.oracle.lanes[lane as usize];
            model.cursor = Position::default();
            while !model.after(model.cursor).is_empty() {
                read(log, model, lane, 5_000, 1 << 20);
            }
            read(log, model, lane, 1, 1);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        recorder::end(&self.dir);
    }
}

/// The positions of `lane` that the gap events after `events` name, in their order.
fn named(log: &Log, events: Position, lane: LaneName) -> Vec<Position> {
    let records = log.reader(LaneName::Events).unwrap().read(events, usize::MAX, usize::MAX).unwrap();
    let mut positions = Vec::new();
    for (_, entry) in records {
        let Body::Event(event) = entry.body else { panic!("{:?} among the events", entry.body) };
        assert_eq!(event.kind, EventKind::Gap);
        if event.gap_lane != Some(lane) {
            assert_eq!(lane, LaneName::Events, "a gap of {:?}", event.gap_lane);
            continue;
        }
        let inc = event.gap_inc.as_deref().unwrap();
        let ordinal = (1..=log.incarnation().ordinal).find(|ordinal| log.incarnation_id(*ordinal).is_some_and(|id| id.to_string() == inc)).unwrap();
        positions.extend((event.gap_from_seq.unwrap()..=event.gap_to_seq.unwrap()).map(|seq| Position { ordinal, seq }));
    }
    positions
}

fn read(log: &Log, model: &mut OracleLane, lane: LaneName, max_records: usize, max_bytes: usize) {
    let expected = model.after(model.cursor);
    let lost_after = expected.iter().filter(|(at, _)| model.lost.contains(at)).count();
    // A lost record that was acknowledged later counts neither way.
    assert!(log.depth(lane, model.cursor) >= (expected.len() - lost_after) as u64 && log.depth(lane, model.cursor) <= expected.len() as u64);
    match log.reader(lane).unwrap().read(model.cursor, max_records, max_bytes) {
        Ok(records) => {
            assert_eq!(records.is_empty(), expected.is_empty());
            assert!(records.len() <= max_records);
            for ((position, found), (at, tag)) in records.iter().zip(expected) {
                assert_eq!(position, at);
                // Behind Kafka's place a gap is forgotten, and the disk may hold what it named.
                assert!(!model.lost.contains(at) || *at <= model.acknowledged, "{at} is in a gap");
                assert!(*tag == ITS_OWN || *found == entry(tag >> 20, (tag & 0xf_ffff) as usize), "{at}");
            }
            assert!(records.len() <= expected.len(), "more than was committed");
            model.cursor = records.last().map_or(model.cursor, |(position, _)| *position);
        }
        Err(BufferError::Hole { from, to, named, .. }) => {
            assert_eq!(from, expected[0].0);
            assert!(from <= to);
            // What is missing is either behind the readers or named.
            for seq in from.seq..=to.seq {
                let at = Position { seq, ..from };
                assert!(at <= model.acknowledged || (model.lost.contains(&at) && named.is_some()), "{at} is missing: {named:?}");
            }
            model.cursor = to;
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Number and size of an entry in one number.
fn tag(number: u64, bytes: usize) -> u64 {
    number << 20 | bytes as u64
}

fn entry(number: u64, bytes: usize) -> Entry {
    if bytes > 0 { samples::noise(number, bytes) } else { samples::reading(number) }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    super::log_tests::copy_tree(from, to).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_does_what_a_plain_list_does(steps in steps()) {
        let mut bench = Bench::new();
        steps.iter().for_each(|step| bench.run(step));
        bench.commit();
        bench.read_everything();
        bench.run(&Step::PowerCut { seed: 7 });
        bench.read_everything();
    }
}
