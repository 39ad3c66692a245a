//! What agent and reader say to each other: the order on the reader's input, then its lines, one JSON object each.
use serde::{Deserialize, Serialize};

use super::place::Place;

/// What to read, and from where. It comes over a pipe and not as arguments, which everybody on the box can read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    /// `host:port`, comma separated.
    pub(super) brokers: String,
    /// Whose reader it is.
    pub(super) gateway: String,
    /// Full name.
    pub(super) topic: String,
    /// How far it was read.
    pub(super) place: Place,
}

/// A word of the reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// Reading begins there.
    Began {
        /// From where.
        place: Place,
    },
    /// A committed record.
    Record {
        /// Its partition.
        partition: i32,
        /// Its place there.
        offset: i64,
        /// Its value; left out where it is none, no text or too long.
        value: Option<String>,
        /// Length of its value.
        bytes: u64,
    },
    /// There is no more for now.
    End,
    /// Reading cannot begin or go on; the reader ends.
    Problem {
        /// Why.
        problem: String,
    },
}
