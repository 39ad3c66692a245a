//! Promise 5: replay gives the same answer. Inference is a function of the inputs lane and of nothing else.
//!
//! Two machines are heard through a real broker while the agent is killed again and again. One of them falls silent, its alarm is acknowledged, its
//! configuration changes, and the gateway's clock is set: an hour back and forth, and a start in 1970. At the end the inputs lane is taken from Kafka
//! and goes through the engine once, without any interruption. Predictions, alarms and events in Kafka must be those, record by record.
#![expect(clippy::disallowed_methods, reason = "the machines run beside the test; the scope joins them")]
#![expect(clippy::print_stdout, reason = "what was compared, for --nocapture")]
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hark::{
    buffer::{Log, LogSettings, Position},
    inference::{Bundles, Engine},
    local::{
        client::Client,
        message::{Answer, ChangeRequest, CommandRequest, Request},
    },
    record::{Body, Entry, Stamp},
};
use hark_protocol::topics::{
    ALARMS, Alarm, EVENTS, Event, FeedbackAction, Identity, LaneName, PREDICTIONS, Prediction, READINGS, Reading, Record, Subject, Timestamp,
};
use hark_tests::support::{Agent, Connection, Kafka, KafkaRecord, Load, Mosquitto, Settings, in_clone, start_ready, wait_for, wait_until};
use serde::de::DeserializeOwned;
use serde_json::Value;

const GATEWAY: &str = "gw-exact";
const PREFIX: &str = "exact.";
const SOON: Duration = Duration::from_secs(60);
const KILLS: usize = 24;
/// Stops by one of which nothing is left to be delivered.
const STOPS: usize = 5;

/// What the kills of this scenario come between.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given {
    Acknowledge,
    Change,
    HourBack,
    HourForth,
    BootIn1970,
    ClockKnown,
}

#[test]
fn after_any_number_of_kills_predictions_are_those_of_a_run_without_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    kafka.create_topics(PREFIX)?;
    let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let clock = dir.path().join("clock");
    fs::write(&clock, "+0\n")?;
    let mut agent = configure(&dir.path().join("agent"), &kafka, mosquitto.port(), &clock)?;
    start_ready(&mut agent)?;
    // The broker keeps what comes while nobody listens from here on.
    let over = AtomicBool::new(false);
    let port = mosquitto.port();
    let kills = thread::scope(|scope| {
        let machines = [scope.spawn(|| pump(port, &over)), scope.spawn(|| fan(port, &over))];
        let kills = kill_again_and_again(&mut agent, &kafka, &clock);
        over.store(true, Ordering::Relaxed);
        for machine in machines {
            machine.join().map_err(|_| anyhow::anyhow!("a machine panicked"))??;
        }
        kills
    });
    kills.with_context(|| format!("end of the agent's log:\n{}", agent.log_tail()))?;
    stop_with_all_delivered(&mut agent)?;
    let log = fs::read_to_string(agent.dir().join("agent.log"))?;
    let resumed = log.matches("inference goes on from its checkpoint").count();
    compare(&kafka, &agent.dir().join("data"), resumed)
}

/// A tick or its prediction may come while it stops, and wait for the next start where the machine is busy.
fn stop_with_all_delivered(agent: &mut Agent) -> Result<()> {
    for _ in 0..STOPS {
        wait_until("everything to be delivered", SOON, || agent.metrics().is_ok_and(|metrics| metrics.sum("hark_buffer_records") == Some(0.0)))?;
        agent.stop()?;
        let status: Value = serde_json::from_str(&agent.command(&["buffer", "status", "--json"])?)?;
        let lanes = status["lanes"].as_array().context("no lanes are told of")?;
        let waiting = lanes.iter().map(|lane| lane["waiting"].as_u64().context("no number waits")).sum::<Result<u64>>()?;
        if waiting == 0 {
            return Ok(());
        }
        println!("{waiting} records wait for the next start");
        start_ready(agent)?;
    }
    bail!("records wait after each of {STOPS} stops")
}

fn configure(dir: &Path, kafka: &Kafka, mqtt_port: u16, clock: &Path) -> Result<Agent> {
    let tables = format!(
        "checkpoint_every = \"700ms\"\n\n[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{PREFIX}\"\n\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {mqtt_port}\n\n\
         [[mqtt.topic]]\ntemplate = \"plant/hall/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\", time = \"/ts\" }}\n",
        kafka.bootstrap()
    );
    let assets = [("pump-1".to_owned(), asset_text("pump-1", "100ms", "2s")), ("fan-1".to_owned(), asset_text("fan-1", "1s", "3s"))];
    let mut agent = Agent::configure(env!("CARGO_BIN_EXE_hark-under-test"), dir, GATEWAY, &tables, &assets)?;
    // The wall clock alone is set: whoever measures durations asks the kernel.
    agent.set_environment(&[
        ("LD_PRELOAD", faketime()?),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
    ]);
    Ok(agent)
}

