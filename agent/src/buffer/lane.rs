//! A lane on disk: which partitions there are, and which of them are open.
//!
//! Open are at most the one being written and one being read (a second reader elsewhere in the lane keeps another open for the length of its
//! call). All opening and closing happens under one lock, since sled allows one handle per database; the calls themselves run outside it.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hark_protocol::topics::LaneName;
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    BufferError, Position,
    incarnation::Incarnation,
    inspect::Copies,
    partition::{self, Header, Key, Partition, StoreError},
    small_file::sync_dir,
};

/// One lane, shared by the writer and the readers.
pub(super) struct Lane {
    pub(super) name: LaneName,
    dir: PathBuf,
    /// Last committed seq of the present incarnation.
    committed: AtomicU64,
    state: Mutex<State>,
    /// Partitions are opened as copies: the lane is only looked at.
    copies: Option<Copies>,
}

#[derive(Default)]
struct State {
    /// All partitions, each with the id of the incarnation that made it.
    partitions: BTreeMap<Key, Uuid>,
    /// The one being written: open or, when idle, closed.
    writable: Option<Key>,
    open: Vec<Open>,
}

struct Open {
    key: Key,
    partition: Arc<Partition>,
    /// Since the last look for idle ones.
    used: bool,
    /// Where the partition lies if it is a copy; goes after it.
    _copy: Option<TempDir>,
}

/// Where a record stands, or that it is missing.
pub(super) enum Place {
    /// In this partition, if anywhere.
    In(Key),
    /// In none; this is the first seq of the same incarnation that some partition still holds.
    Missing {
        /// `None`: the incarnation has no further partition.
        next_seq: Option<u64>,
    },
}

impl Lane {
    /// Lists the lane under `root`. Partitions that were being removed or made when the agent ended are cleared away: neither holds a committed record.
    /// `id_of` gives the id of an incarnation; where it does not know, the partition's own header does.
    pub(super) fn open(root: &Path, name: LaneName, mut id_of: impl FnMut(u32) -> Option<Uuid>) -> Result<Self, BufferError> {
        let dir = root.join(name.as_str());
        fs::create_dir_all(&dir).map_err(|error| BufferError::io("create", &dir, error))?;
        let mut state = State::default();
        for entry in fs::read_dir(&dir).map_err(|error| BufferError::io("list", &dir, error))? {
            let entry = entry.map_err(|error| BufferError::io("list", &dir, error))?;
            let (path, file_name) = (entry.path(), entry.file_name());
            let file_name = file_name.to_string_lossy();
            if file_name.starts_with("dead-") {
                fs::remove_dir_all(&path).map_err(|error| BufferError::io("remove", &path, error))?;
                continue;
            }
            let Some(key) = Key::parse(&file_name) else { continue };
            if !partition::is_complete(&path) {
                partition::remove(&path)?;
                continue;
            }
            let id = match id_of(key.ordinal) {
                Some(id) => id,
                None => {
                    partition::read_header(&path)
                        .map_err(|error| damaged(name, &path, Position { ordinal: key.ordinal, seq: key.first_seq }, error))?
                        .incarnation
                }
            };
            state.partitions.insert(key, id);
        }
        sync_dir(&dir)?;
        Ok(Self { name, dir, committed: AtomicU64::new(0), state: Mutex::new(state), copies: None })
    }

