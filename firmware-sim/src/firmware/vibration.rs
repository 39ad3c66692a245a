//! From samples to features: DC removal, anti-alias filter and decimation for velocity, band-pass and squared envelope for bearings.
use hark_protocol::node::{Quantity, VALUES_MAX, Value};
use heapless::Vec;

use super::filter::{Butterworth, DcRemoval, Decimator, Pass};
use super::moments::Moments;
use super::spectrum::{Block, POINTS};

/// Full rate over reduced rate.
const DECIMATION: u32 = 8;
/// Samples at the full rate in one block: 1.23 s at 26 667 Hz.
pub const BLOCK_SAMPLES: usize = POINTS * DECIMATION as usize;
/// Severity band of ISO 20816.
const VELOCITY_BAND_HZ: (f32, f32) = (10.0, 1_000.0);
/// Corner of the anti-alias filter: 0.1 dB at 1 kHz, more than 40 dB where aliases would fall below it.
const ANTI_ALIAS_HZ: f64 = 1_300.0;
/// Band of the envelope, in which a bearing's resonance is expected.
const ENVELOPE_BAND_HZ: (f64, f64) = (2_000.0, 5_000.0);

/// Defect frequencies of a rolling bearing as multiples of shaft speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BearingOrders {
    /// Ball pass frequency, outer race.
    pub bpfo: f32,
    /// Ball pass frequency, inner race.
    pub bpfi: f32,
    /// Ball spin frequency; the defect line is at twice this.
    pub bsf: f32,
    /// Fundamental train (cage) frequency.
    pub ftf: f32,
}

/// The signal path of one vibration channel.
#[derive(Debug)]
pub struct Vibration {
    rate_hz: f32,
    dc: DcRemoval,
    moments: Moments,
    velocity_decimator: Decimator,
    velocity: Block,
    band: (Butterworth<2>, Butterworth<2>),
    band_square: f64,
    envelope_decimator: Decimator,
    envelope: Block,
}

impl Vibration {
    /// For `rate_hz` samples per second.
    pub fn new(rate_hz: f32) -> Self {
        let rate = f64::from(rate_hz);
        Self {
            rate_hz,
            dc: DcRemoval::new(rate),
            moments: Moments::default(),
            velocity_decimator: Decimator::new(DECIMATION, ANTI_ALIAS_HZ, rate),
            velocity: Block::default(),
            band: (Butterworth::new(Pass::High, ENVELOPE_BAND_HZ.0, rate), Butterworth::new(Pass::Low, ENVELOPE_BAND_HZ.1, rate)),
            band_square: 0.0,
            envelope_decimator: Decimator::new(DECIMATION, ANTI_ALIAS_HZ, rate),
            envelope: Block::default(),
        }
    }

    /// Takes a sample in g; true when it completes a block of [`BLOCK_SAMPLES`], whose [`Vibration::features`] are then due.
    pub fn push(&mut self, sample_g: f32) -> bool {
        let x = self.dc.step(sample_g);
        self.moments.push(x);
        if let Some(y) = self.velocity_decimator.step(x) {
            self.velocity.push(y);
        }
        let band = self.band.1.step(self.band.0.step(x));
        let square = band * band;
        self.band_square += f64::from(square);
        // Squaring moves the envelope to low frequencies; the decimator's filter removes the doubled carrier.
        if let Some(y) = self.envelope_decimator.step(square) {
            self.envelope.push(y);
        }
        self.velocity.is_full()
    }

    /// Features of the completed block; begins the next one. `None`: no movement at all, a stuck sensor.
    /// Lines need the bearing and a turning shaft.
    pub fn features(&mut self, bearing: Option<BearingOrders>, shaft_hz: Option<f32>) -> Option<Vec<Value, VALUES_MAX>> {
        let reduced_hz = self.rate_hz / DECIMATION as f32;
        let shape = core::mem::take(&mut self.moments).shape();
        let velocity = self.velocity.transform(reduced_hz);
        let envelope = self.envelope.transform(reduced_hz);
        let env_rms = libm::sqrt(core::mem::take(&mut self.band_square) / BLOCK_SAMPLES as f64) as f32;
        let shape = shape?;
        let mut values = Vec::new();
        let mut add = |quantity, value| values.push(Value { quantity, value }).expect("ten quantities fit sixteen places");
        add(Quantity::VRms, velocity.velocity_rms_mm_s(VELOCITY_BAND_HZ.0, VELOCITY_BAND_HZ.1));
        add(Quantity::ARms, shape.rms);
        add(Quantity::Crest, shape.crest);
        add(Quantity::Kurtosis, shape.kurtosis);
        add(Quantity::PeakToPeak, shape.peak_to_peak);
        add(Quantity::EnvRms, env_rms);
        if let (Some(orders), Some(shaft_hz)) = (bearing, shaft_hz) {
            let lines = [
                (Quantity::EnvBpfo, orders.bpfo),
                (Quantity::EnvBpfi, orders.bpfi),
                (Quantity::EnvBsf, 2.0 * orders.bsf),
                (Quantity::EnvFtf, orders.ftf),
            ];
            for (quantity, order) in lines {
                if let Some(line) = envelope.line(order * shaft_hz) {
                    add(quantity, line);
                }
            }
        }
        Some(values)
    }
}
