//! `hark.assets.v1`: inventory and present state of an asset, compacted by asset id.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AlarmState, Name, OperatingState, Phase, Quality, Zone};

/// Status of an instrument, NAMUR NE 107.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstrumentStatus {
    /// Nothing to say.
    Normal,
    /// Attention is due soon.
    MaintenanceRequired,
    /// Outside what it is specified for.
    OffSpec,
    /// Out of service, or testing itself: its values are no measurements.
    CheckFunction,
    /// Its values are invalid.
    Failure,
}

/// An asset as its gateway knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Asset {
    /// Name for people.
    pub name: Name,
    /// ISA-95 path: `enterprise/site/area/line/cell`, as far as configured.
    pub path: Option<Name>,
    /// Machine class (template).
    pub class: Option<Name>,
    /// `active` or `retired`.
    pub lifecycle: Name,
    /// Commissioning or scoring.
    pub phase: Phase,
    /// 0 to 1 while commissioning.
    pub commissioning_progress: Option<f64>,
    /// Rows of normal running that are collected so far, of the present regime; `null` where nothing is collected, as the following ones.
    pub commissioning_rows: Option<u64>,
    /// The running that they cover, seconds.
    pub commissioning_running_s: Option<f64>,
    /// The running that it takes, seconds.
    pub commissioning_running_needed_s: Option<f64>,
    /// Starts of the machine that were seen so far, of those that it takes.
    pub commissioning_starts: Option<u32>,
    /// Starts that it takes; 0 where nothing tells the operating state.
    pub commissioning_starts_needed: Option<u32>,
    /// Why commissioning was refused; while it goes on, why the attempt before was: a point that moved one way all the time.
    #[serde(default)]
    pub commissioning_refused: Option<Name>,
    /// Operating state.
    pub state: OperatingState,
    /// Regime of the newest row, as in predictions.
    pub regime: Option<Name>,
    /// 0 to 100.
    pub health: Option<f64>,
    /// What sets it, or why it is `null`.
    pub health_reason: Option<Name>,
    /// Severity zone.
    pub zone: Option<Zone>,
    /// Score over limit.
    pub above: bool,
    /// State of the asset's alarm.
    pub alarm_state: AlarmState,
    /// Id of that alarm.
    pub alarm_id: Option<Name>,
    /// Open case.
    pub case_id: Option<Name>,
    /// Worst status among its instruments.
    pub instrument_status: InstrumentStatus,
    /// Status per instrument, a JSON object as text.
    pub instruments_json: Name,
    /// Worst quality among its points.
    pub quality: Quality,
    /// Seconds since its last reading.
    pub silent_s: Option<f64>,
    /// Points with unit, a JSON array as text.
    pub points_json: Name,
    /// Model in use.
    pub model: Option<Name>,
    /// Its version.
    pub model_version: Option<Name>,
    /// Its hash.
    pub model_hash: Option<Name>,
    /// Weights in use.
    pub baseline_id: Option<Name>,
    /// Hash of the resolved configuration.
    pub config_hash: Name,
    /// `remaining_life`, `time_to_limit`, `no_trend`; `null` where no forecast is made.
    pub forecast: Option<Name>,
    /// The event that the forecast is about.
    pub end_event: Option<Name>,
    /// One such machine in ten reaches it within so many seconds.
    pub t_p10_s: Option<f64>,
    /// Median, seconds.
    pub t_p50_s: Option<f64>,
    /// Nine in ten, seconds.
    pub t_p90_s: Option<f64>,
    /// The times are at their cap: read them as "at least".
    pub capped: Option<bool>,
    /// Bundle that told it, where `forecast` is `remaining_life`.
    #[serde(default)]
    pub forecast_model: Option<Name>,
    /// Why the configured forecasting bundle is not in use.
    #[serde(default)]
    pub forecast_model_refused: Option<Name>,
}
