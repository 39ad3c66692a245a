//! The directory of a partition that is given up: out of sight in one durable step, then removed file by file.
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{BufferError, small_file::sync_dir};

/// Before the name of a directory that is being removed.
pub(super) const DEAD_PREFIX: &str = "dead-";

/// Puts the partition in `dir` out of sight in one durable step, and gives where it lies now. It counts no more, whatever becomes of the rest.
pub(super) fn retire(dir: &Path) -> Result<PathBuf, BufferError> {
    let (parent, name) = (dir.parent().unwrap_or(dir), dir.file_name().unwrap_or_default());
    let dead = parent.join(format!("{DEAD_PREFIX}{}", name.to_string_lossy()));
    fs::rename(dir, &dead).map_err(|error| BufferError::io("retire", dir, error))?;
    sync_dir(parent)?;
    Ok(dead)
}

/// Removes what [`retire`] put out of sight, file by file.
pub(super) fn bury(dead: &Path) -> Result<(), BufferError> {
    fs::remove_dir_all(dead).map_err(|error| BufferError::io("remove", dead, error))
}

/// Removes the partition in `dir` for good.
pub(super) fn remove(dir: &Path) -> Result<(), BufferError> {
    bury(&retire(dir)?)
}