fn faketime() -> Result<String> {
    let found = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
        .map(|dir| format!("{dir}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    found.context("libfaketime is missing: install the package `faketime`")
}

fn asset_text(id: &str, grid: &str, stale_after: &str) -> String {
    format!(
        "id = \"{id}\"\ngrid = \"{grid}\"\nstale_after = \"{stale_after}\"\npredict_every = \"500ms\"\n\n[commissioning]\nrows = 140\n\n\
         [alarm]\non_delay = \"500ms\"\noff_delay = \"2s\"\n\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n\n[[point]]\nid = \"pressure\"\nunit = \"bar\"\n"
    )
}

/// Two coupled values of row `row`; a faulty machine loses the coupling.
fn values(row: usize, faulty: bool) -> [f64; 2] {
    let noise = |n: usize| ((n as f64 * 12.9898).sin() * 43_758.545).fract();
    let flow = 10.0 + noise(row);
    [flow, if faulty { 40.0 * noise(row + 7_000_000) } else { 2.0 * flow + 0.1 * noise(row + 5_000_000) }]
}

/// Tells no time, so the gateway's clock gives it: ten rows a second, with a fault from row 200 to 280 of each 400.
fn pump(port: u16, over: &AtomicBool) -> Result<()> {
    let mut connection = Connection::open(port, "pump")?;
    let mut row = 0;
    while !over.load(Ordering::Relaxed) {
        let load = Load { messages: 20, window: 64, interval: Duration::from_millis(50) };
        connection.publish(&load, |message, topic, payload| {
            let at = row + message / 2;
            topic.push_str(["plant/hall/pump-1/flow", "plant/hall/pump-1/pressure"][message % 2]);
            payload.push_str(&format!("{{\"value\":{}}}", values(at, (200..280).contains(&(at % 400)))[message % 2]));
        })?;
        row += 10;
    }
    Ok(())
}

/// Has a clock of its own, in 2025, that runs forty times as fast. It is cut off for six seconds in every twenty.
fn fan(port: u16, over: &AtomicBool) -> Result<()> {
    let mut connection = Connection::open(port, "fan")?;
    let mut row = 0;
    for second in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let silent = second % 20 >= 14;
        let load = Load { messages: if silent { 2 } else { 80 }, window: 128, interval: Duration::from_millis(if silent { 1_000 } else { 12 }) };
        connection.publish(&load, |message, topic, payload| {
            let at = row + message / 2;
            topic.push_str(match (silent, message % 2) {
                (true, _) => "elsewhere",
                (false, 0) => "plant/hall/fan-1/flow",
                (false, _) => "plant/hall/fan-1/pressure",
            });
            payload.push_str(&format!("{{\"value\":{},\"ts\":{}}}", values(at, (250..300).contains(&(at % 400)))[message % 2], 1_740_000_000 + at));
        })?;
        row += if silent { 0 } else { 40 };
    }
    Ok(())
}

/// Kills the agent whenever it has taken so many more readings, and gives it something between two lives now and then.
fn kill_again_and_again(agent: &mut Agent, kafka: &Kafka, clock: &Path) -> Result<()> {
    let mut random = 0x9E37_79B9_u64;
    let mut plan = BTreeMap::from([
        (8, Given::HourBack),
        (11, Given::Change),
        (14, Given::HourForth),
        (17, Given::Acknowledge),
        (19, Given::BootIn1970),
        (21, Given::ClockKnown),
        (22, Given::Acknowledge),
    ]);
    for kill in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let readings = 20 + (random >> 33) % 180;
        let accepted = || agent.metrics().ok()?.sum("hark_source_readings_accepted_total");
        wait_until("readings to come in", SOON, || accepted() > Some(readings as f64)).context("before a kill")?;
        let given = plan.remove(&kill);
        // While the agent runs, and it is killed soon afterwards.
        match given {
            Some(Given::HourBack) => fs::write(clock, "-1h\n")?,
            Some(Given::HourForth | Given::ClockKnown) => fs::write(clock, "+0\n")?,
            Some(Given::Acknowledge) => ask(agent, &acknowledge(kafka)?)?,
            Some(Given::Change) => ask(agent, &change(agent)?)?,
            Some(Given::BootIn1970) | None => {}
        }
        if matches!(given, Some(Given::HourBack | Given::HourForth | Given::ClockKnown)) {
            let before = accepted().unwrap_or_default();
            wait_until("readings under the clock that was set", SOON, || accepted() > Some(before + 60.0))?;
        }
        agent.kill()?;
        if given == Some(Given::BootIn1970) {
            fs::write(clock, "-56y\n")?;
        }
        start_ready(agent)?;
    }
    Ok(())
}

