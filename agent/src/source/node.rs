//! One sensor node's side of the node protocol as the agent keeps it: which frames are new, what the node lost, what time it is there. Pure.
use hark_protocol::{
    node::{Body, Frame, Kind, NodeEvent, OffsetAndDelay, Status},
    topics::{LaneName, Quality, Timestamp},
};

use super::decode::{Sample, Value};
use crate::{buffer::marks::NodeMark, config::Node};

/// Clock comparisons kept; the one with the smallest delay counts.
const COMPARISONS: usize = 8;
/// The first frames of a session wait so long: until the node, which repeats what is not acknowledged every second, has sent all of it, the oldest too;
/// and until the clocks were compared. A node that does not answer gets the time of reception.
pub const HOLD_MS: u64 = 2_500;
/// So long after the first contact the node has sent its whole ring again: what it had dropped before is known then, and what has not come by then
/// does not come any more.
pub const RING_SENT_MS: u64 = 10_000;

/// What the agent knows of a node since the node's last start.
///
/// Dropped frames are counted twice: *explained* is what may be missing in the numbers, *told* is what an event in the log says. Kinds and events are
/// stored in two lanes, and a crash may keep one without the other; then the difference is told later, or not told again.
#[derive(Clone, Debug, Default)]
pub struct NodeSession {
    boot: Option<u32>,
    start: u32,
    /// When it was first heard, by this start of the agent; ms since the gateway's boot.
    heard_ms: Option<u64>,
    /// Frames wait until then.
    held_until_ms: Option<u64>,
    /// The log knew this start of the node.
    resumed: bool,
    /// What the ring dropped before the first contact was told.
    ring_sent: bool,
    last: [Option<u32>; Kind::COUNT],
    /// Since when a frame before the one at hand is waited for.
    early_since_ms: [Option<u64>; Kind::COUNT],
    dropped_seen: u32,
    dropped_before: u32,
    dropped_explained: [u32; Kind::COUNT],
    dropped_told: u32,
    comparisons: Vec<OffsetAndDelay>,
    /// The last one of this start of the node.
    self_test: Option<SelfTest>,
}

/// A self-test, in the node's time.
#[derive(Clone, Copy, Debug)]
struct SelfTest {
    began_us: u64,
    ended_us: Option<u64>,
    /// Channels, a bit each, of which a block came since it ended: it was begun before.
    passed: [u64; 4],
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New: store it, then acknowledge it. `lost` frames of its kind before it were dropped by the node's ring, and nobody was told yet.
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

/// The lane that what a frame of this kind says goes to: its mark must stand in the same lane, so that a crash keeps both or neither.
pub fn lane(kind: Kind) -> LaneName {
    if kind == Kind::Event { LaneName::Events } else { LaneName::Inputs }
}

impl NodeSession {
    /// The session as the log knows it.
    pub fn restore(mark: &NodeMark) -> Self {
        let mut session = Self {
            boot: Some(mark.boot),
            start: mark.start,
            resumed: true,
            last: mark.last_seq.map(|seq| (seq > 0).then_some(seq)),
            dropped_before: mark.dropped_before,
            dropped_explained: mark.dropped_explained,
            dropped_told: mark.dropped_told,
            ..Self::default()
        };
        session.dropped_seen = session.explained();
        session
    }

    /// What is stored in `lane`, for the mark that stands beside it.
    pub fn mark(&self, in_lane: LaneName) -> NodeMark {
        let mut mark = NodeMark { boot: self.boot.unwrap_or(0), start: self.start, dropped_before: self.dropped_before, ..NodeMark::default() };
        for kind in Kind::ALL.into_iter().filter(|kind| lane(*kind) == in_lane) {
            mark.last_seq[kind.index()] = self.last[kind.index()].unwrap_or(0);
            mark.dropped_explained[kind.index()] = self.dropped_explained[kind.index()];
        }
        if in_lane == LaneName::Events {
            mark.dropped_told = self.dropped_told;
        }
        mark
    }

