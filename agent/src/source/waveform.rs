//! Waveform blocks become features before the log: each feature is a reading of a derived point (`de-h.v_rms`).
use std::sync::Mutex;

use hark_protocol::topics::Name;

use super::decode::Block;
use crate::{
    config::Waveform,
    signal::{BlockUnit, Features},
};

/// A point that carries blocks, with the plans and scratch memory of its transforms.
#[derive(Debug)]
pub struct WaveformPoint {
    config: Waveform,
    features: Mutex<Features>,
}

impl WaveformPoint {
    /// A point as configured.
    pub fn new(config: Waveform) -> Self {
        Self { config, features: Mutex::new(Features::new()) }
    }

    /// The point that tells the shaft speed.
    pub fn speed_point(&self) -> Option<&Name> {
        self.config.speed_point.as_ref()
    }

    /// The configured features of `block` as (derived point, value in the feature's unit); `None` where one needs what is not known, such as the speed.
    pub fn features(&self, block: &Block, measured_speed_hz: Option<f64>) -> Vec<(String, Option<f64>)> {
        let unit = if block.unit == "m/s2" { BlockUnit::MetresPerSecondSquared } else { BlockUnit::G };
        let speed_hz = measured_speed_hz.or(self.config.speed_hz);
        let mut features = self.features.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        features
            .block_features(
                &block.samples,
                block.fs_hz,
                unit,
                &self.config.features,
                speed_hz,
                self.config.bearing.as_ref(),
                self.config.envelope_band_hz,
            )
            .into_iter()
            .map(|(feature, _, value)| (format!("{}.{feature}", self.config.id), value))
            .collect()
    }
}
