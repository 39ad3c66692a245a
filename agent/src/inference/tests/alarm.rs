//! Limits of points, and what people say to alarms.
use AlarmState::{ActiveAcknowledged, ActiveUnacknowledged, Normal, OutOfService, ReturnedUnacknowledged, Shelved};

use hark_protocol::topics::InstrumentStatus;

use super::*;
use crate::config::{Level, Limits};

/// The pump with a limit on a point that is not scored: 80, with a deadband of 2; on-delay 5 s, off-delay 10 s.
fn limited() -> Engine {
    engine_with(|asset| {
        asset.points[1].unit = "Cel".into();
        let limits = Limits { high: Some(80.0), high_high: Some(95.0), deadband: 2.0, check: Some("Feel the housing.".into()), ..Limits::default() };
        asset.points[1].limits = Some(limits.into());
    })
}

/// One value of the limited point a second.
pub(super) fn values(from: i64, values: &[f64]) -> Vec<Entry> {
    (from..).zip(values).map(|(second, value)| reading(second as f64, "note", Some(*value))).collect()
}

pub(super) fn command(second: i64, id: &str, word: &str, detail: &str) -> Entry {
    let mut entry = super::event(second as f64, EventKind::Command, Some(word));
    let Body::Event(event) = &mut entry.body else { panic!("it is an event") };
    (event.command_id, event.detail_json) = (Some(id.into()), Some(detail.into()));
    entry
}

pub(super) fn change(second: i64, changed: &config::Asset) -> Entry {
    let event = Event {
        what: Some("configuration".into()),
        hash_after: Some(changed.hash.clone()),
        detail_json: Some(crate::inference::configured::configuration(changed)),
        ..Event::new(EventKind::Change)
    };
    Entry { stamp: stamp(second as f64), cause: None, body: Body::Event(event.into()) }
}

pub(super) fn states(out: &[(LaneName, Entry)]) -> Vec<(AlarmState, AlarmState)> {
    alarms(out).iter().map(|alarm| (alarm.previous_state, alarm.state)).collect()
}

fn until(second: i64) -> String {
    serde_json::json!({ "until": Timestamp(second * SECOND).to_string() }).to_string()
}

#[test]
fn a_limit_alarms_from_the_first_reading_on_with_all_that_a_person_needs() {
    let mut engine = limited();
    let out = feed(&mut engine, 1, &values(100, &[70.0, 81.0, 81.0, 79.0, 81.0, 81.0, 81.0, 81.0, 81.0, 82.5]));
    assert_eq!(states(&out), [(Normal, ActiveUnacknowledged)]);
    let alarm = alarms(&out)[0];
    assert_eq!((alarm.point.as_deref(), alarm.value, alarm.limit, alarm.unit.as_deref()), (Some("note"), Some(82.5), Some(80.0), Some("Cel")));
    assert_eq!(&*alarm.since, "1970-01-01T00:01:44.000000Z", "79 is within the deadband, which is for the way back alone");
    assert_eq!(alarm.respond_by.as_deref(), Some("1970-01-01T08:01:44.000000Z"));
    assert_eq!((alarm.failure_mode.as_deref(), alarm.advice.as_deref()), (Some("OHE"), Some("Feel the housing.")));
    assert_eq!((alarm.input_from.as_deref(), alarm.model.as_ref(), alarm.case_id.as_ref()), (Some("inc/10"), None, Some(&alarm.alarm_id)));
    // The same while it stands, for who asks.
    let shown = engine.alarms();
    assert_eq!((shown.len(), &shown[0].1.alarm_id, shown[0].1.state), (1, &alarm.alarm_id, ActiveUnacknowledged));
    // What is worse is another alarm of the same case, and stands first.
    let out = feed(&mut engine, 10, &values(110, &[96.0; 6]));
    assert_eq!((alarms(&out)[0].what.as_ref(), alarms(&out)[0].case_id.as_ref()), ("`note` above its high-high limit", Some(&shown[0].1.alarm_id)));
    assert_eq!(engine.alarms()[0].1.limit, Some(95.0));
    let back = feed(&mut engine, 20, &values(116, &[77.0; 11]));
    assert_eq!(states(&back), [(ActiveUnacknowledged, ReturnedUnacknowledged); 2]);
}

