//! Alarms of one asset, condition by condition: what is shown of them, and their case.
use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, OutOfService, ReturnedUnacknowledged, Shelved, Suppressed};
use hark_protocol::topics::Quality;

use super::*;

const NOW: Delays = Delays { on_us: 0, off_us: 0, lasts_us: 0, latch: false };

fn at(second: i64) -> Timestamp {
    Timestamp(second * 1_000_000)
}

fn high() -> Condition {
    Condition::Limit("temperature".into(), Level::High)
}

fn judge(alarms: &mut Alarms, condition: &Condition, holds: bool, second: i64) -> Option<(AlarmState, AlarmState)> {
    let evidence = Evidence { value: 1.5, ts: at(second), quality: Quality::Good, range: None, of_score: None, of_forecast: None };
    let shown = alarms.update(condition, (holds, evidence), at(second), NOW, || format!("{condition:?}{second}").into())?;
    Some((shown.previous, shown.state))
}

fn states(changes: &[Shown]) -> Vec<(AlarmState, AlarmState)> {
    changes.iter().map(|shown| (shown.previous, shown.state)).collect()
}

#[test]
fn a_case_stays_open_until_no_alarm_is_left() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &Condition::Anomaly, true, 1);
    let first = alarms.shown()[0].alarm_id.clone();
    judge(&mut alarms, &high(), true, 2);
    assert!(alarms.shown().iter().all(|shown| shown.case_id.as_ref() == Some(&first)));
    assert_eq!(alarms.shown()[0].condition, high(), "the more urgent one comes first");
    assert_eq!(alarms.acknowledge(None).len(), 2);
    judge(&mut alarms, &Condition::Anomaly, false, 3);
    assert_eq!(alarms.case_id(), Some(&first));
    judge(&mut alarms, &high(), false, 4);
    assert_eq!((alarms.case_id(), alarms.state(), alarms.shown().len()), (None, Normal, 0));
    judge(&mut alarms, &high(), true, 5);
    assert!(alarms.case_id().is_some_and(|case| *case != first));
}

#[test]
fn shelving_ends_by_itself_and_shows_what_still_holds() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    alarms.acknowledge(None);
    let id = alarms.shown()[0].alarm_id.clone();
    let until = Silence::Shelved { until: at(10) };
    assert!(alarms.silence(Some(&"other".into()), until).is_err());
    assert_eq!(states(&alarms.silence(Some(&id), until).unwrap()), [(ActiveAcknowledged, Shelved)]);
    assert_eq!((alarms.shown()[0].until, alarms.is_active()), (Some(at(10)), true));
    assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 5), Some((Normal, ActiveUnacknowledged)), "others are heard");
    assert_eq!(alarms.pass(at(9), false), []);
    assert_eq!(states(&alarms.pass(at(10), false)), [(Shelved, ActiveUnacknowledged)]);
    assert_eq!(alarms.pass(at(11), false), []);
}

#[test]
fn what_comes_and_goes_while_silenced_is_not_shown() {
    let mut alarms = Alarms::default();
    alarms.silence(None, Silence::OutOfService { until: None }).unwrap();
    assert_eq!(alarms.state(), OutOfService);
    assert_eq!(judge(&mut alarms, &high(), true, 1), Some((Normal, OutOfService)), "it is told, and not as active");
    assert_eq!(judge(&mut alarms, &high(), false, 2), None);
    assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 3), Some((Normal, OutOfService)));
    assert_eq!(alarms.pass(at(1_000_000), false), []);
    assert!(alarms.silence(None, Silence::Shelved { until: at(5) }).is_err(), "it would end what another person began");
    assert_eq!(alarms.end_silence(None, Shelved, false), Err("nothing of it is silenced so"));
    let shown = alarms.end_silence(None, OutOfService, false).unwrap();
    assert_eq!(states(&shown), [(OutOfService, ActiveUnacknowledged), (OutOfService, Normal)]);
}

