//! The envelope spectrum over many carrier bands at once, for a fault whose resonance nobody knows.
//!
//! 1. Prewhitening: every line of the spectrum is set to magnitude one. What is the same each turn (shaft harmonics, gear mesh, converter) loses its
//!    weight, impacts keep theirs, since they live in the phases of many lines (cepstrum prewhitening: Borghesani et al., MSSP 36, 2013).
//! 2. Equal bands from 500 Hz to 95 % of the Nyquist frequency, each wide enough for three harmonics of the highest fault line; of each the squared
//!    envelope (see [`super::envelope`]) and its power spectrum over its own median.
//! 3. The mean over the bands, in which noise averages out and what modulates several bands stays (enhanced envelope spectrum: Abboud, Elbadaoui,
//!    Smith, Randall, MSSP 114, 2019).
//!
//! For noise the power in a bin is the mean of as many unit exponentials as there are bands: [`EnvelopeSpectrum::surprise`] says how unlikely a peak is.
use std::f64::consts::TAU;

use realfft::num_complex::Complex;
use rustfft::FftPlanner;

use super::spectrum::Spectrum;

/// Below it the harmonics of the shaft stand closer than whitening takes away, Hz.
const LOW_HZ: f64 = 500.0;
/// The bands end at this part of the sampling rate, before the anti-alias filter's end.
const HIGH_PART: f64 = 0.475;
/// Most bands: more average better, but a resonance fills fewer of them.
const BANDS_MAX: f64 = 8.0;
/// A band is at least so many times as wide as the highest fault line: three harmonics, slip, sidebands.
const WIDTH: f64 = 3.5;
/// The floor about a line is the median so far on both sides, Hz.
const FLOOR_HZ: f64 = 60.0;
/// Bins of the envelope spectrum below this one hold its mean and slow drifts.
const FIRST_BIN: usize = 5;
/// What a line through a Hann window has at most so many bins beside its highest one, over that.
const LEAKS: [f64; 4] = [1.0, 1.0, 0.06, 0.002];
/// Fourth moment of the envelope of Gaussian noise over its squared second.
const NOISE_FOURTH: f64 = 2.0;

/// Envelope spectrum averaged over bands: per bin power over its expectation for noise.
#[derive(Clone, Debug)]
pub struct EnvelopeSpectrum {
    power: Vec<f64>,
    /// Distance of two bins, Hz.
    pub step_hz: f64,
    /// Width of a band: what modulates faster does not show, Hz.
    pub width_hz: f64,
    /// Bands averaged.
    pub bands: u32,
    /// Fourth moment of the envelope over its squared second, less that of noise, in the mean over the bands: 0 for noise, more where it comes in bursts.
    pub bursts: f64,
}

/// The averaged envelope spectrum of `samples`, for fault lines up to `line_hz`. `None` where no band has room, and for a constant signal.
pub fn demodulate(spectrum: &mut Spectrum, samples: &[f64], mean: f64, fs_hz: f64, line_hz: f64) -> Option<EnvelopeSpectrum> {
    let step_hz = fs_hz / samples.len() as f64;
    let span_hz = HIGH_PART * fs_hz - LOW_HZ;
    if !(line_hz > 0.0 && span_hz >= WIDTH * line_hz && span_hz >= 100.0 * step_hz) {
        return None;
    }
    let bands = (span_hz / (WIDTH * line_hz)).floor().clamp(1.0, BANDS_MAX);
    let width_hz = span_hz / bands;
    let bins = spectrum.transform(samples, mean, false);
    let edge = |band: f64| ((LOW_HZ + band * width_hz) / step_hz).round() as usize;
    // The band alone, moved down to zero: the envelope does not change, and the transforms are short.
    let length = (2 * ((width_hz / step_hz).ceil() as usize + 1)).next_power_of_two();
    let mut planner = FftPlanner::new();
    let (inverse, forward) = (planner.plan_fft_inverse(length), planner.plan_fft_forward(length));
    let mut band = vec![Complex::default(); length];
    let mut power = vec![0.0; (width_hz / step_hz) as usize];
    let mut bursts = 0.0;
    for index in 0..bands as usize {
        let carriers = bins.get(edge(index as f64)..edge(index as f64 + 1.0))?;
        band.fill(Complex::default());
        for (slot, bin) in band.iter_mut().zip(carriers) {
            let magnitude = bin.norm();
            *slot = if magnitude > 0.0 { bin / magnitude } else { Complex::default() };
        }
        inverse.process(&mut band);
        let mean_square = band.iter().map(Complex::norm_sqr).sum::<f64>() / length as f64;
        if mean_square <= 0.0 {
            return None;
        }
        let mean_fourth = band.iter().map(|value| value.norm_sqr().powi(2)).sum::<f64>() / length as f64;
        bursts += (mean_fourth / mean_square.powi(2) - NOISE_FOURTH) / bands;
        for (i, value) in band.iter_mut().enumerate() {
            let hann = 0.5 - 0.5 * (TAU * i as f64 / length as f64).cos();
            *value = Complex::from((value.norm_sqr() / mean_square - 1.0) * hann);
        }
        forward.process(&mut band);
        let last = ((0.8 * width_hz).min(600.0) / step_hz) as usize;
        let floor = median(band.get(FIRST_BIN..last)?.iter().map(Complex::norm_sqr).collect())?;
        for (sum, bin) in power.iter_mut().zip(&band) {
            *sum += bin.norm_sqr() / (floor * bands);
        }
    }
    Some(EnvelopeSpectrum { power, step_hz, width_hz, bands: bands as u32, bursts })
}

