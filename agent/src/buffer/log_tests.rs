//! The log as its users meet it.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use hark_protocol::topics::LaneName;

use super::{
    BufferError, ENTRY_MAX_BYTES, Log, LogSettings, Position, Writer,
    commit::{self, Append, AppendError, CommitPolicy},
    samples,
};
use crate::clock::Clock;

const INPUTS: LaneName = LaneName::Inputs;
const DEADLINE: Duration = Duration::from_secs(30);

fn open(dir: &Path) -> (Log, Writer) {
    Log::open(dir, LogSettings { partition_min_bytes: 40_000, partition_max_bytes: 40_000, ..LogSettings::new(1 << 30) }).unwrap()
}

fn fill(writer: &mut Writer, records: std::ops::Range<u64>) {
    for n in records {
        writer.append(INPUTS, &samples::noise(n, 1_000)).unwrap();
    }
    writer.commit().unwrap();
}

fn partition_dirs(dir: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<_> = fs::read_dir(dir.join("inputs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    dirs
}

fn at(ordinal: u32, seq: u64) -> Position {
    Position { ordinal, seq }
}

#[test]
fn nothing_is_seen_before_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    let mut reader = log.reader(INPUTS).unwrap();
    assert_eq!(writer.append(INPUTS, &samples::reading(1)).unwrap(), 1);
    assert!(reader.read(Position::default(), 10, 1 << 20).unwrap().is_empty());
    assert!(!log.wait(INPUTS, Position::default(), Duration::from_millis(1)));
    writer.commit().unwrap();
    assert!(log.wait(INPUTS, Position::default(), DEADLINE));
    assert_eq!(reader.read(Position::default(), 10, 1 << 20).unwrap(), [(at(1, 1), samples::reading(1))]);
    assert_eq!((log.committed(INPUTS), log.depth(INPUTS, Position::default()), writer.pending_bytes()), (at(1, 1), 1, 0));
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = Log::open(dir.path(), LogSettings::new(1 << 30));
    assert!(matches!(second.map(|_| ()), Err(BufferError::InUse { .. })));
    drop(first);
    open(dir.path());
}

#[test]
fn the_largest_entries_stay_out_of_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = Log::open(dir.path(), LogSettings::new(1 << 30)).unwrap();
    // Each of these is one frame of just below 6 KiB; then entries in many parts. Each commit flushes, which is when leaves are written.
    for n in 0..400 {
        writer.append(INPUTS, &samples::noise(n, 7_700)).unwrap();
        if n % 5 == 0 {
            writer.commit().unwrap();
        }
    }
    for n in 400..420 {
        writer.append(INPUTS, &samples::noise(n, ENTRY_MAX_BYTES - 200)).unwrap();
        writer.commit().unwrap();
    }
    for partition in partition_dirs(dir.path()) {
        assert_eq!(fs::read_dir(partition.join("blobs")).unwrap().count(), 0, "{}", partition.display());
    }
    let mut reader = log.reader(INPUTS).unwrap();
    let mut after = Position::default();
    for n in 0..420 {
        let records = reader.read(after, 1, usize::MAX).unwrap();
        assert_eq!(records[0].1, samples::noise(n, if n < 400 { 7_700 } else { ENTRY_MAX_BYTES - 200 }), "{n}");
        after = records[0].0;
    }
}

#[test]
fn an_entry_over_the_limit_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut writer) = open(dir.path());
    let refused = writer.append_all(INPUTS, &[samples::reading(1), samples::noise(2, ENTRY_MAX_BYTES)], &[]);
    assert!(matches!(refused, Err(BufferError::EntryTooLarge { .. })));
    assert_eq!(writer.append(INPUTS, &samples::reading(3)).unwrap(), 1);
}

#[test]
fn a_lost_partition_is_a_hole_with_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    drop((log, writer));
    let dirs = partition_dirs(dir.path());
    assert!(dirs.len() > 3);
    fs::remove_dir_all(&dirs[1]).unwrap();
    let (log, _writer) = open(dir.path());
    let mut reader = log.reader(INPUTS).unwrap();
    let before = reader.read(Position::default(), 1_000, usize::MAX).unwrap();
    let last = before.last().unwrap().0;
    let Err(BufferError::Hole { lane: INPUTS, from, to, .. }) = reader.read(last, 1_000, usize::MAX) else { panic!("no hole") };
    assert_eq!(from, at(1, last.seq + 1));
    let rest = reader.read(to, 1_000, usize::MAX).unwrap();
    assert_eq!((rest[0].0, rest.last().unwrap().0), (at(1, to.seq + 1), at(1, 300)));
}

