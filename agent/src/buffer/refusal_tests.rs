//! The log on a disk that refuses to make durable what it has done: for some time, or once in a wrong moment.
use std::fs;

use hark_protocol::topics::GapReason;

use super::{
    Log, LogSettings, Position,
    barrier::recorder,
    dead, header,
    lane::Expendable,
    log_tests::{INPUTS, assert_accounted, at, fill, follow, looped, open, partition_dirs},
    samples,
};

/// Each try leaves less than it found, however long it takes: afterwards the log goes on, and the next start too.
#[test]
fn a_disk_that_syncs_nothing_for_long_is_written_on_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..20);
    writer.append(INPUTS, &samples::noise(20, 1_000)).unwrap();
    recorder::refuse(dir.path());
    for n in 0..5 {
        assert!(writer.commit().is_err(), "{n}");
    }
    recorder::allow(dir.path());
    writer.commit().unwrap();
    drop((log, writer));
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_accounted(1, 21, &records, &gaps);
    assert_eq!(gaps, []);
    assert!(partition_dirs(dir.path()).iter().all(|path| header::Key::of(path).is_some()), "nothing half made is left");
}

/// What is out of sight is gone, whether that is durable or not: to give it up again would fail for ever.
#[test]
fn a_partition_is_given_up_though_the_step_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..100);
    let Expendable::Oldest(key) = log.shared.lane(INPUTS).expendable() else { panic!("several partitions") };
    recorder::refuse(dir.path());
    assert!(writer.remove(INPUTS, key).unwrap() > 0);
    recorder::allow(dir.path());
    assert!(log.shared.lane(INPUTS).oldest().is_some_and(|oldest| oldest > key));
    assert_eq!(writer.remove(INPUTS, key).unwrap(), 0);
    // One that somebody else took away is gone as well.
    let Expendable::Oldest(next) = log.shared.lane(INPUTS).expendable() else { panic!("several partitions") };
    fs::remove_dir_all(log.shared.lane(INPUTS).path(next)).unwrap();
    assert_eq!(writer.remove(INPUTS, next).unwrap(), 0);
    assert!(log.shared.lane(INPUTS).oldest().is_some_and(|oldest| oldest > next));
}

/// The same for a damaged partition of which nothing can be saved.
#[test]
fn a_partition_is_put_aside_though_the_step_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    drop((log, writer));
    let damaged = partition_dirs(dir.path()).swap_remove(1);
    let first = header::Key::of(&damaged).unwrap().0.first();
    fs::write(damaged.join("db"), b"").unwrap();
    let looped = looped(dir.path(), u64::MAX);
    let quarantine = dir.path().join("quarantine");
    recorder::refuse(&quarantine);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    recorder::allow(&quarantine);
    assert_accounted(1, 300, &records, &gaps);
    assert_eq!((gaps.len(), gaps[0].from, gaps[0].reason), (1, at(1, first.seq), GapReason::Damaged));
    assert_eq!(fs::read_dir(quarantine).unwrap().count(), 1);
}

/// What was merged and could not be taken away is kept from being read by the header of what took its place, and by that alone: nothing new goes there.
#[test]
fn nothing_new_goes_beside_what_could_not_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings::new(1 << 30);
    for _ in 0..2 {
        let (_log, mut writer) = Log::open(dir.path(), settings).unwrap();
        fill(&mut writer, 0..10);
    }
    let lane = dir.path().join("inputs");
    let (log, mut writer) = Log::open(dir.path(), settings).unwrap();
    let names: Vec<String> = partition_dirs(dir.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 1, "the second start merged the first partition");
    dead::refuse(&lane.join(&names[0]));
    fill(&mut writer, 0..10);
    let merged = header::Key::parse(&names[0]).unwrap().0.directory(2);
    assert!(partition_dirs(dir.path()).iter().any(|path| path.ends_with(&merged)));
    assert_eq!(log.partitions(INPUTS).0, 2, "a partition of its own beside the merged one");
    // The header that names the old one is lost: the old one has all that the merged one has.
    drop((log, writer));
    fs::remove_file(lane.join(merged).join("header")).unwrap();
    dead::allow(&lane.join(&names[0]));
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_eq!((records.len(), gaps), (30, Vec::new()));
}
