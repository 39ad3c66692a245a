//! The one writer: append in memory, then commit durably.
use std::{ops::RangeInclusive, sync::Arc};

use hark_protocol::topics::LaneName;

use super::{
    BufferCounters, BufferError, Position,
    frame::{ENTRY_MAX_BYTES, Encoded, Encoder, Records},
    lane::Lane,
    log::{Shared, tree_bytes},
    marks::SourceMark,
    partition::{self, Key, Partition},
};
use crate::record::Entry;

/// Appends to all lanes. There is one per open log; it blocks on the disk, so it lives on a thread of its own.
pub struct Writer {
    shared: Arc<Shared>,
    encoder: Encoder,
    lanes: [Tail; LaneName::ALL.len()],
    /// A commit failed: what the store holds of it is unknown, so no seq may be given out any more.
    failed: bool,
}

/// The end of a lane as the writer sees it.
#[derive(Default)]
struct Tail {
    pending: Records,
    /// Last seq given out.
    last_seq: u64,
    /// The partition being written and its payload in bytes; `None` before the first commit.
    partition: Option<(Key, u64)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, BufferError> {
        let encoder = Encoder::new()
            .map_err(|error| BufferError::io("compress", &shared.lane(LaneName::Inputs).path(Key { ordinal: 0, first_seq: 0 }), error))?;
        Ok(Self { shared, encoder, lanes: Default::default(), failed: false })
    }

    /// Adds an entry and gives its seq. It is durable, and seen by readers, after the next [`Writer::commit`].
    ///
    /// # Errors
    /// [`BufferError::EntryTooLarge`] and [`BufferError::Encode`], which leave the log as it was; [`BufferError::WriterFailed`].
    pub fn append(&mut self, lane: LaneName, entry: &Entry) -> Result<u64, BufferError> {
        self.append_all(lane, std::slice::from_ref(entry), &[]).map(|seqs| *seqs.end())
    }

    /// Adds entries for the same commit, all or none, and gives their seqs; an empty range for no entries. Errors as in [`Writer::append`].
    pub fn append_all(&mut self, lane: LaneName, entries: &[Entry], _marks: &[SourceMark]) -> Result<RangeInclusive<u64>, BufferError> {
        if self.failed {
            return Err(BufferError::WriterFailed);
        }
        let encoded = entries.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let tail = &mut self.lanes[lane as usize];
        let first_seq = tail.last_seq + 1;
        encoded.iter().for_each(|bytes| tail.pending.push(bytes));
        tail.last_seq += encoded.len() as u64;
        Ok(first_seq..=tail.last_seq)
    }

    /// Encoded bytes that wait for the next commit.
    pub fn pending_bytes(&self) -> usize {
        self.lanes.iter().map(|tail| tail.pending.bytes()).sum()
    }

    /// Makes everything appended durable, lane by lane in the order of [`LaneName::ALL`] (so an input before what follows from it), then shows it
    /// to readers. Lanes without new entries cost nothing.
    ///
    /// # Errors
    /// Whatever the disk refuses. Nothing of this commit is shown, though some of it may be found after the next start; the writer is finished.
    pub fn commit(&mut self) -> Result<(), BufferError> {
        if self.failed {
            return Err(BufferError::WriterFailed);
        }
        if self.pending_bytes() == 0 {
            return Ok(());
        }
        let stored = LaneName::ALL.into_iter().try_for_each(|lane| self.store(lane));
        if let Err(error) = stored {
            self.failed = true;
            BufferCounters::add(&self.shared.counters.errors, 1);
            return Err(error);
        }
        self.publish();
        Ok(())
    }

