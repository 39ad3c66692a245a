//! The log on a disk that lost or changed something.
use std::{fs, path::Path};

use hark_protocol::topics::{GapReason, LaneName};

use super::{
    BufferError, Gap, Log, LogSettings, Position,
    barrier::recorder,
    header,
    lane::{Expendable, Place},
    log_tests::{INPUTS, assert_accounted, at, copy_tree, fill, follow, looped, looped_with, open, partition_dirs, settings},
    partition,
    recovery::Owed,
    samples, seal,
    space::{Space, Victim},
};

/// A log that was closed, with 300 inputs in several partitions.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    dir
}

/// Changes a byte of every frame that holds `position`, wherever the store has it, in the partition of `dir`.
pub(super) fn spoil(dir: &Path, position: Position) {
    let db = dir.join("db");
    let mut bytes = fs::read(&db).unwrap();
    let holds = |head: &seal::Header| !head.is_of_marks() && (head.first()..=head.last()).contains(&position);
    let ends: Vec<usize> = seal::find_all(&bytes).filter(|(head, _)| holds(head)).map(|(_, range)| range.end).collect();
    assert!(!ends.is_empty());
    ends.into_iter().for_each(|end| bytes[end - 1] ^= 1);
    fs::write(&db, bytes).unwrap();
}

#[test]
fn a_lost_partition_is_a_hole_with_a_name() {
    let dir = filled();
    let dirs = partition_dirs(dir.path());
    assert!(dirs.len() > 3);
    fs::remove_dir_all(&dirs[1]).unwrap();
    let (log, _writer) = open(dir.path());
    let mut reader = log.reader(INPUTS).unwrap();
    let before = reader.read(Position::default(), 1_000, usize::MAX).unwrap();
    let last = before.last().unwrap().0;
    // It may as well have been the end of the partition before: that is looked at first.
    let Err(BufferError::Damaged { lane: INPUTS, from, partition, .. }) = reader.read(last, 1_000, usize::MAX) else { panic!("no hole") };
    assert_eq!((from, partition), (at(1, last.seq + 1), dirs[0].clone()));
    drop((log, _writer, reader));
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_accounted(1, 300, &records, &gaps);
    assert_eq!((gaps.len(), gaps[0].from, gaps[0].reason), (1, at(1, last.seq + 1), GapReason::Damaged));
}

#[test]
fn a_damaged_partition_is_named_and_its_neighbours_are_read() {
    let dir = filled();
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
    let third = u64::from_str_radix(dirs[2].to_str().unwrap().rsplit('-').nth(1).unwrap(), 16).unwrap();
    assert_eq!(reader.read(at(1, third - 1), 1, usize::MAX).unwrap()[0].0, at(1, third));
}

/// The directory as a kill at this moment leaves it.
fn killed(dir: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    copy_tree(dir, image.path()).unwrap();
    image
}

/// Flips a byte somewhere in the used part of the file of a partition, at `share` of it.
fn flip(partition: &Path, share: f64) {
    let db = partition.join("db");
    let mut bytes = fs::read(&db).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[(used as f64 * share) as usize] ^= 0x10;
    fs::write(&db, bytes).unwrap();
}

/// A flipped byte in the middle: the frame that it hit is named once, everything else is kept.
#[test]
fn a_flipped_byte_costs_a_frame_at_most() {
    for n in 1..20 {
        let dir = filled();
        flip(&partition_dirs(dir.path())[1], f64::from(n) / 20.0);
        let looped = looped(dir.path(), u64::MAX);
        let (records, gaps) = follow(&looped, INPUTS, Position::default());
        assert_accounted(1, 300, &records, &gaps);
        // Where the byte hits the last commit of the partition, its store ends before it, and says nothing of damage.
        assert!(gaps.iter().map(Gap::records).sum::<u64>() <= 10, "{n}: {gaps:?}");
        assert_eq!(follow(&looped, INPUTS, Position::default()), (records, gaps), "{n}: and again the same");
    }
}

