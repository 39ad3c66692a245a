//! Signal processing of waveform blocks: from samples to features. Pure, without I/O; the agent, the replay and training share it.
//!
//! Severity (velocity RMS) and early warning (kurtosis, envelope lines) are different answers: an outer race defect of 2 g changes the velocity by
//! 6 % and the envelope line by a factor of 20 (domain reference section 8). From features to a candidate fault: [`diagnosis`].
pub mod bearing;
pub mod bearing_lines;
pub mod clipping;
pub mod demodulation;
pub mod diagnosis;
pub mod envelope;
pub mod features;
pub mod peaks;
pub mod rotor;
pub mod severity;
#[cfg(test)]
pub(crate) mod simulated;
pub mod spectrum;
pub mod speed;

use hark_protocol::topics::Name;

use self::{
    bearing::Orders,
    diagnosis::{Diagnosis, Machine, Measured},
    envelope::Envelope,
    features::Shape,
    spectrum::{Spectrum, Velocities},
    speed::{Search, Tracked},
};
use crate::config::Bearing;

/// Standard gravity, m/s2.
pub const STANDARD_GRAVITY: f64 = 9.806_65;
/// Most samples of a block; a longer one has no features.
pub const BLOCK_SAMPLES_MAX: usize = 1 << 20;

/// Between the acceleration of shaft and structure and that of impacts, Hz: the upper end of the severity band.
const LOW_HIGH_HZ: f64 = 1_000.0;

/// All features by name. `v_1x` to `v_3x` are velocities at multiples of the shaft frequency, `a_rms.low` and `a_rms.high` accelerations below and above
/// 1 kHz; `env.bsf` looks at twice the spin of an element, where its defect shows.
pub const FEATURES: [&str; 16] = [
    "v_rms",
    "a_rms",
    "crest",
    "kurtosis",
    "skewness",
    "peak_to_peak",
    "a_rms.low",
    "a_rms.high",
    "v_1x",
    "v_2x",
    "v_3x",
    "env.rms",
    "env.bpfo",
    "env.bpfi",
    "env.bsf",
    "env.ftf",
];

/// The channel and the feature behind a point that is named `<channel>.<feature>`, such as `de-h` and `v_rms`; `None` for other points.
pub fn channel_and_feature(point: &str) -> Option<(&str, &'static str)> {
    FEATURES.iter().find_map(|feature| Some((point.strip_suffix(feature)?.strip_suffix('.')?, *feature))).filter(|(channel, _)| !channel.is_empty())
}

/// What a feature tells of, for people; `None` for a name that is no feature.
pub fn feature_words(feature: &str) -> Option<&'static str> {
    Some(match feature {
        "v_rms" => "vibration velocity",
        "a_rms" => "vibration acceleration",
        "crest" | "kurtosis" => "single strong impacts",
        "skewness" => "impacts to one side",
        "peak_to_peak" => "largest swing",
        "a_rms.low" => "vibration below 1 kHz",
        "a_rms.high" => "vibration above 1 kHz",
        "v_1x" => "vibration once per turn",
        "v_2x" => "vibration twice per turn",
        "v_3x" => "vibration three times per turn",
        "env.rms" => "impacts of any rate",
        "env.bpfo" => "impacts at the rate of a bearing's outer ring",
        "env.bpfi" => "impacts at the rate of a bearing's inner ring",
        "env.bsf" => "impacts at the rate of a bearing's rolling elements",
        "env.ftf" => "impacts at the rate of a bearing's cage",
        _ => return None,
    })
}

/// UCUM unit of a feature; `1` for a ratio and for a name that is no feature.
pub fn feature_unit(feature: &str) -> &'static str {
    match feature {
        "v_rms" | "v_1x" | "v_2x" | "v_3x" => "mm/s",
        "a_rms" | "a_rms.low" | "a_rms.high" | "peak_to_peak" | "env.rms" => "[g]",
        _ => "1",
    }
}

/// Unit of the samples of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockUnit {
    /// Standard gravities.
    G,
    /// Metres per second squared.
    MetresPerSecondSquared,
}

impl BlockUnit {
    /// The unit called `name` in UCUM; `g` is taken for gravity, since nobody means grams. `None` for any other.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "[g]" | "g" => Some(Self::G),
            "m/s2" => Some(Self::MetresPerSecondSquared),
            _ => None,
        }
    }

    /// Its name in UCUM.
    pub fn name(self) -> &'static str {
        match self {
            Self::G => "[g]",
            Self::MetresPerSecondSquared => "m/s2",
        }
    }
}

