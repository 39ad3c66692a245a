//! A raw block that waits to be sent in chunks.
use hark_protocol::node::{CHUNK_SAMPLES, SnapshotChunk};
use heapless::Vec;

/// Samples in a raw block: 0.31 s at 26 667 Hz, 57 chunks.
pub const SNAPSHOT_SAMPLES: usize = 8_192;

/// The one snapshot that a node has memory for: recording, then sending.
#[derive(Debug)]
pub struct Snapshot {
    request: Option<Request>,
    samples: Vec<i16, SNAPSHOT_SAMPLES>,
    next_chunk: u16,
}

/// What was asked for, and when its first sample came, with the acceleration per raw unit at that time.
#[derive(Clone, Copy, Debug)]
struct Request {
    id: u32,
    channel: u8,
    begin: Option<(u64, f32)>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { request: None, samples: Vec::new(), next_chunk: 0 }
    }
}

impl Snapshot {
    /// Begins to record; false while another one is under way.
    pub fn start(&mut self, id: u32, channel: u8) -> bool {
        if self.request.is_some() {
            return false;
        }
        self.samples.clear();
        self.next_chunk = 0;
        self.request = Some(Request { id, channel, begin: None });
        true
    }

    /// Takes a raw sample while recording.
    pub fn record(&mut self, sample: i16, now_us: u64, scale: f32) {
        if let Some(request) = &mut self.request {
            request.begin.get_or_insert((now_us, scale));
            let _full_means_recorded = self.samples.push(sample);
        }
    }

    /// The next chunk of a recorded block with the time of the block's first sample; the last one frees the memory.
    pub fn next_chunk(&mut self, rate_hz: f32) -> Option<(u64, SnapshotChunk)> {
        let Request { id, channel, begin } = self.request?;
        let (begin_us, scale) = begin?;
        if !self.samples.is_full() {
            return None;
        }
        let chunks = SNAPSHOT_SAMPLES.div_ceil(CHUNK_SAMPLES) as u16;
        let chunk = self.next_chunk;
        let samples = self.samples.chunks(CHUNK_SAMPLES).nth(chunk.into())?.iter().copied().collect();
        self.next_chunk += 1;
        if self.next_chunk == chunks {
            self.request = None;
        }
        Some((begin_us, SnapshotChunk { id, channel, chunk, chunks, fs_hz: rate_hz, scale, samples }))
    }
}
