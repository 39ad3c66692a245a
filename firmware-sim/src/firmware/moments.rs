//! Statistics of a block at the full rate, in one pass and without storing it.

/// Sums of one block. Samples are already near zero mean, so the raw sums do not cancel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    count: u32,
    sums: [f64; 4],
    low: f32,
    high: f32,
}

/// What the sums of a block say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Root mean square about the mean, in the unit of the samples.
    pub rms: f32,
    /// Largest distance from the mean over RMS; 1.414 for a sine.
    pub crest: f32,
    /// Fourth over squared second central moment; 1.5 for a sine, 3 for Gaussian noise.
    pub kurtosis: f32,
    /// Highest minus lowest sample.
    pub peak_to_peak: f32,
}

impl Moments {
    /// Adds a sample.
    pub fn push(&mut self, x: f32) {
        (self.low, self.high) = if self.count == 0 { (x, x) } else { (self.low.min(x), self.high.max(x)) };
        self.count += 1;
        let x = f64::from(x);
        let x2 = x * x;
        self.sums[0] += x;
        self.sums[1] += x2;
        self.sums[2] += x2 * x;
        self.sums[3] += x2 * x2;
    }

    /// The block's shape; `None` for an empty block or one without any movement, whose ratios do not exist.
    pub fn shape(&self) -> Option<Shape> {
        if self.count == 0 || self.low == self.high {
            return None;
        }
        let [m1, m2, m3, m4] = self.sums.map(|sum| sum / f64::from(self.count));
        let variance = m2 - m1 * m1;
        let fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1 * m1 * m1 * m1;
        let rms = libm::sqrt(variance);
        let peak = (f64::from(self.high) - m1).max(m1 - f64::from(self.low));
        Some(Shape {
            rms: rms as f32,
            crest: (peak / rms) as f32,
            kurtosis: (fourth / (variance * variance)) as f32,
            peak_to_peak: self.high - self.low,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_has_its_known_shape() {
        let mut moments = Moments::default();
        for index in 0..10_000 {
            moments.push(0.3 + 2.0 * libm::sinf(core::f32::consts::TAU * index as f32 / 100.0));
        }
        let shape = moments.shape().expect("a sine moves");
        assert!((shape.rms - core::f32::consts::SQRT_2).abs() < 1e-4, "{shape:?}");
        assert!((shape.crest - core::f32::consts::SQRT_2).abs() < 1e-3, "{shape:?}");
        assert!((shape.kurtosis - 1.5).abs() < 1e-3, "{shape:?}");
        assert!((shape.peak_to_peak - 4.0).abs() < 1e-3, "{shape:?}");
    }

    #[test]
    fn a_stuck_sensor_has_no_shape() {
        let mut moments = Moments::default();
        assert_eq!(moments.shape(), None);
        (0..100).for_each(|_| moments.push(1.0));
        assert_eq!(moments.shape(), None);
    }
}
