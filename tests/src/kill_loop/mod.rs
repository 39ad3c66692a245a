//! The real agent is killed again and again (SIGKILL) while machines send, brokers restart and networks fail; then everything is healed, and Kafka
//! alone must show each reading once and in order. The program `kill_loop` and the scenario of that name run this same code.
//!
//! ```text
//! machines ─► Mosquitto ─► proxy ─► hark (killed) ─► proxy ─► Kafka ─► witness ─► ledger ◄─ what was sent
//! node ─────────── pty ──────────────┘
//! ```
//! A life of the agent has an exponential length that is counted from the start of its process, so a part of the kills hits it while it starts.
pub mod faults;
mod halt;
mod ledger;
mod machines;

use std::{
    path::Path,
    sync::Mutex,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use hark_firmware_sim::{NodeHandle, SerialNode, SerialNodeConfig};
use hark_protocol::topics::{ALARMS, EVENTS, PREDICTIONS, READINGS, SNAPSHOTS, Topic};

use self::{
    faults::{Pace, disturb, restart_kafka, restart_mosquitto},
    machines::{MACHINES, machine, publish},
};
pub use self::{
    halt::Halt,
    ledger::{Ledger, Sent, Verdict},
};
use crate::support::{Agent, Kafka, Mosquitto, PREFIX, Proxy, Random, Settings as BrokerSettings, Witness, free_port, start_ready, wait_for};

/// All topics whose records belong to lanes.
pub const TOPICS_OF_LANES: [Topic; 5] = [READINGS, SNAPSHOTS, PREDICTIONS, ALARMS, EVENTS];
const NODE_ASSET: &str = "node-machine";
/// The backlog of a run, on a machine that may be busy.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kills of the agent.
    pub kills: u32,
    /// All times follow from it.
    pub seed: u64,
    /// `kafka.delivery` of the agent.
    pub delivery: String,
    /// Mean life of the agent.
    pub life: Duration,
    /// Readings a second of all machines.
    pub per_second: u32,
    /// How often something else goes wrong.
    pub pace: Pace,
    /// End with the first record that stands twice: for showing that the harness can see one.
    pub until_doubled: bool,
}

impl Plan {
    /// As the long run has it.
    pub fn new(kills: u32, seed: u64, delivery: &str) -> Self {
        Self {
            kills,
            seed,
            delivery: delivery.to_owned(),
            life: Duration::from_millis(3_000),
            per_second: 200,
            pace: Pace::default(),
            until_doubled: false,
        }
    }
}

/// What was done and found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Kills of the agent.
    pub kills: u32,
    /// Of these, kills of a life in which Kafka showed new records.
    pub delivering: u32,
    /// Readings that machines sent.
    pub sent: u64,
    /// Restarts of Kafka and Mosquitto, faults of the two networks.
    pub faults: [u32; 4],
    /// What Kafka shows.
    pub verdict: Verdict,
    /// Whether `hark audit` finds the same clean; `None` if this agent has no such command, or delivers at least once, of which the audit proves nothing.
    pub audit: Option<bool>,
}

impl Outcome {
    /// Nothing is wrong, and the audit says so too.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.audit != Some(false)
    }

    /// The last line of a run.
    pub fn line(&self) -> String {
        let Verdict { lost, duplicated, disordered, .. } = self.verdict;
        format!("{} kills: {lost} lost, {duplicated} duplicated, {disordered} disordered", self.kills)
    }
}

/// Everything around the agent.
struct Bench {
    agent: Agent,
    node: NodeHandle,
    witness: Witness,
    kafka: Kafka,
    mosquitto: Mosquitto,
    to_kafka: Proxy,
    to_mosquitto: Proxy,
}

