//! The generalised Pareto distribution of how far peaks go beyond a high threshold (Coles, An Introduction to Statistical Modeling of Extreme Values,
//! 2001, chapter 4), and the level that the highest of so many peaks comes to.
//!
//! Fitted by probability-weighted moments (Hosking and Wallis, Technometrics 29 (1987) 339): sums alone, so nothing has to converge, and for some hundred
//! peaks no worse than the most likely parameters.

/// Steps of the shape. A power of it then is made of square roots and products, which end in the same digit on every processor.
const STEPS: i32 = 1 << ROOTS;
const ROOTS: u32 = 10;
/// The moments exist below a shape of a half; a tail that ends as abruptly as minus a half is none that a machine has.
const SHAPE_STEPS_MAX: i32 = STEPS / 2;

/// A fitted distribution of excesses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pareto {
    /// In units of the excesses.
    pub(super) scale: f64,
    /// In [`STEPS`]; below 0 the tail has an end, above it is heavier than that of an exponential. Never 0: next to it is as good.
    shape_steps: i32,
}

impl Pareto {
    /// Fits `excesses` over the threshold, in ascending order. `None` where they are too few to tell a tail by, or all the same.
    pub(super) fn fit(excesses: &[f64]) -> Option<Self> {
        let count = excesses.len() as f64;
        let mean = excesses.iter().sum::<f64>() / count;
        // The mean of each times the part of peaks that are higher.
        let weighted = excesses.iter().enumerate().map(|(rank, excess)| excess * (count - 1.0 - rank as f64)).sum::<f64>() / (count * (count - 1.0));
        let spread = mean - 2.0 * weighted;
        if excesses.len() < 3 || !(spread > 0.0 && spread.is_finite()) {
            return None;
        }
        let shape = 2.0 - mean / spread;
        let steps = (shape * f64::from(STEPS)).round().clamp(-f64::from(SHAPE_STEPS_MAX), f64::from(SHAPE_STEPS_MAX)) as i32;
        let shape_steps = if steps == 0 { 1 } else { steps };
        // Of this shape, the scale that gives the same mean.
        Some(Self { scale: mean * (1.0 - f64::from(shape_steps) / f64::from(STEPS)), shape_steps })
    }

    /// See [`Self::shape_steps`].
    pub(super) fn shape(self) -> f64 {
        f64::from(self.shape_steps) / f64::from(STEPS)
    }

    /// The excess that one of `peaks` passes on average; `peaks` is 1 at least.
    pub(super) fn passed_by_one_of(self, peaks: f64) -> f64 {
        let root = (0..ROOTS).fold(peaks.max(1.0), |power, _| power.sqrt());
        let power = (0..self.shape_steps.abs()).fold(1.0, |power, _| power * root);
        let power = if self.shape_steps < 0 { 1.0 / power } else { power };
        self.scale * (power - 1.0) / self.shape()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    /// Peaks of a known tail, ascending.
    fn drawn(noise: &mut Noise, count: usize, shape: f64) -> Vec<f64> {
        let quantile = |part: f64| if shape == 0.0 { -part.ln() } else { (part.powf(-shape) - 1.0) / shape };
        let mut drawn: Vec<f64> = (0..count).map(|_| quantile(noise.uniform().max(1e-12))).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    fn level(shape: f64, peaks: f64) -> f64 {
        if shape == 0.0 { peaks.ln() } else { (peaks.powf(shape) - 1.0) / shape }
    }

    #[test]
    fn a_known_tail_is_found_again() {
        for shape in [-0.4, -0.2, 0.0, 0.1, 0.3] {
            let mut noise = Noise(17);
            let found = Pareto::fit(&drawn(&mut noise, 20_000, shape)).unwrap();
            assert!((found.shape() - shape).abs() < 0.05 && (found.scale - 1.0).abs() < 0.05, "{shape}: {found:?}");
        }
    }

    /// As few as it is asked of: how far off the level of one in a thousand peaks is, on the median and in the worst twentieth of 200 draws.
    #[test]
    fn of_a_hundred_peaks_the_level_is_about_right() {
        for (shape, usual, worst) in [(-0.2, 0.2, 0.6), (0.0, 0.25, 0.8), (0.2, 0.35, 1.2)] {
            let mut noise = Noise(18);
            let off = |noise: &mut Noise| (Pareto::fit(&drawn(noise, 100, shape)).unwrap().passed_by_one_of(1e3) / level(shape, 1e3) - 1.0).abs();
            let mut off: Vec<f64> = (0..200).map(|_| off(&mut noise)).collect();
            off.sort_by(f64::total_cmp);
            assert!(off[100] < usual && off[190] < worst, "{shape}: {} {}", off[100], off[190]);
        }
    }

    #[test]
    fn the_level_is_that_of_the_formula() {
        for steps in [-512, -100, -1, 1, 205, 512] {
            let pareto = Pareto { scale: 2.0, shape_steps: steps };
            for peaks in [1.0, 2.0, 1e3, 1e7] {
                let expected = 2.0 * level(f64::from(steps) / 1024.0, peaks);
                assert!((pareto.passed_by_one_of(peaks) - expected).abs() < 1e-9 * expected.max(1.0), "{steps} {peaks}");
            }
        }
    }

    #[test]
    fn what_has_no_tail_gives_none() {
        assert_eq!([&[][..], &[1.0], &[1.0, 2.0], &[3.0; 5], &[0.0, 1.0, f64::INFINITY]].map(Pareto::fit), [None; 5]);
    }
}
