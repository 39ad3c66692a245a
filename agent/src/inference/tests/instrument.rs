//! Sick sensors: what becomes of their readings, and of the status of the instrument (NE 107), apart from the machine's.
use std::ops::Range;

use hark_protocol::topics::InstrumentStatus;

use super::*;

type Outputs = Vec<(LaneName, Entry)>;

/// Rows in which `b` is sick.
const SICK: Range<usize> = ROWS + 20..ROWS + 80;

fn engine_with_checks() -> Engine {
    engine_with(|asset| {
        // What a sensor says before it is known to be stuck is no alarm yet.
        asset.alarm.on_delay = Duration::from_secs(15);
        let b = &mut asset.points[2];
        b.range = Some((-50.0, 20.0));
        let stuck = Some(config::Stuck { after: Duration::from_secs(6), within: 0.0 });
        b.checks = config::Checks { max_rate: Some(30.0), stuck, clips: Some(config::Clips::High) };
    })
}

/// The machine, with what `sick` makes of `b` in the rows of [`SICK`]; `None`: nothing comes.
fn machine_with(rows: Range<usize>, sick: impl Fn(usize, Reading) -> Option<Reading>) -> Vec<Entry> {
    let entries = machine(rows.end, usize::MAX).into_iter().enumerate().map(|(index, entry)| (index / 2, entry));
    let judge = |(row, mut entry): (usize, Entry)| {
        let Body::Reading(reading) = &entry.body else { return None };
        if &*reading.point == "b" && SICK.contains(&row) {
            entry.body = Body::Reading(sick(row, reading.clone())?);
        }
        Some(entry)
    };
    entries.filter(|(row, _)| rows.contains(row)).filter_map(judge).collect()
}

/// Row, instrument, status and reason of each event of an instrument.
fn told(out: &[(LaneName, Entry)]) -> Vec<(usize, String, String, String)> {
    let told = |(lane, entry): &(LaneName, Entry)| {
        let Body::Event(event) = &entry.body else { return None };
        let row = usize::try_from(entry.stamp.ts.0 / SECOND - 1000).unwrap();
        let detail: serde_json::Value = serde_json::from_str(event.detail_json.as_deref()?).unwrap();
        let reason = detail["reason"].as_str().unwrap_or_default().to_owned();
        let of_instrument = event.kind == EventKind::Instrument && *lane == LaneName::Events;
        of_instrument.then(|| (row, event.source.as_deref().unwrap().to_owned(), event.what.as_deref().unwrap().to_owned(), reason))
    };
    out.iter().filter_map(told).collect()
}

/// Runs through commissioning, sickness and recovery. Gives what was said while `b` was sick, and what in the end.
fn run(sick: impl Fn(usize, Reading) -> Option<Reading>) -> (Engine, Outputs, Outputs) {
    let mut engine = engine_with_checks();
    assert_eq!(told(&feed(&mut engine, 1, &machine_with(0..SICK.start, &sick))), [], "nothing is said of healthy sensors");
    let during = feed(&mut engine, 1_000, &machine_with(SICK, &sick));
    let (_, record) = engine.asset_records(Timestamp(0)).remove(0);
    let instruments: BTreeMap<String, InstrumentStatus> = serde_json::from_str(&record.instruments_json).unwrap();
    let last = told(&during).last().map_or("normal".to_owned(), |(_, _, status, _)| status.clone());
    assert_eq!(serde_json::json!(record.instrument_status), last);
    assert_eq!((instruments["a"], instruments["b"]), (InstrumentStatus::Normal, record.instrument_status));
    let after = feed(&mut engine, 2_000, &machine_with(SICK.end..SICK.end + 60, &sick));
    (engine, during, after)
}

