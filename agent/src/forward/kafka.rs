//! The Kafka client: the only file that names its crate.
use std::{
    collections::BTreeSet,
    fmt,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use hark_protocol::topics::TOPICS;
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use tracing::{debug, warn};

use super::message::Message;
use crate::{config::Kafka, stop::Stop};

/// Kafka gives up on a message after this; then the producer is dropped and everything not acknowledged is sent again from the log.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The client must have reported by then; a longer silence is its fault, and it is dropped.
const REPORT_TIMEOUT: Duration = Duration::from_secs(35);
/// As long a stop may be held up by a broker that accepts connections and says nothing.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// After a stop is asked for, what is in the buffer is sent for so long; the rest follows after the next start.
pub(super) const GRACE: Duration = Duration::from_secs(5);
const LOOK_AT_STOP_EVERY: Duration = Duration::from_millis(100);

/// A connection to the central Kafka.
pub struct Destination {
    producer: ThreadedProducer<Context>,
}

/// What became of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged by all in-sync replicas.
    Delivered,
    /// Never will be: the broker refuses this very record.
    Refused,
    /// Not this time.
    Failed,
}

/// Why nothing can be sent at present.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The settings make no client.
    #[error("failed to create a Kafka client for `{brokers}`")]
    Client { brokers: String, source: KafkaError },
    /// No broker answered.
    #[error("failed to reach Kafka at `{brokers}`")]
    Unreachable { brokers: String, source: KafkaError },
    /// Topics that operations must create first.
    #[error("topics are missing on Kafka: {}; create them with config/kafka/create-topics.sh", .missing.join(", "))]
    TopicsMissing { missing: Vec<String> },
}

impl Destination {
    /// Connects and checks that all topics exist.
    ///
    /// # Errors
    /// [`DestinationError`]; all but `Client` pass with time.
    pub fn open(config: &Kafka, gateway: &str) -> Result<Self, DestinationError> {
        let queue_kbytes = config.batch_bytes / 1024 * 2 + 1024;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &config.brokers)
            .set("client.id", format!("hark.{gateway}"))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", "zstd")
            .set("compression.level", "1")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string())
            .set("queue.buffering.max.kbytes", queue_kbytes.to_string())
            .set("queue.buffering.max.messages", (config.batch_records + 1024).to_string())
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            .set("connections.max.idle.ms", "240000")
            .set("reconnect.backoff.ms", "500")
            .set("reconnect.backoff.max.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "10000");
        client.set_log_level(RDKafkaLogLevel::Warning);
        let producer: ThreadedProducer<Context> =
            client.create_with_context(Context::default()).map_err(|source| DestinationError::Client { brokers: config.brokers.clone(), source })?;
        let metadata = producer
            .client()
            .fetch_metadata(None, METADATA_TIMEOUT)
            .map_err(|source| DestinationError::Unreachable { brokers: config.brokers.clone(), source })?;
        let present: BTreeSet<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
        let missing: Vec<String> = TOPICS.iter().map(|t| t.full_name(&config.topic_prefix)).filter(|name| !present.contains(name.as_str())).collect();
        if missing.is_empty() { Ok(Self { producer }) } else { Err(DestinationError::TopicsMissing { missing }) }
    }

    /// Sends all and waits until Kafka has answered for each; once `stop` is requested, for [`GRACE`] at most. The result has one outcome per
    /// message, in order.
    pub fn send(&self, messages: &[Message], stop: &Stop) -> Vec<Outcome> {
        let reports = self.producer.context();
        reports.expect(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (key, value) in &message.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let record = BaseRecord::with_opaque_to(&message.topic, index)
                .key(message.key.as_bytes())
                .payload(message.value.as_slice())
                .timestamp(message.ts_ms)
                .headers(headers);
            if let Err((error, _)) = self.producer.send(record) {
                reports.report(index, classify(&error));
            }
        }
        reports.wait(REPORT_TIMEOUT, stop)
    }
}

/// A record is refused for good only where the broker judged the record itself; all else may pass another time.
fn classify(error: &KafkaError) -> Outcome {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidRecord | Code::InvalidTimestamp) => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// Collects the delivery reports of the batch under way.
#[derive(Default)]
struct Context {
    batch: Mutex<Batch>,
    complete: Condvar,
}

#[derive(Default)]
struct Batch {
    outcomes: Vec<Option<Outcome>>,
    outstanding: usize,
}

impl Context {
    fn expect(&self, count: usize) {
        *self.batch.lock().unwrap_or_else(PoisonError::into_inner) = Batch { outcomes: vec![None; count], outstanding: count };
    }

    fn report(&self, index: usize, outcome: Outcome) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot @ None) = batch.outcomes.get_mut(index) {
            *slot = Some(outcome);
            batch.outstanding -= 1;
            if batch.outstanding == 0 {
                self.complete.notify_one();
            }
        }
    }

    fn wait(&self, timeout: Duration, stop: &Stop) -> Vec<Outcome> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = timeout;
        while batch.outstanding > 0 && !left.is_zero() {
            if stop.requested() {
                left = left.min(GRACE);
            }
            let slice = left.min(LOOK_AT_STOP_EVERY);
            (batch, _) = self.complete.wait_timeout_while(batch, slice, |batch| batch.outstanding > 0).unwrap_or_else(PoisonError::into_inner);
            left -= slice;
        }
        std::mem::take(&mut *batch).outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Failed)).collect()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let outcome = match result {
            Ok(_) => Outcome::Delivered,
            Err((error, message)) => {
                let outcome = classify(error);
                if outcome == Outcome::Refused {
                    warn!(topic = message.topic(), %error, "Kafka refuses a record");
                }
                outcome
            }
        };
        self.report(index, outcome);
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Destination")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_matched_with_their_messages() {
        let context = Context::default();
        context.expect(3);
        context.report(2, Outcome::Delivered);
        context.report(0, Outcome::Refused);
        context.report(0, Outcome::Delivered); // A second report for the same message changes nothing.
        context.report(9, Outcome::Delivered);
        assert_eq!(context.wait(Duration::ZERO, &Stop::default()), [Outcome::Refused, Outcome::Failed, Outcome::Delivered]);
    }

    #[test]
    fn only_a_fault_of_the_record_itself_is_final() {
        let produce = KafkaError::MessageProduction;
        assert_eq!(classify(&produce(RDKafkaErrorCode::MessageSizeTooLarge)), Outcome::Refused);
        assert_eq!(classify(&produce(RDKafkaErrorCode::MessageTimedOut)), Outcome::Failed);
        assert_eq!(classify(&produce(RDKafkaErrorCode::QueueFull)), Outcome::Failed);
        assert_eq!(classify(&produce(RDKafkaErrorCode::TopicAuthorizationFailed)), Outcome::Failed);
    }
}