/// A store that has lost a page of its index has everything around it, and says nothing: what it leaves out is still in its file.
#[test]
fn what_a_store_leaves_out_is_found_in_its_file() {
    // In the middle of a partition, at its end, and at the end of the last one of a start that is over.
    for (partition, seq_of) in [(1, None), (1, Some(u64::MAX)), (usize::MAX, Some(u64::MAX))] {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut writer) = open(dir.path());
        fill(&mut writer, 0..300);
        let id = log.incarnation().id;
        drop((log, writer));
        let (log, mut writer) = open(dir.path());
        // More than is merged with the partition before.
        fill(&mut writer, 300..400);
        drop((log, writer));
        let of_first: Vec<_> = partition_dirs(dir.path()).into_iter().filter(|path| path.to_string_lossy().contains("p-00000001-")).collect();
        let path = of_first.get(partition).or(of_first.last()).unwrap();
        let (key, generation) = header::Key::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        assert_eq!(generation, 0);
        let expected = partition::Expected { lane: INPUTS, key, incarnation: id, end: Position::default() };
        let opened = partition::Partition::open_to_write(path, &expected, Default::default()).unwrap();
        let lost = opened.frame_at(at(1, seq_of.unwrap_or(key.first_seq + 12))).unwrap().unwrap().first;
        opened.leave_out(lost);
        drop(opened);
        let looped = looped(dir.path(), u64::MAX);
        let (records, gaps) = follow(&looped, INPUTS, Position::default());
        assert_eq!((records.len(), gaps), (400, Vec::new()), "{partition} {seq_of:?}");
    }
}

/// The same in a small partition that would be merged: what its store leaves out must not go with it.
#[test]
fn what_a_store_leaves_out_is_not_merged_away() {
    let dir = tempfile::tempdir().unwrap();
    // Partitions of a size into which a new one is merged.
    let settings = LogSettings::new(1 << 30);
    let (log, mut writer) = Log::open(dir.path(), settings).unwrap();
    fill(&mut writer, 0..40);
    let id = log.incarnation().id;
    drop((log, writer));
    let [path] = &partition_dirs(dir.path())[..] else { panic!("one partition") };
    let expected = partition::Expected { lane: INPUTS, key: header::Key { ordinal: 1, first_seq: 1 }, incarnation: id, end: Position::default() };
    let opened = partition::Partition::open_to_write(path, &expected, Default::default()).unwrap();
    let lost = opened.frame_at(at(1, 12)).unwrap().unwrap().first;
    opened.leave_out(lost);
    drop(opened);
    for _ in 0..2 {
        let looped = looped_with(dir.path(), u64::MAX, settings);
        looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true).unwrap();
        let (records, gaps) = follow(&looped, INPUTS, Position::default());
        let of_first: Vec<_> = records.into_iter().filter(|at| at.ordinal == 1).collect();
        assert_accounted(1, 40, &of_first, &[]);
        assert_eq!(gaps, []);
        drop(looped);
    }
    assert_eq!(partition_dirs(dir.path()).len(), 1, "what could be saved is merged at the next start");
}

/// The same in the newest partition of an agent that was killed: what lies behind the byte was durable, and is no torn tail.
#[test]
fn a_flipped_byte_in_what_was_written_last_is_no_torn_tail() {
    for n in 1..20 {
        let dir = tempfile::tempdir().unwrap();
        let (_log, mut writer) = open(dir.path());
        fill(&mut writer, 0..95);
        let killed = killed(dir.path());
        let newest = partition_dirs(killed.path()).pop().unwrap();
        flip(&newest, f64::from(n) / 20.0);
        let looped = looped(killed.path(), u64::MAX);
        looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true).unwrap();
        let (records, gaps) = follow(&looped, INPUTS, Position::default());
        let records: Vec<_> = records.into_iter().filter(|at| at.ordinal == 1).collect();
        // Of the last commit alone nobody can know whether it was complete when the agent died.
        let last = records.last().copied().into_iter().chain(gaps.iter().map(|gap| gap.to)).max().unwrap().seq;
        assert!(last >= 90, "{n}: {last} of 95");
        assert_accounted(1, last, &records, &gaps);
        assert!(gaps.iter().map(Gap::records).sum::<u64>() <= 10, "{n}: {gaps:?}");
    }
}

