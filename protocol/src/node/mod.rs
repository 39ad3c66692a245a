//! Frames between a sensor node and the agent on a serial line (domain reference section 6.5).
//!
//! A [`Frame`] is a header and a [`Body`]; [`encode`] and [`Decoder`] take it to bytes and back. Nothing here needs `std` or an allocator,
//! and the bytes are frozen per [`VERSION`] by `tests/node_wire.rs`.
//!
//! Kinds that [`Kind::needs_ack`] are kept by the node and sent again until the agent acknowledges them (cumulative per kind, [`Ack`]), so a
//! receiver sees duplicates and drops them by (node, boot, kind, seq). The others are sent once.
//!
//! Direction: hello, features, snapshot, status and event come from the node, acks and commands from the agent; time sync goes both ways.
//! In frames of the agent `node` is the addressee ([`ANY_NODE`]: whoever is on the line) and `boot` a number of the agent's own start.
//!
//! Within a version enums and fields are never reordered or removed. A new variant goes to the end; an older receiver answers it with
//! [`DecodeError::Body`] and goes on with the next frame.
//!
//! # Raw blocks
//! Features come continuously, samples on request. The agent asks with [`Command::Snapshot`], which bears an id of its choice; it asks again, with the
//! same `seq`, until the node says [`NodeEvent::CommandDone`] or a chunk comes. The node stands by one block of its newest samples and sends it in
//! [`SnapshotChunk`]s, in order, a few unacknowledged ones at a time and each behind all other frames that are due; like all that it keeps they are
//! repeated until acknowledged, so a lost one costs time alone. Another id replaces the block that is being sent. A node's block is gone with its
//! start: one of an old boot never goes on.
//!
//! All of it is part of version 1 from its beginning, and optional: what a node can, its [`Hello`] says ([`Capabilities::snapshot`], and a channel with
//! samples has a rate). Of one without it no block is asked; it would answer with [`NodeEvent::CommandRefused`], or, where its firmware does not know
//! the command, not at all.
mod body;
mod quantity;
mod time_sync;
mod wire;

pub use body::{
    Ack, BootReason, CHUNK_SAMPLES, Capabilities, Channel, Command, Features, Hello, NodeEvent, SnapshotChunk, Status, TimeSync, VALUES_MAX, Value,
};
pub use quantity::Quantity;
use serde::{Deserialize, Serialize};
pub use time_sync::{OffsetAndDelay, offset_and_delay};
pub use wire::{DecodeError, Decoder, EncodeError, crc32, encode};

/// Version of the wire format, the first byte of every frame.
pub const VERSION: u8 = 1;

/// Bytes of the longest encoded frame, its delimiter included.
pub const MAX_FRAME: usize = 512;

/// Address of a frame from the agent that is meant for whichever node is on the line.
pub const ANY_NODE: u32 = 0;

/// One frame: who, since which start, which one of its kind, when, and what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Node id, unique on the gateway, never [`ANY_NODE`] in frames of a node.
    pub node: u32,
    /// Drawn anew at each start of the node, so that a restart is seen although `seq` begins again.
    pub boot: u32,
    /// From 1 per kind and boot, without gaps; a repetition carries the same number and the same bytes.
    pub seq: u32,
    /// Node time of the content in microseconds since its start: the end of the block for features, the first sample for a snapshot,
    /// the moment of encoding for the rest. The node's clock drifts (50 ppm is 4.3 s a day) and may jump.
    pub time_us: u64,
    /// Unacknowledged frames that the node had to drop since its start because its ring was full; cumulative.
    pub dropped: u32,
    /// What.
    pub body: Body,
}

impl Frame {
    /// Kind of the body.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Who the node is; first frame after a start.
    Hello(Hello),
    /// Features of one block of one channel.
    Features(Features),
    /// A piece of a raw block.
    Snapshot(SnapshotChunk),
    /// How the node is.
    Status(Status),
    /// Something happened in the node.
    Event(NodeEvent),
    /// Request and answer of the four-stamp clock comparison.
    TimeSync(TimeSync),
    /// The agent asks for something.
    Command(Command),
    /// The agent has frames durably.
    Ack(Ack),
}

impl Body {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Features(_) => Kind::Features,
            Self::Snapshot(_) => Kind::Snapshot,
            Self::Status(_) => Kind::Status,
            Self::Event(_) => Kind::Event,
            Self::TimeSync(_) => Kind::TimeSync,
            Self::Command(_) => Kind::Command,
            Self::Ack(_) => Kind::Ack,
        }
    }
}

/// Kinds of frames; each counts its own `seq`. The order is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// [`Body::Hello`].
    Hello,
    /// [`Body::Features`].
    Features,
    /// [`Body::Snapshot`].
    Snapshot,
    /// [`Body::Status`].
    Status,
    /// [`Body::Event`].
    Event,
    /// [`Body::TimeSync`].
    TimeSync,
    /// [`Body::Command`].
    Command,
    /// [`Body::Ack`].
    Ack,
}

impl Kind {
    /// How many there are: the length of a table indexed by [`Kind::index`].
    pub const COUNT: usize = 8;
    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Hello, Self::Features, Self::Snapshot, Self::Status, Self::Event, Self::TimeSync, Self::Command, Self::Ack];

    /// Position in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name for counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Features => "features",
            Self::Snapshot => "snapshot",
            Self::Status => "status",
            Self::Event => "event",
            Self::TimeSync => "time_sync",
            Self::Command => "command",
            Self::Ack => "ack",
        }
    }

    /// Whether the node repeats frames of this kind until they are acknowledged.
    /// Time sync is not among them: a repeated stamp would measure the repetition.
    pub fn needs_ack(self) -> bool {
        match self {
            Self::Hello | Self::Features | Self::Snapshot | Self::Status | Self::Event => true,
            Self::TimeSync | Self::Command | Self::Ack => false,
        }
    }
}
