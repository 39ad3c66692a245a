//! Looking into the directory of a stopped agent without changing anything in it.
//!
//! No partition is opened where it lies: each is copied into memory when a reader comes to it, and read there. The directory may be on a disk that is
//! mounted read-only. Nothing is made, removed or recovered, and no incarnation begins. A lock is held only while a copy is made: an agent that starts
//! meanwhile goes before, and the next copy then fails with [`BufferError::InUse`].
use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{
    BufferError, Log, LogSettings, Position, StoreWatch,
    frame::Decoder,
    gaps::Gaps,
    header::Key,
    incarnation::{Incarnation, Register},
    lane::Lane,
    log::Shared,
    marks::LaneMarks,
    partition::{Expected, Partition, StoreError},
    recovery::{self, HighWater},
    salvage::Salvaged,
    scratch::{self, Scratch},
};

/// Where a lane that is only looked at has its partitions copied from.
#[derive(Debug)]
pub(super) struct Copies {
    root: PathBuf,
    /// Where a small directory may be made while one is opened.
    places: Vec<PathBuf>,
}

/// Keeps the agent out while it lives, not others who look in.
struct Quiet(#[expect(dead_code, reason = "held, not used")] Option<File>);

impl Copies {
    /// Opens a copy of the partition in `dir`.
    pub(super) fn open(&self, dir: &Path, expected: &Expected, watch: Arc<StoreWatch>) -> Result<Partition, StoreError> {
        let quiet = quiet(&self.root).map_err(|error| match error {
            BufferError::InUse { dir } => StoreError::InUse { dir },
            error => StoreError::Io(io::Error::other(error)),
        })?;
        let copy = Partition::copy(dir, expected, &self.places)?;
        drop(quiet);
        Partition::open_copy(copy, watch)
    }

    /// The same, of what was found in a damaged one.
    pub(super) fn of_sound(&self, sound: Salvaged, watch: Arc<StoreWatch>) -> Result<Partition, StoreError> {
        let partition = Partition::begin_in(&Scratch::new(&self.places)?, watch)?;
        sound.insert_into(&partition)?;
        Ok(partition)
    }
}

impl Log {
    /// Opens the log in `dir` for reading, while no agent runs there. It has no present incarnation: its id is nil, and nothing is in it.
    ///
    /// # Errors
    /// [`BufferError::InUse`] if an agent runs; what the disk refuses. Damage is found by who reads.
    pub fn inspect(dir: &Path, settings: LogSettings) -> Result<Self, BufferError> {
        drop(quiet(dir)?);
        let mut register = Register::open(dir)?;
        let mut learned = Vec::new();
        let ends = HighWater::open(dir)?.ends();
        let mut lane = |lane| {
            let copies = Copies { root: dir.to_owned(), places: scratch::places(&std::env::temp_dir()) };
            let known_end = recovery::known_end([ends[lane as usize], settings.reached[lane as usize], register.last(lane)]);
            Lane::inspect(dir, lane, known_end, copies, |ordinal| register.id(ordinal), |incarnation| learned.push(incarnation))
        };
        let lanes = [lane(LaneName::Inputs)?, lane(LaneName::Predictions)?, lane(LaneName::Alarms)?, lane(LaneName::Events)?];
        learned.extend(lanes.iter().flat_map(Lane::incarnations));
        learned.iter().for_each(|incarnation| register.learn(*incarnation));
        let mut decoder = Decoder::new().map_err(|error| BufferError::io("decompress", dir, error))?;
        for Incarnation { ordinal, .. } in register.open_ended() {
            let mut last_seqs = [0; LaneName::ALL.len()];
            for (lane, last_seq) in lanes.iter().zip(&mut last_seqs) {
                let at_least = if lane.known_end.ordinal == ordinal { lane.known_end.seq } else { 0 };
                let found = sound(lane, |lane| recovery::last_seq(lane, ordinal, &mut decoder))?;
                *last_seq = found.max(at_least).max(lane.salvaged_to(ordinal));
            }
            register.end(ordinal, last_seqs);
        }
        let marks: Vec<LaneMarks> = lanes.iter().map(|lane| sound(lane, recovery::marks_of)).collect::<Result<_, _>>()?;
        let history = register.look_back();
        let gaps = Gaps::of_marks(&marks, |ordinal| history.find(ordinal).is_some());
        let shared = Shared {
            dir: dir.to_owned(),
            settings,
            incarnation: Incarnation { ordinal: u32::MAX, id: Uuid::nil() },
            history,
            lanes,
            counters: Arc::default(),
            watch: Arc::default(),
            gaps: Mutex::new(gaps),
            recovered: Default::default(),
            owed: Mutex::default(),
            wakes: Mutex::default(),
            woken: Condvar::new(),
            lock: None,
        };
        Ok(Self { shared: shared.into() })
    }

    /// The newest record of `lane`.
    pub fn last(&self, lane: LaneName) -> Option<Position> {
        let present = self.committed(lane);
        let ended = || self.ended().iter().rev().find(|ended| ended.last_seq(lane) > 0);
        let before = || ended().map(|ended| Position { ordinal: ended.incarnation.ordinal, seq: ended.last_seq(lane) });
        if present.seq > 0 { Some(present) } else { before() }
    }

    /// The committed record of `lane` that follows `after`, whether it is still there or not.
    pub fn following(&self, lane: LaneName, after: Position) -> Option<Position> {
        self.shared.next(lane, after)
    }

    /// Lets what is sound in the damaged partition in `dir` be read without its store, where the log is only looked at. False if that was done already.
    pub fn salvage(&self, lane: LaneName, dir: &Path) -> bool {
        self.shared.lane(lane).salvage(dir)
    }

    /// Whether `at` belongs to a partition for which [`Self::salvage`] was called: what is missing there was damaged.
    pub fn is_salvaged(&self, lane: LaneName, at: Position) -> bool {
        self.shared.lane(lane).is_salvaged(at)
    }

    /// The last record of the same incarnation before the partition that follows the one of `from`: how far the damage of a partition reaches at most.
    pub fn before_next_partition(&self, lane: LaneName, from: Position) -> Position {
        let last = self.shared.last_seq(lane, from.ordinal);
        let next = self.shared.lane(lane).keys().into_iter().map(Key::first).find(|first| *first > from);
        let next = next.filter(|next| next.ordinal == from.ordinal).map_or(last, |next| next.seq - 1);
        Position { seq: next.max(from.seq), ..from }
    }
}

/// Asks `question`; where the newest partition turns out to be damaged, once more of what could be found in it, as a start would.
fn sound<T>(lane: &Lane, mut question: impl FnMut(&Lane) -> Result<T, BufferError>) -> Result<T, BufferError> {
    loop {
        match question(lane) {
            Err(BufferError::Damaged { partition, .. }) if lane.salvage(&partition) => {}
            answer => return answer,
        }
    }
}

/// Makes sure that no agent runs in `dir`, as long as the value lives. A disk that takes no locks, or never had an agent, is quiet.
fn quiet(dir: &Path) -> Result<Quiet, BufferError> {
    let path = dir.join("lock");
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => return Ok(Quiet(None)),
        Err(error) => return Err(BufferError::io("open", &path, error)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Quiet(Some(lock))),
        Err(TryLockError::WouldBlock) => Err(BufferError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(_)) => Ok(Quiet(None)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use std::fs;

    use super::*;
    use crate::buffer::{samples, seal};

    const INPUTS: LaneName = LaneName::Inputs;

    fn settings() -> LogSettings {
        LogSettings { partition_min_bytes: 40_000, partition_max_bytes: 40_000, ..LogSettings::new(1 << 30) }
    }

    /// Every file with its content and the time of its last change.
    fn everything(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            if path.is_dir() {
                found.extend(everything(&path));
                found.insert(path, (Vec::new(), changed));
            } else {
                found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
            }
        }
        found
    }

    /// Two incarnations: 100 records in several partitions, then 30.
    fn filled() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for count in [100, 30] {
            let (log, mut writer) = Log::open(dir.path(), settings()).unwrap();
            for n in 0..count {
                writer.append(INPUTS, &samples::noise(n, 1_000)).unwrap();
                if n % 10 == 9 {
                    writer.commit().unwrap();
                }
            }
            writer.commit().unwrap();
            drop((log, writer));
        }
        dir
    }

    #[test]
    fn looking_reads_everything_and_changes_nothing() {
        let dir = filled();
        let before = everything(dir.path());
        let log = Log::inspect(dir.path(), settings()).unwrap();
        let records = log.reader(INPUTS).unwrap().read(log.start(INPUTS), 1_000, usize::MAX).unwrap();
        assert_eq!(
            (records.len(), records[129].0, log.last(INPUTS)),
            (130, Position { ordinal: 2, seq: 30 }, Some(Position { ordinal: 2, seq: 30 }))
        );
        assert_eq!((log.depth(INPUTS, log.start(INPUTS)), log.last(LaneName::Alarms)), (130, None));
        drop(log);
        assert!(before == everything(dir.path()), "something in the directory was changed");
        let (log, _writer) = Log::open(dir.path(), settings()).unwrap();
        assert_eq!(log.incarnation().ordinal, 3, "looking began an incarnation");
    }

    #[test]
    fn an_agent_that_runs_or_starts_is_not_disturbed() {
        let dir = filled();
        let looking = Log::inspect(dir.path(), settings()).unwrap();
        let agent = Log::open(dir.path(), settings()).unwrap();
        assert!(matches!(Log::inspect(dir.path(), settings()), Err(BufferError::InUse { .. })));
        let refused = looking.reader(INPUTS).unwrap().read(looking.start(INPUTS), 1, 1).unwrap_err();
        assert!(matches!(refused, BufferError::Store { .. }), "{refused:?}");
        drop(agent);
        assert!(looking.reader(INPUTS).unwrap().read(looking.start(INPUTS), 1, 1).is_ok());
    }

    #[test]
    fn a_directory_without_an_agent_is_empty_and_an_absent_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::inspect(dir.path(), settings()).unwrap();
        assert_eq!((log.last(INPUTS), log.depth(INPUTS, Position::default()), log.ended().len()), (None, 0, 0));
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
        assert!(matches!(Log::inspect(&dir.path().join("absent"), settings()), Err(BufferError::Io { .. })));
    }

    #[test]
    fn a_copy_that_cannot_be_made_is_no_damage() {
        let dir = filled();
        let absent = dir.path().join("absent");
        let copies = Copies { root: dir.path().to_owned(), places: vec![absent.clone()] };
        let lane = Lane::inspect(dir.path(), INPUTS, Position::default(), copies, |_| None, |_| ()).unwrap();
        let Err(error) = lane.place(Position { ordinal: 1, seq: 1 }) else { panic!("copied into nothing") };
        assert!(matches!(error, BufferError::Store { .. }), "{error:?}");
        let text = crate::causes::chain(&error);
        assert!(text.contains("TMPDIR") && text.contains(&absent.display().to_string()), "{text}");
    }

    /// A frame of the oldest partition and one of the newest are spoilt; the reader does as an export does.
    #[test]
    fn what_is_sound_in_a_damaged_partition_is_read_from_its_file() {
        let dir = filled();
        let mut partitions: Vec<_> = fs::read_dir(dir.path().join("inputs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        partitions.sort();
        let newest = partitions.last().unwrap();
        for partition in [&partitions[0], newest] {
            let file = partition.join("db");
            let mut bytes = fs::read(&file).unwrap();
            // All copies that the store has of one frame.
            let (header, _) = seal::find_all(&bytes).filter(|(head, _)| !head.is_of_marks()).min_by_key(|(head, _)| head.first()).unwrap();
            let places: Vec<_> = seal::find_all(&bytes).filter(|(other, _)| *other == header).map(|(_, range)| range.end - 1).collect();
            places.into_iter().for_each(|at| bytes[at] ^= 1);
            fs::write(file, bytes).unwrap();
        }
        let before = everything(dir.path());
        let log = Log::inspect(dir.path(), settings()).unwrap();
        assert_eq!(log.last(INPUTS), Some(Position { ordinal: 2, seq: 30 }));
        let missing = || log.ledger().account(INPUTS, Position::default()).missing;
        let missing_at_first = missing();
        let (mut reader, mut at, mut read, mut lost) = (log.reader(INPUTS).unwrap(), log.start(INPUTS), 0, Vec::new());
        loop {
            match reader.read(at, usize::MAX, usize::MAX) {
                Ok(records) if records.is_empty() => break,
                Ok(records) => {
                    read += records.len();
                    at = records.last().unwrap().0;
                }
                Err(BufferError::Damaged { partition, .. }) => assert!(log.salvage(INPUTS, &partition), "saved twice"),
                Err(BufferError::Hole { from, to, named: None, .. }) => {
                    assert!(log.is_salvaged(INPUTS, from) && from.seq <= to.seq);
                    lost.push(to.seq - from.seq + 1);
                    at = to;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!((lost.len(), read as u64 + lost.iter().sum::<u64>()), (2, 130), "{lost:?}");
        assert!(lost.iter().all(|records| *records < 10), "{lost:?}");
        // That the newest partition is damaged is met at once, that another one is when it is read.
        assert_eq!((missing_at_first, missing()), (lost[1], lost.iter().sum()));
        drop((reader, log));
        assert!(before == everything(dir.path()), "something in the directory was changed");
    }

    #[test]
    fn damage_is_told_up_to_the_next_partition() {
        let dir = filled();
        let mut partitions: Vec<_> = fs::read_dir(dir.path().join("inputs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        partitions.sort();
        fs::write(partitions[0].join("header"), b"junk").unwrap();
        let log = Log::inspect(dir.path(), settings()).unwrap();
        let Err(BufferError::Damaged { from, .. }) = log.reader(INPUTS).unwrap().read(log.start(INPUTS), 1, 1) else { panic!("not noticed") };
        let to = log.before_next_partition(INPUTS, from);
        assert!(from.seq == 1 && (2..100).contains(&to.seq), "{from} to {to}");
        let (position, _) = log.reader(INPUTS).unwrap().read(to, 1, 1).unwrap().remove(0);
        assert_eq!(position, Position { seq: to.seq + 1, ..to });
    }
}
