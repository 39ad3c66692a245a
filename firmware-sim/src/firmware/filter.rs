//! Butterworth filters as biquads, and decimation behind one.
//!
//! Coefficients come from the bilinear transform with prewarping (Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.2); they are
//! computed with `libm`, so that they have the same bits on the microcontroller and in the simulator.
use core::f64::consts::PI;

/// A second-order section in transposed direct form II.
#[derive(Clone, Copy, Debug)]
pub struct Biquad {
    b: [f32; 3],
    a: [f32; 2],
    state: [f32; 2],
}

/// Which side of the corner passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Below the corner.
    Low,
    /// Above it.
    High,
}

impl Biquad {
    /// Section with corner `corner_hz` and quality `q` at `rate_hz` samples per second.
    fn new(pass: Pass, corner_hz: f64, q: f64, rate_hz: f64) -> Self {
        let k = libm::tan(PI * corner_hz / rate_hz);
        let norm = 1.0 / (1.0 + k / q + k * k);
        let b0 = match pass {
            Pass::Low => k * k * norm,
            Pass::High => norm,
        };
        let b1 = match pass {
            Pass::Low => 2.0 * b0,
            Pass::High => -2.0 * b0,
        };
        let a = [2.0 * (k * k - 1.0) * norm, (1.0 - k / q + k * k) * norm];
        Self { b: [b0 as f32, b1 as f32, b0 as f32], a: a.map(|a| a as f32), state: [0.0; 2] }
    }

    fn step(&mut self, x: f32) -> f32 {
        let y = self.b[0] * x + self.state[0];
        self.state[0] = self.b[1] * x - self.a[0] * y + self.state[1];
        self.state[1] = self.b[2] * x - self.a[1] * y;
        y
    }
}

/// A Butterworth filter of order `2 * SECTIONS`.
#[derive(Clone, Copy, Debug)]
pub struct Butterworth<const SECTIONS: usize> {
    sections: [Biquad; SECTIONS],
}

impl<const SECTIONS: usize> Butterworth<SECTIONS> {
    /// Filter with its -3 dB corner at `corner_hz`, below half of `rate_hz`.
    pub fn new(pass: Pass, corner_hz: f64, rate_hz: f64) -> Self {
        let order = (2 * SECTIONS) as f64;
        let section = |index: usize| {
            // Poles lie at equal angles on the unit circle; each conjugate pair gives one section.
            let angle = PI * (2 * index + 1) as f64 / (2.0 * order);
            Biquad::new(pass, corner_hz, 1.0 / (2.0 * libm::sin(angle)), rate_hz)
        };
        Self { sections: core::array::from_fn(section) }
    }

    /// The next sample.
    pub fn step(&mut self, x: f32) -> f32 {
        self.sections.iter_mut().fold(x, |x, section| section.step(x))
    }
}

/// Anti-alias filter of order eight, then every `factor`-th sample.
#[derive(Clone, Copy, Debug)]
pub struct Decimator {
    filter: Butterworth<4>,
    factor: u32,
    phase: u32,
}

impl Decimator {
    /// Reduces `rate_hz` by `factor`; what is at or above `corner_hz` fades.
    pub fn new(factor: u32, corner_hz: f64, rate_hz: f64) -> Self {
        Self { filter: Butterworth::new(Pass::Low, corner_hz, rate_hz), factor, phase: 0 }
    }

    /// The next sample at the full rate; gives one at the reduced rate every `factor` calls.
    pub fn step(&mut self, x: f32) -> Option<f32> {
        let y = self.filter.step(x);
        self.phase = (self.phase + 1) % self.factor;
        (self.phase == 0).then_some(y)
    }
}

/// Takes the slowly changing mean (gravity, sensor offset) away: one pole at half a hertz, settled on the first sample.
#[derive(Clone, Copy, Debug)]
pub struct DcRemoval {
    mean: Option<f32>,
    weight: f32,
}

impl DcRemoval {
    /// For `rate_hz` samples per second.
    pub fn new(rate_hz: f64) -> Self {
        Self { mean: None, weight: (2.0 * PI * 0.5 / rate_hz) as f32 }
    }

    /// The sample without its mean.
    pub fn step(&mut self, x: f32) -> f32 {
        let mean = self.mean.get_or_insert(x);
        let y = x - *mean;
        *mean += self.weight * y;
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: f64 = 26_667.0;

    /// Gain at a frequency, from the response to a sine after it has settled.
    fn gain(mut step: impl FnMut(f32) -> f32, frequency_hz: f64) -> f64 {
        let mut peak = 0.0_f64;
        for index in 0..40_000 {
            let y = step(libm::sin(2.0 * PI * frequency_hz * f64::from(index) / RATE_HZ) as f32);
            if index > 20_000 {
                peak = peak.max(f64::from(y).abs());
            }
        }
        peak
    }

    #[test]
    fn butterworth_has_its_corner_and_slope() {
        for (pass, pass_hz, stop_hz) in [(Pass::Low, 1_000.0, 2_600.0), (Pass::High, 2_600.0, 1_000.0)] {
            let filter = Butterworth::<4>::new(pass, 1_300.0, RATE_HZ);
            let at = |frequency_hz| {
                let mut filter = filter;
                gain(|x| filter.step(x), frequency_hz)
            };
            assert!((at(1_300.0) - core::f64::consts::FRAC_1_SQRT_2).abs() < 0.01, "{pass:?} corner {}", at(1_300.0));
            assert!(at(pass_hz) > 0.98, "{pass:?} {}", at(pass_hz));
            assert!(at(stop_hz) < 0.01 || (pass == Pass::High && at(stop_hz) < 0.13), "{pass:?} {}", at(stop_hz));
        }
    }

    #[test]
    fn dc_removal_takes_gravity_and_leaves_vibration() {
        let mut dc = DcRemoval::new(RATE_HZ);
        assert_eq!(dc.step(1.0), 0.0, "settled on the first sample");
        assert!((gain(|x| dc.step(x + 1.0), 10.0) - 1.0).abs() < 0.01);
    }
}
