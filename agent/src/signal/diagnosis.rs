//! From features to a candidate fault: physical rules that no data trained, each with the evidence that it rests on.
//!
//! - bearing: combs of fault lines in the envelope spectrum averaged over bands (`demodulation.rs`, `bearing_lines.rs`);
//! - unbalance, misalignment, looseness, gear: `rotor.rs`;
//! - cavitation: noise above the severity band that comes in bursts, more of them as a vane passes.
//!
//! What is out of order without a name is `not_determined`, with a reason; `none` says that every rule was asked for which its inputs were there.
use serde::{Serialize, Serializer};

use super::{
    bearing::Orders as BearingOrders,
    bearing_lines::{self, Comb, HARMONICS, Part},
    demodulation::{self, EnvelopeSpectrum},
    features::Shape,
    rotor,
    severity::{Class, Zone},
    spectrum::Spectrum,
};

/// Evidence of a comb from which on it is a fault: of 700 simulated healthy and loose machines none reached it, the largest had 19.6.
const BEARING_MIN: f64 = 20.0;
/// Evidence of a rolling element's comb from which on lines at FTF are its own: of simulated healthy machines 1 % have more.
const BALL_BESIDE_CAGE_MIN: f64 = 12.5;
/// The strongest comb is at least so much stronger than that of any other part, else the lines fit both.
const BEARING_MARGIN: f64 = 1.1;
/// Lines so near to each other, as a part of their frequency, are one.
const SAME_LINE: f64 = 0.02;
/// Evidence of its sidebands from which on lines are a rolling element's.
const BALL_SIDEBANDS_MIN: f64 = 6.0;
/// Kurtosis from which on a signal holds impacts (domain reference section 8: Gaussian 3, impulsive above 4).
const KURTOSIS_MAX: f64 = 4.0;
/// Cavitation: acceleration RMS above 1 kHz, at least so much of all.
const CAVITATION_HIGH_MIN: f64 = 0.7;
/// Cavitation: evidence of the first two harmonics of the vane pass.
const CAVITATION_LINES_MIN: f64 = 20.0;
/// Cavitation: the line at the vane pass, so many times the power of the orders beside it, which what strikes once a turn has as well.
const CAVITATION_OVER_ORDERS_MIN: f64 = 5.0;
/// A tachometer is off by this part.
const TACHOMETER_ERROR: f64 = 0.004;
/// Cavitation is not told from a bearing one of whose lines lies so near to the vane pass, as a part of it.
const CAVITATION_FROM_BEARING: f64 = 0.01;
/// Cavitation: the noise comes in bursts. Flow that swells by 15 % at the vane pass, as in a sound pump, makes 0.09.
const CAVITATION_BURSTS_MIN: f64 = 0.2;
const COMB_SOURCE: &str = "squared envelope spectrum, Randall and Antoni 2011; limit from simulated healthy machines";
const CAVITATION_SOURCE: &str = "common description of cavitation, no clause; verify";

/// What may be wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Mass out of centre.
    Unbalance,
    /// Shafts out of line.
    Misalignment,
    /// Something is loose.
    Looseness,
    /// Outer ring of the bearing.
    Outer,
    /// Inner ring of the bearing.
    Inner,
    /// Rolling element of the bearing.
    Ball,
    /// Cage of the bearing.
    Cage,
    /// Tooth of a gear.
    Gear,
    /// Bubbles that collapse in a pump.
    Cavitation,
}

/// One reason to believe in a fault: `value` reaches `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// What was looked at.
    pub indicator: &'static str,
    /// What it is.
    pub value: f64,
    /// From where on it counts.
    pub limit: f64,
    /// UCUM unit of both; `1` for a ratio.
    pub unit: &'static str,
    /// Standard, paper or practice that the limit comes from.
    pub source: &'static str,
}

impl Fault {
    /// As an answer names them, the first of those that are there.
    pub const ALL: [Self; 9] =
        [Self::Outer, Self::Inner, Self::Ball, Self::Cage, Self::Cavitation, Self::Gear, Self::Looseness, Self::Misalignment, Self::Unbalance];

    /// Its name, as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unbalance => "unbalance",
            Self::Misalignment => "misalignment",
            Self::Looseness => "looseness",
            Self::Outer => "outer",
            Self::Inner => "inner",
            Self::Ball => "ball",
            Self::Cage => "cage",
            Self::Gear => "gear",
            Self::Cavitation => "cavitation",
        }
    }

    /// Name of the feature with its strength: `fault.outer` …
    pub fn indicator(self) -> String {
        format!("fault.{}", self.name())
    }
}

