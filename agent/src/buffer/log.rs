//! Opening the log, and what every stage may ask of it.
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use hark_protocol::topics::{GapReason, LaneName};
use uuid::Uuid;

use super::{
    BufferCounters, BufferError, Position, Reader, StoreWatch, Writer,
    cursor::{self, Cursor},
    dead,
    gaps::{Gap, Gaps},
    header::Key,
    incarnation::{Ended, History, Incarnation, Register},
    lane::Lane,
    listing::Listing,
    marks::{LaneMarks, SourceMarks},
    quarantine,
    recovery::{self, HighWater, Owed, Recovered, Recovery},
    rewrite,
    small_file::sync_dir,
    space::{Ballast, EXPENDABLE},
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
    /// How far each lane had come at least, by what its readers have stored: what ends before has lost its tail.
    pub reached: [Position; LaneName::ALL.len()],
}

impl LogSettings {
    /// The measured defaults: partitions of 1 to 8 MiB, most of the space for inputs.
    pub fn new(quota_bytes: u64) -> Self {
        Self { quota_bytes, lane_percent: [70, 15, 10, 5], partition_min_bytes: 1 << 20, partition_max_bytes: 8 << 20, reached: Default::default() }
    }

    /// Bytes allowed for `lane`.
    pub fn lane_quota_bytes(&self, lane: LaneName) -> u64 {
        self.quota_bytes / 100 * self.lane_percent[lane as usize]
    }

    /// The largest of [`Self::partition_bytes`].
    pub(super) fn largest_partition_bytes(&self) -> u64 {
        LaneName::ALL.iter().map(|lane| self.partition_bytes(*lane)).max().unwrap_or(0)
    }

    /// Payload after which a partition of `lane` is full, bytes: a lane is a ring of 32, so that dropping one loses little.
    pub fn partition_bytes(&self, lane: LaneName) -> u64 {
        (self.lane_quota_bytes(lane) / 32).clamp(self.partition_min_bytes, self.partition_max_bytes)
    }
}

/// An agent does not let go of a directory within this, who only looks in does.
const LOCK_TRIES: u32 = 100;
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The log, for reading and waiting. Clones are the same log; it closes when the last of clones, readers and writer is dropped.
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) settings: LogSettings,
    pub(super) incarnation: Incarnation,
    pub(super) history: History,
    pub(super) lanes: [Lane; LaneName::ALL.len()],
    pub(super) counters: Arc<BufferCounters>,
    pub(super) watch: Arc<StoreWatch>,
    pub(super) gaps: Mutex<Gaps>,
    /// What the lanes' marks said at the start.
    pub(super) recovered: [LaneMarks; LaneName::ALL.len()],
    /// Losses found at the start that no event names yet.
    pub(super) owed: Mutex<Vec<Owed>>,
    /// How often [`Log::wake`] was called.
    pub(super) wakes: Mutex<u64>,
    pub(super) woken: Condvar,
    /// Held, not used: one process per directory. `None` where the directory is only looked at.
    pub(super) lock: Option<File>,
}

impl Log {
    /// Opens the log in `dir` (made if absent) and begins a new incarnation, durably.
    ///
    /// It lists the partitions and looks into the newest one per lane; its time does not grow with the backlog otherwise. Of a newest partition that is
    /// damaged it saves what can be read; the loss is named once the commit loop runs.
    ///
    /// # Errors
    /// [`BufferError::InUse`] if another process has it, and what the disk refuses.
    pub fn open(dir: &Path, settings: LogSettings) -> Result<(Self, Writer), BufferError> {
        Self::open_at_last(dir, settings, |_| false)
    }

