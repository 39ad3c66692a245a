//! One partition: a small append-only sled database in a directory of its own. The only file that names sled.
//!
//! What sled 0.34.7 leaves to us, each measured before it was written down here:
//! - On Linux its `flush()` is no barrier against a power cut: `sync_data()` on our own handle of `db` follows it.
//! - It fsyncs neither `conf` nor directories at creation. A `header` file, written last, says that a partition was made completely.
//! - A crash while it opens leaves `snap.*.generating`, which breaks the next open: deleted before.
//! - Damage makes it panic: every call runs under `catch_unwind`.
//! - A kill between two inserts may keep the first of them alone: what belongs together is inserted as one batch.
//! - After a database is dropped its file lock may live on in a pool thread for a moment: opening waits for that, bounded.
use std::{
    fs::{self, File},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{BufferError, small_file::sync_dir};

/// sled's page cache per open partition. A leaf is below 110 KiB; readers go forward and rarely come back.
const CACHE_BYTES: u64 = 512 * 1024;
const LOCK_TRIES: u32 = 400;
const LOCK_RETRY: Duration = Duration::from_millis(5);
const HEADER_FILE: &str = "header";
const HEADER_MAGIC: [u8; 4] = *b"HKP1";
const HEADER_BYTES: usize = 4 + 1 + 4 + 8 + 16;

/// Which partition of a lane: in the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) ordinal: u32,
    pub(super) first_seq: u64,
}

impl Key {
    pub(super) fn directory(self) -> String {
        format!("p-{:08x}-{:016x}", self.ordinal, self.first_seq)
    }

    /// The key of a directory name; `None` if it names no partition.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (ordinal, first_seq) = name.strip_prefix("p-")?.split_once('-')?;
        let key = Self { ordinal: u32::from_str_radix(ordinal, 16).ok()?, first_seq: u64::from_str_radix(first_seq, 16).ok()? };
        (key.directory() == name).then_some(key)
    }
}

/// Who made a partition; kept in it, so that a directory that strayed in from elsewhere is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) lane: LaneName,
    pub(super) key: Key,
    pub(super) incarnation: Uuid,
}