    /// Removes the partitions of `lane` that lie wholly at or before `upto`, and gives the bytes that the disk gets back. The newest partition of the
    /// present incarnation stays, as does one that is being read right now (the next call comes back to it).
    pub fn reclaim(&mut self, lane: LaneName, upto: Position) -> Result<u64, BufferError> {
        let shared = &self.shared;
        let last_of = |ordinal| shared.history.find(ordinal).map(|ended| ended.last_seq(lane));
        let mut bytes = 0;
        while let Some(dir) = shared.lane(lane).retire(upto, last_of) {
            bytes += tree_bytes(&dir)?;
            partition::remove(&dir).inspect_err(|_| BufferCounters::add(&shared.counters.errors, 1))?;
        }
        BufferCounters::add(&shared.counters.reclaimed_bytes, bytes);
        Ok(bytes)
    }

    fn publish(&mut self) {
        let counters = &self.shared.counters;
        for (name, tail) in LaneName::ALL.into_iter().zip(&mut self.lanes) {
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

    /// Puts the pending entries of a lane into its store, durably.
    fn store(&mut self, name: LaneName) -> Result<(), BufferError> {
        let tail = &mut self.lanes[name as usize];
        if tail.pending.len() == 0 {
            return Ok(());
        }
        let lane = self.shared.lane(name);
        let ordinal = self.shared.incarnation.ordinal;
        let first = Position { ordinal, seq: tail.last_seq + 1 - tail.pending.len() as u64 };
        let frames = self.encoder.encode(name, first, &tail.pending);
        let frames = frames.map_err(|error| BufferError::io("compress", &lane.path(Key { ordinal, first_seq: first.seq }), error))?;
        let limit = self.shared.settings.partition_bytes(name);
        let mut open = None;
        for frame in frames {
            let bytes = frame.bytes() as u64;
            BufferCounters::add(&self.shared.counters.frame_bytes, bytes);
            let (key, partition) = match open.take() {
                Some(open) if !is_full(tail, bytes, limit) => open,
                sealed => next_partition(&self.shared, lane, tail, &frame, limit, sealed)?,
            };
            partition.insert(frame.first_seq, frame.parts).map_err(|error| BufferError::Store { partition: lane.path(key), source: error })?;
            tail.partition = tail.partition.map(|(key, payload)| (key, payload + bytes));
            open = Some((key, partition));
        }
        open.map_or(Ok(()), |open| seal(lane, &open))
    }
}

type OpenPartition = (Key, Arc<Partition>);

/// The partition for `frame`: the one being written, or a new one if that is full or absent. A full one is durable before its successor exists, so
/// that a later partition proves the earlier ones complete.
fn next_partition(
    shared: &Shared,
    lane: &Lane,
    tail: &mut Tail,
    frame: &Encoded,
    limit: u64,
    sealed: Option<OpenPartition>,
) -> Result<OpenPartition, BufferError> {
    if let Some(sealed) = sealed {
        seal(lane, &sealed)?;
    }
    if let Some((key, _)) = tail.partition.filter(|_| !is_full(tail, frame.bytes() as u64, limit)) {
        let missing = || BufferError::io("open", &lane.path(key), std::io::ErrorKind::NotFound.into());
        return Ok((key, lane.partition(key)?.ok_or_else(missing)?));
    }
    let key = Key { ordinal: shared.incarnation.ordinal, first_seq: frame.first_seq };
    let partition = lane.create(key, shared.incarnation.id)?;
    tail.partition = Some((key, 0));
    BufferCounters::add(&shared.counters.partitions_made, 1);
    Ok((key, partition))
}

fn is_full(tail: &Tail, more_bytes: u64, limit: u64) -> bool {
    tail.partition.is_none_or(|(_, payload)| payload > 0 && payload + more_bytes > limit)
}

fn seal(lane: &Lane, (key, partition): &OpenPartition) -> Result<(), BufferError> {
    partition.flush().map_err(|error| BufferError::Store { partition: lane.path(*key), source: error })
}

fn encode(entry: &Entry) -> Result<Vec<u8>, BufferError> {
    let bytes = postcard::to_stdvec(entry).map_err(BufferError::Encode)?;
    if bytes.len() > ENTRY_MAX_BYTES {
        return Err(BufferError::EntryTooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}
