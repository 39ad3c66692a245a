//! What raw blocks may take of a link in a day.
use std::{collections::BTreeMap, time::Duration};

use hark_protocol::topics::{Name, Timestamp};

use super::ring::Kept;

const DAY: Duration = Duration::from_secs(86_400);

/// Bytes of a day, which come back evenly over the next one.
#[derive(Debug)]
pub(super) struct Budget {
    per_day: u64,
    left: f64,
    at: Duration,
    /// Of the newest block of a point that was to be sent, by asset and point.
    sizes: BTreeMap<(Name, Name), u64>,
}

/// Why there is none left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Spent {
    /// Until so much has come back.
    For(Duration),
    /// More than there ever is.
    ForEver(u64),
}

impl Spent {
    /// For a person, at the time `now`.
    pub(super) fn words(self, per_day: u64, now: Timestamp) -> String {
        match self {
            Self::For(wait) => {
                let again_us = now.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
                // The next whole second: by then it has come back.
                let again = Timestamp(again_us.div_euclid(1_000_000).saturating_add(1).saturating_mul(1_000_000));
                format!("the {per_day} bytes of a day for raw blocks (`per_day` of `[snapshots]`) are used up; possible again from {again} on")
            }
            Self::ForEver(bytes) => format!("it has {bytes} bytes, more than the {per_day} of a day (`per_day` of `[snapshots]`)"),
        }
    }
}

impl Budget {
    pub(super) fn new(per_day: u64, now: Duration) -> Self {
        Self { per_day, left: per_day as f64, at: now, sizes: BTreeMap::new() }
    }

    pub(super) fn per_day(&self) -> u64 {
        self.per_day
    }

    /// How large the newest block of `point` was.
    pub(super) fn known(&self, asset: &Name, point: &Name) -> Option<u64> {
        self.sizes.get(&(asset.clone(), point.clone())).copied()
    }

    /// Why `bytes` cannot be taken now; `None` where they can.
    pub(super) fn spent(&mut self, bytes: u64, now: Duration) -> Option<Spent> {
        let per_second = self.per_day as f64 / DAY.as_secs_f64();
        let back = per_second * now.saturating_sub(self.at).as_secs_f64();
        (self.left, self.at) = ((self.left + back).min(self.per_day as f64), now);
        if bytes > self.per_day {
            return Some(Spent::ForEver(bytes));
        }
        let missing = bytes as f64 - self.left;
        (missing > 0.0).then(|| Spent::For(Duration::from_secs_f64(missing / per_second)))
    }

    pub(super) fn take(&mut self, point: &Name, block: &Kept, now: Duration) -> Result<(), Spent> {
        let bytes = bytes_of(block);
        self.sizes.insert((block.stamp.asset.clone().unwrap_or_default(), point.clone()), bytes);
        match self.spent(bytes, now) {
            Some(spent) => Err(spent),
            None => {
                self.left -= bytes as f64;
                Ok(())
            }
        }
    }
}

/// What a block takes of the budget.
pub(super) fn bytes_of(block: &Kept) -> u64 {
    2 * block.counts.len() as u64
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::{Clock, Origin, TsSource};

    use super::*;
    use crate::record::Stamp;

    fn block(bytes: usize) -> Kept {
        let stamp = Stamp {
            asset: Some("pump".into()),
            ts: Timestamp(7_000_000),
            ts_source: TsSource::Sensor,
            clock: Clock::Synced,
            origin: Origin::Simulated,
        };
        Kept { stamp, fs_hz: 12_000.0, unit: "[g]".into(), scale: 0.001, counts: vec![1; bytes / 2], speed_hz: None }
    }

    #[test]
    fn a_budget_is_used_up_and_comes_back() {
        let at = |hours: u64| Duration::from_secs(3_600 * (100 + hours));
        let mut budget = Budget::new(2_400, at(0));
        let mut take = |bytes: usize, hours: u64| budget.take(&"de-h".into(), &block(bytes), at(hours));
        let hours = |hours: u64| Spent::For(Duration::from_secs(3_600 * hours));
        assert_eq!([take(2_000, 0), take(500, 0), take(400, 0)], [Ok(()), Err(hours(1)), Ok(())]);
        assert_eq!([take(202, 2), take(200, 2)], [Err(Spent::For(Duration::from_secs(72))), Ok(())]);
        assert_eq!([take(2_402, 1_000), take(2_400, 1_000)], [Err(Spent::ForEver(2_402)), Ok(())]);
        assert_eq!(Budget::new(0, at(0)).spent(1, at(50)), Some(Spent::ForEver(1)));
    }

    #[test]
    fn a_refusal_says_from_when_on_it_is_possible_again() {
        let said = |spent: Spent| spent.words(5, Timestamp(7_000_000));
        let later = said(Spent::For(Duration::from_millis(1_500)));
        assert!(later.ends_with("are used up; possible again from 1970-01-01T00:00:09.000000Z on"), "{later}");
        assert!(said(Spent::ForEver(9)).contains("it has 9 bytes, more than the 5 of a day"));
    }
}
