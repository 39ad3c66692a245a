//! A second opinion beside the score: Hotelling's T² and Q of a principal component model of the same rows, each over its limit.
//!
//! T² says that the points move further than usual along the ways in which they always move together, Q that they move otherwise than together (Jackson and
//! Mudholkar, Technometrics 21 (1979) 341). It sees no time: a value that goes with the others is normal to it however it came there. It raises no alarm;
//! beside one it says whether another model of the machine sees it too.
use nalgebra::{DMatrix, SymmetricEigen};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::validation::{FOLDS, SETTLING};

/// Part of the variance that the components explain.
const EXPLAINED: f64 = 0.9;
/// Weight of the newest row in the smoothed values, as in the fast channel of the score.
const SMOOTHING: f64 = 0.1;
/// The limit is so many times the largest smoothed value of rows that the model had not seen, as in the fast channel of the score.
const FACTOR: f64 = 1.15;

/// Both values over their limits: 1 at the limit, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Opinion {
    /// Hotelling's T².
    pub(super) t2: f64,
    /// Squared distance from the components; `None` where they span all points.
    pub(super) q: Option<f64>,
}

/// A principal component model with its limits, and the smoothed values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SecondOpinion {
    /// Row-major, one row per component, one column per point.
    components: Vec<f64>,
    /// Per component, of its values.
    inv_variance: Vec<f64>,
    t2_limit: f64,
    /// `None` where the components span all points.
    q_limit: Option<f64>,
    smoothed: Option<(f64, f64)>,
}

impl SecondOpinion {
    /// Fits components on the rows of `z` (one column per point) that `rows` names, and limits on blocks of them that the fit had not seen. `None` where
    /// nothing moves, or the numbers run out of range.
    pub(super) fn fit(z: &DMatrix<f64>, rows: &[usize]) -> Option<Self> {
        let blocks: Vec<&[usize]> = (0..FOLDS).map(|fold| &rows[rows.len() * fold / FOLDS..rows.len() * (fold + 1) / FOLDS]).collect();
        let products: Vec<DMatrix<f64>> = blocks.iter().map(|block| product(z, block)).collect();
        let all = products.iter().fold(DMatrix::zeros(z.ncols(), z.ncols()), |sum, product| sum + product);
        let (mut seen, mut smoothed) = (Vec::with_capacity(rows.len()), None);
        for (block, product) in blocks.iter().zip(&products) {
            let model = Self::of(&(&all - product) / (rows.len() - block.len()).max(1) as f64)?;
            for &row in *block {
                seen.push(smooth(&mut smoothed, model.values(z.row(row).iter().copied())));
            }
        }
        let largest = |of: fn(&(f64, f64)) -> f64| FACTOR * seen.iter().skip(SETTLING).map(of).fold(0.0, f64::max);
        let (t2_limit, q_limit) = (largest(|(t2, _)| *t2), largest(|(_, q)| *q));
        let model = Self::of(all / rows.len().max(1) as f64)?;
        let spans_all = model.inv_variance.len() == z.ncols() || q_limit <= f64::EPSILON;
        let usable = t2_limit.is_finite() && q_limit.is_finite() && t2_limit > 0.0;
        usable.then_some(Self { t2_limit, q_limit: (!spans_all).then_some(q_limit), ..model })
    }

    /// Adds to a baseline's weights what T² and Q can be recomputed from, with the z-scores that its mean and spread give.
    pub(super) fn add_to(&self, weights: &mut Value) {
        weights["pca_components"] = json!(self.components);
        weights["pca_inv_variance"] = json!(self.inv_variance);
        // T², then Q, if there is one.
        weights["pca_limits"] = json!(std::iter::once(self.t2_limit).chain(self.q_limit).collect::<Vec<f64>>());
    }

