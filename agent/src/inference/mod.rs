//! Inference: a deterministic function of the inputs lane and of nothing else.
//!
//! ```text
//! reading ─► grid ─► window ─► stage A (tract) ─► limit, health ─► alarm
//!            one row per slot     └─ weights from baseline (commissioning)
//! ```
//! [`Engine::process`] takes the entries of the inputs lane in order and appends what follows from each. It reads no clock, draws no random number and
//! walks no hash map, so a replay from any checkpoint gives the same outputs, number for number. Each output names the input behind it (its cause),
//! by which a replay leaves out what the log already holds.
mod alarm;
mod asset;
mod baseline;
mod bundle;
mod grid;
mod health;
mod limit;
mod model;
mod report;
pub mod stage;
mod stage_a;
mod view;
mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
};

use hark_protocol::topics::{self, Baseline, Event, EventKind, LaneName, Name, Quality, QualityReason, Reading, Timestamp, TsSource};
use serde::{Deserialize, Serialize};

use self::{
    asset::{AssetState, Commissioned, Stage, micros},
    grid::{Row, Sample},
    report::{InputRange, ModelNames},
    stage_a::{Prepared, StageA},
};
pub use self::{
    bundle::{Bundle, BundleError, GoldenFiles, Manifest, POINTS_MAX, Tensor},
    model::ModelError,
    view::AssetView,
};
use crate::{
    buffer::Position,
    config,
    record::{Body, Cause, Entry, Stamp},
};

/// Folder of the Stage A bundle under the models directory.
const STAGE_A: &str = "stage-a";
/// Form of a snapshot; a snapshot of another form is not restored.
const SNAPSHOT_FORM: u32 = 2;
/// Incarnations whose names are kept for naming input ranges.
const INCARNATIONS_MAX: usize = 64;
/// Baselines of an asset that are kept: the one in use and the one before it, which late predictions still name.
const BASELINES_MAX: usize = 2;

/// Why inference cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The model bundle is refused.
    #[error("cannot use the model bundle in `{folder}`")]
    Bundle {
        /// Its folder.
        folder: std::path::PathBuf,
        /// Why.
        source: Box<BundleError>,
    },
    /// The snapshot is not one of this version.
    #[error("the snapshot of inference cannot be read: {0}")]
    Snapshot(String),
}

/// What inference counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineCounters {
    /// Readings seen.
    pub readings: u64,
    /// Readings and commands of assets that are not configured.
    pub unknown_asset: u64,
    /// Readings of points that are not configured.
    pub unknown_point: u64,
    /// Readings older than the open slot; not used.
    pub late: u64,
    /// Readings whose time runs ahead of the gateway's; stored, not used.
    pub ahead: u64,
    /// Readings of scored points without a usable value.
    pub bad: u64,
    /// Times that an asset's clock was found set back.
    pub clock_set_back: u64,
    /// Rows closed.
    pub rows: u64,
    /// Rows with a score.
    pub rows_scored: u64,
    /// Rows without one because a point had no usable value.
    pub rows_missing_point: u64,
    /// Rows on which the model failed.
    pub model_failures: u64,
    /// Predictions given.
    pub predictions: u64,
    /// Alarm changes given.
    pub alarm_changes: u64,
}

impl EngineCounters {
    /// All of them by name, for `/metrics`.
    pub fn named(&self) -> [(&'static str, u64); 13] {
        [
            ("readings", self.readings),
            ("unknown_asset", self.unknown_asset),
            ("unknown_point", self.unknown_point),
            ("late", self.late),
            ("ahead", self.ahead),
            ("bad", self.bad),
            ("clock_set_back", self.clock_set_back),
            ("rows", self.rows),
            ("rows_scored", self.rows_scored),
            ("rows_missing_point", self.rows_missing_point),
            ("model_failures", self.model_failures),
            ("predictions", self.predictions),
            ("alarm_changes", self.alarm_changes),
        ]
    }
}

/// Inference over all assets of a gateway.
#[derive(Debug)]
pub struct Engine {
    assets: BTreeMap<Name, AssetRun>,
    shared: Shared,
}

/// An asset with what is made from its configuration and weights, and need not be stored.
#[derive(Debug)]
struct AssetRun {
    config: config::Asset,
    /// Index among the scored points; `None` for a point that is not scored.
    points: BTreeMap<Name, Option<usize>>,
    state: AssetState,
    prepared: Option<Prepared>,
}

/// What the assets share.
#[derive(Debug)]
struct Shared {
    stage_a: StageA,
    model: ModelNames,
    counters: EngineCounters,
    incarnations: BTreeMap<u32, Name>,
    baselines: Baselines,
}

/// Baselines by asset, the newest last.
type Baselines = BTreeMap<Name, VecDeque<Arc<Baseline>>>;

/// All that must survive a restart.
#[derive(Serialize, Deserialize)]
struct EngineState {
    assets: BTreeMap<Name, AssetState>,
    incarnations: BTreeMap<u32, Name>,
    baselines: Baselines,
}

impl Engine {
    /// Opens the Stage A bundle under `models_dir` and starts all assets in commissioning. Fails where the bundle is refused, or an asset has more
    /// scored points than [`POINTS_MAX`].
    pub fn new(assets: &BTreeMap<Name, config::Asset>, models_dir: &Path) -> Result<Self, InferenceError> {
        let folder = models_dir.join(STAGE_A);
        let refused = |source| InferenceError::Bundle { folder: folder.clone(), source: Box::new(source) };
        let mut stage_a = Bundle::open(&folder).and_then(StageA::new).map_err(refused)?;
        let mut runs = BTreeMap::new();
        for (id, config) in assets {
            let run = AssetRun::new(config.clone(), stage_a.lags());
            if !run.state.scored.is_empty() {
                stage_a.plan_for(run.state.scored.len()).map_err(refused)?;
            }
            runs.insert(id.clone(), run);
        }
        let model = ModelNames::of(stage_a.bundle());
        let shared = Shared { stage_a, model, counters: EngineCounters::default(), incarnations: BTreeMap::new(), baselines: Baselines::new() };
        Ok(Self { assets: runs, shared })
    }

