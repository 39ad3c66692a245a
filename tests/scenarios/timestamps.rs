//! Promise 1 against clocks and topic settings: whatever time a reading bears, Kafka takes it, keeps it, and is not asked again and again.
//!
//! The agent hands records over without a time of their own. With `LogAppendTime` Kafka puts that of arrival; with `CreateTime` records have none, and
//! Kafka keeps them by the age of the file. Were the event's time handed over, Kafka would refuse what is ahead and delete at once what is old.
#![expect(clippy::disallowed_methods, reason = "the times that readings bear are relative to now")]
use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use hark_protocol::topics::READINGS;
use hark_tests::support::{KafkaRecord, PREFIX, TestBench, publish, start_ready, wait_for};

const SOON: Duration = Duration::from_secs(120);
const HOUR_S: f64 = 3_600.0;

fn each_time_arrives(settings: &[(&str, &str)], has_time: bool) -> Result<()> {
    let mut bench = TestBench::new(env!("CARGO_BIN_EXE_hark-under-test"))?;
    let topic = READINGS.full_name(PREFIX);
    bench.kafka.set_topic(&topic, settings)?;
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
    wait_for("all readings", SOON, || Ok((values(&bench.records(READINGS)?) == all).then_some(())))?;

    let records = bench.records(READINGS)?;
    ensure!(records.len() == 200 && values(&records) == all, "{} records in Kafka", records.len());
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

#[test]
fn any_time_is_taken_under_log_append_time() -> Result<()> {
    each_time_arrives(&[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "3600000")], true)
}

#[test]
fn any_time_is_taken_under_create_time() -> Result<()> {
    each_time_arrives(&[("message.timestamp.type", "CreateTime"), ("retention.ms", "3600000"), ("segment.ms", "3600000")], false)
}