    /// The same on a disk that may be full, broken or read-only: what there is no room for is given up as while the log is open, the newest of each lane
    /// apart, and named once there is room for a name. Where that does not help, `wait` is told why; it waits, and says whether to try again.
    pub fn open_at_last(dir: &Path, settings: LogSettings, mut wait: impl FnMut(&BufferError) -> bool) -> Result<(Self, Writer), BufferError> {
        let (mut lock, mut given_up) = (None, Vec::new());
        let mut shared = loop {
            let claimed = if lock.is_none() { claim(dir).map(|claimed| lock = Some(claimed)) } else { Ok(()) };
            match claimed.and_then(|()| Self::recover(dir, settings)) {
                Ok(shared) => break shared,
                // Opening a store writes to it.
                Err(error) if error.is_full() && lock.is_some() && make_room(dir, &mut given_up).unwrap_or(false) => {}
                Err(error) if error.is_of_disk() && wait(&error) => {}
                Err(error) => return Err(error),
            }
        };
        shared.lock = lock;
        let ranges = |(lane, key): &(LaneName, Key)| shared.ranges(*lane, *key).into_iter().map(|(from, to)| (*lane, from, to)).collect::<Vec<_>>();
        let owed: Vec<_> = given_up.iter().flat_map(ranges).map(|(lane, from, to)| Owed { lane, from, to, reason: GapReason::DiskFull }).collect();
        shared.owed.get_mut().unwrap_or_else(PoisonError::into_inner).extend(owed);
        let log = Self { shared: Arc::new(shared) };
        let writer = Writer::new(log.shared.clone())?;
        Ok((log, writer))
    }

    /// The log as the disk holds it, with a new incarnation.
    fn recover(dir: &Path, settings: LogSettings) -> Result<Shared, BufferError> {
        let cursors = dir.join("cursors");
        fs::create_dir_all(&cursors).map_err(|error| BufferError::io("create", &cursors, error))?;
        sync_dir(dir)?;
        let mut register = Register::open(dir)?;
        let watch = Arc::<StoreWatch>::default();
        let mut learned = Vec::new();
        let high_water = HighWater::open(dir)?;
        let ends = high_water.ends();
        let mut lane = |lane: LaneName| {
            let known_end = recovery::known_end([ends[lane as usize], settings.reached[lane as usize], register.last(lane)]);
            Lane::open(dir, lane, known_end, watch.clone(), |ordinal| register.id(ordinal), |incarnation| learned.push(incarnation))
        };
        let lanes = [lane(LaneName::Inputs)?, lane(LaneName::Predictions)?, lane(LaneName::Alarms)?, lane(LaneName::Events)?];
        sync_dir(dir)?;
        learned.extend(lanes.iter().flat_map(Lane::incarnations));
        learned.iter().for_each(|incarnation| register.learn(*incarnation));
        let mut recovery = Recovery::new(&lanes, dir)?;
        for Incarnation { ordinal, .. } in register.open_ended() {
            register.end(ordinal, recovery.last_seqs(ordinal)?);
        }
        let Recovered { marks: recovered, mut owed, saved } = recovery.end()?;
        let oldest = lanes.iter().filter_map(Lane::oldest).map(|key| key.ordinal).min();
        let has_records = |ordinal| oldest.is_some_and(|oldest| ordinal >= oldest);
        let (incarnation, history) = register.begin(cursor::highest_ordinal(&cursors)?.max(high_water.ordinal()), has_records)?;
        lanes.iter().for_each(|lane| lane.begin(incarnation.ordinal));
        let gaps = Gaps::of_marks(&recovered, |ordinal| history.find(ordinal).is_some());
        let shared = Shared {
            dir: dir.to_owned(),
            settings,
            incarnation,
            history,
            lanes,
            counters: Arc::default(),
            watch,
            gaps: Mutex::new(gaps),
            recovered,
            owed: Mutex::default(),
            wakes: Mutex::default(),
            woken: Condvar::new(),
            lock: None,
        };
        // First: what was lost with a damaged partition is no torn tail, and nothing is named twice.
        let damaged = saved.iter().flat_map(|(lane, key, found)| {
            let lost = rewrite::lost(&shared.ranges(*lane, *key), found);
            lost.into_iter().map(|(from, to)| Owed { lane: *lane, from, to, reason: GapReason::Damaged })
        });
        owed.splice(..0, damaged);
        Ok(Shared { owed: Mutex::new(owed), ..shared })
    }

    /// A reader of `lane`. Each has its own place; they do not disturb each other.
    pub fn reader(&self, lane: LaneName) -> Result<Reader, BufferError> {
        Reader::new(self.shared.clone(), lane)
    }

    /// The last committed record of the present incarnation in `lane`; seq 0 if there is none yet.
    pub fn committed(&self, lane: LaneName) -> Position {
        Position { ordinal: self.shared.incarnation.ordinal, seq: self.shared.lane(lane).committed() }
    }

    /// The place before the oldest record of `lane` on disk: where a reader begins that has no cursor. What is missing before it was given up on
    /// purpose, or is named in a gap.
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

