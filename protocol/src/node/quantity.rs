//! What a node can measure or compute. The number of a variant is part of the wire format: new ones go to the end.
use serde::{Deserialize, Serialize};

/// A measured or computed quantity; formulas are in domain reference section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quantity {
    /// Velocity RMS, 10-1000 Hz (severity, ISO 20816).
    VRms,
    /// Acceleration RMS, mean removed, full bandwidth.
    ARms,
    /// Peak over RMS.
    Crest,
    /// Fourth moment over squared second moment: 1.5 for a sine, 3 for Gaussian noise.
    Kurtosis,
    /// Largest minus smallest acceleration.
    PeakToPeak,
    /// RMS of the envelope band.
    EnvRms,
    /// Line at the outer race's frequency in the envelope spectrum over the local median.
    EnvBpfo,
    /// The same at the inner race's frequency.
    EnvBpfi,
    /// The same at twice the ball's spin frequency.
    EnvBsf,
    /// The same at the cage's frequency.
    EnvFtf,
    /// Temperature of the measured part.
    Temperature,
    /// Shaft speed.
    Speed,
    /// Load in percent of nominal.
    Load,
    /// Motor current, RMS.
    Current,
    /// Pressure.
    Pressure,
    /// Flow.
    Flow,
    /// Electrical power.
    Power,
    /// Voltage, RMS.
    Voltage,
    /// Relative humidity.
    Humidity,
    /// Acceleration as sampled: the quantity of a raw vibration channel.
    Acceleration,
    /// Third moment over the 1.5th power of the second: 0 for a symmetric signal.
    Skewness,
}

impl Quantity {
    /// All of them, in wire order.
    pub const ALL: [Self; 21] = [
        Self::VRms,
        Self::ARms,
        Self::Crest,
        Self::Kurtosis,
        Self::PeakToPeak,
        Self::EnvRms,
        Self::EnvBpfo,
        Self::EnvBpfi,
        Self::EnvBsf,
        Self::EnvFtf,
        Self::Temperature,
        Self::Speed,
        Self::Load,
        Self::Current,
        Self::Pressure,
        Self::Flow,
        Self::Power,
        Self::Voltage,
        Self::Humidity,
        Self::Acceleration,
        Self::Skewness,
    ];

    /// Last part of the derived point's id: channel `de-h` gives `de-h.v_rms`.
    pub fn name(self) -> &'static str {
        match self {
            Self::VRms => "v_rms",
            Self::ARms => "a_rms",
            Self::Crest => "crest",
            Self::Kurtosis => "kurtosis",
            Self::PeakToPeak => "peak_to_peak",
            Self::EnvRms => "env.rms",
            Self::EnvBpfo => "env.bpfo",
            Self::EnvBpfi => "env.bpfi",
            Self::EnvBsf => "env.bsf",
            Self::EnvFtf => "env.ftf",
            Self::Temperature => "temperature",
            Self::Speed => "speed",
            Self::Load => "load",
            Self::Current => "current",
            Self::Pressure => "pressure",
            Self::Flow => "flow",
            Self::Power => "power",
            Self::Voltage => "voltage",
            Self::Humidity => "humidity",
            Self::Acceleration => "acceleration",
            Self::Skewness => "skewness",
        }
    }

    /// UCUM code of its unit; `1` for a ratio.
    pub fn unit(self) -> &'static str {
        match self {
            Self::VRms => "mm/s",
            Self::ARms | Self::PeakToPeak | Self::EnvRms | Self::Acceleration => "[g]",
            Self::Crest | Self::Kurtosis | Self::Skewness | Self::EnvBpfo | Self::EnvBpfi | Self::EnvBsf | Self::EnvFtf => "1",
            Self::Temperature => "Cel",
            Self::Speed => "/min",
            Self::Load | Self::Humidity => "%",
            Self::Current => "A",
            Self::Pressure => "bar",
            Self::Flow => "m3/h",
            Self::Power => "kW",
            Self::Voltage => "V",
        }
    }
}
