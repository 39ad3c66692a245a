//! A bench with everything on it: Kafka, Mosquitto and an agent between them, each in its place in one temporary directory.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use hark_protocol::topics::Topic;
use tempfile::TempDir;

use super::{Agent, Kafka, KafkaRecord, Mosquitto, Settings, http_get, wait_until};

/// Before the names of all topics of a bench.
pub const PREFIX: &str = "test.";

/// Rows of one second on which `pump-1` commissions.
pub const COMMISSIONING_ROWS: u32 = 140;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Brokers that run and an agent that does not run yet, for one asset `pump-1` with the points `flow` and `pressure` at the MQTT topics
/// `plant/<area>/pump-1/<point>`, payload `{"value": …}` or `{"value": …, "ts": …}`. It commissions on [`COMMISSIONING_ROWS`] rows.
///
/// Everything is stopped and removed when dropped; with `HARK_KEEP=1` in the environment the directory stays.
#[derive(Debug)]
pub struct TestBench {
    /// The agent. Fields are dropped in this order: it goes before what it talks to.
    pub agent: Agent,
    /// Kafka, with all topics.
    pub kafka: Kafka,
    /// The plant's broker, with the plant's settings.
    pub mosquitto: Mosquitto,
    dir: Dir,
}

#[derive(Debug)]
enum Dir {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl TestBench {
    /// Starts the brokers, creates the topics and writes the configuration for the agent `program`, see [`Agent::configure`].
    ///
    /// # Errors
    /// When a broker does not start.
    pub fn new(program: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("hark-bench-").context("failed to create a temporary directory")?;
        let dir = if std::env::var_os("HARK_KEEP").is_some() { Dir::Kept(dir.keep()) } else { Dir::Temporary(dir) };
        let path = dir.path();
        let kafka = Kafka::start(&path.join("kafka"))?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&path.join("mosquitto"), Settings::Plant)?;
        let assets = [("pump-1".to_owned(), format!("{PUMP}\n[commissioning]\nrows = {COMMISSIONING_ROWS}\n"))];
        let agent = Agent::configure(program, &path.join("agent"), "gw-test", &tables(&kafka.bootstrap(), mosquitto.port()), &assets)?;
        Ok(Self { agent, kafka, mosquitto, dir })
    }

    /// Where everything of this bench is: `agent/`, `kafka/`, `mosquitto/`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What a `read_committed` consumer sees in `topic` now.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn records(&self, topic: Topic) -> Result<Vec<KafkaRecord>> {
        self.kafka.read_committed(&topic.full_name(PREFIX))
    }
}

/// Starts `agent` and returns once `/readyz` says 200: its log is open and its sources are connected, thus subscribed.
///
/// # Errors
/// When it ends early or is not ready in time; with the end of its log.
pub fn start_ready(agent: &mut Agent) -> Result<()> {
    agent.start()?;
    wait_ready(agent)
}

/// Waits until the pages of `agent`, which was launched, say that it is ready.
///
/// # Errors
/// When it is not in time; with the end of its log.
pub fn wait_ready(agent: &Agent) -> Result<()> {
    let ready = wait_until("the agent to be ready", READY_WITHIN, || http_get(agent.http(), "/readyz").is_ok_and(|answer| answer.status == 200));
    ready.with_context(|| format!("end of its log:\n{}", agent.log_tail()))
}

fn tables(brokers: &str, mqtt_port: u16) -> String {
    format!(
        r#"[kafka]
brokers = "{brokers}"
topic_prefix = "{PREFIX}"

[[mqtt]]
name = "plant"
host = "127.0.0.1"
port = {mqtt_port}
session_expiry = "1h"

[[mqtt.topic]]
template = "plant/{{area}}/{{asset}}/{{point}}"
payload = {{ value = "/value", time = "/ts" }}
"#
    )
}

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(path) => path,
        }
    }
}

const PUMP: &str = r#"id = "pump-1"
name = "Cooling water pump 1"

[[point]]
id = "flow"
unit = "l/min"

[[point]]
id = "pressure"
unit = "bar"
"#;
