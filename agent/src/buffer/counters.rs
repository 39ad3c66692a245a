//! What the buffer has done since the start, for `/metrics`.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use hark_protocol::topics::LaneName;

/// Counters of the log. They only rise.
#[derive(Debug, Default)]
pub struct BufferCounters {
    /// Records committed, by lane.
    appended: [AtomicU64; LaneName::ALL.len()],
    /// Appends refused because an entry was too large or did not encode.
    pub refused: AtomicU64,
    /// Commits that wrote something.
    pub commits: AtomicU64,
    /// Encoded bytes committed, before compression.
    pub committed_bytes: AtomicU64,
    /// Bytes of frames handed to the store: compressed, with headers. Flash sees a multiple, which only the block device can tell.
    pub frame_bytes: AtomicU64,
    /// Partitions made.
    pub partitions_made: AtomicU64,
    /// Bytes on disk given back by reclaiming.
    pub reclaimed_bytes: AtomicU64,
    /// Bytes on disk given up although somebody still needed them.
    pub evicted_bytes: AtomicU64,
    /// Records named in gaps, by lane.
    lost: [AtomicU64; LaneName::ALL.len()],
    /// Partitions put into quarantine.
    pub quarantined: AtomicU64,
    /// The disk takes nothing at present: senders are held back.
    pub stalled: AtomicBool,
    /// Commits and reclaims that failed.
    pub errors: AtomicU64,
}

impl BufferCounters {
    /// Records committed to `lane`.
    pub fn appended(&self, lane: LaneName) -> u64 {
        self.appended[lane as usize].load(Relaxed)
    }

    pub(super) fn add_appended(&self, lane: LaneName, records: u64) {
        self.appended[lane as usize].fetch_add(records, Relaxed);
    }

    /// Records of `lane` named in gaps.
    pub fn lost(&self, lane: LaneName) -> u64 {
        self.lost[lane as usize].load(Relaxed)
    }

    pub(super) fn add_lost(&self, lane: LaneName, records: u64) {
        self.lost[lane as usize].fetch_add(records, Relaxed);
    }

    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Relaxed);
    }
}
