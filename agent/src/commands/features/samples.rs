//! Samples of a recorded waveform, block by block: text, raw little-endian numbers or NumPy's `.npy`.
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// Longest line of text; a longer one is no number.
const LINE_BYTES_MAX: u64 = 4_096;
/// Longest header of a `.npy` file.
const HEADER_BYTES_MAX: usize = 65_536;

/// How samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text, one number per line, a header line or none
    Csv,
    /// Raw little-endian 32-bit floats
    F32,
    /// Raw little-endian 64-bit floats
    F64,
    /// Raw little-endian 16-bit integers; needs --scale
    I16,
    /// NumPy array of one dimension, of <f4, <f8 or <i2
    Npy,
}

impl Format {
    /// By the name's ending; `None` for an unknown one.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "txt" => Some(Self::Csv),
            "f32" => Some(Self::F32),
            "f64" => Some(Self::F64),
            "i16" => Some(Self::I16),
            "npy" => Some(Self::Npy),
            _ => None,
        }
    }
}

/// Why samples cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// The system said no.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line that is no number.
    #[error("`{path}`, line {line}: `{text}` is no number; expected one number per line, with a decimal point, after at most one header line")]
    NoNumber {
        /// The file.
        path: PathBuf,
        /// From 1 on.
        line: u64,
        /// How it begins.
        text: String,
    },
    /// The file ends within a number.
    #[error("`{path}` ends within a sample of {bytes} bytes; it was cut off, or --format names another width than it has")]
    Cut {
        /// The file.
        path: PathBuf,
        /// Of one sample.
        bytes: usize,
    },
    /// The array is of another kind.
    #[error("`{path}` is no array that can be read: {why}; write it with numpy.save as one dimension of float32, float64 or int16")]
    Npy {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A waveform that is read on.
pub struct Samples {
    path: PathBuf,
    input: Box<dyn BufRead>,
    encoding: Encoding,
    scale: f64,
    line: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Text,
    F32,
    F64,
    I16,
}

impl Samples {
    /// Opens `path`, `-` for standard input; every sample is multiplied by `scale`.
    pub fn open(path: &Path, format: Format, scale: f64) -> Result<Self, SamplesError> {
        let input: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(|source| SamplesError::Read { path: path.to_owned(), source })?)
        };
        Self::read(path, input, format, scale)
    }

    fn read(path: &Path, input: Box<dyn Read>, format: Format, scale: f64) -> Result<Self, SamplesError> {
        let mut input = BufReader::with_capacity(1 << 16, input);
        let encoding = match format {
            Format::Csv => Encoding::Text,
            Format::F32 => Encoding::F32,
            Format::F64 => Encoding::F64,
            Format::I16 => Encoding::I16,
            Format::Npy => npy(&mut input).map_err(|why| SamplesError::Npy { path: path.to_owned(), why })?,
        };
        Ok(Self { path: path.to_owned(), input: Box::new(input), encoding, scale, line: 0 })
    }

    /// Fills `block` with the next samples, at most `length`; fewer only at the end.
    pub fn next_block(&mut self, length: usize, block: &mut Vec<f64>) -> Result<(), SamplesError> {
        block.clear();
        while block.len() < length {
            let Some(sample) = self.next()? else { break };
            block.push(sample * self.scale);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<f64>, SamplesError> {
        match self.encoding {
            Encoding::Text => self.next_line(),
            Encoding::F32 => Ok(self.bytes()?.map(|bytes| f32::from_le_bytes(bytes).into())),
            Encoding::F64 => Ok(self.bytes()?.map(f64::from_le_bytes)),
            Encoding::I16 => Ok(self.bytes()?.map(|bytes| i16::from_le_bytes(bytes).into())),
        }
    }

    fn next_line(&mut self) -> Result<Option<f64>, SamplesError> {
        loop {
            let mut bytes = Vec::new();
            let read = self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
            if read.map_err(|source| SamplesError::Read { path: self.path.clone(), source })? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_start_matches('\u{feff}').trim();
            match text.parse::<f64>() {
                // What a sensor did not measure is no sample; the features of such a block are null.
                Ok(sample) => return Ok(Some(sample)),
                Err(_) if text.is_empty() || self.line == 1 => {}
                Err(_) => {
                    let text = text.chars().take(40).flat_map(char::escape_debug).collect();
                    return Err(SamplesError::NoNumber { path: self.path.clone(), line: self.line, text });
                }
            }
        }
    }

    /// The bytes of the next sample; `None` at the end.
    fn bytes<const N: usize>(&mut self) -> Result<Option<[u8; N]>, SamplesError> {
        let (mut bytes, mut have) = ([0; N], 0);
        while have < N {
            match self.input.read(&mut bytes[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(SamplesError::Cut { path: self.path.clone(), bytes: N }),
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SamplesError::Read { path: self.path.clone(), source }),
            }
        }
        Ok(Some(bytes))
    }
}

/// Reads the header of a `.npy` file (NumPy Enhancement Proposal 1), up to its first sample.
fn npy(input: &mut impl Read) -> Result<Encoding, String> {
    let mut start = [0; 8];
    input.read_exact(&mut start).map_err(|_| "it is too short".to_owned())?;
    let length_bytes = match start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _] => 2,
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _] => 4,
        _ => return Err("it does not begin as one".to_owned()),
    };
    let mut length = [0; 4];
    input.read_exact(&mut length[..length_bytes]).map_err(|_| "it is too short".to_owned())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header has {length} bytes"));
    }
    let mut header = vec![0; length];
    input.read_exact(&mut header).map_err(|_| "it is too short".to_owned())?;
    let header = String::from_utf8_lossy(&header).replace(' ', "");
    let after = |key: &str| header.split_once(key).map_or("", |(_, rest)| rest);
    let shape = after("'shape':(").split_once(')').map_or("", |(shape, _)| shape);
    if shape.trim_end_matches(',').parse::<u64>().is_err() {
        return Err(format!("its shape is ({shape})"));
    }
    match after("'descr':'").split_once('\'').map_or("", |(descr, _)| descr) {
        "<f4" => Ok(Encoding::F32),
        "<f8" => Ok(Encoding::F64),
        "<i2" => Ok(Encoding::I16),
        other => Err(format!("its numbers are of type `{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], format: Format, scale: f64) -> Result<Vec<f64>, SamplesError> {
        let mut samples = Samples::read(Path::new("x"), Box::new(io::Cursor::new(bytes.to_vec())), format, scale)?;
        let mut block = Vec::new();
        samples.next_block(100, &mut block)?;
        Ok(block)
    }

    fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_format_gives_the_same_numbers() {
        let numbers = [1.5, -2.0, 0.25];
        let f32s: Vec<u8> = numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
        let f64s: Vec<u8> = numbers.iter().flat_map(|x: &f64| x.to_le_bytes()).collect();
        let i16s: Vec<u8> = [6i16, -8, 1].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(all(b"de\n1.5\r\n-2\n\n2.5e-1", Format::Csv, 1.0).unwrap(), numbers);
        assert_eq!(all(b"1.5\n-2\n0.25\n", Format::Csv, 1.0).unwrap(), numbers, "without a header");
        assert_eq!(all(&f32s, Format::F32, 1.0).unwrap(), numbers);
        assert_eq!(all(&f64s, Format::F64, 2.0).unwrap(), [3.0, -4.0, 0.5]);
        assert_eq!(all(&i16s, Format::I16, 0.25).unwrap(), numbers);
        assert_eq!(all(&array("<f4", "(3,)", &f32s), Format::Npy, 1.0).unwrap(), numbers);
        assert_eq!(all(&array("<i2", "(3,)", &i16s), Format::Npy, 0.25).unwrap(), numbers);
    }

    #[test]
    fn what_is_no_number_is_told_with_its_line() {
        let error = all(b"de\n1.5\n1,5\n", Format::Csv, 1.0).unwrap_err();
        assert!(matches!(&error, SamplesError::NoNumber { line: 3, text, .. } if text == "1,5"), "{error}");
        assert!(matches!(all(&[0; 7], Format::F32, 1.0), Err(SamplesError::Cut { bytes: 4, .. })));
    }

    #[test]
    fn arrays_of_another_kind_are_refused() {
        for (bytes, expected) in [
            (array(">f4", "(3,)", &[]), "`>f4`"),
            (array("<f4", "(3, 2)", &[]), "(3,2)"),
            (b"PK\x03\x04 and so on".to_vec(), "does not begin"),
            (b"\x93NUMPY".to_vec(), "too short"),
        ] {
            let error = all(&bytes, Format::Npy, 1.0).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
