//! A lane on disk: which partitions there are, and which of them are open.
//!
//! Open are at most the one being written and one being read (a second reader elsewhere in the lane keeps another open for the length of its
//! call). All opening and closing happens under one lock, since sled allows one handle per database; the calls themselves run outside it.
use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{
    BufferError, Position, StoreWatch, dead,
    frame::Decoder,
    header::{self, Header, Key, UNKNOWN},
    incarnation::Incarnation,
    inspect::Copies,
    listing::{Listing, newest_of_each},
    partition::{Expected, Partition, StoreError},
    quarantine,
    rewrite::Found,
    scratch,
    small_file::sync_dir,
};
use crate::causes;

/// One lane, shared by the writer and the readers.
pub(super) struct Lane {
    pub(super) name: LaneName,
    /// How far earlier incarnations committed to it at least, by what is stored beside it.
    pub(super) known_end: Position,
    dir: PathBuf,
    watch: Arc<StoreWatch>,
    /// The present incarnation; 0 before it has begun.
    present: AtomicU32,
    /// Its last committed seq.
    committed: AtomicU64,
    state: Mutex<State>,
    /// Partitions are opened as copies: the lane is only looked at.
    copies: Option<Copies>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Key, Known>,
    /// The one being written: open or, when idle, closed.
    writable: Option<Key>,
    open: Vec<Open>,
    /// Those of a lane that is only looked at that are damaged, and what was found in them.
    salvaged: BTreeMap<Key, Found>,
}

impl State {
    fn close(&mut self, key: Key) {
        self.open.retain(|open| open.key != key);
        self.writable = self.writable.filter(|writable| *writable != key);
    }

    fn forget(&mut self, key: Key) {
        self.close(key);
        self.partitions.remove(&key);
    }
}

/// What is known of a partition without opening it.
#[derive(Clone, Copy)]
struct Known {
    /// Incarnation of its first record.
    incarnation: Uuid,
    generation: u16,
    /// The last incarnation of which it may hold records.
    last_ordinal: u32,
    /// Up to here it is what damage has left.
    salvaged_to: Position,
}

impl Known {
    /// What `header`, which may be lost, says of the partition `key`.
    fn of(key: Key, generation: u16, id: Option<Uuid>, header: Option<&Header>) -> Self {
        // A header that cannot be read is found again, as damage, when the partition is opened.
        let incarnation = id.or(header.map(|header| header.incarnation)).unwrap_or_default();
        let held = header.into_iter().flat_map(|header| &header.holds).map(|(ordinal, _)| *ordinal).max();
        let salvaged_to = if generation > 0 { header.map_or(UNKNOWN, |header| header.salvaged_to) } else { Position::default() };
        Self { incarnation, generation, last_ordinal: held.unwrap_or(0).max(key.ordinal), salvaged_to }
    }
}

struct Open {
    key: Key,
    partition: Arc<Partition>,
    /// Since the last look for idle ones.
    used: bool,
}

/// Where a record stands, or that it is missing.
pub(super) enum Place {
    /// In this partition, if anywhere.
    In(Key, Arc<Partition>),
    /// In none.
    Missing,
}

/// What a lane can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expendable {
    /// Its newest partition is its oldest.
    Nothing,
    /// Its oldest partition, in which a reader is for the length of its call.
    InUse,
    /// Its oldest partition.
    Oldest(Key),
}