/// What the store did instead of obeying.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It returned an error.
    #[error("store error")]
    Failed(#[from] sled::Error),
    /// It panicked, which is how it mostly meets damage.
    #[error("store panicked: {0}")]
    Panicked(String),
    /// A file call of our own beside it.
    #[error("file error")]
    Io(#[from] io::Error),
    /// The header file is not sound, or belongs to another partition.
    #[error("partition header is wrong")]
    Header,
}

impl StoreError {
    /// The content cannot be trusted, as opposed to a disk that is full or refuses.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Failed(error) => !matches!(error, sled::Error::Io(_)),
            Self::Panicked(_) | Self::Header => true,
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// A frame as it lies in the store, unchecked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) first_seq: u64,
    pub(super) parts: Vec<Vec<u8>>,
}

/// An open partition. Calls may run on several threads; dropping it closes the database.
pub(super) struct Partition {
    /// `None` only while it is being dropped.
    db: Option<sled::Db>,
    file: File,
}

impl Partition {
    /// Makes a new partition in `dir`, durably down to the entry in the parent directory, which exists.
    pub(super) fn create(dir: &Path, header: Header) -> Result<Self, StoreError> {
        fs::create_dir(dir)?;
        let partition = Self::open_database(dir)?;
        partition.flush()?;
        for file in ["conf", "db"] {
            File::open(dir.join(file))?.sync_all()?;
        }
        File::open(dir.join("blobs"))?.sync_all()?;
        let mut file = File::create(dir.join(HEADER_FILE))?;
        file.write_all(&encode_header(header))?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(partition)
    }

    /// Opens an existing partition, after checking that it is the one that `header` names.
    pub(super) fn open(dir: &Path, header: Header) -> Result<Self, StoreError> {
        if read_header(dir)? != header {
            return Err(StoreError::Header);
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".generating") {
                fs::remove_file(entry.path())?;
            }
        }
        Self::open_database(dir)
    }

    fn open_database(dir: &Path) -> Result<Self, StoreError> {
        let mut tries = 0;
        let db = loop {
            let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            match guarded(|| config.open()) {
                Err(error) if tries < LOCK_TRIES && is_locked(&error) => tries += 1,
                result => break result?,
            }
            #[expect(clippy::disallowed_methods, reason = "sled tells nobody when its threads have let go of the lock")]
            thread::sleep(LOCK_RETRY);
        };
        Ok(Self { db: Some(db), file: File::open(dir.join("db"))? })
    }

    /// Adds the parts of the frame that starts at `first_seq`: after a crash all of them are there or none. Not durable before [`Partition::flush`].
    pub(super) fn insert(&self, first_seq: u64, parts: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (bytes, part) in parts.into_iter().zip(0_u16..) {
            match part {
                0 => batch.insert(&first_seq.to_be_bytes(), bytes),
                part => batch.insert(&part_key(first_seq, part), bytes),
            }
        }
        guarded(|| self.db().apply_batch(batch))
    }

    /// Makes everything inserted survive a power cut.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db().flush())?;
        self.file.sync_data()?;
        Ok(())
    }

    /// The frame with the greatest first seq that is not above `seq`.
    pub(super) fn frame_at(&self, seq: u64) -> Result<Option<Stored>, StoreError> {
        guarded(|| {
            let Some((key, value)) = self.db().get_lt(after_all_parts(seq))? else { return Ok(None) };
            let Some(first_seq) = first_seq_of(&key) else { return Err(sled::Error::Corruption { at: None, bt: () }) };
            if key.len() == 8 {
                return Ok(Some(Stored { first_seq, parts: vec![value.to_vec()] }));
            }
            let parts = self.db().range(first_seq.to_be_bytes().to_vec()..=key.to_vec()).values();
            Ok(Some(Stored { first_seq, parts: parts.map(|part| part.map(|bytes| bytes.to_vec())).collect::<Result<_, _>>()? }))
        })
    }

    /// The first seq of the first frame that starts after `seq`.
    pub(super) fn first_after(&self, seq: u64) -> Result<Option<u64>, StoreError> {
        guarded(|| Ok(self.db().get_gt(after_all_parts(seq))?.and_then(|(key, _)| first_seq_of(&key))))
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("taken only in drop")
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        // sled syncs when it is dropped and panics if the disk refuses; what was committed is durable already.
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("a partition did not close cleanly");
        }
    }
}

/// The header of the partition in `dir`.
pub(super) fn read_header(dir: &Path) -> Result<Header, StoreError> {
    let bytes = fs::read(dir.join(HEADER_FILE))?;
    decode_header(&bytes).ok_or(StoreError::Header)
}

/// Whether the partition in `dir` was made completely. If not, nothing was ever committed to it.
pub(super) fn is_complete(dir: &Path) -> bool {
    dir.join(HEADER_FILE).exists()
}

/// Removes the partition in `dir` for good: first out of sight in one durable step, then file by file.
pub(super) fn remove(dir: &Path) -> Result<(), BufferError> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    let dead: PathBuf = parent.join(format!("dead-{}", name.to_string_lossy()));
    fs::rename(dir, &dead).map_err(|error| BufferError::io("retire", dir, error))?;
    sync_dir(parent)?;
    fs::remove_dir_all(&dead).map_err(|error| BufferError::io("remove", &dead, error))
}

fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(StoreError::Failed),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(StoreError::Panicked(text.unwrap_or_else(|| "without a message".to_owned())))
        }
    }
}

/// sled tells a held file lock only in the text of its error.
fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed(sled::Error::Io(error)) if error.to_string().starts_with("could not acquire lock"))
}