#[track_caller]
fn check(sick: impl Fn(usize, Reading) -> Option<Reading>, expected: (usize, &str, &str), back: Option<usize>) -> Outputs {
    let (engine, during, after) = run(sick);
    let (row, status, reason) = expected;
    assert_eq!(told(&during), [(SICK.start + row, "b".to_owned(), status.to_owned(), reason.to_owned())]);
    let back: Vec<_> = back.into_iter().map(|row| (SICK.end + row, "b".to_owned(), "normal".to_owned(), String::new())).collect();
    assert_eq!(told(&after), back);
    assert_eq!(engine.counters().instrument_changes, 1 + back.len() as u64);
    during
}

fn value(reading: Reading, value: f64) -> Option<Reading> {
    Some(Reading { value: Some(value), ..reading })
}

/// Scores of rows without one of the machine's points.
fn without_health(out: &[(LaneName, Entry)]) -> usize {
    predictions(out).iter().filter(|p| p.health.is_none() && p.score.is_none() && p.reason == Some(ScoreReason::MissingPoint)).count()
}

#[test]
fn a_stuck_sensor_has_failed_and_its_value_is_no_value() {
    // Stuck after 6 s, seen as its row closes, failed 5 s later, missing once what was believed last is stale; back 10 s after it moves.
    let out = check(|_, reading| value(reading, 1.0), (12, "failure", "stuck"), Some(10));
    assert!(without_health(&out) > 40, "{}", without_health(&out));
    assert!(alarms(&out).is_empty(), "an instrument is no machine");
}

/// Nobody set `stuck_after`.
#[test]
fn a_sensor_that_stands_still_as_it_never_did_has_failed() {
    let mut engine = engine_with(|_| {});
    let entries = machine_with(0..SICK.end + 60, |_, reading| value(reading, 1.0));
    let told = told(&feed(&mut engine, 1, &entries));
    // Thirty equal values, seen as its row closes, failed 5 s later; back 10 s after it moves.
    let expected = [(SICK.start + 35, "failure", "stuck"), (SICK.end + 10, "normal", "")];
    assert_eq!(told, expected.map(|(row, status, reason)| (row, "b".to_owned(), status.to_owned(), reason.to_owned())));
}

#[test]
fn a_silent_sensor_has_failed_and_the_machine_is_not_healthy() {
    let out = check(|_, _| None, (8, "failure", "stale"), Some(10));
    assert!(without_health(&out) > 50);
    assert!(alarms(&out).is_empty());
}

#[test]
fn a_sensor_with_spikes_needs_maintenance() {
    let out = check(
        |row, reading| {
            let b = reading.value.unwrap();
            value(reading, if row % 10 == 5 { b - 40.0 } else { b })
        },
        (31, "maintenance_required", "spike"),
        None,
    );
    assert!(predictions(&out).iter().any(|p| p.quality == Quality::Uncertain));
}

#[test]
fn a_clipped_sensor_is_off_its_specification_and_its_values_are_uncertain() {
    let out = check(|_, reading| value(reading, 20.0), (5, "off_spec", "clipping"), Some(10));
    assert!(predictions(&out).iter().all(|p| p.quality == Quality::Uncertain && p.score.is_some()));
}

#[test]
fn what_the_source_says_of_a_sensor_is_told() {
    let failed = |_, reading| Some(Reading { value: None, quality: Quality::Bad, reason: Some(QualityReason::SensorFault), ..reading });
    check(failed, (6, "failure", "sensor_fault"), Some(10));
    let flat_line = |_, reading| Some(Reading { value: None, quality: Quality::Bad, reason: Some(QualityReason::Stuck), ..reading });
    check(flat_line, (6, "failure", "stuck"), Some(10));
    let outside = |_, reading| Some(Reading { value: None, quality: Quality::Bad, reason: Some(QualityReason::OutOfRange), ..reading });
    check(outside, (6, "off_spec", "out_of_range"), Some(10));
}

