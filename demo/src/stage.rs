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
    configuration::{self, GATEWAY, Settings},
    ledger::Stretch,
    machines::MACHINES,
    metrics::Metrics,
    readback::{Readback, lock},
    scene::{Scene, Scrape},
    summary::{Accepted, Course, Summary},
};

/// Between two looks at `/metrics`.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// For the buffer to empty after the sensors stopped.
const EMPTIES_WITHIN: Duration = Duration::from_secs(20);
/// Two looks this far apart that show the same say that nothing is under way: longer than the agent's longest wait for a commit.
const SETTLED_AFTER: Duration = Duration::from_millis(700);

/// Waits for a condition under a timeout and goes on showing meanwhile; true if it held in time.
pub type Wait<'a> = dyn FnMut(Duration, &mut dyn FnMut() -> bool) -> bool + 'a;

/// All that runs. Dropping it stops it, without a summary.
pub struct Stage {
    /// What is known.
    pub scene: Arc<Mutex<Scene>>,
    /// One line: which brokers.
    pub brokers: String,
    // In the order of dropping.
    nodes: Vec<NodeHandle>,
    agent: Option<Agent>,
    watch: Option<Watch>,
    readback: Readback,
    kafka: Kafka,
    mqtt: Mqtt,
    directory: TempDir,
    http_port: u16,
}

/// What is left when everything has stopped.
pub struct Ended {
    /// What was found.
    pub summary: Summary,
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
        let directory = tempfile::Builder::new().prefix("hark-demo-").tempdir().context("failed to create a temporary directory")?;
        let prefix = &arguments.prefix;
        let kafka = arguments.kafka.as_ref().map_or_else(|| Kafka::embedded(prefix), |bootstrap| Kafka::real(bootstrap, prefix))?;
        let mqtt = arguments.mqtt.as_ref().map_or_else(Mqtt::embedded, |address| Mqtt::real(address))?;
        let http_port = brokers::free_port()?;
        configuration::write(directory.path(), &Settings { kafka: &kafka.bootstrap, prefix, mqtt: &mqtt.address, http_port })?;

        let scene = Arc::new(Mutex::new(Scene::new(Instant::now())));
        let readback = Readback::start(&kafka.bootstrap, prefix, scene.clone())?;
        // Sensors before the agent, as in a plant: the agent finds its ports, and what they said before it came is repeated to it.
        let start_node = |machine: crate::machines::Machine| machine.start(directory.path(), &mqtt.address, arguments.seed);
        let nodes = MACHINES.into_iter().map(start_node).collect::<io::Result<Vec<_>>>().context("failed to start a simulated sensor")?;
        lock(&scene).started = Instant::now();
        let agent = Agent::start(directory.path())?;
        let watch = Watch::start(http_port, scene.clone())?;
        let brokers = format!("Kafka: {}; MQTT: {}", kafka.describe(), mqtt.describe());
        Ok(Self { scene, brokers, nodes, agent: Some(agent), watch: Some(watch), readback, kafka, mqtt, directory, http_port })
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
        Some(format!("the agent ended early ({status}); its last words:\n{}", agent.last_words()))
    }

    /// Stops sensors, agent, consumer and brokers, in this order, and counts. `faults` are what is known to be wrong already.
    pub fn stop(mut self, wait: &mut Wait<'_>, mut faults: Vec<String>, keep: bool) -> Ended {
        let seconds = lock(&self.scene).started.elapsed().as_secs_f64();
        self.say("sensors");
        for (node, machine) in self.nodes.drain(..).zip(MACHINES) {
            if let Err(error) = node.stop() {
                faults.push(format!("the sensors of {}: {error}", machine.asset));
            }
        }
        self.say("the buffer empties into Kafka");
        drop(self.watch.take());
        let metrics = self.settle(wait).or_else(|| lock(&self.scene).metrics.clone());

        self.say("the agent");
        let mut log = PathBuf::new();
        if let Some(agent) = self.agent.take() {
            log = agent.log().to_owned();
            let stopped = agent.stop(wait);
            if !stopped.clean && faults.is_empty() {
                let status = stopped.status.map_or_else(|| "no exit status".to_owned(), |status| status.to_string());
                faults.push(format!("the agent did not stop cleanly: {status}"));
            }
        }
        self.say("counting what came back");
        let buffer = match agent::accepted(self.directory.path()) {
            Ok(lanes) => {
                Some(lanes.into_iter().map(|(incarnation, lane, last)| (Stretch { gateway: GATEWAY.into(), incarnation, lane }, last)).collect())
            }
            Err(error) => {
                faults.push(format!("{error:#}"));
                None
            }
        };
        if !self.readback.read_to_end(wait) {
            faults.push("not everything in Kafka could be read back in time".to_owned());
        }
        let course = Course { seconds, embedded_kafka: self.kafka.embedded, embedded_mqtt: self.mqtt.embedded, faults };
        let summary = Summary::of(&lock(&self.scene), &Accepted { buffer, metrics }, course);
        let kept = keep || !summary.faults.is_empty();
        if kept {
            self.directory.disable_cleanup(true);
        }
        Ended { summary, log, kept }
    }

    /// Waits until nothing more is appended and nothing waits for Kafka; gives the last look at the counters.
    fn settle(&self, wait: &mut Wait<'_>) -> Option<Scrape> {
        let mut last: Option<(Scrape, Instant)> = None;
        wait(EMPTIES_WITHIN, &mut || {
            let Some(scrape) = Metrics::read(self.http_port).as_ref().map(Scrape::of) else {
                // An agent that does not answer will not settle either.
                return last.is_none() && lock(&self.scene).metrics.is_none();
            };
            let since = match &last {
                Some((before, since)) if before.appended == scrape.appended => *since,
                _ => Instant::now(),
            };
            let settled = scrape.waiting_in_all() == 0 && since.elapsed() >= SETTLED_AFTER;
            lock(&self.scene).scraped(scrape.clone(), Instant::now());
            last = Some((scrape, since));
            settled
        });
        last.map(|(scrape, _)| scrape)
    }

    fn say(&self, what: &'static str) {
        lock(&self.scene).stopping = Some(what);
    }
}

/// Looks at `/metrics` once a second, on its own thread. It ends when this is dropped.
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
