//! What is remembered of an MQTT session, so that a message which the broker sends again is stored once. Pure.
//!
//! A broker repeats what it has no acknowledgement of, with the DUP flag and under its first packet id. It gives a packet id to another message only
//! once it has that acknowledgement, so of each packet id the last message alone can be repeated. Written to the socket is not yet received: an
//! acknowledgement that goes down with its connection is followed by the same message again. So a message is remembered until the broker is known
//! to have its acknowledgement (it answered a ping sent later, or uses the packet id anew), until the session is gone, or until [`MESSAGES_MAX`]
//! later ones were stored, which is more than the broker may have unacknowledged.
//!
//! One case is ambiguous, since the protocol tells it apart by nothing: a new message whose first sending was lost with a connection or in a crash,
//! and that has packet id, topic and payload in common with the last one of that packet id. It is taken for a repetition and counted as one.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::buffer::marks::{MESSAGES_MAX, StoredMessage};

/// Stands in the marks where a session began that knows nothing of the one before it: 0 is no packet id.
pub const SESSION_BEGAN: StoredMessage = StoredMessage { packet_id: 0, hash: 0 };

/// Whether a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No: store it.
    New,
    /// It is, or is on its way there: acknowledge it after what came before it.
    Repeated,
}

/// How a message is told apart from others of its session.
pub fn identity(packet_id: u16, topic: &[u8], payload: &[u8]) -> StoredMessage {
    StoredMessage { packet_id, hash: crc32c::crc32c_append(crc32c::crc32c(topic), payload) }
}

/// The messages that are stored or on their way, as far as the broker may send them again.
#[derive(Debug, Default)]
pub struct MqttSession {
    /// By packet id: the hash of its last message, and the turn in which that came.
    known: BTreeMap<u16, (u32, u64)>,
    /// The turns of the last [`MESSAGES_MAX`] messages, also of those that are no longer known.
    turns: VecDeque<(u64, u16)>,
    turn: u64,
}

impl MqttSession {
    /// The session as the marks of the log tell of it, oldest first.
    pub fn restore(marks: &[StoredMessage]) -> Self {
        let mut session = Self::default();
        for mark in marks {
            match *mark {
                SESSION_BEGAN => session = Self::default(),
                message => session.remember(message),
            }
        }
        session
    }

    /// Judges a message and takes note of it. `dup`: the broker says that it sent it before.
    pub fn judge(&mut self, message: StoredMessage, dup: bool) -> Verdict {
        if dup && self.known.get(&message.packet_id).is_some_and(|(hash, _)| *hash == message.hash) {
            return Verdict::Repeated;
        }
        self.remember(message);
        Verdict::New
    }

    /// The broker has the acknowledgement of these packet ids.
    pub fn settle(&mut self, packet_ids: &BTreeSet<u16>) {
        self.known.retain(|packet_id, _| !packet_ids.contains(packet_id));
    }

    fn remember(&mut self, StoredMessage { packet_id, hash }: StoredMessage) {
        self.turn += 1;
        self.known.insert(packet_id, (hash, self.turn));
        self.turns.push_back((self.turn, packet_id));
        if self.turns.len() > MESSAGES_MAX
            && let Some((turn, packet_id)) = self.turns.pop_front()
            && self.known.get(&packet_id).is_some_and(|(_, last)| *last == turn)
        {
            self.known.remove(&packet_id);
        }
    }
}

/// Which acknowledgements the broker is known to have, on one connection.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Written since the last ping.
    written: BTreeSet<u16>,
    /// Written before the ping that waits for its answer.
    before_ping: BTreeSet<u16>,
}

impl Acknowledged {
    /// A message came: its packet id is in use again.
    pub fn received(&mut self, packet_id: u16) {
        self.written.remove(&packet_id);
        self.before_ping.remove(&packet_id);
    }

    /// An acknowledgement was written to the socket.
    pub fn wrote(&mut self, packet_id: u16) {
        self.written.insert(packet_id);
    }

