//! Copying what is sound of partitions into a new one: to merge small ones, and to save what damage left.
use hark_protocol::topics::LaneName;

use super::{
    Position,
    frame::Decoder,
    partition::{Partition, StoreError, Stored},
};

/// Bytes of frames per batch of the store.
const BATCH_BYTES: usize = 256 * 1024;

/// What was found in a damaged partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// First and last position of each sound frame, in order.
    pub(super) frames: Vec<(Position, Position)>,
    /// The end of the newest commit of which anything is left.
    pub(super) end: Position,
}

/// Copies all frames of `source` into `target`, and gives the first and last position of each.
///
/// # Errors
/// When `source` is damaged, or `target` does not take them.
pub(super) fn copy(lane: LaneName, source: &Partition, decoder: &mut Decoder, target: &Partition) -> Result<Found, StoreError> {
    let (mut at, mut found) = (None, Found::default());
    let frames = std::iter::from_fn(|| {
        let stored = next_frame(source, at).transpose()?;
        Some(stored.and_then(|stored| {
            at = Some(stored.first);
            let frame = decoder.decode(lane, stored.first, &stored.parts)?;
            found.frames.push((stored.first, Position { seq: frame.last_seq(), ..stored.first }));
            Ok(stored)
        }))
    });
    insert(target, frames)?;
    Ok(found)
}

/// Inserts `frames` into `target` in batches that the store takes.
///
/// # Errors
/// The first of `frames`, or what the store says.
pub(super) fn insert(target: &Partition, frames: impl Iterator<Item = Result<Stored, StoreError>>) -> Result<(), StoreError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for stored in frames {
        let stored = stored?;
        bytes += stored.parts.iter().map(Vec::len).sum::<usize>();
        batch.push(stored);
        if bytes >= BATCH_BYTES {
            target.insert(std::mem::take(&mut batch), 0, Vec::new())?;
            bytes = 0;
        }
    }
    target.insert(batch, 0, Vec::new())
}

/// The frame that starts after the one at `at`; without it the first of all.
fn next_frame(source: &Partition, at: Option<Position>) -> Result<Option<Stored>, StoreError> {
    let before_all = Position { ordinal: 0, seq: 0 };
    match source.first_after(at.unwrap_or(before_all))? {
        Some(first) => source.frame_at(first),
        None => Ok(None),
    }
}

/// The parts of `ranges` (first and last position each, in order) that no frame of `found` covers.
pub(super) fn lost(ranges: &[(Position, Position)], found: &Found) -> Vec<(Position, Position)> {
    let mut lost = Vec::new();
    for &(first, last) in ranges {
        let mut from = first;
        for &(start, end) in found.frames.iter().filter(|(start, end)| start.ordinal == first.ordinal && *end >= first && *start <= last) {
            if start > from {
                lost.push((from, Position { seq: start.seq - 1, ..start }));
            }
            from = Position { seq: end.seq + 1, ..end };
        }
        if from <= last {
            lost.push((from, last));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ordinal: u32, seq: u64) -> Position {
        Position { ordinal, seq }
    }

    #[test]
    fn what_no_frame_covers_is_lost() {
        let found = Found { frames: vec![(at(1, 5), at(1, 9)), (at(1, 15), at(1, 20)), (at(2, 1), at(2, 3))], ..Found::default() };
        let lost = |ranges: &[(Position, Position)]| lost(ranges, &found);
        assert_eq!(lost(&[(at(1, 1), at(1, 20)), (at(2, 1), at(2, 9))]), [(at(1, 1), at(1, 4)), (at(1, 10), at(1, 14)), (at(2, 4), at(2, 9))]);
        assert_eq!(lost(&[(at(1, 7), at(1, 18)), (at(3, 1), at(3, 1))]), [(at(1, 10), at(1, 14)), (at(3, 1), at(3, 1))]);
        assert_eq!(lost(&[(at(2, 1), at(2, 3))]), []);
    }
}
