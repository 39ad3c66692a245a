//! Commands over Kafka: what a person writes to `hark.feedback.v1` is applied once, whatever is killed, and what is not meant for this gateway is not.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use hark_protocol::topics::{ALARMS, EVENTS, FEEDBACK, Topic};
use hark_tests::support::{Agent, Kafka, Mosquitto, PREFIX, Settings, publish, start_ready, wait_for, wait_until};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);

/// A limit is passed; the alarm is acknowledged and shelved over Kafka while the agent, its reader and Kafka are killed or restarted.
#[test]
fn a_command_over_kafka_is_applied_once() -> Result<()> {
    let mut site = Site::new()?;
    let mut agent = site.agent()?;
    start_ready(&mut agent)?;
    publish(&site.mosquitto, "plant/fan/temperature", ["{\"value\":91.5}".to_owned()])?;
    site.wait_for_state("active_unacknowledged")?;

    // What is not for this gateway, or not to be applied, comes first: it holds up nothing.
    site.send(&[
        command("c-other", "acknowledge", json!({"gw": "gw-other"})),
        command("c-late", "acknowledge", json!({"expires_at": "2024-06-01T00:00:00Z"})),
        command("c-asset", "acknowledge", json!({"asset": "pump"})),
        command("c-action", "sing", json!({})),
        command("c-version", "acknowledge", json!({"sv": 7})),
        "{\"gw\": \"gw-far\", ".to_owned(),
        "x".repeat(100_000),
        command("c-snapshot", "snapshot_request", json!({"point": "temperature"})),
        command("c-1", "acknowledge", json!({"comment": "on my way"})),
        command("c-1", "acknowledge", json!({"comment": "on my way"})),
    ])?;
    site.wait_for_state("active_acknowledged").with_context(|| agent.log_tail())?;
    site.wait_for_answers(&agent, "c-1", &["success"])?;
    for refused in ["c-asset", "c-action", "c-version", "c-snapshot"] {
        site.wait_for_answers(&agent, refused, &["refused"])?;
    }
    let expected = [
        ("other_gateway", 1.0),
        ("expired", 1.0),
        ("unknown_asset", 1.0),
        ("unknown_action", 1.0),
        ("wrong_version", 1.0),
        ("malformed", 1.0),
        ("too_long", 1.0),
        ("taken", 3.0),
    ];
    let metrics = agent.metrics()?;
    let counted = expected.map(|(outcome, _)| (outcome, metrics.get(&format!("hark_feedback_total{{outcome=\"{outcome}\"}}")).unwrap_or(0.0)));
    ensure!(counted == expected, "{counted:?}");

    // A sender that repeats itself, and an agent that is killed, before and after it has read the topic again from its beginning.
    let reader = reader_of(&agent)?;
    agent.kill()?;
    wait_until("the reader to end with its agent", Duration::from_secs(10), || !runs(reader))?;
    site.send(&[command("c-1", "acknowledge", json!({}))])?;
    start_ready(&mut agent)?;
    site.send(&[command("c-2", "shelve", json!({"until": in_hours(8)}))])?;
    site.wait_for_state("shelved")?;
    agent.kill()?;
    for generation in ["feedback.0", "feedback.1"] {
        let _absent = fs::remove_file(agent.dir().join("data").join(generation));
    }
    start_ready(&mut agent)?;
    let read_again = || metric(&agent, "hark_feedback_total{outcome=\"taken\"}") == 5.0;
    wait_until("the topic to be read again", SOON, read_again).with_context(|| agent.log_tail())?;

    // The reader dies as its library may, and Kafka restarts.
    let reader = reader_of(&agent)?;
    kill_process(Pid::from_raw(i32::try_from(reader)?).context("a process id")?, Signal::KILL)?;
    site.send(&[command("c-3", "unshelve", json!({}))])?;
    site.wait_for_answers(&agent, "c-3", &["success"])?;
    ensure!(reader_of(&agent)? != reader && metric(&agent, "hark_feedback_reader_starts_total") >= 2.0, "it is the same reader");
    site.kafka.restart()?;
    site.send(&[command("c-4", "out_of_service", json!({}))])?;
    site.wait_for_answers(&agent, "c-4", &["success"])?;
    for (id, result) in [("c-1", "success"), ("c-2", "success"), ("c-3", "success"), ("c-snapshot", "refused")] {
        site.wait_for_answers(&agent, id, &[result])?;
    }
    ensure!(site.answers("c-other")?.is_empty() && site.answers("c-late")?.is_empty(), "they are answered");

    let reader = reader_of(&agent)?;
    agent.stop()?;
    ensure!(!runs(reader), "the reader outlives a stop");
    let said = fs::read_to_string(agent.log())?;
    ensure!(said.contains("signal: 9") && !said.contains("panicked"), "{said}");
    let states = site.states()?;
    let acknowledged = states.iter().filter(|state| *state == "active_acknowledged").count();
    ensure!(acknowledged == 1, "{states:?}");
    Ok(())
}