/// Over the local socket, as a person at the gateway does.
fn ask(agent: &Agent, request: &Request) -> Result<()> {
    match Client::new(&agent.dir().join("data")).ask(request)? {
        Answer::Stored(_) => Ok(()),
        other => bail!("{request:?} was answered by {other:?}"),
    }
}

fn acknowledge(kafka: &Kafka) -> Result<Request> {
    let alarm = wait_for("an alarm", SOON, || Ok(kafka.read_committed(&ALARMS.full_name(PREFIX))?.pop()))?.json()?;
    let asset = if alarm["asset"] == "fan-1" { "fan-1" } else { "pump-1" };
    let mut command = CommandRequest::new(asset, FeedbackAction::Acknowledge);
    // The same id each time: from the second on it is a repetition.
    command.command_id = Some("command-1".to_owned());
    command.actor = Some("mw".to_owned());
    Ok(Request::Command(command))
}

/// Another pace, under which the state goes on; in the file too, or the next start would take it back.
fn change(agent: &Agent) -> Result<Request> {
    let configuration = asset_text("pump-1", "100ms", "2s").replace("predict_every = \"500ms\"", "predict_every = \"200ms\"");
    fs::write(agent.dir().join("assets/pump-1.toml"), &configuration)?;
    Ok(Request::Change(ChangeRequest { asset: "pump-1".to_owned(), configuration, actor: Some("mw".to_owned()), comment: None }))
}

/// The records of a lane in the order of the log, by incarnation; what was delivered twice must be the same twice.
fn lane(kafka: &Kafka, topics: &[String], name: LaneName, ordinals: &BTreeMap<String, u32>) -> Result<BTreeMap<(u32, u64), Value>> {
    let mut records: BTreeMap<(u32, u64), Value> = BTreeMap::new();
    for topic in topics {
        for record in kafka.read_committed(topic)?.iter().filter(|record| record.headers.get("lane").is_some_and(|lane| *lane == *name.as_str())) {
            let at = place(record, ordinals)?;
            let value = record.json()?;
            let first = records.entry(at).or_insert_with(|| value.clone());
            ensure!(*first == value, "two records at one place: {first} and {value}");
        }
    }
    Ok(records)
}

fn place(record: &KafkaRecord, ordinals: &BTreeMap<String, u32>) -> Result<(u32, u64)> {
    let header = |name: &str| record.headers.get(name).with_context(|| format!("{record:?} has no {name}"));
    let inc = header("inc")?;
    Ok((*ordinals.get(inc).with_context(|| format!("incarnation {inc} is not known"))?, header("seq")?.parse()?))
}

