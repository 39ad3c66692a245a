//! Stage B, remaining life: a bundle that was trained on machines run to failure, ready to answer.
use std::time::Duration;

use super::{
    bundle::{Bundle, BundleError},
    forecast_manifest::Need,
    model::{Input, ModelError, Plan},
    report::ModelNames,
    row_features::Specification,
};
use crate::config;

/// Name of the graph's input.
const INPUT: &str = "features";
/// Names of its outputs, in their order.
const OUTPUTS: [&str; 2] = ["remaining_life", "quantiles"];

/// A loaded forecasting bundle.
#[derive(Debug)]
pub(super) struct StageB {
    pub(super) names: ModelNames,
    bundle: Bundle,
    plan: Plan,
}

/// What the graph says of one row, in rows of life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Distribution {
    /// Mean.
    pub(super) mean: f64,
    /// At the levels of the manifest, never falling.
    pub(super) quantiles: Vec<f64>,
}

impl StageB {
    /// Takes an opened bundle. Fails where it is none that forecasts.
    pub(super) fn new(bundle: Bundle) -> Result<Self, BundleError> {
        let manifest = bundle.manifest();
        let inputs: Vec<&str> = manifest.input.iter().map(|tensor| tensor.name.as_str()).collect();
        let outputs: Vec<&str> = manifest.output.iter().map(|tensor| tensor.name.as_str()).collect();
        if manifest.forecast.is_none() || inputs != [INPUT] || outputs != OUTPUTS {
            let what = format!("a forecast needs role `forecast`, the input `{INPUT}` and the outputs {OUTPUTS:?}");
            return Err(BundleError::Unusable { bundle: manifest.name.clone(), what });
        }
        // The number of points is part of no shape here; the plan asks for one.
        let plan = bundle.plan(1)?;
        Ok(Self { names: ModelNames::of(&bundle), bundle, plan })
    }

    /// The bundle itself.
    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The features that it takes.
    pub(super) fn features(&self) -> &Specification {
        self.bundle.features().expect("a bundle with [forecast] has features")
    }

    /// What it ends with, its cap and its levels.
    pub(super) fn manifest(&self) -> &super::ForecastManifest {
        self.bundle.manifest().forecast.as_ref().expect("checked when it was made")
    }

    /// Why it is of no use to `asset`, in words: points or settings that there are not, other units, another rate, a need that is not met.
    pub(super) fn refusal(&self, asset: &config::Asset) -> Option<String> {
        let (mut faults, mut missing) = (Vec::new(), Vec::new());
        for (name, unit) in self.features().inputs() {
            match asset.points.iter().find(|point| *point.id == *name) {
                None => missing.push(format!("`{name}` ({unit})")),
                Some(point) if *point.unit != *unit => faults.push(format!("`{name}` is in {}, the model takes {unit}", point.unit)),
                Some(_) => {}
            }
        }
        if !missing.is_empty() {
            faults.insert(0, format!("it has no point {}", missing.join(", ")));
        }
        let (manifest, age) = (self.manifest(), asset.forecast.model.as_ref().and_then(|model| model.age_rows));
        if manifest.needs.contains(&Need::Age) && age.is_none() {
            faults.push(format!("it needs the age: `age` in [forecast], {}s that went by before the first one recorded", manifest.unit));
        }
        if let Some(row_s) = manifest.row_s.filter(|row_s| Duration::from_secs_f64(*row_s) != asset.grid) {
            faults.push(format!("its rows are {row_s} s apart, the `grid` is {} s", asset.grid.as_secs_f64()));
        }
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    /// What it says of a row with these `features`. Fails where the runtime fails, or what comes out is no distribution.
    pub(super) fn run(&mut self, features: &[f64]) -> Result<Distribution, ModelError> {
        let input = Input::new(&[1, features.len()], features)?;
        let outputs = self.plan.run(&[&input])?;
        let [mean, quantiles] = <[Vec<f64>; 2]>::try_from(outputs).map_err(|_| ModelError::Runtime("two outputs expected".to_owned()))?;
        let levels = self.manifest().levels.len();
        match mean.first() {
            Some(&mean) if quantiles.len() == levels && quantiles.is_sorted() => Ok(Distribution { mean, quantiles }),
            _ => Err(ModelError::Runtime(format!("a mean and {levels} quantiles that do not fall were expected"))),
        }
    }
}

impl Distribution {
    /// The quantile at `level`, between those of the neighbouring `levels`; beyond the ends the first and the last one.
    pub(super) fn quantile(&self, levels: &[f64], level: f64) -> f64 {
        interpolated(levels, &self.quantiles, level)
    }

    /// The probability of so many rows or fewer: levels between the neighbouring quantiles; beyond the ends half of what is left there.
    pub(super) fn within(&self, levels: &[f64], rows: f64) -> f64 {
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let below = self.quantiles.partition_point(|quantile| *quantile <= rows);
        match below {
            0 => first / 2.0,
            below if below == levels.len() => (1.0 + last) / 2.0,
            below => {
                let (low, high) = (self.quantiles[below - 1], self.quantiles[below]);
                levels[below - 1] + (rows - low) / (high - low) * (levels[below] - levels[below - 1])
            }
        }
    }
}

/// The straight line through points of rising `x`, constant beyond its ends.
fn interpolated(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    match xs.partition_point(|known| *known <= x) {
        0 => ys[0],
        after if after == xs.len() => ys[after - 1],
        after => ys[after - 1] + (x - xs[after - 1]) / (xs[after] - xs[after - 1]) * (ys[after] - ys[after - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_chances_are_two_readings_of_one_curve() {
        let levels = [0.1, 0.5, 0.9];
        let distribution = Distribution { mean: 20.0, quantiles: vec![10.0, 20.0, 40.0] };
        for (level, rows) in [(0.1, 10.0), (0.3, 15.0), (0.5, 20.0), (0.7, 30.0)] {
            assert!((distribution.quantile(&levels, level) - rows).abs() < 1e-12);
            assert!((distribution.within(&levels, rows) - level).abs() < 1e-12);
        }
        assert_eq!((distribution.quantile(&levels, 0.01), distribution.quantile(&levels, 0.99)), (10.0, 40.0));
        assert_eq!([9.9, 40.0, 500.0].map(|rows| distribution.within(&levels, rows)), [0.05, 0.95, 0.95]);
    }

    /// Lives beyond the cap are told as the cap, at several levels.
    #[test]
    fn a_lump_is_no_division_by_nothing() {
        let levels = [0.1, 0.5, 0.9];
        let distribution = Distribution { mean: 120.0, quantiles: vec![100.0, 125.0, 125.0] };
        assert!((distribution.within(&levels, 124.0) - 0.484).abs() < 1e-12);
        assert_eq!(distribution.within(&levels, 125.0), 0.95);
    }
}