#[test]
fn a_damaged_partition_is_named_and_its_neighbours_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    drop((log, writer));
    let dirs = partition_dirs(dir.path());
    let db = dirs[1].join("db");
    let mut bytes = fs::read(&db).unwrap();
    for block in bytes.chunks_mut(4096).skip(1).step_by(2) {
        block.fill(0);
    }
    fs::write(&db, bytes).unwrap();
    let (log, _writer) = open(dir.path());
    let mut reader = log.reader(INPUTS).unwrap();
    let last = reader.read(Position::default(), 1_000, usize::MAX).unwrap().last().unwrap().0;
    match reader.read(last, 1_000, usize::MAX) {
        Err(BufferError::Damaged { partition, from, .. }) => assert_eq!((partition, from), (dirs[1].clone(), at(1, last.seq + 1))),
        // The store may also cut what it cannot read: then it is a hole.
        Err(BufferError::Hole { from, .. }) => assert_eq!(from, at(1, last.seq + 1)),
        other => panic!("{other:?}"),
    }
    let third = u64::from_str_radix(dirs[2].to_str().unwrap().rsplit('-').next().unwrap(), 16).unwrap();
    assert_eq!(reader.read(at(1, third - 1), 1, usize::MAX).unwrap()[0].0, at(1, third));
}

#[test]
fn reclaiming_gives_space_back_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    let (before, bytes) = (log.partitions(INPUTS).0, log.disk_bytes().unwrap());
    assert_eq!(writer.reclaim(INPUTS, Position::default()).unwrap(), 0);
    let given_back = writer.reclaim(INPUTS, at(1, 300)).unwrap();
    assert!(given_back > bytes / 2);
    assert!(before > 3 && log.partitions(INPUTS).0 == 1);
    assert!(log.disk_bytes().unwrap() <= bytes - given_back);
    let start = log.start(INPUTS);
    assert_eq!(log.reader(INPUTS).unwrap().read(start, 1_000, usize::MAX).unwrap().last().unwrap().0, at(1, 300));
    drop((log, writer));
    let (log, mut writer) = open(dir.path());
    assert_eq!(log.predecessor().unwrap().last_seq(INPUTS), 300);
    assert!(writer.reclaim(INPUTS, at(1, 300)).unwrap() > 0);
    assert_eq!((log.partitions(INPUTS).0, log.start(INPUTS)), (0, at(2, 0)));
}

#[test]
fn leftovers_of_a_crash_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..10);
    drop((log, writer));
    let lane = dir.path().join("inputs");
    fs::create_dir(lane.join("dead-p-00000001-0000000000000001")).unwrap();
    let unfinished = lane.join("p-00000001-00000000000000ff");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("conf"), [0; 64]).unwrap();
    let (log, _writer) = open(dir.path());
    assert_eq!(partition_dirs(dir.path()).len(), 1);
    assert_eq!(log.depth(INPUTS, Position::default()), 10);
}

#[test]
fn a_lost_history_is_learned_from_the_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    let id = log.incarnation().id;
    fill(&mut writer, 0..10);
    drop((log, writer));
    for slot in 0..2 {
        fs::write(dir.path().join(format!("incarnations.{slot}")), b"lost").unwrap();
    }
    let (log, _writer) = open(dir.path());
    assert_eq!((log.incarnation().ordinal, log.incarnation_id(1)), (2, Some(id)));
    assert_eq!(log.predecessor().unwrap().last_seq, [10, 0, 0, 0]);
}

#[test]
fn the_ordinal_stays_above_a_cursor_that_knows_more() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = open(dir.path());
    log.cursor("forward-inputs").unwrap().store(at(40, 7)).unwrap();
    drop((log, writer));
    assert_eq!(open(dir.path()).0.incarnation().ordinal, 41);
}

