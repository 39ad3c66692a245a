//! What moves after commissioning, on the engine: the limit by the peaks of a long life, the means by its rows; published, and the same after a restart.
use std::collections::BTreeSet;

use super::*;

/// A row each ten minutes, so that a week is some thousand of them.
const ROW_S: usize = 600;
/// Few, so that the limit of commissioning is too low for what a year brings.
const LEARNED: usize = 140;

fn engine(adapts: bool) -> Engine {
    engine_with(|asset| {
        asset.commissioning.adapts = adapts;
        asset.grid = Duration::from_secs(ROW_S as u64);
        asset.stale_after = Duration::from_secs(3 * ROW_S as u64);
        asset.predict_every = Duration::from_secs(ROW_S as u64);
        asset.commissioning.rows = LEARNED;
        asset.alarm.on_delay = Duration::from_secs(1_000_000);
    })
}

/// The rows of a machine; on some days its noise is larger than on others, which commissioning did not see.
fn life(seed: u64, rows: usize) -> Vec<Entry> {
    let (mut noise, mut a) = (Noise(seed), 0.0);
    let mut entries = Vec::new();
    for row in 0..rows {
        let size = if row > LEARNED && row / 40 % 5 == 0 { 1.6 } else { 1.0 };
        let b = 2.0 * a + 0.1 * size * noise.next();
        a = 0.8 * a + size * noise.next();
        let second = (1_000_000 + row * ROW_S) as f64;
        entries.push(reading(second, "a", Some(a)));
        entries.push(reading(second + 0.1, "b", Some(b)));
    }
    entries
}

/// The events that tell of a move of `what`.
fn moves(out: &[(LaneName, Entry)], what: &str) -> Vec<Event> {
    let event = |entry: &Entry| if let Body::Event(event) = &entry.body { Some((**event).clone()) } else { None };
    out.iter().filter_map(|(_, entry)| event(entry)).filter(|event| event.what.as_deref() == Some(what)).collect()
}

fn detail(event: &Event) -> serde_json::Value {
    serde_json::from_str(event.detail_json.as_deref().unwrap()).unwrap()
}

/// With a restart just before and after the input that made `baseline`, and elsewhere, all comes out as without one.
fn restarts_change_nothing(entries: &[Entry], (out, undisturbed): (&[(LaneName, Entry)], &Engine), baseline: &Name, adapts: bool) {
    let at: usize = baseline.split('-').nth(1).unwrap().parse().unwrap();
    for cut in [entries.len() / 3, at - 1, at, entries.len() - 1] {
        let mut first = engine(adapts);
        let mut outputs = feed(&mut first, 1, &entries[..cut]);
        let mut second = Engine::restore(Bundles::offered_in(&models()), &first.snapshot()).unwrap();
        outputs.extend(feed(&mut second, cut as u64 + 1, &entries[cut..]));
        assert!(outputs == out && second.snapshot() == undisturbed.snapshot(), "cut at {cut}");
    }
}