    /// Looks at the boot id of a frame that came at `now_ms` (since the gateway's boot). Returns whether a session begins: of a new start of the node,
    /// or the first contact of this start of the agent.
    pub fn begin(&mut self, frame: &Frame, now_ms: u64) -> bool {
        if self.boot != Some(frame.boot) {
            let (boot, start, dropped) = (Some(frame.boot), self.start.saturating_add(1), frame.dropped);
            *self = Self { boot, start, dropped_before: dropped, dropped_seen: dropped, ..Self::default() };
        }
        let begins = self.heard_ms.is_none();
        if begins {
            (self.heard_ms, self.held_until_ms) = (Some(now_ms), Some(now_ms + HOLD_MS));
        }
        begins
    }

    /// The first frame of a kind of which nothing came while the session's frames waited: they wait again, for one before it may be lost on the line,
    /// and the acknowledgement of this one would stand for it.
    pub fn hold_for_first(&mut self, frame: &Frame, now_ms: u64) {
        let unheard = frame.kind().needs_ack() && self.last[frame.kind().index()].is_none();
        if unheard && frame.seq > 1 && !self.holds() {
            self.held_until_ms = Some(now_ms + HOLD_MS);
        }
    }

    /// Whether the log knew this start of the node.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether frames wait: see [`HOLD_MS`].
    pub fn holds(&self) -> bool {
        self.held_until_ms.is_some()
    }

    /// Whether the frames that wait, in the order of kind and seq, can be taken. Those of a session that goes on where the log ends need not wait for
    /// what is before them, but for their time.
    pub fn ready<'a>(&self, held: impl Iterator<Item = &'a Frame>, now_ms: u64) -> bool {
        if self.held_until_ms.is_none_or(|until_ms| now_ms >= until_ms) {
            return true;
        }
        let mut kinds = [false; Kind::COUNT];
        self.resumed && self.knows_time() && firsts(held, &mut kinds).all(|frame| self.missing(frame) == Some(0))
    }

