//! The consumer, of the audit and of the reader of commands: the second and last place that names the Kafka client. It reads what is committed, belongs to
//! no group and commits nothing.
use std::time::Duration;

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, Timestamp, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use tracing::debug;

use crate::clock::Clock;

/// One answer of a broker.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// So long without a record or an end: Kafka is away.
const SILENT_FOR: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(250);

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum KafkaFailure {
    /// The settings make no client.
    #[error("failed to create a Kafka client for `{brokers}`")]
    Client {
        /// Where.
        brokers: String,
        /// Why.
        source: KafkaError,
    },
    /// A question stayed without an answer.
    #[error("Kafka did not say {what}; is a broker up, and reachable from here?")]
    Ask {
        /// What was asked.
        what: String,
        /// Why.
        source: KafkaError,
    },
    /// No such topic.
    #[error("there is no topic `{topic}`; is the topic prefix right?")]
    NoTopic {
        /// Which.
        topic: String,
    },
    /// Nothing came for too long.
    #[error("Kafka gave nothing of `{topic}` for {} s{last}", SILENT_FOR.as_secs())]
    Silent {
        /// Of which topic.
        topic: String,
        /// The last thing that the client said.
        last: String,
    },
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number in its topic.
    pub number: i32,
    /// First offset that is left.
    pub low: i64,
    /// The end when it was asked for.
    pub high: i64,
    /// Where to read on.
    pub next: i64,
}

/// A record as it came.
pub struct Record<'a> {
    message: &'a BorrowedMessage<'a>,
}

/// Who reads, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// `host:port`, comma separated.
    pub brokers: &'a str,
    /// How brokers name the client in their logs.
    pub client: &'a str,
    /// Group to ask for what was committed under it: it is never joined.
    pub group: &'a str,
    /// Most that is fetched ahead.
    pub ahead_kbytes: u32,
    /// So long a broker holds its answer back while it has nothing new.
    pub waits: Duration,
}

/// The consumer.
pub struct Source {
    consumer: BaseConsumer<Quiet>,
    clock: Clock,
}

/// Keeps the client's own talk out of the answer.
struct Quiet;

impl Source {
    /// A client. That it is one says nothing of whether Kafka answers.
    ///
    /// # Errors
    /// [`KafkaFailure::Client`]
    pub fn open(reader: Reader<'_>, clock: Clock) -> Result<Self, KafkaFailure> {
        let Reader { brokers, .. } = reader;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", brokers)
            .set("client.id", reader.client)
            .set("group.id", reader.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", reader.ahead_kbytes.to_string())
            .set("fetch.wait.max.ms", reader.waits.as_millis().to_string())
            .set_log_level(RDKafkaLogLevel::Warning);
        let consumer = client.create_with_context(Quiet).map_err(|source| KafkaFailure::Client { brokers: brokers.to_owned(), source })?;
        Ok(Self { consumer, clock })
    }

    /// What is committed for partition 0 of each topic: offset and metadata. One that Kafka does not tell of is no answer.
    ///
    /// # Errors
    /// [`KafkaFailure::Ask`]
    pub fn committed(&self, topics: &[String]) -> Result<Vec<Option<(i64, String)>>, KafkaFailure> {
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            asked.add_partition(topic, 0);
        }
        let what = || "how far the gateway's cursors are".to_owned();
        let answer = self.patiently(|| self.consumer.committed_offsets(asked.clone(), ANSWERS_WITHIN).and_then(without_errors));
        let answer = answer.map_err(|source| KafkaFailure::Ask { what: what(), source })?;
        let of_topic = |topic: &String| match answer.find_partition(topic, 0)?.offset() {
            Offset::Offset(offset) => Some((offset, answer.find_partition(topic, 0)?.metadata().to_owned())),
            _ => None,
        };
        Ok(topics.iter().map(of_topic).collect())
    }

