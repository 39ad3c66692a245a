//! The speed of a shaft from its own vibration, where no tachometer tells it.
//!
//! Around the first six multiples of the nominal speed the spectrum is searched for lines (`peaks.rs`). Each is a candidate, and is worth what the lines at
//! its other multiples are worth together, so that a stray line near 1x does not pass for it. Lines of the mains (50 and 60 Hz and their multiples) do not
//! count. The search spans less than an octave: 2x cannot be taken for 1x, however large it is. A candidate near the last answer is preferred to one as good
//! as it; where two are nearly as good, there is no answer, and the nominal speed serves.
use serde::Serialize;

use super::{peaks::Peak, spectrum::Velocities};

/// The search spans at most so much of the nominal speed on both sides.
pub const SHARE_MAX: f64 = 0.3;
/// Unless it is set: no-load and full-load speed of an induction motor, whichever of both the plate tells, lie within.
pub const SHARE: f64 = 0.05;
/// Multiples of the speed that are looked at.
const HARMONICS: u32 = 6;
/// Two searches of neighbouring multiples may not meet.
const APART: f64 = 0.45;
/// Frequencies of mains, Hz, and how far they stray.
const MAINS_HZ: [f64; 2] = [50.0, 60.0];
const MAINS_STRAYS: f64 = 0.003;
/// A line at a multiple is there within so many standard deviations, and this part of its frequency.
const WITHIN: (f64, f64) = (3.0, 0.001);
/// ln of power over floor counts at most so much, so that one line outweighs no two.
const LINE_CAP: f64 = 7.0;
/// 1x counts so many times as much as one of its multiples.
const FIRST_WEIGHT: f64 = 1.5;
/// A candidate within this part of the last speed counts so much more.
const CONTINUES: (f64, f64) = (0.01, 1.4);
/// The best candidate is by so much of itself better than the next; one line alone by half.
const CONFIDENCE_MIN: f64 = 0.25;
const CONFIDENCE_ALONE_MIN: f64 = 0.5;
/// What is told to no better than this part is no better than the nominal speed.
const ERROR_MAX: f64 = 0.006;

/// Where a speed comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A point tells it.
    Tachometer,
    /// The line at 1x was found.
    Tracked,
    /// As configured.
    Nominal,
}

/// A speed by which lines are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Shaft frequency, Hz.
    pub hz: f64,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where the line is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Shaft frequency as configured, Hz.
    pub nominal_hz: f64,
    /// So much of it on both sides, up to [`SHARE_MAX`].
    pub share: f64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracked {
    /// Shaft frequency, Hz.
    pub hz: f64,
    /// How much better it is than the next candidate, as a part of itself: 0 to 1.
    pub confidence: f64,
}

/// A line near a multiple of the nominal speed.
#[derive(Clone, Copy, Debug)]
struct Line {
    multiple: f64,
    peak: Peak,
}

/// A speed with the lines that stand for it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    hz: f64,
    error_hz: f64,
    lines: u32,
    has_first: bool,
    worth: f64,
}

/// The shaft's speed by the spectrum of a block; `None` where it cannot be told with confidence.
pub fn track(velocities: &Velocities<'_>, search: &Search, last_hz: Option<f64>) -> Option<Tracked> {
    let lines = lines(velocities, search);
    let candidates: Vec<Candidate> = lines.iter().map(|line| candidate(line, &lines, last_hz)).collect();
    let best = candidates.iter().max_by(|a, b| a.worth.total_cmp(&b.worth))?;
    let is_other = |other: &&Candidate| (other.hz - best.hz).abs() > WITHIN.0 * best.error_hz.hypot(other.error_hz) + WITHIN.1 * best.hz;
    let next = candidates.iter().filter(is_other).map(|other| other.worth).fold(0.0, f64::max);
    let confidence = 1.0 - next / best.worth;
    let least = if best.lines > 1 { CONFIDENCE_MIN } else { CONFIDENCE_ALONE_MIN };
    let counts = best.lines > 1 || best.has_first;
    (counts && confidence >= least && best.error_hz <= ERROR_MAX * best.hz).then_some(Tracked { hz: best.hz, confidence })
}

fn lines(velocities: &Velocities<'_>, search: &Search) -> Vec<Line> {
    let multiples = (1..=HARMONICS).map(f64::from).filter(|multiple| *multiple == 1.0 || multiple * search.share <= APART);
    let near = |multiple: f64| {
        let (at_hz, about_hz) = (multiple * search.nominal_hz, multiple * search.nominal_hz * search.share);
        velocities.peaks(at_hz - about_hz, at_hz + about_hz).into_iter().map(move |peak| Line { multiple, peak })
    };
    multiples.flat_map(near).filter(|line| !is_mains(&line.peak)).collect()
}

fn is_mains(peak: &Peak) -> bool {
    MAINS_HZ.into_iter().any(|mains_hz| {
        let at_hz = mains_hz * (peak.f_hz / mains_hz).round();
        at_hz > 0.0 && (peak.f_hz - at_hz).abs() <= MAINS_STRAYS * at_hz + WITHIN.0 * peak.error_hz
    })
}

/// The speed that `first` stands for, with all `lines` at its multiples.
fn candidate(first: &Line, lines: &[Line], last_hz: Option<f64>) -> Candidate {
    let (hz, error_hz) = (first.peak.f_hz / first.multiple, first.peak.error_hz / first.multiple);
    let fits = |line: &&Line| {
        let at_hz = line.multiple * hz;
        let own = line.multiple == first.multiple;
        let within_hz = WITHIN.0 * line.peak.error_hz.hypot(line.multiple * error_hz) + WITHIN.1 * at_hz;
        if own { line.peak == first.peak } else { (line.peak.f_hz - at_hz).abs() <= within_hz }
    };
    let mut found: Vec<&Line> = Vec::new();
    for multiple in (1..=HARMONICS).map(f64::from) {
        let at = lines.iter().filter(|line| line.multiple == multiple).filter(fits);
        found.extend(at.max_by(|a, b| a.peak.over_floor.total_cmp(&b.peak.over_floor)));
    }
    let weight = |line: &&Line| (line.multiple / line.peak.error_hz).powi(2);
    let weights: f64 = found.iter().map(weight).sum();
    let hz = found.iter().map(|line| weight(line) * line.peak.f_hz / line.multiple).sum::<f64>() / weights;
    let worth = |line: &&Line| line.peak.over_floor.ln().min(LINE_CAP) * if line.multiple == 1.0 { FIRST_WEIGHT } else { 1.0 };
    let continues = last_hz.is_some_and(|last_hz| (hz - last_hz).abs() <= CONTINUES.0 * last_hz);
    Candidate {
        hz,
        error_hz: 1.0 / weights.sqrt(),
        lines: found.len() as u32,
        has_first: found.iter().any(|line| line.multiple == 1.0),
        worth: found.iter().map(worth).sum::<f64>() * if continues { CONTINUES.1 } else { 1.0 },
    }
}

#[cfg(test)]
#[path = "speed_tests.rs"]
mod tests;
