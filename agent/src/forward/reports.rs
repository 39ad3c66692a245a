//! What the Kafka client reports: the delivery of each record of a batch, errors and what follows from them, disturbances of the link.
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Message as _, Statistics, Timestamp,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::DeliveryResult,
    producer::ProducerContext,
    statistics::Broker,
};
use tracing::{debug, warn};

use super::delivery::{Failed, Failure};
use crate::stop::Stop;

/// After a stop is asked for, what is in the buffer is sent for so long; the rest follows after the next start.
pub(super) const GRACE: Duration = Duration::from_secs(5);
const LOOK_AT_STOP_EVERY: Duration = Duration::from_millis(100);

pub(super) fn failed(operation: &str, error: &KafkaError) -> Failed {
    Failed::new(classify(error), format!("failed to {operation}: {error}"))
}

/// What follows from an error. Which record is refused is not known here.
pub(super) fn classify(error: &KafkaError) -> Failure {
    let code = if let KafkaError::Transaction(error) = error { Some(error.code()) } else { error.rdkafka_error_code() };
    let blocked = |advice: &str| Failure::Blocked(advice.to_owned());
    match code {
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => Failure::Fenced,
        Some(Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidRecord) => Failure::Refused(Vec::new()),
        Some(Code::TransactionalIdAuthorizationFailed) => blocked("allow this gateway Write and Describe on transactional id `hark.<gateway>`"),
        Some(Code::GroupAuthorizationFailed) => blocked("allow this gateway Read on group `hark-cursor.<gateway>`"),
        Some(Code::TopicAuthorizationFailed) => blocked("allow this gateway Write and Read on the topics"),
        Some(Code::ClusterAuthorizationFailed) => blocked("allow this gateway IdempotentWrite on the cluster"),
        Some(Code::SaslAuthenticationFailed | Code::Authentication) => blocked("correct the credentials"),
        Some(Code::InvalidTransactionTimeout) => blocked("raise transaction.max.timeout.ms of the brokers to 10 s at least"),
        Some(Code::InvalidTimestamp) => blocked("set message.timestamp.type=LogAppendTime on the topics, see config/kafka/"),
        Some(Code::PolicyViolation) => blocked("a policy of the brokers refuses records of this gateway"),
        Some(Code::UnsupportedFeature | Code::UnsupportedVersion) => blocked("the cluster has no transactions: set delivery = \"at_least_once\""),
        _ => Failure::Again,
    }
}

/// Of several failures of one batch the one that says most.
fn weight(failure: &Failure) -> u8 {
    match failure {
        Failure::Unreachable => 0,
        Failure::Again => 1,
        Failure::Fenced => 2,
        Failure::Blocked(_) => 3,
        Failure::Refused(_) => 4,
    }
}

/// Of two failures of one batch the one that says more, else the first.
pub(super) fn weightier(first: Failed, second: Failed) -> Failed {
    if weight(&second.failure) > weight(&first.failure) { Failed { taken: first.taken, ..second } } else { first }
}

/// Collects the delivery reports of the batch under way.
pub(super) struct Reports {
    batch: Mutex<Batch>,
    complete: Condvar,
    within: Duration,
    disturbances: AtomicU64,
    create_time: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Refused,
    Failed,
}

#[derive(Default)]
struct Batch {
    outcomes: Vec<Option<Outcome>>,
    outstanding: usize,
    problem: Option<(Failure, String)>,
}

impl Reports {
    /// Each batch is reported `within` this, or the client is at fault. Topics under CreateTime are named once, in `create_time`.
    pub(super) fn new(within: Duration, create_time: Arc<Mutex<BTreeSet<String>>>) -> Self {
        Self { batch: Mutex::default(), complete: Condvar::new(), within, disturbances: AtomicU64::new(0), create_time }
    }

