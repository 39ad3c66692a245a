//! Commissioning on the engine: from normal rows to a baseline, or a refusal.
use super::*;

#[test]
fn commissions_scores_and_raises_one_alarm_on_a_fault() {
    let mut engine = engine_with(|_| {});
    let out = feed(&mut engine, 1, &machine(400, 300));
    let predictions = predictions(&out);
    assert_eq!(predictions.len(), 400, "one per row, since predict_every is zero");
    assert!(predictions[..ROWS].iter().all(|p| p.phase == Phase::Commissioning && p.reason == Some(ScoreReason::Commissioning) && p.score.is_none()));
    assert!(predictions[ROWS..].iter().all(|p| p.phase == Phase::Scoring && p.reason.is_none() && p.score.is_some()));
    assert!(predictions[ROWS..300].iter().all(|p| !p.alarm && p.health.unwrap() > 50.0), "no false alarm on the healthy machine");
    let last = predictions[399];
    assert!(last.above && !last.alarm && last.health.unwrap() < 1.0, "a bare anomaly is advice, and no alarm");
    assert_eq!(last.contrib_1_point.as_deref(), Some("b"), "the point that broke its habit");
    assert!(last.contrib_1_share.unwrap() > 0.5 && last.contrib_3_point.is_none());
    // Four rows of two readings: seq 793 to 800.
    assert_eq!((last.input_from.as_deref(), last.input_to.as_deref()), (Some("inc/793"), Some("inc/800")));

    let alarms = alarms(&out);
    assert_eq!(alarms.len(), 1);
    assert_eq!((alarms[0].state, alarms[0].previous_state), (AlarmState::ActiveUnacknowledged, AlarmState::Normal));
    assert!(alarms[0].value > alarms[0].limit && alarms[0].advice.as_ref().unwrap().contains("`b`"));
    let first_above = predictions.iter().position(|p| p.above).unwrap();
    let first_alarm = rows_before_the_first_alarm(&out);
    assert_eq!(first_alarm - first_above, 5, "the on-delay in rows of one second");
    assert_eq!(&*alarms[0].since, Timestamp((1000 + first_above as i64) * SECOND).to_string());
}

