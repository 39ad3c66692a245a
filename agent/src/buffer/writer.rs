//! The one writer: append in memory, then commit durably.
use std::{ops::RangeInclusive, path::PathBuf, sync::Arc};

use hark_protocol::topics::LaneName;

use super::{
    BufferCounters, BufferError, Gap, Position, dead,
    frame::{Decoder, ENTRY_MAX_BYTES, Encoder, Records},
    gaps,
    header::{self, Header, Key},
    lane::{Expendable, Lane},
    log::{Shared, tree_bytes},
    marks::{self, LaneMarks, Mark, SourceMark},
    partition::{StoreError, Stored},
    rewrite,
};
use crate::{causes, record::Entry};

/// Appends to all lanes. There is one per open log; it blocks on the disk, so it lives on a thread of its own.
pub struct Writer {
    shared: Arc<Shared>,
    encoder: Encoder,
    lanes: [Tail; LaneName::ALL.len()],
    /// Wall clock, milliseconds since 1970, as last told.
    now_ms: i64,
    /// Bytes of frames stored since the space was looked at.
    pub(super) stored_bytes: u64,
    /// Something that was given up could not be removed yet.
    unburied: bool,
    /// Merged into another partition, and still where it was: its new place says that it counts no more.
    unretired: Vec<PathBuf>,
}

/// The end of a lane as the writer sees it.
#[derive(Default)]
struct Tail {
    pending: Records,
    pending_marks: Vec<Mark>,
    /// Last seq given out.
    last_seq: u64,
    /// What is pending is in the store already: another lane failed in the same commit.
    stored: bool,
    /// What the next partition begins with.
    marks: LaneMarks,
    /// The partition being written; `None` before the first commit and after a failure.
    partition: Option<Written>,
    /// The lane has had a partition of this incarnation.
    begun: bool,
    /// It was said that small partitions cannot be merged: on a full disk it is tried at each commit.
    unmerged: bool,
}

/// The partition being written.
#[derive(Clone, Copy)]
struct Written {
    key: Key,
    /// Bytes of frames in it.
    payload: u64,
    /// Place of the next commit's marks.
    marks_at: u32,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, BufferError> {
        let encoder = Encoder::new().map_err(|error| BufferError::io("compress", &shared.dir, error))?;
        let mut lanes: [Tail; LaneName::ALL.len()] = Default::default();
        lanes.iter_mut().zip(&shared.recovered).for_each(|(tail, marks)| tail.marks = marks.clone());
        Ok(Self { shared, encoder, lanes, now_ms: 0, stored_bytes: 0, unburied: false, unretired: Vec::new() })
    }

