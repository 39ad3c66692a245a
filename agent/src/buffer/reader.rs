//! Reading a lane in order, over partitions and incarnations.
use std::{collections::VecDeque, sync::Arc};

use hark_protocol::topics::LaneName;

use super::{
    BufferError, Position,
    frame::{Decoder, Frame},
    lane::{self, Place},
    log::Shared,
    partition::{Key, Stored},
};
use crate::record::Entry;

/// Reads one lane. It holds at most one decoded frame; the place is the caller's, in `after`.
pub struct Reader {
    shared: Arc<Shared>,
    lane: LaneName,
    decoder: Decoder,
    /// What is left of the last frame, and the position of its first entry.
    rest: (Position, VecDeque<(usize, Entry)>),
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, lane: LaneName) -> Result<Self, BufferError> {
        let decoder =
            Decoder::new().map_err(|error| BufferError::io("decompress", &shared.lane(lane).path(Key { ordinal: 0, first_seq: 0 }), error))?;
        Ok(Self { shared, lane, decoder, rest: (Position::default(), VecDeque::new()) })
    }

    /// The committed records after `after`, in order and without holes: at most `max_records`, and no more once `max_bytes` of encoded entries are
    /// reached (one record comes in any case). Empty if there are none. `after` need not follow the last call, but that is the fast way.
    ///
    /// # Errors
    /// [`BufferError::Hole`] and [`BufferError::Damaged`] stand for the very next record: those before it were returned by the call before.
    pub fn read(&mut self, after: Position, max_records: usize, max_bytes: usize) -> Result<Vec<(Position, Entry)>, BufferError> {
        let mut records = Vec::new();
        let (mut at, mut bytes) = (after, 0);
        while records.len() < max_records && bytes < max_bytes {
            let Some(next) = self.shared.next(self.lane, at) else { break };
            match self.load(next) {
                Ok(()) => {}
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            }
            // A commit covers whole frames, so everything in this one is committed.
            let (position, rest) = &mut self.rest;
            while records.len() < max_records && (bytes < max_bytes || records.is_empty()) {
                let Some((size, entry)) = rest.pop_front() else { break };
                records.push((*position, entry));
                at = *position;
                position.seq += 1;
                bytes += size;
            }
        }
        Ok(records)
    }

    /// Puts the frame that holds `next` into `rest`, starting there.
    fn load(&mut self, next: Position) -> Result<(), BufferError> {
        if self.rest.0 == next && !self.rest.1.is_empty() {
            return Ok(());
        }
        let frame = self.frame(next)?;
        let skip = usize::try_from(next.seq - frame.first.seq).expect("a frame holds fewer records than memory has bytes");
        let mut entries = VecDeque::from(frame.entries);
        entries.drain(..skip);
        self.rest = (next, entries);
        Ok(())
    }

    /// The frame that holds `next`, or the error that says why there is none.
    fn frame(&mut self, next: Position) -> Result<Frame, BufferError> {
        let lane = self.shared.lane(self.lane);
        let key = match lane.place(next) {
            Place::In(key) => key,
            Place::Missing { next_seq } => return Err(self.hole(next, next_seq)),
        };
        // Reclaimed between the look and the opening: it is missing now.
        let Some(partition) = lane.partition(key)? else { return Err(self.hole(next, lane.next_first_seq(key))) };
        let dir = lane.path(key);
        let stored = partition.frame_at(next.seq).map_err(|error| lane::damaged(self.lane, &dir, next, error))?;
        if let Some(Stored { first_seq, parts }) = stored {
            let first = Position { ordinal: key.ordinal, seq: first_seq };
            let frame = self.decoder.decode(self.lane, first, &parts);
            let frame = frame.map_err(|error| BufferError::Damaged { lane: self.lane, partition: dir.clone(), from: next, source: error.into() })?;
            if next.seq <= frame.last_seq() {
                return Ok(frame);
            }
        }
        let next_seq = partition.first_after(next.seq).map_err(|error| lane::damaged(self.lane, &dir, next, error))?;
        Err(self.hole(next, next_seq.or_else(|| lane.next_first_seq(key))))
    }

    /// The hole from `from` to what the same incarnation still holds, or to its end.
    fn hole(&self, from: Position, next_seq: Option<u64>) -> BufferError {
        let last_seq = self.shared.last_seq(self.lane, from.ordinal);
        let to = next_seq.map_or(last_seq, |next| (next - 1).min(last_seq));
        BufferError::Hole { lane: self.lane, from, to: Position { seq: to, ..from }, named: self.shared.gaps().holding(self.lane, from) }
    }
}
