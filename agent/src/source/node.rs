//! One sensor node's side of the node protocol as the agent keeps it: which frames are new, what the node lost, what time it is there. Pure.
use hark_protocol::{
    node::{Frame, Kind, OffsetAndDelay},
    topics::{Quality, Timestamp},
};

use super::decode::{Sample, Value};
use crate::config::Node;

/// Clock comparisons kept; the one with the smallest delay counts.
const COMPARISONS: usize = 8;

/// What the agent knows of a node since the node's last start.
#[derive(Clone, Debug, Default)]
pub struct NodeSession {
    boot: Option<u32>,
    begun_ms: u64,
    /// What the node had dropped at the first contact, until it is told.
    earlier: Option<u32>,
    last: [Option<u32>; Kind::COUNT],
    dropped_seen: u32,
    dropped_explained: u32,
    comparisons: Vec<OffsetAndDelay>,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New: store it, then acknowledge it. `lost` frames of its kind before it were dropped by the node's ring.
    New {
        /// Frames that will never come.
        lost: u32,
    },
    /// Stored before: acknowledge it again, store nothing.
    Repeated,
    /// One before it is still to come: wait until the node sends both again.
    Early,
    /// A kind that is not numbered for keeping.
    Passing,
}

impl NodeSession {
    /// Looks at the boot id of a frame that came at `now_ms` (since the gateway's boot). A new one begins a new session; returns whether it did.
    pub fn begin(&mut self, frame: &Frame, now_ms: u64) -> bool {
        let begins = self.boot != Some(frame.boot);
        if begins {
            let (boot, dropped) = (Some(frame.boot), frame.dropped);
            *self = Self { boot, begun_ms: now_ms, earlier: Some(dropped), dropped_explained: dropped, dropped_seen: dropped, ..Self::default() };
        }
        begins
    }

    /// When the session began, ms since the gateway's boot.
    pub fn begun_ms(&self) -> u64 {
        self.begun_ms
    }

    /// Frames that the node dropped before the first contact, which no gap tells of; asked once its ring has been sent, `after_ms` after the session
    /// began, and then told once. 0 before that and afterwards.
    pub fn dropped_earlier(&mut self, now_ms: u64, after_ms: u64) -> u32 {
        if now_ms < self.begun_ms + after_ms {
            return 0;
        }
        // Told by the first frame, or by later ones without a gap: the oldest frames in a ring were encoded before it overflowed.
        let Some(told_first) = self.earlier.take() else { return 0 };
        let told_later = self.dropped_seen - self.dropped_explained;
        self.dropped_explained = self.dropped_seen;
        told_first + told_later
    }

    /// Takes `frame` for the next of its kind, whatever is missing before it: of the first frames of a session, all that the node still had.
    pub fn expect(&mut self, frame: &Frame) {
        let last = &mut self.last[frame.kind().index()];
        *last = Some(last.unwrap_or(0).max(frame.seq.saturating_sub(1)));
    }

    /// Judges a frame of this session and takes note of it.
    pub fn judge(&mut self, frame: &Frame) -> Verdict {
        self.dropped_seen = self.dropped_seen.max(frame.dropped);
        if !frame.kind().needs_ack() {
            return Verdict::Passing;
        }
        let last = &mut self.last[frame.kind().index()];
        let missing = match *last {
            // The first frame of a kind: where the agent itself started later than the node, what came before was acknowledged to a predecessor.
            None => 0,
            Some(last) if frame.seq <= last => return Verdict::Repeated,
            Some(last) => frame.seq - last - 1,
        };
        // A gap is either a loss on the line, which the node mends by repeating, or a drop in its ring, which it counts.
        if missing > self.dropped_seen - self.dropped_explained {
            return Verdict::Early;
        }
        self.dropped_explained += missing;
        *last = Some(frame.seq);
        Verdict::New { lost: missing }
    }

    /// Takes a clock comparison; the origin of gateway time is 1970, of node time its start.
    pub fn compare(&mut self, comparison: OffsetAndDelay) {
        // A negative delay means that a clock jumped meanwhile.
        if comparison.delay_us < 0 {
            self.comparisons.clear();
            return;
        }
        if self.comparisons.len() == COMPARISONS {
            self.comparisons.remove(0);
        }
        self.comparisons.push(comparison);
    }