    /// Lists the lane under `root` without changing anything, for reading from `copies`. What is half made or half removed is passed over.
    pub(super) fn inspect(root: &Path, name: LaneName, copies: Copies, id_of: impl Fn(u32) -> Option<Uuid>) -> Result<Self, BufferError> {
        let dir = root.join(name.as_str());
        let mut state = State::default();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(BufferError::io("list", &dir, error)),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(|error| BufferError::io("list", &dir, error))?;
            let Some(key) = Key::parse(&entry.file_name().to_string_lossy()).filter(|_| partition::is_complete(&entry.path())) else { continue };
            let of_header = || partition::read_header(&entry.path()).ok().map(|header| header.incarnation);
            state.partitions.insert(key, id_of(key.ordinal).or_else(of_header).unwrap_or_default());
        }
        Ok(Self { name, dir, committed: AtomicU64::new(0), state: Mutex::new(state), copies: Some(copies) })
    }

    /// The incarnations that have partitions here.
    pub(super) fn incarnations(&self) -> Vec<Incarnation> {
        let mut found: Vec<_> = self.state().partitions.iter().map(|(key, id)| Incarnation { ordinal: key.ordinal, id: *id }).collect();
        found.dedup();
        found
    }

    /// The newest partition of an incarnation.
    pub(super) fn newest(&self, ordinal: u32) -> Option<Key> {
        let all_of_it = Key { ordinal, first_seq: 0 }..=Key { ordinal, first_seq: u64::MAX };
        self.state().partitions.range(all_of_it).next_back().map(|(key, _)| *key)
    }

    /// The oldest partition of all.
    pub(super) fn oldest(&self) -> Option<Key> {
        self.state().partitions.first_key_value().map(|(key, _)| *key)
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Lets readers see everything up to `seq`.
    pub(super) fn publish(&self, seq: u64) {
        self.committed.store(seq, Ordering::Release);
    }

    /// The partition that holds `at`.
    pub(super) fn place(&self, at: Position) -> Place {
        let state = self.state();
        let wanted = Key { ordinal: at.ordinal, first_seq: at.seq };
        match state.partitions.range(..=wanted).next_back() {
            Some((key, _)) if key.ordinal == at.ordinal => Place::In(*key),
            _ => Place::Missing { next_seq: next_after(&state, wanted) },
        }
    }

    /// First seq of the partition of the same incarnation after `key`.
    pub(super) fn next_first_seq(&self, key: Key) -> Option<u64> {
        next_after(&self.state(), key)
    }

    /// First seq of the partition of the same incarnation after the one that holds `at`.
    pub(super) fn first_seq_after(&self, at: Position) -> Option<u64> {
        next_after(&self.state(), Key { ordinal: at.ordinal, first_seq: at.seq })
    }

    /// Makes a partition and lets it be the one that is written.
    pub(super) fn create(&self, key: Key, incarnation: Uuid) -> Result<Arc<Partition>, BufferError> {
        let dir = self.path(key);
        let mut state = self.state();
        let header = Header { lane: self.name, key, incarnation };
        let made = Partition::create(&dir, header).map_err(|error| BufferError::Store { partition: dir, source: error })?;
        state.partitions.insert(key, incarnation);
        state.writable = Some(key);
        close_others(&mut state, key);
        Ok(keep_open(&mut state, key, made, None))
    }

    /// The partition `key`, opened if it is not. `None` if it is gone.
    pub(super) fn partition(&self, key: Key) -> Result<Option<Arc<Partition>>, BufferError> {
        let mut state = self.state();
        if let Some(open) = state.open.iter_mut().find(|open| open.key == key) {
            open.used = true;
            return Ok(Some(open.partition.clone()));
        }
        let Some(incarnation) = state.partitions.get(&key).copied() else { return Ok(None) };
        close_others(&mut state, key);
        let dir = self.path(key);
        let header = Header { lane: self.name, key, incarnation };
        let opened = match &self.copies {
            Some(copies) => copies.open(&dir, header).map(|(partition, copy)| (partition, Some(copy))),
            None => Partition::open(&dir, header).map(|partition| (partition, None)),
        };
        let (opened, copy) = opened.map_err(|error| damaged(self.name, &dir, Position { ordinal: key.ordinal, seq: key.first_seq }, error))?;
        Ok(Some(keep_open(&mut state, key, opened, copy)))
    }

    /// Closes what nobody used since the last call; gives how many.
    pub(super) fn close_idle(&self) -> usize {
        let mut state = self.state();
        let before = state.open.len();
        state.open.retain_mut(|open| std::mem::take(&mut open.used) || Arc::strong_count(&open.partition) > 1);
        before - state.open.len()
    }

    /// Takes the oldest partition off the list if it is wholly at or before `upto`, `last_of` giving the last seq of an incarnation that has ended.
    /// The newest of the present incarnation stays, since its name tells the next start how far this one came. Gives its directory.
    pub(super) fn retire(&self, upto: Position, last_of: impl Fn(u32) -> Option<u64>) -> Option<PathBuf> {
        let mut state = self.state();
        let key = *state.partitions.first_key_value()?.0;
        let last_seq = next_after(&state, key).map(|next| next - 1).or_else(|| last_of(key.ordinal))?;
        if (Position { ordinal: key.ordinal, seq: last_seq }) > upto || state.writable == Some(key) {
            return None;
        }
        if let Some(at) = state.open.iter().position(|open| open.key == key) {
            // A reader is in it; the next call comes back to it.
            if Arc::strong_count(&state.open[at].partition) > 1 {
                return None;
            }
            state.open.swap_remove(at);
        }
        state.partitions.remove(&key);
        Some(self.path(key))
    }

    /// The directory of a partition.
    pub(super) fn path(&self, key: Key) -> PathBuf {
        self.dir.join(key.directory())
    }

    /// How many partitions there are, and how many of them are open.
    pub(super) fn partitions(&self) -> (usize, usize) {
        let state = self.state();
        (state.partitions.len(), state.open.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything under the lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for a partition that did not open or read: damage is told apart from a disk that refuses.
pub(super) fn damaged(lane: LaneName, dir: &Path, from: Position, error: StoreError) -> BufferError {
    if error.is_damage() {
        return BufferError::Damaged { lane, partition: dir.to_owned(), from, source: error.into() };
    }
    BufferError::Store { partition: dir.to_owned(), source: error }
}

fn next_after(state: &State, key: Key) -> Option<u64> {
    use std::ops::Bound::{Excluded, Unbounded};
    let next = state.partitions.range((Excluded(key), Unbounded)).next()?.0;
    (next.ordinal == key.ordinal).then_some(next.first_seq)
}

/// Makes room for `key`: of the others, the writable one and those in use right now stay open.
fn close_others(state: &mut State, key: Key) {
    if state.writable != Some(key) || state.open.len() > 1 {
        let writable = state.writable;
        state.open.retain(|open| Some(open.key) == writable || Arc::strong_count(&open.partition) > 1);
    }
}

fn keep_open(state: &mut State, key: Key, partition: Partition, copy: Option<TempDir>) -> Arc<Partition> {
    let partition = Arc::new(partition);
    state.open.push(Open { key, partition: partition.clone(), used: true, _copy: copy });
    partition
}
