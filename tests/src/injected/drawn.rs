//! Machines that are drawn: bearing, gear, impeller, speed, mounting and fault; none is one that the limits of the rules were set on.
use hark_firmware_sim::machine::{Bearing, Cavitation, Gear, Impacts, Looseness, Noise, Signal};

use super::machines::Injected;

/// Between zones B and C of class 2-rigid, mm/s.
const ZONE_C_MM_S: f64 = 2.8;

/// A machine and what its file says of it.
pub(super) struct Drawn {
    pub(super) signal: Signal,
    /// As a tachometer tells it, where there is one.
    pub(super) tachometer_rpm: Option<f64>,
    bearing: Bearing,
    nominal_rpm: f64,
    teeth: Option<u8>,
    vanes: Option<u8>,
}

/// Numbers of one machine.
struct Draw<'a>(&'a mut Noise);

impl Draw<'_> {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.uniform()
    }

    /// Evenly by ratio.
    fn scaled(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    fn one_of_two(&mut self) -> bool {
        self.0.chance(0.5)
    }

    fn count(&mut self, low: u8, high: u8) -> u8 {
        low + self.0.below(usize::from(high - low) + 1) as u8
    }
}

impl Drawn {
    pub(super) fn new(injected: Injected, noise: &mut Noise) -> Self {
        let mut draw = Draw(noise);
        let shaft_hz = draw.scaled(600.0, 3_600.0) / 60.0;
        let pitch_mm = draw.between(35.0, 180.0);
        let bearing = Bearing {
            elements: draw.count(7, 16),
            element_mm: pitch_mm * draw.between(0.14, 0.19),
            pitch_mm,
            contact_deg: if draw.between(0.0, 1.0) < 0.7 { 0.0 } else { draw.between(10.0, 40.0) },
        };
        let teeth = (draw.one_of_two() || injected == Injected::Gear).then(|| draw.count(13, 60));
        let vanes = (draw.one_of_two() || injected == Injected::Cavitation).then(|| draw.count(3, 9));
        let mut signal = Signal {
            shaft_hz,
            velocity_mm_s: [draw.between(0.3, 1.2), draw.between(0.02, 0.3), draw.between(0.01, 0.2)],
            others: [mains(&mut draw), (shaft_hz * f64::from(vanes.unwrap_or(0)), draw.between(0.02, 0.5))],
            gear: teeth.map(|teeth| sound_gear(teeth, &mut draw)),
            cavitation: vanes.map(|vanes| sound_flow(vanes, &mut draw)),
            noise_g: draw.between(0.008, 0.05),
            gravity_g: draw.between(-1.0, 1.0),
            ..Signal::default()
        };
        injure(&mut signal, injected, &bearing, &mut draw);
        // A plate tells full load or none; a tachometer is better.
        let tachometer_rpm = draw.one_of_two().then(|| 60.0 * shaft_hz * draw.between(0.996, 1.004));
        Self { signal, tachometer_rpm, bearing, nominal_rpm: 60.0 * shaft_hz * draw.between(0.965, 1.035), teeth, vanes }
    }

    pub(super) fn asset_file(&self) -> String {
        let Bearing { elements, element_mm, pitch_mm, contact_deg } = self.bearing;
        let (point, speed) = match self.tachometer_rpm {
            Some(_) => ("[[point]]\nid = \"speed\"\nunit = \"/min\"\nscored = false\n", "speed_point = \"speed\"".to_owned()),
            None => ("", format!("speed_rpm = {}", self.nominal_rpm)),
        };
        let count = |key: &str, count: Option<u8>| count.map(|count| format!("{key} = {count}\n")).unwrap_or_default();
        format!(
            "id = \"machine\"\n[[point]]\nid = \"de.v_rms\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n{point}[[waveform]]\nid = \"de\"\nunit = \"[g]\"\n{speed}\n\
             bearing = {{ elements = {elements}, element_mm = {element_mm}, pitch_mm = {pitch_mm}, contact_deg = {contact_deg:?} }}\n{}{}",
            count("teeth", self.teeth),
            count("vanes", self.vanes)
        )
    }
}

/// Twice the frequency of mains, of a motor beside it; half of the machines have none.
fn mains(draw: &mut Draw<'_>) -> (f64, f64) {
    let mains_hz = if draw.one_of_two() { 50.0 } else { 60.0 } * draw.between(0.999, 1.001);
    (2.0 * mains_hz, if draw.one_of_two() { draw.between(0.02, 0.4) } else { 0.0 })
}

