//! Remaining life by the shipped bundle of turbofan engines.
use super::{
    super::{
        assignment::{Accepted, assign},
        row_features::Life,
        stage_b::StageB,
        verification,
    },
    *,
};

const WITH_AGE: &str = "turbofan-rul/with-age";
/// Rows of an engine's life before its record begins.
const BEFORE: u64 = 40;

fn stage_b(folder: &str) -> StageB {
    StageB::new(Bundles::offered_in(&models()).offered_at(folder).unwrap()).unwrap()
}

/// A machine with what the bundle takes, none of it scored but the first, `edit`ed, and its bundle assigned.
fn engine_asset(edit: impl FnOnce(&mut config::Asset)) -> config::Asset {
    let mut asset = asset();
    let point = |(id, unit): (&str, &str)| config::Point { id: id.into(), unit: unit.into(), scored: id == "T24", ..asset.points[0].clone() };
    let stage_b = stage_b(WITH_AGE);
    asset.points = stage_b.features().inputs().map(point).collect();
    asset.forecast.model = Some(config::ForecastModel { folder: WITH_AGE.into(), age_rows: Some(BEFORE), bundle: None, refused: None });
    edit(&mut asset);
    let mut assets = BTreeMap::from([(asset.id.clone(), asset)]);
    assign(&mut assets, &Bundles::offered_in(&models()), &Accepted::new(), |_| Ok(1.0));
    assets.pop_first().unwrap().1
}

fn started(asset: config::Asset) -> Engine {
    Engine::new(&BTreeMap::from([(asset.id.clone(), asset)]), &models()).unwrap()
}

/// Readings of `rows` cycles in the first flight condition, some noise about its means, and drifting away from them.
fn cycles(rows: std::ops::Range<usize>) -> Vec<Entry> {
    let stage_b = stage_b(WITH_AGE);
    let (features, mut noise) = (stage_b.features(), Noise(3));
    let centre = &features.regimes.as_ref().unwrap().centres[0];
    let row = |n: usize| {
        let drift = (n as f64 / 60.0).powi(2);
        let point = |(mean, deviation): (&f64, &f64), noise: &mut Noise| mean + deviation * (drift * 0.5 + 0.3 * noise.next());
        let values: Vec<f64> = centre.mean.iter().zip(&centre.deviation).map(|of| point(of, &mut noise)).chain(centre.at.iter().copied()).collect();
        features.inputs().zip(values).map(move |((id, _), value)| reading(1_000.0 + n as f64, id, Some(value))).collect::<Vec<_>>()
    };
    let mut all: Vec<Vec<Entry>> = (0..rows.end).map(row).collect();
    all.drain(..rows.start);
    all.concat()
}

#[test]
fn remaining_life_is_told_from_the_first_row_on_and_is_another_word() {
    let mut engine = started(engine_asset(|_| {}));
    let out = feed(&mut engine, 1, &cycles(0..120));
    let told: Vec<&Prediction> = predictions(&out).into_iter().filter(|p| p.forecast.as_deref() == Some("remaining_life")).collect();
    assert!(told.len() > 100, "{}", told.len());
    assert!(told.iter().all(|p| p.phase == Phase::Commissioning), "it waits for no commissioning");
    let (first, last) = (told[0], told[told.len() - 1]);
    assert_eq!((last.end_event.as_deref(), last.forecast_model.as_deref()), (Some("functional_failure"), Some("turbofan-rul-with-age")));
    assert_eq!(last.life_rows, Some(BEFORE + 119), "cycle 120 is still open");
    assert!(last.remaining_life_s < first.remaining_life_s, "{:?} {:?}", first.remaining_life_s, last.remaining_life_s);
    for p in told {
        assert!(p.t_p10_s <= p.t_p50_s && p.t_p50_s <= p.t_p90_s);
        assert!(p.p_fail_1 <= p.p_fail_2 && p.p_fail_2 <= p.p_fail_3);
        assert!(p.failure_mode.is_some() && p.model.as_deref() == Some("stage-a"), "the score is another model's");
    }
}

