//! The trend of one indicator: a value per window of running, when it may reach a level, and whether that is certain enough to be said.
use serde::{Deserialize, Serialize};

use super::{bank::Bank, passage::Passage};

/// Before so many windows nothing is said.
const WINDOWS_MIN: u32 = 20;
/// A level that is not reached within so many times what was seen is none that a trend leads to.
const SEEN_TIMES: f64 = 10.0;
/// A trend begins where the level is reached within that, or the cap, with this probability …
const SURE: f64 = 0.8;
/// … by so many windows in a row, and lasts as long as it is as likely as not.
const LASTING: u32 = 5;
const STILL: f64 = 0.5;
/// Values below this part of the level are as good as that: a logarithm of nothing would tell of nothing.
const LEAST: f64 = 1e-3;

/// What is known of an indicator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Trend {
    open: Window,
    bank: Option<Bank>,
    windows: u32,
    /// Windows in a row by which the level is reached in time.
    lasting: u32,
}

/// Rows so far of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    rows: u32,
    sum: f64,
}

/// When a level is reached, in windows from the last one on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ahead {
    passage: Passage,
    pub(super) p10: Option<f64>,
    pub(super) p50: f64,
    pub(super) p90: Option<f64>,
}

impl Ahead {
    /// The probability that it is reached within so many windows.
    pub(super) fn within(&self, windows: f64) -> f64 {
        self.passage.within(windows)
    }
}

impl Trend {
    /// Takes the value of a row, 0 or more; gives the mean of the window that it completes.
    pub(super) fn push(&mut self, value: f64, window_rows: u32) -> Option<f64> {
        self.open = Window { rows: self.open.rows + 1, sum: self.open.sum + value };
        if self.open.rows < window_rows {
            return None;
        }
        let Window { rows, sum } = std::mem::take(&mut self.open);
        Some(sum / f64::from(rows))
    }

    /// Takes the `mean` of a window; gives when `level`, above 0, is reached, if that is within `cap` windows and certain enough.
    pub(super) fn look(&mut self, mean: f64, level: f64, cap: f64) -> Option<Ahead> {
        let value = mean.max(LEAST * level);
        match &mut self.bank {
            None => self.bank = Some(Bank::new(value)),
            Some(bank) => bank.take(value, 1.0),
        }
        self.windows = self.windows.saturating_add(1);
        let enough = if self.lasting >= LASTING { STILL } else { SURE };
        let ahead = self.ahead(level, cap, enough);
        self.lasting = if ahead.is_some() { self.lasting.saturating_add(1) } else { 0 };
        ahead.filter(|_| self.lasting >= LASTING)
    }

    fn ahead(&self, level: f64, cap: f64, enough: f64) -> Option<Ahead> {
        let bank = self.bank.as_ref().filter(|_| self.windows >= WINDOWS_MIN)?;
        let most = cap.min(SEEN_TIMES * f64::from(self.windows));
        // How uncertain a drift is depends on how far ahead one looks, and that on the drift.
        let near = bank.passage(level, 1.0).quantile(0.5, most).unwrap_or(most);
        let passage = bank.passage(level, near.max(1.0));
        if passage.within(most) < enough {
            return None;
        }
        let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|probability| passage.quantile(probability, cap));
        Some(Ahead { p10, p50: p50?, p90, passage })
    }
}
