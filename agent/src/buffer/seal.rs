//! The envelope of everything that the store keeps: what it is, where it belongs, how long it is, and a checksum over all of it.
//!
//! It makes a value one that is found again without the store, in the bytes of its file: a store that meets damage gives up everything behind it, or
//! all of it. All numbers little endian:
//! ```text
//! version u8 | lane u8 | part u16 | parts u16 | ordinal u32 | first_seq u64 | count u32 | raw_bytes u32 | before u32 | after u32 | bytes u16 | crc32c u32 | content
//! ```
//! `bytes` is the length of the content. The CRC covers everything else. `before` and `after` count the records of the same commit around this frame:
//! that a commit began is the proof that all before it was durable.
use std::ops::Range;

use hark_protocol::topics::LaneName;

use super::Position;

const VERSION: u8 = 2;
/// In the place of a lane: marks, not records. `first_seq` then is the place of their commit among those of the partition.
const MARKS: u8 = 0xff;
const HEADER_BYTES: usize = 40;
const CRC_AT: usize = HEADER_BYTES - 4;
const BYTES_AT: usize = CRC_AT - 2;

/// The largest content of a value.
const CONTENT_MAX_BYTES: usize = super::frame::FRAME_MAX_BYTES;

/// Bytes that the envelope takes.
pub(super) const SEAL_BYTES: usize = HEADER_BYTES;

/// Why bytes are no sealed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than the header says.
    #[error("cut short")]
    Short,
    /// Written by a newer agent, or never sealed.
    #[error("version {0} is unknown")]
    Version(u8),
    /// Something changed.
    #[error("checksum is wrong")]
    Checksum,
}

/// What is said of the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) lane: u8,
    pub(super) part: u16,
    pub(super) parts: u16,
    pub(super) ordinal: u32,
    pub(super) first_seq: u64,
    pub(super) count: u32,
    pub(super) raw_bytes: u32,
    pub(super) before: u32,
    pub(super) after: u32,
}

impl Header {
    /// Of part `part` of the marks of the commit `at`.
    pub(super) fn of_marks(at: u32, part: u16) -> Self {
        Self { lane: MARKS, part, first_seq: at.into(), ..Self::default() }
    }

    pub(super) fn is_of_marks(&self) -> bool {
        self.lane == MARKS
    }

    /// The place of its commit, of marks.
    pub(super) fn marks_at(&self) -> u32 {
        u32::try_from(self.first_seq).unwrap_or(u32::MAX)
    }

    /// Its first record.
    pub(super) fn first(&self) -> Position {
        Position { ordinal: self.ordinal, seq: self.first_seq }
    }

    /// Its last record.
    pub(super) fn last(&self) -> Position {
        self.at(self.first_seq.saturating_add(self.count.into()).saturating_sub(1))
    }

    /// The last record before its commit: durable, or that commit would not have begun.
    pub(super) fn proven(&self) -> Position {
        self.at(self.first_seq.saturating_sub(self.before.into()).saturating_sub(1))
    }

    /// The last record of its commit.
    pub(super) fn commit_end(&self) -> Position {
        self.at(self.last().seq.saturating_add(self.after.into()))
    }

    fn at(&self, seq: u64) -> Position {
        Position { ordinal: self.ordinal, seq }
    }

