//! Reading a lane in order, over partitions and incarnations.
use std::{collections::VecDeque, sync::Arc};

use hark_protocol::topics::LaneName;

use super::{
    BufferError, Position,
    frame::{Decoder, Frame},
    header::Key,
    lane::{self, Place},
    log::Shared,
    partition::{StoreError, Stored},
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
            // A gap may have been named since the frame was decoded: what it names is given out no more.
            let (inside, ahead) = {
                let gaps = self.shared.gaps();
                (gaps.holding(self.lane, next), gaps.after(self.lane, next).map(|gap| gap.from))
            };
            let loaded = match inside {
                Some(gap) => Err(BufferError::Hole { lane: self.lane, from: next, to: gap.to, named: Some(gap) }),
                None => self.load(next),
            };
            match loaded {
                Ok(()) => {}
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            }
            // A commit covers whole frames, so everything in this one is committed.
            let (position, rest) = &mut self.rest;
            while records.len() < max_records && (bytes < max_bytes || records.is_empty()) && ahead.is_none_or(|ahead| *position < ahead) {
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
        let Place::In(key, partition) = lane.place(next)? else { return Err(self.hole(next, lane.oldest().map(Key::first))) };
        let dir = lane.path(key);
        let stored = partition.frame_at(next).map_err(|error| lane::damaged(self.lane, &dir, next, error))?;
        if let Some(Stored { first, parts }) = stored.filter(|stored| stored.first.ordinal == next.ordinal) {
            let frame = self.decoder.decode(self.lane, first, &parts);
            let frame = frame.map_err(|error| BufferError::Damaged { lane: self.lane, partition: dir.clone(), from: next, source: error.into() })?;
            if next.seq <= frame.last_seq() {
                return Ok(frame);
            }
        }
        // What the store of an earlier partition holds of positions that a later one begins with was never committed there.
        let following = lane.following(key).map(Key::first);
        let next_here = partition.first_after(next).map_err(|error| lane::damaged(self.lane, &dir, next, error))?;
        let hole = self.hole(next, next_here.into_iter().chain(following).min());
        // A store that leaves out what was committed is damaged, whether something of it follows or not, and its file may still hold it. What was made
        // of what damage has left has lost it for good.
        if matches!(hole, BufferError::Hole { named: None, .. }) && lane.is_whole(key, next) {
            return Err(lane::damaged(self.lane, &dir, next, StoreError::LeftOut));
        }
        Err(hole)
    }

    /// The hole from `from` to what the same incarnation still holds, or to its end.
    fn hole(&self, from: Position, next: Option<Position>) -> BufferError {
        let last_seq = self.shared.last_seq(self.lane, from.ordinal);
        let (named, ahead) = {
            let gaps = self.shared.gaps();
            (gaps.holding(self.lane, from), gaps.after(self.lane, from).map(|gap| gap.from))
        };
        // What a gap names is told as that gap.
        let ends = next.into_iter().chain(ahead).filter(|end| end.ordinal == from.ordinal && *end > from);
        let to = ends.min().map_or(last_seq, |end| (end.seq - 1).min(last_seq));
        BufferError::Hole { lane: self.lane, from, to: Position { seq: to, ..from }, named }
    }
}
