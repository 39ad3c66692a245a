//! The limit of the score, moved by the tail of the machine's own scores: peaks over threshold.
//!
//! Commissioning gives a limit from rows that its fit had not seen, a day of them, so it knows little of what comes once a month. From then on the
//! independent peaks of normal scores over a high threshold are collected; once there are enough, a generalised Pareto distribution of them tells the level
//! that one peak passes in a year's fraction ([`ONCE_IN_DAYS`]) of running, and the limit moves there (Siffer et al., Anomaly detection in streams with
//! extreme value theory, KDD 2017; Coles 2001, chapter 4).
//!
//! Bounds, since a limit that follows its machine hides what comes slowly:
//! - Only scores of normal rows count: of all points, of good quality, while there is neither alarm nor case nor silence. An alarm also takes back the peaks
//!   of the day of running before it. What is over the limit and gone before it became an alarm is normal by the same rule that gives alarms, and counts.
//! - Peaks that come more often in time, or the highest of which do, are those of a machine that changes: the limit stays (Laplace's test for a trend of a
//!   point process, Cox and Lewis, The Statistical Analysis of Series of Events, 1966). So do those that come less often.
//! - It never is below the limit of commissioning, which a person or the policy accepted, nor above [`HIGHEST`].
//!
//! Time is counted in rows, so all of it is a function of the rows. The state is a few kilobytes at most.
use serde::{Deserialize, Serialize};

use super::{limit::LIMIT, pareto::Pareto};

/// Scores are high above this part of those that commissioning had not seen.
pub(super) const THRESHOLD_PART: f64 = 0.98;
/// Rows below the threshold that end a peak: three times as many as the slower channel's score remembers.
const QUIET_ROWS: u64 = 60;
/// So many peaks tell a tail.
const PEAKS_MIN: usize = 64;
/// When there are more, the threshold rises to their median.
const PEAKS_MAX: usize = 256;
/// The first look is after so many days of running, and each further one: what a week brings has come by then.
pub(super) const LOOK_EVERY_DAYS: f64 = 7.0;
/// A peak passes the limit once in so many days of running. An alarm of the score lasts longer than a peak, and the design allows one of a healthy machine in
/// ten months.
const ONCE_IN_DAYS: f64 = 300.0;
/// Farther than by half the limit does not move, whatever the tail says: a tail so heavy is that of another machine.
const HIGHEST: f64 = 1.5 * LIMIT;
/// A smaller move is not worth a baseline.
const MOVE_MIN: f64 = 0.05 * LIMIT;
/// So many standard deviations are a trend.
const TREND: f64 = 2.0;
/// One in so many peaks is among the highest, whose trend is looked at too.
const HIGHEST_ONE_IN: usize = 4;

/// What is known of the tail of a regime's scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    threshold: f64,
    /// Normal rows since commissioning.
    rows: u64,
    /// Of these, when it was looked at last.
    looked_at: u64,
    open: Option<Open>,
    /// In the order of rows.
    peaks: Vec<Peak>,
}

/// The highest score between quiet rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Peak {
    row: u64,
    height: f64,
}

/// A peak that may yet go on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    peak: Peak,
    quiet: u64,
}

/// A limit, with all that it was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moved {
    pub(super) limit: f64,
    pub(super) peaks: usize,
    pub(super) threshold: f64,
    pub(super) pareto: Pareto,
    /// Largest of the peaks.
    pub(super) highest: f64,
    /// Days of running behind them.
    pub(super) days: f64,
}

impl Tail {
    /// Nothing seen yet; `threshold` is the score that [`THRESHOLD_PART`] of those of commissioning are below.
    pub(super) fn new(threshold: f64) -> Self {
        Self { threshold, rows: 0, looked_at: 0, open: None, peaks: Vec::new() }
    }

    /// Takes the score of a normal row. A peak counts once the score was below the threshold for `settle_rows`, and [`QUIET_ROWS`], after it.
    pub(super) fn push(&mut self, score: f64, settle_rows: u64) {
        self.rows += 1;
        if score > self.threshold {
            let peak = self.open.map(|open| open.peak).filter(|peak| peak.height >= score).unwrap_or(Peak { row: self.rows, height: score });
            self.open = Some(Open { peak, quiet: 0 });
            return;
        }
        let Some(open) = &mut self.open else { return };
        open.quiet += 1;
        if open.quiet >= settle_rows.max(QUIET_ROWS) {
            self.peaks.push(open.peak);
            self.open = None;
            self.raise_threshold();
        }
    }

    /// The rows of late are not of a steady machine.
    pub(super) fn break_off(&mut self) {
        self.open = None;
    }

    /// There is an alarm, or someone is at work: what began before it does not count, nor what came in the last day of `day_rows`.
    pub(super) fn forget_of_late(&mut self, day_rows: f64) {
        self.open = None;
        let rows = self.rows as f64;
        self.peaks.retain(|peak| peak.row as f64 + day_rows <= rows);
    }

