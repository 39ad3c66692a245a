//! One line of output per row of the file.
use std::io::{self, Write};

use hark_protocol::topics::{OperatingState, Phase, Quality, ScoreReason, Timestamp};
use serde::Serialize;

use crate::inference::AssetView;

/// One line of output. Names and order are a contract; fields are only added.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    row: u64,
    ts: String,
    phase: Phase,
    state: OperatingState,
    score: Option<f64>,
    limit: Option<f64>,
    anomaly: Option<f64>,
    above: bool,
    alarm: bool,
    contrib_1_point: Option<&'a str>,
    contrib_1_share: Option<f64>,
    contrib_2_point: Option<&'a str>,
    contrib_2_share: Option<f64>,
    contrib_3_point: Option<&'a str>,
    contrib_3_share: Option<f64>,
    health: Option<f64>,
    reason: Option<ScoreReason>,
    quality: Quality,
    forecast: Option<&'a str>,
    t_p10_s: Option<f64>,
    t_p50_s: Option<f64>,
    t_p90_s: Option<f64>,
    p_fail_1: Option<f64>,
    p_fail_2: Option<f64>,
    p_fail_3: Option<f64>,
    regime: Option<&'a str>,
    end_event: Option<&'a str>,
    advice: bool,
    remaining_life_s: Option<f64>,
    capped: Option<bool>,
    t_p05_s: Option<f64>,
    t_p95_s: Option<f64>,
}

impl<'a> Line<'a> {
    /// What is known of the asset after row `row` of the file, whose time is `ts`.
    pub(super) fn new(row: u64, ts: Timestamp, view: &'a AssetView) -> Self {
        let contribution = |place: usize| view.contributions.get(place).map(|(point, share)| (&**point, *share)).unzip();
        let [first, second, third] = [0, 1, 2].map(contribution);
        let ahead = view.prognosis.as_ref();
        let of_model = ahead.and_then(|ahead| ahead.of_model.as_ref());
        Self {
            row,
            ts: ts.to_string(),
            phase: view.phase,
            state: view.state,
            score: view.score,
            limit: view.limit,
            anomaly: view.anomaly,
            above: view.above,
            alarm: view.alarm,
            contrib_1_point: first.0,
            contrib_1_share: first.1,
            contrib_2_point: second.0,
            contrib_2_share: second.1,
            contrib_3_point: third.0,
            contrib_3_share: third.1,
            health: view.health,
            reason: view.reason,
            quality: view.quality,
            forecast: view.forecast.as_deref(),
            t_p10_s: ahead.map(|ahead| ahead.p10_s),
            t_p50_s: ahead.map(|ahead| ahead.p50_s),
            t_p90_s: ahead.map(|ahead| ahead.p90_s),
            p_fail_1: ahead.map(|ahead| ahead.within[0]),
            p_fail_2: ahead.map(|ahead| ahead.within[1]),
            p_fail_3: ahead.map(|ahead| ahead.within[2]),
            regime: view.regime.as_deref(),
            end_event: ahead.map(|ahead| &*ahead.end_event),
            advice: view.advice,
            remaining_life_s: of_model.map(|model| model.mean_s),
            capped: ahead.map(|ahead| ahead.capped),
            t_p05_s: of_model.map(|model| model.p05_s),
            t_p95_s: of_model.map(|model| model.p95_s),
        }
    }

    /// Writes it as JSON with its end of line.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        out.write_all(&text)
    }
}
