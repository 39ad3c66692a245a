//! The unit that the store keeps: up to 6 KiB of compressed, checked records of one lane.
//!
//! A value in the store is a sealed ([`super::seal`]) piece of a zstd frame (level 1). Decompressed, a frame is `count` records, each a u32 length and a
//! postcard [`Entry`].
//! One record that does not fit 6 KiB compressed becomes a frame of its own, in several parts; the limit of a record is [`ENTRY_MAX_BYTES`].
use hark_protocol::topics::LaneName;

use super::{
    Position,
    seal::{Header, SEAL_BYTES, SealError},
};
use crate::record::Entry;

/// Largest value in the store. sled moves a leaf above a quarter of its segment to files that it never syncs; a leaf holds up to 17 values.
pub(super) const FRAME_MAX_BYTES: usize = 6 * 1024;
/// sled's segment size, which is left at its default.
const SLED_SEGMENT_BYTES: usize = 512 * 1024;
const _: () = assert!(17 * (FRAME_MAX_BYTES + 40) < SLED_SEGMENT_BYTES / 4 - 52, "leaves must stay out of blobs/");

/// Largest encoded entry, uncompressed; also bounds what a frame may expand to.
pub const ENTRY_MAX_BYTES: usize = 256 * 1024;

const PIECE_MAX_BYTES: usize = FRAME_MAX_BYTES - SEAL_BYTES;
const RAW_MAX_BYTES: usize = ENTRY_MAX_BYTES + 4;
const LEVEL: i32 = 1;

/// Why a value read back is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its envelope is not whole.
    #[error("frame is not what was written")]
    Seal(#[from] SealError),
    /// Another place than the key says, or parts that do not belong together.
    #[error("frame is out of place")]
    OutOfPlace,
    /// The content does not decompress or decode to what the header says.
    #[error("frame content is unreadable")]
    Content,
}

/// Encoded records that wait for their commit, in order.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// End of each record in `bytes`.
    ends: Vec<usize>,
}

impl Records {
    /// Adds an encoded entry.
    pub(super) fn push(&mut self, encoded: &[u8]) {
        let length = u32::try_from(encoded.len()).expect("an entry is at most ENTRY_MAX_BYTES");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(encoded);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn start_of(&self, record: usize) -> usize {
        record.checked_sub(1).map_or(0, |previous| self.ends[previous])
    }

    /// One past the last record from `start` on that fits `raw_bytes`; at least one record.
    fn cut(&self, start: usize, raw_bytes: usize) -> usize {
        let limit = self.start_of(start) + raw_bytes;
        self.ends.partition_point(|end| *end <= limit).max(start + 1)
    }

    fn range(&self, start: usize, end: usize) -> &[u8] {
        &self.bytes[self.start_of(start)..self.ends[end - 1]]
    }
}

/// A frame ready for the store.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) first_seq: u64,
    pub(super) parts: Vec<Vec<u8>>,
}

impl Encoded {
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// Cuts records into frames. It remembers how well each lane compressed, so that a frame is usually compressed once.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    ratio: [f64; LaneName::ALL.len()],
}

impl Encoder {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(LEVEL)?, ratio: [0.5; LaneName::ALL.len()] })
    }

    /// All of `records` as frames; the first record stands at `first`.
    pub(super) fn encode(&mut self, lane: LaneName, first: Position, records: &Records) -> std::io::Result<Vec<Encoded>> {
        let mut frames = Vec::new();
        let mut start = 0;
        while start < records.len() {
            let (end, compressed) = self.fill(lane, start, records)?;
            let header = Header {
                lane: lane as u8,
                part: 0,
                parts: 0,
                ordinal: first.ordinal,
                first_seq: first.seq + start as u64,
                count: u32::try_from(end - start).expect("a frame holds at most 64 Ki records"),
                raw_bytes: u32::try_from(records.range(start, end).len()).expect("a frame is at most RAW_MAX_BYTES"),
                before: u32::try_from(start).expect("a commit is bounded"),
                after: u32::try_from(records.len() - end).expect("a commit is bounded"),
            };
            frames.push(Encoded { first_seq: header.first_seq, parts: split(header, &compressed) });
            start = end;
        }
        Ok(frames)
    }

    /// The end of the frame that starts at `start`, and its compressed content.
    fn fill(&mut self, lane: LaneName, start: usize, records: &Records) -> std::io::Result<(usize, Vec<u8>)> {
        let ratio = &mut self.ratio[lane as usize];
        let mut target = ((PIECE_MAX_BYTES as f64 * 0.92 / *ratio) as usize).min(RAW_MAX_BYTES);
        let mut limit = records.len();
        loop {
            let end = records.cut(start, target).min(limit);
            let raw = records.range(start, end);
            let compressed = self.zstd.compress(raw)?;
            let measured = compressed.len() as f64 / raw.len() as f64;
            if raw.len() >= 4096 {
                *ratio = (0.7 * *ratio + 0.3 * measured).clamp(0.02, 1.1);
            }
            if compressed.len() <= PIECE_MAX_BYTES || end == start + 1 {
                return Ok((end, compressed));
            }
            // Each round is strictly shorter, so this ends at one record at the latest.
            limit = end - 1;
            target = (PIECE_MAX_BYTES as f64 * 0.9 / measured) as usize;
        }
    }
}

fn split(header: Header, compressed: &[u8]) -> Vec<Vec<u8>> {
    let pieces = compressed.chunks(PIECE_MAX_BYTES);
    let parts = u16::try_from(pieces.len()).expect("ENTRY_MAX_BYTES makes fewer parts than that");
    pieces.zip(0..).map(|(piece, part)| Header { part, parts, ..header }.seal(piece)).collect()
}