    /// Tells the time, for the age of partitions: milliseconds since 1970.
    pub fn tell_time(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    /// Adds an entry and gives its seq. It is durable, and seen by readers, after the next [`Writer::commit`].
    ///
    /// # Errors
    /// [`BufferError::EntryTooLarge`] and [`BufferError::Encode`], which leave the log as it was.
    pub fn append(&mut self, lane: LaneName, entry: &Entry) -> Result<u64, BufferError> {
        self.append_all(lane, std::slice::from_ref(entry), &[]).map(|seqs| *seqs.end())
    }

    /// Adds entries for the same commit, all or none, with what sources must remember of them, and gives their seqs; an empty range for no entries.
    /// Errors as in [`Writer::append`].
    pub fn append_all(&mut self, lane: LaneName, entries: &[Entry], source_marks: &[SourceMark]) -> Result<RangeInclusive<u64>, BufferError> {
        let encoded = entries.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let tail = &mut self.lanes[lane as usize];
        debug_assert!(!tail.stored, "nothing is appended between a failed commit and the next");
        let first_seq = tail.last_seq + 1;
        encoded.iter().for_each(|bytes| tail.pending.push(bytes));
        tail.last_seq += encoded.len() as u64;
        source_marks.iter().for_each(|mark| marks::add(&mut tail.pending_marks, mark));
        if let Some(cause) = entries.iter().filter_map(|entry| entry.cause).max() {
            match tail.pending_marks.iter_mut().find_map(|mark| if let Mark::Cause(cause) = mark { Some(cause) } else { None }) {
                Some(highest) => *highest = cause.max(*highest),
                None => tail.pending_marks.push(Mark::Cause(cause)),
            }
        }
        Ok(first_seq..=tail.last_seq)
    }

    /// Adds the event that names a gap, to the events lane. The gap counts from the commit on.
    pub(super) fn append_gap(&mut self, entry: &Entry, name: impl FnOnce(Position) -> Gap) -> Result<Gap, BufferError> {
        let seq = self.append(LaneName::Events, entry)?;
        let gap = name(Position { ordinal: self.shared.incarnation.ordinal, seq });
        self.lanes[LaneName::Events as usize].pending_marks.push(Mark::Gap(gap));
        Ok(gap)
    }

    /// Encoded bytes that wait for the next commit.
    pub fn pending_bytes(&self) -> usize {
        self.lanes.iter().map(|tail| tail.pending.bytes()).sum()
    }

    /// Makes everything appended durable, lane by lane in the order of [`LaneName::ALL`] (so an input before what follows from it), then shows it
    /// to readers. Lanes without new entries or marks cost nothing. In each lane all of a commit survives a crash, or none.
    ///
    /// # Errors
    /// Whatever the disk refuses. Nothing of this commit is shown, though some of it may be found after the next start. What was appended stays pending:
    /// another call tries again, in a new partition where the store of the old one has failed.
    pub fn commit(&mut self) -> Result<(), BufferError> {
        if self.lanes.iter().all(Tail::is_empty) {
            return Ok(());
        }
        // Events first: the one that opens an incarnation must be there if any record of it is, whenever a kill comes.
        LaneName::ALL
            .into_iter()
            .rev()
            .try_for_each(|lane| self.store(lane))
            .inspect_err(|_| BufferCounters::add(&self.shared.counters.errors, 1))?;
        self.publish();
        Ok(())
    }

    /// Removes the partitions of `lane` that lie wholly at or before `upto`, and gives the bytes that the disk gets back. The newest partition stays,
    /// since it holds the marks, as does one that is being read right now (the next call comes back to it).
    pub fn reclaim(&mut self, lane: LaneName, upto: Position) -> Result<u64, BufferError> {
        let shared = self.shared.clone();
        let mut bytes = 0;
        while let Expendable::Oldest(key) = shared.lane(lane).expendable() {
            if shared.ranges(lane, key).last().is_some_and(|(_, last)| *last > upto) {
                break;
            }
            bytes += self.remove(lane, key)?;
        }
        BufferCounters::add(&shared.counters.reclaimed_bytes, bytes);
        shared.gaps().forget(lane, upto);
        Ok(bytes)
    }

    /// Removes a partition, whatever is in it, and gives its bytes on disk.
    ///
    /// # Errors
    /// When the disk refuses; the partition then stays.
    pub(super) fn remove(&mut self, lane: LaneName, key: Key) -> Result<u64, BufferError> {
        let shared = self.shared.clone();
        let counted = |_: &BufferError| BufferCounters::add(&shared.counters.errors, 1);
        let Some(dead) = shared.lane(lane).retire(key).inspect_err(counted)? else { return Ok(0) };
        let bytes = tree_bytes(&dead).unwrap_or(0);
        if let Err(error) = dead::bury(&dead).inspect_err(counted) {
            self.unburied = true;
            tracing::warn!(error = %causes::chain(&error), "what was given up takes up space still");
        }
        Ok(bytes)
    }

    /// Removes what [`Self::remove`] could not.
    pub(super) fn bury(&mut self) {
        for dir in std::mem::take(&mut self.unretired) {
            self.give_up(dir);
        }
        if std::mem::take(&mut self.unburied) {
            self.unburied = self.shared.lanes.iter().any(|lane| lane.bury().is_err());
        }
    }

    /// Removes what was merged into another partition. False if it is still where it was: then it is tried again.
    fn give_up(&mut self, dir: PathBuf) -> bool {
        match dead::retire(&dir) {
            Ok(dead) => {
                self.unburied |= dead::bury(&dead).is_err();
                true
            }
            Err(_) if !dir.exists() => true,
            Err(error) => {
                tracing::warn!(error = %causes::chain(&error), "a partition that was merged cannot be removed yet");
                self.unretired.push(dir);
                false
            }
        }
    }

    /// Writes to the partition `key` no more: it is damaged, or was put aside.
    pub(super) fn leave(&mut self, lane: LaneName, key: Key) {
        let tail = &mut self.lanes[lane as usize];
        if tail.partition.is_some_and(|written| written.key == key) {
            tail.partition = None;
            self.shared.lane(lane).abandon(key);
        }
    }

    fn publish(&mut self) {
        let counters = &self.shared.counters;
        for (name, tail) in LaneName::ALL.into_iter().zip(&mut self.lanes) {
            tail.stored = false;
            for mark in tail.pending_marks.drain(..) {
                // Before the event is shown: no reader shall see it and still be given what it names.
                if let Mark::Gap(gap) = mark { self.shared.gaps().add(gap) } else { tail.marks.apply(&mark) }
            }
            if tail.pending.len() > 0 {
                BufferCounters::add(&counters.committed_bytes, tail.pending.bytes() as u64);
                counters.add_appended(name, tail.pending.len() as u64);
                self.shared.lane(name).publish(tail.last_seq);
                tail.pending.clear();
            }
        }
        BufferCounters::add(&counters.commits, 1);
        self.shared.notify();
    }

    /// Puts what is pending of a lane into its store, durably.
    fn store(&mut self, name: LaneName) -> Result<(), BufferError> {
        let tail = &self.lanes[name as usize];
        if tail.is_empty() || tail.stored {
            return Ok(());
        }
        let ordinal = self.shared.incarnation.ordinal;
        let first = Position { ordinal, seq: tail.last_seq + 1 - tail.pending.len() as u64 };
        let frames = self.encoder.encode(name, first, &tail.pending);
        let frames = frames.map_err(|error| BufferError::io("compress", &self.shared.dir, error))?;
        let bytes: u64 = frames.iter().map(|frame| frame.bytes() as u64).sum();
        let limit = self.shared.settings.partition_bytes(name);
        let written = match tail.partition.filter(|written| written.payload == 0 || written.payload + bytes <= limit) {
            Some(written) => written,
            None => self.begin_partition(name, first)?,
        };
        let tail = &mut self.lanes[name as usize];
        let lane = self.shared.lane(name);
        let frames = frames.into_iter().map(|frame| Stored { first: Position { ordinal, seq: frame.first_seq }, parts: frame.parts }).collect();
        let marks = marks::encode(&tail.pending_marks);
        let stored = lane.partition(written.key).and_then(|partition| {
            let partition = partition.ok_or_else(|| BufferError::io("open", &lane.path(written.key), std::io::ErrorKind::NotFound.into()))?;
            let stored = partition.insert(frames, written.marks_at, marks).and_then(|()| partition.flush());
            stored.map_err(|error| BufferError::Store { partition: lane.path(written.key), source: error })
        });
        if let Err(error) = stored {
            // A store that failed once refuses ever after; what was committed to it can still be read.
            self.leave(name, written.key);
            return Err(error);
        }
        BufferCounters::add(&self.shared.counters.frame_bytes, bytes);
        self.stored_bytes += bytes;
        tail.partition = Some(Written { payload: written.payload + bytes, marks_at: written.marks_at + 1, ..written });
        tail.stored = true;
        Ok(())
    }

    /// A new partition for what begins at `first`. At the first one of an incarnation, small ones at the end of the lane are merged into it, so that a
    /// storm of restarts does not fill the disk.
    fn begin_partition(&mut self, name: LaneName, first: Position) -> Result<Written, BufferError> {
        let shared = self.shared.clone();
        let lane = shared.lane(name);
        let key = Key { ordinal: first.ordinal, first_seq: first.seq };
        // Left by a failed commit: no record in it was ever committed, and the marks in it are repeated below.
        if lane.newest(first.ordinal) == Some(key) && !self.lanes[name as usize].begun_at(key) {
            self.remove(name, key)?;
        }
        let header = |key, incarnation, created_ms, holds| Header {
            lane: name,
            key,
            incarnation,
            created_ms,
            replaces: Vec::new(),
            holds,
            salvaged_to: Position::default(),
        };
        let sources = if self.lanes[name as usize].begun { Vec::new() } else { small_ones(&shared, lane) };
        // A partition begins with all that earlier ones say, before it counts: a crash at any moment finds it in the newest one.
        let repeated = marks::encode(&repeated(&shared, name, &self.lanes[name as usize].marks));
        let mut written = Written { key, payload: 0, marks_at: 1 };
        let mut replaced = Vec::new();
        if let Some((oldest, _)) = sources.first() {
            let merged_key = *oldest;
            let id = lane.incarnation_of(merged_key).unwrap_or_default();
            // As old as its oldest part, or a storm of restarts would keep what is before it for ever.
            let created_ms = header::read(&lane.path(merged_key)).map_or(self.now_ms, |header| header.created_ms);
            match merge(&shared, lane, header(merged_key, id, created_ms, holds(&shared, merged_key)), &sources, &repeated) {
                Ok((payload, paths)) => (written, replaced) = (Written { key: merged_key, payload, marks_at: 1 }, paths),
                Err(error) if !std::mem::replace(&mut self.lanes[name as usize].unmerged, true) => {
                    tracing::warn!(lane = name.as_str(), error = %causes::chain(&error), "small partitions are not merged");
                }
                Err(_) => {}
            }
        }
        // What comes now must not go where only its header keeps an old directory from being read in its place.
        let mut gone = true;
        for dir in replaced {
            gone &= self.give_up(dir);
        }
        if !gone {
            written = Written { key, payload: 0, marks_at: 1 };
        }
        if written.key == key {
            lane.create(header(key, shared.incarnation.id, self.now_ms, Vec::new()), &[], true, |made| made.insert(Vec::new(), 0, repeated))?;
        }
        self.lanes[name as usize].begun = true;
        self.lanes[name as usize].partition = Some(written);
        BufferCounters::add(&shared.counters.partitions_made, 1);
        Ok(written)
    }
}

impl Tail {
    fn is_empty(&self) -> bool {
        self.pending.len() == 0 && self.pending_marks.is_empty()
    }

