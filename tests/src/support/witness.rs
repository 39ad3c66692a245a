//! A plain `read_committed` consumer that goes on reading while brokers and agents come and go: it sees what any consumer of a plant would.
#![expect(clippy::disallowed_methods, reason = "reading goes on until a time of the clock")]
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Kafka, KafkaRecord, kafka};

/// So long at most the consumer is held at a time.
const SLICE: Duration = Duration::from_millis(100);

/// Reads topics from their beginning, in the order of each partition.
pub struct Witness {
    config: ClientConfig,
    /// Where each partition is read on.
    places: BTreeMap<(String, i32), Offset>,
    eye: Eye,
}

/// The consumer of a [`Witness`], shared with who restarts Kafka. librdkafka's consumer crashes where an answer to a fetch names a partition that has no
/// leader (its issue 5280), as happens while a node stops or starts: seen in two of five runs of 500 kills.
#[derive(Clone, Default)]
pub struct Eye {
    consumer: Arc<Mutex<Option<BaseConsumer>>>,
    shut: Arc<AtomicBool>,
}

impl Eye {
    /// Runs `restart` without a consumer.
    pub fn shut_while<T>(&self, restart: impl FnOnce() -> T) -> T {
        self.shut.store(true, Ordering::Relaxed);
        let mut consumer = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        *consumer = None;
        let done = restart();
        self.shut.store(false, Ordering::Relaxed);
        done
    }
}

impl Witness {
    /// A consumer of `topics` of `kafka`, which runs.
    ///
    /// # Errors
    /// When a topic does not exist.
    pub fn new(kafka: &Kafka, topics: &[String]) -> Result<Self> {
        let mut config = kafka::client_config(&kafka.bootstrap());
        // A position that Kafka does not have is a fault to be seen, not a reason to begin anew.
        config.set("group.id", "hark-witness").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
        config.set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().context("failed to create a consumer")?;
        let mut places = BTreeMap::new();
        for topic in topics {
            places.extend(kafka::partitions(&consumer, topic)?.into_iter().map(|partition| ((topic.clone(), partition), Offset::Beginning)));
        }
        Ok(Self { config, places, eye: Eye::default() })
    }

    /// What must be shut while Kafka restarts.
    pub fn eye(&self) -> Eye {
        self.eye.clone()
    }

    /// Shows `visit` what comes until `length` is over: the wait between two events of a scenario.
    ///
    /// # Errors
    /// The first failure of `visit`, and a position that Kafka no longer has. A broker that is away is neither.
    pub fn read_for(&mut self, length: Duration, mut visit: impl FnMut(&KafkaRecord) -> Result<()>) -> Result<()> {
        let until = Instant::now() + length;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if !self.read(left.min(SLICE), &mut visit)? {
                thread::sleep(left.min(SLICE));
            }
        }
    }

    /// Waits for the next record, `length` at most; false while the eye is shut.
    fn read(&mut self, length: Duration, visit: &mut impl FnMut(&KafkaRecord) -> Result<()>) -> Result<bool> {
        let Ok(mut consumer) = self.eye.consumer.try_lock() else { return Ok(false) };
        if self.eye.shut.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let consumer = match &mut *consumer {
            Some(consumer) => consumer,
            none => none.insert(open(&self.config, &self.places)?),
        };
        match consumer.poll(length) {
            None => {}
            Some(Ok(message)) => {
                let record = kafka::record(&message)?;
                visit(&record)?;
                self.places.insert((record.topic, record.partition), Offset::Offset(record.offset + 1));
            }
            Some(Err(error)) if has_lost_its_place(&error) => return Err(error).context("failed to read on"),
            Some(Err(_)) => {}
        }
        Ok(true)
    }
}

fn open(config: &ClientConfig, places: &BTreeMap<(String, i32), Offset>) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = config.create().context("failed to create a consumer")?;
    let mut assignment = TopicPartitionList::new();
    for ((topic, partition), offset) in places {
        assignment.add_partition_offset(topic, *partition, *offset)?;
    }
    consumer.assign(&assignment).context("failed to assign")?;
    Ok(consumer)
}

fn has_lost_its_place(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}
