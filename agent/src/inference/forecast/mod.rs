//! Time to limit, of every machine and without any history of failures: what grows, how surely, and when it reaches a limit that has a name.
//!
//! ```text
//! score ÷ limit ─┐
//! velocities    ─┴─► window of running ─► bank of Wiener processes ─► first passage to the next limit ─► the soonest
//! ```
//! The limits are that of health (the score at its limit, health 50) and the next zone of each velocity that has a severity class. A window is so much running in the
//! present regime, so stops and other regimes lengthen the way in the calendar by their part. What is told are times from the last window on; it is called
//! `time_to_limit`, never remaining life: nobody has seen this machine fail. Without a trend that is certain enough over several windows it is `no_trend`.
mod bank;
mod passage;
mod trend;
mod wiener;

use std::collections::BTreeMap;

use hark_protocol::topics::{Name, Timestamp};
use serde::{Deserialize, Serialize};

use self::trend::Trend;
use crate::{buffer::Position, config, signal::severity::Class};

/// The score reaches its limit, where health is 50.
const HEALTH_LIMIT: &str = "health_limit";

/// The trends of a regime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Forecasts {
    /// Rows that counted, and the time of the first and of the last one.
    rows: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    score: Trend,
    of_points: BTreeMap<Name, Trend>,
    /// What each indicator leads to, by its last window.
    ahead: BTreeMap<Name, Prognosis>,
}

/// When an event comes: a limit that a trend leads to, or what a model was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prognosis {
    /// `health_limit`, a point and its zone as in `de-h.v_rms:zone_c`, or of a model, such as `functional_failure`.
    pub end_event: Name,
    /// One way in ten is as short, seconds from `ts` on; at most the cap, as are the others.
    pub p10_s: f64,
    /// Median.
    pub p50_s: f64,
    /// Nine ways in ten are as short.
    pub p90_s: f64,
    /// The last of them is at the cap: at least.
    pub capped: bool,
    /// The probability of the event within each configured horizon from `ts` on.
    pub within: [f64; 3],
    /// The row by which it was found.
    pub ts: Timestamp,
    /// There where a model that knows failures said it: then it is remaining life, else time to limit.
    pub of_model: Option<OfModel>,
}

/// Which model said it, and of what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfModel {
    /// Of the bundle.
    pub name: Name,
    /// Of the bundle.
    pub version: Name,
    /// SHA-256 of the model.
    pub hash: Name,
    /// What the machine fails by, for people.
    pub failure_mode: Option<Name>,
    /// Mean remaining life, seconds; at most the cap.
    pub mean_s: f64,
    /// One such machine in twenty fails within so many seconds, and all but one in twenty.
    pub p05_s: f64,
    /// The other end.
    pub p95_s: f64,
    /// Rows of life so far.
    pub rows: u64,
    /// First and last record behind its features: of the life, not of the row.
    pub range: (Position, Position),
}

impl Prognosis {
    /// Its end as a person says it: `functional failure`, `de-h.v_rms in zone c`.
    pub(super) fn words(&self) -> String {
        match self.end_event.split_once(':') {
            Some((point, limit)) => format!("`{point}` in {}", limit.replace('_', " ")),
            None => self.end_event.replace('_', " "),
        }
    }

    /// Whether someone must act on it: what a model or a zone tells. That a score will reach its limit is advice at most.
    pub(super) fn asks_for_response(&self) -> bool {
        self.of_model.is_some() || *self.end_event != *HEALTH_LIMIT
    }

    /// The same, seen at `now`: times from there on.
    fn seen_at(&self, now: Timestamp) -> Self {
        let passed_s = now.0.saturating_sub(self.ts.0).max(0) as f64 / 1e6;
        let left = |s: f64| (s - passed_s).max(0.0);
        Self { p10_s: left(self.p10_s), p50_s: left(self.p50_s), p90_s: left(self.p90_s), ..self.clone() }
    }
}

/// A row that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) ts: Timestamp,
    /// Over its limit.
    pub(super) score: f64,
    /// To the next row where the machine runs on.
    pub(super) grid_us: i64,
}

