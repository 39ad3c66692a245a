//! What moves after commissioning: the limit by the tail of normal scores (`tail.rs`), the means by rows that were accepted as normal (`centre.rs`).
//! Each move makes a baseline of its own, so that every prediction can be recomputed from the one that it names.
use hark_protocol::topics::{Baseline, Event, EventKind, LaneName, Name, Quality};
use serde_json::json;

use super::{
    Emit, Shared,
    asset::{AssetState, Scoring, Stage},
    centre::Recentred,
    report,
    run::{AssetRun, keep},
    tail::Moved,
};
use crate::record::Body;

const DAY_US: i64 = 86_400_000_000;

/// What moved.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Adapted {
    Limit(Moved),
    Means(Recentred),
}

impl AssetState {
    /// With an alarm, a case or a silence, what moves begins anew in every regime, whether the machine runs or not.
    pub(super) fn forget_unless_quiet(&mut self) {
        if !self.alarms.is_quiet() {
            let day_rows = self.day_rows();
            for stage in self.stages_mut() {
                if let Stage::Scoring(scoring) = stage {
                    scoring.forget(day_rows);
                }
            }
        }
    }

    fn day_rows(&self) -> f64 {
        DAY_US as f64 / self.grid_us as f64
    }

    /// Shows the newest row to what follows its regime, if it is of a machine as it should be; gives what moves from the next row on.
    pub(super) fn adapt(&mut self, follow_means: bool) -> Option<Adapted> {
        let (day_rows, settle_rows) = (self.day_rows(), self.rows_to_settle() as u64);
        let (verdict, Stage::Scoring(scoring)) = (self.verdict.as_ref()?, &mut self.stage) else { return None };
        if !self.alarms.is_quiet() {
            return None;
        }
        let score = verdict.score.filter(|_| verdict.reason.is_none() && verdict.quality == Quality::Good)?;
        scoring.tail.push(score, settle_rows);
        let limit = scoring.tail.look(scoring.limit, day_rows).map(Adapted::Limit);
        if !follow_means || verdict.above {
            return limit;
        }
        let z = scoring.z(self.window.newest()).collect::<Option<Vec<f64>>>()?;
        scoring.centre.push(&z, settle_rows);
        // One baseline a row: the means come with the next one.
        let Scoring { centre, weights, .. } = &mut **scoring;
        limit.or_else(|| centre.look(day_rows, |moved| weights.score_at(moved)).map(Adapted::Means))
    }
}

impl Scoring {
    /// There is an alarm, or someone is at work: what came before it may be a part of it.
    pub(super) fn forget(&mut self, day_rows: f64) {
        self.tail.forget_of_late(day_rows);
        self.centre.forget();
    }

    /// The z-score of each point of a row, that of its level where it is seldom; `None` where it has no value.
    pub(super) fn z<'a>(&'a self, row: &'a [Option<f64>]) -> impl Iterator<Item = Option<f64>> + 'a {
        row.iter().enumerate().map(|(point, value)| value.and_then(|value| self.weights.z(point, self.smoothed.levels.of(point).unwrap_or(value))))
    }

    /// From here on `adapted` holds, as the baseline `id`.
    fn take(&mut self, adapted: &Adapted, id: Name) {
        self.baseline_id = id;
        match adapted {
            Adapted::Limit(moved) => {
                self.limit = moved.limit;
                self.forecasts.forget_score();
            }
            Adapted::Means(recentred) => self.weights.recentre(&recentred.by),
        }
    }
}

impl AssetRun {
    /// From the next row on `adapted` holds: a baseline of its own, by which predictions of then can be recomputed.
    pub(super) fn adapted(&mut self, adapted: &Adapted, shared: &mut Shared, emit: &mut Emit<'_>) {
        let (id, regime) = (self.name_baseline(emit), self.state.regimes.name());
        let Stage::Scoring(scoring) = &mut self.state.stage else { return };
        let Some(known) = shared.baselines.get_mut(&self.config.id) else { return };
        let Some(before) = known.iter().find(|baseline| baseline.baseline_id == scoring.baseline_id).cloned() else { return };
        scoring.take(adapted, id.clone());
        let (baseline, event) = match adapted {
            Adapted::Limit(moved) => (with_limit(&before, &id, moved), limit_moved(&before, &id, moved)),
            Adapted::Means(recentred) => {
                let by = by_rows(recentred, &self.state.scored);
                (with_means(&before, &id, &by, scoring), means_moved(&before, &id, by, recentred, &self.state.scored))
            }
        };
        match adapted {
            Adapted::Limit(_) => shared.counters.limits_moved += 1,
            Adapted::Means(_) => shared.counters.means_moved += 1,
        }
        keep(known, baseline.into());
        // Weights without some of the points belong to a baseline by its id.
        self.prepare(&shared.stage_a);
        emit.push(LaneName::Events, Body::Event(report::of_regime(event, regime).into()));
    }
}

fn with_limit(before: &Baseline, id: &Name, moved: &Moved) -> Baseline {
    Baseline { baseline_id: id.clone(), limit: moved.limit, limit_by: made_by(&by_peaks(moved), before), ..before.clone() }
}

fn with_means(before: &Baseline, id: &Name, by: &str, scoring: &Scoring) -> Baseline {
    let weights_json = report::weights_json(&scoring.weights, scoring.second_opinion.as_ref()).into();
    Baseline { baseline_id: id.clone(), weights_json, means_by: made_by(by, before), ..before.clone() }
}

fn made_by(by: &str, before: &Baseline) -> Option<Name> {
    Some(format!("{by}; all else as in {}", before.baseline_id).into())
}

fn limit_moved(before: &Baseline, id: &Name, moved: &Moved) -> Event {
    let Moved { limit, peaks, threshold, pareto, highest, days } = moved;
    let detail = json!({
        "baseline_id": **id, "previous": *before.baseline_id, "limit": limit, "previous_limit": before.limit, "peaks": peaks, "threshold": threshold,
        "scale": pareto.scale, "shape": pareto.shape(), "highest": highest, "days": days,
    });
    Event {
        text: Some(format!("the limit of the score moved from {:.2} to {limit:.2}: {}", before.limit, by_peaks(moved)).into()),
        what: Some("limit".into()),
        count: Some(*peaks as u64),
        detail_json: Some(detail.to_string().into()),
        ..Event::new(EventKind::Commissioning)
    }
}

fn means_moved(before: &Baseline, id: &Name, by: String, recentred: &Recentred, scored: &[Name]) -> Event {
    let moved: serde_json::Map<String, serde_json::Value> =
        scored.iter().zip(&recentred.by).map(|(point, by)| (point.to_string(), json!(by))).collect();
    let detail = json!({ "baseline_id": **id, "previous": *before.baseline_id, "moved_by_deviations": moved, "days": recentred.days });
    Event { text: Some(by.into()), what: Some("means".into()), detail_json: Some(detail.to_string().into()), ..Event::new(EventKind::Commissioning) }
}

fn by_peaks(moved: &Moved) -> String {
    format!("{} independent peaks over {:.2} in {:.1} days of running, the highest {:.2}", moved.peaks, moved.threshold, moved.days, moved.highest)
}

fn by_rows(recentred: &Recentred, scored: &[Name]) -> String {
    let Recentred { farthest, at, days, .. } = recentred;
    let point = scored.get(*farthest).map_or("", |point| &**point);
    format!(
        "means followed {days:.1} days of normal running; farthest from commissioning is that of `{point}`, by {at:+.2} of its standard deviation"
    )
}
