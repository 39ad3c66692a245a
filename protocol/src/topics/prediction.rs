//! `hark.predictions.v1`: score, health and forecast of an asset, with all that is needed to believe or recompute them.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, Quality};

/// How far the asset is on the way to being scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Collecting normal running; no score yet.
    Commissioning,
    /// Weights are fitted.
    Scoring,
}

/// Operating state of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperatingState {
    /// Not configured or not known.
    #[default]
    Unknown,
    /// Without power or standing still.
    Off,
    /// Turning without load.
    Idle,
    /// In production, steady.
    Running,
    /// Starting, stopping or changing load.
    Transient,
}

/// Why there is no score, or what limits it. New reasons are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScoreReason {
    /// Weights are not fitted yet.
    Commissioning,
    /// A point has no usable value.
    MissingPoint,
    /// The window is not full yet, after a start or a gap.
    WindowFilling,
    /// The operating state is not one that is scored.
    OperatingState,
    /// The model failed on this input.
    ModelFailed,
    /// Commissioning ended without usable weights.
    CommissioningRefused,
    /// Readings are missing from the gateway's own buffer: the window fills again behind the gap.
    InputGap,
    /// Some points have no usable value: score, limit and contributions are those of the others, by the weights that `baseline_id` names.
    Reduced,
    /// The machine runs in a regime that its commissioning has not seen; the regime is being learned, unless there is an alarm.
    UnseenRegime,
}

/// Severity zone, ISO 20816-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Zone {
    /// Newly commissioned.
    A,
    /// Unrestricted long-term operation.
    B,
    /// Unsatisfactory for long-term continuous operation.
    C,
    /// May cause damage.
    D,
}

/// What Hark says about an asset at one time. Numbers that are not known are `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prediction {
    /// Commissioning or scoring.
    pub phase: Phase,
    /// Operating state.
    pub state: OperatingState,
    /// Why `score` is `null`, or what limits it.
    pub reason: Option<ScoreReason>,
    /// Regime the baseline was chosen by: `running`, `load-1` …, `idle`; `null` where none is configured, or in a state that is not scored.
    pub regime: Option<Name>,
    /// Anomaly score now, same scale as `limit`.
    pub score: Option<f64>,
    /// Largest score since the previous prediction of this asset.
    pub score_max: Option<f64>,
    /// Limit of the score.
    pub limit: Option<f64>,
    /// Score over limit, after hysteresis.
    pub above: bool,
    /// An alarm of this asset is active that asks for a response: of priority low or above. A bare anomaly is advice, and none.
    pub alarm: bool,
    /// 0 (failed) to 100 (as commissioned).
    pub health: Option<f64>,
    /// What sets `health`, or why it is `null`.
    pub health_reason: Option<Name>,
    /// Severity zone.
    pub zone: Option<Zone>,
    /// `remaining_life`, `time_to_limit`, `no_trend`; `null` where no forecast is made.
    pub forecast: Option<Name>,
    /// The event that the forecast is about.
    pub end_event: Option<Name>,
    /// What it fails by, in the words of the model's training data.
    pub failure_mode: Option<Name>,
    /// 10 % of such machines reach `end_event` within so many seconds.
    pub t_p10_s: Option<f64>,
    /// Median time to `end_event`, seconds.
    pub t_p50_s: Option<f64>,
    /// 90 % point, seconds.
    pub t_p90_s: Option<f64>,
    /// The times are at their cap: read them as "at least".
    pub capped: Option<bool>,
    /// First configured horizon, seconds.
    pub horizon_1_s: Option<f64>,
    /// Probability of `end_event` within the first horizon.
    pub p_fail_1: Option<f64>,
    /// Second configured horizon, seconds.
    pub horizon_2_s: Option<f64>,
    /// Probability of `end_event` within the second horizon.
    pub p_fail_2: Option<f64>,
    /// Third configured horizon, seconds.
    pub horizon_3_s: Option<f64>,
    /// Probability of `end_event` within the third horizon.
    pub p_fail_3: Option<f64>,
    /// Second opinion: Hotelling's T² over its limit, 1 at the limit; how far the points move as they always do together.
    pub t2: Option<f64>,
    /// Second opinion: squared distance from the principal components over its limit; how far they move otherwise than together.
    pub q: Option<f64>,
    /// Point that contributes most to the score.
    pub contrib_1_point: Option<Name>,
    /// Its share, 0 to 1.
    pub contrib_1_share: Option<f64>,
    /// Second point.
    pub contrib_2_point: Option<Name>,
    /// Its share.
    pub contrib_2_share: Option<f64>,
    /// Third point.
    pub contrib_3_point: Option<Name>,
    /// Its share.
    pub contrib_3_share: Option<f64>,
    /// Worst quality among the inputs.
    pub quality: Quality,
    /// Bundle name.
    pub model: Option<Name>,
    /// Bundle version.
    pub model_version: Option<Name>,
    /// SHA-256 of the bundle's model, hex.
    pub model_hash: Option<Name>,
    /// Key of the weights in `hark.baselines.v1`.
    pub baseline_id: Option<Name>,
    /// SHA-256 of the asset's resolved configuration, hex.
    pub config_hash: Name,
    /// First record of the inputs lane behind this prediction: `inc/seq`.
    pub input_from: Option<Name>,
    /// Last one.
    pub input_to: Option<Name>,
    /// Where `forecast` is `remaining_life`: its mean, of lives cut where the model says (`mean_cut`, else its cap), seconds.
    #[serde(default)]
    pub remaining_life_s: Option<f64>,
    /// Rows of the machine's life so far, by which it was told.
    #[serde(default)]
    pub life_rows: Option<u64>,
    /// Bundle that told it.
    #[serde(default)]
    pub forecast_model: Option<Name>,
    /// Version of that bundle.
    #[serde(default)]
    pub forecast_model_version: Option<Name>,
    /// SHA-256 of its model, hex.
    #[serde(default)]
    pub forecast_model_hash: Option<Name>,
    /// First record of the life behind it, `inc/seq`.
    #[serde(default)]
    pub forecast_input_from: Option<Name>,
    /// Last record behind it.
    #[serde(default)]
    pub forecast_input_to: Option<Name>,
}