#[test]
fn a_bad_value_is_neither_beyond_a_limit_nor_back() {
    let mut engine = limited();
    feed(&mut engine, 1, &values(100, &[81.0; 6]));
    let bad: Vec<Entry> = (106..130).map(|second| reading(second as f64, "note", None)).collect();
    assert!(alarms(&feed(&mut engine, 10, &bad)).is_empty());
    assert_eq!(engine.view("pump").unwrap().alarm_state, ActiveUnacknowledged);
}

/// The stale limit is 3 s, the on-delay 5 s. A sensor that comes and goes has not been hot for all that time, nor has one whose values were bad.
#[test]
fn a_gap_is_no_time_beyond_a_limit() {
    let out = feed(&mut limited(), 1, &[reading(100.0, "note", Some(96.0)), reading(10_900.0, "note", Some(96.0))]);
    assert_eq!(states(&out), []);
    let mut engine = limited();
    let bad = (103..130).map(|second| reading(second as f64, "note", None));
    let entries: Vec<Entry> = values(100, &[70.0, 70.0, 81.0]).into_iter().chain(bad).collect();
    feed(&mut engine, 1, &entries);
    let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    assert_eq!(states(&feed(&mut engine, 100, &values(130, &[79.5, 81.0]))), [], "the deadband is that of now, too");
    let out = feed(&mut engine, 200, &values(132, &[81.0; 5]));
    assert_eq!((states(&out), &*alarms(&out)[0].since), (vec![(Normal, ActiveUnacknowledged)], "1970-01-01T00:02:11.000000Z"));
    // It goes no sooner either.
    feed(&mut engine, 300, &values(137, &[70.0]));
    assert_eq!(states(&feed(&mut engine, 310, &values(160, &[70.0; 10]))), []);
    assert_eq!(states(&feed(&mut engine, 400, &values(170, &[70.0]))), [(ActiveUnacknowledged, ReturnedUnacknowledged)]);
}

/// Records tell what was; who asks how it stands is told that nothing is known any more.
#[test]
fn an_alarm_of_a_silent_point_is_not_supported() {
    let mut engine = limited();
    let out = feed(&mut engine, 1, &values(100, &[81.0; 6]));
    assert_eq!((alarms(&out)[0].quality, alarms(&out)[0].confidence), (Quality::Good, Some(1.0)));
    let shown = |engine: &Engine| {
        let alarm = engine.alarms().pop().unwrap().1;
        let evidence: serde_json::Value = serde_json::from_str(alarm.evidence_json.as_deref().unwrap()).unwrap();
        (alarm.state, alarm.value, alarm.quality, alarm.confidence, evidence["value_at"].as_str().unwrap().to_owned())
    };
    let as_of = |quality, confidence| (ActiveUnacknowledged, Some(81.0), quality, Some(confidence), "1970-01-01T00:01:45.000000Z".to_owned());
    feed(&mut engine, 10, &[reading(108.0, "a", Some(0.0))]);
    assert_eq!(shown(&engine), as_of(Quality::Good, 1.0), "as old as the stale limit");
    feed(&mut engine, 11, &[reading(108.1, "a", Some(0.0))]);
    assert_eq!(shown(&engine), as_of(Quality::Bad, 0.0));
    let out = feed(&mut engine, 12, &[command(109, "c1", "acknowledge", "{}")]);
    assert_eq!((alarms(&out)[0].quality, engine.alarms()[0].1.quality), (Quality::Good, Quality::Bad), "a record is of its judgement");
    // A seldom value is not old before the next one is due.
    let mut engine = limited();
    feed(&mut engine, 1, &[1.0, 600.0, 1_200.0, 1_800.0].map(|second| reading(second, "note", Some(81.0))));
    feed(&mut engine, 10, &[reading(2_999.0, "a", Some(0.0))]);
    assert_eq!(engine.alarms()[0].1.quality, Quality::Good);
    feed(&mut engine, 11, &[reading(3_001.0, "a", Some(0.0))]);
    assert_eq!(engine.alarms()[0].1.quality, Quality::Bad);
}

