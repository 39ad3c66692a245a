//! From the books to findings: what had to be there by the cursors, and what was.
use std::{collections::BTreeMap, ops::RangeInclusive};

use hark_protocol::topics::{GapReason, LaneName};
use serde::Serialize;
use uuid::Uuid;

use super::{
    ledger::{Ledger, SEQ_MAX, Start, Tally, Track},
    order::{self, Known},
};
use crate::forward::cursor::{PerLane, Short};

/// How far a lane of an incarnation is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// To Kafka's cursor.
    Cursor,
    /// To where another disk had delivered when this gateway took over from it.
    OtherDisk,
    /// To its last record, which its successor names.
    Successor,
    /// To the highest seq that came: nobody tells what was its last.
    HighestSeen,
    /// Not at all: it is beyond the cursor, and its records are looked at for doubles and order only.
    BeyondCursor,
}

/// A lane of an incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The lane.
    pub lane: LaneName,
    /// The incarnation.
    pub inc: String,
    /// Its ordinal, where a cursor tells it.
    pub ordinal: Option<u32>,
    /// First seq that must be there.
    pub from: u64,
    /// Last seq that must be there; below `from` if none must.
    pub to: u64,
    /// What says so.
    pub end: End,
    /// Seqs that are there.
    pub delivered: u64,
    /// Seqs in gaps, by reason.
    pub gaps: BTreeMap<String, u64>,
    /// Neither there nor in a gap.
    pub missing: Tally,
    /// The same, but a partition whose beginning expired may have had them.
    pub unsure: Tally,
    /// There again.
    pub doubled: Tally,
    /// After a later one of the same key in the same partition.
    pub disordered: Tally,
    /// There, and in a gap all the same.
    pub contradicted: Tally,
    /// In more than one gap.
    pub gapped_twice: Tally,
    /// Records beyond the cursor: on their way, not yet claimed.
    pub beyond: u64,
}

impl Row {
    /// Faults of any kind.
    pub fn faults(&self) -> u64 {
        [&self.missing, &self.doubled, &self.disordered, &self.contradicted, &self.gapped_twice].iter().map(|tally| tally.count).sum()
    }
}

/// What the books say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// By lane, incarnations in their order.
    pub rows: Vec<Row>,
    /// Lanes with records but without a cursor: how far they should be is not known.
    pub without_cursor: Vec<LaneName>,
    /// Lanes that are checked from a later place than their first record: partitions have lost their beginning.
    pub from_later: Vec<LaneName>,
    /// Lanes and the numbers of partitions without a beginning of which nothing can be told.
    pub blind: Vec<(LaneName, usize)>,
}

impl Findings {
    /// Faults of any kind.
    pub fn faults(&self) -> u64 {
        self.rows.iter().map(Row::faults).sum()
    }

    /// Records that may be missing or may have expired.
    pub fn unsure(&self) -> u64 {
        self.rows.iter().map(|row| row.unsure.count).sum()
    }

    /// Lanes of incarnations that are checked to the highest seq that came: had they more records, nobody would miss them.
    pub fn open_ended(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.end == End::HighestSeen && row.from <= row.to).collect()
    }

    /// Records that are not there (yet).
    pub fn absent(&self) -> u64 {
        self.rows.iter().map(|row| row.missing.count + row.unsure.count).sum()
    }
}

pub(super) fn of(ledger: &Ledger) -> Findings {
    let told = Told::of(ledger);
    let ranks = order::ranks(&told.known);
    let mut by_rank: Vec<usize> = (0..ranks.len()).collect();
    by_rank.sort_by_key(|inc| ranks[*inc]);
    let mut findings = Findings::default();
    for lane in LaneName::ALL {
        let start = start(ledger, lane, &ranks, &mut findings);
        if ledger.cursors[lane as usize].is_none() && by_rank.iter().any(|inc| ledger.tracks.contains_key(&(lane, *inc))) {
            findings.without_cursor.push(lane);
        }
        let blind = findings.blind.iter().any(|(of, _)| *of == lane);
        let judge = Judge { ledger, told: &told, lane, ranks: &ranks, start, blind };
        findings.rows.extend(by_rank.iter().filter_map(|inc| judge.row(*inc)));
    }
    findings
}

