//! The squared envelope spectrum: where a bearing's impacts show long before its vibration rises.
//!
//! Band-pass and analytic signal by zeroing bins of the spectrum; the squared magnitude, mean removed, is transformed again (squared Hilbert
//! envelope, after R. Randall). A line counts within 2 % of its place, for slip.
use std::{fmt, sync::Arc};

use realfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::spectrum::Spectrum;

/// Slip of a bearing moves its lines by so much.
const TOLERANCE: f64 = 0.02;
/// Harmonics that count.
const HARMONICS: u32 = 3;

/// Envelope transforms of one length, with scratch memory.
pub struct Envelope {
    inverse: Arc<dyn Fft<f64>>,
    analytic: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    squared: Vec<f64>,
    amplitudes: Vec<f64>,
    sorted: Vec<f64>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope").field("length", &self.analytic.len()).finish_non_exhaustive()
    }
}

/// What is read from the envelope of one block.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// RMS of the band-passed signal, in the unit of the samples.
    pub band_rms: f64,
    amplitudes: &'a [f64],
    step_hz: f64,
    band_width_hz: f64,
}

impl Envelope {
    /// Plans transforms of `length` samples.
    pub fn new(length: usize) -> Self {
        let inverse = FftPlanner::new().plan_fft_inverse(length);
        let scratch = vec![Complex::default(); inverse.get_inplace_scratch_len()];
        let analytic = vec![Complex::default(); length];
        Self { inverse, analytic, scratch, squared: vec![0.0; length], amplitudes: Vec::with_capacity(length / 2 + 1), sorted: Vec::new() }
    }

    /// The envelope spectrum of `samples` in `band` (Hz). `None` where the band does not fit below half the sampling rate.
    pub fn lines(&mut self, spectrum: &mut Spectrum, samples: &[f64], mean: f64, fs_hz: f64, band: (f64, f64)) -> Option<Lines<'_>> {
        let (low, high) = band;
        let length = self.analytic.len();
        if !(low > 0.0 && low < high && high < fs_hz / 2.0 && length > 1) {
            return None;
        }
        let step_hz = fs_hz / length as f64;
        self.analytic.fill(Complex::default());
        for (k, bin) in spectrum.transform(samples, mean, false).iter().enumerate() {
            if (low..=high).contains(&(k as f64 * step_hz)) {
                self.analytic[k] = bin * 2.0;
            }
        }
        self.inverse.process_with_scratch(&mut self.analytic, &mut self.scratch);
        // rustfft does not divide by the length.
        let scale = 1.0 / (length as f64 * length as f64);
        for (square, value) in self.squared.iter_mut().zip(&self.analytic) {
            *square = value.norm_sqr() * scale;
        }
        let mean_square = self.squared.iter().sum::<f64>() / length as f64;
        let bins = spectrum.transform(&self.squared, mean_square, true);
        self.amplitudes.clear();
        self.amplitudes.extend(bins.iter().map(|bin| bin.norm()));
        // Half the mean squared magnitude of the analytic signal is the mean square of its real part.
        Some(Lines { band_rms: (mean_square / 2.0).sqrt(), amplitudes: &self.amplitudes, step_hz, band_width_hz: high - low })
    }

    /// Scratch for the median, so that no block allocates.
    pub fn sorted_scratch(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.sorted)
    }

    /// Gives the scratch back.
    pub fn keep_scratch(&mut self, sorted: Vec<f64>) {
        self.sorted = sorted;
    }
}

impl Lines<'_> {
    /// Sum of the first three harmonics of `line_hz` over the local median amplitude: about 5 for noise, tens for a fault.
    /// `None` where the block is too short to tell the line from its neighbours, or the band too narrow to carry its harmonics.
    pub fn indicator(&self, line_hz: f64, sorted: &mut Vec<f64>) -> Option<f64> {
        let highest_hz = f64::from(HARMONICS) * line_hz * (1.0 + TOLERANCE);
        let resolved = line_hz.is_finite() && line_hz >= 4.0 * self.step_hz;
        if !resolved || highest_hz > self.band_width_hz {
            return None;
        }
        let sum: f64 = (1..=HARMONICS).map(|harmonic| self.peak(f64::from(harmonic) * line_hz)).sum();
        let local = self.between(0.5 * line_hz, (f64::from(HARMONICS) + 0.5) * line_hz);
        sorted.clear();
        sorted.extend_from_slice(local);
        let middle = sorted.len() / 2;
        let (_, median, _) = sorted.select_nth_unstable_by(middle, f64::total_cmp);
        (*median > 0.0).then(|| sum / *median)
    }

    fn peak(&self, f_hz: f64) -> f64 {
        let around = self.between(f_hz * (1.0 - TOLERANCE), f_hz * (1.0 + TOLERANCE));
        around.iter().copied().fold(0.0, f64::max)
    }

    /// Amplitudes from the bin nearest to `low_hz` to the one nearest to `high_hz`; at least one.
    fn between(&self, low_hz: f64, high_hz: f64) -> &[f64] {
        let last = self.amplitudes.len() - 1;
        let bin = |f_hz: f64| ((f_hz / self.step_hz).round() as usize).min(last);
        &self.amplitudes[bin(low_hz)..=bin(high_hz)]
    }
}
