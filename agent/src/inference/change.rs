//! Changes: what was configured otherwise acts from its record on, for the first run and for every replay.
use hark_protocol::topics::{Event, LaneName, Name};

use super::{
    Emit, Engine,
    alarm_record::Told,
    asset::AssetState,
    report::ModelNames,
    run::{AssetRun, started},
    stage_a::StageA,
};
use crate::{causes, config, record::Body};

/// Subjects of change records.
pub(super) const CONFIGURATION: &str = "configuration";
/// The model bundle.
pub(super) const BUNDLE: &str = "bundle";
/// The agent itself.
pub(super) const PROGRAM: &str = "program";

impl Engine {
    /// Lets a change act. What cannot be used is counted, and what was in force stays.
    pub(super) fn change(&mut self, event: &Event, emit: &mut Emit<'_>) {
        let changed = match event.what.as_deref() {
            Some(CONFIGURATION) => match &event.hash_after {
                Some(hash) => self.configure(hash, event, emit),
                None => self.remove(emit),
            },
            Some(BUNDLE) => event.hash_after.as_ref().map_or(Ok(false), |hash| self.change_bundle(hash, emit)),
            // Another program may decide otherwise; that it came is in the record.
            _ => Ok(false),
        };
        match changed {
            Ok(changed) => self.shared.counters.changes += u64::from(changed),
            Err(problem) => {
                self.shared.counters.changes_refused += 1;
                tracing::error!(what = event.what.as_deref(), asset = emit.stamp.asset.as_deref(), problem, "a change cannot be used");
            }
        }
    }

    /// With the same points and grid an asset goes on as it is; otherwise its commissioning begins anew.
    fn configure(&mut self, hash: &Name, event: &Event, emit: &mut Emit<'_>) -> Result<bool, String> {
        let config: config::Asset = serde_json::from_str(event.detail_json.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
        let id = emit.stamp.asset.clone().filter(|id| *id == config.id && *hash == config.hash);
        let id = id.ok_or("asset, hash and configuration do not belong together")?;
        if self.assets.get(&id).is_some_and(|run| run.config.hash == config.hash) {
            return Ok(false);
        }
        self.plan_for(&config).map_err(|error| causes::chain(&error))?;
        let before = self.assets.remove(&id).map(|run| run.state);
        self.insert(id, config, before, event.actor.clone(), emit);
        Ok(true)
    }

    fn insert(&mut self, id: Name, config: config::Asset, before: Option<AssetState>, actor: Option<Name>, emit: &mut Emit<'_>) {
        let (mut run, anew) = self.adapted(config, before);
        for alarm in run.end_unwatched() {
            run.emit_alarm(&alarm, &Told::default(), &mut self.shared, emit);
        }
        run.forget_unknown_instruments();
        run.silence_inapplicable(&Told::default(), &mut self.shared, emit);
        if anew && !run.state.scored.is_empty() {
            emit.push_about(Some(id.clone()), LaneName::Events, Body::Event(started(actor).into()));
        }
        self.assets.insert(id, run);
    }

    /// An asset with `config` that goes on from the state `before` if it fits, and whether it does not: then it begins anew.
    pub(super) fn adapted(&self, config: config::Asset, before: Option<AssetState>) -> (AssetRun, bool) {
        let lags = self.shared.stage_a.lags();
        let (mut run, anew) = match before {
            Some(state) if state.fits(&config, lags) => (AssetRun::with_state(config, state), false),
            before => {
                let mut run = AssetRun::new(config, lags);
                before.into_iter().for_each(|before| run.state.carry_over(before));
                (run, true)
            }
        };
        run.prepare(&self.shared.stage_a);
        run.follow_life(&self.shared.forecasters);
        (run, anew)
    }

    /// The asset is no longer configured: nothing of it is kept, and an alarm of it does not stay for ever.
    fn remove(&mut self, emit: &mut Emit<'_>) -> Result<bool, String> {
        let id = emit.stamp.asset.clone().ok_or("no asset is named")?;
        let Some(mut run) = self.assets.remove(&id) else { return Ok(false) };
        for alarm in run.state.alarms.end_all() {
            run.emit_alarm(&alarm, &Told::default(), &mut self.shared, emit);
        }
        self.shared.baselines.remove(&id);
        Ok(true)
    }

    /// Weights fit every bundle that looks back as far as the one they were fitted for.
    fn change_bundle(&mut self, hash: &Name, emit: &mut Emit<'_>) -> Result<bool, String> {
        if self.shared.model.bundle == *hash {
            return Ok(false);
        }
        let bundle = self.bundles.by_hash(hash).map_err(|error| causes::chain(&error))?;
        let model = ModelNames::of(&bundle);
        self.shared.stage_a = StageA::new(bundle).map_err(|error| causes::chain(&error))?;
        self.shared.model = model;
        for (id, AssetRun { config, state, .. }) in std::mem::take(&mut self.assets) {
            if let Err(error) = self.plan_for(&config) {
                // Its rows then get no score, with a reason.
                tracing::error!(asset = %id, error = causes::chain(&error), "the new bundle cannot serve an asset");
            }
            self.insert(id, config, Some(state), None, emit);
        }
        Ok(true)
    }
}