#[test]
fn idle_databases_are_closed_and_open_again_when_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..5);
    assert_eq!((log.close_idle(), log.partitions(INPUTS)), (0, (1, 1)));
    assert_eq!((log.close_idle(), log.partitions(INPUTS)), (1, (1, 0)));
    fill(&mut writer, 5..10);
    assert_eq!(log.partitions(INPUTS), (1, 1));
    assert_eq!(log.reader(INPUTS).unwrap().read(Position::default(), 100, usize::MAX).unwrap().len(), 10);
}

#[test]
fn two_readers_keep_few_databases_open() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    let (mut head, mut tail) = (log.reader(INPUTS).unwrap(), log.reader(INPUTS).unwrap());
    for n in 0..50 {
        assert_eq!(head.read(at(1, n), 1, 1).unwrap()[0].0, at(1, n + 1));
        assert_eq!(tail.read(at(1, 200 + n), 1, 1).unwrap()[0].0, at(1, 201 + n));
        assert!(log.partitions(INPUTS).1 <= 2);
    }
}

#[test]
fn waiting_ends_when_woken() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer) = open(dir.path());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| log.wait(INPUTS, Position::default(), Duration::from_secs(3600)));
        while !waiter.is_finished() {
            log.wake();
            thread::yield_now();
        }
        assert!(!waiter.join().unwrap());
    });
}

#[test]
fn the_commit_loop_answers_in_order_and_only_after_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = open(dir.path());
    let (appender, requests) = commit::channel(16);
    let policy = CommitPolicy { max_delay: Duration::from_millis(20), ..CommitPolicy::default() };
    let looped = thread::spawn({
        let log = log.clone();
        move || commit::run(writer, log, requests, policy, Arc::default(), Clock::new())
    });
    let (answers, answered) = std::sync::mpsc::channel();
    for n in 0..200_u64 {
        let (answers, log) = (answers.clone(), log.clone());
        let done: commit::Done = Box::new(move |outcome| {
            let committed = outcome.unwrap();
            assert!(log.committed(INPUTS) >= committed.last, "told before it was visible");
            answers.send((n, committed.last.seq)).unwrap();
        });
        appender
            .blocking_append(Append { lane: INPUTS, entries: vec![samples::reading(n)], marks: Vec::new(), urgent: n == 3, done: Some(done) })
            .unwrap();
    }
    for n in 0..200 {
        assert_eq!(answered.recv_timeout(DEADLINE).unwrap(), (n, n + 1));
    }
    let refused = appender.blocking_append_durably(INPUTS, vec![samples::noise(1, ENTRY_MAX_BYTES)], true);
    assert!(matches!(refused, Err(AppendError::Refused(BufferError::EntryTooLarge { .. }))));
    assert_eq!(appender.blocking_append_durably(INPUTS, vec![samples::reading(9)], true).unwrap().last, at(1, 201));
    assert_eq!((log.counters().appended(INPUTS), log.counters().refused.load(std::sync::atomic::Ordering::Relaxed)), (201, 1));
    appender.blocking_append(Append { lane: INPUTS, entries: vec![samples::reading(10)], marks: Vec::new(), urgent: false, done: None }).unwrap();
    drop(appender);
    looped.join().unwrap().unwrap();
    assert_eq!(log.committed(INPUTS), at(1, 202));
}

#[test]
fn a_failing_disk_stops_the_loop_and_nobody_is_told_of_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = open(dir.path());
    // The first partition cannot be made where a file of its name stands.
    fs::write(dir.path().join("inputs/p-00000001-0000000000000001"), b"").unwrap();
    let (appender, requests) = commit::channel(16);
    let looped = thread::spawn({
        let log = log.clone();
        move || commit::run(writer, log, requests, CommitPolicy::default(), Arc::default(), Clock::new())
    });
    let outcome = appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true);
    assert!(matches!(outcome, Err(AppendError::Stopped)));
    assert!(matches!(looped.join().unwrap(), Err(BufferError::Store { .. })));
    assert_eq!((log.committed(INPUTS), log.counters().errors.load(std::sync::atomic::Ordering::Relaxed)), (at(1, 0), 1));
}
