//! The connection to Kafka. Only this file and `reports.rs` name the client's crate.
use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use hark_protocol::topics::{self, LaneName, Name, TOPICS};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use tracing::debug;

use super::{
    cursor::{Cursors, KafkaCursor, Lineage, PerLane},
    delivery::{Failed, Failure},
    destination::{Destination, Progress, Session},
    message::Message,
    reports::{GRACE, Reports, classify, failed, weightier},
};
use crate::{
    config::{self, Delivery},
    stop::Stop,
};

/// A broker ends a transaction after so long without its gateway: so long other readers of its partitions wait.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Librdkafka wants it below that of the transaction.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(8);
/// Without transactions: Kafka gives up on a message after this; then the producer is dropped and everything not acknowledged is sent again.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The client reports after its message time-out; a longer silence is its fault, and it is dropped.
const REPORT_SLACK: Duration = Duration::from_secs(3);
/// For a question to a broker that accepts connections and says nothing.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// `init_transactions` is asked in slices of a second, between which a stop is seen.
const INIT_SLICE: Duration = Duration::from_secs(1);
const INIT_SLICES: usize = 30;
/// So is the commit, within a socket time-out in all.
const COMMIT_SLICE: Duration = Duration::from_millis(500);
/// An abort has so long even after the grace of a stop: a broker that is only slow then ends the transaction now, not at its time-out.
const ABORT_AT_LEAST: Duration = Duration::from_millis(500);
/// Times that the cursors are asked for again where they cannot be told but something is: over 20 s in all.
const STABLE_TRIES: usize = 2;
const END_IT: &str = "find it with `kafka-transactions.sh find-hanging`, end it with `abort`, then run `hark audit`, see the limits in the README; it is \
                      looked for again every few minutes, or after a restart of the agent";
/// No time: the broker puts its own, or none.
const NO_TIMESTAMP: i64 = -1;

/// The topic whose partition 0 stands for the cursor of a lane.
pub const fn cursor_topic(lane: LaneName) -> topics::Topic {
    match lane {
        LaneName::Inputs => topics::READINGS,
        LaneName::Predictions => topics::PREDICTIONS,
        LaneName::Alarms => topics::ALARMS,
        LaneName::Events => topics::EVENTS,
    }
}

/// The topic whose partition 0 stands for the lineage.
pub const LINEAGE_TOPIC: topics::Topic = topics::GATEWAYS;

/// The consumer group that holds the cursors of a gateway. Nobody subscribes with it.
pub fn cursor_group(gateway: &str) -> String {
    format!("hark-cursor.{gateway}")
}

/// Central Kafka.
pub struct Kafka {
    config: config::Kafka,
    gateway: Name,
    cursor_topics: PerLane<String>,
    lineage_topic: String,
    /// Topics that keep the sender's time, of which was told.
    create_time: Arc<Mutex<BTreeSet<String>>>,
}

/// What a producer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Transactional,
    Idempotent,
    /// For latest values, which may be lost.
    Aside,
}

/// A connection to it.
pub struct Connection {
    producer: ThreadedProducer<Reports>,
    /// With transactions: where the cursors go.
    cursors: Option<ConsumerGroupMetadata>,
    topics: PerLane<String>,
    lineage_topic: String,
}

impl Kafka {
    /// As configured, for `gateway`.
    pub fn new(config: config::Kafka, gateway: Name) -> Self {
        let name = |topic: topics::Topic| topic.full_name(&config.topic_prefix);
        let cursor_topics = LaneName::ALL.map(|lane| name(cursor_topic(lane)));
        Self { cursor_topics, lineage_topic: name(LINEAGE_TOPIC), config, gateway, create_time: Arc::default() }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.config.brokers)
            .set("client.id", format!("hark.{}", self.gateway))
            .set("socket.timeout.ms", SOCKET_TIMEOUT.as_millis().to_string())
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("connections.max.idle.ms", "240000")
            .set("reconnect.backoff.ms", "500")
            .set("reconnect.backoff.max.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "8000");
        client.set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    fn producer(&self, kind: Kind) -> Result<ThreadedProducer<Reports>, Failed> {
        let queue_kbytes = self.config.batch_bytes / 1024 * 2 + 1024;
        let mut client = self.client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", "zstd")
            .set("compression.level", "1")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .set("request.timeout.ms", "6000")
            .set("queue.buffering.max.kbytes", queue_kbytes.to_string())
            .set("queue.buffering.max.messages", (self.config.batch_records + 1024).to_string())
            .set("statistics.interval.ms", "1000");
        let message_timeout = match kind {
            Kind::Transactional => TRANSACTION_TIMEOUT,
            Kind::Idempotent => MESSAGE_TIMEOUT,
            Kind::Aside => CALL_TIMEOUT,
        };
        client.set("message.timeout.ms", message_timeout.as_millis().to_string());
        if kind == Kind::Transactional {
            client.set("transactional.id", format!("hark.{}", self.gateway));
            client.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        }
        let reports = Reports::new(message_timeout + REPORT_SLACK, self.create_time.clone());
        let advice = || Failure::Blocked("correct the settings of kafka".to_owned());
        client.create_with_context(reports).map_err(|error| Failed::new(advice(), format!("failed to create a client: {error}")))
    }

    /// Reached, and all topics are there.
    fn check_topics(&self, producer: &ThreadedProducer<Reports>, stop: &Stop) -> Result<(), Failed> {
        let metadata = producer.client().fetch_metadata(None, within(CALL_TIMEOUT, stop)).map_err(|error| match classify(&error) {
            // Nothing was heard of a broker, whatever the client calls it.
            Failure::Again => Failed::new(Failure::Unreachable, format!("failed to reach Kafka at `{}`: {error}", self.config.brokers)),
            failure => Failed::new(failure, error.to_string()),
        })?;
        let present: BTreeSet<&str> = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| topic.name()).collect();
        let missing: Vec<String> =
            TOPICS.iter().map(|topic| topic.full_name(&self.config.topic_prefix)).filter(|name| !present.contains(name.as_str())).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let advice = "create them with config/kafka/create-topics.sh, or allow this gateway to see them";
        Err(Failed::new(Failure::Blocked(advice.to_owned()), format!("topics are missing on Kafka: {}", missing.join(", "))))
    }

