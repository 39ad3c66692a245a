//! One partition: a small append-only sled database in a directory of its own. The only file that names sled.
//!
//! What sled 0.34.7 leaves to us, each measured before it was written down here:
//! - On Linux its `flush()` is no barrier against a power cut: `sync_data()` on our own handle of `db` follows it.
//! - It fsyncs neither `conf` nor directories at creation. A `header` file, written last, says that a partition was made completely.
//! - Opening it makes a snapshot, which is synced while what it speaks of need not be: a power cut would leave a snapshot of what is not there. `db` is synced
//!   before.
//! - A crash while it opens leaves `snap.*.generating`, which breaks the next open, and a damaged snapshot hides what is sound: deleted before.
//! - Opening it overwrites what lies behind damage: it opens a copy in memory ([`super::scratch`]), and the file itself only to write on, after that.
//! - Damage makes it panic: every call runs under `catch_unwind`.
//! - A kill between two inserts may keep the first of them alone: what belongs together is inserted as one batch.
//! - After a database is dropped its file lock may live on in a pool thread for a moment: opening waits for that, bounded.
//! - A call may hang for ever: a [`StoreWatch`] knows how long each one has been under way.
//!
//! Keys are positions, so a partition may hold the records of several incarnations. Above all positions stand the marks of each commit.
use std::{
    cell::Cell,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Once},
    thread,
    time::Duration,
};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{
    FrameError, Position, barrier,
    header::{self, Header, Key},
    scratch::{self, Scratch},
    seal::{self, Header as Seal, SEAL_BYTES},
    watch::StoreWatch,
};

/// sled's page cache per open partition. A leaf is below 110 KiB; readers go forward and rarely come back.
const CACHE_BYTES: u64 = 512 * 1024;
const LOCK_TRIES: u32 = 400;
const LOCK_RETRY: Duration = Duration::from_millis(5);
/// Before the keys of marks: above every ordinal, none of which is that high.
const MARKS: u32 = u32::MAX;

thread_local! {
    /// This thread is in a call of the store.
    static IN_STORE: Cell<bool> = const { Cell::new(false) };
}

/// What the store did instead of obeying.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It returned an error.
    #[error("store error")]
    Failed(sled::Error),
    /// It panicked, which is how it mostly meets damage.
    #[error("store panicked: {0}")]
    Panicked(String),
    /// A file call failed, of the store or of our own.
    #[error("file error")]
    Io(#[from] io::Error),
    /// There is no place to open it: what is wrong is wrong there, not here.
    #[error("it is opened in memory, which takes its size, /proc and, for a moment, a small directory in `{parent}`, /dev/shm or TMPDIR")]
    Scratch {
        /// Where the directory was to be.
        parent: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// An agent has started in the directory that is looked at.
    #[error("an agent has begun to use `{dir}`")]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The header file is not sound, or belongs to another partition.
    #[error("partition header is wrong")]
    Header,
    /// A frame is not what was written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The disk does not give a part of its file.
    #[error("{pages} pages of its file cannot be read")]
    Unreadable {
        /// Of 4 KiB.
        pages: usize,
    },
    /// It does not have a frame that was committed.
    #[error("store leaves out a frame")]
    LeftOut,
    /// It took damage for its end, and left out what lies behind.
    #[error("store ends at {last}, though it was durable up to {end}")]
    Cut {
        /// Its last record.
        last: Position,
        /// The last one that was durable for certain.
        end: Position,
    },
}

impl StoreError {
    /// The content cannot be trusted, as opposed to a disk that is full or refuses.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Failed(error) => !matches!(error, sled::Error::Io(_)),
            Self::Panicked(_) | Self::Header | Self::Frame(_) | Self::Unreadable { .. } | Self::LeftOut | Self::Cut { .. } => true,
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Scratch { .. } | Self::InUse { .. } => false,
        }
    }

    /// What a file call said, if that was it.
    pub(super) fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io(error) | Self::Scratch { source: error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Which partition is expected to be found, and the last record that it has at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) lane: LaneName,
    pub(super) key: Key,
    /// Of its first record.
    pub(super) incarnation: Uuid,
    pub(super) end: Position,
}

/// A frame as it lies in the store, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) first: Position,
    pub(super) parts: Vec<Vec<u8>>,
}

/// An open partition. Calls may run on several threads; dropping it closes the database.
pub(super) struct Partition {
    /// `None` only while it is being dropped.
    db: Option<sled::Db>,
    file: File,
    /// Where that file lies.
    path: PathBuf,
    watch: Arc<StoreWatch>,
}

