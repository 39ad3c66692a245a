//! The log under kill -9, and what open databases cost: both in child processes, which are this test binary started again.
use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hark_protocol::topics::LaneName;

use super::{BufferError, Log, LogSettings, Position, samples};
use crate::record::Entry;

const CHILD_DIR: &str = "HARK_BUFFER_TEST_DIR";
const CHILD_BYTES: &str = "HARK_BUFFER_TEST_BYTES";
const LANE: LaneName = LaneName::Inputs;

fn settings() -> LogSettings {
    LogSettings { partition_min_bytes: 60_000, partition_max_bytes: 60_000, ..LogSettings::new(1 << 30) }
}

/// This test binary once more, running only the ignored test `name` in `dir`.
fn child(name: &str, dir: &Path, bytes: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&format!("buffer::crash_tests::{name}"), "--exact", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_BYTES, bytes.to_string());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Readings, and between them records of up to `bytes`, which travel in parts.
fn entry(n: u64, bytes: usize) -> Entry {
    if n.is_multiple_of(7) || bytes > MIXED_BYTES { samples::noise(n, (n as usize * 131) % bytes) } else { samples::reading(n) }
}

const MIXED_BYTES: usize = 20_000;

/// Reports each commit on a line of its own, after it returned.
#[test]
#[ignore = "the child of `survives_kill_9`"]
fn append_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let bytes = std::env::var(CHILD_BYTES).unwrap().parse().unwrap();
    let (log, mut writer) = Log::open(dir.as_ref(), settings()).unwrap();
    let mut out = io::stdout();
    for n in 1.. {
        let seq = writer.append(LANE, &entry(n, bytes)).unwrap();
        assert_eq!(seq, n);
        if n % (1 + n % 23) == 0 {
            writer.commit().unwrap();
            writeln!(out, "\ncommitted {} {n}", log.incarnation().ordinal).unwrap();
        }
    }
}

#[test]
fn everything_reported_committed_survives_kill_9() {
    survives_kill_9(MIXED_BYTES, 6);
}

/// A kill between the parts of a frame leaves all of them or none: half a frame would be damage that nobody did.
#[test]
fn a_frame_in_parts_survives_kill_9_whole_or_not_at_all() {
    survives_kill_9(120_000, 12);
}

fn survives_kill_9(bytes: usize, rounds: u32) {
    let dir = tempfile::tempdir().unwrap();
    let mut reported: Vec<u64> = Vec::new();
    for round in 1..=rounds {
        let mut child = child("append_until_killed", dir.path(), bytes);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut committed = || lines.find_map(|line| commit_of(&line, round));
        // Kill at different places: right after the first commit, or in the middle of a full partition.
        let mut last = committed().unwrap();
        while last < u64::from(round % 6) * 150 * MIXED_BYTES as u64 / bytes as u64 {
            last = committed().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it reported between the last look and the kill counts too.
        last = lines.filter_map(|line| commit_of(&line, round)).last().unwrap_or(last);
        reported.push(last);
    }
    let (log, _writer) = Log::open(dir.path(), settings()).unwrap();
    assert_eq!(log.incarnation().ordinal, rounds + 1);
    let ended: Vec<Position> = log.ended().iter().map(|it| Position { ordinal: it.incarnation.ordinal, seq: it.last_seq(LANE) }).collect();
    assert_eq!(ended.iter().map(|last| last.ordinal).collect::<Vec<_>>(), (1..=rounds).collect::<Vec<_>>());
    for (last, reported) in ended.iter().zip(&reported) {
        assert!(last.seq >= *reported, "{last} is the last on disk, {reported} was reported");
    }
    let mut expected = ended.iter().flat_map(|last| (1..=last.seq).map(|seq| Position { seq, ..*last }));
    let (mut reader, mut after) = (log.reader(LANE).unwrap(), Position::default());
    loop {
        let records = reader.read(after, 100, usize::MAX).unwrap();
        let Some((last, _)) = records.last() else { break };
        after = *last;
        for (position, found) in records {
            assert_eq!(Some(position), expected.next());
            assert_eq!(found, entry(position.seq, bytes), "{position}");
        }
    }
    assert_eq!(expected.next(), None);
}

fn commit_of(line: &str, ordinal: u32) -> Option<u64> {
    line.strip_prefix(&format!("committed {ordinal} "))?.parse().ok()
}

#[test]
#[ignore = "the child of `databases_that_were_closed_leave_no_threads_or_files_open`"]
fn open_and_close_a_hundred_partitions() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let settings = LogSettings { partition_min_bytes: 1, partition_max_bytes: 1, ..LogSettings::new(1 << 30) };
    let (log, mut writer) = Log::open(dir.as_ref(), settings).unwrap();
    let mut reader = log.reader(LANE).unwrap();
    writer.append(LANE, &samples::reading(1)).unwrap();
    writer.commit().unwrap();
    let before = (count("task"), count("fd"));
    for n in 2..=101 {
        writer.append(LANE, &samples::reading(n)).unwrap();
        writer.commit().unwrap();
    }
    for n in 0..100 {
        assert_eq!(reader.read(Position { ordinal: 1, seq: n }, 1, 1).unwrap().len(), 1);
    }
    assert_eq!(log.partitions(LANE).0, 101);
    // The store's pool threads end a second or more after the work has.
    let deadline = Instant::now() + Duration::from_secs(60);
    while count("task") > before.0 + 4 || count("fd") > before.1 + 8 {
        assert!(Instant::now() < deadline, "threads {} and files {} against {before:?}", count("task"), count("fd"));
        thread::yield_now();
    }
    writeln!(io::stdout(), "\nno leak").unwrap();
}

fn count(what: &str) -> usize {
    fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

#[test]
fn databases_that_were_closed_leave_no_threads_or_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child("open_and_close_a_hundred_partitions", dir.path(), 0);
    let found = BufReader::new(child.stdout.take().unwrap()).lines().filter(|line| line.as_ref().unwrap() == "no leak").count();
    assert!(child.wait().unwrap().success() && found == 1);
}

/// The only records of a lane that may be lost are those at the end that nobody was told of.
#[test]
fn a_torn_tail_is_cut_and_never_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = Log::open(dir.path(), settings()).unwrap();
    for n in 1..=5 {
        writer.append(LANE, &samples::reading(n)).unwrap();
        writer.commit().unwrap();
    }
    drop((log, writer));
    let db = dir.path().join("inputs/p-00000001-0000000000000001-0000/db");
    let mut bytes = fs::read(&db).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 30..].fill(0);
    fs::write(&db, bytes).unwrap();
    match Log::open(dir.path(), settings()) {
        Ok((log, mut writer)) => {
            let last_seq = log.ended()[0].last_seq(LANE);
            assert!(last_seq < 5);
            assert_eq!(writer.append(LANE, &samples::reading(9)).unwrap(), 1);
            writer.commit().unwrap();
            let records = log.reader(LANE).unwrap().read(Position::default(), 100, usize::MAX).unwrap();
            assert_eq!(records.last().unwrap(), &(Position { ordinal: 2, seq: 1 }, samples::reading(9)));
            assert_eq!(records.len() as u64, last_seq + 1);
        }
        Err(error) => assert!(matches!(error, BufferError::Damaged { .. }), "{error:?}"),
    }
}