/// A damaged partition whose last commit is there in part: what is left of it tells how far it went.
#[test]
fn what_is_left_of_the_last_commit_tells_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut writer) = open(dir.path());
    fill(&mut writer, 0..20);
    let killed = killed(dir.path());
    [5, 20].iter().for_each(|seq| spoil(&partition_dirs(killed.path())[0], at(1, *seq)));
    let looped = looped(killed.path(), u64::MAX);
    looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true).unwrap();
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    let records: Vec<_> = records.into_iter().filter(|at| at.ordinal == 1).collect();
    assert_accounted(1, 20, &records, &gaps);
    assert!(records.len() > 5 && gaps.len() == 2, "{records:?} {gaps:?}");
}

/// The commit loop notes how far it came: with it even the last commit of a killed agent is missed.
#[test]
fn the_last_commit_of_a_killed_agent_is_missed_if_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = looped(dir.path(), u64::MAX);
    for n in 0..20 {
        first.appender.blocking_append_durably(INPUTS, (0..10).map(|m| samples::noise(n * 10 + m, 100)).collect(), true).unwrap();
    }
    let killed = killed(dir.path());
    spoil(&partition_dirs(killed.path()).pop().unwrap(), at(1, 200));
    // Without the note nobody could tell that commit from one that never came to its end.
    let looped = looped(killed.path(), u64::MAX);
    looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true).unwrap();
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    let records: Vec<_> = records.into_iter().filter(|at| at.ordinal == 1).collect();
    assert_accounted(1, 200, &records, &gaps);
    assert_eq!(gaps.iter().map(|gap| (gap.from, gap.to)).collect::<Vec<_>>(), [(at(1, 191), at(1, 200))]);
}

/// The same in a partition that was merged of small ones: of the last commit the frame alone that is hit is lost, once and for all.
#[test]
fn of_the_last_commit_in_a_merged_partition_a_frame_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    // Partitions of a size into which a new one is merged.
    let settings = LogSettings::new(1 << 30);
    fill(&mut Log::open(dir.path(), settings).unwrap().1, 0..5);
    let second = looped_with(dir.path(), u64::MAX, settings);
    for n in 0..5 {
        second.appender.blocking_append_durably(INPUTS, (0..10).map(|m| samples::noise(n * 10 + m, 5_000)).collect(), true).unwrap();
    }
    for seq in [45, 50] {
        let killed = killed(dir.path());
        let [merged] = &partition_dirs(killed.path())[..] else { panic!("not merged") };
        assert_eq!(header::Key::of(merged), Some((header::Key { ordinal: 1, first_seq: 1 }, 1)));
        spoil(merged, at(2, seq));
        let third = looped_with(killed.path(), u64::MAX, settings);
        for _ in 0..2 {
            let (records, gaps) = follow(&third, INPUTS, Position::default());
            let (of_first, of_second): (Vec<_>, Vec<_>) = records.into_iter().partition(|at| at.ordinal == 1);
            assert_accounted(1, 5, &of_first, &[]);
            assert_accounted(1, 50, &of_second, &gaps);
            assert_eq!(named(&gaps, INPUTS), [(at(2, seq), at(2, seq))]);
            assert_eq!(fs::read_dir(killed.path().join("quarantine")).unwrap().count(), 1, "{seq}");
            // What damage has left is not expected to go as far as it did before.
            while third.log.partitions(INPUTS).1 > 0 {
                third.log.close_idle();
            }
        }
    }
}