    /// A ping was written to the socket.
    pub fn pinged(&mut self) {
        self.before_ping.append(&mut self.written);
    }

    /// The ping was answered: the broker has read all that was written before it. Gives these packet ids.
    pub fn answered(&mut self) -> BTreeSet<u16> {
        std::mem::take(&mut self.before_ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(packet_id: u16, payload: &str) -> StoredMessage {
        identity(packet_id, b"plant/pump/flow", payload.as_bytes())
    }

    #[test]
    fn only_what_the_broker_calls_a_repetition_can_be_one() {
        let mut session = MqttSession::default();
        for (packet_id, payload, dup, expected) in [
            (1, "5", false, Verdict::New),
            (1, "5", true, Verdict::Repeated),
            (1, "6", true, Verdict::New),      // the packet id in use again, and this one was lost with a connection
            (1, "5", true, Verdict::New),      // of a packet id the last message alone can be repeated
            (2, "5", true, Verdict::New),      // another packet id
            (2, "5", false, Verdict::New),     // an equal reading, not repeated
            (2, "5", true, Verdict::Repeated), // the broker repeats as often as it likes
            (2, "5", true, Verdict::Repeated),
        ] {
            assert_eq!(session.judge(message(packet_id, payload), dup), expected, "{packet_id} {payload} {dup}");
        }
    }

    #[test]
    fn a_message_is_another_on_another_topic() {
        assert_ne!(identity(1, b"a/b", b"5"), identity(1, b"a/c", b"5"));
    }

    #[test]
    fn a_session_is_restored_from_where_it_began() {
        let marks = [message(1, "a"), message(2, "b"), SESSION_BEGAN, message(2, "c")];
        let mut session = MqttSession::restore(&marks);
        assert_eq!(session.judge(message(2, "c"), true), Verdict::Repeated);
        assert_eq!(session.judge(message(1, "a"), true), Verdict::New);
    }

    #[test]
    fn the_oldest_message_is_forgotten_for_the_newest() {
        let mut session = MqttSession::default();
        let ids = 1..=MESSAGES_MAX as u16;
        ids.clone().for_each(|id| drop(session.judge(message(id, "x"), false)));
        assert_eq!(session.judge(message(1, "x"), true), Verdict::Repeated);
        session.judge(message(MESSAGES_MAX as u16 + 1, "x"), false);
        assert_eq!(session.judge(message(2, "x"), true), Verdict::Repeated);
        assert_eq!(session.judge(message(1, "x"), true), Verdict::New);
        assert_eq!((session.known.len(), session.turns.len()), (MESSAGES_MAX, MESSAGES_MAX));
    }

    #[test]
    fn a_packet_id_in_use_again_outlives_the_turn_of_its_former_message() {
        let mut session = MqttSession::default();
        session.judge(message(1, "old"), false);
        session.judge(message(1, "new"), false);
        (2..=MESSAGES_MAX as u16).for_each(|id| drop(session.judge(message(id, "x"), false)));
        assert_eq!(session.judge(message(1, "new"), true), Verdict::Repeated);
    }

    #[test]
    fn a_message_is_settled_by_the_answer_to_a_ping_after_its_acknowledgement() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.wrote(1);
        acknowledged.wrote(2);
        acknowledged.pinged();
        acknowledged.wrote(3);
        acknowledged.received(2);
        let settled = acknowledged.answered();
        assert_eq!(settled, BTreeSet::from([1]), "3 was written after the ping, 2 is in use again");
        acknowledged.pinged();
        assert_eq!(acknowledged.answered(), BTreeSet::from([3]));

        let mut session = MqttSession::restore(&[message(1, "a"), message(3, "c")]);
        session.settle(&settled);
        assert_eq!(session.judge(message(1, "a"), true), Verdict::New);
        assert_eq!(session.judge(message(3, "c"), true), Verdict::Repeated);
    }
}