/// The place from which every partition of the lane has everything: rank and seq.
fn start(ledger: &Ledger, lane: LaneName, ranks: &[usize], findings: &mut Findings) -> (usize, u64) {
    let mut latest = (0, 1);
    let starts = ledger.starts.iter().filter(|((of, _), _)| *of == lane);
    for ((_, partition), Start { own, by_time }) in starts {
        let by_time = by_time.iter().map(|(inc, seq)| (ranks[*inc], *seq)).min();
        let own = own.map(|(inc, seq)| (ranks[inc], seq));
        match [own, by_time].into_iter().flatten().min() {
            Some(start) => latest = latest.max(start),
            None => findings.blind.push((lane, *partition)),
        }
    }
    if latest > (0, 1) {
        findings.from_later.push(lane);
    }
    latest
}

/// What is told of incarnations, put together.
struct Told {
    known: Vec<Known>,
    ends: BTreeMap<usize, PerLane<Option<u64>>>,
    others: BTreeMap<(LaneName, usize), u64>,
}

impl Told {
    fn of(ledger: &Ledger) -> Self {
        let ids: Vec<Option<Uuid>> = ledger.incs.iter().map(|inc| inc.parse().ok()).collect();
        let find = |short: Short| ids.iter().position(|id| id.is_some_and(|id| short.is(id)));
        let mut told = Self { known: ledger.known.clone(), ends: ledger.ends.clone(), others: BTreeMap::new() };
        for (short, last_seq) in &ledger.lineage {
            let Some(inc) = find(*short) else { continue };
            told.known[inc].ordinal.get_or_insert(short.ordinal());
            let Some(last_seq) = last_seq else { continue };
            let ends = told.ends.entry(inc).or_default();
            ends.iter_mut().zip(last_seq).for_each(|(end, last)| *end = (*end).max(Some(*last)));
        }
        for (lane, short, seq) in &ledger.others {
            let Some(inc) = find(*short) else { continue };
            let end = told.others.entry((*lane, inc)).or_default();
            *end = (*end).max(*seq);
        }
        told
    }
}

struct Judge<'a> {
    ledger: &'a Ledger,
    told: &'a Told,
    lane: LaneName,
    ranks: &'a [usize],
    start: (usize, u64),
    blind: bool,
}

