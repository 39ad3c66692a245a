//! Inference: a deterministic function of the inputs lane and of nothing else.
//!
//! ```text
//! reading ─► clean ─► grid ─► gate ─► window ─► stage A (tract) ─► limit, health, novelty ─► alarm
//!            │        row     │ steady          │                  └─ moved by normal rows (adaptation)
//!            │                │                 └─ weights from baseline (commissioning), one per regime
//!            │                └─ operating state
//!            └─► instrument (NE 107)
//! ```
//! [`Engine::process`] takes the entries of the inputs lane in order and appends what follows from each. It reads no clock, draws no random number and
//! walks no hash map, so a replay from any checkpoint gives the same outputs, number for number. Each output names the input behind it (its cause),
//! by which a replay leaves out what the log already holds.
//!
//! Everything it reacts to is an entry: readings; ticks, which say that time passes for a silent asset; commands, applied once; changes of
//! configuration and bundle, which act from their place on; corrections of the gateway's clock.
mod adaptation;
mod alarm;
mod alarm_record;
mod alarms;
mod asset;
pub mod assignment;
mod baseline;
mod bits;
mod bundle;
mod bundles;
mod cadence;
mod centre;
mod change;
pub mod checkpoint;
mod clean;
mod collected;
mod command;
mod commissioning;
pub mod configured;
mod counters;
mod course;
mod diagnosis;
mod doubts;
mod drift;
mod evidence;
mod flood;
mod forecast;
mod forecast_manifest;
mod gate;
mod golden;
mod grid;
mod health;
mod instrument;
mod limit;
mod model;
mod novelty;
mod operating;
mod pareto;
mod raised;
mod ready;
mod reduced;
mod regimes;
mod regression;
mod remaining;
mod report;
pub mod row_features;
mod run;
mod second_opinion;
mod seldom;
mod service;
mod severity;
pub mod stage;
mod stage_a;
mod stage_b;
mod still;
mod stretch;
mod tail;
mod validation;
mod verdict;
pub mod verification;
mod view;
mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
};

use hark_protocol::topics::{self, Baseline, Event, EventKind, LaneName, Name, QualityReason, Timestamp, TsSource};
use serde::{Deserialize, Serialize};

use self::{
    asset::AssetState,
    command::Commands,
    flood::Flood,
    report::{InputRange, ModelNames},
    run::AssetRun,
    stage_a::StageA,
    stage_b::StageB,
};
pub use self::{
    bundle::{Bundle, BundleError, GoldenFiles, Manifest, POINTS_MAX, Tensor},
    bundles::{Bundles, STAGE_A},
    collected::ROWS_BLOCK,
    counters::EngineCounters,
    flood::AlarmFlood,
    forecast::{OfModel, Prognosis},
    forecast_manifest::{ForecastManifest, Need},
    model::ModelError,
    view::AssetView,
};
use crate::{
    buffer::Position,
    config,
    record::{Body, Cause, Entry, Stamp},
    status::Outcome,
};

/// Form of a snapshot; a snapshot of another form is not restored.
const SNAPSHOT_FORM: u32 = 17;
/// Incarnations whose names are kept for naming input ranges.
const INCARNATIONS_MAX: usize = 64;
/// Baselines of a regime of an asset that are kept, of all its points and of some of them: the one in use and the one before it, which late predictions still name.
const BASELINES_MAX: usize = 2;
/// A correction of the clock by less than this, ms, is drift that windows bear.
const CLOCK_STEP_MS: f64 = 1_000.0;

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

/// Inference over all assets of a gateway.
#[derive(Debug)]
pub struct Engine {
    assets: BTreeMap<Name, AssetRun>,
    bundles: Bundles,
    commands: Commands,
    /// What became of commands since somebody asked; no part of the state.
    outcomes: Vec<(Name, Outcome)>,
    shared: Shared,
}

/// What the assets share.
#[derive(Debug)]
struct Shared {
    stage_a: StageA,
    model: ModelNames,
    /// Forecasting models by the hash of their bundle.
    forecasters: BTreeMap<Name, StageB>,
    counters: EngineCounters,
    incarnations: BTreeMap<u32, Name>,
    baselines: Baselines,
    /// Of all machines: they have one person's attention.
    flood: Flood,
}

/// Baselines by asset, the newest last.
type Baselines = BTreeMap<Name, VecDeque<Arc<Baseline>>>;

/// All that must survive a restart, as it is written: borrowed, since a state in commissioning is large.
#[derive(Serialize)]
struct EngineStateRef<'a> {
    bundle: &'a Name,
    assets: BTreeMap<&'a Name, (&'a config::Asset, &'a AssetState)>,
    commands: &'a Commands,
    incarnations: &'a BTreeMap<u32, Name>,
    baselines: &'a Baselines,
    flood: &'a Flood,
}

