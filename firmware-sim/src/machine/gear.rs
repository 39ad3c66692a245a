//! A gear on the shaft: the mesh of its teeth, and what a bad tooth or an eccentric wheel makes of it (domain reference section 7).
use super::noise::Noise;

/// Amplitude of the mesh's harmonics over that of the mesh.
const HARMONICS: [f64; 3] = [1.0, 0.4, 0.2];

/// Mesh of a gear, whose teeth all are the same but one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gear {
    /// Teeth of the wheel on the shaft.
    pub teeth: u8,
    /// Amplitude of the mesh, g.
    pub amplitude_g: f64,
    /// How far it swells in each turn, as of an eccentric wheel, 0 to 1.
    pub swell: f64,
    /// How far its phase sways in each turn, radians: the wheel turns unevenly.
    pub sway: f64,
    /// How much larger it is while the bad tooth is in mesh, as a part of it; 0 where none is.
    pub tooth: f64,
    /// For so much of a turn.
    pub width: f64,
}

impl Gear {
    /// One in order: a mesh that swells a little.
    pub fn sound(teeth: u8, amplitude_g: f64) -> Self {
        Self { teeth, amplitude_g, swell: 0.1, sway: 0.0, tooth: 0.0, width: 0.1 }
    }

    /// Adds a block of it. The wheel stands at any angle when it begins.
    pub fn add_to(&self, samples_g: &mut [f64], rate_hz: f64, shaft_hz: f64, noise: &mut Noise) {
        if self.amplitude_g <= 0.0 || shaft_hz <= 0.0 {
            return;
        }
        let (begin, phases) = (noise.uniform(), HARMONICS.map(|_| noise.uniform()));
        for (index, sample) in samples_g.iter_mut().enumerate() {
            let turns = begin + shaft_hz * index as f64 / rate_hz;
            let teeth = f64::from(self.teeth) * turns + self.sway / core::f64::consts::TAU * cosine(turns - 0.25);
            let mesh: f64 = (1..).zip(HARMONICS).zip(phases).map(|((order, part), phase)| part * cosine(f64::from(order) * teeth + phase)).sum();
            *sample += self.amplitude_g * self.load(turns) * mesh;
        }
    }

    /// The mesh at this angle over that of a sound wheel.
    fn load(&self, turns: f64) -> f64 {
        let from_tooth = libm::fabs(turns - libm::rint(turns)) / (0.5 * self.width);
        let tooth = if from_tooth < 1.0 { self.tooth * (0.5 + 0.5 * cosine(0.5 * from_tooth)) } else { 0.0 };
        (1.0 + self.swell * cosine(turns + 0.3)) + tooth
    }
}

/// Cosine of an angle in turns.
fn cosine(turns: f64) -> f64 {
    libm::cos(core::f64::consts::TAU * turns)
}
