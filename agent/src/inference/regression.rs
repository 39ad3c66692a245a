//! Ridge vector autoregression, fitted from sums.
//!
//! `z[t] = history * weights + bias`, the bias not penalised. The penalty draws the weights to a prior of persistence: each point's own newest value times
//! a factor (the prior of Litterman, "Forecasting with Bayesian Vector Autoregressions", Journal of Business and Economic Statistics 4(1), 1986), or to
//! zero. All that a fit needs of its rows are sums of products, so one pass over the rows serves every part of a cross-validation, every penalty and both
//! priors.
use nalgebra::{DMatrix, DVector, RowDVector, SymmetricEigen};

/// So much of the mean residual variance is mixed into the covariance.
const SHRINKAGE: f64 = 0.05;
/// Least residual variance, in z-score units: keeps rounding noise of a perfectly predictable machine from being whitened into a signal.
const VARIANCE_MIN: f64 = 1e-6;
/// Iterations after which an eigenvalue decomposition is given up.
const EIGEN_ITERATIONS_MAX: usize = 10_000;
/// Windows gathered at a time: what a pass over many rows takes of memory.
const CHUNK: usize = 1024;

/// Sums over windows: of the history h (`lags * n` z-scores, the oldest row first, as the graph flattens its window), of the row t that follows it, and
/// of their products.
#[derive(Clone)]
pub(super) struct Sums {
    pub(super) windows: usize,
    pub(super) h: RowDVector<f64>,
    pub(super) t: RowDVector<f64>,
    pub(super) hh: DMatrix<f64>,
    pub(super) ht: DMatrix<f64>,
    pub(super) tt: DMatrix<f64>,
}

impl Sums {
    /// No window yet, for `points` points.
    pub(super) fn new(points: usize, lags: usize) -> Self {
        let history = lags * points;
        Self {
            windows: 0,
            h: RowDVector::zeros(history),
            t: RowDVector::zeros(points),
            hh: DMatrix::zeros(history, history),
            ht: DMatrix::zeros(history, points),
            tt: DMatrix::zeros(points, points),
        }
    }

    pub(super) fn points(&self) -> usize {
        self.t.len()
    }

    /// Adds the windows of `z` that end in `rows`.
    pub(super) fn add(&mut self, z: &DMatrix<f64>, rows: &[usize]) {
        let (points, lags) = (self.t.len(), self.h.len() / self.t.len().max(1));
        for rows in rows.chunks(CHUNK) {
            let history = DMatrix::from_fn(rows.len(), self.h.len(), |i, j| z[(rows[i] - lags + j / points, j % points)]);
            let target = DMatrix::from_fn(rows.len(), points, |i, j| z[(rows[i], j)]);
            self.windows += rows.len();
            self.h += history.row_sum();
            self.t += target.row_sum();
            self.hh += history.tr_mul(&history);
            self.ht += history.tr_mul(&target);
            self.tt += target.tr_mul(&target);
        }
    }

    /// Adds the windows of `other`.
    pub(super) fn join(&mut self, other: &Self) {
        self.windows += other.windows;
        self.h += &other.h;
        self.t += &other.t;
        self.hh += &other.hh;
        self.ht += &other.ht;
        self.tt += &other.tt;
    }

    pub(super) fn windows(&self) -> usize {
        self.windows
    }

    /// How much of each point's newest value is there again in the next row: 0 (noise) to 1 (it stays).
    pub(super) fn persistence(&self) -> Vec<f64> {
        let newest = self.h.len() - self.t.len();
        let of = |point: usize| self.ht[(newest + point, point)] / self.hh[(newest + point, newest + point)];
        (0..self.t.len()).map(|point| Some(of(point)).filter(|part| part.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0)).collect()
    }

    /// The regression under a penalty of `ridge` (in windows of one squared z-score), drawn to `persistence`. `None` where the numbers are not finite.
    pub(super) fn fit(&self, persistence: &[f64], ridge: f64) -> Option<Regression> {
        let windows = self.windows as f64;
        let (h_mean, t_mean) = (&self.h / windows, &self.t / windows);
        let mut penalised = &self.hh - self.h.tr_mul(&h_mean);
        let mut toward = &self.ht - self.h.tr_mul(&t_mean);
        for i in 0..penalised.nrows() {
            penalised[(i, i)] += ridge;
        }
        let newest = self.h.len() - self.t.len();
        for (point, part) in persistence.iter().enumerate() {
            toward[(newest + point, point)] += ridge * part;
        }
        let weights = penalised.cholesky()?.solve(&toward);
        let bias = t_mean - h_mean * &weights;
        weights.iter().all(|w| w.is_finite()).then_some(Regression { weights, bias })
    }

