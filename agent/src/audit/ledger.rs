//! The books of an audit, pure: what was seen in Kafka and what the cursors claim go in, findings come out.
//!
//! Of a record only a bit stays. The order within a partition is checked per key while records come; what depends on the order of incarnations is
//! settled at the end ([`super::findings`]), when all that tell of it have been read.
use std::collections::{BTreeMap, BTreeSet};

use hark_protocol::topics::{GapReason, LaneName};

use super::{
    bitmap::Bitmap,
    findings::{self, Findings},
    order::Known,
};
use crate::forward::cursor::{PerLane, Short};

/// Examples that are kept of each kind of fault.
const EXAMPLES: usize = 5;
/// Records of one transaction come to different partitions at different times, and brokers have clocks of their own.
const TIMES_DIFFER_MS: i64 = 60_000;

/// The highest seq that there can be: beyond it a JSON number is no longer exact.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// A record of the gateway, as it stands in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its lane.
    pub lane: LaneName,
    /// Its incarnation.
    pub inc: &'a str,
    /// Its seq.
    pub seq: u64,
    /// Its key.
    pub key: &'a str,
    /// What says that it is another record.
    pub contradiction: Option<&'a str>,
    /// A number for its topic.
    pub topic: usize,
    /// A number for its topic and partition. Within one, records are given in the order of their offsets.
    pub partition: usize,
    /// When Kafka appended it; `None` where the topic does not tell.
    pub appended_ms: Option<i64>,
}

/// A partition that no longer has its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Expired {
    /// Its number.
    pub partition: usize,
    /// When the first record that is left, of any gateway, was appended; `None` where none is left or the topic does not tell.
    pub first_ms: Option<i64>,
}

/// How often something was found, and where first.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, count: u64, example: impl FnOnce() -> String) {
        self.count += count;
        if count > 0 && self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// A lane of an incarnation.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) seen: Bitmap,
    pub(super) doubled: Tally,
    pub(super) disordered: Tally,
    pub(super) altered: Tally,
    pub(super) gaps: Vec<(u64, u64, GapReason)>,
}

/// Where a partition without its beginning surely is complete again, for one lane.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// The first record in it: those before it in the lane may be gone with the beginning, those after it are not.
    pub(super) own: Option<(usize, u64)>,
    /// By incarnation, the lowest seq that came to Kafka after the first record that is left.
    pub(super) by_time: BTreeMap<usize, u64>,
}

/// A key in a partition.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) records: u64,
    pub(super) first: String,
    /// The last seq of each incarnation, that of the record before at the end.
    last: Vec<(usize, u64)>,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) gateway: String,
    pub(super) incs: Vec<String>,
    numbers: BTreeMap<String, usize>,
    pub(super) known: Vec<Known>,
    /// By lane and incarnation.
    pub(super) tracks: BTreeMap<(LaneName, usize), Track>,
    /// The keys by lane, topic and partition.
    pub(super) keys: BTreeMap<(LaneName, usize, usize), BTreeMap<String, Stay>>,
    /// In some partition a record of the second incarnation follows one of the first; the first such record, and how often.
    pub(super) follows: BTreeMap<(LaneName, usize, usize), Tally>,
    /// Incarnations by their short names: ordinal, and where the lanes ended as far as that is told.
    pub(super) lineage: Vec<(Short, Option<PerLane<u64>>)>,
    /// Incarnations that came right after one on its disk, by their own word; more than one where the disk was copied.
    pub(super) successors: BTreeMap<usize, BTreeSet<usize>>,
    /// How far other disks had delivered when they were taken over from.
    pub(super) others: Vec<(LaneName, Short, u64)>,
    /// Last seqs of an incarnation, by the word of those that came after it.
    pub(super) ends: BTreeMap<usize, PerLane<Option<u64>>>,
    pub(super) cursors: PerLane<Option<(usize, u64)>>,
    expired: Vec<(Expired, Vec<LaneName>)>,
    pub(super) starts: BTreeMap<(LaneName, usize), Start>,
}

impl Ledger {
    /// Empty books of `gateway`.
    pub fn new(gateway: &str) -> Self {
        Self { gateway: gateway.to_owned(), ..Self::default() }
    }

    /// Kafka has `lane` up to `seq` of `inc`.
    pub fn cursor(&mut self, lane: LaneName, inc: &str, ordinal: u32, seq: u64) {
        let inc = self.number(inc);
        self.known[inc].ordinal = Some(ordinal);
        self.cursors[lane as usize] = Some((inc, seq));
    }

    /// Another disk had delivered `lane` up to `seq` of an incarnation when this gateway took over from it: nobody claims more of that.
    pub fn other(&mut self, lane: LaneName, short: Short, seq: u64) {
        self.others.push((lane, short, seq));
    }

