//! Promises 1 and 2 where the gateway or its topics are given another name: what was delivered is not sent again, what waits is delivered under the new
//! name, and `hark audit` is clean under both.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hark_protocol::topics::READINGS;
use hark_tests::support::{PREFIX, TestBench, publish, start_ready, wait_until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(120);

/// Publishes so many readings and waits until the agent has accepted them.
fn publish_and_wait(bench: &TestBench, count: u32) -> Result<()> {
    publish(&bench.mosquitto, "plant/hall/pump-1/flow", (0..count).map(|number| format!("{{\"value\":{number}}}")))?;
    wait_until("the readings to be accepted", SOON, || metric(bench, "hark_source_readings_accepted_total") >= f64::from(count))
        .with_context(|| bench.agent.log_tail())
}

fn wait_until_delivered(bench: &TestBench) -> Result<()> {
    wait_until("everything to be in Kafka", SOON, || metric(bench, "hark_buffer_records") == 0.0).with_context(|| bench.agent.log_tail())
}

fn metric(bench: &TestBench, name: &str) -> f64 {
    bench.agent.metrics().ok().and_then(|metrics| metrics.sum(name)).unwrap_or(f64::NAN)
}

/// Replaces a line of the configuration.
fn configure(bench: &TestBench, from: &str, to: &str) -> Result<()> {
    let path = bench.agent.dir().join("hark.toml");
    let text = std::fs::read_to_string(&path)?;
    ensure!(text.contains(from), "`{from}` is not in {}", path.display());
    Ok(std::fs::write(&path, text.replace(from, to))?)
}

/// A clean audit of what is delivered as `gateway` to the topics under `prefix`; gives how many records it says are elsewhere.
fn check_audit(bench: &TestBench, gateway: &str, prefix: &str) -> Result<u64> {
    let output = bench.agent.output(&["audit", "--json", "--gateway", gateway, "--topic-prefix", prefix])?;
    let json: Value = serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(output.status.code() == Some(0) && json["verdict"] == "clean", "as {gateway} to {prefix}: {json}");
    Ok(json["in_gaps"]["delivered_elsewhere"].as_u64().unwrap_or(0))
}

fn readings(bench: &TestBench, gateway: &str, prefix: &str) -> Result<usize> {
    let records = bench.kafka.read_committed(&READINGS.full_name(prefix))?;
    Ok(records.iter().filter(|record| record.headers.get("gw").is_some_and(|gw| gw == gateway)).count())
}

#[test]
fn another_name_neither_loses_nor_doubles_and_both_audits_are_clean() -> Result<()> {
    let mut bench = TestBench::new(PROGRAM)?;
    // One session of the plant's broker under all names: by itself each name has its own, which keeps for it what came meanwhile.
    configure(&bench, "name = \"plant\"", "name = \"plant\"\nclient_id = \"hark-plant\"")?;
    start_ready(&mut bench.agent)?;
    publish_and_wait(&bench, 100)?;
    wait_until_delivered(&bench)?;
    bench.agent.stop()?;
    ensure!(check_audit(&bench, "gw-test", PREFIX)? == 0, "nothing is elsewhere yet");

    // What waits when the name changes.
    bench.kafka.stop()?;
    start_ready(&mut bench.agent)?;
    publish_and_wait(&bench, 50)?;
    bench.agent.kill()?;
    bench.kafka.start_again()?;
    configure(&bench, "id = \"gw-test\"", "id = \"gw-new\"")?;
    start_ready(&mut bench.agent)?;
    publish_and_wait(&bench, 20)?;
    wait_until_delivered(&bench)?;
    ensure!(
        metric(&bench, "hark_buffer_lost_total") == 0.0 && metric(&bench, "hark_forward_cursor_expired_total") == 0.0,
        "{}",
        bench.agent.log_tail()
    );
    ensure!(check_audit(&bench, "gw-new", PREFIX)? >= 100, "what was delivered before is named");
    check_audit(&bench, "gw-test", PREFIX)?;

    // Other topics.
    bench.agent.stop()?;
    bench.kafka.create_topics("other.")?;
    configure(&bench, &format!("topic_prefix = \"{PREFIX}\""), "topic_prefix = \"other.\"")?;
    start_ready(&mut bench.agent)?;
    publish_and_wait(&bench, 10)?;
    wait_until_delivered(&bench)?;
    bench.agent.stop()?;
    ensure!(check_audit(&bench, "gw-new", "other.")? >= 170, "what was delivered before is named");

    // And back to the first name, of which Kafka has the cursors.
    configure(&bench, "topic_prefix = \"other.\"", &format!("topic_prefix = \"{PREFIX}\""))?;
    configure(&bench, "id = \"gw-new\"", "id = \"gw-test\"")?;
    start_ready(&mut bench.agent)?;
    publish_and_wait(&bench, 5)?;
    wait_until_delivered(&bench)?;
    bench.agent.stop()?;
    ensure!(check_audit(&bench, "gw-test", PREFIX)? >= 80, "what was delivered meanwhile is named");
    let found = [("gw-test", PREFIX), ("gw-new", PREFIX), ("gw-new", "other.")].map(|(gateway, prefix)| readings(&bench, gateway, prefix));
    let [first, second, third] = found;
    let found = (first?, second?, third?);
    ensure!(found == (105, 70, 10), "each reading is somewhere, once: {found:?}");
    Ok(())
}
