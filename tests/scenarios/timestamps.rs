//! Promise 1 against clocks and topic settings: whatever time a reading bears, Kafka takes it, keeps it, and is not asked again and again.
//!
//! The agent hands records over without a time of their own. With `LogAppendTime` Kafka puts that of arrival; with `CreateTime` records have none, and
//! Kafka keeps them by the age of the file. Were the event's time handed over, Kafka would refuse what is ahead and delete at once what is old.
#![expect(clippy::disallowed_methods, reason = "the times that readings bear are relative to now")]
use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use hark_protocol::topics::{READINGS, SNAPSHOTS};
use hark_tests::support::{KafkaRecord, PREFIX, TestBench, publish, start_ready, wait_for, wait_until};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

const SOON: Duration = Duration::from_secs(120);
const HOUR_S: f64 = 3_600.0;

fn each_time_arrives(settings: &[(&str, &str)], has_time: bool) -> Result<()> {
    let mut bench = TestBench::new(env!("CARGO_BIN_EXE_hark-under-test"))?;
    let topic = READINGS.full_name(PREFIX);
    bench.kafka.set_topic(&topic, settings)?;
    bench.kafka.set_topic(&SNAPSHOTS.full_name(PREFIX), &[("message.timestamp.type", "CreateTime"), ("retention.ms", "3600000")])?;
    start_ready(&mut bench.agent)?;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    // Of 1970, nine days ago, two hours ahead, and now.
    let times = [86_400.0, now - 9.0 * 24.0 * HOUR_S, now + 2.0 * HOUR_S, now];
    for (round, time) in times.iter().enumerate() {
        let payloads = (0..50).map(|n| format!("{{\"value\":{},\"ts\":{}}}", round * 50 + n, time + n as f64));
        publish(&bench.mosquitto, "plant/hall-3/pump-1/flow", payloads)?;
    }
    let all: BTreeSet<u32> = (0..200).collect();
    let values =
        |records: &[KafkaRecord]| records.iter().filter_map(|record| Some(record.json().ok()?["value"].as_f64()? as u32)).collect::<BTreeSet<u32>>();
    send_old_record(&bench)?;
    wait_for("all readings", SOON, || Ok((values(&bench.records(READINGS)?) == all).then_some(())))?;

    // A record that bears an old time, on a topic that keeps it, is gone once Kafka has looked for what has expired: so it has looked at ours too.
    wait_until("an old record to expire", SOON, || bench.records(SNAPSHOTS).is_ok_and(|records| records.is_empty()))?;
    let records = bench.records(READINGS)?;
    ensure!(records.len() == 200 && values(&records) == all, "{} records after the check", records.len());
    for record in &records {
        let near = record.timestamp_ms.is_some_and(|ms| (ms as f64 / 1e3 - now).abs() < HOUR_S);
        ensure!(near == has_time, "time of {record:?}");
    }
    let old = records.iter().filter_map(|record| record.json().ok()?["ts_ms"].as_f64()).filter(|ms| *ms < (now - 8.0 * 24.0 * HOUR_S) * 1e3).count();
    ensure!(old >= 50, "only {old} records bear the old times in their value");
    let metrics = bench.agent.metrics()?;
    for name in ["aborted", "refused"] {
        ensure!(metrics.sum(&format!("hark_forward_{name}_total")) == Some(0.0), "{name}");
    }
    bench.agent.stop().map(drop)
}

/// What the agent must not do: hand over a time of 1970 to a topic that takes it.
fn send_old_record(bench: &TestBench) -> Result<()> {
    let topic = SNAPSHOTS.full_name(PREFIX);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new().set("bootstrap.servers", bench.kafka.bootstrap()).create()?;
    producer.send(BaseRecord::to(&topic).key("old").payload("{}").timestamp(86_400_000)).map_err(|(error, _)| error)?;
    producer.flush(SOON)?;
    Ok(())
}

#[test]
fn any_time_is_taken_under_log_append_time() -> Result<()> {
    each_time_arrives(&[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "3600000")], true)
}

#[test]
fn any_time_is_taken_under_create_time() -> Result<()> {
    each_time_arrives(&[("message.timestamp.type", "CreateTime"), ("retention.ms", "3600000"), ("segment.ms", "3600000")], false)
}
