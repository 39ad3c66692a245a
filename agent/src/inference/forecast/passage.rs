//! When a Wiener process with drift first reaches a level: the inverse Gaussian distribution (Cox and Miller, The Theory of Stochastic Processes, 1965, 5.7),
//! and mixtures of it for a start, a drift and a model that are not known for certain.
use std::f64::consts::SQRT_2;

/// What is sooner is now.
const SOONEST: f64 = 1e-3;

/// A way to the level that may be the one: so far away, at such a pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Way {
    /// How much it counts.
    pub(super) weight: f64,
    /// To the level, in the units of the process; 0 and below: it is there.
    pub(super) distance: f64,
    /// Towards it, units per unit of time.
    pub(super) drift: f64,
    /// Variance that a unit of time adds.
    pub(super) diffusion: f64,
}

impl Way {
    /// The probability that the level is reached within `time`, 0 to 1. Away from the level it may never be.
    fn within(self, time: f64) -> f64 {
        let Self { distance, drift, diffusion, .. } = self;
        if distance <= 0.0 {
            return 1.0;
        }
        if time <= 0.0 {
            return 0.0;
        }
        let spread = (diffusion * time).sqrt();
        if spread <= 0.0 {
            return f64::from(drift * time >= distance);
        }
        let ahead = normal((drift * time - distance) / spread);
        // The factor overflows where the other one underflows.
        let back = 2.0 * drift * distance / diffusion + log_normal((-distance - drift * time) / spread);
        (ahead + libm::exp(back.min(0.0))).min(1.0)
    }
}

/// When a level is reached, by all the ways that there may be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Passage(pub(super) Vec<Way>);

impl Passage {
    /// The probability that the level is reached within `time`, 0 to 1.
    pub(super) fn within(&self, time: f64) -> f64 {
        let whole: f64 = self.0.iter().map(|way| way.weight).sum();
        if whole > 0.0 { self.0.iter().map(|way| way.weight * way.within(time)).sum::<f64>() / whole } else { 0.0 }
    }

    /// The time within which it is reached with `probability`, to a thousandth; `None` where that is beyond `most`.
    pub(super) fn quantile(&self, probability: f64, most: f64) -> Option<f64> {
        if self.within(most) < probability {
            return None;
        }
        if self.within(SOONEST) >= probability {
            return Some(0.0);
        }
        // Times of all sizes come up: the interval is halved on a logarithmic scale.
        let (mut early, mut late) = (SOONEST, most);
        while late > early * 1.001 {
            let middle = (early * late).sqrt();
            if self.within(middle) < probability { early = middle } else { late = middle }
        }
        Some(late)
    }
}

/// The standard normal distribution.
fn normal(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// Its logarithm, also where it is too small for a number.
fn log_normal(x: f64) -> f64 {
    if x > -30.0 {
        return libm::log(normal(x));
    }
    // The first terms of its asymptotic series.
    -0.5 * x * x - 0.5 * libm::log(std::f64::consts::TAU) - libm::log(-x) - 1.0 / (x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(distance: f64, drift: f64, diffusion: f64) -> Passage {
        Passage(vec![Way { weight: 1.0, distance, drift, diffusion }])
    }

    /// Steps of a simulated process against the formula.
    #[test]
    fn is_the_share_of_simulated_processes_that_are_there() {
        let mut noise = crate::inference::baseline::tests::Noise(3);
        let (distance, drift, diffusion, step) = (10.0, 0.5, 1.0, 0.02);
        let arrivals: Vec<f64> = (0..2_000)
            .map(|_| {
                let (mut x, mut time) = (0.0, 0.0);
                while x < distance && time < 60.0 {
                    x += drift * step + f64::sqrt(diffusion * step) * noise.next();
                    time += step;
                }
                time
            })
            .collect();
        let passage = one(distance, drift, diffusion);
        for time in [10.0, 15.0, 20.0, 30.0, 50.0] {
            let share = arrivals.iter().filter(|arrival| **arrival <= time).count() as f64 / 2_000.0;
            assert!((passage.within(time) - share).abs() < 0.03, "{time}: {} {share}", passage.within(time));
        }
    }

    #[test]
    fn quantiles_are_those_of_the_distribution() {
        let passage = Passage(vec![
            Way { weight: 1.0, distance: 10.0, drift: 0.5, diffusion: 1.0 },
            Way { weight: 3.0, distance: 20.0, drift: 0.2, diffusion: 0.1 },
        ]);
        for probability in [0.05, 0.1, 0.5, 0.9, 0.95] {
            let time = passage.quantile(probability, 1e6).unwrap();
            assert!((passage.within(time) - probability).abs() < 1e-3, "{probability}: {time}");
        }
        assert_eq!(passage.quantile(0.5, 20.0), None);
    }

    #[test]
    fn what_goes_away_from_the_level_may_never_reach_it() {
        // exp(2 * drift * distance / diffusion) of them do.
        assert!((one(2.0, -0.5, 1.0).within(1e9) - f64::exp(-2.0)).abs() < 1e-9);
        assert_eq!(one(2.0, -0.5, 1.0).quantile(0.5, 1e9), None);
    }

    #[test]
    fn the_ends_are_what_they_must_be() {
        assert_eq!((one(0.0, 0.0, 1.0).within(0.0), one(-1.0, -5.0, 1.0).within(1.0)), (1.0, 1.0));
        assert_eq!((one(1.0, 1.0, 1.0).within(0.0), one(1.0, 1.0, 0.0).within(0.9), one(1.0, 1.0, 0.0).within(1.0)), (0.0, 0.0, 1.0));
        assert_eq!(one(0.0, 1.0, 1.0).quantile(0.5, 100.0), Some(0.0));
        // Far from any number that the factors have.
        let certain = one(1e4, 10.0, 0.1);
        assert!(certain.within(990.0) < 1e-6 && certain.within(1010.0) > 1.0 - 1e-6);
        assert_eq!(Passage::default().within(1.0), 0.0);
    }
}
