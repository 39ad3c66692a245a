//! The acceleration sensor: what becomes of a machine's movement in its converter, and what goes wrong there.
use std::time::Duration;

use crate::disturbance::{Disturbance, Kind};

/// Samples per second.
pub const RATE_HZ: f64 = 26_667.0;
/// Acceleration of the largest sample, g.
pub const RANGE_G: f64 = 16.0;
/// The same of a sensor that was set too small. Gravity alone fills it, so whatever a machine does, the upper half of it is cut off.
const SMALL_RANGE_G: f64 = 1.0;
/// Samples per second over those that it should take.
const TOO_FAST: f64 = 1.01;
/// What a stuck sensor says.
const STUCK: i16 = 1_234;

/// The sensor as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sensor {
    /// Samples per second that it really takes; it always says [`RATE_HZ`].
    pub rate_hz: f64,
    /// Acceleration of the largest sample, g. This it knows.
    pub range_g: f64,
    stuck: bool,
}

impl Sensor {
    /// With the disturbances that last at this time.
    pub fn at(now: Duration, disturbances: &[Disturbance]) -> Self {
        let lasts = |kind: Kind| disturbances.iter().any(|disturbance| disturbance.kind == kind && disturbance.is_active(now));
        Self {
            rate_hz: if lasts(Kind::SampleRateError) { TOO_FAST * RATE_HZ } else { RATE_HZ },
            range_g: if lasts(Kind::Clipping) { SMALL_RANGE_G } else { RANGE_G },
            stuck: lasts(Kind::StuckAxis),
        }
    }

    /// Acceleration per raw unit, g.
    pub fn scale(&self) -> f64 {
        self.range_g / 32_768.0
    }

    /// A sample as the converter gives it; beyond the range it stays at the end.
    pub fn digitise(&self, sample_g: f64) -> i16 {
        if self.stuck {
            return STUCK;
        }
        libm::rint(sample_g / self.range_g * 32_768.0).clamp(i16::MIN.into(), i16::MAX.into()) as i16
    }
}