/// A point that is read every ten minutes, among others each second, is judged by two values beyond its limit as ever.
#[test]
fn a_seldom_value_counts_until_the_next_one() {
    let entries: Vec<Entry> =
        [70.0, 70.0, 81.0, 81.0].into_iter().zip(0..).map(|(value, n)| reading(f64::from(n) * 600.0, "note", Some(value))).collect();
    let out = feed(&mut limited(), 1, &entries);
    assert_eq!((states(&out), &*alarms(&out)[0].since), (vec![(Normal, ActiveUnacknowledged)], "1970-01-01T00:20:00.000000Z"));
}

#[test]
fn shelving_ends_in_the_time_of_the_log() {
    let mut engine = limited();
    feed(&mut engine, 1, &values(100, &[81.0; 6]));
    let refused = feed(
        &mut engine,
        10,
        &[command(106, "c1", "shelve", "{}"), command(106, "c2", "shelve", &until(106)), command(106, "c3", "shelve", &until(800_000))],
    );
    assert_eq!(events(&refused), [("audit", "shelve", "refused"); 3]);
    let mut shelve = command(106, "c4", "shelve", &until(120));
    let Body::Event(shelving) = &mut shelve.body else { panic!("it is an event") };
    shelving.alarm_id = engine.view("pump").unwrap().alarm_id;
    let out = feed(&mut engine, 20, &[shelve]);
    assert_eq!((states(&out), alarms(&out)[0].actor.as_deref()), (vec![(ActiveUnacknowledged, Shelved)], Some("mw")));
    assert_eq!(alarms(&out)[0].until.as_deref(), Some("1970-01-01T00:02:00.000000Z"));
    // A silent asset's time goes on by ticks.
    feed(&mut engine, 30, &[reading(107.0, "a", Some(0.0))]);
    assert!(alarms(&feed(&mut engine, 31, &[event(119.0, EventKind::Tick, None)])).is_empty());
    assert_eq!(states(&feed(&mut engine, 32, &[event(120.0, EventKind::Tick, None)])), [(Shelved, ActiveUnacknowledged)]);
    let outcomes = engine.take_outcomes();
    assert_eq!((outcomes.len(), outcomes[3].1.clone(), outcomes[0].1.is_err()), (4, Ok(None), true));
}

#[test]
fn an_asset_out_of_service_is_silent_until_it_returns() {
    let mut engine = limited();
    let out = feed(&mut engine, 1, &[command(99, "c1", "out_of_service", "{}")]);
    assert_eq!(events(&out), [("audit", "out_of_service", "success")]);
    assert_eq!(engine.view("pump").unwrap().alarm_state, OutOfService);
    assert_eq!(states(&feed(&mut engine, 2, &values(100, &[81.0; 6]))), [(Normal, OutOfService)]);
    let mut restored = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let back = feed(&mut restored, 10, &[command(110, "c2", "return_to_service", "{}"), command(111, "c3", "acknowledge", "{}")]);
    assert_eq!(states(&back), [(OutOfService, ActiveUnacknowledged), (ActiveUnacknowledged, ActiveAcknowledged)]);
}

#[test]
fn maintenance_ends_what_the_old_baseline_said_and_a_limit_stays() {
    let mut engine = limited();
    feed(&mut engine, 1, &machine(ROWS + 50, ROWS + 10));
    feed(&mut engine, 1_000, &values(1_300, &[81.0; 6]));
    assert_eq!(engine.alarms().len(), 2);
    let out = feed(&mut engine, 2_000, &[command(1_310, "c1", "maintenance_done", "{}")]);
    assert_eq!(states(&out), [(ActiveUnacknowledged, Normal)]);
    assert_eq!(engine.alarms()[0].1.point.as_deref(), Some("note"));
    assert_eq!(events(&out), [("other", "done", ""), ("commissioning", "started", ""), ("audit", "maintenance_done", "success")]);
}

