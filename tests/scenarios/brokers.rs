//! The brokers themselves keep what the promises are built on: Kafka its transactions and arrival times, Mosquitto its sessions.
//!
//! A promise that fails while these pass is Hark's fault; if one of these fails, look at the broker or its settings first.
#![expect(clippy::disallowed_methods, reason = "one deadline for many answers")]
use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hark_protocol::topics::{READINGS, TOPICS};
use hark_tests::support::{Kafka, KafkaRecord, Mosquitto, Settings, in_clone, publish};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use rumqttc::v5::{
    Client, Connection, Event, MqttOptions, RecvTimeoutError,
    mqttbytes::{QoS, v5::Packet},
};

const SOON: Duration = Duration::from_secs(30);

/// Kafka hides what was aborted, shows what was committed exactly once, in order per key, and stamps the time of arrival; a crash changes nothing.
#[test]
fn kafka_shows_committed_records_once_also_after_a_crash() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut kafka = Kafka::start(dir.path())?;
    kafka.create_topics("test.")?;
    let topic = READINGS.full_name("test.");

    let producer = transactional_producer(&kafka)?;
    send_in_transaction(&producer, &topic, "kept", 0..100)?.commit_transaction(SOON)?;
    send_in_transaction(&producer, &topic, "aborted", 100..200)?.abort_transaction(SOON)?;
    send_in_transaction(&producer, &topic, "kept", 200..300)?.commit_transaction(SOON)?;

    let before = kafka.read_committed(&topic)?;
    check_kept(&before)?;
    ensure!(kafka.read_uncommitted(&topic)?.len() == 300, "the aborted records were never sent, so nothing was proven");

    kafka.kill()?;
    kafka.start_again()?;
    ensure!(kafka.read_committed(&topic)? == before, "the records changed with the crash");
    kafka.restart()?;
    ensure!(kafka.read_committed(&topic)? == before, "the records changed with the restart");
    Ok(())
}

/// A second producer under the same transactional id shuts the first one out: what a cloned gateway image meets.
#[test]
fn kafka_fences_the_older_of_two_producers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(dir.path())?;
    kafka.create_topics("test.")?;
    let topic = READINGS.full_name("test.");

    let older = transactional_producer(&kafka)?;
    send_in_transaction(&older, &topic, "older", 0..10)?;
    let newer = transactional_producer(&kafka)?;
    let refused = older.commit_transaction(SOON);
    ensure!(refused.is_err(), "the older producer committed after the newer one had begun");
    send_in_transaction(&newer, &topic, "newer", 0..10)?.commit_transaction(SOON)?;

    let keys: Vec<_> = kafka.read_committed(&topic)?.into_iter().filter_map(|record| record.key).collect();
    ensure!(keys == ["newer"; 10], "committed: {keys:?}");
    Ok(())
}

/// The script for operations creates all topics with the settings that the records rely on, and can be run again.
#[test]
fn operations_create_the_topics_with_the_shipped_script() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(dir.path())?;
    let tool = dir.path().join("kafka-topics");
    write_executable(&tool, &format!("#!/bin/sh\nexec bash '{}' topics \"$@\"\n", in_clone("tests/kafka/kafka.sh").display()))?;

    for run in ["first", "second"] {
        let mut script = Command::new("bash");
        script.arg(in_clone("config/kafka/create-topics.sh")).args([&*kafka.bootstrap(), "plant."]);
        let output = script.env("KAFKA_TOPICS", &tool).env("REPLICATION", "1").stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{run} run: {}", String::from_utf8_lossy(&output.stderr));
    }
    for topic in TOPICS {
        let settings = kafka.topic_settings(&topic.full_name("plant."))?;
        for (key, value) in topic.settings() {
            ensure!(settings.get(key) == Some(&value), "{} has {key}={:?}, wanted {value}", topic.name, settings.get(key));
        }
    }
    Ok(())
}

/// With the shipped settings thousands of messages wait for an absent subscriber, also across a restart of the broker, and arrive in order.
#[test]
fn mosquitto_keeps_a_session_across_a_restart() -> Result<()> {
    const MESSAGES: u32 = 5_000;
    let arrived = messages_after_an_absence(Settings::Plant, MESSAGES)?;
    ensure!(arrived == (0..MESSAGES).collect::<Vec<_>>(), "{} of {MESSAGES} arrived", arrived.len());
    // The same with Mosquitto's own limits loses most of them: the shipped queue limit is what keeps them.
    let arrived = messages_after_an_absence(Settings::Defaults, MESSAGES)?;
    ensure!(arrived.len() < 2_000, "Mosquitto's default queue holds {} messages: the reason in plant.conf is out of date", arrived.len());
    Ok(())
}

/// With the shipped settings the window is the subscriber's own: more than Mosquitto's default of 20 messages wait for their acknowledgement.
#[test]
fn mosquitto_lets_a_thousand_messages_wait_for_their_acknowledgement() -> Result<()> {
    const WINDOW: u16 = 1_000;
    let dir = tempfile::tempdir()?;
    let broker = Mosquitto::start(dir.path(), Settings::Plant)?;
    let mut options = options(&broker, "window");
    options.set_manual_acks(true).set_receive_maximum(Some(WINDOW));
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("plant/#", QoS::AtLeastOnce)?;
    next_packet(&mut connection, |packet| matches!(packet, Packet::SubAck(_)).then_some(()))?;

    publish(&broker, TOPIC, (0..2 * WINDOW).map(|number| number.to_string()))?;
    for number in 0..WINDOW {
        let payload = next_payload(&mut connection, SOON)?;
        ensure!(payload == Some(number.to_string()), "instead of message {number} came {payload:?}");
    }
    Ok(())
}

