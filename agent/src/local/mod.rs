//! The local socket: what a person or a program on this box asks a running agent.
//!
//! `<buffer.dir>/hark.sock`, for the agent's user alone (mode 0600), one JSON object per line each way ([`message`]). A line has at most
//! [`LINE_MAX_BYTES`], [`CONNECTIONS`] are served at a time (others wait to be accepted), and each has [`CONNECTION_TIME`] in all.
//!
//! What changes the plant's course goes through the log: a command or a changed configuration is appended to the inputs lane and answered once it
//! is durable, with its position. Inference acts when it reads it there, now and in every replay.
pub mod client;
mod export;
pub mod message;
mod report;
mod server;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    export::{Page, page},
    report::{BufferReport, CursorReport, GapReport, IncarnationReport, Known, LaneReport, LinkReport, PutAside, acked},
    server::{Local, Voices},
};

/// Longest line, without its end.
pub const LINE_MAX_BYTES: usize = 256 * 1024;
/// Connections that are served at the same time.
pub const CONNECTIONS: usize = 8;
/// A connection is ended after so long, whatever it does.
pub const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Where the socket of the agent with this data directory is.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("hark.sock")
}
