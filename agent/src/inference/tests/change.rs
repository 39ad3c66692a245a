//! Changes of configuration and bundle.
use super::*;

fn change(what: &str, asset: Option<&str>, config: Option<&config::Asset>, hash_after: Option<&str>) -> Entry {
    let event = Event {
        what: Some(what.into()),
        hash_after: hash_after.map(Into::into),
        detail_json: config.map(configured::configuration),
        ..Event::new(EventKind::Change)
    };
    Entry { stamp: Stamp { asset: asset.map(Into::into), ..stamp(999.0) }, cause: None, body: Body::Event(event.into()) }
}

pub(super) fn configuration(config: &config::Asset) -> Entry {
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
    bundles.keep(&first, &[], &[]).unwrap();
    let mut engine = Engine::with_assets(&BTreeMap::from([("pump".into(), asset())]), bundles.clone()).unwrap();
    feed(&mut engine, 1, &machine(200, 200));
    let snapshot = engine.snapshot();
    let version = format!("version = \"{}\"", first.manifest().version);
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(&version));
    std::fs::write(&manifest, text.replace(&version, "version = \"next\"")).unwrap();
    let second = bundles.offered().unwrap();
    bundles.keep(&second, &[], &[first.hash()]).unwrap();

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