/// The machine with a third point beside the two, which the answer can do without.
fn with_note(entries: Vec<Entry>) -> Vec<Entry> {
    let mut noise = Noise(21);
    let further = |entry: Entry| {
        let Body::Reading(body) = &entry.body else { panic!("they are readings") };
        let ts = entry.stamp.ts.0 as f64 / SECOND as f64;
        let note = (&*body.point == "a").then(|| reading(ts + 0.05, "note", Some(noise.next())));
        std::iter::once(entry).chain(note)
    };
    entries.into_iter().flat_map(further).collect()
}

fn engine_of_three() -> Engine {
    engine_with(|asset| {
        asset.alarm.on_delay = Duration::from_secs(15);
        asset.points[1].scored = true;
        let stuck = Some(config::Stuck { after: Duration::from_secs(6), within: 0.0 });
        asset.points[2].checks = config::Checks { max_rate: Some(30.0), stuck, clips: None };
    })
}

/// What tells the operating state has an instrument too, though nothing is scored of it: without it the machine has no score.
#[test]
fn a_sensor_that_tells_the_state_alone_has_a_status() {
    let point: Name = "note".into();
    let mut engine = engine_with(|asset| {
        let running = config::Threshold { reached_at: 100.0, left_below: 90.0 };
        let settle = Duration::from_secs(2);
        asset.operating =
            Some(config::Operating { point: point.clone(), idle: None, running, settle, steady_rate: None, score_idle: false, load: None });
        asset.points[1].checks.stuck = Some(config::Stuck { after: Duration::from_secs(6), within: 0.0 });
    });
    let mut noise = Noise(21);
    let beside = |(row, entry): (usize, Entry)| {
        let Body::Reading(body) = &entry.body else { panic!("they are readings") };
        let ts = entry.stamp.ts.0 as f64 / SECOND as f64;
        let (of_a, speed) = (&*body.point == "a", 1480.0 + noise.next());
        let speed = match row / 2 {
            0..40 => Some(speed),
            40..70 => Some(1480.0),
            70..100 => Some(speed),
            _ => None,
        };
        // Before `a`, as a row ends with its last value.
        let reading = speed.filter(|_| of_a).map(|speed| reading(ts, "note", Some(speed)));
        reading.into_iter().chain([entry]).collect::<Vec<Entry>>()
    };
    let entries: Vec<Entry> = machine(130, usize::MAX).into_iter().enumerate().flat_map(beside).collect();
    let told = told(&feed(&mut engine, 1, &entries));
    let expected = [(51, "failure", "stuck"), (80, "normal", ""), (107, "failure", "stale")];
    assert_eq!(told, expected.map(|(row, status, reason)| (row, "note".to_owned(), status.to_owned(), reason.to_owned())));
    let (_, record) = engine.asset_records(Timestamp(0)).remove(0);
    assert_eq!(&*record.instruments_json, r#"{"a":"normal","b":"normal","note":"failure"}"#);
    assert_eq!(record.instrument_status, InstrumentStatus::Failure);
}

/// A missing sensor leads to an answer of the others that says so; it is no health, unless it is a bad one.
#[test]
fn without_a_sensor_the_others_answer_and_say_so() {
    for sick in [|_, _| None, |_, reading| value(reading, 1.0)] {
        let mut engine = engine_of_three();
        feed(&mut engine, 1, &with_note(machine_with(0..SICK.start, sick)));
        let out = feed(&mut engine, 1_000, &with_note(machine_with(SICK, sick)));
        let reduced: Vec<_> = predictions(&out).into_iter().skip_while(|p| p.reason.is_none()).collect();
        assert!(reduced.len() > 40, "{}", reduced.len());
        for p in &reduced {
            assert_eq!((p.reason, p.quality), (Some(ScoreReason::Reduced), Quality::Uncertain));
            assert!(p.score.is_some() && p.baseline_id.as_deref() == Some("2-450-without-2"), "{:?}", p.baseline_id);
            let score = p.score.unwrap();
            assert_eq!((p.health.is_some(), p.health_reason.as_deref()), (score > 1.0, Some(if score > 1.0 { "anomaly" } else { "reduced" })));
        }
        assert!(reduced[30..].iter().all(|p| !p.above), "the machine is as it was");
        assert!(alarms(&out).is_empty());
        // The weights are there to recompute it.
        let (_, baseline) = engine.baselines().last().unwrap();
        assert_eq!((&*baseline.baseline_id, &*baseline.verdict, &*baseline.points_json), ("2-450-without-2", "reduced", r#"["a","note"]"#));
        let weights: BTreeMap<String, Vec<f64>> = serde_json::from_str(&baseline.weights_json).unwrap();
        assert_eq!((weights["regression"].len(), weights["whitening"].len()), (12, 4));
        // It comes back: whole windows again, whole answers.
        let out = feed(&mut engine, 2_000, &with_note(machine_with(SICK.end..SICK.end + 30, sick)));
        let answers = reasons(&out);
        let whole = answers.iter().position(Option::is_none).unwrap();
        assert!((3..=5).contains(&whole) && answers[whole..].iter().all(Option::is_none), "{answers:?}");
        assert_eq!(predictions(&out).last().unwrap().baseline_id.as_deref(), Some("2-450"));
    }
}

#[test]
fn spikes_of_a_sensor_are_left_out_of_the_score() {
    let sick = |row: usize, reading: Reading| {
        let b = reading.value.unwrap();
        value(reading, if row % 10 == 5 { b - 40.0 } else { b })
    };
    let mut engine = engine_of_three();
    feed(&mut engine, 1, &with_note(machine_with(0..SICK.start, sick)));
    let out = feed(&mut engine, 1_000, &with_note(machine_with(SICK, sick)));
    assert!(predictions(&out).iter().all(|p| p.score.is_some() && !p.above));
    assert_eq!(engine.counters().rows_reduced, 6 * 4, "a spike is in four windows");
}

/// What the others see of a fault is an alarm also without the sensor.
#[test]
fn a_fault_is_seen_without_a_sensor() {
    let mut engine = engine_of_three();
    feed(&mut engine, 1, &with_note(machine_with(0..SICK.start, |_, _| None)));
    let faulty = |mut entry: Entry| {
        if let Body::Reading(reading) = &mut entry.body
            && &*reading.point == "a"
        {
            reading.value = reading.value.map(|a| a + 12.0);
        }
        entry
    };
    let out = feed(&mut engine, 1_000, &with_note(machine_with(SICK, |_, _| None).into_iter().map(faulty).collect()));
    let last = *predictions(&out).last().unwrap();
    assert!(last.above && last.health.unwrap() < 50.0, "{last:?}");
    assert_eq!((last.reason, last.contrib_1_point.as_deref()), (Some(ScoreReason::Reduced), Some("a")));
    assert_eq!(alarms(&out)[0].baseline_id.as_deref(), Some("2-450-without-2"));
}

/// A time that cannot be trusted is the instrument's fault if it sent it, and not if the gateway's clock stepped.
#[test]
fn a_clock_that_cannot_be_trusted_has_an_owner() {
    for (clock, ahead, expected) in [(Clock::Synced, false, true), (Clock::Stepped, false, false), (Clock::Synced, true, true)] {
        let mut engine = engine_with_checks();
        let doubted = |mut entry: Entry| {
            if let Body::Reading(reading) = &mut entry.body
                && &*reading.point == "b"
            {
                (reading.quality, reading.reason) = (Quality::Uncertain, Some(QualityReason::Clock));
                entry.stamp.ts_source = if ahead { TsSource::Sensor } else { TsSource::Gateway };
                entry.stamp.ts.0 += if ahead { 3_600 * SECOND } else { 0 };
            }
            entry.stamp.clock = clock;
            entry
        };
        let out = feed(&mut engine, 1, &machine(30, usize::MAX).into_iter().map(doubted).collect::<Vec<_>>());
        let said: Vec<_> = told(&out).into_iter().map(|(_, id, status, reason)| (id, status, reason)).collect();
        let off_spec = ("b".to_owned(), "off_spec".to_owned(), "clock".to_owned());
        assert_eq!(said, if expected { vec![off_spec] } else { Vec::new() }, "{clock:?} {ahead}");
    }
}

/// All instruments of a machine that is cut off fail by its ticks, and each is said once.
#[test]
fn silence_of_all_is_told_of_each() {
    let mut engine = engine_with_checks();
    feed(&mut engine, 1, &machine_with(0..SICK.start, |_, _| None));
    let ticks: Vec<Entry> = (0..40).map(|second| event(1000.0 + (SICK.start + second) as f64, EventKind::Tick, None)).collect();
    let out = feed(&mut engine, 1_000, &ticks);
    let said: Vec<_> = told(&out).into_iter().map(|(_, id, status, reason)| (id, status, reason)).collect();
    assert_eq!(said, [("a", "failure", "stale"), ("b", "failure", "stale")].map(|(id, status, reason)| (id.into(), status.into(), reason.into())));
    assert!(alarms(&out).is_empty());
}

/// Another point is scored from now on: what is known of the instruments that stay is kept.
#[test]
fn a_change_of_points_keeps_the_status_of_those_that_stay() {
    let mut engine = engine_with_checks();
    feed(&mut engine, 1, &machine_with(0..SICK.end, |_, _| None));
    let mut changed = engine.configurations().next().unwrap().1.clone();
    (changed.points[1].scored, changed.hash) = (true, "changed".into());
    let change = Event {
        what: Some("configuration".into()),
        hash_after: Some(changed.hash.clone()),
        detail_json: Some(configured::configuration(&changed)),
        ..Event::new(EventKind::Change)
    };
    feed(&mut engine, 2_000, &[Entry { stamp: stamp(1300.0), cause: None, body: Body::Event(change.into()) }]);
    let (_, record) = engine.asset_records(Timestamp(0)).remove(0);
    assert_eq!(&*record.instruments_json, r#"{"a":"normal","b":"failure","note":"normal"}"#);
}

/// The machine whose `b` comes from a node, as its vibration.
fn engine_with_node(edit: impl FnOnce(&mut config::Asset)) -> Engine {
    engine_with(|asset| {
        asset.points[2].id = "de-h.v_rms".into();
        edit(asset);
    })
}

/// Rows of that machine; `measures` says of a row whether `b` measures, else it tests itself.
fn rows_with_node(rows: Range<usize>, measures: impl Fn(usize) -> bool) -> Vec<Entry> {
    let of_node = |(index, mut entry): (usize, Entry)| {
        if let Body::Reading(reading) = &mut entry.body
            && &*reading.point == "b"
        {
            reading.point = "de-h.v_rms".into();
            if !measures(index / 2) {
                (reading.value, reading.quality, reading.reason) = (None, Quality::Bad, Some(QualityReason::CheckFunction));
            }
        }
        (index / 2, entry)
    };
    machine(rows.end, usize::MAX).into_iter().enumerate().map(of_node).filter(|(row, _)| rows.contains(row)).map(|(_, entry)| entry).collect()
}

/// A record of the source, at the beginning of `row`.
fn tests_itself(row: usize, is_testing: bool) -> Entry {
    let event = Event {
        what: Some(if is_testing { "check_function" } else { "check_function_over" }.into()),
        detail_json: Some(r#"{"channels":["de-h",""]}"#.into()),
        ..Event::new(EventKind::Source)
    };
    Entry { stamp: stamp(1000.0 + row as f64 - 0.5), cause: None, body: Body::Event(event.into()) }
}

fn statuses(engine: &Engine) -> String {
    engine.asset_records(Timestamp(0)).remove(0).1.instruments_json.to_string()
}

/// At once, without the delays of faults, and back at once: by its own word, by a measurement where that was lost, or by its silence, which is a fault.
#[test]
fn an_instrument_that_tests_itself_has_the_status_check_function() {
    const CHECKED: &str = r#"{"a":"normal","de-h":"check_function"}"#;
    let (begin, end) = (ROWS + 20, ROWS + 30);
    let of = |row: usize, status: &str, reason: &str| (row, "de-h".to_owned(), status.to_owned(), reason.to_owned());
    let row_before = begin - 1;
    for (is_told, expected) in [(true, of(end - 1, "normal", "")), (false, of(end, "normal", ""))] {
        let mut engine = engine_with_node(|_| {});
        feed(&mut engine, 1, &rows_with_node(0..begin, |_| true));
        let began = feed(&mut engine, 1_000, &[tests_itself(begin, true)]);
        assert_eq!((told(&began), statuses(&engine).as_str()), (vec![of(row_before, "check_function", "")], CHECKED));
        let out = feed(&mut engine, 2_000, &rows_with_node(begin..end, |_| false));
        assert_eq!((told(&out), statuses(&engine).as_str()), (vec![], CHECKED));
        assert!(predictions(&out).iter().skip(4).all(|p| p.score.is_none() && p.health.is_none()), "nothing is known of the machine meanwhile");
        // A replay from here gives the same.
        let mut rest: Vec<Entry> = is_told.then(|| tests_itself(end, false)).into_iter().collect();
        rest.extend(rows_with_node(end..end + 40, |_| true));
        let mut again = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
        let out = feed(&mut engine, 3_000, &rest);
        assert_eq!((told(&out), statuses(&engine).as_str()), (vec![expected], r#"{"a":"normal","de-h":"normal"}"#), "{is_told}");
        assert!(predictions(&out).last().unwrap().score.is_some() && alarms(&out).is_empty());
        assert!(feed(&mut again, 3_000, &rest) == out);
    }
    let mut engine = engine_with_node(|_| {});
    feed(&mut engine, 1, &rows_with_node(0..begin, |_| true));
    feed(&mut engine, 1_000, &[tests_itself(begin, true)]);
    let alone: Vec<Entry> = rows_with_node(begin..begin + 30, |_| true).into_iter().step_by(2).collect();
    // Stale after 3 s and failed 5 s later.
    assert_eq!(told(&feed(&mut engine, 2_000, &alone)), [of(begin + 8, "failure", "stale")]);
    assert_eq!(told(&feed(&mut engine, 3_000, &[tests_itself(begin + 30, false)])), [], "a test that it did not live to end");
}

/// Rows of a test are none of those that are learned.
#[test]
fn nothing_is_learned_of_an_instrument_that_tests_itself() {
    let mut engine = engine_with_node(|_| {});
    feed(&mut engine, 1, &rows_with_node(0..100, |row| !(40..60).contains(&row)));
    let learned = engine.asset_records(Timestamp(0)).remove(0).1.commissioning_rows.unwrap();
    // The value before it holds for 3 s, as that of any sensor.
    assert!((78..=84).contains(&learned), "{learned}");
}

/// Who has taken it out of service knows more: nothing is told until it returns.
#[test]
fn a_self_test_of_an_instrument_out_of_service_changes_nothing() {
    let mut engine = engine_with_node(|_| {});
    feed(&mut engine, 1, &rows_with_node(0..ROWS + 20, |_| true));
    let command = |word: &str| {
        let mut entry = event(1000.0 + (ROWS + 20) as f64, EventKind::Command, Some(word));
        if let Body::Event(event) = &mut entry.body {
            event.detail_json = Some(r#"{"point":"de-h"}"#.into());
        }
        entry
    };
    assert_eq!(told(&feed(&mut engine, 1_000, &[command("out_of_service")])).len(), 1);
    assert_eq!(told(&feed(&mut engine, 1_001, &[tests_itself(ROWS + 21, true), command("return_to_service")])), [], "it still tests itself");
    let back = told(&feed(&mut engine, 1_003, &[tests_itself(ROWS + 22, false)]));
    assert_eq!((back.len(), back[0].2.as_str()), (1, "normal"));
}
