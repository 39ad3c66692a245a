//! The engine on a small machine: two points that follow each other, with commissioning, a fault, gaps and restarts.
use std::{path::PathBuf, time::Duration};

use hark_protocol::topics::{Alarm, AlarmState, Clock, Origin, Phase, Prediction, Quality, QualityReason, Reading, ScoreReason, TsSource};

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

/// Kind, subject and result of the events in `out`.
fn events(out: &[(LaneName, Entry)]) -> Vec<(&'static str, &str, &str)> {
    let kind = |kind| match kind {
        EventKind::Commissioning => "commissioning",
        EventKind::Audit => "audit",
        _ => "other",
    };
    let event = |entry: &'_ Entry| if let Body::Event(event) = &entry.body { Some(event.clone()) } else { None };
    let leak = |name: Option<Name>| -> &'static str { Box::leak(name.as_deref().unwrap_or("").to_owned().into_boxed_str()) };
    out.iter().filter_map(|(_, entry)| event(entry)).map(|event| (kind(event.kind), leak(event.what), leak(event.result))).collect()
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
        let mut after = Engine::restore(Bundles::offered_in(&models()), &snapshot).unwrap();
        assert_eq!(after.snapshot(), snapshot, "cut at {cut}");
        out.extend(feed(&mut after, cut as u64 + 1, &entries[cut..]));
        assert!(out == expected, "cut at {cut}");
        assert_eq!(after.shared.baselines, undisturbed.shared.baselines, "cut at {cut}");
    }
}

