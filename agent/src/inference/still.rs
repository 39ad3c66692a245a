//! Values that stand still though they never did, found without a setting: by how each point moved while normal was learned.
//!
//! A point is judged that changed in a tenth of its readings or more while its machine was learned. It stands once so many readings in a row are equal as
//! chance gives less than once in 1e9 if changes come independently of one another, and at least ten times as many as were ever seen while learned.
//! Learned is what came while the machine ran, less the last `settle` before each stop: a machine that stops much stands still that is in order, so nothing
//! is judged while it does, and what stands counts anew from the next run on. Where `stuck_after` is configured, it alone holds.
//!
//! | a point that stands | of a machine that runs | of one that nothing tells |
//! |---|---|---|
//! | within what was learned and its span on either side | stuck | stuck, where most others run on |
//! | within what was learned | stuck | stuck, where most others move |
//! | anywhere else: a flow meter with a cut-off says 0 of a real loss of flow | doubtful | doubtful, where most others run on |
//! | a vibration, which no running machine has twice the same, also one that never moved while learned | stuck | as above, stuck where most others run on |
//! | one that tells state or load, which may be steady by nature | doubtful | doubtful, by the same signs |
//!
//! To run on is to move as a point used to, within what was learned and its span on either side. Where all points stand, the source is frozen and all are
//! stuck: of a machine that runs wherever they are, if there are two or more; else where each is within what was learned and its span on either side, since
//! a machine that stops takes at least one of its points further, or has `[operating]` to say so. What was found holds until the point moves.
//!
//! Pure: a function of the readings in the order of the log.
use hark_protocol::topics::Timestamp;
use serde::{Deserialize, Serialize};

use super::course::{Course, Learned, RUN_LEAST};
use crate::config;

/// Units of vibrations: velocity and acceleration, as waveforms have them too.
const VIBRATIONS: [&str; 4] = ["mm/s", "[g]", "g", "m/s2"];

/// Units of temperatures.
const TEMPERATURES: [&str; 3] = ["Cel", "K", "[degF]"];

/// What a point is to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// It tells the operating state or the load.
    Tells,
    /// It measures a vibration.
    Vibrates,
    /// It measures a temperature, which a stop does not move for long.
    Warms,
    /// Anything else.
    Plain,
}

impl Nature {
    /// Of a `point` of a machine whose state is told so.
    pub(super) fn of(point: &config::Point, operating: Option<&config::Operating>) -> Self {
        let tells = |operating: &config::Operating| operating.point == point.id || operating.load.as_ref().is_some_and(|load| load.point == point.id);
        if operating.is_some_and(tells) {
            Self::Tells
        } else if point.severity.is_some() || VIBRATIONS.contains(&&*point.unit) {
            Self::Vibrates
        } else if TEMPERATURES.contains(&&*point.unit) {
            Self::Warms
        } else {
            Self::Plain
        }
    }
}

/// What the machine does at a reading, as far as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// It runs, or nothing tells, and normal is learned; a stop may show so late.
    Teaches { settle_us: i64 },
    /// It runs.
    Runs,
    /// Nothing tells.
    Untold,
    /// It is off, idle, starting or stopping.
    Stands,
    /// It is off or idle, and what its points do then is learned.
    TeachesStop,
}

/// What was found of a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Found {
    /// Nothing.
    #[default]
    Moves,
    /// It stands, and this may be the machine.
    Doubtful,
    /// It stands, and this is the instrument.
    Stuck,
}

/// So many points, of so many that would show a stop, move as they did while the machine ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningOn {
    pub(super) points: usize,
    pub(super) of: usize,
}

/// How the points of an asset move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stillness {
    points: Vec<Course>,
    /// All of them stand, and none has moved since that was found.
    is_frozen: bool,
    /// The machine stood at the last reading.
    stood: bool,
}

impl Stillness {
    /// Of so many `points`, of which nothing is known.
    pub(super) fn new(points: usize) -> Self {
        Self { points: vec![Course::default(); points], is_frozen: false, stood: false }
    }