impl EnvelopeSpectrum {
    /// The largest power within a bin of `f_hz`; `None` outside the spectrum.
    pub fn peak(&self, f_hz: f64) -> Option<f64> {
        let at = self.bin(f_hz);
        let near = at.checked_sub(1).and_then(|first| self.power.get(first..=at + 1))?;
        Some(near.iter().copied().fold(0.0, f64::max))
    }

    /// The same less what is of another line, within `reach_hz` of `other_hz`.
    pub fn peak_without(&self, f_hz: f64, other_hz: f64, reach_hz: f64) -> Option<f64> {
        let (at, near, reach) = (self.bin(f_hz), self.bin(other_hz), self.bin(reach_hz) + 1);
        let bins = near.saturating_sub(reach)..(near + reach + 1).min(self.power.len());
        let other = bins.max_by(|&a, &b| self.power[a].total_cmp(&self.power[b]))?;
        let own = |k: usize| self.power.get(k).map(|power| power - LEAKS.get(k.abs_diff(other)).unwrap_or(&0.0) * self.power[other]);
        let own = [at.checked_sub(1).and_then(own)?, own(at)?, own(at + 1)?];
        Some(own.into_iter().fold(0.0, f64::max))
    }

    /// The bins within `distance_hz` of `f_hz`, at least the next two, without those that [`EnvelopeSpectrum::peak`] looks at: frequency and power.
    pub fn beside(&self, f_hz: f64, distance_hz: f64) -> impl Iterator<Item = (f64, f64)> {
        let at = self.bin(f_hz);
        let reach = self.bin(distance_hz).max(3);
        let bins = at.saturating_sub(reach)..(at + reach + 1).min(self.power.len());
        bins.filter(move |k| k.abs_diff(at) > 1).map(|k| (k as f64 * self.step_hz, self.power[k]))
    }

    /// How unlikely noise makes a peak, the largest of three bins, where it has `floor` in the mean: -ln of the probability, 0 and up.
    pub fn surprise(&self, peak: f64, floor: f64) -> f64 {
        let unlikely = -ln_tail(self.bands, peak / floor);
        let of_three = if unlikely > 20.0 { unlikely - 3f64.ln() } else { -(-(3.0 * (-(-unlikely).exp()).ln_1p()).exp_m1()).ln() };
        of_three.max(0.0)
    }

    fn bin(&self, f_hz: f64) -> usize {
        (f_hz / self.step_hz).round() as usize
    }

    /// What noise is expected to have at `f_hz`, from the median about it, so that lines do not count; `None` outside the spectrum.
    pub fn floor(&self, f_hz: f64) -> Option<f64> {
        let bands = f64::from(self.bands);
        // Median of the mean of so many unit exponentials (of a gamma distribution, after Wilson and Hilferty).
        let expected = if self.bands > 1 { 1.0 - 1.0 / (3.0 * bands) } else { 2f64.ln() };
        self.about(f_hz).and_then(median).map(|median| median / expected)
    }

    /// The same from the lowest quarter, where lines stand so close that they fill half of the bins.
    pub fn floor_between_lines(&self, f_hz: f64) -> Option<f64> {
        let ninth = 1.0 / (9.0 * f64::from(self.bands));
        // A quarter of a normal distribution lies 0.6745 deviations below its mean.
        let expected = (1.0 - ninth - 0.6745 * ninth.sqrt()).powi(3);
        self.about(f_hz).and_then(|powers| quantile(powers, 4)).map(|quartile| quartile / expected)
    }

