//! Severity zones, and limits of a running machine.
use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, ReturnedUnacknowledged, Suppressed};

use hark_protocol::topics::{OperatingState, Zone};

use super::{
    alarm::{change, command, states, values},
    *,
};
use crate::config::Limits;

/// A severity zone is apart from the score: a ceiling for health, an alarm of its own, and nothing once its sensor says nothing.
#[test]
fn a_zone_caps_health_and_alarms() {
    let mut engine = engine_with(|asset| {
        asset.points[1].unit = "mm/s".into();
        asset.points[1].severity = Some("2-rigid".into());
        asset.points[1].limits = Some(Limits { high: Some(2.8), high_high: Some(4.5), deadband: 0.28, ..Limits::default() }.into());
    });
    feed(&mut engine, 1, &machine(ROWS + 20, usize::MAX));
    let second = 1000 + ROWS as i64 + 20;
    let record = |engine: &Engine| engine.asset_records(Timestamp(second * SECOND)).pop().unwrap().1;
    assert_eq!((record(&engine).zone, record(&engine).health_reason.as_deref()), (None, Some("anomaly")));
    feed(&mut engine, 1_000, &values(second, &[1.0; 2]));
    assert_eq!((record(&engine).zone, record(&engine).health_reason.as_deref()), (Some(Zone::A), Some("anomaly")));
    let out = feed(&mut engine, 2_000, &values(second + 2, &[3.0; 6]));
    assert_eq!(
        (record(&engine).zone, record(&engine).health, record(&engine).health_reason.as_deref()),
        (Some(Zone::C), Some(50.0), Some("severity"))
    );
    assert_eq!((alarms(&out)[0].zone, alarms(&out)[0].failure_mode.as_deref()), (Some(Zone::C), Some("VIB")));
    feed(&mut engine, 3_000, &values(second + 8, &[9.0]));
    assert_eq!((record(&engine).zone, record(&engine).health), (Some(Zone::D), Some(20.0)));
    feed(&mut engine, 4_000, &[reading(second as f64 + 8.0 + 4.0, "a", Some(0.0))]);
    assert_eq!(record(&engine).zone, None, "older than the stale limit");
    assert_eq!((record(&engine).health, record(&engine).health_reason.as_deref()), (None, Some("severity_stale")), "and no machine that is well");
    // A zone caps what is better, and makes nothing better that is worse. B is as good as A.
    feed(&mut engine, 5_000, &values(second + 13, &[2.0]));
    assert_eq!((record(&engine).zone, record(&engine).health_reason.as_deref() == Some("severity")), (Some(Zone::B), false));
}

fn running_from_10() -> config::Operating {
    let (point, running) = ("a".into(), config::Threshold { reached_at: 10.0, left_below: 9.0 });
    config::Operating { point, idle: None, running, settle: Duration::from_secs(2), steady_rate: None, score_idle: false, load: None }
}

/// Of a scored sensor too: the others do not say how much the machine shakes.
#[test]
fn a_velocity_that_died_in_a_bad_zone_leaves_health_unknown_until_maintenance() {
    for scored in [false, true] {
        let mut engine = engine_with(|asset| {
            asset.points[1].unit = "mm/s".into();
            asset.points[1].severity = Some("2-rigid".into());
            asset.points[1].scored = scored;
        });
        let health = |engine: &Engine| {
            let record = engine.asset_records(Timestamp(0)).pop().unwrap().1;
            (record.zone, record.health, record.health_reason.unwrap().to_string())
        };
        let rows = |from: usize, to: usize, note: Option<f64>| -> Vec<Entry> {
            let row = |pair: &[Entry]| {
                let at = pair[0].stamp.ts.0 as f64 / SECOND as f64 + 0.01;
                let noise = if let Body::Reading(a) = &pair[0].body { 0.01 * a.value.unwrap() } else { 0.0 };
                [Some(pair[0].clone()), note.map(|note| reading(at, "note", Some(note + noise))), Some(pair[1].clone())]
            };
            machine(to, usize::MAX)[2 * from..].chunks(2).flat_map(row).flatten().collect()
        };
        feed(&mut engine, 1, &rows(0, ROWS + 20, Some(1.0)));
        feed(&mut engine, 1_000, &rows(ROWS + 20, ROWS + 21, Some(9.0)));
        assert_eq!((health(&engine).0, health(&engine).1), (Some(Zone::D), Some(20.0)), "{scored}");
        feed(&mut engine, 2_000, &rows(ROWS + 21, ROWS + 30, None));
        assert!(health(&engine).1.is_none_or(|health| health < 20.0), "the score may know that it is worse: {:?}", health(&engine));
        feed(&mut engine, 3_000, &rows(ROWS + 30, ROWS + 900, None));
        assert_eq!(health(&engine), (None, None, "severity_stale".to_owned()), "{scored}");
        let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
        assert_eq!(health(&engine).2, "severity_stale");
        feed(&mut engine, 9_000, &[command(1_000 + ROWS as i64 + 901, "c1", "maintenance_done", "{}")]);
        assert_ne!(health(&engine).2, "severity_stale");
    }
}

