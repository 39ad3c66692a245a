//! A growing row of bits, eight in a byte.
use serde::{Deserialize, Serialize};

/// The bits, the first one lowest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    length: usize,
}

impl Bits {
    /// Adds one at the end.
    pub(super) fn push(&mut self, bit: bool) {
        self.bytes.resize(self.length / 8 + 1, 0);
        self.bytes[self.length / 8] |= u8::from(bit) << (self.length % 8);
        self.length += 1;
    }

    /// The one at `index`.
    pub(super) fn get(&self, index: usize) -> bool {
        self.bytes[index / 8] >> (index % 8) & 1 == 1
    }

    /// How many are set.
    pub(super) fn ones(&self) -> usize {
        self.bytes.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Keeps the first `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.bytes.truncate(self.length.div_ceil(8));
        if let Some(last) = self.bytes.last_mut().filter(|_| !self.length.is_multiple_of(8)) {
            *last &= (1 << (self.length % 8)) - 1;
        }
    }

    /// Forgets the first `count` of them, a whole number of bytes.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.bytes.drain(..count / 8);
        self.length -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_stay_in_their_places() {
        let (mut bits, set) = (Bits::default(), |index: usize| index.is_multiple_of(3));
        (0..20).for_each(|index| bits.push(set(index)));
        bits.truncate(11);
        assert_eq!(bits.ones(), 4, "those behind are gone");
        (11..30).for_each(|index| bits.push(set(index)));
        assert!((0..30).all(|index| bits.get(index) == set(index)) && bits.ones() == 10);
        bits.drop_first(16);
        assert!((16..30).all(|index| bits.get(index - 16) == set(index)) && bits.ones() == 4);
        bits.truncate(100);
        assert_eq!(bits.length, 14);
    }
}
