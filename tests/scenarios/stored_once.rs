//! Promise 2, where it begins: what a source acknowledged is in the log, once, whatever was killed or cut off between storing and acknowledging.
//!
//! There is no Kafka: the log itself is opened afterwards and counted. `HARK_KILLS` in the environment makes the runs longer.
#![expect(clippy::disallowed_methods, reason = "no pipeline in the tests; the scope joins its publisher")]
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use hark::{
    buffer::{Log, LogSettings, Position},
    record::{Body, Entry},
};
use hark_firmware_sim::{SerialNode, SerialNodeConfig};
use hark_protocol::topics::{LaneName, Reading};
use hark_tests::support::{Agent, Connection, Fault, Load, Metrics, Mosquitto, Proxy, Random, Settings, publish, start_ready, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(60);
const ALL_ARRIVED: Duration = Duration::from_secs(180);
const TOPIC: &str = "plant/pump/flow";
/// Nothing is given up while nobody has it, and nobody takes it from a Kafka that is not there.
const NO_KAFKA: &str = "[kafka]\nbrokers = \"127.0.0.1:1\"\n";

fn kills() -> usize {
    std::env::var("HARK_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12)
}

/// Numbered readings over MQTT while the agent is killed, its connection is cut off with acknowledgements on their way, and the broker restarts.
#[test]
fn each_message_is_stored_once_whatever_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let proxy = Proxy::start(broker.port())?;
    let mut agent = mqtt_agent(dir.path(), proxy.port())?;
    start_ready(&mut agent)?;
    let (gate, ended, mut random) = (Gate::default(), AtomicBool::new(false), Random::new(1));
    let port = broker.port();
    let (sent, repeated) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_until(port, &gate, &ended));
        let done = kill_and_cut(&mut agent, &mut broker, &proxy, &gate, &mut random);
        ended.store(true, Ordering::Relaxed);
        let sent = publisher.join().map_err(|_| anyhow!("the publisher panicked"))??;
        anyhow::Ok((sent, done?))
    })?;
    // The broker keeps the order: when this one was seen, all before it were.
    publish(&broker, "plant/pump/end", ["{\"value\":0}".to_owned()])?;
    wait_until("the last message", ALL_ARRIVED, || agent.metrics().is_ok_and(|m| counted(&m, "unknown_point") > 0.0))
        .with_context(|| agent.log_tail())?;
    agent.stop()?;
    check_numbers(&agent, 0..sent)?;
    println!("{} kills, {sent} messages, {repeated} repeated: each stored once", kills());
    ensure!(repeated > 0.0, "nothing was repeated, so nothing was proven");
    Ok(())
}

/// With the shipped settings a restart of the broker while the agent is away loses nothing and doubles nothing.
#[test]
fn a_restart_of_the_broker_loses_nothing_that_waits_for_the_agent() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let mut agent = mqtt_agent(dir.path(), broker.port())?;
    start_ready(&mut agent)?;
    let send = |broker: &Mosquitto, numbers: std::ops::Range<usize>| publish(broker, TOPIC, numbers.map(|n| format!("{{\"value\":{n}}}")));
    send(&broker, 0..2_000)?;
    agent.kill()?;
    send(&broker, 2_000..7_000)?;
    broker.restart()?;
    send(&broker, 7_000..8_000)?;
    start_ready(&mut agent)?;
    publish(&broker, "plant/pump/end", ["{\"value\":0}".to_owned()])?;
    wait_until("the last message", ALL_ARRIVED, || agent.metrics().is_ok_and(|m| counted(&m, "unknown_point") > 0.0))
        .with_context(|| agent.log_tail())?;
    agent.stop()?;
    check_numbers(&agent, 0..8_000)
}

