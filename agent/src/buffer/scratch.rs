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

use super::{Position, header, partition::StoreError, salvage::Raw};

/// Before the name of the directory. What a crash leaves of them is cleared away at the next start.
pub(super) const SCRATCH_PREFIX: &str = "hark-open-";

/// A directory for a store whose file is in memory.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: TempDir,
    /// The file, which is gone once this and the store's own handle are closed.
    file: File,
}

/// Where the small directory may be, in the order of preference: a full disk must not keep a partition from being read, which makes room.
pub(super) fn places(first: &Path) -> Vec<PathBuf> {
    vec![first.to_owned(), PathBuf::from("/dev/shm"), std::env::temp_dir()]
}

/// So much the store may write when it opens: its snapshot. It takes a disk that refuses that for damage.
const ROOM_BYTES: usize = 256 * 1024;

impl Scratch {
    /// An empty one, with its directory in the first of `places` that takes it.
    ///
    /// # Errors
    /// [`StoreError::Scratch`] of the first one if none does, or memory is short.
    pub(super) fn new(places: &[PathBuf]) -> Result<Self, StoreError> {
        let mut refused = None;
        for place in places {
            match Self::make(place) {
                Ok(scratch) => return Ok(scratch),
                Err(source) => drop(refused.get_or_insert(StoreError::Scratch { parent: place.clone(), source })),
            }
        }
        Err(refused.unwrap_or_else(|| StoreError::Scratch { parent: PathBuf::new(), source: io::ErrorKind::NotFound.into() }))
    }

    /// A copy of the partition in `dir`, which begins at `first`, and the last record that surely was durable in it.
    ///
    /// # Errors
    /// As [`Self::new`], and what reading says.
    pub(super) fn copy_of(dir: &Path, first: Position, places: &[PathBuf]) -> Result<(Self, Position), StoreError> {
        let (conf, raw) = (header::readable(fs::read(dir.join("conf")))?, Raw::read(dir)?);
        if raw.unreadable() > 0 {
            return Err(StoreError::Unreadable { pages: raw.unreadable() });
        }
        let scratch = Self::new(places)?;
        let written = fs::write(scratch.path().join("conf"), conf).and_then(|()| (&scratch.file).write_all(raw.bytes()));
        written.map_err(|source| StoreError::Scratch { parent: scratch.path().to_owned(), source })?;
        Ok((scratch, raw.proven(first)))
    }

    fn make(place: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(place)?;
        let room = dir.path().join("room");
        fs::write(&room, vec![0; ROOM_BYTES])?;
        fs::remove_file(room)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_place_serves_where_the_first_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        let scratch = Scratch::new(&[absent.clone(), dir.path().to_owned()]).unwrap();
        assert_eq!(scratch.path().parent(), Some(dir.path()));
        let refused = Scratch::new(std::slice::from_ref(&absent)).unwrap_err();
        assert!(matches!(&refused, StoreError::Scratch { parent, .. } if *parent == absent) && !refused.is_damage(), "{refused:?}");
        drop(scratch);
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
