//! The engine on a small machine: two points that follow each other, with commissioning, a fault, gaps and restarts.
use std::{path::PathBuf, time::Duration};

use hark_protocol::topics::{Alarm, AlarmState, Clock, Origin, Phase, Prediction, ScoreReason, TsSource};

use super::{baseline::tests::Noise, *};

const SECOND: i64 = 1_000_000;
/// Rows of commissioning in these tests, of which the last 30 are held back.
const ROWS: usize = 150;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn asset() -> config::Asset {
    let point = |id: &str, scored| config::Point { id: id.into(), unit: "1".into(), column: None, range: None, map: BTreeMap::new(), scored };
    config::Asset {
        id: "pump".into(),
        name: "Pump".into(),
        path: None,
        class: None,
        grid: Duration::from_secs(1),
        stale_after: Duration::from_secs(3),
        predict_every: Duration::ZERO,
        commissioning: config::Commissioning { rows: ROWS, held_back: 30 },
        alarm: config::AlarmSettings { on_delay: Duration::from_secs(5), off_delay: Duration::from_secs(10) },
        points: vec![point("a", true), point("note", false), point("b", true)],
        waveforms: Vec::new(),
        hash: "c0ffee".into(),
    }
}

fn engine_with(edit: impl FnOnce(&mut config::Asset)) -> Engine {
    let mut asset = asset();
    edit(&mut asset);
    Engine::new(&BTreeMap::from([(asset.id.clone(), asset)]), &models()).unwrap()
}

fn stamp(second: f64) -> Stamp {
    let ts = Timestamp((second * SECOND as f64) as i64);
    Stamp { asset: Some("pump".into()), ts, ts_source: TsSource::Sensor, clock: Clock::Synced, origin: Origin::Simulated }
}

fn reading(second: f64, point: &str, value: Option<f64>) -> Entry {
    let quality = if value.is_some() { Quality::Good } else { Quality::Bad };
    let reading = Reading { point: point.into(), value, unit: "1".into(), quality, reason: None, source_seq: None, boot: "boot".into(), log_ms: 0 };
    Entry { stamp: stamp(second), cause: None, body: Body::Reading(reading) }
}

fn event(second: f64, kind: EventKind, command: Option<&str>) -> Entry {
    let event = Event { command: command.map(Into::into), actor: Some("mw".into()), ..Event::new(kind) };
    Entry { stamp: stamp(second), cause: None, body: Body::Event(event.into()) }
}

/// `b` follows `a` one row later; from `fault` on it no longer does.
fn machine(rows: usize, fault: usize) -> Vec<Entry> {
    let (mut noise, mut a) = (Noise(7), 0.0);
    let mut entries = Vec::new();
    for row in 0..rows {
        let b = if row < fault { 2.0 * a + 0.1 * noise.next() } else { 5.0 * noise.next() };
        a = 0.8 * a + noise.next();
        entries.push(reading(1000.0 + row as f64, "a", Some(a)));
        entries.push(reading(1000.1 + row as f64, "b", Some(b)));
    }
    entries
}

/// Feeds `entries` from `first_seq` on and gives the outputs.
fn feed(engine: &mut Engine, first_seq: u64, entries: &[Entry]) -> Vec<(LaneName, Entry)> {
    let mut out = Vec::new();
    for (seq, entry) in (first_seq..).zip(entries) {
        engine.process(Position { ordinal: 2, seq }, "inc", entry, &mut out);
    }
    out
}

fn predictions(out: &[(LaneName, Entry)]) -> Vec<&Prediction> {
    out.iter().filter_map(|(_, entry)| if let Body::Prediction(p) = &entry.body { Some(&**p) } else { None }).collect()
}