    /// [`Self::new`], then goes on where [`Self::snapshot`] was taken. An asset whose scored points, grid or model history changed since then starts anew.
    pub fn restore(assets: &BTreeMap<Name, config::Asset>, models_dir: &Path, snapshot: &[u8]) -> Result<Self, InferenceError> {
        let unreadable = |error: postcard::Error| InferenceError::Snapshot(error.to_string());
        let (form, rest) = postcard::take_from_bytes::<u32>(snapshot).map_err(unreadable)?;
        if form != SNAPSHOT_FORM {
            return Err(InferenceError::Snapshot(format!("form {form} is not known, this version reads form {SNAPSHOT_FORM}")));
        }
        let stored: EngineState = postcard::from_bytes(rest).map_err(unreadable)?;
        let mut engine = Self::new(assets, models_dir)?;
        let lags = engine.shared.stage_a.lags();
        for (id, state) in stored.assets {
            let Some(run) = engine.assets.get_mut(&id) else { continue };
            if !state.fits(&run.config, lags) {
                tracing::info!(asset = %id, "points or grid changed, commissioning starts anew");
                continue;
            }
            run.state = state;
            run.prepare(&engine.shared.stage_a);
        }
        (engine.shared.incarnations, engine.shared.baselines) = (stored.incarnations, stored.baselines);
        Ok(engine)
    }

    /// All state, for [`Self::restore`]. Counters start at zero again.
    pub fn snapshot(&self) -> Vec<u8> {
        let assets = self.assets.iter().map(|(id, run)| (id.clone(), run.state.clone())).collect();
        let state = EngineState { assets, incarnations: self.shared.incarnations.clone(), baselines: self.shared.baselines.clone() };
        postcard::to_allocvec(&(SNAPSHOT_FORM, state)).expect("plain data into growing memory cannot fail")
    }

    /// Takes the entry of the inputs lane at `position` of `incarnation` and appends what follows from it to `out`, in a fixed order.
    pub fn process(&mut self, position: Position, incarnation: &str, entry: &Entry, out: &mut Vec<(LaneName, Entry)>) {
        self.shared.remember(position.ordinal, incarnation);
        let mut emit = Emit { cause: Cause { ordinal: position.ordinal, seq: position.seq, n: 0 }, stamp: &entry.stamp, out };
        let concerns_asset = match &entry.body {
            Body::Reading(_) => true,
            Body::Event(event) => matches!(event.kind, EventKind::Tick | EventKind::Command),
            Body::Snapshot(_) | Body::Prediction(_) | Body::Alarm(_) => false,
        };
        if !concerns_asset {
            return;
        }
        let Some(run) = entry.stamp.asset.as_ref().and_then(|id| self.assets.get_mut(id)) else {
            self.shared.counters.unknown_asset += 1;
            return;
        };
        match &entry.body {
            Body::Reading(reading) => run.reading(reading, position, &mut self.shared, &mut emit),
            Body::Event(event) if event.kind == EventKind::Tick => run.pass(entry.stamp.ts, &mut self.shared, &mut emit),
            Body::Event(event) => run.command(event, &mut self.shared, &mut emit),
            Body::Snapshot(_) | Body::Prediction(_) | Body::Alarm(_) => {}
        }
    }