/// The pump with a low and a low-low limit that apply while it runs, which `a` tells: from 10 on, after 2 s.
fn limited_while_running(latch: bool) -> Engine {
    engine_with(|asset| {
        asset.alarm.latch = latch;
        asset.points[1].limits = Some(Limits { low: Some(2.0), only_running: true, ..Limits::default() }.into());
        asset.operating = Some(running_from_10());
    })
}

/// One value of `a` and of the limited point a second.
fn pump_at(seconds: std::ops::Range<i64>, a: f64, note: f64) -> Vec<Entry> {
    seconds.flat_map(|second| [reading(second as f64, "a", Some(a)), reading(second as f64 + 0.5, "note", Some(note))]).collect()
}

#[test]
fn a_limit_for_a_running_machine_is_suppressed_while_it_is_off() {
    let mut engine = limited_while_running(false);
    let out = feed(&mut engine, 20, &pump_at(100..120, 0.0, 0.0));
    assert_eq!(states(&out), [(Normal, Suppressed)], "it is told, and as no alarm");
    let alarm = alarms(&out)[0];
    assert_eq!((alarm.case_id.as_ref(), alarm.respond_by.as_ref(), alarm.until.as_ref()), (None, None, None));
    let view = engine.view("pump").unwrap();
    assert_eq!((view.alarm, view.alarm_state, engine.alarms()[0].1.state), (false, Suppressed, Suppressed));
    assert!(predictions(&out).iter().all(|prediction| !prediction.alarm));
    // It applies again by itself, once the machine runs, and is judged anew from there on.
    let out = feed(&mut engine, 1_000, &pump_at(120..140, 20.0, 0.0));
    assert_eq!(states(&out), [(Suppressed, Normal), (Normal, ActiveUnacknowledged)]);
    let since = alarms(&out)[1].since.parse::<Timestamp>().unwrap().0 / SECOND;
    assert!((122..124).contains(&since), "{since}: not since it was off");
    assert_eq!(alarms(&out)[1].case_id.as_ref(), Some(&alarms(&out)[1].alarm_id));
    // It stops with its alarm: nobody has seen that, so it waits, also over a restart.
    let out = feed(&mut engine, 2_000, &pump_at(140..145, 0.0, 0.0));
    assert_eq!(states(&out), [(ActiveUnacknowledged, Suppressed)]);
    let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let out = feed(&mut engine, 3_000, &pump_at(145..160, 20.0, 5.0));
    assert_eq!(states(&out), [(Suppressed, ReturnedUnacknowledged)]);
}