    /// The components of a covariance, without limits.
    fn of(covariance: DMatrix<f64>) -> Option<Self> {
        let points = covariance.ncols();
        let total = covariance.trace();
        if !(total.is_finite() && total > 0.0) {
            return None;
        }
        let eigen = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..points).collect();
        order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]).then(a.cmp(b)));
        let (mut components, mut inv_variance, mut explained) = (Vec::new(), Vec::new(), 0.0);
        for component in order {
            let variance = eigen.eigenvalues[component];
            // One way at least stays for Q, where there are two.
            let enough = explained >= EXPLAINED * total || (points > 1 && inv_variance.len() + 1 == points);
            if enough || variance <= f64::EPSILON * total {
                break;
            }
            components.extend(eigen.eigenvectors.column(component).iter());
            inv_variance.push(1.0 / variance);
            explained += variance;
        }
        Some(Self { components, inv_variance, t2_limit: 1.0, q_limit: None, smoothed: None })
    }

    /// Takes a row of z-scores, one per point.
    pub(super) fn push(&mut self, z: impl ExactSizeIterator<Item = f64> + Clone) -> Opinion {
        let values = self.values(z);
        let (t2, q) = smooth(&mut self.smoothed, values);
        Opinion { t2: t2 / self.t2_limit, q: self.q_limit.map(|limit| q / limit) }
    }

    /// T² and Q of one row.
    fn values(&self, z: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
        let (mut t2, mut q): (f64, f64) = (0.0, z.clone().map(|z| z * z).sum());
        for (component, inv_variance) in self.components.chunks_exact(z.len().max(1)).zip(&self.inv_variance) {
            let along: f64 = component.iter().zip(z.clone()).map(|(component, z)| component * z).sum();
            t2 += along * along * inv_variance;
            q -= along * along;
        }
        (t2, q.max(0.0))
    }
}

/// Sum of the outer products of rows.
fn product(z: &DMatrix<f64>, rows: &[usize]) -> DMatrix<f64> {
    let mut sum = DMatrix::zeros(z.ncols(), z.ncols());
    for &row in rows {
        let row = z.row(row);
        sum.ger(1.0, &row.transpose(), &row.transpose(), 1.0);
    }
    sum
}

