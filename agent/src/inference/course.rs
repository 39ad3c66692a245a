//! How one point moves: the run of equal readings that it is in, and what was learned of such runs and of its values while the machine ran.
use hark_protocol::topics::Timestamp;
use serde::{Deserialize, Serialize};

use super::still::Found;

/// A point that changed more rarely while it was learned is not judged.
const CHANGES_LEAST: f64 = 0.1;
/// Chance of a run of equal readings that is called stuck, as an independent change at each reading has it.
const CHANCE: f64 = 1e-9;
/// So many times the longest run that was learned.
const TIMES_LONGEST: u32 = 10;
/// No run that is shorter is called stuck.
pub(super) const RUN_LEAST: u32 = 30;

/// How one point moves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Course {
    pub(super) last: Option<f64>,
    /// Readings in a row with the last value, of the present run of the machine.
    pub(super) run: u32,
    pub(super) found: Found,
    pub(super) learned: Option<Learned>,
    pub(super) unsettled: Option<Unsettled>,
    /// Of a machine that did not run while it was learned: readings where the point is in running too, of so many.
    pub(super) stopped: (u32, u32),
}

/// What was seen of a point while normal was learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Learned {
    pub(super) readings: u32,
    pub(super) changes: u32,
    /// Longest run of equal readings.
    pub(super) longest: u32,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// What was seen lately, which a stop would show to be of a machine that had begun to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Unsettled {
    since: Timestamp,
    /// From then on.
    newer: Learned,
    /// As long before.
    older: Option<Learned>,
}

impl Course {
    /// What was seen for as long as a stop takes to show at least is learned.
    pub(super) fn learn(&mut self, ts: Timestamp, seen: Learned, settle_us: i64) {
        if settle_us == 0 {
            return Learned::add(&mut self.learned, seen);
        }
        let Some(unsettled) = &mut self.unsettled else {
            self.unsettled = Some(Unsettled { since: ts, newer: seen, older: None });
            return;
        };
        if ts.0.saturating_sub(unsettled.since.0) < settle_us {
            return unsettled.newer.join(seen);
        }
        if let Some(older) = unsettled.older.replace(unsettled.newer) {
            Learned::add(&mut self.learned, older);
        }
        (unsettled.since, unsettled.newer) = (ts, seen);
    }

    /// Equal readings in a row with which it stands; `None` where it is not judged.
    pub(super) fn run_most(&self) -> Option<u32> {
        let learned = self.learned?;
        let share = f64::from(learned.changes) / f64::from(learned.readings);
        // At most some 200, by the least share.
        let by_chance = if share < 1.0 { (CHANCE.ln() / (1.0 - share).ln()).ceil() as u32 } else { 0 };
        (share >= CHANGES_LEAST).then(|| by_chance.max(learned.longest.saturating_mul(TIMES_LONGEST)).max(RUN_LEAST))
    }

    /// It is elsewhere when the machine does not run, unless that was not seen. A kurtosis is at 3 in any noise.
    pub(super) fn shows_stops(&self) -> bool {
        2 * u64::from(self.stopped.0) <= u64::from(self.stopped.1)
    }

    /// Its value has stood for longer than chance explains.
    pub(super) fn stands(&self) -> bool {
        self.run_most().is_some_and(|most| self.run >= most)
    }

    /// It stands no longer than it did while it was learned.
    pub(super) fn moves(&self) -> bool {
        self.learned.is_some_and(|learned| (1..=learned.longest).contains(&self.run))
    }

    /// It is within what was learned and so many times its span on either side.
    pub(super) fn is_within(&self, spans: f64) -> bool {
        self.learned.zip(self.last).is_some_and(|(learned, value)| {
            let more = spans * (learned.high - learned.low);
            (learned.low - more..=learned.high + more).contains(&value)
        })
    }
}

impl Learned {
    /// One value.
    pub(super) fn of(value: f64, changes: bool, run: u32) -> Self {
        Self { readings: 1, changes: changes.into(), longest: run, low: value, high: value }
    }

    fn add(to: &mut Option<Self>, more: Self) {
        match to {
            Some(learned) => learned.join(more),
            None => *to = Some(more),
        }
    }

    fn join(&mut self, more: Self) {
        self.readings = self.readings.saturating_add(more.readings);
        self.changes = self.changes.saturating_add(more.changes);
        self.longest = self.longest.max(more.longest);
        (self.low, self.high) = (self.low.min(more.low), self.high.max(more.high));
    }

    /// It had this one value all the time, for long enough to say so.
    pub(super) fn never_was_other(self, value: f64) -> bool {
        self.changes == 0 && self.readings >= RUN_LEAST && self.low == value && self.high == value
    }
}