/// A dead speed sensor silences nothing: neither what stands nor what comes.
#[test]
fn a_limit_for_a_running_machine_applies_while_nothing_tells_its_state() {
    let mut engine = limited_while_running(false);
    assert_eq!(states(&feed(&mut engine, 1, &values(90, &[0.0; 6]))), [(Normal, ActiveUnacknowledged)], "nothing has told it yet");
    assert_eq!(states(&feed(&mut engine, 20, &pump_at(100..110, 0.0, 0.0))), [(ActiveUnacknowledged, Suppressed)]);
    feed(&mut engine, 100, &pump_at(110..130, 20.0, 0.0));
    assert_eq!(engine.view("pump").unwrap().alarm_state, ActiveUnacknowledged);
    let without_speed = |seconds: std::ops::Range<i64>| -> Vec<Entry> {
        seconds.flat_map(|second| [reading(second as f64, "b", Some(0.0)), reading(second as f64 + 0.5, "note", Some(0.0))]).collect()
    };
    let out = feed(&mut engine, 1_000, &without_speed(130..150));
    assert_eq!((states(&out).len(), engine.view("pump").unwrap().alarm_state), (0, ActiveUnacknowledged));
    assert_eq!(engine.asset_records(Timestamp(0))[0].1.state, OperatingState::Unknown);
    // The machine was off when its speed sensor died: what comes then is heard.
    let mut engine = limited_while_running(false);
    feed(&mut engine, 1, &pump_at(100..110, 0.0, 5.0));
    assert_eq!(states(&feed(&mut engine, 1_000, &without_speed(110..130))).last(), Some(&(Normal, ActiveUnacknowledged)));
}

/// Without a scored point there are no rows by which the state grows old.
#[test]
fn a_dead_speed_sensor_is_found_without_a_scored_point() {
    let mut engine = engine_with(|asset| {
        asset.points.iter_mut().for_each(|point| point.scored = false);
        asset.points[1].limits = Some(Limits { low: Some(2.0), only_running: true, ..Limits::default() }.into());
        asset.operating = Some(running_from_10());
    });
    assert_eq!(states(&feed(&mut engine, 1, &pump_at(100..120, 0.0, 0.0))), [(Normal, Suppressed)]);
    assert_eq!(states(&feed(&mut engine, 100, &values(120, &[0.0; 10]))), [(Suppressed, Normal), (Normal, ActiveUnacknowledged)]);
}

/// A machine that stands still shakes as its neighbours do, a corrected clock says how old nothing is, and a good zone is not all of health.
#[test]
fn a_zone_is_of_a_running_machine_and_makes_none_healthy() {
    let mut engine = engine_with(|asset| {
        asset.points[1].unit = "mm/s".into();
        asset.points[1].severity = Some("2-rigid".into());
        asset.operating = Some(running_from_10());
    });
    let of_gateway = |entries: Vec<Entry>| -> Vec<Entry> {
        let with_source = |entry: Entry| Entry { stamp: Stamp { ts_source: TsSource::Gateway, ..entry.stamp }, ..entry };
        entries.into_iter().map(with_source).collect()
    };
    let zone = |engine: &Engine| {
        let record = engine.asset_records(Timestamp(0)).pop().unwrap().1;
        (record.zone, record.health)
    };
    feed(&mut engine, 1, &of_gateway(pump_at(100..110, 0.0, 9.0)));
    assert_eq!(zone(&engine), (None, None));
    feed(&mut engine, 100, &of_gateway(pump_at(110..120, 20.0, 1.0)));
    assert_eq!(zone(&engine), (Some(Zone::A), None));
    feed(&mut engine, 200, &[event(120.0, EventKind::Clock, None), of_gateway(pump_at(120..121, 20.0, 1.0)).remove(0)]);
    assert_eq!(zone(&engine), (None, None));
}

#[test]
fn a_latched_alarm_waits_again_after_its_suppression() {
    let mut engine = limited_while_running(true);
    feed(&mut engine, 1, &pump_at(100..120, 20.0, 0.0));
    assert_eq!(states(&feed(&mut engine, 1_000, &[command(120, "c1", "acknowledge", "{}")])), [(ActiveUnacknowledged, ActiveAcknowledged)]);
    feed(&mut engine, 2_000, &pump_at(121..130, 0.0, 0.0));
    assert_eq!(states(&feed(&mut engine, 3_000, &pump_at(130..140, 20.0, 5.0))), [(Suppressed, ReturnedUnacknowledged)]);
}

