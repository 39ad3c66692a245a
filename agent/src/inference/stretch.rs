//! A stretch of rows in one steady regime, and what was believed before its last rows: a machine that begins to change does so before its state tells.
use std::collections::VecDeque;

use hark_protocol::topics::Timestamp;
use serde::{Deserialize, Serialize};

use super::{evidence::Evidence, limit::Smoothed};

/// More judgements than that within `settle` say no more than fewer do.
const JUDGED_MAX: usize = 64;
/// Of rows that say the same, so many within `settle` are kept.
const KEPT_WITHIN_SETTLE: i64 = 8;

/// What the rows of the present stretch had led to, at one or two earlier times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stretch {
    begun: bool,
    older: Option<Mark>,
    newer: Option<Mark>,
    /// The oldest first: each that differs from the one before, and others now and then.
    judged: VecDeque<Judged>,
}

/// A row after its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Judged {
    /// Start of its slot.
    pub ts: Timestamp,
    /// Over the limit.
    pub above: bool,
    pub evidence: Evidence,
}

/// What was believed before the row at `ts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    ts: Timestamp,
    /// Smoothed scores.
    pub smoothed: Smoothed,
    /// Over the limit.
    pub above: bool,
}

impl Stretch {
    /// A row belongs to it.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// What is believed before the row at `ts` is scored. A mark is made every `apart_us`, so going back goes between one and two of it.
    pub(super) fn mark(&mut self, ts: Timestamp, smoothed: &Smoothed, above: bool, apart_us: i64) {
        if self.newer.as_ref().is_some_and(|newer| ts.0.saturating_sub(newer.ts.0) < apart_us) {
            return;
        }
        self.older = self.newer.take();
        self.newer = Some(Mark { ts, smoothed: smoothed.clone(), above });
    }

    /// Takes the newest row and gives what holds for an alarm: what was judged `later_us` before it, at that time; `None` where the stretch is shorter.
    /// The machine has stayed steady since, so it is no beginning of a stop. The evidence is of a row at most an eighth of `later_us` earlier.
    pub(super) fn confirm(&mut self, newest: Judged, later_us: i64) -> Option<Judged> {
        let confirmed = Timestamp(newest.ts.0.saturating_sub(later_us));
        let is_news = |last: &Judged| last.above != newest.above || newest.ts.0.saturating_sub(last.ts.0) >= later_us / KEPT_WITHIN_SETTLE;
        if self.judged.back().is_none_or(is_news) {
            self.judged.push_back(newest);
        }
        while self.judged.len() > JUDGED_MAX || self.judged.get(1).is_some_and(|second| second.ts <= confirmed) {
            self.judged.pop_front();
        }
        self.judged.front().filter(|judged| judged.ts <= confirmed).map(|judged| Judged { ts: confirmed, ..judged.clone() })
    }

    /// Ends it at `ts`; `None` where it had ended. Gives what was believed `back_us` before, or at its beginning if there is nothing so old.
    pub(super) fn end(&mut self, ts: Timestamp, back_us: i64) -> Option<Option<Mark>> {
        let Self { begun, older, newer, .. } = std::mem::take(self);
        let is_old = |mark: &Mark| ts.0.saturating_sub(mark.ts.0) >= back_us;
        begun.then(|| if newer.as_ref().is_some_and(is_old) { newer } else { older.or(newer) })
    }
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::Quality;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    /// Its value is its second.
    fn judged(second: i64, above: bool) -> Judged {
        let evidence =
            Evidence { value: second as f64, ts: Timestamp(second), quality: Quality::Good, range: None, of_score: None, of_forecast: None };
        Judged { ts: at(second), above, evidence }
    }

    /// A stretch of `rows` seconds that ends one second after its last row: which row it goes back to, 3 s before.
    fn back_to(rows: i64) -> Option<Option<i64>> {
        let mut stretch = Stretch::default();
        for row in 0..rows {
            stretch.begin();
            stretch.mark(at(row), &Smoothed::default(), row % 2 == 1, 3_000_000);
        }
        let mark = stretch.end(at(rows), 3_000_000);
        assert_eq!(stretch.end(at(rows), 3_000_000), None, "it ends once");
        mark.map(|mark| mark.map(|mark| mark.ts.0 / 1_000_000))
    }

    #[test]
    fn the_last_rows_do_not_count() {
        assert_eq!(
            [0, 1, 3, 4, 6, 7, 100].map(back_to),
            [None, Some(Some(0)), Some(Some(0)), Some(Some(0)), Some(Some(3)), Some(Some(3)), Some(Some(96))]
        );
    }

    #[test]
    fn what_holds_for_an_alarm_is_known_later() {
        let mut stretch = Stretch::default();
        let rows = [(0, false), (1, true), (2, true), (3, false), (4, true), (5, true), (6, true), (7, true)];
        let confirmed = |judged: Option<Judged>| judged.map(|judged| (judged.ts.0 / 1_000_000, judged.above, judged.evidence.value));
        let all: Vec<_> = rows.iter().map(|&(row, above)| confirmed(stretch.confirm(judged(row, above), 3_000_000))).collect();
        let held = [(0, false, 0.0), (1, true, 1.0), (2, true, 2.0), (3, false, 3.0), (4, true, 4.0)];
        assert_eq!(all, [&[None; 3][..], &held.map(Some)].concat());
        stretch.end(at(8), 0);
        assert_eq!(stretch.confirm(judged(8, true), 3_000_000), None, "a new stretch");
        assert_eq!(confirmed(stretch.confirm(judged(9, true), 0)), Some((9, true, 9.0)));
    }

    #[test]
    fn of_many_rows_that_say_the_same_some_are_kept() {
        let mut stretch = Stretch::default();
        for row in 0..1_000 {
            let confirmed = stretch.confirm(judged(row, true), 80_000_000);
            let age = confirmed.map(|confirmed| confirmed.ts.0 as f64 / 1e6 - confirmed.evidence.value);
            assert!(age.map_or(row < 80, |age| (0.0..10.0).contains(&age)), "{age:?} at {row}");
            assert!(stretch.judged.len() <= 9);
        }
    }

    #[test]
    fn a_stretch_without_scores_goes_back_to_nothing() {
        let mut stretch = Stretch::default();
        stretch.begin();
        assert_eq!(stretch.end(at(1), 0), Some(None));
    }
}
