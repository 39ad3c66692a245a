//! Reading back: a `read_committed` consumer of all demo topics on its own thread, as any dashboard would be.
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hark::stop::Stop;
use hark_protocol::topics::{self, CompactedRecord, LaneName, Record, TOPICS, Topic};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};
use serde::de::DeserializeOwned;

use crate::{brokers::wait_until, ledger::Stretch, scene::Scene, stage::Wait};

const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
/// To read what is left when everything else has stopped.
const END_WITHIN: Duration = Duration::from_secs(20);
/// For the thread to end when asked.
const JOINS_WITHIN: Duration = Duration::from_secs(1);

/// The consumer's thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Readback {
    to_end: Arc<Stop>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Readback {
    /// Begins to read at the present end of every topic: on the embedded Kafka that is the beginning, on a real one what earlier runs left is passed
    /// over. Only records of `gateway` count: others may write there too. Start it before the agent.
    ///
    /// # Errors
    /// When a topic is absent or Kafka does not answer.
    pub fn start(bootstrap: &str, prefix: &str, gateway: &str, scene: Arc<Mutex<Scene>>) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", "hark-demo-readback")
            // Nothing is committed and nothing balanced; the client wants a name all the same.
            .set("group.id", format!("hark-{gateway}-readback"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50")
            .create()?;
        // Topics that were created a moment ago may have no leader yet.
        let mut starts = present_ends(&consumer, prefix);
        wait_until(ANSWERS_WITHIN, || {
            if starts.is_err() {
                starts = present_ends(&consumer, prefix);
            }
            starts.is_ok()
        });
        let starts = starts?;
        consumer.assign(&starts)?;
        let (stop, to_end) = (Arc::new(Stop::default()), Arc::new(Stop::default()));
        let reader =
            Reader { consumer, starts, prefix: prefix.to_owned(), gateway: gateway.to_owned(), scene, stop: stop.clone(), to_end: to_end.clone() };
        let thread = thread::Builder::new().name("readback".into()).spawn(move || reader.run())?;
        Ok(Self { to_end, stop, thread: Some(thread) })
    }

    /// Reads up to what is the end of every partition now, so that also a late repetition is seen; false if that was not reached in time.
    /// Call it when nobody writes any more.
    pub fn read_to_end(&mut self, wait: &mut Wait<'_>) -> bool {
        self.to_end.request();
        wait(END_WITHIN, &mut || self.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }
}

/// What the thread owns.
struct Reader {
    consumer: BaseConsumer,
    starts: TopicPartitionList,
    prefix: String,
    gateway: String,
    scene: Arc<Mutex<Scene>>,
    stop: Arc<Stop>,
    to_end: Arc<Stop>,
}

impl Reader {
    fn run(self) {
        while !self.stop.requested() && !self.to_end.requested() {
            self.turn();
        }
        let mut ends = None;
        while !self.stop.requested() {
            if ends.is_none() {
                ends = present_ends(&self.consumer, &self.prefix).map_err(|error| lock(&self.scene).problem = Some(format!("{error:#}"))).ok();
            }
            match ends.as_ref().map(|ends| self.reached(ends)) {
                Some(true) => return,
                Some(false) | None => self.turn(),
            }
        }
    }

    /// One record, or a short wait for one.
    fn turn(&self) {
        match self.consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let mut scene = lock(&self.scene);
                scene.problem = None;
                take(&message, &self.prefix, &self.gateway, &mut scene);
            }
            // The client connects again by itself; a person should know that it has to.
            Some(Err(error)) => {
                let why = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
                lock(&self.scene).problem = Some(format!("cannot be read back at present: {why}"));
            }
        }
    }

    /// Whether everything before `ends` was taken.
    fn reached(&self, ends: &TopicPartitionList) -> bool {
        let Ok(positions) = self.consumer.position() else { return false };
        ends.elements().iter().all(|end| {
            let Some(position) = positions.find_partition(end.topic(), end.partition()) else { return false };
            match (position.offset(), end.offset()) {
                (Offset::Offset(at), Offset::Offset(end)) => at >= end,
                // Nothing was taken of this partition: right where there is nothing after its start.
                (_, Offset::Offset(end_offset)) => {
                    self.starts.find_partition(end.topic(), end.partition()).is_some_and(|start| start.offset() == Offset::Offset(end_offset))
                }
                _ => false,
            }
        })
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        self.stop.request();
        let Some(thread) = self.thread.take() else { return };
        // A question that Kafka does not answer lasts longer; then the thread ends with the process.
        if wait_until(JOINS_WITHIN, || thread.is_finished()) {
            let _its_panic_was_printed = thread.join();
        }
    }
}

/// The scene, also after a thread panicked with it: it is only shown.
pub fn lock(scene: &Mutex<Scene>) -> MutexGuard<'_, Scene> {
    scene.lock().unwrap_or_else(PoisonError::into_inner)
}

fn present_ends(consumer: &BaseConsumer, prefix: &str) -> Result<TopicPartitionList> {
    let mut assignment = TopicPartitionList::new();
    for topic in TOPICS {
        let name = topic.full_name(prefix);
        let metadata = consumer.fetch_metadata(Some(&name), ANSWERS_WITHIN).with_context(|| format!("failed to ask for `{name}`"))?;
        let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
        if partitions.is_empty() {
            bail!("Kafka has no topic `{name}`");
        }
        for partition in partitions {
            let ends = consumer.fetch_watermarks(&name, partition.id(), ANSWERS_WITHIN);
            let (_, end) = ends.with_context(|| format!("failed to ask for the end of `{name}`"))?;
            assignment.add_partition_offset(&name, partition.id(), Offset::Offset(end))?;
        }
    }
    Ok(assignment)
}

