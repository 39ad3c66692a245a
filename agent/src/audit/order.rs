//! In which order incarnations came: by what each said of its predecessor, by their ordinals as far as known, else by when they were first seen.
use std::collections::{BTreeMap, BTreeSet};

/// What is known of an incarnation.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Those that came right before it, by its own word.
    pub predecessors: BTreeSet<usize>,
    /// Its ordinal, where a cursor tells it.
    pub ordinal: Option<u32>,
    /// When its first record came to Kafka; `None` where no record of it is left: then it is old.
    pub first_ms: Option<i64>,
}

/// The rank of each incarnation, from 0. Contradictions are solved in favour of the earlier one: they show as disorder of its records.
pub fn ranks(known: &[Known]) -> Vec<usize> {
    let mut before: Vec<BTreeSet<usize>> = known.iter().map(|known| known.predecessors.clone()).collect();
    let by_ordinal: BTreeMap<u32, usize> = known.iter().enumerate().filter_map(|(at, known)| Some((known.ordinal?, at))).collect();
    for (earlier, later) in by_ordinal.values().zip(by_ordinal.values().skip(1)) {
        before[*later].insert(*earlier);
    }
    let mut ranks = vec![0; known.len()];
    let mut waiting: BTreeSet<usize> = (0..known.len()).collect();
    for rank in 0..known.len() {
        let free = waiting.iter().filter(|at| before[**at].iter().all(|earlier| *earlier == **at || !waiting.contains(earlier)));
        let first = |at: &&usize| (known[**at].first_ms, **at);
        let Some(next) = free.min_by_key(first).or_else(|| waiting.iter().min_by_key(first)).copied() else { break };
        waiting.remove(&next);
        ranks[next] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(predecessors: &[usize], ordinal: Option<u32>, first_ms: Option<i64>) -> Known {
        Known { predecessors: predecessors.iter().copied().collect(), ordinal, first_ms }
    }

    #[test]
    fn predecessors_count_before_ordinals_and_times() {
        assert_eq!(ranks(&[known(&[1], None, Some(5)), known(&[2], None, Some(9)), known(&[], None, None)]), [2, 1, 0]);
        assert_eq!(ranks(&[known(&[], Some(8), Some(1)), known(&[], Some(7), Some(2))]), [1, 0]);
        assert_eq!(ranks(&[known(&[], None, Some(3)), known(&[], None, Some(2)), known(&[], None, None)]), [2, 1, 0]);
        // Two copies of one disk.
        assert_eq!(ranks(&[known(&[], None, Some(1)), known(&[0], None, Some(9)), known(&[0], None, Some(5))]), [0, 2, 1]);
    }

    #[test]
    fn a_circle_has_an_order_all_the_same() {
        assert_eq!(ranks(&[known(&[1], None, Some(2)), known(&[0], None, Some(1)), known(&[2], None, Some(3))]), [2, 1, 0]);
    }
}
