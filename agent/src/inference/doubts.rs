//! What speaks against collected rows as normal: a zone of severity that no sound machine is in, limits that it was beyond, points that drifted or never moved.
//!
//! By policy more than a tenth of such rows, more than half of the points without any change, or a drift, refuses them; less is a remark, and so is all of it by the word of a person, who may know why.
use hark_protocol::topics::Name;

use super::{
    baseline::Refusal,
    collected::Collected,
    drift::{self, Drift},
};

/// More rows of one kind than this part are too many to be chance.
const PART_MOST: f64 = 0.1;
/// So many points that drifted, or never moved, are named.
const NAMED: usize = 3;

/// What was seen in the rows of one commissioning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Doubts {
    rows: usize,
    in_bad_zone: usize,
    beyond_limit: usize,
    /// Points that never changed, of so many.
    still: Vec<Name>,
    points: usize,
    drifts: Vec<Drift>,
    /// Of attempts before this one.
    drifted: Vec<Drift>,
}

impl Doubts {
    /// About `rows` of these points.
    pub(super) fn of(rows: &Collected, points: &[Name]) -> Self {
        let is_still = |point: usize| (1..rows.len()).all(|row| rows.value(row, point) == rows.value(0, point));
        let still = (0..points.len()).filter(|point| is_still(*point)).map(|point| points[point].clone()).collect();
        Self {
            rows: rows.len(),
            in_bad_zone: rows.in_bad_zone(),
            beyond_limit: rows.beyond_limit(),
            still,
            points: points.len(),
            drifts: drift::among(points, rows),
            drifted: rows.drifted().to_vec(),
        }
    }

    /// Why the rows are not to be learned by policy.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let too_many = |rows: usize| rows as f64 > PART_MOST * self.rows as f64;
        let of_rows = |rows: usize| (rows, self.rows);
        let of_zone = too_many(self.in_bad_zone).then(|| Refusal::Severity { rows: of_rows(self.in_bad_zone) });
        let of_limit = || too_many(self.beyond_limit).then(|| Refusal::BeyondLimit { rows: of_rows(self.beyond_limit) });
        let of_still = || {
            let names = self.still.iter().take(NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            (2 * self.still.len() > self.points).then_some(Refusal::Still { points: (self.still.len(), self.points), names })
        };
        of_zone.or_else(of_limit).or_else(of_still).or_else(|| self.drifts.first().cloned().map(Refusal::Drift))
    }

    /// What to say of rows that are learned all the same.
    pub(super) fn remarks(&self) -> Vec<String> {
        let told = |rows: usize, what: &str| (rows > 0).then(|| format!("{what} in {rows} of {} rows", self.rows));
        let of_rows = told(self.in_bad_zone, "in zone C or D").into_iter().chain(told(self.beyond_limit, "with an alarm of a limit"));
        let more = self.drifts.len().saturating_sub(NAMED);
        let of_points = self.drifts.iter().take(NAMED).map(ToString::to_string);
        let more = (more > 0).then(|| format!("{more} more points moved one way"));
        let before = self.drifted.iter().map(|drift| format!("in an attempt before {drift}"));
        of_rows.chain(of_points).chain(more).chain(before).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::collected::Amiss, *};
    use crate::buffer::Position;

    /// A value for each row.
    type Values = fn(usize) -> f64;

    const POSITION: Position = Position { ordinal: 1, seq: 1 };

    /// 200 rows of `points` points that all rise by so much, of which the first ones are amiss.
    fn doubts(points: usize, rise: f64, in_bad_zone: usize, beyond_limit: usize) -> Doubts {
        let mut collected = Collected::new(points);
        for row in 0..200 {
            let amiss = Amiss { in_bad_zone: row < in_bad_zone, beyond_limit: row < beyond_limit };
            collected.push(&vec![rise * row as f64 + (row % 2) as f64; points], &vec![true; points], row > 0, (POSITION, POSITION), amiss);
        }
        let names: Vec<Name> = (0..points).map(|point| format!("p{point}").into()).collect();
        Doubts::of(&collected, &names)
    }

    #[test]
    fn more_than_a_tenth_of_the_rows_is_too_many() {
        assert_eq!((doubts(1, 0.0, 20, 20).refusal(), doubts(1, 0.0, 0, 0).remarks()), (None, Vec::new()));
        assert_eq!(doubts(1, 0.0, 20, 2).remarks(), ["in zone C or D in 20 of 200 rows", "with an alarm of a limit in 2 of 200 rows"]);
        assert_eq!(doubts(1, 0.0, 21, 0).refusal(), Some(Refusal::Severity { rows: (21, 200) }));
        assert_eq!(doubts(1, 0.0, 0, 21).refusal(), Some(Refusal::BeyondLimit { rows: (21, 200) }));
    }

    /// Of one half it may be so: two positions of valves beside two flows.
    #[test]
    fn more_points_without_any_change_than_others_are_too_many() {
        let refusal = |values: &[fn(usize) -> f64]| {
            let mut collected = Collected::new(values.len());
            (0..200).for_each(|row| collected.push_fresh(&values.iter().map(|value| value(row)).collect::<Vec<_>>(), row > 0));
            let names: Vec<Name> = (0..values.len()).map(|point| format!("p{point}").into()).collect();
            Doubts::of(&collected, &names).refusal().map(|refusal| refusal.to_string())
        };
        let (moves, stands): (Values, Values) = (|row| (row % 7) as f64, |_| 6.0);
        let moves_once: fn(usize) -> f64 = |row| f64::from(row == 199);
        assert_eq!([refusal(&[stands, moves]), refusal(&[stands, moves, stands, moves_once]), refusal(&[moves])], [None, None, None]);
        let refused = refusal(&[stands, moves, stands]).unwrap();
        assert!(refused.starts_with("2 of 3 scored points never changed their value (`p0`, `p2`)"), "{refused}");
    }

    #[test]
    fn what_ended_an_attempt_before_stays_a_remark() {
        let drift = doubts(1, 0.1, 0, 0).drifts.remove(0);
        let mut collected = Collected::new(1).after(drift);
        (0..200).for_each(|row| collected.push_fresh(&[(row % 7) as f64], row > 0));
        let found = Doubts::of(&collected, &["p0".into()]);
        assert!(found.refusal().is_none() && found.remarks()[0].starts_with("in an attempt before `p0` rose all the time"), "{found:?}");
    }

    #[test]
    fn points_that_drift_are_named_as_far_as_they_are_few() {
        let found = doubts(5, 0.1, 0, 0);
        assert!(matches!(found.refusal(), Some(Refusal::Drift(drift)) if &*drift.point == "p0"));
        let remarks = found.remarks();
        assert!(remarks.len() == 4 && remarks[2].starts_with("`p2` rose all the time") && remarks[3] == "2 more points moved one way", "{remarks:?}");
    }
}