fn alarms(out: &[(LaneName, Entry)]) -> Vec<&Alarm> {
    out.iter().filter_map(|(_, entry)| if let Body::Alarm(a) = &entry.body { Some(&**a) } else { None }).collect()
}

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
    assert!(last.above && last.alarm && last.health.unwrap() < 1.0);
    assert_eq!(last.contrib_1_point.as_deref(), Some("b"), "the point that broke its habit");
    assert!(last.contrib_1_share.unwrap() > 0.5 && last.contrib_3_point.is_none());
    // Four rows of two readings: seq 793 to 800.
    assert_eq!((last.input_from.as_deref(), last.input_to.as_deref()), (Some("inc/793"), Some("inc/800")));

    let alarms = alarms(&out);
    assert_eq!(alarms.len(), 1);
    assert_eq!((alarms[0].state, alarms[0].previous_state), (AlarmState::ActiveUnacknowledged, AlarmState::Normal));
    assert!(alarms[0].value > alarms[0].limit && alarms[0].advice.as_ref().unwrap().contains("`b`"));
    let first_above = predictions.iter().position(|p| p.above).unwrap();
    let first_alarm = predictions.iter().position(|p| p.alarm).unwrap();
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
    assert_eq!((baseline.rows, baseline.rows_held_back, &*baseline.input_from, &*baseline.input_to), (120, 30, "inc/1", "inc/300"));
    assert_eq!(&*baseline.points_json, r#"["a","b"]"#);
    let weights: BTreeMap<String, Vec<f64>> = serde_json::from_str(&baseline.weights_json).unwrap();
    assert_eq!(["mean", "inv_std", "regression", "bias", "whitening"].map(|name| weights[name].len()), [2, 2, 12, 2, 4]);
}

#[test]
fn a_restored_engine_goes_on_number_for_number() {
    let entries = machine(400, 300);
    let mut undisturbed = engine_with(|_| {});
    let expected = feed(&mut undisturbed, 1, &entries);
    // Within commissioning, between the readings of a row, after the fit, during the on-delay, in the alarm.
    for cut in [101, 250, 300, 301, 613, 700] {
        let mut before = engine_with(|_| {});
        let mut out = feed(&mut before, 1, &entries[..cut]);
        let snapshot = before.snapshot();
        drop(before);
        let mut after = Engine::restore(&BTreeMap::from([("pump".into(), asset())]), &models(), &snapshot).unwrap();
        assert_eq!(after.snapshot(), snapshot, "cut at {cut}");
        out.extend(feed(&mut after, cut as u64 + 1, &entries[cut..]));
        assert!(out == expected, "cut at {cut}");
        assert_eq!(after.shared.baselines, undisturbed.shared.baselines, "cut at {cut}");
    }
}

#[test]
fn a_snapshot_of_other_points_starts_anew_and_garbage_is_refused() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(200, 200));
    let snapshot = engine.snapshot();
    let mut changed = asset();
    changed.points.pop();
    let restored = Engine::restore(&BTreeMap::from([("pump".into(), changed)]), &models(), &snapshot).unwrap();
    assert_eq!((restored.view("pump").unwrap().progress, restored.view("pump").unwrap().row_ts), (Some(0.0), None));
    for garbage in [&b""[..], &[9, 1, 2], &snapshot[..snapshot.len() / 2]] {
        assert!(matches!(Engine::restore(&BTreeMap::new(), &models(), garbage), Err(InferenceError::Snapshot(_))));
    }
}