#[test]
fn an_unshelved_alarm_that_returned_is_over() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let id = alarms.shown()[0].alarm_id.clone();
    alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
    judge(&mut alarms, &high(), false, 2);
    assert_eq!(states(&alarms.end_silence(Some(&id), Shelved, false).unwrap()), [(Shelved, Normal)]);
    judge(&mut alarms, &high(), true, 3);
    assert_eq!(judge(&mut alarms, &high(), false, 4), Some((ActiveUnacknowledged, ReturnedUnacknowledged)));
    assert_eq!(states(&alarms.end_all()), [(ReturnedUnacknowledged, Normal)]);
}

/// ISA-18.2: neither a shelving nor a time out of service is an acknowledgement.
#[test]
fn a_latched_alarm_that_returned_in_silence_waits_for_a_person() {
    for (silence, kind) in [(Silence::Shelved { until: at(100) }, Shelved), (Silence::OutOfService { until: Some(at(100)) }, OutOfService)] {
        for ends_by_itself in [false, true] {
            let mut alarms = Alarms::default();
            judge(&mut alarms, &high(), true, 1);
            alarms.silence(None, silence).unwrap();
            judge(&mut alarms, &high(), false, 2);
            let shown = if ends_by_itself { alarms.pass(at(100), true) } else { alarms.end_silence(None, kind, true).unwrap() };
            assert_eq!((states(&shown), alarms.case_id().is_some()), (vec![(kind, ReturnedUnacknowledged)], true));
            assert_eq!(states(&alarms.acknowledge(None)), [(ReturnedUnacknowledged, Normal)]);
        }
    }
}

#[test]
fn the_end_of_a_shelving_leaves_what_was_heard_as_it_is() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let id = alarms.shown()[0].alarm_id.clone();
    alarms.silence(Some(&id), Silence::Shelved { until: at(10) }).unwrap();
    judge(&mut alarms, &Condition::Anomaly, true, 2);
    alarms.acknowledge(None);
    judge(&mut alarms, &Condition::Forecast, true, 3);
    judge(&mut alarms, &Condition::Forecast, false, 4);
    assert_eq!(states(&alarms.pass(at(10), false)), [(Shelved, ActiveUnacknowledged)]);
    let state_of = |condition: Condition| alarms.shown().into_iter().find(|shown| shown.condition == condition).map(|shown| shown.state);
    assert_eq!([state_of(Condition::Anomaly), state_of(Condition::Forecast)], [Some(ActiveAcknowledged), Some(ReturnedUnacknowledged)]);
}

#[test]
fn an_alarm_that_is_over_is_none_and_its_shelving_went_with_it() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let id = alarms.shown()[0].alarm_id.clone();
    alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
    assert_eq!(alarms.end(&high()).map(|shown| shown.state), Some(Normal));
    assert_eq!(alarms.silence(Some(&id), Silence::Shelved { until: at(100) }), Err("there is no such alarm"));
    assert_eq!(judge(&mut alarms, &high(), true, 2), Some((Normal, ActiveUnacknowledged)));
}

#[test]
fn the_silence_of_all_does_not_end_by_that_of_one() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let id = alarms.shown()[0].alarm_id.clone();
    alarms.silence(None, Silence::OutOfService { until: Some(at(100)) }).unwrap();
    assert_eq!(alarms.end_silence(Some(&id), OutOfService, false), Err("nothing of it is silenced so"));
    let back = |alarms: &mut Alarms| states(&alarms.end_silence(None, OutOfService, false).unwrap());
    assert_eq!((alarms.state(), back(&mut alarms)), (OutOfService, vec![(OutOfService, ActiveUnacknowledged)]));
}

/// ISA-18.2 shelves alarms: nobody has seen what is still to come.
#[test]
fn a_shelved_asset_is_heard_again_with_its_next_alarm() {
    let mut alarms = Alarms::default();
    let until = Silence::Shelved { until: at(100) };
    assert!(alarms.silence(None, until).is_err(), "nothing stands");
    judge(&mut alarms, &high(), true, 1);
    assert_eq!(states(&alarms.silence(None, until).unwrap()), [(ActiveUnacknowledged, Shelved)]);
    assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 2), Some((Normal, ActiveUnacknowledged)));
    judge(&mut alarms, &high(), false, 3);
    assert_eq!(judge(&mut alarms, &high(), true, 4), None, "the same one again");
    assert_eq!(states(&alarms.end_silence(None, Shelved, false).unwrap()), [(Shelved, ActiveUnacknowledged)]);
}

