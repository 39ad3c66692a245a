//! Features of a machine's rows for a forecasting model: the same code for training (`hark features --rows`) and on a gateway.
//!
//! A [`Specification`] comes with the model; a [`Life`] is what is remembered of one machine since its start or last overhaul. Each row costs the same,
//! however long the life: means are updated, windows looked through. A row that lacks a value, or whose settings belong to no regime, has no features,
//! says why, and is left out of means and windows; it counts in the age alone. Nothing is filled in: a zero would be a measurement.
//!
//! The state goes into checkpoints: of each point its means and, where windows are asked for, as many values as the longest one has rows.
mod specification;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::specification::{Centre, Kinds};
pub use self::specification::{Specification, SpecificationError};

/// Why a row has no features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFeatures {
    /// These points and settings have no finite value in the row.
    Missing(Vec<String>),
    /// The settings are too far from those of every known regime.
    UnknownRegime,
}

/// What is remembered of a machine since the start of this life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// Rows so far, those without features among them.
    rows: u64,
    /// Rows that had features.
    complete: u64,
    points: Vec<History>,
}

/// What is remembered of a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct History {
    /// Exponentially weighted means in the order of [`Kinds::weights`].
    means: Vec<f64>,
    /// Mean of the first rows.
    baseline: f64,
    /// The newest values, the newest last.
    values: VecDeque<f64>,
}

impl Life {
    /// A life whose first row is still to come.
    pub fn new(specification: &Specification) -> Self {
        Self::since(specification, 0)
    }

    /// A life of which `rows` rows went by unseen, as of a machine that ran before it was connected. They count in the age alone.
    pub fn since(specification: &Specification, rows: u64) -> Self {
        let of_point = |point| History { means: vec![0.0; specification.kinds(point).weights().count()], baseline: 0.0, values: VecDeque::new() };
        Self { rows, complete: 0, points: specification.points.iter().map(of_point).collect() }
    }

    /// Whether this life was kept for points and features of the same number and kinds. One from a checkpoint may belong to another model.
    pub fn fits(&self, specification: &Specification) -> bool {
        let fits = |(history, point)| History::fits(history, specification.kinds(point));
        self.points.len() == specification.points.len() && self.points.iter().zip(&specification.points).all(fits)
    }

    /// Rows so far: the age.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the next row, values and settings in the order of `specification`, and gives its features in the order of [`Specification::names`].
    ///
    /// # Errors
    /// Where the row has none.
    ///
    /// # Panics
    /// Where `specification` is not the one this life began with, or the row has another number of values.
    pub fn push(&mut self, specification: &Specification, values: &[Option<f64>], settings: &[Option<f64>]) -> Result<Vec<f64>, NoFeatures> {
        assert_eq!((values.len(), settings.len()), (self.points.len(), specification.setting_names().count()), "the row fits the specification");
        self.rows += 1;
        let values = present(specification.points.iter().map(|point| point.name.as_str()), values);
        let settings = present(specification.setting_names(), settings);
        let (values, settings) = match (values, settings) {
            (Ok(values), Ok(settings)) => (values, settings),
            (values, settings) => return Err(NoFeatures::Missing([values.err(), settings.err()].into_iter().flatten().flatten().collect())),
        };
        let regime = match &specification.regimes {
            Some(regimes) => Some(regimes.nearest(&settings).ok_or(NoFeatures::UnknownRegime)?),
            None => None,
        };
        self.complete += 1;
        let baseline_rows = u64::from(specification.baseline_rows);
        let mut features = Vec::new();
        for (index, (history, point)) in self.points.iter_mut().zip(&specification.points).enumerate() {
            let value = regime.map_or(values[index], |regime| (values[index] - regime.mean[index]) / regime.deviation[index]);
            let kinds = specification.kinds(point);
            history.push(kinds, value, self.complete, baseline_rows);
            history.append_features(kinds, value, &mut features);
        }
        if specification.age {
            features.push((self.rows as f64).ln_1p());
        }
        Ok(features)
    }
}

impl History {
    fn fits(&self, kinds: &Kinds) -> bool {
        self.means.len() == kinds.weights().count()
    }

    /// Takes the value of the `row`th row that has features.
    fn push(&mut self, kinds: &Kinds, value: f64, row: u64, baseline_rows: u64) {
        let share = 1.0 / row as f64;
        for (mean, weight) in self.means.iter_mut().zip(kinds.weights()) {
            *mean += weight.max(share) * (value - *mean);
        }
        if row <= baseline_rows {
            self.baseline += share * (value - self.baseline);
        }
        self.values.push_back(value);
        if self.values.len() > kinds.window_rows() {
            self.values.pop_front();
        }
    }

    /// In the order of [`Specification::names`].
    fn append_features(&self, kinds: &Kinds, value: f64, features: &mut Vec<f64>) {
        let newest = |rows: u32| self.values.range(self.values.len().saturating_sub(rows as usize)..);
        features.extend(kinds.value.then_some(value));
        let (ewma, drift) = self.means.split_at(kinds.ewma.len());
        features.extend(ewma);
        features.extend(kinds.mean.iter().map(|&rows| mean(newest(rows))));
        features.extend(kinds.deviation.iter().map(|&rows| deviation(newest(rows))));
        features.extend(kinds.slope.iter().map(|&rows| slope(newest(rows))));
        features.extend(drift.iter().map(|mean| mean - self.baseline));
    }
}

/// Numbers without the option, or the names of those that are missing.
fn present<'a>(names: impl Iterator<Item = &'a str>, values: &[Option<f64>]) -> Result<Vec<f64>, Vec<String>> {
    let finite: Vec<f64> = values.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    if finite.len() == values.len() {
        return Ok(finite);
    }
    let is_missing = |value: &Option<f64>| value.is_none_or(|value| !value.is_finite());
    Err(names.zip(values).filter(|(_, value)| is_missing(value)).map(|(name, _)| name.to_owned()).collect())
}

impl specification::Regimes {
    /// The first of the nearest regimes; `None` where all are too far away.
    fn nearest(&self, settings: &[f64]) -> Option<&Centre> {
        let square = |((at, setting), of): ((&f64, &f64), &specification::Setting)| ((setting - at) / of.scale).powi(2);
        let distance = |centre: &Centre| centre.at.iter().zip(settings).zip(&self.settings).map(square).sum::<f64>().sqrt();
        let nearest = self.centres.iter().map(|centre| (distance(centre), centre)).min_by(|(a, _), (b, _)| a.total_cmp(b));
        nearest.filter(|(distance, _)| *distance <= self.distance_max).map(|(_, centre)| centre)
    }
}

fn mean<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn deviation<'a>(values: impl ExactSizeIterator<Item = &'a f64> + Clone) -> f64 {
    let (count, mean) = (values.len() as f64, mean(values.clone()));
    (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

fn slope<'a>(values: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let product: f64 = values.enumerate().map(|(row, value)| (row as f64 - middle) * value).sum();
    // Sum of the squared distances from the middle, in closed form.
    let square = count * (count * count - 1.0) / 12.0;
    if square > 0.0 { product / square } else { 0.0 }
}

#[cfg(test)]
mod tests;
