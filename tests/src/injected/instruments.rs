//! Instruments with a fault: a temperature at 1 Hz beside two others that are in order.
use anyhow::Result;
use hark::{record::Body, source::decode::Value};
use hark_firmware_sim::machine::Noise;
use hark_protocol::topics::EventKind;

use super::{agent::Agent, tally::Kind};

const LENGTH_S: u32 = 1_800;
/// Checks as a pump's file would have them; delays of the instrument are those that it ships with.
const ASSET: &str = r#"id = "machine"
[[point]]
id = "temperature"
unit = "Cel"
range = [-20.0, 150.0]
max_rate = 5.0
stuck_after = "120s"
clips = "high"
[[point]]
id = "flow"
unit = "m3/h"
range = [0.0, 400.0]
[[point]]
id = "pressure"
unit = "bar"
range = [-1.0, 16.0]
"#;

/// What is wrong with the temperature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing.
    Healthy,
    /// The same value for ever.
    Stuck,
    /// Nothing comes.
    Silent,
    /// The source says that it has no value.
    NoValue,
    /// Far beyond the range, as of a broken wire.
    OutOfRange,
    /// At the upper end of its range.
    Clipped,
    /// Single values far from the others.
    Spikes,
    /// Its clock runs an hour ahead.
    Ahead,
}

impl Trouble {
    /// All of them.
    pub(super) const ALL: [Self; 8] =
        [Self::Healthy, Self::Stuck, Self::Silent, Self::NoValue, Self::OutOfRange, Self::Clipped, Self::Spikes, Self::Ahead];
}

impl Kind for Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stuck => "stuck",
            Self::Silent => "silent",
            Self::NoValue => "no value",
            Self::OutOfRange => "out of range",
            Self::Clipped => "clipped",
            Self::Spikes => "spikes",
            Self::Ahead => "clock ahead",
        }
    }

    /// NE 107 as domain practice assigns it.
    fn expected(self) -> Option<&'static str> {
        match self {
            Self::Healthy => None,
            Self::Stuck | Self::Silent | Self::NoValue => Some("failure"),
            Self::OutOfRange | Self::Clipped | Self::Ahead => Some("off_spec"),
            Self::Spikes => Some("maintenance_required"),
        }
    }
}

/// The first status of the temperature that is not normal; of another instrument, its name with it.
///
/// # Errors
/// Where the configuration is refused.
pub(super) fn run(trouble: Trouble, seed: u64) -> Result<Option<String>> {
    let mut noise = Noise::new(seed, 200 + trouble as u64);
    let mut agent = Agent::new(ASSET)?;
    let from_s = 300 + (600.0 * noise.uniform()) as u32;
    let (level, spread, drift) = (40.0 + 40.0 * noise.uniform(), 0.05 + 0.3 * noise.uniform(), 10.0 * noise.uniform());
    let (chance, height, beyond) = (0.02 + 0.1 * noise.uniform(), 15.0 + 40.0 * noise.uniform(), 160.0 + 700.0 * noise.uniform());
    let mut held = level;
    for second in 0..LENGTH_S {
        let at_s = f64::from(second);
        let mut value = level + drift * (at_s / 600.0).sin() + spread * noise.gauss();
        let (mut ahead_s, mut number) = (0.0, true);
        if second >= from_s {
            match trouble {
                Trouble::Healthy => {}
                Trouble::Stuck => value = held,
                Trouble::Silent => number = false,
                Trouble::NoValue => value = f64::NAN,
                Trouble::OutOfRange => value = beyond,
                Trouble::Clipped => value = 150.0,
                Trouble::Spikes => value += if noise.uniform() < chance { height } else { 0.0 },
                Trouble::Ahead => ahead_s = 3_600.0,
            }
        } else {
            held = value;
        }
        let value = if value.is_nan() { Value::Missing } else { Value::Number(value) };
        let others = [("flow", 200.0 + 4.0 * noise.gauss()), ("pressure", 6.0 + 0.05 * noise.gauss())];
        let temperature = number.then_some(("temperature", value, ahead_s));
        let others = others.into_iter().map(|(point, value)| (point, Value::Number(value), 0.0));
        for (place, (point, value, ahead_s)) in temperature.into_iter().chain(others).enumerate() {
            for body in agent.take(point, value, (at_s + 0.1 * place as f64, ahead_s)) {
                let Body::Event(event) = body else { continue };
                let Some(status) = event.what.as_deref().filter(|status| event.kind == EventKind::Instrument && *status != "normal") else {
                    continue;
                };
                let of = event.source.as_deref().unwrap_or_default();
                return Ok(Some(if of == "temperature" { status.to_owned() } else { format!("{of} {status}") }));
            }
        }
    }
    Ok(None)
}