impl Partition {
    /// Begins a new partition in `dir`, which is empty. It counts, with all that was inserted, from [`Self::complete`] on.
    pub(super) fn begin(dir: &Path, watch: Arc<StoreWatch>) -> Result<Self, StoreError> {
        Self::open_database(dir, watch)
    }

    /// The same in memory.
    pub(super) fn begin_in(scratch: &Scratch, watch: Arc<StoreWatch>) -> Result<Self, StoreError> {
        Self::open_database(scratch.path(), watch)
    }

    /// Makes it durable, down to the entry in the parent directory.
    pub(super) fn complete(&self, dir: &Path, header: &Header) -> Result<(), StoreError> {
        self.flush()?;
        let _watched = self.watch.enter();
        for made in ["conf", "db", "blobs"] {
            barrier::sync_all(&dir.join(made))?;
        }
        header.write(dir)?;
        barrier::sync_all(dir)?;
        if let Some(parent) = dir.parent() {
            barrier::sync_all(parent)?;
        }
        Ok(())
    }

    /// Makes the partition in `dir` durable and opens a copy of it, to be read, after checking that it is the one that is expected there, and that it goes to
    /// `end` at least. Whatever the store finds, the partition stays as it is. `places` are for small files while it opens.
    pub(super) fn open(dir: &Path, expected: &Expected, places: &[PathBuf], watch: Arc<StoreWatch>) -> Result<Self, StoreError> {
        {
            // Written by a life that was killed, some of it may be in the page cache only: what a reader sees now must not vanish later.
            let _watched = watch.enter();
            let db = dir.join("db");
            barrier::sync_data(&File::open(&db)?, &db)?;
        }
        Self::open_copy(Self::copy(dir, expected, places)?, watch)
    }

    /// Copies the partition in `dir` for [`Self::open_copy`].
    pub(super) fn copy(dir: &Path, expected: &Expected, places: &[PathBuf]) -> Result<(Scratch, Position), StoreError> {
        if !header::read(dir)?.is_of(expected.lane, expected.key, expected.incarnation) {
            return Err(StoreError::Header);
        }
        let (scratch, proven) = Scratch::copy_of(dir, expected.key.first(), places)?;
        Ok((scratch, expected.end.max(proven)))
    }

    /// Opens a copy that goes to a position at least.
    pub(super) fn open_copy((scratch, end): (Scratch, Position), watch: Arc<StoreWatch>) -> Result<Self, StoreError> {
        Self::open_database(scratch.path(), watch)?.reaches(end)
    }