impl Lane {
    /// Lists the lane under `root`. Partitions that were being removed, made or replaced when the agent ended are cleared away: none holds a committed
    /// record that is not elsewhere, since a partition counts from the moment its header stands. `id_of` gives the id of an incarnation; where it does not
    /// know, the partition's own header does, and `learn` is told of the incarnations that a header names.
    pub(super) fn open(
        root: &Path,
        name: LaneName,
        known_end: Position,
        watch: Arc<StoreWatch>,
        mut id_of: impl FnMut(u32) -> Option<Uuid>,
        mut learn: impl FnMut(Incarnation),
    ) -> Result<Self, BufferError> {
        let dir = root.join(name.as_str());
        fs::create_dir_all(&dir).map_err(|error| BufferError::io("create", &dir, error))?;
        let listing = Listing::of(&dir, name)?;
        listing.dead.iter().for_each(|path| clear(path));
        let (counting, older) = newest_of_each(listing.counting, name)?;
        for path in listing.unfinished.iter().chain(&older) {
            clear(&dead::retire(path)?);
        }
        let mut state = State::default();
        let mut replaced = Vec::new();
        for (key, generation, path) in counting {
            let known_id = id_of(key.ordinal);
            let header = if generation > 0 || known_id.is_none() { header::read(&path).ok() } else { None };
            if let Some(header) = &header {
                replaced.extend(header.replaces.iter().map(|name| dir.join(name)));
                header.holds.iter().for_each(|&(ordinal, id)| learn(Incarnation { ordinal, id: Uuid::from_u128(id) }));
            }
            state.partitions.insert(key, Known::of(key, generation, known_id, header.as_ref()));
        }
        for path in replaced {
            let gone = Key::of(&path);
            if path.exists() {
                clear(&dead::retire(&path)?);
            }
            if let Some((key, generation)) = gone
                && state.partitions.get(&key).is_some_and(|known| known.generation == generation)
            {
                state.partitions.remove(&key);
            }
        }
        sync_dir(&dir)?;
        Ok(Self { name, known_end, dir, watch, present: AtomicU32::new(0), committed: AtomicU64::new(0), state: Mutex::new(state), copies: None })
    }

    /// Lists the lane under `root` without changing anything, for reading from `copies`. What is half made, half removed or replaced is passed over.
    /// `id_of` and `learn` as in [`Self::open`].
    pub(super) fn inspect(
        root: &Path,
        name: LaneName,
        known_end: Position,
        copies: Copies,
        id_of: impl Fn(u32) -> Option<Uuid>,
        mut learn: impl FnMut(Incarnation),
    ) -> Result<Self, BufferError> {
        let dir = root.join(name.as_str());
        let mut state = State::default();
        let mut replaced = Vec::new();
        for (key, generation, path) in newest_of_each(Listing::of(&dir, name)?.counting, name)?.0 {
            let header = header::read(&path).ok();
            if let Some(header) = &header {
                replaced.extend(header.replaces.iter().filter_map(|name| Key::parse(name)));
                header.holds.iter().for_each(|&(ordinal, id)| learn(Incarnation { ordinal, id: Uuid::from_u128(id) }));
            }
            state.partitions.insert(key, Known::of(key, generation, id_of(key.ordinal), header.as_ref()));
        }
        for (key, generation) in replaced {
            if state.partitions.get(&key).is_some_and(|known| known.generation == generation) {
                state.partitions.remove(&key);
            }
        }
        Ok(Self {
            name,
            known_end,
            dir,
            watch: Arc::default(),
            present: AtomicU32::new(0),
            committed: AtomicU64::new(0),
            state: Mutex::new(state),
            copies: Some(copies),
        })
    }

    /// The incarnations whose records begin a partition here.
    pub(super) fn incarnations(&self) -> Vec<Incarnation> {
        let mut found: Vec<_> =
            self.state().partitions.iter().map(|(key, known)| Incarnation { ordinal: key.ordinal, id: known.incarnation }).collect();
        found.dedup();
        found
    }

    /// The newest partition that may hold records of `ordinal`.
    pub(super) fn newest(&self, ordinal: u32) -> Option<Key> {
        self.state().partitions.range(..=Key { ordinal, first_seq: u64::MAX }).next_back().map(|(key, _)| *key)
    }

