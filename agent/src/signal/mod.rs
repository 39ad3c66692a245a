//! Signal processing of waveform blocks: from samples to features. Pure, without I/O; the agent, the replay and training share it.
//!
//! Severity (velocity RMS) and early warning (kurtosis, envelope lines) are different answers: an outer race defect of 2 g changes the velocity by
//! 6 % and the envelope line by a factor of 20 (domain reference section 8).
pub mod bearing;
pub mod envelope;
pub mod features;
pub mod spectrum;

use hark_protocol::topics::Name;

use self::{bearing::Orders, envelope::Envelope, features::Shape, spectrum::Spectrum};
use crate::config::Bearing;

/// Standard gravity, m/s2.
pub const STANDARD_GRAVITY: f64 = 9.806_65;
/// Most samples of a block; a longer one has no features.
pub const BLOCK_SAMPLES_MAX: usize = 1 << 20;

/// All features by name. `env.bsf` looks at twice the spin of an element, where its defect shows.
pub const FEATURES: [&str; 11] =
    ["v_rms", "a_rms", "crest", "kurtosis", "skewness", "peak_to_peak", "env.rms", "env.bpfo", "env.bpfi", "env.bsf", "env.ftf"];

/// UCUM unit of a feature; `1` for a ratio and for a name that is no feature.
pub fn feature_unit(feature: &str) -> &'static str {
    match feature {
        "v_rms" => "mm/s",
        "a_rms" | "peak_to_peak" | "env.rms" => "[g]",
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

    /// The `wanted` features of a block sampled at `fs_hz`, each with its unit; `None` where one cannot be computed: no speed, no bearing, block too
    /// short, unknown name. `band` (Hz) is that of the envelope.
    #[expect(clippy::too_many_arguments, reason = "a block and all that its features may need; every one of another type or named at the call")]
    pub fn block_features(
        &mut self,
        samples: &[f64],
        fs_hz: f64,
        unit: BlockUnit,
        wanted: &[Name],
        speed_hz: Option<f64>,
        bearing: Option<&Bearing>,
        band: (f64, f64),
    ) -> Vec<(Name, &'static str, Option<f64>)> {
        let usable = (1..=BLOCK_SAMPLES_MAX).contains(&samples.len()) && fs_hz.is_finite() && fs_hz > 0.0 && samples.iter().all(|s| s.is_finite());
        if !usable {
            return wanted.iter().map(|name| (name.clone(), feature_unit(name), None)).collect();
        }
        let factor = if unit == BlockUnit::G { STANDARD_GRAVITY } else { 1.0 };
        self.samples.clear();
        self.samples.extend(samples.iter().map(|sample| sample * factor));
        let (spectrum, envelope) = Self::transforms_for(&mut self.transforms, samples.len());

        let mean = features::mean(&self.samples);
        let shape = features::shape(&self.samples, mean);
        let velocity = wanted.iter().any(|name| &**name == "v_rms").then(|| spectrum.velocity_rms(&self.samples, mean, fs_hz, speed_hz)).flatten();
        let speed_hz = speed_hz.filter(|speed| speed.is_finite() && *speed > 0.0);
        let lines_hz = bearing.and_then(bearing::orders).zip(speed_hz);
        let enveloped = if wanted.iter().any(|name| name.starts_with("env.")) {
            envelope_features(spectrum, envelope, &self.samples, mean, fs_hz, band, lines_hz)
        } else {
            EnvelopeFeatures::default()
        };
        let value = |name: &str| pick(name, shape, velocity, &enveloped).filter(|value| value.is_finite());
        wanted.iter().map(|name| (name.clone(), feature_unit(name), value(name))).collect()
    }

    fn transforms_for(transforms: &mut Option<(Spectrum, Envelope)>, length: usize) -> (&mut Spectrum, &mut Envelope) {
        let kept = transforms.take().filter(|(spectrum, _)| spectrum.length() == length);
        let (spectrum, envelope) = transforms.insert(kept.unwrap_or_else(|| (Spectrum::new(length), Envelope::new(length))));
        (spectrum, envelope)
    }
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

fn pick(name: &str, shape: Option<Shape>, velocity: Option<f64>, enveloped: &EnvelopeFeatures) -> Option<f64> {
    let shape = shape?;
    match name {
        "v_rms" => velocity,
        "a_rms" => Some(shape.rms / STANDARD_GRAVITY),
        "crest" => shape.crest,
        "kurtosis" => shape.kurtosis,
        "skewness" => shape.skewness,
        "peak_to_peak" => Some(shape.peak_to_peak / STANDARD_GRAVITY),
        "env.rms" => enveloped.rms_g,
        "env.bpfo" => enveloped.bpfo,
        "env.bpfi" => enveloped.bpfi,
        "env.bsf" => enveloped.bsf,
        "env.ftf" => enveloped.ftf,
        _ => None,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
