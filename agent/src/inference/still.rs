//! Values that stand still though they never did, found without a setting: by how each point moved while normal was learned.
//!
//! A point is judged that changed in a tenth of its readings or more while its machine was learned. It is stuck after so many equal readings in a row as
//! chance gives less than once in 1e9 if changes come independently of one another, and at least ten times as many as were ever seen while learned.
//! Of a machine that stops much stands still that is in order. So a value counts that is within what was seen while learned, its ends included (a flow of 0
//! that was never seen is for the score to judge), and only while most of the other points that can be judged move as they used to; or where all of them,
//! be it one, are stuck so: a source that goes on telling its last values is frozen, while a machine that stops takes at least one of its points to where
//! it was not learned, or has `[operating]` to say so. Where `stuck_after` is configured, it alone holds.
//!
//! Pure: a function of the readings in the order of the log.
use serde::{Deserialize, Serialize};

/// A point that changed more rarely while it was learned is not judged.
const CHANGES_LEAST: f64 = 0.1;
/// Chance of a run of equal readings that is called stuck, as an independent change at each reading has it.
const CHANCE: f64 = 1e-9;
/// So many times the longest run that was learned.
const TIMES_LONGEST: u32 = 10;
/// No run that is shorter is called stuck.
const RUN_LEAST: u32 = 30;

/// How the points of an asset move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stillness {
    points: Vec<Course>,
}

/// How one point moves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Course {
    last: Option<f64>,
    /// Readings in a row with the last value.
    run: u32,
    learned: Option<Learned>,
}

/// What was seen of a point while normal was learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    readings: u32,
    changes: u32,
    /// Longest run of equal readings.
    longest: u32,
    low: f64,
    high: f64,
}

impl Stillness {
    /// Of so many `points`, of which nothing is known.
    pub(super) fn new(points: usize) -> Self {
        Self { points: vec![Course::default(); points] }
    }

    /// Takes a `value` of `point` (its index), from which normal is learned or not. True where the point is stuck.
    pub(super) fn take(&mut self, point: usize, value: f64, is_learned: bool) -> bool {
        let course = &mut self.points[point];
        let changes = course.last.is_some_and(|last| last != value);
        course.run = if changes { 1 } else { course.run.saturating_add(1) };
        course.last = Some(value);
        if is_learned {
            course.learned.get_or_insert(Learned { readings: 0, changes: 0, longest: 0, low: value, high: value }).take(value, changes, course.run);
            return false;
        }
        course.is_stuck() && (self.others_move(point) || self.is_frozen())
    }

    /// Readings are missing, or times were corrected: what comes next continues nothing.
    pub(super) fn restart(&mut self) {
        self.points.iter_mut().for_each(|course| (course.last, course.run) = (None, 0));
    }

    fn others_move(&self, point: usize) -> bool {
        let judged = || self.points.iter().enumerate().filter(|(other, course)| *other != point && course.run_most().is_some());
        let moving = judged().filter(|(_, course)| course.moves()).count();
        2 * moving > judged().count()
    }

    fn is_frozen(&self) -> bool {
        self.points.iter().filter(|course| course.run_most().is_some()).all(Course::is_stuck)
    }
}

impl Course {
    /// Equal readings in a row that make it stuck; `None` where it is not judged.
    fn run_most(&self) -> Option<u32> {
        let learned = self.learned?;
        let share = f64::from(learned.changes) / f64::from(learned.readings);
        // At most some 200, by the least share.
        let by_chance = if share < 1.0 { (CHANCE.ln() / (1.0 - share).ln()).ceil() as u32 } else { 0 };
        (share >= CHANGES_LEAST).then(|| by_chance.max(learned.longest.saturating_mul(TIMES_LONGEST)).max(RUN_LEAST))
    }

    fn is_stuck(&self) -> bool {
        let Some((learned, value)) = self.learned.zip(self.last) else { return false };
        self.run_most().is_some_and(|most| self.run >= most) && (learned.low..=learned.high).contains(&value)
    }

    /// It stands no longer than it did while it was learned.
    fn moves(&self) -> bool {
        self.learned.is_some_and(|learned| (1..=learned.longest).contains(&self.run))
    }
}

