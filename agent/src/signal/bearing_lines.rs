//! Bearing faults by their lines in the averaged envelope spectrum.
//!
//! A fault strikes at its order times the shaft frequency, less or more some slip; slip is one number for all its lines. So a comb of three harmonics, with
//! the sidebands that the fault's way through the load zone makes, is moved over the slip that is allowed, and its surprises are summed. A line must be a
//! peak, not the skirt of another one; lines at whole orders of the shaft do not count: everything on a shaft makes those.
use std::ops::RangeInclusive;

use serde::Serialize;

use super::{bearing::Orders, demodulation::EnvelopeSpectrum};

/// Slip of a bearing and error of the speed move its lines by so much.
const SLIP: f64 = 0.02;
/// Nothing so near to a line, as a part of its frequency, is higher than it.
const PEAK: f64 = 0.02;
/// Harmonics of the comb.
pub(super) const HARMONICS: u32 = 3;
/// Harmonics whose sidebands count.
const WITH_SIDEBANDS: u32 = 2;
/// A sideband counts so much of a harmonic.
const SIDEBAND_WEIGHT: f64 = 0.5;
/// A single line counts at most so much, so that none makes a fault alone: 3 harmonics 36, with 4 sidebands 60.
const LINE_CAP: f64 = 12.0;
/// A line so near to one of the shaft's, in bins, is none of the bearing's.
const SHAFT_BINS: f64 = 1.5;
/// By this error of the speed the shaft's own lines lie beside their places.
const SPEED_ERROR: f64 = 0.003;
/// Evidence of a cage's comb from which on its higher harmonics may be taken for lines of other parts: BPFO is a whole multiple of FTF.
const CAGE_MIN: f64 = 20.0;
/// Those harmonics have so much, of 48 at most, where noise has 3: an element on its way through the load zone has lines at FTF too, but few. Bearings of CWRU
/// showed that 20 is too little.
const CAGE_FURTHER: RangeInclusive<u32> = 4..=7;
const CAGE_FURTHER_MIN: f64 = 30.0;
/// A line of another part then has so many times the power of those at the distance of FTF, which are as high as it where all are the cage's.
const OVER_CAGE: f64 = 1.5;
/// Lines of a cage so many bins apart fill half of the bins, so that its floor lies between them.
const CLOSE_BINS: f64 = 12.0;
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
    /// What of it is of sidebands.
    pub of_sidebands: f64,
    /// Where the first harmonic was found, Hz.
    pub line_hz: f64,
}

/// The combs of all parts, strongest first. Empty where the block spans too few turns.
pub fn combs(spectrum: &EnvelopeSpectrum, orders: &Orders, speed_hz: f64, has_gear: bool) -> Vec<Comb> {
    if speed_hz < TURNS_MIN * spectrum.step_hz {
        return Vec::new();
    }
    let comb = |part: Part, order: f64, sideband: Option<f64>, cage_hz: Option<f64>| {
        let look = Look { spectrum, speed_hz, has_gear, is_cage: part == Part::Cage, cage_hz };
        look.best(part, order * speed_hz, sideband.map(|order| order * speed_hz))
    };
    let cage = comb(Part::Cage, orders.ftf, None, None);
    let look = Look { spectrum, speed_hz, has_gear, is_cage: true, cage_hz: None };
    let further = CAGE_FURTHER
        .filter_map(|harmonic| look.tooth(harmonic, cage.line_hz, 0.0, 1.0))
        .map(|tooth| look.evidence(&tooth, cage.line_hz))
        .sum::<f64>();
    let cage_hz = (cage.evidence >= CAGE_MIN && further >= CAGE_FURTHER_MIN).then_some(cage.line_hz);
    let mut combs = vec![
        comb(Part::Outer, orders.bpfo, None, cage_hz),
        comb(Part::Inner, orders.bpfi, Some(1.0), cage_hz),
        comb(Part::Ball, 2.0 * orders.bsf, Some(orders.ftf), cage_hz),
        cage,
    ];
    combs.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
    combs
}

/// What a comb is looked for in.
struct Look<'a> {
    spectrum: &'a EnvelopeSpectrum,
    speed_hz: f64,
    /// A tooth may strike at each turn, and its lines spread over the bins beside them.
    has_gear: bool,
    /// A cage's lines may stand close to each other.
    is_cage: bool,
    /// Where a cage strikes: so far apart are its lines, among which those of the other parts are no others.
    cage_hz: Option<f64>,
}