/// Windows in the calendar of a machine.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    /// Seconds that a window takes, stops and other regimes included.
    window_s: f64,
    ts: Timestamp,
}

impl Forecasts {
    /// Takes a row of the regime, and its `velocities` in mm/s with their classes.
    pub(super) fn push<'a>(&mut self, row: Row, velocities: impl Iterator<Item = (&'a Name, f64, &'a Class)>, settings: &config::Forecast) {
        let Row { ts, score, grid_us } = row;
        self.rows += 1;
        self.first = Some(self.first.map_or(ts, |first| first.min(ts)));
        self.last = self.last.max(Some(ts));
        let window_rows = u32::try_from(settings.window.as_micros() as i64 / grid_us.max(1)).unwrap_or(u32::MAX).max(1);
        let calendar = Calendar { window_s: f64::from(window_rows) * self.row_s(grid_us), ts };
        if let Some(mean) = self.score.push(score, window_rows) {
            let level = if mean < 1.0 { Some((HEALTH_LIMIT.into(), 1.0)) } else { None };
            let found = look(&mut self.score, mean, level, calendar, settings);
            tell(&mut self.ahead, HEALTH_LIMIT.into(), found);
        }
        for (point, value, class) in velocities {
            if !self.of_points.contains_key(point) {
                self.of_points.insert(point.clone(), Trend::default());
            }
            let Some(trend) = self.of_points.get_mut(point) else { continue };
            if let Some(mean) = trend.push(value, window_rows) {
                let found = look(trend, mean, next_zone(point, mean, class), calendar, settings);
                tell(&mut self.ahead, point.clone(), found);
            }
        }
    }

    /// The limit that is reached first, by the median, seen from the newest row; `None` where nothing leads to one.
    pub(super) fn soonest(&self) -> Option<Prognosis> {
        let now = self.last?;
        self.ahead.values().map(|ahead| ahead.seen_at(now)).min_by(|a, b| a.p50_s.total_cmp(&b.p50_s))
    }

    /// The score is measured by another limit from here on.
    pub(super) fn forget_score(&mut self) {
        self.score = Trend::default();
        self.ahead.remove(HEALTH_LIMIT);
    }

    /// Seconds from row to row in the calendar, on average.
    fn row_s(&self, grid_us: i64) -> f64 {
        let grid_s = grid_us as f64 / 1e6;
        let span_s = self.first.zip(self.last).map_or(0.0, |(first, last)| (last.0 - first.0) as f64 / 1e6 + grid_s);
        (span_s / self.rows.max(1) as f64).max(grid_s)
    }
}

/// The next boundary above `mean` that asks for something: zones A and B are both good.
fn next_zone(point: &Name, mean: f64, class: &Class) -> Option<(Name, f64)> {
    let boundaries = [("zone_c", class.b_c), ("zone_d", class.c_d)];
    boundaries.into_iter().find(|(_, level)| mean < *level).map(|(zone, level)| (format!("{point}:{zone}").into(), level))
}

fn look(trend: &mut Trend, mean: f64, next: Option<(Name, f64)>, calendar: Calendar, settings: &config::Forecast) -> Option<Prognosis> {
    let Calendar { window_s, ts } = calendar;
    let cap_s = settings.cap.as_secs_f64();
    let ahead = trend.look(mean, next.as_ref().map(|(_, level)| *level), cap_s / window_s)?;
    let (end_event, _) = next?;
    let seconds = |windows: f64| (windows * window_s).min(cap_s);
    let within = settings.horizons.map(|horizon| ahead.within(horizon.as_secs_f64() / window_s));
    let (p90_s, capped) = (ahead.p90.map_or(cap_s, seconds), ahead.p90.is_none());
    Some(Prognosis { end_event, p10_s: seconds(ahead.p10), p50_s: seconds(ahead.p50), p90_s, capped, within, ts, of_model: None })
}

fn tell(ahead: &mut BTreeMap<Name, Prognosis>, indicator: Name, found: Option<Prognosis>) {
    match found {
        Some(found) => drop(ahead.insert(indicator, found)),
        None => drop(ahead.remove(&indicator)),
    }
}
