//! How new a moment is for its machine: measured against the largest moments of its own recent past, not against a limit.
//!
//! The score says that a machine is away from normal, for as long as it is. This says that something just happened: it rises where the machine moves, or
//! stands, further out than it has of late, and falls back below 0.5 at once, since each row is the measure of the next. So it tells of jumps; what comes
//! by degrees is the score's to tell. Noise alone is new in about one row of a thousand. Two aspects are looked at, each in both directions:
//!
//! - **motion**: the exponentially weighted mean of each point's whitened residual. The sign is kept, so that noise cancels and a push in one direction
//!   adds up.
//! - **level**: how far each point's z-score is from its mean of late.
//!
//! Every aspect and direction remembers a peak that fades by half in some 2000 rows. The price: behind an event that was k times the largest one before,
//! smaller ones do not stand out until it has faded, log2(k) times as long. The score does not forget them.
use serde::{Deserialize, Serialize};

/// Weight of the newest row in the mean of a point's whitened residuals.
const MOTION: f64 = 0.05;
/// Weight of the newest row in a point's mean of late: half of it is from the last 50 rows.
const LEVEL: f64 = 0.014;
/// What is left of a peak after a row. A literal, since a power of one half may end in another digit on another processor.
const FADE: f64 = 0.999_65;
/// So much of the peak in the other direction counts as well: who always swings up is new at a swing down that is smaller, though not at any.
const OTHER_WAY: f64 = 0.3;
/// How far beyond the recent peak is new: what comes to the same height again is not.
const MARGIN: f64 = 1.2;
/// Least peak, z-scores or whitened residuals over their limit: what stands still makes the last digit of a number no event.
const PEAK_MIN: f64 = 0.01;
/// Rows at the start that set no peak: means are not settled yet.
const SETTLING: u32 = 20;

/// What is remembered of a machine's recent past. A function of the rows alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Novelty {
    rows: u32,
    /// Per point, mean of the whitened residuals.
    motion: Vec<f64>,
    motion_peaks: Peaks,
    /// Per point, mean of the z-scores; `None` before its first value.
    level: Vec<Option<f64>>,
    level_peaks: Peaks,
}

/// The largest of late in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Peaks {
    up: f64,
    down: f64,
}

impl Novelty {
    /// Takes a row: of each point the whitened residual (0 where it has none) and the z-score. Gives the anomaly, 0 to 1: 0.5 where the row is a fifth
    /// beyond the peak of late in some aspect and direction.
    pub(super) fn push(&mut self, whitened: &[f64], z: &[Option<f64>]) -> f64 {
        self.motion.resize(whitened.len(), 0.0);
        self.level.resize(z.len(), None);
        for (mean, residual) in self.motion.iter_mut().zip(whitened) {
            *mean += MOTION * (residual - *mean);
        }
        let off = |(mean, &z): (&mut Option<f64>, &Option<f64>)| {
            let Some(z) = z else { return 0.0 };
            let mean = mean.get_or_insert(z);
            let off = z - *mean;
            *mean += LEVEL * off;
            off
        };
        let offs: Vec<f64> = self.level.iter_mut().zip(z).map(off).collect();
        let settled = self.rows >= SETTLING;
        self.rows = self.rows.saturating_add(1);
        let beyond = self.motion_peaks.push(&self.motion, settled).max(self.level_peaks.push(&offs, settled));
        // Unlike an exponential it still tells large ones apart.
        beyond / (beyond + MARGIN)
    }
}

impl Peaks {
    /// How many times the peak before it a row of signed distances is, one per point; the row is remembered if it `counts`.
    fn push(&mut self, distances: &[f64], counts: bool) -> f64 {
        let (up, down) = (size(distances, 1.0), size(distances, -1.0));
        let over = |distance: f64, peak: f64, other: f64| distance / peak.max(OTHER_WAY * other).max(PEAK_MIN);
        let beyond = over(up, self.up, self.down).max(over(down, self.down, self.up));
        self.up *= FADE;
        self.down *= FADE;
        if counts {
            self.up = self.up.max(up);
            self.down = self.down.max(down);
        }
        beyond
    }
}

