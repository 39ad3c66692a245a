//! Commissioning: from normal rows to the weights of Stage A, its limit and its median score.
//!
//! Rows are z-scored; each is predicted from the `lags` rows before it by ridge regression (vector autoregression); the residuals are whitened by
//! their shrunk covariance, with the symmetric root, so that each whitened residual stays with its point. Weights come from all but the last
//! `held_back` rows; limit and median come from those alone: a limit from the rows of the fit raised 98 % false alarms where it was measured.
use nalgebra::{DMatrix, DVector, SymmetricEigen};
use serde::{Deserialize, Serialize};

use super::limit::{LIMIT_FACTOR, Smoothed};

/// Penalty on squared weights, in units of one z-scored row.
const RIDGE: f64 = 1.0;
/// So much of the mean residual variance is mixed into the covariance.
const SHRINKAGE: f64 = 0.05;
/// Least residual variance, in z-score units: keeps rounding noise of a perfectly predictable machine from being whitened into a signal.
const VARIANCE_MIN: f64 = 1e-6;
/// A point that did not move gets this part of its mean as its standard deviation (or 1 where the mean is 0), so that a later move counts.
const STILL_FRACTION: f64 = 0.01;
/// A spread below this part of the mean is rounding, not movement.
const STILL_SPREAD: f64 = 1e-9;
/// Least number of held-back scores: fewer say nothing about a maximum.
const HELD_BACK_MIN: usize = 5;
/// Iterations after which an eigenvalue decomposition is given up.
const EIGEN_ITERATIONS_MAX: usize = 10_000;

/// The weight inputs of the graph, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Weights {
    /// Number of scored points n.
    pub points: usize,
    /// Mean of each point.
    pub mean: Vec<f64>,
    /// One over the standard deviation of each point.
    pub inv_std: Vec<f64>,
    /// `lags * n` rows of n: from history, oldest row first, to prediction.
    pub regression: Vec<f64>,
    /// n.
    pub bias: Vec<f64>,
    /// n rows of n.
    pub whitening: Vec<f64>,
}

/// What commissioning gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit {
    /// Weights of the graph.
    pub weights: Weights,
    /// Limit of the smoothed score.
    pub limit: f64,
    /// Median smoothed score of the held-back rows.
    pub score_median: f64,
    /// Smoothed score at the last row: scoring goes on from here.
    pub smoothed: Smoothed,
    /// Rows that the weights come from.
    pub rows_fitted: usize,
    /// Indices of points that did not move.
    pub still: Vec<usize>,
    /// Smallest and largest value of each point over all rows.
    pub ranges: Vec<(f64, f64)>,
}

/// Why commissioning ended without usable weights.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    /// Too few windows without a gap to fit on.
    #[error("{have} windows without a gap to fit on, {need} are needed for {points} points")]
    TooFewRows {
        /// Found.
        have: usize,
        /// Needed.
        need: usize,
        /// Scored points.
        points: usize,
    },
    /// Too few rows held back for the limit.
    #[error("{have} rows held back for the limit, {need} are needed")]
    TooFewHeldBack {
        /// Found.
        have: usize,
        /// Needed.
        need: usize,
    },
    /// No point moved: nothing can be learned from a machine that stands still.
    #[error("no scored point changed its value")]
    NothingMoves,
    /// The numbers ran out of range.
    #[error("the values are too large or too small to compute with")]
    NotFinite,
}

/// Rows collected for commissioning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Collected {
    points: usize,
    values: Vec<f64>,
    /// Indices of rows that do not continue the row before them.
    starts: Vec<usize>,
}

impl Collected {
    /// Nothing yet, for rows of `points` values.
    pub(super) fn new(points: usize) -> Self {
        Self { points, values: Vec::new(), starts: Vec::new() }
    }

