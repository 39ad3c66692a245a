//! A machine: shaft, bearing, motor current, heat, and a hidden damage by which it fails.
//!
//! Machine time runs `acceleration` times as fast as the node's: between two blocks of vibration hours may pass, so a life fits a coffee break.
//! A block itself always lasts as long as its samples; damage and speed stand still within it.
pub mod bearing;
pub mod cavitation;
pub mod damage;
pub mod gear;
pub mod looseness;
pub mod noise;
pub mod profile;
pub mod signal;

use std::time::Duration;

pub use bearing::{BEARING_6205, Bearing, Impacts};
pub use cavitation::Cavitation;
pub use damage::{Damage, Law};
pub use gear::Gear;
pub use looseness::Looseness;
pub use noise::Noise;
pub use profile::Profile;
pub use signal::Signal;

use crate::firmware::ProcessValues;

/// Heating by full load above ambient, K; bearing damage adds friction.
const LOAD_HEAT_K: f64 = 32.0;
const FRICTION_HEAT_K: f64 = 28.0;
/// Thermal time constant of the housing (domain reference section 7: 20-60 min).
const THERMAL_S: f64 = 1_800.0;
/// Amplitude of the impacts of a failed bearing, g.
const FAILED_IMPACT_G: f64 = 8.0;
/// Vibration of a healthy machine at nominal speed: velocity RMS at 1x, 2x, 3x in mm/s.
const HEALTHY_MM_S: [f64; 3] = [0.8, 0.08, 0.05];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Spalling of the bearing's outer race; late, its clearance lets the shaft move.
    OuterRace,
    /// Unbalance of the rotor.
    Unbalance,
    /// Misalignment of the coupling.
    Misalignment,
    /// A foot of the machine comes loose.
    Looseness,
    /// Wear of the bearing's cage.
    Cage,
    /// A tooth of the gear on the shaft cracks.
    Gear,
    /// Bubbles in the pump: the pressure at its suction falls.
    Cavitation,
}

/// A machine and its fate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineConfig {
    /// How it is driven.
    pub profile: Profile,
    /// What goes wrong.
    pub fault: Fault,
    /// How it goes wrong.
    pub law: Law,
    /// Seconds of machine time before damage begins.
    pub healthy_s: f64,
    /// Nominal life from then on, seconds of machine time (see [`damage`]).
    pub life_s: f64,
    /// Seconds of machine time per second of node time.
    pub acceleration: f64,
    /// The bearing next to the sensor.
    pub bearing: Bearing,
    /// Teeth of a gear on the shaft, vanes of an impeller on it: what the faults of these have.
    pub teeth: u8,
    /// See `teeth`.
    pub vanes: u8,
    /// Temperature around it, degrees Celsius.
    pub ambient_c: f64,
}

impl Default for MachineConfig {
    /// A healthy motor at 1797 r/min and 80 % load, in real time.
    fn default() -> Self {
        Self {
            profile: Profile::Constant { speed_rpm: 1_797.0, load: 0.8 },
            fault: Fault::None,
            law: Law::Exponential,
            healthy_s: 30.0 * 86_400.0,
            life_s: 30.0 * 86_400.0,
            acceleration: 1.0,
            bearing: BEARING_6205,
            teeth: 31,
            vanes: 6,
            ambient_c: 22.0,
        }
    }
}

impl MachineConfig {
    /// A life that can be watched: healthy for `healthy`, then with a nominal life of `life`, both of node time; 600 seconds of machine time pass
    /// in each second.
    pub fn watched(fault: Fault, law: Law, healthy: Duration, life: Duration) -> Self {
        let acceleration = 600.0;
        Self {
            fault,
            law,
            healthy_s: healthy.as_secs_f64() * acceleration,
            life_s: life.as_secs_f64() * acceleration,
            acceleration,
            ..Self::default()
        }
    }
}

/// A running machine. The same configuration, seed and calls give the same bits.
#[derive(Clone, Debug)]
pub struct Machine {
    config: MachineConfig,
    time_s: f64,
    damage: Damage,
    temperature_c: f64,
    speed_rpm: f64,
    load: f64,
    noise: Noise,
}

impl Machine {
    /// A machine as new, warm from running.
    pub fn new(config: MachineConfig, seed: u64) -> Self {
        let (speed_rpm, load) = config.profile.at(0.0);
        let temperature_c = config.ambient_c + LOAD_HEAT_K * load;
        Self { config, time_s: 0.0, damage: Damage::new(config.law, config.life_s), temperature_c, speed_rpm, load, noise: Noise::new(seed, 0) }
    }

    /// Lets `node_s` seconds of node time pass.
    pub fn advance(&mut self, node_s: f64) {
        let dt_s = node_s * self.config.acceleration;
        let worn_s = dt_s.min(self.time_s + dt_s - self.config.healthy_s);
        self.time_s += dt_s;
        let (speed_rpm, load) = self.config.profile.at(self.time_s);
        // Grid frequency and process wander a little.
        self.speed_rpm = speed_rpm * (1.0 + 0.001 * self.noise.gauss());
        self.load = (load * (1.0 + 0.02 * self.noise.gauss())).max(0.0);
        if self.config.fault != Fault::None && worn_s > 0.0 && speed_rpm > 0.0 {
            self.damage.advance(worn_s, self.load, &mut self.noise);
        }
        let friction = if self.config.fault == Fault::OuterRace { self.damage() } else { 0.3 * self.damage() };
        let settled_c = match speed_rpm > 0.0 {
            true => self.config.ambient_c + LOAD_HEAT_K * self.load + FRICTION_HEAT_K * friction,
            false => self.config.ambient_c,
        };
        self.temperature_c += (settled_c - self.temperature_c) * -libm::expm1(-dt_s / THERMAL_S);
    }