/// A life that stored nothing in a lane does not hide how far the one before it went there.
#[test]
fn a_silent_life_forgets_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let first = looped(dir.path(), u64::MAX);
    for n in 0..5 {
        first.appender.blocking_append_durably(INPUTS, (0..10).map(|m| samples::noise(n * 10 + m, 5_000)).collect(), true).unwrap();
    }
    let dir = killed(dir.path());
    let silent = looped(dir.path(), u64::MAX);
    silent.appender.blocking_append_durably(LaneName::Events, vec![samples::reading(1)], true).unwrap();
    drop(silent.appender);
    silent.thread.join().unwrap().unwrap();
    drop(silent.log);
    spoil(&partition_dirs(dir.path()).pop().unwrap(), at(1, 45));
    let looked = Log::inspect(dir.path(), settings()).unwrap();
    assert_eq!((looked.last(INPUTS), looked.ledger().account(INPUTS, Position::default()).missing), (Some(at(1, 50)), 1));
    drop(looked);
    let later = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&later, INPUTS, Position::default());
    assert_accounted(1, 50, &records, &gaps);
    assert_eq!(named(&gaps, INPUTS), [(at(1, 45), at(1, 45))]);
}

/// The present life's own partition, closed while it was idle, is asked for what was committed to it before it is written on or read.
#[test]
fn an_idle_partition_is_asked_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let looped = looped(dir.path(), u64::MAX);
    for n in 0..3 {
        looped.appender.blocking_append_durably(INPUTS, (0..10).map(|m| samples::noise(n * 10 + m, 5_000)).collect(), true).unwrap();
    }
    while looped.log.partitions(INPUTS).1 > 0 {
        looped.log.close_idle();
    }
    spoil(&partition_dirs(dir.path()).pop().unwrap(), at(1, 25));
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_accounted(1, 30, &records, &gaps);
    assert_eq!(named(&gaps, INPUTS), [(at(1, 25), at(1, 25))]);
    looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true).unwrap();
    assert_eq!(follow(&looped, INPUTS, Position::default()).0.last(), Some(&at(1, 31)));
}

/// A partition whose header says nothing, being damaged or of an earlier build, is known again from the life on that is merged into it.
#[test]
fn what_a_header_does_not_say_is_forgotten_by_later_lives() {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings::new(1 << 30);
    for n in 0..2 {
        fill(&mut Log::open(dir.path(), settings).unwrap().1, 5 * n..5 * n + 5);
    }
    let [merged] = &partition_dirs(dir.path())[..] else { panic!("not merged") };
    let header = merged.join("header");
    // As earlier builds wrote it: nothing behind the fields, and its checksum.
    let mut bytes = fs::read(&header).unwrap();
    bytes.truncate(bytes.len() - 16);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    fs::write(&header, bytes).unwrap();
    assert_eq!(header::read(merged).unwrap().salvaged_to, header::UNKNOWN);
    let third = looped_with(dir.path(), u64::MAX, settings);
    third.appender.blocking_append_durably(INPUTS, (0..10).map(|m| samples::noise(m, 5_000)).collect(), true).unwrap();
    let killed = killed(dir.path());
    spoil(&partition_dirs(killed.path())[0], at(3, 5));
    let fourth = looped_with(killed.path(), u64::MAX, settings);
    let (records, gaps) = follow(&fourth, INPUTS, Position::default());
    assert_accounted(1, 10, &records.into_iter().filter(|at| at.ordinal == 3).collect::<Vec<_>>(), &gaps);
    assert_eq!(named(&gaps, INPUTS), [(at(3, 5), at(3, 5))]);
}