/// Frames of a sensor node over a serial line while the agent is killed: the node's numbers are in the log, each once and in order.
#[test]
fn each_frame_of_a_node_is_stored_once_whatever_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let link = dir.path().join("node");
    let node = SerialNode::spawn(SerialNodeConfig {
        node: 7,
        block_every: Duration::from_millis(200),
        resend_after: Duration::from_secs(1),
        ..SerialNodeConfig::new(&link)
    })?;
    let serial = format!(
        "{NO_KAFKA}[[serial]]\nname = \"nodes\"\npath = \"{}\"\nformat = \"node\"\n[[serial.node]]\nid = 7\nasset = \"pump\"\nchannels = [\"vib\", \"\"]\n",
        link.display()
    );
    let points = "[[point]]\nid = \"vib.v_rms\"\nunit = \"mm/s\"\n[[point]]\nid = \"temperature\"\nunit = \"Cel\"\n";
    let asset = format!("id = \"pump\"\n{points}");
    let mut agent = Agent::configure(PROGRAM, &dir.path().join("agent"), "gw-node", &serial, &[("pump".into(), asset)])?;
    agent.start()?;
    let (mut random, mut repeated) = (Random::new(2), 0.0);
    for _ in 0..kills() {
        // Long enough for the first wait of a session to end, most times.
        let blocks = node.stats().blocks + 1 + random.below(30) as u64;
        wait_until("the node to go on", SOON, || node.stats().blocks >= blocks)?;
        repeated += agent.metrics().map_or(0.0, |metrics| counted(&metrics, "repeated"));
        agent.kill()?;
        agent.start()?;
    }
    let blocks = node.stats().blocks;
    wait_until("the node to have nothing old left", ALL_ARRIVED, || {
        let stats = node.stats();
        stats.blocks > blocks + 20 && stats.waiting < 20
    })?;
    agent.stop()?;
    let stats = node.stop()?;
    ensure!(stats.dropped == 0, "the node's ring overflowed: the kills came too fast for this machine");

    let mut seqs: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut last = BTreeMap::new();
    for reading in stored(&agent)? {
        let seq = reading.source_seq.context("a frame's reading without its number")?;
        let before = last.insert(reading.point.to_string(), seq);
        ensure!(before.is_none_or(|before| before < seq), "{} of frame {seq} came after {before:?}", reading.point);
        seqs.entry(seq).or_default().push(reading.point.to_string());
    }
    let doubled: Vec<_> = seqs.iter().filter(|(_, points)| points.len() > 1).collect();
    ensure!(doubled.is_empty(), "{} frames are stored twice, the first is {:?}", doubled.len(), doubled[0]);
    let hole = (1..).zip(seqs.keys()).find(|(expected, seq)| expected != *seq);
    ensure!(hole.is_none(), "a frame is missing, (expected, found): {hole:?}");
    println!("{} kills, {} frames, {repeated} repeated: each stored once", kills(), seqs.len());
    Ok(())
}

fn mqtt_agent(dir: &Path, port: u16) -> Result<Agent> {
    let tables = format!(
        "{NO_KAFKA}[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {port}\nsession_expiry = \"1h\"\n\
         [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n"
    );
    let asset = "id = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n".to_owned();
    Agent::configure(PROGRAM, &dir.join("agent"), "gw-once", &tables, &[("pump".into(), asset)])
}

/// Stands between two batches of the publisher, so that no message of its own is repeated. Who closes it asks first: of one lock alone the publisher would
/// take hold again before anyone else wakes up.
#[derive(Default)]
struct Gate {
    asked: Mutex<()>,
    passing: Mutex<()>,
}

impl Gate {
    fn close(&self) -> [MutexGuard<'_, ()>; 2] {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        [self.passing.lock().unwrap_or_else(PoisonError::into_inner), asked]
    }

