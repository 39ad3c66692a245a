//! What inference counts.
use serde::Serialize;

/// What inference counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineCounters {
    /// Readings seen.
    pub readings: u64,
    /// Readings, ticks and commands of assets that are not configured.
    pub unknown_asset: u64,
    /// Readings of points that are not configured.
    pub unknown_point: u64,
    /// Readings older than the open slot; not used.
    pub late: u64,
    /// Readings whose time runs ahead of the gateway's; stored, not used.
    pub ahead: u64,
    /// Readings of scored points without a usable value.
    pub bad: u64,
    /// Readings of scored points that cleaning found worse than their source had: moving too fast, stuck, clipping.
    pub cleaned: u64,
    /// Changes of the status of an instrument.
    pub instrument_changes: u64,
    /// Times that an asset's clock was found set back.
    pub clock_set_back: u64,
    /// Rows closed.
    pub rows: u64,
    /// Rows with a score.
    pub rows_scored: u64,
    /// Rows with a score of some of the points, because others had no usable value.
    pub rows_reduced: u64,
    /// Rows without one because a point had no usable value.
    pub rows_missing_point: u64,
    /// Rows that are not looked at: the machine was off, idle or transient, or in an alarm in a regime that is not learned yet.
    pub rows_not_steady: u64,
    /// Rows on which the model failed.
    pub model_failures: u64,
    /// Rows on which a forecasting model failed.
    pub forecast_failures: u64,
    /// Predictions given.
    pub predictions: u64,
    /// Alarm changes given.
    pub alarm_changes: u64,
    /// Alarm floods that began.
    pub alarm_floods: u64,
    /// Times that an asset was found silent for longer than its stale limit.
    pub silences: u64,
    /// Changes of an operating state.
    pub state_changes: u64,
    /// Limits of the score that the tail of normal scores moved.
    pub limits_moved: u64,
    /// Times that means moved to where accepted normal rows are.
    pub means_moved: u64,
    /// Regimes met that commissioning had not seen.
    pub regimes_unseen: u64,
    /// Commands seen, repeated ones left out.
    pub commands: u64,
    /// Commands that were applied before.
    pub commands_repeated: u64,
    /// Changes of configuration or bundle that took effect.
    pub changes: u64,
    /// Changes that could not be used; what was in force stays.
    pub changes_refused: u64,
    /// Corrections of the gateway's clock that made assets start their windows anew.
    pub clock_corrections: u64,
    /// Gaps in the inputs that were passed.
    pub gaps: u64,
}

impl EngineCounters {
    /// All of them by name, for `/metrics`.
    pub fn named(&self) -> [(&'static str, u64); 30] {
        [
            ("readings", self.readings),
            ("unknown_asset", self.unknown_asset),
            ("unknown_point", self.unknown_point),
            ("late", self.late),
            ("ahead", self.ahead),
            ("bad", self.bad),
            ("cleaned", self.cleaned),
            ("instrument_changes", self.instrument_changes),
            ("clock_set_back", self.clock_set_back),
            ("rows", self.rows),
            ("rows_scored", self.rows_scored),
            ("rows_reduced", self.rows_reduced),
            ("rows_missing_point", self.rows_missing_point),
            ("rows_not_steady", self.rows_not_steady),
            ("model_failures", self.model_failures),
            ("forecast_failures", self.forecast_failures),
            ("predictions", self.predictions),
            ("alarm_changes", self.alarm_changes),
            ("alarm_floods", self.alarm_floods),
            ("silences", self.silences),
            ("state_changes", self.state_changes),
            ("limits_moved", self.limits_moved),
            ("means_moved", self.means_moved),
            ("regimes_unseen", self.regimes_unseen),
            ("commands", self.commands),
            ("commands_repeated", self.commands_repeated),
            ("changes", self.changes),
            ("changes_refused", self.changes_refused),
            ("clock_corrections", self.clock_corrections),
            ("gaps", self.gaps),
        ]
    }
}
