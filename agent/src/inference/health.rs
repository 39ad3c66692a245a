//! Health, 0 to 100: how far the machine is from its commissioned state.
use serde::{Deserialize, Serialize};

/// Weight of a row that is worse than health says: half of the way in some 14 rows.
const DOWN: f64 = 0.05;
/// Weight of a row that is better: a machine that seems to recover has to go on doing so, half of the way in some 140 rows.
const UP: f64 = 0.005;

/// Health over rows: it falls slowly and rises more slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Health {
    value: Option<f64>,
}

impl Health {
    /// Takes what a row says, 0 to 100, as [`from_score`] has it. Where it is `doubted`, which some of the sensors alone are, it can show that a machine is
    /// ill, and not that it is well.
    pub(super) fn follow(&mut self, of_row: f64, doubted: bool) {
        self.value = match self.value {
            None => (!doubted).then_some(of_row),
            Some(health) if of_row < health => Some(health + DOWN * (of_row - health)),
            Some(health) => Some(if doubted { health } else { health + UP * (of_row - health) }),
        };
    }

    /// `None` before a row said something.
    pub(super) fn value(self) -> Option<f64> {
        self.value
    }
}

/// Health by the anomaly scale: 100 at the median score of commissioning rows that the fit had not seen, 50 at the limit, linear, within 0 and 100.
pub(super) fn from_score(score: f64, median: f64, limit: f64) -> f64 {
    let span = limit - median;
    // The limit is at least 1.15 times the median and above 0, so the span is positive wherever a baseline was accepted.
    (100.0 - 50.0 * (score - median) / span).clamp(0.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_linear_between_median_and_limit_and_stays_in_range() {
        for (score, health) in [(1.0, 100.0), (0.5, 100.0), (2.0, 75.0), (3.0, 50.0), (5.0, 0.0), (50.0, 0.0)] {
            assert!((from_score(score, 1.0, 3.0) - health).abs() < 1e-12, "score {score}");
        }
    }

    /// Health after so many rows of the same.
    fn after(mut health: Health, rows: usize, of_row: f64, doubted: bool) -> Health {
        (0..rows).for_each(|_| health.follow(of_row, doubted));
        health
    }

    #[test]
    fn it_begins_at_the_first_row_falls_slowly_and_rises_more_slowly() {
        let well = after(Health::default(), 1, 90.0, false);
        assert_eq!(well.value(), Some(90.0));
        let ill = after(well, 14, 30.0, false);
        assert!((ill.value().unwrap() - 60.0).abs() < 1.0, "{ill:?}");
        let recovering = after(ill, 14, 90.0, false);
        assert!((recovering.value().unwrap() - 62.0).abs() < 1.0, "{recovering:?}");
        assert!((after(ill, 139, 90.0, false).value().unwrap() - 75.0).abs() < 1.0);
    }

    /// Of two machines the one with the worse rows never is the healthier one.
    #[test]
    fn it_is_monotone_in_evidence() {
        let mut noise = crate::inference::baseline::tests::Noise(5);
        let (mut better, mut worse) = (Health::default(), Health::default());
        for _ in 0..2_000 {
            let of_row = 100.0 * noise.uniform();
            better.follow(of_row, false);
            worse.follow((of_row - 20.0 * noise.uniform()).max(0.0), false);
            assert!(worse.value() <= better.value());
        }
    }

    #[test]
    fn what_is_doubted_makes_nobody_well() {
        assert_eq!(after(Health::default(), 5, 100.0, true).value(), None);
        let ill = after(Health::default(), 1, 40.0, false);
        assert_eq!(after(ill, 100, 100.0, true), ill);
        assert!(after(ill, 100, 10.0, true).value().unwrap() < 11.0);
    }
}
