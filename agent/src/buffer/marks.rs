//! What a source must remember of what it has stored, kept in the log itself.
//!
//! A mark is written in the same commit as the entries it is about, so after a crash both are there or neither. It is no record: it has no seq and
//! goes nowhere. The writer repeats the newest marks at the head of each partition, so the newest partition of a lane holds all that is needed.
use std::collections::{BTreeMap, VecDeque};

use hark_protocol::{node::Kind, topics::Name};
use serde::{Deserialize, Serialize};

use super::{
    frame::FRAME_MAX_BYTES,
    gaps::{Gap, Passed},
};
use crate::record::Cause;

/// Messages of an MQTT session that are remembered: more than a broker has unacknowledged at a time, since the window bounds what is on its way.
pub const MESSAGES_MAX: usize = 8_192;

/// Messages in one encoded mark, so that it fits a value of the store.
const MESSAGES_PER_MARK: usize = 400;
/// Marks gathered into one value of the store: the last one may go beyond it.
const PIECE_BYTES: usize = 2_000;
const _: () = assert!(PIECE_BYTES + MESSAGES_PER_MARK * 8 + 512 < FRAME_MAX_BYTES, "a value of marks fits a leaf");

/// A message of an MQTT session: what tells whether one that the broker calls a repetition is stored already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Packet id.
    pub packet_id: u16,
    /// CRC-32C of topic and payload.
    pub hash: u32,
}

/// What is stored of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceMark {
    /// Frames of a sensor node.
    Node {
        /// Name of the source.
        source: Name,
        /// Node id.
        node: u32,
        /// What is stored of it.
        mark: NodeMark,
    },
    /// These messages of an MQTT session, in order.
    Mqtt {
        /// Name of the source.
        source: Name,
        /// The messages.
        messages: Vec<StoredMessage>,
    },
}

/// How far the frames of a sensor node are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMark {
    /// Start of the node.
    pub boot: u32,
    /// The how manieth start of the node that was heard: a boot id is drawn, and does not tell which of two is the later.
    pub start: u32,
    /// Last stored seq by kind; 0 before the first.
    pub last_seq: [u32; Kind::COUNT],
    /// Frames that the node's ring had dropped before it was first heard.
    pub dropped_before: u32,
    /// Frames that it dropped since, by the kind in whose numbers a gap showed it.
    pub dropped_explained: [u32; Kind::COUNT],
    /// Of all these, how many an event in the log tells of.
    pub dropped_told: u32,
}

impl NodeMark {
    /// Joins two marks of one node: the later start counts, within one start the later frames.
    fn join(&mut self, other: Self) {
        if self.boot != other.boot {
            // The lanes do not hear of a new start in the same commit.
            if other.start >= self.start {
                *self = other;
            }
            return;
        }
        self.last_seq.iter_mut().zip(other.last_seq).for_each(|(seq, other)| *seq = (*seq).max(other));
        self.dropped_explained.iter_mut().zip(other.dropped_explained).for_each(|(dropped, other)| *dropped = (*dropped).max(other));
        self.dropped_before = self.dropped_before.max(other.dropped_before);
        self.dropped_told = self.dropped_told.max(other.dropped_told);
    }
}

/// The newest marks of all sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMarks {
    nodes: BTreeMap<(Name, u32), NodeMark>,
    messages: BTreeMap<Name, VecDeque<StoredMessage>>,
}

impl SourceMarks {
    /// Takes a mark that is newer than all before it.
    pub fn apply(&mut self, mark: &SourceMark) {
        match mark {
            SourceMark::Node { source, node, mark } => self.nodes.entry((source.clone(), *node)).or_insert(*mark).join(*mark),
            SourceMark::Mqtt { source, messages } => {
                let kept = self.messages.entry(source.clone()).or_default();
                kept.extend(messages);
                kept.drain(..kept.len().saturating_sub(MESSAGES_MAX));
            }
        }
    }

    /// Joins the marks of another lane.
    pub(super) fn join(&mut self, other: &Self) {
        other.repeated().iter().for_each(|mark| self.apply(mark));
    }