/// The fourth-order mean over all points of the distances in the direction of `sign`, as scores have it.
fn size(distances: &[f64], sign: f64) -> f64 {
    let largest = distances.iter().fold(0.0_f64, |largest, distance| largest.max(sign * distance));
    if largest == 0.0 {
        return 0.0;
    }
    // Parts of the largest one: the fourth power of a distance can be too large for a number.
    let fourth = |distance: &f64| {
        let square = ((sign * distance).max(0.0) / largest).powi(2);
        square * square
    };
    largest * (distances.iter().map(fourth).sum::<f64>() / distances.len() as f64).sqrt().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::baseline::tests::Noise;

    /// After so many rows of noise with one point.
    fn used_to(noise: &mut Noise, rows: usize) -> Novelty {
        let mut novelty = Novelty::default();
        for _ in 0..rows {
            novelty.push(&[noise.next()], &[Some(noise.next())]);
        }
        novelty
    }

    /// Of so many rows with what is pushed onto the noise of each, those that are new.
    fn new_rows(novelty: &mut Novelty, noise: &mut Noise, rows: usize, push: impl Fn(usize) -> (f64, f64)) -> Vec<usize> {
        let mut is_new = |row: usize| {
            let (residual, z) = push(row);
            novelty.push(&[residual + noise.next()], &[Some(z + noise.next())]) >= 0.5
        };
        (0..rows).filter(|&row| is_new(row)).collect()
    }

    #[test]
    fn the_usual_is_hardly_ever_new() {
        let mut noise = Noise(1);
        let new = new_rows(&mut used_to(&mut noise, 2_000), &mut noise, 20_000, |_| (0.0, 0.0)).len();
        assert!(new <= 40, "{new} of 20 000 rows");
    }

    #[test]
    fn a_jump_is_told_as_it_comes_and_not_for_as_long_as_it_lasts() {
        for jump in [(20.0, 0.0), (-20.0, 0.0), (0.0, 12.0), (0.0, -12.0)] {
            let mut noise = Noise(2);
            let new = new_rows(&mut used_to(&mut noise, 2_000), &mut noise, 500, |_| jump);
            // Noise has its own news now and then.
            let later = new.iter().filter(|row| **row >= 10).count();
            assert!(new.first() == Some(&0) && later <= 2, "{jump:?}: {new:?}");
        }
    }

    /// Each row is the measure of the next.
    #[test]
    fn what_comes_by_degrees_is_not_told() {
        let mut noise = Noise(7);
        let new = new_rows(&mut used_to(&mut noise, 2_000), &mut noise, 2_000, |row| (0.0, 0.02 * row as f64));
        assert!(new.len() <= 4, "{new:?}");
    }

    #[test]
    fn what_goes_to_and_fro_cancels() {
        let novelty = used_to(&mut Noise(3), 2_000);
        let largest = |push: &dyn Fn(usize) -> f64| {
            let mut novelty = novelty.clone();
            (0..40).map(|row| novelty.push(&[push(row)], &[Some(0.0)])).fold(0.0, f64::max)
        };
        let (alternating, steady) = (largest(&|row| if row % 2 == 0 { 6.0 } else { -6.0 }), largest(&|_| 6.0));
        assert!(alternating < 0.5 && steady > 0.5, "{alternating} {steady}");
    }

    #[test]
    fn a_level_that_was_never_there_is_new_whatever_the_motion() {
        let mut novelty = used_to(&mut Noise(4), 2_000);
        assert!(novelty.push(&[0.0], &[Some(9.0)]) > 0.6);
    }

    /// One that has always swung up far and down little.
    #[test]
    fn each_direction_has_its_own_peak() {
        let mut novelty = Novelty::default();
        for row in 0..400 {
            novelty.push(&[0.0], &[Some(if row % 40 == 20 { 10.0 } else { 0.0 })]);
        }
        let after = |z: f64| novelty.clone().push(&[0.0], &[Some(z)]);
        assert!(after(10.0) < 0.5, "{}", after(10.0));
        assert!(after(-6.0) > 0.5, "{}", after(-6.0));
    }

    #[test]
    fn a_peak_fades_by_half_in_some_two_thousand_rows() {
        let mut novelty = Novelty::default();
        for row in 0..100 {
            novelty.push(&[0.0], &[Some(if row == 50 { 8.0 } else { 0.0 })]);
        }
        let five = |novelty: &Novelty| novelty.clone().push(&[0.0], &[Some(5.5)]);
        assert!(five(&novelty) < 0.45, "{}", five(&novelty));
        for _ in 0..2_000 {
            novelty.push(&[0.0], &[Some(0.0)]);
        }
        assert!(five(&novelty) > 0.5, "{}", five(&novelty));
    }

    #[test]
    fn a_machine_that_stands_still_has_no_news_and_its_first_move_is_one() {
        let mut novelty = Novelty::default();
        let still = (0..500).map(|_| novelty.push(&[0.0, 0.0], &[Some(2.0), Some(-1.0)])).fold(0.0, f64::max);
        assert_eq!(still, 0.0);
        assert!(novelty.push(&[0.0, 0.0], &[Some(2.0 + 1e-9), Some(-1.0)]) < 1e-6, "rounding");
        assert!(novelty.push(&[0.0, 1.0], &[Some(2.0), Some(0.0)]) > 0.9);
    }

    #[test]
    fn a_point_without_a_value_is_neither_new_nor_new_when_it_is_back() {
        let mut noise = Noise(5);
        let mut novelty = Novelty::default();
        let mut row = |z: Option<f64>| novelty.push(&[noise.next(), noise.next()], &[Some(noise.next()), z]);
        (0..2_000).for_each(|_| _ = row(Some(100.0)));
        let away = (0..300).map(|_| row(None)).fold(0.0, f64::max);
        let back = row(Some(100.0));
        assert!(away < 0.5 && back < 0.5, "{away} {back}");
    }

    #[test]
    fn sizes_are_means_of_one_direction_and_do_not_overflow() {
        assert_eq!([size(&[2.0, 2.0], 1.0), size(&[-2.0, -2.0], 1.0), size(&[-2.0, -2.0], -1.0)], [2.0, 0.0, 2.0]);
        assert!((size(&[4.0, 0.0, 0.0, -9.0], 1.0) - 4.0 / f64::sqrt(2.0)).abs() < 1e-12);
        assert_eq!(size(&[1e300], 1.0), 1e300);
        assert_eq!(size(&[], 1.0), 0.0);
    }
}