#[test]
fn garbage_is_no_snapshot() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(200, 200));
    let snapshot = engine.snapshot();
    for garbage in [&b""[..], &[9, 1, 2], &snapshot[..snapshot.len() / 2]] {
        assert!(matches!(Engine::restore(Bundles::offered_in(&models()), garbage), Err(InferenceError::Snapshot(_))));
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
    assert_eq!(events(&out), [("commissioning", "accepted", "success"), ("audit", "commissioning_accepted", "success")]);
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

fn reasons(out: &[(LaneName, Entry)]) -> Vec<Option<ScoreReason>> {
    predictions(out).iter().map(|prediction| prediction.reason).collect()
}

fn ticks(from: f64, to: f64) -> Vec<Entry> {
    (0..).map(|n| from + 0.75 * f64::from(n)).take_while(|second| *second <= to).map(|second| event(second, EventKind::Tick, None)).collect()
}

/// A dead sensor never looks like a healthy machine, and what a node kept while it was cut off is still taken in order.
#[test]
fn silence_is_a_verdict_once_and_then_at_the_pace_of_predictions() {
    let mut engine = engine_with(|asset| asset.predict_every = Duration::from_secs(6));
    feed(&mut engine, 1, &machine(ROWS + 10, usize::MAX));
    let last = 1000.1 + (ROWS + 9) as f64;
    // The stale limit is 3 s: four ticks say nothing, the fifth does; 6 s later it is said again.
    let out = feed(&mut engine, 1000, &ticks(last + 0.75, last + 3.0));
    assert_eq!(reasons(&out), []);
    let out = feed(&mut engine, 1004, &ticks(last + 3.75, last + 12.0));
    assert_eq!(reasons(&out), [Some(ScoreReason::MissingPoint); 2]);
    assert_eq!((predictions(&out)[0].quality, predictions(&out)[0].health, engine.counters().silences), (Quality::Bad, None, 1));
    assert_eq!(out[0].1.cause, Some(Cause { ordinal: 2, seq: 1004, n: 0 }));
    let silent = engine.view("pump").unwrap();
    assert_eq!((silent.health, silent.reason), (None, Some(ScoreReason::MissingPoint)));
    let (mut heard, before) = (engine.silences(), engine.counters());
    assert_eq!(heard.remove(0).2, Timestamp(((last + 12.0) * SECOND as f64) as i64));
    // The node comes back with what it kept: the first of it is a second after what came last.
    let mut kept = machine(ROWS + 30, usize::MAX);
    let out = feed(&mut engine, 2000, &kept.split_off(2 * (ROWS + 10)));
    assert_eq!((engine.counters().late, engine.counters().rows_scored), (before.late, before.rows_scored + 20));
    assert_eq!(reasons(&out).first(), Some(&None));
}

#[test]
fn a_command_is_applied_once_and_answered() {
    let mut engine = engine_with(|_| {});
    let command = |id: &str, word: &str| {
        let mut entry = event(1500.0, EventKind::Command, Some(word));
        let Body::Event(event) = &mut entry.body else { panic!("it is an event") };
        event.command_id = Some(id.into());
        entry
    };
    feed(&mut engine, 1, &machine(400, 300));
    let out =
        feed(&mut engine, 1000, &[command("c1", "acknowledge"), command("c1", "acknowledge"), command("c2", "acknowledge"), command("c3", "sing")]);
    assert_eq!(alarms(&out).len(), 1);
    assert_eq!(events(&out), [("audit", "acknowledge", "success"), ("audit", "acknowledge", "refused"), ("audit", "sing", "refused")]);
    let mut stranger = command("c4", "acknowledge");
    stranger.stamp.asset = Some("other".into());
    assert_eq!(events(&feed(&mut engine, 1010, &[stranger])), [("audit", "acknowledge", "refused")]);
    assert_eq!((engine.counters().commands, engine.counters().commands_repeated, engine.counters().unknown_asset), (4, 1, 1));
    // The memory of commands is part of the state.
    let mut restored = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    assert!(feed(&mut restored, 1020, &[command("c1", "acknowledge")]).is_empty());
}

fn change(what: &str, asset: Option<&str>, config: Option<&config::Asset>, hash_after: Option<&str>) -> Entry {
    let event = Event {
        what: Some(what.into()),
        hash_after: hash_after.map(Into::into),
        detail_json: config.map(configured::configuration),
        ..Event::new(EventKind::Change)
    };
    Entry { stamp: Stamp { asset: asset.map(Into::into), ..stamp(999.0) }, cause: None, body: Body::Event(event.into()) }
}

fn configuration(config: &config::Asset) -> Entry {
    change("configuration", Some(&config.id), Some(config), Some(&config.hash))
}

#[test]
fn configuration_comes_with_the_inputs_and_acts_from_its_place_on() {
    let mut engine = Engine::empty(Bundles::offered_in(&models())).unwrap();
    feed(&mut engine, 1, &machine(1, 1));
    assert_eq!(engine.counters().unknown_asset, 2);
    let out = feed(&mut engine, 3, &[configuration(&asset())]);
    assert_eq!(events(&out), [("commissioning", "started", "")]);
    let by_files = feed(&mut engine_with(|_| {}), 10, &machine(400, 300));
    assert!(feed(&mut engine, 10, &machine(400, 300)) == by_files, "the same as from a file");
    assert!(feed(&mut engine, 900, &[configuration(&asset())]).is_empty(), "the same again changes nothing");

    // Another stale limit: the state is kept and the limit acts.
    let mut patient = asset();
    (patient.stale_after, patient.hash) = (Duration::from_secs(30), "patient".into());
    assert!(feed(&mut engine, 901, &[configuration(&patient)]).is_empty());
    let alone: Vec<Entry> = (0..8).map(|i| reading(1400.0 + f64::from(i), "a", Some(0.0))).collect();
    let out = feed(&mut engine, 902, &alone);
    assert!(predictions(&out).iter().all(|p| p.reason.is_none() && &*p.config_hash == "patient"), "held for longer now");

    // Other points: a new commissioning, but the alarm stays with its person.
    let alarm = engine.view("pump").unwrap().alarm_id;
    assert!(alarm.is_some());
    let mut other = patient.clone();
    (other.points[2].scored, other.hash) = (false, "other".into());
    assert_eq!(events(&feed(&mut engine, 920, &[configuration(&other)])), [("commissioning", "started", "")]);
    let view = engine.view("pump").unwrap();
    assert_eq!((view.progress, view.baseline_id, view.alarm_id), (Some(0.0), None, alarm));

    // What cannot be used is counted and changes nothing.
    let forged = change("configuration", Some("pump"), Some(&asset()), Some("forged"));
    let many = config::Asset {
        points: (0..=POINTS_MAX).map(|n| config::Point { id: format!("p{n}").into(), ..asset().points[0].clone() }).collect(),
        hash: "many".into(),
        ..asset()
    };
    let unknown = change("bundle", None, None, Some("00"));
    assert!(feed(&mut engine, 930, &[forged, configuration(&many), unknown, change("configuration", Some("pump"), None, Some("x"))]).is_empty());
    assert_eq!((engine.counters().changes_refused, engine.counters().changes), (4, 3));

    // Removed: nothing is kept, and the alarm does not stay for ever.
    let out = feed(&mut engine, 940, &[change("configuration", Some("pump"), None, None)]);
    assert_eq!(alarms(&out)[0].state, AlarmState::Normal);
    assert!(engine.view("pump").is_none() && engine.baselines().next().is_none());
}

#[test]
fn a_bundle_changes_at_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, manifest) = (dir.path().join("stage-a"), dir.path().join("stage-a/manifest.toml"));
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(models().join("stage-a")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let bundles = Bundles::with_copies_in(dir.path(), &dir.path().join("data"));
    let first = bundles.offered().unwrap();
    bundles.keep(&first, &[]).unwrap();
    let mut engine = Engine::with_assets(&BTreeMap::from([("pump".into(), asset())]), bundles.clone()).unwrap();
    feed(&mut engine, 1, &machine(200, 200));
    let snapshot = engine.snapshot();
    let version = format!("version = \"{}\"", first.manifest().version);
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(&version));
    std::fs::write(&manifest, text.replace(&version, "version = \"next\"")).unwrap();
    let second = bundles.offered().unwrap();
    bundles.keep(&second, &[first.hash()]).unwrap();

    // The program starts with the new one offered and has a backlog from before.
    let mut engine = Engine::restore(bundles, &snapshot).unwrap();
    let mut rest = machine(300, 300);
    let rest = rest.split_off(400);
    let before = feed(&mut engine, 401, &rest[..100]);
    feed(&mut engine, 501, &[change("bundle", None, None, Some(second.hash()))]);
    let after = feed(&mut engine, 502, &rest[100..]);
    let versions = |out: &[(LaneName, Entry)]| predictions(out).iter().map(|p| p.model_version.as_deref().unwrap().to_owned()).collect::<Vec<_>>();
    assert!(versions(&before).iter().all(|version| *version == first.manifest().version));
    assert!(versions(&after).iter().all(|version| version == "next"));
    assert!(predictions(&after).iter().all(|p| p.score.is_some()), "weights are kept where the model looks back as far");
}

