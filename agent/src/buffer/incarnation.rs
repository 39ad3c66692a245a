//! Every start of the agent is a new incarnation: a UUID, and an ordinal above any seen on this disk.
//!
//! Seqs count from 1 in each lane of each incarnation and are never used twice. So a torn tail, a restored image or a cloned card can never
//! make new records look like delivered ones.
use std::path::Path;

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{BufferError, Position, small_file::SmallFile};

const FILE: &str = "incarnations";
const VERSION: u8 = 1;
const RECORD_BYTES: usize = 4 + 16 + 1 + 8 * LaneName::ALL.len();
/// So many incarnations without any records on disk are remembered, to name them in what is still asked about them.
const REMEMBERED: usize = 256;

/// One start of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Orders incarnations of this disk.
    pub ordinal: u32,
    /// Identifies it in the fleet.
    pub id: Uuid,
}

/// An incarnation that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub incarnation: Incarnation,
    /// Last seq per lane, in the order of [`LaneName::ALL`]; 0 where a lane had no record.
    pub last_seq: [u64; LaneName::ALL.len()],
}

impl Ended {
    /// Last seq of `lane`, 0 without records.
    pub fn last_seq(&self, lane: LaneName) -> u64 {
        self.last_seq[lane as usize]
    }

    fn is_empty(&self) -> bool {
        self.last_seq.iter().all(|seq| *seq == 0)
    }
}

/// What the history file knows of an incarnation; the last seqs are unknown while it is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    incarnation: Incarnation,
    last_seq: Option<[u64; LaneName::ALL.len()]>,
}

/// The incarnations on this disk, before the present one is added.
pub(super) struct Register {
    file: SmallFile,
    known: Vec<Known>,
}

/// The incarnations before the present one, oldest first. Fixed while the agent runs.
#[derive(Debug, Default)]
pub(super) struct History(Vec<Ended>);

impl Register {
    /// Reads the history file of `dir`; one that is lost gives an empty register, which the partitions then fill.
    pub(super) fn open(dir: &Path) -> Result<Self, BufferError> {
        let (file, content) = SmallFile::open(dir, FILE)?;
        let known = content.as_deref().map(decode).unwrap_or_default();
        Ok(Self { file, known })
    }

    /// The id under which `ordinal` is known; a partition that lost its header knows none.
    pub(super) fn id(&self, ordinal: u32) -> Option<Uuid> {
        self.known.iter().find(|known| known.incarnation.ordinal == ordinal).map(|known| known.incarnation.id).filter(|id| !id.is_nil())
    }

    /// Adds an incarnation that only its partitions tell of, or its id.
    pub(super) fn learn(&mut self, incarnation: Incarnation) {
        match self.known.iter_mut().find(|known| known.incarnation.ordinal == incarnation.ordinal) {
            Some(known) if known.incarnation.id.is_nil() => known.incarnation = incarnation,
            Some(_) => {}
            None => {
                self.known.push(Known { incarnation, last_seq: None });
                self.known.sort_by_key(|known| known.incarnation.ordinal);
            }
        }
    }

    /// The incarnations whose last seqs must be found in their partitions: normally the newest alone.
    pub(super) fn open_ended(&self) -> Vec<Incarnation> {
        self.known.iter().filter(|known| known.last_seq.is_none()).map(|known| known.incarnation).collect()
    }

    /// The last record of `lane` in the incarnations that have ended; seq 0 without one.
    pub(super) fn last(&self, lane: LaneName) -> Position {
        let last = |known: &Known| Position { ordinal: known.incarnation.ordinal, seq: known.last_seq.unwrap_or_default()[lane as usize] };
        self.known.iter().map(last).filter(|last| last.seq > 0).max().unwrap_or_default()
    }

    /// Tells how `ordinal` ended.
    pub(super) fn end(&mut self, ordinal: u32, last_seq: [u64; LaneName::ALL.len()]) {
        for known in self.known.iter_mut().filter(|known| known.incarnation.ordinal == ordinal) {
            known.last_seq = Some(last_seq);
        }
    }

