//! Promise 1: nothing is lost silently. Promise 3: the link may be away.
//!
//! Numbered readings go through the plant's MQTT broker, the real agent and a real Kafka, while one of them is killed. At the end every number is in
//! Kafka, in order for its machine, and the positions of the log are without holes.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark_protocol::topics::{BASELINES, EVENTS, GATEWAYS, PREDICTIONS, READINGS, SNAPSHOTS};
use hark_tests::support::{
    Agent, COMMISSIONING_ROWS, Connection, KafkaRecord, Load, Mosquitto, TestBench, publish, start_ready, wait_for, wait_until,
};

const DELIVERED_WITHIN: Duration = Duration::from_secs(120);
const TOPIC: &str = "plant/hall-3/pump-1/flow";

fn bench() -> Result<TestBench> {
    TestBench::new(env!("CARGO_BIN_EXE_hark-under-test"))
}

fn publish_numbers(broker: &Mosquitto, numbers: std::ops::Range<u32>) -> Result<()> {
    publish(broker, TOPIC, numbers.map(|number| format!("{{\"value\":{number}}}")))
}

/// Waits until the readings in Kafka hold each number below `count` and returns them all.
fn readings_with_all(bench: &TestBench, count: u32) -> Result<Vec<KafkaRecord>> {
    let mut missing = BTreeSet::new();
    wait_for("all numbers in Kafka", DELIVERED_WITHIN, || {
        let records = bench.records(READINGS)?;
        let found: BTreeSet<u32> = values(&records)?.into_iter().collect();
        missing = (0..count).filter(|number| !found.contains(number)).collect();
        Ok(missing.is_empty().then_some(records))
    })
    .with_context(|| format!("{} of {count} numbers are missing, the first is {:?}", missing.len(), missing.first()))
}

fn values(records: &[KafkaRecord]) -> Result<Vec<u32>> {
    records.iter().map(|record| Ok(record.json()?["value"].as_f64().context("a reading without a value")? as u32)).collect()
}

/// Waits until the inputs lane in Kafka is without holes. Its records are in three topics, and those of one batch may be seen in any order.
fn check_positions(bench: &TestBench) -> Result<()> {
    let mut hole = None;
    let waited = wait_for("positions without holes", DELIVERED_WITHIN, || {
        let mut seqs: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
        for topic in [READINGS, EVENTS, SNAPSHOTS] {
            for record in bench.records(topic)?.into_iter().filter(|record| record.headers.get("lane").is_some_and(|lane| lane == "inputs")) {
                let (inc, seq, value) = position(&record)?;
                let first = seqs.entry(inc).or_default().entry(seq).or_insert_with(|| value.clone());
                ensure!(*first == value, "two records at one position: {first} and {value}");
            }
        }
        hole = seqs.iter().find_map(|(inc, seqs)| (1..).zip(seqs.keys()).find(|(expected, seq)| expected != *seq).map(|at| format!("{inc}: {at:?}")));
        Ok(hole.is_none().then_some(()))
    });
    waited.with_context(|| format!("a hole that nothing names, (expected, found): {hole:?}"))
}

/// Incarnation, seq and value, after a check that headers and value agree.
fn position(record: &KafkaRecord) -> Result<(String, u64, String)> {
    let json = record.json()?;
    let (inc, seq) = (json["inc"].as_str().context("no inc")?, json["seq"].as_u64().context("no seq")?);
    ensure!(record.headers.get("seq") == Some(&seq.to_string()), "headers and value differ: {record:?}");
    ensure!(record.headers.get("inc").is_some_and(|header| header == inc), "headers and value differ: {record:?}");
    Ok((inc.to_owned(), seq, record.value.clone().unwrap_or_default()))
}

/// The plain way: each reading arrives once, in order; the gateway tells of itself; a stop loses nothing.
#[test]
fn each_reading_arrives_once_and_in_order() -> Result<()> {
    const COUNT: u32 = 2_000;
    let mut bench = bench()?;
    start_ready(&mut bench.agent)?;
    publish_numbers(&bench.mosquitto, 0..COUNT)?;
    let records = readings_with_all(&bench, COUNT)?;
    ensure!(values(&records)? == (0..COUNT).collect::<Vec<_>>(), "doubled or out of order: {} records", records.len());
    ensure!(records.iter().all(|record| record.key.as_deref() == Some("pump-1")), "a reading has another key than its asset");
    check_positions(&bench)?;

    wait_until("the heartbeat of the gateway", DELIVERED_WITHIN, || bench.records(GATEWAYS).is_ok_and(|records| !records.is_empty()))?;
    let events = bench.records(EVENTS)?;
    let kinds: Vec<_> = events.iter().filter_map(|event| event.json().ok()?["kind"].as_str().map(ToOwned::to_owned)).collect();
    ensure!(kinds.iter().any(|kind| kind == "incarnation_opened"), "events: {kinds:?}");
    let accepted = bench.agent.metrics()?.sum("hark_source_readings_accepted_total");
    ensure!(accepted == Some(f64::from(COUNT)), "the agent counts {accepted:?} accepted readings");
    bench.agent.stop().map(drop)
}

