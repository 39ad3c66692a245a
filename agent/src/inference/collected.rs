//! Rows collected for commissioning: their values, which of them were held over, what was amiss, where stretches begin, and the records behind them.
use serde::{Deserialize, Serialize};

use super::{
    bits::Bits,
    drift::Drift,
    seldom::{self, Learned},
};
use crate::buffer::Position;

/// Rows are forgotten in blocks of so many: a whole number of bytes of bits, whatever the number of points.
pub const ROWS_BLOCK: usize = 1_024;

/// Rows collected for commissioning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Collected {
    points: usize,
    values: Vec<f64>,
    /// Of each value: it was held over from an earlier row.
    held: Bits,
    /// Of each row, as [`Amiss`] says.
    in_bad_zone: Bits,
    beyond_limit: Bits,
    /// Indices of rows that do not continue the row before them.
    starts: Vec<usize>,
    /// First and last record behind each block of [`ROWS_BLOCK`] rows.
    ranges: Vec<(Position, Position)>,
    /// Of each attempt before, which was refused for it: how the point moved that moved the farthest.
    drifted: Vec<Drift>,
}

/// What spoke against a machine as normal when its row came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amiss {
    /// Its vibration was in zone C or D.
    pub(super) in_bad_zone: bool,
    /// A point was beyond one of its limits for long enough to be an alarm.
    pub(super) beyond_limit: bool,
}

impl Collected {
    /// Nothing yet, for rows of `points` values.
    pub(super) fn new(points: usize) -> Self {
        Self { points, ..Self::default() }
    }

    /// Nothing yet, after an attempt that `drift` ended.
    pub(super) fn after(&self, drift: Drift) -> Self {
        let drifted = self.drifted.iter().cloned().chain([drift]).collect();
        Self { points: self.points, drifted, ..Self::default() }
    }

    /// What ended the attempts before, in their order.
    pub(super) fn drifted(&self) -> &[Drift] {
        &self.drifted
    }

    /// Adds a row that is made of the records in `range`; `fresh` says which values are its own, `continues` whether it follows the one before without
    /// a gap.
    pub(super) fn push(&mut self, values: &[f64], fresh: &[bool], continues: bool, range: (Position, Position), amiss: Amiss) {
        let block = self.len() / ROWS_BLOCK;
        match self.ranges.get_mut(block) {
            Some(block) => *block = joined(*block, range),
            None => self.ranges.push(range),
        }
        if !continues {
            self.starts.push(self.len());
        }
        fresh.iter().for_each(|fresh| self.held.push(!fresh));
        self.values.extend_from_slice(values);
        self.in_bad_zone.push(amiss.in_bad_zone);
        self.beyond_limit.push(amiss.beyond_limit);
    }

    /// A row whose values are all its own.
    #[cfg(test)]
    pub(super) fn push_fresh(&mut self, values: &[f64], continues: bool) {
        self.push_of(values, &vec![true; values.len()], continues);
    }

    /// A row of the record whose number is its own.
    #[cfg(test)]
    pub(super) fn push_of(&mut self, values: &[f64], fresh: &[bool], continues: bool) {
        let position = Position { ordinal: 1, seq: self.len() as u64 };
        self.push(values, fresh, continues, (position, position), Amiss::default());
    }

    /// Forgets the oldest rows, a block at a time, as long as `rows` are left: what is waited for may take long.
    pub(super) fn keep_newest(&mut self, rows: usize) {
        while self.len() >= rows.saturating_add(ROWS_BLOCK) {
            self.values.drain(..ROWS_BLOCK * self.points);
            self.held.drop_first(ROWS_BLOCK * self.points);
            self.in_bad_zone.drop_first(ROWS_BLOCK);
            self.beyond_limit.drop_first(ROWS_BLOCK);
            self.ranges.remove(0);
            self.starts.retain(|start| *start > ROWS_BLOCK);
            self.starts.iter_mut().for_each(|start| *start -= ROWS_BLOCK);
        }
    }

    /// First and last record behind its rows; `None` where there is none.
    pub(super) fn range(&self) -> Option<(Position, Position)> {
        self.ranges.iter().copied().reduce(joined)
    }

    /// Forgets the last `rows` rows, as far as they belong to the last stretch.
    pub(super) fn drop_last(&mut self, rows: usize) {
        let start = self.starts.last().copied().unwrap_or(0);
        let left = self.len().saturating_sub(rows).max(start);
        self.values.truncate(left * self.points);
        self.held.truncate(self.values.len());
        self.in_bad_zone.truncate(left);
        self.beyond_limit.truncate(left);
        self.starts.pop_if(|start| *start == left);
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.values.len().checked_div(self.points).unwrap_or(0)
    }

    /// Values of a row.
    pub(super) fn points(&self) -> usize {
        self.points
    }

    /// All values, row by row.
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Value of `point` in `row`.
    pub(super) fn value(&self, row: usize, point: usize) -> f64 {
        self.values[row * self.points + point]
    }

    /// It is the row's own.
    pub(super) fn is_fresh(&self, row: usize, point: usize) -> bool {
        !self.held.get(row * self.points + point)
    }

    /// How many rows came while the machine was in zone C or D.
    pub(super) fn in_bad_zone(&self) -> usize {
        self.in_bad_zone.ones()
    }

