//! What is remembered of an MQTT session, so that a message which the broker sends again is stored once. Pure.
//!
//! A broker repeats what it has no acknowledgement of, with the DUP flag and under its first packet id. It gives a packet id to another message only
//! once it has that acknowledgement, so of each packet id the last message alone can be repeated. Neither is an acknowledgement that was written to the
//! socket one that the broker has received, nor is one that it has received one that its store holds after a crash. So a message is remembered until
//! its packet id is used anew, until the session is gone, or until [`MESSAGES_MAX`] later ones came, which is as many as the broker may have
//! unacknowledged.
//!
//! One case is ambiguous, since the protocol tells it apart by nothing: a new message whose first sending was lost with a connection or in a crash,
//! and that has packet id, topic and payload in common with the last one of that packet id. It is taken for a repetition and counted as one.
use std::collections::{BTreeMap, VecDeque};

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
        for id in ids {
            session.judge(message(id, "x"), false);
        }
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
        for id in 2..=MESSAGES_MAX as u16 {
            session.judge(message(id, "x"), false);
        }
        assert_eq!(session.judge(message(1, "new"), true), Verdict::Repeated);
    }

    /// `cargo test --workspace --lib -- --ignored --nocapture what_it_costs`
    #[test]
    #[ignore = "a measurement"]
    fn what_it_costs_to_know_a_message() {
        const MESSAGES: u32 = 1_000_000;
        let (clock, mut session, mut repeated) = (crate::clock::Clock::new(), MqttSession::default(), 0);
        let payloads: Vec<Vec<u8>> = (0..1_000).map(|n| format!("{{\"value\":{n}.5,\"ts\":1767225600123}}").into_bytes()).collect();
        let begun = clock.monotonic();
        for n in 0..MESSAGES {
            let message = identity((n % 65_535 + 1) as u16, b"plant/hall-3/pump-1/flow", &payloads[n as usize % payloads.len()]);
            repeated += u32::from(session.judge(message, false) == Verdict::Repeated);
        }
        println!("{:?} per message of 60 bytes, {repeated} repeated", (clock.monotonic() - begun) / MESSAGES);
    }
}