    /// Adds a row; `continues` says whether it follows the one before without a gap.
    pub(super) fn push(&mut self, values: &[f64], continues: bool) {
        if !continues {
            self.starts.push(self.len());
        }
        self.values.extend_from_slice(values);
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.values.len().checked_div(self.points).unwrap_or(0)
    }

    /// Indices of rows that have `lags` rows of the same stretch before them.
    fn scorable(&self, lags: usize) -> Vec<usize> {
        let mut scorable = Vec::with_capacity(self.len());
        let mut starts = self.starts.iter().copied().peekable();
        let mut start = 0;
        for row in 0..self.len() {
            if let Some(next) = starts.next_if_eq(&row) {
                start = next;
            }
            if row - start >= lags {
                scorable.push(row);
            }
        }
        scorable
    }
}

/// Fits the weights on all but the last `held_back` rows and sets the limit on those.
pub(super) fn fit(rows: &Collected, held_back: usize, lags: usize) -> Result<Fit, Refusal> {
    let (points, rows_fitted) = (rows.points, rows.len().saturating_sub(held_back));
    let scorable = rows.scorable(lags);
    let (fitted, tail): (Vec<usize>, Vec<usize>) = scorable.iter().partition(|&&row| row < rows_fitted);
    let need = 2 * (lags * points + 1);
    if points == 0 || fitted.len() < need {
        return Err(Refusal::TooFewRows { have: fitted.len(), need, points });
    }
    if tail.len() < HELD_BACK_MIN {
        return Err(Refusal::TooFewHeldBack { have: tail.len(), need: HELD_BACK_MIN });
    }
    let values = DMatrix::from_row_slice(rows.len(), points, &rows.values);
    let scale = Scale::of(&values.rows(0, rows_fitted).into_owned());
    if scale.still.len() == points {
        return Err(Refusal::NothingMoves);
    }
    let z = scale.apply(&values);
    let regression = Regression::of(&z, &fitted, lags).ok_or(Refusal::NotFinite)?;
    let whitening = whitening(&regression.residuals(&z, &fitted)).ok_or(Refusal::NotFinite)?;

    let whitened = regression.residuals(&z, &scorable) * &whitening;
    let mut smoothed = Smoothed::default();
    let mut scores: Vec<f64> = Vec::with_capacity(tail.len());
    for (row, residual) in scorable.iter().zip(whitened.row_iter()) {
        let squared: Vec<f64> = residual.iter().map(|r| r * r).collect();
        let score = smoothed.push((squared.iter().sum::<f64>() / points as f64).sqrt(), &squared);
        if *row >= rows_fitted {
            scores.push(score);
        }
    }
    scores.sort_by(f64::total_cmp);
    let limit = LIMIT_FACTOR * scores[scores.len() - 1];
    let score_median = median_of_sorted(&scores);
    let weights = Weights {
        points,
        mean: scale.mean.iter().copied().collect(),
        inv_std: scale.inv_std.iter().copied().collect(),
        regression: row_major(&regression.weights),
        bias: regression.bias.iter().copied().collect(),
        whitening: row_major(&whitening),
    };
    if !(weights.is_finite() && limit.is_finite() && limit > 0.0) {
        return Err(Refusal::NotFinite);
    }
    let ranges = values.column_iter().map(|column| (column.min(), column.max())).collect();
    Ok(Fit { weights, limit, score_median, smoothed, rows_fitted, still: scale.still, ranges })
}

impl Weights {
    fn is_finite(&self) -> bool {
        [&self.mean, &self.inv_std, &self.regression, &self.bias, &self.whitening].iter().all(|part| part.iter().all(|v| v.is_finite()))
    }
}

/// Mean and standard deviation of each point.
struct Scale {
    mean: DVector<f64>,
    inv_std: DVector<f64>,
    still: Vec<usize>,
}

impl Scale {
    fn of(values: &DMatrix<f64>) -> Self {
        let points = values.ncols();
        let mut scale = Self { mean: DVector::zeros(points), inv_std: DVector::zeros(points), still: Vec::new() };
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
        scale
    }

