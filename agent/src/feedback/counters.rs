//! What became of the records of the topic, for `/metrics`.
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Counted since the start of the agent.
#[derive(Debug, Default)]
pub struct Counters {
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    starts: AtomicU64,
    reading: AtomicBool,
}

impl Counters {
    /// A record came to this.
    pub(super) fn count(&self, outcome: &'static str) {
        *self.lock().entry(outcome).or_default() += 1;
    }

    /// A reader was started.
    pub(super) fn started(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether Kafka is being read.
    pub(super) fn set_reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::Relaxed);
    }

    /// Records by what became of them.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(&outcome, &count)| (outcome, count)).collect()
    }

    /// Readers started; more than one where one crashed.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Kafka is being read.
    pub fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
