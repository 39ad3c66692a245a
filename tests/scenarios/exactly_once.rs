//! Promise 2: nothing is doubled. Buffer to Kafka is exactly once for `read_committed` consumers.
//!
//! Numbered readings go through the real agent into a real Kafka, while agents are killed inside transactions, disks are copied back, replaced and
//! cloned, and Kafka forgets or refuses. Each position of the log is then in Kafka once, in order, or inside one gap.
#![expect(clippy::disallowed_methods, reason = "the stall and the stop are measurements, which read the clock")]
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hark_protocol::topics::{ALARMS, EVENTS, PREDICTIONS, READINGS, SNAPSHOTS, Topic};
use hark_tests::support::{
    Agent, Fault, Kafka, KafkaRecord, Mosquitto, PREFIX, Proxy, Settings, free_port, publish, start_ready, wait_for, wait_until,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

const SOON: Duration = Duration::from_secs(120);
/// Topics with records of lanes.
const LANE_TOPICS: [Topic; 5] = [READINGS, PREDICTIONS, ALARMS, EVENTS, SNAPSHOTS];

/// Brokers, and room for agents.
struct Site {
    dir: tempfile::TempDir,
    /// The agents' way to Kafka.
    to_kafka: Proxy,
    kafka: Kafka,
    mosquitto: Mosquitto,
}

impl Site {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let to_kafka = Proxy::start(free_port()?)?;
        let kafka = Kafka::start_behind(&dir.path().join("kafka"), &to_kafka)?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
        Ok(Self { dir, to_kafka, kafka, mosquitto })
    }

    /// An agent `name` of gateway `gw-test` that reads `<name>/pump-1/flow`; `more` goes into its `[kafka]`.
    fn agent(&self, name: &str, more: &str, unit: &str) -> Result<Agent> {
        let tables = format!(
            "[kafka]\nbrokers = \"127.0.0.1:{}\"\ntopic_prefix = \"{PREFIX}\"\n{more}\n\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\nclient_id = \"hark-{name}\"\n\n\
             [[mqtt.topic]]\ntemplate = \"{name}/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\", time = \"/ts\" }}\n",
            self.to_kafka.port(),
            self.mosquitto.port()
        );
        let point = |id: &str, unit: &str| format!("[[point]]\nid = \"{id}\"\nunit = \"{unit}\"\n\n");
        let asset = format!("id = \"pump-1\"\n\n{}{}", point("flow", "l/min"), point("large", unit));
        Agent::configure(env!("CARGO_BIN_EXE_hark-under-test"), &self.dir.path().join(name), "gw-test", &tables, &[("pump-1".to_owned(), asset)])
    }

    fn publish(&self, name: &str, numbers: std::ops::Range<u32>) -> Result<()> {
        publish(&self.mosquitto, &format!("{name}/pump-1/flow"), numbers.map(|number| format!("{{\"value\":{number}}}")))
    }

    fn records(&self, topic: Topic) -> Result<Vec<KafkaRecord>> {
        self.kafka.read_committed(&topic.full_name(PREFIX))
    }

    /// Waits until each of `numbers` is in Kafka.
    fn wait_for_numbers(&self, numbers: std::ops::Range<u32>) -> Result<()> {
        let mut missing = BTreeSet::new();
        wait_for("all numbers in Kafka", SOON, || {
            let found: BTreeSet<u32> = self.records(READINGS)?.iter().filter_map(number).collect();
            missing = numbers.clone().filter(|number| !found.contains(number)).collect();
            Ok(missing.is_empty().then_some(()))
        })
        .with_context(|| format!("{} numbers are missing, the first is {:?}", missing.len(), missing.first()))
    }

    /// Each position of each lane of each incarnation once, without holes but those that gaps name, and in order within a partition.
    fn check(&self) -> Result<()> {
        let (mut positions, mut gaps) = (BTreeMap::<(String, String), Vec<u64>>::new(), Vec::new());
        for topic in LANE_TOPICS {
            let mut last = BTreeMap::new();
            for record in self.records(topic)? {
                let json = record.json()?;
                let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
                let (inc, lane, seq) = (text("inc"), text("lane"), json["seq"].as_u64().context("no seq")?);
                let before = last.insert((record.partition, inc.clone(), lane.clone()), seq);
                ensure!(before < Some(seq), "{lane} of {inc}: {seq} comes after {before:?} in {}/{}", record.topic, record.partition);
                positions.entry((inc, lane)).or_default().push(seq);
                if let (Some(from), Some(to)) = (json["gap_from_seq"].as_u64(), json["gap_to_seq"].as_u64()) {
                    gaps.push(((text("gap_inc"), text("gap_lane")), from..=to));
                }
            }
        }
        for (place, gap) in gaps {
            positions.entry(place).or_default().extend(gap);
        }
        for ((inc, lane), mut seqs) in positions {
            seqs.sort_unstable();
            let wrong = seqs.iter().zip(1..).find(|(seq, expected)| *seq != expected);
            ensure!(wrong.is_none(), "{lane} of {inc}: (found, expected) {wrong:?}");
        }
        Ok(())
    }

    /// A stranger's transaction that is open over the cursors of the gateway.
    fn hold_cursors(&self) -> Result<(BaseConsumer, ThreadedProducer<DefaultProducerContext>)> {
        let client = |key: &str, value: &str| ClientConfig::new().set("bootstrap.servers", self.kafka.bootstrap()).set(key, value).clone();
        let group: BaseConsumer = client("group.id", "hark-cursor.gw-test").create()?;
        let producer: ThreadedProducer<DefaultProducerContext> =
            client("transactional.id", "stranger").set("transaction.timeout.ms", "600000").create()?;
        producer.init_transactions(SOON)?;
        producer.begin_transaction()?;
        let mut cursor = TopicPartitionList::new();
        cursor.add_partition_offset(&READINGS.full_name(PREFIX), 0, Offset::Offset(1))?;
        producer.send_offsets_to_transaction(&cursor, &group.group_metadata().context("no group")?, SOON)?;
        Ok((group, producer))
    }

    fn events(&self, kind: &str) -> Result<Vec<serde_json::Value>> {
        let events = self.records(EVENTS)?.iter().map(KafkaRecord::json).collect::<Result<Vec<_>>>()?;
        Ok(events.into_iter().filter(|event| event["kind"] == kind).collect())
    }
}

