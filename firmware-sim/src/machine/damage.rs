//! The hidden damage of a machine, 0 (as new) to 1 (failed), and the laws by which it grows.
//!
//! Failure is defined by this state and by nothing that is measured: a forecast can be compared with it.
//!
//! Nominal life is what a machine lasts that runs all the time at nominal load (1.0). It wears only while it turns, so stops lengthen its life
//! under every law; load does so under [`Law::LoadDependent`] alone, where 80 % load makes it almost twice as long.
use super::noise::Noise;

/// How damage follows the used-up share of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Slow, then ever faster: fatigue.
    Exponential,
    /// Even: wear.
    Linear,
    /// Slow to 70 % of life, then fast.
    TwoSlope,
    /// Almost nothing, then a jump at 60 % of life: a crack, a lost balance weight.
    Step,
    /// Rises, stands still for long, rises again.
    Plateau,
    /// Exponential, but seems to recover shortly before the end: the edges of a spall wear smooth.
    DipBeforeFailure,
    /// Even on average, with a pace that wanders.
    RandomSlope,
    /// Pace by the cube of load, as in the bearing life equation (ISO 281).
    LoadDependent,
}

impl Law {
    /// All laws, for tests and help.
    pub const ALL: [Self; 8] =
        [Self::Exponential, Self::Linear, Self::TwoSlope, Self::Step, Self::Plateau, Self::DipBeforeFailure, Self::RandomSlope, Self::LoadDependent];

    /// Seconds of nominal life used per second of turning at a load of 0 to 1 (1 is nominal); the mean where it is random.
    pub fn pace(self, load: f64) -> f64 {
        match self {
            Self::LoadDependent => load * load * load,
            _ => 1.0,
        }
    }

    /// Damage after the share `used` of life, both 0 to 1.
    fn damage(self, used: f64) -> f64 {
        match self {
            Self::Exponential => exponential(used),
            Self::Linear | Self::RandomSlope | Self::LoadDependent => used,
            Self::TwoSlope => through(used, &[(0.0, 0.0), (0.7, 0.2), (1.0, 1.0)]),
            Self::Step => through(used, &[(0.0, 0.0), (0.6, 0.04), (0.605, 0.5), (1.0, 1.0)]),
            Self::Plateau => through(used, &[(0.0, 0.0), (0.3, 0.4), (0.8, 0.42), (1.0, 1.0)]),
            Self::DipBeforeFailure => through(used, &[(0.0, 0.0), (0.4, 0.15), (0.75, 0.6), (0.9, 0.35), (1.0, 1.0)]),
        }
    }
}

/// (e^(5u) - 1) / (e^5 - 1): an eighth of the damage at 60 % of life.
fn exponential(used: f64) -> f64 {
    libm::expm1(5.0 * used) / libm::expm1(5.0)
}

/// Straight lines through points in ascending order.
fn through(x: f64, points: &[(f64, f64)]) -> f64 {
    let after = points.iter().position(|point| point.0 >= x).unwrap_or(points.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (points[after - 1], points[after]);
    y0 + (y1 - y0) * (x - x0) / (x1 - x0)
}

/// Damage of one machine over its life.
#[derive(Clone, Debug)]
pub struct Damage {
    law: Law,
    life_s: f64,
    used: f64,
    pace: f64,
}

impl Damage {
    /// A machine as new with a nominal life of `life_s` seconds.
    pub fn new(law: Law, life_s: f64) -> Self {
        Self { law, life_s, used: 0.0, pace: 1.0 }
    }

    /// The machine turned for `dt_s` seconds at a load of 0 to 1 (1 is nominal).
    pub fn advance(&mut self, dt_s: f64, load: f64, noise: &mut Noise) {
        let pace = match self.law {
            Law::RandomSlope => {
                // The pace returns to 1. Bounds equally far from it keep that the mean.
                self.pace = (self.pace + 0.1 * (1.0 - self.pace) + 0.25 * noise.gauss()).clamp(0.2, 1.8);
                self.pace
            }
            law => law.pace(load),
        };
        self.used = (self.used + pace * dt_s / self.life_s).min(1.0);
    }

    /// Seconds of nominal life that are left; 0 once it has failed, and only then.
    pub fn life_left_s(&self) -> f64 {
        (1.0 - self.used) * self.life_s
    }

    /// 0 as new, 1 failed.
    pub fn level(&self) -> f64 {
        self.law.damage(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_law_leads_from_new_to_failed() {
        for law in Law::ALL {
            assert!(law.damage(0.0).abs() < 1e-12, "{law:?}");
            assert!((law.damage(1.0) - 1.0).abs() < 1e-12, "{law:?}");
            let levels: Vec<f64> = (0..=1_000).map(|step| law.damage(f64::from(step) / 1_000.0)).collect();
            assert!(levels.iter().all(|level| (0.0..=1.0).contains(level)), "{law:?}");
            let falls = levels.windows(2).any(|pair| pair[1] < pair[0]);
            assert_eq!(falls, law == Law::DipBeforeFailure, "{law:?}");
        }
    }

    #[test]
    fn half_load_makes_life_eight_times_as_long() {
        let mut noise = Noise::new(1, 0);
        let mut damage = Damage::new(Law::LoadDependent, 100.0);
        damage.advance(100.0, 0.5, &mut noise);
        assert!((damage.level() - 0.125).abs() < 1e-12);
    }

    #[test]
    fn a_random_pace_still_fails() {
        let mut noise = Noise::new(3, 0);
        let mut damage = Damage::new(Law::RandomSlope, 1_000.0);
        let steps = (0..4_000).position(|_| {
            damage.advance(1.0, 1.0, &mut noise);
            damage.level() >= 1.0
        });
        assert!(steps.is_some_and(|steps| (400..3_000).contains(&steps)), "{steps:?}");
    }
}
