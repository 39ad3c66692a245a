//! Features of a block in the time domain, mean removed.

/// Moments and extremes of a block about its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Root mean square, in the unit of the samples.
    pub rms: f64,
    /// Largest absolute value over RMS; 1.414 for a sine.
    pub crest: Option<f64>,
    /// Fourth moment over squared second: 1.5 for a sine, 3 for Gaussian noise, more for impacts.
    pub kurtosis: Option<f64>,
    /// Third moment over second to the power of 1.5; 0 for a symmetric signal.
    pub skewness: Option<f64>,
    /// Largest minus smallest value.
    pub peak_to_peak: f64,
}

/// Shape of `samples`, whose mean is `mean`; `None` for an empty block. Ratios are `None` where the signal is constant.
pub fn shape(samples: &[f64], mean: f64) -> Option<Shape> {
    if samples.is_empty() {
        return None;
    }
    let (mut second, mut third, mut fourth) = (0.0, 0.0, 0.0);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for sample in samples {
        let x = sample - mean;
        let square = x * x;
        second += square;
        third += square * x;
        fourth += square * square;
        low = low.min(x);
        high = high.max(x);
    }
    let count = samples.len() as f64;
    let variance = second / count;
    let rms = variance.sqrt();
    // Rounding of the mean leaves a trace of movement in a constant signal; dividing by it would make a shape out of nothing.
    let moves = rms > 1e-12 * mean.abs().max(f64::MIN_POSITIVE);
    let ratio = |value: f64| (moves && value.is_finite()).then_some(value);
    Some(Shape {
        rms,
        crest: ratio(high.max(-low) / rms),
        kurtosis: ratio(fourth / count / (variance * variance)),
        skewness: ratio(third / count / (variance * rms)),
        peak_to_peak: high - low,
    })
}

/// True where several `samples` are all equal: no machine is so still that its sensor shows nothing at all.
pub fn is_flat(samples: &[f64]) -> bool {
    samples.len() > 1 && samples.windows(2).all(|pair| pair[0] == pair[1])
}

/// Mean of a block; 0 for an empty one.
pub fn mean(samples: &[f64]) -> f64 {
    if samples.is_empty() { 0.0 } else { samples.iter().sum::<f64>() / samples.len() as f64 }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{SQRT_2, TAU};

    use super::*;

    #[test]
    fn a_sine_on_gravity() {
        let samples: Vec<f64> = (0..8000).map(|i| 1.0 + 0.5 * (TAU * 40.0 * f64::from(i) / 8000.0).sin()).collect();
        let shape = shape(&samples, mean(&samples)).unwrap();
        let near = |actual: f64, expected: f64| assert!((actual - expected).abs() < 1e-9, "{actual} for {expected}");
        near(shape.rms, 0.5 / SQRT_2);
        near(shape.crest.unwrap(), SQRT_2);
        near(shape.kurtosis.unwrap(), 1.5);
        near(shape.skewness.unwrap(), 0.0);
        near(shape.peak_to_peak, 1.0);
    }

    #[test]
    fn a_skewed_signal() {
        // One of four values at 3, the rest at -1: m2 = 3, m3 = 6, m4 = 21.
        let samples = [3.0, -1.0, -1.0, -1.0];
        let shape = shape(&samples, 0.0).unwrap();
        assert!((shape.skewness.unwrap() - 6.0 / 3.0f64.powf(1.5)).abs() < 1e-12);
        assert!((shape.kurtosis.unwrap() - 21.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn a_constant_signal_has_no_shape() {
        let samples = [0.1; 1000];
        let shape = shape(&samples, mean(&samples)).unwrap();
        assert_eq!((shape.crest, shape.kurtosis, shape.skewness), (None, None, None));
        assert_eq!(super::shape(&[], 0.0), None);
    }

    #[test]
    fn equal_samples_are_a_flat_line() {
        assert_eq!(
            [&[0.0; 4][..], &[9.81; 2], &[0.0, 0.0, 1e-9], &[f64::NAN; 3], &[1.0], &[]].map(is_flat),
            [true, true, false, false, false, false]
        );
    }
}
