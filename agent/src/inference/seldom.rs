//! Points that are heard more seldom than rows come: the velocity of a block every ten minutes beside a current every second.
//!
//! Between its values such a point is held, and what is held follows from itself without fail: a regression on its own past leaves nothing of it but in the
//! row where it changes, and takes that for all there is to its spread. So it has no part in the regression, and is judged by its level: a mean over its
//! own values, newer ones counting more (EWMA, as a control chart has it), against what it was in commissioning. The level moves where the point has a
//! value of its own, in rows that count; what is held from before a stop, or from another load, never is the level of this one.
//!
//! A day of blocks is 144 values, and where these follow one another, as few as five that are independent: so much is left open of their mean and their
//! spread that the spread is widened by it, as Student's distribution says. With too few values the point has no part in the score, and a remark says so.
//!
//! Limits: the mean is that of the regime, whatever the other points show; where a point follows a load that moves within its regime, that is its spread.
use nalgebra::{DMatrix, RowDVector};
use serde::{Deserialize, Serialize};

use super::{collected::Collected, limit::LIMIT, regression::Regression};

/// Weight of the newest value in the level.
const SMOOTHING: f64 = 0.2;
/// More values than that are thinned out, evenly, before it is seen how they follow one another.
const LOOKED_AT_MAX: usize = 2_000;
/// Normal deviates at which the spread is as wide as Student's distribution is.
const WIDE_AT: f64 = 3.0;
/// How often the correlation of values is corrected for their mean, until it stays, and the part of the variance that this may be at most.
const CORRECTIONS: usize = 8;
const MEAN_OFF_MAX: f64 = 0.9;
/// The level of a point alone is at the limit of the score so many spreads from its mean. No other number of the score knows it: it is not smoothed row by
/// row, and comes ten times or a thousand times more seldom than what the limits of the channels are made of.
const LIMIT_SPREADS: f64 = 6.0;
/// With fewer values nothing is known of a spread, and with fewer degrees of freedom.
const VALUES_MIN: usize = 30;
/// See above.
const FREEDOM_MIN: f64 = 2.0;

/// Indices of the points that had a value of their own in fewer than half as many rows as the one that had most.
pub(super) fn among(fresh: &[usize]) -> Vec<usize> {
    let most = fresh.iter().copied().max().unwrap_or(0);
    (0..fresh.len()).filter(|&point| 2 * fresh[point] < most).collect()
}

/// The level of each seldom point, with its index, ascending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Levels(Vec<(usize, f64)>);

impl Levels {
    /// Takes the newest row; `fresh` says which of its values are the row's own.
    pub(super) fn take(&mut self, row: &[Option<f64>], fresh: &[bool]) {
        for (point, level) in &mut self.0 {
            let value = row.get(*point).copied().flatten().filter(|_| fresh.get(*point) == Some(&true));
            value.into_iter().for_each(|value| follow(level, value));
        }
    }

    /// Level of `point`; `None` where it is not seldom.
    pub(super) fn of(&self, point: usize) -> Option<f64> {
        self.0.iter().find(|(seldom, _)| *seldom == point).map(|(_, level)| *level)
    }

    /// Puts levels in the place of values into a window of the points `left`, row-major.
    pub(super) fn stand_in(&self, window: &mut [f64], left: &[usize]) {
        for (place, level) in left.iter().enumerate().filter_map(|(place, &point)| Some((place, self.of(point)?))) {
            window.iter_mut().skip(place).step_by(left.len()).for_each(|value| *value = level);
        }
    }
}

fn fourth_root(value: f64) -> f64 {
    value.sqrt().sqrt()
}

fn follow(level: &mut f64, value: f64) {
    *level += SMOOTHING * (value - *level);
}

/// Whitened residuals as motion: a level stands between its values, and would hide how the others move.
pub(super) fn motion(mut whitened: Vec<f64>, seldom: &[usize]) -> Vec<f64> {
    seldom.iter().for_each(|&point| whitened[point] = 0.0);
    whitened
}

/// What commissioning learns of a seldom point.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) point: usize,
    pub(super) mean: f64,
    /// Of the level around `mean`; `None` where too few values tell it.
    pub(super) spread: Option<f64>,
    /// The level at each row.
    pub(super) levels: Vec<f64>,
}

impl Learned {
    pub(super) fn of(rows: &Collected, point: usize) -> Self {
        let fresh: Vec<f64> = (0..rows.len()).filter(|&row| rows.is_fresh(row, point)).map(|row| rows.value(row, point)).collect();
        let mean = fresh.iter().sum::<f64>() / fresh.len().max(1) as f64;
        let (mut level, mut seen) = (mean, Vec::with_capacity(fresh.len()));
        let levels = (0..rows.len())
            .map(|row| {
                if rows.is_fresh(row, point) {
                    follow(&mut level, rows.value(row, point));
                    seen.push(level - mean);
                }
                level
            })
            .collect();
        Self { point, mean, spread: spread(&seen), levels }
    }
}

