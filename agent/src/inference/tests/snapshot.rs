//! A snapshot holds all that counts.
use super::*;

#[test]
fn a_restored_engine_goes_on_number_for_number() {
    let entries = machine(400, 300);
    let mut undisturbed = engine_with(|_| {});
    let expected = feed(&mut undisturbed, 1, &entries);
    // Within commissioning, between the readings of a row, after the fit, during the on-delay, in the alarm.
    for cut in [101, 250, 300, 301, 613, 700] {
        let mut before = engine_with(|_| {});
        let mut out = feed(&mut before, 1, &entries[..cut]);
        let snapshot = before.snapshot();
        drop(before);
        let mut after = Engine::restore(Bundles::offered_in(&models()), &snapshot).unwrap();
        assert_eq!(after.snapshot(), snapshot, "cut at {cut}");
        out.extend(feed(&mut after, cut as u64 + 1, &entries[cut..]));
        assert!(out == expected, "cut at {cut}");
        assert_eq!(after.shared.baselines, undisturbed.shared.baselines, "cut at {cut}");
        // What no record holds: how new the last row is.
        assert_eq!(after.view("pump"), undisturbed.view("pump"), "cut at {cut}");
    }
}

#[test]
fn garbage_is_no_snapshot() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(200, 200));
    let snapshot = engine.snapshot();
    for garbage in [&b""[..], &[9, 1, 2], &snapshot[..snapshot.len() / 2]] {
        assert!(matches!(Engine::restore(Bundles::offered_in(&models()), garbage), Err(InferenceError::Snapshot(_))));
    }
}