    /// Opens the partition in `dir` itself, to be written on, once [`Self::open`] has found it sound.
    pub(super) fn open_to_write(dir: &Path, expected: &Expected, watch: Arc<StoreWatch>) -> Result<Self, StoreError> {
        drop(Self::open(dir, expected, &scratch::places(dir.parent().unwrap_or(dir)), watch.clone())?);
        // They only spare the store a scan of its log; a damaged one would hide what is sound, one that was not finished breaks it.
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path())?;
            }
        }
        Self::open_database(dir, watch)?.reaches(expected.end)
    }

    /// The same, unless the store has given up records that were durable: the last of them is `end`.
    fn reaches(self, end: Position) -> Result<Self, StoreError> {
        let newest = self.frame_at(Position { ordinal: MARKS - 1, seq: u64::MAX })?;
        let last = newest.and_then(|stored| Some(Seal::open(stored.parts.first()?).ok()?.0.last())).unwrap_or_default();
        if last < end { Err(StoreError::Cut { last, end }) } else { Ok(self) }
    }

    fn open_database(dir: &Path, watch: Arc<StoreWatch>) -> Result<Self, StoreError> {
        hush();
        let mut tries = 0;
        let db = loop {
            let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            match guarded(&watch, || config.open()) {
                Err(error) if tries < LOCK_TRIES && is_locked(&error) => tries += 1,
                result => break result?,
            }
            #[expect(clippy::disallowed_methods, reason = "sled tells nobody when its threads have let go of the lock")]
            thread::sleep(LOCK_RETRY);
        };
        let path = dir.join("db");
        Ok(Self { db: Some(db), file: File::open(&path)?, path, watch })
    }

    /// Adds frames and the marks that belong to them: after a crash all of them are there or none. Not durable before [`Partition::flush`].
    /// `marks_at` orders the marks among those of the partition.
    pub(super) fn insert(&self, frames: Vec<Stored>, marks_at: u32, marks: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let mut marks: Vec<_> = marks.into_iter().zip(0..).map(|(piece, part)| Seal::of_marks(marks_at, part).seal(&piece)).collect();
        let alone = matches!(&frames[..], [frame] if frame.parts.len() == 1)
            && marks.len() <= 1
            && marks.iter().all(|piece| piece.len() <= EMBEDDED_MAX_BYTES);
        let mut embedded = if alone { marks.pop() } else { None };
        let mut writes = Vec::new();
        for Stored { first, parts } in frames {
            for (bytes, part) in parts.into_iter().zip(0_u16..) {
                match part {
                    0 => writes.push((frame_key(first).to_vec(), [embedded.take().unwrap_or_default(), bytes].concat())),
                    part => writes.push((part_key(first, part).to_vec(), bytes)),
                }
            }
        }
        for (bytes, part) in marks.into_iter().zip(0_u16..) {
            writes.push((part_key(Position { ordinal: MARKS, seq: marks_at.into() }, part).to_vec(), bytes));
        }
        // A batch is written in two pieces, each of which costs a page of flash: what stands alone goes without.
        if writes.len() == 1 {
            let (key, value) = writes.remove(0);
            return guarded(&self.watch, || self.db().insert(key, value)).map(drop);
        }
        if writes.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        writes.into_iter().for_each(|(key, value)| batch.insert(key, value));
        guarded(&self.watch, || self.db().apply_batch(batch))
    }

    /// Makes everything inserted survive a power cut.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        guarded(&self.watch, || self.db().flush())?;
        let _watched = self.watch.enter();
        barrier::sync_data(&self.file, &self.path)?;
        Ok(())
    }

    /// The frame with the greatest first position that is not above `at`, whatever its incarnation.
    pub(super) fn frame_at(&self, at: Position) -> Result<Option<Stored>, StoreError> {
        guarded(&self.watch, || {
            let Some((key, value)) = self.db().get_lt(after_all_parts(at))? else { return Ok(None) };
            let Some(first) = position_of(&key) else { return Err(sled::Error::Corruption { at: None, bt: () }) };
            if key.len() == FRAME_KEY_BYTES {
                return Ok(Some(Stored { first, parts: vec![without_marks(&value)?.1.to_vec()] }));
            }
            let parts = self.db().range(frame_key(first).to_vec()..=key.to_vec()).values();
            let mut parts = parts.map(|part| part.map(|bytes| bytes.to_vec())).collect::<Result<Vec<_>, _>>()?;
            if let Some(head) = parts.first_mut() {
                *head = without_marks(head)?.1.to_vec();
            }
            Ok(Some(Stored { first, parts }))
        })
    }

    /// The first position of the first frame that starts after `at`.
    pub(super) fn first_after(&self, at: Position) -> Result<Option<Position>, StoreError> {
        let next = guarded(&self.watch, || self.db().get_gt(after_all_parts(at)))?;
        Ok(next.and_then(|(key, _)| position_of(&key)).filter(|position| position.ordinal != MARKS))
    }

    /// All marks, in the order of their commits. Reads the whole partition.
    pub(super) fn marks(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let corrupt = || sled::Error::Corruption { at: None, bt: () };
        let mut found = guarded(&self.watch, || {
            let mut found = Vec::new();
            for item in self.db().iter() {
                let (key, value) = item?;
                match position_of(&key) {
                    Some(Position { ordinal: MARKS, .. }) => {
                        let (head, piece, _) = Seal::open(&value).map_err(|_| corrupt())?;
                        found.push((head.marks_at(), piece.to_vec()));
                    }
                    Some(_) if key.len() == FRAME_KEY_BYTES => {
                        let (marks, _) = without_marks(&value)?;
                        found.extend(marks.map(|(at, piece)| (at, piece.to_vec())));
                    }
                    _ => {}
                }
            }
            Ok(found)
        })?;
        // Stable: pieces of one commit stay in their order.
        found.sort_by_key(|(at, _)| *at);
        Ok(found.into_iter().map(|(_, piece)| piece).collect())
    }

    /// Lets the store forget the frame at `first`, which stays in its file.
    #[cfg(test)]
    pub(super) fn leave_out(&self, first: Position) {
        self.db().remove(frame_key(first)).unwrap().unwrap();
        self.flush().unwrap();
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("taken only in drop")
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        // sled syncs when it is dropped and panics if the disk refuses; what was committed is durable already.
        let _watched = self.watch.enter();
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("a partition did not close cleanly");
        }
    }
}