fn smooth(smoothed: &mut Option<(f64, f64)>, (t2, q): (f64, f64)) -> (f64, f64) {
    let next = smoothed.map_or((t2, q), |(t2_before, q_before)| (t2_before + SMOOTHING * (t2 - t2_before), q_before + SMOOTHING * (q - q_before)));
    *smoothed = Some(next);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    /// Two points that move together, and a third one alone.
    fn rows(count: usize) -> DMatrix<f64> {
        let mut noise = Noise(5);
        let mut values = Vec::new();
        for _ in 0..count {
            let together = noise.next();
            values.extend([together + 0.1 * noise.next(), together + 0.1 * noise.next(), noise.next()]);
        }
        DMatrix::from_row_slice(count, 3, &values)
    }

    fn settle(model: &mut SecondOpinion, row: [f64; 3]) -> Opinion {
        (0..100).map(|_| model.push(row.iter().copied())).next_back().unwrap()
    }

    #[test]
    fn t2_sees_how_far_and_q_that_it_is_otherwise() {
        let z = rows(2_000);
        let mut model = SecondOpinion::fit(&z, &(0..2_000).collect::<Vec<_>>()).unwrap();
        assert_eq!(model.inv_variance.len(), 2);
        let normal = settle(&mut model.clone(), [0.5, 0.5, 0.5]);
        assert!(normal.t2 < 1.0 && normal.q.unwrap() < 1.0, "{normal:?}");
        let far = settle(&mut model.clone(), [6.0, 6.0, 0.0]);
        assert!(far.t2 > 2.0 && far.q.unwrap() < 1.0, "{far:?}");
        let otherwise = settle(&mut model, [1.0, -1.0, 0.0]);
        assert!(otherwise.t2 < 1.0 && otherwise.q.unwrap() > 2.0, "{otherwise:?}");
    }

    /// T² and Q of a covariance that is known by heart.
    #[test]
    fn values_are_those_of_the_formulas_and_smoothed() {
        let of = |variances: &[f64]| SecondOpinion::of(DMatrix::from_diagonal(&nalgebra::DVector::from_row_slice(variances))).unwrap();
        let mut model = SecondOpinion { t2_limit: 4.0, q_limit: Some(0.5), ..of(&[4.0, 1.0, 0.01]) };
        let near =
            |opinion: Opinion, t2: f64, q: f64| assert!((opinion.t2 - t2).abs() < 1e-9 && (opinion.q.unwrap() - q).abs() < 1e-9, "{opinion:?}");
        near(model.push([2.0, 1.0, 0.5].into_iter()), 2.0 / 4.0, 0.25 / 0.5);
        near(model.push([0.0; 3].into_iter()), 1.8 / 4.0, 0.225 / 0.5);
        // One way stays for Q, however little the others explain.
        assert_eq!(of(&[1.0, 1.0]).inv_variance, [1.0]);
        let mut weights = json!({});
        model.add_to(&mut weights);
        let lengths = ["pca_components", "pca_inv_variance", "pca_limits"].map(|key| weights[key].as_array().unwrap().len());
        assert_eq!((lengths, &weights["pca_inv_variance"], &weights["pca_limits"]), ([6, 2, 2], &json!([0.25, 1.0]), &json!([4.0, 0.5])));
    }

    /// Limits are of rows that the fit had not seen: with few rows and many points the fit follows those that it sees.
    #[test]
    fn limits_allow_for_what_a_fit_of_few_rows_does_not_know() {
        let mut noise = Noise(11);
        let z = DMatrix::from_fn(3_000, 12, |_, _| noise.next());
        let mut model = SecondOpinion::fit(&z, &(0..120).collect::<Vec<_>>()).unwrap();
        let mean = (120..3_000).map(|row| model.push(z.row(row).iter().copied()).t2).sum::<f64>() / 2_880.0;
        assert!((0.62..0.95).contains(&mean), "{mean}");
    }

    /// A start that settles is no row to be judged by.
    #[test]
    fn the_first_rows_do_not_make_the_limits() {
        let mut z = rows(2_000);
        (z[(0, 0)], z[(0, 1)]) = (30.0, 30.0);
        let model = SecondOpinion::fit(&z, &(0..2_000).collect::<Vec<_>>()).unwrap();
        assert!(model.t2_limit < 300.0, "{}", model.t2_limit);
    }

    /// A limit that nothing ever comes near says nothing either.
    #[test]
    fn limits_are_no_wider_than_they_must_be() {
        let z = rows(4_000);
        let mut model = SecondOpinion::fit(&z, &(0..2_000).collect::<Vec<_>>()).unwrap();
        let opinions: Vec<Opinion> = (2_000..4_000).map(|row| model.push(z.row(row).iter().copied())).collect();
        let largest = |of: fn(&Opinion) -> f64| opinions.iter().map(of).fold(0.0, f64::max);
        assert!(largest(|opinion| opinion.t2) > 0.5 && largest(|opinion| opinion.q.unwrap()) > 0.5);
    }

    #[test]
    fn rows_that_were_not_seen_stay_below_the_limits() {
        let z = rows(4_000);
        let mut model = SecondOpinion::fit(&z, &(0..2_000).collect::<Vec<_>>()).unwrap();
        let over = (2_000..4_000).filter(|row| {
            let opinion = model.push(z.row(*row).iter().copied());
            opinion.t2 > 1.0 || opinion.q.is_some_and(|q| q > 1.0)
        });
        assert!(over.count() <= 20, "1 % at most");
    }

    #[test]
    fn what_does_not_move_has_none_and_one_point_has_no_q() {
        assert_eq!(SecondOpinion::fit(&DMatrix::zeros(200, 2), &(0..200).collect::<Vec<_>>()), None);
        let one = rows(500).columns(2, 1).into_owned();
        let mut model = SecondOpinion::fit(&one, &(0..500).collect::<Vec<_>>()).unwrap();
        assert_eq!(model.push([0.1].iter().copied()).q, None);
    }
}