    fn apply(&self, values: &DMatrix<f64>) -> DMatrix<f64> {
        DMatrix::from_fn(values.nrows(), values.ncols(), |row, point| (values[(row, point)] - self.mean[point]) * self.inv_std[point])
    }
}

/// Ridge vector autoregression: `z[t] = history * weights + bias`, the bias not penalised.
struct Regression {
    lags: usize,
    weights: DMatrix<f64>,
    bias: DVector<f64>,
}

impl Regression {
    /// `None` where the numbers are not finite.
    fn of(z: &DMatrix<f64>, rows: &[usize], lags: usize) -> Option<Self> {
        let mut history = history(z, rows, lags);
        let mut target = targets(z, rows);
        let (history_mean, target_mean) = (history.row_mean(), target.row_mean());
        for mut row in history.row_iter_mut() {
            row -= &history_mean;
        }
        for mut row in target.row_iter_mut() {
            row -= &target_mean;
        }
        let mut gram = history.tr_mul(&history);
        for i in 0..gram.nrows() {
            gram[(i, i)] += RIDGE;
        }
        let weights = gram.cholesky()?.solve(&history.tr_mul(&target));
        let bias = (target_mean - history_mean * &weights).transpose();
        weights.iter().all(|w| w.is_finite()).then_some(Self { lags, weights, bias })
    }

    fn residuals(&self, z: &DMatrix<f64>, rows: &[usize]) -> DMatrix<f64> {
        let mut residuals = targets(z, rows) - history(z, rows, self.lags) * &self.weights;
        let bias = self.bias.transpose();
        for mut row in residuals.row_iter_mut() {
            row -= &bias;
        }
        residuals
    }
}

/// One row per scored row: the `lags` rows before it, the oldest first, as the graph flattens its window.
fn history(z: &DMatrix<f64>, rows: &[usize], lags: usize) -> DMatrix<f64> {
    let points = z.ncols();
    DMatrix::from_fn(rows.len(), lags * points, |i, j| z[(rows[i] - lags + j / points, j % points)])
}

fn targets(z: &DMatrix<f64>, rows: &[usize]) -> DMatrix<f64> {
    DMatrix::from_fn(rows.len(), z.ncols(), |i, j| z[(rows[i], j)])
}

/// The symmetric inverse root of the shrunk covariance of `residuals`; `None` where the numbers are not finite.
fn whitening(residuals: &DMatrix<f64>) -> Option<DMatrix<f64>> {
    let points = residuals.ncols();
    let mut covariance = residuals.tr_mul(residuals) / residuals.nrows() as f64;
    let mean_variance = covariance.trace() / points as f64;
    for i in 0..points {
        covariance[(i, i)] += SHRINKAGE * mean_variance;
    }
    // The decomposition of a matrix with NaN may not end.
    if !covariance.iter().all(|value| value.is_finite()) {
        return None;
    }
    let eigen = SymmetricEigen::try_new(covariance, f64::EPSILON, EIGEN_ITERATIONS_MAX)?;
    let roots = eigen.eigenvalues.map(|value| 1.0 / value.max(VARIANCE_MIN).sqrt());
    Some(&eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose())
}

