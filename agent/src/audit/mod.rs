//! The proof of promises 1 and 2 for a gateway, from Kafka alone and while its agent runs.
//!
//! ```text
//! cursors ─► partitions and what they lost ─► every record of the lanes' topics ─► ledger ─► findings
//! ```
//! The cursors are taken first: what they claim must be there, each seq exactly once or inside exactly one gap. A transaction's marker reaches some
//! partitions after the cursors can be read, so what is missing at first is waited for a little. Partitions expire one by one; where some have lost
//! their beginning the proof starts where all of them surely are complete. Only bits are kept (`ledger`), no records.
//!
//! Headers say which record one is, its value must say the same (`record`). Order is that of a key in its one partition, within an incarnation and from
//! one to the next on its disk (`told`); two disks that ran at once have none between them.
mod bitmap;
mod findings;
mod gaps;
pub(crate) mod kafka;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod order;
mod record;
mod told;

use std::time::Duration;

use hark_protocol::topics::{ALARMS, EVENTS, LaneName, PREDICTIONS, READINGS, SNAPSHOTS, Topic};

pub use self::{
    findings::{End, Findings, Row, Stray},
    kafka::KafkaFailure,
    ledger::Tally,
};
use self::{
    kafka::{Partition, Reader, Record, Source},
    ledger::{Expired, Ledger, Seen},
    record::{Place, Sort, Telling},
};
use crate::{
    clock::Clock,
    config::Delivery,
    forward::{
        cursor::{KafkaCursor, Lineage},
        kafka::{LINEAGE_TOPIC, cursor_group, cursor_topic},
    },
};

/// The topics that lanes go to. Events first: they tell of incarnations.
const TOPICS: [(Topic, Sort); 5] =
    [(EVENTS, Sort::Event), (ALARMS, Sort::Alarm), (PREDICTIONS, Sort::Prediction), (READINGS, Sort::Reading), (SNAPSHOTS, Sort::Snapshot)];

/// Transactions carry the cursors with the records: a marker may reach their partitions later, but not by this much.
const CLAIMED_WITHIN: Duration = Duration::from_secs(10);
/// Fetched ahead while others are looked at.
const AHEAD_KBYTES: u32 = 16 << 10;
/// A broker says soon that there is no more.
const WAITS: Duration = Duration::from_millis(100);

/// What is audited.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where Kafka is.
    pub brokers: String,
    /// Before the topics' names.
    pub topic_prefix: String,
    /// Whose records.
    pub gateway: String,
    /// How long to wait for what is missing at first.
    pub patience: Duration,
    /// How its records are delivered, where a configuration tells.
    pub delivery: Option<Delivery>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Audited {
    /// What was found.
    pub findings: Findings,
    /// Offset and incarnation of the cursor of each lane, in the order of [`LaneName::ALL`].
    pub cursors: [Option<(u64, String)>; LaneName::ALL.len()],
    /// Records beyond all cursors, those of after they were read included: no transaction carried them. Looked for where no configuration tells.
    pub unclaimed: u64,
    /// All records that were read.
    pub records: u64,
    /// Those of this gateway.
    pub own: u64,
    /// Those that no gateway can be read from.
    pub unreadable: u64,
    /// Partitions that have lost their beginning.
    pub expired: Vec<String>,
    /// Partitions of which nothing can be told, by lane.
    pub blind: Vec<(LaneName, String)>,
    /// Records away from the partition of their key.
    pub misplaced: Tally,
}

/// Reads Kafka and gives what it proves. `progress` is told of records read and of those there are, roughly.
///
/// # Errors
/// [`KafkaFailure`] if Kafka does not answer: then nothing can be told.
pub fn run(question: &Question, clock: &Clock, progress: &mut dyn FnMut(u64, u64)) -> Result<Audited, KafkaFailure> {
    let group = cursor_group(&question.gateway);
    let reader = Reader { brokers: &question.brokers, client: "hark.audit", group: &group, ahead_kbytes: AHEAD_KBYTES, waits: WAITS };
    let source = Source::open(reader, clock.clone())?;
    let mut audit =
        Audit { question, ledger: Ledger::new(&question.gateway), topics: Vec::new(), read: 0, own: 0, unreadable: 0, expired: Vec::new() };
    let cursors = audit.take_cursors(&source)?;
    audit.take_partitions(&source)?;
    audit.read(&source, progress)?;
    let begun = clock.monotonic();
    let mut findings = audit.ledger.findings();
    while findings.absent() > 0 && clock.monotonic().saturating_sub(begun) < question.patience {
        // Each look waits for the brokers to say that there is nothing more.
        audit.read(&source, progress)?;
        findings = audit.ledger.findings();
    }
    let unclaimed = if question.delivery.is_none() && cursors.iter().any(Option::is_some) {
        audit.unclaimed(&source, findings.beyond(), clock, progress)?
    } else {
        0
    };
    let blind = findings.blind.iter().map(|(lane, number)| (*lane, audit.partition_name(*number))).collect();
    let mut misplaced = Tally::default();
    for Stray { key, home, partition, records, first } in &findings.strays {
        let [there, home] = [partition, home].map(|number| audit.partition_name(*number));
        misplaced.add(*records, || format!("{first} in {there}, while most of `{key}` are in {home}"));
    }
    let Audit { read, own, unreadable, expired, .. } = audit;
    Ok(Audited { findings, cursors, unclaimed, records: read, own, unreadable, expired, blind, misplaced })
}