    /// Takes a `value` of `point` (its index) that came at `ts`, and says what is found of it.
    pub(super) fn take(&mut self, point: usize, (ts, value): (Timestamp, f64), nature: Nature, machine: Machine) -> Found {
        let stands = matches!(machine, Machine::Stands | Machine::TeachesStop);
        if std::mem::replace(&mut self.stood, stands) && !stands {
            self.points.iter_mut().for_each(|course| course.run = course.run.min(1));
        }
        let course = &mut self.points[point];
        let changes = course.last.is_some_and(|last| last != value);
        course.run = if changes { 1 } else { course.run.saturating_add(1) };
        course.last = Some(value);
        if changes {
            (course.found, self.is_frozen) = (Found::Moves, false);
        }
        match machine {
            Machine::Teaches { settle_us } => {
                course.learn(ts, Learned::of(value, changes, course.run), settle_us);
                return Found::Moves;
            }
            Machine::Stands | Machine::TeachesStop => {
                if machine == Machine::TeachesStop && course.learned.is_some() {
                    course.stopped.1 = course.stopped.1.saturating_add(1);
                    course.stopped.0 = course.stopped.0.saturating_add(course.is_within(0.0).into());
                }
                self.points.iter_mut().for_each(|course| course.unsettled = None);
            }
            Machine::Runs | Machine::Untold => {
                let found = self.judge(point, value, nature, machine == Machine::Runs);
                self.points[point].found = self.points[point].found.max(found);
                self.is_frozen |= self.freezes(nature, machine == Machine::Runs);
            }
        }
        let course = &self.points[point];
        if self.is_frozen && course.run_most().is_some() { Found::Stuck } else { course.found }
    }

    /// Readings are missing, or times were corrected: what comes next continues nothing.
    pub(super) fn restart(&mut self) {
        let learned = self.points.iter().map(|course| Course { learned: course.learned, stopped: course.stopped, ..Course::default() }).collect();
        *self = Self { points: learned, is_frozen: false, stood: false };
    }

    /// Of the points that can be judged and show at once whether the machine runs, how many there are, and how many run on within what was learned.
    pub(super) fn running_on(&self, natures: &[Nature]) -> RunningOn {
        let shows = |nature: Nature| matches!(nature, Nature::Vibrates | Nature::Plain);
        let judged =
            || self.points.iter().zip(natures).filter(|(course, nature)| shows(**nature) && course.shows_stops() && course.run_most().is_some());
        RunningOn { of: judged().count(), points: judged().filter(|(course, _)| course.moves() && course.is_within(0.0)).count() }
    }

    fn judge(&self, point: usize, value: f64, nature: Nature, is_told: bool) -> Found {
        let course = &self.points[point];
        let runs = || is_told || self.most_others(point, |other| other.moves() && other.is_within(1.0));
        let is_dead = nature == Nature::Vibrates && course.learned.is_some_and(|learned| learned.never_was_other(value)) && course.run >= RUN_LEAST;
        if is_dead && runs() {
            return Found::Stuck;
        }
        if !course.stands() {
            return Found::Moves;
        }
        let (runs, others_move) = (runs(), self.most_others(point, Course::moves));
        let is_instrument = if runs { nature == Nature::Vibrates || course.is_within(1.0) } else { others_move && course.is_within(0.0) };
        let found = match (is_instrument, runs) {
            (true, _) => Found::Stuck,
            (false, true) => Found::Doubtful,
            (false, false) => Found::Moves,
        };
        if nature == Nature::Tells { found.min(Found::Doubtful) } else { found }
    }

    fn most_others(&self, point: usize, holds: impl Fn(&Course) -> bool) -> bool {
        let judged =
            || self.points.iter().enumerate().filter(|(other, course)| *other != point && course.run_most().is_some()).map(|(_, course)| course);
        2 * judged().filter(|course| holds(course)).count() > judged().count()
    }

