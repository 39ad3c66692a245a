//! What Kafka holds of a lane: "delivered up to here", and of whom.
//!
//! The offset of a lane's cursor is a seq; its metadata say in which incarnation, as text: `<uuid> <ordinal> [o=…]`. `o` are the places of other disks
//! that delivered under this gateway id before: one that comes back goes on where it was. Beside the lanes' cursors stands one more, written once per
//! connection: `<uuid> <ordinal> l=…`, the lineage of the disk that delivers, so that a restored copy of that disk finds how far both went the same
//! way. Readers take the first two words and leave what they do not know.
use std::ops::RangeInclusive;

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use crate::buffer::{Incarnation, Log, Position};

/// Incarnations in the lineage: at most 108 bytes each, and Kafka takes 4096.
const LINEAGE: usize = 32;
/// Places of other disks: more than one is a rare accident.
const OTHERS: usize = 4;

/// A value per lane, in the order of [`LaneName::ALL`].
pub type PerLane<T> = [T; LaneName::ALL.len()];

/// An incarnation in few bytes: its ordinal and the first 48 bits of its UUID, which are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    ordinal: u32,
    id: u64,
}

impl From<Incarnation> for Short {
    fn from(incarnation: Incarnation) -> Self {
        Self { ordinal: incarnation.ordinal, id: incarnation.id.as_u64_pair().0 >> 16 }
    }
}

impl Short {
    /// Whether this stands for the incarnation with `id`.
    pub fn is(self, id: Uuid) -> bool {
        self.id == id.as_u64_pair().0 >> 16
    }

    /// The ordinal.
    pub fn ordinal(self) -> u32 {
        self.ordinal
    }
}

/// How far Kafka has a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaCursor {
    /// Whose records.
    pub incarnation: Incarnation,
    /// Last seq delivered; 0: none of this incarnation, and all that came before it.
    pub seq: u64,
    /// Where other disks were when they delivered last.
    pub others: Vec<(Short, u64)>,
}

/// The incarnations of the disk that delivered last, newest first, with the last seq of each lane; that of the newest means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage(Vec<(Short, PerLane<u64>)>);

/// What Kafka tells at the begin of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    /// By lane; `None` where Kafka has none, or none of ours.
    pub lanes: PerLane<Option<KafkaCursor>>,
    /// Of the disk that wrote them.
    pub lineage: Lineage,
}

impl Cursors {
    /// The highest ordinal that they name.
    pub fn highest_ordinal(&self) -> u32 {
        self.lanes.iter().flatten().map(|cursor| cursor.incarnation.ordinal).max().unwrap_or(0)
    }
}

impl KafkaCursor {
    /// The text that travels with the offset.
    pub fn metadata(&self) -> String {
        let mut text = format!("{} {}", self.incarnation.id, self.incarnation.ordinal);
        if !self.others.is_empty() {
            let others: Vec<String> = self.others.iter().map(|(Short { ordinal, id }, seq)| format!("{ordinal}.{id:012x}.{seq}")).collect();
            text.push_str(&format!(" o={}", others.join(",")));
        }
        text
    }

    /// A cursor from its offset and text; `None` if the text is not ours.
    pub fn parse(seq: u64, metadata: &str) -> Option<Self> {
        let mut words = metadata.split(' ');
        let id = words.next()?.parse::<Uuid>().ok()?;
        let ordinal = words.next()?.parse().ok()?;
        let others = words.find_map(|word| word.strip_prefix("o=")).unwrap_or_default();
        let others = others.split(',').filter_map(short).filter_map(|(short, seqs)| Some((short, *seqs.first()?))).collect();
        Some(Self { incarnation: Incarnation { ordinal, id }, seq, others })
    }
}

impl Lineage {
    /// The text of its cursor, after the incarnation that writes it.
    pub fn metadata(&self, present: Incarnation) -> String {
        let one = |(Short { ordinal, id }, [a, b, c, d]): &(Short, PerLane<u64>)| format!("{ordinal}.{id:012x}.{a}.{b}.{c}.{d}");
        format!("{} {} l={}", present.id, present.ordinal, self.0.iter().map(one).collect::<Vec<_>>().join(","))
    }

    /// The incarnations, newest first, each with the last seq of its lanes; `None` for the newest, which goes on.
    pub fn iter(&self) -> impl Iterator<Item = (Short, Option<PerLane<u64>>)> {
        self.0.iter().enumerate().map(|(at, (short, last))| (*short, (at > 0).then_some(*last)))
    }

