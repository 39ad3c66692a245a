//! The whole path: recorded files go through ptys and a real MQTT broker into the real agent and arrive in a real Kafka, row for row, and a replay of
//! the same files gives the same predictions, number for number.
#![expect(clippy::disallowed_methods, reason = "senders run side by side; the scope joins them")]
#![expect(clippy::print_stdout, reason = "what was compared, for --nocapture")]
use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use hark_firmware_sim::{ReplayConfig, Stop, mqtt::Broker, replay::Shape, replay_to_mqtt, replay_to_pty};
use hark_protocol::topics::{EVENTS, GATEWAYS, PREDICTIONS, READINGS};
use hark_tests::support::{Agent, Kafka, Mosquitto, Recording, Settings, wait_until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
/// What a prediction and a line of a replay both say.
const FIELDS: [&str; 12] = [
    "ts",
    "phase",
    "score",
    "limit",
    "above",
    "alarm",
    "health",
    "reason",
    "contrib_1_point",
    "contrib_1_share",
    "contrib_2_point",
    "contrib_2_share",
];
const ALL_ARRIVED: Duration = Duration::from_secs(180);

struct Case {
    asset: String,
    recording: Recording,
    through_pty: bool,
}

/// Three recordings through serial lines and three through MQTT: rows in and out are equal, predictions are those of a replay.
#[test]
fn recorded_rows_arrive_once_and_predictions_are_those_of_a_replay() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut cases = Vec::new();
    for (index, real) in ["valve1/0", "valve1/1", "other/1", "valve1/2", "other/5", "other/12"].into_iter().enumerate() {
        let made = || Recording::synthetic(dir.path().join(format!("made-{index}.csv")), index as u64 + 1, 700, 550);
        let recording = Recording::real(real, dir.path())?.map_or_else(made, Ok)?;
        println!("{real}: {} rows from {}", recording.rows, recording.file.display());
        cases.push(Case { asset: format!("machine-{index}"), recording, through_pty: index < 3 });
    }
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    kafka.create_topics("hark.")?;
    let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let mut agent = configure(&dir.path().join("agent"), &cases, &kafka, mosquitto.port())?;
    agent.start()?;
    wait_until("the agent to subscribe", Duration::from_secs(20), || {
        agent.metrics().is_ok_and(|m| m.get("hark_source_connected{source=\"plant\"}") == Some(1.0))
    })?;

    send_all(&cases, &agent, mosquitto.port())?;
    let expected: usize = cases.iter().map(|case| case.recording.rows * case.recording.columns.len()).sum();
    wait_until(&format!("{expected} readings in Kafka; log:\n{}", agent.log_tail()), ALL_ARRIVED, || {
        agent
            .metrics()
            .is_ok_and(|m| m.sum("hark_source_readings_accepted_total") == Some(expected as f64) && m.sum("hark_buffer_records") == Some(0.0))
    })?;
    agent.stop()?;

    let readings = by_asset(&kafka, &READINGS.full_name("hark."))?;
    let predictions = by_asset(&kafka, &PREDICTIONS.full_name("hark."))?;
    for case in &cases {
        check_readings(case, &readings[&case.asset])?;
        check_predictions(case, &predictions[&case.asset], &agent)?;
    }
    let events = kafka.read_committed(&EVENTS.full_name("hark."))?;
    ensure!(events.iter().any(|record| record.json().is_ok_and(|v| v["kind"] == "incarnation_opened")), "no event tells of the start");
    ensure!(!kafka.read_committed(&GATEWAYS.full_name("hark."))?.is_empty(), "no heartbeat");
    Ok(())
}

fn configure(dir: &Path, cases: &[Case], kafka: &Kafka, mqtt_port: u16) -> Result<Agent> {
    let mut tables =
        format!("[kafka]\nbrokers = \"{}\"\n\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {mqtt_port}\n", kafka.bootstrap());
    tables.push_str("[[mqtt.topic]]\ntemplate = \"plant/hall/{asset}/{point}\"\npayload = { value = \"/value\", time = \"/ts\" }\n");
    for case in cases.iter().filter(|case| case.through_pty) {
        let asset = &case.asset;
        tables
            .push_str(&format!("[[serial]]\nname = \"{asset}\"\npath = \"pty-{asset}\"\nformat = \"csv\"\nasset = \"{asset}\"\nseparator = \";\"\n"));
    }
    let assets: Vec<_> = cases.iter().map(|case| (case.asset.clone(), case.recording.asset_file(&case.asset))).collect();
    Agent::configure(PROGRAM, dir, "gw-path", &tables, &assets)
}

