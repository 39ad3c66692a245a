//! Named places in lanes: how far inference or forward has come.
//!
//! A cursor that is behind costs repeated work, never a record: readers of it must tolerate a step back to the older generation.
use std::{collections::BTreeMap, fs, path::Path};

use super::{BufferError, Position, small_file::SmallFile};

/// A named cursor. One owner per name; it is durable when [`Cursor::store`] returns.
#[derive(Debug)]
pub struct Cursor {
    file: SmallFile,
    position: Option<Position>,
}

impl Cursor {
    /// Opens cursor `name` (`a`-`z`, `0`-`9`, `-`) in `dir`, which exists.
    ///
    /// # Panics
    /// If `name` holds anything else: names are ours, not the world's.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Self, BufferError> {
        assert!(!name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')), "cursor name `{name}`");
        let (file, content) = SmallFile::open(dir, name)?;
        Ok(Self { file, position: content.as_deref().and_then(decode) })
    }

    /// Where it stands; `None` if it was never stored (or lost with both generations).
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Moves it, durably. Costs two disk syncs: at most once a second, please.
    pub fn store(&mut self, position: Position) -> Result<(), BufferError> {
        self.file.store(&encode(position))?;
        self.position = Some(position);
        Ok(())
    }
}

/// The highest ordinal that any cursor in `dir` names; 0 without cursors.
pub(super) fn highest_ordinal(dir: &Path) -> Result<u32, BufferError> {
    Ok(stored_cursors(dir)?.into_values().flatten().map(|position| position.ordinal).max().unwrap_or(0))
}

/// All cursors in `dir` by name, as they are stored; none if the directory is absent.
pub fn stored_cursors(dir: &Path) -> Result<BTreeMap<String, Option<Position>>, BufferError> {
    let mut cursors = BTreeMap::new();
    if !dir.exists() {
        return Ok(cursors);
    }
    for entry in fs::read_dir(dir).map_err(|error| BufferError::io("list", dir, error))? {
        let name = entry.map_err(|error| BufferError::io("list", dir, error))?.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".0").or_else(|| name.strip_suffix(".1"))) else { continue };
        let (_, content) = SmallFile::open(dir, stem)?;
        cursors.insert(stem.to_owned(), content.as_deref().and_then(decode));
    }
    Ok(cursors)
}

fn encode(position: Position) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&position.ordinal.to_le_bytes());
    bytes[4..].copy_from_slice(&position.seq.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (ordinal, seq) = bytes.split_at_checked(4)?;
    Some(Position { ordinal: u32::from_le_bytes(ordinal.try_into().ok()?), seq: u64::from_le_bytes(seq.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_found_where_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(dir.path(), "forward-inputs").unwrap();
        assert_eq!(cursor.position(), None);
        cursor.store(Position { ordinal: 7, seq: 1 << 40 }).unwrap();
        assert_eq!(Cursor::open(dir.path(), "forward-inputs").unwrap().position(), Some(Position { ordinal: 7, seq: 1 << 40 }));
        assert_eq!(highest_ordinal(dir.path()).unwrap(), 7);
    }

    #[test]
    fn a_damaged_cursor_steps_back_one_store() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(dir.path(), "inference").unwrap();
        for seq in 1..=3 {
            cursor.store(Position { ordinal: 1, seq }).unwrap();
        }
        fs::write(dir.path().join("inference.1"), b"torn").unwrap();
        assert_eq!(Cursor::open(dir.path(), "inference").unwrap().position(), Some(Position { ordinal: 1, seq: 2 }));
    }

    #[test]
    #[should_panic(expected = "cursor name")]
    fn a_name_is_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let _cursor = Cursor::open(dir.path(), "../x");
    }
}
