//! Commissioning: from normal rows to the weights of Stage A and its median score.
//!
//! Rows are z-scored. Two channels predict each row from the `lags` rows before it by ridge regression and whiten what is left, with the symmetric root, so
//! that each whitened residual stays with its point. The fast channel takes a point's own last value for granted as far as the point is slow, so a drift
//! of the surroundings is followed; the slow channel draws its weights to zero, so it sees a level that stays away. The limit of each comes from a
//! cross-validation in blocks: every row is scored by a fit that has not seen its block (a limit from the rows of the fit raised 98 % false alarms
//! where it was measured), and the same scores choose the penalty. Whitening is divided by the limit: a score of 1 is at it. Points that are heard more
//! seldom than rows come are judged by their level, apart from the regression (`seldom.rs`).
use std::borrow::Cow;

use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use super::{
    collected::Collected,
    drift::Drift,
    limit::{FAST, SLOW, Smoothed, power_mean},
    novelty::Novelty,
    reduced::Moments,
    second_opinion::SecondOpinion,
    seldom::{self, Apart, Learned},
    tail::THRESHOLD_PART,
    validation::{FOLDS, SETTLING, Validation},
};

/// A point that did not move gets this part of its mean as its standard deviation (or 1 where the mean is 0), so that a later move counts.
const STILL_FRACTION: f64 = 0.01;
/// A spread below this part of the mean is rounding, not movement.
const STILL_SPREAD: f64 = 1e-9;

/// What is no anomaly falls by so much at most, in standard deviations: what stays there is within the limit, and what the point does about its mean still
/// explains the others. It is as far as means may move, too (`adaptation.rs`).
const FALL_LEAST: f64 = -1.0;
/// Far below any z-score: what is beyond it is no plausible value.
pub(super) const NO_LEAST: f64 = -1e30;

/// The least z-scores of `points` points, of which those with the indices `falling` may fall.
fn least(points: usize, falling: &[usize]) -> Vec<f64> {
    (0..points).map(|point| if falling.contains(&point) { FALL_LEAST } else { NO_LEAST }).collect()
}

/// The weight inputs of the graph, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Weights {
    /// Number of scored points n.
    pub points: usize,
    /// Indices of those whose level stands for their value, ascending.
    pub seldom: Vec<usize>,
    /// Mean of each point.
    pub mean: Vec<f64>,
    /// One over the standard deviation of each point.
    pub inv_std: Vec<f64>,
    /// A z-score below this counts as this: [`FALL_LEAST`] where a fall is no anomaly, [`NO_LEAST`] elsewhere.
    pub least: Vec<f64>,
    /// Of the fast channel.
    pub fast: ChannelWeights,
    /// Of the slow one.
    pub slow: ChannelWeights,
}

/// What a channel adds to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChannelWeights {
    /// `lags * n` rows of n: from history, oldest row first, to prediction.
    pub regression: Vec<f64>,
    /// n.
    pub bias: Vec<f64>,
    /// n rows of n, over the channel's limit.
    pub whitening: Vec<f64>,
}

/// What commissioning gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit {
    /// Weights of the graph.
    pub weights: Weights,
    /// For weights with some of the points.
    pub moments: Moments,
    /// Median score of rows that the fit had not seen, as a part of the limit.
    pub score_median: f64,
    /// The score that [`THRESHOLD_PART`] of them are below.
    pub score_high: f64,
    /// Smoothed scores at the last row: scoring goes on from here.
    pub smoothed: Smoothed,
    /// What is usual for the machine, up to the last row.
    pub novelty: Novelty,
    /// Another model of the same rows; `None` where it cannot be made.
    pub second_opinion: Option<SecondOpinion>,
    /// Windows without a gap that the weights come from.
    pub windows: usize,
    /// Indices of points that did not move.
    pub still: Vec<usize>,
    /// Indices of points that were heard too seldom to have a part in the score.
    pub unjudged: Vec<usize>,
    /// Smallest and largest value of each point over all rows.
    pub ranges: Vec<(f64, f64)>,
}

