//! Opening the log, and what every stage may ask of it.
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{
    BufferCounters, BufferError, Position, Reader, Writer,
    cursor::{self, Cursor},
    frame::Decoder,
    gaps::{Gap, Gaps},
    incarnation::{Ended, History, Incarnation, Register},
    lane::{self, Lane},
    marks::SourceMarks,
    partition::Stored,
    small_file::sync_dir,
};
use crate::record::Cause;

/// What the log is told.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Bytes allowed under the directory. Only the size of partitions follows from it here.
    pub quota_bytes: u64,
    /// Share of the quota per lane in percent, in the order of [`LaneName::ALL`].
    pub lane_percent: [u64; LaneName::ALL.len()],
    /// Smallest payload of a full partition, bytes.
    pub partition_min_bytes: u64,
    /// Largest payload of a full partition, bytes.
    pub partition_max_bytes: u64,
}

impl LogSettings {
    /// The measured defaults: partitions of 1 to 8 MiB, most of the space for inputs.
    pub fn new(quota_bytes: u64) -> Self {
        Self { quota_bytes, lane_percent: [70, 15, 10, 5], partition_min_bytes: 1 << 20, partition_max_bytes: 8 << 20 }
    }

    /// Bytes allowed for `lane`.
    pub fn lane_quota_bytes(&self, lane: LaneName) -> u64 {
        self.quota_bytes / 100 * self.lane_percent[lane as usize]
    }

    /// Payload after which a partition of `lane` is full, bytes: a lane is a ring of 32, so that dropping one loses little.
    pub fn partition_bytes(&self, lane: LaneName) -> u64 {
        (self.lane_quota_bytes(lane) / 32).clamp(self.partition_min_bytes, self.partition_max_bytes)
    }
}

/// The log, for reading and waiting. Clones are the same log; it closes when the last of clones, readers and writer is dropped.
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    dir: PathBuf,
    pub(super) settings: LogSettings,
    pub(super) incarnation: Incarnation,
    pub(super) history: History,
    lanes: [Lane; LaneName::ALL.len()],
    pub(super) counters: Arc<BufferCounters>,
    gaps: Mutex<Gaps>,
    /// How often [`Log::wake`] was called.
    wakes: Mutex<u64>,
    woken: Condvar,
    /// Held, not used: one process per directory. `None` where the directory is only looked at.
    _lock: Option<File>,
}

impl Log {
    /// Opens the log in `dir` (made if absent) and begins a new incarnation, durably.
    ///
    /// It lists the partitions and reads the newest one per lane of the previous incarnation; its time does not grow with the backlog otherwise.
    ///
    /// # Errors
    /// [`BufferError::InUse`] if another process has it, [`BufferError::Damaged`] if that newest partition cannot be read, and what the disk refuses.
    pub fn open(dir: &Path, settings: LogSettings) -> Result<(Self, Writer), BufferError> {
        let lock = claim(dir)?;
        let cursors = dir.join("cursors");
        fs::create_dir_all(&cursors).map_err(|error| BufferError::io("create", &cursors, error))?;
        sync_dir(dir)?;
        let mut register = Register::open(dir)?;
        let [a, b, c, d] = LaneName::ALL.map(|lane| Lane::open(dir, lane, |ordinal| register.id(ordinal)));
        let lanes = [a?, b?, c?, d?];
        sync_dir(dir)?;
        let found: Vec<_> = lanes.iter().flat_map(Lane::incarnations).collect();
        found.iter().for_each(|incarnation| register.learn(*incarnation));
        for Incarnation { ordinal, .. } in register.open_ended() {
            let mut last_seq = [0; LaneName::ALL.len()];
            for (lane, last_seq) in lanes.iter().zip(&mut last_seq) {
                *last_seq = last_seq_on_disk(lane, ordinal)?;
            }
            register.end(ordinal, last_seq);
        }
        let has_records = |ordinal| found.iter().any(|incarnation| incarnation.ordinal == ordinal);
        let (incarnation, history) = register.begin(cursor::highest_ordinal(&cursors)?, has_records)?;
        let shared = Shared::new(dir, settings, incarnation, history, lanes, Some(lock));
        let log = Self { shared: Arc::new(shared) };
        let writer = Writer::new(log.shared.clone())?;
        Ok((log, writer))
    }

