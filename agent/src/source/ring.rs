//! The newest raw blocks of a waveform, in memory, for whoever wants to look at more than features.
use std::{collections::VecDeque, sync::Arc};

use hark_protocol::topics::Name;

use super::decode::Block;
use crate::record::Stamp;

/// Of one waveform so many blocks at most.
const BLOCKS_MAX: usize = 4;
/// Largest count of a sample.
const COUNT_MAX: f64 = 32_767.0;
/// A sample this near to a whole count is one.
const COUNT_TOLERANCE: f64 = 1e-6;

/// A block as it came, in counts of 16 bits.
#[derive(Debug, PartialEq)]
pub struct Kept {
    /// As its features have it: the time is that of the last sample.
    pub stamp: Stamp,
    /// Sampling rate, Hz.
    pub fs_hz: f64,
    /// UCUM unit of a count times `scale`.
    pub unit: Name,
    /// Physical value of one count.
    pub scale: f64,
    /// The samples.
    pub counts: Vec<i16>,
    /// Shaft speed at the time, Hz.
    pub speed_hz: Option<f64>,
}

impl Kept {
    /// Takes over a `block`: exactly, where its samples are counts of 16 bits by its own scale; else to a part in 65 534 of its range.
    pub fn of(block: &Block, stamp: Stamp, unit: Name, speed_hz: Option<f64>) -> Self {
        let is_count = |sample: &f64| {
            let count = sample / block.scale;
            count.abs() <= COUNT_MAX && (count - count.round()).abs() <= COUNT_TOLERANCE
        };
        let largest = block.samples.iter().fold(0.0_f64, |largest, sample| largest.max(sample.abs()));
        let scale = match block.samples.iter().all(is_count) {
            true => block.scale,
            false => largest / COUNT_MAX,
        };
        // Within the range by the choice of the scale.
        let counts = block.samples.iter().map(|sample| (sample / scale).round() as i16).collect();
        Self { stamp, fs_hz: block.fs_hz, unit, scale, counts, speed_hz }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.counts.len()
    }
}

/// The newest blocks of one waveform, within a limit of bytes.
#[derive(Debug)]
pub struct Ring {
    max_bytes: usize,
    blocks: VecDeque<Arc<Kept>>,
}

impl Ring {
    /// One that keeps up to `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, blocks: VecDeque::new() }
    }

    /// It keeps nothing by intent.
    pub fn is_off(&self) -> bool {
        self.max_bytes == 0
    }

    /// Keeps `block` and forgets older ones for it; false where it alone is beyond the limit.
    pub fn keep(&mut self, block: Kept) -> bool {
        if block.bytes() > self.max_bytes {
            return false;
        }
        self.blocks.push_back(Arc::new(block));
        while self.blocks.len() > BLOCKS_MAX || self.blocks.iter().map(|kept| kept.bytes()).sum::<usize>() > self.max_bytes {
            self.blocks.pop_front();
        }
        true
    }

    /// Those that are kept, the oldest first.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = &Arc<Kept>> {
        self.blocks.iter()
    }
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::{Clock, Origin, Timestamp, TsSource};

    use super::*;

    fn kept(scale: f64, samples: &[f64]) -> Kept {
        let stamp = Stamp { asset: None, ts: Timestamp(0), ts_source: TsSource::Sensor, clock: Clock::Synced, origin: Origin::Simulated };
        Kept::of(&Block { fs_hz: 1_000.0, unit: None, scale, samples: samples.to_vec() }, stamp, "[g]".into(), None)
    }

    #[test]
    fn counts_are_kept_as_they_came_and_other_samples_as_well_as_16_bits_can() {
        let exact = kept(0.001, &[0.001, -32.767, 0.0, 1.234]);
        assert_eq!((exact.scale, &exact.counts[..]), (0.001, &[1, -32_767, 0, 1_234][..]));
        for (scale, samples) in [(1.0, [0.5, -0.25]), (1.0, [70_000.0, -3.0]), (0.0, [1.0, 2.0])] {
            let kept = kept(scale, &samples);
            for (count, sample) in kept.counts.iter().zip(samples) {
                assert!((f64::from(*count) * kept.scale - sample).abs() <= samples[0].abs().max(samples[1].abs()) / 65_534.0, "{kept:?}");
            }
        }
        assert_eq!(kept(0.0, &[0.0; 3]).counts, [0; 3]);
    }

    #[test]
    fn the_newest_blocks_stay_within_the_limit() {
        let (one, number) = (kept(1.0, &[0.0; 100]).bytes(), |kept: &Kept| kept.counts[0]);
        let mut ring = Ring::new(2 * one + 1);
        assert!((0..5).all(|n| ring.keep(kept(1.0, &[f64::from(n); 100]))));
        assert_eq!(ring.blocks().map(|kept| number(kept)).collect::<Vec<_>>(), [3, 4]);
        assert!(!ring.keep(kept(1.0, &[9.0; 1_000])), "too large alone");
        assert_eq!(ring.blocks().count(), 2);
        let mut ring = Ring::new(1 << 20);
        assert!((0..9).all(|n| ring.keep(kept(1.0, &[f64::from(n); 100]))));
        assert_eq!(ring.blocks().map(|kept| number(kept)).collect::<Vec<_>>(), [5, 6, 7, 8]);
    }
}