/// Why commissioning ended without usable weights.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    /// Too few windows without a gap.
    #[error("{have} windows without a gap to fit on while others are held back, {need} are needed for {points} points")]
    TooFewRows {
        /// Found.
        have: usize,
        /// Needed.
        need: usize,
        /// Scored points.
        points: usize,
    },
    /// No point moved: nothing can be learned from a machine that stands still.
    #[error("no scored point changed its value")]
    NothingMoves,
    /// Most sensors tell nothing.
    #[error(
        "{} of {} scored points never changed their value ({names}), which must not be learned as normal: see to their sensors, or leave them out of the score",
        points.0, points.1
    )]
    Still {
        /// So many, of so many.
        points: (usize, usize),
        /// The first of them.
        names: String,
    },
    /// A person has enough of it, and no baseline does.
    #[error("{have} rows are collected, at least {need} are needed")]
    FewRows {
        /// Collected.
        have: usize,
        /// The least that can be configured.
        need: usize,
    },
    /// The machine vibrates too much to be learned as it is.
    #[error(
        "its vibration was in zone C or D in {} of {} rows, which must not be learned as normal: repair it, or correct its `severity`",
        rows.0, rows.1
    )]
    Severity {
        /// So many, of so many.
        rows: (usize, usize),
    },
    /// A limit that people set was passed.
    #[error(
        "an alarm of a limit was active in {} of {} rows, which must not be learned as normal: repair it, or correct the limit",
        rows.0, rows.1
    )]
    BeyondLimit {
        /// So many, of so many.
        rows: (usize, usize),
    },
    /// A point was not at rest.
    #[error("{0} (medians of the first and the last fifth of the rows), which must not be learned as normal: let it settle, or repair it")]
    Drift(Drift),
    /// The numbers ran out of range.
    #[error("the values are too large or too small to compute with")]
    NotFinite,
}

/// Fits weights and limits; each window needs `lags` rows before its own. A fall of the points with the indices `falling` is no anomaly.
pub(super) fn fit(rows: &Collected, lags: usize, falling: &[usize]) -> Result<Fit, Refusal> {
    let points = rows.points();
    let scorable = rows.scorable(lags);
    let have = (scorable.len() / FOLDS).saturating_sub(lags) * (FOLDS - 1);
    let need = (2 * (lags * points + 1)).max(SETTLING);
    if points == 0 || have < need {
        return Err(Refusal::TooFewRows { have, need, points });
    }
    let mut values = DMatrix::from_row_slice(rows.len(), points, rows.values());
    let ranges = values.column_iter().map(|column| (column.min(), column.max())).collect();
    let learned = rows.seldom();
    for learned in &learned {
        values.column_mut(learned.point).copy_from_slice(&learned.levels);
    }
    let scale = Scale::of(&values, &learned);
    if scale.still.len() + scale.unjudged.len() == points {
        return Err(Refusal::NothingMoves);
    }
    let (seen, least) = (scale.apply(&values), least(points, falling));
    let z = DMatrix::from_fn(seen.nrows(), points, |row, point| seen[(row, point)].max(least[point]));
    let seldom: Vec<usize> = learned.iter().map(|learned| learned.point).collect();
    let apart = Apart::new(points, &seldom);
    let regressed = if apart.is_none() { Cow::Borrowed(&z) } else { Cow::Owned(z.select_columns(&apart.regressed)) };
    let stood_still = apart.regressed.iter().all(|point| scale.still.contains(point));
    let validation = Validation::new(&regressed, &scorable, lags);
    let fitted = [FAST, SLOW].map(|channel| validation.channel(channel, stood_still));
    let [Some((fast, fast_scores)), Some((slow, slow_scores))] = fitted else { return Err(Refusal::NotFinite) };
    let mut scores: Vec<f64> = fast_scores.iter().zip(&slow_scores).map(|(fast, slow)| fast.max(*slow)).collect();
    scores.sort_by(f64::total_cmp);
    let (fast, slow) = (fast.beside(&apart), slow.beside(&apart));
    let (mut smoothed, mut novelty) = (Smoothed::default(), Novelty::default());
    for &row in &scorable {
        let of_fast = fast.score(&z, row);
        smoothed.push(&of_fast, &slow.score(&z, row));
        novelty.push(&seldom::motion(of_fast.whitened, &seldom), &seen.row(row).iter().copied().map(Some).collect::<Vec<_>>());
    }
    smoothed.levels = seldom::levels_after(&learned);
    let moments = validation.moments(&fast, &slow);
    let weights = Weights {
        points,
        seldom,
        mean: scale.mean.iter().copied().collect(),
        inv_std: scale.inv_std.iter().copied().collect(),
        least,
        fast: fast.weights(),
        slow: slow.weights(),
    };
    let score_median = median_of_sorted(&scores);
    let score_high = scores[(scores.len() as f64 * THRESHOLD_PART) as usize];
    let second_opinion = SecondOpinion::fit(&seen, &scorable);
    let Scale { still, unjudged, .. } = scale;
    let fit =
        Fit { weights, moments, score_median, score_high, smoothed, novelty, second_opinion, windows: validation.windows(), still, unjudged, ranges };
    if fit.weights.is_finite() { Ok(fit) } else { Err(Refusal::NotFinite) }
}