/// A tooth of the comb: harmonic, distance from it in Hz, weight, noise floor there.
struct Tooth {
    harmonic: f64,
    offset_hz: f64,
    weight: f64,
    floor: f64,
}

impl Look<'_> {
    /// The comb with the largest evidence over the range of slip.
    fn best(&self, part: Part, nominal_hz: f64, sideband_hz: Option<f64>) -> Comb {
        let spectrum = self.spectrum;
        let fits = |harmonic: u32| f64::from(harmonic) * nominal_hz * (1.0 + SLIP) < 0.9 * spectrum.width_hz;
        let harmonics: Vec<u32> = (1..=HARMONICS).filter(|&harmonic| fits(harmonic)).collect();
        let mut found = Comb { part, evidence: 0.0, of_sidebands: 0.0, line_hz: nominal_hz };
        let Some(&highest) = harmonics.last() else { return found };
        let lines = harmonics.iter().map(|&harmonic| (harmonic, 0.0, 1.0));
        let sidebands = harmonics.iter().filter(|&&harmonic| harmonic <= WITH_SIDEBANDS).flat_map(|&harmonic| {
            sideband_hz.into_iter().flat_map(move |offset_hz| [(harmonic, -offset_hz, SIDEBAND_WEIGHT), (harmonic, offset_hz, SIDEBAND_WEIGHT)])
        });
        let tooth = |(harmonic, offset_hz, weight)| self.tooth(harmonic, nominal_hz, offset_hz, weight);
        let teeth: Vec<Tooth> = lines.chain(sidebands).filter_map(tooth).collect();
        // Steps of at most a bin at the highest harmonic.
        let half = (SLIP * nominal_hz * f64::from(highest) / spectrum.step_hz).ceil() as i32;
        for step in -half..=half {
            let line_hz = nominal_hz * (1.0 + SLIP * f64::from(step) / f64::from(half.max(1)));
            let sum = |of_sidebands: bool| {
                let counted = teeth.iter().filter(|tooth| (tooth.offset_hz != 0.0) == of_sidebands);
                counted.map(|tooth| self.evidence(tooth, line_hz)).sum::<f64>()
            };
            let (of_lines, of_sidebands) = (sum(false), sum(true));
            if of_lines + of_sidebands > found.evidence {
                found = Comb { part, evidence: of_lines + of_sidebands, of_sidebands, line_hz };
            }
        }
        found
    }

    fn tooth(&self, harmonic: u32, line_hz: f64, offset_hz: f64, weight: f64) -> Option<Tooth> {
        let (harmonic, spectrum) = (f64::from(harmonic), self.spectrum);
        let f_hz = harmonic * line_hz + offset_hz;
        let is_close = self.is_cage && line_hz < CLOSE_BINS * spectrum.step_hz;
        let floor = |f_hz: f64| if is_close { spectrum.floor_between_lines(f_hz) } else { spectrum.floor(f_hz) };
        let floor = (f_hz > 3.0 * spectrum.step_hz).then(|| floor(f_hz)).flatten()?;
        Some(Tooth { harmonic, offset_hz, weight, floor })
    }

    fn evidence(&self, tooth: &Tooth, line_hz: f64) -> f64 {
        let Self { spectrum, speed_hz, has_gear, cage_hz, .. } = *self;
        let shaft_hz = |f_hz: f64| (f_hz / speed_hz).round() * speed_hz;
        let of_shaft = |f_hz: f64| (f_hz - shaft_hz(f_hz)).abs() < SHAFT_BINS * spectrum.step_hz;
        let f_hz = tooth.harmonic * line_hz + tooth.offset_hz;
        let peak = if has_gear { spectrum.peak_without(f_hz, shaft_hz(f_hz), SPEED_ERROR * f_hz) } else { spectrum.peak(f_hz) };
        let Some(peak) = peak.filter(|_| !of_shaft(f_hz)) else { return 0.0 };
        if spectrum.beside(f_hz, PEAK * f_hz).any(|(beside_hz, power)| power > peak && !of_shaft(beside_hz)) {
            return 0.0;
        }
        let is_of_cage = |cage_hz: f64| {
            [f_hz - cage_hz, f_hz + cage_hz].into_iter().filter_map(|f_hz| spectrum.peak(f_hz)).any(|beside| peak < OVER_CAGE * beside)
        };
        if cage_hz.is_some_and(is_of_cage) {
            return 0.0;
        }
        tooth.weight * spectrum.surprise(peak, tooth.floor).min(LINE_CAP)
    }
}
