//! What goes wrong around the agent, each on a thread of its own, all at once: broker restarts and a network that fails.
//!
//! Times follow from the seed; what they meet does not, since programs and kernel have a time of their own.
use std::time::Duration;

use anyhow::Result;

use super::Halt;
use crate::support::{Eye, Fault, Kafka, Mosquitto, Proxy, Random};

/// Mean time between two faults of a kind, and mean length of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two restarts of Kafka, which takes a machine of two cores some seconds.
    pub kafka: Duration,
    /// Between two restarts of Mosquitto.
    pub mosquitto: Duration,
    /// Between two faults of a network.
    pub network: Duration,
    /// Length of a fault.
    pub length: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { kafka: seconds(40), mosquitto: seconds(20), network: seconds(8), length: seconds(2) }
    }
}

/// Kills Kafka or shuts it down, and starts it again, until `halt`; leaves it running. `eye` is shut meanwhile. Gives how often.
///
/// # Errors
/// When it does not come back.
pub fn restart_kafka(kafka: &mut Kafka, eye: &Eye, pace: &Pace, mut random: Random, halt: &Halt) -> Result<u32> {
    let mut restarts = 0;
    while !halt.wait(random.exponential(pace.kafka)) {
        eye.shut_while(|| {
            if random.chance(0.5) {
                kafka.kill()?
            } else {
                kafka.stop()?
            }
            halt.wait(random.exponential(pace.length));
            kafka.start_again()
        })?;
        restarts += 1;
    }
    Ok(restarts)
}

/// The same with Mosquitto, always in order: killed, it forgets what it has acknowledged to senders since its last write of the store, and that is
/// a loss before Hark. See `config/mosquitto/plant.conf`.
///
/// # Errors
/// When it does not come back.
pub fn restart_mosquitto(mosquitto: &mut Mosquitto, pace: &Pace, mut random: Random, halt: &Halt) -> Result<u32> {
    let mut restarts = 0;
    while !halt.wait(random.exponential(pace.mosquitto)) {
        mosquitto.stop()?;
        halt.wait(random.exponential(pace.length / 4));
        mosquitto.start_again()?;
        restarts += 1;
    }
    Ok(restarts)
}

/// Disturbs the network behind `proxy` until `halt`; leaves it healed. Gives how often.
pub fn disturb(proxy: &Proxy, pace: &Pace, mut random: Random, halt: &Halt) -> u32 {
    let mut faults = 0;
    while !halt.wait(random.exponential(pace.network)) {
        faults += 1;
        let fault = match random.below(6) {
            0 => {
                proxy.cut();
                continue;
            }
            1 => Fault::Refuse,
            2 => Fault::Silent,
            3 => Fault::Deaf,
            4 => Fault::Mute,
            _ => Fault::Delay(Duration::from_millis(20 + random.below(200) as u64)),
        };
        proxy.set(fault);
        halt.wait(random.exponential(pace.length));
        // Half of the silent ones end with what was on the way lost, as when a route changes.
        if random.chance(0.5) {
            proxy.cut();
        }
        proxy.set(Fault::None);
    }
    faults
}