    /// All stand. One point alone is not the whole source to someone who asks it for the state.
    fn freezes(&self, nature: Nature, is_told: bool) -> bool {
        let judged = || self.points.iter().filter(|course| course.run_most().is_some());
        // The first one that moves ends it, as it nearly always does.
        if !judged().all(Course::stands) {
            return false;
        }
        let are_many = judged().nth(1).is_some();
        (are_many && is_told) || ((are_many || nature != Nature::Tells) && judged().all(|course| course.is_within(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Found::*, Machine::*, Nature::*, *};

    const LEARNED: Machine = Teaches { settle_us: 0 };

    fn at(second: u32) -> Timestamp {
        Timestamp(i64::from(second) * 1_000_000)
    }

    /// The readings of the `n`th second of three points: the first changes every `every` seconds, the others each second.
    fn moving(n: u32, every: u32) -> [f64; 3] {
        [f64::from(n / every * 7 % 11), f64::from(n * 5 % 13), f64::from(n * 3 % 7)]
    }

    /// Of `points` points, learned over 400 seconds.
    fn learned(points: usize, every: u32) -> Stillness {
        let mut stillness = Stillness::new(points);
        for n in 0..400 {
            for (point, value) in moving(n, every).into_iter().enumerate().take(points) {
                assert_eq!(stillness.take(point, (at(n), value), Plain, LEARNED), Moves);
            }
        }
        stillness
    }

    /// Two points of which the first has these values, the second these.
    struct Case<F, S> {
        every: u32,
        nature: Nature,
        machine: Machine,
        first: F,
        second: S,
    }

    /// What is found of the first point at last, and after how many seconds.
    fn found<F: Fn(u32) -> f64, S: Fn(u32) -> f64>(case: Case<F, S>) -> (Found, Option<u32>) {
        let Case { every, nature, machine, first, second } = case;
        let mut stillness = learned(2, every);
        let mut of_first = |n: u32| {
            stillness.take(1, (at(n), second(n)), Plain, machine);
            stillness.take(0, (at(n), first(n)), nature, machine)
        };
        let found: Vec<Found> = (400..3_400).map(&mut of_first).collect();
        assert!(found.is_sorted(), "it holds as long as it stands");
        let last = found[found.len() - 1];
        (last, (0..).zip(found).find(|(_, found)| *found == last && last != Moves).map(|(second, _)| second))
    }

    /// The same of a point whose value is `value` from then on, beside one that moves.
    fn standing(value: f64, nature: Nature, machine: Machine) -> Found {
        found(Case { every: 1, nature, machine, first: |_| value, second: |n| moving(n, 1)[1] }).0
    }

    /// In which second a machine's first point is called stuck, of which nothing tells what it does and the second one moves.
    fn stuck_after(every: u32, first: impl Fn(u32) -> f64) -> Option<u32> {
        found(Case { every, nature: Plain, machine: Untold, first, second: |n| moving(n, 1)[1] }).1
    }

    #[test]
    fn a_point_that_always_moved_is_stuck_once_it_does_not() {
        assert_eq!(stuck_after(1, |_| 5.0), Some(RUN_LEAST - 1));
        assert_eq!(stuck_after(2, |_| 5.0), Some(31 - 1), "one change in two readings: chance");
        assert_eq!(stuck_after(5, |_| 5.0), Some(95 - 1), "one in five: chance");
        assert_eq!(stuck_after(1, |n| moving(n, 1)[0]), None);
        assert_eq!(stuck_after(1, |_| 0.0), Some(RUN_LEAST - 1), "at an end of what was seen, where it did not stay");
        assert_eq!(stuck_after(5, |n| moving(n, 40)[0]), None, "eight times as long as ever");
    }

    #[test]
    fn a_longer_run_that_was_seen_once_is_allowed_for() {
        let mut stillness = learned(2, 1);
        assert!((0..20).all(|_| stillness.take(0, (at(400), 3.0), Plain, LEARNED) == Moves));
        let stuck = (1_u32..1_000).find(|n| {
            stillness.take(1, (at(400 + n), moving(*n, 1)[1]), Plain, Untold);
            stillness.take(0, (at(400 + n), 5.0), Plain, Untold) == Stuck
        });
        assert_eq!(stuck, Some(200));
    }

    /// What was seen is 0 to 10.
    #[test]
    fn what_stands_far_from_what_was_learned_may_be_the_machine() {
        for machine in [Runs, Untold] {
            assert_eq!([5.0, -10.0, 20.0].map(|value| standing(value, Plain, machine)), [Stuck; 3], "{machine:?}");
            assert_eq!([-10.1, 20.1].map(|value| standing(value, Plain, machine)), [Doubtful; 2], "{machine:?}");
            assert_eq!([5.0, -10.1, 500.0].map(|value| standing(value, Vibrates, machine)), [Stuck; 3], "{machine:?}: impossible");
            assert_eq!([5.0, -10.1, 500.0].map(|value| standing(value, Tells, machine)), [Doubtful; 3], "{machine:?}: it may be steady");
        }
        assert_eq!([5.0, -10.1].map(|value| [Plain, Vibrates, Tells].map(|nature| standing(value, nature, Stands))), [[Moves; 3]; 2]);
    }

    #[test]
    fn what_stands_by_nature_is_not_stuck() {
        assert_eq!(stuck_after(11, |_| 5.0), None, "it changed too rarely");
        let beside = |machine, first: f64, second: f64| found(Case { every: 1, nature: Plain, machine, first: |_| first, second: |_| second }).0;
        assert_eq!(beside(Untold, 5.0, -13.0), Moves, "the machine stands, as the other one tells");
        let far_away =
            |first: f64| found(Case { every: 1, nature: Vibrates, machine: Untold, first: |_| first, second: |n| 99.0 + moving(n, 1)[1] }).0;
        assert_eq!([-11.0, -1.0, 5.0].map(far_away), [Moves, Moves, Stuck], "what moves elsewhere is no sign that the machine runs");
        let mut unknown = Stillness::new(2);
        assert!((0..1_000).all(|n| unknown.take(0, (at(n), 5.0), Plain, Runs) == Moves));
    }

    /// Each for itself stands longer than ever, and nothing says that it is the machine.
    #[test]
    fn a_source_that_tells_its_last_values_for_ever_is_frozen() {
        let stops = |seconds: u32| move |n: u32| moving(n.min(400 + seconds), 1)[1];
        let frozen = |every, machine, first: f64, seconds| found(Case { every, nature: Tells, machine, first: |_| first, second: stops(seconds) });
        assert_eq!(frozen(1, Untold, 5.0, 20), (Stuck, Some(20 + RUN_LEAST - 1)), "once the last of them stands too long");
        assert_eq!(frozen(5, Untold, 5.0, 0), (Stuck, Some(95 - 1)));
        assert_eq!(frozen(1, Untold, 20.0, 0).0, Stuck, "a hair outside of what was seen, as any value may be");
        assert_eq!(frozen(1, Untold, 20.1, 0).0, Moves, "the machine stands");
        assert_eq!(frozen(1, Runs, 500.0, 0).0, Stuck, "no running machine has constant points");
        assert_eq!(frozen(1, Stands, 5.0, 0).0, Moves);
        let mut frozen = learned(2, 1);
        let last = moving(399, 1);
        let stuck = |stillness: &mut Stillness| [0, 1].map(|point| stillness.take(point, (at(400), last[point]), [Plain, Tells][point], Untold));
        // The last one that was learned is one of the equal values.
        assert!((2..RUN_LEAST).all(|_| stuck(&mut frozen) == [Moves; 2]));
        assert_eq!([stuck(&mut frozen), stuck(&mut frozen)], [[Moves, Stuck], [Stuck; 2]]);
        assert_eq!(frozen.take(0, (at(400), 6.0), Plain, Untold), Moves, "it moves again");
        assert_eq!(frozen.take(1, (at(400), last[1]), Tells, Untold), Doubtful, "and so the other one may be steady");
    }

    #[test]
    fn a_point_without_others_is_stuck_near_what_was_seen() {
        let found_at = |(value, nature): (f64, Nature)| {
            let mut alone = learned(1, 1);
            (0..1_000).map(|n| alone.take(0, (at(400 + n), value), nature, Untold)).max().unwrap()
        };
        assert_eq!([(5.0, Plain), (0.0, Plain), (20.0, Plain), (5.0, Vibrates)].map(found_at), [Stuck; 4]);
        assert_eq!([(-10.1, Plain), (20.1, Vibrates), (5.0, Tells)].map(found_at), [Moves; 3], "the machine stands, or is steady");
    }

    /// A stop takes the points to their ends at once, before it is told.
    #[test]
    fn nothing_is_learned_of_the_time_before_a_stop() {
        let settling = Teaches { settle_us: 10_000_000 };
        let mut stillness = Stillness::new(1);
        let run = |stillness: &mut Stillness, seconds: std::ops::Range<u32>| {
            seconds.for_each(|n| assert_eq!(stillness.take(0, (at(n), 20.0 + f64::from(n % 9)), Plain, settling), Moves));
        };
        run(&mut stillness, 0..100);
        assert_eq!(stillness.take(0, (at(100), 0.0), Plain, settling), Moves, "its last sample, while it is told to run");
        (101..150).for_each(|n| assert_eq!(stillness.take(0, (at(n), 0.0), Plain, Stands), Moves));
        run(&mut stillness, 150..250);
        let Learned { readings, changes, longest, low, high } = stillness.points[0].learned.unwrap();
        assert_eq!((low, high, longest), (20.0, 28.0, 1));
        assert!(readings == changes + 1 && (160..=180).contains(&readings), "{readings}, {changes}");
    }

    /// What it did at a standstill is none of the next run's.
    #[test]
    fn equal_readings_are_counted_from_the_start_of_the_machine_on() {
        let mut stillness = learned(2, 1);
        let mut take = |n: u32, machine| [0, 1].map(|point| stillness.take(point, (at(n), [5.0, moving(n, 1)[1]][point]), Plain, machine))[0];
        assert!((400..800).all(|n| take(n, Stands) == Moves));
        assert_eq!((800..900).find(|n| take(*n, Runs) == Stuck), Some(800 + RUN_LEAST - 2));
        assert!((900..1_000).all(|n| take(n, Stands) == Stuck), "nothing new is known of it");
        assert!((1_000..1_100).all(|n| take(n, Runs) == Stuck));
    }

    #[test]
    fn a_vibration_that_never_moved_is_stuck_once_the_machine_is_learned() {
        let dead = |nature, machine| {
            let mut stillness = Stillness::new(3);
            let mut take = |n: u32, machine| {
                let [_, first, second] = moving(n, 1);
                [0, 1, 2].map(|point| stillness.take(point, (at(n), [0.0, first, second][point]), if point == 0 { nature } else { Plain }, machine))
                    [0]
            };
            assert!((0..400).all(|n| take(n, LEARNED) == Moves));
            (take(400, machine), take(401, Stands))
        };
        assert_eq!([Runs, Untold].map(|machine| dead(Vibrates, machine)), [(Stuck, Stuck); 2]);
        assert_eq!([(Vibrates, Stands), (Plain, Runs), (Tells, Runs)].map(|(nature, machine)| dead(nature, machine)), [(Moves, Moves); 3]);
    }

    #[test]
    fn points_run_on_as_they_move_within_what_was_learned() {
        let mut stillness = learned(3, 1);
        let mut running_on = |values: [f64; 3], natures: [Nature; 3]| {
            (0..3).for_each(|point| {
                stillness.take(point, (at(400), values[point]), natures[point], Stands);
            });
            let RunningOn { points, of } = stillness.running_on(&natures);
            (points, of)
        };
        let natures = [Plain, Vibrates, Tells];
        assert_eq!([[1.0, 1.0, 0.0], [2.0, 13.0, 1.0], [2.0, 3.0, 2.0]].map(|values| running_on(values, natures)), [(2, 2), (1, 2), (1, 2)]);
        assert_eq!(running_on([4.0, 4.0, 4.0], [Plain, Warms, Warms]), (1, 1), "what is warm stays so for a while");
        let mut stopped = learned(3, 1);
        for n in 0..50 {
            (0..3).for_each(|point| {
                stopped.take(point, (at(400 + n), [moving(n, 1)[0], 0.0, -1.0 - f64::from(n)][point]), Plain, TeachesStop);
            });
        }
        assert_eq!(stopped.running_on(&[Plain; 3]).of, 1, "the others are at a standstill where they are in running");
        stopped.restart();
        assert_eq!(stopped.running_on(&[Plain; 3]).of, 1);
        assert_eq!(learned(3, 11).running_on(&[Plain; 3]), RunningOn { points: 2, of: 2 }, "of those that can be judged");
    }

    #[test]
    fn what_comes_after_a_gap_continues_nothing() {
        let mut stillness = learned(2, 1);
        let still = |stillness: &mut Stillness| {
            stillness.take(1, (at(400), 6.5), Plain, Untold);
            stillness.take(1, (at(400), 7.5), Plain, Untold);
            stillness.take(0, (at(400), 5.0), Plain, Untold) == Stuck
        };
        assert!((0..29).all(|_| !still(&mut stillness)) && still(&mut stillness));
        stillness.restart();
        assert!((0..29).all(|_| !still(&mut stillness)) && still(&mut stillness));
        assert_eq!(stillness.take(0, (at(400), 6.0), Plain, Untold), Moves, "it moves again");
    }
}