#[test]
fn a_limit_moves_with_a_baseline_that_every_prediction_names() {
    let entries = life(31, 16_000);
    let mut undisturbed = engine(false);
    let out = feed(&mut undisturbed, 1, &entries);
    let moves = moves(&out, "limit");
    assert!(!moves.is_empty() && moves.len() < 6, "{}", moves.len());
    assert_eq!(undisturbed.counters().limits_moved, moves.len() as u64);

    // What was published, newest last: the one in use and the one before it.
    let baselines: Vec<_> = undisturbed.baselines().map(|(_, baseline)| baseline.clone()).collect();
    let [before, after] = &baselines[..] else { panic!("{baselines:?}") };
    assert!(after.limit > 1.05 && after.limit_by.as_ref().unwrap().contains(&format!("as in {}", before.baseline_id)), "{after:?}");
    assert_eq!((&after.weights_json, after.score_median), (&before.weights_json, before.score_median));
    let detail = detail(moves.last().unwrap());
    assert_eq!((detail["baseline_id"].as_str(), detail["limit"].as_f64()), (Some(&*after.baseline_id), Some(after.limit)));

    // Each prediction has the limit of the baseline that it names.
    let predictions = predictions(&out);
    let limits: BTreeMap<&str, f64> = predictions.iter().filter_map(|p| Some((p.baseline_id.as_deref()?, p.limit?))).collect();
    assert_eq!((limits.len(), limits[&*after.baseline_id], limits[&*before.baseline_id]), (moves.len() + 1, after.limit, before.limit));
    assert!(predictions.iter().all(|p| p.baseline_id.as_deref().is_none_or(|id| p.limit == Some(limits[id]))));
    let (view, last) = (undisturbed.view("pump").unwrap(), predictions.last().unwrap());
    assert_eq!((view.limit, view.baseline_id.as_deref()), (last.limit, Some(&*after.baseline_id)));

    restarts_change_nothing(&entries, (&out, &undisturbed), &after.baseline_id, false);
}

/// A day of rows knows a mean badly. Weeks of them bring it nearer to where the machine is, which is 0 here.
#[test]
fn means_move_with_a_baseline_that_every_prediction_names() {
    let entries = life(31, 6_000);
    let mut undisturbed = engine(true);
    let out = feed(&mut undisturbed, 1, &entries);
    let moved = moves(&out, "means");
    assert!(!moved.is_empty());
    assert_eq!(undisturbed.counters().means_moved, moved.len() as u64);

    let baselines: Vec<_> = undisturbed.baselines().map(|(_, baseline)| baseline.clone()).collect();
    let [before, after] = &baselines[..] else { panic!("{baselines:?}") };
    let told = detail(moved.last().unwrap());
    assert_eq!((told["baseline_id"].as_str(), told["previous"].as_str()), (Some(&*after.baseline_id), Some(&*before.baseline_id)));
    assert!(after.means_by.as_ref().unwrap().ends_with(&format!("as in {}", before.baseline_id)), "{after:?}");

    // All of the weights but the means is as before, and these moved by what the event says.
    let weights = |baseline: &Baseline| serde_json::from_str::<serde_json::Value>(&baseline.weights_json).unwrap();
    let (mut old, mut new) = (weights(before), weights(after));
    let (old_means, new_means) = (old["mean"].take(), new["mean"].take());
    assert_eq!((old.clone(), before.limit, before.score_median), (new, after.limit, after.score_median));
    for (index, point) in ["a", "b"].into_iter().enumerate() {
        let number = |of: &serde_json::Value| of[index].as_f64().unwrap();
        let by = (number(&new_means) - number(&old_means)) * number(&old["inv_std"]);
        assert!((by - told["moved_by_deviations"][point].as_f64().unwrap()).abs() < 1e-9, "{point}: {by}");
    }
    let first_mean = |out: &[(LaneName, Entry)]| {
        let mut learned = engine(true);
        feed(&mut learned, 1, &entries[..2 * LEARNED + 4]);
        let baseline = learned.baselines().next().unwrap().1.clone();
        assert!(predictions(out).iter().any(|p| p.baseline_id.as_ref() == Some(&baseline.baseline_id)));
        weights(&baseline)["mean"][0].as_f64().unwrap()
    };
    let (began, ended) = (first_mean(&out), new_means[0].as_f64().unwrap());
    assert!(ended.abs() < 0.8 * began.abs(), "{began} {ended}");

    let named: BTreeSet<_> = predictions(&out).iter().filter_map(|p| p.baseline_id.clone()).collect();
    assert_eq!(named.len(), moved.len() + 1 + moves(&out, "limit").len());
    assert_eq!(undisturbed.view("pump").unwrap().baseline_id.as_deref(), Some(&*after.baseline_id));
    restarts_change_nothing(&entries, (&out, &undisturbed), &after.baseline_id, true);

    let mut fixed = engine(false);
    assert!(moves(&feed(&mut fixed, 1, &entries), "means").is_empty());
}

