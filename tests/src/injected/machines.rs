//! Machines with a fault, before the agent: an hour with a block every ten minutes.
use std::collections::BTreeSet;

use anyhow::Result;
use hark::{
    record::Body,
    source::decode::{Block, Value},
};
use hark_firmware_sim::{machine::Noise, sensor::RATE_HZ};
use hark_protocol::topics::AlarmState;

use super::{agent::Agent, drawn::Drawn, tally::Kind};

/// A block every ten minutes, six of them: an hour.
const BLOCKS: usize = 6;
const BLOCK_EVERY_S: f64 = 600.0;
const SAMPLES: usize = 32_768;
/// For one machine with a given fault so many are healthy.
const HEALTHY: u64 = 3;

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injected {
    /// Nothing.
    Healthy,
    Outer,
    Inner,
    Ball,
    Cage,
    Unbalance,
    Misalignment,
    Looseness,
    Gear,
    Cavitation,
}

impl Injected {
    /// All of them.
    pub(super) const ALL: [Self; 10] = [
        Self::Healthy,
        Self::Outer,
        Self::Inner,
        Self::Ball,
        Self::Cage,
        Self::Unbalance,
        Self::Misalignment,
        Self::Looseness,
        Self::Gear,
        Self::Cavitation,
    ];
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
            Self::Cage => Some("cage"),
            Self::Unbalance => Some("unbalance"),
            Self::Misalignment => Some("misalignment"),
            Self::Looseness => Some("looseness"),
            Self::Gear => Some("gear"),
            Self::Cavitation => Some("cavitation"),
        }
    }

    fn times(self) -> u64 {
        if self == Self::Healthy { HEALTHY } else { 1 }
    }
}

/// All the faults that alarms name within an hour; `not determined` where a zone alone alarms.
///
/// # Errors
/// Where the configuration is refused.
pub(super) fn run(injected: Injected, seed: u64) -> Result<Option<String>> {
    let mut noise = Noise::new(seed, 100 + injected as u64);
    let drawn = Drawn::new(injected, &mut noise);
    let mut agent = Agent::new(&drawn.asset_file())?;
    let (mut samples, mut by_zone, mut named) = (vec![0.0; SAMPLES], false, BTreeSet::new());
    for block in 1..=BLOCKS {
        let at_s = BLOCK_EVERY_S * block as f64;
        if let Some(rpm) = drawn.tachometer_rpm {
            agent.take("speed", Value::Number(rpm), (at_s - 1.0, 0.0));
        }
        drawn.signal.write(&mut samples, RATE_HZ, &mut noise);
        let block_of = Block { fs_hz: RATE_HZ, unit: None, scale: 1.0, samples: samples.clone() };
        for body in agent.take("de", Value::Block(block_of), (at_s, 0.0)) {
            let Body::Alarm(alarm) = body else { continue };
            if alarm.state != AlarmState::ActiveUnacknowledged {
                continue;
            }
            match alarm.point.as_deref().and_then(|point| point.strip_prefix("de.fault.")) {
                Some(fault) => {
                    named.insert(fault.to_owned());
                }
                None => by_zone = true,
            }
        }
    }
    let named = (!named.is_empty()).then(|| named.into_iter().collect::<Vec<_>>().join(" and "));
    Ok(named.or_else(|| by_zone.then(|| "not determined".to_owned())))
}
