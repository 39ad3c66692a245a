//! Alignment: readings of many points, each at its own rate, become rows on the asset's grid.
//!
//! Slot `k` spans event times `k * grid` to `(k + 1) * grid`. A row is closed once every scored point has a usable value in its slot, or when time
//! passes to a later slot; then a missing point is held from its last value, if that is not older than the point's `stale_after` at the start of
//! the slot.
//! After its row is closed, a slot's further readings only refresh the held values. A reading older than the open slot is late and changes nothing.
use hark_protocol::topics::{Quality, Timestamp};
use serde::{Deserialize, Serialize};

use crate::buffer::Position;

/// So many late readings in a row, without one in time, mean that the clock was set back and not that data came late.
/// Alignment then starts anew: an asset must not stay blind until an old wrong time has been reached.
pub(super) const LATE_RUN_MAX: u32 = 100;

/// A reading of a scored point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Index of the point among the scored ones.
    pub point: usize,
    /// Event time.
    pub ts: Timestamp,
    /// The value; `None` where its quality is bad.
    pub value: Option<f64>,
    /// Its quality.
    pub quality: Quality,
    /// Where it stands in the inputs lane.
    pub position: Position,
}

/// One row on the grid.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Start of its slot.
    pub ts: Timestamp,
    /// One per scored point; `None` where it is missing.
    pub values: Vec<Option<f64>>,
    /// Whether the value is of a reading in this slot, one per scored point.
    pub fresh: Vec<bool>,
    /// Indices of points whose value is an older one, held in place of one that was bad.
    pub held_over: Vec<usize>,
    /// Worst quality among the values; bad where there is none.
    pub quality: Quality,
    /// First and last record behind the values.
    pub range: Option<(Position, Position)>,
}

/// What came of a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Offered {
    /// The row of an earlier slot, closed because time passed it.
    pub overdue: Option<Row>,
    /// The row of the sample's own slot, now complete.
    pub complete: Option<Row>,
    /// The sample was older than the open slot.
    pub late: bool,
    /// The clock was found set back: all held values are forgotten.
    pub restarted: bool,
}

/// The last usable value of a point.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Held {
    ts: Timestamp,
    value: f64,
    quality: Quality,
    position: Position,
}

/// What is known of a point.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct PointState {
    held: Option<Held>,
    /// It has a usable value in the open slot.
    fresh: bool,
    /// Its latest reading was bad.
    bad: bool,
}

/// Alignment of one asset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Grid {
    grid_us: i64,
    /// One per point: an older value is missing.
    stale_us: Vec<i64>,
    /// The newest slot seen.
    slot: Option<i64>,
    /// Its row was handed out.
    closed: bool,
    /// How many points are fresh in it.
    fresh: usize,
    late_run: u32,
    points: Vec<PointState>,
}

impl Grid {
    /// Alignment on slots of `grid_us` microseconds (at least 1); `stale_us` has one for each point: its values that are older are missing.
    pub(super) fn new(stale_us: Vec<i64>, grid_us: i64) -> Self {
        let points = vec![PointState::default(); stale_us.len()];
        Self { grid_us: grid_us.max(1), stale_us, slot: None, closed: false, fresh: 0, late_run: 0, points }
    }

    /// Takes a sample and hands out the rows that it closes, the older first.
    pub(super) fn offer(&mut self, sample: Sample) -> Offered {
        let mut offered = Offered::default();
        let slot = self.slot_of(sample.ts);
        if self.slot.is_some_and(|open| slot < open) {
            self.late_run += 1;
            if self.late_run < LATE_RUN_MAX {
                offered.late = true;
                return offered;
            }
            self.restart();
            offered.restarted = true;
        }
        self.late_run = 0;
        offered.overdue = self.pass(sample.ts);
        if self.slot != Some(slot) {
            self.open(slot);
        }
        self.update(sample);
        if !self.closed && self.fresh == self.points.len() {
            offered.complete = Some(self.close(slot));
        }
        offered
    }

    /// Lets time pass to `ts` without a reading: closes the open row if its slot is over.
    pub(super) fn pass(&mut self, ts: Timestamp) -> Option<Row> {
        let open = self.slot?;
        (!self.closed && self.slot_of(ts) > open).then(|| self.close(open))
    }

    /// Forgets everything, as after a gap in the log.
    pub(super) fn restart(&mut self) {
        *self = Self::new(std::mem::take(&mut self.stale_us), self.grid_us);
    }

    /// How much older than the open slot `ts` is; `None` if it is not.
    pub(super) fn late_us(&self, ts: Timestamp) -> Option<i64> {
        let open = self.slot?.saturating_mul(self.grid_us);
        (ts.0 < open).then(|| open.saturating_sub(ts.0))
    }

