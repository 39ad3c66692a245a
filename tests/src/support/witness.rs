//! A plain `read_committed` consumer that goes on reading while brokers and agents come and go: it sees what any consumer of a plant would.
#![expect(clippy::disallowed_methods, reason = "reading goes on until a time of the clock")]
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Kafka, KafkaRecord, kafka};

/// Reads topics from their beginning, in the order of each partition.
pub struct Witness {
    consumer: BaseConsumer,
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
        let consumer: BaseConsumer = config.set("isolation.level", "read_committed").create().context("failed to create a consumer")?;
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            for partition in kafka::partitions(&consumer, topic)? {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment).context("failed to assign")?;
        Ok(Self { consumer })
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
            match self.consumer.poll(left) {
                None => {}
                Some(Ok(message)) => visit(&kafka::record(&message)?)?,
                Some(Err(error)) if has_lost_its_place(&error) => return Err(error).context("failed to read on"),
                Some(Err(_)) => {}
            }
        }
    }
}

fn has_lost_its_place(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}
