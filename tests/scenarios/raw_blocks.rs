//! Promise 4: what an alarm was made of can be looked at, also where a sensor node keeps it. Hark's node on a pty whose line damages what it carries, the
//! real agent and a real Kafka: the samples that arrive are those that the sensor took, bit for bit, and no feature is missing for it.
use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hark_firmware_sim::{
    SerialNode, SerialNodeConfig,
    firmware::{BLOCK_SAMPLES, SNAPSHOT_SAMPLES},
    machine::{Machine, MachineConfig},
    sensor::{RATE_HZ, Sensor},
};
use hark_protocol::topics::{ALARMS, EVENTS, READINGS, SNAPSHOTS, Topic};
use hark_tests::support::{Agent, Kafka, PREFIX, start_ready, wait_for};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(120);
const NODE: u32 = 7;
const SEED: u64 = 11;
const BLOCK_EVERY: Duration = Duration::from_millis(500);
/// Its limit is below what any machine does.
const FAN: &str = r#"id = "fan"
name = "Exhaust fan"
[alarm]
on_delay = "1s"
[[point]]
id = "de-h.v_rms"
unit = "mm/s"
limits = { high = 0.001 }
"#;

#[test]
fn an_alarm_and_a_person_bring_a_nodes_samples_bit_for_bit() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    kafka.create_topics(PREFIX)?;
    let link = dir.path().join("node");
    let troubles = ["bit-flip@0..900:0.03", "burst-loss@0..900:0.01", "duplicate@0..900:0.1", "reorder@0..900:0.05"];
    let node = SerialNode::spawn(SerialNodeConfig {
        node: NODE,
        seed: SEED,
        block_every: BLOCK_EVERY,
        disturbances: troubles.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        ..SerialNodeConfig::new(&link)
    })?;
    let tables = format!(
        "[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{PREFIX}\"\n[[serial]]\nname = \"nodes\"\npath = \"{}\"\nformat = \"node\"\n\
         [[serial.node]]\nid = {NODE}\nasset = \"fan\"\nchannels = [\"de-h\", \"\"]\n",
        kafka.bootstrap(),
        link.display()
    );
    let mut agent = Agent::configure(PROGRAM, &dir.path().join("agent"), "gw-raw", &tables, &[("fan".into(), FAN.to_owned())])?;
    start_ready(&mut agent)?;

    let records = |topic: Topic| kafka.read_committed(&topic.full_name(PREFIX))?.iter().map(|record| record.json()).collect::<Result<Vec<Value>>>();
    let alarm = wait_for("the alarm", SOON, || {
        agent.check_running()?;
        Ok(records(ALARMS)?.into_iter().find(|alarm| alarm["point"] == "de-h.v_rms" && alarm["state"] == "active_unacknowledged"))
    })
    .with_context(|| agent.log_tail())?;
    let of_alarm =
        wait_for("the block behind the alarm", SOON, || block(&records(SNAPSHOTS)?, &alarm["alarm_id"])).with_context(|| agent.log_tail())?;

    let said = agent.command(&["event", "snapshot", "fan", "de-h", "--actor", "M. Weber"])?;
    ensure!(said.starts_with("fan: snapshot granted"), "{said}");
    let granted = wait_for("the answer", SOON, || Ok(records(EVENTS)?.into_iter().find(|event| event["what"] == "snapshot_request")))?;
    let asked =
        wait_for("the block that was asked for", SOON, || block(&records(SNAPSHOTS)?, &granted["command_id"])).with_context(|| agent.log_tail())?;
    let unknown = agent.output(&["event", "snapshot", "fan", "nde-h"])?;
    ensure!(unknown.status.code() == Some(1) && String::from_utf8_lossy(&unknown.stderr).contains("no such waveform"), "{unknown:?}");

    let metrics = agent.metrics()?;
    ensure!(metrics.get("hark_snapshots_total{outcome=\"sent\"}") == Some(2.0), "{metrics:?}");
    agent.stop()?;
    let stats = node.stop()?;
    ensure!(stats.dropped == 0, "{stats:?}");
    let [first, second] = [of_alarm, asked].map(|samples| taken_in(&samples, stats.blocks));
    ensure!(first.is_some() && second > first, "blocks {first:?} and {second:?} of {}", stats.blocks);

    // Two frames of features for each block, this one first.
    let seqs: Vec<u64> = records(READINGS)?.iter().filter(|r| r["point"] == "de-h.v_rms").filter_map(|r| r["source_seq"].as_u64()).collect();
    ensure!(seqs.len() > 10 && seqs.iter().copied().eq((0..seqs.len() as u64).map(|n| 2 * n + 1)), "{seqs:?}");
    let restless = records(EVENTS)?.into_iter().find(|event| event["what"] == "raw_block_given_up");
    ensure!(restless.is_none(), "{restless:#?}");
    println!("blocks {first:?} and {second:?} of {}, {} of {} features", stats.blocks, seqs.len(), stats.blocks);
    Ok(())
}

/// The samples for `cause_id`; `None` while chunks are missing.
fn block(snapshots: &[Value], cause_id: &Value) -> Result<Option<Vec<i16>>> {
    let mut chunks = BTreeMap::new();
    let mut wanted = 1;
    for chunk in snapshots.iter().filter(|chunk| chunk["cause_id"] == *cause_id) {
        let right = chunk["point"] == "de-h" && chunk["unit"] == "[g]" && chunk["fs_hz"] == 26_667.0 && chunk["scale"] == 16.0 / 32_768.0;
        ensure!(right && chunk["ts_source"] == "sensor" && chunk["speed_hz"].as_f64().is_some_and(|hz| (29.0..31.0).contains(&hz)), "{chunk:#}");
        wanted = chunk["chunks"].as_u64().context("no number of chunks")?;
        let bytes = STANDARD.decode(chunk["data_b64"].as_str().context("no data")?)?;
        let samples: Vec<i16> = bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        ensure!(chunks.insert(chunk["chunk"].as_u64().context("no number")?, samples).is_none(), "a chunk twice");
    }
    Ok((chunks.len() as u64 == wanted).then(|| chunks.into_values().flatten().collect()))
}

/// The number of the node's block, from 1, whose last samples these are: what the same machine does before the same sensor.
fn taken_in(samples: &[i16], blocks: u64) -> Option<u64> {
    let (mut machine, sensor) = (Machine::new(MachineConfig::default(), SEED), Sensor::at(Duration::ZERO, &[]));
    let mut block_g = vec![0.0; BLOCK_SAMPLES];
    (1..=blocks).find(|_| {
        machine.advance(BLOCK_EVERY.as_secs_f64());
        machine.write_block(&mut block_g, RATE_HZ);
        // It draws from the same randomness.
        machine.process_values();
        block_g[BLOCK_SAMPLES - SNAPSHOT_SAMPLES..].iter().map(|sample_g| sensor.digitise(*sample_g)).eq(samples.iter().copied())
    })
}
