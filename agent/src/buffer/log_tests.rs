//! The log as its users meet it.
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hark_protocol::topics::LaneName;

use super::{
    BufferError, ENTRY_MAX_BYTES, Followed, Follower, Gap, Log, LogSettings, Position, Writer,
    commit::{self, Append, AppendError, CommitPolicy},
    marks, samples,
};
use crate::hold::Hold;

pub(super) const INPUTS: LaneName = LaneName::Inputs;
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn settings() -> LogSettings {
    LogSettings { partition_min_bytes: 10_000, partition_max_bytes: 40_000, ..LogSettings::new(1 << 30) }
}

pub(super) fn open(dir: &Path) -> (Log, Writer) {
    Log::open(dir, settings()).unwrap()
}

pub(super) fn fill(writer: &mut Writer, records: std::ops::Range<u64>) {
    for n in records {
        writer.append(INPUTS, &samples::noise(n, 1_000)).unwrap();
        if n % 10 == 9 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
}

pub(super) fn partition_dirs(dir: &Path) -> Vec<PathBuf> {
    partition_dirs_of(dir, INPUTS)
}

pub(super) fn partition_dirs_of(dir: &Path, lane: LaneName) -> Vec<PathBuf> {
    let mut dirs: Vec<_> = fs::read_dir(dir.join(lane.as_str())).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    dirs
}

/// A copy of what lies under `from`.
pub(super) fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

pub(super) fn at(ordinal: u32, seq: u64) -> Position {
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

/// The event that opens an incarnation is there if any of its records is, whatever ends the commit between two lanes.
#[test]
fn events_are_stored_before_what_came_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fs::remove_dir(dir.path().join("inputs")).unwrap();
    for lane in [INPUTS, LaneName::Events] {
        writer.append(lane, &samples::reading(1)).unwrap();
    }
    writer.commit().unwrap_err();
    drop((log, writer));
    let (log, _writer) = open(dir.path());
    let ended = log.predecessor().unwrap();
    assert_eq!([INPUTS, LaneName::Events].map(|lane| ended.last_seq(lane)), [0, 1]);
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
    assert_eq!(writer.reclaim(INPUTS, at(1, 300)).unwrap(), 0, "the newest holds the marks");
    fill(&mut writer, 300..301);
    assert!(writer.reclaim(INPUTS, at(1, 300)).unwrap() > 0);
    assert_eq!((log.partitions(INPUTS).0, log.start(INPUTS)), (1, at(2, 0)));
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
        move || commit::run(writer, log, requests, commit::Settings::unbounded(policy))
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

/// A commit loop on a log of its own, and the way to it.
pub(super) struct Looped {
    pub(super) log: Log,
    pub(super) appender: commit::Appender,
    stop: tokio_util::sync::CancellationToken,
    pub(super) hold: std::sync::Arc<Hold>,
    pub(super) thread: thread::JoinHandle<Result<(), BufferError>>,
}

pub(super) fn looped(dir: &Path, quota_bytes: u64) -> Looped {
    looped_with(dir, quota_bytes, settings())
}

pub(super) fn looped_with(dir: &Path, quota_bytes: u64, settings: LogSettings) -> Looped {
    let (log, writer) = Log::open(dir, settings).unwrap();
    let (appender, requests) = commit::channel(16);
    let policy = CommitPolicy { max_delay: Duration::from_millis(5), housekeeping_every: Duration::from_millis(5), ..CommitPolicy::default() };
    let settings = commit::Settings { quota_bytes, ..commit::Settings::unbounded(policy) };
    let (stop, hold) = (settings.stop.clone(), settings.hold.clone());
    let thread = thread::spawn({
        let log = log.clone();
        move || commit::run(writer, log, requests, settings)
    });
    Looped { log, appender, stop, hold, thread }
}

#[test]
fn a_disk_that_takes_nothing_holds_senders_back_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    // The first partition cannot be made where a file of its name stands.
    let obstacle = dir.path().join("inputs/p-00000001-0000000000000001-0000");
    fs::create_dir_all(obstacle.parent().unwrap()).unwrap();
    let looped = looped(dir.path(), u64::MAX);
    fs::write(&obstacle, b"").unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true));
        while !looped.log.counters().stalled.load(std::sync::atomic::Ordering::Relaxed) {
            thread::yield_now();
        }
        assert!(!waiter.is_finished() && looped.log.committed(INPUTS) == at(1, 0));
        fs::remove_file(&obstacle).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap().last, at(1, 1));
    });
    drop(looped.appender);
    looped.thread.join().unwrap().unwrap();
}

