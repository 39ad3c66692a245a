//! The durable log: four lanes of entries, each a ring of small append-only databases.
//!
//! ```text
//! <dir>/lock  incarnations.{0,1}  high-water.{0,1}  committed  cursors/<name>.{0,1}
//! <dir>/<lane>/p-<ordinal>-<first seq>/     one partition: header, and a sled database of frames by first seq
//! <dir>/<lane>/dead-…                       one being removed
//! ```
//! Promises: what [`Writer::commit`] has returned for survives a power cut; a [`Reader`] sees nothing above it; a position is never used twice;
//! a record that is missing or damaged is an error that names it, never a silent step.
//!
//! [`Log::open`] gives the [`Log`], which any thread may read, and the one [`Writer`], which normally moves into [`commit::run`]. A partition is
//! made at the first append of an incarnation to a lane and whenever the last is full; one of an earlier incarnation is never written again.
//! Nothing is ever deleted from a database: [`Writer::reclaim`] drops whole directories.
mod barrier;
pub mod commit;
mod counters;
mod cursor;
mod dead;
mod follow;
mod frame;
mod gaps;
mod group;
mod header;
mod incarnation;
mod inspect;
mod lane;
mod ledger;
mod listing;
mod log;
pub mod marks;
mod partition;
mod quarantine;
mod reader;
mod recovery;
mod rewrite;
mod salvage;
mod scratch;
mod seal;
mod small_file;
mod space;
pub mod watch;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod gap_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
pub(crate) mod samples;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use hark_protocol::topics::LaneName;
use rustix::io::Errno;

pub(crate) use self::log::tree_bytes;
pub use self::{
    counters::BufferCounters,
    cursor::{Cursor, stored_cursors},
    follow::{FollowError, Followed, Follower},
    frame::{ENTRY_MAX_BYTES, FrameError},
    gaps::Gap,
    incarnation::{Ended, Incarnation},
    ledger::{Account, Ledger},
    log::{Log, LogSettings},
    partition::StoreError,
    reader::Reader,
    small_file::{SMALL_FILE_MAX_BYTES, SmallFile},
    watch::StoreWatch,
    writer::Writer,
};

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

/// Why what was read cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The store does not open or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store gave a frame that is not what was written.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// Another process has the directory: stop with advice.
    #[error("data directory `{dir}` is in use by another process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A file call failed: full, read-only or failing disk.
    #[error("failed to {operation} `{path}`")]
    Io {
        /// Verb.
        operation: &'static str,
        /// Object.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The agent shall stop, and what waits cannot be committed.
    #[error("what was not acknowledged is not stored: the disk takes nothing, and the agent was asked to stop")]
    Stopped,
    /// The store of a partition failed without being damaged: full, read-only or failing disk.
    #[error("failed to use partition `{partition}`")]
    Store {
        /// Its directory.
        partition: PathBuf,
        /// Cause.
        source: StoreError,
    },
    /// Records of a partition cannot be read back: put it aside and go on behind it.
    #[error("partition `{partition}` of lane {lane} is damaged at {from}")]
    Damaged {
        /// Lane.
        lane: LaneName,
        /// Its directory.
        partition: PathBuf,
        /// First record that is out of reach.
        from: Position,
        /// Cause.
        source: Damage,
    },
    /// Records of one incarnation are not on disk (reclaimed, evicted, put aside) or are named in a gap. Go on after `to`.
    #[error("records {from} to {to} of lane {lane} are missing")]
    Hole {
        /// Lane.
        lane: LaneName,
        /// First missing record.
        from: Position,
        /// Last missing record, of the same incarnation.
        to: Position,
        /// The gap that says so; `None` if none does yet.
        named: Option<Gap>,
    },
    /// The caller must cut it up; nothing was appended.
    #[error("entry of {bytes} bytes exceeds the limit of {ENTRY_MAX_BYTES}")]
    EntryTooLarge {
        /// Encoded size.
        bytes: usize,
    },
    /// An entry does not encode; nothing was appended.
    #[error("failed to encode an entry")]
    Encode(#[source] postcard::Error),
    /// The ordinals of incarnations are used up, or one on disk was forged.
    #[error("no ordinal is left for a new incarnation")]
    OrdinalsExhausted,
}

/// A bad sector, as opposed to a disk that is full or refuses.
fn is_of_medium(error: &io::Error) -> bool {
    [Errno::IO, Errno::BADMSG, Errno::ILSEQ].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl BufferError {
    /// The disk has no room: giving something up may help.
    pub(crate) fn is_full(&self) -> bool {
        self.file_error().is_some_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// The disk refuses for now, whatever is asked of it: full, broken or read-only.
    pub(crate) fn is_of_disk(&self) -> bool {
        let refuses = |error: &io::Error| error.kind() == io::ErrorKind::ReadOnlyFilesystem || is_of_medium(error);
        // Where a small directory can be made nowhere, the disk is told of without its number.
        let nowhere =
            |error: &io::Error| !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied);
        let scratch = matches!(self, Self::Store { source: StoreError::Scratch { source, .. }, .. } if nowhere(source));
        self.is_full() || scratch || self.file_error().is_some_and(refuses)
    }

    /// A sector of it is bad.
    fn is_of_medium(&self) -> bool {
        self.file_error().is_some_and(is_of_medium)
    }

    fn file_error(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Store { source, .. } => source.io(),
            _ => None,
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }
}
