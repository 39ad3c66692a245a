//! The means of Stage A, moved slowly to where the rows are that were accepted as normal.
//!
//! A year has seasons, and oil, filters and products change: a machine that is well does not stay where a day of commissioning found it. So the mean of each
//! point follows the rows of the weeks after, by a part of the distance. Nothing else does: weights, spread and limit stay, so a machine that strays more
//! is seen, and contributions mean what they meant.
//!
//! Bounds, since a mean that follows its machine hides what comes slowly:
//! - Only rows of all points count, of good quality, below the limit, while there is neither alarm nor case nor silence. One of these begins the week anew.
//! - The mean of a point never is farther than [`FARTHEST`] from that of commissioning, which a person or the policy accepted.
//! - Points that follow one another closely are far beyond the limit long before that, one away from the other. So all means together never are so far that
//!   a machine that is there would have more than [`HIDDEN`] of the score's limit by the weights of commissioning. What goes on is seen then.
//!
//! All is in standard deviations of commissioning, and time is counted in rows, so all of it is a function of the rows.
use serde::{Deserialize, Serialize};

use super::tail::LOOK_EVERY_DAYS;

/// Of the distance between a mean and that of a week, the part by which it moves: most of what stays is followed within two months.
const PART: f64 = 0.25;
/// A mean stays so near to that of commissioning, standard deviations.
const FARTHEST: f64 = 1.0;
/// So much of the limit of the score the moved means hide.
const HIDDEN: f64 = 0.5;
/// Smaller moves of all points are not worth a baseline, standard deviations.
const MOVE_MIN: f64 = 0.05;

/// Where the rows of a regime are, seen from its means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Centre {
    /// How far each mean has moved since commissioning, standard deviations.
    moved: Vec<f64>,
    accepted: Sums,
    /// Of the newest rows, which may yet turn out to be of a machine that began to change: those before the last `settle`, and those within it.
    young: [Sums; 2],
}

/// Rows of z-scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    rows: u64,
    of: Vec<f64>,
}

/// Means that took the place of others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recentred {
    /// By how much, per point, standard deviations.
    pub(super) by: Vec<f64>,
    /// Index of the point that is farthest from its mean of commissioning.
    pub(super) farthest: usize,
    /// Where that is, standard deviations.
    pub(super) at: f64,
    /// Days of running behind it.
    pub(super) days: f64,
}

impl Centre {
    /// Where commissioning left `points` means.
    pub(super) fn new(points: usize) -> Self {
        Self { moved: vec![0.0; points], accepted: Sums::default(), young: Default::default() }
    }

    /// Takes the z-scores of a normal row. It counts once `settle_rows` came after it.
    pub(super) fn push(&mut self, z: &[f64], settle_rows: u64) {
        self.young[1].add(z, 1);
        if self.young[1].rows >= settle_rows {
            let [before, newest] = std::mem::take(&mut self.young);
            self.accepted.add(&before.of, before.rows);
            self.young[0] = newest;
        }
    }

    /// The rows of late are not of a steady machine.
    pub(super) fn break_off(&mut self) {
        self.young = Default::default();
    }

    /// There is an alarm, or someone is at work: what came before it may be a part of it.
    pub(super) fn forget(&mut self) {
        (self.accepted, self.young) = Default::default();
    }

    /// The means move, if it is time to look and they should. From here on z-scores are seen from the new ones. `score_at` is the part of the limit at
    /// which a machine is that stays so far from its means of commissioning; twice as far is twice the score.
    pub(super) fn look(&mut self, day_rows: f64, score_at: impl Fn(&[f64]) -> f64) -> Option<Recentred> {
        let rows = self.accepted.rows as f64;
        if rows < LOOK_EVERY_DAYS * day_rows {
            return None;
        }
        let sums = std::mem::take(&mut self.accepted).of;
        let mut to: Vec<f64> = self.moved.iter().zip(&sums).map(|(moved, sum)| (moved + PART * sum / rows).clamp(-FARTHEST, FARTHEST)).collect();
        let nearer = (HIDDEN / score_at(&to)).min(1.0);
        to.iter_mut().for_each(|to| *to *= nearer);
        let by: Vec<f64> = to.iter().zip(&self.moved).map(|(to, moved)| to - moved).collect();
        if by.iter().all(|by| by.abs() < MOVE_MIN) {
            return None;
        }
        (self.moved, self.young) = (to, Default::default());
        let (farthest, at) = self.moved.iter().copied().enumerate().max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()))?;
        Some(Recentred { by, farthest, at, days: rows / day_rows })
    }
}