    /// Ends the wait; gives how many frames are missing before the first ones of `held` that the node neither has nor counts as dropped: acknowledged to
    /// another agent, or to this one before its log was put back to an older state.
    pub fn release<'a>(&mut self, held: impl Iterator<Item = &'a Frame> + Clone) -> u32 {
        self.held_until_ms = None;
        self.dropped_seen = held.clone().map(|frame| frame.dropped).fold(self.dropped_seen, u32::max);
        let mut kinds = [false; Kind::COUNT];
        let mut vanished = 0;
        for frame in firsts(held, &mut kinds) {
            let beyond = self.missing(frame).map_or(0, |missing| missing.saturating_sub(self.dropped_seen - self.explained()));
            let last = &mut self.last[frame.kind().index()];
            // The first frame of a kind: where the agent itself started later than the node, what came before was acknowledged to a predecessor.
            *last = Some(last.map_or(frame.seq.saturating_sub(1), |last| last + beyond));
            vanished += beyond;
        }
        vanished
    }

    /// Frames that the node dropped and that no event tells of: asked once its ring has been sent, and then told once. 0 before that and afterwards.
    pub fn dropped_earlier(&mut self, now_ms: u64) -> u32 {
        let waits = self.early_since_ms.iter().any(Option::is_some);
        if self.ring_sent || waits || self.heard_ms.is_none_or(|heard_ms| now_ms < heard_ms + RING_SENT_MS) {
            return 0;
        }
        self.ring_sent = true;
        // Told by the first frame, or by later ones without a gap: the oldest frames in a ring were encoded before it overflowed.
        if !self.resumed {
            self.dropped_before += self.dropped_seen - self.explained();
        }
        self.tell(u32::MAX)
    }

    /// Judges a frame of this session that came at `now_ms` and takes note of it.
    pub fn judge(&mut self, frame: &Frame, now_ms: u64) -> Verdict {
        self.dropped_seen = self.dropped_seen.max(frame.dropped);
        if !frame.kind().needs_ack() {
            return Verdict::Passing;
        }
        let kind = frame.kind().index();
        if self.last[kind].is_some_and(|last| frame.seq <= last) {
            return Verdict::Repeated;
        }
        let missing = self.missing(frame).unwrap_or(0);
        // A gap is either a loss on the line, which the node mends by repeating, or a drop in its ring, which it counts.
        if missing > self.dropped_seen - self.explained() {
            let since_ms = *self.early_since_ms[kind].get_or_insert(now_ms);
            if now_ms >= since_ms + RING_SENT_MS {
                // Neither came: begin as after a first contact, or this node would never be listened to again.
                self.held_until_ms = Some(now_ms + HOLD_MS);
                self.early_since_ms = Default::default();
            }
            return Verdict::Early;
        }
        self.early_since_ms[kind] = None;
        self.dropped_explained[kind] += missing;
        self.last[kind] = Some(frame.seq);
        Verdict::New { lost: self.tell(missing) }
    }

    /// Frames between the last stored one and `frame`; `None` where none was stored.
    fn missing(&self, frame: &Frame) -> Option<u32> {
        self.last[frame.kind().index()].map(|last| frame.seq.saturating_sub(last).saturating_sub(1))
    }

    fn explained(&self) -> u32 {
        self.dropped_before + self.dropped_explained.iter().sum::<u32>()
    }

    /// What is to be told now of explained frames, `most` at most.
    fn tell(&mut self, most: u32) -> u32 {
        let untold = self.explained().saturating_sub(self.dropped_told).min(most);
        self.dropped_told += untold;
        untold
    }

    /// Takes what a new frame says of self-tests. Status and event tell the same, and either may be missing or late.
    pub fn take_self_test(&mut self, frame: &Frame) {
        let is_testing = match frame.body {
            Body::Event(NodeEvent::SelfTestStarted) => true,
            Body::Event(NodeEvent::SelfTestEnded { .. }) => false,
            Body::Status(Status { self_test, .. }) => self_test,
            _ => return,
        };
        match (&mut self.self_test, is_testing) {
            (Some(SelfTest { ended_us: None, began_us, .. }), true) => *began_us = (*began_us).min(frame.time_us),
            (Some(SelfTest { ended_us: Some(ended_us), .. }), true) if frame.time_us <= *ended_us => {}
            (_, true) => self.self_test = Some(SelfTest { began_us: frame.time_us, ended_us: None, passed: [0; 4] }),
            (Some(SelfTest { ended_us: ended_us @ None, began_us, .. }), false) if frame.time_us > *began_us => *ended_us = Some(frame.time_us),
            (_, false) => {}
        }
    }

    /// Whether the node tests itself, by its last word.
    pub fn is_testing(&self) -> bool {
        self.self_test.is_some_and(|test| test.ended_us.is_none())
    }

    /// Whether a frame of features tells of a self-test: it came within one, or is the first of its channel behind it, whose block began before the end.
    pub fn is_of_self_test(&mut self, frame: &Frame) -> bool {
        let (Some(test), Body::Features(features)) = (&mut self.self_test, &frame.body) else { return false };
        match test.ended_us {
            _ if frame.time_us < test.began_us => false,
            Some(ended_us) if frame.time_us > ended_us => {
                let (word, bit) = (usize::from(features.channel / 64), 1 << (features.channel % 64));
                let is_first = test.passed[word] & bit == 0;
                test.passed[word] |= bit;
                is_first
            }
            _ => true,
        }
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

/// Of frames in the order of kind and seq, the first of each kind.
fn firsts<'a>(frames: impl Iterator<Item = &'a Frame>, seen: &mut [bool; Kind::COUNT]) -> impl Iterator<Item = &'a Frame> {
    frames.filter(|frame| !std::mem::replace(&mut seen[frame.kind().index()], true))
}