    fn about(&self, f_hz: f64) -> Option<Vec<f64>> {
        let bin = |f_hz: f64| (f_hz.max(0.0) / self.step_hz) as usize;
        let (first, last) = (bin(f_hz - FLOOR_HZ).max(2), (bin(f_hz + FLOOR_HZ) + 1).min(self.power.len()));
        self.power.get(first..last).map(<[f64]>::to_vec)
    }
}

/// ln of the probability that the mean of `count` unit exponentials is above `x`: `e^-y` times the sum over j below count of `y^j / j!`, `y = count x`.
fn ln_tail(count: u32, x: f64) -> f64 {
    let y = f64::from(count) * x;
    let mut term = 1.0;
    let mut sum = 1.0;
    for j in 1..count {
        term *= y / f64::from(j);
        sum += term;
    }
    f64::ln(sum) - y
}

/// `None` for no value, and where it is not above zero.
fn median(values: Vec<f64>) -> Option<f64> {
    quantile(values, 2)
}

/// The value that one of `parts` of them is below; `None` as above.
fn quantile(mut values: Vec<f64>, parts: usize) -> Option<f64> {
    let place = values.len() / parts;
    if values.is_empty() {
        return None;
    }
    let (_, quantile, _) = values.select_nth_unstable_by(place, f64::total_cmp);
    (*quantile > 0.0).then_some(*quantile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::simulated::{Machine, Strikes};

    fn spectrum_of(machine: &Machine) -> EnvelopeSpectrum {
        let samples = machine.samples();
        demodulate(&mut Spectrum::new(samples.len()), &samples, 0.0, machine.fs_hz, 162.0).unwrap()
    }

    fn surprise_at(spectrum: &EnvelopeSpectrum, f_hz: f64) -> f64 {
        spectrum.surprise(spectrum.peak(f_hz).unwrap(), spectrum.floor(f_hz).unwrap())
    }

    #[test]
    fn the_tail_of_a_mean_of_exponentials() {
        let near = |actual: f64, expected: f64| assert!((actual - expected).abs() < 1e-9, "{actual} for {expected}");
        near(ln_tail(1, 3.0), -3.0);
        // Two of mean 2: e^-4 (1 + 4).
        near(ln_tail(2, 2.0), 5f64.ln() - 4.0);
        near(ln_tail(8, 0.0), 0.0);
    }

    #[test]
    fn noise_surprises_as_seldom_as_it_says() {
        let spectrum = spectrum_of(&Machine::healthy(1));
        let lines: Vec<f64> = (0..600).map(|i| 50.0 + 0.8 * f64::from(i)).collect();
        let surprising = |limit: f64| lines.iter().filter(|&&f_hz| surprise_at(&spectrum, f_hz) > limit).count();
        // Expected of 600: 60 beyond ln 10, 0.6 beyond ln 1000; neighbours are not independent.
        let tenth = surprising(10f64.ln());
        assert!((25..=110).contains(&tenth), "{tenth}");
        assert!(surprising(1e3f64.ln()) <= 6);
    }

    #[test]
    fn impacts_show_at_their_rate_and_shaft_harmonics_do_not() {
        let struck = spectrum_of(&Machine { strikes: Some(Strikes::at(107.36, 0.3)), ..Machine::healthy(2) });
        assert!(surprise_at(&struck, 107.36) > 20.0);
        let quiet = spectrum_of(&Machine::healthy(2));
        assert!(surprise_at(&quiet, 107.36) < 7.0);
    }

    #[test]
    fn lines_of_a_converter_do_not_beat() {
        // 5 m/s2 each at 3900, 4000 and 4100 Hz in noise of 0.2 m/s2.
        let spectrum = spectrum_of(&Machine { electrical: 5.0, ..Machine::healthy(3) });
        for beat_hz in [100.0, 200.0] {
            assert!(surprise_at(&spectrum, beat_hz) < 7.0, "{} at {beat_hz} Hz", surprise_at(&spectrum, beat_hz));
        }
    }

    #[test]
    fn what_has_no_room_has_no_spectrum() {
        let mut spectrum = Spectrum::new(4096);
        assert!(demodulate(&mut spectrum, &[0.0; 4096], 0.0, 12_000.0, 100.0).is_none(), "constant");
        assert!(demodulate(&mut spectrum, &[1.0; 4096], 0.0, 12_000.0, 2_000.0).is_none(), "lines too high");
        assert!(demodulate(&mut spectrum, &[1.0; 4096], 0.0, 1_000.0, 10.0).is_none(), "sampled too slowly");
    }
}
