//! The directory of a partition that is given up: out of sight in one step, then removed file by file.
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{BufferError, small_file::sync_dir};
use crate::causes;

/// Before the name of a directory that is being removed.
pub(super) const DEAD_PREFIX: &str = "dead-";

/// Names that are tried for it.
const NAMES: u32 = 1_000;

/// Puts the partition in `dir` out of sight, and gives where it lies now. It counts no more, whatever becomes of the rest.
///
/// # Errors
/// When the disk refuses; the partition then stays what it was.
pub(super) fn retire(dir: &Path) -> Result<PathBuf, BufferError> {
    let (parent, name) = (dir.parent().unwrap_or(dir), dir.file_name().unwrap_or_default().to_string_lossy());
    // One that could not be buried, of a try before, may have the name.
    let mut names = (0..NAMES).map(|n| parent.join(if n == 0 { format!("{DEAD_PREFIX}{name}") } else { format!("{DEAD_PREFIX}{name}.{n}") }));
    let dead = names.find(|dead| fs::symlink_metadata(dead).is_err_and(|error| error.kind() == ErrorKind::NotFound)).unwrap_or_default();
    #[cfg(test)]
    if refused().contains(dir) {
        return Err(BufferError::io("retire", dir, rustix::io::Errno::IO.into()));
    }
    fs::rename(dir, &dead).map_err(|error| BufferError::io("retire", dir, error))?;
    tell_unsynced(sync_dir(parent));
    Ok(dead)
}

/// A directory whose entry was changed, and that cannot be synced, has changed all the same: to do it again would fail for ever. A power cut may bring back
/// what was there: then it is met as at any start, and the gaps that were named stand.
pub(super) fn tell_unsynced(synced: Result<(), BufferError>) {
    if let Err(error) = synced {
        tracing::warn!(error = %causes::chain(&error), "a power cut now may bring back what was given up");
    }
}

/// Removes what [`retire`] put out of sight, file by file.
pub(super) fn bury(dead: &Path) -> Result<(), BufferError> {
    let removed = if fs::symlink_metadata(dead).is_ok_and(|meta| meta.is_dir()) { fs::remove_dir_all(dead) } else { fs::remove_file(dead) };
    removed.map_err(|error| BufferError::io("remove", dead, error))
}

/// Removes the partition in `dir` for good.
pub(super) fn remove(dir: &Path) -> Result<(), BufferError> {
    bury(&retire(dir)?)
}

#[cfg(test)]
static REFUSED: std::sync::Mutex<std::collections::BTreeSet<PathBuf>> = std::sync::Mutex::new(std::collections::BTreeSet::new());

#[cfg(test)]
fn refused() -> std::sync::MutexGuard<'static, std::collections::BTreeSet<PathBuf>> {
    REFUSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// From now on the disk does not let `dir` be retired.
#[cfg(test)]
pub(super) fn refuse(dir: &Path) {
    refused().insert(dir.to_owned());
}

/// Now it does.
#[cfg(test)]
pub(super) fn allow(dir: &Path) {
    refused().remove(dir);
}
