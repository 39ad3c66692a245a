//! The limit on the engine: moved by the peaks of a long life, published, and the same after a restart.
use super::*;

/// A row each ten minutes, so that a week is some thousand of them.
const ROW_S: usize = 600;
/// Few, so that the limit of commissioning is too low for what a year brings.
const LEARNED: usize = 140;

fn engine() -> Engine {
    engine_with(|asset| {
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

fn moves(out: &[(LaneName, Entry)]) -> Vec<Event> {
    let event = |entry: &Entry| if let Body::Event(event) = &entry.body { Some((**event).clone()) } else { None };
    out.iter().filter_map(|(_, entry)| event(entry)).filter(|event| event.what.as_deref() == Some("limit")).collect()
}

#[test]
fn a_limit_moves_with_a_baseline_that_every_prediction_names() {
    let entries = life(31, 16_000);
    let mut undisturbed = engine();
    let out = feed(&mut undisturbed, 1, &entries);
    let moves = moves(&out);
    assert!(!moves.is_empty() && moves.len() < 6, "{}", moves.len());
    assert_eq!(undisturbed.counters().limits_moved, moves.len() as u64);

    // What was published, newest last: the one in use and the one before it.
    let baselines: Vec<_> = undisturbed.baselines().map(|(_, baseline)| baseline.clone()).collect();
    let [before, after] = &baselines[..] else { panic!("{baselines:?}") };
    assert!(after.limit > 1.05 && after.limit_by.as_ref().unwrap().contains(&format!("as in {}", before.baseline_id)), "{after:?}");
    assert_eq!((&after.weights_json, after.score_median), (&before.weights_json, before.score_median));
    let detail: serde_json::Value = serde_json::from_str(moves.last().unwrap().detail_json.as_deref().unwrap()).unwrap();
    assert_eq!((detail["baseline_id"].as_str(), detail["limit"].as_f64()), (Some(&*after.baseline_id), Some(after.limit)));

    // Each prediction has the limit of the baseline that it names.
    let predictions = predictions(&out);
    let limits: BTreeMap<&str, f64> = predictions.iter().filter_map(|p| Some((p.baseline_id.as_deref()?, p.limit?))).collect();
    assert_eq!((limits.len(), limits[&*after.baseline_id], limits[&*before.baseline_id]), (moves.len() + 1, after.limit, before.limit));
    assert!(predictions.iter().all(|p| p.baseline_id.as_deref().is_none_or(|id| p.limit == Some(limits[id]))));
    let (view, last) = (undisturbed.view("pump").unwrap(), predictions.last().unwrap());
    assert_eq!((view.limit, view.baseline_id.as_deref()), (last.limit, Some(&*after.baseline_id)));

    // A restart in the middle of it changes nothing.
    let at = |id: &Name| id.split('-').nth(1).unwrap().parse::<usize>().unwrap();
    for cut in [entries.len() / 3, at(&after.baseline_id) - 1, at(&after.baseline_id), entries.len() - 1] {
        let mut first = engine();
        let mut outputs = feed(&mut first, 1, &entries[..cut]);
        let mut second = Engine::restore(Bundles::offered_in(&models()), &first.snapshot()).unwrap();
        outputs.extend(feed(&mut second, cut as u64 + 1, &entries[cut..]));
        assert!(outputs == out && second.snapshot() == undisturbed.snapshot(), "cut at {cut}");
    }
}

/// While there is an alarm, or somebody works on it, the machine is not as it should be.
#[test]
fn a_machine_with_an_open_case_teaches_no_limit() {
    for command in [None, Some("out_of_service")] {
        let mut engine = engine();
        let entries = life(31, 16_000);
        let (learned, lived) = entries.split_at(2 * LEARNED + 200);
        feed(&mut engine, 1, learned);
        match command {
            Some(_) => drop(feed(&mut engine, 500, &[event(1_000_000.0, EventKind::Command, command)])),
            None => {
                let AssetRun { config, state, .. } = engine.assets.values_mut().next().unwrap();
                let condition = alarms::Condition::Limit(config.points[0].id.clone(), config::Level::High);
                let evidence = evidence::Evidence { value: 1.0, quality: Quality::Good, range: None, of_score: None };
                let delays = crate::inference::alarm::Delays { on_us: 0, off_us: 0, latch: false };
                state.alarms.update(&condition, (true, evidence), Timestamp(0), delays, || "1/1".into()).unwrap();
            }
        }
        let out = feed(&mut engine, 501, lived);
        assert!(moves(&out).is_empty(), "{command:?}");
    }
}