/// The store's panics are caught and told as errors: what the process says of them by itself goes to the log, and there only for who looks closely.
fn hush() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let otherwise = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let of_store = IN_STORE.get() || thread::current().name().is_some_and(|name| name.starts_with("sled-"));
            if of_store { tracing::debug!(%panic, "the store panicked") } else { otherwise(panic) }
        }));
    });
}

fn guarded<T>(watch: &StoreWatch, call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    let _watched = watch.enter();
    let called = IN_STORE.with(|inside| {
        inside.set(true);
        let called = catch_unwind(AssertUnwindSafe(call));
        inside.set(false);
        called
    });
    match called {
        // What the store does not find is nothing that we looked for.
        Ok(Err(sled::Error::Io(error))) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Io(error)),
        Ok(result) => result.map_err(StoreError::Failed),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(StoreError::Panicked(text.unwrap_or_else(|| "without a message".to_owned())))
        }
    }
}

/// sled tells a held file lock only in the text of its error.
fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

const FRAME_KEY_BYTES: usize = 12;

/// Marks up to this size stand in the value of a frame that is alone in its commit; the leaves stay below their limit all the same.
const EMBEDDED_MAX_BYTES: usize = 1_200 + SEAL_BYTES;
const _: () = assert!(17 * (super::frame::FRAME_MAX_BYTES + EMBEDDED_MAX_BYTES + 64) < 128 * 1024 - 52, "leaves must stay out of blobs/");

/// The marks of a value with their place, where there are any, and the frame's part, sealed.
#[expect(clippy::type_complexity, reason = "two things that are told apart by where they stand")]
fn without_marks(value: &[u8]) -> Result<(Option<(u32, &[u8])>, &[u8]), sled::Error> {
    if !seal::begins_with_marks(value) {
        return Ok((None, value));
    }
    let (head, piece, part) = Seal::open(value).map_err(|_| sled::Error::Corruption { at: None, bt: () })?;
    Ok((Some((head.marks_at(), piece)), part))
}

fn frame_key(first: Position) -> [u8; FRAME_KEY_BYTES] {
    let mut key = [0; FRAME_KEY_BYTES];
    key[..4].copy_from_slice(&first.ordinal.to_be_bytes());
    key[4..].copy_from_slice(&first.seq.to_be_bytes());
    key
}

