//! The local mark: up to where Kafka has acknowledged each lane, in one small file on this disk.
//!
//! Kafka's own cursor is the authority. The mark serves where Kafka has none: after the brokers forgot it, which they do days after the last commit,
//! and on clusters without transactions. It also frees space, since only what is stored here is given back. It may be behind, never ahead. Every store
//! costs flash, so it waits for a pause, for half a minute, or for megabytes that reclaim waits for.
use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cursor::PerLane;
use crate::buffer::{BufferError, Position, SmallFile};

const FILE: &str = "forward";
const VERSION: u8 = 1;
const IDLE_FOR: Duration = Duration::from_secs(1);
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// JSON is some five times as large as the log's own encoding: this is 4 MiB of the log.
const AFTER_BYTES: usize = 20 << 20;

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// Acknowledged places; `None` before the first.
    lanes: Option<PerLane<Position>>,
    /// The incarnation of another disk from which this one took over, so that it is told once.
    taken_over: Option<[u8; 16]>,
}

/// The mark, and what of it is not stored yet.
#[derive(Debug)]
pub struct Mark {
    file: SmallFile,
    stored: Content,
    present: Content,
    bytes: usize,
    moved_at: Duration,
    stored_at: Duration,
}

impl Mark {
    /// Opens it in the data directory `dir`.
    ///
    /// # Errors
    /// If the disk cannot be read. A damaged mark is an absent one.
    pub fn open(dir: &Path, now: Duration) -> Result<Self, BufferError> {
        let (file, content) = SmallFile::open(dir, FILE)?;
        let stored: Content = content.as_deref().and_then(decode).unwrap_or_default();
        Ok(Self { file, present: stored.clone(), stored, bytes: 0, moved_at: now, stored_at: now })
    }

    /// The stored places.
    pub fn lanes(&self) -> Option<PerLane<Position>> {
        self.stored.lanes
    }

    /// Kafka has the lanes up to here, `bytes` of JSON further.
    pub fn moved(&mut self, lanes: PerLane<Position>, bytes: usize, now: Duration) {
        self.present.lanes = Some(lanes);
        self.bytes += bytes;
        self.moved_at = now;
    }

    /// Whether this disk took over from `incarnation` already.
    pub fn has_taken_over(&self, incarnation: Uuid) -> bool {
        self.present.taken_over == Some(incarnation.into_bytes())
    }

    /// This disk took over from `incarnation`.
    pub fn take_over(&mut self, incarnation: Uuid) {
        self.present.taken_over = Some(incarnation.into_bytes());
    }

    /// Whether it is time to store it.
    pub fn is_due(&self, now: Duration) -> bool {
        let waited = now.saturating_sub(self.stored_at) >= AT_LEAST_EVERY;
        let idle = now.saturating_sub(self.moved_at) >= IDLE_FOR;
        self.present != self.stored && (idle || waited || self.bytes >= AFTER_BYTES)
    }

    /// Stores it, durably, if it changed.
    ///
    /// # Errors
    /// What the disk says; the previous mark then still stands.
    pub fn store(&mut self, now: Duration) -> Result<(), BufferError> {
        if self.present != self.stored {
            self.file.store(&encode(&self.present))?;
            self.stored = self.present.clone();
        }
        (self.bytes, self.stored_at) = (0, now);
        Ok(())
    }
}

/// The places that are stored in the data directory `dir`.
///
/// # Errors
/// If the disk cannot be read.
pub fn stored(dir: &Path) -> Result<Option<PerLane<Position>>, BufferError> {
    Ok(Mark::open(dir, Duration::ZERO)?.lanes())
}

fn encode(content: &Content) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(content).expect("numbers encode"));
    bytes
}

fn decode(bytes: &[u8]) -> Option<Content> {
    let (&VERSION, content) = bytes.split_first()? else { return None };
    postcard::from_bytes(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seq: u64) -> PerLane<Position> {
        [Position { ordinal: 3, seq }; 4]
    }

    #[test]
    fn it_is_found_as_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path(), SECOND).unwrap();
        assert_eq!(mark.lanes(), None);
        mark.moved(at(7), 1, SECOND);
        mark.take_over(Uuid::from_bytes([9; 16]));
        assert_eq!(Mark::open(dir.path(), SECOND).unwrap().lanes(), None);
        mark.store(SECOND).unwrap();
        let mark = Mark::open(dir.path(), SECOND).unwrap();
        assert_eq!(mark.lanes(), Some(at(7)));
        assert!(mark.has_taken_over(Uuid::from_bytes([9; 16])) && !mark.has_taken_over(Uuid::from_bytes([8; 16])));
    }

    #[test]
    fn it_is_stored_seldom_enough_for_flash_and_often_enough_for_reclaim() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path(), Duration::ZERO).unwrap();
        assert!(!mark.is_due(SECOND * 100), "nothing moved");
        mark.moved(at(1), 100, SECOND * 100);
        assert!(mark.is_due(SECOND * 100), "nothing was stored for long");
        mark.store(SECOND * 100).unwrap();
        mark.moved(at(2), 100, SECOND * 101);
        assert!(!mark.is_due(SECOND * 101) && mark.is_due(SECOND * 102));
        // Never idle.
        mark.moved(at(3), 100, SECOND * 129);
        assert!(!mark.is_due(SECOND * 129));
        mark.moved(at(4), 100, SECOND * 130);
        assert!(mark.is_due(SECOND * 130));
        mark.store(SECOND * 130).unwrap();
        mark.moved(at(5), AFTER_BYTES, SECOND * 130);
        assert!(mark.is_due(SECOND * 130));
    }
}