fn number(record: &KafkaRecord) -> Option<u32> {
    Some(record.json().ok()?["value"].as_f64()? as u32)
}

fn metric(agent: &Agent, name: &str) -> f64 {
    agent.metrics().ok().and_then(|metrics| metrics.sum(name)).unwrap_or_default()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy(&entry, &target)?;
        } else if entry.is_file() {
            // The socket of the running agent stays where it is.
            std::fs::copy(entry, target)?;
        }
    }
    Ok(())
}

/// Brokers may lose the end of a transaction. While it holds the cursors nobody can tell what was delivered: so the agent waits, and says for whom.
#[test]
fn a_transaction_that_hangs_in_kafka_is_named() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.agent("a", "", "1")?;
    start_ready(&mut agent)?;
    site.publish("a", 0..100)?;
    site.wait_for_numbers(0..100)?;
    agent.stop()?;
    let (client, open) = site.hold_cursors()?;
    start_ready(&mut agent)?;
    site.publish("a", 100..200)?;
    wait_until("a word about it", SOON, || agent.log_tail().contains("a transaction hangs in Kafka"))?;
    ensure!(site.records(READINGS)?.len() == 100, "nothing is sent without the cursors");
    // As an operator ends it.
    open.abort_transaction(SOON)?;
    drop((open, client));
    agent.stop()?;
    start_ready(&mut agent)?;
    site.wait_for_numbers(0..200)?;
    site.check()
}

