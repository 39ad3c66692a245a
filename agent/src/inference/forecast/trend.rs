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
    pub(super) p10: f64,
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

    /// Takes the `mean` of a window; gives when `level`, above 0, is reached, if that is within `cap` windows and certain enough. Without a level the
    /// indicator is beyond its last one, and is followed all the same: it may come back.
    pub(super) fn look(&mut self, mean: f64, level: Option<f64>, cap: f64) -> Option<Ahead> {
        let value = mean.max(LEAST * level.unwrap_or(0.0)).max(f64::MIN_POSITIVE);
        match &mut self.bank {
            None => self.bank = Some(Bank::new(value)),
            Some(bank) => bank.take(value),
        }
        self.windows = self.windows.saturating_add(1);
        let enough = if self.lasting >= LASTING { STILL } else { SURE };
        let ahead = level.and_then(|level| self.ahead(level, cap, enough));
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
        Some(Ahead { p10: p10?, p50: p50?, p90, passage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    const CAP: f64 = 1e4;

    /// Windows around `value`, and what the last of them tells of the next limit.
    fn windows(trend: &mut Trend, noise: &mut Noise, values: impl Iterator<Item = f64>, level: Option<f64>) -> Option<Ahead> {
        values.fold(None, |_, value| trend.look(value * (1.0 + 0.01 * noise.next()), level, CAP))
    }

    #[test]
    fn an_even_rise_is_told_when_it_gets_there() {
        let (mut trend, mut noise) = (Trend::default(), Noise(3));
        let ahead = windows(&mut trend, &mut noise, (0..150).map(|window| 1.0 + f64::from(window) / 300.0), Some(2.0)).unwrap();
        assert!((120.0..190.0).contains(&ahead.p50) && ahead.p10 < ahead.p50 && ahead.p90.is_none_or(|p90| p90 > ahead.p50), "{ahead:?}");
        assert!((ahead.within(ahead.p50) - 0.5).abs() < 0.01);
    }

    /// What was beyond its last limit led to none: a trend to it has to show itself anew.
    #[test]
    fn what_comes_back_from_beyond_its_limit_has_no_trend_to_it() {
        let (mut trend, mut noise) = (Trend::default(), Noise(4));
        windows(&mut trend, &mut noise, (0..60).map(|_| 2.2), None);
        for _ in 0..LASTING - 1 {
            assert_eq!(windows(&mut trend, &mut noise, [1.9].into_iter(), Some(2.0)), None);
        }
    }
}