/// What is configured otherwise applies from then on.
#[test]
fn a_limit_that_applies_always_is_suppressed_no_longer() {
    let mut engine = limited_while_running(false);
    feed(&mut engine, 1, &pump_at(100..120, 0.0, 0.0));
    let mut changed = engine.configurations().next().unwrap().1.clone();
    changed.points[1].limits = Some(Limits { low: Some(2.0), ..Limits::default() }.into());
    changed.hash = "other".into();
    assert_eq!(states(&feed(&mut engine, 1_000, &[change(120, &changed)])), [(Suppressed, Normal)]);
    assert_eq!(states(&feed(&mut engine, 2_000, &pump_at(121..130, 0.0, 0.0))), [(Normal, ActiveUnacknowledged)]);
}

/// By policy; a person who knows better says so before.
#[test]
fn a_machine_in_zone_c_is_not_learned_as_normal() {
    let severe = || {
        engine_with(|asset| {
            asset.points[1].unit = "mm/s".into();
            asset.points[1].severity = Some("2-rigid".into());
        })
    };
    let entries: Vec<Entry> = machine(ROWS + 10, usize::MAX)
        .chunks(2)
        .flat_map(|row| {
            let at = row[1].stamp.ts.0 as f64 / SECOND as f64;
            [row[0].clone(), reading(at, "note", Some(3.0)), row[1].clone()]
        })
        .collect();
    let mut engine = severe();
    let out = feed(&mut engine, 1, &entries);
    assert_eq!(events(&out), [("commissioning", "refused", "refused")]);
    assert_eq!(engine.view("pump").unwrap().reason, Some(ScoreReason::CommissioningRefused));
    let mut engine = severe();
    feed(&mut engine, 1, &entries[..3 * (ROWS - 5)]);
    let out = feed(&mut engine, 1_000, &[command(2_000, "c1", "commissioning_accepted", "{}")]);
    assert_eq!(events(&out), [("commissioning", "accepted", "success"), ("audit", "commissioning_accepted", "success")]);
    let baseline = engine.baselines().next().unwrap().1;
    assert_eq!(baseline.remarks.as_deref(), Some("on 145 of 150 rows; in zone C or D in 145 of 145 rows"));
}

/// Whenever in the course of it, and after a restart of the agent in the midst of it.
#[test]
fn a_tenth_of_bad_rows_is_a_remark_and_more_refuse() {
    #[track_caller]
    fn check(limit: bool, bad: std::ops::Range<usize>, expected: Result<Option<&str>, &str>) {
        let mut engine = engine_with(|asset| {
            let point = &mut asset.points[1];
            (point.unit, point.severity) = ("mm/s".into(), (!limit).then(|| "2-rigid".into()));
            point.limits = limit.then(|| Limits { high: Some(2.0), ..Limits::default() }.into());
            asset.alarm.on_delay = Duration::ZERO;
            asset.alarm.off_delay = Duration::ZERO;
        });
        let entries: Vec<Entry> = machine(ROWS + 5, usize::MAX)
            .chunks(2)
            .enumerate()
            .flat_map(|(row, of_row)| {
                let at = of_row[1].stamp.ts.0 as f64 / SECOND as f64;
                [reading(at, "note", Some(if bad.contains(&row) { 3.0 } else { 1.0 })), of_row[0].clone(), of_row[1].clone()]
            })
            .collect();
        feed(&mut engine, 1, &entries[..3 * 75]);
        let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
        let out = feed(&mut engine, 1 + 3 * 75, &entries[3 * 75..]);
        let texts: Vec<_> =
            out.iter().filter_map(|(_, entry)| if let Body::Event(event) = &entry.body { event.text.as_deref() } else { None }).collect();
        match expected {
            Ok(remarks) => assert_eq!(engine.baselines().next().expect("it is accepted").1.remarks.as_deref(), remarks, "{texts:?}"),
            Err(why) => assert!(texts.iter().any(|text| text.contains("refused") && text.contains(why)), "{texts:?}"),
        }
    }
    check(false, 0..0, Ok(None));
    check(false, 148..150, Ok(Some("in zone C or D in 2 of 150 rows")));
    check(false, 40..55, Ok(Some("in zone C or D in 15 of 150 rows")));
    check(false, 0..140, Err("in zone C or D in 140 of 150 rows"));
    check(true, 60..70, Ok(Some("with an alarm of a limit in 10 of 150 rows")));
    check(true, 60..90, Err("an alarm of a limit was active in 30 of 150 rows"));
}