/// Where the levels stand after the rows of commissioning.
pub(super) fn levels_after(learned: &[Learned]) -> Levels {
    Levels(learned.iter().map(|learned| (learned.point, learned.levels.last().copied().unwrap_or(learned.mean))).collect())
}

/// The spread of `off`, distances from their mean in the order of time, as wide as so few make it.
fn spread(off: &[f64]) -> Option<f64> {
    if off.len() < VALUES_MIN {
        return None;
    }
    let off: Vec<f64> = off.iter().copied().step_by(off.len().div_ceil(LOOKED_AT_MAX).max(1)).collect();
    let count = off.len() as f64;
    let square = off.iter().map(|off| off * off).sum::<f64>();
    let correlation = |lag: usize| off.iter().zip(&off[lag..]).map(|(before, after)| before * after).sum::<f64>() / square;
    // Up to where they are lost in the noise.
    let correlations: Vec<f64> = (1..off.len()).map(correlation).take_while(|correlation| *correlation > 0.0).collect();
    // Sums of correlations, and of their squares, over lags of either sign. Seen from their own mean values are nearer to one another than they are, by as
    // much as that mean is off.
    let (mut of_mean, mut of_spread) = (1.0, 1.0);
    for _ in 0..CORRECTIONS {
        let mean_off = f64::min(of_mean / count, MEAN_OFF_MAX);
        let corrected = correlations.iter().map(|correlation| correlation + (1.0 - correlation) * mean_off);
        of_mean = 1.0 + 2.0 * corrected.clone().sum::<f64>();
        of_spread = 1.0 + 2.0 * corrected.map(|correlation| correlation * correlation).sum::<f64>();
    }
    let freedom = count / of_spread - 1.0;
    if freedom < FREEDOM_MIN || of_mean >= count {
        return None;
    }
    let variance = square / (count - of_mean) * (1.0 + of_mean / count);
    Some(variance.sqrt() * student(WIDE_AT, freedom) / WIDE_AT)
}

/// The deviate of Student's distribution that is as rare as the normal one `normal` (Wallace, Annals of Mathematical Statistics 30 (1959) 1121).
fn student(normal: f64, freedom: f64) -> f64 {
    let bent = normal * (8.0 * freedom + 3.0) / (8.0 * freedom + 1.0);
    (freedom * exp_m1(bent * bent / freedom)).sqrt()
}

/// `e^x - 1` for 0 to some 10, by its series: the function of the system may end in another digit on another processor.
fn exp_m1(x: f64) -> f64 {
    let add = |(term, sum): (f64, f64), n: u8| (term * x / f64::from(n), sum + term * x / f64::from(n));
    (1..=64).fold((1.0, 0.0), add).1
}

/// Which of `points` points are seldom: fits are of the others alone, and are spread over all here.
#[derive(Clone, Debug)]
pub(super) struct Apart {
    pub(super) points: usize,
    /// The indices of those that are not seldom, ascending.
    pub(super) regressed: Vec<usize>,
}

impl Apart {
    pub(super) fn new(points: usize, seldom: &[usize]) -> Self {
        Self { points, regressed: (0..points).filter(|point| !seldom.contains(point)).collect() }
    }

    /// No point is seldom.
    pub(super) fn is_none(&self) -> bool {
        self.regressed.len() == self.points
    }

    /// Nothing explains a seldom point, and it explains nothing.
    pub(super) fn regression(&self, of_others: Regression) -> Regression {
        if self.is_none() {
            return of_others;
        }
        let (points, others) = (self.points, self.regressed.len());
        let lags = of_others.weights.nrows() / others.max(1);
        let mut spread = Regression { weights: DMatrix::zeros(lags * points, points), bias: RowDVector::zeros(points) };
        for (place, &point) in self.regressed.iter().enumerate() {
            spread.bias[point] = of_others.bias[place];
            for row in 0..lags * others {
                spread.weights[(row / others * points + self.regressed[row % others], point)] = of_others.weights[(row, place)];
            }
        }
        spread
    }