#[test]
fn a_silent_point_is_missing_and_a_gap_fills_the_window_again() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(ROWS + 10, usize::MAX));
    let start = 1000.0 + (ROWS + 10) as f64;
    // Only `a` goes on: `b` is held for three rows, then missing.
    let alone: Vec<Entry> = (0..8).map(|i| reading(start + f64::from(i), "a", Some(0.0))).collect();
    let out = feed(&mut engine, 1000, &alone);
    let reasons: Vec<_> = predictions(&out).iter().map(|p| p.reason).collect();
    assert_eq!(
        reasons,
        [
            None,
            None,
            None,
            Some(ScoreReason::MissingPoint),
            Some(ScoreReason::MissingPoint),
            Some(ScoreReason::MissingPoint),
            Some(ScoreReason::MissingPoint)
        ]
    );
    let missing = predictions(&out)[3];
    assert_eq!((missing.quality, missing.health, missing.health_reason.as_deref()), (Quality::Bad, None, Some("missing_point")));
    // Both again: three rows fill the window, the fourth is scored; then six seconds of silence.
    let both = |from: f64, rows: u32| -> Vec<Entry> {
        (0..rows).flat_map(|i| ["a", "b"].map(|point| reading(from + f64::from(i), point, Some(0.1)))).collect()
    };
    for from in [start + 8.0, start + 17.0] {
        let out = feed(&mut engine, 2000, &both(from, 4));
        let reasons: Vec<_> = predictions(&out).iter().map(|p| p.reason).skip_while(|r| *r == Some(ScoreReason::MissingPoint)).collect();
        let filling = Some(ScoreReason::WindowFilling);
        assert_eq!(reasons, [filling, filling, filling, None], "from {from}");
    }
    assert_eq!(engine.counters().model_failures, 0);
}

#[test]
fn a_tick_closes_an_overdue_row_and_nothing_else() {
    let mut engine = engine_with(|_| {});
    assert!(feed(&mut engine, 1, &[event(900.0, EventKind::Tick, None)]).is_empty(), "before any reading");
    assert!(feed(&mut engine, 2, &[reading(1000.0, "a", Some(1.0)), reading(1000.0, "b", None)]).is_empty());
    assert_eq!(engine.row_due("pump"), Some(Timestamp(1001 * SECOND)));
    assert!(feed(&mut engine, 4, &[event(1000.9, EventKind::Tick, None)]).is_empty(), "the slot is not over");
    let out = feed(&mut engine, 5, &[event(1001.0, EventKind::Tick, None)]);
    assert_eq!(predictions(&out)[0].reason, Some(ScoreReason::MissingPoint));
    assert_eq!(out[0].1.cause, Some(Cause { ordinal: 2, seq: 5, n: 0 }));
    assert!(feed(&mut engine, 6, &[event(1002.0, EventKind::Tick, None)]).is_empty(), "closed already");
}

#[test]
fn what_is_unknown_late_or_bad_is_counted() {
    let mut engine = engine_with(|_| {});
    let mut stranger = reading(1000.0, "a", Some(1.0));
    stranger.stamp.asset = Some("other".into());
    let mut gateway = event(1000.0, EventKind::Clock, None);
    gateway.stamp.asset = None;
    let entries = [
        stranger,
        gateway,
        reading(1000.0, "c", Some(1.0)),
        reading(1000.0, "note", Some(1.0)),
        reading(1000.0, "a", None),
        reading(990.0, "a", Some(1.0)),
    ];
    assert!(feed(&mut engine, 1, &entries).is_empty());
    let counters = engine.counters();
    assert_eq!((counters.unknown_asset, counters.unknown_point, counters.bad, counters.late, counters.readings), (1, 1, 1, 1, 4));
    assert_eq!(engine.view("pump").unwrap().bad_points, ["a".into()]);
    assert_eq!(engine.asset_records(Timestamp(1010 * SECOND))[0].1.silent_s, Some(10.0));
}

/// One sensor whose clock runs ahead does not take the rows of all others with it.
#[test]
fn a_time_that_runs_ahead_opens_no_row() {
    let mut undisturbed = engine_with(|_| {});
    let expected = feed(&mut undisturbed, 1, &machine(400, 300));
    let mut engine = engine_with(|_| {});
    let mut out = feed(&mut engine, 1, &machine(400, 300)[..700]);
    let mut ahead = reading(1000.0 + 72_000.0, "a", Some(1.0));
    let Body::Reading(body) = &mut ahead.body else { panic!("it is a reading") };
    (body.quality, body.reason) = (Quality::Uncertain, Some(QualityReason::Clock));
    assert!(feed(&mut engine, 701, &[ahead]).is_empty());
    out.extend(feed(&mut engine, 701, &machine(400, 300)[700..]));
    assert!(out == expected);
    assert_eq!((engine.counters().ahead, engine.counters().late), (1, 0));
}

