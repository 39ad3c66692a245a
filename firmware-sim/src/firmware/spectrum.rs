//! Spectrum of a decimated block: velocity RMS, and lines of the envelope.
use core::f32::consts::PI;

use heapless::Vec;

/// Samples in a decimated block, the longest FFT of the node.
pub const POINTS: usize = 4096;
const GRAVITY_M_S2: f32 = 9.806_65;
/// Lines drift by slip: their peak is looked for this far to both sides, as a share of the frequency.
const SLIP: f32 = 0.02;
/// Harmonics that count.
const HARMONICS: u8 = 3;

/// A block at the reduced rate, filled sample by sample.
#[derive(Debug)]
pub struct Block {
    samples: [f32; POINTS],
    len: usize,
}

impl Default for Block {
    fn default() -> Self {
        Self { samples: [0.0; POINTS], len: 0 }
    }
}

impl Block {
    /// Adds a sample; a full block takes no more.
    pub fn push(&mut self, x: f32) {
        if let Some(slot) = self.samples.get_mut(self.len) {
            *slot = x;
            self.len += 1;
        }
    }

    /// Whether it holds [`POINTS`] samples.
    pub fn is_full(&self) -> bool {
        self.len == POINTS
    }

    /// Takes the mean away, applies a Hann window, transforms, and leaves the block empty.
    pub fn transform(&mut self, rate_hz: f32) -> Spectrum {
        let mean = self.samples.iter().sum::<f32>() / POINTS as f32;
        let mut window_power = 0.0;
        for (index, sample) in self.samples.iter_mut().enumerate() {
            let window = 0.5 - 0.5 * libm::cosf(2.0 * PI * index as f32 / POINTS as f32);
            window_power += window * window;
            *sample = (*sample - mean) * window;
        }
        let bins = microfft::real::rfft_4096(&mut self.samples);
        let mut power = [0.0; POINTS / 2];
        let norm = 2.0 / (POINTS as f32 * window_power);
        for (power, bin) in power.iter_mut().zip(bins.iter()) {
            *power = norm * bin.norm_sqr();
        }
        power[0] = 0.0; // holds the mean and, packed by the library, the highest frequency
        self.len = 0;
        Spectrum { power, bin_hz: rate_hz / POINTS as f32 }
    }
}

/// One-sided power per bin; the sum over all bins is the mean square of the block.
#[derive(Debug)]
pub struct Spectrum {
    power: [f32; POINTS / 2],
    bin_hz: f32,
}

impl Spectrum {
    /// Velocity RMS in mm/s of an acceleration in g, between two frequencies (domain reference section 8):
    /// v^2 = sum of 2 |A_k|^2 / (N sum w^2) / (2 pi f_k)^2.
    pub fn velocity_rms_mm_s(&self, from_hz: f32, to_hz: f32) -> f32 {
        let mean_square: f32 = (self.bin(from_hz, libm::ceilf)..=self.bin(to_hz, libm::floorf))
            .map(|k| {
                let omega = 2.0 * PI * k as f32 * self.bin_hz;
                self.power[k] / (omega * omega)
            })
            .sum();
        1_000.0 * GRAVITY_M_S2 * libm::sqrtf(mean_square)
    }

    /// Root mean square between two frequencies, in the unit of the samples.
    pub fn band_rms(&self, from_hz: f32, to_hz: f32) -> f32 {
        libm::sqrtf(self.power[self.bin(from_hz, libm::ceilf)..=self.bin(to_hz, libm::floorf)].iter().sum())
    }

    /// Sum of the first three harmonics' amplitudes over the median amplitude around them, as the gateway has it: about 5 in noise, tens for a fault.
    /// `None` where the third harmonic is beyond the spectrum or the first is too low to be resolved.
    pub fn line(&self, frequency_hz: f32) -> Option<f32> {
        let around_hz = (f32::from(HARMONICS) + 0.5) * frequency_hz;
        if frequency_hz < 4.0 * self.bin_hz || around_hz >= self.bin_hz * (POINTS / 2) as f32 {
            return None;
        }
        let peak = |harmonic: u8| {
            let center_hz = frequency_hz * f32::from(harmonic);
            let near = self.between(center_hz * (1.0 - SLIP), center_hz * (1.0 + SLIP));
            libm::sqrtf(near.iter().fold(0.0, |peak: f32, power| peak.max(*power)))
        };
        let sum: f32 = (1..=HARMONICS).map(peak).sum();
        let median = libm::sqrtf(median(self.between(0.5 * frequency_hz, around_hz))?);
        (median > 0.0).then(|| sum / median)
    }

    fn between(&self, low_hz: f32, high_hz: f32) -> &[f32] {
        &self.power[self.bin(low_hz, libm::roundf)..=self.bin(high_hz, libm::roundf)]
    }

    fn bin(&self, frequency_hz: f32, round: fn(f32) -> f32) -> usize {
        (round(frequency_hz / self.bin_hz) as usize).clamp(1, POINTS / 2 - 1)
    }
}

/// Median of the power values; more than fit the node's scratch are thinned out evenly.
fn median(values: &[f32]) -> Option<f32> {
    const SCRATCH: usize = 512;
    let stride = values.len().div_ceil(SCRATCH).max(1);
    let mut sorted: Vec<f32, SCRATCH> = values.iter().step_by(stride).copied().collect();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: f32 = 26_667.0 / 8.0;

    fn of(signal: impl Fn(f64) -> f64) -> Spectrum {
        let mut block = Block::default();
        (0..POINTS).for_each(|index| block.push(signal(index as f64 / f64::from(RATE_HZ)) as f32));
        assert!(block.is_full());
        block.transform(RATE_HZ)
    }

    #[test]
    fn a_sine_has_the_velocity_that_its_acceleration_says() {
        // Domain reference 2.2: 2.8 mm/s RMS is 0.0179 g RMS at 10 Hz (here 30 Hz, inside the band), 0.179 g at 100 Hz.
        for (frequency_hz, a_rms_g) in [(30.0, 0.053_82), (100.0, 0.179_4)] {
            let spectrum = of(|t| 1.0 + a_rms_g * core::f64::consts::SQRT_2 * libm::sin(core::f64::consts::TAU * frequency_hz * t));
            let v = spectrum.velocity_rms_mm_s(10.0, 1_000.0);
            assert!((v - 2.8).abs() < 0.02, "{frequency_hz} Hz: {v}");
            assert!((f64::from(spectrum.band_rms(10.0, 1_000.0)) - a_rms_g).abs() < 1e-3 * a_rms_g.max(0.1));
        }
        assert!(of(|t| libm::sin(core::f64::consts::TAU * 1_300.0 * t)).velocity_rms_mm_s(10.0, 1_000.0) < 0.01, "out of band");
    }

    #[test]
    fn lines_beyond_the_spectrum_are_not_made_up() {
        let spectrum = of(|t| libm::sin(core::f64::consts::TAU * 100.0 * t));
        assert_eq!(spectrum.line(1.0), None);
        assert_eq!(spectrum.line(600.0), None);
        assert!(spectrum.line(100.0).is_some());
    }
}
