//! What speaks against collected rows as normal: a zone of severity that no sound machine is in, limits that it was beyond.
//!
//! By policy more than a tenth of such rows refuses them; less is a remark, and so is all of it by the word of a person, who may know why.
use super::{baseline::Refusal, collected::Collected};

/// More rows of one kind than this part are too many to be chance.
const PART_MOST: f64 = 0.1;

/// What was seen in the rows of one commissioning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Doubts {
    rows: usize,
    in_bad_zone: usize,
    beyond_limit: usize,
}

impl Doubts {
    /// About `rows`.
    pub(super) fn of(rows: &Collected) -> Self {
        Self { rows: rows.len(), in_bad_zone: rows.in_bad_zone(), beyond_limit: rows.beyond_limit() }
    }

    /// Why the rows are not to be learned by policy.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let too_many = |rows: usize| rows as f64 > PART_MOST * self.rows as f64;
        let of_rows = |rows: usize| (rows, self.rows);
        let of_zone = too_many(self.in_bad_zone).then(|| Refusal::Severity { rows: of_rows(self.in_bad_zone) });
        let of_limit = || too_many(self.beyond_limit).then(|| Refusal::BeyondLimit { rows: of_rows(self.beyond_limit) });
        of_zone.or_else(of_limit)
    }

    /// What to say of rows that are learned all the same.
    pub(super) fn remarks(&self) -> Vec<String> {
        let told = |rows: usize, what: &str| (rows > 0).then(|| format!("{what} in {rows} of {} rows", self.rows));
        let of_rows = told(self.in_bad_zone, "in zone C or D").into_iter().chain(told(self.beyond_limit, "with an alarm of a limit"));
        of_rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::collected::Amiss, *};
    use crate::buffer::Position;

    const POSITION: Position = Position { ordinal: 1, seq: 1 };

    /// 200 rows, of which the first ones are amiss.
    fn doubts(in_bad_zone: usize, beyond_limit: usize) -> Doubts {
        let mut collected = Collected::new(1);
        for row in 0..200 {
            let amiss = Amiss { in_bad_zone: row < in_bad_zone, beyond_limit: row < beyond_limit };
            collected.push(&[0.0], &[true], row > 0, (POSITION, POSITION), amiss);
        }
        Doubts::of(&collected)
    }

    #[test]
    fn more_than_a_tenth_of_the_rows_is_too_many() {
        assert_eq!((doubts(20, 20).refusal(), doubts(0, 0).remarks()), (None, Vec::new()));
        assert_eq!(doubts(20, 2).remarks(), ["in zone C or D in 20 of 200 rows", "with an alarm of a limit in 2 of 200 rows"]);
        assert_eq!(doubts(21, 0).refusal(), Some(Refusal::Severity { rows: (21, 200) }));
        assert_eq!(doubts(0, 21).refusal(), Some(Refusal::BeyondLimit { rows: (21, 200) }));
    }
}