#[test]
fn the_end_of_one_silence_shows_nothing_that_another_hides() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let id = alarms.shown()[0].alarm_id.clone();
    alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
    alarms.silence(None, Silence::OutOfService { until: None }).unwrap();
    judge(&mut alarms, &high(), false, 2);
    assert_eq!(states(&alarms.end_silence(None, OutOfService, false).unwrap()), [(OutOfService, Shelved)]);
    // Nobody was told of what began while it did not apply; that goes on.
    let mut alarms = Alarms::default();
    suppress(&mut alarms, true);
    judge(&mut alarms, &high(), true, 1);
    let in_hand = BTreeMap::from([("temperature".into(), Silence::OutOfService { until: None })]);
    assert_eq!(states(&alarms.set_inapplicable(in_hand, false)), [(Suppressed, OutOfService)]);
}

#[test]
fn of_equals_the_oldest_stands_first() {
    let mut alarms = Alarms::default();
    let of = |point: &str| Condition::Limit(point.into(), Level::Low);
    judge(&mut alarms, &of("b"), true, 1);
    judge(&mut alarms, &of("a"), true, 2);
    judge(&mut alarms, &Condition::Anomaly, true, 0);
    assert_eq!(alarms.shown().into_iter().map(|shown| shown.condition).collect::<Vec<_>>(), [of("b"), of("a"), Condition::Anomaly]);
}

#[test]
fn what_is_far_beyond_is_urgent_and_a_score_is_advice() {
    let of = |level| Condition::Limit("a".into(), level).priority();
    assert_eq!(Level::ALL.map(of), [Priority::High, Priority::Medium, Priority::Medium, Priority::High]);
    assert_eq!(Condition::Anomaly.priority(), Priority::Advice);
}

fn suppress(alarms: &mut Alarms, is_suppressed: bool) -> Vec<(AlarmState, AlarmState)> {
    let points = if is_suppressed { BTreeMap::from([("temperature".into(), Silence::Suppressed)]) } else { BTreeMap::new() };
    states(&alarms.set_inapplicable(points, false))
}

#[test]
fn what_does_not_apply_is_shown_as_suppressed_and_is_no_alarm_of_the_machine() {
    let mut alarms = Alarms::default();
    assert_eq!(suppress(&mut alarms, true), []);
    assert_eq!(judge(&mut alarms, &high(), true, 1), Some((Normal, Suppressed)));
    assert_eq!((alarms.state(), alarms.is_active(), alarms.case_id()), (Suppressed, false, None));
    assert_eq!(alarms.acknowledge(None), []);
    // An alarm that somebody should look at stands before it, however urgent that would be.
    assert_eq!(judge(&mut alarms, &Condition::Anomaly, true, 2), Some((Normal, ActiveUnacknowledged)), "it is of no point");
    assert_eq!(alarms.shown().iter().map(|shown| shown.state).collect::<Vec<_>>(), [ActiveUnacknowledged, Suppressed]);
    assert_eq!((alarms.state(), alarms.case_id().is_some()), (ActiveUnacknowledged, true));
    judge(&mut alarms, &Condition::Anomaly, false, 3);
    alarms.acknowledge(None);
    assert_eq!(alarms.case_id(), None, "it is of no case");
    // Nobody heard of it: it is over, and what holds on is another one.
    assert_eq!(suppress(&mut alarms, false), [(Suppressed, Normal)]);
    assert_eq!(judge(&mut alarms, &high(), true, 4), Some((Normal, ActiveUnacknowledged)));
    assert_eq!((alarms.is_active(), alarms.case_id().is_some()), (true, true));
}

#[test]
fn an_alarm_that_nobody_has_seen_waits_for_a_person_after_its_suppression() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let case = alarms.case_id().cloned();
    assert_eq!(suppress(&mut alarms, true), [(ActiveUnacknowledged, Suppressed)]);
    assert_eq!((alarms.is_active(), alarms.case_id() == case.as_ref()), (false, true));
    assert_eq!(suppress(&mut alarms, false), [(Suppressed, ReturnedUnacknowledged)]);
    assert_eq!(alarms.case_id(), case.as_ref());
    assert_eq!((states(&alarms.acknowledge(None)), alarms.case_id()), (vec![(ReturnedUnacknowledged, Normal)], None));
}

