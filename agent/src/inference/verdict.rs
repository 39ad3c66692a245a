//! What was said of a machine at its newest row.
use hark_protocol::topics::{OperatingState, Phase, Quality, ScoreReason, Timestamp};
use serde::{Deserialize, Serialize};

use super::{operating::Regime, second_opinion::Opinion};
use crate::buffer::Position;

/// The verdict on the newest row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Start of the row's slot.
    pub(super) ts: Timestamp,
    /// Of the row; unknown where it is not configured.
    pub(super) state: OperatingState,
    /// Whose weights the row is for; `None` in a state that is not scored.
    pub(super) regime: Option<Regime>,
    pub(super) phase: Phase,
    pub(super) reason: Option<ScoreReason>,
    pub(super) score: Option<f64>,
    /// How new the row is for the machine, 0 to 1; there where the score is.
    pub(super) anomaly: Option<f64>,
    /// What another model says of it; there where all points have a value.
    pub(super) opinion: Option<Opinion>,
    /// Over the limit, after hysteresis; kept while there is no score, since silence is no recovery.
    pub(super) above: bool,
    pub(super) quality: Quality,
    /// First and last record behind it.
    pub(super) range: Option<(Position, Position)>,
    /// Indices of the points that contribute most, with their shares.
    pub(super) shares: Vec<(usize, f64)>,
    /// Indices of the points that had no part in the score.
    pub(super) left_out: Vec<usize>,
}

/// What decides whether a prediction is due at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Signature {
    pub(super) state: OperatingState,
    pub(super) phase: Phase,
    pub(super) above: bool,
    pub(super) alarm: bool,
    pub(super) reason: Option<ScoreReason>,
}