/// From the readings of the range that it names, and the bundle that it names, to the same numbers.
#[test]
fn a_prediction_can_be_recomputed_from_what_it_names() {
    let asset = engine_asset(|asset| asset.forecast.horizons = [10, 30, 50].map(Duration::from_secs));
    let entries = cycles(0..90);
    let out = feed(&mut started(asset), 1, &entries);
    let told = *predictions(&out).last().unwrap();
    let seq = |name: &Option<Name>| name.as_deref().unwrap().split_once('/').unwrap().1.parse::<usize>().unwrap();
    let named = &entries[seq(&told.forecast_input_from) - 1..seq(&told.forecast_input_to)];

    let mut stage_b = stage_b(WITH_AGE);
    assert_eq!(told.forecast_model_hash.as_ref(), Some(&stage_b.names.hash));
    let inputs = stage_b.features().inputs().count();
    let mut life = Life::since(stage_b.features(), told.life_rows.unwrap() - (named.len() / inputs) as u64);
    let mut features = Vec::new();
    for row in named.chunks(inputs) {
        let values: Vec<Option<f64>> = row.iter().map(|entry| if let Body::Reading(reading) = &entry.body { reading.value } else { None }).collect();
        let (points, settings) = values.split_at(stage_b.features().points.len());
        features = life.push(stage_b.features(), points, settings).unwrap();
    }
    let (of, levels) = (stage_b.run(&features).unwrap(), stage_b.manifest().levels.clone());
    let expected = [of.mean, of.quantile(&levels, 0.1), of.quantile(&levels, 0.5), of.quantile(&levels, 0.9)].map(Some);
    assert_eq!([told.remaining_life_s, told.t_p10_s, told.t_p50_s, told.t_p90_s], expected);
    let within = [10.0, 30.0, 50.0].map(|rows| Some(of.within(&levels, rows)));
    assert_eq!([told.p_fail_1, told.p_fail_2, told.p_fail_3], within);
}

#[test]
fn a_restart_changes_nothing() {
    let entries = cycles(0..80);
    let (before, after) = entries.split_at(entries.len() / 2 + 5);
    let mut first = started(engine_asset(|_| {}));
    feed(&mut first, 1, before);
    let mut second = Engine::restore(Bundles::offered_in(&models()), &first.snapshot()).unwrap();
    let continued = [&mut first, &mut second].map(|engine| feed(engine, 1 + before.len() as u64, after));
    assert!(predictions(&continued[0]).iter().all(|p| p.forecast.as_deref() == Some("remaining_life")));
    assert_eq!(continued[0], continued[1]);
    assert_eq!(first.snapshot(), second.snapshot());
}

/// What is not measured is not filled in, and what was said of an older row is not said for ever.
#[test]
fn without_a_value_nothing_is_told() {
    let mut engine = started(engine_asset(|_| {}));
    feed(&mut engine, 1, &cycles(0..30));
    let bad = |entry: Entry| match &entry.body {
        Body::Reading(reading) if &*reading.point == "T50" => self::reading(entry.stamp.ts.0 as f64 / 1e6, "T50", None),
        _ => entry,
    };
    let out = feed(&mut engine, 1_000, &cycles(30..36).into_iter().map(bad).collect::<Vec<_>>());
    assert!(predictions(&out).iter().skip(1).all(|p| p.forecast.is_none()), "a bad value is no value, though an older one is held");
    let out = feed(&mut engine, 2_000, &cycles(36..38));
    assert_eq!(predictions(&out).last().unwrap().life_rows, Some(BEFORE + 37), "rows without features count as life");
    let out = feed(&mut engine, 3_000, &[event(1_050.0, EventKind::Tick, None)]);
    assert!(predictions(&out).last().unwrap().forecast.is_none(), "silent for 12 s");
}

