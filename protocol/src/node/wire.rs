//! Frames as bytes: COBS(version, postcard frame, CRC-32 little endian over version and frame), then the delimiter 00.
//!
//! A receiver that starts in the middle, or after garbage, is in step again at the next 00. A sender puts a 00 before its first frame, so
//! that a boot banner on the line does not cost it.
use core::fmt;

use super::{Frame, MAX_FRAME, VERSION};

const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
const CRC_LEN: usize = 4;
const DELIMITER: u8 = 0;
/// What is left of [`MAX_FRAME`] after the delimiter and COBS (one byte, and one more per 254).
const MAX_PLAIN: usize = MAX_FRAME - 1 - 1 - MAX_FRAME / 254;

/// CRC-32/ISO-HDLC, as at the end of each frame: `CBF43926` for "123456789".
pub fn crc32(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

/// Why a frame cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// It would be longer than [`MAX_FRAME`]. Cannot happen with bodies within their capacities.
    TooLong,
    /// `out` is too small; [`MAX_FRAME`] bytes always do.
    OutTooSmall,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "frame exceeds the longest allowed",
            Self::OutTooSmall => "output is too small for the frame",
        })
    }
}

impl core::error::Error for EncodeError {}

/// Encodes a frame into the beginning of `out` and returns its length, the delimiter included.
pub fn encode(frame: &Frame, out: &mut [u8]) -> Result<usize, EncodeError> {
    let mut plain = [0; MAX_PLAIN];
    plain[0] = VERSION;
    let body_len = postcard::to_slice(frame, &mut plain[1..MAX_PLAIN - CRC_LEN]).map_err(|_| EncodeError::TooLong)?.len();
    let end = 1 + body_len;
    let crc = crc32(&plain[..end]).to_le_bytes();
    plain[end..end + CRC_LEN].copy_from_slice(&crc);
    let len = cobs::try_encode(&plain[..end + CRC_LEN], out).map_err(|_| EncodeError::OutTooSmall)?;
    *out.get_mut(len).ok_or(EncodeError::OutTooSmall)? = DELIMITER;
    Ok(len + 1)
}

/// Why what stood between two delimiters is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not COBS: a byte was lost or a delimiter appeared inside.
    Cobs,
    /// Checksum differs: bits changed, or it is not a frame at all.
    Crc,
    /// Sound, but of another version of the protocol.
    Version(u8),
    /// Sound, but its body is unknown here: a newer node, or a fault in the sender.
    Body,
    /// Longer than [`MAX_FRAME`]; the rest up to the delimiter was skipped.
    TooLong,
    /// Too short to hold a version and a checksum.
    Truncated,
}

impl DecodeError {
    /// Name for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cobs => "cobs",
            Self::Crc => "crc",
            Self::Version(_) => "version",
            Self::Body => "body",
            Self::TooLong => "too_long",
            Self::Truncated => "truncated",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cobs => f.write_str("frame is not valid COBS"),
            Self::Crc => f.write_str("frame checksum differs"),
            Self::Version(version) => write!(f, "frame has version {version}, expected {VERSION}"),
            Self::Body => f.write_str("frame body is unknown"),
            Self::TooLong => f.write_str("frame exceeds the longest allowed"),
            Self::Truncated => f.write_str("frame is too short"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Finds frames in a stream of bytes. Holds at most one frame; never fails for good.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    encoded: heapless::Vec<u8, MAX_FRAME>,
    too_long: bool,
}

impl Decoder {
    /// Starts with an empty line.
    pub const fn new() -> Self {
        Self { encoded: heapless::Vec::new(), too_long: false }
    }

    /// Takes the next byte. A delimiter gives what stood before it, a frame or the reason why it is none;
    /// every other byte, and a delimiter after nothing, gives `None`.
    pub fn push(&mut self, byte: u8) -> Option<Result<Frame, DecodeError>> {
        if byte != DELIMITER {
            self.too_long |= self.encoded.push(byte).is_err();
            return None;
        }
        let result = match (self.too_long, self.encoded.is_empty()) {
            (true, _) => Some(Err(DecodeError::TooLong)),
            (false, true) => None,
            (false, false) => Some(decode(&self.encoded)),
        };
        self.reset();
        result
    }

    /// Forgets a begun frame, for a line that was closed and opened again.
    pub fn reset(&mut self) {
        self.encoded.clear();
        self.too_long = false;
    }
}

/// Decodes what stood before a delimiter; `encoded` holds no 00.
fn decode(encoded: &[u8]) -> Result<Frame, DecodeError> {
    let mut plain = [0; MAX_FRAME];
    let len = unstuff(encoded, &mut plain).ok_or(DecodeError::Cobs)?;
    let split = len.checked_sub(CRC_LEN).filter(|split| *split >= 1).ok_or(DecodeError::Truncated)?;
    let (content, crc) = plain[..len].split_at(split);
    if crc32(content).to_le_bytes() != crc {
        return Err(DecodeError::Crc);
    }
    // After the checksum: in noise the first byte says nothing about a version.
    if content[0] != VERSION {
        return Err(DecodeError::Version(content[0]));
    }
    match postcard::take_from_bytes(&content[1..]) {
        Ok((frame, [])) => Ok(frame),
        _ => Err(DecodeError::Body),
    }
}

/// COBS decoding with the library's state machine, which needs the delimiter to know that the last run is complete.
fn unstuff(encoded: &[u8], plain: &mut [u8]) -> Option<usize> {
    let mut decoder = cobs::CobsDecoder::new(plain);
    for byte in encoded {
        decoder.feed(*byte).ok()?;
    }
    decoder.feed(DELIMITER).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_its_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn cobs_matches_the_reference_vectors() {
        for (plain, encoded) in [
            (&[0x00][..], &[0x01, 0x01][..]),
            (&[0x11, 0x22, 0x00, 0x33], &[0x03, 0x11, 0x22, 0x02, 0x33]),
            (&[0x11, 0x22, 0x33, 0x44, 0x00], &[0x05, 0x11, 0x22, 0x33, 0x44, 0x01]),
        ] {
            let mut bytes = [0; 16];
            let len = cobs::try_encode(plain, &mut bytes).expect("16 bytes suffice");
            assert_eq!(&bytes[..len], encoded);
            let mut back = [0; 16];
            assert_eq!(unstuff(encoded, &mut back), Some(plain.len()));
            assert_eq!(&back[..plain.len()], plain);
        }
        assert_eq!(unstuff(&[0x05, 0x11], &mut [0; 16]), None, "a run cut short");
    }

    #[test]
    fn the_longest_plain_frame_fits() {
        let mut out = [0; MAX_FRAME];
        let len = cobs::try_encode(&[0xFF; MAX_PLAIN], &mut out).expect("MAX_PLAIN leaves room for COBS");
        assert!(len < MAX_FRAME, "{len} and a delimiter");
    }
}
