//! A real Apache Kafka, one node on loopback, and what a scenario asks of it.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hark_protocol::topics::TOPICS;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use super::{Process, Proxy, free_port, in_clone, wait_for};

/// A JVM on a machine that builds at the same time.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// For the next record. Longer than a broker takes to abort the transaction of an agent that was killed: until then its records hold up every reader.
const READ_WITHIN: Duration = Duration::from_secs(90);

/// One node, broker and controller at once, with its data and its `broker.log` in a directory of its own. Stopped when dropped.
#[derive(Debug)]
pub struct Kafka {
    process: Option<Process>,
    dir: PathBuf,
    port: u16,
    controller_port: u16,
    /// The port of a second listener, and the proxy's port that it names to clients.
    behind: Option<(u16, u16)>,
}

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaRecord {
    /// Full topic name.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Key, as text.
    pub key: Option<String>,
    /// Value, as text; `None` is a tombstone.
    pub value: Option<String>,
    /// Headers, as text.
    pub headers: BTreeMap<String, String>,
    /// Kafka's time of the record, milliseconds since 1970: of arrival, with `LogAppendTime`.
    pub timestamp_ms: Option<i64>,
}

impl KafkaRecord {
    /// The value as JSON.
    ///
    /// # Errors
    /// When it is a tombstone or no JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let value = self.value.as_deref().with_context(|| format!("{}/{}@{} is a tombstone", self.topic, self.partition, self.offset))?;
        serde_json::from_str(value).with_context(|| format!("{}/{}@{} is no JSON", self.topic, self.partition, self.offset))
    }
}