/// The plain way: every position once, nothing recycled, aborted or refused, and the counts of the agent agree with each other.
#[test]
fn an_undisturbed_run_delivers_each_position_once() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.agent("a", "", "1")?;
    start_ready(&mut agent)?;
    site.publish("a", 0..5_000)?;
    site.wait_for_numbers(0..5_000)?;
    wait_until("an empty buffer", SOON, || agent.metrics().is_ok_and(|metrics| metrics.sum("hark_buffer_records") == Some(0.0)))?;
    let metrics = agent.metrics()?;
    let count = |name: &str| metrics.sum(name).unwrap_or(-1.0);
    ensure!(count("hark_records_accepted_total") == count("hark_forward_delivered_total"), "{:?}", metrics.iter().collect::<Vec<_>>());
    for name in ["aborted", "refused", "fenced", "cursor_expired", "take_over"] {
        ensure!(count(&format!("hark_forward_{name}_total")) == 0.0, "{name}: {}", count(&format!("hark_forward_{name}_total")));
    }
    ensure!(count("hark_forward_recycled_total") <= 3.0, "recycled {} times without a reason", count("hark_forward_recycled_total"));
    agent.stop()?;
    site.check()
}

/// The agent is killed again and again inside a transaction whose records are in Kafka already: none of them is ever seen, and each position once.
#[test]
fn kills_inside_transactions_lose_and_double_nothing() -> Result<()> {
    const KILLS: u32 = 3;
    const ATTEMPTS: u32 = 10;
    const PART: u32 = 500;
    let site = Site::new()?;
    let mut agent = site.agent("a", "batch_records = 50", "1")?;
    let topic = READINGS.full_name(PREFIX);
    let open = site.kafka.watch_open(&topic)?;
    start_ready(&mut agent)?;
    let (mut published, mut hidden, mut kills) = (0, 0, 0);
    while kills < KILLS {
        ensure!(published < ATTEMPTS * PART, "{kills} of {ATTEMPTS} kills came inside a transaction");
        // On a slow line a transaction is open for most of the time.
        site.to_kafka.set(Fault::Delay(Duration::from_millis(200)));
        site.publish("a", published..published + PART)?;
        published += PART;
        wait_for("an open transaction", SOON, || Ok((open()? > 0).then_some(())))?;
        agent.kill()?;
        site.to_kafka.set(Fault::None);
        start_ready(&mut agent)?;
        site.wait_for_numbers(0..published)?;
        let now_hidden = site.kafka.read_uncommitted(&topic)?.len() - site.records(READINGS)?.len();
        // Not, if the transaction's last word was on the line already.
        kills += u32::from(now_hidden > hidden);
        hidden = now_hidden;
    }
    agent.stop()?;
    site.check()
}

/// A stop does not wait for a Kafka that hangs within a transaction, and the next start finds out what became of it.
#[test]
fn a_stop_while_kafka_hangs_in_a_transaction_is_bounded() -> Result<()> {
    const PART: u32 = 500;
    // The client's call that hands over the cursors cannot be cut short: 8 s, and one for the rest.
    const BOUND: Duration = Duration::from_secs(9);
    let site = Site::new()?;
    let mut agent = site.agent("a", "", "1")?;
    start_ready(&mut agent)?;
    site.publish("a", 0..PART)?;
    site.wait_for_numbers(0..PART)?;
    let topic = READINGS.full_name(PREFIX);
    let open = site.kafka.watch_open(&topic)?;
    for part in 1..4 {
        site.to_kafka.set(Fault::Delay(Duration::from_millis(200)));
        site.publish("a", part * PART..(part + 1) * PART)?;
        wait_for("an open transaction", SOON, || Ok((open()? > 0).then_some(())))?;
        site.kafka.process()?.pause()?;
        let began = Instant::now();
        agent.stop()?;
        let took = began.elapsed();
        println!("stopped after {:.1} s", took.as_secs_f64());
        ensure!(took < BOUND, "the stop took {:.1} s", took.as_secs_f64());
        site.kafka.process()?.resume()?;
        site.to_kafka.set(Fault::None);
        start_ready(&mut agent)?;
        site.wait_for_numbers(0..(part + 1) * PART)?;
    }
    agent.stop()?;
    site.check()
}

