//! A healthy centrifugal pump with its motor, converter and instruments, second by second, and its vibration in blocks.
//!
//! Affinity laws: flow goes with speed, head with its square, power with its cube. The bearing warms with a time constant of 40 minutes. What is measured has
//! the noise of common instruments; turbulence moves flow, pressure and power together.
use hark::signal::{BlockUnit, Features, Setting};
use hark_firmware_sim::machine::{Noise, Signal};
use hark_protocol::topics::Name;

use crate::{
    scenario::{Duty, NOMINAL_RPM},
    wander::Wander,
};

/// Of the process, in the order of [`Pump::second`]: id and unit.
pub const PROCESS: [(&str, &str); 6] =
    [("speed", "/min"), ("load", "%"), ("current", "A"), ("flow", "m3/h"), ("pressure", "bar"), ("bearing.temperature", "Cel")];
/// Of the sensor at the drive end, in the order of [`Pump::block`]: id and unit.
pub const VIBRATION: [(&str, &str); 2] = [("de.v_rms", "mm/s"), ("de.kurtosis", "1")];

/// Flow with an open valve, m3/h, head at the middle of the curve, bar, and current at nominal power, A.
const FLOW_M3_H: f64 = 220.0;
const HEAD_BAR: f64 = 5.0;
const CURRENT_A: f64 = 62.0;
/// The converter's ramp, 1/min per second.
const RAMP: f64 = 25.0;
/// A valve follows its set point with this time constant, s; the bearing its losses with that one.
const VALVE_S: f64 = 60.0;
const BEARING_S: f64 = 2_400.0;
/// Heating of the bearing by turning and by full power, K.
const TURNING_K: f64 = 8.0;
const POWER_K: f64 = 25.0;
/// Memory of what moves vibration from block to block: three hours of them.
const MOOD_BLOCKS: f64 = 18.0;
/// Samples of a block and their rate, Hz (domain reference section 8).
const BLOCK_SAMPLES: usize = 32_768;
const BLOCK_HZ: f64 = 26_667.0;

/// The machine and its instruments.
#[derive(Debug)]
pub struct Pump {
    noise: Noise,
    speed_rpm: f64,
    opening: f64,
    /// Shaft power as a share of nominal.
    power: f64,
    bearing_c: f64,
    turbulence: Wander,
    mains: Wander,
    /// Of vibration, from block to block, by what nobody measures: alignment as it warms, the foundation.
    mood: Wander,
    features: Features,
    wanted: [Name; 2],
    samples: Vec<f64>,
}

impl Pump {
    /// Warm from running under `duty`.
    pub fn new(duty: &Duty, seed: u64) -> Self {
        let power = shaft_power(duty, duty.speed_rpm / NOMINAL_RPM, duty.opening);
        Self {
            noise: Noise::new(seed, 2),
            speed_rpm: duty.speed_rpm,
            opening: duty.opening,
            power,
            bearing_c: duty.ambient_c + TURNING_K + POWER_K * power,
            turbulence: Wander::new(0.004, 3.0),
            mains: Wander::new(0.000_3, 120.0),
            mood: Wander::new(0.03, MOOD_BLOCKS),
            features: Features::new(),
            wanted: ["v_rms".into(), "kurtosis".into()],
            samples: vec![0.0; BLOCK_SAMPLES],
        }
    }

    /// Lets a second pass; gives what the instruments of [`PROCESS`] show at its end.
    pub fn second(&mut self, duty: &Duty) -> [f64; 6] {
        self.speed_rpm += (duty.speed_rpm - self.speed_rpm).clamp(-RAMP, RAMP);
        self.opening += (duty.opening - self.opening) / VALVE_S;
        let mains = 1.0 + self.mains.step(&mut self.noise);
        let speed = self.speed_rpm / NOMINAL_RPM * mains;
        let turbulence = self.turbulence.step(&mut self.noise);
        self.power = shaft_power(duty, speed, self.opening);
        let turning_k = if speed > 0.0 { TURNING_K } else { 0.0 };
        self.bearing_c += (duty.ambient_c + turning_k + POWER_K * self.power - self.bearing_c) / BEARING_S;

        let flow = self.opening * speed * (1.0 + turbulence);
        let head = duty.density * (1.0 - duty.lost_head) * (1.25 * speed * speed - 0.35 * flow * flow) * (1.0 - 1.5 * turbulence);
        let power = self.power * (1.0 + 0.5 * turbulence);
        // A motor takes its magnetising current without load too.
        let current = if speed > 0.0 { CURRENT_A * 0.35_f64.hypot(0.94 * power) } else { 0.0 };
        let mut shown = |value: f64, deviation: f64| value + deviation * self.noise.gauss();
        let slip = 1.0 - 0.008 * power;
        [
            shown(NOMINAL_RPM * speed * slip, 0.4).max(0.0),
            shown(100.0 * power, 0.4).max(0.0),
            shown(current, 0.15).max(0.0),
            shown(FLOW_M3_H * flow, 0.6).max(0.0),
            shown(HEAD_BAR * head, 0.01),
            // A transmitter with a resolution of a tenth of a degree.
            (10.0 * shown(self.bearing_c, 0.05)).round() / 10.0,
        ]
    }

    /// A block of vibration as the gateway's shipped code sees it: the features of [`VIBRATION`].
    pub fn block(&mut self, duty: &Duty) -> [Option<f64>; 2] {
        let speed = self.speed_rpm / NOMINAL_RPM;
        let mood = self.mood.step(&mut self.noise).exp();
        let velocity_mm_s = speed * speed * (0.8 + 0.3 * (self.power - 0.7)) * duty.wear * mood;
        let signal = Signal {
            shaft_hz: self.speed_rpm / 60.0,
            velocity_mm_s: [velocity_mm_s, 0.12 * velocity_mm_s, 0.07 * velocity_mm_s],
            noise_g: 0.002 + 0.02 * speed * speed * (0.6 + 0.5 * self.power),
            gravity_g: 1.0,
            ..Signal::default()
        };
        signal.write(&mut self.samples, BLOCK_HZ, &mut self.noise);
        self.samples.iter_mut().for_each(|sample| *sample *= duty.gain);
        let setting =
            Setting { fs_hz: BLOCK_HZ, unit: BlockUnit::G, speed_hz: Some(signal.shaft_hz), bearing: None, envelope_band_hz: (2_000.0, 5_000.0) };
        let found = self.features.block_features(&self.samples, &setting, &self.wanted);
        [0, 1].map(|index: usize| found.get(index).and_then(|(_, _, value)| *value))
    }
}

/// Shaft power as a share of nominal, at `speed` as a share of nominal.
fn shaft_power(duty: &Duty, speed: f64, opening: f64) -> f64 {
    duty.density * speed * speed * speed * (0.4 + 0.6 * opening)
}