    /// Rows are so far apart, microseconds.
    pub(super) fn grid_us(&self) -> i64 {
        self.grid_us
    }

    /// From now on values that are older are missing; one for each point.
    pub(super) fn set_stale(&mut self, stale_us: Vec<i64>) {
        debug_assert_eq!(stale_us.len(), self.points.len());
        self.stale_us = stale_us;
    }

    /// How old a value may be of the point whose values may be least old; the largest number without points.
    pub(super) fn stale_least_us(&self) -> i64 {
        self.stale_us.iter().copied().min().unwrap_or(i64::MAX)
    }

    /// Indices of points without a value that is usable in a row that starts at `ts`.
    pub(super) fn missing(&self, ts: Timestamp) -> impl Iterator<Item = usize> {
        (0..self.points.len()).filter(move |&point| self.usable(point, ts).is_none())
    }

    /// Indices of points whose latest reading was bad.
    pub(super) fn bad_points(&self) -> impl Iterator<Item = usize> {
        self.points.iter().enumerate().filter(|(_, point)| point.bad).map(|(index, _)| index)
    }

    fn slot_of(&self, ts: Timestamp) -> i64 {
        ts.0.div_euclid(self.grid_us)
    }

    fn usable(&self, point: usize, ts: Timestamp) -> Option<Held> {
        self.points[point].held.filter(|held| held.ts.0 >= ts.0.saturating_sub(self.stale_us[point]))
    }

    fn open(&mut self, slot: i64) {
        self.slot = Some(slot);
        self.closed = false;
        self.fresh = 0;
        for point in &mut self.points {
            point.fresh = false;
        }
    }

    fn update(&mut self, sample: Sample) {
        let point = &mut self.points[sample.point];
        point.bad = sample.value.is_none();
        let Some(value) = sample.value else { return };
        // Within a slot readings may come out of order; the newest stays.
        if point.held.is_none_or(|held| sample.ts >= held.ts) {
            point.held = Some(Held { ts: sample.ts, value, quality: sample.quality, position: sample.position });
        }
        if !point.fresh {
            point.fresh = true;
            self.fresh += 1;
        }
    }