    /// All partitions, in order.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.state().partitions.keys().copied().collect()
    }

    /// The oldest partition of all.
    pub(super) fn oldest(&self) -> Option<Key> {
        self.state().partitions.first_key_value().map(|(key, _)| *key)
    }

    /// The partition after `key`.
    pub(super) fn following(&self, key: Key) -> Option<Key> {
        following(&self.state(), key)
    }

    /// The present incarnation is `ordinal`.
    pub(super) fn begin(&self, ordinal: u32) {
        self.present.store(ordinal, Ordering::Release);
    }

    /// How far the lane was committed at least.
    fn reached(&self) -> Position {
        let committed = Position { ordinal: self.present.load(Ordering::Acquire), seq: self.committed() };
        if committed.seq > 0 { committed } else { self.known_end }
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Lets readers see everything up to `seq`.
    pub(super) fn publish(&self, seq: u64) {
        self.committed.store(seq, Ordering::Release);
    }

    /// The partition that holds `at`, open.
    pub(super) fn place(&self, at: Position) -> Result<Place, BufferError> {
        let mut state = self.state();
        let Some((&key, _)) = state.partitions.range(..=Key { ordinal: at.ordinal, first_seq: at.seq }).next_back() else {
            return Ok(Place::Missing);
        };
        Ok(self.opened(&mut state, key)?.map_or(Place::Missing, |partition| Place::In(key, partition)))
    }

    /// The partition `key`, opened if it is not. `None` if it is gone.
    pub(super) fn partition(&self, key: Key) -> Result<Option<Arc<Partition>>, BufferError> {
        self.opened(&mut self.state(), key)
    }

    fn opened(&self, state: &mut State, key: Key) -> Result<Option<Arc<Partition>>, BufferError> {
        if let Some(open) = state.open.iter_mut().find(|open| open.key == key) {
            open.used = true;
            return Ok(Some(open.partition.clone()));
        }
        let Some(known) = state.partitions.get(&key).copied() else { return Ok(None) };
        close_others(state, key);
        let dir = self.dir.join(key.directory(known.generation));
        let reached = self.reached();
        let end = if ends_in(reached, state, key, known) { reached } else { Position::default() };
        let expected = Expected { lane: self.name, key, incarnation: known.incarnation, end };
        let watch = self.watch.clone();
        let opened = match &self.copies {
            Some(copies) if state.salvaged.contains_key(&key) => {
                let mut decoder = Decoder::new().map_err(|error| BufferError::io("decompress", &dir, error))?;
                let sound = quarantine::sound(self.name, key, Some(known.incarnation), &dir, &mut decoder)?;
                state.salvaged.insert(key, sound.found());
                copies.of_sound(sound, watch)
            }
            Some(copies) => copies.open(&dir, &expected, watch),
            None if state.writable == Some(key) => Partition::open_to_write(&dir, &expected, watch),
            None => Partition::open(&dir, &expected, &scratch::places(&self.dir), watch),
        };
        Ok(Some(keep_open(state, key, opened.map_err(|error| damaged(self.name, &dir, key.first(), error))?)))
    }

    /// Makes a partition in the place of `sources` (none: a new place), filled by `fill` before it counts, and lets it be the one that is written if
    /// `writable`. Gives it and the directories that it replaces, which the caller removes. The key is that of `header`.
    pub(super) fn create(
        &self,
        mut header: Header,
        sources: &[Key],
        writable: bool,
        fill: impl FnOnce(&Partition) -> Result<(), StoreError>,
    ) -> Result<(Arc<Partition>, Vec<PathBuf>), BufferError> {
        let mut state = self.state();
        let key = header.key;
        let generation = state.partitions.get(&key).map_or(0, |known| known.generation + 1);
        let dir = self.dir.join(key.directory(generation));
        let path_of = |key: &Key, known: &Known| self.dir.join(key.directory(known.generation));
        let of_sources = sources.iter().filter_map(|key| state.partitions.get(key)).map(|known| known.salvaged_to).max().unwrap_or_default();
        // Where one does not say, all that is older than the newest incarnation.
        let newest = Position { ordinal: header.holds.iter().map(|(ordinal, _)| *ordinal).fold(key.ordinal, u32::max), seq: 0 };
        header.salvaged_to = header.salvaged_to.max(if of_sources == UNKNOWN { newest } else { of_sources });
        let replaced: Vec<PathBuf> = sources.iter().filter_map(|key| Some(path_of(key, state.partitions.get(key)?))).collect();
        header.replaces = replaced.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
        // What these had replaced, and what could not be removed yet, must not count again once they are gone.
        let before = replaced.iter().filter_map(|path| header::read(path).ok()).flat_map(|header| header.replaces);
        header.replaces.extend(before.filter(|name| self.dir.join(name).exists()));
        close_others(&mut state, key);
        if dir.is_dir() {
            // Left by a try that failed on a disk that then did not let it be removed either.
            dead::remove(&dir)?;
        }
        fs::create_dir(&dir).map_err(|error| BufferError::io("create", &dir, error))?;
        let made = Partition::begin(&dir, self.watch.clone()).and_then(|partition| {
            fill(&partition)?;
            partition.complete(&dir, &header)?;
            Ok(partition)
        });
        let made = made.map_err(|error| {
            // It holds nothing that counts; what cannot be removed now is removed at the next start.
            let _ = dead::remove(&dir);
            BufferError::Store { partition: dir.clone(), source: error }
        })?;
        state.open.retain(|open| !sources.contains(&open.key));
        state.partitions.retain(|key, _| !sources.contains(key));
        state.partitions.insert(key, Known::of(key, generation, Some(header.incarnation), Some(&header)));
        if writable {
            state.writable = Some(key);
        }
        Ok((keep_open(&mut state, key, made), replaced))
    }

    /// Gives up the partition `key` in one durable step, and gives where it lies now, to be removed. `None` if it is gone.
    ///
    /// # Errors
    /// When the disk refuses; the partition then stays what it was.
    pub(super) fn retire(&self, key: Key) -> Result<Option<PathBuf>, BufferError> {
        let mut state = self.state();
        let Some(known) = state.partitions.get(&key) else { return Ok(None) };
        let dir = self.dir.join(key.directory(known.generation));
        let dead = match dead::retire(&dir) {
            Ok(dead) => Some(dead),
            // Whoever removed it, to ask for it again would end in the same error for ever.
            Err(BufferError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && !dir.exists() => None,
            Err(error) => return Err(error),
        };
        state.forget(key);
        Ok(dead)
    }

    /// Removes what [`Self::retire`] left, where that did not go before.
    pub(super) fn bury(&self) -> Result<(), BufferError> {
        let entries = fs::read_dir(&self.dir).map_err(|error| BufferError::io("list", &self.dir, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| BufferError::io("list", &self.dir, error))?;
            if entry.file_name().to_string_lossy().starts_with(dead::DEAD_PREFIX) {
                dead::bury(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Forgets the partition `key`, whose directory is gone; it is closed unless a reader is in it.
    pub(super) fn forget(&self, key: Key) {
        self.state().forget(key);
    }

    /// Closes the partition `key` and writes to it no more: its store has failed.
    pub(super) fn abandon(&self, key: Key) {
        self.state().close(key);
    }

    /// From now on the partition in `dir`, which is damaged, is read from what is sound in its file, by a lane that is only looked at. False if it is so
    /// already.
    pub(super) fn salvage(&self, dir: &Path) -> bool {
        let mut state = self.state();
        let Some((key, _)) = Key::of(dir).filter(|_| self.copies.is_some()) else {
            return false;
        };
        state.close(key);
        state.salvaged.insert(key, Found::default()).is_none()
    }

    /// Whether `at` is where [`Self::salvage`] found, or did not find, something.
    pub(super) fn is_salvaged(&self, at: Position) -> bool {
        let state = self.state();
        let key = state.partitions.range(..=Key { ordinal: at.ordinal, first_seq: at.seq }).next_back();
        key.is_some_and(|(key, _)| state.salvaged.contains_key(key))
    }

    /// How far the commits of `ordinal` went of which [`Self::salvage`] found anything.
    pub(super) fn salvaged_to(&self, ordinal: u32) -> u64 {
        self.state().salvaged.values().map(|found| found.end).filter(|end| end.ordinal == ordinal).map(|end| end.seq).max().unwrap_or(0)
    }

    /// What [`Self::salvage`] found.
    pub(super) fn salvaged(&self) -> Vec<(Key, Found)> {
        self.state().salvaged.iter().map(|(key, found)| (*key, found.clone())).collect()
    }

    /// Closes what nobody used since the last call; gives how many.
    pub(super) fn close_idle(&self) -> usize {
        let mut state = self.state();
        let before = state.open.len();
        state.open.retain_mut(|open| std::mem::take(&mut open.used) || Arc::strong_count(&open.partition) > 1);
        before - state.open.len()
    }

    /// What may be given up next.
    pub(super) fn expendable(&self) -> Expendable {
        let state = self.state();
        match state.partitions.first_key_value() {
            Some((key, _)) if state.partitions.len() > 1 && state.writable != Some(*key) => {
                let in_use = state.open.iter().any(|open| open.key == *key && Arc::strong_count(&open.partition) > 1);
                if in_use { Expendable::InUse } else { Expendable::Oldest(*key) }
            }
            _ => Expendable::Nothing,
        }
    }

    /// The directory of a partition; where it would be if it is gone.
    pub(super) fn path(&self, key: Key) -> PathBuf {
        let generation = self.state().partitions.get(&key).map_or(0, |known| known.generation);
        self.dir.join(key.directory(generation))
    }

    /// Whether the partition should hold `at` if that was committed to it: it is not made of what damage has left there.
    pub(super) fn is_whole(&self, key: Key, at: Position) -> bool {
        let state = self.state();
        !state.salvaged.contains_key(&key) && state.partitions.get(&key).is_some_and(|known| known.salvaged_to < at)
    }

    /// The id of the incarnation that a partition begins with.
    pub(super) fn incarnation_of(&self, key: Key) -> Option<Uuid> {
        self.state().partitions.get(&key).map(|known| known.incarnation)
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

/// Removes what is out of sight already. Where the disk refuses, it stays until the next start.
fn clear(dead: &Path) {
    if let Err(error) = dead::bury(dead) {
        tracing::warn!(error = %causes::chain(&error), "what was given up takes up space still");
    }
}

/// Whether a lane that was committed up to `reached` has its last record in the partition `key`, if nothing of that is lost.
fn ends_in(reached: Position, state: &State, key: Key, known: Known) -> bool {
    let is_newest = following(state, key).is_none_or(|next| reached < next.first());
    let may_hold = key.first() <= reached && reached.ordinal <= known.last_ordinal && reached.seq > 0;
    known.salvaged_to < reached && may_hold && is_newest
}

fn following(state: &State, key: Key) -> Option<Key> {
    use std::ops::Bound::{Excluded, Unbounded};
    state.partitions.range((Excluded(key), Unbounded)).next().map(|(key, _)| *key)
}

/// Makes room for `key`: of the others, the writable one and those in use right now stay open.
fn close_others(state: &mut State, key: Key) {
    if state.writable != Some(key) || state.open.len() > 1 {
        let writable = state.writable;
        state.open.retain(|open| Some(open.key) == writable || Arc::strong_count(&open.partition) > 1);
    }
}

fn keep_open(state: &mut State, key: Key, partition: Partition) -> Arc<Partition> {
    let partition = Arc::new(partition);
    state.open.push(Open { key, partition: partition.clone(), used: true });
    partition
}