    /// Kafka's cursors, and where the next ones go. It waits for what an older transaction left open.
    fn cursors(&self, stop: &Stop) -> Result<(Cursors, ConsumerGroupMetadata), Failed> {
        let stable = || self.read_cursors("read_committed", within(SOCKET_TIMEOUT, stop));
        let error = match stable() {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // Either their coordinator is away, or a transaction holds them. What this gateway left open was ended before, so no wait should be needed; that of
        // another agent under this id, which hangs itself, is ended by the broker within 20 s.
        for _ in 0..STABLE_TRIES {
            if stop.requested() || self.read_cursors("read_uncommitted", CALL_TIMEOUT).is_err() {
                return Err(failed("read the cursors", &error));
            }
            if let Ok(found) = stable() {
                return Ok(found);
            }
        }
        Err(Failed::new(Failure::Blocked(END_IT.to_owned()), "a transaction hangs in Kafka: it holds the cursors of this gateway and does not end"))
    }

    fn read_cursors(&self, isolation: &str, within: Duration) -> Result<(Cursors, ConsumerGroupMetadata), KafkaError> {
        let mut client = self.client();
        client.set("group.id", cursor_group(&self.gateway)).set("isolation.level", isolation).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = client.create()?;
        let mut wanted = TopicPartitionList::new();
        for topic in self.cursor_topics.iter().chain([&self.lineage_topic]) {
            wanted.add_partition(topic, 0);
        }
        let mut cursors = Cursors::default();
        for element in consumer.committed_offsets(wanted, within)?.elements() {
            element.error()?;
            let Offset::Offset(offset) = element.offset() else { continue };
            if let Some(lane) = self.cursor_topics.iter().position(|topic| topic == element.topic()) {
                cursors.lanes[lane] = KafkaCursor::parse(offset.unsigned_abs(), element.metadata());
            } else {
                cursors.lineage = Lineage::parse(element.metadata());
            }
        }
        let group = consumer.group_metadata().ok_or_else(|| KafkaError::ClientCreation("it has no group".to_owned()))?;
        Ok((cursors, group))
    }
}

impl Destination for Kafka {
    type Session = Connection;

    fn connect(&mut self, stop: &Stop) -> Result<(Connection, Option<Cursors>), Failed> {
        let transactional = self.config.delivery == Delivery::ExactlyOnce;
        let producer = self.producer(if transactional { Kind::Transactional } else { Kind::Idempotent })?;
        self.check_topics(&producer, stop)?;
        let (cursors, group) = if transactional {
            init_transactions(&producer, stop)?;
            // Only now: an older producer can no longer commit behind our back.
            let (cursors, group) = self.cursors(stop)?;
            (Some(cursors), Some(group))
        } else {
            (None, None)
        };
        let connection = Connection { producer, cursors: group, topics: self.cursor_topics.clone(), lineage_topic: self.lineage_topic.clone() };
        Ok((connection, cursors))
    }

    fn send_aside(&mut self, messages: &[Message], stop: &Stop) {
        let sent = self.producer(Kind::Aside).and_then(|producer| {
            let mut connection = Connection { producer, cursors: None, topics: Default::default(), lineage_topic: String::new() };
            connection.send(messages, None, stop, &mut || {})
        });
        if let Err(failed) = sent {
            debug!(reason = failed.text, "latest values not sent");
        }
    }
}

/// The first call after a crash also ends what the crashed agent left open.
fn init_transactions(producer: &ThreadedProducer<Reports>, stop: &Stop) -> Result<(), Failed> {
    let mut slices = 0..INIT_SLICES;
    loop {
        match producer.init_transactions(INIT_SLICE) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && slices.next().is_some() && !stop.requested() => {}
            Err(error) => return Err(failed("begin with transactions", &error)),
        }
    }
}