    fn close(&mut self, slot: i64) -> Row {
        self.closed = true;
        let ts = Timestamp(slot.saturating_mul(self.grid_us));
        let fresh = self.points.iter().map(|point| point.fresh).collect();
        let values = Vec::with_capacity(self.points.len());
        let mut row = Row { ts, values, fresh, held_over: Vec::new(), quality: Quality::Good, range: None };
        for (index, point) in self.points.iter().enumerate() {
            let held = self.usable(index, ts);
            row.values.push(held.map(|held| held.value));
            let Some(held) = held else { continue };
            row.quality = row.quality.max(held.quality);
            if point.bad {
                // An older value in place of a bad one is a value to use with care.
                row.held_over.push(index);
                row.quality = row.quality.max(Quality::Uncertain);
            }
            row.range = Some(row.range.map_or((held.position, held.position), |(from, to)| (from.min(held.position), to.max(held.position))));
        }
        if row.range.is_none() {
            row.quality = Quality::Bad;
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn sample(point: usize, seconds: f64, value: f64, seq: u64) -> Sample {
        let ts = Timestamp((seconds * SECOND as f64) as i64);
        Sample { point, ts, value: (!value.is_nan()).then_some(value), quality: Quality::Good, position: Position { ordinal: 1, seq } }
    }

    fn two_points() -> Grid {
        Grid::new(vec![3 * SECOND; 2], SECOND)
    }

    #[test]
    fn a_row_closes_with_its_last_point_and_names_its_records() {
        let mut grid = two_points();
        assert_eq!(grid.offer(sample(0, 10.2, 1.0, 7)), Offered::default());
        let row = grid.offer(sample(1, 10.4, 2.0, 8)).complete.unwrap();
        assert_eq!((row.ts, row.values, row.quality), (Timestamp(10 * SECOND), vec![Some(1.0), Some(2.0)], Quality::Good));
        assert_eq!(row.range, Some((Position { ordinal: 1, seq: 7 }, Position { ordinal: 1, seq: 8 })));
        assert_eq!(grid.pass(Timestamp(11 * SECOND)), None, "closed already");
    }

    #[test]
    fn further_readings_of_a_closed_slot_only_refresh_what_is_held() {
        let mut grid = two_points();
        grid.offer(sample(0, 10.0, 1.0, 1));
        grid.offer(sample(1, 10.0, 2.0, 2));
        assert_eq!(grid.offer(sample(0, 10.9, 5.0, 3)), Offered::default());
        grid.offer(sample(1, 11.0, 3.0, 4));
        let row = grid.offer(sample(1, 12.0, 4.0, 5)).overdue.unwrap();
        assert_eq!(row.values, [Some(5.0), Some(3.0)], "the refreshed value is held over into slot 11");
    }

    #[test]
    fn a_missing_point_is_held_until_it_is_stale() {
        let mut grid = two_points();
        grid.offer(sample(0, 10.5, 1.0, 1));
        for second in 10..16 {
            let row = grid.offer(sample(1, f64::from(second), 0.0, 2)).overdue;
            // The row of slot 13 starts 2.5 s after the value, that of slot 14 3.5 s.
            match second {
                10 | 11 => assert!(row.is_none(), "slot 10 was complete"),
                12..=14 => assert_eq!(row.unwrap().values[0], Some(1.0), "slot {} holds", second - 1),
                _ => {
                    let values = vec![None, Some(0.0)];
                    let (ts, fresh) = (Timestamp(14 * SECOND), vec![false, true]);
                    let expected = Row { ts, values, fresh, held_over: Vec::new(), quality: Quality::Good, range: row_range(2) };
                    assert_eq!(row.unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn each_point_is_held_for_its_own_time() {
        let mut grid = Grid::new(vec![SECOND, 60 * SECOND, SECOND], SECOND);
        for point in 0..2 {
            grid.offer(sample(point, 10.0, 1.0, 1));
        }
        let is_held = |grid: &mut Grid, second: f64| {
            let row = grid.offer(sample(2, second, 0.0, 2)).overdue.unwrap();
            let missing = grid.missing(row.ts).collect::<Vec<_>>();
            (row.values.iter().map(Option::is_some).collect::<Vec<_>>(), missing)
        };
        assert_eq!(is_held(&mut grid, 11.0), (vec![true, true, false], vec![]));
        assert_eq!(is_held(&mut grid, 12.0), (vec![true, true, true], vec![]));
        assert_eq!(is_held(&mut grid, 70.0), (vec![false, true, true], vec![0]));
        assert_eq!(is_held(&mut grid, 71.0), (vec![false, true, true], vec![0]));
        assert_eq!(is_held(&mut grid, 72.0), (vec![false, false, true], vec![0, 1]));
        grid.restart();
        assert_eq!((grid.stale_least_us(), grid.missing(Timestamp(0)).count()), (SECOND, 3));
        grid.set_stale(vec![9 * SECOND, 2 * SECOND, 3 * SECOND]);
        assert_eq!(grid.stale_least_us(), 2 * SECOND);
    }

    fn row_range(seq: u64) -> Option<(Position, Position)> {
        Some((Position { ordinal: 1, seq }, Position { ordinal: 1, seq }))
    }

    #[test]
    fn a_bad_reading_is_no_value_and_makes_the_held_one_uncertain() {
        let mut grid = two_points();
        grid.offer(sample(0, 10.0, 1.0, 1));
        grid.offer(sample(1, 10.0, 2.0, 2));
        grid.offer(sample(0, 11.0, f64::NAN, 3));
        assert_eq!(grid.offer(sample(1, 11.0, 3.0, 4)).complete, None);
        assert_eq!(grid.pass(Timestamp(12 * SECOND - 1)), None, "the slot is not over");
        let row = grid.pass(Timestamp(12 * SECOND)).unwrap();
        assert_eq!((row.values, row.held_over, row.quality), (vec![Some(1.0), Some(3.0)], vec![0], Quality::Uncertain));
        assert_eq!(grid.bad_points().collect::<Vec<_>>(), [0]);
        assert_eq!(grid.pass(Timestamp(20 * SECOND)), None, "a closed slot is not closed again");
    }

    #[test]
    fn late_readings_change_nothing_until_they_show_that_the_clock_was_set_back() {
        let mut grid = two_points();
        grid.offer(sample(0, 1000.0, 1.0, 1));
        for n in 1..LATE_RUN_MAX {
            let late = grid.offer(sample(1, 10.0 + f64::from(n), 9.0, 2));
            assert!(late.late && late.overdue.is_none() && late.complete.is_none());
        }
        let restarted = grid.offer(sample(1, 200.0, 9.0, 3));
        assert!(restarted.restarted && !restarted.late);
        assert_eq!(grid.offer(sample(0, 200.0, 8.0, 4)).complete.unwrap().values, [Some(8.0), Some(9.0)]);
    }

    #[test]
    fn one_reading_in_time_ends_a_run_of_late_ones() {
        let mut grid = two_points();
        grid.offer(sample(0, 1000.0, 1.0, 1));
        for n in 0..3 * LATE_RUN_MAX {
            let late = grid.offer(sample(1, 10.0, 9.0, 2));
            assert!(late.late, "reading {n}");
            if n % 50 == 0 {
                grid.offer(sample(0, 1000.0, 1.0, 3));
            }
        }
    }
}