    /// The lineage in such a text; empty if there is none.
    pub fn parse(metadata: &str) -> Self {
        let lineage = metadata.split(' ').find_map(|word| word.strip_prefix("l=")).unwrap_or_default();
        Self(lineage.split(',').filter_map(short).filter_map(|(short, seqs)| Some((short, seqs.try_into().ok()?))).collect())
    }
}

/// `<ordinal>.<id>.<seq>…`
fn short(text: &str) -> Option<(Short, Vec<u64>)> {
    let mut parts = text.split('.');
    let ordinal = parts.next()?.parse().ok()?;
    let id = u64::from_str_radix(parts.next()?, 16).ok()?;
    let seqs = parts.map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    Some((Short { ordinal, id }, seqs))
}

/// The incarnations on this disk, oldest first, with the last seq of each lane; the present one comes last and is open.
#[derive(Clone, Debug)]
pub struct Disk(Vec<(Incarnation, PerLane<u64>)>);

/// How the start of a lane was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Kafka's cursor is of an incarnation on this disk.
    Known,
    /// Kafka has nothing.
    Absent,
    /// Another disk delivered under this gateway id; this one is a copy of it, or the other way round.
    Copy,
    /// Another disk delivered, and no incarnation is known that both have.
    Foreign,
}

impl Disk {
    /// What the log knows.
    pub fn of(log: &Log) -> Self {
        let ended = log.ended().iter().map(|ended| (ended.incarnation, ended.last_seq));
        Self(ended.chain([(log.incarnation(), [u64::MAX; LaneName::ALL.len()])]).collect())
    }

    #[cfg(test)]
    pub(super) fn with(incarnations: Vec<(Incarnation, PerLane<u64>)>) -> Self {
        Self(incarnations)
    }

    fn find(&self, short: Short) -> Option<&(Incarnation, PerLane<u64>)> {
        self.0.iter().find(|(incarnation, _)| Short::from(*incarnation) == short)
    }

    /// The ordinal of the incarnation with this UUID.
    pub fn ordinal(&self, id: &str) -> Option<u32> {
        let id = id.parse::<Uuid>().ok()?;
        self.0.iter().find(|(incarnation, _)| incarnation.id == id).map(|(incarnation, _)| incarnation.ordinal)
    }

    /// The present incarnation and the newest that left records.
    pub fn lineage(&self) -> Lineage {
        let present = self.0.len().saturating_sub(1);
        let with_records = self.0.iter().enumerate().filter(|(at, (_, last))| *at == present || last.iter().any(|seq| *seq > 0));
        let last_of = |at: usize, last: PerLane<u64>| if at == present { [0; LaneName::ALL.len()] } else { last };
        Lineage(with_records.rev().take(LINEAGE).map(|(at, (incarnation, last))| (Short::from(*incarnation), last_of(at, *last))).collect())
    }

    /// The incarnation of `position`, for a cursor. One that is forgotten left nothing on disk: the place before the next one is the same.
    pub fn incarnation(&self, position: Position) -> (Incarnation, u64) {
        let at = self.0.partition_point(|(incarnation, _)| incarnation.ordinal < position.ordinal);
        match self.0.get(at) {
            Some((incarnation, _)) if incarnation.ordinal == position.ordinal => (*incarnation, position.seq),
            Some((incarnation, _)) => (*incarnation, 0),
            // Nothing lies above the present incarnation.
            None => (self.0[self.0.len() - 1].0, 0),
        }
    }

    /// Records of `lane` after `from`, up to `to`.
    pub fn distance(&self, lane: LaneName, from: Position, to: Position) -> u64 {
        self.between(lane, from, to).map(|(_, seqs)| seqs.end() + 1 - seqs.start()).sum()
    }

    /// The records of `lane` after `from`, up to `to`, by incarnation.
    pub fn between(&self, lane: LaneName, from: Position, to: Position) -> impl Iterator<Item = (Incarnation, RangeInclusive<u64>)> {
        self.0.iter().filter_map(move |(incarnation, last)| {
            let (ordinal, last) = (incarnation.ordinal, last[lane as usize]);
            if ordinal < from.ordinal || ordinal > to.ordinal {
                return None;
            }
            let low = if ordinal == from.ordinal { from.seq } else { 0 };
            let high = if ordinal == to.ordinal { to.seq.min(last) } else { last };
            (low < high).then(|| (*incarnation, low + 1..=high))
        })
    }

