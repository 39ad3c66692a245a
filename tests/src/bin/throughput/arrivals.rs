//! What stands in Kafka after a case: each reading once, and how long it took.
use anyhow::{Context, Result, ensure};
use hark_protocol::topics::{READINGS, Reading, Record};
use hark_tests::support::Kafka;

/// The readings of one case in Kafka.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// Readings that are there at least once.
    pub distinct: usize,
    /// Records beyond the first of a reading.
    pub doubled: usize,
    /// Time of the last arrival, milliseconds since 1970.
    pub last_ms: i64,
    /// From the time in the reading to the arrival, ascending, milliseconds.
    latencies_ms: Vec<i64>,
}

impl Arrivals {
    /// Counts the readings under `prefix`, whose values are their numbers below `readings`.
    ///
    /// # Errors
    /// When Kafka cannot be read, or holds what was not sent.
    pub fn count(kafka: &Kafka, prefix: &str, readings: usize) -> Result<Self> {
        let mut seen = vec![false; readings];
        let mut arrivals = Self { latencies_ms: Vec::with_capacity(readings), ..Self::default() };
        kafka.visit_committed(&READINGS.full_name(prefix), |value, arrived_ms| {
            let record: Record<Reading> = serde_json::from_slice(value).context("a record that is no reading")?;
            let number = record.body.value.context("a reading without a value")?;
            let seen = seen.get_mut(number as usize).with_context(|| format!("{number} was not sent"))?;
            ensure!(number.fract() == 0.5, "{number} was not sent");
            if std::mem::replace(seen, true) {
                arrivals.doubled += 1;
            } else {
                arrivals.distinct += 1;
                arrivals.last_ms = arrivals.last_ms.max(arrived_ms);
                arrivals.latencies_ms.push(arrived_ms - record.identity.subject.ts_ms);
            }
            Ok(())
        })?;
        arrivals.latencies_ms.sort_unstable();
        Ok(arrivals)
    }

    /// The latency that `part` (0 to 1) of the readings do not exceed (nearest rank), milliseconds; `None` without readings.
    pub fn latency_ms(&self, part: f64) -> Option<i64> {
        let rank = (part * self.latencies_ms.len() as f64).ceil() as usize;
        self.latencies_ms.get(rank.saturating_sub(1)).copied()
    }
}