impl Weights {
    /// The z-score of `value` of the point with this index; `None` where there is no such point, or the z-score is too large for a number.
    pub(super) fn z(&self, point: usize, value: f64) -> Option<f64> {
        let z = (value - self.mean.get(point)?) * self.inv_std.get(point)?;
        z.is_finite().then_some(z)
    }

    /// Moves the mean of each point by so many of its standard deviations.
    pub(super) fn recentre(&mut self, by: &[f64]) {
        for ((mean, inv_std), by) in self.mean.iter_mut().zip(&self.inv_std).zip(by).filter(|((_, inv_std), _)| **inv_std > 0.0) {
            *mean += by / inv_std;
        }
    }

    /// The score, as a part of the limit, of a machine that stays at the z-scores `level`, its noise not counted.
    pub(super) fn score_at(&self, level: &[f64]) -> f64 {
        let counted: Vec<f64> = level.iter().zip(&self.least).map(|(level, least)| level.max(*least)).collect();
        [&self.fast, &self.slow].into_iter().map(|channel| channel.score_at(&counted)).fold(0.0, f64::max)
    }

    fn is_finite(&self) -> bool {
        let of = |channel: &ChannelWeights| [&channel.regression, &channel.bias, &channel.whitening].into_iter().all(|part| all_finite(part));
        all_finite(&self.mean) && all_finite(&self.inv_std) && of(&self.fast) && of(&self.slow)
    }
}

impl ChannelWeights {
    /// The same of one channel. Its bias is about 0 and no matter of the level.
    fn score_at(&self, level: &[f64]) -> f64 {
        let mut residual = level.to_vec();
        for (weights, of) in self.regression.chunks_exact(level.len()).zip(level.iter().cycle()) {
            residual.iter_mut().zip(weights).for_each(|(residual, weight)| *residual -= of * weight);
        }
        let whitened = |row: &[f64]| row.iter().zip(&residual).map(|(weight, residual)| weight * residual).sum::<f64>();
        power_mean(&self.whitening.chunks_exact(level.len()).map(whitened).collect::<Vec<f64>>())
    }
}

fn all_finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Mean and standard deviation of each point.
struct Scale {
    mean: DVector<f64>,
    inv_std: DVector<f64>,
    still: Vec<usize>,
    unjudged: Vec<usize>,
}

impl Scale {
    fn of(values: &DMatrix<f64>, seldom: &[Learned]) -> Self {
        let points = values.ncols();
        let mut scale = Self { mean: DVector::zeros(points), inv_std: DVector::zeros(points), still: Vec::new(), unjudged: Vec::new() };
        for (point, column) in values.column_iter().enumerate() {
            let mean = column.mean();
            let spread = column.variance().sqrt();
            scale.mean[point] = mean;
            // Also catches a spread that is not a number; the check of the finished weights refuses those.
            let moves = spread > STILL_SPREAD * mean.abs().max(f64::MIN_POSITIVE);
            if !moves {
                scale.still.push(point);
            }
            let unit = if mean == 0.0 { 1.0 } else { STILL_FRACTION * mean.abs() };
            scale.inv_std[point] = 1.0 / if moves { spread } else { unit };
        }
        for &Learned { point, mean, spread, .. } in seldom {
            match spread {
                None => {
                    (scale.mean[point], scale.inv_std[point]) = (mean, 0.0);
                    scale.still.retain(|still| *still != point);
                    scale.unjudged.push(point);
                }
                Some(spread) if !scale.still.contains(&point) => (scale.mean[point], scale.inv_std[point]) = (mean, 1.0 / spread),
                Some(_) => {}
            }
        }
        scale
    }