    /// Requests without an answer and lost connections so far.
    pub(super) fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::Relaxed)
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect(&self, count: usize) {
        *self.batch() = Batch { outcomes: vec![None; count], outstanding: count, problem: None };
    }

    pub(super) fn report(&self, index: usize, error: Option<&KafkaError>) {
        let mut batch = self.batch();
        let outcome = error.map_or(Outcome::Delivered, |error| {
            let failure = classify(error);
            let outcome = if matches!(failure, Failure::Refused(_)) { Outcome::Refused } else { Outcome::Failed };
            if batch.problem.as_ref().is_none_or(|(before, _)| weight(before) < weight(&failure)) {
                batch.problem = Some((failure, error.to_string()));
            }
            outcome
        });
        if let Some(slot @ None) = batch.outcomes.get_mut(index) {
            *slot = Some(outcome);
            batch.outstanding -= 1;
            if batch.outstanding == 0 {
                self.complete.notify_one();
            }
        }
    }

    /// Waits until each message is reported; once `stop` is requested, until its [`GRACE`] is over.
    pub(super) fn wait(&self, stop: &Stop) -> Result<(), Failed> {
        let mut batch = self.batch();
        let mut left = self.within;
        while batch.outstanding > 0 && !left.is_zero() {
            left = left.min(stop.left_of(GRACE).unwrap_or(left));
            let slice = left.min(LOOK_AT_STOP_EVERY);
            (batch, _) = self.complete.wait_timeout_while(batch, slice, |batch| batch.outstanding > 0).unwrap_or_else(PoisonError::into_inner);
            left -= slice;
        }
        std::mem::take(&mut *batch).result()
    }
}

impl Batch {
    fn result(self) -> Result<(), Failed> {
        let taken = self.outcomes.iter().take_while(|outcome| **outcome == Some(Outcome::Delivered)).count();
        let (failure, text) = match self.problem {
            Some((Failure::Refused(_), text)) => {
                let refused = self.outcomes.iter().enumerate().filter(|(_, outcome)| **outcome == Some(Outcome::Refused));
                (Failure::Refused(refused.map(|(index, _)| index).collect()), text)
            }
            Some(problem) => problem,
            None if taken == self.outcomes.len() => return Ok(()),
            None => (Failure::Again, "no answer".to_owned()),
        };
        Err(Failed { failure, text: format!("failed to send records: {text}"), taken })
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        // What is only repeated was answered ("not yet", from a coordinator that has just started or still ends the transaction before): nothing of it is
        // under way. Bootstrap addresses are no brokers: the client leaves them once it knows those.
        let of_broker = |broker: &Broker| broker.req_timeouts + broker.disconnects.map_or(0, i64::unsigned_abs);
        let disturbances = statistics.brokers.values().filter(|broker| broker.source != "configured").map(of_broker).sum();
        if self.disturbances.swap(disturbances, Ordering::Relaxed) < disturbances {
            for broker in statistics.brokers.values() {
                debug!(broker = broker.name, broker.req_timeouts, broker.disconnects, broker.txretries, "a connection was disturbed");
            }
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        match result {
            Ok(message) => {
                if !matches!(message.timestamp(), Timestamp::LogAppendTime(_)) {
                    self.tell_create_time(message.topic());
                }
                self.report(index, None);
            }
            Err((error, _)) => self.report(index, Some(error)),
        }
    }
}

impl Reports {
    /// Once per topic.
    fn tell_create_time(&self, topic: &str) {
        let mut told = self.create_time.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(topic) {
            told.insert(topic.to_owned());
            warn!(
                topic,
                "the topic has message.timestamp.type=CreateTime: its records bear no time of arrival; set LogAppendTime, see config/kafka/"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_under_way_is_a_disturbance() {
        let reports = Reports::new(Duration::ZERO, Arc::default());
        let told = |broker: Broker| {
            let brokers = [("TxnCoordinator".to_owned(), broker)].into_iter().collect();
            reports.stats(Statistics { brokers, ..Statistics::default() });
            reports.disturbances()
        };
        assert_eq!(told(Broker { txretries: 7, ..Broker::default() }), 0);
        assert_eq!(told(Broker { disconnects: Some(1), req_timeouts: 1, ..Broker::default() }), 2);
        assert_eq!(told(Broker { disconnects: Some(1), source: "configured".to_owned(), ..Broker::default() }), 0);
    }
}