/// Continuation parts stand right after the first one, which has the bare seq.
fn part_key(first_seq: u64, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&first_seq.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Above every part of the frame at `seq`, below the next seq.
fn after_all_parts(seq: u64) -> [u8; 11] {
    let mut key = [0xff; 11];
    key[..8].copy_from_slice(&seq.to_be_bytes());
    key
}

fn first_seq_of(key: &[u8]) -> Option<u64> {
    key.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

fn encode_header(header: Header) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 4);
    bytes.extend_from_slice(&HEADER_MAGIC);
    bytes.push(header.lane as u8);
    bytes.extend_from_slice(&header.key.ordinal.to_le_bytes());
    bytes.extend_from_slice(&header.key.first_seq.to_le_bytes());
    bytes.extend_from_slice(header.incarnation.as_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode_header(bytes: &[u8]) -> Option<Header> {
    let (fields, crc) = bytes.split_at_checked(HEADER_BYTES)?;
    if fields[..4] != HEADER_MAGIC || crc32c::crc32c(fields).to_le_bytes() != crc {
        return None;
    }
    let key = Key { ordinal: u32::from_le_bytes(fields[5..9].try_into().ok()?), first_seq: u64::from_le_bytes(fields[9..17].try_into().ok()?) };
    Some(Header { lane: *LaneName::ALL.get(usize::from(fields[4]))?, key, incarnation: Uuid::from_slice(&fields[17..]).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { lane: LaneName::Alarms, key: Key { ordinal: 2, first_seq: 100 }, incarnation: Uuid::from_u128(77) };

    fn partition() -> (tempfile::TempDir, PathBuf, Partition) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(HEADER.key.directory());
        let partition = Partition::create(&dir, HEADER).unwrap();
        (root, dir, partition)
    }

    fn stored(first_seq: u64, parts: &[&[u8]]) -> Option<Stored> {
        Some(Stored { first_seq, parts: parts.iter().map(|part| part.to_vec()).collect() })
    }

    #[test]
    fn directory_names_and_keys_are_the_same() {
        let key = Key { ordinal: 0x1f, first_seq: 0xabc };
        assert_eq!(key.directory(), "p-0000001f-0000000000000abc");
        assert_eq!(Key::parse(&key.directory()), Some(key));
        for name in ["p-1f-abc", "dead-p-0000001f-0000000000000abc", "p-0000001f-0000000000000ABC", "p-", "lock"] {
            assert_eq!(Key::parse(name), None, "{name}");
        }
    }

    #[test]
    fn frames_are_found_by_any_seq_they_may_hold() {
        let (_root, _dir, partition) = partition();
        partition.insert(100, vec![vec![1]]).unwrap();
        partition.insert(110, vec![vec![2], vec![3], vec![4]]).unwrap();
        partition.insert(111, vec![vec![5]]).unwrap();
        let found = |seq| partition.frame_at(seq).unwrap();
        assert_eq!(found(99), None);
        assert_eq!(found(109), stored(100, &[&[1]]));
        assert_eq!(found(110), stored(110, &[&[2], &[3], &[4]]));
        assert_eq!(found(u64::MAX), stored(111, &[&[5]]));
        assert_eq!([99, 100, 110, 111].map(|seq| partition.first_after(seq).unwrap()), [Some(100), Some(110), Some(111), None]);
    }

    #[test]
    fn a_partition_opens_again_with_what_was_flushed() {
        let (_root, dir, partition) = partition();
        partition.insert(100, vec![vec![9; 6000]]).unwrap();
        partition.flush().unwrap();
        drop(partition);
        let partition = Partition::open(&dir, HEADER).unwrap();
        assert_eq!(partition.frame_at(100).unwrap(), stored(100, &[&[9; 6000]]));
    }

    #[test]
    fn a_snapshot_that_was_never_finished_does_not_matter() {
        let (_root, dir, partition) = partition();
        partition.insert(100, vec![vec![1]]).unwrap();
        partition.flush().unwrap();
        drop(partition);
        fs::write(dir.join("snap.FFFFFFFFFFFFFFFF.generating"), b"half").unwrap();
        let partition = Partition::open(&dir, HEADER).unwrap();
        assert_eq!(partition.frame_at(100).unwrap(), stored(100, &[&[1]]));
    }

    #[test]
    fn a_strayed_partition_is_refused() {
        let (_root, dir, partition) = partition();
        drop(partition);
        for header in [
            Header { lane: LaneName::Inputs, ..HEADER },
            Header { key: Key { ordinal: 3, ..HEADER.key }, ..HEADER },
            Header { incarnation: Uuid::from_u128(78), ..HEADER },
        ] {
            assert!(matches!(Partition::open(&dir, header), Err(StoreError::Header)));
        }
    }
}