    /// How many records of `lane` follow `after`, those named in gaps left out.
    pub fn depth(&self, lane: LaneName, after: Position) -> u64 {
        let present = self.committed(lane);
        let behind = if after.ordinal > present.ordinal {
            u64::MAX
        } else if after.ordinal == present.ordinal {
            after.seq
        } else {
            0
        };
        let all = self.shared.history.count(lane, after) + present.seq.saturating_sub(behind);
        all.saturating_sub(self.shared.gaps().records_after(lane, after))
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

    /// What sources had stored when the log was opened. A mark may stand in either of the two lanes to which sources append.
    pub fn source_marks(&self) -> SourceMarks {
        self.shared.recovered.iter().fold(SourceMarks::default(), |mut all, marks| {
            all.join(&marks.sources);
            all
        })
    }

    /// The highest cause of any entry in `lane` when the log was opened; `None` if no output of inference was ever stored there.
    pub fn last_cause(&self, lane: LaneName) -> Option<Cause> {
        self.shared.recovered[lane as usize].cause
    }

    /// How long the oldest call of the store has been under way.
    pub fn store_watch(&self) -> Arc<StoreWatch> {
        self.shared.watch.clone()
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The gaps that a reader may still meet.
    pub fn gaps(&self) -> Vec<Gap> {
        self.shared.gaps().all()
    }

    /// Rises with each new gap, before the event that names it can be read: what was read before may have been given up since.
    pub fn gaps_named(&self) -> u64 {
        self.shared.gaps().added()
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

    /// What is owed a name since the start; asked once.
    pub(super) fn take_owed(&self) -> Vec<Owed> {
        std::mem::take(&mut *self.owed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The positions that the partition `key` of `lane` covers: first and last of each incarnation, in order.
    pub(super) fn ranges(&self, lane: LaneName, key: Key) -> Vec<(Position, Position)> {
        let next = self.lane(lane).following(key).map(Key::first);
        let present = (self.incarnation.ordinal, self.lane(lane).committed());
        let ended = self.history.from(key.ordinal).iter().map(|ended| (ended.incarnation.ordinal, ended.last_seq(lane)));
        let in_partition = ended.chain([present]).filter(|(ordinal, _)| *ordinal >= key.ordinal && next.is_none_or(|next| *ordinal <= next.ordinal));
        let range = |(ordinal, last_seq)| {
            let first = if ordinal == key.ordinal { key.first_seq } else { 1 };
            let last = next.filter(|next| next.ordinal == ordinal).map_or(last_seq, |next| next.seq - 1);
            (first <= last).then_some((Position { ordinal, seq: first }, Position { ordinal, seq: last }))
        };
        in_partition.filter_map(range).collect()
    }

    /// Tells waiting readers that a commit was published.
    pub(super) fn notify(&self) {
        let _ordered = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }
}

/// Frees space on a full disk before the log is open: the reserve, what lies in quarantine, then the oldest partition of the lowest lane that has more
/// than one, which is added to `given_up`. False if there is nothing more.
fn make_room(dir: &Path, given_up: &mut Vec<(LaneName, Key)>) -> Result<bool, BufferError> {
    if Ballast::drop_in(dir) || quarantine::remove_oldest(&dir.join(quarantine::FOLDER))? {
        return Ok(true);
    }
    for lane in EXPENDABLE {
        let partitions = Listing::of(&dir.join(lane.as_str()), lane)?.counting;
        let newest = partitions.last().map(|(key, ..)| *key);
        let Some((key, ..)) = partitions.first().filter(|(key, ..)| Some(*key) != newest) else { continue };
        for (_, _, path) in partitions.iter().filter(|(of, ..)| of == key) {
            dead::remove(path)?;
        }
        given_up.push((lane, *key));
        return Ok(true);
    }
    Ok(false)
}

/// Makes the directory and takes its lock. Who only looks in holds it while it copies a partition: that is waited for.
fn claim(dir: &Path) -> Result<File, BufferError> {
    fs::create_dir_all(dir).map_err(|error| BufferError::io("create", dir, error))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    let path = dir.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| BufferError::io("open", &path, error))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(BufferError::io("lock", &path, error)),
        }
        #[expect(clippy::disallowed_methods, reason = "who looks in tells nobody when it has let go of the lock")]
        thread::sleep(LOCK_RETRY);
    }
    Err(BufferError::InUse { dir: dir.to_owned() })
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
