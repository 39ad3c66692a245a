//! Cross-validation in blocks: what a channel's fit is worth on rows that it has not seen. It chooses the penalty and sets the limit.
use nalgebra::DMatrix;

use super::{
    baseline::{ChannelWeights, median_of_sorted},
    limit::{Channel, Residual, power_mean},
    reduced::{Chosen, Moments},
    regression::{Regression, Sums, whitening},
    seldom::Apart,
};

/// Penalties to choose from.
const RIDGES: [f64; 4] = [1.0, 10.0, 100.0, 1000.0];
/// Blocks.
pub(super) const FOLDS: usize = 5;
/// Smoothed scores at the start that say nothing yet.
pub(super) const SETTLING: usize = 20;

/// Windows in blocks, each of which is scored by fits on the others.
pub(super) struct Validation<'a> {
    z: &'a DMatrix<f64>,
    /// The last row of each window, and sums without the first windows of the block, whose history reaches into the block before.
    blocks: Vec<(&'a [usize], Sums)>,
    all: Sums,
}

impl<'a> Validation<'a> {
    pub(super) fn new(z: &'a DMatrix<f64>, scorable: &'a [usize], lags: usize) -> Self {
        let mut all = Sums::new(z.ncols(), lags);
        let mut blocks = Vec::with_capacity(FOLDS);
        for fold in 0..FOLDS {
            let block = &scorable[scorable.len() * fold / FOLDS..scorable.len() * (fold + 1) / FOLDS];
            let (first, rest) = block.split_at(lags.min(block.len()));
            let mut sums = Sums::new(z.ncols(), lags);
            sums.add(z, rest);
            all.add(z, first);
            all.join(&sums);
            blocks.push((block, sums));
        }
        Self { z, blocks, all }
    }

    /// How many there are.
    pub(super) fn windows(&self) -> usize {
        self.all.windows()
    }

    /// A channel's weights, fitted on all windows under the penalty that predicts unseen ones best, and its scores of unseen ones over its limit.
    /// Where the points `stood_still`, beside others that did not, any move of theirs counts. `None` where the numbers are not finite.
    pub(super) fn channel(&self, channel: Channel, stood_still: bool) -> Option<(Fitted, Vec<f64>)> {
        let persistence = if channel.follows { self.all.persistence() } else { vec![0.0; self.z.ncols()] };
        let mut best: Option<Choice> = None;
        for ridge in RIDGES {
            let fits = (0..FOLDS).map(|fold| self.without(fold, &persistence, ridge)).collect::<Option<Vec<_>>>()?;
            let error: f64 = fits.iter().zip(&self.blocks).map(|((fit, _), (_, sums))| sums.residual_covariance(fit).trace()).sum();
            if best.as_ref().is_none_or(|best| error < best.error) {
                best = Some(Choice { error, ridge, fits });
            }
        }
        let Choice { ridge, fits, .. } = best?;
        let mut smoothed: Option<f64> = None;
        let mut scores = Vec::new();
        for ((regression, sums), (block, _)) in fits.into_iter().zip(&self.blocks) {
            let whitening = whitening(sums.residual_covariance(&regression))?;
            for &row in *block {
                scores.push(channel.smooth(&mut smoothed, score(&regression, &whitening, self.z, row).score));
            }
        }
        scores.drain(..SETTLING.min(scores.len()));
        let largest = scores.iter().copied().fold(0.0, f64::max);
        let limit = if stood_still { 1.0 } else { channel.factor * largest };
        if !(limit.is_finite() && limit > 0.0) {
            return None;
        }
        let mut sorted = scores.clone();
        sorted.sort_by(f64::total_cmp);
        let chosen = Chosen { ridge, limit, median: median_of_sorted(&sorted) };
        scores.iter_mut().for_each(|score| *score /= limit);
        let regression = self.all.fit(&persistence, ridge)?;
        let whitening = whitening(self.all.residual_covariance(&regression))? / limit;
        Some((Fitted { regression, whitening, chosen }, scores))
    }

    /// What a fit with some of the points needs, where these are the channels of all.
    pub(super) fn moments(&self, fast: &Fitted, slow: &Fitted) -> Moments {
        Moments::of(&self.all, fast.chosen, slow.chosen)
    }

    /// A fit on all blocks but one, and their sums.
    fn without(&self, fold: usize, persistence: &[f64], ridge: f64) -> Option<(Regression, Sums)> {
        let mut others = self.blocks.iter().enumerate().filter(|(other, _)| *other != fold).map(|(_, (_, sums))| sums);
        let mut sums = others.next()?.clone();
        others.for_each(|other| sums.join(other));
        sums.fit(persistence, ridge).map(|regression| (regression, sums))
    }
}

/// A penalty, its error on windows that were not seen, and the fits without each block.
struct Choice {
    error: f64,
    ridge: f64,
    fits: Vec<(Regression, Sums)>,
}

/// A fitted channel; its whitening is over its limit.
pub(super) struct Fitted {
    regression: Regression,
    whitening: DMatrix<f64>,
    chosen: Chosen,
}

impl Fitted {
    /// The same with the points that it was not fitted for.
    pub(super) fn beside(self, apart: &Apart) -> Self {
        Self { regression: apart.regression(self.regression), whitening: apart.whitening(self.whitening), ..self }
    }

    /// As the graph scores a window.
    pub(super) fn score(&self, z: &DMatrix<f64>, row: usize) -> Residual {
        score(&self.regression, &self.whitening, z, row)
    }

    pub(super) fn weights(&self) -> ChannelWeights {
        ChannelWeights {
            regression: row_major(&self.regression.weights),
            bias: self.regression.bias.iter().copied().collect(),
            whitening: row_major(&self.whitening),
        }
    }
}

fn score(regression: &Regression, whitening: &DMatrix<f64>, z: &DMatrix<f64>, row: usize) -> Residual {
    let whitened: Vec<f64> = (whitening * regression.residual(z, row)).iter().copied().collect();
    Residual { score: power_mean(&whitened), whitened }
}

pub(super) fn row_major(matrix: &DMatrix<f64>) -> Vec<f64> {
    matrix.transpose().as_slice().to_vec()
}