    /// Where `lane` stands on this disk by what Kafka tells. `None`: it says nothing of this disk.
    pub fn place(&self, lane: LaneName, cursors: &Cursors) -> (Option<Position>, Found) {
        let Some(cursor) = &cursors.lanes[lane as usize] else { return (None, Found::Absent) };
        let own = Short::from(cursor.incarnation);
        let known = self.find(own).map(|_| Position { ordinal: own.ordinal, seq: cursor.seq });
        let before = cursor.others.iter().filter(|(short, _)| self.find(*short).is_some());
        let before = before.map(|(short, seq)| Position { ordinal: short.ordinal, seq: *seq }).max();
        let shared = if known.is_none() { self.shared(lane, own, &cursors.lineage) } else { None };
        let place = known.max(before).max(shared);
        let found = match (known, shared) {
            (Some(_), _) => Found::Known,
            (None, Some(_)) => Found::Copy,
            (None, None) => Found::Foreign,
        };
        (place, found)
    }

    /// The last record of `lane` that this disk and the other have in common: the other has passed it, since it went on to `own` behind it. Only one of
    /// two copies went on appending to an incarnation that both have, so the shorter one is common.
    fn shared(&self, lane: LaneName, own: Short, lineage: &Lineage) -> Option<Position> {
        let at = lineage.0.iter().position(|(short, _)| *short == own)?;
        let in_both = lineage.0[at + 1..].iter().find_map(|(short, theirs)| Some((self.find(*short)?, theirs)));
        in_both.map(|((incarnation, ours), theirs)| Position { ordinal: incarnation.ordinal, seq: ours[lane as usize].min(theirs[lane as usize]) })
    }

