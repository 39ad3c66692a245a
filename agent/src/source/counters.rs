//! What sources count, by cause. A cause is logged within a second of its first time and then once a minute while it goes on, with its count.
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{Name, QualityReason};
use tracing::warn;

use super::decode::DecodeError;
use crate::clock::Clock;

/// Between two log lines about the same cause.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Of a name in the log; a broken sender's may be long.
const EXAMPLE_CHARS_MAX: usize = 120;

/// Why a value of a message became no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Neither message nor topic say which asset or point.
    Unnamed,
    /// No file in `assets/` has this id.
    UnknownAsset,
    /// The asset has no such point.
    UnknownPoint,
    /// A feature that needs what is not known (speed, bearing).
    FeatureUnavailable,
}

impl Dropped {
    fn label(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::UnknownAsset => "unknown_asset",
            Self::UnknownPoint => "unknown_point",
            Self::FeatureUnavailable => "feature_unavailable",
        }
    }
}

/// Counters of one source.
#[derive(Debug)]
pub struct SourceCounters {
    /// Name of the source.
    pub name: Name,
    /// `mqtt` or `serial`.
    pub kind: &'static str,
    /// `replay`, `redelivery` or `none`: what happens to what was sent while the agent was away.
    pub guarantee: &'static str,
    clock: Clock,
    /// Messages, frames or lines received.
    pub messages: AtomicU64,
    /// Bytes received.
    pub bytes: AtomicU64,
    /// Readings accepted: durably appended.
    pub accepted: AtomicU64,
    /// Messages acknowledged to the sender.
    pub acknowledged: AtomicU64,
    /// Bytes received and not yet durable.
    pub in_flight_bytes: AtomicU64,
    /// Connections opened.
    pub connections: AtomicU64,
    /// Connected now.
    pub connected: AtomicBool,
    causes: Mutex<BTreeMap<(&'static str, &'static str), Cause>>,
}

#[derive(Debug, Default)]
struct Cause {
    count: u64,
    logged: u64,
    logged_at: Option<Duration>,
    /// A name that it was about, since the last log line.
    example: Option<String>,
}

impl SourceCounters {
    /// Counters of the source called `name`.
    pub fn new(name: Name, kind: &'static str, guarantee: &'static str, clock: Clock) -> Self {
        Self {
            name,
            kind,
            guarantee,
            clock,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            in_flight_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            causes: Mutex::new(BTreeMap::new()),
        }
    }

    /// A message was received.
    pub fn received(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A message yielded nothing.
    pub fn rejected(&self, error: DecodeError) {
        self.count("rejected", error.label(), 1);
    }

    /// A value yielded nothing; `name` is what it was about.
    pub fn dropped(&self, cause: Dropped, name: impl FnOnce() -> String) {
        self.count_example("dropped", cause.label(), name);
    }

    /// A reading is not good.
    pub fn quality(&self, reason: QualityReason) {
        self.count("quality", quality_label(reason), 1);
    }

    /// Something else, by group and cause.
    pub fn count(&self, group: &'static str, cause: &'static str, by: u64) {
        self.lock().entry((group, cause)).or_default().count += by;
    }

    /// Counts one, and keeps the first `example` since the last log line: a name that a person can look for.
    pub fn count_example(&self, group: &'static str, cause: &'static str, example: impl FnOnce() -> String) {
        let mut causes = self.lock();
        let entry = causes.entry((group, cause)).or_default();
        entry.count += 1;
        if entry.example.is_none() {
            entry.example = Some(example().chars().take(EXAMPLE_CHARS_MAX).collect());
        }
    }

    /// Logs the causes that are due. Called every second.
    pub fn log_causes(&self) {
        let now = self.clock.monotonic();
        for (&(group, cause), entry) in self.lock().iter_mut() {
            let new = entry.count - entry.logged;
            if new == 0 || entry.logged_at.is_some_and(|at| now.saturating_sub(at) < LOG_EVERY) {
                continue;
            }
            (entry.logged, entry.logged_at) = (entry.count, Some(now));
            let (total, example) = (entry.count, entry.example.take().unwrap_or_default());
            warn!(source = %self.name, group, cause, count = new, total, example, "source input not as expected");
        }
    }

    /// All causes seen, as (group, cause, count).
    pub fn causes(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.lock().iter().map(|(&(group, cause), entry)| (group, cause, entry.count)).collect()
    }
}

impl SourceCounters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), Cause>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn quality_label(reason: QualityReason) -> &'static str {
    match reason {
        QualityReason::Source => "source",
        QualityReason::NotANumber => "not_a_number",
        QualityReason::OutOfRange => "out_of_range",
        QualityReason::RateOfChange => "rate_of_change",
        QualityReason::Stuck => "stuck",
        QualityReason::Spike => "spike",
        QualityReason::Stale => "stale",
        QualityReason::Clipping => "clipping",
        QualityReason::Clock => "clock",
        QualityReason::SensorFault => "sensor_fault",
        QualityReason::Communication => "communication",
        QualityReason::NotMapped => "not_mapped",
        QualityReason::CheckFunction => "check_function",
        QualityReason::Contradicted => "contradicted",
    }
}
