//! How often the values of a point come: one that is read seldom is no older than its next one is due.
//!
//! A value counts for the asset's stale limit, and where the two before it came farther apart than half of that, for twice their distance. So points of
//! a block every ten minutes are judged without a stale limit of their own, and a gap among values that come each second is one.
use std::collections::BTreeMap;

use hark_protocol::topics::{Name, Timestamp};
use serde::{Deserialize, Serialize};

/// The cadence of an asset's points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cadence {
    /// The newest usable value of a point, and how long after the one before it that came, microseconds.
    points: BTreeMap<Name, (Timestamp, i64)>,
}

impl Cadence {
    /// A usable value of `point` came at `ts`.
    pub(super) fn take(&mut self, point: &Name, ts: Timestamp) {
        match self.points.get_mut(point) {
            Some(known) => *known = (ts, ts.0.saturating_sub(known.0.0).max(0)),
            None => drop(self.points.insert(point.clone(), (ts, 0))),
        }
    }

    /// How long a value of `point` counts, where the asset's stale limit is `stale_us`.
    pub(super) fn lasts_us(&self, point: &Name, stale_us: i64) -> i64 {
        self.points.get(point).map_or(stale_us, |(_, apart_us)| stale_us.max(apart_us.saturating_mul(2)))
    }

    /// What came before is not continued.
    pub(super) fn restart(&mut self) {
        self.points.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_until_the_one_after_the_next_is_due() {
        let (mut cadence, point) = (Cadence::default(), Name::from("de"));
        let mut after = |ts: i64| {
            cadence.take(&point, Timestamp(ts));
            cadence.lasts_us(&point, 50)
        };
        assert_eq!([0, 10, 20, 320, 330].map(&mut after), [50, 50, 50, 600, 50], "a single gap is soon forgotten");
        assert_eq!([930, 1_530].map(&mut after), [1_200, 1_200]);
        assert_eq!(after(7), 50, "the clock was set back");
        cadence.restart();
        assert_eq!(cadence, Cadence::default());
        assert_eq!(cadence.lasts_us(&point, 50), 50);
    }
}
