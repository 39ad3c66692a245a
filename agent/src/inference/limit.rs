//! The score over time: smoothing, limit, hysteresis, and the anomaly scale that compares machines.
use serde::{Deserialize, Serialize};

/// Weight of the newest value in the smoothed score (EWMA).
pub(super) const SMOOTHING: f64 = 0.1;
/// The limit is so many times the largest smoothed score of the held-back normal rows: measured best for short records.
pub(super) const LIMIT_FACTOR: f64 = 1.25;
/// A score that was over its limit counts as back only below this part of it.
pub(super) const HYSTERESIS: f64 = 0.8;

/// Exponentially weighted mean of score and of each point's squared whitened residual. Starts at the first value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Smoothed {
    score: Option<f64>,
    parts: Vec<f64>,
}

impl Smoothed {
    /// Takes the raw score of a row and its parts, one per point; gives the smoothed score.
    pub(super) fn push(&mut self, score: f64, parts: &[f64]) -> f64 {
        let Some(before) = self.score else {
            self.score = Some(score);
            self.parts = parts.to_vec();
            return score;
        };
        for (smooth, part) in self.parts.iter_mut().zip(parts) {
            *smooth += SMOOTHING * (part - *smooth);
        }
        let score = before + SMOOTHING * (score - before);
        self.score = Some(score);
        score
    }

    /// The three largest shares with the index of their points, largest first; empty while nothing contributes.
    pub(super) fn top_shares(&self) -> Vec<(usize, f64)> {
        let total: f64 = self.parts.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return Vec::new();
        }
        let mut shares: Vec<(usize, f64)> = self.parts.iter().map(|part| part / total).enumerate().collect();
        // The index breaks ties, so that equal shares come in the same order in every run.
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        shares.truncate(3);
        shares
    }
}

/// Whether `score` is over `limit`, given whether it `was`: on above the limit, off below 80 % of it.
pub(super) fn is_above(was: bool, score: f64, limit: f64) -> bool {
    if was { score >= HYSTERESIS * limit } else { score > limit }
}

/// 0 to 1, 0.5 at the limit: `1 - exp(-ln 2 * score / limit)`. Comparable between machines, unlike the score itself.
pub(super) fn anomaly(score: f64, limit: f64) -> f64 {
    1.0 - (-std::f64::consts::LN_2 * score / limit).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_starts_at_the_first_value_and_follows_by_a_tenth() {
        let mut smoothed = Smoothed::default();
        assert_eq!(smoothed.push(2.0, &[1.0, 3.0]), 2.0);
        assert!((smoothed.push(3.0, &[1.0, 13.0]) - 2.1).abs() < 1e-12);
        assert_eq!(smoothed.top_shares(), vec![(1, 0.8), (0, 0.2)]);
    }

    #[test]
    fn only_the_three_largest_shares_are_named_and_ties_keep_their_order() {
        let mut smoothed = Smoothed::default();
        smoothed.push(1.0, &[1.0, 2.0, 1.0, 4.0]);
        assert_eq!(smoothed.top_shares(), vec![(3, 0.5), (1, 0.25), (0, 0.125)]);
        assert_eq!(Smoothed::default().top_shares(), vec![]);
    }

    #[test]
    fn hysteresis_switches_at_the_limit_and_at_eighty_percent() {
        for (was, score, now) in
            [(false, 1.0, false), (false, 1.001, true), (true, 0.9, true), (true, 0.8, true), (true, 0.799, false), (false, 0.9, false)]
        {
            assert_eq!(is_above(was, score, 1.0), now, "{was} {score}");
        }
    }

    #[test]
    fn anomaly_is_a_half_at_the_limit() {
        assert!((anomaly(3.0, 3.0) - 0.5).abs() < 1e-15);
        assert_eq!(anomaly(0.0, 3.0), 0.0);
        assert!(anomaly(300.0, 3.0) <= 1.0);
    }
}
