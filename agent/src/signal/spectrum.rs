//! The spectrum of a block and what is read from it: velocity RMS for severity, velocity of single lines for what turns.
use std::{f64::consts::TAU, fmt, sync::Arc};

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

/// Upper end of the band of velocity severity, Hz (ISO 20816-1).
const VELOCITY_HIGH_HZ: f64 = 1_000.0;
/// Its lower end, Hz, for machines of at least 600 r/min.
const VELOCITY_LOW_HZ: f64 = 10.0;
/// Its lower end, Hz, for slower ones.
const VELOCITY_LOW_SLOW_HZ: f64 = 2.0;
/// Machines that turn slower than this, Hz (600 r/min), are measured from 2 Hz on.
const SLOW_HZ: f64 = 10.0;

/// Real transforms of one length, with window and scratch memory.
pub struct Spectrum {
    plan: Arc<dyn RealToComplex<f64>>,
    input: Vec<f64>,
    /// Bins 0 to N/2 of the last transform.
    bins: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    hann: Vec<f64>,
    /// Sum of the squared window.
    hann_power: f64,
}

impl fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spectrum").field("length", &self.input.len()).finish_non_exhaustive()
    }
}

impl Spectrum {
    /// Plans transforms of `length` samples.
    pub fn new(length: usize) -> Self {
        let plan = RealFftPlanner::new().plan_fft_forward(length);
        // The periodic form, as is usual for spectra.
        let hann: Vec<f64> = (0..length).map(|i| 0.5 - 0.5 * (TAU * i as f64 / length as f64).cos()).collect();
        let hann_power = hann.iter().map(|w| w * w).sum();
        Self { input: plan.make_input_vec(), bins: plan.make_output_vec(), scratch: plan.make_scratch_vec(), plan, hann, hann_power }
    }

    /// Number of samples of a block.
    pub fn length(&self) -> usize {
        self.input.len()
    }

    /// Transforms `samples` less `mean`, through a Hann window or as they are. Bin `k` is at `k * fs / length`.
    pub fn transform(&mut self, samples: &[f64], mean: f64, windowed: bool) -> &[Complex<f64>] {
        for ((slot, sample), window) in self.input.iter_mut().zip(samples).zip(&self.hann) {
            *slot = (sample - mean) * if windowed { *window } else { 1.0 };
        }
        // The only failure is a wrong length, and all three come from the plan.
        self.plan.process_with_scratch(&mut self.input, &mut self.bins, &mut self.scratch).expect("the buffers come from the plan");
        &self.bins
    }

    /// Velocities of accelerations in m/s2, through a Hann window.
    pub fn velocities(&mut self, samples: &[f64], mean: f64, fs_hz: f64) -> Velocities<'_> {
        let step_hz = fs_hz / self.length() as f64;
        let scale = 2.0 / (self.length() as f64 * self.hann_power);
        Velocities { bins: self.transform(samples, mean, true), scale, step_hz }
    }

    /// Velocity RMS in mm/s of accelerations in m/s2 (domain reference section 8):
    /// `v^2 = sum of 2 |A_k|^2 / (N sum w^2) / (2 pi f_k)^2` over the severity band. `None` where the block is too short to resolve the band's lower end.
    pub fn velocity_rms(&mut self, samples: &[f64], mean: f64, fs_hz: f64, speed_hz: Option<f64>) -> Option<f64> {
        let low = if speed_hz.is_some_and(|speed| speed > 0.0 && speed < SLOW_HZ) { VELOCITY_LOW_SLOW_HZ } else { VELOCITY_LOW_HZ };
        let step_hz = fs_hz / self.length() as f64;
        if step_hz > low / 2.0 || fs_hz / 2.0 <= low {
            return None;
        }
        Some(self.velocities(samples, mean, fs_hz).rms(low, VELOCITY_HIGH_HZ.min(fs_hz / 2.0)))
    }
}

/// Velocities of one block by frequency.
#[derive(Clone, Copy, Debug)]
pub struct Velocities<'a> {
    /// Of the acceleration, m/s2, not scaled.
    pub(super) bins: &'a [Complex<f64>],
    scale: f64,
    pub(super) step_hz: f64,
}

/// A line of a spectrum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Where its peak is, Hz.
    pub f_hz: f64,
    /// RMS of its velocity, mm/s.
    pub v_mm_s: f64,
}

