//! A small plant for scenarios of the buffer: machines that send numbers as fast as they are taken, a Kafka that can be away, and a ledger.
//!
//! ```text
//! numbers ─► Mosquitto ─► hark ─► proxy ─► Kafka ─► ledger ◄─ what was sent
//! ```
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark_firmware_sim::{ReplayConfig, Stop, mqtt::Broker, replay::Shape, replay_to_mqtt};
use tempfile::TempDir;

use crate::{
    kill_loop::{Ledger, Sent, TOPICS_OF_LANES, Verdict},
    support::{
        Agent, Connection, Fault, Kafka, Load, Metrics, Mosquitto, PREFIX, Proxy, Random, Recording, Settings, free_port, start_ready, wait_for,
        wait_until,
    },
};

/// Numbers in one message.
const PER_MESSAGE: u64 = 25;
/// Readings per number: itself, and noise. Numbers alone compress to nearly nothing, and what these scenarios are about is space.
pub const READINGS_PER_NUMBER: u64 = 2;
/// Messages that wait for the broker's acknowledgement.
const WINDOW: usize = 128;
const MACHINE: &str = "machine-0";
/// The one that is scored.
const WATCHED: &str = "watched-0";
const SOON: Duration = Duration::from_secs(60);

/// The plant; everything is stopped when it is dropped.
pub struct Plant {
    /// The agent, which runs.
    pub agent: Agent,
    /// Its way to Kafka.
    pub to_kafka: Proxy,
    /// Kafka.
    pub kafka: Kafka,
    /// What sends go to.
    pub mosquitto: Mosquitto,
    /// What was acknowledged to the sender.
    pub sent: Sent,
    /// What a machine that is scored measures until it gives an alarm.
    watched: Recording,
    /// Readings of it that were sent.
    from_watched: u64,
    dir: TempDir,
}

impl Plant {
    /// Starts it with this table `[buffer]`, whose `dir` is `data` unless it says otherwise. `more` stands in `hark.toml` besides.
    ///
    /// # Errors
    /// When a program does not start.
    pub fn start(program: &str, buffer: &str) -> Result<Self> {
        let mut plant = Self::lay_out(program, buffer)?;
        start_ready(&mut plant.agent)?;
        Ok(plant)
    }

