//! Everything that runs, started and stopped in order: brokers, consumer, agent, sensors; and back.
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hark::stop::Stop;
use hark_firmware_sim::NodeHandle;
use tempfile::TempDir;

use crate::{
    agent::{self, Agent},
    arguments::Arguments,
    brokers::{self, Kafka, Mqtt},
    configuration::{self, DIRECTORY_PREFIX, Settings},
    ledger::Stretch,
    machines::MACHINES,
    metrics::Metrics,
    pulse::Scrape,
    readback::{Readback, lock},
    scene::Scene,
    summary::{Accepted, Course, Summary},
};

/// Between two looks at `/metrics`.
const SCRAPE_EVERY: Duration = Duration::from_millis(400);
/// For the buffer to empty after the sensors stopped.
const EMPTIES_WITHIN: Duration = Duration::from_secs(20);

/// Waits for a condition under a timeout and goes on showing meanwhile; true if it held in time. Waits no longer once a person is in a hurry.
pub type Wait<'a> = dyn FnMut(Duration, &mut dyn FnMut() -> bool) -> bool + 'a;

/// All that runs. Dropping it stops it, without a summary.
pub struct Stage {
    /// What is known.
    pub scene: Arc<Mutex<Scene>>,
    /// One line: which brokers.
    pub brokers: String,
    /// Id of the gateway, of this run alone.
    pub gateway: String,
    // In the order of dropping.
    nodes: Vec<NodeHandle>,
    agent: Option<Agent>,
    watch: Option<Watch>,
    readback: Readback,
    kafka: Kafka,
    mqtt: Mqtt,
    directory: TempDir,
}

/// What is left when everything has stopped.
pub struct Ended {
    /// What was found.
    pub summary: Summary,
    /// What the agent said of its alarms last, for a person.
    pub alarms: Option<String>,
    /// The agent's log, with a word on whether it is kept.
    pub log: PathBuf,
    /// Its directory was kept.
    pub kept: bool,
}

impl Stage {
    /// Starts it all.
    ///
    /// # Errors
    /// What could not be started; all that was started before is stopped again.
    pub fn start(arguments: &Arguments) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir().context("failed to create a temporary directory")?;
        let prefix = &arguments.prefix;
        let kafka = arguments.kafka.as_ref().map_or_else(|| Kafka::embedded(prefix), |bootstrap| Kafka::real(bootstrap, prefix))?;
        let mqtt = arguments.mqtt.as_ref().map_or_else(Mqtt::embedded, |address| Mqtt::real(address))?;
        let http_port = brokers::free_port()?;
        let gateway = configuration::gateway(directory.path());
        let settings = Settings { gateway: &gateway, kafka: &kafka.bootstrap, embedded: kafka.embedded, prefix, mqtt: &mqtt.address, http_port };
        configuration::write(directory.path(), &settings)?;

