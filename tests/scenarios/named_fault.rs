//! Promise 4: an alarm says what is wrong, why it is believed, and what it was made of can be looked at. A bearing's outer ring goes bad before a real
//! broker, the real agent and a real Kafka.
use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use hark_firmware_sim::{
    MqttNode, MqttNodeConfig,
    machine::{Fault, Law, MachineConfig},
    mqtt::Broker,
};
use hark_protocol::topics::{ALARMS, EVENTS, SNAPSHOTS, Topic};
use hark_tests::support::{Agent, Kafka, Mosquitto, PREFIX, Settings, start_ready, wait_for};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(120);
const SAMPLES: u64 = 16_384;
const FAN: &str = r#"id = "fan"
name = "Exhaust fan"
[alarm]
on_delay = "2s"
[[point]]
id = "de-h.v_rms"
unit = "mm/s"
severity = "2-rigid"
[[waveform]]
id = "de-h"
unit = "[g]"
speed_rpm = 1797
bearing = { elements = 9, element_mm = 7.94, pitch_mm = 39.04 }
diagnose_every = "1s"
"#;

#[test]
fn an_alarm_names_the_fault_and_brings_the_blocks_behind_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    kafka.create_topics(PREFIX)?;
    let broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let mut agent = agent(&dir.path().join("agent"), &kafka, broker.port())?;
    start_ready(&mut agent)?;
    let config = MqttNodeConfig {
        machine: MachineConfig::watched(Fault::OuterRace, Law::Linear, Duration::from_secs(2), Duration::from_secs(120)),
        waveform_samples: SAMPLES as usize,
        block_every: Duration::from_millis(500),
        ..MqttNodeConfig::new(Broker::new("127.0.0.1", broker.port(), "hark-fan"), "fan")
    };
    let machine = MqttNode::spawn(config).context("failed to start the machine")?;

    let records = |topic: Topic| kafka.read_committed(&topic.full_name(PREFIX))?.iter().map(|record| record.json()).collect::<Result<Vec<Value>>>();
    let alarm = wait_for("the alarm", SOON, || {
        agent.check_running()?;
        Ok(records(ALARMS)?.into_iter().find(|alarm| alarm["point"] == "de-h.fault.outer" && alarm["state"] == "active_unacknowledged"))
    })
    .with_context(|| agent.log_tail())?;
    ensure!(alarm["what"] == "fault of a bearing's outer ring at `de-h`" && alarm["failure_mode"] == "VIB", "{alarm:#}");
    ensure!(alarm["value"].as_f64() >= Some(1.0) && alarm["limit"] == 1.0 && alarm["priority"] == "medium", "{alarm:#}");
    let listed = agent.command(&["alarm", "list"])?;
    ensure!(listed.contains("fault of a bearing's outer ring at `de-h`") && listed.contains("Spalling"), "{listed}");

    // All the blocks that were kept, each whole.
    let blocks = wait_for("the blocks behind the alarm", SOON, || whole_blocks(&records(SNAPSHOTS)?, &alarm["alarm_id"]))?;
    ensure!(blocks >= 2, "{blocks} blocks");
    let said = agent.command(&["event", "snapshot", "fan", "de-h", "--actor", "M. Weber"])?;
    ensure!(said.starts_with("fan: snapshot granted"), "{said}");
    let granted = wait_for("the answer", SOON, || Ok(records(EVENTS)?.into_iter().find(|event| event["what"] == "snapshot_request")))?;
    let asked = wait_for("the block that was asked for", SOON, || whole_blocks(&records(SNAPSHOTS)?, &granted["command_id"]))?;
    ensure!(asked == 1 && granted["actor"] == "M. Weber", "{asked} blocks for {granted:#}");
    let unknown = agent.output(&["event", "snapshot", "fan", "nde-h"])?;
    ensure!(unknown.status.code() == Some(1) && String::from_utf8_lossy(&unknown.stderr).contains("no such waveform"), "{unknown:?}");
    drop(machine);
    agent.stop().map(drop)
}

/// How many blocks for `cause_id` are there; `None` while there are none or chunks of one are missing.
fn whole_blocks(snapshots: &[Value], cause_id: &Value) -> Result<Option<u64>> {
    let mut blocks: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for chunk in snapshots.iter().filter(|chunk| chunk["cause_id"] == *cause_id) {
        ensure!(chunk["point"] == "de-h" && chunk["unit"] == "[g]" && chunk["fs_hz"].as_f64() > Some(20_000.0), "{chunk}");
        let block = blocks.entry(chunk["snapshot_id"].as_str().context("no id")?).or_default();
        let samples = chunk["samples"].as_u64().context("no samples")?;
        // Four letters for three bytes.
        let bytes = chunk["data_b64"].as_str().context("no data")?.trim_end_matches('=').len() as u64 * 3 / 4;
        ensure!(bytes == 2 * samples, "{bytes} bytes for {samples} samples");
        *block = (block.0 + 1, chunk["chunks"].as_u64().context("no number of chunks")?, block.2 + samples);
    }
    let whole = blocks.values().all(|(found, chunks, samples)| found == chunks && *samples == SAMPLES);
    Ok((whole && !blocks.is_empty()).then_some(blocks.len() as u64))
}

fn agent(dir: &std::path::Path, kafka: &Kafka, port: u16) -> Result<Agent> {
    let tables = format!(
        "[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{PREFIX}\"\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {port}\nsession_expiry = \"1h\"\n\
         [[mqtt.topic]]\ntemplate = \"plant/{{area}}/{{asset}}/{{point}}/waveform\"\npayload = {{ waveform = true, time_unit = \"ms\" }}\n",
        kafka.bootstrap()
    );
    Agent::configure(PROGRAM, dir, "gw-named", &tables, &[("fan".into(), FAN.to_owned())])
}