impl Candidate {
    /// How far its weakest evidence is beyond its limit: 1 or more.
    pub fn strength(&self) -> f64 {
        self.evidence.iter().map(|evidence| evidence.value / evidence.limit).fold(f64::INFINITY, f64::min)
    }
}

impl Diagnosis {
    /// Of a block whose samples are all equal: no rule is asked.
    pub fn of_flat_line() -> Self {
        let reason = "all samples are equal: the sensor, or the line to it, is stuck".to_owned();
        Self { fault: Verdict::NotDetermined, reason: Some(reason), zone: None, candidates: Vec::new(), asked: Vec::new() }
    }

    /// Of a block that was cut, which has harmonics and impacts that its machine does not have: no rule is asked.
    pub fn of_clipped(zone: Option<Zone>) -> Self {
        let reason = "the signal is cut at an end of its range: what a cut makes cannot be told from what the machine does".to_owned();
        Self { fault: Verdict::NotDetermined, reason: Some(reason), zone, candidates: Vec::new(), asked: Vec::new() }
    }

    /// That of the fault where it is named, 0 where it is not; `None` where its rule could not be asked.
    pub fn strength(&self, fault: Fault) -> Option<f64> {
        let named = self.candidates.iter().find(|candidate| candidate.fault == fault);
        self.asked.contains(&fault).then(|| named.map_or(0.0, Candidate::strength))
    }
}

impl Evidence {
    /// Whether it counts.
    pub fn holds(&self) -> bool {
        self.value.is_finite() && self.value >= self.limit
    }
}

/// A fault with all its evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The fault.
    pub fault: Fault,
    /// Why, at least one.
    pub evidence: Vec<Evidence>,
}

/// What is known of the machine beside its samples; what is not given is not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Shaft frequency, Hz.
    pub speed_hz: Option<f64>,
    /// Fault orders of the bearing.
    pub bearing: Option<BearingOrders>,
    /// Class for the severity zone.
    pub class: Option<Class>,
    /// Teeth of the gear on this shaft.
    pub teeth: Option<u32>,
    /// Vanes of the pump on this shaft.
    pub vanes: Option<u32>,
}

/// What the rules came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The named fault, or that there is none, or that it is not determined.
    pub fault: Verdict,
    /// Why it is not determined, or what was not asked for want of an input.
    pub reason: Option<String>,
    /// Zone of severity.
    pub zone: Option<Zone>,
    /// All named candidates, bearing first.
    pub candidates: Vec<Candidate>,
    /// Faults whose rules had all that they look at.
    #[serde(skip)]
    pub asked: Vec<Fault>,
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule found a fault.
    None,
    /// Something is out of order, or so much is unknown that nothing can be said.
    NotDetermined,
    /// The first candidate.
    Named(Fault),
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::NotDetermined => serializer.serialize_str("not_determined"),
            Self::Named(fault) => fault.serialize(serializer),
        }
    }
}

/// A block and what was computed of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'a> {
    /// Samples, m/s2.
    pub samples: &'a [f64],
    pub mean: f64,
    pub fs_hz: f64,
    pub shape: Option<Shape>,
    /// Velocity RMS, mm/s.
    pub v_rms: Option<f64>,
    /// Acceleration RMS above 1 kHz, m/s2.
    pub a_high: Option<f64>,
}