/// Kafka is away before the agent starts and while readings come: the agent takes them, and delivers them when Kafka comes back.
#[test]
fn readings_wait_while_kafka_is_away() -> Result<()> {
    const COUNT: u32 = 5_000;
    let mut bench = bench()?;
    bench.kafka.kill()?;
    start_ready(&mut bench.agent)?;
    publish_numbers(&bench.mosquitto, 0..COUNT)?;
    wait_until("all readings to be on disk", DELIVERED_WITHIN, || {
        bench.agent.metrics().is_ok_and(|metrics| metrics.sum("hark_source_readings_accepted_total") == Some(f64::from(COUNT)))
    })?;
    // Killed with all of it in the buffer: what was acknowledged to the plant's broker must be there after the start.
    bench.agent.kill()?;
    start_ready(&mut bench.agent)?;
    bench.kafka.start_again()?;
    readings_with_all(&bench, COUNT)?;
    check_positions(&bench)
}

/// The weights that predictions name reach Kafka, also when they were fitted while it was away and the agent was restarted since.
#[test]
fn a_baseline_fitted_while_kafka_is_away_is_published_later() -> Result<()> {
    let mut bench = bench()?;
    bench.kafka.kill()?;
    start_ready(&mut bench.agent)?;
    let load = Load { messages: 2 * (COMMISSIONING_ROWS as usize + 5), window: 64, interval: Duration::ZERO };
    Connection::open(bench.mosquitto.port(), "machine")?.publish(&load, |number, topic, payload| {
        let (second, point) = (number / 2, ["flow", "pressure"][number % 2]);
        topic.push_str(&format!("plant/hall-3/pump-1/{point}"));
        // Values without a pattern: a machine that stands still is not commissioned.
        payload.push_str(&format!("{{\"value\":{},\"ts\":{}}}", number * number % 101, 1_767_225_600 + second));
    })?;
    wait_until("the commissioning", DELIVERED_WITHIN, || {
        bench.agent.metrics().is_ok_and(|metrics| metrics.get("hark_inference_total{kind=\"rows_scored\"}") > Some(0.0))
    })?;
    bench.agent.stop()?;
    start_ready(&mut bench.agent)?;
    bench.kafka.start_again()?;
    let record = wait_for("the baseline", DELIVERED_WITHIN, || Ok(bench.records(BASELINES)?.pop()))?;
    let predictions = bench.records(PREDICTIONS)?;
    let named = predictions.last().context("no prediction")?.json()?["baseline_id"].clone();
    ensure!(record.json()?["baseline_id"] == named, "published {:?}, named {named}", record.value);
    bench.agent.stop().map(drop)
}

/// While readings come without a pause: the agent is killed in the middle of delivering, then Kafka, then the agent once more without Kafka.
#[test]
fn readings_survive_kills_of_agent_and_kafka() -> Result<()> {
    const COUNT: u32 = 40_000;
    let mut bench = bench()?;
    let TestBench { agent, kafka, mosquitto, .. } = &mut bench;
    start_ready(agent)?;
    std::thread::scope(|scope| {
        #[expect(clippy::disallowed_methods, reason = "the scope joins it")]
        let publisher = scope.spawn(|| (0..COUNT).step_by(500).try_for_each(|first| publish_numbers(mosquitto, first..first + 500)));
        wait_until_delivering(agent)?;
        agent.kill()?;
        start_ready(agent)?;
        wait_until_delivering(agent)?;
        kafka.kill()?;
        wait_until("readings to come while Kafka is away", DELIVERED_WITHIN, || {
            agent.metrics().is_ok_and(|metrics| metrics.sum("hark_buffer_records") > Some(1_000.0))
        })?;
        agent.kill()?;
        start_ready(agent)?;
        kafka.start_again()?;
        publisher.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))?
    })?;
    readings_with_all(&bench, COUNT)?;
    check_positions(&bench)
}

/// Returns in the middle of it: something is delivered, something is not.
fn wait_until_delivering(agent: &Agent) -> Result<()> {
    wait_until("delivery to be under way", DELIVERED_WITHIN, || {
        agent.metrics().is_ok_and(|metrics| metrics.sum("hark_forward_delivered_total") > Some(500.0))
    })
}