/// Each input is held for its own time, and what was said lasts as long as the one that holds shortest.
#[test]
fn inputs_of_the_model_hold_for_their_own_time() {
    let told = |stale_s: &[(&str, u64)], change_s: Option<u64>| {
        let stale = |asset: &mut config::Asset| {
            for point in &mut asset.points {
                let own = stale_s.iter().find(|(id, _)| [&*point.id, "*"].contains(id));
                point.stale_after = own.map(|(_, seconds)| Duration::from_secs(*seconds));
            }
        };
        let mut asset = engine_asset(stale);
        let mut engine = started(asset.clone());
        feed(&mut engine, 1, &cycles(0..30));
        if let Some(seconds) = change_s {
            asset.points.iter_mut().for_each(|point| point.stale_after = Some(Duration::from_secs(seconds)));
            asset.hash = "patient".into();
            feed(&mut engine, 900, &[change::configuration(&asset)]);
        }
        let is_t50 = |entry: &Entry| matches!(&entry.body, Body::Reading(reading) if &*reading.point == "T50");
        let without: Vec<Entry> = cycles(30..45).into_iter().filter(|entry| !is_t50(entry)).collect();
        feed(&mut engine, 1_000, &without);
        let held = engine.view("pump").unwrap().prognosis.is_some();
        feed(&mut engine, 2_000, &[event(1_060.0, EventKind::Tick, None)]);
        (held, engine.view("pump").unwrap().prognosis.is_some())
    };
    assert_eq!(told(&[], None), (false, false));
    assert_eq!(told(&[("T50", 60)], None), (true, false));
    assert_eq!(told(&[("*", 60)], None), (true, true));
    assert_eq!(told(&[], Some(60)), (true, true), "from its change on");
}

#[test]
fn maintenance_begins_a_new_life() {
    let mut engine = started(engine_asset(|_| {}));
    feed(&mut engine, 1, &cycles(0..30));
    feed(&mut engine, 900, &[event(1_030.0, EventKind::Command, Some("maintenance_done"))]);
    let out = feed(&mut engine, 1_000, &cycles(30..35));
    let told: Vec<Option<u64>> = predictions(&out).iter().map(|p| p.life_rows).collect();
    assert_eq!(told.last(), Some(&Some(4)), "{told:?}");
}

#[test]
fn a_machine_that_lacks_what_the_model_needs_is_told_so() {
    type Edit = fn(&mut config::Asset);
    let edits: [(Edit, &str); 4] = [
        (|asset| drop(asset.points.remove(2)), "it has no point `T50` ([degR])"),
        (|asset| asset.points[0].unit = "Cel".into(), "`T24` is in Cel, the model takes [degR]"),
        (|asset| asset.forecast.model.as_mut().unwrap().age_rows = None, "it needs the age: `age` in [forecast]"),
        (|asset| asset.forecast.model.as_mut().unwrap().folder = "nowhere".into(), "nowhere"),
    ];
    for (edit, expected) in edits {
        let asset = engine_asset(edit);
        let model = asset.forecast.model.clone().unwrap();
        assert_eq!(model.bundle, None);
        assert!(model.refused.as_deref().unwrap().contains(expected), "{model:?}");
        let mut engine = started(asset);
        let out = feed(&mut engine, 1, &cycles(0..10));
        assert!(predictions(&out).iter().all(|p| p.forecast.is_none()));
    }
}

