//! Where the records of each lane are: in Kafka, on this disk, or lost under a name. A snapshot of the log, and pure sums over it.
use std::collections::BTreeMap;

use hark_protocol::topics::{GapReason, LaneName};

use super::{Gap, Log, Position, gaps::Passed, rewrite};

const LANES: usize = LaneName::ALL.len();
/// After every record.
const END: Position = Position { ordinal: u32::MAX, seq: u64::MAX };

/// What became of the records of a lane: `accepted = delivered + waiting + lost + missing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Records durably appended, in all starts that are remembered.
    pub accepted: u64,
    /// Kafka has acknowledged them.
    pub delivered: u64,
    /// On this disk, still to be delivered.
    pub waiting: u64,
    /// Named in gaps, by reason.
    pub lost: BTreeMap<GapReason, u64>,
    /// Neither in Kafka nor on this disk, by what is known without reading all of it, and named in no gap: the agent names them when it comes to them.
    pub missing: u64,
}

/// The log at one moment.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Each start that is remembered, oldest first, with the last seq of each lane.
    ends: Vec<(u32, [u64; LANES])>,
    /// Those that an event names.
    gaps: Vec<Gap>,
    passed: Vec<Passed>,
    /// Damaged, and named in no gap: first and last.
    unnamed: Vec<(LaneName, Position, Position)>,
    /// The place before the oldest record on disk.
    starts: [Position; LANES],
}

impl Log {
    /// Takes the snapshot. What Kafka has must be asked afterwards: gaps that it had before are known as sums alone.
    pub fn ledger(&self) -> Ledger {
        // Gaps first: each of those names what is committed already.
        let (gaps, passed) = {
            let gaps = self.shared.gaps();
            (gaps.named(), gaps.passed())
        };
        let ended = self.ended().iter().map(|ended| (ended.incarnation.ordinal, ended.last_seq));
        let present = (self.incarnation().ordinal, LaneName::ALL.map(|lane| self.committed(lane).seq));
        // A directory that is only looked at has no present incarnation.
        let present = Some(present).filter(|_| !self.incarnation().id.is_nil());
        let unnamed = LaneName::ALL.into_iter().flat_map(|lane| self.unnamed(lane)).collect();
        Ledger { ends: ended.chain(present).collect(), gaps, passed, unnamed, starts: LaneName::ALL.map(|lane| self.start(lane)) }
    }

    /// What is lost with the damaged partitions of a log that is only looked at: a running agent names it at once.
    fn unnamed(&self, lane: LaneName) -> Vec<(LaneName, Position, Position)> {
        let salvaged = self.shared.lane(lane).salvaged();
        let lost = salvaged.into_iter().flat_map(|(key, found)| rewrite::lost(&self.shared.ranges(lane, key), &found));
        let gaps = self.shared.gaps();
        lost.filter(|(from, _)| gaps.holding(lane, *from).is_none()).map(|(from, to)| (lane, from, to)).collect()
    }
}

impl Ledger {
    /// Ordinal of the oldest start that is remembered: since then everything is counted. `None` on a fresh disk.
    pub fn since(&self) -> Option<u32> {
        self.ends.first().map(|(ordinal, _)| *ordinal)
    }

    /// The gaps that an event names and a reader may still meet.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The sums of `lane`, of which Kafka has everything up to `acked`.
    pub fn account(&self, lane: LaneName, acked: Position) -> Account {
        let reached = acked.max(self.starts[lane as usize]);
        let (accepted, behind, before_disk) = (self.records(lane, END), self.records(lane, acked), self.records(lane, reached));
        let lost = self.lost(lane, END);
        let sum = |lost: &BTreeMap<GapReason, u64>| lost.values().sum::<u64>();
        let (lost_behind, lost_before_disk) = (sum(&self.lost(lane, acked)), sum(&self.lost(lane, reached)));
        let damaged = self.unnamed_after(lane, reached);
        let waiting = (accepted - before_disk).saturating_sub(sum(&lost) - lost_before_disk + damaged);
        let missing = (before_disk - behind).saturating_sub(lost_before_disk - lost_behind) + damaged;
        Account { accepted, delivered: behind.saturating_sub(lost_behind), waiting, lost, missing }
    }

    /// Records of `lane` at or before `upto`.
    fn records(&self, lane: LaneName, upto: Position) -> u64 {
        let of_start = |(ordinal, last_seq): &(u32, [u64; LANES])| {
            let last_seq = last_seq[lane as usize];
            match ordinal.cmp(&upto.ordinal) {
                std::cmp::Ordering::Less => last_seq,
                std::cmp::Ordering::Equal => last_seq.min(upto.seq),
                std::cmp::Ordering::Greater => 0,
            }
        };
        self.ends.iter().map(of_start).sum()
    }

