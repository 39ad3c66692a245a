//! The agent's log in a directory that lasts as long as the replay: what inference reads here went through the same frames as in `hark run`.
use hark_protocol::topics::LaneName;
use tempfile::TempDir;

use super::ReplayError;
use crate::{
    buffer::{Log, LogSettings, Position, Reader, Writer},
    record::Entry,
};

/// Small partitions, so that little of a long file is on disk at a time.
const QUOTA_BYTES: u64 = 32 << 20;
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 1 << 20;

/// A log with one writer and one reader.
pub(super) struct Journal {
    reader: Reader,
    writer: Writer,
    at: Position,
    /// Removed last, when the log is closed.
    _dir: TempDir,
}

impl Journal {
    pub(super) fn open() -> Result<Self, ReplayError> {
        let dir = TempDir::with_prefix("hark-replay-").map_err(ReplayError::Directory)?;
        let (log, writer) = Log::open(dir.path(), LogSettings::new(QUOTA_BYTES))?;
        Ok(Self { reader: log.reader(LaneName::Inputs)?, at: log.start(LaneName::Inputs), writer, _dir: dir })
    }

    /// Appends `entries`; [`Self::read`] gives them back.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), ReplayError> {
        self.writer.append_all(LaneName::Inputs, entries, &[])?;
        self.writer.commit()?;
        Ok(())
    }

    /// The next records, in order; empty at the end of what was appended. What was read before leaves the disk.
    pub(super) fn read(&mut self) -> Result<Vec<(Position, Entry)>, ReplayError> {
        self.writer.reclaim(LaneName::Inputs, self.at)?;
        let records = self.reader.read(self.at, READ_RECORDS, READ_BYTES)?;
        if let Some((position, _)) = records.last() {
            self.at = *position;
        }
        Ok(records)
    }
}
