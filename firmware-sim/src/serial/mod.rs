//! A simulated node on a serial port: paced by the clock, heard through a [`Pty`].
//!
//! Its time goes in turns of fixed length, each begun when the clock says so: what it sends by itself follows from seed and boot id, however
//! busy this computer is. Only answers to the agent, and what depends on its acknowledgements, have the time at which these came.
mod pty;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use pty::Pty;
use tokio::time::{Instant, sleep_until};

use crate::disturbance::Disturbance;
use crate::handle::{NodeHandle, SharedStats};
use crate::machine::MachineConfig;
use crate::simulation::{NodeSimulation, SimulationConfig};
use crate::stop::Stop;

/// Bytes in front of a full terminal buffer; the rest waits in the node's ring.
const PENDING_BYTES: usize = 2_048;
/// Between two turns, in which the node looks for what is due.
const TURN: Duration = Duration::from_millis(20);
/// A simulator that was held up for longer goes on from now instead of catching up.
const LATE: Duration = Duration::from_secs(2);

/// A node on a serial port.
#[derive(Clone, Debug)]
pub struct SerialNodeConfig {
    /// The machine it watches.
    pub machine: MachineConfig,
    /// Node id, unique on the gateway, above 0.
    pub node: u32,
    /// Boot id; `None` draws a new one, as a node does. An agent takes frames of a boot that it knows for repetitions.
    pub boot: Option<u32>,
    /// Everything random but the boot id follows from it.
    pub seed: u64,
    /// Name under which the port appears; an older link is replaced.
    pub link: PathBuf,
    /// A block of features this often. The block's 1.23 s are simulated, not waited for.
    pub block_every: Duration,
    /// An unacknowledged frame is sent again after this.
    pub resend_after: Duration,
    /// What goes wrong with sensor and line.
    pub disturbances: Vec<Disturbance>,
}

impl SerialNodeConfig {
    /// Node 1 at a healthy machine, six blocks a second, nothing disturbed.
    pub fn new(link: impl Into<PathBuf>) -> Self {
        Self {
            machine: MachineConfig::default(),
            node: 1,
            boot: None,
            seed: 1,
            link: link.into(),
            block_every: Duration::from_millis(160),
            resend_after: Duration::from_secs(1),
            disturbances: Vec::new(),
        }
    }
}

/// A simulated node on a serial port.
#[derive(Debug)]
pub struct SerialNode;

impl SerialNode {
    /// Opens the port and starts the node on a thread of its own. When this returns, the link exists.
    /// Fails if the pseudo terminal cannot be opened or the link not be made.
    pub fn spawn(config: SerialNodeConfig) -> io::Result<NodeHandle> {
        let (opened, open) = std::sync::mpsc::sync_channel(1);
        let handle = NodeHandle::spawn("serial-node", move |stop, stats| async move {
            let pty = match Pty::open(&config.link) {
                Ok(pty) => pty,
                Err(error) => {
                    let _spawn_waits = opened.send(Err(error));
                    return Ok(());
                }
            };
            let _spawn_waits = opened.send(Ok(()));
            run(config, pty, stop, stats).await
        })?;
        open.recv().map_err(io::Error::other)??;
        Ok(handle)
    }
}

async fn run(config: SerialNodeConfig, pty: Pty, mut stop: Stop, stats: SharedStats) -> io::Result<()> {
    let block_every = config.block_every;
    let mut node = NodeSimulation::new(SimulationConfig {
        machine: config.machine,
        node: config.node,
        boot: config.boot.unwrap_or_else(random_boot),
        seed: config.seed,
        resend_after: config.resend_after,
        disturbances: config.disturbances,
    });
    let start = Instant::now();
    let (mut turn_at, mut block_at, mut now) = (start, start + block_every, start);
    let mut received = [0; 1_024];
    let mut pending = Vec::with_capacity(2 * PENDING_BYTES);
    loop {
        let due = turn_at.min(block_at);
        tokio::select! {
            () = stop.asked() => return Ok(()),
            () = sleep_until(due) => {
                if due == block_at {
                    node.block(micros(due - start));
                    block_at += block_every;
                    pty.unlock()?;
                }
                if due == turn_at {
                    turn_at += TURN;
                }
                now = now.max(due);
                node.transmit(micros(now - start), PENDING_BYTES, &mut pending);
                if due + LATE < Instant::now() {
                    (turn_at, block_at) = (Instant::now(), Instant::now() + block_every);
                }
            }
            count = pty.read(&mut received) => {
                let count = count?;
                now = now.max(Instant::now());
                node.receive(&received[..count], micros(now - start));
                node.transmit(micros(now - start), PENDING_BYTES, &mut pending);
                stats.update(|stats| stats.received_bytes += count as u64);
            }
            count = pty.write(&pending), if !pending.is_empty() => drop(pending.drain(..count?)),
        }
        tell(&node, &stats);
    }
}

fn tell(node: &NodeSimulation, stats: &SharedStats) {
    stats.update(|stats| {
        stats.blocks = node.firmware().blocks();
        stats.damage = node.machine().damage();
        stats.sent = node.frames();
        stats.waiting = node.firmware().waiting() as u64;
        stats.dropped = node.firmware().dropped().into();
        stats.restarts = node.restarts();
    });
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// A number of the operating system's randomness, which the hash maps' keys are drawn from.
fn random_boot() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}
