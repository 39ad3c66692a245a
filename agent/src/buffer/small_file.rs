//! A small file that survives a power cut: cursors, the history of incarnations, checkpoints.
//!
//! Two generations lie beside each other, `<name>.0` and `<name>.1`. A store replaces the older one (written aside, fsynced, renamed, directory
//! fsynced), so the newer one stays whole until its successor is. A load takes the newest generation whose CRC-32C is right.
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{BufferError, barrier};
use crate::causes;

const MAGIC: [u8; 4] = *b"HKS1";
/// Magic, generation, length, CRC-32C of all the rest.
const HEADER_BYTES: usize = 4 + 8 + 4 + 4;

/// Most bytes a small file may hold where nothing else is said.
pub const SMALL_FILE_MAX_BYTES: usize = 16 << 20;

/// A small file under a directory that exists.
#[derive(Debug)]
pub struct SmallFile {
    dir: PathBuf,
    name: String,
    max_bytes: usize,
    generation: u64,
}

impl SmallFile {
    /// Opens `<dir>/<name>` and gives its newest sound content, `None` if there is none (never stored, or both generations damaged).
    /// Fails only if the disk cannot be read.
    pub fn open(dir: &Path, name: &str) -> Result<(Self, Option<Vec<u8>>), BufferError> {
        Self::open_up_to(dir, name, SMALL_FILE_MAX_BYTES)
    }

    /// The same for a file of up to `max_bytes`; whoever opens it later must allow as many.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_up_to(dir: &Path, name: &str, max_bytes: usize) -> Result<(Self, Option<Vec<u8>>), BufferError> {
        let mut file = Self { dir: dir.to_owned(), name: name.to_owned(), max_bytes, generation: 0 };
        let (mut newest, mut unread) = (None, None);
        for slot in 0..2 {
            match read_generation(&file.slot(slot), max_bytes) {
                Ok(Some((generation, content))) if generation >= file.generation => {
                    file.generation = generation;
                    newest = Some(content);
                }
                Ok(_) => {}
                // A bad sector is no more than a damaged generation, as long as the other one can be read.
                Err(error) => drop(unread.insert(error)),
            }
        }
        match unread {
            Some(error) if newest.is_none() || !error.is_of_medium() => Err(error),
            Some(error) => {
                tracing::warn!(error = %causes::chain(&error), "a generation of a small file that cannot be read is passed over");
                Ok((file, newest))
            }
            None => Ok((file, newest)),
        }
    }

    /// The same for a file that says nothing that cannot be had otherwise: where the disk does not give it, it counts as never stored.
    ///
    /// # Errors
    /// As [`Self::open`], but for bad sectors.
    pub fn open_hint(dir: &Path, name: &str) -> Result<(Self, Option<Vec<u8>>), BufferError> {
        match Self::open(dir, name) {
            Err(error) if error.is_of_medium() => {
                tracing::warn!(error = %causes::chain(&error), "a small file that cannot be read counts as never stored");
                Ok((Self { dir: dir.to_owned(), name: name.to_owned(), max_bytes: SMALL_FILE_MAX_BYTES, generation: 0 }, None))
            }
            opened => opened,
        }
    }

    /// Replaces the content; when this returns it survives a power cut.
    ///
    /// # Errors
    /// The disk refused, or `content` is longer than the file may be; the previous content then still stands.
    pub fn store(&mut self, content: &[u8]) -> Result<(), BufferError> {
        let path = self.slot((self.generation + 1) % 2);
        if content.len() > self.max_bytes {
            return Err(BufferError::io("store", &path, io::Error::new(io::ErrorKind::FileTooLarge, "content exceeds the limit of a small file")));
        }
        let aside = self.dir.join(format!("{}.aside", self.name));
        let bytes = encode(self.generation + 1, content);
        let written = File::create(&aside).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(|error| BufferError::io("write", &aside, error))?;
        fs::rename(&aside, &path).map_err(|error| BufferError::io("replace", &path, error))?;
        sync_dir(&self.dir)?;
        self.generation += 1;
        Ok(())
    }

    fn slot(&self, slot: u64) -> PathBuf {
        self.dir.join(format!("{}.{slot}", self.name))
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), BufferError> {
    barrier::sync_all(dir).map_err(|error| BufferError::io("sync", dir, error))
}

fn encode(generation: u64, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("checked against the limit of the file, which is below 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), content);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// The generation and content of one slot; `None` if it is absent or not sound.
fn read_generation(path: &Path, max_bytes: usize) -> Result<Option<(u64, Vec<u8>)>, BufferError> {
    let bytes = match fs::metadata(path).and_then(|meta| if meta.len() > (max_bytes + HEADER_BYTES) as u64 { Ok(Vec::new()) } else { fs::read(path) })
    {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BufferError::io("read", path, error)),
    };
    let sound = decode(&bytes);
    if sound.is_none() {
        tracing::warn!(path = %path.display(), "damaged generation of a small file passed over");
    }
    Ok(sound)
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (header, content) = bytes.split_at_checked(HEADER_BYTES)?;
    let (covered, crc) = header.split_at(HEADER_BYTES - 4);
    let generation = u64::from_le_bytes(covered[4..12].try_into().ok()?);
    let length = u32::from_le_bytes(covered[12..16].try_into().ok()?);
    let sound =
        covered[..4] == MAGIC && length as usize == content.len() && crc32c::crc32c_append(crc32c::crc32c(covered), content).to_le_bytes() == crc;
    sound.then(|| (generation, content.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(dir: &Path) -> Option<Vec<u8>> {
        SmallFile::open(dir, "cursor").unwrap().1
    }

    #[test]
    fn the_last_store_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let (mut file, _) = SmallFile::open(dir.path(), "cursor").unwrap();
        for n in 0..5_u8 {
            file.store(&[n; 3]).unwrap();
            assert_eq!(load(dir.path()), Some(vec![n; 3]));
        }
    }

    #[test]
    fn every_flipped_byte_of_the_newest_generation_falls_back_to_the_older() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = SmallFile::open(dir.path(), "cursor").unwrap();
        file.store(b"older").unwrap();
        file.store(b"newest").unwrap();
        let newest = dir.path().join("cursor.0");
        let good = fs::read(&newest).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&newest, bad).unwrap();
            assert_eq!(load(dir.path()), Some(b"older".to_vec()), "byte {at}");
        }
        fs::write(&newest, &good[..good.len() - 1]).unwrap();
        assert_eq!(load(dir.path()), Some(b"older".to_vec()));
    }

    #[test]
    fn a_store_after_a_fallback_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = SmallFile::open(dir.path(), "cursor").unwrap();
        for content in [b"1", b"2", b"3"] {
            file.store(content).unwrap();
        }
        fs::write(dir.path().join("cursor.1"), b"").unwrap();
        let (mut file, content) = SmallFile::open(dir.path(), "cursor").unwrap();
        assert_eq!(content, Some(b"2".to_vec()));
        file.store(b"4").unwrap();
        assert_eq!(load(dir.path()), Some(b"4".to_vec()));
    }

    #[test]
    fn what_a_file_may_hold_is_said_by_who_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = SmallFile::open_up_to(dir.path(), "cursor", 5).unwrap();
        file.store(b"12345").unwrap();
        assert!(file.store(b"123456").is_err());
        assert_eq!(SmallFile::open_up_to(dir.path(), "cursor", 5).unwrap().1, Some(b"12345".to_vec()));
    }

    #[test]
    fn both_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for slot in 0..2 {
            fs::write(dir.path().join(format!("cursor.{slot}")), b"junk").unwrap();
        }
        assert_eq!(load(dir.path()), None);
    }
}