fn sound_gear(teeth: u8, draw: &mut Draw<'_>) -> Gear {
    Gear { swell: draw.between(0.0, 0.25), sway: draw.between(0.0, 0.15), ..Gear::sound(teeth, draw.scaled(0.02, 0.4)) }
}

/// Flow makes noise, a little more of it as a vane passes.
fn sound_flow(vanes: u8, draw: &mut Draw<'_>) -> Cavitation {
    Cavitation { vanes, noise_g: draw.scaled(0.002, 0.05), swell: draw.between(0.0, 0.15), bursts_hz: 0.0, burst_g: 0.0 }
}

/// Makes of a machine that is in order one with the fault.
fn injure(signal: &mut Signal, injected: Injected, bearing: &Bearing, draw: &mut Draw<'_>) {
    let (orders, shaft_hz) = (bearing.orders(), signal.shaft_hz);
    let (outer, inner, ball, cage) = (f64::from(orders.bpfo), f64::from(orders.bpfi), 2.0 * f64::from(orders.bsf), f64::from(orders.ftf));
    // From as strong as the noise of the mounting to a bearing near its end.
    let amplitude_g = draw.scaled(0.2, 4.0);
    let late = draw.between(0.99, 1.005);
    let (slip, resonance_hz, depth) = (draw.between(0.004, 0.02), draw.between(2_200.0, 6_500.0), draw.between(0.6, 0.95));
    let severity = ZONE_C_MM_S * draw.between(1.2, 3.5);
    let impacts = |order: f64, load: (f64, f64)| {
        let at = Impacts::at(late * order * shaft_hz, amplitude_g, slip);
        Some(Impacts { resonance_hz, load: (load.0 * shaft_hz, load.1), ..at })
    };
    match injected {
        Injected::Healthy => {}
        Injected::Outer => signal.impacts = impacts(outer, (0.0, 0.0)),
        Injected::Inner => signal.impacts = impacts(inner, (1.0, depth)),
        Injected::Ball => signal.impacts = impacts(ball, (cage, depth)),
        Injected::Cage => signal.impacts = impacts(cage, (0.0, 0.0)),
        Injected::Unbalance => signal.velocity_mm_s[0] = severity,
        Injected::Misalignment => {
            let ratio = draw.between(0.7, 2.0);
            let first = severity / (1.0 + ratio * ratio).sqrt();
            (signal.velocity_mm_s[0], signal.velocity_mm_s[1]) = (first, ratio * first);
        }
        Injected::Looseness => signal.looseness = Some(loose(severity, draw)),
        Injected::Gear => {
            let sound = signal.gear.unwrap_or(Gear::sound(0, 0.0));
            let amplitude_g = draw.scaled(0.05, 0.5);
            // A tooth that is cracked or chipped, which strikes once a turn; or a wheel that is worn or sits out of centre.
            signal.gear = Some(if draw.one_of_two() {
                signal.impacts = Some(Impacts { resonance_hz, ..Impacts::at(shaft_hz, draw.scaled(0.05, 1.0), 0.0) });
                Gear { amplitude_g, tooth: draw.between(2.0, 8.0), width: draw.between(0.06, 0.2), sway: draw.between(0.2, 1.0), ..sound }
            } else {
                Gear { amplitude_g, swell: draw.between(0.5, 0.95), sway: draw.between(0.5, 1.5), ..sound }
            });
        }
        Injected::Cavitation => {
            let sound = signal.cavitation.unwrap_or(Cavitation { vanes: 0, noise_g: 0.0, swell: 0.0, bursts_hz: 0.0, burst_g: 0.0 });
            let noise_g = draw.scaled(0.05, 1.0);
            let burst_g = noise_g * draw.between(1.0, 6.0);
            signal.cavitation = Some(Cavitation { noise_g, swell: draw.between(0.3, 0.9), bursts_hz: draw.scaled(50.0, 1_000.0), burst_g, ..sound });
        }
    }
}

/// Orders whose velocities are together `severity`, mm/s.
fn loose(severity: f64, draw: &mut Draw<'_>) -> Looseness {
    let (decay, unrest) = (draw.between(0.7, 0.92), draw.between(0.05, 0.2));
    let halves = if draw.one_of_two() { draw.between(0.2, 0.7) } else { 0.0 };
    // Whole and half orders are geometric series of velocities squared.
    let whole = (1.0 - decay.powi(20)) / (1.0 - decay * decay);
    let all = whole * (1.0 + halves * halves / decay);
    Looseness { velocity_mm_s: severity / all.sqrt(), decay, halves, unrest }
}
