//! Whether a block was cut at the end of what its sensor, or converter, can tell.
//!
//! What moves freely has few samples at its very end: each step down from there it has more, or, where it turns slowly as a sine does, at most some times
//! fewer. What is cut piles up at its end all that would lie beyond. So the samples at an end are counted against those at the next values that occur.
//!
//! Equal samples in a row would say less: a slow sine of few counts has them without being cut, and of a resonance at a third of the sampling rate a cut
//! leaves one or two. A converter's counts fall into steps of a thousandth, and so does the noise on a cut that an amplifier makes.

/// Steps of the whole span; the first and the last of them are its ends.
const STEPS: usize = 1_000;
/// Cut: so many samples at an end for each at the next values. A sine has 2.4 at most, of few counts too, a flattened wave up to 6.
const PILED_UP: u32 = 16;
/// The next values: so many, since a tone that meets the same few values in each turn has stray ones beside them.
const NEXT: usize = 8;
/// Values that occur, at least: a signal of fewer jumps from one to the other, and nothing is next.
const VALUES_MIN: usize = 64;

/// True where `samples`, all finite, were cut at either end.
pub fn is_clipped(samples: &[f64]) -> bool {
    let (low, high) = samples.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), sample| (low.min(*sample), high.max(*sample)));
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        return false;
    }
    is_piled_up(samples.iter().map(|sample| (high - sample) / span)) || is_piled_up(samples.iter().map(|sample| (sample - low) / span))
}

/// Whether many of these distances from an end, as parts of the span, are nearly 0, and few follow next.
fn is_piled_up(distances: impl Iterator<Item = f64>) -> bool {
    let mut counts = [0u32; STEPS];
    for distance in distances {
        counts[((STEPS as f64 * distance) as usize).min(STEPS - 1)] += 1;
    }
    let [at_end, others @ ..] = &counts;
    let values = || others.iter().copied().filter(|count| *count > 0);
    let next = values().take(NEXT).max().unwrap_or(0);
    values().count() >= VALUES_MIN && *at_end >= PILED_UP * next
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::signal::simulated::{Machine, Noise, Strikes};

    const LENGTH: usize = 8_192;

    /// A sine of `amplitude` with `turn` samples a period.
    fn sine(amplitude: f64, turn: f64, phase: f64) -> Vec<f64> {
        (0..LENGTH).map(|i| amplitude * (TAU * i as f64 / turn + phase).sin()).collect()
    }

    fn gaussian(deviation: f64) -> Vec<f64> {
        let mut noise = Noise(7);
        (0..LENGTH).map(|_| deviation * noise.next()).collect()
    }

    fn struck() -> Vec<f64> {
        Machine { strikes: Some(Strikes::at(107.4, 20.0)), ..Machine::healthy(1) }.samples()
    }

    fn counts(samples: &[f64]) -> Vec<f64> {
        samples.iter().map(|sample| sample.round()).collect()
    }

    fn cut(samples: &[f64], low: f64, high: f64) -> Vec<f64> {
        samples.iter().map(|sample| sample.clamp(low, high)).collect()
    }

    #[test]
    fn a_healthy_signal_is_not_cut_whatever_its_resolution() {
        assert!(!is_clipped(&struck()) && !is_clipped(&Machine::healthy(1).samples()), "a machine");
        for deviation in [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 3_000.0] {
            assert!(!is_clipped(&gaussian(deviation)) && !is_clipped(&counts(&gaussian(deviation))), "noise of {deviation} counts");
        }
        for amplitude in [0.6, 1.0, 2.5, 7.3, 31.5, 32.0, 40.4, 100.49, 127.5, 500.0, 511.5, 2_047.0, 32_000.3] {
            for turn in [3.0, 4.0, 5.0, 6.0, 8.0, 16.0, 17.3, 64.0, 100.7, 400.0, 2_000.0, 8_192.0] {
                for phase in [0.0, 0.3, 0.8, 1.1] {
                    let sine = sine(amplitude, turn, phase);
                    let mut noisy = sine.clone();
                    noisy.iter_mut().zip(gaussian(0.4)).for_each(|(sample, noise)| *sample += noise);
                    for (samples, what) in [(&sine, "plain"), (&counts(&sine), "in counts"), (&counts(&noisy), "in counts, with noise")] {
                        assert!(!is_clipped(samples), "{what}: {amplitude} counts, {turn} samples a period, phase {phase}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_cut_signal_is_cut_at_either_end_and_in_counts() {
        let sine = sine(1_000.0, 100.7, 0.3);
        for (low, high) in [(-2_000.0, 950.0), (-950.0, 2_000.0), (-700.0, 700.0)] {
            assert!(is_clipped(&cut(&sine, low, high)) && is_clipped(&counts(&cut(&sine, low, high))), "a sine between {low} and {high}");
        }
        // The resonance of the strikes is at 3.7 samples a period: one or two of them reach the end at a time.
        assert!(is_clipped(&cut(&struck(), -5.0, 5.0)), "strikes of 20 at 5");
        assert!(is_clipped(&cut(&gaussian(1_000.0), -2_000.0, 2_000.0)), "noise at two deviations");
        // An amplifier at its end, and the noise of the converter behind it.
        let noisy: Vec<f64> = cut(&sine, -900.0, 900.0).iter().zip(gaussian(0.2)).map(|(sample, noise)| sample + noise).collect();
        assert!(is_clipped(&counts(&noisy)), "a cut with noise on it");
    }

    #[test]
    fn what_hardly_moves_or_jumps_is_not_called_cut() {
        for samples in [vec![], vec![1.0], vec![3.0; LENGTH], counts(&sine(1.4, 100.7, 0.0)), cut(&sine(1e6, 100.0, 0.0), -1.0, 1.0)] {
            assert!(!is_clipped(&samples), "{} samples", samples.len());
        }
        assert!(!is_clipped(&[f64::MAX, f64::MIN]), "a span beyond all numbers");
    }
}
