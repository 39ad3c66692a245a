//! Acceleration at a bearing housing, as the sum of what causes it.
use super::bearing::Impacts;
use super::noise::Noise;

/// Standard gravity, m/s2.
const GRAVITY_M_S2: f64 = 9.806_65;

/// What a block of acceleration consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Shaft frequency, Hz; 0 for a machine that stands still.
    pub shaft_hz: f64,
    /// Velocity RMS at one, two and three times the shaft frequency, mm/s.
    pub velocity_mm_s: [f64; 3],
    /// Impacts of a damaged bearing.
    pub impacts: Option<Impacts>,
    /// White noise, standard deviation in g.
    pub noise_g: f64,
    /// Constant part along the axis, g.
    pub gravity_g: f64,
}

impl Signal {
    /// Writes a block, in g. The shaft stands at any angle when it begins.
    pub fn write(&self, samples_g: &mut [f64], rate_hz: f64, noise: &mut Noise) {
        for sample in samples_g.iter_mut() {
            *sample = self.gravity_g + self.noise_g * noise.gauss();
        }
        for (order, velocity_mm_s) in (1_u8..).zip(self.velocity_mm_s) {
            let frequency_hz = f64::from(order) * self.shaft_hz;
            // Domain reference section 7: sqrt2 v_rms 2 pi f / 9806.65, v in mm/s.
            let amplitude_g = core::f64::consts::SQRT_2 * velocity_mm_s * core::f64::consts::TAU * frequency_hz / (1_000.0 * GRAVITY_M_S2);
            add_sine(samples_g, amplitude_g, frequency_hz / rate_hz, noise.uniform());
        }
        if let Some(impacts) = self.impacts {
            impacts.add_to(samples_g, rate_hz, noise);
        }
    }
}

/// A sine by rotation; over a block of 32 768 samples the rounding stays far below one raw unit.
fn add_sine(samples: &mut [f64], amplitude: f64, turns_per_sample: f64, phase_turns: f64) {
    if amplitude == 0.0 {
        return;
    }
    let (mut sin, mut cos) = libm::sincos(core::f64::consts::TAU * phase_turns);
    let (step_sin, step_cos) = libm::sincos(core::f64::consts::TAU * turns_per_sample);
    for sample in samples {
        *sample += amplitude * sin;
        (sin, cos) = (sin * step_cos + cos * step_sin, cos * step_cos - sin * step_sin);
    }
}
