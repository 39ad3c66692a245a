//! Gaps whose names are lost.
use std::{path::Path, thread};

use hark_protocol::topics::{EventKind, GapReason, LaneName};

use super::{
    BufferError, Followed, Follower, Gap, Log, LogSettings, Position,
    commit::{self, Appender, CommitPolicy, Settings},
    damage_tests::spoil,
    log_tests::{looped, partition_dirs_of},
    samples,
};
use crate::record::{Body, Entry};

const EVENTS: LaneName = LaneName::Events;

fn open(dir: &Path) -> (Log, Appender, thread::JoinHandle<Result<(), BufferError>>) {
    let (log, writer) =
        Log::open(dir, LogSettings { partition_min_bytes: 40_000, partition_max_bytes: 40_000, ..LogSettings::new(1 << 30) }).unwrap();
    let (appender, requests) = commit::channel(16);
    let commit_log = log.clone();
    (log, appender, thread::spawn(move || commit::run(writer, commit_log, requests, Settings::unbounded(CommitPolicy::default()))))
}

fn at(seq: u64) -> Position {
    Position { ordinal: 1, seq }
}

/// All events that can be read.
fn events(log: &Log, appender: &Appender) -> Vec<(Position, Entry)> {
    let mut follower = Follower::new(log, EVENTS, appender.clone()).unwrap();
    let (mut after, mut all) = (Position::default(), Vec::new());
    loop {
        match follower.read(after, 100, 1 << 20).unwrap() {
            Followed::Records(records) if records.is_empty() => return all,
            Followed::Records(records) => all.extend(records),
            Followed::Gap(gap) => {
                after = gap.to;
                continue;
            }
        }
        after = all.last().unwrap().0;
    }
}

#[test]
fn a_gap_whose_event_is_lost_is_named_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, appender, thread) = open(dir.path());
    appender.blocking_append_durably(LaneName::Inputs, (0..10).map(samples::reading).collect(), true).unwrap();
    appender.blocking_append_durably(EVENTS, (0..10).map(samples::reading).collect(), true).unwrap();
    appender.blocking_name_gap(EVENTS, at(2), at(2), GapReason::Refused).unwrap();
    appender.blocking_name_gap(LaneName::Inputs, at(3), at(5), GapReason::Quota).unwrap();
    let named = log.gaps();
    assert_eq!(named.len(), 2);
    // So that they do not lie in the newest partition.
    for n in 0..90 {
        appender.blocking_append_durably(EVENTS, vec![samples::noise(n, 1_000)], true).unwrap();
    }
    drop((log, appender));
    thread.join().unwrap().unwrap();
    let oldest = partition_dirs_of(dir.path(), EVENTS).swap_remove(0);
    named.iter().for_each(|gap| spoil(&oldest, gap.event));

    let (log, appender, thread) = open(dir.path());
    let readable = events(&log, &appender);
    let gaps = log.gaps();
    assert!(gaps.iter().filter(|gap| gap.reason == GapReason::Damaged).count() > 0, "{gaps:?}");
    for before in named {
        let gap = gaps.iter().find(|gap| (gap.lane, gap.from, gap.to, gap.reason) == (before.lane, before.from, before.to, before.reason)).unwrap();
        assert_ne!(gap.event, before.event);
        let (_, entry) = readable.iter().find(|(position, _)| *position == gap.event).expect("its event can be read");
        let Body::Event(event) = &entry.body else { panic!("no event: {entry:?}") };
        assert_eq!(
            (event.kind, event.gap_lane, event.gap_from_seq, event.gap_to_seq),
            (EventKind::Gap, Some(gap.lane), Some(gap.from.seq), Some(gap.to.seq))
        );
    }
    drop((log, appender));
    thread.join().unwrap().unwrap();
}

/// A full disk takes no mark: what Kafka has acknowledged is not lost all the same.
#[test]
fn what_kafka_has_is_not_lost_though_no_mark_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let looped = looped(dir.path(), u64::MAX);
    looped.appender.blocking_append_durably(LaneName::Inputs, (0..12).map(samples::reading).collect(), true).unwrap();
    looped.hold.delivered(LaneName::Inputs, at(8));
    looped.appender.blocking_name_gap(LaneName::Inputs, at(5), at(12), GapReason::DiskFull).unwrap();
    let named: Vec<_> = looped.log.gaps().into_iter().filter(Gap::is_named).map(|gap| (gap.from, gap.to)).collect();
    assert_eq!((named, looped.log.counters().lost(LaneName::Inputs)), (vec![(at(9), at(12))], 4));
}