    /// Starts a new incarnation, durably, with an ordinal above `highest_seen` and above all that is known.
    /// `has_records` tells of which ordinals there are records on disk; these are never forgotten.
    pub(super) fn begin(mut self, highest_seen: u32, has_records: impl Fn(u32) -> bool) -> Result<(Incarnation, History), BufferError> {
        let highest = self.known.last().map_or(0, |known| known.incarnation.ordinal).max(highest_seen);
        // The highest number of all stands before the keys of marks in the store.
        let ordinal = highest.checked_add(1).filter(|ordinal| *ordinal < u32::MAX).ok_or(BufferError::OrdinalsExhausted)?;
        let incarnation = Incarnation { ordinal, id: Uuid::new_v4() };
        let forget_before = self.known.len().saturating_sub(REMEMBERED);
        let kept = self.known.iter().enumerate().filter(|(at, known)| *at >= forget_before || has_records(known.incarnation.ordinal));
        self.known = kept.map(|(_, known)| *known).collect();
        let history = self.known.iter().map(|known| Ended { incarnation: known.incarnation, last_seq: known.last_seq.unwrap_or_default() }).collect();
        self.known.push(Known { incarnation, last_seq: None });
        self.file.store(&encode(&self.known))?;
        Ok((incarnation, History(history)))
    }

    /// All that are known, without a new one.
    pub(super) fn look_back(&self) -> History {
        let ended = |known: &Known| Ended { incarnation: known.incarnation, last_seq: known.last_seq.unwrap_or_default() };
        History(self.known.iter().map(ended).collect())
    }
}

impl History {
    /// All of it, oldest first.
    pub(super) fn ended(&self) -> &[Ended] {
        &self.0
    }

    /// The newest that left any record. One that never committed anything is passed over: nobody can have heard of it.
    pub(super) fn predecessor(&self) -> Option<Ended> {
        self.0.iter().rfind(|ended| !ended.is_empty()).copied()
    }

    /// The record that follows `after` in `lane`, if the incarnations before the present one have it.
    pub(super) fn next(&self, lane: LaneName, after: Position) -> Option<Position> {
        let at = self.0.partition_point(|ended| ended.incarnation.ordinal < after.ordinal);
        self.0[at..].iter().find_map(|ended| {
            let ordinal = ended.incarnation.ordinal;
            let seq = if ordinal == after.ordinal { after.seq } else { 0 };
            (ended.last_seq(lane) > seq).then(|| Position { ordinal, seq: seq + 1 })
        })
    }

    /// How many records of `lane` follow `after` in these incarnations.
    pub(super) fn count(&self, lane: LaneName, after: Position) -> u64 {
        let at = self.0.partition_point(|ended| ended.incarnation.ordinal < after.ordinal);
        let records = |ended: &Ended| ended.last_seq(lane).saturating_sub(if ended.incarnation.ordinal == after.ordinal { after.seq } else { 0 });
        self.0[at..].iter().map(records).sum()
    }

    /// Those from `ordinal` on.
    pub(super) fn from(&self, ordinal: u32) -> &[Ended] {
        &self.0[self.0.partition_point(|ended| ended.incarnation.ordinal < ordinal)..]
    }

    /// The incarnation with this ordinal.
    pub(super) fn find(&self, ordinal: u32) -> Option<&Ended> {
        self.0.binary_search_by_key(&ordinal, |ended| ended.incarnation.ordinal).ok().map(|at| &self.0[at])
    }
}

fn encode(known: &[Known]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for known in known {
        bytes.extend_from_slice(&known.incarnation.ordinal.to_le_bytes());
        bytes.extend_from_slice(known.incarnation.id.as_bytes());
        bytes.push(u8::from(known.last_seq.is_some()));
        for seq in known.last_seq.unwrap_or_default() {
            bytes.extend_from_slice(&seq.to_le_bytes());
        }
    }
    bytes
}