    /// Whitening over a channel's limit. A score of the others alone is what it would be without the seldom ones, and one of a seldom point alone is at the
    /// limit where its level is [`LIMIT_SPREADS`] from its mean.
    pub(super) fn whitening(&self, of_others: DMatrix<f64>) -> DMatrix<f64> {
        if self.is_none() {
            return of_others;
        }
        // The score is a mean over all points.
        let (points, others) = (self.points as f64, self.regressed.len() as f64);
        let mut spread = DMatrix::identity(self.points, self.points) * (fourth_root(points) * LIMIT / LIMIT_SPREADS);
        for (row, &from) in self.regressed.iter().enumerate() {
            for (column, &to) in self.regressed.iter().enumerate() {
                spread[(from, to)] = of_others[(row, column)] * fourth_root(points / others);
            }
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    #[test]
    fn seldom_is_who_is_heard_less_than_half_as_often_as_another() {
        for (fresh, expected) in [(&[100, 100, 95][..], &[][..]), (&[100, 50, 49, 1], &[2, 3]), (&[10, 10, 10], &[]), (&[0, 0], &[]), (&[], &[])] {
            assert_eq!(among(fresh), expected, "{fresh:?}");
        }
    }

    /// Values that follow one another by `memory`, in units of their standard deviation.
    fn wandering(noise: &mut Noise, memory: f64, count: usize) -> Vec<f64> {
        let mut value = noise.next();
        let step = (1.0 - memory * memory).sqrt();
        let next = |_| {
            value = memory * value + step * noise.next();
            value
        };
        (0..count).map(next).collect()
    }

    /// How many spreads from its mean the level of so many values came to stand furthest in ten times as many that followed; on average over machines.
    fn furthest(memory: f64, count: usize) -> f64 {
        let mut noise = Noise(31);
        let one = |_| {
            let values = wandering(&mut noise, memory, 11 * count);
            let mut rows = Collected::new(1);
            values[..count].iter().for_each(|value| rows.push_fresh(&[*value], true));
            let Learned { mean, spread, levels, .. } = Learned::of(&rows, 0);
            let mut level = *levels.last().unwrap();
            let off = |value: &f64| {
                follow(&mut level, *value);
                (level - mean).abs()
            };
            values[count..].iter().map(off).fold(0.0, f64::max) / spread.unwrap_or(f64::INFINITY)
        };
        (0..50).map(one).sum::<f64>() / 50.0
    }

    /// The spread is no narrower than what comes later shows, whether there are many values or few, and whether they follow one another or not.
    #[test]
    fn the_spread_is_as_wide_as_few_values_make_it() {
        for (memory, count, expected) in
            [(0.0, 1_000, 3.5..4.6), (0.0, 144, 2.3..4.0), (0.0, 30, 1.0..3.5), (0.95, 144, 0.5..3.5), (0.95, 2_000, 2.5..4.5)]
        {
            let furthest = furthest(memory, count);
            assert!(expected.contains(&furthest), "{memory} {count}: {furthest}");
        }
    }

    #[test]
    fn too_few_values_tell_no_spread() {
        let noise: Vec<f64> = (0..VALUES_MIN).map(|n| if n % 3 == 0 { 2.0 } else { -1.0 }).collect();
        assert_eq!((spread(&[]), spread(&[1.0]), spread(&noise[1..])), (None, None, None));
        assert!(spread(&noise).is_some_and(|spread| (1.4..2.0).contains(&spread)), "{:?}", spread(&noise));
        let slope: Vec<f64> = (-50..50).map(f64::from).collect();
        assert!(spread(&slope).is_none_or(|spread| spread > 100.0), "a hundred values of one slow move: {:?}", spread(&slope));
    }

    #[test]
    fn the_deviates_of_student_are_those_of_tables() {
        // One-sided 0.135 %, the normal deviate 3.
        assert!([0.0_f64, 0.3, 5.6].iter().all(|x| (exp_m1(*x) - x.exp_m1()).abs() <= 1e-13 * x.exp_m1()));
        for (freedom, expected) in [(3.0, 9.22), (5.0, 5.51), (10.0, 3.96), (30.0, 3.27), (1e6, 3.0)] {
            let found = student(3.0, freedom);
            assert!((found / expected - 1.0).abs() < 0.07, "{freedom}: {found}");
        }
    }

    #[test]
    fn a_level_follows_what_is_fresh_alone() {
        let mut levels = Levels(vec![(1, 10.0)]);
        levels.take(&[Some(5.0), Some(20.0)], &[true, false]);
        levels.take(&[Some(5.0), None], &[true, true]);
        assert_eq!((levels.of(0), levels.of(1)), (None, Some(10.0)));
        levels.take(&[None, Some(20.0)], &[false, true]);
        assert_eq!(levels.of(1), Some(12.0));
        let mut window = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        levels.stand_in(&mut window, &[0, 1, 4]);
        assert_eq!(window, [1.0, 12.0, 3.0, 4.0, 12.0, 6.0]);
        levels.stand_in(&mut window, &[0, 2, 4]);
        assert_eq!(window, [1.0, 12.0, 3.0, 4.0, 12.0, 6.0]);
    }
}
