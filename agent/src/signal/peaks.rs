//! Lines of a spectrum that stand out of its noise, told to a small part of a bin.
//!
//! A block of a second has bins of a hertz, which is 4 % of a shaft at 25 Hz. Through a Hann window a single sine fills three bins whose heights tell where
//! between them it lies; where they contradict each other, two lines or a changing one are mixed, and the place means nothing.
use super::spectrum::Velocities;

/// Power over that of the noise from which on a peak is a line: noise alone makes one bin in ten million.
const OVER_FLOOR_MIN: f64 = 16.0;
/// The noise about a line is the median so many bins on both sides.
const FLOOR_BINS: usize = 24;
/// Bins of the window's main lobe about zero, which hold what is left of the mean.
const FIRST_BIN: usize = 3;
/// What the two neighbours of a peak say of its place may differ by so much, in bins, and by so many times the deviation that noise gives.
const AGREES: (f64, f64) = (0.05, 4.0);
/// Deviation of the place in bins, for noise as high as the line (three bins of a Hann window, whose noise goes together).
const ERROR: f64 = 0.61;

/// A single line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Where it is, Hz.
    pub f_hz: f64,
    /// Standard deviation of that, Hz.
    pub error_hz: f64,
    /// Its power over that of the noise about it, `OVER_FLOOR_MIN` and up.
    pub over_floor: f64,
}

impl Velocities<'_> {
    /// The single lines from `low_hz` to `high_hz`.
    pub fn peaks(&self, low_hz: f64, high_hz: f64) -> Vec<Peak> {
        let first = ((low_hz / self.step_hz) as usize).max(FIRST_BIN);
        let last = ((high_hz / self.step_hz).ceil() as usize).min(self.bins.len().saturating_sub(2));
        (first..=last).filter_map(|k| self.peak(k)).filter(|peak| (low_hz..=high_hz).contains(&peak.f_hz)).collect()
    }

    /// The line whose highest bin is `k`, which has neighbours.
    fn peak(&self, k: usize) -> Option<Peak> {
        let [left, top, right] = [k - 1, k, k + 1].map(|k| self.bins[k].norm());
        if !(top > 0.0 && top >= left && top > right) {
            return None;
        }
        let over_floor = top * top / self.floor(k)?;
        let noise = 1.0 / over_floor.sqrt();
        // For a line `d` bins above its peak the neighbours are (1 + d) / (2 - d) and (1 - d) / (2 + d) of it.
        let by_right = (2.0 * right - top) / (right + top);
        let by_left = (top - 2.0 * left) / (left + top);
        if over_floor < OVER_FLOOR_MIN || (by_right - by_left).abs() > AGREES.0 + AGREES.1 * noise {
            return None;
        }
        let place = k as f64 + 2.0 * (right - left) / (left + 2.0 * top + right);
        Some(Peak { f_hz: place * self.step_hz, error_hz: ERROR * noise * self.step_hz, over_floor })
    }

    /// Mean power of the noise about bin `k`, from its median, so that lines do not count.
    fn floor(&self, k: usize) -> Option<f64> {
        let near = k.saturating_sub(FLOOR_BINS).max(FIRST_BIN)..(k + FLOOR_BINS + 1).min(self.bins.len());
        let mut powers: Vec<f64> = self.bins.get(near)?.iter().map(|bin| bin.norm_sqr()).collect();
        let middle = powers.len() / 2;
        let (_, median, _) = powers.select_nth_unstable_by(middle, f64::total_cmp);
        (*median > 0.0).then_some(*median / std::f64::consts::LN_2)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::signal::{simulated::Noise, spectrum::Spectrum};

    const FS_HZ: f64 = 8_192.0;
    const SAMPLES: usize = 8_192;

    /// The lines between 20 and 60 Hz of sines (Hz, m/s2) in noise of 0.1 m/s2, with bins of 1 Hz.
    fn peaks(sines: &[(f64, f64)], seed: u64) -> Vec<Peak> {
        let mut noise = Noise(seed);
        let at = |i: usize| sines.iter().map(|(f_hz, a)| a * (TAU * f_hz * i as f64 / FS_HZ + f_hz).cos()).sum::<f64>();
        let samples: Vec<f64> = (0..SAMPLES).map(|i| at(i) + 0.1 * noise.next()).collect();
        Spectrum::new(SAMPLES).velocities(&samples, 0.0, FS_HZ).peaks(20.0, 60.0)
    }

    #[test]
    fn a_line_is_told_as_well_as_its_error_says() {
        let mut squares = 0.0;
        let cases: Vec<(f64, f64, u64)> =
            (1..=25).flat_map(|seed| [(24.5, 0.05), (30.1, 0.02), (41.77, 1.0)].map(|(f_hz, a)| (f_hz, a, seed))).collect();
        for &(f_hz, a, seed) in &cases {
            let found = peaks(&[(f_hz, a)], seed);
            let [peak] = found[..] else { panic!("{found:?} for {f_hz} Hz of {a} m/s2") };
            squares += ((peak.f_hz - f_hz) / peak.error_hz).powi(2) / cases.len() as f64;
        }
        assert!((0.5..2.0).contains(&squares), "errors are {} times what is told", squares.sqrt());
    }

    #[test]
    fn noise_has_no_lines() {
        for seed in 1..=20 {
            assert_eq!(peaks(&[], seed), []);
        }
    }

    #[test]
    fn lines_that_are_mixed_have_no_place() {
        assert_eq!(peaks(&[(49.3, 0.5), (50.0, 0.4)], 1), []);
        assert_eq!(peaks(&[(40.0, 0.5), (50.0, 0.4)], 1).len(), 2);
    }
}