#[test]
fn commissioning_leaves_an_event_and_a_baseline_that_recomputes_the_score() {
    let mut engine = engine_with(|_| {});
    let out = feed(&mut engine, 1, &machine(ROWS, ROWS));
    let (lane, entry) = out.iter().find(|(lane, _)| *lane == LaneName::Events).unwrap();
    let Body::Event(event) = &entry.body else { panic!("{lane} holds events") };
    assert_eq!((event.kind, event.what.as_deref(), event.count), (EventKind::Commissioning, Some("accepted"), Some(ROWS as u64)));
    assert_eq!(entry.cause, Some(Cause { ordinal: 2, seq: 300, n: 0 }));
    let baselines: Vec<_> = engine.baselines().collect();
    let [(asset, baseline)] = baselines[..] else { panic!("{baselines:?}") };
    assert_eq!((&**asset, &*baseline.baseline_id, &*baseline.verdict), ("pump", "2-300", "accepted"));
    assert_eq!((baseline.rows, baseline.rows_held_back, &*baseline.input_from, &*baseline.input_to), (150, 147, "inc/1", "inc/300"));
    assert_eq!(&*baseline.points_json, r#"["a","b"]"#);
    let weights: BTreeMap<String, Vec<f64>> = serde_json::from_str(&baseline.weights_json).unwrap();
    assert_eq!(["mean", "inv_std", "regression", "bias", "whitening"].map(|name| weights[name].len()), [2, 2, 12, 2, 4]);
    assert_eq!(["slow_regression", "slow_bias", "slow_whitening"].map(|name| weights[name].len()), [12, 2, 4]);
}

#[test]
fn a_machine_that_stands_still_is_refused() {
    let mut engine = engine_with(|_| {});
    let still: Vec<Entry> = (0..ROWS + 5).flat_map(|i| ["a", "b"].map(|point| reading(1000.0 + i as f64, point, Some(3.0)))).collect();
    let out = feed(&mut engine, 1, &still);
    let refused = out.iter().filter(|(lane, _)| *lane == LaneName::Events).count();
    let view = engine.view("pump").unwrap();
    assert_eq!((refused, view.reason, view.phase), (1, Some(ScoreReason::CommissioningRefused), Phase::Commissioning));
    assert_eq!(engine.baselines().count(), 0);
}

/// A machine whose point `a` rises by 30 with each [`ROWS`] rows, until `rest` rows are over.
fn warming(rows: usize, rest: usize) -> Vec<Entry> {
    let warm = |(index, mut entry): (usize, Entry)| {
        if let Body::Reading(reading) = &mut entry.body
            && &*reading.point == "a"
        {
            reading.value = reading.value.map(|a| a + 40.0 + 30.0 * (index / 2).min(rest) as f64 / ROWS as f64);
        }
        entry
    };
    machine(rows, usize::MAX).into_iter().enumerate().map(warm).collect()
}

fn texts(out: &[(LaneName, Entry)]) -> Vec<Name> {
    out.iter().filter_map(|(_, entry)| if let Body::Event(event) = &entry.body { event.text.clone() } else { None }).collect()
}

/// By policy; its rows are forgotten, so what came to rest is learned from the next ones, and the remark stays.
#[test]
fn a_machine_that_drifts_is_learned_once_it_is_at_rest() {
    let mut engine = engine_with(|_| {});
    let out = feed(&mut engine, 1, &warming(2 * ROWS + 1, ROWS + ROWS / 10));
    let [refused, accepted] = &texts(&out)[..] else { panic!("{:?}", texts(&out)) };
    assert!(refused.contains("refused: `a` rose all the time, from 4") && refused.contains("let it settle"), "{refused}");
    assert!(refused.ends_with("begins anew by itself, attempt 2"), "{refused}");
    assert!(accepted.contains("in an attempt before `a` rose all the time, from 4"), "{accepted}");
    let at = |row: usize| predictions(&out)[row].clone();
    assert_eq!(
        (at(ROWS).reason, at(2 * ROWS - 1).reason, at(2 * ROWS).reason),
        (Some(ScoreReason::Commissioning), Some(ScoreReason::Commissioning), None)
    );
    let (_, baseline) = engine.baselines().next().unwrap();
    assert_eq!((baseline.rows + baseline.rows_held_back, &*baseline.input_from), (297, "inc/301"), "nothing of the first attempt is in it");
}

#[test]
fn a_machine_that_never_rests_is_left_to_a_person() {
    let mut engine = engine_with(|_| {});
    let events = texts(&feed(&mut engine, 1, &warming(8 * ROWS, usize::MAX)));
    assert_eq!(events.len(), 7, "{events:?}");
    assert!(events[5].ends_with("attempt 7") && events[6].ends_with("it begins anew with `hark event maintenance`"), "{events:?}");
    assert_eq!((engine.baselines().count(), engine.view("pump").unwrap().reason), (0, Some(ScoreReason::CommissioningRefused)));
    let told = engine.asset_records(Timestamp(0)).remove(0).1.commissioning_refused;
    assert!(told.as_ref().is_some_and(|reason| reason.starts_with("`a` rose all the time")), "{told:?}");
}

#[test]
fn a_person_who_knows_why_accepts_a_machine_that_drifts() {
    let mut engine = engine_with(|asset| asset.commissioning.rows = ROWS + 2);
    feed(&mut engine, 1, &warming(ROWS + 1, usize::MAX));
    let accepted = texts(&feed(&mut engine, 1_000, &[event(2_000.0, EventKind::Command, Some("commissioning_accepted"))])).remove(0);
    let remarks = engine.baselines().next().unwrap().1.remarks.clone().unwrap();
    assert!(remarks.starts_with("on 151 of 152 rows; `a` rose all the time, from 4") && accepted.ends_with(&*remarks), "{remarks}: {accepted}");
}

#[test]
fn an_asset_without_scored_points_is_never_healthy() {
    let mut engine = engine_with(|asset| asset.points.iter_mut().for_each(|point| point.scored = false));
    assert!(feed(&mut engine, 1, &machine(10, usize::MAX)).is_empty());
    let view = engine.view("pump").unwrap();
    assert_eq!((view.health, &*view.health_reason, view.quality), (None, "no_scored_points", Quality::Bad));
}

/// What others build on: the example beside the schema has the weights that the agent writes, in the same numbers for two points.
#[test]
fn the_published_example_of_a_baseline_has_the_weights_that_are_written() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(ROWS, ROWS));
    let written = engine.baselines().next().unwrap().1;
    let published: Baseline = serde_json::from_str(include_str!("../../../../config/kafka/schemas/hark.baselines.v1.example.json")).unwrap();
    let sizes = |weights: &str| -> BTreeMap<String, usize> {
        let weights: BTreeMap<String, Vec<f64>> = serde_json::from_str(weights).unwrap();
        weights.into_iter().map(|(name, values)| (name, values.len())).collect()
    };
    assert_eq!(sizes(&published.weights_json), sizes(&written.weights_json));
}
