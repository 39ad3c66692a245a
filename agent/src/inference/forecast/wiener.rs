//! A Wiener process with drift, seen through noise once a window: a Kalman filter of its level and its drift (Harvey, Forecasting, Structural Time Series
//! Models and the Kalman Filter, 1989, 4.3 and 3.4.2).
//!
//! All variances are in units of that of the noise, which the filter learns from its own errors: so much noise, so much trust.
use serde::{Deserialize, Serialize};

/// How a process moves, in units of the variance of the noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Motion {
    /// Variance that a unit of time adds to the level.
    pub(super) diffusion: f64,
    /// Variance that a unit of time adds to the drift, per unit of time squared.
    pub(super) wander: f64,
}

/// What is known of the process after the windows so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Wiener {
    pub(super) level: f64,
    /// Per unit of time.
    pub(super) drift: f64,
    /// Covariance of level and drift, over the variance of the noise.
    pub(super) of_level: f64,
    pub(super) of_both: f64,
    pub(super) of_drift: f64,
    /// Sum of squared errors, each over its expected size, and how many: the noise's variance is their quotient.
    errors: f64,
    count: f64,
}

/// So many errors tell the noise at most: what was long ago is forgotten.
const COUNT_MAX: f64 = 60.0;
/// The variance that is assumed before any error was seen counts as much as so many.
const COUNT_FIRST: f64 = 2.0;

impl Wiener {
    /// At the first value; noise around it is `noise`, one standard deviation, as long as nothing else is known. A drift is as likely as not.
    pub(super) fn new(value: f64, noise: f64) -> Self {
        Self { level: value, drift: 0.0, of_level: 1.0, of_both: 0.0, of_drift: 0.01, errors: COUNT_FIRST * noise * noise, count: COUNT_FIRST }
    }

    /// Takes the value a unit of time after the one before; gives the logarithm of the density that it had before.
    pub(super) fn take(&mut self, value: f64, motion: Motion) -> f64 {
        let Motion { diffusion, wander } = motion;
        let level = self.level + self.drift;
        let of_level = self.of_level + 2.0 * self.of_both + self.of_drift + diffusion + wander / 3.0;
        let of_both = self.of_both + self.of_drift + wander / 2.0;
        let of_drift = self.of_drift + wander;
        let (error, expected) = (value - level, of_level + 1.0);
        let noise = self.noise_variance();
        let density = student(error * error / (noise * expected), self.count) - 0.5 * libm::log(noise * expected);

        let (gain, gain_drift) = (of_level / expected, of_both / expected);
        (self.level, self.drift) = (level + gain * error, self.drift + gain_drift * error);
        (self.of_level, self.of_both, self.of_drift) = (of_level * (1.0 - gain), of_both * (1.0 - gain), of_drift - gain_drift * of_both);
        let kept = (COUNT_MAX / (self.count + 1.0)).min(1.0);
        // A single wild value does not make all of it noise.
        let square = (error * error / expected).min(25.0 * noise);
        (self.errors, self.count) = ((self.errors + square) * kept, (self.count + 1.0) * kept);
        density
    }

    /// Variance of the noise.
    pub(super) fn noise_variance(&self) -> f64 {
        self.errors / self.count
    }
}

/// The logarithm of Student's density with so many degrees of freedom, but for what is the same for all values.
fn student(square: f64, freedom: f64) -> f64 {
    -0.5 * (freedom + 1.0) * libm::log1p(square / freedom)
}