/// Runs `plan` in `dir` with the agent `program`, and tells `progress` how it goes. `None` if `halt` was set meanwhile.
///
/// # Errors
/// When a program does not start, the agent ends by itself, or what it holds is not delivered after everything was healed.
pub fn run(plan: &Plan, program: &str, dir: &Path, halt: &Halt, progress: &mut dyn FnMut(&str)) -> Result<Option<Outcome>> {
    let mut bench = Bench::start(plan, program, dir)?;
    progress("brokers run, the first agent starts");
    let (sent, calm, silent) = (Mutex::new(Sent::default()), Halt::default(), Halt::default());
    let mut ledger = Ledger::default();
    let Bench { agent, node, witness, kafka, mosquitto, to_kafka, to_mosquitto } = &mut bench;
    let (mosquitto_port, eye) = (mosquitto.port(), witness.eye());
    let ([kills, delivering], faults) = thread::scope(|scope| {
        let ended = EndOfScope([&calm, &silent]);
        let (sent, calm, silent, pace) = (&sent, &calm, &silent, &plan.pace);
        spawn(scope, move || publish(mosquitto_port, plan.per_second, silent, sent));
        let kafka_restarts = spawn(scope, || restart_kafka(kafka, &eye, pace, random(plan, 1), calm));
        let mosquitto_restarts = spawn(scope, || restart_mosquitto(mosquitto, pace, random(plan, 2), calm));
        let kafka_faults = spawn(scope, || disturb(to_kafka, pace, random(plan, 3), calm));
        let mosquitto_faults = spawn(scope, || disturb(to_mosquitto, pace, random(plan, 4), calm));
        let kills = kill_repeatedly(plan, agent, witness, &mut ledger, halt, progress);
        calm.set();
        let faults = [join(kafka_restarts)??, join(mosquitto_restarts)??, join(kafka_faults)?, join(mosquitto_faults)?];
        let [kills, delivering] = kills?;
        if !halt.is_set() {
            progress(&format!("{kills} kills done, everything is healed; waiting for the rest to arrive"));
            start_ready(agent)?;
        }
        drop(ended);
        Ok::<_, anyhow::Error>(([kills, delivering], faults))
    })?;
    if halt.is_set() {
        return Ok(None);
    }
    let sent = sent.into_inner().map_err(|_| anyhow!("the sender panicked"))?;
    let Some(sent) = drain(agent, node, witness, &mut ledger, sent, halt)? else { return Ok(None) };
    agent.stop()?;
    // What counts is a reader that begins now: it has seen no broker restart.
    let mut ledger = Ledger::default();
    for topic in TOPICS_OF_LANES {
        bench.kafka.visit_records(&topic.full_name(PREFIX), |record| ledger.take(record))?;
    }
    let audit = audit(&bench.agent, &plan.delivery)?;
    Ok(Some(Outcome { kills, delivering, sent: sent.count.values().sum(), faults, verdict: ledger.verdict(&sent), audit }))
}

/// Asks the agent's own audit, which knows nothing of what was sent: exit code 0 is clean, 1 a fault, else it could not tell.
fn audit(agent: &Agent, delivery: &str) -> Result<Option<bool>> {
    if !agent.output(&["audit", "--help"])?.status.success() {
        return Ok(None);
    }
    let output = agent.output(&["audit", "--json"])?;
    match output.status.code() {
        Some(0) => Ok(Some(true)),
        Some(1) => Ok(Some(false)),
        Some(2) if delivery == "at_least_once" => Ok(None),
        _ => bail!("the audit could not tell: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    }
}

/// The kills, and how many of them ended a life in which Kafka showed new records. Between two of them the witness reads on.
fn kill_repeatedly(
    plan: &Plan,
    agent: &mut Agent,
    witness: &mut Witness,
    ledger: &mut Ledger,
    halt: &Halt,
    progress: &mut dyn FnMut(&str),
) -> Result<[u32; 2]> {
    let (mut random, mut delivering) = (random(plan, 0), 0);
    for kill in 1..=plan.kills {
        let before = ledger.records();
        agent.launch()?;
        witness.read_for(random.exponential(plan.life), |record| ledger.take(record))?;
        if halt.is_set() {
            return Ok([kill - 1, delivering]);
        }
        agent.check_running()?;
        agent.kill()?;
        delivering += u32::from(ledger.records() > before);
        if kill.is_multiple_of(10) {
            let (records, doubled) = (ledger.records(), ledger.duplicated());
            progress(&format!("{kill} kills, {delivering} of them while records arrived: {records} records in Kafka, {doubled} doubled"));
        }
        if plan.until_doubled && ledger.duplicated() > 0 {
            return Ok([kill, delivering]);
        }
    }
    Ok([plan.kills, delivering])
}

/// Waits until all that was acknowledged is in Kafka and nothing is left in the agent. Gives what was sent, the node included. What is not there
/// after all is for the verdict to say.
fn drain(agent: &mut Agent, node: &mut NodeHandle, witness: &mut Witness, ledger: &mut Ledger, mut sent: Sent, halt: &Halt) -> Result<Option<Sent>> {
    let waited = wait_for("the backlog to arrive in Kafka", DRAINED_WITHIN, || {
        agent.check_running()?;
        witness.read_for(Duration::from_millis(200), |record| ledger.take(record))?;
        let metrics = agent.metrics().unwrap_or_default();
        let empty = metrics.sum("hark_buffer_records") == Some(0.0) && metrics.sum("hark_source_in_flight_bytes") == Some(0.0);
        Ok((halt.is_set() || (empty && node.stats().waiting < 8 && ledger.has_all(&sent))).then_some(()))
    });
    if halt.is_set() {
        return Ok(None);
    }
    // The ledger will name what is missing better than a deadline does.
    if ledger.has_all(&sent) {
        waited.with_context(|| format!("end of the agent's log:\n{}", agent.log_tail()))?;
    }
    let stats = node.stats();
    sent.node = Some((NODE_ASSET.to_owned(), stats.dropped + stats.waiting));
    Ok(Some(sent))
}

fn random(plan: &Plan, purpose: u64) -> Random {
    Random::new(plan.seed.wrapping_mul(8).wrapping_add(purpose))
}

/// Ends the threads of a scope also when it is left by an error; else it would wait for them for ever.
struct EndOfScope<'a>([&'a Halt; 2]);

