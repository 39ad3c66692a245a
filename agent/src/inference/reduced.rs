//! Stage A with the points that are left where others have no usable value.
//!
//! Commissioning keeps the sums of products that its fit came from. Those of the points that are left are a part of them, so the regression and the
//! whitening without the others are the ones that a commissioning without them would have fitted under the same penalty. Its limit cannot be had without
//! the rows. A mean over fewer points strays further from its median, as one over the root of their number, so the limit is moved away from the median by
//! as much.
use nalgebra::{DMatrix, RowDVector};
use serde::{Deserialize, Serialize};

use super::{
    baseline::{ChannelWeights, Weights},
    limit::{Channel, FAST, SLOW},
    regression::{Sums, whitening},
    seldom::Apart,
    validation::row_major,
};

/// What a fit with some of the points needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Moments {
    /// Windows behind them.
    pub(super) windows: usize,
    /// Sums over windows, of each place in a window: `lags + 1` rows of z-scores, of all points but the seldom ones, the oldest row first.
    pub(super) sums: Vec<f64>,
    /// Sums of products of two places, the upper triangle row by row.
    pub(super) products: Vec<f64>,
    pub(super) fast: Chosen,
    pub(super) slow: Chosen,
}

/// What the cross-validation of a channel chose, in units of whitened residuals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chosen {
    pub(super) ridge: f64,
    pub(super) limit: f64,
    /// Median of the smoothed scores.
    pub(super) median: f64,
}

/// Whether an answer with `left` of `points` points says enough of the machine: with more than half of them.
pub(super) fn suffices(left: usize, points: usize) -> bool {
    2 * left > points
}

/// The weights for the points with the indices `left`, in ascending order. `None` where they cannot be computed.
pub(super) fn fit(of: &Weights, moments: &Moments, left: &[usize]) -> Option<Weights> {
    let part = |values: &[f64]| left.iter().map(|&point| values.get(point).copied()).collect::<Option<Vec<f64>>>();
    // The moments are of the others alone.
    let regressed = Apart::new(of.points, &of.seldom).regressed;
    let places: Vec<usize> = left.iter().filter_map(|point| regressed.iter().position(|regressed| regressed == point)).collect();
    let seldom: Vec<usize> = (0..left.len()).filter(|&place| of.seldom.contains(&left[place])).collect();
    let apart = Apart::new(left.len(), &seldom);
    let sums = sums_of(moments, regressed.len(), &places)?;
    Some(Weights {
        points: left.len(),
        seldom,
        mean: part(&of.mean)?,
        inv_std: part(&of.inv_std)?,
        least: part(&of.least)?,
        fast: channel(&sums, &apart, FAST, moments.fast, regressed.len())?,
        slow: channel(&sums, &apart, SLOW, moments.slow, regressed.len())?,
    })
}

fn channel(sums: &Sums, apart: &Apart, channel: Channel, chosen: Chosen, points: usize) -> Option<ChannelWeights> {
    let persistence = if channel.follows { sums.persistence() } else { vec![0.0; sums.points()] };
    let regression = sums.fit(&persistence, chosen.ridge)?;
    let spread = (points as f64 / sums.points() as f64).sqrt();
    let limit = chosen.median + (chosen.limit - chosen.median).max(0.0) * spread;
    let whitening = apart.whitening(whitening(sums.residual_covariance(&regression))? / limit);
    let regression = apart.regression(regression);
    let finite = whitening.iter().all(|value| value.is_finite());
    let bias = regression.bias.iter().copied().collect();
    finite.then(|| ChannelWeights { regression: row_major(&regression.weights), bias, whitening: row_major(&whitening) })
}

/// The sums for windows of `left` alone, of the `points` that have moments.
fn sums_of(moments: &Moments, points: usize, left: &[usize]) -> Option<Sums> {
    let places = moments.sums.len();
    let rows = places.checked_div(points)?;
    if rows < 2 || left.is_empty() || moments.products.len() != places * (places + 1) / 2 || left.iter().any(|&point| point >= points) {
        return None;
    }
    let kept: Vec<usize> = (0..rows).flat_map(|row| left.iter().map(move |point| row * points + point)).collect();
    let (history, target) = kept.split_at((rows - 1) * left.len());
    let product = |a: usize, b: usize| moments.products[upper_index(a.min(b), a.max(b), places)];
    let products = |a: &[usize], b: &[usize]| DMatrix::from_fn(a.len(), b.len(), |i, j| product(a[i], b[j]));
    let sums = |of: &[usize]| RowDVector::from_fn(of.len(), |_, i| moments.sums[of[i]]);
    Some(Sums {
        windows: moments.windows,
        h: sums(history),
        t: sums(target),
        hh: products(history, history),
        ht: products(history, target),
        tt: products(target, target),
    })
}