/// Counts a record by its headers and shows its content.
fn take(message: &BorrowedMessage<'_>, prefix: &str, gateway: &str, scene: &mut Scene) {
    let header = |key: &str| {
        let found = message.headers()?.iter().find(|header| header.key == key)?;
        std::str::from_utf8(found.value?).ok().map(str::to_owned)
    };
    if header("gw").as_deref() != Some(gateway) {
        return;
    }
    let Some(topic) = TOPICS.into_iter().find(|topic| topic.full_name(prefix) == message.topic()) else { return };
    let lane = header("lane").and_then(|lane| LaneName::ALL.into_iter().find(|known| known.as_str() == lane));
    if let (Some(lane), Some(incarnation), Some(seq)) = (lane, header("inc"), header("seq").and_then(|seq| seq.parse().ok())) {
        let stretch = Stretch { gateway: gateway.to_owned(), incarnation, lane };
        if !scene.ledger.take(stretch, seq) {
            return;
        }
    }
    *scene.topics.entry(topic.name).or_default() += 1;
    if let Some(value) = message.payload().filter(|_| topic != topics::READINGS)
        && let Err(error) = show(topic, value, scene)
    {
        scene.unreadable(format!("a record of {} cannot be read: {error}", topic.name));
    }
}

fn show(topic: Topic, value: &[u8], scene: &mut Scene) -> Result<(), serde_json::Error> {
    match topic {
        topics::PREDICTIONS => {
            let record: Record<topics::Prediction> = serde_json::from_slice(value)?;
            scene.now_ms = scene.now_ms.max(record.identity.subject.ts_ms);
            scene.prediction(asset_of(&record), &record.body);
        }
        topics::ALARMS => {
            let record: Record<topics::Alarm> = serde_json::from_slice(value)?;
            let asset = asset_of(&record).to_owned();
            scene.alarm(&asset, record.body);
        }
        topics::EVENTS => {
            let record: Record<topics::Event> = serde_json::from_slice(value)?;
            scene.event(record.identity.subject.asset.as_deref(), &record.body);
        }
        topics::ASSETS => {
            let record: CompactedRecord<topics::Asset> = compacted(value)?;
            scene.asset(record.subject.asset.as_deref().unwrap_or_default(), &record.body);
        }
        topics::GATEWAYS => drop(compacted::<topics::Gateway>(value)?),
        _ => {}
    }
    Ok(())
}

fn compacted<B: DeserializeOwned>(value: &[u8]) -> Result<CompactedRecord<B>, serde_json::Error> {
    serde_json::from_slice(value)
}

fn asset_of<B>(record: &Record<B>) -> &str {
    record.identity.subject.asset.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::{
        message::{Header, OwnedHeaders},
        producer::{BaseProducer, BaseRecord, Producer},
    };

    use super::*;
    use crate::brokers::Kafka;

    const PREFIX: &str = "demo.";
    const GATEWAY: &str = "demo-1";

    fn send(producer: &BaseProducer, gateway: &str, lane: &str, key: &str, seq: &str) {
        let text = [("gw", gateway), ("inc", "a"), ("lane", lane), ("seq", seq)];
        let headers = text.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let topic = topics::READINGS.full_name(PREFIX);
        producer.send(BaseRecord::to(&topic).key(key).payload("{}").headers(headers)).map_err(|(error, _)| error).unwrap();
    }

    /// Through a Kafka, over several partitions: what came twice and what is missing is found, strangers are left alone.
    #[test]
    fn duplicates_and_holes_are_found_in_what_kafka_gives_back() {
        let kafka = Kafka::embedded(PREFIX).unwrap();
        let scene = Arc::new(Mutex::new(Scene::new(Instant::now())));
        let mut readback = Readback::start(&kafka.bootstrap, PREFIX, GATEWAY, scene.clone()).unwrap();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
        for (key, seq) in [("a", "1"), ("b", "2"), ("c", "2"), ("a", "4"), ("b", "7"), ("b", "7"), ("b", "7")] {
            send(&producer, GATEWAY, "inputs", key, seq);
        }
        send(&producer, GATEWAY, "alarms", "a", "1");
        send(&producer, "demo-2", "inputs", "a", "3");
        producer.flush(ANSWERS_WITHIN).unwrap();

        assert!(readback.read_to_end(&mut |timeout, condition| wait_until(timeout, condition)));
        let scene = lock(&scene);
        assert_eq!((&scene.problem, &scene.unreadable), (&None, &None));
        assert_eq!((scene.ledger.delivered(), scene.ledger.duplicates(), scene.ledger.holes()), (5, 3, 3));
        assert_eq!((scene.ledger.delivered_in(LaneName::Inputs), scene.count("readings.v1")), (4, 5));
        let inputs = Stretch { gateway: GATEWAY.into(), incarnation: "a".into(), lane: LaneName::Inputs };
        assert_eq!(scene.ledger.missing(&inputs, 9), 5);
    }

    /// A problem is one until the next message.
    #[test]
    fn what_could_not_be_read_back_is_forgotten_when_messages_come_again() {
        let kafka = Kafka::embedded(PREFIX).unwrap();
        let scene = Arc::new(Mutex::new(Scene::new(Instant::now())));
        let _readback = Readback::start(&kafka.bootstrap, PREFIX, GATEWAY, scene.clone()).unwrap();
        lock(&scene).problem = Some("cannot be read back at present".to_owned());
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
        send(&producer, GATEWAY, "inputs", "a", "1");
        producer.flush(ANSWERS_WITHIN).unwrap();
        assert!(wait_until(ANSWERS_WITHIN, || lock(&scene).ledger.delivered() == 1));
        assert_eq!(lock(&scene).problem, None);
    }
}