#[test]
fn predictions_between_changes_come_at_their_pace_with_the_largest_score() {
    let entries = machine(300, usize::MAX);
    let every_row = feed(&mut engine_with(|_| {}), 1, &entries);
    let sparse = feed(&mut engine_with(|asset| asset.predict_every = Duration::from_secs(30)), 1, &entries);
    let (all, few) = (predictions(&every_row), predictions(&sparse));
    // Rows 0, 30 … 120 while commissioning, then row 150 (the change of phase), 180 …
    assert_eq!(few.len(), 10);
    let largest = all[181..=210].iter().filter_map(|p| p.score).fold(0.0, f64::max);
    assert_eq!(few[7].score_max, Some(largest));
    assert_eq!(few[7].score, all[210].score);
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

#[test]
fn a_person_acknowledges_accepts_and_begins_anew() {
    let mut engine = engine_with(|_| {});
    // Accepted early: 20 % fewer rows than configured.
    feed(&mut engine, 1, &machine(120, usize::MAX));
    let out = feed(&mut engine, 500, &[event(1120.0, EventKind::Command, Some("commissioning_accepted"))]);
    assert_eq!(out.len(), 1);
    assert_eq!(engine.baselines().next().unwrap().1.accepted_by.as_deref(), Some("mw"));
    let mut faulty = machine(250, 120);
    feed(&mut engine, 600, &faulty.split_off(240));
    assert_eq!(engine.view("pump").unwrap().alarm_state, AlarmState::ActiveUnacknowledged);
    let out = feed(&mut engine, 1000, &[event(1250.0, EventKind::Command, Some("acknowledge"))]);
    assert_eq!((alarms(&out)[0].state, alarms(&out)[0].actor.as_deref()), (AlarmState::ActiveAcknowledged, Some("mw")));
    feed(&mut engine, 1001, &[event(1251.0, EventKind::Command, Some("maintenance_done"))]);
    assert_eq!(engine.view("pump").unwrap().progress, Some(0.0));
}

#[test]
fn numbers_beyond_the_model_are_a_reason_and_not_a_panic() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(ROWS + 10, usize::MAX));
    let out = feed(&mut engine, 1000, &[reading(2000.0, "a", Some(f64::MAX)), reading(2000.0, "b", Some(-f64::MAX))]);
    assert_eq!(predictions(&out)[0].reason, Some(ScoreReason::WindowFilling));
    let huge: Vec<Entry> = (1..5).flat_map(|i| ["a", "b"].map(|point| reading(2000.0 + f64::from(i), point, Some(f64::MAX)))).collect();
    let out = feed(&mut engine, 1002, &huge);
    assert_eq!(predictions(&out)[3].reason, Some(ScoreReason::ModelFailed));
    assert_eq!(engine.counters().model_failures, 2);
    let calm: Vec<Entry> = (5..12).flat_map(|i| ["a", "b"].map(|point| reading(2000.0 + f64::from(i), point, Some(0.0)))).collect();
    let out = feed(&mut engine, 1010, &calm);
    assert!(predictions(&out)[6].score.is_some(), "the model works again");
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
    let published: Baseline = serde_json::from_str(include_str!("../../../config/kafka/schemas/hark.baselines.v1.example.json")).unwrap();
    let sizes = |weights: &str| -> BTreeMap<String, usize> {
        let weights: BTreeMap<String, Vec<f64>> = serde_json::from_str(weights).unwrap();
        weights.into_iter().map(|(name, values)| (name, values.len())).collect()
    };
    assert_eq!(sizes(&published.weights_json), sizes(&written.weights_json));
}