/// The samples of a features frame under the names of the configuration; an unnamed channel gives nothing.
pub fn samples(frame: &Frame, node: &Node, time: Option<Timestamp>) -> Option<Vec<Sample>> {
    let Body::Features(features) = &frame.body else { return Some(Vec::new()) };
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
    use hark_protocol::node::Features;

    use super::*;

    fn frame(boot: u32, seq: u32, dropped: u32) -> Frame {
        let body = Body::Features(Features { channel: 0, values: Default::default() });
        Frame { node: 7, boot, seq, time_us: 0, dropped, body }
    }

    #[track_caller]
    fn check(session: &mut NodeSession, frame: Frame, expected: Verdict) {
        session.begin(&frame, 0);
        assert_eq!(session.judge(&frame, 0), expected);
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
        assert!(s.begin(&frame(2, 1, 0), 8) && s.holds());
        assert_eq!((s.mark(LaneName::Inputs).boot, s.mark(LaneName::Inputs).start), (2, 2));
        check(&mut s, frame(2, 1, 0), Verdict::New { lost: 0 });
    }

    #[test]
    fn kinds_are_numbered_apart() {
        let mut s = NodeSession::default();
        check(&mut s, frame(1, 1, 0), Verdict::New { lost: 0 });
        let event = Frame { body: Body::Event(NodeEvent::SelfTestStarted), ..frame(1, 1, 0) };
        check(&mut s, event, Verdict::New { lost: 0 });
    }

    fn restored(features: u32, before: u32, explained: u32, told: u32) -> NodeSession {
        let mut mark = NodeMark { boot: 1, dropped_before: before, dropped_told: told, ..NodeMark::default() };
        (mark.last_seq[Kind::Features.index()], mark.dropped_explained[Kind::Features.index()]) = (features, explained);
        NodeSession::restore(&mark)
    }

    #[test]
    fn a_session_goes_on_where_the_log_ends() {
        let mut s = restored(5, 0, 0, 0);
        check(&mut s, frame(1, 4, 0), Verdict::Repeated);
        check(&mut s, frame(1, 5, 0), Verdict::Repeated);
        check(&mut s, frame(1, 6, 0), Verdict::New { lost: 0 });
        check(&mut s, frame(1, 9, 2), Verdict::New { lost: 2 });
        assert_eq!(s.mark(LaneName::Inputs).last_seq[Kind::Features.index()], 9);
        assert_eq!(s.mark(LaneName::Events).last_seq, [0; Kind::COUNT], "what is in the inputs lane is marked there");
    }

    /// A gap of two frames, of which the crash kept the event and not the frame behind it, or the frame and not the event.
    #[test]
    fn a_crash_between_the_lanes_tells_of_a_dropped_frame_once() {
        let mut event_kept = restored(5, 0, 0, 2);
        check(&mut event_kept, frame(1, 8, 2), Verdict::New { lost: 0 });
        assert_eq!(event_kept.dropped_earlier(RING_SENT_MS), 0);
        let mut frame_kept = restored(8, 0, 2, 0);
        check(&mut frame_kept, frame(1, 9, 2), Verdict::New { lost: 0 });
        assert_eq!([frame_kept.dropped_earlier(RING_SENT_MS), frame_kept.dropped_earlier(RING_SENT_MS)], [2, 0]);
    }

    #[test]
    fn a_frame_that_never_comes_is_not_waited_for_for_ever() {
        let mut s = NodeSession::default();
        check(&mut s, frame(1, 1, 0), Verdict::New { lost: 0 });
        s.release(std::iter::empty());
        let late = frame(1, 4, 0);
        assert_eq!(s.judge(&late, 0), Verdict::Early);
        assert_eq!((s.judge(&late, RING_SENT_MS - 1), s.holds()), (Verdict::Early, false));
        assert_eq!((s.judge(&late, RING_SENT_MS), s.holds()), (Verdict::Early, true));
        assert!(s.ready([&late].into_iter(), RING_SENT_MS + HOLD_MS));
        assert_eq!(s.release([&late].into_iter()), 2);
        assert_eq!(s.judge(&late, 0), Verdict::New { lost: 0 });
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