/// Content of another version gives nothing: the partitions then tell what they can.
fn decode(bytes: &[u8]) -> Vec<Known> {
    let Some((&VERSION, records)) = bytes.split_first() else { return Vec::new() };
    records.chunks_exact(RECORD_BYTES).filter_map(decode_record).collect()
}

fn decode_record(record: &[u8]) -> Option<Known> {
    let ordinal = u32::from_le_bytes(record.get(..4)?.try_into().ok()?);
    let id = Uuid::from_slice(record.get(4..20)?).ok()?;
    let mut last_seq = [0; LaneName::ALL.len()];
    for (seq, bytes) in last_seq.iter_mut().zip(record.get(21..)?.chunks_exact(8)) {
        *seq = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(Known { incarnation: Incarnation { ordinal, id }, last_seq: (record[20] == 1).then_some(last_seq) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(ordinal: u32, seq: u64) -> Position {
        Position { ordinal, seq }
    }

    fn history(last: &[(u32, u64)]) -> History {
        let ended =
            |(ordinal, seq)| Ended { incarnation: Incarnation { ordinal, id: Uuid::from_u128(u128::from(ordinal)) }, last_seq: [seq, 0, 0, 0] };
        History(last.iter().copied().map(ended).collect())
    }

    #[test]
    fn each_start_is_new_and_remembers_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let (first, history) = Register::open(dir.path()).unwrap().begin(0, |_| false).unwrap();
        assert_eq!((first.ordinal, history.predecessor()), (1, None));
        let mut register = Register::open(dir.path()).unwrap();
        assert_eq!(register.open_ended(), [first]);
        register.end(1, [5, 0, 0, 2]);
        let (second, history) = register.begin(0, |_| false).unwrap();
        assert_eq!(history.predecessor(), Some(Ended { incarnation: first, last_seq: [5, 0, 0, 2] }));
        assert!(second.ordinal == 2 && second.id != first.id);
        assert_eq!(Register::open(dir.path()).unwrap().open_ended(), [second]);
    }

    #[test]
    fn an_incarnation_without_records_is_no_predecessor() {
        assert_eq!(history(&[(1, 5), (2, 0)]).predecessor().unwrap().incarnation.ordinal, 1);
        assert_eq!(history(&[(1, 0)]).predecessor(), None);
    }

    #[test]
    fn the_ordinal_is_above_anything_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Register::open(dir.path()).unwrap().begin(41, |_| false).unwrap().0.ordinal, 42);
        assert!(matches!(Register::open(dir.path()).unwrap().begin(u32::MAX, |_| false), Err(BufferError::OrdinalsExhausted)));
    }

    #[test]
    fn the_history_stays_bounded_but_keeps_what_has_records() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..REMEMBERED + 20 {
            let _started = Register::open(dir.path()).unwrap().begin(0, |ordinal| ordinal == 3).unwrap();
        }
        let (_, history) = Register::open(dir.path()).unwrap().begin(0, |ordinal| ordinal == 3).unwrap();
        assert_eq!(history.ended().len(), REMEMBERED + 1);
        assert_eq!(history.ended()[0].incarnation.ordinal, 3);
    }

    #[test]
    fn records_follow_each_other_over_incarnations() {
        let history = history(&[(1, 2), (2, 0), (5, 1)]);
        let check = |after, next, count| {
            assert_eq!((history.next(LaneName::Inputs, after), history.count(LaneName::Inputs, after)), (next, count), "after {after}");
        };
        check(position(0, 0), Some(position(1, 1)), 3);
        check(position(1, 1), Some(position(1, 2)), 2);
        check(position(1, 2), Some(position(5, 1)), 1);
        check(position(1, 99), Some(position(5, 1)), 1);
        check(position(3, 7), Some(position(5, 1)), 1);
        check(position(5, 1), None, 0);
        check(position(9, 0), None, 0);
    }
}
