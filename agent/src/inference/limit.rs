//! The score over time: two channels with smoothing, and hysteresis.
use serde::{Deserialize, Serialize};

use super::seldom::Levels;

/// The limit of every score after commissioning: the channels are scaled so that each is 1 at its own. What comes later may move it (`tail.rs`).
pub(super) const LIMIT: f64 = 1.0;

/// A row counts for so many limits at most. An outlier is in the residuals of its own row and of the three that are predicted from it; of four rows that count
/// for more than this, the smoothed score would be over its limit for longer than the shipped on-delay of 15 rows.
const ROW_MOST: f64 = 2.0 * LIMIT;

/// How a channel looks at a machine. All numbers were chosen once, on the development files of SKAB and the Tennessee Eastman process together
/// (`models/README.md`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    /// The weights are drawn to a point's own last value, so what drifts is followed; else to zero, so that it is seen.
    pub(super) follows: bool,
    /// Weight of the newest value in the smoothed score (EWMA).
    pub(super) smoothing: f64,
    /// The limit is so many times the largest smoothed score of normal rows that the fit had not seen.
    pub(super) factor: f64,
}

/// Sees sudden changes.
pub(super) const FAST: Channel = Channel { follows: true, smoothing: 0.1, factor: 1.15 };
/// Sees what stays away from its level.
pub(super) const SLOW: Channel = Channel { follows: false, smoothing: 0.05, factor: 1.5 };

impl Channel {
    /// Follows `value`, from the first one on.
    pub(super) fn smooth(self, smoothed: &mut Option<f64>, value: f64) -> f64 {
        let next = smoothed.map_or(value, |before| before + self.smoothing * (value - before));
        *smoothed = Some(next);
        next
    }
}

/// What a channel of the graph says about one row.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    /// [`power_mean`] of the whitened residuals, over the channel's limit.
    pub(super) score: f64,
    /// Whitened residual per point.
    pub(super) whitened: Vec<f64>,
}

/// The fourth root of the mean fourth power: between the root mean square, in which a fault of one sensor among many drowns, and the largest one, which
/// is all noise.
pub(super) fn power_mean(whitened: &[f64]) -> f64 {
    let fourth = |residual: &f64| {
        let square = residual * residual;
        square * square
    };
    (whitened.iter().map(fourth).sum::<f64>() / whitened.len() as f64).sqrt().sqrt()
}

/// The smoothed scores of both channels, the smoothed parts of their points, and the levels of those that are heard seldom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Smoothed {
    fast: Course,
    slow: Course,
    pub(super) levels: Levels,
}

/// Exponentially weighted mean of a channel's score and of each point's squared whitened residual. Starts at the first value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Course {
    score: Option<f64>,
    parts: Vec<f64>,
}

impl Smoothed {
    /// Takes a row; gives the larger smoothed score.
    pub(super) fn push(&mut self, fast: &Residual, slow: &Residual) -> f64 {
        self.fast.push(FAST, fast).max(self.slow.push(SLOW, slow))
    }

    /// The larger smoothed score.
    #[cfg(test)]
    pub(super) fn score(&self) -> Option<f64> {
        self.leading().score
    }

    /// Of the channel that has it, the three largest shares with the index of their points, largest first; empty while nothing contributes.
    pub(super) fn top_shares(&self) -> Vec<(usize, f64)> {
        let parts = &self.leading().parts;
        let total: f64 = parts.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return Vec::new();
        }
        let mut shares: Vec<(usize, f64)> = parts.iter().map(|part| part / total).enumerate().collect();
        // The index breaks ties, so that equal shares come in the same order in every run.
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        shares.truncate(3);
        shares
    }

    fn leading(&self) -> &Course {
        if self.slow.score > self.fast.score { &self.slow } else { &self.fast }
    }
}

impl Course {
    fn push(&mut self, channel: Channel, residual: &Residual) -> f64 {
        let counted = residual.score.min(ROW_MOST);
        // Its points share in what counts of it.
        let share = if residual.score > 0.0 { counted / residual.score } else { 0.0 };
        let squared = residual.whitened.iter().map(|whitened| (share * whitened).powi(2));
        if self.score.is_none() {
            self.parts = squared.clone().collect();
        }
        for (smooth, part) in self.parts.iter_mut().zip(squared) {
            *smooth += channel.smoothing * (part - *smooth);
        }
        channel.smooth(&mut self.score, counted)
    }
}

