//! The durable log: four lanes of entries, each a ring of small append-only databases.
//!
//! Promises: what [`Writer::commit`] has returned for survives a power cut; a [`Reader`] sees nothing above it; a position is never used twice.

use std::fmt;

/// A place in a lane. Incarnations order by their ordinal; within one, `seq` counts from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Ordinal of the incarnation.
    pub ordinal: u32,
    /// Seq in it; 0 stands before the first.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ordinal, self.seq)
    }
}