fn row_major(matrix: &DMatrix<f64>) -> Vec<f64> {
    matrix.transpose().as_slice().to_vec()
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
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
            let mut uniform = || {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.0 >> 11) as f64 / (1u64 << 53) as f64
            };
            (0..12).map(|_| uniform()).sum::<f64>() - 6.0
        }
    }

    /// Rows of a machine whose second point follows its first one row later.
    fn machine(rows: usize) -> Collected {
        let (mut noise, mut first) = (Noise(1), 0.0);
        let mut collected = Collected::new(2);
        for row in 0..rows {
            let second = 50.0 + 3.0 * first + 3.0 * noise.next();
            first = 0.9 * first + noise.next();
            collected.push(&[1000.0 + first, second], row > 0);
        }
        collected
    }

    #[test]
    fn finds_the_dynamics_of_a_known_machine() {
        let fit = fit(&machine(2000), 200, LAGS).unwrap();
        assert_eq!((fit.rows_fitted, fit.still.len()), (1800, 0));
        // Row 2 * n (newest lag), column 1, in z-scores. The first point has variance 1 / (1 - 0.81), the second 9 times that plus 9.
        let variance = 1.0 / (1.0 - 0.81);
        let expected = 3.0 * f64::sqrt(variance / (9.0 * variance + 9.0));
        let weight = fit.weights.regression[(2 * 2) * 2 + 1];
        assert!((weight - expected).abs() < 0.05, "{weight} for {expected}");
        // Whitened residuals have unit variance but for the shrinkage, so the score lies near 1.
        assert!((0.8..1.1).contains(&fit.score_median), "{}", fit.score_median);
        assert!(fit.limit >= LIMIT_FACTOR * fit.score_median && fit.limit < 2.0, "{}", fit.limit);
    }

    #[test]
    fn the_residuals_of_the_fit_are_white() {
        let rows = machine(1000);
        let values = DMatrix::from_row_slice(1000, 2, &rows.values);
        let z = Scale::of(&values).apply(&values);
        let scorable = rows.scorable(LAGS);
        let regression = Regression::of(&z, &scorable, LAGS).unwrap();
        let residuals = regression.residuals(&z, &scorable);
        assert!(residuals.row_mean().amax() < 1e-12, "the bias takes the mean");
        let whitened = &residuals * whitening(&residuals).unwrap();
        let covariance = whitened.tr_mul(&whitened) / whitened.nrows() as f64;
        assert!(covariance[(0, 1)].abs() < 0.01 && (0.9..1.0).contains(&covariance[(1, 1)]), "{covariance}");
    }

    #[test]
    fn windows_do_not_cross_gaps() {
        let mut collected = Collected::new(1);
        for row in 0..12 {
            collected.push(&[f64::from(row)], row != 0 && row != 5);
        }
        assert_eq!(collected.scorable(LAGS), [3, 4, 8, 9, 10, 11]);
    }

    #[test]
    fn a_still_point_is_named_and_harms_nothing() {
        let mut noise = Noise(3);
        let mut collected = Collected::new(3);
        for row in 0..300 {
            collected.push(&[noise.next(), 32.0, 0.0], row > 0);
        }
        let fit = fit(&collected, 50, LAGS).unwrap();
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
            collected.push(&[value, value, -2.0 * value], row > 0);
        }
        assert!(fit(&collected, 20, LAGS).unwrap().weights.is_finite());
    }

    #[test]
    fn what_cannot_be_learned_from_is_refused() {
        let case = |rows: usize, held_back, value: &dyn Fn(usize) -> f64, continues: &dyn Fn(usize) -> bool| {
            let mut collected = Collected::new(2);
            for row in 0..rows {
                collected.push(&[value(row), -value(row)], row > 0 && continues(row));
            }
            fit(&collected, held_back, LAGS).unwrap_err()
        };
        let moving = |row: usize| (row as f64 * 0.7).sin();
        assert_eq!(case(0, 0, &moving, &|_| true), Refusal::TooFewRows { have: 0, need: 14, points: 2 });
        assert_eq!(case(100, 95, &moving, &|_| true), Refusal::TooFewRows { have: 2, need: 14, points: 2 });
        assert_eq!(case(100, 16, &moving, &|row| row % 4 != 0), Refusal::TooFewHeldBack { have: 4, need: 5 });
        assert_eq!(case(100, 20, &|_| 7.0, &|_| true), Refusal::NothingMoves);
        assert_eq!(case(100, 20, &|row| moving(row) * 1e300, &|_| true), Refusal::NotFinite);
    }
}