/// Whether `score` is over `limit`, given whether it `was`: on above the limit, off below the middle between it and the `median` of normal rows.
pub(super) fn is_above(was: bool, score: f64, limit: f64, median: f64) -> bool {
    if was { score >= f64::midpoint(limit, median) } else { score > limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts are squares of what is whitened, of either sign.
    fn residual(score: f64, squared: &[f64]) -> Residual {
        let sign = |(place, square): (usize, &f64)| if place % 2 == 0 { square.sqrt() } else { -square.sqrt() };
        Residual { score, whitened: squared.iter().enumerate().map(sign).collect() }
    }

    fn assert_shares(smoothed: &Smoothed, expected: &[(usize, f64)]) {
        let shares = smoothed.top_shares();
        let same = |((a, share_a), (b, share_b)): (&(usize, f64), &(usize, f64))| a == b && (share_a - share_b).abs() < 1e-12;
        assert!(shares.len() == expected.len() && shares.iter().zip(expected).all(same), "{shares:?}, not {expected:?}");
    }

    #[test]
    fn smoothing_starts_at_the_first_value_and_the_larger_channel_counts() {
        let mut smoothed = Smoothed::default();
        assert_eq!(smoothed.push(&residual(0.2, &[1.0, 3.0]), &residual(0.1, &[5.0, 5.0])), 0.2);
        let score = smoothed.push(&residual(0.3, &[1.0, 13.0]), &residual(0.1, &[5.0, 5.0]));
        assert!((score - 0.21).abs() < 1e-12);
        assert_shares(&smoothed, &[(1, 0.8), (0, 0.2)]);
        let score = smoothed.push(&residual(0.2, &[1.0, 3.0]), &residual(1.9, &[5.0, 5.0]));
        assert!((score - 0.209).abs() < 1e-12, "{score}");
        let score = smoothed.push(&residual(0.2, &[1.0, 3.0]), &residual(1.9, &[5.0, 5.0]));
        assert!((score - 0.2755).abs() < 1e-12, "{score}");
        assert_shares(&smoothed, &[(0, 0.5), (1, 0.5)]);
    }

    /// Rows of these fast scores, after normal ones: how many are over the limit, and which is the first.
    fn over(scores: &[f64]) -> (usize, Option<usize>) {
        let (mut smoothed, mut above, mut count, mut first) = (Smoothed::default(), false, 0, None);
        let usual = residual(0.6, &[0.36, 0.36]);
        smoothed.push(&usual, &usual);
        for (row, score) in scores.iter().chain(&[0.6; 100]).enumerate() {
            above = is_above(above, smoothed.push(&residual(*score, &[score * score, 0.0]), &usual), LIMIT, 0.6);
            count += usize::from(above);
            first = first.or(above.then_some(row));
        }
        (count, first)
    }

    /// However far off it is: what was one bad sample is no machine that behaves otherwise for a minute and a half.
    #[test]
    fn an_outlier_is_forgotten_within_the_shipped_on_delay_and_what_stays_is_seen() {
        for outlier in [5.0, 100.0, 1e6] {
            let (count, _) = over(&[outlier; 4]);
            assert!((1..15).contains(&count), "{outlier}: {count} rows");
        }
        let (count, first) = over(&[1e6; 200]);
        assert_eq!(first, Some(3), "in the fourth row");
        assert!(count > 200);
    }

    #[test]
    fn only_the_three_largest_shares_are_named_and_ties_keep_their_order() {
        let mut smoothed = Smoothed::default();
        smoothed.push(&residual(1.0, &[1.0, 2.0, 1.0, 4.0]), &residual(0.0, &[0.0; 4]));
        assert_shares(&smoothed, &[(3, 0.5), (1, 0.25), (0, 0.125)]);
        assert_shares(&Smoothed::default(), &[]);
    }

    #[test]
    fn the_power_mean_lies_between_root_mean_square_and_maximum() {
        assert_eq!(power_mean(&[-2.0; 5]), 2.0);
        let score = power_mean(&[4.0, 0.0, 0.0, 0.0]);
        assert!((score - 4.0 / f64::sqrt(2.0)).abs() < 1e-12, "{score}: the root mean square is 2, the maximum 4");
    }

    #[test]
    fn hysteresis_switches_at_the_limit_and_halfway_to_the_median() {
        for (was, score, now) in
            [(false, 1.0, false), (false, 1.001, true), (true, 0.9, true), (true, 0.8, true), (true, 0.799, false), (false, 0.9, false)]
        {
            assert_eq!(is_above(was, score, 1.0, 0.6), now, "{was} {score}");
        }
    }
}