    /// Forgets held values and windows of all assets, or of `asset` alone: the inputs lane has a gap here. Weights, smoothing and alarms stay.
    pub fn restart_windows(&mut self, asset: Option<&str>) {
        for (_, run) in self.assets.iter_mut().filter(|(id, _)| asset.is_none_or(|asset| ***id == *asset)) {
            run.state.restart_windows();
        }
    }

    /// Baselines with their asset's id, the one in use last, for the compacted topic. They outlive a restart: nothing says that an earlier start
    /// found the link up.
    pub fn baselines(&self) -> impl Iterator<Item = (&Name, &Arc<Baseline>)> {
        self.shared.baselines.iter().flat_map(|(asset, baselines)| baselines.iter().map(move |baseline| (asset, baseline)))
    }

    /// What was counted since the start.
    pub fn counters(&self) -> EngineCounters {
        self.shared.counters
    }

    /// What is known of `asset`; `None` where it is not configured.
    pub fn view(&self, asset: &str) -> Option<AssetView> {
        self.assets.get(asset).map(|run| AssetView::of(&run.config, &run.state))
    }

    /// What is known of all assets, by id.
    pub fn views(&self) -> Vec<AssetView> {
        self.assets.values().map(|run| AssetView::of(&run.config, &run.state)).collect()
    }

    /// Bodies of `hark.assets.v1` by id. `now` serves only for the seconds of silence.
    pub fn asset_records(&self, now: Timestamp) -> Vec<(Name, topics::Asset)> {
        self.assets.iter().map(|(id, run)| (id.clone(), report::asset(&run.state, &run.config, &self.shared.model, now))).collect()
    }

    /// End of the open slot of `asset` while its row is not closed: a tick at this time closes it.
    pub fn row_due(&self, asset: &str) -> Option<Timestamp> {
        self.assets.get(asset)?.state.grid.due()
    }
}

impl Shared {
    fn remember(&mut self, ordinal: u32, incarnation: &str) {
        if self.incarnations.get(&ordinal).is_some_and(|known| **known == *incarnation) {
            return;
        }
        self.incarnations.insert(ordinal, incarnation.into());
        while self.incarnations.len() > INCARNATIONS_MAX {
            self.incarnations.pop_first();
        }
    }

    /// `inc/seq`; the ordinal stands in for an incarnation too old to be remembered.
    fn record_name(&self, position: Position) -> Name {
        match self.incarnations.get(&position.ordinal) {
            Some(incarnation) => format!("{incarnation}/{}", position.seq).into(),
            None => position.to_string().into(),
        }
    }

    fn input_range(&self, range: Option<(Position, Position)>) -> InputRange {
        let (from, to) = range.unzip();
        InputRange { from: from.map(|p| self.record_name(p)), to: to.map(|p| self.record_name(p)) }
    }
}

/// Where outputs of one input go.
struct Emit<'a> {
    cause: Cause,
    stamp: &'a Stamp,
    out: &'a mut Vec<(LaneName, Entry)>,
}

impl Emit<'_> {
    fn push(&mut self, lane: LaneName, body: Body) {
        self.out.push((lane, Entry { stamp: self.stamp.clone(), cause: Some(self.cause), body }));
        self.cause.n += 1;
    }
}

impl AssetRun {
    fn new(config: config::Asset, lags: usize) -> Self {
        let mut scored = 0..;
        let points = config.points.iter().map(|point| (point.id.clone(), if point.scored { scored.next() } else { None })).collect();
        Self { state: AssetState::new(&config, lags), points, config, prepared: None }
    }

    fn prepare(&mut self, stage_a: &StageA) {
        self.prepared = self.state.scoring().and_then(|scoring| match stage_a.prepare(&scoring.weights) {
            Ok(prepared) => Some(prepared),
            Err(error) => {
                tracing::error!(asset = %self.config.id, %error, "the weights cannot be used");
                None
            }
        });
    }

    fn reading(&mut self, reading: &Reading, position: Position, shared: &mut Shared, emit: &mut Emit<'_>) {
        shared.counters.readings += 1;
        let ts = emit.stamp.ts;
        let Some(&scored) = self.points.get(&reading.point) else {
            shared.counters.unknown_point += 1;
            return;
        };
        // A time of the sensor's that runs ahead of the gateway's: it would open a slot for which all other points come late.
        if reading.reason == Some(QualityReason::Clock) && emit.stamp.ts_source == TsSource::Sensor {
            shared.counters.ahead += 1;
            return;
        }
        self.state.last_reading = self.state.last_reading.max(Some(ts));
        let Some(point) = scored else { return };
        // A bad value is no value, whatever number came with it.
        let value = reading.value.filter(|value| value.is_finite() && reading.quality != Quality::Bad);
        shared.counters.bad += u64::from(value.is_none());
        let offered = self.state.grid.offer(Sample { point, ts, value, quality: reading.quality, position });
        shared.counters.late += u64::from(offered.late);
        if offered.restarted {
            shared.counters.clock_set_back += 1;
            self.state.window.clear();
            self.state.last_reading = Some(ts);
        }
        for row in offered.overdue.into_iter().chain(offered.complete) {
            self.row(row, shared, emit);
        }
    }