/// The folder is damaged by an update that went wrong: what served until then goes on serving.
#[test]
fn the_old_bundle_stays_when_the_new_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("models").join(WITH_AGE);
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(models().join(WITH_AGE)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let bundles = Bundles::with_copies_in(&dir.path().join("models"), &dir.path().join("data"));
    let asset = engine_asset(|_| {});
    let assign_now = |accepted: &Accepted| {
        let mut assets = BTreeMap::from([(asset.id.clone(), asset.clone())]);
        let assigned = assign(&mut assets, &bundles, accepted, |folder| verification::look(folder).map(|run| run.as_secs_f64()));
        (assets.pop_first().unwrap().1, assigned)
    };
    let (first, assigned) = assign_now(&Accepted::new());
    let offered = Bundles::offered_in(&models()).offered().unwrap();
    std::fs::create_dir_all(dir.path().join("models/stage-a")).unwrap();
    for name in offered.file_names() {
        std::fs::copy(models().join("stage-a").join(name), dir.path().join("models/stage-a").join(name)).unwrap();
    }
    bundles.keep(&offered, &assigned.bundles, &[]).unwrap();
    let served = first.forecast.model.clone().unwrap().bundle.unwrap();

    let model = folder.join("model.onnx");
    let mut bytes = std::fs::read(&model).unwrap();
    bytes.truncate(1_000);
    std::fs::write(&model, bytes).unwrap();
    let (second, _) = assign_now(&Accepted::from([(WITH_AGE.into(), served.clone())]));
    let told = second.forecast.model.clone().unwrap();
    assert_eq!(told.bundle, Some(served));
    assert!(told.refused.unwrap().contains("was changed"));
    assert_ne!(first.hash, second.hash, "and it is on record");
    let mut engine = Engine::with_assets(&BTreeMap::from([(second.id.clone(), second)]), bundles.clone()).unwrap();
    let out = feed(&mut engine, 1, &cycles(0..5));
    assert_eq!(predictions(&out).last().unwrap().forecast.as_deref(), Some("remaining_life"));
    let (third, _) = assign_now(&Accepted::new());
    assert_eq!(third.forecast.model.unwrap().bundle, None, "nothing served before");
}

#[test]
fn a_failure_that_is_likely_within_the_first_horizon_is_an_alarm_until_it_is_not() {
    let horizons = |first: u64| move |asset: &mut config::Asset| asset.forecast.horizons = [first, 500, 1_000].map(Duration::from_secs);
    let mut calm = started(engine_asset(horizons(2)));
    assert_eq!(alarms(&feed(&mut calm, 1, &cycles(0..40))), Vec::<&Alarm>::new());
    let mut engine = started(engine_asset(horizons(400)));
    let out = feed(&mut engine, 1, &cycles(0..40));
    let [alarm] = alarms(&out)[..] else { panic!("{:?}", alarms(&out)) };
    assert_eq!((alarm.priority, alarm.state, alarm.limit), (Priority::Medium, AlarmState::ActiveUnacknowledged, Some(0.5)));
    assert!(alarm.what.starts_with("functional failure within 7 min is likely: "), "{}", alarm.what);
    assert_eq!((alarm.model.as_deref(), alarm.confidence), (Some("turbofan-rul-with-age"), alarm.value));
    assert!(alarm.cause.as_deref().unwrap().contains("compressor") && alarm.advice.as_deref().unwrap().contains("Half of such machines"));
    assert_eq!(alarm.input_from.as_deref(), Some("inc/1"), "the whole life is behind it");
    let mut restored = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let mut configured = restored.configurations().next().unwrap().1.clone();
    horizons(2)(&mut configured);
    configured.hash = "other".into();
    let detail_json = Some(configured::configuration(&configured));
    let change = Event { what: Some("configuration".into()), hash_after: Some("other".into()), detail_json, ..Event::new(EventKind::Change) };
    feed(&mut restored, 1_000, &[Entry { stamp: stamp(1_040.0), cause: None, body: Body::Event(change.into()) }]);
    let out = feed(&mut restored, 1_001, &cycles(40..60));
    assert_eq!(alarms(&out)[0].state, AlarmState::ReturnedUnacknowledged, "no longer likely, and nobody had seen it");
    assert_eq!(predictions(&out).last().unwrap().life_rows, Some(BEFORE + 59), "the life goes on");
}
