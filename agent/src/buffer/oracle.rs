//! The log against a plain list: random appends, commits, reads, reclaims, restarts and crashes.
use std::{
    fs,
    path::{Path, PathBuf},
};

use hark_protocol::topics::LaneName;
use proptest::prelude::*;

use super::{BufferError, Log, LogSettings, Position, Writer, samples};
use crate::record::Entry;

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
    /// Records up to here may be missing.
    given_up: Position,
    /// Where the test's reader stands.
    cursor: Position,
}

impl OracleLane {
    fn after(&self, at: Position) -> &[(Position, u64)] {
        &self.committed[self.committed.partition_point(|(position, _)| *position <= at)..]
    }

    fn last_seq_of(&self, ordinal: u32) -> u64 {
        self.committed.iter().rfind(|(position, _)| position.ordinal == ordinal).map_or(0, |(position, _)| position.seq)
    }
}

impl Oracle {
    fn append(&mut self, lane: LaneName, tag: u64) -> u64 {
        let ordinal = self.ordinal;
        let lane = &mut self.lanes[lane as usize];
        lane.last_seq += 1;
        lane.pending.push((Position { ordinal, seq: lane.last_seq }, tag));
        lane.last_seq
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
    Reclaim { lane: LaneName, percent: usize },
    CloseIdle,
    Restart,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = || prop::sample::select(LaneName::ALL.to_vec());
    let step = prop_oneof![
        8 => (lane(), 1..400_u64, prop_oneof![8 => Just(0), 2 => 1..9_000_usize, 1 => Just(70_000)])
            .prop_map(|(lane, records, bytes)| Step::Append { lane, records: if bytes > 0 { records % 8 + 1 } else { records }, bytes }),
        6 => Just(Step::Commit),
        6 => (lane(), 1..900_usize, 1..60_000_usize).prop_map(|(lane, max_records, max_bytes)| Step::Read { lane, max_records, max_bytes }),
        2 => (lane(), 0..=100_usize).prop_map(|(lane, percent)| Step::Reclaim { lane, percent }),
        1 => Just(Step::CloseIdle),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

struct Bench {
    root: tempfile::TempDir,
    dir: PathBuf,
    copies: u32,
    open: Option<(Log, Writer)>,
    oracle: Oracle,
    tags: u64,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("log-0");
        let mut bench = Self { root, dir, copies: 0, open: None, oracle: Oracle::default(), tags: 0 };
        bench.reopen();
        bench
    }

    fn reopen(&mut self) {
        drop(self.open.take());
        let settings = LogSettings { partition_min_bytes: 20_000, partition_max_bytes: 20_000, ..LogSettings::new(1 << 30) };
        let (log, writer) = Log::open(&self.dir, settings).unwrap();
        self.oracle.restart();
        assert_eq!(log.incarnation().ordinal, self.oracle.ordinal);
        self.check_predecessor(&log);
        self.open = Some((log, writer));
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
        let (log, writer) = self.open.as_mut().unwrap();
        match *step {
            Step::Append { lane, records, bytes } => {
                for _ in 0..records {
                    self.tags += 1;
                    let seq = writer.append(lane, &entry(self.tags, bytes)).unwrap();
                    assert_eq!(seq, self.oracle.append(lane, tag(self.tags, bytes)));
                }
            }
            Step::Commit => {
                writer.commit().unwrap();
                self.oracle.commit();
            }
            Step::Read { lane, max_records, max_bytes } => read(log, &mut self.oracle.lanes[lane as usize], lane, max_records, max_bytes),
            Step::Reclaim { lane, percent } => {
                let model = &mut self.oracle.lanes[lane as usize];
                let upto = model.committed.get((model.committed.len() * percent / 100).saturating_sub(1)).map_or(Position::default(), |(at, _)| *at);
                model.given_up = model.given_up.max(upto);
                writer.reclaim(lane, upto).unwrap();
            }
            Step::CloseIdle => drop(log.close_idle()),
            Step::Restart => self.reopen(),
            Step::Crash => self.crash(),
        }
    }

    /// What the disk holds at this moment is what a killed process leaves behind.
    fn crash(&mut self) {
        self.copies += 1;
        let copy = self.root.path().join(format!("log-{}", self.copies));
        copy_tree(&self.dir, &copy);
        drop(self.open.take());
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

fn read(log: &Log, model: &mut OracleLane, lane: LaneName, max_records: usize, max_bytes: usize) {
    assert_eq!(log.depth(lane, model.cursor), model.after(model.cursor).len() as u64);
    let expected = model.after(model.cursor);
    match log.reader(lane).unwrap().read(model.cursor, max_records, max_bytes) {
        Ok(records) => {
            assert_eq!(records.is_empty(), expected.is_empty());
            assert!(records.len() <= max_records);
            for ((position, found), (at, tag)) in records.iter().zip(expected) {
                assert_eq!(position, at);
                assert_eq!(*found, entry(tag >> 20, (tag & 0xf_ffff) as usize));
            }
            assert!(records.len() <= expected.len(), "more than was committed");
            model.cursor = records.last().map_or(model.cursor, |(position, _)| *position);
        }
        Err(BufferError::Hole { from, to, .. }) => {
            assert_eq!(from, expected[0].0);
            assert!(from <= to && to <= model.given_up, "hole {from} to {to}, given up to {}", model.given_up);
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
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_log_does_what_a_plain_list_does(steps in steps()) {
        let mut bench = Bench::new();
        steps.iter().for_each(|step| bench.run(step));
        bench.run(&Step::Commit);
        bench.read_everything();
        bench.run(&Step::Crash);
        bench.read_everything();
    }
}
