//! What is learned per regime: each has rows, weights, limit and smoothing of its own. That of the present regime is the asset's stage; the others wait
//! here. Without `[operating]` there is one stage and no regime.
use std::collections::BTreeMap;

use hark_protocol::topics::{Name, Quality, ScoreReason, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    alarms::Condition,
    asset::{AssetState, Stage, micros},
    collected::Collected,
    evidence::Evidence,
    grid::Row,
    operating::Regime,
    stretch::Judged,
    verdict::Verdict,
};

/// The regimes of an asset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Regimes {
    /// Whose stage is that of the asset; the last one while the machine is in none.
    present: Option<Regime>,
    unseen: bool,
    others: BTreeMap<Regime, Waiting>,
}

/// A regime that the machine is not in.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting {
    stage: Stage,
    unseen: bool,
}

/// What [`AssetState::enter`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The asset was in this regime already.
    Same,
    /// Another one than before.
    Other,
    /// One that commissioning has not seen, for the first time.
    Unseen,
}

impl Regimes {
    /// Name of the regime whose weights are in use; `None` where the asset has no regimes or was in none yet.
    pub(super) fn name(&self) -> Option<Name> {
        self.present.map(Regime::name)
    }
}

impl AssetState {
    /// Rows are those of `regime` already.
    pub(super) fn is_in(&self, regime: Regime) -> bool {
        self.regimes.present == Some(regime)
    }

    /// From now on rows are learned and scored as those of `regime`.
    pub(super) fn enter(&mut self, regime: Regime) -> Entered {
        if self.is_in(regime) {
            return Entered::Same;
        }
        let known = self.regimes.others.remove(&regime);
        let is_new = known.is_none();
        // The first regime of all takes the stage that the asset began with.
        let Some(before) = self.regimes.present.replace(regime) else { return Entered::Other };
        let unseen = is_new && self.is_commissioned();
        let Waiting { stage, unseen } = known.unwrap_or_else(|| Waiting { stage: self.first_stage(), unseen });
        let waiting = Waiting { stage: std::mem::replace(&mut self.stage, stage), unseen: std::mem::replace(&mut self.regimes.unseen, unseen) };
        self.regimes.others.insert(before, waiting);
        if is_new && unseen { Entered::Unseen } else { Entered::Other }
    }

    /// All regimes that were met, the present one last; one without a name where the asset has none.
    pub(super) fn met(&self) -> Vec<Option<Regime>> {
        self.regimes.others.keys().copied().map(Some).chain([self.regimes.present]).collect()
    }

    /// How far all regimes are.
    pub(super) fn stages_mut(&mut self) -> impl Iterator<Item = &mut Stage> {
        self.regimes.others.values_mut().map(|waiting| &mut waiting.stage).chain([&mut self.stage])
    }

    /// Forgets what was learned of all regimes.
    pub(super) fn forget_regimes(&mut self) {
        self.regimes = Regimes::default();
    }

    /// The commissioning of some regime has ended.
    fn is_commissioned(&self) -> bool {
        let others = self.regimes.others.values().map(|waiting| &waiting.stage);
        others.chain([&self.stage]).any(|stage| !matches!(stage, Stage::Commissioning(_)))
    }

    /// The present regime was first met after the commissioning of another one, and has no weights yet.
    pub(super) fn is_unseen(&self) -> bool {
        self.regimes.unseen && matches!(self.stage, Stage::Commissioning(_))
    }

    /// A row that is neither learned nor scored, and why. The window ends before it, and delays of the alarm do not run.
    pub(super) fn set_aside(&mut self, row: &Row, reason: ScoreReason) {
        self.break_off(row.ts);
        let quality = if reason == ScoreReason::MissingPoint { Quality::Bad } else { row.quality };
        self.conclude(Verdict { reason: Some(reason), quality, range: row.range, ..self.unscored(row.ts) });
    }

    /// Steady rows end before `ts`. Those of the last `settle` may have been of a machine that changed already: they are not learned, and what they
    /// did to smoothed scores is undone. In an alarm, which a person was told of, the score stays above.
    pub(super) fn break_off(&mut self, ts: Timestamp) {
        self.window.clear();
        self.alarms.restart_delays_of(&Condition::Anomaly);
        let (spare, settle_us, in_alarm) = (self.rows_to_settle(), self.settle_us(), self.alarms.is_active_for(&Condition::Anomaly));
        let Some(mark) = self.stretch.end(ts, settle_us) else { return };
        if let Stage::Scoring(scoring) = &mut self.stage {
            scoring.tail.break_off();
            scoring.centre.break_off();
        }
        match (&mut self.stage, mark) {
            (Stage::Commissioning(rows), _) => rows.drop_last(spare),
            (Stage::Scoring(scoring), Some(mark)) => {
                scoring.smoothed = mark.smoothed;
                if let Some(verdict) = self.verdict.as_mut().filter(|_| !in_alarm) {
                    verdict.above = mark.above;
                }
            }
            _ => {}
        }
    }

    /// So many of the newest rows may yet turn out to be of a machine that began to change: commissioning ends so many later, and without them.
    pub(super) fn rows_to_settle(&self) -> usize {
        usize::try_from(self.settle_us() / self.grid_us).unwrap_or(usize::MAX)
    }

    fn settle_us(&self) -> i64 {
        self.operating.as_ref().map_or(0, |operating| micros(operating.settings().settle))
    }

    /// What holds for the alarm of the score, by the newest row. With operating states that is known `settle` later; `None` until then.
    pub(super) fn confirm(&mut self) -> Option<Judged> {
        let verdict = self.verdict.as_ref()?;
        let judged = Judged { ts: verdict.ts, above: verdict.above, evidence: Evidence::of_verdict(self, verdict)? };
        if self.operating.is_none() {
            return Some(judged);
        }
        let settle_us = self.settle_us();
        self.stretch.confirm(judged, settle_us)
    }

    /// The stage of a regime of which nothing is known.
    pub(super) fn first_stage(&self) -> Stage {
        Stage::Commissioning(Collected::new(self.scored.len()))
    }
}