/// The same as it is read.
#[derive(Deserialize)]
struct EngineState {
    bundle: Name,
    assets: BTreeMap<Name, (config::Asset, AssetState)>,
    commands: Commands,
    incarnations: BTreeMap<u32, Name>,
    baselines: Baselines,
    flood: Flood,
}

/// Why the forecasting bundle in `folder` is of no use to `asset`, in words; `None` where it is.
///
/// # Errors
/// [`BundleError`] where it is no forecasting bundle, or cannot be trusted.
pub fn refusal_for(folder: &Path, asset: &config::Asset) -> Result<Option<String>, BundleError> {
    Ok(StageB::new(Bundle::open(folder)?)?.refusal(asset))
}

impl Engine {
    /// Opens the Stage A bundle under `models_dir` and starts all assets in commissioning.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where the bundle is refused, or an asset has more scored points than [`POINTS_MAX`].
    pub fn new(assets: &BTreeMap<Name, config::Asset>, models_dir: &Path) -> Result<Self, InferenceError> {
        Self::with_assets(assets, Bundles::offered_in(models_dir))
    }

    /// No asset yet: change records in the inputs bring them.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where the bundle offered is refused.
    pub fn empty(bundles: Bundles) -> Result<Self, InferenceError> {
        let offered = bundles.offered()?;
        Self::with_bundle(bundles, offered)
    }