    /// The same state as marks, to be repeated at the head of a partition.
    fn repeated(&self) -> Vec<SourceMark> {
        let nodes = self.nodes.iter().map(|((source, node), mark)| SourceMark::Node { source: source.clone(), node: *node, mark: *mark });
        let messages =
            self.messages.iter().map(|(source, kept)| SourceMark::Mqtt { source: source.clone(), messages: kept.iter().copied().collect() });
        nodes.chain(messages).collect()
    }

    /// How far the frames of `node` are stored.
    pub fn node(&self, source: &str, node: u32) -> Option<NodeMark> {
        self.nodes.get(&(source.into(), node)).copied()
    }

    /// The messages of `source` stored last, oldest first.
    pub fn messages(&self, source: &str) -> Vec<StoredMessage> {
        self.messages.get(source).map(|kept| kept.iter().copied().collect()).unwrap_or_default()
    }
}

/// What is kept beside the records of a lane. Variants are stored by number: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mark {
    /// What a source stored.
    Source(SourceMark),
    /// The highest cause of any entry in the lane.
    Cause(Cause),
    /// A gap that an event of this commit names.
    Gap(Gap),
    /// How many records gaps named that no mark tells of any more.
    Passed(Passed),
}

/// All marks of a lane, the newest of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LaneMarks {
    pub(super) sources: SourceMarks,
    pub(super) cause: Option<Cause>,
    /// Gaps that a reader may still meet, in the order in which they were named.
    pub(super) gaps: Vec<Gap>,
    /// The sums of those that none can meet.
    pub(super) passed: Vec<Passed>,
}

impl LaneMarks {
    /// The marks in `pieces` as [`encode`] made them, in order; `None` where one is not what was written.
    pub(super) fn of_pieces(pieces: &[Vec<u8>]) -> Option<Self> {
        let mut marks = Self::default();
        for piece in pieces {
            decode(piece)?.iter().for_each(|mark| marks.apply(mark));
        }
        Some(marks)
    }

    /// The same of those pieces that are what was written.
    pub(super) fn of_sound_pieces(pieces: &[Vec<u8>]) -> Self {
        let mut marks = Self::default();
        pieces.iter().filter_map(|piece| decode(piece)).flatten().for_each(|mark| marks.apply(&mark));
        marks
    }

    pub(super) fn apply(&mut self, mark: &Mark) {
        match mark {
            Mark::Source(mark) => self.sources.apply(mark),
            Mark::Cause(cause) => self.cause = self.cause.max(Some(*cause)),
            Mark::Gap(gap) => self.gaps.push(*gap),
            Mark::Passed(passed) => self.passed.push(*passed),
        }
    }

    /// The same state as marks, for the head of a new partition.
    pub(super) fn repeated(&self) -> Vec<Mark> {
        let sources = self.sources.repeated().into_iter().map(Mark::Source);
        let gaps = self.gaps.iter().copied().map(Mark::Gap).chain(self.passed.iter().copied().map(Mark::Passed));
        sources.chain(self.cause.map(Mark::Cause)).chain(gaps).collect()
    }
}

/// Adds what a source stored to the marks of a commit; the messages of a session become one mark, which takes half the space of one for each.
pub(super) fn add(marks: &mut Vec<Mark>, new: &SourceMark) {
    if let SourceMark::Mqtt { source: of, messages: more } = new
        && let Some(messages) = marks.iter_mut().find_map(|mark| match mark {
            Mark::Source(SourceMark::Mqtt { source, messages }) if source == of => Some(messages),
            _ => None,
        })
    {
        messages.extend(more);
    } else {
        marks.push(Mark::Source(new.clone()));
    }
}

/// The marks of one commit as values for the store: a CRC-32C and marks in postcard each.
pub(super) fn encode(marks: &[Mark]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut piece = vec![0; 4];
    let mut add = |mark: &Mark, last: bool| {
        piece.extend(postcard::to_stdvec(mark).expect("plain data into growing memory cannot fail"));
        if piece.len() >= PIECE_BYTES || last {
            let crc = crc32c::crc32c(&piece[4..]);
            piece[..4].copy_from_slice(&crc.to_le_bytes());
            pieces.push(std::mem::replace(&mut piece, vec![0; 4]));
        }
    };
    for (mark, left) in marks.iter().zip((0..marks.len()).rev()) {
        match mark {
            Mark::Source(SourceMark::Mqtt { source, messages }) if messages.len() > MESSAGES_PER_MARK => {
                let chunks = messages.chunks(MESSAGES_PER_MARK);
                for (chunk, chunks_left) in chunks.clone().zip((0..chunks.len()).rev()) {
                    add(&Mark::Source(SourceMark::Mqtt { source: source.clone(), messages: chunk.to_vec() }), left + chunks_left == 0);
                }
            }
            mark => add(mark, left == 0),
        }
    }
    pieces
}