    /// The truth that no sensor sees: 0 as new, 1 failed.
    pub fn damage(&self) -> f64 {
        self.damage.level()
    }

    /// Whether it has failed by definition.
    pub fn failed(&self) -> bool {
        self.damage.life_left_s() == 0.0
    }

    /// Node seconds until failure if its profile goes on, loads and stops included: the truth that a forecast is compared with. `None` if it never
    /// fails. Exact but for what is random: the load's 2 %, and the pace of [`Law::RandomSlope`], of which it is the mean.
    pub fn node_time_to_failure(&self) -> Option<f64> {
        let MachineConfig { fault, law, profile, healthy_s, acceleration, .. } = self.config;
        if fault == Fault::None {
            return None;
        }
        let worn_from_s = self.time_s.max(healthy_s);
        let worn_for_s = profile.time_to_wear(worn_from_s, self.damage.life_left_s(), |load| law.pace(load))?;
        Some((worn_from_s - self.time_s + worn_for_s) / acceleration)
    }

    /// What the acceleration consists of at this moment.
    pub fn signal(&self) -> Signal {
        let speed = self.speed_rpm / self.config.profile.nominal_rpm();
        let damage = self.damage();
        let added_mm_s = match self.config.fault {
            Fault::None | Fault::Looseness | Fault::Cage | Fault::Gear | Fault::Cavitation => [0.0; 3],
            Fault::OuterRace => [3.0, 1.0, 0.5].map(|v| v * damage * damage * damage),
            Fault::Unbalance => [6.5 * damage, 0.1 * damage, 0.0],
            Fault::Misalignment => [1.5 * damage, 4.5 * damage, 1.5 * damage],
        };
        // Above the resonance of the support velocity follows speed; load adds a little at all orders.
        let scale = speed * (0.85 + 0.2 * self.load);
        let shaft_hz = self.speed_rpm / 60.0;
        let orders = self.config.bearing.orders();
        let of_bearing = match self.config.fault {
            Fault::OuterRace => Some(orders.bpfo),
            Fault::Cage => Some(orders.ftf),
            _ => None,
        };
        let impacts = of_bearing.filter(|_| damage > 0.0).map(|order| {
            let slip = 0.01 + 0.01 * damage;
            Impacts::at(f64::from(order) * shaft_hz, FAILED_IMPACT_G * damage * speed, slip)
        });
        Signal {
            shaft_hz,
            velocity_mm_s: core::array::from_fn(|order| scale * (HEALTHY_MM_S[order] + added_mm_s[order])),
            looseness: (self.config.fault == Fault::Looseness).then(|| self.loose(scale * damage)),
            impacts,
            gear: (self.config.fault == Fault::Gear).then(|| self.gear(speed, damage)),
            cavitation: (self.config.fault == Fault::Cavitation).then(|| self.bubbles(speed * damage)),
            noise_g: if shaft_hz > 0.0 { 0.012 + 0.008 * speed * (0.8 + 0.25 * self.load) } else { 0.002 },
            gravity_g: 1.0,
            ..Signal::default()
        }
    }

    fn loose(&self, damage: f64) -> Looseness {
        Looseness { velocity_mm_s: 4.0 * damage, decay: 0.8, halves: 0.4, unrest: 0.1 }
    }

    fn gear(&self, speed: f64, damage: f64) -> Gear {
        Gear { sway: 0.5 * damage, tooth: 8.0 * damage, ..Gear::sound(self.config.teeth, 0.05 * speed * (0.5 + 0.5 * self.load)) }
    }

    fn bubbles(&self, damage: f64) -> Cavitation {
        Cavitation { vanes: self.config.vanes, noise_g: 0.5 * damage, swell: 0.5, bursts_hz: 300.0 * damage, burst_g: 1.0 }
    }

    /// Writes a block of acceleration in g as it is now.
    pub fn write_block(&mut self, samples_g: &mut [f64], rate_hz: f64) {
        self.signal().write(samples_g, rate_hz, &mut self.noise);
    }

    /// Process values as sensors read them, with their noise.
    pub fn process_values(&mut self) -> ProcessValues {
        let mut read = |value: f64, sigma: f64| Some((value + sigma * self.noise.gauss()) as f32);
        let running = self.speed_rpm > 0.0;
        ProcessValues {
            temperature_c: read(self.temperature_c, 0.1),
            speed_rpm: if running { read(self.speed_rpm, 0.5) } else { Some(0.0) },
            load_percent: if running { read(100.0 * self.load, 0.3) } else { Some(0.0) },
            current_a: if running { read(3.2 + 7.5 * self.load, 0.04) } else { Some(0.0) },
        }
    }
}
