//! `hark.snapshots.v1`: raw waveform blocks, in chunks.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// One chunk of a raw block. Samples of a block are those of its chunks `1..=chunks` in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Point of the waveform.
    pub point: Name,
    /// The same for all chunks of a block.
    pub snapshot_id: Name,
    /// Alarm or command that asked for it.
    pub cause_id: Option<Name>,
    /// Number of this chunk, from 1.
    pub chunk: u32,
    /// How many chunks the block has.
    pub chunks: u32,
    /// Sampling rate, Hz.
    pub fs_hz: f64,
    /// UCUM unit of a sample times `scale`.
    pub unit: Name,
    /// Physical value of one count.
    pub scale: f64,
    /// Number of samples in this chunk.
    pub samples: u32,
    /// Shaft speed at the time, Hz.
    pub speed_hz: Option<f64>,
    /// Little-endian 16-bit counts, base64.
    pub data_b64: Name,
}
