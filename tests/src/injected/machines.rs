//! Machines with a fault: bearing, speed, mounting and fault are drawn, and none is one that the limits of the rules were set on.
use anyhow::Result;
use hark::{
    record::Body,
    source::decode::{Block, Value},
};
use hark_firmware_sim::{
    machine::{Bearing, Impacts, Noise, Signal},
    sensor::RATE_HZ,
};
use hark_protocol::topics::AlarmState;

use super::{agent::Agent, tally::Kind};

/// A block every ten minutes, six of them: an hour.
const BLOCKS: usize = 6;
const BLOCK_EVERY_S: f64 = 600.0;
const SAMPLES: usize = 32_768;
/// Between zones B and C of class 2-rigid, mm/s.
const ZONE_C_MM_S: f64 = 2.8;

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injected {
    /// Nothing.
    Healthy,
    Outer,
    Inner,
    Ball,
    Unbalance,
    Misalignment,
}

impl Injected {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [Self::Healthy, Self::Outer, Self::Inner, Self::Ball, Self::Unbalance, Self::Misalignment];
}

impl Kind for Injected {
    fn name(self) -> &'static str {
        self.expected().unwrap_or("healthy")
    }

    fn expected(self) -> Option<&'static str> {
        match self {
            Self::Healthy => None,
            Self::Outer => Some("outer"),
            Self::Inner => Some("inner"),
            Self::Ball => Some("ball"),
            Self::Unbalance => Some("unbalance"),
            Self::Misalignment => Some("misalignment"),
        }
    }
}

/// The first fault that an alarm names within an hour; `velocity` where a zone alone alarms.
///
/// # Errors
/// Where the configuration is refused.
pub(super) fn run(injected: Injected, seed: u64) -> Result<Option<String>> {
    let mut noise = Noise::new(seed, 100 + injected as u64);
    let drawn = Drawn::new(injected, &mut noise);
    let mut agent = Agent::new(&drawn.asset_file())?;
    let (mut samples, mut by_zone) = (vec![0.0; SAMPLES], false);
    for block in 1..=BLOCKS {
        drawn.signal.write(&mut samples, RATE_HZ, &mut noise);
        let block_of = Block { fs_hz: RATE_HZ, unit: None, scale: 1.0, samples: samples.clone() };
        for body in agent.take("de", Value::Block(block_of), (BLOCK_EVERY_S * block as f64, 0.0)) {
            let Body::Alarm(alarm) = body else { continue };
            if alarm.state != AlarmState::ActiveUnacknowledged {
                continue;
            }
            match alarm.point.as_deref().and_then(|point| point.strip_prefix("de.fault.")) {
                Some(fault) => return Ok(Some(fault.to_owned())),
                None => by_zone = true,
            }
        }
    }
    Ok(by_zone.then(|| "velocity".to_owned()))
}

/// A machine and what its file says of it.
struct Drawn {
    signal: Signal,
    bearing: Bearing,
    told_rpm: f64,
}

impl Drawn {
    fn new(injected: Injected, noise: &mut Noise) -> Self {
        let mut between = |low: f64, high: f64| low + (high - low) * noise.uniform();
        let shaft_hz = (between(600.0_f64.ln(), 3_600.0_f64.ln())).exp() / 60.0;
        let pitch_mm = between(35.0, 180.0);
        let bearing = Bearing {
            elements: between(7.0, 16.99) as u8,
            element_mm: pitch_mm * between(0.14, 0.19),
            pitch_mm,
            contact_deg: if between(0.0, 1.0) < 0.7 { 0.0 } else { between(10.0, 40.0) },
        };
        let orders = bearing.orders();
        let (outer, inner, ball, cage) = (f64::from(orders.bpfo), f64::from(orders.bpfi), 2.0 * f64::from(orders.bsf), f64::from(orders.ftf));
        let mut velocity_mm_s = [between(0.3, 1.2), between(0.02, 0.3), between(0.01, 0.2)];
        // From as strong as the noise of the mounting to a bearing near its end.
        let amplitude_g = between(0.2_f64.ln(), 4.0_f64.ln()).exp();
        let late = between(0.99, 1.005);
        let (slip, resonance_hz, depth) = (between(0.004, 0.02), between(2_200.0, 6_500.0), between(0.6, 0.95));
        let severity = ZONE_C_MM_S * between(1.2, 3.5);
        let impacts = |order: f64, load: (f64, f64)| {
            let at = Impacts::at(late * order * shaft_hz, amplitude_g, slip);
            Some(Impacts { resonance_hz, load: (load.0 * shaft_hz, load.1), ..at })
        };
        let impacts = match injected {
            Injected::Healthy => None,
            Injected::Outer => impacts(outer, (0.0, 0.0)),
            Injected::Inner => impacts(inner, (1.0, depth)),
            Injected::Ball => impacts(ball, (cage, depth)),
            Injected::Unbalance => {
                velocity_mm_s[0] = severity;
                None
            }
            Injected::Misalignment => {
                let ratio = between(0.7, 2.0);
                let first = severity / (1.0 + ratio * ratio).sqrt();
                (velocity_mm_s[0], velocity_mm_s[1]) = (first, ratio * first);
                None
            }
        };
        let signal = Signal { shaft_hz, velocity_mm_s, impacts, noise_g: between(0.008, 0.05), gravity_g: between(-1.0, 1.0) };
        // As a tachometer tells it.
        Self { signal, bearing, told_rpm: 60.0 * shaft_hz * between(0.996, 1.004) }
    }

    fn asset_file(&self) -> String {
        let Bearing { elements, element_mm, pitch_mm, contact_deg } = self.bearing;
        format!(
            "id = \"machine\"\n[[point]]\nid = \"de.v_rms\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n[[waveform]]\nid = \"de\"\nunit = \"[g]\"\n\
             speed_rpm = {}\nbearing = {{ elements = {elements}, element_mm = {element_mm}, pitch_mm = {pitch_mm}, contact_deg = {contact_deg:?} }}\n",
            self.told_rpm
        )
    }
}