struct Audit<'a> {
    question: &'a Question,
    ledger: Ledger,
    topics: Vec<TopicState>,
    read: u64,
    own: u64,
    unreadable: u64,
    expired: Vec<String>,
}

struct TopicState {
    name: String,
    /// What its records are.
    sort: Sort,
    /// Number of the first partition in the ledger.
    first: usize,
    partitions: Vec<Partition>,
}

impl Audit<'_> {
    fn take_cursors(&mut self, source: &Source) -> Result<[Option<(u64, String)>; LaneName::ALL.len()], KafkaFailure> {
        let topics = LaneName::ALL.into_iter().map(cursor_topic).chain([LINEAGE_TOPIC]);
        let topics: Vec<String> = topics.map(|topic| topic.full_name(&self.question.topic_prefix)).collect();
        let mut committed = source.committed(&topics)?;
        if let Some((_, lineage)) = committed.pop().flatten() {
            Lineage::parse(&lineage).iter().for_each(|(short, last_seq)| self.ledger.lineage(short, last_seq));
        }
        let mut cursors = [const { None }; LaneName::ALL.len()];
        for (lane, committed) in LaneName::ALL.into_iter().zip(committed) {
            let Some((offset, metadata)) = committed else { continue };
            let Some(KafkaCursor { incarnation, seq, others }) = KafkaCursor::parse(u64::try_from(offset).unwrap_or(0), &metadata) else { continue };
            let inc = incarnation.id.to_string();
            self.ledger.cursor(lane, &inc, incarnation.ordinal, seq);
            others.into_iter().for_each(|(short, seq)| self.ledger.other(lane, short, seq));
            cursors[lane as usize] = Some((seq, inc));
        }
        Ok(cursors)
    }

    /// How many of the records that were read no cursor claims, though it was asked for after them: `beyond` were so at first.
    fn unclaimed(&mut self, source: &Source, mut beyond: u64, clock: &Clock, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, KafkaFailure> {
        let begun = clock.monotonic();
        while beyond > 0 && clock.monotonic().saturating_sub(begun) < CLAIMED_WITHIN {
            self.read(source, progress)?;
            self.take_cursors(source)?;
            beyond = self.ledger.findings().beyond();
        }
        Ok(beyond)
    }

    fn take_partitions(&mut self, source: &Source) -> Result<(), KafkaFailure> {
        let mut first = 0;
        for (topic, sort) in TOPICS {
            let name = topic.full_name(&self.question.topic_prefix);
            let partitions = source.partitions(&name)?;
            let expired: Vec<&Partition> = partitions.iter().filter(|partition| partition.low > 0).collect();
            let times = if expired.is_empty() { Vec::new() } else { source.first_times(&name, &expired)? };
            for (partition, first_ms) in expired.into_iter().zip(times) {
                let number = first + partitions.iter().position(|other| other == partition).unwrap_or_default();
                self.ledger.expired(Expired { partition: number, first_ms }, sort.lanes());
                self.expired.push(format!("{name}/{}", partition.number));
            }
            let count = partitions.len();
            self.topics.push(TopicState { name, sort, first, partitions });
            first += count;
        }
        Ok(())
    }

    /// Reads every topic from where it was left to its present end.
    fn read(&mut self, source: &Source, progress: &mut dyn FnMut(u64, u64)) -> Result<(), KafkaFailure> {
        let total = self.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| (partition.high - partition.low).max(0) as u64).sum();
        let mut topics = std::mem::take(&mut self.topics);
        for (number_of_topic, topic) in topics.iter_mut().enumerate() {
            let (first, sort) = (topic.first, topic.sort);
            let numbers: Vec<i32> = topic.partitions.iter().map(|partition| partition.number).collect();
            source.read(&topic.name, &mut topic.partitions, |number, record| {
                let index = numbers.iter().position(|other| *other == number).unwrap_or_default();
                self.take(number_of_topic, first + index, sort, &record);
                progress(self.read, total);
            })?;
        }
        self.topics = topics;
        Ok(())
    }

    fn take(&mut self, topic: usize, partition: usize, sort: Sort, record: &Record<'_>) {
        self.read += 1;
        let Some(place) = Place::of(record.headers(), record.value()) else {
            self.unreadable += 1;
            return;
        };
        if place.gw != self.question.gateway {
            return;
        }
        self.own += 1;
        let key = record.key();
        let contradiction = place.contradiction(&key, record.value(), sort);
        let seen = Seen {
            lane: place.lane,
            inc: &place.inc,
            seq: place.seq,
            key: &key,
            contradiction: contradiction.as_deref(),
            topic,
            partition,
            appended_ms: record.appended_ms(),
        };
        // What a value tells that belongs to another record is not believed.
        if !self.ledger.record(seen) || contradiction.is_some() || sort != Sort::Event {
            return;
        }
        match record.value().and_then(Telling::of) {
            Some(Telling::Gap { lane, inc, from, to, reason }) => self.ledger.gap(lane, &inc, from, to, reason),
            Some(Telling::Opened { predecessor, last_seq }) => self.ledger.opened(&place.inc, &predecessor, last_seq),
            Some(Telling::TakenOver { predecessor }) => self.ledger.taken_over(&place.inc, &predecessor),
            None => {}
        }
    }

    fn partition_name(&self, number: usize) -> String {
        let topic = self.topics.iter().rfind(|topic| topic.first <= number);
        topic.map(|topic| format!("{}/{}", topic.name, topic.partitions[number - topic.first].number)).unwrap_or_default()
    }
}