    /// How many came while a point was beyond one of its limits.
    pub(super) fn beyond_limit(&self) -> usize {
        self.beyond_limit.ones()
    }

    /// The points that are heard more seldom than rows come.
    pub(super) fn seldom(&self) -> Vec<Learned> {
        let fresh: Vec<usize> = (0..self.points).map(|point| (0..self.len()).filter(|&row| self.is_fresh(row, point)).count()).collect();
        seldom::among(&fresh).into_iter().map(|point| Learned::of(self, point)).collect()
    }

    /// Indices of rows that have `lags` rows of the same stretch before them.
    pub(super) fn scorable(&self, lags: usize) -> Vec<usize> {
        let mut scorable = Vec::with_capacity(self.len());
        let mut starts = self.starts.iter().copied().peekable();
        let mut start = 0;
        for row in 0..self.len() {
            if let Some(next) = starts.next_if_eq(&row) {
                start = next;
            }
            if row - start >= lags {
                scorable.push(row);
            }
        }
        scorable
    }
}

fn joined(a: (Position, Position), b: (Position, Position)) -> (Position, Position) {
    (a.0.min(b.0), a.1.max(b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAGS: usize = 3;

    #[test]
    fn windows_do_not_cross_gaps() {
        let mut collected = Collected::new(1);
        for row in 0..12 {
            collected.push_fresh(&[f64::from(row)], row != 0 && row != 5);
        }
        assert_eq!(collected.scorable(LAGS), [3, 4, 8, 9, 10, 11]);
    }

    #[test]
    fn the_last_rows_of_a_stretch_can_be_forgotten() {
        let mut collected = Collected::new(1);
        (0..12).for_each(|row| collected.push_fresh(&[f64::from(row)], row != 0 && row != 5));
        collected.drop_last(3);
        assert_eq!((collected.len(), collected.scorable(LAGS)), (9, vec![3, 4, 8]));
        collected.drop_last(7);
        assert_eq!((collected.len(), collected.scorable(LAGS)), (5, vec![3, 4]));
        collected.push_fresh(&[0.0], false);
        collected.drop_last(0);
        assert_eq!((collected.len(), &collected.starts[..]), (6, &[0, 5][..]));
        collected.drop_last(usize::MAX);
        collected.drop_last(usize::MAX);
        assert_eq!((collected.len(), collected.starts.len()), (0, 0));
    }

    #[test]
    fn while_it_waits_the_oldest_rows_are_forgotten_in_blocks() {
        let mut collected = Collected::new(3);
        let fresh = |row: usize| [true, row.is_multiple_of(3), row.is_multiple_of(2)];
        let rows = 3 * ROWS_BLOCK + 10;
        for row in 0..rows {
            collected.push_of(&[row as f64; 3], &fresh(row), ![0, 20, ROWS_BLOCK, rows - 5].contains(&row));
            collected.keep_newest(200);
        }
        let gone = 2 * ROWS_BLOCK;
        assert_eq!((collected.len(), collected.value(0, 2)), (rows - gone, gone as f64));
        assert!((gone..rows).all(|row| (0..3).map(|point| collected.is_fresh(row - gone, point)).eq(fresh(row))));
        assert_eq!(collected.starts, [rows - 5 - gone]);
        // Of the numbers that test rows have: each is how many there were.
        assert_eq!(collected.range().map(|(from, to)| (from.seq, to.seq)), Some((200, 200 + ROWS_BLOCK as u64 - 1)));
    }

    /// Whatever rows go, each keeps its own.
    #[test]
    fn what_was_amiss_is_counted_of_the_rows_that_are_left() {
        let (mut collected, position) = (Collected::new(1), Position { ordinal: 1, seq: 1 });
        for row in 0..ROWS_BLOCK + 200 {
            let amiss = Amiss { in_bad_zone: row.is_multiple_of(4), beyond_limit: row < ROWS_BLOCK + 10 };
            collected.push(&[0.0], &[true], row > 0, (position, position), amiss);
        }
        collected.keep_newest(100);
        assert_eq!((collected.len(), collected.in_bad_zone(), collected.beyond_limit()), (200, 50, 10));
        collected.drop_last(195);
        assert_eq!((collected.len(), collected.in_bad_zone(), collected.beyond_limit()), (5, 2, 5));
    }

    /// A bit per value, across the bytes and after rows were forgotten.
    #[test]
    fn it_is_known_which_values_were_held() {
        let mut collected = Collected::new(3);
        let fresh = |row: usize| [true, row.is_multiple_of(4), row.is_multiple_of(2)];
        let is_known = |collected: &Collected, row| (0..3).map(|point| collected.is_fresh(row, point)).eq(fresh(row));
        for row in 0..20 {
            collected.push_of(&[0.0; 3], &fresh(row), row > 0);
        }
        assert!((0..20).all(|row| is_known(&collected, row)));
        collected.drop_last(9);
        (11..30).for_each(|row| collected.push_of(&[0.0; 3], &fresh(row), true));
        assert!((0..30).all(|row| is_known(&collected, row)));
        assert_eq!(collected.seldom().iter().map(|learned| learned.point).collect::<Vec<_>>(), [1]);
    }
}