    /// The disk that delivers says that it has this incarnation, and where it ended.
    pub fn lineage(&mut self, short: Short, last_seq: Option<PerLane<u64>>) {
        self.lineage.push((short, last_seq));
    }

    /// A partition that may hold records of `lanes` has lost its beginning. To be told before the records.
    pub fn expired(&mut self, expired: Expired, lanes: &[LaneName]) {
        for lane in lanes {
            self.starts.insert((*lane, expired.partition), Start::default());
        }
        self.expired.push((expired, lanes.to_vec()));
    }

    /// Takes a record; false if its seq was there already.
    pub fn record(&mut self, seen: Seen<'_>) -> bool {
        let inc = self.number(seen.inc);
        self.locate(inc, seen);
        let first_ms = &mut self.known[inc].first_ms;
        *first_ms = [*first_ms, seen.appended_ms].into_iter().flatten().min();
        let id = |inc: usize, seq: u64| format!("{}/{}/{}/{seq}", self.gateway, self.incs[inc], seen.lane);
        let track = self.tracks.entry((seen.lane, inc)).or_default();
        if let Some(contradiction) = seen.contradiction {
            track.altered.add(1, || format!("{} ({contradiction})", id(inc, seen.seq)));
        }
        if !track.seen.insert(seen.seq) {
            track.doubled.add(1, || id(inc, seen.seq));
            return false;
        }
        let keys = self.keys.entry((seen.lane, seen.topic, seen.partition)).or_default();
        let Some(stay) = keys.get_mut(seen.key) else {
            keys.insert(seen.key.to_owned(), Stay { records: 1, first: id(inc, seen.seq), last: vec![(inc, seen.seq)] });
            return true;
        };
        stay.records += 1;
        let before = stay.last.last().map_or(inc, |(before, _)| *before);
        let last_seq = stay.last.iter().rposition(|(of, _)| *of == inc).map_or(0, |at| stay.last.remove(at).1);
        stay.last.push((inc, last_seq.max(seen.seq)));
        if seen.seq < last_seq {
            track.disordered.add(1, || id(inc, seen.seq));
        } else if before != inc {
            self.follows.entry((seen.lane, before, inc)).or_default().add(1, || id(inc, seen.seq));
        }
        true
    }

    /// A committed event names these records of `inc` as lost.
    pub fn gap(&mut self, lane: LaneName, inc: &str, from: u64, to: u64, reason: GapReason) {
        let inc = self.number(inc);
        self.tracks.entry((lane, inc)).or_default().gaps.push((from, to, reason));
    }

    /// `inc` says that it came after `predecessor` on one disk, and where its lanes ended.
    pub fn opened(&mut self, inc: &str, predecessor: &str, last_seq: PerLane<Option<u64>>) {
        let (inc, predecessor) = (self.number(inc), self.number(predecessor));
        self.known[inc].predecessors.insert(predecessor);
        self.successors.entry(predecessor).or_default().insert(inc);
        let ends = self.ends.entry(predecessor).or_default();
        // Copies of a disk may tell of the same one; the longer is the one that went on.
        ends.iter_mut().zip(last_seq).for_each(|(end, told)| *end = (*end).max(told));
    }

    /// `inc` says that it took over from `predecessor`, of another disk.
    pub fn taken_over(&mut self, inc: &str, predecessor: &str) {
        let (inc, predecessor) = (self.number(inc), self.number(predecessor));
        self.known[inc].predecessors.insert(predecessor);
    }

    /// What the books say.
    pub fn findings(&self) -> Findings {
        findings::of(self)
    }

    fn number(&mut self, inc: &str) -> usize {
        if let Some(number) = self.numbers.get(inc) {
            return *number;
        }
        self.incs.push(inc.to_owned());
        self.known.push(Known::default());
        self.numbers.insert(inc.to_owned(), self.incs.len() - 1);
        self.incs.len() - 1
    }

    /// What a record tells of where partitions without a beginning are complete.
    fn locate(&mut self, inc: usize, seen: Seen<'_>) {
        for (Expired { partition, first_ms }, _) in self.expired.iter().filter(|(_, lanes)| lanes.contains(&seen.lane)) {
            let start = self.starts.entry((seen.lane, *partition)).or_default();
            if *partition == seen.partition {
                start.own.get_or_insert((inc, seen.seq));
            }
            if first_ms.zip(seen.appended_ms).is_some_and(|(first, appended)| appended >= first.saturating_add(TIMES_DIFFER_MS)) {
                let lowest = start.by_time.entry(inc).or_insert(seen.seq);
                *lowest = (*lowest).min(seen.seq);
            }
        }
    }
}