struct Site {
    dir: tempfile::TempDir,
    kafka: Kafka,
    mosquitto: Mosquitto,
}

impl Site {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let kafka = Kafka::start(&dir.path().join("kafka"))?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
        Ok(Self { dir, kafka, mosquitto })
    }

    fn agent(&self) -> Result<Agent> {
        let tables = format!(
            "[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{PREFIX}\"\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\n\
             [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
            self.kafka.bootstrap(),
            self.mosquitto.port()
        );
        let asset = "id = \"fan\"\n[alarm]\non_delay = \"0s\"\noff_delay = \"0s\"\n\
                     [[point]]\nid = \"temperature\"\nunit = \"Cel\"\nscored = false\nlimits = { high = 80.0 }\n";
        let program = env!("CARGO_BIN_EXE_hark-under-test");
        Agent::configure(program, &self.dir.path().join("agent"), "gw-test", &tables, &[("fan".to_owned(), asset.to_owned())])
    }

    /// Writes to the topic of commands, and returns when Kafka has it.
    fn send(&self, values: &[String]) -> Result<()> {
        let topic = FEEDBACK.full_name(PREFIX);
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new().set("bootstrap.servers", self.kafka.bootstrap()).create()?;
        for value in values {
            producer.send(BaseRecord::to(&topic).key("fan").payload(value)).map_err(|(error, _)| error)?;
        }
        producer.flush(SOON).context("Kafka took no command")
    }

    fn values(&self, topic: Topic) -> Result<Vec<Value>> {
        self.kafka.read_committed(&topic.full_name(PREFIX))?.iter().map(|record| record.json()).collect()
    }

    /// The states of alarms in the order in which they were told.
    fn states(&self) -> Result<Vec<String>> {
        Ok(self.values(ALARMS)?.iter().map(|alarm| alarm["state"].as_str().unwrap_or_default().to_owned()).collect())
    }

    fn wait_for_state(&self, wanted: &str) -> Result<()> {
        let mut states = Vec::new();
        let waited = wait_for(&format!("the state {wanted}"), SOON, || {
            states = self.states()?;
            Ok(states.last().is_some_and(|state| state == wanted).then_some(()))
        });
        waited.with_context(|| format!("{states:?}"))
    }

    /// What came of the command: `success` or `refused`, once for each time that it was applied.
    fn answers(&self, id: &str) -> Result<Vec<String>> {
        let of = |event: &&Value| event["kind"] == "audit" && event["command_id"] == id;
        Ok(self.values(EVENTS)?.iter().filter(of).map(|event| event["result"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Waits until the command is answered, and nothing waits any more that could bring a second answer.
    fn wait_for_answers(&self, agent: &Agent, id: &str, expected: &[&str]) -> Result<()> {
        wait_until(&format!("an answer to {id}"), SOON, || self.answers(id).is_ok_and(|answers| !answers.is_empty()))
            .with_context(|| agent.log_tail())?;
        wait_until("all records to be delivered", SOON, || agent.metrics().is_ok_and(|metrics| metrics.sum("hark_buffer_records") == Some(0.0)))?;
        let answers = self.answers(id)?;
        ensure!(answers == expected, "{id}: {answers:?}");
        Ok(())
    }
}

/// A command to the fan of this gateway as a person's program writes it, with `changes`.
fn command(id: &str, action: &str, changes: Value) -> String {
    let mut command = json!({
        "event_id": format!("gw-test/feedback.v1/fan/{id}"), "gw": "gw-test", "inc": null, "sv": 1, "asset": "fan",
        "ts": "2026-11-30T08:00:00.000000Z", "ts_ms": 1_796_025_600_000_i64, "ts_source": "sender", "clock": "synced", "origin": "live",
        "command_id": id, "actor": "m.weber", "role": "maintenance", "issued_at": "2026-11-30T08:00:00Z", "expires_at": in_hours(1), "action": action,
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        command[key] = value.clone();
    }
    command.to_string()
}

fn in_hours(hours: i64) -> String {
    hark_protocol::topics::Timestamp((hark_tests::support::machine::now_ms() + hours * 3_600_000) * 1_000).to_string()
}

fn metric(agent: &Agent, series: &str) -> f64 {
    agent.metrics().ok().and_then(|metrics| metrics.get(series)).unwrap_or(0.0)
}

/// The process that reads commands for the agent, once there is one.
fn reader_of(agent: &Agent) -> Result<u32> {
    let parent = format!("PPid:\t{}\n", agent.process()?.pid());
    wait_for("the reader of commands", SOON, || {
        let mut processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Ok(processes.find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.starts_with("Name:\thark-feedback\n") && status.contains(&parent) && runs(*pid)
        }))
    })
}

/// One that has ended may stay a zombie for a moment.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
}
