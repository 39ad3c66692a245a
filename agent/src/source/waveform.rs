//! Waveform blocks become features before the log: each feature is a reading of a derived point (`de-h.v_rms`).
use std::sync::Mutex;

use hark_protocol::topics::Name;

use super::decode::Block;
use crate::{
    config::Waveform,
    signal::{BlockUnit, Features, Setting},
};

/// A point that carries blocks, with the plans and scratch memory of its transforms.
#[derive(Debug)]
pub struct WaveformPoint {
    config: Waveform,
    /// Of blocks that do not tell theirs.
    unit: BlockUnit,
    features: Mutex<Features>,
}

impl WaveformPoint {
    /// A point as configured.
    pub fn new(config: Waveform) -> Self {
        // The check of the configuration lets no other unit pass.
        let unit = BlockUnit::named(&config.unit).unwrap_or(BlockUnit::G);
        Self { config, unit, features: Mutex::new(Features::new()) }
    }

    /// The point that tells the shaft speed.
    pub fn speed_point(&self) -> Option<&Name> {
        self.config.speed_point.as_ref()
    }

    /// The configured features of `block` as (derived point, value in the feature's unit); `None` where one needs what is not known, such as the speed.
    pub fn features(&self, block: &Block, measured_speed_hz: Option<f64>) -> Vec<(String, Option<f64>)> {
        let speed_hz = measured_speed_hz.or(self.config.speed_hz);
        let mut features = self.features.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let setting = Setting {
            fs_hz: block.fs_hz,
            unit: block.unit.unwrap_or(self.unit),
            speed_hz,
            bearing: self.config.bearing.as_ref(),
            envelope_band_hz: self.config.envelope_band_hz,
        };
        features
            .block_features(&block.samples, &setting, &self.config.features)
            .into_iter()
            .map(|(feature, _, value)| (format!("{}.{feature}", self.config.id), value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Shape,
        source::decode::{Value, json},
    };

    /// Velocity RMS that a point configured in `unit` tells of a block of 1 m/s2 (in its samples) at 100 Hz.
    fn v_rms(configured: &str, unit: &str) -> Option<f64> {
        let samples: Vec<f64> = (0..8192).map(|i| (std::f64::consts::TAU * 100.0 * f64::from(i) / 8192.0).sin()).collect();
        let mut block = serde_json::json!({"fs": 8192, "samples": samples});
        if !unit.is_empty() {
            block["unit"] = serde_json::from_str(unit).unwrap();
        }
        let shape = Shape { waveform: true, ..Shape::default() };
        let sample = json::decode(block.to_string().as_bytes(), &shape).ok()?.remove(0).ok()?;
        let Value::Block(block) = sample.value else { return None };
        let config = Waveform {
            id: "de-h".into(),
            unit: configured.into(),
            features: vec!["v_rms".into()],
            speed_hz: None,
            speed_point: None,
            bearing: None,
            envelope_band_hz: (2_000.0, 3_000.0),
        };
        WaveformPoint::new(config).features(&block, None)[0].1
    }

    #[test]
    fn a_block_is_in_its_own_unit_else_in_the_configured_one() {
        // 1 m/s2 at 100 Hz is 1000 / (2 pi 100 sqrt 2) = 1.125 mm/s.
        #[track_caller]
        fn check(configured: &str, unit: &str, expected: f64) {
            let v_rms = v_rms(configured, unit).unwrap();
            assert!((v_rms / expected - 1.0).abs() < 0.02, "{v_rms} for {expected}");
        }
        check("m/s2", "", 1.125);
        check("m/s2", "null", 1.125);
        check("m/s2", "\"[g]\"", 1.125 * 9.80665);
        check("[g]", "", 1.125 * 9.80665);
        check("g", "", 1.125 * 9.80665);
        check("[g]", "\"m/s2\"", 1.125);
        for unknown in ["\"um\"", "7", "\"\""] {
            assert_eq!(v_rms("m/s2", unknown), None, "{unknown}");
        }
    }
}