impl Connection {
    fn enqueue(&self, messages: &[Message]) {
        let reports = self.producer.context();
        reports.expect(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let mut headers = Some(OwnedHeaders::new_with_capacity(5));
            message.for_each_header(|key, value| headers = headers.take().map(|headers| headers.insert(Header { key, value: Some(value) })));
            let record = BaseRecord::with_opaque_to(&message.topic, index)
                .key(message.key.as_bytes())
                .payload(message.value.as_slice())
                .timestamp(NO_TIMESTAMP)
                .headers(headers.unwrap_or_default());
            if let Err((error, _)) = self.producer.send(record) {
                reports.report(index, Some(&error));
            }
        }
    }

    fn send_cursors(&self, group: &ConsumerGroupMetadata, progress: &Progress) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut add = |topic: &str, offset: u64, metadata: &str| {
            list.add_partition_offset(topic, 0, Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)))?;
            list.elements().iter_mut().filter(|element| element.topic() == topic).for_each(|element| element.set_metadata(metadata));
            Ok::<(), KafkaError>(())
        };
        for (topic, cursor) in self.topics.iter().zip(&progress.lanes) {
            add(topic, cursor.seq, &cursor.metadata())?;
        }
        if let Some((present, lineage)) = &progress.lineage {
            add(&self.lineage_topic, u64::from(present.ordinal), &lineage.metadata(*present))?;
        }
        self.producer.send_offsets_to_transaction(&list, group, SOCKET_TIMEOUT)
    }
}

/// `timeout`, or what is left of the grace of a stop. What is cut off is told by Kafka's cursors after the next start.
fn within(timeout: Duration, stop: &Stop) -> Duration {
    stop.left_of(GRACE).map_or(timeout, |left| left.min(timeout))
}

impl Connection {
    /// The client goes on committing where a call timed out, and the next call waits for the same commit.
    fn commit(&self, stop: &Stop) -> Result<(), KafkaError> {
        let mut left = SOCKET_TIMEOUT;
        loop {
            let slice = within(COMMIT_SLICE, stop).max(Duration::from_millis(1));
            left = left.saturating_sub(slice);
            match self.producer.commit_transaction(slice) {
                Err(KafkaError::Transaction(error)) if error.code() == RDKafkaErrorCode::OperationTimedOut && error.is_retriable() => {
                    if left.is_zero() || stop.left_of(GRACE) == Some(Duration::ZERO) {
                        return Err(KafkaError::Transaction(error));
                    }
                }
                ended => return ended,
            }
        }
    }

    /// The failure, or the one that made the client useless before, where that says more.
    fn with_cause(&self, told: Failed) -> Failed {
        let Some((code, text)) = self.producer.client().fatal_error() else { return told };
        let cause = Failed::new(classify(&KafkaError::MessageProduction(code)), format!("{}: {text}", told.text));
        weightier(told, cause)
    }
}

impl Session for Connection {
    fn send(&mut self, messages: &[Message], progress: Option<&Progress>, stop: &Stop, meanwhile: &mut dyn FnMut()) -> Result<(), Failed> {
        let reports = self.producer.context();
        let Some(group) = &self.cursors else {
            self.enqueue(messages);
            meanwhile();
            return reports.wait(stop);
        };
        self.producer.begin_transaction().map_err(|error| failed("begin a transaction", &error))?;
        self.enqueue(messages);
        // While the records are on their way.
        let cursors = progress.map_or(Ok(()), |progress| self.send_cursors(group, progress));
        let cursors = cursors.map_err(|error| failed("send the cursors", &error));
        if cursors.is_ok() {
            meanwhile();
        }
        // The reports say why, while later calls mostly say only that the transaction has failed. But a client that is shut out throws its records away,
        // and reports no more than that.
        let sent = match (reports.wait(stop), cursors) {
            (Err(reported), Err(said)) => Err(weightier(reported, said)),
            (reported, cursors) => reported.and(cursors),
        };
        // Everything is reported, so this does not wait for a flush, which takes a tenth of a second at least.
        let committed = sent.and_then(|()| self.commit(stop).map_err(|error| failed("commit a transaction", &error)));
        committed.map_err(|failed| {
            let failed = self.with_cause(failed);
            // Only so that other readers need not wait for the time-out; the connection is dropped in any case.
            if let Err(error) = self.producer.abort_transaction(within(CALL_TIMEOUT, stop).max(ABORT_AT_LEAST)) {
                debug!(%error, "transaction not aborted");
            }
            Failed { taken: 0, ..failed }
        })
    }

    fn cluster(&self) -> Option<String> {
        // Known since the topics were looked for.
        self.producer.client().fetch_cluster_id(CALL_TIMEOUT)
    }

    fn disturbances(&self) -> u64 {
        self.producer.context().disturbances()
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.config.brokers).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
