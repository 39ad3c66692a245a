//! A serial line that damages what it carries.
use super::Kind;
use crate::machine::Noise;

/// A boot loader's greeting, as nodes of many makes print it.
const BANNER: &[u8] = b"\r\nrst:0x1 (POWERON_RESET),boot:0x13\r\nload 0x3fff0018,len:4\r\n";
/// A babbling node fills so many bytes per turn.
const BABBLE_BYTES: usize = 256;

/// The line with what it holds back.
#[derive(Clone, Debug)]
pub struct Line {
    noise: Noise,
    held: Option<Vec<u8>>,
}

impl Line {
    /// A line whose troubles follow a seed.
    pub fn new(seed: u64) -> Self {
        Self { noise: Noise::new(seed, 1), held: None }
    }

    /// Carries an encoded frame onto `out`, past the active disturbances with their chances.
    pub fn carry(&mut self, frame: &[u8], active: impl Iterator<Item = (Kind, f64)>, out: &mut Vec<u8>) {
        let mut bytes = frame.to_vec();
        let mut copies = 1;
        let mut hold = false;
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
                Kind::BurstLoss => copies = 0,
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
