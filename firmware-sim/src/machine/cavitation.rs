//! Cavitation: bubbles that collapse at the impeller, as broadband noise and bursts that come at random, more of both whenever a vane passes the cutwater
//! (domain reference section 7).
use super::{bearing::Impacts, noise::Noise};

/// Below it collapses make little noise, Hz.
const LOW_HZ: f64 = 2_000.0;
/// What bursts ring, Hz.
const RINGS_HZ: (f64, f64) = (3_000.0, 10_000.0);

/// Noise of collapsing bubbles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cavitation {
    /// Vanes of the impeller on the shaft.
    pub vanes: u8,
    /// Standard deviation of the noise, g.
    pub noise_g: f64,
    /// How far it swells as a vane passes, 0 to 1.
    pub swell: f64,
    /// Bursts per second.
    pub bursts_hz: f64,
    /// Their amplitude in the mean, g; each is another one.
    pub burst_g: f64,
}

impl Cavitation {
    /// Adds a block of it.
    pub fn add_to(&self, samples_g: &mut [f64], rate_hz: f64, shaft_hz: f64, noise: &mut Noise) {
        let begin = noise.uniform();
        let swell = |at_s: f64| 1.0 + self.swell * libm::cos(core::f64::consts::TAU * (begin + f64::from(self.vanes) * shaft_hz * at_s));
        // A high pass of first order, of which white noise keeps this part of its power.
        let keep = libm::exp(-core::f64::consts::TAU * LOW_HZ / rate_hz);
        let gain = self.noise_g / libm::sqrt((1.0 + keep) / 2.0);
        let (mut before, mut passed) = (0.0, 0.0);
        for (index, sample) in samples_g.iter_mut().enumerate() {
            let white = noise.gauss();
            passed = keep * passed + (1.0 + keep) / 2.0 * (white - before);
            before = white;
            *sample += gain * swell(index as f64 / rate_hz) * passed;
        }
        let end_s = samples_g.len() as f64 / rate_hz;
        let bursts = (self.bursts_hz * end_s * (1.0 + self.swell)) as usize;
        for _ in 0..bursts {
            let (at_s, resonance_hz) = (end_s * noise.uniform(), RINGS_HZ.0 + (RINGS_HZ.1 - RINGS_HZ.0) * noise.uniform());
            let amplitude_g = -self.burst_g * libm::log(1.0 - noise.uniform());
            // As many of them stay as the swell lets.
            if noise.chance(swell(at_s) / (1.0 + self.swell)) {
                Impacts { resonance_hz, ..Impacts::at(0.0, amplitude_g, 0.0) }.ring(samples_g, rate_hz, at_s, amplitude_g);
            }
        }
    }
}
