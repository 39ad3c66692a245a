//! The newest raw samples, kept all the time, and the block of them that is sent on request.
use hark_protocol::node::{CHUNK_SAMPLES, SnapshotChunk};
use heapless::HistoryBuf;

/// Samples in a raw block: 0.31 s at 26 667 Hz, 57 chunks.
pub const SNAPSHOT_SAMPLES: usize = 8_192;
const CHUNKS: u16 = SNAPSHOT_SAMPLES.div_ceil(CHUNK_SAMPLES) as u16;

/// The one raw block that a node has memory for. As long as nobody asks, it is always the newest; a request holds it still until its last chunk is made.
#[derive(Debug)]
pub struct Snapshot {
    samples: HistoryBuf<i16, SNAPSHOT_SAMPLES>,
    rate_hz: f32,
    /// Acceleration per raw unit, one for all samples.
    scale: f32,
    /// Node time of the newest sample.
    newest_us: u64,
    request: Option<Request>,
}

/// What was asked for, and how far it is.
#[derive(Clone, Copy, Debug)]
struct Request {
    id: u32,
    channel: u8,
    next_chunk: u16,
}

impl Snapshot {
    /// Of a channel with so many samples per second.
    pub const fn new(rate_hz: f32) -> Self {
        Self { samples: HistoryBuf::new(), rate_hz, scale: 0.0, newest_us: 0, request: None }
    }

    /// Asks for the newest block, at once or as soon as there are samples enough. Another request is over; the same one goes on.
    pub fn start(&mut self, id: u32, channel: u8) {
        match self.request {
            Some(request) if request.id == id => return,
            // What it held still is old by now.
            Some(_) => self.samples.clear(),
            None => {}
        }
        self.request = Some(Request { id, channel, next_chunk: 0 });
    }

    /// Takes a raw sample, except while a block is held still. Samples of another scale begin anew: a block has one.
    pub fn record(&mut self, sample: i16, now_us: u64, scale: f32) {
        if self.is_held() {
            return;
        }
        if self.scale != scale {
            self.samples.clear();
            self.scale = scale;
        }
        self.samples.write(sample);
        self.newest_us = now_us;
    }

    /// The next chunk of a block that is asked for, with the time of the block's first sample. After the last one samples are taken again.
    pub fn next_chunk(&mut self) -> Option<(u64, SnapshotChunk)> {
        if !self.is_held() {
            return None;
        }
        let Request { id, channel, next_chunk: chunk } = self.request?;
        let samples = self.samples.oldest_ordered().skip(usize::from(chunk) * CHUNK_SAMPLES).take(CHUNK_SAMPLES).copied().collect();
        let made = SnapshotChunk { id, channel, chunk, chunks: CHUNKS, fs_hz: self.rate_hz, scale: self.scale, samples };
        let begin_us = self.newest_us.saturating_sub((1e6 * (SNAPSHOT_SAMPLES - 1) as f64 / f64::from(self.rate_hz)) as u64);
        if chunk + 1 == CHUNKS {
            self.request = None;
            // What comes next does not follow on what is there.
            self.samples.clear();
        } else {
            self.request = Some(Request { id, channel, next_chunk: chunk + 1 });
        }
        Some((begin_us, made))
    }

    fn is_held(&self) -> bool {
        self.request.is_some() && self.samples.is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: f32 = 1_000.0;

    /// After `count` samples, one each millisecond, numbered from `first`.
    fn record(snapshot: &mut Snapshot, first: usize, count: usize) {
        (first..first + count).for_each(|n| snapshot.record(n as i16, 1_000 * n as u64, 0.5));
    }

    fn samples(snapshot: &mut Snapshot) -> std::vec::Vec<i16> {
        core::iter::from_fn(|| snapshot.next_chunk()).flat_map(|(_, chunk)| chunk.samples).collect()
    }

    #[test]
    fn the_newest_block_is_sent_whatever_comes_meanwhile() {
        let mut snapshot = Snapshot::new(RATE_HZ);
        record(&mut snapshot, 0, 10_000);
        assert!(snapshot.next_chunk().is_none(), "nobody asked");
        snapshot.start(5, 0);
        let (begin_us, first) = snapshot.next_chunk().unwrap();
        assert_eq!((begin_us, first.id, first.chunk, first.chunks), (1_000 * (10_000 - 8_192), 5, 0, 57));
        record(&mut snapshot, 10_000, 500);
        snapshot.start(5, 0);
        let rest = samples(&mut snapshot);
        assert!(first.samples.iter().chain(&rest).copied().eq((10_000 - 8_192)..10_000));
        assert!(snapshot.next_chunk().is_none(), "once");
    }

    #[test]
    fn a_block_is_of_one_piece_and_one_scale() {
        let mut snapshot = Snapshot::new(RATE_HZ);
        snapshot.start(1, 0);
        record(&mut snapshot, 0, SNAPSHOT_SAMPLES - 1);
        assert!(snapshot.next_chunk().is_none(), "one is missing");
        snapshot.record(0, 0, 0.25);
        assert!(snapshot.next_chunk().is_none(), "another range");
        record(&mut snapshot, 0, SNAPSHOT_SAMPLES);
        assert!(samples(&mut snapshot).into_iter().eq(0..8_192));
        // What was not taken while it was sent leaves a hole.
        record(&mut snapshot, 20_000, SNAPSHOT_SAMPLES - 1);
        snapshot.start(2, 0);
        assert!(snapshot.next_chunk().is_none());
    }

    #[test]
    fn another_request_replaces_the_one_before_and_gets_newer_samples() {
        let mut snapshot = Snapshot::new(RATE_HZ);
        record(&mut snapshot, 0, SNAPSHOT_SAMPLES);
        snapshot.start(1, 0);
        assert!(snapshot.next_chunk().is_some());
        snapshot.start(2, 0);
        assert!(snapshot.next_chunk().is_none());
        record(&mut snapshot, 10_000, SNAPSHOT_SAMPLES);
        let (_, chunk) = snapshot.next_chunk().unwrap();
        assert_eq!((chunk.id, chunk.chunk, chunk.samples[0]), (2, 0, 10_000));
    }
}