/// Under what a block was taken.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Sampling rate, Hz.
    pub fs_hz: f64,
    /// Unit of the samples.
    pub unit: BlockUnit,
    /// Shaft frequency, Hz.
    pub speed_hz: Option<f64>,
    /// Bearing at the sensor.
    pub bearing: Option<&'a Bearing>,
    /// Band of the envelope features, Hz.
    pub envelope_band_hz: (f64, f64),
}

impl Setting<'_> {
    fn speed_hz(&self) -> Option<f64> {
        self.speed_hz.filter(|speed| speed.is_finite() && *speed > 0.0)
    }
}

/// Computes features; keeps plans and scratch memory of the last block length.
#[derive(Debug, Default)]
pub struct Features {
    transforms: Option<(Spectrum, Envelope)>,
    /// Samples in m/s2.
    samples: Vec<f64>,
}

impl Features {
    /// Without plans yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `wanted` features of a block, each with its unit; `None` where one cannot be computed: no speed, no bearing, block too short, unknown name.
    pub fn block_features(&mut self, samples: &[f64], setting: &Setting<'_>, wanted: &[Name]) -> Vec<(Name, &'static str, Option<f64>)> {
        if !self.take(samples, setting) {
            return wanted.iter().map(|name| (name.clone(), feature_unit(name), None)).collect();
        }
        let asked = |beginnings: &[&str]| wanted.iter().any(|name| beginnings.iter().any(|beginning| name.starts_with(beginning)));
        let (fs_hz, speed_hz) = (setting.fs_hz, setting.speed_hz());
        let (spectrum, envelope) = Self::transforms_for(&mut self.transforms, samples.len());

        let mean = features::mean(&self.samples);
        let mut found = Found { shape: features::shape(&self.samples, mean), ..Found::default() };
        if asked(&["v_rms"]) {
            found.velocity = spectrum.velocity_rms(&self.samples, mean, fs_hz, speed_hz);
        }
        if asked(&["v_1x", "v_2x", "v_3x", "a_rms."]) {
            let velocities = spectrum.velocities(&self.samples, mean, fs_hz);
            found.orders = [1.0, 2.0, 3.0].map(|order| speed_hz.and_then(|speed_hz| rotor::line(&velocities, order, speed_hz)));
            found.parts_g = parts(&velocities, fs_hz).map(|[low, high]| [low / STANDARD_GRAVITY, high / STANDARD_GRAVITY]);
        }
        if asked(&["env."]) {
            let lines_hz = setting.bearing.and_then(bearing::orders).zip(speed_hz);
            found.enveloped = envelope_features(spectrum, envelope, &self.samples, mean, fs_hz, setting.envelope_band_hz, lines_hz);
        }
        let value = |name: &str| found.pick(name).filter(|value| value.is_finite());
        wanted.iter().map(|name| (name.clone(), feature_unit(name), value(name))).collect()
    }

    /// The shaft's speed by the lines of a block, whatever the setting says of it; `None` where they do not tell it. `last_hz`: what the block before told.
    pub fn track_speed(&mut self, samples: &[f64], setting: &Setting<'_>, search: &Search, last_hz: Option<f64>) -> Option<Tracked> {
        if !self.take(samples, setting) {
            return None;
        }
        let (spectrum, _) = Self::transforms_for(&mut self.transforms, samples.len());
        let mean = features::mean(&self.samples);
        speed::track(&spectrum.velocities(&self.samples, mean, setting.fs_hz), search, last_hz)
    }

    /// What the rules make of a block on a `machine`, whose speed and bearing are those of the setting; `None` for samples without features, and
    /// for a flat line. Of a block that was cut none is asked.
    pub fn diagnose(&mut self, samples: &[f64], setting: &Setting<'_>, machine: &Machine) -> Option<Diagnosis> {
        if features::is_flat(samples) || !self.take(samples, setting) {
            return None;
        }
        let (fs_hz, speed_hz) = (setting.fs_hz, setting.speed_hz());
        let (spectrum, _) = Self::transforms_for(&mut self.transforms, samples.len());
        let mean = features::mean(&self.samples);
        let measured = Measured {
            samples: &self.samples,
            mean,
            fs_hz,
            shape: features::shape(&self.samples, mean),
            v_rms: spectrum.velocity_rms(&self.samples, mean, fs_hz, speed_hz),
            a_high: parts(&spectrum.velocities(&self.samples, mean, fs_hz), fs_hz).map(|[_, high]| high),
        };
        if clipping::is_clipped(samples) {
            return Some(Diagnosis::of_clipped(machine.class.zip(measured.v_rms).map(|(class, v_rms)| class.zone(v_rms))));
        }
        let machine = Machine { speed_hz, bearing: setting.bearing.and_then(bearing::orders), ..*machine };
        Some(diagnosis::diagnose(spectrum, &measured, &machine))
    }

