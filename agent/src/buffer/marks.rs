//! What a source must remember of what it has stored, kept in the log itself.
//!
//! A mark is written in the same commit as the entries it is about, so after a crash both are there or neither. It is no record: it has no seq and
//! goes nowhere. The writer repeats the newest marks at the head of each partition, so the newest partition of a lane holds all that is needed.
use std::collections::{BTreeMap, VecDeque};

use hark_protocol::{node::Kind, topics::Name};
use serde::{Deserialize, Serialize};

/// Messages of an MQTT session that are remembered: more than a broker has unacknowledged at a time, since the window bounds what is on its way.
pub const MESSAGES_MAX: usize = 8_192;

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
            *self = other;
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

    /// The same state as marks, to be repeated at the head of a partition.
    pub(super) fn repeated(&self) -> Vec<SourceMark> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(boot: u32, features: u32, event: u32) -> SourceMark {
        let mut last_seq = [0; Kind::COUNT];
        last_seq[Kind::Features.index()] = features;
        last_seq[Kind::Event.index()] = event;
        SourceMark::Node { source: "line".into(), node: 7, mark: NodeMark { boot, last_seq, ..NodeMark::default() } }
    }

    #[test]
    fn marks_of_one_start_join_and_a_new_start_begins_anew() {
        let mut marks = SourceMarks::default();
        marks.apply(&node(1, 5, 0));
        marks.apply(&node(1, 4, 2));
        assert_eq!(marks.repeated(), [node(1, 5, 2)]);
        marks.apply(&node(2, 1, 0));
        assert_eq!(marks.repeated(), [node(2, 1, 0)]);
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