impl Learned {
    fn take(&mut self, value: f64, changes: bool, run: u32) {
        self.readings = self.readings.saturating_add(1);
        self.changes = self.changes.saturating_add(u32::from(changes));
        self.longest = self.longest.max(run);
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The readings of the `n`th second of two points: the first changes every `every` seconds, the second each second.
    fn moving(n: u32, every: u32) -> [f64; 2] {
        [f64::from(n / every * 7 % 11), f64::from(n * 5 % 13)]
    }

    /// Learned over 400 seconds.
    fn learned(every: u32) -> Stillness {
        let mut stillness = Stillness::new(2);
        for n in 0..400 {
            for (point, value) in moving(n, every).into_iter().enumerate() {
                assert!(!stillness.take(point, value, true));
            }
        }
        stillness
    }

    /// In which second from 400 on the first point is called stuck, whose values are `first`; the second one moves until `second_moves_until`.
    fn stuck_after(every: u32, first: impl Fn(u32) -> f64, second_moves_until: u32) -> Option<u32> {
        stuck_beside(every, first, |n| moving(n.min(400 + second_moves_until), 1)[1])
    }

    /// The same beside a second point with these values.
    fn stuck_beside(every: u32, first: impl Fn(u32) -> f64, second_point: impl Fn(u32) -> f64) -> Option<u32> {
        let mut stillness = learned(every);
        (400..3_400)
            .find(|&second| {
                let second_is_stuck = stillness.take(1, second_point(second), false);
                let first_is_stuck = stillness.take(0, first(second), false);
                assert!(first_is_stuck || !second_is_stuck, "the second one stands no longer than the first");
                first_is_stuck
            })
            .map(|second| second - 400)
    }

    #[test]
    fn a_point_that_always_moved_is_stuck_once_it_does_not() {
        assert_eq!(stuck_after(1, |_| 5.0, 3_000), Some(RUN_LEAST - 1));
        assert_eq!(stuck_after(2, |_| 5.0, 3_000), Some(31 - 1), "one change in two readings: chance");
        assert_eq!(stuck_after(5, |_| 5.0, 3_000), Some(95 - 1), "one in five: chance");
        assert_eq!(stuck_after(1, |n| moving(n, 1)[0], 3_000), None);
        assert_eq!(stuck_after(1, |_| 0.0, 3_000), Some(RUN_LEAST - 1), "at an end of what was seen, where it did not stay");
        assert_eq!(stuck_after(5, |n| moving(n, 40)[0], 3_000), None, "eight times as long as ever");
    }

    #[test]
    fn a_longer_run_that_was_seen_once_is_allowed_for() {
        let mut stillness = learned(1);
        assert!((0..20).all(|_| !stillness.take(0, 3.0, true)));
        let stuck = (1_u32..1_000).find(|n| {
            stillness.take(1, moving(*n, 1)[1], false);
            stillness.take(0, 5.0, false)
        });
        assert_eq!(stuck, Some(200));
    }

    #[test]
    fn what_stands_by_nature_is_not_stuck() {
        assert_eq!(stuck_after(11, |_| 5.0, 3_000), None, "it changed too rarely");
        assert_eq!(stuck_after(1, |_| -3.0, 3_000), None, "beyond what was seen");
        assert_eq!(stuck_beside(1, |_| 5.0, |_| -1.0), None, "the machine stands, as the other one tells");
        let mut unknown = Stillness::new(2);
        assert!((0..1_000).all(|_| !unknown.take(0, 5.0, false)));
    }

    /// Each for itself stands longer than ever, and nothing says that it is the machine.
    #[test]
    fn a_source_that_tells_its_last_values_for_ever_is_frozen() {
        assert_eq!(stuck_after(1, |_| 5.0, 20), Some(20 + RUN_LEAST - 1), "once the last of them stands too long");
        assert_eq!(stuck_after(5, |_| 5.0, 0), Some(95 - 1));
        let mut frozen = learned(1);
        let last = moving(399, 1);
        let stuck = |stillness: &mut Stillness| [0, 1].map(|point| stillness.take(point, last[point], false));
        // The last one that was learned is one of the equal values.
        assert!((2..RUN_LEAST).all(|_| stuck(&mut frozen) == [false; 2]));
        assert_eq!([stuck(&mut frozen), stuck(&mut frozen)], [[false, true], [true; 2]]);
        assert!(!frozen.take(0, 6.0, false), "it moves again");
    }

    #[test]
    fn a_point_without_others_is_stuck_within_what_was_seen() {
        let stuck_at = |value: f64| {
            let mut alone = Stillness::new(1);
            assert!((0..400).all(|n| !alone.take(0, moving(n, 1)[0], true)));
            (0..1_000).find(|_| alone.take(0, value, false))
        };
        assert_eq!([5.0, 0.0, 9.9].map(stuck_at), [Some(29); 3]);
        assert_eq!([-0.1, 10.1].map(stuck_at), [None; 2], "the machine stands");
    }

    #[test]
    fn what_comes_after_a_gap_continues_nothing() {
        let mut stillness = learned(1);
        let still = |stillness: &mut Stillness| {
            stillness.take(1, 6.5, false);
            stillness.take(1, 7.5, false);
            stillness.take(0, 5.0, false)
        };
        assert!((0..29).all(|_| !still(&mut stillness)) && still(&mut stillness));
        stillness.restart();
        assert!((0..29).all(|_| !still(&mut stillness)) && still(&mut stillness));
        assert!(!stillness.take(0, 6.0, false), "it moves again");
    }
}