impl Kafka {
    /// Starts a node in `dir` (created if absent) and returns once it answers a metadata request. The first call on a machine fetches the jars.
    ///
    /// # Errors
    /// Without Java or, for the first fetch, Maven; and when the node ends early or does not answer in time, with the end of its log.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::begin(dir, None)
    }

    /// The same with a second listener behind `proxy`: who bootstraps at the proxy's port stays behind the proxy. [`Kafka::bootstrap`] is not.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn start_behind(dir: &Path, proxy: &Proxy) -> Result<Self> {
        Self::begin(dir, Some((proxy.upstream(), proxy.port())))
    }

    fn begin(dir: &Path, behind: Option<(u16, u16)>) -> Result<Self> {
        fetch_jars()?;
        std::fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
        let mut kafka = Self { process: None, dir: dir.to_owned(), port: free_port()?, controller_port: free_port()?, behind };
        kafka.start_again()?;
        Ok(kafka)
    }

    /// `host:port`, the same across restarts.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Shuts the node down in order.
    ///
    /// # Errors
    /// When it does not run, or does not stop in time.
    pub fn stop(&mut self) -> Result<()> {
        self.take_process()?.stop(STOPS_WITHIN).map(drop)
    }

    /// Kills the node without warning. Its data stay.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.take_process()?.kill()
    }

    /// Starts the node again after [`Kafka::stop`] or [`Kafka::kill`], with its data and its port, and waits until it answers and leads its partitions.
    ///
    /// # Errors
    /// As [`Kafka::start`]; also when it runs already.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the Kafka in {} runs already", self.dir.display());
        let (dir, port, controller_port) = (self.dir.display().to_string(), self.port.to_string(), self.controller_port.to_string());
        let mut arguments = vec![script(), "run".to_owned(), dir, port.clone(), controller_port];
        arguments.extend(self.behind.iter().flat_map(|(listener, advertised)| [listener.to_string(), advertised.to_string()]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = Process::start("kafka", Path::new("bash"), &arguments, &[], &self.dir.join("broker.log"))?;
        let process = self.process.insert(process);
        let client: BaseConsumer = client_config(&format!("127.0.0.1:{port}")).create().context("failed to create a Kafka client")?;
        let metadata = wait_for("Kafka to answer a metadata request", STARTS_WITHIN, || {
            process.check_running()?;
            Ok(client.fetch_metadata(None, Duration::from_millis(500)).ok().filter(|metadata| !metadata.brokers().is_empty()))
        })?;
        let topics = metadata.topics().iter().filter(|topic| TOPICS.iter().any(|ours| topic.name().ends_with(ours.name)));
        topics.into_iter().try_for_each(|topic| wait_for_leaders(&client, topic.name(), i32::try_from(topic.partitions().len())?))
    }

    /// Stops the node in order and starts it again.
    ///
    /// # Errors
    /// As [`Kafka::stop`] and [`Kafka::start_again`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// The running node, to pause it or to read its pid.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("the Kafka in {} is stopped", self.dir.display()))
    }

    /// Creates all topics of Hark under `prefix`, with their settings and one replica.
    ///
    /// # Errors
    /// When Kafka refuses one, for instance because it exists.
    pub fn create_topics(&self, prefix: &str) -> Result<()> {
        let topics: Vec<_> = TOPICS.iter().map(|topic| (topic.full_name(prefix), topic.partitions, topic.settings())).collect();
        let new_topics = topics.iter().map(|(name, partitions, settings)| {
            let partitions = i32::try_from(*partitions).expect("our own topics have few partitions");
            settings.iter().fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| topic.set(key, value))
        });
        let new_topics: Vec<NewTopic<'_>> = new_topics.collect();
        let options = AdminOptions::new().operation_timeout(Some(ANSWERS_WITHIN));
        let results = wait_on(self.admin()?.create_topics(&new_topics, &options))?.context("failed to create topics")?;
        for result in results {
            if let Err((name, code)) = result {
                bail!("failed to create topic {name}: {code}");
            }
        }
        let consumer = self.consumer("read_uncommitted")?;
        topics.iter().try_for_each(|(name, partitions, _)| wait_for_leaders(&consumer, name, i32::try_from(*partitions)?))
    }

    /// The settings in force for `topic`, by key.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub fn topic_settings(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let answer = wait_on(self.admin()?.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()))?;
        let resource = answer.context("failed to describe")?.pop().context("Kafka described nothing")?;
        let resource = resource.map_err(|code| anyhow::anyhow!("failed to describe topic {topic}: {code}"))?;
        Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// Sets `topic`'s settings to these; all others fall back to the broker's.
    ///
    /// # Errors
    /// When Kafka refuses one.
    pub fn set_topic(&self, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
        let change = settings.iter().fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |change, (key, value)| change.set(key, value));
        let results = wait_on(self.admin()?.alter_configs([&change], &AdminOptions::new()))?.context("failed to alter a topic")?;
        results.into_iter().try_for_each(|result| result.map(drop).map_err(|(_, code)| anyhow::anyhow!("failed to alter {topic}: {code}")))
    }

    /// Forgets all offsets of `group`, as brokers do some days after the last commit.
    ///
    /// # Errors
    /// When Kafka refuses.
    pub fn forget_group(&self, group: &str) -> Result<()> {
        let results = wait_on(self.admin()?.delete_groups(&[group], &AdminOptions::new()))?.context("failed to delete a group")?;
        results.into_iter().try_for_each(|result| result.map(drop).map_err(|(group, code)| anyhow::anyhow!("failed to delete group {group}: {code}")))
    }

    /// Deletes the records of a partition before `offset` (-1: all), as retention does with old ones.
    ///
    /// # Errors
    /// When Kafka refuses.
    pub fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut upto = TopicPartitionList::new();
        let offset = if offset < 0 { Offset::End } else { Offset::Offset(offset) };
        upto.add_partition_offset(topic, partition, offset)?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWERS_WITHIN));
        let answer = wait_on(self.admin()?.delete_records(&upto, &options))?.context("failed to delete records")?;
        answer.elements().iter().try_for_each(|element| element.error()).context("failed to delete records")
    }

    /// All records of `topic` that a `read_committed` consumer sees now, in order within each partition: everything up to the last stable offset.
    ///
    /// # Errors
    /// When the topic does not exist, or the end is not reached in time.
    pub fn read_committed(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        self.read(topic, "read_committed")
    }

    /// The same with records of open and aborted transactions: for comparison only, no consumer of Hark reads so.
    ///
    /// # Errors
    /// As [`Kafka::read_committed`].
    pub fn read_uncommitted(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        self.read(topic, "read_uncommitted")
    }

    /// Shows `visit` what [`Kafka::read_committed`] would collect: the value and Kafka's time in milliseconds of each record, in no order across
    /// partitions. For topics with more records than should be in memory at once.
    ///
    /// # Errors
    /// As [`Kafka::read_committed`], for a tombstone, and the first failure of `visit`.
    pub fn visit_committed(&self, topic: &str, mut visit: impl FnMut(&[u8], i64) -> Result<()>) -> Result<()> {
        self.consume(topic, "read_committed", |message| {
            let time = message.timestamp().to_millis().with_context(|| format!("a record of {topic} without a time"))?;
            visit(message.payload().with_context(|| format!("a tombstone in {topic}"))?, time)
        })
    }

    /// Shows `visit` what [`Kafka::read_committed`] would collect, in order within each partition.
    ///
    /// # Errors
    /// As [`Kafka::read_committed`], and the first failure of `visit`.
    pub fn visit_records(&self, topic: &str, mut visit: impl FnMut(&KafkaRecord) -> Result<()>) -> Result<()> {
        self.consume(topic, "read_committed", |message| visit(&record(message)?))
    }

    /// A question that can be asked often: how many records of `topic` stand behind the last stable offset, which are those of transactions that are
    /// open, and what follows them.
    ///
    /// # Errors
    /// When the topic does not exist; the question, when Kafka does not answer.
    pub fn watch_open(&self, topic: &str) -> Result<impl Fn() -> Result<i64>> {
        let (stable, all) = (self.consumer("read_committed")?, self.consumer("read_uncommitted")?);
        let (topic, partitions) = (topic.to_owned(), partitions(&all, topic)?);
        Ok(move || {
            partitions.iter().try_fold(0, |open, partition| {
                let end = |consumer: &BaseConsumer| anyhow::Ok(consumer.fetch_watermarks(&topic, *partition, ANSWERS_WITHIN)?.1);
                // The stable end first: what ends in between is not open.
                let stable = end(&stable)?;
                Ok(open + end(&all)? - stable)
            })
        })
    }

    fn read(&self, topic: &str, isolation: &str) -> Result<Vec<KafkaRecord>> {
        let mut records = Vec::new();
        self.consume(topic, isolation, |message| {
            records.push(record(message)?);
            Ok(())
        })?;
        records.sort_by_key(|record: &KafkaRecord| (record.partition, record.offset));
        Ok(records)
    }

    fn consume(&self, topic: &str, isolation: &str, mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<()>) -> Result<()> {
        let consumer = self.consumer(isolation)?;
        let partitions = partitions(&consumer, topic)?;
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment).with_context(|| format!("failed to assign {topic}"))?;

        let mut unfinished = partitions;
        while !unfinished.is_empty() {
            // Record by record: a long topic takes as long as records keep coming.
            match wait_for(&format!("more of {topic}, or its end"), READ_WITHIN, || Ok(consumer.poll(Duration::from_millis(100))))? {
                Ok(message) => take(&message)?,
                Err(KafkaError::PartitionEOF(partition)) => unfinished.retain(|waiting| *waiting != partition),
                Err(error) => return Err(error).with_context(|| format!("failed to read {topic}")),
            }
        }
        Ok(())
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer> {
        let mut config = client_config(&self.bootstrap());
        config.set("group.id", "hark-tests").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", isolation).create().context("failed to create a consumer")
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        client_config(&self.bootstrap()).create().context("failed to create an admin client")
    }

    fn take_process(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("the Kafka in {} is stopped", self.dir.display()))
    }
}