fn gateway_time(entry: Entry) -> Entry {
    Entry { stamp: Stamp { ts_source: TsSource::Gateway, ..entry.stamp }, ..entry }
}

fn clock_record(offset_ms: Option<f64>) -> Entry {
    let event = Event { offset_ms, ..Event::new(EventKind::Clock) };
    Entry { stamp: Stamp { asset: None, ..stamp(0.0) }, cause: None, body: Body::Event(event.into()) }
}

#[test]
fn a_step_of_the_clock_costs_a_window_and_no_more() {
    for (offset_s, synced_only) in [(-3_600.0, false), (3_600.0, false), (1.7e9, false), (-3_600.0, true)] {
        let mut engine = engine_with(|_| {});
        let (before, after): (Vec<Entry>, Vec<Entry>) = (machine(ROWS + 10, usize::MAX), machine(20, usize::MAX));
        feed(&mut engine, 1, &before.into_iter().map(gateway_time).collect::<Vec<_>>());
        let moved = |entry: Entry| {
            let ts = Timestamp(entry.stamp.ts.0 + ((ROWS + 10) as i64) * SECOND + (offset_s * 1e6) as i64);
            gateway_time(Entry { stamp: Stamp { ts, ..entry.stamp }, ..entry })
        };
        let after: Vec<Entry> = after.into_iter().map(moved).collect();
        let offset_ms = if synced_only { Some(3.0) } else { Some(offset_s * 1e3) };
        feed(&mut engine, 1000, &[clock_record(offset_ms)]);
        let out = feed(&mut engine, 1001, &after);
        let filling = reasons(&out).iter().filter(|reason| **reason == Some(ScoreReason::WindowFilling)).count();
        let scored = predictions(&out).iter().filter(|p| p.score.is_some()).count();
        if synced_only {
            assert_eq!((engine.counters().late, scored), (40, 0), "without a step in the record there is none");
        } else {
            assert_eq!((filling, scored, engine.counters().late, engine.counters().clock_corrections), (3, 17, 0, 1), "{offset_s}");
        }
    }
}

