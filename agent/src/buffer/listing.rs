//! What lies in the directory of a lane: partitions that count, and what is left of work that was cut off.
use std::{
    cmp::Reverse,
    fs, io,
    path::{Path, PathBuf},
};

use hark_protocol::topics::LaneName;

use super::{
    BufferError, dead,
    header::{self, Key},
    salvage::Raw,
    scratch::SCRATCH_PREFIX,
};

/// A partition's directory: which one, and where.
pub(super) type Listed = (Key, u16, PathBuf);

/// The directories of a lane.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Partitions, in order, of each the newest generation first.
    pub(super) counting: Vec<Listed>,
    /// Partitions that were being made: nothing was ever committed to them.
    pub(super) unfinished: Vec<PathBuf>,
    /// Out of sight already, and small directories of the store: of no use to anyone.
    pub(super) dead: Vec<PathBuf>,
}

impl Listing {
    /// Lists `dir`, which may be absent. Changes nothing.
    pub(super) fn of(dir: &Path, lane: LaneName) -> Result<Self, BufferError> {
        let failed = |error| BufferError::io("list", dir, error);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let (mut listing, mut headless) = (Self::default(), Vec::new());
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if [dead::DEAD_PREFIX, SCRATCH_PREFIX].iter().any(|prefix| name.starts_with(prefix)) {
                listing.dead.push(path.clone());
            } else if let Some((key, generation)) = Key::parse(&name) {
                let listed = (key, generation, path.clone());
                if header::is_complete(&path)? { listing.counting.push(listed) } else { headless.push(listed) }
            }
        }
        listing.take(headless, lane)?;
        listing.counting.sort_by_key(|(key, generation, _)| (*key, Reverse(*generation)));
        Ok(listing)
    }

    /// Of directories without a header those that lost it: a partition is filled before it gets one only where it takes the place of another, which then is
    /// still there. The first generation has the records, a later one was to take its place.
    fn take(&mut self, mut headless: Vec<Listed>, lane: LaneName) -> Result<(), BufferError> {
        headless.sort_by_key(|(key, generation, _)| (*key, *generation));
        for (key, generation, path) in headless {
            let is_there = self.counting.iter().any(|(other, ..)| *other == key);
            if !is_there && holds_records(&path, key, lane)? {
                tracing::warn!(lane = lane.as_str(), partition = %path.display(), "a partition has lost its header");
                self.counting.push((key, generation, path));
            } else {
                self.unfinished.push(path);
            }
        }
        Ok(())
    }
}

/// Whether there are records of `lane` in the file of the partition in `path`.
///
/// # Errors
/// When the disk does not say: nothing is given up on that.
fn holds_records(path: &Path, key: Key, lane: LaneName) -> Result<bool, BufferError> {
    match Raw::read(path) {
        Ok(raw) => Ok(raw.has_records_of(lane, key.first())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory) => Ok(false),
        Err(error) => Err(BufferError::io("read", path, error)),
    }
}

/// Of each key the newest generation that was made completely, though its header may be damaged since; without such a one the newest, whose damage is met
/// when it is opened. The others are given up: a later generation took over what they hold, or was not made completely.
///
/// # Errors
/// When the disk does not say.
pub(super) fn newest_of_each(counting: Vec<Listed>, lane: LaneName) -> Result<(Vec<Listed>, Vec<PathBuf>), BufferError> {
    let (mut kept, mut replaced) = (Vec::with_capacity(counting.len()), Vec::new());
    for same in counting.chunk_by(|(one, ..), (other, ..)| one == other) {
        let mut best = 0;
        if same.len() > 1 {
            // Its content was durable before its header stood.
            let is_complete = |(key, _, path): &Listed| Ok(header::read(path).is_ok() || holds_records(path, *key, lane)?);
            let complete = same.iter().map(is_complete).collect::<Result<Vec<bool>, BufferError>>()?;
            best = complete.iter().position(|complete| *complete).unwrap_or(0);
        }
        replaced.extend(same.iter().enumerate().filter(|(at, _)| *at != best).map(|(_, (.., path))| path.clone()));
        kept.push(same[best].clone());
    }
    Ok((kept, replaced))
}