impl Velocities<'_> {
    /// RMS in mm/s over all from `low_hz` to `high_hz`.
    pub fn rms(&self, low_hz: f64, high_hz: f64) -> f64 {
        let inside = |k: &usize| (low_hz..=high_hz).contains(&(*k as f64 * self.step_hz));
        (1..self.bins.len()).filter(inside).map(|k| self.square(k)).sum::<f64>().sqrt() * 1_000.0
    }

    /// The strongest line within `tolerance_hz` of `f_hz`: its peak and the two bins on both sides, which hold a sine's energy. `None` where the block is
    /// too short to resolve it, or sampled too slowly to have it.
    pub fn line(&self, f_hz: f64, tolerance_hz: f64) -> Option<Line> {
        let bin = |f_hz: f64| (f_hz / self.step_hz).round();
        let (first, last) = (bin(f_hz - tolerance_hz), bin(f_hz + tolerance_hz));
        if first < 3.0 || last + 2.0 >= self.bins.len() as f64 {
            return None;
        }
        let peak = (first as usize..=last as usize).max_by(|&a, &b| self.square(a).total_cmp(&self.square(b)))?;
        let energy: f64 = (peak - 2..=peak + 2).map(|k| self.square(k)).sum();
        Some(Line { f_hz: peak as f64 * self.step_hz, v_mm_s: energy.sqrt() * 1_000.0 })
    }

    /// Acceleration RMS below and from `edge_hz` on, m/s2.
    pub fn accelerations(&self, edge_hz: f64) -> [f64; 2] {
        let edge = ((edge_hz / self.step_hz).ceil() as usize).clamp(1, self.bins.len());
        let rms = |bins: &[Complex<f64>]| (self.scale * bins.iter().map(Complex::norm_sqr).sum::<f64>()).sqrt();
        [rms(&self.bins[1.min(self.bins.len())..edge]), rms(&self.bins[edge..])]
    }

    /// Mean square of a bin, (m/s)2.
    fn square(&self, k: usize) -> f64 {
        self.scale * self.bins[k].norm_sqr() / (TAU * k as f64 * self.step_hz).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::SQRT_2;

    use super::*;

    const G: f64 = 9.806_65;

    /// Velocity RMS of a sine of `a_rms_g` at `f_hz` on 1 g of gravity.
    fn sine(f_hz: f64, a_rms_g: f64, fs_hz: f64, n: usize) -> f64 {
        let samples: Vec<f64> = (0..n).map(|i| G * (1.0 + a_rms_g * SQRT_2 * (TAU * f_hz * i as f64 / fs_hz).cos())).collect();
        let mean = samples.iter().sum::<f64>() / n as f64;
        Spectrum::new(n).velocity_rms(&samples, mean, fs_hz, None).unwrap()
    }

    #[test]
    fn sines_of_known_velocity() {
        // 2.8 mm/s RMS in g at several frequencies, domain reference section 2.2.
        for (f_hz, a_rms_g) in [(29.95, 0.0537), (100.0, 0.179)] {
            let v = sine(f_hz, a_rms_g, 26_667.0, 32_768);
            assert!((v - 2.8).abs() < 0.01, "{v} at {f_hz} Hz");
        }
        let exact = 2.8e-3 * TAU * 160.0 / G;
        assert!((sine(160.0, exact, 8_192.0, 8_192) - 2.8).abs() < 1e-3, "on a bin");
    }

    #[test]
    fn frequencies_outside_the_band_do_not_count() {
        assert!(sine(3.0, 0.05, 8_192.0, 16_384) < 0.01);
        assert!(sine(1_500.0, 1.0, 8_192.0, 16_384) < 0.01);
    }

    #[test]
    fn a_slow_machine_is_measured_from_two_hertz() {
        let (fs_hz, n) = (2_048.0, 8_192);
        let samples: Vec<f64> = (0..n).map(|i| TAU * 5.0 * 2.8e-3 * SQRT_2 * (TAU * 5.0 * f64::from(i) / fs_hz).cos()).collect();
        let mut spectrum = Spectrum::new(8_192);
        assert!((spectrum.velocity_rms(&samples, 0.0, fs_hz, Some(5.0)).unwrap() - 2.8).abs() < 0.01);
        assert!(spectrum.velocity_rms(&samples, 0.0, fs_hz, Some(25.0)).unwrap() < 0.01);
    }

    #[test]
    fn a_line_has_its_velocity_wherever_it_lies_between_bins() {
        let (fs_hz, n) = (8_192.0, 8_192);
        for f_hz in [50.0, 50.3, 50.5, 49.2] {
            let samples: Vec<f64> = (0..n).map(|i| TAU * f_hz * 2.8e-3 * SQRT_2 * (TAU * f_hz * f64::from(i) / fs_hz).cos()).collect();
            let mut spectrum = Spectrum::new(8_192);
            let velocities = spectrum.velocities(&samples, 0.0, fs_hz);
            let line = velocities.line(50.0, 1.0).unwrap();
            assert!((line.v_mm_s - 2.8).abs() < 0.03 && (line.f_hz - f_hz).abs() <= 0.5, "{line:?} at {f_hz} Hz");
            assert!(velocities.line(60.0, 1.0).unwrap().v_mm_s < 0.01);
            assert_eq!((velocities.line(2.0, 0.1), velocities.line(4_095.0, 1.0)), (None, None));
        }
    }

    #[test]
    fn a_short_block_gives_no_velocity() {
        assert_eq!(Spectrum::new(512).velocity_rms(&[0.0; 512], 0.0, 26_667.0, None), None);
    }
}