fn decode(piece: &[u8]) -> Option<Vec<Mark>> {
    let (crc, mut rest) = piece.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest).to_le_bytes() != *crc {
        return None;
    }
    let mut marks = Vec::new();
    while !rest.is_empty() {
        let (mark, left) = postcard::take_from_bytes(rest).ok()?;
        marks.push(mark);
        rest = left;
    }
    Some(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(boot: u32, features: u32, event: u32) -> SourceMark {
        let mut last_seq = [0; Kind::COUNT];
        last_seq[Kind::Features.index()] = features;
        last_seq[Kind::Event.index()] = event;
        SourceMark::Node { source: "line".into(), node: 7, mark: NodeMark { boot, start: boot, last_seq, ..NodeMark::default() } }
    }

    #[test]
    fn marks_of_one_start_join_and_a_new_start_begins_anew() {
        let mut marks = SourceMarks::default();
        marks.apply(&node(1, 5, 0));
        marks.apply(&node(1, 4, 2));
        assert_eq!(marks.repeated(), [node(1, 5, 2)]);
        marks.apply(&node(2, 1, 0));
        assert_eq!(marks.repeated(), [node(2, 1, 0)]);
        let mut other_lane = SourceMarks::default();
        other_lane.apply(&node(1, 0, 9));
        marks.join(&other_lane);
        assert_eq!(marks.repeated(), [node(2, 1, 0)], "a lane that has not heard of the new start yet");
    }

    #[test]
    fn what_is_encoded_is_decoded_and_fits_the_store() {
        let messages: Vec<_> = (0..5_000_u32).map(|n| StoredMessage { packet_id: n as u16, hash: n.wrapping_mul(0x9e37_79b9) }).collect();
        let cause = Cause { ordinal: 3, seq: 1 << 40, n: 2 };
        let marks =
            [Mark::Source(node(1, 5, 0)), Mark::Source(SourceMark::Mqtt { source: "plant".into(), messages: messages.clone() }), Mark::Cause(cause)];
        let mut pieces = encode(&marks);
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() <= FRAME_MAX_BYTES));
        let state = LaneMarks::of_pieces(&pieces).unwrap();
        assert_eq!((state.sources.messages("plant"), state.cause), (messages, Some(cause)));
        assert_eq!(LaneMarks::of_pieces(&encode(&state.repeated())).unwrap(), state);
        assert_eq!(encode(&[]), [[0_u8; 0]; 0]);
        let end = pieces[2].len() - 1;
        pieces[2][end] ^= 1;
        assert_eq!(LaneMarks::of_pieces(&pieces), None);
    }

    #[test]
    fn messages_of_a_session_are_one_mark_of_a_commit() {
        let mark = |source: &str, n: u16| SourceMark::Mqtt { source: source.into(), messages: vec![StoredMessage { packet_id: n, hash: 0 }] };
        let mut marks = Vec::new();
        [mark("plant", 1), mark("hall", 2), node(1, 5, 0), mark("plant", 3)].iter().for_each(|mark| add(&mut marks, mark));
        let messages = [1, 3].map(|packet_id| StoredMessage { packet_id, hash: 0 }).to_vec();
        let joined = SourceMark::Mqtt { source: "plant".into(), messages };
        assert_eq!(marks, [joined, mark("hall", 2), node(1, 5, 0)].map(Mark::Source));
    }

    #[test]
    fn the_newest_messages_are_kept() {
        let mut marks = SourceMarks::default();
        for n in 0..=MESSAGES_MAX as u32 {
            marks.apply(&SourceMark::Mqtt { source: "plant".into(), messages: vec![StoredMessage { packet_id: n as u16, hash: n }] });
        }
        let messages = marks.messages("plant");
        assert_eq!((messages.len(), messages[0].hash), (MESSAGES_MAX, 1));
    }
}