    fn pass(&mut self, ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        if let Some(row) = self.state.grid.pass(ts) {
            self.row(row, shared, emit);
        }
    }

    fn command(&mut self, event: &Event, shared: &mut Shared, emit: &mut Emit<'_>) {
        match event.command.as_deref() {
            Some("acknowledge") => {
                if let Some(change) = self.state.alarm.acknowledge(event.alarm_id.as_ref()) {
                    self.emit_alarm(change, event.actor.clone(), shared, emit);
                }
            }
            Some("commissioning_accepted") => {
                if let Some(commissioned) = self.state.commission(self.config.commissioning, shared.stage_a.lags()) {
                    self.commissioned(commissioned, event.actor.clone(), shared, emit);
                }
            }
            Some("maintenance_done") => {
                self.state.recommission();
                self.prepared = None;
                let begun = Event { what: Some("started".into()), actor: event.actor.clone(), ..Event::new(EventKind::Commissioning) };
                emit.push(LaneName::Events, Body::Event(begun.into()));
            }
            _ => {}
        }
    }

    /// Takes a row to its end: commissioning, score, alarm, prediction, in this order.
    fn row(&mut self, row: Row, shared: &mut Shared, emit: &mut Emit<'_>) {
        let settings = self.config.commissioning;
        let completed = self.state.take(row, settings, &mut shared.stage_a, self.prepared.as_ref(), &mut shared.counters);
        if let Some(commissioned) = completed {
            self.commissioned(commissioned, None, shared, emit);
        }
        let Some(verdict) = self.state.verdict.clone() else { return };
        if verdict.score.is_some() {
            let delays = self.config.alarm;
            let new_id = || format!("{}/{}", emit.cause.ordinal, emit.cause.seq).into();
            let change = self.state.alarm.update(verdict.above, verdict.ts, micros(delays.on_delay), micros(delays.off_delay), new_id);
            if let Some(change) = change {
                self.emit_alarm(change, None, shared, emit);
            }
        }
        if self.state.prediction_due(&verdict, micros(self.config.predict_every)) {
            shared.counters.predictions += 1;
            let inputs = shared.input_range(verdict.range);
            let prediction = report::prediction(&self.state, &verdict, &self.config, &shared.model, inputs);
            self.state.predicted = Some((self.state.signature(&verdict), verdict.ts));
            self.state.score_max = None;
            emit.push(LaneName::Predictions, Body::Prediction(Box::new(prediction)));
        }
    }

    fn emit_alarm(&mut self, change: alarm::Change, actor: Option<Name>, shared: &mut Shared, emit: &mut Emit<'_>) {
        shared.counters.alarm_changes += 1;
        let inputs = shared.input_range(self.state.verdict.as_ref().and_then(|verdict| verdict.range));
        let alarm = report::alarm(&self.state, change, &self.config, &shared.model, inputs, actor);
        emit.push(LaneName::Alarms, Body::Alarm(Box::new(alarm)));
    }

    fn commissioned(&mut self, commissioned: Commissioned, actor: Option<Name>, shared: &mut Shared, emit: &mut Emit<'_>) {
        let event = match commissioned {
            Commissioned::Refused { refusal, rows } => report::refused(&refusal, rows, actor),
            Commissioned::Accepted { fit, rows, range } => {
                // Named after the input that completed it: unique within the asset, and the same in a replay.
                let baseline_id: Name = format!("{}-{}", emit.cause.ordinal, emit.cause.seq).into();
                if let Stage::Scoring(scoring) = &mut self.state.stage {
                    scoring.baseline_id = baseline_id.clone();
                }
                self.prepare(&shared.stage_a);
                let event = report::accepted(&fit, &baseline_id, rows, actor.clone(), &self.state.scored);
                let inputs = shared.input_range(Some(range));
                let made = report::BaselineOf { fit: &fit, id: &baseline_id, rows, inputs, actor };
                let baseline = report::baseline(made, &self.config, &self.state.scored, &shared.model);
                let kept = shared.baselines.entry(self.config.id.clone()).or_default();
                kept.push_back(baseline.into());
                while kept.len() > BASELINES_MAX {
                    kept.pop_front();
                }
                event
            }
        };
        emit.push(LaneName::Events, Body::Event(event.into()));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
