//! Reading on over what is missing: the way in which inference and forward read a lane.
use std::time::Duration;

use hark_protocol::topics::{GapReason, LaneName};
use tracing::error;

use super::{
    BufferError, Gap, Log, Position, Reader,
    commit::{AppendError, Appender},
};
use crate::{causes, record::Entry};

/// What follows a place in a lane.
#[derive(Debug)]
pub enum Followed {
    /// Records, in order and without holes; none if there are none yet.
    Records(Vec<(Position, Entry)>),
    /// The very next records are lost, and a committed event says so: go on after `to`.
    Gap(Gap),
}

/// Why reading cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The disk refuses.
    #[error("the buffer cannot be read")]
    Buffer(#[from] BufferError),
    /// The commit loop has ended, so a gap cannot be named.
    #[error("a gap cannot be named")]
    Append(#[from] AppendError),
}

/// A reader that has damage put aside and gaps named before it passes them. Not for the thread of the commit loop.
pub struct Follower {
    reader: Reader,
    appender: Appender,
}

impl Follower {
    /// Follows `lane`.
    ///
    /// # Errors
    /// [`BufferError`] if the log refuses a reader.
    pub fn new(log: &Log, lane: LaneName, appender: Appender) -> Result<Self, BufferError> {
        Ok(Self { reader: log.reader(lane)?, appender })
    }

    /// As [`Reader::read`], with a loss that has a name as an answer. Puts nothing right and waits for nobody.
    ///
    /// # Errors
    /// [`BufferError`]
    pub fn look(&mut self, after: Position, max_records: usize, max_bytes: usize) -> Result<Followed, BufferError> {
        match self.reader.read(after, max_records, max_bytes) {
            Ok(records) => Ok(Followed::Records(records)),
            Err(BufferError::Hole { named: Some(gap), .. }) => Ok(Followed::Gap(gap)),
            Err(error) => Err(error),
        }
    }

    /// The same, but a damaged partition is put into quarantine, what it lost is named, and the answer is then [`Followed::Gap`]. Blocks until the
    /// commit loop has done so.
    ///
    /// # Errors
    /// [`FollowError`]; a reading disk may work at another try.
    pub fn read(&mut self, after: Position, max_records: usize, max_bytes: usize) -> Result<Followed, FollowError> {
        loop {
            match self.look(after, max_records, max_bytes) {
                Ok(followed) => return Ok(followed),
                Err(BufferError::Hole { lane, from, to, named: None }) => {
                    error!(lane = lane.as_str(), %from, %to, "records are missing from the buffer");
                    self.appender.blocking_name_gap(lane, from, to, GapReason::TornTail)?;
                }
                Err(BufferError::Damaged { lane, partition, from, source }) => {
                    error!(lane = lane.as_str(), partition = %partition.display(), %from, error = %causes::chain(&source), "a partition of the buffer is damaged");
                    self.appender.blocking_quarantine(lane, from)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How long to wait before a read that failed is tried again.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);
}