/// A backup of the data directory is put back after the agent ran on: what the copy takes from then on arrives, and nothing comes twice.
#[test]
fn a_restored_copy_of_the_data_directory_loses_nothing() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.agent("a", "", "1")?;
    let (data, backup) = (agent.dir().join("data"), agent.dir().join("backup"));
    start_ready(&mut agent)?;
    site.publish("a", 0..1_000)?;
    site.wait_for_numbers(0..1_000)?;
    // Some that are delivered only after the copy was taken.
    site.kafka.process()?.pause()?;
    site.publish("a", 1_000..1_500)?;
    wait_until("the readings to be on disk", SOON, || metric(&agent, "hark_source_readings_accepted_total") >= 1_500.0)?;
    agent.kill()?;
    site.kafka.process()?.resume()?;
    copy(&data, &backup)?;

    start_ready(&mut agent)?;
    site.publish("a", 1_500..2_500)?;
    site.wait_for_numbers(0..2_500)?;
    agent.stop()?;
    let moved = agent.dir().join("original");
    std::fs::rename(&data, &moved)?;
    std::fs::rename(&backup, &data)?;

    start_ready(&mut agent)?;
    site.publish("a", 2_500..3_500)?;
    site.wait_for_numbers(0..3_500)?;
    ensure!(metric(&agent, "hark_forward_take_over_total") == 1.0, "the take-over is not counted");
    agent.stop()?;
    site.check()?;
    ensure!(site.events("incarnation_opened")?.iter().any(|event| event["what"] == "taken_over"), "no event tells of it");
    Ok(())
}

/// A replaced box: a fresh directory under the old gateway id goes on, and says whom it follows.
#[test]
fn a_fresh_directory_under_an_old_id_goes_on() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.agent("a", "", "1")?;
    start_ready(&mut agent)?;
    site.publish("a", 0..1_000)?;
    site.wait_for_numbers(0..1_000)?;
    agent.stop()?;
    let old = site.events("incarnation_opened")?.pop().context("no incarnation")?["inc"].clone();
    std::fs::rename(agent.dir().join("data"), agent.dir().join("old"))?;
    start_ready(&mut agent)?;
    site.publish("a", 1_000..2_000)?;
    site.wait_for_numbers(0..2_000)?;
    agent.stop()?;
    site.check()?;
    let opened = site.events("incarnation_opened")?;
    ensure!(opened.iter().any(|event| event["what"] == "taken_over" && event["predecessor"] == old), "{opened:?}");
    Ok(())
}

/// A cloned gateway: both shut each other out, both say so, and what either accepts arrives once.
#[test]
fn two_agents_under_one_id_raise_an_alarm_and_lose_nothing() -> Result<()> {
    const PART: u32 = 50;
    let site = Site::new()?;
    let mut agents = [site.agent("a", "duplicate_wait = \"5s\"", "1")?, site.agent("b", "duplicate_wait = \"5s\"", "1")?];
    for agent in &mut agents {
        start_ready(agent)?;
    }
    // Only who has something to send finds itself shut out.
    let mut published = 0;
    wait_for("the alarm", SOON, || {
        for name in ["a", "b"] {
            site.publish(name, published..published + PART)?;
            published += PART;
        }
        Ok(agents.iter().any(|agent| metric(agent, "hark_forward_fenced_total") >= 3.0).then_some(()))
    })?;
    site.wait_for_numbers(0..published)?;
    wait_until("the event", SOON, || site.events("duplicate_gateway").is_ok_and(|events| !events.is_empty()))?;
    for agent in &mut agents {
        agent.stop()?;
    }
    // Between the two no order is promised, and the audit does not miss it.
    let audit = agents[0].output(&["audit"])?;
    ensure!(audit.status.success(), "{}{}", String::from_utf8_lossy(&audit.stdout), String::from_utf8_lossy(&audit.stderr));
    site.check()
}

