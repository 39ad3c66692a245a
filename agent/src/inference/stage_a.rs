//! Stage A, the anomaly score: a bundle, one plan per number of points, and the weights of a machine as ready inputs.
use std::collections::BTreeMap;

use super::{
    baseline::Weights,
    bundle::{Bundle, BundleError},
    limit::Residual,
    model::{Input, ModelError, Plan},
};

/// Names of the graph's inputs in the order in which [`StageA::score`] gives them.
const INPUTS: [&str; 11] =
    ["window", "mean", "inv_std", "least", "regression", "bias", "whitening", "slow_regression", "slow_bias", "slow_whitening", "share"];
/// Names of its outputs, in the order in which it takes them.
const OUTPUTS: [&str; 4] = ["whitened", "score", "slow_whitened", "slow_score"];

/// A loaded Stage A bundle.
#[derive(Debug)]
pub(super) struct StageA {
    bundle: Bundle,
    plans: BTreeMap<usize, Plan>,
}

/// The weights of a machine as tensors: made once per baseline, shared by all runs.
#[derive(Debug)]
pub(super) struct Prepared {
    points: usize,
    weights: [Input; 10],
}

/// What the graph says about one window.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) fast: Residual,
    pub(super) slow: Residual,
}

impl StageA {
    /// Takes an opened bundle. Fails where it is not one of Stage A.
    pub(super) fn new(bundle: Bundle) -> Result<Self, BundleError> {
        let manifest = bundle.manifest();
        let inputs: Vec<&str> = manifest.input.iter().map(|tensor| tensor.name.as_str()).collect();
        let outputs: Vec<&str> = manifest.output.iter().map(|tensor| tensor.name.as_str()).collect();
        if manifest.role != "anomaly" || inputs != INPUTS || outputs != OUTPUTS {
            let what = format!("Stage A needs role `anomaly`, inputs {INPUTS:?} and outputs {OUTPUTS:?}");
            return Err(BundleError::Unusable { bundle: manifest.name.clone(), what });
        }
        Ok(Self { bundle, plans: BTreeMap::new() })
    }

    /// Makes the plan for `points` points, if it is not there yet.
    pub(super) fn plan_for(&mut self, points: usize) -> Result<(), BundleError> {
        if !self.plans.contains_key(&points) {
            self.plans.insert(points, self.bundle.plan(points)?);
        }
        Ok(())
    }

    /// Rows of history that a score needs before its own.
    pub(super) fn lags(&self) -> usize {
        self.bundle.manifest().lags
    }

    /// Turns fitted weights into inputs of the graph.
    pub(super) fn prepare(&self, weights: &Weights) -> Result<Prepared, ModelError> {
        let (n, lags) = (weights.points, self.lags());
        let weights = [
            Input::new(&[n], &weights.mean)?,
            Input::new(&[n], &weights.inv_std)?,
            Input::new(&[n], &weights.least)?,
            Input::new(&[lags * n, n], &weights.fast.regression)?,
            Input::new(&[n], &weights.fast.bias)?,
            Input::new(&[n, n], &weights.fast.whitening)?,
            Input::new(&[lags * n, n], &weights.slow.regression)?,
            Input::new(&[n], &weights.slow.bias)?,
            Input::new(&[n, n], &weights.slow.whitening)?,
            Input::new(&[n, 1], &vec![1.0 / n as f64; n])?,
        ];
        Ok(Prepared { points: n, weights })
    }

