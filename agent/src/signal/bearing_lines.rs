//! Bearing faults by their lines in the averaged envelope spectrum.
//!
//! A fault strikes at its order times the shaft frequency, less or more some slip; slip is one number for all its lines. So a comb of three harmonics, with
//! the sidebands that the fault's way through the load zone makes, is moved over the slip that is allowed, and its surprises are summed. A line must be a
//! peak, not the skirt of another one; lines at whole orders of the shaft do not count: everything on a shaft makes those.
use serde::Serialize;

use super::{bearing::Orders, demodulation::EnvelopeSpectrum};

/// Slip of a bearing and error of the speed move its lines by so much.
const SLIP: f64 = 0.02;
/// Nothing so near to a line, as a part of its frequency, is higher than it.
const PEAK: f64 = 0.02;
/// Harmonics of the comb.
const HARMONICS: u32 = 3;
/// Harmonics whose sidebands count.
const WITH_SIDEBANDS: u32 = 2;
/// A sideband counts so much of a harmonic.
const SIDEBAND_WEIGHT: f64 = 0.5;
/// A single line counts at most so much, so that none makes a fault alone: 3 harmonics 36, with 4 sidebands 60.
const LINE_CAP: f64 = 12.0;
/// Half width of what belongs to the shaft, in bins (the main lobe of the Hann window).
const SHAFT_BINS: f64 = 1.5;
/// Fewer turns in a block do not tell a fault's lines from those of the shaft.
const TURNS_MIN: f64 = 10.0;

/// The part of a bearing that is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Outer ring: BPFO.
    Outer,
    /// Inner ring: BPFI with sidebands at 1x, as it turns through the load zone.
    Inner,
    /// Rolling element: twice BSF, since it strikes both rings, with sidebands at FTF.
    Ball,
    /// Cage: FTF.
    Cage,
}

/// How well the lines of a part stand out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comb {
    /// Whose lines.
    pub part: Part,
    /// Sum of -ln of the probability that noise makes each line; 0 and up. Over the range of slip healthy machines reach up to 20.
    pub evidence: f64,
    /// Where the first harmonic was found, Hz.
    pub line_hz: f64,
}

/// The combs of all parts, strongest first. Empty where the block spans too few turns.
pub fn combs(spectrum: &EnvelopeSpectrum, orders: &Orders, speed_hz: f64) -> Vec<Comb> {
    if speed_hz < TURNS_MIN * spectrum.step_hz {
        return Vec::new();
    }
    let parts = [
        (Part::Outer, orders.bpfo, None),
        (Part::Inner, orders.bpfi, Some(1.0)),
        (Part::Ball, 2.0 * orders.bsf, Some(orders.ftf)),
        (Part::Cage, orders.ftf, None),
    ];
    let mut combs: Vec<Comb> = parts
        .into_iter()
        .map(|(part, order, sideband)| {
            let (evidence, line_hz) = best(spectrum, order * speed_hz, sideband.map(|order| order * speed_hz), speed_hz);
            Comb { part, evidence, line_hz }
        })
        .collect();
    combs.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
    combs
}

/// A tooth of the comb: harmonic, distance from it in Hz, weight, noise floor there.
struct Tooth {
    harmonic: f64,
    offset_hz: f64,
    weight: f64,
    floor: f64,
}

/// The largest evidence over the range of slip, and the first harmonic there.
fn best(spectrum: &EnvelopeSpectrum, nominal_hz: f64, sideband_hz: Option<f64>, speed_hz: f64) -> (f64, f64) {
    let fits = |harmonic: u32| f64::from(harmonic) * nominal_hz * (1.0 + SLIP) < 0.9 * spectrum.width_hz;
    let harmonics: Vec<u32> = (1..=HARMONICS).filter(|&harmonic| fits(harmonic)).collect();
    let Some(&highest) = harmonics.last() else { return (0.0, nominal_hz) };
    let lines = harmonics.iter().map(|&harmonic| (harmonic, 0.0, 1.0));
    let sidebands = harmonics.iter().filter(|&&harmonic| harmonic <= WITH_SIDEBANDS).flat_map(|&harmonic| {
        sideband_hz.into_iter().flat_map(move |offset_hz| [(harmonic, -offset_hz, SIDEBAND_WEIGHT), (harmonic, offset_hz, SIDEBAND_WEIGHT)])
    });
    let teeth: Vec<Tooth> = lines
        .chain(sidebands)
        .filter_map(|(harmonic, offset_hz, weight)| {
            let harmonic = f64::from(harmonic);
            let f_hz = harmonic * nominal_hz + offset_hz;
            let floor = (f_hz > 3.0 * spectrum.step_hz).then(|| spectrum.floor(f_hz)).flatten()?;
            Some(Tooth { harmonic, offset_hz, weight, floor })
        })
        .collect();
    // Steps of at most a bin at the highest harmonic.
    let half = (SLIP * nominal_hz * f64::from(highest) / spectrum.step_hz).ceil() as i32;
    let mut found = (0.0, nominal_hz);
    for step in -half..=half {
        let line_hz = nominal_hz * (1.0 + SLIP * f64::from(step) / f64::from(half.max(1)));
        let evidence = teeth.iter().map(|tooth| tooth.evidence(spectrum, line_hz, speed_hz)).sum();
        if evidence > found.0 {
            found = (evidence, line_hz);
        }
    }
    found
}

impl Tooth {
    fn evidence(&self, spectrum: &EnvelopeSpectrum, line_hz: f64, speed_hz: f64) -> f64 {
        let of_shaft = |f_hz: f64| (f_hz - (f_hz / speed_hz).round() * speed_hz).abs() < SHAFT_BINS * spectrum.step_hz;
        let f_hz = self.harmonic * line_hz + self.offset_hz;
        let Some(peak) = spectrum.peak(f_hz).filter(|_| !of_shaft(f_hz)) else { return 0.0 };
        if spectrum.beside(f_hz, PEAK * f_hz).any(|(beside_hz, power)| power > peak && !of_shaft(beside_hz)) {
            return 0.0;
        }
        self.weight * spectrum.surprise(peak, self.floor).min(LINE_CAP)
    }
}