/// Where the product of places `a` and `b`, `a` not after `b`, stands among those of the upper triangle.
fn upper_index(a: usize, b: usize, places: usize) -> usize {
    a * (2 * places - a + 1) / 2 + b - a
}

impl Moments {
    /// What to keep of all windows.
    pub(super) fn of(all: &Sums, fast: Chosen, slow: Chosen) -> Self {
        let (history, places) = (all.h.len(), all.h.len() + all.t.len());
        let product = |(a, b): (usize, usize)| match (a.checked_sub(history), b.checked_sub(history)) {
            (None, None) => all.hh[(a, b)],
            (None, Some(b)) => all.ht[(a, b)],
            (Some(a), Some(b)) => all.tt[(a, b)],
            (Some(a), None) => all.ht[(b, a)],
        };
        let products = (0..places).flat_map(|a| (a..places).map(move |b| (a, b))).map(product).collect();
        Self { windows: all.windows, sums: all.h.iter().chain(all.t.iter()).copied().collect(), products, fast, slow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{
        baseline::{self, tests::Noise},
        bundle::Bundle,
        collected::Collected,
        limit::{LIMIT, Smoothed},
        stage_a::StageA,
    };

    const LAGS: usize = 3;

    /// Rows of five points that follow one another; the second follows the first most closely.
    fn rows(noise: &mut Noise, rows: usize) -> Vec<[f64; 5]> {
        let mut last = [0.0; 5];
        let next = |_| {
            let row = [
                0.8 * last[0] + noise.next(),
                2.0 * last[0] + 0.5 * noise.next(),
                0.5 * last[2] + noise.next(),
                last[3] * 0.9 + 0.3 * last[1] + noise.next(),
                noise.next(),
            ];
            last = row;
            row
        };
        (0..rows).map(next).collect()
    }

    fn fitted(rows: &[[f64; 5]], points: &[usize]) -> baseline::Fit {
        let mut collected = Collected::new(points.len());
        for (index, row) in rows.iter().enumerate() {
            collected.push_fresh(&points.iter().map(|&point| row[point]).collect::<Vec<_>>(), index > 0);
        }
        baseline::fit(&collected, LAGS, &[]).unwrap()
    }

    fn furthest(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    /// The promise of the moments: without the rows the weights come out as from the rows.
    #[test]
    fn weights_without_a_point_are_those_of_the_rows_without_it() {
        let rows = rows(&mut Noise(11), 1_500);
        let whole = fitted(&rows, &[0, 1, 2, 3, 4]);
        let Weights { mean, inv_std, .. } = &whole.weights;
        for left in [&[0, 1, 2, 3, 4][..], &[1, 2, 3, 4], &[0, 1, 2, 3], &[0, 2, 4]] {
            let reduced = fit(&whole.weights, &whole.moments, left).unwrap();
            let z = DMatrix::from_fn(rows.len(), left.len(), |row, point| (rows[row][left[point]] - mean[left[point]]) * inv_std[left[point]]);
            let mut sums = Sums::new(left.len(), LAGS);
            sums.add(&z, &(LAGS..rows.len()).collect::<Vec<_>>());
            for (of, reduced, chosen) in [(FAST, &reduced.fast, whole.moments.fast), (SLOW, &reduced.slow, whole.moments.slow)] {
                let direct = channel(&sums, &Apart::new(left.len(), &[]), of, chosen, 5).unwrap();
                let furthest_weight = furthest(&reduced.regression, &direct.regression);
                assert!(furthest_weight < 1e-9, "{left:?}: {furthest_weight}");
                let largest = direct.whitening.iter().copied().fold(0.0, f64::max);
                let furthest_part = furthest(&reduced.whitening, &direct.whitening) / largest;
                assert!(furthest_part < 1e-9, "{left:?}: {furthest_part}");
            }
            // All that a commissioning without the points would have known better is the penalty and the limit.
            let direct = fitted(&rows, left).weights;
            assert_eq!((reduced.points, &reduced.mean, &reduced.inv_std), (left.len(), &direct.mean, &direct.inv_std));
            for (reduced, direct) in [(&reduced.fast, &direct.fast), (&reduced.slow, &direct.slow)] {
                let ratio = reduced.whitening[0] / direct.whitening[0];
                assert!((0.7..1.2).contains(&ratio), "{left:?}: {ratio}");
            }
        }
    }

    /// A seldom point has no part in the moments, wherever it stands, and none in the weights of the others.
    #[test]
    fn weights_of_the_others_do_not_know_a_seldom_point() {
        let (rows, mut noise) = (rows(&mut Noise(13), 1_500), Noise(14));
        let mut collected = Collected::new(6);
        let mut level = 0.0;
        for (index, row) in rows.iter().enumerate() {
            let is_fresh = index % 10 == 0;
            level = if is_fresh { noise.next() } else { level };
            let values = [row[0], row[1], level, row[2], row[3], row[4]];
            collected.push_of(&values, &[true, true, is_fresh, true, true, true], index > 0);
        }
        let (with, without) = (baseline::fit(&collected, LAGS, &[]).unwrap(), fitted(&rows, &[0, 1, 2, 3, 4]));
        assert_eq!((&with.weights.seldom[..], &with.moments), (&[2][..], &without.moments));
        for (left, others) in [(&[0, 1, 3, 4, 5][..], &[0, 1, 2, 3, 4][..]), (&[1, 3, 4, 5], &[1, 2, 3, 4])] {
            let (with, without) = (fit(&with.weights, &with.moments, left).unwrap(), fit(&without.weights, &without.moments, others).unwrap());
            assert_eq!(with, without);
        }
        let reduced = fit(&with.weights, &with.moments, &[1, 2, 3, 4, 5]).unwrap();
        let others = fit(&without.weights, &without.moments, &[1, 2, 3, 4]).unwrap();
        assert_eq!((&reduced.seldom[..], reduced.mean[1]), (&[1][..], with.weights.mean[2]));
        // One after another of the others: its place among the five, and among the four.
        for (place, of_others) in [(0, 0), (2, 1), (3, 2), (4, 3)] {
            assert_eq!(reduced.fast.bias[place], others.fast.bias[of_others]);
            assert_eq!(reduced.slow.regression[(2 * 5 + place) * 5 + place], others.slow.regression[(2 * 4 + of_others) * 4 + of_others]);
            assert_eq!((reduced.fast.regression[(2 * 5 + 1) * 5 + place], reduced.fast.regression[(2 * 5 + place) * 5 + 1]), (0.0, 0.0));
        }
        assert_eq!(fit(&with.weights, &with.moments, &[2]), None, "nothing tells of the moment");
    }

    /// On rows that nobody has seen: quiet while the machine is healthy, over the limit when it is not.
    #[test]
    fn a_score_without_a_point_tells_healthy_from_faulty() {
        let mut noise = Noise(12);
        let seen = rows(&mut noise, 600);
        let whole = fitted(&seen, &[0, 1, 2, 3, 4]);
        let bundle = Bundle::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stage-a")).unwrap();
        let mut stage = StageA::new(bundle).unwrap();
        for left in [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 2, 3]] {
            stage.plan_for(left.len()).unwrap();
            let prepared = stage.prepare(&fit(&whole.weights, &whole.moments, &left).unwrap()).unwrap();
            let mut largest = |fault: f64| {
                let rows = rows(&mut noise, 1_000);
                let mut smoothed = Smoothed::default();
                let window = |rows: &[[f64; 5]]| {
                    rows.iter().flat_map(|row| left.map(|point| if point == 2 { row[2] + fault } else { row[point] })).collect::<Vec<_>>()
                };
                let scores = rows.windows(LAGS + 1).map(|rows| {
                    let scored = stage.score(&window(rows), &prepared).unwrap();
                    smoothed.push(&scored.fast, &scored.slow)
                });
                scores.skip(20).fold(0.0, f64::max)
            };
            let (healthy, faulty) = (largest(0.0), largest(6.0));
            assert!(healthy < LIMIT && faulty > 1.3 * LIMIT, "{left:?}: {healthy} {faulty}");
        }
    }

    #[test]
    fn half_of_the_points_are_too_few() {
        assert_eq!(
            [(1, 1), (1, 2), (2, 3), (2, 4), (3, 4), (0, 1)].map(|(left, points)| suffices(left, points)),
            [true, false, true, false, true, false]
        );
    }
}