/// One point follows the other, and each follows the load. What goes wrong between them is little beside what the load does, and comes within half a year:
/// were all of it taken for normal, nobody would ever hear of it.
#[test]
fn what_comes_slowly_between_points_is_seen_in_the_end() {
    let mut engine = engine_with(|asset| {
        asset.grid = Duration::from_secs(ROW_S as u64);
        asset.stale_after = Duration::from_secs(3 * ROW_S as u64);
        asset.predict_every = Duration::from_secs(ROW_S as u64);
        asset.commissioning.rows = 1_000;
        asset.alarm.on_delay = Duration::from_secs(1_000_000);
    });
    let (mut noise, mut a) = (Noise(5), 0.0);
    let mut entries = Vec::new();
    for row in 0..30_000 {
        // The spread of `b` is 3.5, that of its noise 1.
        let wrong = 3.3 * (f64::from(row - 1_000).max(0.0) / 22_000.0).min(1.0);
        let b = 2.0 * a + noise.next() + wrong;
        a = 0.8 * a + noise.next();
        let second = f64::from(1_000_000 + row * ROW_S as i32);
        entries.extend([reading(second, "a", Some(a)), reading(second + 0.1, "b", Some(b))]);
    }
    let out = feed(&mut engine, 1, &entries);
    assert!(!moves(&out, "means").is_empty());
    assert!(engine.view("pump").unwrap().above, "{:?}", engine.view("pump").unwrap().score);
}

/// An alarm begins the weeks of all regimes anew, also where it came and went while the machine stood.
#[test]
fn what_is_accepted_ends_with_an_alarm_in_every_regime() {
    let mut engine = engine(true);
    feed(&mut engine, 1, &life(31, LEARNED + 200));
    let state = &mut engine.assets.values_mut().next().unwrap().state;
    let centre = |state: &mut asset::AssetState| {
        let asset::Stage::Scoring(scoring) = state.stages_mut().next().unwrap() else { panic!("it is learned") };
        scoring.centre.clone()
    };
    // The regime that has learned waits, while the machine is in another one.
    state.enter(crate::inference::operating::Regime::Load(0));
    state.enter(crate::inference::operating::Regime::Load(1));
    state.forget_unless_quiet();
    assert_ne!(centre(state), centre::Centre::new(2));
    state.alarms.silence(None, alarms::Silence::OutOfService { until: None }).unwrap();
    state.forget_unless_quiet();
    assert_eq!(centre(state), centre::Centre::new(2));
}

/// While there is an alarm, or somebody works on it, the machine is not as it should be.
#[test]
fn a_machine_with_an_open_case_teaches_neither_limit_nor_means() {
    for command in [None, Some("out_of_service")] {
        let mut engine = engine(true);
        let entries = life(31, 16_000);
        let (learned, lived) = entries.split_at(2 * LEARNED + 200);
        feed(&mut engine, 1, learned);
        match command {
            Some(_) => drop(feed(&mut engine, 500, &[event(1_000_000.0, EventKind::Command, command)])),
            None => {
                let AssetRun { config, state, .. } = engine.assets.values_mut().next().unwrap();
                let condition = alarms::Condition::Limit(config.points[0].id.clone(), config::Level::High);
                let evidence =
                    evidence::Evidence { value: 1.0, ts: Timestamp(0), quality: Quality::Good, range: None, of_score: None, of_forecast: None };
                let delays = crate::inference::alarm::Delays { on_us: 0, off_us: 0, lasts_us: 0, latch: false };
                state.alarms.update(&condition, (true, evidence), Timestamp(0), delays, || "1/1".into()).unwrap();
            }
        }
        let out = feed(&mut engine, 501, lived);
        assert!(moves(&out, "limit").is_empty() && moves(&out, "means").is_empty(), "{command:?}");
    }
}