    /// Asks again while a coordinator or a leader is being looked for, or still reads its log after a start: each question takes a while.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
        let give_up_at = self.clock.monotonic() + SILENT_FOR;
        loop {
            match ask() {
                Err(error) if is_not_yet(&error) && self.clock.monotonic() < give_up_at => drop(self.consumer.poll(POLL)),
                answer => return answer,
            }
        }
    }

    /// The partitions of `topic`, to be read from what is left of them.
    ///
    /// # Errors
    /// [`KafkaFailure`]
    pub fn partitions(&self, topic: &str) -> Result<Vec<Partition>, KafkaFailure> {
        let ask = |source| KafkaFailure::Ask { what: format!("what partitions `{topic}` has"), source };
        let metadata = self.patiently(|| self.consumer.fetch_metadata(Some(topic), ANSWERS_WITHIN)).map_err(ask)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty());
        let mut numbers: Vec<i32> = found.into_iter().flat_map(|found| found.partitions()).map(|partition| partition.id()).collect();
        if numbers.is_empty() {
            return Err(KafkaFailure::NoTopic { topic: topic.to_owned() });
        }
        numbers.sort_unstable();
        let bounds = |number| {
            let (low, high) = self.patiently(|| self.consumer.fetch_watermarks(topic, number, ANSWERS_WITHIN)).map_err(ask)?;
            Ok(Partition { number, low, high, next: low })
        };
        numbers.into_iter().map(bounds).collect()
    }

    /// When the first record that is left of each partition was appended; `None` where none is left or the topic does not tell.
    ///
    /// # Errors
    /// [`KafkaFailure`]
    pub fn first_times(&self, topic: &str, partitions: &[&Partition]) -> Result<Vec<Option<i64>>, KafkaFailure> {
        let mut first: Vec<Option<Option<i64>>> = vec![None; partitions.len()];
        let index = |number| partitions.iter().position(|partition| partition.number == number);
        let mut copies: Vec<Partition> = partitions.iter().map(|partition| (*partition).clone()).collect();
        self.each(topic, &mut copies, |number, record| {
            if let Some((at, record)) = index(number).zip(record) {
                first[at].get_or_insert(record.appended_ms());
            }
            first.iter().all(Option::is_some)
        })?;
        Ok(first.into_iter().map(Option::flatten).collect())
    }

    /// Shows `visit` the committed records of the partitions from where each is to be read on, up to its end, and moves that place.
    ///
    /// # Errors
    /// [`KafkaFailure`]
    pub fn read(&self, topic: &str, partitions: &mut [Partition], mut visit: impl FnMut(i32, Record<'_>)) -> Result<(), KafkaFailure> {
        self.each(topic, partitions, |number, record| {
            record.into_iter().for_each(|record| visit(number, record));
            false
        })
    }

    /// As [`Self::read`], until `visit` has enough (true).
    fn each(&self, topic: &str, partitions: &mut [Partition], mut visit: impl FnMut(i32, Option<Record<'_>>) -> bool) -> Result<(), KafkaFailure> {
        self.assign(topic, partitions)?;
        let mut unfinished: Vec<i32> = partitions.iter().map(|partition| partition.number).collect();
        let (mut heard_at, mut last) = (self.clock.monotonic(), String::new());
        while !unfinished.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let number = message.partition();
                    let Some(partition) = partitions.iter_mut().find(|partition| partition.number == number) else { continue };
                    partition.next = message.offset() + 1;
                    heard_at = self.clock.monotonic();
                    if visit(number, Some(Record { message: &message })) {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    heard_at = self.clock.monotonic();
                    unfinished.retain(|waiting| *waiting != number);
                }
                Some(Err(error)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
                        return Err(KafkaFailure::NoTopic { topic: topic.to_owned() });
                    }
                    last = format!(": {error}");
                }
                None => {}
            }
            if self.clock.monotonic().saturating_sub(heard_at) > SILENT_FOR {
                return Err(KafkaFailure::Silent { topic: topic.to_owned(), last });
            }
        }
        self.consumer.unassign().map_err(|source| unread(topic, source))
    }

    /// Shows `visit` the committed records of the partitions from where each is to be read on, and those that come later, for as long as it takes; none
    /// where a partition has no more for now. Ends when `visit` has enough (true).
    ///
    /// # Errors
    /// [`KafkaFailure`] where waiting alone does not help. A broker that is away is waited for.
    pub fn follow(
        &self,
        topic: &str,
        partitions: &[Partition],
        mut visit: impl FnMut(Option<(i32, Record<'_>)>) -> bool,
    ) -> Result<(), KafkaFailure> {
        use RDKafkaErrorCode as Code;
        self.assign(topic, partitions)?;
        loop {
            let enough = match self.consumer.poll(POLL) {
                Some(Ok(message)) => visit(Some((message.partition(), Record { message: &message }))),
                Some(Err(KafkaError::PartitionEOF(_))) => visit(None),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Err(KafkaFailure::NoTopic { topic: topic.to_owned() }),
                    Some(Code::TopicAuthorizationFailed) => return Err(unread(topic, error)),
                    _ => false,
                },
                None => false,
            };
            if enough {
                return Ok(());
            }
        }
    }

    fn assign(&self, topic: &str, partitions: &[Partition]) -> Result<(), KafkaFailure> {
        let mut assignment = TopicPartitionList::new();
        for partition in partitions {
            let added = assignment.add_partition_offset(topic, partition.number, Offset::Offset(partition.next));
            added.map_err(|source| unread(topic, source))?;
        }
        self.consumer.assign(&assignment).map_err(|source| unread(topic, source))
    }

    /// Id of the cluster, known once a broker has answered.
    pub fn cluster(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(ANSWERS_WITHIN)
    }
}

fn unread(topic: &str, source: KafkaError) -> KafkaFailure {
    KafkaFailure::Ask { what: format!("what `{topic}` holds"), source }
}

impl Record<'_> {
    /// Key, as text; empty without one.
    pub fn key(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.message.key().unwrap_or_default())
    }

    /// Value.
    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// Place in its partition.
    pub fn offset(&self) -> i64 {
        self.message.offset()
    }

    /// Headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.message.headers().into_iter().flat_map(|headers| headers.iter()).map(|header| (header.key, header.value))
    }

    /// When Kafka appended it; `None` where the topic keeps the sender's time.
    pub fn appended_ms(&self) -> Option<i64> {
        match self.message.timestamp() {
            Timestamp::LogAppendTime(ms) => Some(ms),
            Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// A partition may be refused alone, such as one that this client may not see: that is not "nothing committed".
fn without_errors(list: TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    list.elements().iter().try_for_each(|element| element.error())?;
    Ok(list)
}

fn is_not_yet(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::UnstableOffsetCommit
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
        )
    )
}
