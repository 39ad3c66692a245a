//! Named faults on the engine: strengths come as readings, become alarms, and tell the likely cause of others.
use hark_protocol::topics::Priority;

use super::*;

/// With a waveform whose rules know bearing and class, asked every minute.
fn engine(score: bool, tachometer: bool) -> Engine {
    engine_with_faults(score, tachometer, |_| {})
}

/// With a word of its own for what a damaged outer ring is observed as.
fn engine_with_mode_of_outer(mode: &str) -> Engine {
    engine_with_faults(true, false, |asset| {
        let outer = asset.points.iter_mut().find(|point| &*point.id == "de-h.fault.outer").unwrap();
        let limits = (**outer.limits.as_ref().unwrap()).clone();
        outer.limits = Some(config::Limits { failure_mode: Some(mode.into()), ..limits }.into());
    })
}

fn engine_with_faults(score: bool, tachometer: bool, edit: impl FnOnce(&mut config::Asset)) -> Engine {
    let text = "id = \"pump\"\n[alarm]\non_delay = \"30s\"\n[[point]]\nid = \"de-h.v_rms\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n\
                [[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\nspeed_rpm = 1797\nbearing = { elements = 9, element_mm = 7.94, pitch_mm = 39.04 }\n";
    let of_file = config::check_asset_text("pump", text).unwrap();
    engine_with(|asset| {
        asset.points.extend(of_file.points.into_iter().filter(|point| !point.scored || &*point.id == "de-h.v_rms"));
        asset.points[3].scored = false;
        asset.waveforms = of_file.waveforms;
        asset.waveforms[0].speed_point = tachometer.then(|| "speed".into());
        asset.points.iter_mut().filter(|_| !score).for_each(|point| point.scored = false);
        asset.alarm.on_delay = Duration::from_secs(30);
        edit(asset);
    })
}

/// What the rules say, minute by minute: strengths of `outer` and `unbalance`.
fn minutes(strengths: &[(f64, f64)]) -> Vec<Entry> {
    let minute = |(n, (outer, unbalance)): (usize, &(f64, f64))| {
        let second = 1_000.0 + 60.0 * n as f64;
        [reading(second, "de-h.fault.outer", Some(*outer)), reading(second, "de-h.fault.unbalance", Some(*unbalance))]
    };
    strengths.iter().enumerate().flat_map(minute).collect()
}

#[test]
fn a_fault_that_stays_named_is_an_alarm_and_one_answer_is_none() {
    let mut engine = engine(false, false);
    let out = feed(&mut engine, 1, &minutes(&[(0.0, 0.0), (1.4, 0.0), (0.0, 0.0), (1.2, 0.0)]));
    assert_eq!(alarms(&out), Vec::<&Alarm>::new());
    let out = feed(&mut engine, 100, &minutes(&[(0.0, 0.0), (1.2, 0.0), (1.3, 0.0), (1.1, 0.0)]));
    let [alarm] = alarms(&out)[..] else { panic!("{out:?}") };
    assert_eq!((alarm.priority, alarm.value, alarm.limit, alarm.state), (Priority::Medium, Some(1.3), Some(1.0), AlarmState::ActiveUnacknowledged));
    assert_eq!((&*alarm.what, alarm.failure_mode.as_deref()), ("fault of a bearing's outer ring at `de-h`", Some("VIB")));
    assert_eq!(alarm.cause.as_deref(), Some("Spalling, wear or a wrong fit of the outer ring."));
    assert!(alarm.advice.is_some() && alarm.consequence.is_some() && alarm.respond_by.is_some());
    assert_eq!(alarm.confidence, Some(1.3 / 2.3));
}

#[test]
fn a_velocity_in_a_bad_zone_has_the_named_fault_as_its_cause() {
    for (strengths, cause) in [
        (Some((0.0, 0.0)), Some("not determined: the rules for vibration name no fault")),
        (Some((0.0, 1.0)), Some("unbalance at `de-h`")),
        (Some((2.0, 1.5)), Some("fault of a bearing's outer ring at `de-h`; unbalance at `de-h`")),
        (None, Some("not determined: none is configured for this limit")),
    ] {
        let mut engine = engine(false, false);
        if let Some(strengths) = strengths {
            feed(&mut engine, 1, &minutes(&[strengths]));
        }
        let high: Vec<Entry> =
            [(970.0, 1.0), (1_010.0, 3.5), (1_050.0, 3.5)].iter().map(|&(second, value)| reading(second, "de-h.v_rms", Some(value))).collect();
        let out = feed(&mut engine, 100, &high);
        let [alarm] = alarms(&out)[..] else { panic!("{out:?}") };
        assert_eq!(alarm.cause.as_deref(), cause);
        let evidence: serde_json::Value = serde_json::from_str(alarm.evidence_json.as_deref().unwrap()).unwrap();
        assert_eq!(
            evidence["faults"].as_array().map(Vec::len),
            strengths.map(|(outer, unbalance)| usize::from(outer >= 1.0) + usize::from(unbalance >= 1.0))
        );
    }
}

