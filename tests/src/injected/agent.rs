//! What of the agent a value meets between its source and an alarm, in simulated time: intake and engine.
use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result};
use hark::{
    buffer::Position,
    clock::{Clock, Now},
    config,
    inference::Engine,
    record::{Body, Entry},
    source::{
        counters::SourceCounters,
        decode::{Sample, Value},
        registry::{Context as Names, Intake, Registry},
    },
};
use hark_protocol::topics::{Clock as ClockState, LaneName, Name, Origin, Quality, Timestamp};

/// 2025-06-15.
const START_US: i64 = 1_750_000_000_000_000;

/// One machine's way.
pub(super) struct Agent {
    asset: Name,
    intake: Intake,
    counters: SourceCounters,
    engine: Engine,
    seq: u64,
    entries: Vec<Entry>,
    out: Vec<(LaneName, Entry)>,
}

impl Agent {
    /// For the asset of this file.
    ///
    /// # Errors
    /// Where the file or the model is refused.
    pub(super) fn new(asset: &str) -> Result<Self> {
        let asset = config::check_asset_text("asset", asset).context("the asset is refused")?;
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        let (id, assets) = (asset.id.clone(), BTreeMap::from([(asset.id.clone(), asset)]));
        let engine = Engine::new(&assets, &models)?;
        let intake = Intake::new(Arc::new(Registry::new(&assets, Origin::Simulated)));
        let counters = SourceCounters::new("simulated".into(), "mqtt", "none", Clock::new());
        Ok(Self { asset: id, intake, counters, engine, seq: 0, entries: Vec::new(), out: Vec::new() })
    }

    /// A value that comes `at_s` seconds after the start, whose source says that it was measured `ahead_s` later. Gives what follows.
    pub(super) fn take(&mut self, point: &str, value: Value, (at_s, ahead_s): (f64, f64)) -> Vec<Body> {
        let ts = |at_s: f64| Timestamp(START_US + (at_s * 1e6) as i64);
        let now = Now { ts: ts(at_s), log_ms: (at_s * 1e3) as u64, boot: "boot".into(), state: ClockState::Synced };
        let time = Some(Ok(ts(at_s + ahead_s)));
        let sample = Sample { asset: None, point: Some(point.to_owned()), value, time, quality: Quality::Good, sequence: None };
        let names = Names { asset: Some(&self.asset), ..Names::default() };
        self.intake.take(sample, names, &now, &self.counters, &mut self.entries);
        for entry in self.entries.drain(..) {
            self.seq += 1;
            self.engine.process(Position { ordinal: 1, seq: self.seq }, "simulated", &entry, &mut self.out);
        }
        self.out.drain(..).map(|(_, entry)| entry.body).collect()
    }
}
