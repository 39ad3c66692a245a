//! What sources count, by cause. A cause is logged when it first happens and then once a minute with its count.
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{Name, QualityReason};
use tracing::warn;

use super::decode::DecodeError;
use crate::clock::Clock;

/// Why a value of a message became no reading, or lost its time.
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
    /// Not dropped: its time was replaced by the time of reception.
    ImplausibleTime,
    /// Not dropped: its sequence number is beyond what JSON readers hold exactly (2^53) and was left out.
    SequenceTooLarge,
}

impl Dropped {
    fn label(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::UnknownAsset => "unknown_asset",
            Self::UnknownPoint => "unknown_point",
            Self::FeatureUnavailable => "feature_unavailable",
            Self::ImplausibleTime => "implausible_time",
            Self::SequenceTooLarge => "sequence_too_large",
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

    /// A value yielded nothing, or lost its time.
    pub fn dropped(&self, cause: Dropped) {
        self.count("dropped", cause.label(), 1);
    }

    /// A reading is not good.
    pub fn quality(&self, reason: QualityReason) {
        self.count("quality", quality_label(reason), 1);
    }

    /// Something else, by group and cause.
    pub fn count(&self, group: &'static str, cause: &'static str, by: u64) {
        let now = self.clock.monotonic();
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = causes.entry((group, cause)).or_default();
        entry.count += by;
        let due = entry.logged_at.is_none_or(|at| now.saturating_sub(at) >= Duration::from_secs(60));
        if due {
            let since_last = entry.count - entry.logged;
            (entry.logged, entry.logged_at) = (entry.count, Some(now));
            let total = entry.count;
            drop(causes);
            warn!(source = %self.name, group, cause, count = since_last, total, "source input not as expected");
        }
    }

    /// All causes seen, as (group, cause, count).
    pub fn causes(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(&(group, cause), entry)| (group, cause, entry.count)).collect()
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
    }
}