    /// The limit that takes the place of `present`, if it is time to look and there is one.
    pub(super) fn look(&mut self, present: f64, day_rows: f64) -> Option<Moved> {
        if ((self.rows - self.looked_at) as f64) < LOOK_EVERY_DAYS * day_rows {
            return None;
        }
        self.looked_at = self.rows;
        self.estimate(day_rows).filter(|moved| (moved.limit - present).abs() >= MOVE_MIN)
    }

    fn estimate(&self, day_rows: f64) -> Option<Moved> {
        if self.peaks.len() < PEAKS_MIN || self.has_trend() {
            return None;
        }
        let days = self.rows as f64 / day_rows;
        let excesses: Vec<f64> = self.heights().iter().map(|height| height - self.threshold).collect();
        let pareto = Pareto::fit(&excesses)?;
        let level = self.threshold + pareto.passed_by_one_of(self.peaks.len() as f64 * ONCE_IN_DAYS / days);
        let highest = self.threshold + excesses.last()?;
        // What was seen can be seen again, whatever its distribution says.
        let limit = level.max(highest).clamp(LIMIT, HIGHEST);
        Some(Moved { limit, peaks: self.peaks.len(), threshold: self.threshold, pareto, highest, days })
    }

    /// Ascending.
    fn heights(&self) -> Vec<f64> {
        let mut heights: Vec<f64> = self.peaks.iter().map(|peak| peak.height).collect();
        heights.sort_by(f64::total_cmp);
        heights
    }

    fn has_trend(&self) -> bool {
        let heights = self.heights();
        let high = heights.get(heights.len() - heights.len() / HIGHEST_ONE_IN).copied().unwrap_or(f64::INFINITY);
        let trend = |from: f64| trend(self.peaks.iter().filter(|peak| peak.height >= from).map(|peak| peak.row), self.rows);
        trend(f64::NEG_INFINITY).abs() > TREND || trend(high).abs() > TREND
    }

    fn raise_threshold(&mut self) {
        if self.peaks.len() > PEAKS_MAX {
            self.threshold = self.heights()[self.peaks.len() / 2];
            self.peaks.retain(|peak| peak.height > self.threshold);
        }
    }
}