/// The script that also people use.
fn script() -> String {
    in_clone("tests/kafka/kafka.sh").display().to_string()
}

fn fetch_jars() -> Result<()> {
    let output = Command::new("bash").args([&*script(), "fetch"]).output().context("failed to run bash")?;
    ensure!(output.status.success(), "failed to fetch Kafka: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    // Short pauses between attempts: the tests wait for a broker that is about to come.
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "500");
    config
}

pub(crate) fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWERS_WITHIN).with_context(|| format!("failed to look up {topic}"))?;
    let topic_metadata = metadata.topics().first().with_context(|| format!("no metadata of {topic}"))?;
    ensure!(topic_metadata.error().is_none() && !topic_metadata.partitions().is_empty(), "topic {topic} does not exist");
    Ok(topic_metadata.partitions().iter().map(|partition| partition.id()).collect())
}

/// Kafka says that a topic is made before its partitions can be asked.
fn wait_for_leaders(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<()> {
    use RDKafkaErrorCode as Code;
    (0..partitions).try_for_each(|partition| {
        wait_for(&format!("a leader of {topic}/{partition}"), ANSWERS_WITHIN, || match consumer.fetch_watermarks(topic, partition, ANSWERS_WITHIN) {
            Ok(_) => Ok(Some(())),
            Err(error) => match error.rdkafka_error_code() {
                Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::UnknownTopicOrPartition) => Ok(None),
                Some(Code::BrokerTransportFailure | Code::OperationTimedOut) => Ok(None),
                _ => Err(error).with_context(|| format!("failed to ask for {topic}/{partition}")),
            },
        })
    })
}

pub(crate) fn record(message: &impl Message) -> Result<KafkaRecord> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).with_context(|| format!("{} holds bytes that are no text", message.topic()));
    let mut headers = BTreeMap::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        headers.insert(header.key.to_owned(), text(header.value.unwrap_or_default())?);
    }
    Ok(KafkaRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(text).transpose()?,
        value: message.payload().map(text).transpose()?,
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    })
}

/// The admin client speaks in futures; the scenarios do not.
fn wait_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("failed to build a runtime")?;
    Ok(runtime.block_on(future))
}