    /// A reader of `lane`. Each has its own place; they do not disturb each other.
    pub fn reader(&self, lane: LaneName) -> Result<Reader, BufferError> {
        Reader::new(self.shared.clone(), lane)
    }

    /// The last committed record of the present incarnation in `lane`; seq 0 if there is none yet.
    pub fn committed(&self, lane: LaneName) -> Position {
        Position { ordinal: self.shared.incarnation.ordinal, seq: self.shared.lane(lane).committed() }
    }

    /// The place before the oldest record of `lane` on disk: where a reader begins that has no cursor. Everything before it was given up on purpose.
    pub fn start(&self, lane: LaneName) -> Position {
        let oldest = self.shared.lane(lane).oldest();
        oldest.map_or_else(|| self.committed(lane), |key| Position { ordinal: key.ordinal, seq: key.first_seq - 1 })
    }

    /// Waits until `lane` has a record after `after`; true if so. False after `timeout`, or when woken by [`Log::wake`].
    pub fn wait(&self, lane: LaneName, after: Position, timeout: Duration) -> bool {
        // A commit publishes before it notifies, and notifies under this lock: none falls between the look and the wait.
        let wakes = self.shared.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        let asleep_since = *wakes;
        let has_more = || self.shared.next(lane, after).is_some();
        let waited = self.shared.woken.wait_timeout_while(wakes, timeout, |wakes| *wakes == asleep_since && !has_more());
        drop(waited);
        has_more()
    }

    /// Ends every [`Log::wait`] that waits right now: after setting what the waiters shall see, such as a stop.
    pub fn wake(&self) {
        *self.shared.wakes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.shared.woken.notify_all();
    }

    /// The present incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation
    }

    /// The newest earlier incarnation that left records, for the event `incarnation_opened`; `None` on a fresh disk.
    pub fn predecessor(&self) -> Option<Ended> {
        self.shared.history.predecessor()
    }

    /// All earlier incarnations that are remembered, oldest first.
    pub fn ended(&self) -> &[Ended] {
        self.shared.history.ended()
    }

    /// The UUID of an incarnation; `None` if this disk does not know it.
    pub fn incarnation_id(&self, ordinal: u32) -> Option<Uuid> {
        if ordinal == self.shared.incarnation.ordinal {
            return Some(self.shared.incarnation.id);
        }
        self.shared.history.find(ordinal).map(|ended| ended.incarnation.id)
    }

    /// How many records of `lane` follow `after`, missing ones included.
    pub fn depth(&self, lane: LaneName, after: Position) -> u64 {
        let present = self.committed(lane);
        let behind = if after.ordinal > present.ordinal {
            u64::MAX
        } else if after.ordinal == present.ordinal {
            after.seq
        } else {
            0
        };
        self.shared.history.count(lane, after) + present.seq.saturating_sub(behind)
    }

    /// Bytes that the directory really takes on disk. Asks the file system for every file: for metrics, not for a loop.
    pub fn disk_bytes(&self) -> Result<u64, BufferError> {
        tree_bytes(&self.shared.dir)
    }

    /// Bytes that the partitions of `lane` take on disk, as [`Self::disk_bytes`].
    pub fn lane_bytes(&self, lane: LaneName) -> Result<u64, BufferError> {
        tree_bytes(&self.shared.dir.join(lane.as_str()))
    }

    /// Opens cursor `name` (`a`-`z`, `0`-`9`, `-`): one owner per name.
    pub fn cursor(&self, name: &str) -> Result<Cursor, BufferError> {
        Cursor::open(&self.shared.dir.join("cursors"), name)
    }

    /// What sources had stored when the log was opened.
    pub fn source_marks(&self) -> SourceMarks {
        SourceMarks::default()
    }

    /// The highest cause of any entry in `lane` when the log was opened; `None` if no output of inference was ever stored there.
    pub fn last_cause(&self, _lane: LaneName) -> Option<Cause> {
        None
    }

    /// The gaps that a reader may still meet.
    pub fn gaps(&self) -> Vec<Gap> {
        self.shared.gaps().all()
    }

    /// Closes the databases that nobody used since the last call, which gives their memory back. Gives how many.
    pub fn close_idle(&self) -> usize {
        self.shared.lanes.iter().map(Lane::close_idle).sum()
    }

    /// How many partitions `lane` has, and how many of them are open.
    pub fn partitions(&self, lane: LaneName) -> (usize, usize) {
        self.shared.lane(lane).partitions()
    }

    /// What the log did since it was opened.
    pub fn counters(&self) -> Arc<BufferCounters> {
        self.shared.counters.clone()
    }
}