    /// Takes the samples in m/s2; false if they cannot be used.
    fn take(&mut self, samples: &[f64], setting: &Setting<'_>) -> bool {
        let usable = (1..=BLOCK_SAMPLES_MAX).contains(&samples.len())
            && setting.fs_hz.is_finite()
            && setting.fs_hz > 0.0
            && samples.iter().all(|s| s.is_finite());
        let factor = if setting.unit == BlockUnit::G { STANDARD_GRAVITY } else { 1.0 };
        self.samples.clear();
        if usable {
            self.samples.extend(samples.iter().map(|sample| sample * factor));
        }
        usable
    }

    fn transforms_for(transforms: &mut Option<(Spectrum, Envelope)>, length: usize) -> (&mut Spectrum, &mut Envelope) {
        let kept = transforms.take().filter(|(spectrum, _)| spectrum.length() == length);
        let (spectrum, envelope) = transforms.insert(kept.unwrap_or_else(|| (Spectrum::new(length), Envelope::new(length))));
        (spectrum, envelope)
    }
}

/// Acceleration RMS below and above 1 kHz, m/s2; `None` where the sampling has no room for both.
fn parts(velocities: &Velocities<'_>, fs_hz: f64) -> Option<[f64; 2]> {
    (fs_hz / 2.0 > LOW_HIGH_HZ).then(|| velocities.accelerations(LOW_HIGH_HZ))
}

/// All that was computed of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    shape: Option<Shape>,
    velocity: Option<f64>,
    orders: [Option<f64>; 3],
    parts_g: Option<[f64; 2]>,
    enveloped: EnvelopeFeatures,
}

#[derive(Clone, Copy, Debug, Default)]
struct EnvelopeFeatures {
    rms_g: Option<f64>,
    bpfo: Option<f64>,
    bpfi: Option<f64>,
    bsf: Option<f64>,
    ftf: Option<f64>,
}

fn envelope_features(
    spectrum: &mut Spectrum,
    envelope: &mut Envelope,
    samples: &[f64],
    mean: f64,
    fs_hz: f64,
    band: (f64, f64),
    lines_hz: Option<(Orders, f64)>,
) -> EnvelopeFeatures {
    let mut sorted = envelope.sorted_scratch();
    let mut found = EnvelopeFeatures::default();
    if let Some(lines) = envelope.lines(spectrum, samples, mean, fs_hz, band) {
        found.rms_g = Some(lines.band_rms / STANDARD_GRAVITY);
        if let Some((orders, speed_hz)) = lines_hz {
            let mut indicator = |order: f64| lines.indicator(order * speed_hz, &mut sorted);
            found.bpfo = indicator(orders.bpfo);
            found.bpfi = indicator(orders.bpfi);
            found.bsf = indicator(2.0 * orders.bsf);
            found.ftf = indicator(orders.ftf);
        }
    }
    envelope.keep_scratch(sorted);
    found
}

impl Found {
    fn pick(&self, name: &str) -> Option<f64> {
        let shape = self.shape?;
        match name {
            "v_rms" => self.velocity,
            "a_rms" => Some(shape.rms / STANDARD_GRAVITY),
            "crest" => shape.crest,
            "kurtosis" => shape.kurtosis,
            "skewness" => shape.skewness,
            "peak_to_peak" => Some(shape.peak_to_peak / STANDARD_GRAVITY),
            "a_rms.low" => self.parts_g.map(|[low, _]| low),
            "a_rms.high" => self.parts_g.map(|[_, high]| high),
            "v_1x" => self.orders[0],
            "v_2x" => self.orders[1],
            "v_3x" => self.orders[2],
            "env.rms" => self.enveloped.rms_g,
            "env.bpfo" => self.enveloped.bpfo,
            "env.bpfi" => self.enveloped.bpfi,
            "env.bsf" => self.enveloped.bsf,
            "env.ftf" => self.enveloped.ftf,
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