        let scene = Arc::new(Mutex::new(Scene::new(Instant::now())));
        let readback = Readback::start(&kafka.bootstrap, prefix, &gateway, scene.clone())?;
        // Sensors before the agent, as in a plant: the agent finds its ports, and what they said before it came is repeated to it.
        let start_node = |machine: crate::machines::Machine| machine.start(directory.path(), &mqtt.address, &gateway, arguments.seed);
        let nodes = MACHINES.into_iter().map(start_node).collect::<io::Result<Vec<_>>>().context("failed to start a simulated sensor")?;
        lock(&scene).start(Instant::now());
        let agent = Agent::start(directory.path())?;
        let watch = Watch::start(http_port, scene.clone())?;
        let brokers = format!("Kafka: {}; MQTT: {}", kafka.describe(), mqtt.describe());
        Ok(Self { scene, brokers, gateway, nodes, agent: Some(agent), watch: Some(watch), readback, kafka, mqtt, directory })
    }

    /// The directory with configuration, buffer and log.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Process id of the agent.
    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, Agent::pid)
    }

    /// Why it cannot go on; `None` while all is well.
    pub fn broken(&mut self) -> Option<String> {
        let ended_nodes = self.nodes.iter().zip(MACHINES).find(|(node, _)| node.is_finished());
        if let Some((_, machine)) = ended_nodes {
            return Some(format!("the sensors of {} ended unexpectedly", machine.asset));
        }
        let agent = self.agent.as_mut()?;
        let status = agent.exited()?;
        lock(&self.scene).agent_ended = true;
        Some(format!("the agent ended early ({status}); its last words:\n{}", agent.last_words()))
    }

    /// Stops sensors, agent, consumer and brokers, in this order, and counts. `faults` are what is known to be wrong already.
    /// `None` when a person is in a `hurry`: then all is stopped, the agent killed, and nothing counted.
    pub fn stop(mut self, wait: &mut Wait<'_>, hurry: &Stop, mut faults: Vec<String>, keep: bool) -> Option<Ended> {
        let (seconds, agent_ended_early) = {
            let scene = lock(&self.scene);
            (scene.elapsed().as_secs_f64(), scene.agent_ended)
        };
        self.directory.disable_cleanup(keep);
        let alarms = if agent_ended_early { None } else { Agent::alarms(self.directory.path(), wait) };
        self.say("sensors");
        for (node, machine) in self.nodes.drain(..).zip(MACHINES) {
            if let Err(error) = node.stop() {
                faults.push(format!("the sensors of {}: {error}", machine.asset));
            }
        }
        self.say("the buffer empties into Kafka");
        self.settle(wait);
        if hurry.requested() {
            return None;
        }
        self.say("the agent");
        let mut log = PathBuf::new();
        if let Some(agent) = self.agent.take() {
            log = agent.log().to_owned();
            let stopped = agent.stop(wait);
            lock(&self.scene).agent_ended = true;
            if !stopped.clean && faults.is_empty() {
                let status = stopped.status.map_or_else(|| "no exit status".to_owned(), |status| status.to_string());
                faults.push(format!("the agent did not stop cleanly: {status}"));
            }
        }
        drop(self.watch.take());
        if hurry.requested() {
            return None;
        }
        self.say("counting what came back");
        let buffer = match agent::accepted(self.directory.path()) {
            Ok(lanes) => {
                let gateway = &self.gateway;
                Some(lanes.into_iter().map(|(incarnation, lane, last)| (Stretch { gateway: gateway.clone(), incarnation, lane }, last)).collect())
            }
            Err(error) => {
                faults.push(format!("{error:#}"));
                None
            }
        };
        if !self.readback.read_to_end(wait) {
            faults.push("not everything in Kafka could be read back in time".to_owned());
        }
        if hurry.requested() {
            return None;
        }
        let course = Course { seconds, embedded_kafka: self.kafka.embedded, embedded_mqtt: self.mqtt.embedded, agent_ended_early, faults };
        let summary = {
            let scene = lock(&self.scene);
            Summary::of(&scene, &Accepted { buffer, metrics: scene.pulse.last().cloned() }, course)
        };
        let kept = keep || !summary.faults.is_empty();
        if kept {
            self.directory.disable_cleanup(true);
        }
        Some(Ended { summary, alarms, log, kept })
    }

    /// Waits until nothing more is appended and nothing waits for Kafka. An agent that has ended or says nothing will not get there.
    fn settle(&mut self, wait: &mut Wait<'_>) {
        let Self { scene, agent, .. } = self;
        wait(EMPTIES_WITHIN, &mut || {
            let ended = agent.as_mut().is_none_or(|agent| agent.exited().is_some());
            let pulse = &lock(scene).pulse;
            ended || pulse.silent(Instant::now()).is_some() || pulse.settled()
        });
    }

    fn say(&self, what: &'static str) {
        lock(&self.scene).stopping(what);
    }
}

/// Looks at `/metrics` again and again, on its own thread. It ends when this is dropped.
struct Watch {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(port: u16, scene: Arc<Mutex<Scene>>) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let theirs = stop.clone();
        let thread = thread::Builder::new().name("metrics".into()).spawn(move || {
            while !theirs.wait(SCRAPE_EVERY) {
                if let Some(page) = Metrics::read(port) {
                    lock(&scene).scraped(Scrape::of(&page), Instant::now());
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_printed = thread.join();
        }
    }
}