impl Judge<'_> {
    /// `None` if there is nothing to say.
    fn row(&self, inc: usize) -> Option<Row> {
        let nothing = Track::default();
        let track = self.ledger.tracks.get(&(self.lane, inc)).unwrap_or(&nothing);
        let (from, (to, end)) = (self.from(inc), self.to(inc, track));
        let beyond = if from == u64::MAX { 0 } else { track.seen.count((to + 1).max(from)..=SEQ_MAX) };
        let (from, to) = if from > to { (1, 0) } else { (from, to) };
        if from > to && track.seen.highest() == 0 {
            return None;
        }
        let id = |seq: u64| format!("{}/{}/{}/{seq}", self.ledger.gateway, self.ledger.incs[inc], self.lane);
        let mut row = Row {
            lane: self.lane,
            inc: self.ledger.incs[inc].clone(),
            ordinal: self.told.known[inc].ordinal,
            from,
            to,
            end,
            delivered: track.seen.count(from..=to),
            gaps: BTreeMap::new(),
            missing: Tally::default(),
            unsure: Tally::default(),
            doubled: track.doubled.clone(),
            disordered: track.disordered.clone(),
            contradicted: Tally::default(),
            gapped_twice: Tally::default(),
            beyond,
        };
        let named = join_gaps(track, from, to, &mut row, &id);
        let absent = if self.blind { &mut row.unsure } else { &mut row.missing };
        for range in track.seen.absent(from..=to) {
            for rest in without(range, &named) {
                absent.add(rest.end() - rest.start() + 1, || span(&id, &rest));
            }
        }
        self.add_late(inc, &mut row);
        Some(row)
    }

    fn from(&self, inc: usize) -> u64 {
        match self.ranks[inc].cmp(&self.start.0) {
            std::cmp::Ordering::Less => u64::MAX,
            std::cmp::Ordering::Equal => self.start.1,
            std::cmp::Ordering::Greater => 1,
        }
    }

    fn to(&self, inc: usize, track: &Track) -> (u64, End) {
        let cursor = self.ledger.cursors[self.lane as usize];
        let Some((cursor_inc, seq)) = cursor else { return (0, End::BeyondCursor) };
        if inc == cursor_inc {
            return (seq, End::Cursor);
        }
        if let Some(seq) = self.told.others.get(&(self.lane, inc)) {
            return (*seq, End::OtherDisk);
        }
        if self.ranks[inc] > self.ranks[cursor_inc] {
            return (0, End::BeyondCursor);
        }
        match self.told.ends.get(&inc).and_then(|ends| ends[self.lane as usize]) {
            Some(last) => (last, End::Successor),
            None => (track.seen.highest(), End::HighestSeen),
        }
    }

    /// Records of `inc` that came after those of a later incarnation.
    fn add_late(&self, inc: usize, row: &mut Row) {
        let late = |(lane, before, after): &(LaneName, usize, usize)| *lane == self.lane && *after == inc && self.ranks[*before] > self.ranks[inc];
        for (_, tally) in self.ledger.follows.iter().filter(|(key, _)| late(key)) {
            row.disordered.count += tally.count;
            row.disordered.examples.extend(tally.examples.iter().take(1).cloned());
        }
    }
}

/// Enters the gaps from `from` to `to` into the row, and gives them in order and joined.
fn join_gaps(track: &Track, from: u64, to: u64, row: &mut Row, id: &impl Fn(u64) -> String) -> Vec<RangeInclusive<u64>> {
    let mut gaps: Vec<(u64, u64, GapReason)> =
        track.gaps.iter().map(|(first, last, reason)| ((*first).max(from), (*last).min(to), *reason)).collect();
    gaps.retain(|(first, last, _)| first <= last);
    gaps.sort_by_key(|(first, last, _)| (*first, *last));
    let mut joined: Vec<RangeInclusive<u64>> = Vec::new();
    for (first, last, reason) in gaps {
        let covered = joined.last().map_or(0, |range| *range.end());
        if covered >= first {
            let twice = first..=covered.min(last);
            row.gapped_twice.add(twice.end() - twice.start() + 1, || span(id, &twice));
        }
        let new = first.max(covered.saturating_add(1))..=last;
        if new.is_empty() {
            continue;
        }
        let reason = serde_json::to_value(reason).ok().and_then(|reason| reason.as_str().map(str::to_owned)).unwrap_or_default();
        *row.gaps.entry(reason).or_default() += new.end() - new.start() + 1;
        let delivered = track.seen.count(new.clone());
        row.contradicted.add(delivered, || span(id, &new));
        joined.push(new);
    }
    joined
}

/// What is left of `range` without `named`, which is in order and does not overlap.
fn without(range: RangeInclusive<u64>, named: &[RangeInclusive<u64>]) -> Vec<RangeInclusive<u64>> {
    let (mut at, end) = range.into_inner();
    let mut rest = Vec::new();
    let first = named.partition_point(|gap| *gap.end() < at);
    for gap in named[first..].iter().take_while(|gap| *gap.start() <= end) {
        if at < *gap.start() {
            rest.push(at..=gap.start() - 1);
        }
        at = gap.end() + 1;
    }
    if at <= end {
        rest.push(at..=end);
    }
    rest
}

fn span(id: &impl Fn(u64) -> String, range: &RangeInclusive<u64>) -> String {
    if range.start() == range.end() { id(*range.start()) } else { format!("{} to {}", id(*range.start()), range.end()) }
}
