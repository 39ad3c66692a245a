//! Remaining life of one machine: rows for a model that was trained on machines run to failure, and what it said of the newest one.
//!
//! A row is a row of the grid in which the machine runs, and one unit of its life. Means and windows of a life go on over gaps of the log; rows that nobody
//! recorded count neither in the age. Maintenance begins a new life. What was said is told until one of the model's values would be stale.
use std::collections::BTreeMap;

use hark_protocol::topics::{Name, OperatingState, Quality, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Emit, Shared,
    alarms::Condition,
    asset::{micros, stale_of},
    clean::Judged,
    evidence::Evidence,
    forecast::{OfModel, Prognosis},
    grid::{Grid, Row, Sample},
    model::ModelError,
    row_features::{Life, Specification},
    run::AssetRun,
    stage_b::{Distribution, StageB},
};
use crate::{buffer::Position, config};

/// What is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Remaining {
    /// Hash of the bundle that it was kept for.
    bundle: Name,
    /// Rows of the model's points, then of its settings.
    grid: Grid,
    life: Life,
    /// First record behind this life's features.
    from: Option<Position>,
    told: Option<Prognosis>,
}

impl Remaining {
    /// A life of `asset` whose first row is still to come. `age_rows` went by before.
    pub(super) fn new(stage_b: &StageB, asset: &config::Asset, age_rows: u64) -> Self {
        let (features, grid_us) = (stage_b.features(), micros(asset.grid).max(1));
        Self {
            bundle: stage_b.names.bundle.clone(),
            grid: Grid::new(stale_of_inputs(features, asset), grid_us),
            life: Life::since(features, age_rows),
            from: None,
            told: None,
        }
    }

    /// Whether it was kept for this bundle and the grid of `asset`.
    pub(super) fn fits(&self, stage_b: &StageB, asset: &config::Asset) -> bool {
        let fresh = Self::new(stage_b, asset, 0);
        self.bundle == fresh.bundle && self.grid.grid_us() == fresh.grid.grid_us() && self.life.fits(stage_b.features())
    }

    /// From now on values are stale as `asset` says.
    pub(super) fn configure(&mut self, stage_b: &StageB, asset: &config::Asset) {
        self.grid.set_stale(stale_of_inputs(stage_b.features(), asset));
    }

    /// Takes a value of the model's and gives the rows that it closes.
    pub(super) fn offer(&mut self, sample: Sample) -> impl Iterator<Item = Row> + use<> {
        let offered = self.grid.offer(sample);
        offered.overdue.into_iter().chain(offered.complete)
    }

    /// Time passes without a value.
    pub(super) fn pass(&mut self, ts: Timestamp) -> Option<Row> {
        self.grid.pass(ts)
    }

    /// What comes does not continue what was held.
    pub(super) fn restart(&mut self) {
        self.grid.restart();
    }

    /// Takes a row of a machine in `state`: unknown where nothing tells it.
    ///
    /// # Errors
    /// Where the model fails; what was said before is then told no more.
    pub(super) fn take(&mut self, row: &Row, state: OperatingState, stage_b: &mut StageB, asset: &config::Asset) -> Result<(), ModelError> {
        if !matches!(state, OperatingState::Running | OperatingState::Unknown) {
            return Ok(());
        }
        self.told = None;
        let features = stage_b.features();
        let mut values = row.values.clone();
        // What is held in place of a bad value was measured before: nothing is filled in.
        row.held_over.iter().for_each(|&input| values[input] = None);
        let (values, settings) = values.split_at(features.points.len());
        // Why a row has no features can be seen in the instruments.
        let Ok(features) = self.life.push(features, values, settings) else { return Ok(()) };
        let Some((first, last)) = row.range else { return Ok(()) };
        let from = *self.from.get_or_insert(first);
        let distribution = stage_b.run(&features)?;
        self.told = Some(prognosis(&distribution, stage_b, row.ts, self.life.rows(), (from, last), asset));
        Ok(())
    }

    /// What was said of the newest row, as long as none of its values would be stale at `now`.
    pub(super) fn told(&self, now: Timestamp) -> Option<&Prognosis> {
        self.told.as_ref().filter(|told| now.0.saturating_sub(told.ts.0) <= self.grid.stale_least_us())
    }

    /// What was said of the row at `ts`, if that is the newest one.
    pub(super) fn told_of(&self, ts: Timestamp) -> Option<&Prognosis> {
        self.told.as_ref().filter(|told| told.ts >= ts)
    }
}

