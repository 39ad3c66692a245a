//! Several processes that may be behind an indicator, side by side: growing evenly or by a part of itself, more or less smoothly. Each is worth what it
//! foretold (Bayesian model averaging; West and Harrison, Bayesian Forecasting and Dynamic Models, 1997, 12.2), what was long ago counts less.
use serde::{Deserialize, Serialize};

use super::{
    passage::{Passage, Way},
    wiener::{Motion, Wiener},
};

/// Evenly, or by a part of itself in a unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    Even,
    Relative,
}

impl Growth {
    /// `value`, above 0, on the scale on which the process is a Wiener process.
    fn scaled(self, value: f64) -> f64 {
        match self {
            Self::Even => value,
            Self::Relative => libm::log(value),
        }
    }
}

/// How smoothly: variances of a window over that of the noise. What follows faster takes noise that lasts for hours for a change of pace.
const MOTIONS: [Motion; 6] = [
    Motion { diffusion: 1e-3, wander: 1e-7 },
    Motion { diffusion: 1e-3, wander: 1e-5 },
    Motion { diffusion: 0.03, wander: 1e-7 },
    Motion { diffusion: 0.03, wander: 1e-5 },
    Motion { diffusion: 0.3, wander: 1e-7 },
    Motion { diffusion: 0.3, wander: 1e-5 },
];
const GROWTHS: [Growth; 2] = [Growth::Even, Growth::Relative];
/// Of what a process foretold earlier, so much counts a window later: half after some 35.
const MEMORY: f64 = 0.98;
/// A first value strays so far, as a part of it.
const FIRST_NOISE: f64 = 0.05;
/// What comes may go faster or slower than what was: equally likely factors of the drift.
const PACES: [f64; 5] = [0.3, 0.65, 1.0, 1.5, 3.3];
/// Equally likely standard normal deviates that stand for a drift that is not known for certain.
const DEVIATES: [f64; 7] = [-1.465, -0.792, -0.366, 0.0, 0.366, 0.792, 1.465];

/// What is known of an indicator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bank {
    processes: Vec<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Process {
    filter: Wiener,
    /// Logarithm of what its foretelling was worth.
    worth: f64,
}

fn kinds() -> impl Iterator<Item = (Growth, Motion)> {
    GROWTHS.into_iter().flat_map(|growth| MOTIONS.into_iter().map(move |motion| (growth, motion)))
}

impl Bank {
    /// At the first value, above 0.
    pub(super) fn new(value: f64) -> Self {
        let process = |(growth, _): (Growth, Motion)| {
            let noise = match growth {
                Growth::Even => FIRST_NOISE * value,
                Growth::Relative => FIRST_NOISE,
            };
            Process { filter: Wiener::new(growth.scaled(value), noise), worth: 0.0 }
        };
        Self { processes: kinds().map(process).collect() }
    }

    /// Takes the value, above 0, of the next window.
    pub(super) fn take(&mut self, value: f64) {
        for (process, (growth, motion)) in self.processes.iter_mut().zip(kinds()) {
            // The density on the other scale, seen from that of the value.
            let stretch = if growth == Growth::Relative { libm::log(value) } else { 0.0 };
            process.worth = MEMORY * process.worth + process.filter.take(growth.scaled(value), motion) - stretch;
        }
        let most = self.processes.iter().map(|process| process.worth).fold(f64::NEG_INFINITY, f64::max);
        self.processes.iter_mut().for_each(|process| process.worth -= most);
    }

    /// Each process with how likely it is the one, 1 in all.
    fn likely(&self) -> impl Iterator<Item = (f64, &Wiener, Growth, Motion)> {
        let whole: f64 = self.processes.iter().map(|process| libm::exp(process.worth)).sum();
        self.processes.iter().zip(kinds()).map(move |(process, (growth, motion))| (libm::exp(process.worth) / whole, &process.filter, growth, motion))
    }

    /// When the indicator reaches `level`, above 0, in windows from the last one on. `horizon`: about how far ahead that is, windows.
    pub(super) fn passage(&self, level: f64, horizon: f64) -> Passage {
        let ways = self.likely().filter(|(likely, ..)| *likely > 1e-3).flat_map(|(likely, filter, growth, motion)| {
            let noise = filter.noise_variance();
            // A drift that wanders on is as uncertain as that makes it by then; a third, since it grows on the way.
            let of_drift = (noise * (filter.of_drift + motion.wander * horizon / 3.0)).sqrt();
            // What is not known of the level goes along with what is not known of the drift.
            let per_drift = filter.of_both / filter.of_drift;
            let rest = (noise * (filter.of_level - filter.of_both * per_drift).max(0.0)).sqrt();
            let to = growth.scaled(level);
            DEVIATES.into_iter().flat_map(move |of_drift_by| {
                let off = of_drift_by * of_drift;
                PACES.into_iter().map(move |pace| Way {
                    weight: likely,
                    distance: to - filter.level - per_drift * off,
                    drift: pace * (filter.drift + off),
                    diffusion: noise * motion.diffusion + rest * rest / horizon,
                })
            })
        });
        Passage(ways.collect())
    }
}
