//! What wanders about zero without end: turbulence, weather, the opening of a valve.
use hark_firmware_sim::machine::Noise;

/// Noise with a memory (Ornstein and Uhlenbeck), in steps of a second, or of whatever the memory is counted in.
#[derive(Clone, Debug)]
pub struct Wander {
    value: f64,
    keeps: f64,
    shakes: f64,
}

impl Wander {
    /// With this standard deviation, in the unit of what wanders, and this time constant, steps.
    pub fn new(deviation: f64, memory: f64) -> Self {
        let keeps = (-1.0 / memory).exp();
        Self { value: 0.0, keeps, shakes: deviation * (1.0 - keeps * keeps).sqrt() }
    }

    /// The value one step later.
    pub fn step(&mut self, noise: &mut Noise) -> f64 {
        self.value = self.keeps * self.value + self.shakes * noise.gauss();
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_its_deviation() {
        let (mut wander, mut noise) = (Wander::new(2.0, 10.0), Noise::new(1, 0));
        let squares: f64 = (0..100_000).map(|_| wander.step(&mut noise).powi(2)).sum();
        let deviation = (squares / 100_000.0).sqrt();
        assert!((deviation - 2.0).abs() < 0.1, "{deviation}");
    }
}