/// What was lost and named before it was delivered is a hole to who reads there again, and no damage.
#[test]
fn a_gap_that_is_behind_every_reader_is_not_named_again() {
    let dir = tempfile::tempdir().unwrap();
    fill(&mut open(dir.path()).1, 0..20);
    let mut settings = LogSettings::new(1 << 30);
    settings.reached[INPUTS as usize] = at(1, 25);
    let looped = looped_with(dir.path(), u64::MAX, settings);
    looped.appender.blocking_append_durably(INPUTS, (0..5).map(samples::reading).collect(), true).unwrap();
    let (_, gaps) = follow(&looped, INPUTS, Position::default());
    assert_eq!(named(&gaps, INPUTS), [(at(1, 21), at(1, 25))]);
    looped.hold.checkpoint_stored(at(2, 5));
    looped.hold.forward_stored(INPUTS, at(2, 5));
    while !looped.log.gaps().is_empty() {
        looped.appender.blocking_append_durably(LaneName::Alarms, vec![samples::reading(1)], true).unwrap();
    }
    let read = looped.log.reader(INPUTS).unwrap().read(at(1, 20), 1, usize::MAX);
    assert!(matches!(read, Err(BufferError::Hole { from, to, named: None, .. }) if (from, to) == (at(1, 21), at(1, 25))), "{read:?}");
}

/// A life that stored nothing in a lane says nothing of what earlier ones had there.
#[test]
fn a_life_without_records_in_a_lane_proves_nothing_of_it() {
    let dir = filled();
    let before = partition_dirs(dir.path());
    for _ in 0..2 {
        let life = looped(dir.path(), u64::MAX);
        life.appender.blocking_append_durably(LaneName::Events, vec![samples::reading(1)], true).unwrap();
        let (records, gaps) = follow(&life, INPUTS, Position::default());
        assert_eq!((records.len(), gaps.len()), (300, 0));
        drop(life.appender);
        life.thread.join().unwrap().unwrap();
    }
    assert_eq!(partition_dirs(dir.path()), before);
}

/// What the readers of the log remember of its end is missed if it is gone.
#[test]
fn a_lost_tail_that_readers_had_seen_is_named() {
    let dir = filled();
    let newest = partition_dirs(dir.path()).pop().unwrap();
    fs::remove_dir_all(newest).unwrap();
    let mut settings = settings();
    settings.reached[INPUTS as usize] = at(1, 298);
    let kept = {
        let (log, _writer) = Log::open(dir.path(), settings).unwrap();
        assert_eq!(log.predecessor().unwrap().last_seq[0], 298);
        let kept = log.reader(INPUTS).unwrap().read(Position::default(), 1_000, usize::MAX).unwrap().last().unwrap().0;
        assert!(
            kept < at(1, 298)
                && log.shared.take_owed()[0] == Owed { lane: INPUTS, from: at(1, kept.seq + 1), to: at(1, 298), reason: GapReason::Damaged }
        );
        kept
    };
    // What is owed was not named: it is missed again by who reads.
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_eq!((records.last().copied(), gaps.len(), gaps[0].to), (Some(kept), 1, at(1, 298)));
}

/// A frame that is changed wherever the store has it is lost alone.
#[test]
fn a_frame_that_is_not_what_was_written_is_lost_alone() {
    let dir = filled();
    let path = &partition_dirs(dir.path())[1];
    let (key, _) = header::Key::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
    spoil(path, at(1, key.first_seq + 12));
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_accounted(1, 300, &records, &gaps);
    assert!(gaps.len() == 1 && gaps[0].records() <= 10 && gaps[0].reason == GapReason::Damaged, "{gaps:?}");
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
}

#[test]
fn leftovers_of_a_crash_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..10);
    drop((log, writer));
    let lane = dir.path().join("inputs");
    fs::create_dir(lane.join("dead-p-00000001-0000000000000001")).unwrap();
    let unfinished = lane.join("p-00000001-00000000000000ff-0000");
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

/// The names of the gaps, by lane.
fn named(gaps: &[Gap], lane: LaneName) -> Vec<(Position, Position)> {
    gaps.iter().filter(|gap| gap.lane == lane && gap.is_named()).map(|gap| (gap.from, gap.to)).collect()
}