impl Drop for EndOfScope<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|halt| halt.set());
    }
}

fn spawn<'scope, T: Send + 'scope>(scope: &'scope thread::Scope<'scope, '_>, run: impl FnOnce() -> T + Send + 'scope) -> ScopedJoinHandle<'scope, T> {
    #[expect(clippy::disallowed_methods, reason = "the scope joins it")]
    scope.spawn(run)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))
}

impl Bench {
    fn start(plan: &Plan, program: &str, dir: &Path) -> Result<Self> {
        let to_kafka = Proxy::start(free_port()?)?;
        let kafka = Kafka::start_behind(&dir.join("kafka"), &to_kafka)?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&dir.join("mosquitto"), BrokerSettings::Plant)?;
        let to_mosquitto = Proxy::start(mosquitto.port())?;
        let agent_dir = dir.join("agent");
        let agent = Agent::configure(program, &agent_dir, "gw-kill", &tables(plan, &to_kafka, &to_mosquitto), &assets())?;
        let node = SerialNodeConfig { block_every: Duration::from_millis(500), seed: plan.seed, ..SerialNodeConfig::new(agent_dir.join("pty-node")) };
        let node = SerialNode::spawn(node).context("failed to start the node")?;
        let topics = TOPICS_OF_LANES.map(|topic| topic.full_name(PREFIX));
        let witness = Witness::new(&kafka, &topics)?;
        let mut bench = Self { agent, node, witness, kafka, mosquitto, to_kafka, to_mosquitto };
        // Before the first message the agent must have subscribed once: to an unknown session the broker keeps nothing.
        start_ready(&mut bench.agent)?;
        bench.agent.kill()?;
        Ok(bench)
    }
}

fn tables(plan: &Plan, to_kafka: &Proxy, to_mosquitto: &Proxy) -> String {
    format!(
        r#"[kafka]
brokers = "127.0.0.1:{}"
topic_prefix = "{PREFIX}"
delivery = "{}"

[[mqtt]]
name = "plant"
host = "127.0.0.1"
port = {}
session_expiry = "1h"

[[mqtt.topic]]
template = "plant/{{asset}}/{{point}}"
payload = {{ value = "/value" }}

[[serial]]
name = "line"
path = "pty-node"
format = "node"

[[serial.node]]
id = 1
asset = "{NODE_ASSET}"
channels = ["vib", ""]
"#,
        to_kafka.port(),
        plan.delivery,
        to_mosquitto.port()
    )
}

fn assets() -> Vec<(String, String)> {
    let numbered = |index| (machine(index), format!("id = \"{}\"\n\n[[point]]\nid = \"number\"\nunit = \"1\"\n", machine(index)));
    let points = [("vib.v_rms", "mm/s"), ("temperature", "Cel")].map(|(id, unit)| format!("\n[[point]]\nid = \"{id}\"\nunit = \"{unit}\"\n"));
    let node = (NODE_ASSET.to_owned(), format!("id = \"{NODE_ASSET}\"\n{}", points.concat()));
    (0..MACHINES).map(numbered).chain([node]).collect()
}