/// Plays all recordings at once, as fast as the other side takes them.
fn send_all(cases: &[Case], agent: &Agent, mqtt_port: u16) -> Result<()> {
    thread::scope(|scope| {
        let senders: Vec<_> = cases
            .iter()
            .map(|case| {
                let link = agent.dir().join(format!("pty-{}", case.asset));
                scope.spawn(move || {
                    let (_handle, stop) = Stop::new();
                    let config = ReplayConfig::new(&case.recording.file);
                    let report = if case.through_pty {
                        replay_to_pty(&config, &link, stop)
                    } else {
                        let broker =
                            Broker { host: "127.0.0.1".into(), port: mqtt_port, client_id: format!("sender-{}", case.asset), credentials: None };
                        replay_to_mqtt(&config, broker, &format!("plant/hall/{}/{{point}}", case.asset), &Shape::Scalars, stop)
                    };
                    report.map(|report| report.rows).with_context(|| format!("failed to play {}", case.recording.file.display()))
                })
            })
            .collect();
        for (sender, case) in senders.into_iter().zip(cases) {
            let rows = sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
            ensure!(rows == case.recording.rows as u64, "{} of {} rows of {} were sent", rows, case.recording.rows, case.asset);
        }
        Ok(())
    })
}

fn by_asset(kafka: &Kafka, topic: &str) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in kafka.read_committed(topic)? {
        records.entry(record.key.clone().context("a record without a key")?).or_default().push(record.json()?);
    }
    Ok(records)
}

/// Every cell of the file is there once, as the number that stands in the file.
fn check_readings(case: &Case, readings: &[Value]) -> Result<()> {
    let mut arrived: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for reading in readings {
        let text = |name: &str| reading[name].as_str().map(str::to_owned).with_context(|| format!("{name} of {reading}"));
        arrived.entry((text("ts")?, text("point")?)).or_default().push(reading["value"].as_f64().context("a value")?);
    }
    let file = std::fs::read_to_string(&case.recording.file)?;
    let mut lines = file.lines();
    let header: Vec<&str> = lines.next().context("a header")?.split(';').collect();
    let mut rows = 0;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split(';').collect();
        let ts = format!("{}.000000Z", cells[0].replace(' ', "T"));
        for (index, column) in case.recording.columns.iter().enumerate() {
            let at = header.iter().position(|name| name == column).context("the column")?;
            let sent: f64 = cells[at].parse()?;
            let values =
                arrived.get_mut(&(ts.clone(), format!("p{index}"))).with_context(|| format!("{} {ts} p{index} did not arrive", case.asset))?;
            let found = values
                .iter()
                .position(|value| *value == sent)
                .with_context(|| format!("{} {ts} p{index}: {sent} is not in {values:?}", case.asset))?;
            values.remove(found);
        }
        rows += 1;
    }
    let left: usize = arrived.values().map(Vec::len).sum();
    ensure!(rows == case.recording.rows && left == 0, "{}: {rows} rows sent, {left} values arrived beyond them", case.asset);
    println!("{}: {rows} rows in, {rows} rows out", case.asset);
    Ok(())
}

/// What the agent said of a row is what a replay of the file says of it.
fn check_predictions(case: &Case, predictions: &[Value], agent: &Agent) -> Result<()> {
    let input = case.recording.file.display().to_string();
    let output = agent.command(&["replay", "--asset", &case.asset, "--input", &input])?;
    let replayed: Vec<Value> = output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(replayed.len() == case.recording.rows, "{}: {} lines for {} rows", case.asset, replayed.len(), case.recording.rows);
    // The rows are a second or more apart, and so is the grid: one prediction each, in order.
    for (prediction, line) in predictions.iter().zip(&replayed) {
        for field in FIELDS {
            ensure!(
                prediction[field] == line[field],
                "{} row {}: {field} is {} live and {} in the replay",
                case.asset,
                line["row"],
                prediction[field],
                line[field]
            );
        }
    }
    ensure!(predictions.len() == replayed.len(), "{}: {} predictions for {} rows", case.asset, predictions.len(), replayed.len());
    let scored = predictions.iter().filter(|prediction| !prediction["score"].is_null()).count();
    ensure!(scored > 100, "{}: {scored} predictions with a score", case.asset);
    println!("{}: {} predictions equal, {scored} with a score", case.asset, predictions.len());
    Ok(())
}