    /// Whether clocks were compared.
    pub fn knows_time(&self) -> bool {
        !self.comparisons.is_empty()
    }

    /// Node time as UTC; `None` until clocks were compared.
    pub fn utc(&self, time_us: u64) -> Option<Timestamp> {
        let best = self.comparisons.iter().min_by_key(|c| c.delay_us)?;
        Some(Timestamp(i64::try_from(time_us).ok()?.checked_sub(best.offset_us)?))
    }
}

/// The samples of a features frame under the names of the configuration; an unnamed channel gives nothing.
pub fn samples(frame: &Frame, node: &Node, time: Option<Timestamp>) -> Option<Vec<Sample>> {
    let hark_protocol::node::Body::Features(features) = &frame.body else { return Some(Vec::new()) };
    let prefix = node.channels.get(usize::from(features.channel))?;
    let sample = |value: &hark_protocol::node::Value| Sample {
        asset: Some(node.asset.to_string()),
        point: Some(if prefix.is_empty() { value.quantity.name().to_owned() } else { format!("{prefix}.{}", value.quantity.name()) }),
        value: Value::Number(f64::from(value.value)),
        time: time.map(Ok),
        quality: Quality::Good,
        sequence: Some(u64::from(frame.seq)),
    };
    Some(features.values.iter().map(sample).collect())
}

#[cfg(test)]
mod tests {
    use hark_protocol::node::{Body, Features, NodeEvent};

    use super::*;

    fn frame(boot: u32, seq: u32, dropped: u32) -> Frame {
        let body = Body::Features(Features { channel: 0, values: Default::default() });
        Frame { node: 7, boot, seq, time_us: 0, dropped, body }
    }

    #[track_caller]
    fn check(session: &mut NodeSession, frame: Frame, expected: Verdict) {
        session.begin(&frame, 0);
        assert_eq!(session.judge(&frame), expected);
    }

    #[test]
    fn frames_are_taken_once_and_in_order() {
        let mut s = NodeSession::default();
        check(&mut s, frame(1, 1, 0), Verdict::New { lost: 0 });
        check(&mut s, frame(1, 3, 0), Verdict::Early);
        check(&mut s, frame(1, 2, 0), Verdict::New { lost: 0 });
        check(&mut s, frame(1, 2, 0), Verdict::Repeated);
        check(&mut s, frame(1, 3, 0), Verdict::New { lost: 0 });
    }

    #[test]
    fn what_the_ring_dropped_is_not_waited_for() {
        let mut s = NodeSession::default();
        check(&mut s, frame(1, 1, 0), Verdict::New { lost: 0 });
        check(&mut s, frame(1, 4, 0), Verdict::Early); // encoded before the drop: it cannot tell
        check(&mut s, frame(1, 9, 2), Verdict::Early); // tells of two drops, but five frames are missing
        check(&mut s, frame(1, 4, 0), Verdict::New { lost: 2 });
        check(&mut s, frame(1, 6, 0), Verdict::Early); // both drops are explained by now
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut s = NodeSession::default();
        check(&mut s, frame(1, 5, 3), Verdict::New { lost: 0 });
        assert!(s.begin(&frame(2, 1, 0), 8) && s.begun_ms() == 8);
        check(&mut s, frame(2, 1, 0), Verdict::New { lost: 0 });
    }

    #[test]
    fn kinds_are_numbered_apart() {
        let mut s = NodeSession::default();
        check(&mut s, frame(1, 1, 0), Verdict::New { lost: 0 });
        let event = Frame { body: Body::Event(NodeEvent::SelfTestStarted), ..frame(1, 1, 0) };
        check(&mut s, event, Verdict::New { lost: 0 });
    }

    #[test]
    fn the_comparison_with_the_smallest_delay_counts() {
        let mut s = NodeSession::default();
        assert_eq!(s.utc(0), None);
        s.compare(OffsetAndDelay { offset_us: -1_000_000, delay_us: 900 });
        s.compare(OffsetAndDelay { offset_us: -1_000_400, delay_us: 200 });
        assert_eq!(s.utc(5), Some(Timestamp(1_000_405)));
    }
}
