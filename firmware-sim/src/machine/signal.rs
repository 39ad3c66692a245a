//! Acceleration at a bearing housing, as the sum of what causes it.
use super::bearing::Impacts;
use super::cavitation::Cavitation;
use super::gear::Gear;
use super::looseness::Looseness;
use super::noise::Noise;

/// Standard gravity, m/s2.
const GRAVITY_M_S2: f64 = 9.806_65;

/// What a block of acceleration consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signal {
    /// Shaft frequency, Hz; 0 for a machine that stands still.
    pub shaft_hz: f64,
    /// Velocity RMS at one, two and three times the shaft frequency, mm/s.
    pub velocity_mm_s: [f64; 3],
    /// Orders of a part that is loose.
    pub looseness: Option<Looseness>,
    /// Lines that do not turn with the shaft, as those of mains: frequency in Hz, velocity RMS in mm/s.
    pub others: [(f64, f64); 2],
    /// Impacts of a damaged bearing.
    pub impacts: Option<Impacts>,
    /// A gear on the shaft.
    pub gear: Option<Gear>,
    /// Bubbles in the pump.
    pub cavitation: Option<Cavitation>,
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
        let orders = (1_u8..).zip(self.velocity_mm_s).map(|(order, velocity_mm_s)| (f64::from(order), velocity_mm_s));
        let loose = self.looseness.map(|looseness| looseness.orders(noise));
        let of_shaft = orders.chain(loose.into_iter().flatten()).map(|(order, velocity_mm_s)| (order * self.shaft_hz, velocity_mm_s));
        for (frequency_hz, velocity_mm_s) in of_shaft.chain(self.others.into_iter().filter(|(_, velocity_mm_s)| *velocity_mm_s > 0.0)) {
            // Domain reference section 7: sqrt2 v_rms 2 pi f / 9806.65, v in mm/s.
            let amplitude_g = core::f64::consts::SQRT_2 * velocity_mm_s * core::f64::consts::TAU * frequency_hz / (1_000.0 * GRAVITY_M_S2);
            add_sine(samples_g, amplitude_g, frequency_hz / rate_hz, noise.uniform());
        }
        if let Some(impacts) = self.impacts {
            impacts.add_to(samples_g, rate_hz, noise);
        }
        if let Some(gear) = self.gear {
            gear.add_to(samples_g, rate_hz, self.shaft_hz, noise);
        }
        if let Some(cavitation) = self.cavitation {
            cavitation.add_to(samples_g, rate_hz, self.shaft_hz, noise);
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
