//! From the books to findings: what had to be there by the cursors, and what was.
use std::collections::BTreeMap;

use hark_protocol::topics::{GapReason, LaneName};
use serde::Serialize;

use super::{
    gaps,
    ledger::{Ledger, SEQ_MAX, Start, Tally, Track},
    order,
    told::Told,
};

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
    /// To the highest seq that came: Kafka has no cursor of the lane.
    NoCursor,
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
    /// After a later one of the same key in the same partition, on one disk.
    pub disordered: Tally,
    /// The same, but the later one came from another disk, or nobody tells that it did not: no order is promised between disks. No fault.
    pub between_disks: Tally,
    /// Their value, key or topic is that of another record.
    pub altered: Tally,
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
        [&self.missing, &self.doubled, &self.disordered, &self.altered, &self.contradicted, &self.gapped_twice].iter().map(|tally| tally.count).sum()
    }
}

/// A key in two partitions of a topic: there its records have no order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stray {
    /// The key.
    pub key: String,
    /// The number of the partition where most of its records are.
    pub home: usize,
    /// That of another one.
    pub partition: usize,
    /// Its records there.
    pub records: u64,
    /// The first of them.
    pub first: String,
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
    /// Keys that are in more than one partition of a topic.
    pub strays: Vec<Stray>,
}

impl Findings {
    /// Faults of any kind.
    pub fn faults(&self) -> u64 {
        self.rows.iter().map(Row::faults).sum::<u64>() + self.misplaced()
    }

    /// Records away from the others of their key.
    pub fn misplaced(&self) -> u64 {
        self.strays.iter().map(|stray| stray.records).sum()
    }

    /// Records that may be missing or may have expired.
    pub fn unsure(&self) -> u64 {
        self.rows.iter().map(|row| row.unsure.count).sum()
    }

    /// Lanes of incarnations that are checked to the highest seq that came: had they more records, nobody would miss them.
    pub fn open_ended(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.end == End::HighestSeen && row.from <= row.to).collect()
    }

    /// Records that no cursor claims (yet).
    pub fn beyond(&self) -> u64 {
        self.rows.iter().map(|row| row.beyond).sum()
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
    let mut findings = Findings { strays: strays(ledger), ..Findings::default() };
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

/// The same key goes to the same partition, whatever the lane: partitions are not raised in place.
fn strays(ledger: &Ledger) -> Vec<Stray> {
    // By topic and key, then by partition: how many, and the first.
    type Stays<'a> = BTreeMap<usize, (u64, &'a str)>;
    let mut keys: BTreeMap<(usize, &str), Stays<'_>> = BTreeMap::new();
    for ((_, topic, partition), stays) in &ledger.keys {
        for (key, stay) in stays {
            keys.entry((*topic, key)).or_default().entry(*partition).or_insert((0, &stay.first)).0 += stay.records;
        }
    }
    let mut strays = Vec::new();
    for ((_, key), stays) in keys.into_iter().filter(|(_, stays)| stays.len() > 1) {
        let Some(home) = stays.iter().max_by_key(|(_, (records, _))| *records).map(|(partition, _)| *partition) else { continue };
        let away = stays.into_iter().filter(|(partition, _)| *partition != home);
        strays.extend(away.map(|(partition, (records, first))| Stray { key: key.to_owned(), home, partition, records, first: first.to_owned() }));
    }
    strays
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

struct Judge<'a> {
    ledger: &'a Ledger,
    told: &'a Told<'a>,
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
            between_disks: Tally::default(),
            altered: track.altered.clone(),
            contradicted: Tally::default(),
            gapped_twice: Tally::default(),
            beyond,
        };
        let named = gaps::join(track, from, to, &mut row, &id);
        let elsewhere = gaps::elsewhere(track);
        let absent = if self.blind { &mut row.unsure } else { &mut row.missing };
        let mut excused = 0;
        for unnamed in track.seen.absent(from..=to).flat_map(|range| gaps::without(range, &named)) {
            excused += gaps::length(&unnamed);
            for rest in gaps::without(unnamed, &elsewhere) {
                excused -= gaps::length(&rest);
                absent.add(gaps::length(&rest), || gaps::span(&id, &rest));
            }
        }
        if excused > 0 {
            row.gaps.insert(gaps::word(GapReason::DeliveredElsewhere), excused);
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
        let last = self.told.ends.get(&inc).and_then(|ends| ends[self.lane as usize]);
        let Some((cursor_inc, seq)) = cursor else {
            return last.map_or((track.seen.highest(), End::NoCursor), |last| (last, End::Successor));
        };
        if inc == cursor_inc {
            return (seq, End::Cursor);
        }
        if let Some(seq) = self.told.others.get(&(self.lane, inc)) {
            return (*seq, End::OtherDisk);
        }
        if self.ranks[inc] > self.ranks[cursor_inc] {
            return (0, End::BeyondCursor);
        }
        last.map_or((track.seen.highest(), End::HighestSeen), |last| (last, End::Successor))
    }

    /// Records of `inc` that came after those of a later incarnation.
    fn add_late(&self, inc: usize, row: &mut Row) {
        let follows = self.ledger.follows.iter().filter(|((lane, _, after), _)| *lane == self.lane && *after == inc);
        for ((_, before, _), tally) in follows {
            let told = if self.told.is_on_one_disk(inc, *before) {
                &mut row.disordered
            } else if self.ranks[*before] > self.ranks[inc] && !self.told.is_on_one_disk(*before, inc) {
                &mut row.between_disks
            } else {
                continue;
            };
            told.count += tally.count;
            told.examples.extend(tally.examples.iter().take(1).cloned());
        }
    }
}
