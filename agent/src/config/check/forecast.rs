//! `[forecast]` of a machine's file: how trends are followed, and how far ahead.
use std::time::Duration;

use super::faults::{DAY, Faults};
use crate::config::{Forecast, ForecastModel, file::ForecastTable};

/// A window is so many rows unless configured, where an hour is fewer: a mean of some rows.
const ROWS_OF_WINDOW: u32 = 10;
/// Nothing is told farther ahead, whatever is configured.
const CAP_MOST: Duration = Duration::from_secs(20 * 365 * DAY.as_secs());

/// Checks the table of a machine with rows so far apart.
pub(super) fn check_forecast(raw: &ForecastTable, grid: Duration, faults: &mut Faults) -> Forecast {
    let default = Forecast::default();
    let window = match &raw.window {
        Some(text) => faults.duration("forecast.window", text, grid..=DAY * 30),
        None => default.window.max(grid * ROWS_OF_WINDOW),
    };
    let cap = raw.cap.as_ref().map_or(default.cap, |text| faults.duration("forecast.cap", text, window..=CAP_MOST));
    let horizons = match &raw.horizons {
        Some(texts) => texts.each_ref().map(|text| faults.duration("forecast.horizons", text, Duration::from_secs(1)..=cap)),
        None => default.horizons,
    };
    if !horizons.is_sorted() {
        faults.add("forecast.horizons", "are not ascending; expected the nearest first");
    }
    let alarm = raw.alarm.unwrap_or(default.alarm);
    if !(alarm > 0.0 && alarm <= 1.0) {
        faults.add("forecast.alarm", format!("{alarm} is no probability above 0; expected for example 0.5"));
    }
    Forecast { window, horizons, cap, alarm, model: check_model(raw, faults) }
}

/// The folder lies under that of the models, whatever is written.
fn check_model(raw: &ForecastTable, faults: &mut Faults) -> Option<ForecastModel> {
    let Some(folder) = &raw.model else {
        if raw.age.is_some() {
            faults.add("forecast.age", "says nothing alone; expected `model`");
        }
        return None;
    };
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !folder.split('/').all(is_plain) {
        faults.add("forecast.model", format!("`{folder}` is no folder of the models directory; expected for example \"turbofan-rul/with-age\""));
    }
    Some(ForecastModel { folder: folder.as_str().into(), age_rows: raw.age, bundle: None, refused: None })
}
