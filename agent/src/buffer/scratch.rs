//! A place in memory where a store may do with a partition's file what it likes.
//!
//! sled takes damage for the end of its file: it overwrites what lies behind, syncs that, and says nothing. So it never gets the file itself where it need not
//! write, but a copy in memory. The directory around it lives on the disk until the store is open, and holds a few kilobytes.
use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;

use super::{Position, partition::StoreError, salvage::Raw};

/// Before the name of the directory. What a crash leaves of them is cleared away at the next start.
pub(super) const SCRATCH_PREFIX: &str = "hark-open-";

/// A directory for a store whose file is in memory.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: TempDir,
    /// The file, which is gone once this and the store's own handle are closed.
    file: File,
}

impl Scratch {
    /// An empty one, with its directory in `parent`.
    ///
    /// # Errors
    /// [`StoreError::Scratch`] if `parent` takes no directory, or memory is short.
    pub(super) fn new(parent: &Path) -> Result<Self, StoreError> {
        Self::make(parent).map_err(|source| StoreError::Scratch { parent: parent.to_owned(), source })
    }

    /// A copy of the partition in `dir`, which begins at `first`, and the last record that surely was durable in it.
    ///
    /// # Errors
    /// As [`Self::new`], and what reading says.
    pub(super) fn copy_of(dir: &Path, first: Position, parent: &Path) -> Result<(Self, Position), StoreError> {
        let (conf, raw) = (fs::read(dir.join("conf"))?, Raw::read(dir)?);
        let scratch = Self::new(parent)?;
        let written = fs::write(scratch.path().join("conf"), conf).and_then(|()| (&scratch.file).write_all(raw.bytes()));
        written.map_err(|source| StoreError::Scratch { parent: parent.to_owned(), source })?;
        Ok((scratch, raw.proven(first)))
    }

    fn make(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(parent)?;
        let file = File::from(memfd_create("hark-partition", MemfdFlags::CLOEXEC)?);
        let name = dir.path().join("db");
        symlink(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), &name)?;
        // Without /proc it leads nowhere.
        fs::metadata(&name)?;
        Ok(Self { dir, file })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}