    fn begun_at(&self, key: Key) -> bool {
        self.partition.is_some_and(|written| written.key == key)
    }
}

/// What a new partition of `lane` begins with.
fn repeated(shared: &Shared, lane: LaneName, marks: &LaneMarks) -> Vec<Mark> {
    let all = shared.gaps();
    let (gaps, passed) = if lane == LaneName::Events { (all.named(), all.passed()) } else { Default::default() };
    LaneMarks { gaps, passed, ..marks.clone() }.repeated()
}

/// The small partitions at the end of a lane, oldest first, with their bytes on disk.
fn small_ones(shared: &Shared, lane: &Lane) -> Vec<(Key, u64)> {
    // A kill leaves a whole segment of the store, 512 KiB, however little is in it: half of the smallest partition would never be small.
    let small = (shared.settings.partition_bytes(lane.name) / 2).max(shared.settings.partition_min_bytes);
    let sized = lane.keys().into_iter().rev().map(|key| (key, tree_bytes(&lane.path(key)).unwrap_or(u64::MAX)));
    let mut sum = 0;
    let mut found: Vec<_> = sized
        .take_while(|(_, bytes)| {
            sum += *bytes;
            sum <= small
        })
        .collect();
    found.reverse();
    found
}

/// Incarnations that a partition which begins at `key` may hold.
fn holds(shared: &Shared, key: Key) -> Vec<(u32, u128)> {
    let ended = shared.history.from(key.ordinal).iter().map(|ended| ended.incarnation);
    ended.chain([shared.incarnation]).map(|incarnation| (incarnation.ordinal, incarnation.id.as_u128())).collect()
}

/// Makes one partition of several. Gives its payload and the directories to remove.
fn merge(shared: &Shared, lane: &Lane, header: Header, sources: &[(Key, u64)], marks: &[Vec<u8>]) -> Result<(u64, Vec<PathBuf>), BufferError> {
    let mut decoder = Decoder::new().map_err(|error| BufferError::io("decompress", &shared.dir, error))?;
    let keys: Vec<Key> = sources.iter().map(|(key, _)| *key).collect();
    let mut open = Vec::new();
    for key in &keys {
        open.extend(lane.partition(*key)?.map(|partition| (partition, expected(shared, lane, *key))));
    }
    let (_, replaced) = lane.create(header, &keys, true, |target| {
        for (source, expected) in &open {
            // A damaged one stays as it is until a reader comes to it: the store may leave out what stands in its file.
            let found = rewrite::copy(lane.name, source, &mut decoder, target)?;
            if !rewrite::lost(expected, &found).is_empty() {
                return Err(StoreError::LeftOut);
            }
        }
        target.insert(Vec::new(), 0, marks.to_vec())
    })?;
    Ok((sources.iter().map(|(_, bytes)| bytes).sum(), replaced))
}

/// What the partition `key` must hold, for it is committed, no gap names it, and damage has not left the partition without it.
fn expected(shared: &Shared, lane: &Lane, key: Key) -> Vec<(Position, Position)> {
    let gaps = shared.gaps();
    let ranges = shared.ranges(lane.name, key).into_iter();
    let unnamed = ranges.flat_map(|(from, to)| {
        let parts = gaps::unnamed(&gaps, lane.name, from.ordinal, from.seq..to.seq + 1);
        parts.into_iter().map(move |seqs| (Position { seq: seqs.start, ..from }, Position { seq: seqs.end - 1, ..from }))
    });
    unnamed.filter(|(_, last)| lane.is_whole(key, *last)).collect()
}

fn encode(entry: &Entry) -> Result<Vec<u8>, BufferError> {
    let bytes = postcard::to_stdvec(entry).map_err(BufferError::Encode)?;
    if bytes.len() > ENTRY_MAX_BYTES {
        return Err(BufferError::EntryTooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, io, sync::Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::buffer::{
        Log, LogSettings,
        log_tests::{INPUTS, fill, open, partition_dirs},
        samples,
    };

    /// What was logged.
    #[derive(Default)]
    struct Lines(Mutex<Vec<u8>>);

    impl io::Write for &Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = &'a Self;

        fn make_writer(&'a self) -> &'a Self {
            self
        }
    }

    #[test]
    fn that_small_partitions_are_not_merged_is_told_once_however_often_it_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut writer) = open(dir.path());
        fill(&mut writer, 0..5);
        drop((log, writer));
        // As a full disk: neither a merged partition nor one of its own can be made.
        let [only] = &partition_dirs(dir.path())[..] else { panic!("one partition") };
        let (_log, mut writer) = Log::open(dir.path(), LogSettings::new(1 << 30)).unwrap();
        for (key, generation) in [(Key { ordinal: 1, first_seq: 1 }, 1), (Key { ordinal: 2, first_seq: 1 }, 0)] {
            fs::write(only.with_file_name(key.directory(generation)), b"").unwrap();
        }
        writer.append(INPUTS, &samples::reading(1)).unwrap();
        let lines = Arc::new(Lines::default());
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).finish();
        tracing::subscriber::with_default(subscriber, || (0..3).for_each(|_| assert!(writer.commit().is_err())));
        let text = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
        assert_eq!(text.matches("small partitions are not merged").count(), 1, "{text}");
    }
}