#[test]
fn a_stop_ends_the_wait_for_a_disk_and_nobody_is_told_of_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let obstacle = dir.path().join("inputs/p-00000001-0000000000000001-0000");
    fs::create_dir_all(obstacle.parent().unwrap()).unwrap();
    let looped = looped(dir.path(), u64::MAX);
    fs::write(&obstacle, b"").unwrap();
    looped.stop.cancel();
    let outcome = looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true);
    assert!(matches!(outcome, Err(AppendError::Stopped)));
    assert!(matches!(looped.thread.join().unwrap(), Err(BufferError::Stopped)));
    assert_eq!(looped.log.committed(INPUTS), at(1, 0));
}

/// Reads on from `after` to the end; gives the records, and the gaps in between.
pub(super) fn follow(looped: &Looped, lane: LaneName, after: Position) -> (Vec<Position>, Vec<Gap>) {
    let mut follower = Follower::new(&looped.log, lane, looped.appender.clone()).unwrap();
    let (mut at, mut records, mut gaps) = (after, Vec::new(), Vec::new());
    loop {
        match follower.read(at, 1_000, usize::MAX).unwrap() {
            Followed::Records(found) if found.is_empty() => return (records, gaps),
            Followed::Records(found) => {
                at = found.last().unwrap().0;
                records.extend(found.iter().map(|(position, _)| *position));
            }
            Followed::Gap(gap) => {
                at = gap.to;
                gaps.push(gap);
            }
        }
    }
}

/// The same of the inputs once nothing more is given up.
fn follow_at_rest(looped: &Looped, after: Position) -> (Vec<Position>, Vec<Gap>) {
    for _ in 0..10_000 {
        let lost = looped.log.counters().lost(INPUTS);
        let followed = follow(looped, INPUTS, after);
        // A record that was read just before it was given up is in both; whoever sends gaps cuts them to what is not delivered.
        let in_both = followed.0.iter().any(|at| followed.1.iter().any(|gap| (gap.from..=gap.to).contains(at)));
        let all_named = followed.1.iter().map(Gap::records).sum::<u64>() == lost && looped.log.counters().lost(INPUTS) == lost;
        if all_named && !in_both {
            return followed;
        }
    }
    panic!("never at rest, or a record is both read and named");
}

/// Everything from `first` to `last` is either read or in exactly one gap, in order.
pub(super) fn assert_accounted(first: u64, last: u64, records: &[Position], gaps: &[Gap]) {
    let mut seqs: Vec<u64> = records.iter().map(|position| position.seq).collect();
    seqs.extend(gaps.iter().flat_map(|gap| gap.from.seq..=gap.to.seq));
    seqs.sort_unstable();
    assert_eq!(seqs, (first..=last).collect::<Vec<_>>());
}

/// Over its quota the log gives up inputs, names each range once, and never an alarm.
#[test]
fn a_quota_is_kept_by_giving_up_the_oldest_inputs() {
    const QUOTA: u64 = 6 << 20;
    let dir = tempfile::tempdir().unwrap();
    let looped = looped(dir.path(), QUOTA);
    looped.hold.checkpoint_stored(at(1, u64::MAX));
    for n in 0..120_u64 {
        let entries = (0..40).map(|k| samples::noise(n * 40 + k, 2_000)).collect();
        looped.appender.blocking_append_durably(INPUTS, entries, true).unwrap();
        looped.appender.blocking_append_durably(LaneName::Alarms, vec![samples::reading(n)], true).unwrap();
        assert!(looped.log.disk_bytes().unwrap() <= QUOTA, "{} bytes after {n}", looped.log.disk_bytes().unwrap());
    }
    // The last look at the space may still be under way.
    let (records, gaps) = follow_at_rest(&looped, Position::default());
    assert!(gaps.len() > 3 && records.len() > 40, "{} gaps, {} records", gaps.len(), records.len());
    assert_accounted(1, 120 * 40, &records, &gaps);
    let lost: u64 = gaps.iter().map(Gap::records).sum();
    assert_eq!((looped.log.counters().lost(INPUTS), looped.log.depth(INPUTS, Position::default())), (lost, records.len() as u64));
    let (alarms, alarm_gaps) = follow(&looped, LaneName::Alarms, Position::default());
    assert_eq!((alarms.len(), alarm_gaps), (120, vec![]));
    // Each gap is named by an event, also after a restart.
    let (events, _) = follow(&looped, LaneName::Events, Position::default());
    assert!(gaps.iter().all(|gap| events.contains(&gap.event)));
    drop(looped.appender);
    looped.thread.join().unwrap().unwrap();
    drop(looped.log);
    let again = self::looped(dir.path(), QUOTA);
    assert_eq!(follow(&again, INPUTS, Position::default()), (records, gaps));
}