    fn apply(&self, values: &DMatrix<f64>) -> DMatrix<f64> {
        DMatrix::from_fn(values.nrows(), values.ncols(), |row, point| (values[(row, point)] - self.mean[point]) * self.inv_std[point])
    }
}

pub(super) fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const LAGS: usize = 3;

    /// Noise of about unit variance with the same numbers everywhere.
    pub(in crate::inference) struct Noise(pub u64);

    impl Noise {
        pub(in crate::inference) fn next(&mut self) -> f64 {
            (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
        }

        /// From 0 to 1.
        pub(in crate::inference) fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Rows of a machine whose second point follows its first one row later.
    fn machine(rows: usize) -> Collected {
        let (mut noise, mut first) = (Noise(1), 0.0);
        let mut collected = Collected::new(2);
        for row in 0..rows {
            let second = 50.0 + 3.0 * first + 3.0 * noise.next();
            first = 0.9 * first + noise.next();
            collected.push_fresh(&[1000.0 + first, second], row > 0);
        }
        collected
    }

    #[test]
    fn finds_the_dynamics_of_a_known_machine() {
        let fit = fit(&machine(2000), LAGS, &[]).unwrap();
        assert_eq!((fit.windows, fit.still.len()), (1997, 0));
        // Row 2 * n (newest lag), column 1, in z-scores. The first point has variance 1 / (1 - 0.81), the second 9 times that plus 9.
        let variance = 1.0 / (1.0 - 0.81);
        let expected = 3.0 * f64::sqrt(variance / (9.0 * variance + 9.0));
        assert!((fit.weights.z(0, 1000.0 + variance.sqrt()).unwrap() - 1.0).abs() < 0.3);
        assert_eq!((fit.weights.z(0, f64::INFINITY), fit.weights.z(2, 0.0)), (None, None));
        for channel in [&fit.weights.fast, &fit.weights.slow] {
            let weight = channel.regression[(2 * 2) * 2 + 1];
            assert!((weight - expected).abs() < 0.05, "{weight} for {expected}");
        }
        // A row of two whitened residuals has a score near 1 before it is divided by the limit, which lies above all of some 2000 smoothed ones.
        assert!((0.4..1.0 / FAST.factor).contains(&fit.score_median), "{}", fit.score_median);
    }

    #[test]
    fn says_how_far_over_its_limit_a_level_is() {
        let mut fit = fit(&machine(2000), LAGS, &[]).unwrap();
        let (level, weights) = ([0.6, -0.4], &mut fit.weights);
        weights.fast.bias.fill(0.0);
        weights.slow.bias.fill(0.0);
        let z = DMatrix::from_fn(LAGS + 1, 2, |_, point| level[point]);
        let of = |channel: &ChannelWeights| {
            let weights = DMatrix::from_row_slice(2 * LAGS, 2, &channel.regression);
            let history = nalgebra::RowDVector::from_fn(2 * LAGS, |_, place| z[(place / 2, place % 2)]);
            let residual = z.row(LAGS) - history * weights;
            power_mean((DMatrix::from_row_slice(2, 2, &channel.whitening) * residual.transpose()).as_slice())
        };
        let expected = of(&weights.fast).max(of(&weights.slow));
        assert!(expected > 0.1 && (weights.score_at(&level) - expected).abs() < 1e-12, "{expected}");
        assert!((weights.score_at(&level.map(|z| 2.0 * z)) - 2.0 * expected).abs() < 1e-12);
    }

    /// Largest smoothed score of a machine of two points whose second one goes to so many standard deviations within 2000 rows.
    fn score_after(falling: &[usize], to: f64) -> f64 {
        let mut fit = fit(&machine(2000), LAGS, falling).unwrap();
        let Weights { mean, inv_std, least, fast, slow, .. } = &fit.weights;
        let mut noise = Noise(8);
        let z = DMatrix::from_fn(3_000, 2, |row, point| {
            let value = if point == 0 { mean[0] } else { mean[1] + to * f64::min(row as f64 / 2_000.0, 1.0) / inv_std[1] };
            (value - mean[point]) * inv_std[point] + 0.1 * noise.next()
        });
        let of = |channel: &ChannelWeights, row: usize| {
            let counted = |row: usize, point: usize| z[(row, point)].max(least[point]);
            let weights = DMatrix::from_row_slice(2 * LAGS, 2, &channel.regression);
            let history = nalgebra::RowDVector::from_fn(2 * LAGS, |_, place| counted(row - LAGS + place / 2, place % 2));
            let present = nalgebra::RowDVector::from_fn(2, |_, point| counted(row, point));
            let residual = present - history * weights - nalgebra::RowDVector::from_row_slice(&channel.bias);
            let whitened: Vec<f64> = (DMatrix::from_row_slice(2, 2, &channel.whitening) * residual.transpose()).iter().copied().collect();
            super::super::limit::Residual { score: power_mean(&whitened), whitened }
        };
        (LAGS..z.nrows()).map(|row| fit.smoothed.push(&of(fast, row), &of(slow, row))).fold(0.0, f64::max)
    }

    #[test]
    fn a_fall_counts_for_one_deviation_at_most_where_that_is_said() {
        assert!(score_after(&[], -6.0) > 1.5, "where nothing is said of it");
        assert!((score_after(&[1], -6.0) - score_after(&[1], -1.0)).abs() < 0.1);
        assert!(score_after(&[1], 6.0) > 1.5, "a rise");
        assert!(score_after(&[0], -6.0) > 1.5, "another point");
    }

    #[test]
    fn a_still_point_is_named_and_harms_nothing() {
        let mut noise = Noise(3);
        let mut collected = Collected::new(3);
        for row in 0..300 {
            collected.push_fresh(&[noise.next(), 32.0, 0.0], row > 0);
        }
        let fit = fit(&collected, LAGS, &[]).unwrap();
        assert_eq!(fit.still, [1, 2]);
        assert_eq!((fit.weights.inv_std[1], fit.weights.inv_std[2]), (1.0 / 0.32, 1.0));
        assert_eq!(fit.ranges[1], (32.0, 32.0));
    }

    #[test]
    fn copies_of_one_point_give_finite_weights() {
        let mut noise = Noise(4);
        let mut collected = Collected::new(3);
        for row in 0..200 {
            let value = noise.next();
            collected.push_fresh(&[value, value, -2.0 * value], row > 0);
        }
        assert!(fit(&collected, LAGS, &[]).unwrap().weights.is_finite());
    }

    /// The rows of a block have scores that a fit on them would not give.
    #[test]
    fn the_limit_comes_from_rows_that_the_fit_had_not_seen() {
        let mut noise = Noise(6);
        let mut collected = Collected::new(8);
        for row in 0..100 {
            collected.push_fresh(&std::array::from_fn::<f64, 8, _>(|_| noise.next()), row > 0);
        }
        let fit = fit(&collected, LAGS, &[]).unwrap();
        // 24 weights for each of eight points from 97 windows: rows of the fit look calmer than others ever will.
        assert!(fit.smoothed.score().unwrap() < fit.score_median, "{fit:?}");
    }

    #[test]
    fn what_cannot_be_learned_from_is_refused() {
        let case = |rows: usize, value: &dyn Fn(usize) -> f64, continues: &dyn Fn(usize) -> bool| {
            let mut collected = Collected::new(2);
            for row in 0..rows {
                collected.push_fresh(&[value(row), -value(row)], row > 0 && continues(row));
            }
            fit(&collected, LAGS, &[]).unwrap_err()
        };
        let moving = |row: usize| (row as f64 * 0.7).sin();
        assert_eq!(case(0, &moving, &|_| true), Refusal::TooFewRows { have: 0, need: 20, points: 2 });
        assert_eq!(case(30, &moving, &|_| true), Refusal::TooFewRows { have: 8, need: 20, points: 2 });
        assert_eq!(case(100, &moving, &|row| row % 4 != 0), Refusal::TooFewRows { have: 8, need: 20, points: 2 });
        assert_eq!(case(100, &|_| 7.0, &|_| true), Refusal::NothingMoves);
        assert_eq!(case(100, &|row| moving(row) * 1e300, &|_| true), Refusal::NotFinite);
    }
}
