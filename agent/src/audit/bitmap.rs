//! Which seqs were seen: a bit each, in pieces, so that what lies far apart costs little and 100 million records cost 12 MB.
use std::{collections::BTreeMap, ops::RangeInclusive};

const WORDS: u64 = 512;
const PIECE: u64 = WORDS * 64;

/// A set of seqs.
#[derive(Clone, Debug, Default)]
pub struct Bitmap {
    pieces: BTreeMap<u64, Box<[u64; WORDS as usize]>>,
    highest: u64,
}

impl Bitmap {
    /// Adds `seq`; false if it was there.
    pub fn insert(&mut self, seq: u64) -> bool {
        let piece = self.pieces.entry(seq / PIECE).or_insert_with(|| Box::new([0; WORDS as usize]));
        let word = &mut piece[(seq % PIECE / 64) as usize];
        let bit = 1 << (seq % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.highest = self.highest.max(seq);
        new
    }

    /// The highest seq; 0 if there is none.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// How many seqs of `range` are there.
    pub fn count(&self, range: RangeInclusive<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        range.end() - range.start() + 1 - self.absent(range).map(|absent| absent.end() - absent.start() + 1).sum::<u64>()
    }

    /// The seqs of `range` that are not there, in order, as ranges that do not touch.
    pub fn absent(&self, range: RangeInclusive<u64>) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let end = *range.end();
        let mut at = Some(*range.start());
        std::iter::from_fn(move || {
            let from = self.next(at?, end, false)?;
            let to = self.next(from, end, true).map_or(end, |present| present - 1);
            at = to.checked_add(1);
            Some(from..=to)
        })
    }

    /// The first seq from `at` to `end` that is there, or is not.
    fn next(&self, mut at: u64, end: u64, present: bool) -> Option<u64> {
        while at <= end {
            let Some((piece, words)) = self.pieces.range(at / PIECE..).next() else { return (!present).then_some(at) };
            let begin = piece * PIECE;
            if begin > at {
                if !present {
                    return Some(at);
                }
                at = begin;
                continue;
            }
            let offset = at - begin;
            let word = words[(offset / 64) as usize];
            let wanted = (if present { word } else { !word }) >> (offset % 64);
            if wanted != 0 {
                return Some(at + u64::from(wanted.trailing_zeros())).filter(|found| *found <= end);
            }
            at = begin + (offset / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(seqs in prop::collection::vec(prop_oneof![1..300_u64, 32_700..32_900_u64, 98_000..98_400_u64], 0..400), from in 1..100_000_u64, length in 0..100_000_u64) {
            let (mut bitmap, mut set) = (Bitmap::default(), BTreeSet::new());
            for seq in seqs {
                prop_assert_eq!(bitmap.insert(seq), set.insert(seq));
            }
            let range = from..=from + length;
            prop_assert_eq!(bitmap.highest(), set.last().copied().unwrap_or(0));
            prop_assert_eq!(bitmap.count(range.clone()), set.range(range.clone()).count() as u64);
            let absent: Vec<u64> = bitmap.absent(range.clone()).flatten().collect();
            prop_assert_eq!(absent, range.filter(|seq| !set.contains(seq)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_far_away_costs_nothing() {
        let mut bitmap = Bitmap::default();
        assert!(bitmap.insert(1 << 52) && bitmap.insert(7));
        assert_eq!(bitmap.absent(1..=1 << 53).collect::<Vec<_>>(), [1..=6, 8..=(1 << 52) - 1, (1 << 52) + 1..=1 << 53]);
        assert_eq!((bitmap.pieces.len(), bitmap.count(5..=4)), (2, 0));
    }
}