/// Brokers forget cursors some days after the last commit: the agent goes on from its own mark.
#[test]
fn a_forgotten_cursor_doubles_nothing() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.agent("a", "", "1")?;
    start_ready(&mut agent)?;
    site.publish("a", 0..1_000)?;
    site.wait_for_numbers(0..1_000)?;
    agent.stop()?;
    site.kafka.forget_group("hark-cursor.gw-test")?;
    start_ready(&mut agent)?;
    site.publish("a", 1_000..2_000)?;
    site.wait_for_numbers(0..2_000)?;
    ensure!(metric(&agent, "hark_forward_cursor_expired_total") == 1.0, "it is not counted");
    agent.stop()?;
    site.check()
}

/// Kafka refuses one record for good, and batches that others would be fine in: the one is named in a gap and kept, the others arrive.
#[test]
fn a_refused_record_is_passed_by_a_gap() -> Result<()> {
    let site = Site::new()?;
    // Incompressible, so that it is as large on the wire.
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    };
    let unit: String = (0..6_000).map(|_| letter()).collect();
    let mut agent = site.agent("a", "", &unit)?;
    let topic = READINGS.full_name(PREFIX);
    site.kafka.set_topic(&topic, &[("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "2500")])?;
    start_ready(&mut agent)?;
    site.publish("a", 0..500)?;
    publish(&site.mosquitto, "a/pump-1/large", ["{\"value\":1}".to_owned()])?;
    site.publish("a", 500..1_000)?;
    site.wait_for_numbers(0..1_000)?;
    ensure!(metric(&agent, "hark_forward_refused_total") == 1.0, "{} refused", metric(&agent, "hark_forward_refused_total"));
    let gap = wait_for("the gap", SOON, || Ok(site.events("gap")?.pop()))?;
    ensure!(gap["gap_reason"] == "refused" && gap["gap_from_seq"] == gap["gap_to_seq"], "{gap}");
    let kept: Vec<_> = std::fs::read_dir(agent.dir().join("data/refused"))?.collect::<std::io::Result<_>>()?;
    ensure!(kept.len() == 1 && std::fs::read_to_string(kept[0].path())?.contains(&unit), "not kept: {kept:?}");
    agent.stop()?;
    site.check()
}

/// Stated under Limits: how long the readers of a partition wait when a gateway dies inside a transaction and does not come back.
#[test]
fn the_stall_after_a_death_inside_a_transaction_is_bounded() -> Result<()> {
    let site = Site::new()?;
    let topic = READINGS.full_name(PREFIX);
    let mut config = ClientConfig::new();
    // As the agent does.
    config
        .set("bootstrap.servers", site.kafka.bootstrap())
        .set("transactional.id", "hark.dead")
        .set("transaction.timeout.ms", "10000")
        .set("socket.timeout.ms", "8000");
    let dead: ThreadedProducer<DefaultProducerContext> = config.create()?;
    dead.init_transactions(SOON)?;
    dead.begin_transaction()?;
    for partition in 0..i32::try_from(READINGS.partitions)? {
        dead.send(BaseRecord::to(&topic).partition(partition).key("dead").payload("{\"value\":null}")).map_err(|(error, _)| error)?;
    }
    dead.flush(SOON)?;

    let mut agent = site.agent("a", "", "1")?;
    start_ready(&mut agent)?;
    let began = Instant::now();
    site.publish("a", 0..100)?;
    wait_until("delivery", SOON, || metric(&agent, "hark_buffer_records") == 0.0)?;
    let delivered = began.elapsed();
    site.wait_for_numbers(0..100)?;
    let stall = began.elapsed();
    println!("delivered after {delivered:?}, seen by a read_committed consumer after {stall:?}");
    if stall > Duration::from_secs(30) {
        bail!("a dead gateway holds up others for {stall:?}");
    }
    // What was never committed is never seen.
    drop(dead);
    agent.stop()?;
    site.check()
}
