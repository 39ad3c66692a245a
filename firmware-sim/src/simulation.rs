//! A node with its machine and its line, in simulated time: bytes in, bytes out, and no clock, no port.
//!
//! The same configuration, seed and calls give the same bytes on every platform.
use std::time::Duration;

use hark_protocol::node::BootReason;

use crate::disturbance::{Disturbance, Kind, Line};
use crate::firmware::{BLOCK_SAMPLES, Firmware, FirmwareConfig, RING_SAMPLES};
use crate::machine::{Machine, MachineConfig};
use crate::sensor::{RANGE_G, RATE_HZ, Sensor};

/// How far the clock jumps.
const CLOCK_JUMP_US: u64 = 3_600_000_000;

/// A node and its surroundings.
#[derive(Clone, Debug)]
pub struct SimulationConfig {
    /// The machine it watches.
    pub machine: MachineConfig,
    /// Node id.
    pub node: u32,
    /// Boot id of the first start.
    pub boot: u32,
    /// Everything random follows from it.
    pub seed: u64,
    /// An unacknowledged frame is sent again after this.
    pub resend_after: Duration,
    /// What goes wrong with sensor and line.
    pub disturbances: Vec<Disturbance>,
}

/// The running simulation. Times are microseconds since its start and never go back; the node's own clock may jump.
#[derive(Debug)]
pub struct NodeSimulation {
    config: SimulationConfig,
    machine: Machine,
    firmware: Box<Firmware>,
    line: Line,
    samples_g: Vec<f64>,
    last_block_us: u64,
    started_us: u64,
    clock_offset_us: u64,
    struck: Vec<bool>,
    restarts: u32,
    frame: heapless::Vec<u8, { hark_protocol::node::MAX_FRAME }>,
    frames: u64,
}

impl NodeSimulation {
    /// Starts machine and node at time 0.
    pub fn new(config: SimulationConfig) -> Self {
        let firmware = Box::new(Firmware::new(firmware_config(&config, 0, BootReason::PowerOn), 0));
        Self {
            machine: Machine::new(config.machine, config.seed),
            firmware,
            line: Line::new(config.seed),
            samples_g: vec![0.0; BLOCK_SAMPLES],
            last_block_us: 0,
            started_us: 0,
            clock_offset_us: 0,
            struck: vec![false; config.disturbances.len()],
            restarts: 0,
            frame: heapless::Vec::new(),
            frames: 0,
            config,
        }
    }

    /// Simulates one block of vibration that ends at `now_us`; the machine has aged since the last one.
    pub fn block(&mut self, now_us: u64) {
        self.machine.advance(Duration::from_micros(now_us.saturating_sub(self.last_block_us)).as_secs_f64());
        self.last_block_us = now_us;
        self.strike(now_us);
        let sensor = Sensor::at(Duration::from_micros(now_us), &self.config.disturbances);
        self.machine.write_block(&mut self.samples_g, sensor.rate_hz);
        self.firmware.set_process_values(self.machine.process_values());
        let node_us = self.node_us(now_us);
        self.firmware.set_range(sensor.range_g as f32, node_us);
        for part in self.samples_g.chunks(RING_SAMPLES / 2) {
            for sample_g in part {
                self.firmware.sample(sensor.digitise(*sample_g));
            }
            self.firmware.run(node_us);
        }
    }

    /// Bytes from the agent.
    pub fn receive(&mut self, bytes: &[u8], now_us: u64) {
        let node_us = self.node_us(now_us);
        bytes.iter().for_each(|byte| self.firmware.receive(*byte, node_us));
        if self.firmware.restart_asked() {
            self.restart(BootReason::Command, now_us);
        }
    }

    /// Appends to `out` what the node sends now, at most `limit` bytes and a frame. Each frame has a delimiter before it too, so that
    /// a damaged predecessor does not cost it.
    pub fn transmit(&mut self, now_us: u64, limit: usize, out: &mut Vec<u8>) {
        let node_us = self.node_us(now_us);
        self.firmware.run(node_us);
        let now = Duration::from_micros(now_us);
        if self.is_active(Kind::Babble, now_us) && out.len() < limit {
            self.line.babble(out);
        }
        while out.len() < limit && self.firmware.transmit(node_us, &mut self.frame) {
            let active = self.config.disturbances.iter().filter(|disturbance| disturbance.is_active(now));
            out.push(0);
            self.line.carry(&self.frame, active.map(|disturbance| (disturbance.kind, disturbance.chance)), out);
            self.frames += 1;
        }
    }

    /// The machine, for its hidden truth.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The node.
    pub fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// Frames put on the line, repetitions included.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Restarts of the node since the first start.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What the node's clock says.
    fn node_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.started_us) + self.clock_offset_us
    }

    fn is_active(&self, kind: Kind, now_us: u64) -> bool {
        let now = Duration::from_micros(now_us);
        self.config.disturbances.iter().any(|disturbance| disturbance.kind == kind && disturbance.is_active(now))
    }

    /// Lets those disturbances happen that happen once.
    fn strike(&mut self, now_us: u64) {
        let now = Duration::from_micros(now_us);
        for index in 0..self.config.disturbances.len() {
            let Disturbance { kind, from, .. } = self.config.disturbances[index];
            if !kind.is_moment() || from > now || std::mem::replace(&mut self.struck[index], true) {
                continue;
            }
            match kind {
                Kind::BrownOut => self.restart(BootReason::BrownOut, now_us),
                _ => {
                    self.clock_offset_us += CLOCK_JUMP_US;
                    let node_us = self.node_us(now_us);
                    self.firmware.clock_stepped(CLOCK_JUMP_US as i64, node_us);
                }
            }
        }
    }

    /// A node that starts anew has forgotten everything: unacknowledged frames, sequence numbers, its clock.
    fn restart(&mut self, reason: BootReason, now_us: u64) {
        self.restarts += 1;
        self.started_us = now_us;
        self.clock_offset_us = 0;
        *self.firmware = Firmware::new(firmware_config(&self.config, self.restarts, reason), 0);
    }
}

fn firmware_config(config: &SimulationConfig, restarts: u32, boot_reason: BootReason) -> FirmwareConfig {
    FirmwareConfig {
        node: config.node,
        boot: config.boot.wrapping_add(restarts.wrapping_mul(0x9E37_79B9)),
        boot_reason,
        rate_hz: RATE_HZ as f32,
        range_g: RANGE_G as f32,
        bearing: Some(config.machine.bearing.orders()),
        resend_after_us: config.resend_after.as_micros() as u64,
        simulated: true,
    }
}
