//! The last rows of an asset, as many as the model looks at.
use std::collections::VecDeque;

use hark_protocol::topics::{Quality, Timestamp};
use serde::{Deserialize, Serialize};

use crate::buffer::Position;

/// Rows further apart than so many grids do not belong to one window.
pub(super) const GAP_GRIDS_MAX: i64 = 5;

/// A row with the values that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UsableRow {
    /// Start of its slot.
    pub ts: Timestamp,
    /// One per scored point; `None` where it is missing.
    pub values: Vec<Option<f64>>,
    /// Worst quality among them.
    pub quality: Quality,
    /// First and last record behind them.
    pub range: (Position, Position),
}

/// A window of `length` consecutive rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Window {
    length: usize,
    gap_us: i64,
    rows: VecDeque<UsableRow>,
}

impl Window {
    /// An empty window of `length` rows on a grid of `grid_us` microseconds.
    pub(super) fn new(length: usize, grid_us: i64) -> Self {
        Self { length, gap_us: grid_us.saturating_mul(GAP_GRIDS_MAX), rows: VecDeque::with_capacity(length) }
    }

    /// Adds a row. True where it continues the rows before it; false where it begins anew, after [`Self::clear`] or a gap.
    pub(super) fn push(&mut self, row: UsableRow) -> bool {
        if self.rows.back().is_some_and(|last| row.ts.0.saturating_sub(last.ts.0) > self.gap_us) {
            self.rows.clear();
        }
        let continues = !self.rows.is_empty();
        if self.rows.len() == self.length {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        continues
    }

    /// Rows of a full window.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Forgets all rows: the next one begins anew.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    /// It holds as many rows as the model looks at.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() == self.length
    }

    /// Indices of the points that have a value in every row, ascending.
    pub(super) fn left(&self) -> Vec<usize> {
        let points = self.rows.back().map_or(0, |row| row.values.len());
        (0..points).filter(|&point| self.rows.iter().all(|row| row.values[point].is_some())).collect()
    }

    /// The values of the points in `left`, as [`Self::left`] gives them, in row-major order, the oldest row first.
    pub(super) fn values(&self, left: &[usize]) -> Vec<f64> {
        self.rows.iter().flat_map(|row| left.iter().filter_map(|&point| row.values[point])).collect()
    }

    /// The newest row's values, `None` where one is missing; empty while there is no row.
    pub(super) fn newest(&self) -> &[Option<f64>] {
        self.rows.back().map_or(&[], |row| &row.values)
    }

    /// Worst quality in the window.
    pub(super) fn quality(&self) -> Quality {
        self.rows.iter().map(|row| row.quality).max().unwrap_or(Quality::Bad)
    }

    /// First and last record behind the window; `None` while it is empty.
    pub(super) fn range(&self) -> Option<(Position, Position)> {
        let mut ranges = self.rows.iter().map(|row| row.range);
        let first = ranges.next()?;
        Some(ranges.fold(first, |(from, to), (f, t)| (from.min(f), to.max(t))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(second: i64) -> UsableRow {
        let position = Position { ordinal: 1, seq: u64::try_from(second).unwrap_or(0) };
        UsableRow {
            ts: Timestamp(second * 1_000_000),
            values: vec![Some(second as f64), (second != 9).then_some(0.5)],
            quality: Quality::Good,
            range: (position, position),
        }
    }

    #[test]
    fn fills_slides_and_begins_anew_after_a_gap() {
        let mut window = Window::new(3, 1_000_000);
        assert!(!window.push(row(1)));
        assert!(window.push(row(2)));
        assert!(!window.is_full());
        assert!(window.push(row(7)), "five grids are no gap");
        assert!(window.push(row(8)));
        assert!(window.is_full());
        assert_eq!((window.left(), window.values(&[0])), (vec![0, 1], vec![2.0, 7.0, 8.0]));
        assert_eq!(window.newest(), [Some(8.0), Some(0.5)]);
        assert_eq!(window.values(&[0, 1]), [2.0, 0.5, 7.0, 0.5, 8.0, 0.5]);
        assert_eq!(window.range().map(|(from, to)| (from.seq, to.seq)), Some((2, 8)));
        assert!(!window.push(row(14)), "six grids are");
        assert!(!window.is_full());
    }

    #[test]
    fn a_point_is_left_that_has_a_value_in_every_row() {
        let mut window = Window::new(3, 1_000_000);
        let left = |second| {
            window.push(row(second));
            window.left()
        };
        assert_eq!([7, 8, 9, 10, 11, 12].map(left), [vec![0, 1], vec![0, 1], vec![0], vec![0], vec![0], vec![0, 1]]);
    }
}