fn compare(kafka: &Kafka, data: &Path, resumed: usize) -> Result<()> {
    let (log, writer) = Log::open(data, LogSettings::new(1 << 30))?;
    let ordinals: BTreeMap<String, u32> = log.ended().iter().map(|ended| (ended.incarnation.id.to_string(), ended.incarnation.ordinal)).collect();
    let ids: BTreeMap<u32, String> = ordinals.iter().map(|(id, ordinal)| (*ordinal, id.clone())).collect();
    let [readings, events, predictions, alarms] = [READINGS, EVENTS, PREDICTIONS, ALARMS].map(|topic| topic.full_name(PREFIX));
    let inputs = lane(kafka, &[readings, events.clone()], LaneName::Inputs, &ordinals)?;
    for ended in log.ended() {
        let found = inputs.keys().filter(|(ordinal, _)| *ordinal == ended.incarnation.ordinal).count() as u64;
        ensure!(found == ended.last_seq(LaneName::Inputs), "incarnation {} has {found} inputs in Kafka: {ended:?}", ended.incarnation.ordinal);
    }
    drop((log, writer));

    let mut engine = Engine::empty(Bundles::offered_in(&in_clone("models")))?;
    let (mut outputs, mut kinds) = (Vec::new(), BTreeMap::new());
    for ((ordinal, seq), value) in &inputs {
        let entry = entry(value)?;
        if let Body::Event(event) = &entry.body {
            *kinds.entry(format!("{:?}", event.kind)).or_insert(0) += 1;
        }
        engine.process(Position { ordinal: *ordinal, seq: *seq }, &ids[ordinal], &entry, &mut outputs);
    }
    let counters = engine.counters();
    println!("{} inputs {kinds:?}, {resumed} starts from a checkpoint\n{counters:?}", inputs.len());
    let lived = |kind: &str, at_least: u32| kinds.get(kind).is_some_and(|count| *count >= at_least);
    ensure!(lived("Tick", 10) && lived("Command", 2) && lived("Change", 5) && lived("Clock", 3), "not all of it happened: {kinds:?}");
    ensure!(counters.silences >= 2 && counters.alarm_changes >= 3 && counters.rows_scored > 300 && counters.clock_corrections >= 3, "{counters:?}");
    ensure!(counters.commands_repeated == 1 && resumed >= KILLS / 2, "{resumed} starts from a checkpoint, {counters:?}");

    for (topic, name) in [(predictions, LaneName::Predictions), (alarms, LaneName::Alarms), (events, LaneName::Events)] {
        let found = lane(kafka, &[topic], name, &ordinals)?;
        let found: Vec<_> = found.into_iter().filter(|(_, value)| name != LaneName::Events || is_of_inference(value)).collect();
        let expected: Vec<&Entry> = outputs.iter().filter(|(lane, _)| *lane == name).map(|(_, entry)| entry).collect();
        for (index, (((ordinal, seq), found), expected)) in found.iter().zip(&expected).enumerate() {
            let expected = json(expected, &ids[ordinal], name, *seq)?;
            same(&expected, found).with_context(|| format!("record {index} of {name}, at {ordinal}/{seq}"))?;
        }
        ensure!(found.len() == expected.len(), "{} records of {name} in Kafka, {} in a run without a kill", found.len(), expected.len());
        println!("{} records of {name} equal", found.len());
    }
    Ok(())
}

/// The other events tell of gaps, starts and sources.
fn is_of_inference(event: &Value) -> bool {
    matches!(event["kind"].as_str(), Some("commissioning" | "audit" | "maintenance" | "operating_state" | "instrument"))
}

fn parsed<B: DeserializeOwned>(value: &Value) -> Result<(Subject, B)> {
    let record: Record<B> = serde_json::from_value(value.clone()).with_context(|| format!("{value}"))?;
    Ok((record.identity.subject, record.body))
}

/// A record of the inputs lane as the log held it.
fn entry(value: &Value) -> Result<Entry> {
    let (subject, body) = if value["kind"].is_null() {
        let (subject, body) = parsed::<Reading>(value)?;
        (subject, Body::Reading(body))
    } else {
        let (subject, body) = parsed::<Event>(value)?;
        (subject, Body::Event(body.into()))
    };
    let ts: Timestamp = subject.ts.parse().map_err(|_| anyhow::anyhow!("{} is no time", subject.ts))?;
    let stamp = Stamp { asset: subject.asset, ts, ts_source: subject.ts_source, clock: subject.clock, origin: subject.origin };
    Ok(Entry { stamp, cause: None, body })
}

/// An output as it stands in Kafka.
fn json(entry: &Entry, inc: &str, lane: LaneName, seq: u64) -> Result<Value> {
    let Stamp { asset, ts, ts_source, clock, origin } = entry.stamp.clone();
    let identity = Identity::new(GATEWAY.into(), inc.to_owned(), lane, seq, Subject::new(asset, ts, ts_source, clock, origin));
    // Through text, as what came from Kafka did.
    let text = match &entry.body {
        Body::Prediction(body) => serde_json::to_string(&Record::<&Prediction> { identity, body })?,
        Body::Alarm(body) => serde_json::to_string(&Record::<&Alarm> { identity, body })?,
        Body::Event(body) => serde_json::to_string(&Record::<&Event> { identity, body })?,
        Body::Reading(_) | Body::Snapshot(_) => bail!("inference gives no such record"),
    };
    Ok(serde_json::from_str(&text)?)
}

fn same(expected: &Value, found: &Value) -> Result<()> {
    let (Value::Object(expected), Value::Object(found)) = (expected, found) else { bail!("no objects: {expected} {found}") };
    for field in expected.keys().chain(found.keys()) {
        ensure!(expected.get(field) == found.get(field), "{field} is {:?} without a kill and {:?} in Kafka", expected.get(field), found.get(field));
    }
    Ok(())
}