/// An answer of long ago is none.
#[test]
fn what_was_named_long_ago_is_no_cause() {
    let mut engine = engine(false, false);
    feed(&mut engine, 1, &minutes(&[(0.0, 1.5)]));
    let high: Vec<Entry> = [8_960.0, 9_000.0, 9_040.0].iter().map(|&second| reading(second, "de-h.v_rms", Some(3.5))).collect();
    let out = feed(&mut engine, 100, &high);
    assert_eq!(alarms(&out)[0].cause.as_deref(), Some("not determined: none is configured for this limit"));
}

#[test]
fn the_advice_of_a_score_tells_what_the_rules_name() {
    let machine = machine(ROWS + 100, ROWS + 20);
    let (normal, fault) = machine.split_at(2 * (ROWS + 15));
    for (strengths, cause, mode) in [
        (&[][..], "not determined: no rule for a fault of this machine was asked", "UNK"),
        (&[("unbalance", 0.4)], "not determined: the rules for vibration name no fault", "UNK"),
        (&[("unbalance", 2.0)], "unbalance at `de-h`", "VIB"),
        (&[("outer", 3.0), ("unbalance", 2.0)], "fault of a bearing's outer ring at `de-h`; unbalance at `de-h`", "BRD"),
        (&[("outer", 1.5), ("unbalance", 2.0)], "unbalance at `de-h`; fault of a bearing's outer ring at `de-h`", "VIB"),
    ] {
        let mut engine = engine_with_mode_of_outer("BRD");
        feed(&mut engine, 1, normal);
        let second = 1_000.0 + ROWS as f64 + 15.0;
        let said: Vec<Entry> = strengths.iter().map(|(fault, strength)| reading(second, &format!("de-h.fault.{fault}"), Some(*strength))).collect();
        feed(&mut engine, 1_000, &said);
        let out = feed(&mut engine, 2_000, fault);
        let advice = alarms(&out).into_iter().find(|alarm| alarm.point.is_none()).unwrap();
        assert_eq!((advice.priority, advice.cause.as_deref(), advice.failure_mode.as_deref()), (Priority::Advice, Some(cause), Some(mode)));
    }
}

/// By which speed its lines were looked for is part of why a fault is believed.
#[test]
fn the_origin_of_the_speed_travels_with_the_evidence() {
    for (tachometer, tracked, origin, speed) in [
        (false, Some(Some(1_781.5)), "tracked", Some(1_781.5)),
        (false, Some(None), "nominal", None),
        (true, None, "tachometer", None),
        (true, Some(Some(1_781.5)), "tracked", Some(1_781.5)),
        (true, Some(None), "nominal", None),
    ] {
        let mut engine = engine(false, tachometer);
        let minute = |n: u32| {
            let second = 1_000.0 + 60.0 * f64::from(n);
            // An answer of a block before says nothing of this one.
            let before = (n == 0 && tracked.is_none()).then(|| reading(second - 1.0, "de-h.speed_tracked", Some(1_700.0)));
            let speed = tracked.map(|tracked| reading(second, "de-h.speed_tracked", tracked));
            before.into_iter().chain(speed).chain([reading(second, "de-h.fault.outer", Some(1.4))])
        };
        let out = feed(&mut engine, 1, &(0..3).flat_map(minute).collect::<Vec<_>>());
        let [alarm] = alarms(&out)[..] else { panic!("{out:?}") };
        let evidence: serde_json::Value = serde_json::from_str(alarm.evidence_json.as_deref().unwrap()).unwrap();
        let named = &evidence["faults"][0];
        assert_eq!((named["speed_origin"].as_str(), named["speed"].as_f64()), (Some(origin), speed), "{evidence}");
    }
}