/// A frame read back.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) first: Position,
    /// Each entry with its encoded size in bytes.
    pub(super) entries: Vec<(usize, Entry)>,
}

impl Frame {
    /// The seq of its last record.
    pub(super) fn last_seq(&self) -> u64 {
        self.first.seq + self.entries.len() as u64 - 1
    }
}

/// Checks and decodes frames.
pub(super) struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Decoder {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()? })
    }

    /// Decodes the parts stored under the key of `first` in `lane`.
    ///
    /// # Errors
    /// Anything that differs from what [`Encoder::encode`] made for that place.
    pub(super) fn decode(&mut self, lane: LaneName, first: Position, parts: &[Vec<u8>]) -> Result<Frame, FrameError> {
        let (head, piece, _) = Header::open(parts.first().ok_or(SealError::Short)?)?;
        let in_place = head.lane == lane as u8 && (head.ordinal, head.first_seq) == (first.ordinal, first.seq);
        if !in_place || usize::from(head.parts) != parts.len() || head.count == 0 {
            return Err(FrameError::OutOfPlace);
        }
        let mut compressed = piece.to_vec();
        for (bytes, part) in parts.iter().zip(0..) {
            let (header, piece, _) = Header::open(bytes)?;
            if header != (Header { part, ..head }) {
                return Err(FrameError::OutOfPlace);
            }
            if part > 0 {
                compressed.extend_from_slice(piece);
            }
        }
        let raw_bytes = (head.raw_bytes as usize).min(RAW_MAX_BYTES);
        let raw = self.zstd.decompress(&compressed, raw_bytes).map_err(|_| FrameError::Content)?;
        if raw.len() != head.raw_bytes as usize {
            return Err(FrameError::Content);
        }
        let entries = decode_records(&raw).ok_or(FrameError::Content)?;
        if entries.len() != head.count as usize {
            return Err(FrameError::Content);
        }
        Ok(Frame { first, entries })
    }
}

fn decode_records(mut raw: &[u8]) -> Option<Vec<(usize, Entry)>> {
    let mut entries = Vec::new();
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        entries.push((record.len(), postcard::from_bytes(record).ok()?));
        raw = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::samples;

    fn encode(entries: &[Entry]) -> Vec<Encoded> {
        let mut records = Records::default();
        for entry in entries {
            records.push(&postcard::to_allocvec(entry).unwrap());
        }
        Encoder::new().unwrap().encode(LaneName::Inputs, Position { ordinal: 3, seq: 10 }, &records).unwrap()
    }

    fn decode(frame: &Encoded) -> Result<Frame, FrameError> {
        Decoder::new().unwrap().decode(LaneName::Inputs, Position { ordinal: 3, seq: frame.first_seq }, &frame.parts)
    }

    fn check_round_trip(entries: &[Entry]) -> Vec<Encoded> {
        let frames = encode(entries);
        let mut back = Vec::new();
        for frame in &frames {
            assert!(frame.parts.iter().all(|part| part.len() <= FRAME_MAX_BYTES));
            assert_eq!(frame.first_seq, 10 + back.len() as u64);
            back.extend(decode(frame).unwrap().entries.into_iter().map(|(_, entry)| entry));
        }
        assert_eq!(back, entries);
        frames
    }

    #[test]
    fn readings_fill_their_frames() {
        let entries: Vec<_> = (0..5000).map(samples::reading).collect();
        let frames = check_round_trip(&entries);
        let full = &frames[3..frames.len() - 1];
        let mean = full.iter().map(Encoded::bytes).sum::<usize>() / full.len();
        assert!(mean > FRAME_MAX_BYTES * 3 / 4, "frames are filled to {mean} bytes on average");
    }

    #[test]
    fn incompressible_and_compressible_records_mix() {
        let entries: Vec<_> = (0..300).map(|n| if n % 3 == 0 { samples::noise(n, (n as usize * 37) % 5000) } else { samples::reading(n) }).collect();
        check_round_trip(&entries);
    }

    #[test]
    fn a_record_over_the_frame_size_travels_in_parts() {
        let frames = check_round_trip(&[samples::reading(1), samples::noise(2, 200_000), samples::reading(3)]);
        assert!(frames.iter().any(|frame| frame.parts.len() > 20));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let mut frames = encode(&[samples::noise(2, 9_000)]);
        for part in 0..frames[0].parts.len() {
            for at in 0..frames[0].parts[part].len() {
                frames[0].parts[part][at] ^= 0x20;
                assert!(decode(&frames[0]).is_err(), "part {part} byte {at}");
                frames[0].parts[part][at] ^= 0x20;
            }
        }
        decode(&frames[0]).unwrap();
    }

    #[test]
    fn a_frame_in_another_place_is_refused() {
        let frame = &encode(&[samples::reading(1)])[0];
        let mut decoder = Decoder::new().unwrap();
        for (lane, ordinal, seq) in [(LaneName::Alarms, 3, 10), (LaneName::Inputs, 4, 10), (LaneName::Inputs, 3, 11)] {
            let result = decoder.decode(lane, Position { ordinal, seq }, &frame.parts);
            assert!(matches!(result, Err(FrameError::OutOfPlace)), "{lane} {ordinal}/{seq}");
        }
    }

    #[test]
    fn a_missing_part_is_refused() {
        let mut frames = encode(&[samples::noise(2, 20_000)]);
        frames[0].parts.remove(1);
        assert!(matches!(decode(&frames[0]), Err(FrameError::OutOfPlace)));
    }
}