/// A partition that was being replaced when the power went: its successor counts once its header stands, and not before.
#[test]
fn a_half_made_successor_costs_its_predecessor_nothing() {
    for header in [None, Some(&b""[..]), Some(b"HKP2 and then nothing")] {
        let dir = filled();
        let predecessor = partition_dirs(dir.path()).swap_remove(1);
        let successor = format!("{}-0001", predecessor.to_str().unwrap().strip_suffix("-0000").unwrap());
        fs::create_dir(&successor).unwrap();
        if let Some(header) = header {
            fs::write(Path::new(&successor).join("header"), header).unwrap();
        }
        let looped = looped(dir.path(), u64::MAX);
        let (records, gaps) = follow(&looped, INPUTS, Position::default());
        assert_eq!((records.len(), gaps.len()), (300, 0), "{header:?}");
    }
}

/// A partition that lost its header is found by its records, also where its successor was not finished.
#[test]
fn a_lost_header_costs_nothing() {
    for (place, successor) in [(1, false), (1, true), (usize::MAX, false)] {
        let dir = filled();
        let dirs = partition_dirs(dir.path());
        let headless = dirs.get(place).or(dirs.last()).unwrap();
        fs::remove_file(headless.join("header")).unwrap();
        if successor {
            let successor = format!("{}-0001", headless.to_str().unwrap().strip_suffix("-0000").unwrap());
            fs::create_dir_all(&successor).unwrap();
            fs::copy(headless.join("db"), Path::new(&successor).join("db")).unwrap();
        }
        let looped = looped(dir.path(), u64::MAX);
        let (records, gaps) = follow(&looped, INPUTS, Position::default());
        assert_eq!((records.len(), gaps), (300, Vec::new()), "{place} {successor}");
    }
}

/// A later generation whose header was spoilt after it had taken the place of an earlier one, which is still there, has what came since.
#[test]
fn a_spoilt_header_of_a_later_generation_costs_nothing() {
    let dir = filled();
    let earlier = partition_dirs(dir.path()).swap_remove(1);
    let later = format!("{}-0001", earlier.to_str().unwrap().strip_suffix("-0000").unwrap());
    fs::rename(&earlier, &later).unwrap();
    fs::create_dir(&earlier).unwrap();
    // The earlier one has a header and no records any more: were it taken, its range would be lost.
    fs::copy(Path::new(&later).join("header"), earlier.join("header")).unwrap();
    fs::write(earlier.join("db"), b"").unwrap();
    fs::write(Path::new(&later).join("header"), b"HKP2 and then nothing").unwrap();
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_eq!((records.len(), gaps), (300, Vec::new()));
}

/// A start saves one damaged partition after the other, and need not be repeated.
#[test]
fn several_damaged_partitions_end_no_start() {
    let dir = filled();
    let dirs = partition_dirs(dir.path());
    for path in dirs.iter().rev().take(2) {
        fs::write(path.join("header"), b"").unwrap();
        fs::write(path.join("db"), vec![7; 100_000]).unwrap();
    }
    let looped = looped(dir.path(), u64::MAX);
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    let last = records.iter().map(|at| at.seq).chain(gaps.iter().map(|gap| gap.to.seq)).max().unwrap();
    assert_accounted(1, last, &records, &gaps);
    assert!(records.len() > 200, "{}", records.len());
}

/// A file that bears the name of a partition is none.
#[test]
fn a_file_in_the_place_of_a_partition_is_cleared_away() {
    let dir = filled();
    fs::write(dir.path().join("inputs").join(header::Key { ordinal: 9, first_seq: 1 }.directory(0)), b"").unwrap();
    let looped = looped(dir.path(), u64::MAX);
    assert_eq!(follow(&looped, INPUTS, Position::default()).0.len(), 300);
    assert!(partition_dirs(dir.path()).iter().all(|path| path.is_dir()));
}

