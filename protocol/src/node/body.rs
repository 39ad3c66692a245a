//! The bodies of node frames. Field and variant order is part of the wire format.
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

use super::{Kind, Quantity};

/// Most values in one [`Features`].
pub const VALUES_MAX: usize = 16;

/// Most samples in one [`SnapshotChunk`]: three bytes each in the worst case still fit [`super::MAX_FRAME`].
pub const CHUNK_SAMPLES: usize = 144;

/// Who the node is and what it measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Firmware name and version: `hark-node 0.1.0`.
    pub firmware: String<24>,
    /// Why it started.
    pub boot_reason: BootReason,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Its channels, in order of their numbers.
    pub channels: Vec<Channel, 8>,
}

/// Why a node started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootReason {
    /// Supply switched on.
    PowerOn,
    /// Supply fell below what the processor needs.
    BrownOut,
    /// The watchdog found the loop stuck.
    Watchdog,
    /// By command.
    Command,
}

/// What a node can do beyond sending features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Sends raw blocks on [`Command::Snapshot`].
    pub snapshot: bool,
    /// Answers time sync requests.
    pub time_sync: bool,
    /// Can test itself.
    pub self_test: bool,
    /// Its signals are simulated: the agent marks readings with origin `simulated`.
    pub simulated: bool,
}

/// One measuring channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Number that features and snapshots refer to.
    pub channel: u8,
    /// What its samples measure.
    pub quantity: Quantity,
    /// Samples per second; 0 for process values read now and then.
    pub rate_hz: f32,
    /// Largest magnitude it can measure, in the unit of `quantity`.
    pub range: f32,
}

/// Features of one block of one channel, or process values read together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// Channel number.
    pub channel: u8,
    /// At most one value per quantity.
    pub values: Vec<Value, VALUES_MAX>,
}

/// One value of one quantity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What.
    pub quantity: Quantity,
    /// In [`Quantity::unit`]. NaN: the node could not measure it; the receiver stores it as bad, never as zero.
    pub value: f32,
}

/// A piece of a raw block. The block is complete when chunks `0..chunks` of one `id` are there; all but `chunk` and `samples` is the same in each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Id given by the request, or by the node if it took the block itself.
    pub id: u32,
    /// Channel number.
    pub channel: u8,
    /// Which piece, from 0.
    pub chunk: u16,
    /// How many pieces.
    pub chunks: u16,
    /// Samples per second.
    pub fs_hz: f32,
    /// A sample times this is in the unit of the channel's quantity.
    pub scale: f32,
    /// Raw samples; all chunks but the last are full.
    pub samples: Vec<i16, CHUNK_SAMPLES>,
}

/// How the node is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Seconds since its start.
    pub uptime_s: u32,
    /// Samples lost since its start because the sample ring was full.
    pub overruns: u32,
    /// Supply voltage, V.
    pub supply_v: f32,
    /// Under self-test: its values are no measurements (NE 107 check function).
    pub self_test: bool,
    /// Frames waiting for acknowledgement.
    pub waiting: u16,
    /// Frames that the waiting ring can hold.
    pub capacity: u16,
    /// Frames from the agent that could not be decoded, since its start.
    pub bad_frames: u32,
}

/// Something that happened in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeEvent {
    /// The sample ring of a channel was full; `samples` were lost.
    Overrun {
        /// Channel number.
        channel: u8,
        /// Lost samples.
        samples: u32,
    },
    /// A block touched the end of the sensor's range.
    Clipped {
        /// Channel number.
        channel: u8,
        /// Samples at the end of the range.
        samples: u32,
    },
    /// A block had the same value throughout.
    Stuck {
        /// Channel number.
        channel: u8,
    },
    /// The node's clock jumped.
    ClockStepped {
        /// By so much, microseconds.
        by_us: i64,
    },
    /// Self-test began.
    SelfTestStarted,
    /// Self-test ended.
    SelfTestEnded {
        /// Whether the sensor answered as it should.
        passed: bool,
    },
    /// A command was carried out.
    CommandDone {
        /// Its `seq`.
        seq: u32,
    },
    /// A command was not carried out.
    CommandRefused {
        /// Its `seq`.
        seq: u32,
    },
}

/// Request and answer of the four-stamp clock comparison ([`super::offset_and_delay`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeSync {
    /// From the agent.
    Request {
        /// T1: gateway time when it was sent, microseconds from any origin of the gateway's choice.
        t1_us: u64,
    },
    /// From the node. The agent adds T4 when it arrives.
    Reply {
        /// T1 as it was in the request.
        t1_us: u64,
        /// T2: node time when the request came.
        t2_us: u64,
        /// T3: node time when the reply was sent.
        t3_us: u64,
    },
}

/// What the agent asks of a node. Answered by [`NodeEvent::CommandDone`] or [`NodeEvent::CommandRefused`]; a repeated `seq` is not carried out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Send the newest raw block of a channel, instead of one that is being sent. A node that keeps none sends the next one.
    Snapshot {
        /// Id for its chunks, another one for each block.
        id: u32,
        /// Channel number.
        channel: u8,
    },
    /// Say hello again, for an agent that missed it.
    SendHello,
    /// Test the sensors.
    SelfTest,
    /// Start anew.
    Restart,
}

/// Everything of `kind` up to and including `seq` is durably stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Boot id of the acknowledged frames; a node ignores acks of an earlier start.
    pub boot: u32,
    /// Their kind.
    pub kind: Kind,
    /// Highest `seq`.
    pub seq: u32,
}
