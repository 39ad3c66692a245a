//! How long calls of the store have been under way: sled 0.34.7 can lock itself up, and then only a new process helps.
#![expect(clippy::disallowed_methods, reason = "a watch measures time as it passes; nothing that is stored depends on it")]
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Calls at the same time: writer, two readers, sources of status.
const SLOTS: usize = 32;

/// The calls under way.
#[derive(Debug, Default)]
pub struct StoreWatch {
    /// When each began, milliseconds after the first one plus one; 0 is a free slot.
    began: [AtomicU64; SLOTS],
}

/// A call under way, until it is dropped.
pub(super) struct Watched<'a>(Option<&'a AtomicU64>);

impl StoreWatch {
    /// A call begins. Beyond [`SLOTS`] calls at a time it goes unwatched.
    pub(super) fn enter(&self) -> Watched<'_> {
        let now = now_ms();
        let free = |slot: &&AtomicU64| slot.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Watched(self.began.iter().find(free))
    }

    /// How long the oldest call has been under way; zero without one.
    pub fn oldest(&self) -> Duration {
        let began = self.began.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|began| *began > 0).min();
        Duration::from_millis(began.map_or(0, |began| now_ms().saturating_sub(began)))
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

fn now_ms() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    u64::try_from(FIRST.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_under_way_count() {
        let watch = StoreWatch::default();
        assert_eq!(watch.oldest(), Duration::ZERO);
        let first = watch.enter();
        while watch.oldest() < Duration::from_millis(3) {
            std::thread::yield_now();
        }
        let second = watch.enter();
        drop(first);
        assert!(watch.oldest() < Duration::from_secs(60));
        drop(second);
        assert_eq!(watch.oldest(), Duration::ZERO);
    }
}