    /// The same; the agent does not run yet.
    ///
    /// # Errors
    /// When a broker does not start.
    pub fn lay_out(program: &str, buffer: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("hark-plant-").context("failed to make a directory")?;
        let to_kafka = Proxy::start(free_port()?)?;
        let kafka = Kafka::start_behind(&dir.path().join("kafka"), &to_kafka)?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::LongQueue)?;
        let tables = format!(
            "[kafka]\nbrokers = \"127.0.0.1:{}\"\ntopic_prefix = \"{PREFIX}\"\n\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\n\n\
             [[mqtt.topic]]\ntemplate = \"plant/{{asset}}\"\npayload = {{ array = \"/r\", point = \"/p\", value = \"/v\", sequence = \"/s\" }}\n\
             [[mqtt.topic]]\ntemplate = \"watched/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\", time = \"/ts\" }}\n",
            to_kafka.port(),
            mosquitto.port()
        );
        let point = |id: &str| format!("[[point]]\nid = \"{id}\"\nunit = \"1\"\nscored = false\n\n");
        let asset = format!("id = \"{MACHINE}\"\n\n{}{}", point("number"), point("noise"));
        let buffer = if buffer.contains("dir =") { buffer.to_owned() } else { format!("dir = \"data\"\n{buffer}") };
        let watched = Recording::synthetic(dir.path().join("watched.csv"), 7, 800, 500)?;
        let assets = [(MACHINE.to_owned(), asset), (WATCHED.to_owned(), watched.asset_file(WATCHED))];
        let agent = Agent::configure_buffer(program, &dir.path().join("agent"), "gw-plant", &buffer, &tables, &assets)?;
        Ok(Self { agent, to_kafka, kafka, mosquitto, sent: Sent::default(), watched, from_watched: 0, dir })
    }

    /// Where everything is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory, where it was not set otherwise.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("agent/data")
    }

    /// Sends the next numbers, at least `count` of them; returns when the plant's broker has acknowledged all.
    ///
    /// # Errors
    /// When the broker does not.
    pub fn send(&mut self, count: u64) -> Result<()> {
        let first = self.sent.count.get(MACHINE).copied().unwrap_or(0);
        let messages = count.div_ceil(PER_MESSAGE);
        let load = Load { messages: usize::try_from(messages)?, window: WINDOW, interval: Duration::ZERO };
        let mut random = Random::new(first);
        Connection::open(self.mosquitto.port(), "sender")?.publish(&load, |message, topic, payload| {
            topic.push_str("plant/");
            topic.push_str(MACHINE);
            payload.push_str("{\"r\":[");
            for index in 0..PER_MESSAGE {
                let (comma, number) = (if index == 0 { "" } else { "," }, first + message as u64 * PER_MESSAGE + index);
                let (noise, sequence) = (random.unit(), random.below(1 << 52));
                payload.push_str(&format!("{comma}{{\"p\":\"number\",\"v\":{number}}},{{\"p\":\"noise\",\"v\":{noise},\"s\":{sequence}}}"));
            }
            payload.push_str("]}");
        })?;
        self.sent.count.insert(MACHINE.to_owned(), first + messages * PER_MESSAGE);
        Ok(())
    }

    /// Lets the watched machine learn and then go wrong. Gives how often the state of its alarm changed.
    ///
    /// # Errors
    /// When it gives no alarm.
    pub fn raise_alarm(&mut self) -> Result<u64> {
        let broker = Broker { host: "127.0.0.1".into(), port: self.mosquitto.port(), client_id: "watched".into(), credentials: None };
        let (_handle, stop) = Stop::new();
        replay_to_mqtt(&ReplayConfig::new(&self.watched.file), broker, &format!("watched/{WATCHED}/{{point}}"), &Shape::Scalars, stop)
            .context("failed to play what the watched machine measures")?;
        let sent = (self.watched.rows * self.watched.columns.len()) as u64;
        self.from_watched += sent;
        self.wait_accepted(self.count(), SOON)?;
        let mut changes = 0.0;
        self.wait_metrics("all of it to be judged", SOON, |metrics| {
            changes = metrics.get("hark_inference_total{kind=\"alarm_changes\"}").unwrap_or(0.0);
            changes > 0.0 && metrics.get("hark_inference_total{kind=\"readings\"}") >= Some(sent as f64)
        })?;
        Ok(changes as u64)
    }

    /// Numbers sent so far.
    pub fn count(&self) -> u64 {
        self.sent.count.values().sum()
    }

    /// Messages that carried them.
    pub fn messages(&self) -> u64 {
        self.count() / PER_MESSAGE
    }

    /// Waits until the agent has accepted, in this life, so many numbers with their noise.
    ///
    /// # Errors
    /// When it does not, or ends.
    pub fn wait_accepted(&mut self, numbers: u64, within: Duration) -> Result<()> {
        let readings = (numbers * READINGS_PER_NUMBER + self.from_watched) as f64;
        self.wait_metrics(&format!("{readings} readings to be accepted"), within, |metrics| {
            metrics.sum("hark_source_readings_accepted_total") >= Some(readings)
        })
    }

    /// Waits for `condition` on the metrics.
    ///
    /// # Errors
    /// When it does not hold in time, or the agent ends.
    pub fn wait_metrics(&mut self, what: &str, within: Duration, mut condition: impl FnMut(&Metrics) -> bool) -> Result<()> {
        let waited = wait_for(what, within, || {
            self.agent.check_running()?;
            Ok(self.agent.metrics().is_ok_and(|metrics| condition(&metrics)).then_some(()))
        });
        waited.with_context(|| format!("metrics {:?}\nend of the log:\n{}", self.agent.metrics().ok(), self.agent.log_tail()))
    }

    /// Kafka is away from here on: the network refuses.
    pub fn lose_kafka(&self) {
        self.to_kafka.set(Fault::Refuse);
    }

    /// Brings Kafka back, waits until the agent has delivered everything that it holds, and compares what Kafka has with what was sent.
    ///
    /// # Errors
    /// When something stays in the agent.
    pub fn verdict(&mut self, within: Duration) -> Result<Verdict> {
        self.to_kafka.set(Fault::None);
        self.wait_metrics("an empty buffer", within, |metrics| {
            metrics.sum("hark_source_in_flight_bytes") == Some(0.0) && metrics.sum("hark_buffer_records") == Some(0.0)
        })?;
        // Messages may still stand in the broker: then the buffer is empty only for a moment.
        let mut verdict = Verdict::default();
        wait_until("every number in Kafka or in a gap", SOON, || {
            let found = self.look();
            verdict = found.unwrap_or_default();
            verdict.records[0] > 0 && verdict.lost == 0
        })
        .with_context(|| format!("{verdict:?}"))?;
        Ok(verdict)
    }

    fn look(&self) -> Result<Verdict> {
        let mut ledger = Ledger::default();
        for topic in TOPICS_OF_LANES {
            self.kafka.visit_records(&topic.full_name(PREFIX), |record| ledger.take(record))?;
        }
        Ok(ledger.verdict(&self.sent))
    }

    /// As [`Plant::verdict`], which must be clean; gives the records that gaps name, which are readings: what warns a person is given up last.
    ///
    /// # Errors
    /// When something is lost, doubled or out of order.
    pub fn check(&mut self, within: Duration) -> Result<u64> {
        let verdict = self.verdict(within)?;
        ensure!(verdict.is_clean(), "{verdict:?}");
        ensure!(!verdict.named.contains_key("alarms") && !verdict.named.contains_key("events"), "alarms or events were given up: {verdict:?}");
        Ok(verdict.records[1])
    }
}
