//! Counting what came back, by (gateway, incarnation, lane, seq): delivered, missing, twice. Pure.
use std::collections::{BTreeMap, BTreeSet};

use hark_protocol::topics::LaneName;

/// One lane of one incarnation of one gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Gateway id.
    pub gateway: String,
    /// Incarnation.
    pub incarnation: String,
    /// Lane.
    pub lane: LaneName,
}

/// What came back of one stretch.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// All of 1 to here.
    through: u64,
    /// Beyond the first missing one; records of a lane spread over partitions, so short holes are normal while it runs.
    ahead: BTreeSet<u64>,
    duplicates: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<Stretch, Tally>);

impl Ledger {
    /// Takes the record `seq` of `stretch`; false if it was there already.
    pub fn take(&mut self, stretch: Stretch, seq: u64) -> bool {
        self.0.entry(stretch).or_default().take(seq)
    }

    /// Different records that came back.
    pub fn delivered(&self) -> u64 {
        self.0.values().map(Tally::delivered).sum()
    }

    /// Different records of `lane` that came back.
    pub fn delivered_in(&self, lane: LaneName) -> u64 {
        self.0.iter().filter(|(stretch, _)| stretch.lane == lane).map(|(_, tally)| tally.delivered()).sum()
    }

    /// Records that came back again.
    pub fn duplicates(&self) -> u64 {
        self.0.values().map(|tally| tally.duplicates).sum()
    }

    /// Seqs below the highest that came back and that did not come themselves.
    pub fn holes(&self) -> u64 {
        self.0.values().map(|tally| tally.missing(tally.highest())).sum()
    }

    /// Of the records 1 to `last` of `stretch`, those that never came back.
    pub fn missing(&self, stretch: &Stretch, last: u64) -> u64 {
        self.0.get(stretch).map_or(last, |tally| tally.missing(last))
    }

    /// The highest seq that came back, by stretch.
    pub fn highest(&self) -> impl Iterator<Item = (&Stretch, u64)> {
        self.0.iter().map(|(stretch, tally)| (stretch, tally.highest()))
    }
}

impl Tally {
    fn take(&mut self, seq: u64) -> bool {
        if seq <= self.through || !self.ahead.insert(seq) {
            self.duplicates += 1;
            return false;
        }
        while self.ahead.remove(&(self.through + 1)) {
            self.through += 1;
        }
        true
    }

    fn delivered(&self) -> u64 {
        self.through + self.ahead.len() as u64
    }

    fn highest(&self) -> u64 {
        self.ahead.last().copied().unwrap_or(self.through)
    }

    fn missing(&self, last: u64) -> u64 {
        last.saturating_sub(self.through + self.ahead.range(..=last).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(incarnation: &str, lane: LaneName) -> Stretch {
        Stretch { gateway: "gw".into(), incarnation: incarnation.into(), lane }
    }

    fn inputs() -> Stretch {
        stretch("a", LaneName::Inputs)
    }

    #[test]
    fn order_does_not_matter() {
        let mut ledger = Ledger::default();
        for seq in [3, 1, 5, 2, 4] {
            assert!(ledger.take(inputs(), seq), "{seq}");
        }
        assert_eq!((ledger.delivered(), ledger.holes(), ledger.duplicates(), ledger.missing(&inputs(), 5)), (5, 0, 0, 0));
    }

    #[test]
    fn a_hole_is_found_inside_and_at_the_end() {
        let mut ledger = Ledger::default();
        for seq in [1, 2, 4, 7] {
            ledger.take(inputs(), seq);
        }
        assert_eq!(ledger.holes(), 3, "3, 5 and 6");
        assert_eq!(ledger.missing(&inputs(), 9), 5, "8 and 9 were accepted too");
        assert_eq!(ledger.missing(&inputs(), 4), 1);
        assert_eq!(ledger.missing(&stretch("a", LaneName::Alarms), 2), 2, "nothing of that lane came at all");
    }

    #[test]
    fn a_record_that_comes_again_is_a_duplicate_and_not_a_delivery() {
        let mut ledger = Ledger::default();
        for (seq, first) in [(1, true), (1, false), (3, true), (3, false), (2, true), (2, false)] {
            assert_eq!(ledger.take(inputs(), seq), first, "{seq}");
        }
        assert_eq!((ledger.delivered(), ledger.duplicates(), ledger.holes()), (3, 3, 0));
    }

    #[test]
    fn incarnations_and_lanes_count_apart() {
        let mut ledger = Ledger::default();
        for stretch in [inputs(), stretch("b", LaneName::Inputs), stretch("a", LaneName::Events)] {
            assert!(ledger.take(stretch, 1));
        }
        assert_eq!((ledger.delivered(), ledger.delivered_in(LaneName::Inputs), ledger.duplicates()), (3, 2, 0));
        assert_eq!(ledger.highest().count(), 3);
    }
}