impl Sums {
    /// Adds the sums `of` so many `rows`.
    fn add(&mut self, of: &[f64], rows: u64) {
        self.rows += rows;
        self.of.resize(self.of.len().max(of.len()), 0.0);
        self.of.iter_mut().zip(of).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    /// Rows of a day: one every ten minutes.
    const DAY: f64 = 144.0;

    /// No point is seen by what another one does.
    fn alone(moved: &[f64]) -> f64 {
        0.1 * moved.iter().fold(0.0, |most: f64, moved| most.max(moved.abs()))
    }

    /// Lets so many weeks pass, in each of which the first point is `at` so many deviations from its first mean; gives where its mean is after each.
    fn live(centre: &mut Centre, weeks: usize, at: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut noise = Noise(7);
        let mut week = |week: usize| {
            let mean = centre.moved[0];
            for _ in 0..(7.0 * DAY) as usize + 1 {
                centre.push(&[at(week) - mean + noise.next(), noise.next()], 0);
            }
            centre.look(DAY, alone);
            centre.moved[0]
        };
        (0..weeks).map(&mut week).collect()
    }

    #[test]
    fn means_follow_what_stays_a_part_of_the_way_each_week() {
        let mut centre = Centre::new(2);
        let means = live(&mut centre, 8, |_| 0.8);
        // The last part of the way is not worth a baseline.
        let expected = |week: i32| 0.8 * (1.0 - 0.75_f64.powi(week.min(4) + 1));
        assert!(means.iter().zip(0..).all(|(mean, week)| (mean - expected(week)).abs() < 0.06), "{means:?}");
        assert!(means[7] > 0.55 && centre.moved[1].abs() < 0.06, "{means:?} {:?}", centre.moved);
    }

    #[test]
    fn they_stay_near_those_of_commissioning_and_come_back() {
        let mut centre = Centre::new(2);
        let away = live(&mut centre, 60, |week| -0.1 * week as f64);
        assert_eq!(away.last(), Some(&-FARTHEST));
        let back = live(&mut centre, 30, |_| 0.0);
        assert!(back.last().unwrap().abs() < MOVE_MIN / PART, "{back:?}");
    }

    #[test]
    fn what_the_score_would_see_by_far_they_do_not_hide() {
        let mut centre = Centre::new(2);
        // At five times its limit where the first point is a deviation away from the second.
        let score_at = |moved: &[f64]| 5.0 * (moved[0] - moved[1]).abs();
        for week in 0..40 {
            (0..=(7.0 * DAY) as usize).for_each(|_| centre.push(&[0.5 - centre.moved[0], -centre.moved[1]].map(|z| z * f64::from(week > 0)), 0));
            centre.look(DAY, score_at);
        }
        assert!((score_at(&centre.moved) - HIDDEN).abs() < 1e-9, "{:?}", centre.moved);
    }

    #[test]
    fn where_nothing_changes_nothing_moves() {
        let mut centre = Centre::new(2);
        live(&mut centre, 52, |_| 0.0);
        assert_eq!((centre.moved, centre.accepted.rows), (vec![0.0; 2], 0));
    }

    #[test]
    fn a_week_of_running_tells_and_what_came_before_an_alarm_does_not() {
        let mut centre = Centre::new(1);
        let rows = (7.0 * DAY) as usize;
        // The first row counts with the second.
        for _ in 0..rows {
            centre.push(&[0.8], 0);
            assert_eq!(centre.look(DAY, alone), None);
        }
        let mut other = centre.clone();
        other.forget();
        assert_eq!(other, Centre::new(1));
        centre.push(&[0.8], 0);
        let recentred = centre.look(DAY, alone).unwrap();
        assert!((recentred.by[0] - 0.2).abs() < 1e-9 && recentred.farthest == 0 && recentred.days == 7.0, "{recentred:?}");
        assert_eq!(recentred.by[0], recentred.at);
    }

    #[test]
    fn rows_before_a_stop_do_not_count() {
        let mut centre = Centre::new(1);
        for settled in [5.0, 2.0] {
            (0..100).for_each(|_| centre.push(&[settled], 10));
            (0..9).for_each(|_| centre.push(&[1_000.0], 10));
            centre.break_off();
        }
        assert_eq!((centre.accepted.rows, centre.accepted.of[0]), (180, 90.0 * 5.0 + 90.0 * 2.0));
    }
}