impl AssetRun {
    /// Goes on with the life that is known, if it was kept for the model that is configured; else begins one.
    pub(super) fn follow_life(&mut self, forecasters: &BTreeMap<Name, StageB>) {
        let stage_b = self.config.forecast.bundle().and_then(|bundle| forecasters.get(bundle));
        let Some((model, stage_b)) = self.config.forecast.model.as_ref().zip(stage_b) else {
            (self.state.remaining, self.model_inputs) = (None, BTreeMap::new());
            return;
        };
        let mut known = self.state.remaining.take().filter(|remaining| remaining.fits(stage_b, &self.config));
        known.iter_mut().for_each(|known| known.configure(stage_b, &self.config));
        self.state.remaining = Some(known.unwrap_or_else(|| Remaining::new(stage_b, &self.config, model.age_rows.unwrap_or(0))));
        let input = |(index, point): (usize, &config::Point)| Some((index, input_of(stage_b.features(), &point.id)?));
        self.model_inputs = self.config.points.iter().enumerate().filter_map(input).collect();
    }

    /// An overhauled machine is a new one.
    pub(super) fn begin_life(&mut self, forecasters: &BTreeMap<Name, StageB>) {
        self.state.remaining =
            self.config.forecast.bundle().and_then(|bundle| forecasters.get(bundle)).map(|stage_b| Remaining::new(stage_b, &self.config, 0));
    }

    /// Hands a value to the forecasting model, if it is one of its inputs.
    pub(super) fn feed_model(&mut self, index: usize, judged: Judged, ts: Timestamp, position: Position, shared: &mut Shared, emit: &mut Emit<'_>) {
        let Some((remaining, &point)) = self.state.remaining.as_mut().zip(self.model_inputs.get(&index)) else { return };
        let rows: Vec<Row> = remaining.offer(Sample { point, ts, value: judged.value, quality: judged.quality, position }).collect();
        rows.iter().for_each(|row| self.live(row, shared, emit));
    }

    /// A row of the machine's life has passed.
    pub(super) fn live(&mut self, row: &Row, shared: &mut Shared, emit: &mut Emit<'_>) {
        let stage_b = self.config.forecast.bundle().and_then(|bundle| shared.forecasters.get_mut(bundle));
        let Some((remaining, stage_b)) = self.state.remaining.as_mut().zip(stage_b) else { return };
        let state = self.state.operating.as_ref().map_or(OperatingState::Unknown, |operating| operating.at(row.ts).state);
        if let Err(error) = remaining.take(row, state, stage_b, &self.config) {
            shared.counters.forecast_failures += 1;
            tracing::debug!(%error, asset = %self.config.id, "the forecasting model failed on a row");
        }
        // A row of which nothing is told neither raises an alarm nor ends one.
        if let Some(told) = remaining.told_of(row.ts).cloned() {
            self.judge_forecast(Some(told), row.quality, row.ts, shared, emit);
        }
    }

    /// An end that is likely within the first horizon is an alarm, until it is half as likely.
    pub(super) fn judge_forecast(&mut self, ahead: Option<Prognosis>, quality: Quality, ts: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        let ahead = ahead.filter(Prognosis::asks_for_response);
        let (value, limit) = (ahead.as_ref().map_or(0.0, |ahead| ahead.within[0]), self.config.forecast.alarm);
        let holds = value >= if self.state.alarms.stands(&Condition::Forecast) { limit / 2.0 } else { limit };
        let range = ahead.as_ref().and_then(|ahead| Some(ahead.of_model.as_ref()?.range));
        let evidence = Evidence { value, ts, quality, range, of_score: None, of_forecast: ahead };
        self.watch(&Condition::Forecast, (holds, evidence), ts, shared, emit);
    }
}

fn stale_of_inputs(features: &Specification, asset: &config::Asset) -> Vec<i64> {
    features.inputs().map(|(point, _)| stale_of(asset, point)).collect()
}

/// Index of a point among the inputs of a model.
fn input_of(features: &Specification, point: &str) -> Option<usize> {
    features.inputs().position(|(name, _)| name == point)
}

fn prognosis(of: &Distribution, stage_b: &StageB, ts: Timestamp, rows: u64, range: (Position, Position), asset: &config::Asset) -> Prognosis {
    let (manifest, row_s) = (stage_b.manifest(), asset.grid.as_secs_f64());
    let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|level| of.quantile(&manifest.levels, level));
    Prognosis {
        end_event: manifest.end_event.as_str().into(),
        p10_s: p10 * row_s,
        p50_s: p50 * row_s,
        p90_s: p90 * row_s,
        capped: p90 >= manifest.cap,
        within: asset.forecast.horizons.map(|horizon| of.within(&manifest.levels, horizon.as_secs_f64() / row_s)),
        ts,
        of_model: Some(OfModel {
            name: stage_b.names.name.clone(),
            version: stage_b.names.version.clone(),
            hash: stage_b.names.hash.clone(),
            failure_mode: manifest.failure_mode.as_deref().map(Into::into),
            mean_s: of.mean * row_s,
            p05_s: of.quantile(&manifest.levels, 0.05) * row_s,
            p95_s: of.quantile(&manifest.levels, 0.95) * row_s,
            rows,
            range,
        }),
    }
}