/// Continuation parts stand right after the first one, which has the bare position.
fn part_key(first: Position, part: u16) -> [u8; FRAME_KEY_BYTES + 2] {
    let mut key = [0; FRAME_KEY_BYTES + 2];
    key[..FRAME_KEY_BYTES].copy_from_slice(&frame_key(first));
    key[FRAME_KEY_BYTES..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Above every part of the frame at `at`, below the next position.
fn after_all_parts(at: Position) -> [u8; FRAME_KEY_BYTES + 3] {
    let mut key = [0xff; FRAME_KEY_BYTES + 3];
    key[..FRAME_KEY_BYTES].copy_from_slice(&frame_key(at));
    key
}

fn position_of(key: &[u8]) -> Option<Position> {
    let (ordinal, rest) = key.split_first_chunk::<4>()?;
    Some(Position { ordinal: u32::from_be_bytes(*ordinal), seq: u64::from_be_bytes(*rest.first_chunk::<8>()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { ordinal: 2, first_seq: 100 };
    const LANE: LaneName = LaneName::Alarms;
    const ID: Uuid = Uuid::from_u128(77);
    const EXPECTED: Expected = Expected { lane: LANE, key: KEY, incarnation: ID, end: Position { ordinal: 0, seq: 0 } };

    fn watch() -> Arc<StoreWatch> {
        Arc::default()
    }

    fn partition() -> (tempfile::TempDir, PathBuf, Partition) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(KEY.directory(0));
        let header = Header {
            lane: LANE,
            key: KEY,
            incarnation: ID,
            created_ms: 5,
            replaces: Vec::new(),
            holds: Vec::new(),
            salvaged_to: Position::default(),
        };
        fs::create_dir(&dir).unwrap();
        let partition = Partition::begin(&dir, watch()).unwrap();
        partition.complete(&dir, &header).unwrap();
        (root, dir, partition)
    }

    fn at(ordinal: u32, seq: u64) -> Position {
        Position { ordinal, seq }
    }

    fn stored(first: Position, parts: &[&[u8]]) -> Stored {
        Stored { first, parts: parts.iter().map(|part| part.to_vec()).collect() }
    }

    fn insert(partition: &Partition, first: Position, parts: &[&[u8]]) {
        partition.insert(vec![stored(first, parts)], first.seq as u32, vec![vec![first.seq as u8]]).unwrap();
    }

    #[test]
    fn frames_are_found_by_any_position_they_may_hold() {
        let (_root, _dir, partition) = partition();
        insert(&partition, at(2, 100), &[&[1]]);
        insert(&partition, at(2, 110), &[&[2], &[3], &[4]]);
        insert(&partition, at(3, 1), &[&[5]]);
        let found = |position| partition.frame_at(position).unwrap();
        assert_eq!(found(at(2, 99)), None);
        assert_eq!(found(at(2, 109)), Some(stored(at(2, 100), &[&[1]])));
        assert_eq!(found(at(2, 110)), Some(stored(at(2, 110), &[&[2], &[3], &[4]])));
        assert_eq!(found(at(2, u64::MAX)), Some(stored(at(2, 110), &[&[2], &[3], &[4]])));
        assert_eq!(found(at(4, u64::MAX)), Some(stored(at(3, 1), &[&[5]])), "marks are no frames");
        let after = |position| partition.first_after(position).unwrap();
        assert_eq!([at(2, 99), at(2, 100), at(2, 110), at(3, 1)].map(after), [Some(at(2, 100)), Some(at(2, 110)), Some(at(3, 1)), None]);
        assert_eq!(partition.marks().unwrap(), [vec![1], vec![100], vec![110]]);
    }

    #[test]
    fn a_partition_opens_again_with_what_was_flushed() {
        let (_root, dir, partition) = partition();
        insert(&partition, at(2, 100), &[&[9; 6000]]);
        partition.flush().unwrap();
        drop(partition);
        let partition = Partition::open_to_write(&dir, &EXPECTED, watch()).unwrap();
        assert_eq!(partition.frame_at(at(2, 100)).unwrap(), Some(stored(at(2, 100), &[&[9; 6000]])));
    }

    #[test]
    fn a_snapshot_that_is_damaged_or_was_never_finished_does_not_matter() {
        let (_root, dir, partition) = partition();
        insert(&partition, at(2, 100), &[&[1]]);
        partition.flush().unwrap();
        drop(partition);
        for name in ["snap.FFFFFFFFFFFFFFFF.generating", "snap.0000000000000100"] {
            fs::write(dir.join(name), b"half").unwrap();
        }
        let partition = Partition::open_to_write(&dir, &EXPECTED, watch()).unwrap();
        assert_eq!(partition.frame_at(at(2, 100)).unwrap(), Some(stored(at(2, 100), &[&[1]])));
    }

    /// What the store would overwrite stays where it is, and nothing is left of the place where it was opened.
    #[test]
    fn a_damaged_partition_is_not_changed_by_opening_it() {
        let (root, dir, partition) = partition();
        for seq in 100..120 {
            insert(&partition, at(2, seq), &[&[seq as u8; 500]]);
        }
        partition.flush().unwrap();
        drop(partition);
        let sound = fs::read(dir.join("db")).unwrap();
        for share in 1..20 {
            let mut damaged = sound.clone();
            let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
            damaged[used * share / 20] ^= 1;
            fs::write(dir.join("db"), &damaged).unwrap();
            let expected = Expected { end: at(2, 119), ..EXPECTED };
            for opened in [Partition::open(&dir, &expected, &[root.path().to_owned()], watch()), Partition::open_to_write(&dir, &expected, watch())] {
                assert!(opened.is_ok() || fs::read(dir.join("db")).unwrap() == damaged, "{share}");
            }
            let names = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path());
            assert_eq!(names.collect::<Vec<_>>(), [&*dir]);
        }
    }

    #[test]
    fn a_strayed_partition_is_refused() {
        let (root, dir, partition) = partition();
        drop(partition);
        let id = Uuid::from_u128(78);
        for stray in [
            Expected { lane: LaneName::Inputs, ..EXPECTED },
            Expected { key: Key { ordinal: 3, ..KEY }, ..EXPECTED },
            Expected { incarnation: id, ..EXPECTED },
        ] {
            assert!(matches!(Partition::open(&dir, &stray, &[root.path().to_owned()], watch()), Err(StoreError::Header)));
        }
    }
}
