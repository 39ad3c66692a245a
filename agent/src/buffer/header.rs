//! What stands in a partition's directory beside the files of the store, and makes it a partition: its name and its header.
//!
//! The header is written last and whole: a directory with a header counts, and what the header replaces goes.
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use hark_protocol::topics::LaneName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BufferError, Position, is_of_medium, partition::StoreError};

const FILE: &str = "header";
/// Up to where damage has left a partition whose header does not say so.
pub(super) const UNKNOWN: Position = Position { ordinal: u32::MAX, seq: u64::MAX };
/// Where it is written before it counts.
const ASIDE: &str = "header.aside";
const MAGIC: [u8; 4] = *b"HKP2";

/// Which partition of a lane: its first position, which orders them for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) ordinal: u32,
    pub(super) first_seq: u64,
}

impl Key {
    pub(super) fn first(self) -> Position {
        Position { ordinal: self.ordinal, seq: self.first_seq }
    }

    /// Name of its directory; a later generation replaces the earlier ones.
    pub(super) fn directory(self, generation: u16) -> String {
        format!("p-{:08x}-{:016x}-{generation:04x}", self.ordinal, self.first_seq)
    }

    /// The key and generation of a directory name; `None` if it names no partition.
    pub(super) fn parse(name: &str) -> Option<(Self, u16)> {
        let mut fields = name.strip_prefix("p-")?.split('-');
        let key = Self { ordinal: u32::from_str_radix(fields.next()?, 16).ok()?, first_seq: u64::from_str_radix(fields.next()?, 16).ok()? };
        let generation = u16::from_str_radix(fields.next()?, 16).ok()?;
        (key.directory(generation) == name).then_some((key, generation))
    }

    /// The same of the directory at `path`.
    pub(super) fn of(path: &Path) -> Option<(Self, u16)> {
        Self::parse(&path.file_name()?.to_string_lossy())
    }
}

/// Who made a partition; kept in it, so that a directory that strayed in from elsewhere is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) lane: LaneName,
    pub(super) key: Key,
    #[serde(with = "id")]
    pub(super) incarnation: Uuid,
    /// Wall clock when it was made, milliseconds since 1970: everything before it is older.
    pub(super) created_ms: i64,
    /// Directories whose content it took over: they go once this header stands.
    pub(super) replaces: Vec<String>,
    /// Incarnations of which it may hold records, should the register of incarnations be lost.
    pub(super) holds: Vec<(u32, u128)>,
    /// Up to here it is, or was made of, what damage has left: nobody knows what it should hold. Zero if it is whole. Stands behind the other fields.
    #[serde(skip)]
    pub(super) salvaged_to: Position,
}

/// UUIDs as numbers.
mod id {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        id.as_u128().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        u128::deserialize(deserializer).map(Uuid::from_u128)
    }
}

impl Header {
    /// Writes it to `dir`, whole or not at all. Durable once `dir` is synced.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let aside = dir.join(ASIDE);
        let mut file = File::create(&aside)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&aside, dir.join(FILE))
    }

    /// Whether it is that of the partition `key` of `lane`, which begins with a record of `incarnation`. One that was saved without its header and a
    /// register that knew it has no id.
    pub(super) fn is_of(&self, lane: LaneName, key: Key, incarnation: Uuid) -> bool {
        (self.lane, self.key) == (lane, key) && (self.incarnation == incarnation || self.incarnation.is_nil())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(postcard::to_stdvec(self).expect("plain data into growing memory cannot fail"));
        bytes.extend_from_slice(&self.salvaged_to.ordinal.to_le_bytes());
        bytes.extend_from_slice(&self.salvaged_to.seq.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, crc) = bytes.split_last_chunk::<4>()?;
        let sound = crc32c::crc32c(fields).to_le_bytes() == *crc;
        let (header, rest) = postcard::take_from_bytes::<Self>(fields.strip_prefix(&MAGIC)?).ok().filter(|_| sound)?;
        let told = rest.split_first_chunk::<4>().and_then(|(ordinal, seq)| Some((*ordinal, *seq.first_chunk::<8>()?)));
        // Those of earlier builds do not say.
        let salvaged_to = told.map_or(UNKNOWN, |(ordinal, seq)| Position { ordinal: u32::from_le_bytes(ordinal), seq: u64::from_le_bytes(seq) });
        Some(Self { salvaged_to, ..header })
    }
}

/// The header in `dir`.
pub(super) fn read(dir: &Path) -> Result<Header, StoreError> {
    Header::decode(&readable(fs::read(dir.join(FILE)))?).ok_or(StoreError::Header)
}

/// What was read of a small file of a partition. A bad sector in it is damage of the partition: what the records are in may be sound.
pub(super) fn readable(read: io::Result<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    read.map_err(|error| if is_of_medium(&error) { StoreError::Unreadable { pages: 1 } } else { error.into() })
}

/// Whether the partition in `dir` was made completely. If not, nothing was ever committed to it.
pub(super) fn is_complete(dir: &Path) -> Result<bool, BufferError> {
    let path = dir.join(FILE);
    match path.try_exists() {
        // What bears the name of a partition is a plain file.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        answer => answer.map_err(|error| BufferError::io("look for", &path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_it_was_written_to_say() {
        let key = Key { ordinal: 2, first_seq: 100 };
        let (replaces, holds, salvaged_to) = (vec!["p".into()], vec![(3, 9)], Position { ordinal: 4, seq: 5 });
        let header = Header { lane: LaneName::Alarms, key, incarnation: Uuid::from_u128(7), created_ms: 5, replaces, holds, salvaged_to };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Header::decode(&damaged), None, "{at}");
        }
    }

    #[test]
    fn directory_names_and_keys_are_the_same() {
        let key = Key { ordinal: 0x1f, first_seq: 0xabc };
        assert_eq!(key.directory(3), "p-0000001f-0000000000000abc-0003");
        assert_eq!(Key::parse(&key.directory(3)), Some((key, 3)));
        for name in ["p-1f-abc-0", "dead-p-0000001f-0000000000000abc-0000", "p-0000001f-0000000000000ABC-0000", "p-", "lock"] {
            assert_eq!(Key::parse(name), None, "{name}");
        }
    }
}
