//! A recorded file of JSON lines: one message a line, as a source on MQTT would send it: a reading, several readings of one moment, or a block of a waveform.
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use hark_protocol::topics::Timestamp;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    config::{Shape, TimeUnit},
    source::decode::{DecodeError, Sample, json},
};

/// Longest line that is read: a block of half a million samples.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is longer than any message.
    #[error("`{path}`, line {line}: longer than {} MiB", LINE_BYTES_MAX >> 20)]
    TooLong {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
    },
    /// A line says nothing.
    #[error(
        "`{path}`, line {line}: {source}; expected {{\"ts\": …, \"point\": …, \"value\": …}}, {{\"ts\": …, \"values\": {{…}}}} or {{\"t0\": …, \"point\": …, \"fs\": …, \"samples\": […]}}"
    )]
    Message {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Why.
        source: DecodeError,
    },
    /// A line tells no time.
    #[error(
        "`{path}`, line {line}: no time in `ts` (or `t0` of a block); expected ISO 8601 or a number since 1970, or say with --period how far apart lines are"
    )]
    NoTime {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
    },
}

/// A message of the file: its time, and what it says.
pub(super) struct Message {
    pub(super) ts: Timestamp,
    pub(super) samples: Vec<Sample>,
}

/// An open file, read line by line.
pub(super) struct JsonLines {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    period_us: Option<i64>,
    next_ts: Timestamp,
    shapes: Box<Shapes>,
}

/// What a message may look like.
struct Shapes {
    value: Shape,
    values: Shape,
    block: Shape,
}

/// Which of them it is.
#[derive(Deserialize)]
struct Keys {
    values: Option<IgnoredAny>,
    samples: Option<IgnoredAny>,
}

/// Whether the file at `path` holds JSON lines: its first character that is no space is a brace.
///
/// # Errors
/// [`LineError::Read`].
pub(super) fn is_json_lines(path: &Path) -> Result<bool, LineError> {
    let failed = |source| LineError::Read { path: path.to_owned(), source };
    let mut beginning = Vec::new();
    File::open(path).map_err(failed)?.take(4_096).read_to_end(&mut beginning).map_err(failed)?;
    Ok(beginning.trim_ascii_start().first() == Some(&b'{'))
}

impl JsonLines {
    /// Opens `path`. With a period, the first line is at `first_ts`, and lines tell no time.
    pub(super) fn open(path: &Path, period_us: Option<i64>, first_ts: Timestamp) -> Result<Self, LineError> {
        let file = File::open(path).map_err(|source| LineError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), line: 0, period_us, next_ts: first_ts, shapes: Shapes::new().into() })
    }

    /// Where a further file goes on that tells no time.
    pub(super) fn next_ts(&self) -> Timestamp {
        self.next_ts
    }

    /// The next message; empty lines are passed. `None` at the end.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, LineError> {
        let mut text = Vec::new();
        loop {
            text.clear();
            self.line += 1;
            let read = (&mut self.reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut text);
            if read.map_err(|source| LineError::Read { path: self.path.clone(), source })? == 0 {
                return Ok(None);
            }
            if text.len() as u64 > LINE_BYTES_MAX {
                return Err(LineError::TooLong { path: self.path.clone(), line: self.line });
            }
            if !text.trim_ascii().is_empty() {
                return self.message(&text).map(Some);
            }
        }
    }

    fn message(&mut self, text: &[u8]) -> Result<Message, LineError> {
        let failed = |source| LineError::Message { path: self.path.clone(), line: self.line, source };
        let keys: Keys = serde_json::from_slice(text).map_err(|_| failed(DecodeError::NotJson))?;
        let shape = match keys {
            Keys { samples: Some(_), .. } => &self.shapes.block,
            Keys { values: Some(_), .. } => &self.shapes.values,
            Keys { .. } => &self.shapes.value,
        };
        let samples = json::decode(text, shape).and_then(|samples| samples.into_iter().collect::<Result<Vec<_>, _>>()).map_err(failed)?;
        let told = samples.iter().find_map(|sample| sample.time.and_then(Result::ok));
        let ts = match self.period_us {
            Some(_) => self.next_ts,
            None => told.ok_or_else(|| LineError::NoTime { path: self.path.clone(), line: self.line })?,
        };
        self.next_ts = Timestamp(ts.0.saturating_add(self.period_us.unwrap_or(0)));
        Ok(Message { ts, samples: samples.into_iter().map(|sample| Sample { time: None, ..sample }).collect() })
    }
}

impl Shapes {
    fn new() -> Self {
        let at = |pointer: &str| Some(pointer.to_owned());
        let common = Shape {
            array: None,
            asset: at("/asset"),
            point: at("/point"),
            value: None,
            values: None,
            waveform: false,
            time: at("/ts"),
            time_unit: TimeUnit::Auto,
            quality: at("/quality"),
            sequence: at("/seq"),
        };
        Self {
            value: Shape { value: at("/value"), ..common.clone() },
            values: Shape { values: at("/values"), point: None, ..common.clone() },
            // The block stands in the message itself.
            block: Shape { value: at(""), waveform: true, ..common },
        }
    }
}