    fn pass(&self) -> MutexGuard<'_, ()> {
        drop(self.asked.lock());
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes numbers until told to end; gives how many.
fn publish_until(port: u16, gate: &Gate, ended: &AtomicBool) -> Result<usize> {
    const BATCH: usize = 50;
    let mut sent = 0;
    while !ended.load(Ordering::Relaxed) {
        let _passing = gate.pass();
        let load = Load { messages: BATCH, window: BATCH, interval: Duration::from_millis(1) };
        Connection::open(port, "numbers")?.publish(&load, |index, topic, payload| {
            topic.push_str(TOPIC);
            payload.push_str(&format!("{{\"value\":{}}}", sent + index));
        })?;
        sent += BATCH;
    }
    Ok(sent)
}

/// Lives of the agent, each ended by a kill, many disturbed before. Gives how many messages were seen to be repeated.
fn kill_and_cut(agent: &mut Agent, broker: &mut Mosquitto, proxy: &Proxy, gate: &Gate, random: &mut Random) -> Result<f64> {
    let mut repeated = 0.0;
    for _ in 0..kills() {
        let accepted = |agent: &Agent| agent.metrics().ok().and_then(|m| m.sum("hark_source_readings_accepted_total")).unwrap_or(0.0);
        let more = |agent: &Agent, count: usize| {
            let wanted = accepted(agent) + count as f64;
            wait_until("readings to come", SOON, || accepted(agent) >= wanted).with_context(|| agent.log_tail())
        };
        match random.below(4) {
            0 => {
                // Acknowledgements are written and never arrive. But what the agent says first must have arrived, and the window of the broker be empty,
                // or nothing would come.
                let closed = gate.close();
                let strangers = |agent: &Agent| agent.metrics().map_or(0.0, |metrics| counted(&metrics, "unknown_asset"));
                let before = strangers(agent);
                publish(broker, "plant/stranger/flow", ["{\"value\":0}".to_owned()])?;
                wait_until("all that was published to come", SOON, || strangers(agent) > before).with_context(|| agent.log_tail())?;
                proxy.set(Fault::Deaf);
                drop(closed);
                more(agent, 1 + random.below(100))?;
                proxy.cut();
                proxy.set(Fault::None);
            }
            1 => proxy.cut(),
            2 => {
                let _closed = gate.close();
                broker.restart()?;
            }
            _ => {}
        }
        more(agent, 1 + random.below(400))?;
        repeated += agent.metrics().map_or(0.0, |metrics| counted(&metrics, "repeated"));
        agent.kill()?;
        agent.start()?;
    }
    Ok(repeated)
}

fn counted(metrics: &Metrics, cause: &str) -> f64 {
    ["message", "node", "dropped"]
        .into_iter()
        .flat_map(|group| {
            ["plant", "nodes"].map(|source| format!("hark_source_cause_total{{source=\"{source}\",group=\"{group}\",cause=\"{cause}\"}}"))
        })
        .filter_map(|series| metrics.get(&series))
        .sum()
}

fn check_numbers(agent: &Agent, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut counts: BTreeMap<usize, usize> = numbers.map(|number| (number, 0)).collect();
    let mut order = Vec::new();
    for reading in stored(agent)? {
        let number = reading.value.context("a reading without a value")? as usize;
        *counts.get_mut(&number).with_context(|| format!("{number} was never sent"))? += 1;
        order.push(number);
    }
    let lost: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).map(|(number, _)| number).collect();
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).map(|(number, _)| number).collect();
    let disordered = order.windows(2).filter(|pair| pair[0] >= pair[1]).count();
    ensure!(
        lost.is_empty() && doubled.is_empty() && disordered == 0,
        "of {}: {} lost (first {:?}), {} doubled (first {:?}), {disordered} disordered",
        counts.len(),
        lost.len(),
        lost.first(),
        doubled.len(),
        doubled.first()
    );
    Ok(())
}

/// All readings in the log of an agent that does not run, in their order.
fn stored(agent: &Agent) -> Result<Vec<Reading>> {
    let (log, _writer) = Log::open(&agent.dir().join("data"), LogSettings::new(2 << 30))?;
    let mut reader = log.reader(LaneName::Inputs)?;
    let (mut after, mut readings) = (Position::default(), Vec::new());
    loop {
        let records = reader.read(after, 10_000, usize::MAX)?;
        let Some((last, _)) = records.last() else { return Ok(readings) };
        after = *last;
        readings
            .extend(records.into_iter().filter_map(|(_, Entry { body, .. })| if let Body::Reading(reading) = body { Some(reading) } else { None }));
    }
}