/// Standard deviations by which events at `rows` come late in all of 1 to `of` (or, below 0, early), if they came evenly.
fn trend(rows: impl Iterator<Item = u64>, of: u64) -> f64 {
    let (count, sum) = rows.fold((0.0, 0.0), |(count, sum), row| (count + 1.0, sum + row as f64 / of as f64));
    if count == 0.0 { 0.0 } else { (sum / count - 0.5) * f64::sqrt(12.0 * count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    /// Rows of a day: one every ten minutes.
    const DAY: f64 = 144.0;

    /// Scores around 0.6 of a machine, smoothed as the slow channel is, whose limit follows its tail.
    struct Machine {
        noise: Noise,
        smoothed: f64,
        spread: f64,
        limit: f64,
        tail: Tail,
        above: usize,
    }

    impl Machine {
        fn new(seed: u64, spread: f64) -> Self {
            // Of a normal distribution 98 % lie below 2.05 deviations.
            Self { noise: Noise(seed), smoothed: 0.0, spread, limit: LIMIT, tail: Tail::new(0.6 + 2.05 * spread), above: 0 }
        }

        /// So many days, on each of whose rows `push` is added to the score. Gives the day on which it was above the limit for three hours, an alarm.
        fn live(&mut self, days: f64, push: impl Fn(f64) -> f64) -> Option<f64> {
            for row in 0..(days * DAY) as usize {
                let day = row as f64 / DAY;
                self.smoothed += 0.05 * (self.noise.next() / f64::sqrt(0.05 / 1.95) - self.smoothed);
                let score = 0.6 + self.spread * self.smoothed + push(day);
                self.above = if score > self.limit { self.above + 1 } else { 0 };
                if self.above == 18 {
                    return Some(day);
                }
                self.tail.push(score, 0);
                self.limit = self.tail.look(self.limit, DAY).map_or(self.limit, |moved| moved.limit);
            }
            None
        }

        /// How often within `days` it is above `limit`, in independent peaks.
        fn peaks_over(&mut self, limit: f64, days: f64) -> usize {
            let mut counted = Tail { peaks: Vec::new(), ..Tail::new(limit) };
            let mut count = 0;
            for _ in 0..(days * DAY) as usize {
                self.smoothed += 0.05 * (self.noise.next() / f64::sqrt(0.05 / 1.95) - self.smoothed);
                counted.push(0.6 + self.spread * self.smoothed, 0);
                count += std::mem::take(&mut counted.peaks).len();
            }
            count
        }
    }

    /// Peaks of these heights, each for a row, as close to one another as can be.
    fn peaks(tail: &mut Tail, heights: impl Iterator<Item = f64>) {
        for height in heights {
            tail.push(height, 0);
            (0..QUIET_ROWS).for_each(|_| tail.push(0.5, 0));
        }
    }

    #[test]
    fn where_the_usual_passes_the_limit_it_moves_to_what_is_seldom() {
        for seed in 1..=8 {
            let mut machine = Machine::new(seed, 0.12);
            machine.live(400.0, |_| 0.0);
            let moved = machine.limit;
            assert!((1.05..1.3).contains(&moved), "{seed}: {moved}");
            let (before, after) = (machine.peaks_over(LIMIT, 3_000.0), machine.peaks_over(moved, 3_000.0));
            assert!(before > 35 && after <= 20, "{seed}: one in 300 days is ten: {before} over 1, {after} over {moved}");
        }
    }

    #[test]
    fn it_is_never_below_that_of_commissioning_nor_far_above() {
        let mut calm = Machine::new(3, 0.04);
        calm.live(400.0, |_| 0.0);
        assert!(calm.tail.peaks.len() >= PEAKS_MIN && calm.limit == LIMIT, "{} {}", calm.tail.peaks.len(), calm.limit);
        let mut wild = Tail::new(0.8);
        let mut noise = Noise(4);
        peaks(&mut wild, (0..2 * PEAKS_MIN).map(|_| 0.8 + 0.02 / noise.uniform().max(0.05)));
        assert_eq!(wild.look(LIMIT, DAY).map(|moved| moved.limit), Some(HIGHEST));
    }

    /// A fault that grows over weeks or a year, in a machine that was well for as long as it takes to know its tail.
    #[test]
    fn it_does_not_follow_what_comes_slowly() {
        for days in [20.0, 60.0, 180.0, 365.0] {
            for seed in 1..=8 {
                let mut machine = Machine::new(seed, 0.08);
                machine.live(100.0, |_| 0.0);
                let before = machine.limit;
                // At its end the score is around 1.4.
                let alarm = machine.live(days, |day| 0.8 * day / days);
                assert!(alarm.is_some() && machine.limit <= before, "{days} days, seed {seed}: {alarm:?}, {before} {}", machine.limit);
            }
        }
    }

    #[test]
    fn too_few_peaks_move_nothing() {
        let mut tail = Tail::new(0.8);
        peaks(&mut tail, (1..PEAKS_MIN).map(|peak| 1.2 + 0.001 * (peak * 37 % 64) as f64));
        assert_eq!((tail.peaks.len(), tail.look(LIMIT, DAY)), (PEAKS_MIN - 1, None));
        tail.looked_at = 0;
        peaks(&mut tail, [1.3].into_iter());
        let moved = tail.look(LIMIT, DAY).unwrap();
        assert!((moved.peaks, moved.highest) == (PEAKS_MIN, 1.3) && moved.limit >= 1.3, "{moved:?}");
    }

    #[test]
    fn it_is_looked_at_once_a_week_of_running() {
        let mut machine = Machine::new(6, 0.12);
        machine.live(7.0 * 30.0 - 0.5, |_| 0.0);
        assert_eq!(machine.tail.looked_at, (29.0 * 7.0 * DAY) as u64);
    }

    #[test]
    fn a_peak_is_one_however_often_the_score_comes_back_within_the_quiet() {
        let mut tail = Tail::new(0.8);
        let heights = |tail: &Tail| tail.peaks.iter().map(|peak| peak.height).collect::<Vec<_>>();
        for score in [0.9, 1.1, 0.95] {
            tail.push(score, 0);
            (1..QUIET_ROWS).for_each(|_| tail.push(0.5, 0));
        }
        assert_eq!(heights(&tail), [0.0; 0]);
        tail.push(0.5, 0);
        assert_eq!(heights(&tail), [1.1]);
        // Longer where the machine takes longer to be known as steady, and not at all if it was not.
        tail.push(1.2, 100);
        (0..99).for_each(|_| tail.push(0.5, 100));
        tail.break_off();
        (0..100).for_each(|_| tail.push(0.5, 100));
        assert_eq!(heights(&tail), [1.1]);
    }

    #[test]
    fn an_alarm_takes_back_the_peaks_of_the_day_before_it() {
        let mut tail = Tail::new(0.8);
        for height in [0.9, 1.0, 1.1] {
            tail.push(height, 0);
            (0..DAY as usize - 1).for_each(|_| tail.push(0.5, 0));
        }
        tail.push(1.2, 0);
        (0..2).for_each(|_| tail.forget_of_late(DAY));
        assert_eq!((tail.peaks.iter().map(|peak| peak.height).collect::<Vec<_>>(), tail.open), (vec![0.9, 1.0, 1.1], None));
        tail.push(0.5, 0);
        tail.forget_of_late(2.0 * DAY);
        assert_eq!(tail.peaks.len(), 2);
    }

    #[test]
    fn what_comes_later_and_later_is_a_trend() {
        assert!(trend([10, 30, 50, 70, 90].into_iter(), 100).abs() < 1e-9);
        assert!(trend((0..64).map(|n| 1000 - n * n / 5), 1_000) > TREND);
        assert!(trend((0..64).map(|n| 1 + n * n / 5), 1_000) < -TREND);
    }
}