    /// Records of `lane` after `at` that are damaged and not named.
    fn unnamed_after(&self, lane: LaneName, at: Position) -> u64 {
        let behind = self.unnamed.iter().filter(|(of, _, to)| *of == lane && *to > at);
        behind.map(|(_, from, to)| to.seq + 1 - if *from > at { from.seq } else { at.seq + 1 }).sum()
    }

    /// Records of `lane` at or before `upto` that are lost and named. Gaps whose sums alone are known lie before any place asked about.
    fn lost(&self, lane: LaneName, upto: Position) -> BTreeMap<GapReason, u64> {
        let is_known = |ordinal| self.ends.iter().any(|(known, _)| *known == ordinal);
        let passed =
            self.passed.iter().filter(|passed| passed.lane == lane && is_known(passed.ordinal)).map(|passed| (passed.reason, passed.records));
        let gaps = self.gaps.iter().filter(|gap| gap.lane == lane && is_known(gap.from.ordinal) && gap.from <= upto);
        let clipped = |gap: &Gap| (gap.reason, Gap { to: gap.to.min(upto), ..*gap }.records());
        let mut lost = BTreeMap::new();
        passed.chain(gaps.map(clipped)).for_each(|(reason, records)| *lost.entry(reason).or_default() += records);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: LaneName = LaneName::Inputs;

    fn at(ordinal: u32, seq: u64) -> Position {
        Position { ordinal, seq }
    }

    fn gap(from: Position, to: u64, reason: GapReason) -> Gap {
        Gap { lane: INPUTS, from, to: Position { seq: to, ..from }, reason, event: at(9, 1) }
    }

    /// Two starts with 100 and 50 inputs, of which 11 to 20, 61 to 70 and 5 to 6 of the second are lost; and 3 in gaps that are forgotten.
    fn ledger(start: Position) -> Ledger {
        let passed = |ordinal, records| Passed { lane: INPUTS, ordinal, reason: GapReason::Age, records };
        Ledger {
            ends: vec![(4, [100, 7, 0, 2]), (5, [50, 0, 0, 1])],
            gaps: vec![gap(at(4, 11), 20, GapReason::Quota), gap(at(4, 61), 70, GapReason::Damaged), gap(at(5, 5), 6, GapReason::Quota)],
            passed: vec![passed(4, 3), passed(3, 1_000)],
            unnamed: Vec::new(),
            starts: [start; LANES],
        }
    }

    #[track_caller]
    fn check(start: Position, acked: Position, delivered: u64, waiting: u64, missing: u64) {
        let account = ledger(start).account(INPUTS, acked);
        let lost = [(GapReason::Quota, 12), (GapReason::Age, 3), (GapReason::Damaged, 10)].into();
        assert_eq!(account, Account { accepted: 150, delivered, waiting, lost, missing });
        assert_eq!(delivered + waiting + 25 + missing, 150);
    }

    #[test]
    fn every_record_is_in_one_sum() {
        check(at(4, 0), at(4, 10), 7, 118, 0);
        check(at(4, 0), at(4, 65), 47, 78, 0);
        check(at(4, 0), at(5, 50), 125, 0, 0);
        // What Kafka has was given back; what it has not and is not there either is missing.
        check(at(4, 80), at(5, 10), 85, 40, 0);
        check(at(5, 0), at(4, 65), 47, 48, 30);
        check(at(u32::MAX, 0), at(4, 65), 47, 0, 78);
    }

    #[test]
    fn what_is_damaged_and_not_named_yet_is_missing_once() {
        let check = |start, acked, (waiting, missing)| {
            let ledger = Ledger { unnamed: vec![(INPUTS, at(4, 31), at(4, 40)), (LaneName::Alarms, at(4, 1), at(4, 2))], ..ledger(start) };
            let account = ledger.account(INPUTS, acked);
            assert_eq!((account.waiting, account.missing), (waiting, missing), "{start} {acked}");
            assert_eq!(account.accepted, account.delivered + waiting + account.lost.values().sum::<u64>() + missing);
        };
        check(at(4, 0), at(4, 10), (108, 10));
        check(at(4, 0), at(4, 35), (98, 5));
        check(at(4, 0), at(4, 40), (98, 0));
        check(at(5, 0), at(4, 10), (48, 70));
    }

    #[test]
    fn what_is_counted_begins_with_the_oldest_start_remembered() {
        assert_eq!((ledger(at(4, 0)).since(), Ledger::default().since()), (Some(4), None));
        let predictions = ledger(at(4, 0)).account(LaneName::Predictions, Position::default());
        assert_eq!(predictions, Account { accepted: 7, waiting: 7, ..Account::default() });
    }
}