    /// Mean products of what `regression` leaves unexplained of these windows.
    pub(super) fn residual_covariance(&self, regression: &Regression) -> DMatrix<f64> {
        let Regression { weights, bias } = regression;
        let explained = self.ht.tr_mul(weights);
        let left = &self.t - &self.h * weights;
        let squares = &self.tt - &explained - explained.transpose() + weights.tr_mul(&(&self.hh * weights));
        let shift = left.tr_mul(bias);
        (squares - &shift - shift.transpose() + bias.tr_mul(bias) * self.windows as f64) / self.windows as f64
    }
}

/// A fitted regression.
pub(super) struct Regression {
    /// `lags * n` rows of n.
    pub(super) weights: DMatrix<f64>,
    /// n.
    pub(super) bias: RowDVector<f64>,
}

impl Regression {
    /// What it leaves unexplained of `row` of `z`, with the history before it.
    pub(super) fn residual(&self, z: &DMatrix<f64>, row: usize) -> DVector<f64> {
        let points = z.ncols();
        let lags = self.weights.nrows() / points;
        let history = DVector::from_fn(lags * points, |j, _| z[(row - lags + j / points, j % points)]);
        z.row(row).transpose() - self.weights.tr_mul(&history) - self.bias.transpose()
    }
}

/// The symmetric inverse root of the shrunk `covariance`; `None` where the numbers are not finite.
pub(super) fn whitening(mut covariance: DMatrix<f64>) -> Option<DMatrix<f64>> {
    let points = covariance.ncols();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    const LAGS: usize = 2;

    /// A slow point beside one that is noise.
    fn z() -> DMatrix<f64> {
        let mut noise = Noise(5);
        let mut z = DMatrix::zeros(500, 2);
        for row in 1..z.nrows() {
            z[(row, 0)] = 0.95 * z[(row - 1, 0)] + 0.3 * noise.next();
            z[(row, 1)] = noise.next();
        }
        z
    }

    fn sums(z: &DMatrix<f64>, rows: std::ops::Range<usize>) -> Sums {
        let mut sums = Sums::new(2, LAGS);
        sums.add(z, &rows.collect::<Vec<_>>());
        sums
    }

    #[test]
    fn sums_say_what_the_residuals_of_all_rows_say() {
        let z = z();
        let mut all = sums(&z, LAGS..200);
        all.join(&sums(&z, 200..500));
        assert_eq!(all.windows(), 498);
        let regression = all.fit(&[0.0; 2], 1.0).unwrap();
        let residuals: Vec<DVector<f64>> = (LAGS..500).map(|row| regression.residual(&z, row)).collect();
        let mean = residuals.iter().fold(DVector::zeros(2), |sum: DVector<f64>, residual| sum + residual) / 498.0;
        assert!(mean.amax() < 1e-12, "the bias takes the mean");
        let products = residuals.iter().fold(DMatrix::zeros(2, 2), |sum: DMatrix<f64>, residual| sum + residual * residual.transpose());
        assert!((all.residual_covariance(&regression) - products / 498.0).amax() < 1e-12);
    }

    #[test]
    fn whitened_residuals_are_white() {
        let z = z();
        let all = sums(&z, LAGS..500);
        let regression = all.fit(&all.persistence(), 10.0).unwrap();
        let covariance = all.residual_covariance(&regression);
        let root = whitening(covariance.clone()).unwrap();
        let white = &root * covariance * &root;
        assert!(white[(0, 1)].abs() < 0.01 && (0.5..1.0).contains(&white[(0, 0)]) && (0.9..1.0).contains(&white[(1, 1)]), "{white}");
    }

    #[test]
    fn a_large_penalty_leaves_the_prior() {
        let all = sums(&z(), LAGS..500);
        let persistence = all.persistence();
        assert!((0.85..1.0).contains(&persistence[0]) && persistence[1] < 0.2, "{persistence:?}");
        let newest = |regression: &Regression| [regression.weights[(2, 0)], regression.weights[(3, 1)]];
        let drawn = newest(&all.fit(&persistence, 1e9).unwrap());
        assert!(drawn.iter().zip(&persistence).all(|(weight, part)| (weight - part).abs() < 1e-3), "{drawn:?}");
        assert!(newest(&all.fit(&[0.0; 2], 1e9).unwrap()).iter().all(|weight| weight.abs() < 1e-3));
    }
}
