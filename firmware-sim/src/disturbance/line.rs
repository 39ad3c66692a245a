//! A serial line that damages what it carries.
use super::Kind;
use crate::machine::Noise;

/// A boot loader's greeting, as nodes of many makes print it.
const BANNER: &[u8] = b"\r\nrst:0x1 (POWERON_RESET),boot:0x13\r\nload 0x3fff0018,len:4\r\n";
/// A babbling node fills so many bytes per turn.
const BABBLE_BYTES: usize = 256;
/// Frames lost in a row, fewest and most.
const BURST_FRAMES: (usize, usize) = (3, 8);

/// The line with what it holds back, and how many more frames the present burst costs.
#[derive(Clone, Debug)]
pub struct Line {
    noise: Noise,
    held: Option<Vec<u8>>,
    burst: usize,
}

impl Line {
    /// A line whose troubles follow a seed.
    pub fn new(seed: u64) -> Self {
        Self { noise: Noise::new(seed, 1), held: None, burst: 0 }
    }

    /// Carries an encoded frame onto `out`, past the active disturbances with their chances.
    pub fn carry(&mut self, frame: &[u8], active: impl Iterator<Item = (Kind, f64)>, out: &mut Vec<u8>) {
        let mut bytes = frame.to_vec();
        let mut copies = 1;
        let mut hold = false;
        if self.burst > 0 {
            self.burst -= 1;
            return;
        }
        for (kind, chance) in active {
            if kind == Kind::SilentPort {
                return;
            }
            if !self.noise.chance(chance) {
                continue;
            }
            match kind {
                Kind::BitFlip => {
                    let position = self.noise.below(bytes.len());
                    let bit = self.noise.below(8);
                    if let Some(byte) = bytes.get_mut(position) {
                        *byte ^= 1 << bit;
                    }
                }
                Kind::Truncation => bytes.truncate(self.noise.below(bytes.len())),
                Kind::BurstLoss => {
                    copies = 0;
                    self.burst = BURST_FRAMES.0 - 1 + self.noise.below(BURST_FRAMES.1 - BURST_FRAMES.0 + 1);
                }
                Kind::Duplicate => copies = 2,
                Kind::Reorder => hold = self.held.is_none(),
                Kind::BootBanner => out.extend_from_slice(BANNER),
                _ => {}
            }
        }
        if hold {
            self.held = Some(bytes);
            return;
        }
        (0..copies).for_each(|_| out.extend_from_slice(&bytes));
        if let Some(held) = self.held.take() {
            out.extend_from_slice(&held);
        }
    }

    /// Random bytes of a node that babbles.
    pub fn babble(&mut self, out: &mut Vec<u8>) {
        out.extend((0..BABBLE_BYTES).map(|_| self.noise.below(256) as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u8) -> Vec<u8> {
        vec![number; 20]
    }

    /// What arrives of frames 1 to `count`, one text of bytes per frame, while one kind of trouble strikes each of them or none.
    fn carried(kind: Kind, chance: f64, count: u8) -> Vec<Vec<u8>> {
        let mut line = Line::new(3);
        let carry = |number| {
            let mut out = Vec::new();
            line.carry(&frame(number), [(kind, chance)].into_iter(), &mut out);
            out
        };
        (1..=count).map(carry).collect()
    }

    #[test]
    fn each_trouble_of_a_line_does_what_it_says() {
        let bits = |bytes: &[u8]| bytes.iter().zip(frame(1)).map(|(byte, sent)| (byte ^ sent).count_ones()).sum::<u32>();
        let flipped = carried(Kind::BitFlip, 1.0, 1).concat();
        assert_eq!((flipped.len(), bits(&flipped)), (20, 1));
        let truncated = carried(Kind::Truncation, 1.0, 1).concat();
        assert!(truncated.len() < 20 && bits(&truncated) == 0, "{truncated:?}");
        assert_eq!(carried(Kind::Duplicate, 1.0, 1).concat(), [frame(1), frame(1)].concat());
        assert_eq!(carried(Kind::Reorder, 1.0, 4).concat(), [frame(2), frame(1), frame(4), frame(3)].concat());
        assert_eq!(carried(Kind::BootBanner, 1.0, 1).concat(), [BANNER, &frame(1)].concat());
        assert!(carried(Kind::SilentPort, 0.0, 3).concat().is_empty(), "silence has no chance, it lasts");
    }

    #[test]
    fn a_trouble_without_chance_strikes_nothing() {
        let sent: Vec<_> = (1..=9).map(frame).collect();
        for kind in [Kind::BitFlip, Kind::Truncation, Kind::BurstLoss, Kind::Duplicate, Kind::Reorder, Kind::BootBanner] {
            assert_eq!(carried(kind, 0.0, 9), sent, "{kind:?}");
        }
    }

    #[test]
    fn a_burst_loses_several_frames_in_a_row() {
        let arrived = carried(Kind::BurstLoss, 0.05, 250);
        let losses: Vec<_> = arrived.chunk_by(|a, b| a.is_empty() == b.is_empty()).filter(|run| run[0].is_empty()).map(<[_]>::len).collect();
        assert!(losses.len() > 3, "{losses:?}");
        // Now and then a second burst follows at once.
        assert!(losses.iter().all(|frames| *frames >= BURST_FRAMES.0), "{losses:?}");
        assert!(losses.iter().any(|frames| *frames != losses[0]), "not all of the same length: {losses:?}");
    }
}
