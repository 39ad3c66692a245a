//! Ranges of positions that a committed gap event names: they count as lost, whatever the disk still holds of them.
//!
//! The event is the authority. It is committed before anything is removed, so a crash in between leaves records that no reader gives out any more, and
//! a record is either delivered or inside exactly one gap.
use std::{collections::BTreeMap, ops::Range};

use hark_protocol::topics::{Event, EventKind, GapReason, LaneName};

use serde::{Deserialize, Serialize};

use super::{Position, marks::LaneMarks};

/// A range that is lost, and the event that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Lane.
    pub lane: LaneName,
    /// First lost record.
    pub from: Position,
    /// Last lost record, of the same incarnation.
    pub to: Position,
    /// Why.
    pub reason: GapReason,
    /// Where in the events lane the gap is named; zero where it needs no name, since Kafka has all of it.
    pub event: Position,
}

impl Gap {
    /// Whether an event names it. Kafka has all of one that none names.
    pub fn is_named(&self) -> bool {
        self.event != Position::default()
    }

    /// How many records.
    pub fn records(&self) -> u64 {
        self.to.seq + 1 - self.from.seq
    }
}

/// Records of one incarnation that are lost for one reason, in gaps that no reader meets any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passed {
    pub(super) lane: LaneName,
    pub(super) ordinal: u32,
    pub(super) reason: GapReason,
    pub(super) records: u64,
}

/// All gaps that a reader may still meet, and the sums of the others.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    by_start: BTreeMap<(LaneName, Position), Gap>,
    passed: BTreeMap<(LaneName, u32, GapReason), u64>,
    added: u64,
}

impl Gaps {
    /// What the marks of the lanes tell of the incarnations that are `known`.
    pub(super) fn of_marks<'a>(marks: impl IntoIterator<Item = &'a LaneMarks>, known: impl Fn(u32) -> bool) -> Self {
        let mut gaps = Self::default();
        for marks in marks {
            marks.gaps.iter().for_each(|gap| gaps.add(*gap));
            let passed = marks.passed.iter().filter(|passed| known(passed.ordinal));
            gaps.passed.extend(passed.map(|passed| ((passed.lane, passed.ordinal, passed.reason), passed.records)));
        }
        gaps
    }

    pub(super) fn add(&mut self, gap: Gap) {
        self.by_start.insert((gap.lane, gap.from), gap);
        self.added += 1;
    }

    /// How many were ever added.
    pub(super) fn added(&self) -> u64 {
        self.added
    }

    /// The gap that holds `at`.
    pub(super) fn holding(&self, lane: LaneName, at: Position) -> Option<Gap> {
        let (_, gap) = self.by_start.range(..=(lane, at)).next_back()?;
        (gap.lane == lane && at <= gap.to).then_some(*gap)
    }

    /// The first gap of `lane` that starts after `at`.
    pub(super) fn after(&self, lane: LaneName, at: Position) -> Option<Gap> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (_, gap) = self.by_start.range((Excluded((lane, at)), Unbounded)).next()?;
        (gap.lane == lane).then_some(*gap)
    }

    /// Records of `lane` after `at` that are lost. What Kafka has is not among them.
    pub(super) fn records_after(&self, lane: LaneName, at: Position) -> u64 {
        let of_lane = self.by_start.values().filter(|gap| gap.lane == lane && gap.to > at && gap.is_named());
        of_lane.map(|gap| if gap.from > at { gap.records() } else { gap.to.seq - at.seq }).sum()
    }

    /// Forgets the gaps of `lane` that end at or before `passed`, but for how many records they name.
    pub(super) fn forget(&mut self, lane: LaneName, passed: Position) {
        let sums = &mut self.passed;
        self.by_start.retain(|_, gap| {
            let stays = gap.lane != lane || gap.to > passed;
            if !stays && gap.is_named() {
                *sums.entry((lane, gap.from.ordinal, gap.reason)).or_default() += gap.records();
            }
            stays
        });
    }

    /// The sums of those that were forgotten.
    pub(super) fn passed(&self) -> Vec<Passed> {
        self.passed.iter().map(|(&(lane, ordinal, reason), &records)| Passed { lane, ordinal, reason, records }).collect()
    }

    /// Those that an event names.
    pub(super) fn named(&self) -> Vec<Gap> {
        self.by_start.values().filter(|gap| gap.is_named()).copied().collect()
    }

    pub(super) fn all(&self) -> Vec<Gap> {
        self.by_start.values().copied().collect()
    }
}

/// The parts of `seqs` of incarnation `ordinal` that no gap names.
pub(super) fn unnamed(gaps: &Gaps, lane: LaneName, ordinal: u32, seqs: Range<u64>) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut from = seqs.start;
    while from < seqs.end {
        let at = Position { ordinal, seq: from };
        if let Some(gap) = gaps.holding(lane, at) {
            from = gap.to.seq + 1;
            continue;
        }
        let end = gaps.after(lane, at).filter(|gap| gap.from.ordinal == ordinal).map_or(seqs.end, |gap| gap.from.seq.min(seqs.end));
        parts.push(from..end);
        from = end;
    }
    parts
}

/// The event that names a gap of incarnation `inc`.
pub(super) fn event(lane: LaneName, inc: &str, from: u64, to: u64, reason: GapReason, text: &str) -> Event {
    Event {
        text: Some(text.into()),
        gap_lane: Some(lane),
        gap_inc: Some(inc.into()),
        gap_from_seq: Some(from),
        gap_to_seq: Some(to),
        gap_reason: Some(reason),
        ..Event::new(EventKind::Gap)
    }
}

/// Why, for a person.
pub(super) fn reason_text(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Quota => "the buffer reached its quota",
        GapReason::Age => "older than the buffer may keep them",
        GapReason::DiskFull => "the disk was full",
        GapReason::Damaged => "a part of the buffer was damaged",
        GapReason::Refused => "Kafka refuses them for good",
        GapReason::TornTail => "they are no longer on the disk",
        GapReason::DeliveredElsewhere => "they were delivered under another name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { ordinal: 2, seq }
    }

    fn gap(lane: LaneName, from: u64, to: u64) -> Gap {
        Gap { lane, from: at(from), to: at(to), reason: GapReason::Quota, event: at(1) }
    }

    #[test]
    fn a_position_is_in_at_most_one_gap() {
        let mut gaps = Gaps::default();
        gaps.add(gap(LaneName::Inputs, 10, 20));
        gaps.add(gap(LaneName::Inputs, 30, 30));
        gaps.add(gap(LaneName::Alarms, 1, 5));
        let holding = |seq| gaps.holding(LaneName::Inputs, at(seq)).map(|gap| gap.from.seq);
        assert_eq!([9, 10, 20, 21, 30, 31].map(holding), [None, Some(10), Some(10), None, Some(30), None]);
        assert_eq!(gaps.after(LaneName::Inputs, at(10)).unwrap().from, at(30));
        assert_eq!(gaps.records_after(LaneName::Inputs, at(15)), 5 + 1);
        gaps.forget(LaneName::Inputs, at(29));
        assert_eq!(gaps.holding(LaneName::Inputs, at(10)), None);
        assert_eq!(gaps.all().len(), 2);
        let passed = Passed { lane: LaneName::Inputs, ordinal: 2, reason: GapReason::Quota, records: 11 };
        assert_eq!(gaps.passed(), [passed], "their number is not forgotten");
    }
}