/// A reader in the oldest inputs is waited for: predictions do not go in their place.
#[test]
fn a_higher_lane_does_not_go_while_a_lower_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    fill(&mut writer, 0..300);
    for n in 0..300 {
        writer.append(LaneName::Predictions, &samples::noise(n, 1_000)).unwrap();
        writer.commit().unwrap();
    }
    let space = Space { quota_bytes: 0, max_age: None, headroom_bytes: 0 };
    let Place::In(oldest, being_read) = log.shared.lane(INPUTS).place(at(1, 1)).unwrap() else { panic!("missing") };
    assert!(matches!(space.victim(&log.shared), Victim::InUse));
    drop(being_read);
    assert!(matches!(space.victim(&log.shared), Victim::Partition(INPUTS, key) if key == oldest));
    while let Expendable::Oldest(key) = log.shared.lane(INPUTS).expendable() {
        writer.remove(INPUTS, key).unwrap();
    }
    assert!(matches!(space.victim(&log.shared), Victim::Partition(LaneName::Predictions, _)));
}

/// A short life whose records were merged into an older partition: without the register that partition tells of it.
#[test]
fn an_ordinal_is_not_given_twice_when_the_register_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    // Partitions of a size into which a new one is merged.
    let settings = LogSettings::new(1 << 30);
    for n in 0..2 {
        let (log, mut writer) = Log::open(dir.path(), settings).unwrap();
        fill(&mut writer, n..n + 1);
        assert_eq!(log.partitions(INPUTS).0, 1);
    }
    for slot in 0..2 {
        fs::write(dir.path().join(format!("incarnations.{slot}")), b"lost").unwrap();
    }
    let (log, _writer) = Log::open(dir.path(), settings).unwrap();
    assert_eq!((log.incarnation().ordinal, log.predecessor().unwrap().incarnation.ordinal), (3, 2));
    assert_eq!(log.reader(INPUTS).unwrap().read(Position::default(), 10, usize::MAX).unwrap().last().unwrap().0, at(2, 1));
}

/// Its header and the register of incarnations are lost at once: what was saved of the partition is not taken for a strayed one later.
#[test]
fn a_partition_without_a_name_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    // The header of this lane tells of the start later.
    writer.append(LaneName::Events, &samples::reading(1)).unwrap();
    fill(&mut writer, 0..20);
    drop((log, writer));
    fs::write(partition_dirs(dir.path())[0].join("header"), b"lost").unwrap();
    for slot in 0..2 {
        fs::write(dir.path().join(format!("incarnations.{slot}")), b"lost").unwrap();
    }
    for _ in 0..3 {
        let life = looped(dir.path(), u64::MAX);
        let (records, gaps) = follow(&life, INPUTS, Position::default());
        assert_eq!((records.len(), gaps), (20, Vec::new()));
        assert_eq!(
            fs::read_dir(dir.path().join("quarantine")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>(),
            ["000001-inputs-p-00000001-0000000000000001-0000"]
        );
        drop(life.appender);
        life.thread.join().unwrap().unwrap();
    }
}

/// A life that stored nothing leaves its ordinal in the high water.
#[test]
fn a_life_without_records_keeps_its_ordinal() {
    let dir = tempfile::tempdir().unwrap();
    let first = looped(dir.path(), u64::MAX);
    drop(first.appender);
    first.thread.join().unwrap().unwrap();
    drop(first.log);
    for slot in 0..2 {
        fs::write(dir.path().join(format!("incarnations.{slot}")), b"lost").unwrap();
    }
    assert_eq!(open(dir.path()).0.incarnation().ordinal, 2);
}

