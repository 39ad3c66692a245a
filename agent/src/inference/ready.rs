//! Weights made ready for the graph: those of all points, and those of the points that were left last. Made from what is stored, and not stored.
use hark_protocol::topics::Name;

use super::{
    asset::Scoring,
    baseline::Weights,
    limit::Residual,
    model::ModelError,
    reduced,
    stage_a::{Prepared, Scored, StageA},
};

/// What an asset is scored with.
#[derive(Debug, Default)]
pub(super) struct Ready {
    all: Option<Prepared>,
    reduced: Option<Reduced>,
}

/// Weights for some of the points.
#[derive(Debug)]
struct Reduced {
    left: Vec<usize>,
    /// `None` where they cannot be computed or used.
    weights: Option<(Weights, Prepared)>,
    told: bool,
}

impl Ready {
    /// For the weights of `scoring`, if there are any. Weights that the bundle cannot use are logged; each row then says so.
    pub(super) fn new(asset: &Name, scoring: Option<&Scoring>, stage_a: &StageA) -> Self {
        let prepare = |scoring: &Scoring| {
            let prepared = stage_a.prepare(&scoring.weights);
            prepared.inspect_err(|error| tracing::error!(%asset, %error, "the weights cannot be used")).ok()
        };
        Self { all: scoring.and_then(prepare), reduced: None }
    }

    /// Scores the window of the points `left`, in ascending order; the whitened residuals of the others are 0.
    ///
    /// # Errors
    /// [`ModelError`] where there are no weights, or the runtime fails on the window.
    pub(super) fn score(&mut self, window: &[f64], left: &[usize], scoring: &Scoring, stage_a: &mut StageA) -> Result<Scored, ModelError> {
        let points = scoring.weights.points;
        if left.len() == points {
            return stage_a.score(window, self.all.as_ref().ok_or(ModelError::NotPrepared)?);
        }
        if self.reduced.as_ref().is_none_or(|reduced| reduced.left != left) {
            self.reduced = Some(Reduced { left: left.to_vec(), weights: reduce(scoring, left, stage_a), told: false });
        }
        let (_, prepared) = self.reduced.as_ref().and_then(|reduced| reduced.weights.as_ref()).ok_or(ModelError::NotPrepared)?;
        let Scored { fast, slow } = stage_a.score(window, prepared)?;
        let spread = |residual: Residual| {
            let mut whitened = vec![0.0; points];
            left.iter().zip(residual.whitened).for_each(|(&point, of_point)| whitened[point] = of_point);
            Residual { whitened, ..residual }
        };
        Ok(Scored { fast: spread(fast), slow: spread(slow) })
    }

    /// Weights for some of the points that were made since it was asked last, with the indices of these.
    pub(super) fn news(&mut self) -> Option<(&[usize], &Weights)> {
        let Reduced { left, weights, told } = self.reduced.as_mut()?;
        let (weights, _) = weights.as_ref().filter(|_| !std::mem::replace(told, true))?;
        Some((left, weights))
    }
}

fn reduce(scoring: &Scoring, left: &[usize], stage_a: &mut StageA) -> Option<(Weights, Prepared)> {
    let weights = reduced::fit(&scoring.weights, &scoring.moments, left)?;
    stage_a.plan_for(left.len()).ok()?;
    let prepared = stage_a.prepare(&weights).ok()?;
    Some((weights, prepared))
}
