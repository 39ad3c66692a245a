//! Commissioning of the present regime: how far it is, how it ends, and how it begins anew.
use hark_protocol::topics::Name;

use super::{
    asset::{AssetState, Scoring, Stage},
    baseline::{self, Fit, Refusal},
    centre::Centre,
    collected::Collected,
    doubts::Doubts,
    forecast::Forecasts,
    health::Health,
    limit::LIMIT,
    still::Stillness,
    stretch::Stretch,
    tail::Tail,
};
use crate::{
    buffer::Position,
    config::{self, COMMISSIONING_ROWS_LEAST},
};

/// How far the commissioning of the present regime is, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Progress {
    /// Of normal running, collected so far.
    pub(super) rows: usize,
    /// Of the machine, seen so far.
    pub(super) starts: u32,
    pub(super) of: config::Commissioning,
}

impl Progress {
    /// 0 to 1: the mean of what is had of the rows and, where they count, of the starts.
    pub(super) fn part(self) -> f64 {
        let part = |have: f64, of: f64| if of > 0.0 { have / of } else { 1.0 };
        let of_rows = part(self.rows as f64, self.of.rows as f64);
        if self.of.starts == 0 { of_rows } else { f64::midpoint(of_rows, f64::from(self.starts) / f64::from(self.of.starts)) }
    }
}

/// Commissionings by policy of a machine that drifts, after which only a person begins another.
const ATTEMPTS_MOST: usize = 7;

/// A fit that a row completed.
#[derive(Debug)]
pub(super) enum Commissioned {
    Accepted { fit: Box<Fit>, doubts: Doubts, rows: usize, range: (Position, Position) },
    Refused { refusal: Refusal, rows: usize, then: Option<Box<Collected>> },
}

impl AssetState {
    /// Ends commissioning with the rows collected so far, by policy. `None` where it is over already.
    pub(super) fn commission(&mut self, lags: usize) -> Option<Commissioned> {
        let mut commissioned = self.fit(lags)?;
        if let Commissioned::Accepted { doubts, rows, .. } = &commissioned
            && let Some(refusal) = doubts.refusal()
        {
            commissioned = Commissioned::Refused { then: self.collected_anew(&refusal), refusal, rows: *rows };
        }
        self.end_commissioning(&commissioned);
        Some(commissioned)
    }

    /// What commissioning would end with now by the word of a person, who may have enough of it sooner and know why there are doubts. `None` where it is
    /// over already.
    pub(super) fn fit_early(&self, lags: usize) -> Option<Commissioned> {
        let Stage::Commissioning(rows) = &self.stage else { return None };
        let (have, need) = (rows.len(), COMMISSIONING_ROWS_LEAST);
        if have < need { Some(Commissioned::Refused { refusal: Refusal::FewRows { have, need }, rows: have, then: None }) } else { self.fit(lags) }
    }

    fn fit(&self, lags: usize) -> Option<Commissioned> {
        let Stage::Commissioning(rows) = &self.stage else { return None };
        let count = rows.len();
        match (rows.range(), baseline::fit(rows, lags, &self.falling)) {
            (Some(range), Ok(fit)) => Some(Commissioned::Accepted { fit: Box::new(fit), doubts: Doubts::of(rows, &self.scored), rows: count, range }),
            (None, Ok(_)) => None,
            (_, Err(refusal)) => Some(Commissioned::Refused { refusal, rows: count, then: None }),
        }
    }

    /// What is collected after a refusal: a machine that moved may have come to rest since, as after its first warm day, and nobody has to be called for
    /// that. Whatever else is refused stays as it is until somebody sees to it.
    fn collected_anew(&self, refusal: &Refusal) -> Option<Box<Collected>> {
        let (Stage::Commissioning(rows), Refusal::Drift(drift)) = (&self.stage, refusal) else { return None };
        (rows.drifted().len() + 1 < ATTEMPTS_MOST).then(|| rows.after(drift.clone()).into())
    }

    /// Ends commissioning with what [`Self::fit`] gave.
    pub(super) fn end_commissioning(&mut self, commissioned: &Commissioned) {
        self.stage = match commissioned {
            Commissioned::Refused { then: Some(rows), .. } => Stage::Commissioning((**rows).clone()),
            Commissioned::Refused { refusal, .. } => Stage::Refused(refusal.to_string().into()),
            Commissioned::Accepted { fit, .. } => Stage::Scoring(Box::new(Scoring {
                // The caller names the baseline once it knows the input that completed it.
                baseline_id: Name::from(""),
                weights: fit.weights.clone(),
                moments: fit.moments.clone(),
                score_median: fit.score_median,
                limit: LIMIT,
                tail: Tail::new(fit.score_high),
                centre: Centre::new(fit.weights.points),
                forecasts: Forecasts::default(),
                smoothed: fit.smoothed.clone(),
                novelty: fit.novelty.clone(),
                second_opinion: fit.second_opinion.clone(),
            })),
        };
    }

    /// Begins commissioning anew: the machine was changed.
    pub(super) fn recommission(&mut self) {
        self.stage = self.first_stage();
        self.stillness = Stillness::new(self.scored.len());
        self.starts = 0;
        self.health = Health::default();
        self.severity.restart();
        self.forget_regimes();
        self.stretch = Stretch::default();
        self.window.clear();
        if let Some(verdict) = &mut self.verdict {
            verdict.above = false;
        }
    }

    /// How far commissioning is, 0 to 1; `None` once there is a baseline.
    pub(super) fn progress_part(&self, settings: config::Commissioning) -> Option<f64> {
        if matches!(self.stage, Stage::Refused(_)) { Some(1.0) } else { self.progress(settings).map(Progress::part) }
    }

    /// Why commissioning was refused, or the attempt before this one.
    pub(super) fn refused(&self) -> Option<Name> {
        match &self.stage {
            Stage::Commissioning(rows) => rows.drifted().last().map(|drift| drift.to_string().into()),
            Stage::Refused(reason) => Some(reason.clone()),
            Stage::Scoring(_) => None,
        }
    }

    /// What commissioning has and takes; `None` where it is over.
    pub(super) fn progress(&self, settings: config::Commissioning) -> Option<Progress> {
        let Stage::Commissioning(rows) = &self.stage else { return None };
        Some(Progress { rows: rows.len().min(settings.rows), starts: self.starts.min(settings.starts), of: settings })
    }
}