#[test]
fn of_two_silences_the_one_of_a_person_is_told_and_the_other_outlasts_it() {
    let mut alarms = Alarms::default();
    judge(&mut alarms, &high(), true, 1);
    let id = alarms.shown()[0].alarm_id.clone();
    alarms.silence(Some(&id), Silence::Shelved { until: at(10) }).unwrap();
    assert_eq!(suppress(&mut alarms, true), []);
    assert_eq!(states(&alarms.pass(at(10), false)), [(Shelved, Suppressed)]);
    let in_hand = BTreeMap::from([("temperature".into(), Silence::OutOfService { until: Some(at(20)) })]);
    assert_eq!(states(&alarms.set_inapplicable(in_hand, false)), [(Suppressed, OutOfService)]);
    assert_eq!((alarms.shown()[0].until, alarms.pass(at(20), false)), (Some(at(20)), Vec::new()), "who took it out ends it");
    assert_eq!(suppress(&mut alarms, false), [(OutOfService, ReturnedUnacknowledged)]);
}

/// On each side of its limits a value begins one excursion, whichever of its alarms comes first.
#[test]
fn an_excursion_is_begun_by_its_first_alarm() {
    let mut alarms = Alarms::default();
    let of = |level| Condition::Limit("temperature".into(), level);
    let mut begins = |level, second: i64| {
        judge(&mut alarms, &of(level), true, second);
        alarms.begins_excursion(&of(level))
    };
    assert_eq!([begins(Level::High, 1), begins(Level::HighHigh, 2)], [true, false]);
    assert_eq!([begins(Level::LowLow, 3), begins(Level::Low, 3)], [true, false], "both at once");
    assert_eq!(Level::ALL.map(|level| alarms.begins_excursion(&of(level))), [true, false, true, false]);
    judge(&mut alarms, &of(Level::HighHigh), false, 4);
    judge(&mut alarms, &of(Level::HighHigh), true, 5);
    assert!(!alarms.begins_excursion(&of(Level::HighHigh)), "it is still the same one");
    let other = Condition::Limit("pressure".into(), Level::HighHigh);
    judge(&mut alarms, &other, true, 6);
    assert!(alarms.begins_excursion(&other) && alarms.begins_excursion(&Condition::Anomaly));
    // What nobody hears of begins nothing for people.
    let id = alarms.shown().into_iter().find(|shown| shown.condition == of(Level::High)).unwrap().alarm_id;
    alarms.silence(Some(&id), Silence::Shelved { until: at(100) }).unwrap();
    assert!(alarms.begins_excursion(&of(Level::HighHigh)));
}

/// What is silenced may chatter as it likes.
#[test]
fn only_what_people_hear_chatters() {
    let mut alarms = Alarms::default();
    let raise = |alarms: &mut Alarms, second: i64| {
        judge(alarms, &high(), true, second);
        let chatter = alarms.shown()[0].chatter;
        judge(alarms, &high(), false, second + 1);
        chatter
    };
    suppress(&mut alarms, true);
    assert_eq!([0, 2, 4].map(|second| raise(&mut alarms, second)), [None; 3]);
    suppress(&mut alarms, false);
    assert_eq!([6, 8, 10].map(|second| raise(&mut alarms, second)), [None, None, Some((3, 4_000_000))]);
    suppress(&mut alarms, true);
    assert_eq!(raise(&mut alarms, 12), None, "that was another one");
}

#[test]
fn a_value_is_back_behind_the_deadband() {
    let limits = Limits { high: Some(80.0), low: Some(10.0), deadband: 2.0, ..Limits::default() };
    for (level, value, was, beyond) in [
        (Level::High, 80.0, false, Some(false)),
        (Level::High, 80.1, false, Some(true)),
        (Level::High, 79.0, true, Some(true)),
        (Level::High, 78.0, true, Some(false)),
        (Level::Low, 9.9, false, Some(true)),
        (Level::Low, 11.0, true, Some(true)),
        (Level::Low, 12.0, true, Some(false)),
        (Level::HighHigh, 1e9, false, None),
    ] {
        assert_eq!(is_beyond(&limits, level, value, was), beyond, "{level:?} {value} {was}");
    }
}
