//! The cast: three machines, how their sensors reach the agent, and what will happen to each.
use std::{io, path::Path, time::Duration};

use hark_firmware_sim::{
    MqttNode, MqttNodeConfig, NodeHandle, SerialNode, SerialNodeConfig,
    machine::{Fault, Law, MachineConfig, Profile},
    mqtt::Broker,
};

use crate::brokers::Address;

/// Between blocks of vibration, and between rows of the model.
pub const BLOCK_EVERY: Duration = Duration::from_millis(200);
/// Rows of normal running that the agent learns from: seven working days of the changing machine, so that each fifth, which it is judged by in turn, knows
/// its starts and stops.
pub const COMMISSIONING_ROWS: usize = 175;
/// Over the limit for so long is an alarm. A single outlier of an envelope line holds the smoothed score up for two seconds.
pub const ALARM_AFTER: Duration = Duration::from_secs(3);
/// Nominal speed of all three, 1/min.
pub const SPEED_RPM: f64 = 1_797.0;
/// A working day of the machine that changes load: start, full load, half load, slower, idle, full load, stop.
/// Short, so that commissioning sees several: with 10 s the limit missed rare starts, and a healthy machine was over it in 5 of 12 runs.
const WORKING_DAY: Duration = Duration::from_secs(5);
/// Area in MQTT topics.
const AREA: &str = "demo";

/// What the demo arranged for a machine. The agent does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Runs well throughout, under changing load.
    Healthy,
    /// Something begins to grow this long after the start.
    Fault {
        /// The fault, for people.
        what: &'static str,
        /// When.
        after: Duration,
        /// From then to the machine's failure.
        life: Duration,
    },
}

impl Fate {
    /// `healthy` or `fault`, as the summary says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Fault { .. } => "fault",
        }
    }
}

/// How the sensors of a machine reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A sensor node with this id on a serial port of its own.
    Serial {
        /// Node id.
        node: u32,
    },
    /// JSON scalars and raw blocks through the broker.
    Mqtt,
}

/// One machine of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Asset id.
    pub asset: &'static str,
    /// Name for people.
    pub name: &'static str,
    /// Machine class.
    pub class: &'static str,
    /// How its sensors reach the agent.
    pub way: Way,
    /// What will happen to it.
    pub fate: Fate,
}

/// All of them, in the order of the view.
pub const MACHINES: [Machine; 3] = [
    Machine { asset: "pump-1", name: "Cooling water pump 1", class: "pump", way: Way::Serial { node: 1 }, fate: Fate::Healthy },
    Machine {
        asset: "fan-7",
        name: "Exhaust fan 7",
        class: "fan",
        way: Way::Serial { node: 7 },
        fate: Fate::Fault { what: "bearing outer race spall", after: Duration::from_secs(38), life: Duration::from_secs(200) },
    },
    Machine {
        asset: "motor-3",
        name: "Conveyor motor 3",
        class: "motor",
        way: Way::Mqtt,
        fate: Fate::Fault { what: "rotor unbalance", after: Duration::from_secs(44), life: Duration::from_secs(100) },
    },
];

impl Machine {
    /// Name of its serial port under the demo's directory.
    pub fn port(&self) -> String {
        format!("port-{}", self.asset)
    }

    /// Starts its sensors on a thread of their own.
    ///
    /// # Errors
    /// When a pseudo terminal or a thread cannot be had.
    pub fn start(&self, directory: &Path, broker: &Address, gateway: &str, seed: u64) -> io::Result<NodeHandle> {
        let seed = self.seed(seed);
        match self.way {
            Way::Serial { node } => {
                let link = directory.join(self.port());
                SerialNode::spawn(SerialNodeConfig { machine: self.physics(), node, seed, block_every: BLOCK_EVERY, ..SerialNodeConfig::new(link) })
            }
            Way::Mqtt => {
                let broker = Broker::new(&broker.host, broker.port, format!("hark-{gateway}-sensors"));
                let root = topic_root(gateway);
                let config = MqttNodeConfig {
                    machine: self.physics(),
                    seed,
                    topic: format!("{root}/{{asset}}/{{point}}"),
                    waveform_topic: format!("{root}/{{asset}}/{{point}}/waveform"),
                    area: AREA.into(),
                    // Ten turns of the shaft, which the rules for a bearing need.
                    waveform_samples: 12_288,
                    block_every: BLOCK_EVERY,
                    ..MqttNodeConfig::new(broker, self.asset)
                };
                MqttNode::spawn(config)
            }
        }
    }

    /// The seed of this machine in a run with `seed`: machines of one run must not share their noise.
    pub fn seed(&self, seed: u64) -> u64 {
        self.asset.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
    }

    /// The machine itself and its fate, for the simulation.
    pub fn physics(&self) -> MachineConfig {
        match self.fate {
            Fate::Healthy => {
                let steady = MachineConfig::watched(Fault::None, Law::Linear, WORKING_DAY, WORKING_DAY);
                let period_s = WORKING_DAY.as_secs_f64() * steady.acceleration;
                MachineConfig { profile: Profile::Changing { speed_rpm: SPEED_RPM, period_s }, ..steady }
            }
            Fate::Fault { after, life, .. } => {
                let fault = if matches!(self.way, Way::Mqtt) { Fault::Unbalance } else { Fault::OuterRace };
                MachineConfig::watched(fault, Law::Exponential, after, life)
            }
        }
    }
}

/// First levels of the MQTT topics: of this run alone, since a real broker may serve others.
pub fn topic_root(gateway: &str) -> String {
    format!("hark-{gateway}/{AREA}")
}
