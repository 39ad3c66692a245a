//! Frames that the agent has not acknowledged: a fixed ring, sent again after a timeout, the oldest dropped when it is full. Chunks of raw blocks come
//! last and go first.
use hark_protocol::node::{Kind, MAX_FRAME};
use heapless::{Deque, Vec};

/// One encoded frame that waits.
#[derive(Debug)]
struct Waiting {
    kind: Kind,
    seq: u32,
    encoded: Vec<u8, MAX_FRAME>,
    sent_us: Option<u64>,
}

/// Up to `N` encoded frames in the order of their making.
#[derive(Debug)]
pub struct OutBox<const N: usize> {
    frames: Deque<Waiting, N>,
    dropped: u32,
    resend_after_us: u64,
}

impl<const N: usize> OutBox<N> {
    /// An empty ring that sends a frame again `resend_after_us` after the last time.
    pub const fn new(resend_after_us: u64) -> Self {
        Self { frames: Deque::new(), dropped: 0, resend_after_us }
    }

    /// Makes room for one frame, by dropping the oldest chunk, else the oldest frame, if need be. To be called before the frame is encoded, so that its
    /// header counts the loss.
    pub fn make_room(&mut self) {
        if !self.frames.is_full() {
            return;
        }
        let victim = self.frames.iter().position(|frame| frame.kind == Kind::Snapshot).unwrap_or(0);
        for index in 0..N {
            let Some(frame) = self.frames.pop_front() else { return };
            if index != victim {
                let _same_capacity = self.frames.push_back(frame);
            }
        }
        self.dropped = self.dropped.saturating_add(1);
    }

    /// Keeps an encoded frame until it is acknowledged. `seq` rises within a kind.
    pub fn push(&mut self, kind: Kind, seq: u32, encoded: &[u8]) {
        self.make_room();
        let encoded = encoded.iter().take(MAX_FRAME).copied().collect();
        let _room_was_made = self.frames.push_back(Waiting { kind, seq, encoded, sent_us: None });
    }

    /// Forgets everything of `kind` up to and including `seq`.
    pub fn ack(&mut self, kind: Kind, seq: u32) {
        for _ in 0..self.frames.len() {
            let Some(frame) = self.frames.pop_front() else { return };
            if frame.kind != kind || frame.seq > seq {
                let _same_capacity = self.frames.push_back(frame);
            }
        }
    }

    /// The next frame to send; counts as sent now. When the oldest one has waited for the resend time, everything is sent again in order:
    /// a receiver that stores in order has passed over what came after the lost frame, and would never catch up on single repetitions. In order within
    /// each kind, that is: chunks wait until nothing else is due.
    pub fn next_due(&mut self, now_us: u64) -> Option<&[u8]> {
        let oldest_us = self.frames.front()?.sent_us;
        // A clock that went back would otherwise hold everything until it is back where it was.
        if oldest_us.is_some_and(|sent_us| now_us.checked_sub(sent_us).is_none_or(|waited_us| waited_us >= self.resend_after_us)) {
            self.frames.iter_mut().for_each(|frame| frame.sent_us = None);
        }
        let due = |chunks: bool| move |frame: &Waiting| frame.sent_us.is_none() && (frame.kind == Kind::Snapshot) == chunks;
        let index = self.frames.iter().position(due(false)).or_else(|| self.frames.iter().position(due(true)))?;
        let frame = self.frames.get_mut(index)?;
        frame.sent_us = Some(now_us);
        Some(&frame.encoded)
    }

    /// Frames of a kind that wait.
    pub fn of(&self, kind: Kind) -> usize {
        self.frames.iter().filter(|frame| frame.kind == kind).count()
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames dropped since the start.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due<const N: usize>(outbox: &mut OutBox<N>, now_us: u64) -> std::vec::Vec<u8> {
        let mut seen = std::vec::Vec::new();
        while let Some(encoded) = outbox.next_due(now_us) {
            seen.extend_from_slice(encoded);
        }
        seen
    }

    fn filled<const N: usize>(frames: &[(Kind, u32, u8)]) -> OutBox<N> {
        let mut outbox = OutBox::new(100);
        for (kind, seq, byte) in frames {
            outbox.push(*kind, *seq, &[*byte]);
        }
        outbox
    }

    #[test]
    fn frames_are_sent_in_order_and_again_after_the_timeout() {
        let mut outbox = filled::<4>(&[(Kind::Hello, 1, 1), (Kind::Features, 1, 2)]);
        assert_eq!(due(&mut outbox, 10), [1, 2]);
        assert!(due(&mut outbox, 109).is_empty());
        assert_eq!(due(&mut outbox, 110), [1, 2]);
    }

    #[test]
    fn an_ack_covers_its_kind_up_to_its_seq() {
        let mut outbox = filled::<8>(&[(Kind::Hello, 1, 1), (Kind::Features, 1, 2), (Kind::Features, 2, 3), (Kind::Features, 3, 4)]);
        outbox.ack(Kind::Features, 2);
        assert_eq!(due(&mut outbox, 0), [1, 4]);
        outbox.ack(Kind::Hello, 9);
        outbox.ack(Kind::Features, 1);
        assert_eq!(outbox.len(), 1, "an older ack takes nothing away");
    }

    #[test]
    fn a_full_ring_drops_the_oldest_and_counts() {
        let mut outbox = filled::<2>(&[(Kind::Features, 1, 1), (Kind::Features, 2, 2), (Kind::Features, 3, 3)]);
        assert_eq!(outbox.dropped(), 1);
        assert_eq!(due(&mut outbox, 0), [2, 3]);
    }

    /// Also where they were made earlier, and where all of it is sent again.
    #[test]
    fn chunks_are_sent_when_nothing_else_is_due_and_dropped_before_anything_else() {
        let mut outbox = filled::<4>(&[(Kind::Features, 1, 1), (Kind::Snapshot, 1, 7), (Kind::Snapshot, 2, 8)]);
        outbox.push(Kind::Features, 2, &[2]);
        assert_eq!(due(&mut outbox, 0), [1, 2, 7, 8]);
        assert_eq!(due(&mut outbox, 100), [1, 2, 7, 8]);
        assert_eq!(outbox.of(Kind::Snapshot), 2);
        outbox.push(Kind::Event, 1, &[3]);
        assert_eq!((outbox.dropped(), outbox.of(Kind::Snapshot)), (1, 1));
        assert_eq!(due(&mut outbox, 200), [1, 2, 3, 8], "in order");
    }

    #[test]
    fn a_clock_that_jumps_back_holds_nothing_up() {
        let mut outbox = filled::<2>(&[(Kind::Features, 1, 1)]);
        assert_eq!(due(&mut outbox, 1_000), [1]);
        assert_eq!(due(&mut outbox, 5), [1]);
        assert!(due(&mut outbox, 50).is_empty());
    }

    #[test]
    fn when_the_oldest_is_late_everything_is_sent_again_in_order() {
        let mut outbox = filled::<4>(&[(Kind::Features, 1, 1)]);
        assert_eq!(due(&mut outbox, 0), [1]);
        outbox.push(Kind::Features, 2, &[2]);
        assert_eq!(due(&mut outbox, 90), [2]);
        assert_eq!(due(&mut outbox, 100), [1, 2]);
    }
}
