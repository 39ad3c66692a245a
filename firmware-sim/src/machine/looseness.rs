//! A part that is loose lifts off and lands: the movement is cut off, so that many orders of the shaft show, and where it lands every other turn, halves of them
//! (domain reference section 7).
use super::noise::Noise;

/// Orders that show: halves of the shaft's, up to 10x.
const HALVES: usize = 20;

/// Orders of a loose machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Looseness {
    /// Velocity RMS at 1x, mm/s.
    pub velocity_mm_s: f64,
    /// Each order over that before it.
    pub decay: f64,
    /// Half orders over what a whole one would have there.
    pub halves: f64,
    /// How much an order changes from block to block, as a part of it.
    pub unrest: f64,
}

impl Looseness {
    /// Order and velocity RMS in mm/s of what shows in one block.
    pub fn orders(&self, noise: &mut Noise) -> [(f64, f64); HALVES] {
        core::array::from_fn(|index| {
            let order = (index + 1) as f64 / 2.0;
            let part = if index % 2 == 0 { self.halves } else { 1.0 };
            let varied = (1.0 + self.unrest * noise.gauss()).max(0.1);
            (order, part * varied * self.velocity_mm_s * libm::pow(self.decay, order - 1.0))
        })
    }
}
