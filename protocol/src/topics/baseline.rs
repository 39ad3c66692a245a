//! `hark.baselines.v1`: what a prediction needs to be recomputed, compacted by `asset/baseline`.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// Weights of Stage A for one asset, with the data they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// Unique within the asset.
    pub baseline_id: Name,
    /// Regime whose rows it is from, as in predictions.
    pub regime: Option<Name>,
    /// Bundle whose graph uses the weights.
    pub model: Name,
    /// Its version.
    pub model_version: Name,
    /// Its hash.
    pub model_hash: Name,
    /// Hash of the configuration at the time.
    pub config_hash: Name,
    /// `accepted`, `accepted_with_remarks`, `refused`; `reduced`: made from another one for some of its points, as `remarks` says.
    pub verdict: Name,
    /// Remarks, one sentence.
    pub remarks: Option<Name>,
    /// Who or what accepted it.
    pub accepted_by: Option<Name>,
    /// Rows of commissioning.
    pub rows: u64,
    /// Starts of the machine by the end of it; `null` where nothing tells its operating state.
    pub starts: Option<u32>,
    /// Rows that were scored by a fit which had not seen them, for the limit.
    pub rows_held_back: u64,
    /// First record of the inputs lane: `inc/seq`.
    pub input_from: Name,
    /// Last one.
    pub input_to: Name,
    /// Limit of the score.
    pub limit: f64,
    /// Where it comes from, one sentence, if not from commissioning: then weights and rows are those of an earlier baseline, which is named.
    pub limit_by: Option<Name>,
    /// Their median score.
    pub score_median: f64,
    /// Points in the order of the weights, a JSON array of texts.
    pub points_json: Name,
    /// The graph's weight inputs by name, a JSON object of arrays; in `seldom` the indices of points whose level stands for their value.
    pub weights_json: Name,
    /// Smallest and largest value per point, a JSON object of pairs.
    pub range_json: Name,
    /// What moved the means since commissioning, one sentence; then all else is as in an earlier baseline, which is named.
    pub means_by: Option<Name>,
}
