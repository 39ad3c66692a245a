//! A stretch of rows in one steady regime, and what was believed before its last rows: a machine that begins to change does so before its state tells.
use std::collections::VecDeque;

use hark_protocol::topics::Timestamp;
use serde::{Deserialize, Serialize};

use super::limit::Smoothed;

/// More turns than that within `settle` say no more than fewer do.
const TURNS_MAX: usize = 64;

/// What the rows of the present stretch had led to, at one or two earlier times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stretch {
    begun: bool,
    older: Option<Mark>,
    newer: Option<Mark>,
    /// Since when scores were above or not, the oldest first.
    turns: VecDeque<(Timestamp, bool)>,
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

    /// The row at `ts` is `above` or not. Gives what holds for an alarm: whether a row `later_us` before was, and its time; `None` where the stretch is
    /// shorter. The machine has stayed steady since that row, so it is no beginning of a stop.
    pub(super) fn confirm(&mut self, ts: Timestamp, above: bool, later_us: i64) -> Option<(bool, Timestamp)> {
        if self.turns.back().is_none_or(|(_, was)| *was != above) {
            self.turns.push_back((ts, above));
        }
        let confirmed = Timestamp(ts.0.saturating_sub(later_us));
        while self.turns.len() > TURNS_MAX || self.turns.get(1).is_some_and(|(second, _)| *second <= confirmed) {
            self.turns.pop_front();
        }
        self.turns.front().filter(|(since, _)| *since <= confirmed).map(|(_, above)| (*above, confirmed))
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
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
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
        let confirmed: Vec<_> = rows.iter().map(|&(row, above)| stretch.confirm(at(row), above, 3_000_000).map(|(above, _)| above)).collect();
        assert_eq!(confirmed, [None, None, None, Some(false), Some(true), Some(true), Some(false), Some(true)]);
        stretch.end(at(8), 0);
        assert_eq!(stretch.confirm(at(8), true, 3_000_000), None, "a new stretch");
        assert_eq!(stretch.confirm(at(9), true, 0), Some((true, at(9))));
    }

    #[test]
    fn a_stretch_without_scores_goes_back_to_nothing() {
        let mut stretch = Stretch::default();
        stretch.begin();
        assert_eq!(stretch.end(at(1), 0), Some(None));
    }
}