    /// [`Self::new`] with copies of earlier bundles at hand.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_assets(assets: &BTreeMap<Name, config::Asset>, bundles: Bundles) -> Result<Self, InferenceError> {
        let mut engine = Self::empty(bundles)?;
        for (id, config) in assets {
            engine.plan_for(config)?;
            let mut run = AssetRun::new(config.clone(), engine.shared.stage_a.lags());
            run.follow_life(&engine.shared.forecasters);
            engine.assets.insert(id.clone(), run);
        }
        Ok(engine)
    }

    /// Goes on where [`Self::snapshot`] was taken, with the configuration and the bundle that were in force there.
    ///
    /// # Errors
    /// [`InferenceError::Snapshot`] where `snapshot` is none of this version's; [`InferenceError::Bundle`] where neither the bundle in force nor the
    /// one offered can be used.
    pub fn restore(bundles: Bundles, snapshot: &[u8]) -> Result<Self, InferenceError> {
        let unreadable = |error: postcard::Error| InferenceError::Snapshot(error.to_string());
        let (form, rest) = postcard::take_from_bytes::<u32>(snapshot).map_err(unreadable)?;
        if form != SNAPSHOT_FORM {
            return Err(InferenceError::Snapshot(format!("form {form} is not known, this version reads form {SNAPSHOT_FORM}")));
        }
        let stored: EngineState = postcard::from_bytes(rest).map_err(unreadable)?;
        // Without the bundle that was in force the one offered comes nearest; weights and alarms are worth more than its exact numbers.
        let bundle = bundles.by_hash(&stored.bundle).or_else(|error| {
            tracing::error!(hash = %stored.bundle, %error, "the bundle in force is gone, the one offered takes its place");
            bundles.offered()
        })?;
        let mut engine = Self::with_bundle(bundles, bundle)?;
        for (id, (config, state)) in stored.assets {
            engine.plan_for(&config)?;
            let run = engine.adapted(config, Some(state)).0;
            engine.assets.insert(id, run);
        }
        engine.commands = stored.commands;
        (engine.shared.incarnations, engine.shared.baselines, engine.shared.flood) = (stored.incarnations, stored.baselines, stored.flood);
        Ok(engine)
    }

    fn with_bundle(bundles: Bundles, bundle: Bundle) -> Result<Self, InferenceError> {
        let model = ModelNames::of(&bundle);
        let stage_a = StageA::new(bundle).map_err(|source| refused_bundle(&model, source))?;
        let (counters, baselines, flood) = (EngineCounters::default(), Baselines::new(), Flood::default());
        let shared = Shared { stage_a, model, forecasters: BTreeMap::new(), counters, incarnations: BTreeMap::new(), baselines, flood };
        Ok(Self { assets: BTreeMap::new(), bundles, commands: Commands::default(), outcomes: Vec::new(), shared })
    }

    /// Makes ready what `config` needs of models.
    fn plan_for(&mut self, config: &config::Asset) -> Result<(), InferenceError> {
        self.forecaster_for(config);
        let scored = config.points.iter().filter(|point| point.scored).count();
        if scored == 0 {
            return Ok(());
        }
        let Shared { stage_a, model, .. } = &mut self.shared;
        stage_a.plan_for(scored).map_err(|source| refused_bundle(model, source))
    }

    /// Without its forecasting model a machine is watched as one of which no failure is known.
    fn forecaster_for(&mut self, config: &config::Asset) {
        let Some((model, hash)) = config.forecast.model.as_ref().and_then(|model| Some((model, model.bundle.as_ref()?))) else { return };
        if self.shared.forecasters.contains_key(hash) {
            return;
        }
        let opened = self.bundles.with_hash(&model.folder, hash).and_then(|bundle| {
            let names = ModelNames::of(&bundle);
            StageB::new(bundle).map_err(|source| refused_bundle(&names, source))
        });
        match opened {
            Ok(stage_b) => drop(self.shared.forecasters.insert(hash.clone(), stage_b)),
            Err(error) => {
                tracing::error!(asset = %config.id, error = crate::causes::chain(&error), "no remaining life is told: its model cannot be used")
            }
        }
    }

    /// All state, for [`Self::restore`]. Counters start at zero again.
    pub fn snapshot(&self) -> Vec<u8> {
        let state = EngineStateRef {
            bundle: &self.shared.model.bundle,
            assets: self.assets.iter().map(|(id, run)| (id, (&run.config, &run.state))).collect(),
            commands: &self.commands,
            incarnations: &self.shared.incarnations,
            baselines: &self.shared.baselines,
            flood: &self.shared.flood,
        };
        postcard::to_allocvec(&(SNAPSHOT_FORM, state)).expect("plain data into growing memory cannot fail")
    }

    /// Takes the entry of the inputs lane at `position` of `incarnation` and appends what follows from it to `out`, in a fixed order.
    pub fn process(&mut self, position: Position, incarnation: &str, entry: &Entry, out: &mut Vec<(LaneName, Entry)>) {
        self.shared.remember(position.ordinal, incarnation);
        let mut emit = Emit { cause: Cause { ordinal: position.ordinal, seq: position.seq, n: 0 }, stamp: &entry.stamp, out };
        if !is_ahead(entry)
            && let Some(ended) = self.shared.flood.pass(entry.stamp.ts)
        {
            emit.push_about(None, LaneName::Events, Body::Event(ended.into()));
        }
        match &entry.body {
            Body::Reading(reading) => {
                if let Some((run, shared)) = self.run_of(entry, emit.cause) {
                    run.reading(reading, position, shared, &mut emit);
                }
            }
            Body::Event(event) => match event.kind {
                EventKind::Tick => {
                    if let Some((run, shared)) = self.run_of(entry, emit.cause) {
                        run.tick(entry.stamp.ts, shared, &mut emit);
                    }
                }
                EventKind::Source => {
                    if let Some((run, shared)) = self.run_of(entry, emit.cause) {
                        run.self_test(event, shared, &mut emit);
                    }
                }
                EventKind::Command => self.command(event, entry, &mut emit),
                EventKind::Change => self.change(event, &mut emit),
                EventKind::Clock => self.clock_corrected(event),
                _ => {}
            },
            Body::Snapshot(_) | Body::Prediction(_) | Body::Alarm(_) => {}
        }
    }

    /// The asset that `entry`, at the place `at`, is about; one that is not configured is counted.
    fn run_of(&mut self, entry: &Entry, at: Cause) -> Option<(&mut AssetRun, &mut Shared)> {
        let Self { assets, shared, .. } = self;
        let run = entry.stamp.asset.as_ref().and_then(|id| assets.get_mut(id));
        shared.counters.unknown_asset += u64::from(run.is_none());
        let run = run?;
        run.state.raised.begin(at);
        Some((run, shared))
    }

    fn command(&mut self, event: &Event, entry: &Entry, emit: &mut Emit<'_>) {
        if event.command_id.as_ref().is_some_and(|id| !self.commands.is_new(id)) {
            self.shared.counters.commands_repeated += 1;
            return;
        }
        self.shared.counters.commands += 1;
        let outcome = match self.run_of(entry, emit.cause) {
            Some((run, shared)) => run.command(event, shared, emit),
            None => Err("the asset is not configured on this gateway".into()),
        };
        emit.push(LaneName::Events, Body::Event(command::answer(event, &outcome).into()));
        self.outcomes.extend(event.command_id.clone().map(|id| (id, outcome)));
    }

    fn clock_corrected(&mut self, event: &Event) {
        // By how much is not always known; then the worst is assumed.
        if event.offset_ms.is_some_and(|offset| offset.abs() < CLOCK_STEP_MS) {
            return;
        }
        self.shared.flood.restart();
        let offset_us = event.offset_ms.map_or(0, |offset| (offset * 1e3) as i64);
        let concerned: usize = self.assets.values_mut().map(|run| usize::from(run.clock_corrected(offset_us))).sum();
        self.shared.counters.clock_corrections += u64::from(concerned > 0);
    }

    /// Inputs are missing here: all assets begin their windows anew, and the quality of what follows says so.
    pub fn pass_gap(&mut self) {
        self.shared.counters.gaps += 1;
        self.assets.values_mut().for_each(|run| run.state.pass_gap());
    }

    /// Forgets held values and windows of all assets, or of `asset` alone: what follows does not continue what was. Weights, smoothing and alarms stay.
    pub fn restart_windows(&mut self, asset: Option<&str>) {
        for (_, run) in self.assets.iter_mut().filter(|(id, _)| asset.is_none_or(|asset| ***id == *asset)) {
            run.state.restart_windows();
        }
    }

    /// Makes sure that the bundle in force can serve all of `assets`.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where one of them has more scored points than [`POINTS_MAX`].
    pub fn check(&mut self, assets: &BTreeMap<Name, config::Asset>) -> Result<(), InferenceError> {
        assets.values().try_for_each(|config| self.plan_for(config))
    }

    /// The configurations in force, by asset.
    pub fn configurations(&self) -> impl Iterator<Item = (&Name, &config::Asset)> {
        self.assets.iter().map(|(id, run)| (id, &run.config))
    }

    /// How far time has come for each asset that was heard of: event time of its last reading, and the place that ticks have reached since.
    pub fn silences(&self) -> Vec<(Name, Timestamp, Timestamp)> {
        let known = self.assets.iter().filter_map(|(id, run)| Some((id, run.state.heard?, run.state.ticked)));
        known.map(|(id, heard, ticked)| (id.clone(), heard, ticked.map_or(heard, |ticked| ticked.max(heard)))).collect()
    }

    /// Of each asset, when the next thing ends that somebody said the end of: a shelving, or work on it or on an instrument.
    pub fn next_ends(&self) -> impl Iterator<Item = (&Name, Option<Timestamp>)> {
        self.assets.iter().map(|(id, run)| (id, [run.state.alarms.next_end(), run.state.service.next_end()].into_iter().flatten().min()))
    }

    /// The newest reading whose time is from the gateway's clock.
    pub fn newest_gateway_time(&self) -> Option<Timestamp> {
        self.assets.values().filter(|run| run.state.gateway_time).filter_map(|run| run.state.heard).max()
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

    /// What became of the commands that were read since the last call, by their ids.
    pub fn take_outcomes(&mut self) -> Vec<(Name, Outcome)> {
        std::mem::take(&mut self.outcomes)
    }

    /// The alarms that are shown, by asset, the most urgent first.
    pub fn alarms(&self) -> Vec<(Name, topics::Alarm)> {
        let of = |(id, run): (&Name, &AssetRun)| run.alarms(&self.shared).into_iter().map(|alarm| (id.clone(), alarm)).collect::<Vec<_>>();
        self.assets.iter().flat_map(of).collect()
    }

    /// More new alarms than a person can deal with, as long as that lasts.
    pub fn alarm_flood(&self) -> Option<AlarmFlood> {
        self.shared.flood.shown()
    }

    /// Bodies of `hark.assets.v1` by id. `now` serves only for the seconds of silence.
    pub fn asset_records(&self, now: Timestamp) -> Vec<(Name, topics::Asset)> {
        self.assets.iter().map(|(id, run)| (id.clone(), report::asset(&run.state, &run.config, &self.shared.model, now))).collect()
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
        self.push_about(self.stamp.asset.clone(), lane, body);
    }

    /// About another asset than the input is.
    fn push_about(&mut self, asset: Option<Name>, lane: LaneName, body: Body) {
        let stamp = Stamp { asset, ..self.stamp.clone() };
        self.out.push((lane, Entry { stamp, cause: Some(self.cause), body }));
        self.cause.n += 1;
    }
}

/// A time of the sensor's that runs ahead of the gateway's.
fn is_ahead(entry: &Entry) -> bool {
    let is_doubted = matches!(&entry.body, Body::Reading(reading) if reading.reason == Some(QualityReason::Clock));
    is_doubted && entry.stamp.ts_source == TsSource::Sensor
}

fn refused_bundle(model: &ModelNames, source: BundleError) -> InferenceError {
    InferenceError::Bundle { folder: (*model.name).into(), source: Box::new(source) }
}

#[cfg(test)]
mod tests;
