//! What stands behind the state of an alarm: the judgement that it was made of, kept with it, since the machine goes on.
use hark_protocol::topics::{Name, Quality, Timestamp};
use serde::{Deserialize, Serialize};

use super::{asset::AssetState, forecast::Prognosis, operating::Regime, report, second_opinion::Opinion, verdict::Verdict};
use crate::buffer::Position;

/// What a condition was judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// In the unit of what is judged: 1 for a score, that of the point for a limit.
    pub(super) value: f64,
    /// Of the value.
    pub(super) ts: Timestamp,
    pub(super) quality: Quality,
    /// First and last record behind it.
    pub(super) range: Option<(Position, Position)>,
    /// `None` for a limit and a forecast.
    pub(super) of_score: Option<OfScore>,
    /// Of a forecast.
    pub(super) of_forecast: Option<Prognosis>,
}

/// What a score was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OfScore {
    /// The points that contribute most, with their shares.
    pub(super) shares: Vec<(Name, f64)>,
    pub(super) opinion: Option<Opinion>,
    pub(super) regime: Option<Regime>,
    pub(super) baseline_id: Option<Name>,
    /// Of that baseline.
    pub(super) limit: Option<f64>,
}

impl Evidence {
    /// What the verdict on the newest row gives; `None` where it has no score.
    pub(super) fn of_verdict(state: &AssetState, verdict: &Verdict) -> Option<Self> {
        let value = verdict.score?;
        let shares = verdict.shares.iter().filter_map(|&(point, share)| Some((state.scored.get(point)?.clone(), share))).collect();
        let (baseline_id, limit) = (report::baseline_id(state), state.scoring().map(|scoring| scoring.limit));
        let of_score = OfScore { shares, opinion: verdict.opinion, regime: verdict.regime, baseline_id, limit };
        Some(Self { value, ts: verdict.ts, quality: verdict.quality, range: verdict.range, of_score: Some(of_score), of_forecast: None })
    }
}