impl Shared {
    pub(super) fn new(
        dir: &Path,
        settings: LogSettings,
        incarnation: Incarnation,
        history: History,
        lanes: [Lane; LaneName::ALL.len()],
        lock: Option<File>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            settings,
            incarnation,
            history,
            lanes,
            counters: Arc::default(),
            gaps: Mutex::default(),
            wakes: Mutex::default(),
            woken: Condvar::new(),
            _lock: lock,
        }
    }

    pub(super) fn lane(&self, lane: LaneName) -> &Lane {
        &self.lanes[lane as usize]
    }

    /// The committed record that follows `after`.
    pub(super) fn next(&self, lane: LaneName, after: Position) -> Option<Position> {
        let earlier = self.history.next(lane, after);
        let present = self.incarnation.ordinal;
        let seq = if after.ordinal == present { after.seq } else { 0 };
        let follows = after.ordinal <= present && self.lane(lane).committed() > seq;
        earlier.or_else(|| follows.then_some(Position { ordinal: present, seq: seq + 1 }))
    }

    /// The last committed seq of an incarnation.
    pub(super) fn last_seq(&self, lane: LaneName, ordinal: u32) -> u64 {
        let committed = || if ordinal == self.incarnation.ordinal { self.lane(lane).committed() } else { 0 };
        self.history.find(ordinal).map_or_else(committed, |ended| ended.last_seq(lane))
    }

    pub(super) fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the event is shown to readers: none shall see it and still be given what it names.
    pub(super) fn add_gap(&self, gap: Gap) {
        self.gaps().add(gap);
    }

    /// Tells waiting readers that a commit was published.
    pub(super) fn notify(&self) {
        let _ordered = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }
}

/// Makes the directory and takes its lock.
fn claim(dir: &Path) -> Result<File, BufferError> {
    fs::create_dir_all(dir).map_err(|error| BufferError::io("create", dir, error))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    let path = dir.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| BufferError::io("open", &path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BufferError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(BufferError::io("lock", &path, error)),
    }
}

/// The last seq of an incarnation in `lane` by its newest partition, made durable: what a reader sees now must not vanish later.
pub(super) fn last_seq_on_disk(lane: &Lane, ordinal: u32) -> Result<u64, BufferError> {
    let Some(key) = lane.newest(ordinal) else { return Ok(0) };
    let Some(partition) = lane.partition(key)? else { return Ok(0) };
    let dir = lane.path(key);
    let first = Position { ordinal, seq: key.first_seq };
    partition.flush().map_err(|error| lane::damaged(lane.name, &dir, first, error))?;
    let newest = partition.frame_at(u64::MAX).map_err(|error| lane::damaged(lane.name, &dir, first, error))?;
    let Some(Stored { first_seq, parts }) = newest else { return Ok(key.first_seq - 1) };
    let first = Position { ordinal, seq: first_seq };
    let mut decoder = Decoder::new().map_err(|error| BufferError::io("decompress", &dir, error))?;
    let frame = decoder.decode(lane.name, first, &parts);
    let frame = frame.map_err(|error| BufferError::Damaged { lane: lane.name, partition: dir, from: first, source: error.into() })?;
    Ok(frame.last_seq())
}

/// Bytes that a directory takes on disk. What vanishes while it looks counts as gone.
pub(crate) fn tree_bytes(path: &Path) -> Result<u64, BufferError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(BufferError::io("measure", path, error)),
    };
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
            Err(error) => return Err(BufferError::io("list", path, error)),
        };
        for entry in entries {
            bytes += tree_bytes(&entry.map_err(|error| BufferError::io("list", path, error))?.path())?;
        }
    }
    Ok(bytes)
}