/// What Kafka has is no loss when it goes, and no gap names it.
#[test]
fn what_was_delivered_is_in_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let looped = looped(dir.path(), 6 << 20);
    looped.hold.forward_stored(INPUTS, at(1, 1_000));
    for n in 0..120_u64 {
        let entries = (0..40).map(|k| samples::noise(n * 40 + k, 2_000)).collect();
        looped.appender.blocking_append_durably(INPUTS, entries, true).unwrap();
    }
    let (records, gaps) = follow_at_rest(&looped, at(1, 1_000));
    assert!(gaps.iter().all(|gap| gap.event != Position::default()));
    assert_accounted(1_001, 120 * 40, &records, &gaps);
    // The other reader passes what it missed as well, without a name.
    let (_, unnamed) = follow(&looped, INPUTS, Position::default());
    assert_eq!(unnamed[0].event, Position::default());
}

/// Many starts that write little leave few partitions, and all that they wrote.
#[test]
fn a_storm_of_restarts_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings::new(1 << 30);
    for n in 0..60 {
        let (_log, mut writer) = Log::open(dir.path(), settings).unwrap();
        for lane in LaneName::ALL {
            writer.append(lane, &samples::reading(n)).unwrap();
        }
        writer.commit().unwrap();
    }
    let (log, _writer) = Log::open(dir.path(), settings).unwrap();
    for lane in LaneName::ALL {
        let records = log.reader(lane).unwrap().read(Position::default(), 1_000, usize::MAX).unwrap();
        assert_eq!(records.iter().map(|(position, _)| *position).collect::<Vec<_>>(), (1..=60).map(|ordinal| at(ordinal, 1)).collect::<Vec<_>>());
        assert!(records.iter().zip(0..).all(|((_, entry), n)| *entry == samples::reading(n)));
        assert!(log.partitions(lane).0 <= 3, "{} partitions", log.partitions(lane).0);
    }
    assert!(log.disk_bytes().unwrap() < 16 << 20, "{} bytes", log.disk_bytes().unwrap());
}

/// The same with kills, which leave a whole segment of the store each, under the smallest quota.
#[test]
fn a_storm_of_kills_does_not_fill_the_disk() {
    let settings = LogSettings::new(64 << 20);
    let mut dir = tempfile::tempdir().unwrap();
    for n in 0..30 {
        let (log, mut writer) = Log::open(dir.path(), settings).unwrap();
        for lane in LaneName::ALL {
            writer.append(lane, &samples::reading(n)).unwrap();
        }
        writer.commit().unwrap();
        // As a kill leaves it: nothing is closed.
        let killed = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), killed.path()).unwrap();
        drop((log, writer));
        dir = killed;
    }
    let (log, _writer) = Log::open(dir.path(), settings).unwrap();
    for lane in LaneName::ALL {
        let records = log.reader(lane).unwrap().read(Position::default(), 1_000, usize::MAX).unwrap();
        assert_eq!(records.len(), 30, "{lane}");
        assert!(log.partitions(lane).0 <= 3, "{} partitions of {lane}", log.partitions(lane).0);
    }
    assert!(log.disk_bytes().unwrap() < 8 << 20, "{} bytes", log.disk_bytes().unwrap());
}

/// Marks survive with the entries of their commit, over new partitions, restarts and the loss of the older ones.
#[test]
fn marks_are_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mark = |seq: u32| marks::SourceMark::Node {
        source: "line".into(),
        node: 7,
        mark: marks::NodeMark { boot: 3, last_seq: [seq; hark_protocol::node::Kind::COUNT], ..Default::default() },
    };
    let (log, mut writer) = open(dir.path());
    writer.append_all(INPUTS, &[samples::reading(1)], &[mark(1)]).unwrap();
    writer.commit().unwrap();
    fill(&mut writer, 0..300);
    writer.append_all(INPUTS, &[], &[mark(2)]).unwrap();
    writer.commit().unwrap();
    writer.append_all(INPUTS, &[], &[mark(3)]).unwrap();
    writer.reclaim(INPUTS, at(1, 301)).unwrap();
    drop((log, writer));
    for _ in 0..3 {
        let (log, mut writer) = open(dir.path());
        assert_eq!(log.source_marks().node("line", 7).unwrap().last_seq[0], 2, "the third was not committed");
        fill(&mut writer, 0..1);
    }
}
