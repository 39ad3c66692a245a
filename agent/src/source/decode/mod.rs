//! From bytes to values: pure functions, one file per format. What cannot be decoded is an error with a name, for the counters.
#[cfg(test)]
mod fuzz_tests;
pub mod json;
pub mod line_reader;
pub mod lines;
pub mod time;

use hark_protocol::topics::{Quality, QualityReason, Timestamp};

use crate::signal::{BlockUnit, clipping, features};

/// A value as the source gave it, not yet matched with the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Asset id, where the message names it.
    pub asset: Option<String>,
    /// Point id, where the message names it.
    pub point: Option<String>,
    /// What was measured.
    pub value: Value,
    /// The source's time; `Err` if it gave one that cannot be read.
    pub time: Option<Result<Timestamp, ()>>,
    /// The source's opinion.
    pub quality: Quality,
    /// The source's sequence number.
    pub sequence: Option<u64>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number, perhaps not finite.
    Number(f64),
    /// A text, which the point's map may turn into a number.
    Text(String),
    /// Null, or an empty cell.
    Missing,
    /// A block of a waveform.
    Block(Block),
}

/// Equidistant samples of a waveform, in physical units (scale applied).
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Sampling rate, Hz, positive.
    pub fs_hz: f64,
    /// Unit of a sample, where the block says so.
    pub unit: Option<BlockUnit>,
    /// What one count of the source is worth; 1 where the block does not say.
    pub scale: f64,
    /// The samples; NaN where the source gave no finite number.
    pub samples: Vec<f64>,
}

impl Block {
    /// When it was complete, if its first sample was taken at `first`: one sampling interval after the last one. Saturates.
    pub fn end(&self, first: Timestamp) -> Timestamp {
        let duration_us = (self.samples.len() as f64 * 1e6 / self.fs_hz).round();
        Timestamp(first.0.saturating_add(duration_us as i64))
    }

    /// What is wrong with its samples, and how bad all that is computed of them is for it: of a block with holes nothing can be, a flat line tells of its
    /// sensor and not of a machine without vibration, and a signal that was cut has harmonics and impacts that its machine does not have, and lacks some
    /// that it has.
    pub fn fault(&self) -> Option<(Quality, QualityReason)> {
        if self.samples.iter().any(|sample| !sample.is_finite()) {
            return Some((Quality::Bad, QualityReason::NotANumber));
        }
        if features::is_flat(&self.samples) {
            return Some((Quality::Bad, QualityReason::Stuck));
        }
        clipping::is_clipped(&self.samples).then_some((Quality::Uncertain, QualityReason::Clipping))
    }
}

/// Why a message yields nothing. The name is the counter's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DecodeError {
    /// The payload is no UTF-8 text.
    #[error("payload is not UTF-8")]
    NotUtf8,
    /// It is no JSON.
    #[error("payload is not JSON")]
    NotJson,
    /// A pointer of the configured shape finds nothing, or something else than expected.
    #[error("payload has another shape than configured")]
    WrongShape,
    /// A line does not have the configured number of values.
    #[error("line has another number of values than configured")]
    WrongColumns,
    /// The beginning or the end of a line is missing: the port was opened or lost in the middle of it.
    #[error("line is not whole")]
    HalfLine,
    /// Values came before the header that names them.
    #[error("line came before a header")]
    NoHeader,
    /// Longer than any message may be.
    #[error("message is too large")]
    TooLarge,
}

impl DecodeError {
    /// Value of the label `cause` in `hark_source_cause_total`, group `rejected`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::WrongShape => "wrong_shape",
            Self::WrongColumns => "wrong_columns",
            Self::HalfLine => "half_line",
            Self::NoHeader => "no_header",
            Self::TooLarge => "too_large",
        }
    }
}
