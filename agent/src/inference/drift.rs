//! A point that moved one way all the time its machine was learned: what it was at the end is not what it was at the beginning, so there is no normal yet.
//!
//! The collected rows are cut into five equal parts in their order. A point drifts where the median of each part lies beyond that of the one before, always
//! on the same side, by a tenth of the whole way at least (a step of the load and one odd part have parts that do not move; a cycle turns back), and the
//! whole way is more than three times the spread within the parts: the median of their interquartile ranges, as a standard deviation, and at least a
//! hundredth of the value itself, so that what is small for the machine is none, however still the sensor. Medians, since some spikes are no drift.
use std::fmt;

use hark_protocol::topics::Name;
use serde::{Deserialize, Serialize};

use super::collected::Collected;

/// Parts of the rows.
const PARTS: usize = 5;
/// The whole way is more than so many spreads.
const SPREADS: f64 = 3.0;
/// Each step is at least this part of the way; even ones are a quarter.
const STEP_LEAST: f64 = 0.1;
/// The spread is at least this part of the value.
const SPREAD_LEAST: f64 = 0.01;
/// Interquartile range of a normal distribution, in standard deviations.
const QUARTILES_APART: f64 = 1.349;

/// How a point moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Drift {
    pub(super) point: Name,
    /// Median of the first part.
    pub(super) from: f64,
    /// Of the last one.
    pub(super) to: f64,
    /// Within the parts.
    pub(super) spread: f64,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, from, to, spread } = self;
        let word = if to > from { "rose" } else { "fell" };
        // As many digits as the spread has a meaning for.
        let digits = (1.0 - spread.log10().floor()).clamp(0.0, 9.0) as usize;
        write!(f, "`{point}` {word} all the time, from {from:.digits$} to {to:.digits$} with a spread of {spread:.digits$}")
    }
}

/// Those of the `points` that drifted in `rows`, the farthest in spreads first.
pub(super) fn among(points: &[Name], rows: &Collected) -> Vec<Drift> {
    let column = |point: usize| (0..rows.len()).map(|row| rows.value(row, point)).collect::<Vec<f64>>();
    let mut drifts: Vec<Drift> = points.iter().enumerate().filter_map(|(index, point)| of(point, column(index))).collect();
    let way = |drift: &Drift| (drift.to - drift.from).abs() / drift.spread;
    drifts.sort_by(|a, b| way(b).total_cmp(&way(a)));
    drifts
}

fn of(point: &Name, mut values: Vec<f64>) -> Option<Drift> {
    if values.len() < 4 * PARTS {
        return None;
    }
    let length = values.len() / PARTS;
    let quartiles: Vec<[f64; 3]> = values.chunks_exact_mut(length).take(PARTS).map(quartiles).collect();
    let spreads = quartiles.iter().map(|[low, _, high]| (high - low) / QUARTILES_APART).collect();
    let medians: Vec<f64> = quartiles.iter().map(|[_, median, _]| *median).collect();
    let spread = middle(spreads).max(SPREAD_LEAST * middle(medians.clone()).abs());
    let (from, to) = (medians[0], medians[PARTS - 1]);
    let way = to - from;
    let goes_on = medians.windows(2).all(|pair| (pair[1] - pair[0]) / way >= STEP_LEAST);
    (way.abs() > SPREADS * spread && goes_on).then(|| Drift { point: point.clone(), from, to, spread })
}

/// Of values that are not few.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[quarter * values.len() / 4])
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::{super::baseline::tests::Noise, *};

    /// The drift of a point whose value goes as `way` says of time from 0 to 1, with noise of so much.
    fn drift(rows: usize, noise: f64, way: impl Fn(f64) -> f64) -> Option<Drift> {
        let (mut collected, mut random) = (Collected::new(2), Noise(5));
        for row in 0..rows {
            collected.push_fresh(&[random.next(), way(row as f64 / rows as f64) + noise * random.next()], row > 0);
        }
        let mut drifts = among(&["still".into(), "temp".into()], &collected);
        assert!(drifts.iter().all(|drift| &*drift.point == "temp"), "{drifts:?}");
        drifts.pop()
    }

    #[test]
    fn a_machine_that_gets_hot_while_it_is_learned_drifts() {
        let found = drift(600, 0.5, |time| 40.0 + 30.0 * time).unwrap();
        assert!((found.from - 43.0).abs() < 1.0 && (found.to - 67.0).abs() < 1.0 && found.spread < 3.0, "{found:?}");
        let told = Drift { point: "temp".into(), from: 43.012, to: 66.99, spread: 1.84 }.to_string();
        assert_eq!(told, "`temp` rose all the time, from 43.0 to 67.0 with a spread of 1.8");
        assert!(drift(130, 0.5, |time| 4.0 - 8.0 * time).unwrap().to_string().contains("fell all the time"));
        assert!(drift(600, 0.5, |time| 70.0 - 30.0 * (-2.0 * time).exp()).is_some(), "it slows down");
    }

    #[test]
    fn what_comes_and_goes_steps_or_is_small_is_no_drift() {
        for rows in [130, 400, 4_000] {
            #[track_caller]
            fn check(what: &str, found: Option<Drift>) {
                assert_eq!(found, None, "{what}");
            }
            check("still", drift(rows, 1.0, |_| 40.0));
            check("no movement at all", drift(rows, 0.0, |_| 40.0));
            check("wear-in of 2 % with noise of 3 %", drift(rows, 3.0, |time| 100.0 + 2.0 * time));
            check("wear-in of 2 % without noise", drift(rows, 0.0, |time| 100.0 + 2.0 * time));
            for part in 0..10 {
                let at = f64::from(part) / 10.0;
                check("a day", drift(rows, 1.0, |time| 40.0 + 20.0 * (std::f64::consts::TAU * (time + at)).sin()));
                check("a step", drift(rows, 1.0, |time| if time < at + 0.05 { 40.0 } else { 60.0 }));
                check("an odd part", drift(rows, 1.0, |time| if (at..at + 0.2).contains(&time) { 60.0 } else { 40.0 }));
            }
            check("some spikes", drift(rows, 1.0, |time| if (time * 1e4) as u32 % 97 < 3 { 1e6 * time } else { 40.0 }));
        }
        assert_eq!(drift(0, 1.0, |time| time), None);
    }
}