    /// What is to be remembered of other disks when `cursor` of `lane` is replaced by one of this disk: what this disk does not have.
    pub fn others(&self, lane: LaneName, cursor: &KafkaCursor) -> Vec<(Short, u64)> {
        let head = (Short::from(cursor.incarnation), cursor.seq);
        let beyond = |(short, seq): &(Short, u64)| self.find(*short).is_none_or(|(_, last)| last[lane as usize] < *seq);
        let mut others: Vec<_> = [head].into_iter().chain(cursor.others.iter().copied()).filter(beyond).collect();
        others.truncate(OTHERS);
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneName = LaneName::Alarms;

    fn incarnation(ordinal: u32, id: u8) -> Incarnation {
        Incarnation { ordinal, id: Uuid::from_bytes([id; 16]) }
    }

    fn disk(incarnations: &[(u32, u8, u64)]) -> Disk {
        Disk::with(incarnations.iter().map(|(ordinal, id, last)| (incarnation(*ordinal, *id), [*last; 4])).collect())
    }

    fn cursor(ordinal: u32, id: u8, seq: u64, others: &[(u32, u8, u64)]) -> KafkaCursor {
        let others = others.iter().map(|(ordinal, id, seq)| (incarnation(*ordinal, *id).into(), *seq)).collect();
        KafkaCursor { incarnation: incarnation(ordinal, id), seq, others }
    }

    fn at(ordinal: u32, seq: u64) -> Option<Position> {
        Some(Position { ordinal, seq })
    }

    #[track_caller]
    fn check_place(disk: &Disk, cursor: KafkaCursor, lineage: Lineage, expected: (Option<Position>, Found)) {
        let mut cursors = Cursors { lineage, ..Cursors::default() };
        cursors.lanes[LANE as usize] = Some(cursor);
        assert_eq!(disk.place(LANE, &cursors), expected);
    }

    #[test]
    fn the_texts_are_read_as_they_were_written() {
        let cursor = cursor(7, 0xab, 9, &[(6, 1, 150), (2, 3, 0)]);
        assert_eq!(cursor.metadata(), "abababab-abab-abab-abab-abababababab 7 o=6.010101010101.150,2.030303030303.0");
        assert_eq!(KafkaCursor::parse(9, &cursor.metadata()), Some(cursor.clone()));
        assert_eq!(KafkaCursor::parse(9, &format!("{} z=later", cursor.metadata())), Some(cursor.clone()));
        assert_eq!(KafkaCursor::parse(1, ""), None);
        assert_eq!(KafkaCursor::parse(1, "something else"), None);
        let lineage = disk(&[(5, 5, 1), (6, 6, 0), (7, 0xab, 0)]).lineage();
        let text = lineage.metadata(cursor.incarnation);
        assert_eq!(text, "abababab-abab-abab-abab-abababababab 7 l=7.abababababab.0.0.0.0,5.050505050505.1.1.1.1");
        assert_eq!(Lineage::parse(&text), lineage);
    }

    #[test]
    fn the_texts_stay_below_what_kafka_takes() {
        let known: Vec<_> = (0..60).map(|n| (u32::MAX - 60 + n, n as u8, u64::MAX)).collect();
        assert!(disk(&known).lineage().metadata(incarnation(u32::MAX, 9)).len() < 4096);
        assert!(cursor(u32::MAX, 9, u64::MAX, &[(u32::MAX, 1, u64::MAX); OTHERS]).metadata().len() < 300);
    }

    #[test]
    fn a_cursor_of_this_disk_is_taken_as_it_is() {
        let disk = disk(&[(5, 5, 100), (6, 6, 0)]);
        check_place(&disk, cursor(5, 5, 40, &[]), Lineage::default(), (at(5, 40), Found::Known));
        assert_eq!(disk.place(LANE, &Cursors::default()), (None, Found::Absent));
        // The same ordinal on another disk is another incarnation.
        check_place(&disk, cursor(6, 9, 40, &[]), Lineage::default(), (None, Found::Foreign));
        // That other disk took over from this one, which is back: it is no copy.
        check_place(&disk, cursor(6, 9, 40, &[(5, 5, 70)]), Lineage::default(), (at(5, 70), Found::Foreign));
    }

    #[test]
    fn a_restored_copy_goes_on_behind_what_both_disks_have() {
        // The original went on with 6 and 7; the copy, taken while 5 stood at 100, with a 6 of its own.
        let original = disk(&[(4, 4, 9), (5, 5, 200), (6, 6, 30), (7, 7, 0)]);
        let copy = disk(&[(4, 4, 9), (5, 5, 100), (6, 66, 0)]);
        check_place(&copy, cursor(7, 7, 150, &[]), original.lineage(), (at(5, 100), Found::Copy));
        // A lane in which the original's last records are old.
        check_place(&copy, cursor(6, 6, 3, &[]), original.lineage(), (at(5, 100), Found::Copy));
        check_place(&copy, cursor(4, 4, 3, &[]), original.lineage(), (at(4, 3), Found::Known));
    }

    #[test]
    fn an_original_that_comes_back_sends_what_the_copy_never_had() {
        let original = disk(&[(5, 5, 200), (6, 6, 30), (7, 7, 0)]);
        let copy = disk(&[(5, 5, 100), (6, 66, 0)]);
        // It had delivered nothing beyond what was copied.
        check_place(&original, cursor(6, 66, 12, &[]), copy.lineage(), (at(5, 100), Found::Copy));
        // It had, and the copy kept the place: of another incarnation, or of one that the copy has in part.
        for (ordinal, id, seq) in [(7, 7, 150), (5, 5, 160)] {
            let taken_over = cursor(6, 66, 12, &[]);
            let after = KafkaCursor { others: copy.others(LANE, &cursor(ordinal, id, seq, &[])), ..taken_over };
            check_place(&original, after, copy.lineage(), (at(ordinal, seq), Found::Copy));
        }
        // A lane without new records of the copy: its cursor stands on a common incarnation, the kept place is further.
        let after = KafkaCursor { others: copy.others(LANE, &cursor(7, 7, 150, &[])), ..cursor(5, 5, 100, &[]) };
        check_place(&original, after, copy.lineage(), (at(7, 150), Found::Known));
    }

    #[test]
    fn distances_and_places_over_incarnations() {
        let disk = disk(&[(2, 2, 10), (5, 5, 3), (6, 6, u64::MAX)]);
        let place = |ordinal, seq| Position { ordinal, seq };
        assert_eq!(disk.distance(LANE, place(2, 4), place(6, 7)), 6 + 3 + 7);
        assert_eq!(disk.distance(LANE, place(2, 4), place(2, 99)), 6);
        assert_eq!(disk.distance(LANE, place(0, 0), place(2, 1)), 1);
        assert_eq!(disk.distance(LANE, place(6, 7), place(6, 7)), 0);
        let between: Vec<_> = disk.between(LANE, place(2, 4), place(6, 7)).map(|(of, seqs)| (of.ordinal, seqs)).collect();
        assert_eq!(between, [(2, 5..=10), (5, 1..=3), (6, 1..=7)]);
        assert_eq!(disk.incarnation(place(5, 2)), (incarnation(5, 5), 2));
        assert_eq!(disk.incarnation(place(3, 2)), (incarnation(5, 5), 0));
        assert_eq!(disk.incarnation(place(0, 0)), (incarnation(2, 2), 0));
    }
}
