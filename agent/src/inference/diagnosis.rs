//! What the rules for vibration said last: strengths of faults come as readings of points `<waveform>.fault.<name>`, 1 and more for a named one.
use std::{collections::BTreeMap, time::Duration};

use hark_protocol::topics::{Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::asset::micros;
use crate::config;

/// Rules are asked at the next block after they are due.
const BLOCKS_MAX: Duration = Duration::from_secs(900);

/// The newest answers of an asset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Diagnoses {
    /// Strength of each fault that a rule was asked for, and when.
    strengths: BTreeMap<Name, (f64, Timestamp)>,
}

impl Diagnoses {
    /// Takes the value of a `point` that holds a strength.
    pub(super) fn take(&mut self, point: &Name, strength: f64, ts: Timestamp) {
        self.strengths.insert(point.clone(), (strength, ts));
    }

    /// The faults that are named at `now`, the strongest first; `None` where no rule was asked of late.
    pub(super) fn named(&self, asset: &config::Asset, now: Timestamp) -> Option<Vec<(&Name, f64)>> {
        let every = asset.waveforms.iter().filter_map(|waveform| waveform.diagnose_every).max()?;
        let since = now.0.saturating_sub(micros(every.saturating_mul(2) + BLOCKS_MAX));
        let mut fresh = self.strengths.iter().filter(|(_, (_, ts))| ts.0 >= since).peekable();
        fresh.peek()?;
        let mut named: Vec<(&Name, f64)> = fresh.map(|(point, (strength, _))| (point, *strength)).filter(|(_, strength)| *strength >= 1.0).collect();
        named.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        Some(named)
    }
}
