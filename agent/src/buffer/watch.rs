//! How long calls of the store have been under way: sled 0.34.7 can lock itself up, and then only a new process helps.
#![expect(clippy::disallowed_methods, reason = "a watch measures time as it passes; nothing that is stored depends on it")]
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::warn;

use crate::stop::Stop;

/// Calls at the same time: writer, two readers, sources of status.
const SLOTS: usize = 32;

/// The calls under way.
#[derive(Debug, Default)]
pub struct StoreWatch {
    /// When each began, milliseconds after the first one plus one; 0 is a free slot.
    began: [AtomicU64; SLOTS],
}

/// A call of the store that takes so long is worth a word.
const WARN_AFTER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at the calls until `stop`; true if one made no progress for `limit`, which only the end of the process mends.
pub fn hung(watch: &StoreWatch, limit: Duration, stop: &Stop) -> bool {
    let mut warned = false;
    while !stop.wait(LOOK_EVERY.min(limit / 4)) {
        let oldest = watch.oldest();
        if oldest >= limit {
            return true;
        }
        let slow = oldest >= WARN_AFTER.min(limit / 2);
        if slow && !warned {
            warn!(seconds = oldest.as_secs(), "a call of the store makes no progress");
        }
        warned = slow;
    }
    false
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
    fn a_call_without_progress_is_found_and_a_stop_ends_the_watch() {
        let (watch, stop) = (StoreWatch::default(), Stop::default());
        let _call = watch.enter();
        assert!(hung(&watch, Duration::from_millis(40), &stop));
        stop.request();
        assert!(!hung(&watch, Duration::from_secs(3600), &stop));
    }

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
        assert_eq!(watch.began.iter().filter(|slot| slot.load(Ordering::Relaxed) > 0).count(), 1);
        drop(second);
        assert_eq!(watch.oldest(), Duration::ZERO);
    }
}