#[test]
fn a_limit_that_is_taken_away_leaves_no_alarm() {
    let mut engine = limited();
    feed(&mut engine, 1, &values(100, &[81.0; 6]));
    let changed = config::Asset { hash: "other".into(), ..asset() };
    let out = feed(&mut engine, 10, &[change(110, &changed)]);
    assert_eq!(states(&out), [(ActiveUnacknowledged, Normal)]);
    assert!(engine.alarms().is_empty());
}

#[test]
fn a_label_is_one_of_four_words() {
    let mut engine = limited();
    let labels = [r#"{"label":"false_alarm"}"#, r#"{"label":"maybe"}"#, "{}"];
    let commands: Vec<Entry> = labels.iter().enumerate().map(|(n, detail)| command(100, &n.to_string(), "label", detail)).collect();
    let out = feed(&mut engine, 1, &commands);
    assert_eq!(events(&out), [("audit", "label", "success"), ("audit", "label", "refused"), ("audit", "label", "refused")]);
}

/// Days after it is over too, and after a restart or a change of the points; but not of another asset, nor one that is yet to come.
#[test]
fn a_label_is_of_an_alarm_that_the_asset_had() {
    let mut engine = limited();
    let label = |engine: &mut Engine, seq: u64, alarm_id: &str| {
        let mut labelled = command(100 + seq as i64, &seq.to_string(), "label", r#"{"label":"false_alarm"}"#);
        let Body::Event(event) = &mut labelled.body else { panic!("it is an event") };
        event.alarm_id = Some(alarm_id.into());
        let out = feed(engine, seq, &[labelled]);
        let Body::Event(answer) = &out[0].1.body else { panic!("it is an event") };
        answer.result.as_deref() == Some("success")
    };
    assert!(!label(&mut engine, 1, "2/7"), "it had none yet");
    feed(&mut engine, 2, &values(100, &[81.0, 81.0, 81.0, 81.0, 81.0, 96.0, 96.0, 96.0, 96.0, 96.0, 96.0]));
    let ids: Vec<Name> = engine.alarms().into_iter().map(|(_, alarm)| alarm.alarm_id).collect();
    assert_eq!(ids.iter().map(|id| &**id).collect::<Vec<_>>(), ["2/12", "2/7"]);
    assert!(label(&mut engine, 20, "2/7") && label(&mut engine, 21, "2/12"), "while it stands");
    feed(&mut engine, 30, &values(120, &[20.0; 12]));
    feed(&mut engine, 50, &[command(140, "seen", "acknowledge", "{}")]);
    assert!(engine.alarms().is_empty());
    let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let mut changed = engine.configurations().next().unwrap().1.clone();
    changed.points.retain(|point| point.id != Name::from("b"));
    changed.hash = "other".into();
    feed(&mut engine, 60, &[change(150, &changed)]);
    assert!(label(&mut engine, 70, "2/7") && label(&mut engine, 71, "2/12"), "when it is over");
    for (seq, never) in (80..).zip(["2/8", "2/7/1", "2/4711", "3/7", "never", ""]) {
        assert!(!label(&mut engine, seq, never), "{never}");
    }
    assert!(label(&mut engine, 90, "1/7"), "before the asset was known here");
}

#[test]
fn levels_have_words_and_places() {
    let limits = Limits { low_low: Some(1.0), low: Some(2.0), high: Some(3.0), high_high: Some(4.0), ..Limits::default() };
    assert_eq!(Level::ALL.map(|level| limits.of(level)), [Some(1.0), Some(2.0), Some(3.0), Some(4.0)]);
    assert_eq!(Level::ALL.map(Level::words), ["low-low", "low", "high", "high-high"]);
}

#[test]
fn an_instrument_out_of_service_raises_no_alarm_and_says_so() {
    let mut engine = limited();
    feed(&mut engine, 1, &values(100, &[81.0; 6]));
    let refused = feed(
        &mut engine,
        10,
        &[command(106, "c1", "out_of_service", r#"{"point":"nothing"}"#), command(106, "c2", "return_to_service", r#"{"point":"note"}"#)],
    );
    assert_eq!(events(&refused), [("audit", "out_of_service", "refused"), ("audit", "return_to_service", "refused")]);

    let out = feed(&mut engine, 20, &[command(106, "c3", "out_of_service", r#"{"point":"note"}"#)]);
    assert_eq!((states(&out), alarms(&out)[0].actor.as_deref()), (vec![(ActiveUnacknowledged, OutOfService)], Some("mw")));
    assert_eq!(events(&out), [("other", "check_function", ""), ("audit", "out_of_service", "success")]);
    let record = |engine: &Engine| engine.asset_records(Timestamp(0)).pop().unwrap().1;
    assert_eq!(&*record(&engine).instruments_json, r#"{"a":"normal","b":"normal","note":"check_function"}"#);
    assert_eq!((record(&engine).instrument_status, record(&engine).alarm_state), (InstrumentStatus::CheckFunction, OutOfService));
    // A calibrator gives what it likes: that is no alarm, neither now nor afterwards.
    assert!(alarms(&feed(&mut engine, 30, &values(107, &[96.0; 20]))).is_empty());
    let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let back = feed(&mut engine, 60, &[command(127, "c4", "return_to_service", r#"{"point":"note"}"#)]);
    assert_eq!(states(&back), [(OutOfService, ReturnedUnacknowledged)]);
    assert_eq!(events(&back)[0], ("other", "normal", ""));
    assert_eq!(record(&engine).instrument_status, InstrumentStatus::Normal);
    assert_eq!(
        states(&feed(&mut engine, 70, &values(128, &[96.0; 6]))),
        [(ReturnedUnacknowledged, ActiveUnacknowledged), (Normal, ActiveUnacknowledged)]
    );
}

#[test]
fn an_instrument_that_failed_begins_anew_after_its_service() {
    let mut engine =
        engine_with(|asset| asset.instrument = config::InstrumentSettings { on_delay: Duration::ZERO, off_delay: Duration::from_secs(60) });
    let service = |engine: &mut Engine, second: i64, word: &str| {
        let command = command(second, &format!("{word}{second}"), word, r#"{"point":"b"}"#);
        events(&feed(engine, second as u64, &[command])).iter().map(|(_, what, _)| (*what).to_owned()).collect::<Vec<_>>()
    };
    feed(&mut engine, 1, &machine(20, usize::MAX));
    let silent: Vec<Entry> = (20..40).map(|second| reading(1000.0 + f64::from(second), "a", Some(0.0))).collect();
    assert_eq!(events(&feed(&mut engine, 100, &silent)), [("other", "failure", "")]);
    assert_eq!(service(&mut engine, 1_040, "out_of_service"), ["check_function", "out_of_service"]);
    assert_eq!(service(&mut engine, 1_040, "out_of_service"), [""; 0], "the same command once");
    feed(&mut engine, 2_000, &[reading(1041.0, "a", Some(0.0)), reading(1041.1, "b", Some(0.0))]);
    assert_eq!(service(&mut engine, 1_042, "return_to_service"), ["normal", "return_to_service"]);
    // What it gave meanwhile is no fault of now.
    assert_eq!(events(&feed(&mut engine, 3_000, &[event(1043.0, EventKind::Tick, None)])), []);
}

/// To the moment, by the readings of a machine that has no scored point; and who takes it out for longer says nothing new.
#[test]
fn an_instrument_and_a_shelved_alarm_return_without_a_scored_point() {
    let mut engine = engine_with(|asset| {
        asset.points.retain(|point| !point.scored);
        asset.points[0].limits = Some(Limits { high: Some(80.0), ..Limits::default() }.into());
    });
    let until = |second: i64| serde_json::json!({ "point": "note", "until": Timestamp(second * SECOND).to_string() }).to_string();
    feed(&mut engine, 1, &[command(100, "c1", "out_of_service", &until(110))]);
    assert_eq!(events(&feed(&mut engine, 2, &[command(101, "c2", "out_of_service", &until(120))])), [("audit", "out_of_service", "success")]);
    let ends = |engine: &Engine| engine.next_ends().next().unwrap().1.map(|end| end.0 / SECOND);
    assert_eq!(ends(&engine), Some(120));
    assert_eq!(events(&feed(&mut engine, 3, &values(119, &[60.0]))), []);
    assert_eq!(events(&feed(&mut engine, 4, &values(120, &[81.0]))), [("other", "normal", "")]);
    assert_eq!(states(&feed(&mut engine, 5, &values(121, &[81.0; 6]))), [(Normal, ActiveUnacknowledged)]);
    assert_eq!(ends(&engine), None);
    feed(&mut engine, 20, &[command(127, "c3", "shelve", &until(140))]);
    assert_eq!(ends(&engine), Some(140));
    assert_eq!(states(&feed(&mut engine, 21, &values(139, &[81.0, 81.0]))), [(Shelved, ActiveUnacknowledged)]);
}

#[test]
fn an_instrument_that_is_gone_is_out_of_service_no_longer() {
    let mut engine = limited();
    feed(&mut engine, 1, &[command(100, "c1", "out_of_service", r#"{"point":"note"}"#)]);
    let mut changed = engine.configurations().next().unwrap().1.clone();
    changed.points.remove(1);
    changed.hash = "other".into();
    feed(&mut engine, 2, &[change(101, &changed)]);
    assert_eq!(&*engine.asset_records(Timestamp(0)).pop().unwrap().1.instruments_json, r#"{"a":"normal","b":"normal"}"#);
}

#[test]
fn a_limit_speaks_in_the_words_of_who_set_it_and_in_its_own_without() {
    let with = |limits: Limits| {
        engine_with(|asset| {
            asset.points[1].unit = "Cel".into();
            asset.points[1].limits = Some(limits.clone().into());
        })
    };
    let said = |engine: &mut Engine, value: f64| {
        let out = feed(engine, 1, &values(100, &[value; 6]));
        let alarm = alarms(&out)[0].clone();
        let words = [&alarm.cause, &alarm.advice, &alarm.consequence, &alarm.failure_mode].map(|text| text.as_deref().unwrap_or("-").to_owned());
        (alarm.what.to_string(), words.map(|text| text.chars().take(12).collect::<String>()), alarm.respond_by.unwrap().to_string(), alarm.limit)
    };
    let name = |text: &str| Some(text.into());
    let told = Limits {
        low_low: Some(5.0),
        what: name("too cold"),
        cause: name("no steam"),
        check: name("the valve"),
        otherwise: name("it sets"),
        failure_mode: name("LOO"),
        ..Limits::default()
    };
    let words = ["no steam", "the valve", "it sets", "LOO"].map(str::to_owned);
    let at_once = "1970-01-01T00:11:40.000000Z".to_owned();
    assert_eq!(said(&mut with(told), 4.0), ("too cold".to_owned(), words, at_once, Some(5.0)), "within ten minutes");
    let within_the_shift = "1970-01-01T08:01:40.000000Z".to_owned();
    for (limits, value, what, mode, by) in [
        (Limits { low_low: Some(5.0), ..Limits::default() }, 4.0, "`note` below its low-low limit", "PDE", None),
        (Limits { low: Some(5.0), ..Limits::default() }, 4.0, "`note` below its low limit", "PDE", Some(&within_the_shift)),
        (Limits { high: Some(5.0), ..Limits::default() }, 6.0, "`note` above its high limit", "OHE", Some(&within_the_shift)),
    ] {
        let (said_what, words, said_by, limit) = said(&mut with(limits), value);
        let expected = ["not determin", "Read `note` ", "Not known: n", mode].map(str::to_owned);
        assert_eq!((said_what.as_str(), words, limit), (what, expected, Some(5.0)));
        by.into_iter().for_each(|by| assert_eq!(said_by, *by, "{what}"));
    }
}

#[test]
fn an_alarm_of_the_score_names_its_model_and_where_to_look() {
    let out = feed(&mut limited(), 1, &machine(ROWS + 60, ROWS + 10));
    let alarm = alarms(&out)[0];
    let shares = [alarm.contrib_1_share, alarm.contrib_2_share].map(Option::unwrap);
    assert!(shares[0] >= shares[1] && shares[1] > 0.0 && (shares[0] + shares[1] - 1.0).abs() < 1e-9, "{shares:?}");
    assert_eq!((alarm.contrib_3_share, alarm.model.as_deref()), (None, Some("stage-a")));
    let (since, by): (Timestamp, Timestamp) = (alarm.since.parse().unwrap(), alarm.respond_by.as_deref().unwrap().parse().unwrap());
    assert_eq!(by.0 - since.0, 7 * 86_400 * SECOND, "at the next round");
    assert_eq!(alarm.cause.as_deref(), Some("not determined: no rule for a fault of this machine was asked"));
    let (first, second) = (alarm.contrib_1_point.as_deref().unwrap(), alarm.contrib_2_point.as_deref().unwrap());
    assert!(alarm.advice.as_deref().unwrap().contains(&format!("Look first at `{first}`, then `{second}`")));
    assert_eq!((alarm.consequence.is_some(), alarm.failure_mode.as_deref()), (true, Some("UNK")));
}

/// The score does without it as without one that failed, its faults are none, and it returns by itself.
#[test]
fn an_instrument_returns_to_service_by_itself() {
    let mut engine = engine_with(|asset| {
        asset.points[1].scored = true;
        asset.instrument.on_delay = Duration::from_secs(2);
    });
    let with_note = |entries: Vec<Entry>| -> Vec<Entry> {
        let note = |pair: &[Entry]| {
            let Body::Reading(a) = &pair[0].body else { panic!("it is a reading") };
            [pair[0].clone(), reading(pair[0].stamp.ts.0 as f64 / 1e6 + 0.05, "note", a.value.map(|a| a * 0.5)), pair[1].clone()]
        };
        entries.chunks(2).flat_map(note).collect()
    };
    let rows = with_note(machine(ROWS + 80, usize::MAX));
    let (before, after) = rows.split_at(3 * (ROWS + 20));
    feed(&mut engine, 1, before);
    let second = 1000 + ROWS as i64 + 20;
    let detail = serde_json::json!({ "point": "b", "until": Timestamp((second + 30) * SECOND).to_string() }).to_string();
    feed(&mut engine, 2_000, &[command(second, "c1", "out_of_service", &detail)]);
    let out = feed(&mut engine, 3_000, after);
    let (during, later) = predictions(&out).into_iter().partition::<Vec<_>, _>(|prediction| prediction.reason == Some(ScoreReason::Reduced));
    assert!((25..=35).contains(&during.len()) && later.len() > 20, "{} {}", during.len(), later.len());
    assert!(during.iter().all(|prediction| prediction.health.is_none() && !prediction.above));
    // The last of them have it again, and rows before that do not.
    assert!(during[..25].iter().all(|prediction| prediction.t2.is_none()));
    assert!(later.iter().any(|prediction| prediction.t2.is_some()), "the second opinion needs all points");
    let told: Vec<(&str, &str, &str)> = events(&out);
    assert_eq!(told, [("other", "normal", "")], "back in service, and no fault before");
}

#[test]
fn an_alarm_that_comes_and_goes_is_said_to_chatter() {
    let mut engine = engine_with(|asset| {
        asset.alarm = config::AlarmSettings { on_delay: Duration::ZERO, off_delay: Duration::ZERO, latch: false };
        asset.points[1].limits = Some(Limits { high: Some(80.0), ..Limits::default() }.into());
    });
    let out = feed(&mut engine, 1, &values(100, &[81.0, 79.0, 81.0, 79.0, 81.0, 79.0]));
    let evidence: Vec<serde_json::Value> =
        alarms(&out).iter().map(|alarm| serde_json::from_str(alarm.evidence_json.as_deref().unwrap()).unwrap()).collect();
    let chattering: Vec<&serde_json::Value> = evidence.iter().map(|evidence| &evidence["chattering"]).collect();
    let (no, yes) = (&serde_json::Value::Null, &serde_json::json!({"times": 3, "within_s": 4.0}));
    assert_eq!(chattering, [no, no, no, no, yes, yes]);
}

/// Of all machines of the gateway, and in every replay the same.
#[test]
fn a_flood_of_alarms_is_told_of_at_its_beginning_and_its_end() {
    let at_once = |id: &str| {
        let mut asset = config::Asset { id: id.into(), ..asset() };
        asset.alarm = config::AlarmSettings { on_delay: Duration::ZERO, off_delay: Duration::ZERO, latch: false };
        asset.points[1].limits = Some(Limits { high: Some(80.0), high_high: Some(90.0), ..Limits::default() }.into());
        (asset.id.clone(), asset)
    };
    let mut engine = Engine::new(&(1..=11).map(|n| at_once(&format!("pump-{n}"))).collect(), &models()).unwrap();
    let of = |mut entry: Entry, n: usize| {
        entry.stamp.asset = Some(format!("pump-{n}").into());
        entry
    };
    let hot: Vec<Entry> = (1..=11).map(|n| of(reading(100.0 + n as f64, "note", Some(95.0)), n)).collect();
    let mut out = feed(&mut engine, 1, &hot[..10]);
    assert_eq!((out.len(), engine.alarm_flood()), (20, None), "what passes two limits at once counts once");
    // What people say to alarms is none.
    let seen: Vec<Entry> = (1..=10).map(|n| of(command(111, &format!("c{n}"), "acknowledge", "{}"), n)).collect();
    out = feed(&mut engine, 11, &seen);
    assert_eq!((states(&out).len(), engine.alarm_flood()), (20, None));
    out = feed(&mut engine, 25, &hot[10..]);
    let flood = |out: &[(LaneName, Entry)]| -> Vec<(String, Option<u64>, Option<Name>)> {
        let of = |(lane, entry): &(LaneName, Entry)| {
            let Body::Event(event) = &entry.body else { return None };
            let is_one = event.kind == EventKind::AlarmFlood && *lane == LaneName::Events;
            is_one.then(|| (event.what.as_deref().unwrap().to_owned(), event.count, entry.stamp.asset.clone()))
        };
        out.iter().filter_map(of).collect()
    };
    assert_eq!(flood(&out), [("began".to_owned(), Some(11), None)]);
    assert_eq!((engine.alarm_flood().unwrap().alarms, engine.counters().alarm_floods), (11, 1));
    // Another machine's time ends it, after a restart too.
    let mut engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let mut ahead = of(reading(5_000.0, "note", Some(95.0)), 1);
    let Body::Reading(of_ahead) = &mut ahead.body else { panic!("it is a reading") };
    of_ahead.reason = Some(QualityReason::Clock);
    assert_eq!(flood(&feed(&mut engine, 30, &[ahead])), [], "a sensor's clock that runs ahead is no time that passes");
    assert_eq!(flood(&feed(&mut engine, 31, &[of(event(706.9, EventKind::Tick, None), 2)])), []);
    assert_eq!(flood(&feed(&mut engine, 32, &[of(event(707.0, EventKind::Tick, None), 2)])), [("ended".to_owned(), Some(11), None)]);
    assert_eq!(engine.alarm_flood(), None);
}
