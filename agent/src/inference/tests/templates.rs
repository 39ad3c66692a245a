//! What ships in `config/`, on the engine.
use std::path::Path;

use super::*;

/// The shipped fan, learned from a few rows.
fn fan() -> Engine {
    let config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
    let mut asset = config.assets["fan-7"].clone();
    (asset.id, asset.commissioning.rows, asset.commissioning.starts) = ("pump".into(), ROWS, 0);
    Engine::new(&BTreeMap::from([(asset.id.clone(), asset)]), &models()).unwrap()
}

/// A fan that runs for `seconds`, then coasts down within `coast_s`, through a resonance at 700/min where its velocity is in zone D.
fn coasting(seconds: u32, coast_s: u32) -> Vec<Entry> {
    let mut noise = Noise(21);
    let row = |second: u32| {
        let speed = 1_480.0 * (1.0 - f64::from(second.saturating_sub(seconds)) / f64::from(coast_s)).clamp(0.0, 1.0);
        let velocity = 1.2 * speed / 1_480.0 + 12.0 * f64::exp(-((speed - 700.0) / 150.0).powi(2));
        let wander = |level: f64, noise: f64| Some(level * (1.0 + 0.02 * noise));
        let values = [("speed", Some(speed + 0.5 * noise.next())), ("temperature", wander(50.0, noise.next()))];
        let vibration = [("de-h.v_rms", wander(velocity, noise.next())), ("de-h.kurtosis", wander(3.0, noise.next()))];
        values.into_iter().chain(vibration).map(move |(point, value)| reading(1_000.0 + f64::from(second), point, value))
    };
    (0..seconds + coast_s + 60).flat_map(row).collect()
}

/// Large fans take minutes: what they pass on the way is neither an alarm nor normal.
#[test]
fn a_fan_that_coasts_down_slowly_raises_nothing() {
    for coast_s in [60, 300, 900] {
        let out = feed(&mut fan(), 1, &coasting(600, coast_s));
        let raised: Vec<_> = alarms(&out)
            .iter()
            .filter(|alarm| alarm.state == AlarmState::ActiveUnacknowledged)
            .map(|alarm| (alarm.point.clone(), alarm.value, alarm.state, alarm.since.clone()))
            .collect();
        assert!(raised.is_empty(), "within {coast_s} s: {raised:?}");
        let learned = events(&out).iter().filter(|(kind, what, _)| (*kind, *what) == ("commissioning", "accepted")).count();
        assert_eq!(learned, 1, "{:?}", events(&out));
    }
}
