//! A simulated fan from new to failed: what its sensors say, a row each ten minutes, and what no sensor says.
use hark::signal::{BlockUnit, Features, Setting};
use hark_firmware_sim::machine::{Fault, Law, Machine, MachineConfig, Noise, Profile};
use hark_protocol::topics::Name;

/// A block comes so often, s; it is a row of the model.
pub const BLOCK_EVERY_S: f64 = 600.0;
/// What is measured, with units.
pub const POINTS: [(&str, &str); 4] = [("de.v_rms", "mm/s"), ("de.a_rms", "[g]"), ("temperature", "Cel"), ("current", "A")];

const BLOCK_SAMPLES: usize = 8_192;
const BLOCK_HZ: f64 = 13_333.0;
const DAY_S: f64 = 86_400.0;
const SPEED_RPM: f32 = 1_480.0;
/// By so much, as a share, surroundings and mounting move what is measured from block to block, and how much of that stays.
const MOOD: f64 = 0.007;
const MOOD_STAYS: f64 = 0.97;

/// A row of a life.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Since the machine was new, s.
    pub at_s: f64,
    /// In the order of [`POINTS`].
    pub values: [Option<f64>; POINTS.len()],
    /// Of the machine, without noise.
    pub velocity_mm_s: f64,
}

/// A machine that runs until it has failed.
pub struct Life {
    /// It is healthy for so long.
    pub healthy_s: f64,
    machine: Machine,
    features: Features,
    samples: Vec<f64>,
    wanted: [Name; 2],
    drawn: Noise,
    mood: f64,
    rows: u32,
}

impl Life {
    /// Healthy for 10 to 40 days, then worn by `law` for another 10 to 60.
    pub fn new(law: Law, seed: u64) -> Self {
        let mut drawn = Noise::new(seed, 7);
        let (healthy_s, life_s) = ((10.0 + 30.0 * drawn.uniform()) * DAY_S, (10.0 + 50.0 * drawn.uniform()) * DAY_S);
        let profile = Profile::Constant { speed_rpm: SPEED_RPM.into(), load: 0.7 + 0.3 * drawn.uniform() };
        let config = MachineConfig { profile, fault: Fault::Unbalance, law, healthy_s, life_s, ..MachineConfig::default() };
        let machine = Machine::new(config, seed);
        let (features, samples, wanted) = (Features::new(), vec![0.0; BLOCK_SAMPLES], ["v_rms".into(), "a_rms".into()]);
        Self { healthy_s, machine, features, samples, wanted, drawn, mood: 0.0, rows: 0 }
    }

    /// A number that follows from the seed, 0 to 1.
    pub fn draw(&mut self) -> f64 {
        self.drawn.uniform()
    }
}

impl Iterator for Life {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.machine.failed() {
            return None;
        }
        self.machine.advance(BLOCK_EVERY_S);
        let at_s = f64::from(self.rows) * BLOCK_EVERY_S;
        self.rows += 1;
        self.machine.write_block(&mut self.samples, BLOCK_HZ);
        self.mood = MOOD_STAYS * self.mood + MOOD * self.drawn.gauss();
        let factor = f64::exp(self.mood);
        self.samples.iter_mut().for_each(|sample| *sample *= factor);
        let setting = Setting {
            fs_hz: BLOCK_HZ,
            unit: BlockUnit::G,
            speed_hz: Some(f64::from(SPEED_RPM) / 60.0),
            bearing: None,
            envelope_band_hz: (2_000.0, 5_000.0),
        };
        let found = self.features.block_features(&self.samples, &setting, &self.wanted);
        let process = self.machine.process_values();
        let value = |index: usize| found.get(index).and_then(|(_, _, value)| *value);
        let values = [value(0), value(1), process.temperature_c.map(f64::from), process.current_a.map(f64::from)];
        let velocity_mm_s = self.machine.signal().velocity_mm_s.iter().map(|of_order| of_order * of_order).sum::<f64>().sqrt();
        Some(Row { at_s, values, velocity_mm_s })
    }
}