/// Asks every rule whose inputs are there.
pub(super) fn diagnose(spectrum: &mut Spectrum, measured: &Measured<'_>, machine: &Machine) -> Diagnosis {
    let zone = machine.class.zip(measured.v_rms).map(|(class, v_rms)| class.zone(v_rms));
    let (mut unnamed, mut candidates, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(speed_hz) = machine.speed_hz {
        let highest = machine.bearing.map_or(0.0, |orders| orders.bpfi).max(machine.vanes.map_or(0.0, f64::from));
        let enveloped = demodulation::demodulate(spectrum, measured.samples, measured.mean, measured.fs_hz, highest * speed_hz);
        let combs = |orders| {
            enveloped
                .as_ref()
                .map(|enveloped| bearing_lines::combs(enveloped, orders, speed_hz, machine.teeth.is_some()))
                .filter(|combs| !combs.is_empty())
        };
        match machine.bearing.as_ref().map(combs) {
            Some(Some(combs)) => {
                asked.extend([Fault::Outer, Fault::Inner, Fault::Ball, Fault::Cage]);
                match bearing_candidate(&combs) {
                    Ok(named) => candidates.extend(named),
                    Err(why) => unnamed.push(why),
                }
            }
            Some(None) => unnamed.push("the block is too short, or sampled too slowly, for the lines of the bearing".to_owned()),
            None => {}
        }
        let velocities = spectrum.velocities(measured.samples, measured.mean, measured.fs_hz);
        if let Some(teeth) = machine.teeth {
            asked.push(Fault::Gear);
            candidates.extend(rotor::gear(&velocities, teeth, speed_hz));
        }
        if let Some((vanes, enveloped)) = machine.vanes.zip(enveloped.as_ref()) {
            asked.extend(measured.a_high.map(|_| Fault::Cavitation));
            let is_at_vanes =
                |order: f64| (1..=HARMONICS).any(|harmonic| (f64::from(harmonic) * order / f64::from(vanes) - 1.0).abs() <= CAVITATION_FROM_BEARING);
            let is_of_bearing = machine.bearing.is_some_and(|orders| [orders.bpfo, orders.bpfi, 2.0 * orders.bsf].into_iter().any(is_at_vanes));
            // What strikes in a bearing or a gear comes in bursts too, and some of its lines may lie at the vane pass.
            match cavitation(enveloped, measured, vanes, speed_hz).filter(|_| candidates.is_empty()) {
                Some(_) if is_of_bearing => unnamed.push("bursts at the vane pass, where a line of the bearing lies too".to_owned()),
                named => candidates.extend(named),
            }
        }
        if let Some((class, v_rms)) = machine.class.zip(measured.v_rms) {
            asked.extend([Fault::Unbalance, Fault::Misalignment, Fault::Looseness]);
            candidates.extend(rotor::candidate(&rotor::Orders::of(&velocities, v_rms, speed_hz), &class));
        }
    }
    if let Some(zone @ (Zone::C | Zone::D)) = zone {
        unnamed.push(format!("velocity is in zone {zone:?}"));
    }
    if let Some(kurtosis) = measured.shape.and_then(|shape| shape.kurtosis).filter(|kurtosis| *kurtosis > KURTOSIS_MAX) {
        unnamed.push(format!("kurtosis is {kurtosis:.1}, above {KURTOSIS_MAX}: impacts"));
    }
    let (fault, reason) = verdict(&candidates, unnamed, machine);
    Diagnosis { fault, reason, zone, candidates, asked }
}

/// The answer in a word, and why it is no name. `unnamed`: what is out of order, or could not be asked, for people.
fn verdict(candidates: &[Candidate], unnamed: Vec<String>, machine: &Machine) -> (Verdict, Option<String>) {
    if let Some(first) = candidates.first() {
        return (Verdict::Named(first.fault), None);
    }
    let inputs = [("the speed", machine.speed_hz.is_none()), ("the bearing", machine.bearing.is_none()), ("the class", machine.class.is_none())];
    let missing: Vec<&str> = inputs.into_iter().filter_map(|(what, missing)| missing.then_some(what)).collect();
    // Without a speed only severity and shape were asked, which is no look at the machine's parts.
    let fault = if unnamed.is_empty() && machine.speed_hz.is_some() { Verdict::None } else { Verdict::NotDetermined };
    let missing = (!missing.is_empty()).then(|| format!("not given: {}", missing.join(", ")));
    let reasons: Vec<String> = unnamed.into_iter().chain(missing).collect();
    (fault, (!reasons.is_empty()).then(|| reasons.join("; ")))
}

/// The part whose comb stands out, if one does, of `combs` with the strongest first.
///
/// Where BPFO and twice BSF are the same line, sidebands at FTF tell an element, which the cage carries through the load zone, from the ring.
///
/// Lines at FTF are the way of a faulty element through the load zone too, and cages seldom fail alone: they are the cage's where no line of an element is.
///
/// # Errors
/// The lines stand out and fit two parts.
fn bearing_candidate(combs: &[Comb]) -> Result<Option<Candidate>, String> {
    let of = |part: Part| combs.iter().find(|comb| comb.part == part);
    let is_same =
        |outer: &Comb, ball: &Comb| (outer.line_hz - ball.line_hz).abs() <= SAME_LINE * outer.line_hz && ball.of_sidebands < BALL_SIDEBANDS_MIN;
    let is_outer = of(Part::Outer).zip(of(Part::Ball)).is_some_and(|(outer, ball)| is_same(outer, ball));
    let combs: Vec<Comb> = combs.iter().copied().filter(|comb| !(is_outer && comb.part == Part::Ball)).collect();
    let Some(first) = combs.first().filter(|first| first.evidence >= BEARING_MIN) else { return Ok(None) };
    let ball = combs.iter().find(|comb| comb.part == Part::Ball && comb.evidence >= BALL_BESIDE_CAGE_MIN);
    let (part, evidence) = match (first.part, ball) {
        (Part::Cage, Some(ball)) => (Part::Ball, vec![lines(ball, BALL_BESIDE_CAGE_MIN), lines(first, BEARING_MIN)]),
        _ => (first.part, vec![lines(first, BEARING_MIN)]),
    };
    let is_rival = |comb: &&Comb| comb.part != part && !(part == Part::Ball && comb.part == Part::Cage);
    if let Some(rival) = combs.iter().find(is_rival).filter(|rival| first.evidence < BEARING_MARGIN * rival.evidence) {
        return Err(format!("lines of the bearing fit {part:?} ({:.0}) and {:?} ({:.0})", first.evidence, rival.part, rival.evidence));
    }
    let fault = match part {
        Part::Outer => Fault::Outer,
        Part::Inner => Fault::Inner,
        Part::Ball => Fault::Ball,
        Part::Cage => Fault::Cage,
    };
    Ok(Some(Candidate { fault, evidence }))
}

fn lines(comb: &Comb, limit: f64) -> Evidence {
    let indicator = match comb.part {
        Part::Outer => "lines at BPFO",
        Part::Inner => "lines at BPFI with sidebands at 1x",
        Part::Ball => "lines at 2 BSF with sidebands at FTF",
        Part::Cage => "lines at FTF",
    };
    Evidence { indicator, value: comb.evidence, limit, unit: "1", source: COMB_SOURCE }
}

fn cavitation(enveloped: &EnvelopeSpectrum, measured: &Measured<'_>, vanes: u32, speed_hz: f64) -> Option<Candidate> {
    let vanes = f64::from(vanes);
    // A tachometer is off by some tenths of a percent, which is more than a bin at the vane pass.
    let bins = (TACHOMETER_ERROR * vanes * speed_hz / enveloped.step_hz).round() as i32;
    let near = (-bins..=bins).map(|bins| speed_hz + f64::from(bins) * enveloped.step_hz / vanes);
    let power_at = |speed_hz: f64, order: f64| enveloped.peak(order * speed_hz).unwrap_or(0.0);
    let speed_hz = near.max_by(|a, b| power_at(*a, vanes).total_cmp(&power_at(*b, vanes)))?;
    let of = |harmonic: f64| {
        let f_hz = harmonic * vanes * speed_hz;
        enveloped.peak(f_hz).zip(enveloped.floor(f_hz)).map_or(0.0, |(peak, floor)| enveloped.surprise(peak, floor).min(30.0))
    };
    let part = measured.a_high.zip(measured.shape).map(|(high, shape)| high / shape.rms)?;
    let power = |order: f64| power_at(speed_hz, order);
    let over_orders = power(vanes) / power(vanes - 1.0).max(power(vanes + 1.0));
    let evidence = vec![
        Evidence {
            indicator: "vane pass over the orders beside it",
            value: over_orders,
            limit: CAVITATION_OVER_ORDERS_MIN,
            unit: "1",
            source: CAVITATION_SOURCE,
        },
        Evidence { indicator: "bursts of the envelope", value: enveloped.bursts, limit: CAVITATION_BURSTS_MIN, unit: "1", source: CAVITATION_SOURCE },
        Evidence { indicator: "lines at the vane pass", value: of(1.0) + of(2.0), limit: CAVITATION_LINES_MIN, unit: "1", source: CAVITATION_SOURCE },
        Evidence { indicator: "a_rms.high over a_rms", value: part, limit: CAVITATION_HIGH_MIN, unit: "1", source: CAVITATION_SOURCE },
    ];
    evidence.iter().all(Evidence::holds).then_some(Candidate { fault: Fault::Cavitation, evidence })
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
