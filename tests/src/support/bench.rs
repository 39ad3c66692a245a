//! A bench with everything on it: Kafka, Mosquitto and an agent between them, each in its place in one temporary directory.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hark_protocol::topics::Topic;
use tempfile::TempDir;

use super::{Agent, Kafka, KafkaRecord, Mosquitto, Settings, in_clone};

/// Before the names of all topics of a bench.
pub const PREFIX: &str = "test.";

/// Brokers that run and an agent that does not run yet, for one asset `pump-1` with the points `flow` and `pressure` at the MQTT topics
/// `plant/<area>/pump-1/<point>`, payload `{"value": …}`.
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
    /// Starts the brokers, creates the topics and writes the configuration for the agent `program`, see [`Agent::new`].
    ///
    /// # Errors
    /// When a broker does not start.
    pub fn new(program: &Path) -> Result<Self> {
        let dir = TempDir::with_prefix("hark-bench-").context("failed to create a temporary directory")?;
        let dir = if std::env::var_os("HARK_KEEP").is_some() { Dir::Kept(dir.keep()) } else { Dir::Temporary(dir) };
        let path = dir.path();
        let kafka = Kafka::start(&path.join("kafka"))?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&path.join("mosquitto"), Settings::Plant)?;
        let agent = Agent::new(program, &path.join("config"), &path.join("hark.log"))?;
        let bench = Self { agent, kafka, mosquitto, dir };
        bench.write_config()?;
        Ok(bench)
    }

    /// Where everything of this bench is: `config/`, `data/`, `hark.log`, `kafka/`, `mosquitto/`.
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

    fn write_config(&self) -> Result<()> {
        let config = self.path().join("config");
        fs::create_dir_all(config.join("assets")).context("failed to create the configuration directory")?;
        fs::write(config.join("hark.toml"), self.hark_toml()).context("failed to write hark.toml")?;
        fs::write(config.join("assets/pump-1.toml"), PUMP).context("failed to write the asset")
    }

    fn hark_toml(&self) -> String {
        format!(
            r#"[gateway]
id = "gw-test"
heartbeat_every = "1s"

[buffer]
dir = "../data"
quota = "256 MiB"

[kafka]
brokers = "{brokers}"
topic_prefix = "{PREFIX}"

[http]
listen = "{http}"

[inference]
models = "{models}"

[[mqtt]]
name = "plant"
host = "127.0.0.1"
port = {mqtt_port}
session_expiry = "1h"

[[mqtt.topic]]
template = "plant/{{area}}/{{asset}}/{{point}}"
payload = {{ value = "/value" }}
"#,
            brokers = self.kafka.bootstrap(),
            http = self.agent.http(),
            models = in_clone("models").display(),
            mqtt_port = self.mosquitto.port(),
        )
    }
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