    /// The sealed value. `content` is at most [`CONTENT_MAX_BYTES`].
    pub(super) fn seal(self, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
        bytes.extend_from_slice(&[VERSION, self.lane]);
        bytes.extend_from_slice(&self.part.to_le_bytes());
        bytes.extend_from_slice(&self.parts.to_le_bytes());
        bytes.extend_from_slice(&self.ordinal.to_le_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        for number in [self.count, self.raw_bytes, self.before, self.after] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        debug_assert!(content.len() <= CONTENT_MAX_BYTES, "it would not be found again");
        bytes.extend_from_slice(&u16::try_from(content.len()).expect("a value of the store is far smaller").to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), content);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    /// The first sealed value in `bytes`: what it says, its content, and what follows it.
    pub(super) fn open(bytes: &[u8]) -> Result<(Self, &[u8], &[u8]), SealError> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(SealError::Short)?;
        if head[0] != VERSION {
            return Err(SealError::Version(head[0]));
        }
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (content, rest) = rest.split_at_checked(u16_at(BYTES_AT).into()).ok_or(SealError::Short)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..CRC_AT]), content) != u32_at(CRC_AT) {
            return Err(SealError::Checksum);
        }
        let first_seq = u64::from(u32_at(10)) | u64::from(u32_at(14)) << 32;
        let [count, raw_bytes, before, after] = [18, 22, 26, 30].map(u32_at);
        let header = Self { lane: head[1], part: u16_at(2), parts: u16_at(4), ordinal: u32_at(6), first_seq, count, raw_bytes, before, after };
        Ok((header, content, rest))
    }
}

/// Whether a value of the store begins with marks; unchecked.
pub(super) fn begins_with_marks(value: &[u8]) -> bool {
    value.get(1) == Some(&MARKS)
}

/// Whether the bytes may be a value that Hark has sealed: its lane and its length can be.
fn is_plausible(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
    let content = usize::from(u16::from_le_bytes([head[BYTES_AT], head[BYTES_AT + 1]]));
    content <= CONTENT_MAX_BYTES && (usize::from(head[1]) < LaneName::ALL.len() || head[1] == MARKS)
}

/// All sealed values anywhere in `bytes`, and where they lie there, in order.
pub(super) fn find_all(bytes: &[u8]) -> impl Iterator<Item = (Header, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += bytes.get(at..)?.iter().position(|byte| *byte == VERSION)?;
            let found = &bytes[at..];
            // Any 256th byte looks like a begin: a checksum over what it says would take most of the time of a start.
            let Some((header, _, rest)) = is_plausible(found).then(|| Header::open(found).ok()).flatten() else {
                at += 1;
                continue;
            };
            let end = bytes.len() - rest.len();
            return Some((header, std::mem::replace(&mut at, end)..end));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { lane: 2, part: 1, parts: 3, ordinal: 0x0403_0201, first_seq: 0x0807_0605_0403_0201, count: 9, raw_bytes: 77, before: 4, after: 5 };

    /// The stored bytes are frozen per version: if this fails, the change is wrong, or the version must rise.
    #[test]
    fn the_bytes_of_version_2_stay_as_they_are() {
        let hex: String = HEADER.seal(b"piece").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "020201000300010203040102030405060708090000004d00000004000000050000000500616e24197069656365");
        assert_eq!(Header::open(&HEADER.seal(b"piece")), Ok((HEADER, &b"piece"[..], &b""[..])));
    }

    #[test]
    fn a_header_tells_what_its_commit_proves() {
        let header = Header { ordinal: 7, first_seq: 100, ..HEADER };
        let at = |seq| Position { ordinal: 7, seq };
        assert_eq!([header.proven(), header.first(), header.last(), header.commit_end()], [95, 100, 108, 113].map(at));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let mut sealed = HEADER.seal(&[7; 50]);
        for at in 0..sealed.len() {
            sealed[at] ^= 0x20;
            assert!(Header::open(&sealed).is_err(), "byte {at}");
            sealed[at] ^= 0x20;
        }
    }

    #[test]
    fn sealed_values_are_found_among_anything() {
        let (one, other) = (HEADER.seal(&[VERSION; 300]), Header::of_marks(4, 0).seal(b""));
        let noise: Vec<u8> = (0..2_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let bytes = [&noise[..], &one, &[VERSION, 0, 0], &other, &other, &noise, &one[..one.len() - 1]].concat();
        let found: Vec<_> = find_all(&bytes).map(|(header, range)| (header, &bytes[range])).collect();
        let expected = [(HEADER, &one[..]), (Header::of_marks(4, 0), &other[..]), (Header::of_marks(4, 0), &other[..])];
        assert_eq!(found, expected);
        assert_eq!(find_all(&[VERSION]).count() + find_all(&[]).count(), 0);
    }
}