type TestProducer = ThreadedProducer<DefaultProducerContext>;

fn transactional_producer(kafka: &Kafka) -> Result<TestProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("transactional.id", "hark.test").set("compression.codec", "zstd");
    let producer: TestProducer = config.create()?;
    producer.init_transactions(SOON).context("failed to begin with transactions")?;
    Ok(producer)
}

fn send_in_transaction<'a>(producer: &'a TestProducer, topic: &str, key: &str, seqs: std::ops::Range<u32>) -> Result<&'a TestProducer> {
    producer.begin_transaction()?;
    for seq in seqs {
        let (value, seq) = (format!("{{\"seq\":{seq}}}"), seq.to_string());
        let headers = OwnedHeaders::new().insert(Header { key: "seq", value: Some(&seq) });
        producer.send(BaseRecord::to(topic).key(key).payload(&value).headers(headers)).map_err(|(error, _)| error)?;
    }
    // A transaction that is aborted before it was sent would never reach the broker and prove nothing.
    producer.flush(SOON)?;
    Ok(producer)
}

fn check_kept(records: &[KafkaRecord]) -> Result<()> {
    let seqs: Vec<u64> = records.iter().filter_map(|record| record.json().ok()?["seq"].as_u64()).collect();
    let wanted: Vec<u64> = (0..100).chain(200..300).collect();
    ensure!(seqs == wanted, "committed: {seqs:?}");
    for record in records {
        ensure!(record.key.as_deref() == Some("kept") && record.partition == records[0].partition, "{record:?} is not where its key belongs");
        ensure!(record.headers.get("seq") == Some(&record.json()?["seq"].to_string()), "{record:?} lost its header");
        ensure!(record.timestamp_ms.is_some_and(|ms| ms > 0), "{record:?} has no time of arrival");
    }
    Ok(())
}

fn write_executable(path: &std::path::Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(path)?;
    file.write_all(text.as_bytes()).context("failed to write the tool")
}

/// Subscribes with a kept session, leaves, publishes, restarts the broker, comes back, and tells which messages arrived, in that order.
fn messages_after_an_absence(settings: Settings, messages: u32) -> Result<Vec<u32>> {
    let dir = tempfile::tempdir()?;
    let mut broker = Mosquitto::start(dir.path(), settings)?;
    let (client, mut connection) = Client::new(options(&broker, "hark"), 10);
    client.subscribe("plant/#", QoS::AtLeastOnce)?;
    next_packet(&mut connection, |packet| matches!(packet, Packet::SubAck(_)).then_some(()))?;
    drop((client, connection));

    publish(&broker, TOPIC, (0..messages).map(|number| number.to_string()))?;
    broker.restart()?;

    let (_client, mut connection) = Client::new(options(&broker, "hark"), 10);
    let present = next_packet(&mut connection, |packet| if let Packet::ConnAck(ack) = packet { Some(ack.session_present) } else { None })?;
    ensure!(present, "the broker forgot the session");
    let mut arrived = Vec::new();
    let last = messages - 1;
    loop {
        match next_payload(&mut connection, Duration::from_millis(500))? {
            Some(text) if text == END => return Ok(arrived),
            Some(text) => arrived.push(text.parse()?),
            // A full queue drops the end mark as it drops all else, so it is sent when the queue may be empty, again if need be.
            None => publish(&broker, TOPIC, [END.to_owned()])?,
        }
        if arrived.last() == Some(&last) {
            return Ok(arrived);
        }
    }
}

const TOPIC: &str = "plant/hall-3/pump-p101/speed";
/// A payload that is no number.
const END: &str = "end";

fn options(broker: &Mosquitto, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", broker.port());
    options.set_clean_start(false).set_session_expiry_interval(Some(3_600));
    options
}

/// The payload of the next message, or `None` if there is none within `patience`.
fn next_payload(connection: &mut Connection, patience: Duration) -> Result<Option<String>> {
    let give_up_at = Instant::now() + patience;
    loop {
        match connection.recv_timeout(give_up_at.saturating_duration_since(Instant::now())) {
            Ok(Ok(Event::Incoming(Packet::Publish(message)))) => return Ok(Some(String::from_utf8(message.payload.to_vec())?)),
            Ok(event) => drop(event.context("lost the broker")?),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the client has ended"),
        }
    }
}

/// Takes packets until `wanted` has what it wants.
fn next_packet<T>(connection: &mut Connection, mut wanted: impl FnMut(&Packet) -> Option<T>) -> Result<T> {
    let give_up_at = Instant::now() + SOON;
    loop {
        match connection.recv_timeout(give_up_at.saturating_duration_since(Instant::now())) {
            Ok(Ok(Event::Incoming(packet))) => {
                if let Some(found) = wanted(&packet) {
                    return Ok(found);
                }
            }
            Ok(event) => drop(event.context("lost the broker")?),
            Err(reason) => bail!("the packet did not come within {SOON:?}: {reason:?}"),
        }
    }
}