/// What an earlier life stored in the only partition of a lane is lost with it, and has a name, though nobody has read the lane yet.
#[test]
fn what_is_lost_with_the_newest_partition_has_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut writer) = open(dir.path());
    for n in 0..20 {
        writer.append(LaneName::Alarms, &samples::reading(n)).unwrap();
    }
    writer.commit().unwrap();
    drop((log, writer));
    drop(open(dir.path()));
    let partition = dir.path().join("alarms/p-00000001-0000000000000001-0000");
    ["header", "db"].iter().for_each(|file| fs::write(partition.join(file), b"").unwrap());
    let looped = looped(dir.path(), u64::MAX);
    looped.appender.blocking_append_durably(INPUTS, vec![samples::reading(1)], true).unwrap();
    assert_eq!(named(&looped.log.gaps(), LaneName::Alarms), [(at(1, 1), at(1, 20))]);
    assert_eq!(looped.log.gaps()[0].reason, GapReason::Damaged);
}

/// Two readers meet the same damage and both ask: what the first one had saved is not put aside again.
#[test]
fn damage_is_put_aside_once() {
    let dir = filled();
    let damaged = &partition_dirs(dir.path())[1];
    ["header", "db"].iter().for_each(|file| fs::write(damaged.join(file), b"").unwrap());
    let first = header::Key::parse(damaged.file_name().unwrap().to_str().unwrap()).unwrap().0.first();
    let looped = looped(dir.path(), u64::MAX);
    for _ in 0..2 {
        looped.appender.blocking_quarantine(INPUTS, first).unwrap();
    }
    let (records, gaps) = follow(&looped, INPUTS, Position::default());
    assert_accounted(1, 300, &records, &gaps);
    assert_eq!((gaps.len(), fs::read_dir(dir.path().join("quarantine")).unwrap().count()), (1, 1));
    assert_eq!(looped.log.counters().quarantined.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// Damage among the events does not forget the gaps that stand at the head of their partition: else a range would be named twice.
#[test]
fn damage_among_the_events_forgets_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let first = looped(dir.path(), u64::MAX);
    first.appender.blocking_append_durably(INPUTS, (0..20).map(samples::reading).collect(), true).unwrap();
    first.appender.blocking_name_gap(INPUTS, at(1, 5), at(1, 9), GapReason::Quota).unwrap();
    drop(first.appender);
    first.thread.join().unwrap().unwrap();
    drop(first.log);
    // The second life begins with what the first one named.
    let (log, mut writer) = open(dir.path());
    let ordinal = log.incarnation().ordinal;
    for n in 0..20 {
        writer.append(LaneName::Events, &samples::noise(n, 1_000)).unwrap();
        writer.commit().unwrap();
    }
    assert_eq!(log.partitions(LaneName::Events), (2, 1));
    drop((log, writer));
    let key = header::Key { ordinal, first_seq: 1 };
    let path = dir.path().join("events").join(key.directory(0));
    spoil(&path, at(ordinal, 10));
    let (log, _writer) = open(dir.path());
    assert_eq!(named(&log.gaps(), INPUTS), [(at(1, 5), at(1, 9))]);
}

/// A database that was closed and opened again, which makes a snapshot of what it wrote last, loses nothing durable to a power cut.
#[test]
fn a_power_cut_after_a_reopening_costs_nothing() {
    for seed in 0..20 {
        let root = tempfile::tempdir().unwrap();
        let (dir, after_cut) = (root.path().join("log"), root.path().join("cut"));
        fs::create_dir(&dir).unwrap();
        recorder::start(&dir);
        let (log, mut writer) = open(&dir);
        let mut reader = log.reader(INPUTS).unwrap();
        for n in 0..20 + seed {
            fill(&mut writer, n..n + 1);
            if n % 7 == 6 {
                assert_eq!((log.close_idle(), log.close_idle()), (0, 1));
                assert_eq!(reader.read(at(1, n), 1, usize::MAX).unwrap().len(), 1);
            }
        }
        recorder::cut(&dir, &after_cut, &mut fastrand::Rng::with_seed(seed));
        recorder::end(&dir);
        let (log, _writer) = open(&after_cut);
        assert_eq!(log.reader(INPUTS).unwrap().read(Position::default(), 1_000, usize::MAX).unwrap().len() as u64, 20 + seed, "seed {seed}");
    }
}
