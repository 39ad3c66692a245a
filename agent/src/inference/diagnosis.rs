//! What the rules for vibration said last: strengths of faults come as readings of points `<waveform>.fault.<name>`, 1 and more for a named one; the speed
//! behind them, where no tachometer told it, as a reading of `<waveform>.speed_tracked` with the same time.
use std::{collections::BTreeMap, time::Duration};

use hark_protocol::topics::{Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::asset::micros;
use crate::{config, signal::speed::Origin};

/// Rules are asked at the next block after they are due.
const BLOCKS_MAX: Duration = Duration::from_secs(900);

/// The newest answers of an asset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Diagnoses {
    /// Strength of each fault that a rule was asked for, and when.
    strengths: BTreeMap<Name, (f64, Timestamp)>,
    /// What the line at 1x said of the speed, in the unit of its point, and when; `None` where it said nothing.
    speeds: BTreeMap<Name, (Option<f64>, Timestamp)>,
}

/// A fault that is named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Named<'a> {
    /// Its point.
    pub(super) point: &'a Name,
    /// 1 and more.
    pub(super) strength: f64,
    /// Where the speed comes from by which its lines were looked for.
    pub(super) origin: Option<Origin>,
    /// That speed where it was tracked, in the unit of its point.
    pub(super) tracked: Option<f64>,
}

impl Diagnoses {
    /// Takes the value of a `point` that holds a strength.
    pub(super) fn take(&mut self, point: &Name, strength: f64, ts: Timestamp) {
        self.strengths.insert(point.clone(), (strength, ts));
    }

    /// Takes the value of a `point` that holds a tracked speed.
    pub(super) fn take_speed(&mut self, point: &Name, speed: Option<f64>, ts: Timestamp) {
        self.speeds.insert(point.clone(), (speed, ts));
    }

    /// The faults that are named at `now`, the strongest first; `None` where no rule was asked of late.
    pub(super) fn named<'a>(&'a self, asset: &config::Asset, now: Timestamp) -> Option<Vec<Named<'a>>> {
        let every = asset.waveforms.iter().filter_map(|waveform| waveform.diagnose_every).max()?;
        let since = now.0.saturating_sub(micros(every.saturating_mul(2) + BLOCKS_MAX));
        let mut fresh = self.strengths.iter().filter(|(_, (_, ts))| ts.0 >= since).peekable();
        fresh.peek()?;
        let mut named: Vec<Named<'a>> = fresh
            .filter(|(_, (strength, _))| *strength >= 1.0)
            .map(|(point, (strength, ts))| self.with_speed(point, *strength, *ts, asset))
            .collect();
        named.sort_by(|a, b| b.strength.total_cmp(&a.strength).then(a.point.cmp(b.point)));
        Some(named)
    }

    /// A block whose speed a tachometer told has no reading of a tracked one; where it is null, the nominal one served.
    fn with_speed<'a>(&self, point: &'a Name, strength: f64, ts: Timestamp, asset: &config::Asset) -> Named<'a> {
        let waveform = asset.waveforms.iter().find(|waveform| waveform.faults().into_iter().any(|fault| waveform.point_of(fault) == *point));
        let said = waveform.and_then(|waveform| self.speeds.get(&waveform.speed_tracked())).filter(|(_, of)| *of == ts).map(|(speed, _)| *speed);
        let origin = waveform.map(|waveform| match said {
            Some(Some(_)) => Origin::Tracked,
            Some(None) => Origin::Nominal,
            None if waveform.speed_point.is_some() => Origin::Tachometer,
            None => Origin::Nominal,
        });
        Named { point, strength, origin, tracked: said.flatten() }
    }
}
