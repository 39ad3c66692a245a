//! What people ask for.
use super::*;

#[test]
fn a_person_acknowledges_accepts_and_begins_anew() {
    let mut engine = engine_with(|_| {});
    // Accepted early: a tenth fewer rows than configured.
    feed(&mut engine, 1, &machine(135, usize::MAX));
    let mut accept = event(1135.0, EventKind::Command, Some("commissioning_accepted"));
    if let Body::Event(event) = &mut accept.body {
        event.command_id = Some("c1".into());
    }
    let out = feed(&mut engine, 500, &[accept]);
    let Some((_, Ok(Some(said)))) = engine.take_outcomes().pop() else { panic!("it was accepted") };
    assert!(said.starts_with("commissioned on 135 rows") && said.ends_with("; on 135 of 150 rows"), "{said}");
    assert_eq!(events(&out), [("commissioning", "accepted", "success"), ("audit", "commissioning_accepted", "success")]);
    let baseline = engine.baselines().next().unwrap().1.clone();
    assert_eq!((baseline.accepted_by.as_deref(), baseline.remarks.as_deref()), (Some("mw"), Some("on 135 of 150 rows")));
    let mut faulty = machine(250, 135);
    feed(&mut engine, 600, &faulty.split_off(270));
    assert_eq!(engine.view("pump").unwrap().alarm_state, AlarmState::ActiveUnacknowledged);
    let out = feed(&mut engine, 1000, &[event(1250.0, EventKind::Command, Some("acknowledge"))]);
    assert_eq!((alarms(&out)[0].state, alarms(&out)[0].actor.as_deref()), (AlarmState::ActiveAcknowledged, Some("mw")));
    feed(&mut engine, 1001, &[event(1251.0, EventKind::Command, Some("maintenance_done"))]);
    assert_eq!(engine.view("pump").unwrap().progress, Some(0.0));
}

/// An impatient word costs nothing: the rows stay, and more of them make the baseline.
#[test]
fn accepting_too_early_is_refused_and_commissioning_goes_on() {
    let mut engine = engine_with(|_| {});
    let accept = [event(1000.0, EventKind::Command, Some("commissioning_accepted"))];
    let no_rows = feed(&mut engine, 1, &accept);
    assert_eq!(events(&no_rows).last(), Some(&("audit", "commissioning_accepted", "refused")));
    let entries = machine(ROWS, usize::MAX);
    feed(&mut engine, 2, &entries[..2 * 129]);
    let out = feed(&mut engine, 500, &accept);
    assert!(events(&out)[0].1 == "too_few_rows" && events(&out)[1].2 == "refused", "{:?}", events(&out));
    let Body::Event(event) = &out[0].1.body else { panic!("it is an event") };
    assert_eq!(event.text.as_deref(), Some("129 rows are collected, at least 130 are needed; commissioning goes on"));
    let Body::Event(answer) = &out[1].1.body else { panic!("it is an event") };
    assert_eq!(answer.text, event.text, "who asked hears the same");
    assert_eq!(engine.view("pump").unwrap().reason, Some(ScoreReason::Commissioning));
    feed(&mut engine, 600, &entries[2 * 129..]);
    assert_eq!(engine.baselines().next().unwrap().1.rows, ROWS as u64);
}

/// By the word of who took the command, which stands in its record.
#[test]
fn a_snapshot_is_granted_or_refused_as_the_command_says() {
    let text = "id = \"pump\"\n[[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\nfeatures = [\"a_rms\"]\n";
    let waveforms = config::check_asset_text("pump", text).unwrap().waveforms;
    let mut engine = engine_with(|asset| asset.waveforms = waveforms);
    for (seq, (detail, result, said)) in (1..).zip([
        (r#"{"point":"de-h"}"#, "success", None),
        (r#"{"point":"de-h","refused":"nothing left; possible again tomorrow"}"#, "refused", Some("nothing left; possible again tomorrow")),
        (r#"{"point":"nde","refused":"nothing left"}"#, "refused", Some("the asset has no such waveform")),
        ("{}", "refused", Some("a snapshot needs a `point`")),
    ]) {
        let mut command = event(1000.0, EventKind::Command, Some("snapshot_request"));
        if let Body::Event(event) = &mut command.body {
            (event.command_id, event.detail_json) = (Some(format!("c{seq}").into()), Some(detail.into()));
        }
        let out = feed(&mut engine, seq, &[command]);
        let Body::Event(answer) = &out[0].1.body else { panic!("it is an event") };
        assert_eq!((answer.kind, answer.result.as_deref(), answer.text.as_deref()), (EventKind::Audit, Some(result), said));
        let outcome = engine.take_outcomes().pop().unwrap().1;
        assert_eq!(outcome, said.map_or(Ok(None), |said| Err(said.into())));
        assert_eq!(crate::source::snapshot::Wanted::by(&out[0].1).is_some(), result == "success", "what is refused is not asked for");
    }
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