    /// Scores a window of `lags + 1` rows in row-major order. Fails where the runtime fails or an output is not finite.
    pub(super) fn score(&mut self, window: &[f64], prepared: &Prepared) -> Result<Scored, ModelError> {
        let rows = self.lags() + 1;
        let missing = || ModelError::Runtime(format!("there is no plan for {} points", prepared.points));
        let plan = self.plans.get_mut(&prepared.points).ok_or_else(missing)?;
        let window = Input::new(&[rows, prepared.points], window)?;
        let inputs: Vec<&Input> = std::iter::once(&window).chain(&prepared.weights).collect();
        let outputs = plan.run(&inputs)?;
        let [whitened, score, slow_whitened, slow_score] =
            <[Vec<f64>; 4]>::try_from(outputs).map_err(|_| ModelError::Runtime("four outputs expected".to_owned()))?;
        let residual = |score: Vec<f64>, whitened| match score.first() {
            Some(&score) => Ok(Residual { score, whitened }),
            None => Err(ModelError::Runtime("the score is empty".to_owned())),
        };
        Ok(Scored { fast: residual(score, whitened)?, slow: residual(slow_score, slow_whitened)? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::inference::{
        baseline::{ChannelWeights, NO_LEAST, fit, tests::Noise},
        collected::Collected,
    };
    use crate::inference::{limit::Smoothed, novelty::Novelty};

    fn stage_a() -> StageA {
        StageA::new(Bundle::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stage-a")).unwrap()).unwrap()
    }

    /// The fit computes its scores with nalgebra, the graph with tract: two programs, one formula.
    #[test]
    fn graph_and_fit_agree_on_the_same_rows() {
        let (points, rows) = (5, 300);
        let mut noise = Noise(9);
        let mut values: Vec<Vec<f64>> = vec![vec![101_325.0; points]];
        for row in 1..rows {
            let next = values[row - 1].iter().map(|v| 101_325.0 + 0.8 * (v - 101_325.0) + noise.next()).collect();
            values.push(next);
        }
        let mut collected = Collected::new(points);
        for (row, values) in values.iter().enumerate() {
            collected.push_fresh(values, row > 0);
        }
        let fit = fit(&collected, 3, &[2]).unwrap();

        let mut stage = stage_a();
        stage.plan_for(points).unwrap();
        let prepared = stage.prepare(&fit.weights).unwrap();
        let (mut smoothed, mut novelty, mut last) = (Smoothed::default(), Novelty::default(), 0.0);
        let z = |row: &[f64]| row.iter().enumerate().map(|(point, value)| fit.weights.z(point, *value)).collect::<Vec<_>>();
        for end in 4..=rows {
            let scored = stage.score(&values[end - 4..end].concat(), &prepared).unwrap();
            last = smoothed.push(&scored.fast, &scored.slow);
            novelty.push(&scored.fast.whitened, &z(&values[end - 1]));
        }
        let shares = |s: &Smoothed| s.top_shares();
        let difference = (fit.smoothed.score().unwrap() - last).abs();
        assert!(difference < 1e-9 * last, "{difference}");
        for ((a, share_a), (b, share_b)) in shares(&smoothed).into_iter().zip(shares(&fit.smoothed)) {
            assert!(a == b && (share_a - share_b).abs() < 1e-9);
        }
        let (jump, at) = ([4.0, -4.0, 0.0, 0.0, 1.0], z(&values[rows - 1]));
        let difference = (novelty.push(&jump, &at) - fit.novelty.clone().push(&jump, &at)).abs();
        assert!(difference < 1e-9, "{difference}");
    }

    #[test]
    fn a_window_that_overflows_is_an_error_and_the_next_one_is_scored() {
        let mut stage = stage_a();
        stage.plan_for(1).unwrap();
        let channel = ChannelWeights { regression: vec![0.0; 3], bias: vec![0.0], whitening: vec![1.0] };
        let weights = Weights {
            points: 1,
            seldom: Vec::new(),
            mean: vec![0.0],
            inv_std: vec![1.0],
            least: vec![NO_LEAST],
            fast: channel.clone(),
            slow: channel,
        };
        let prepared = stage.prepare(&weights).unwrap();
        assert!(matches!(stage.score(&[0.0, 0.0, 0.0, 1e200], &prepared), Err(ModelError::NotFinite(_))));
        assert!(matches!(stage.score(&[0.0, 0.0, 0.0], &prepared), Err(ModelError::Shape { actual: 3, expected: 4 })));
        assert_eq!(stage.score(&[0.0, 0.0, 0.0, -2.0], &prepared).unwrap().slow.score, 2.0);
    }
}