/// A node's times follow the gateway's clock within seconds of its being set back: no hundred late readings are needed to see it.
#[test]
fn a_node_that_follows_a_clock_set_back_goes_on_at_once() {
    let mut engine = engine_with(|_| {});
    let entries = machine(ROWS + 20, usize::MAX);
    let (before, after) = entries.split_at(2 * (ROWS + 10));
    feed(&mut engine, 1, before);
    feed(&mut engine, 1000, &[clock_record(Some(-600_000.0))]);
    let back = |entry: &Entry| Entry { stamp: Stamp { ts: Timestamp(entry.stamp.ts.0 - 600 * SECOND), ..entry.stamp.clone() }, ..entry.clone() };
    let out = feed(&mut engine, 1001, &after.iter().map(back).collect::<Vec<_>>());
    let scored = predictions(&out).iter().filter(|p| p.score.is_some()).count();
    assert_eq!((scored, engine.counters().late, engine.counters().clock_set_back), (7, 0, 1));
}

#[test]
fn a_sensor_with_its_own_clock_does_not_mind_the_gateways() {
    let mut engine = engine_with(|_| {});
    let entries = machine(ROWS + 20, usize::MAX);
    feed(&mut engine, 1, &entries[..2 * (ROWS + 10)]);
    feed(&mut engine, 1000, &[clock_record(None)]);
    let out = feed(&mut engine, 1001, &entries[2 * (ROWS + 10)..]);
    assert!(predictions(&out).iter().all(|p| p.score.is_some()));
    assert_eq!(engine.counters().clock_corrections, 0);
}

#[test]
fn behind_a_gap_the_quality_and_the_reason_say_so() {
    let mut engine = engine_with(|_| {});
    let entries = machine(ROWS + 40, usize::MAX);
    feed(&mut engine, 1, &entries[..2 * (ROWS + 10)]);
    engine.pass_gap();
    let out = feed(&mut engine, 1000, &entries[2 * (ROWS + 20)..]);
    let gap = Some(ScoreReason::InputGap);
    assert_eq!(reasons(&out)[..5], [gap, gap, gap, None, None]);
    let qualities: Vec<Quality> = predictions(&out).iter().map(|p| p.quality).collect();
    // The rows up to the first full window are marked, and so is every window that holds one of them.
    assert!(qualities[..7].iter().all(|quality| *quality == Quality::Uncertain), "{qualities:?}");
    assert!(qualities[7..].iter().all(|quality| *quality == Quality::Good), "{qualities:?}");
    assert_eq!(predictions(&out)[0].health_reason.as_deref(), Some("input_gap"));
    // In commissioning too.
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &entries[..100]);
    engine.pass_gap();
    assert_eq!(
        reasons(&feed(&mut engine, 1000, &entries[200..210])),
        [gap, gap, gap, Some(ScoreReason::Commissioning), Some(ScoreReason::Commissioning)]
    );
}
