//! Rolling bearings: geometry, and the impacts of a damaged race (domain reference section 7).
use super::noise::Noise;
use crate::firmware::BearingOrders;

/// Resonance of bearing and housing that an impact rings, Hz, where nothing else is said.
const RESONANCE_HZ: f64 = 3_200.0;
/// Its damping ratio.
const DAMPING: f64 = 0.05;
/// An impact has faded to a millionth after so many seconds.
const RING_S: f64 = 0.014;

/// Geometry of a rolling bearing with its outer ring fixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bearing {
    /// Number of rolling elements.
    pub elements: u8,
    /// Diameter of an element, mm.
    pub element_mm: f64,
    /// Pitch diameter, mm.
    pub pitch_mm: f64,
    /// Contact angle, degrees.
    pub contact_deg: f64,
}

/// Deep groove ball bearing 6205.
pub const BEARING_6205: Bearing = Bearing { elements: 9, element_mm: 7.940, pitch_mm: 39.04, contact_deg: 0.0 };

impl Bearing {
    /// Defect frequencies as multiples of shaft speed.
    pub fn orders(&self) -> BearingOrders {
        let n = f64::from(self.elements);
        let r = self.element_mm / self.pitch_mm * libm::cos(self.contact_deg.to_radians());
        BearingOrders {
            bpfo: (n / 2.0 * (1.0 - r)) as f32,
            bpfi: (n / 2.0 * (1.0 + r)) as f32,
            bsf: (self.pitch_mm / (2.0 * self.element_mm) * (1.0 - r * r)) as f32,
            ftf: ((1.0 - r) / 2.0) as f32,
        }
    }
}

/// Impacts that repeat with slip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impacts {
    /// Amplitude of the ringing, g.
    pub amplitude_g: f64,
    /// How often, Hz.
    pub frequency_hz: f64,
    /// Standard deviation of an interval as a share of it; it accumulates.
    pub slip: f64,
    /// What rings, Hz.
    pub resonance_hz: f64,
    /// How often the fault passes the load zone, Hz, and how much weaker an impact is outside of it, 0 to 1.
    pub load: (f64, f64),
}

impl Impacts {
    /// Of a fault that stays in the load zone, as one of an outer ring does.
    pub fn at(frequency_hz: f64, amplitude_g: f64, slip: f64) -> Self {
        Self { amplitude_g, frequency_hz, slip, resonance_hz: RESONANCE_HZ, load: (0.0, 0.0) }
    }

    /// Adds x(t) = sum of A h(t - T_i), h(t) = exp(-z w t) sin(w sqrt(1 - z^2) t), to a block (D'Elia and Cocconcelli).
    pub fn add_to(&self, samples_g: &mut [f64], rate_hz: f64, noise: &mut Noise) {
        if self.amplitude_g <= 0.0 || self.frequency_hz <= 0.0 {
            return;
        }
        let end_s = samples_g.len() as f64 / rate_hz;
        // Impacts before the block still ring in it, and the first one comes at any time.
        let mut at_s = -RING_S - noise.uniform() / self.frequency_hz;
        let (rate_of_load_hz, depth) = self.load;
        let phase = if depth > 0.0 { noise.uniform() } else { 0.0 };
        while at_s < end_s {
            let outside = 0.5 - 0.5 * libm::cos(core::f64::consts::TAU * (rate_of_load_hz * at_s + phase));
            self.ring(samples_g, rate_hz, at_s, self.amplitude_g * (1.0 - depth * outside));
            at_s += (1.0 + self.slip * noise.gauss()).max(0.1) / self.frequency_hz;
        }
    }

    /// One impact; the oscillation is carried on by rotation instead of a sine per sample.
    pub(super) fn ring(&self, samples_g: &mut [f64], rate_hz: f64, at_s: f64, amplitude_g: f64) {
        let omega = core::f64::consts::TAU * self.resonance_hz;
        let (decay, turn) = (DAMPING * omega, omega * libm::sqrt(1.0 - DAMPING * DAMPING));
        let first = libm::ceil(at_s.max(0.0) * rate_hz);
        let since_s = first / rate_hz - at_s;
        let (mut sin, mut cos) = libm::sincos(turn * since_s);
        let mut amplitude = amplitude_g * libm::exp(-decay * since_s);
        let (step_sin, step_cos) = libm::sincos(turn / rate_hz);
        let fade = libm::exp(-decay / rate_hz);
        for sample in samples_g.iter_mut().skip(first as usize).take((RING_S * rate_hz) as usize) {
            *sample += amplitude * sin;
            (sin, cos) = (sin * step_cos + cos * step_sin, cos * step_cos - sin * step_sin);
            amplitude *= fade;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_a_6205_are_those_of_the_tables() {
        let orders = BEARING_6205.orders();
        for (order, expected) in [(orders.bpfo, 3.5848), (orders.bpfi, 5.4152), (orders.ftf, 0.3983), (orders.bsf, 2.3567)] {
            assert!((order - expected).abs() < 1e-3, "{order} {expected}");
        }
        assert!((orders.bpfo + orders.bpfi - 9.0).abs() < 1e-5);
    }
}
