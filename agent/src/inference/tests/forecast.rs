//! Time to limit on the engine: none while nothing grows, then one that a later reading confirms, and the same after a restart.
use super::*;

/// A row each ten minutes.
const ROW_S: usize = 600;
const LEARNED: usize = 300;
/// From here on the velocity rises, 1.8 mm/s in so many rows: from 1 mm/s to the boundary of zone C.
const RISES_FROM: usize = 1_200;
const RISES_FOR: usize = 1_500;

fn engine() -> Engine {
    engine_with(|asset| {
        asset.grid = Duration::from_secs(ROW_S as u64);
        asset.stale_after = Duration::from_secs(3 * ROW_S as u64);
        asset.predict_every = Duration::from_secs(ROW_S as u64);
        asset.commissioning.rows = LEARNED;
        asset.points[0].severity = Some("2-rigid".into());
    })
}

/// `a` is the velocity.
fn life(rows: usize) -> Vec<Entry> {
    let mut noise = Noise(9);
    let row = |row: usize| {
        let risen = 1.8 * row.saturating_sub(RISES_FROM) as f64 / RISES_FOR as f64;
        let second = (1_000_000 + row * ROW_S) as f64;
        [reading(second, "a", Some(1.0 + risen + 0.03 * noise.next())), reading(second + 0.1, "b", Some(40.0 + noise.next()))]
    };
    (0..rows).flat_map(row).collect()
}

/// Word, event, and p10, p50, p90 in days.
type Told = (Option<String>, Option<String>, [f64; 3]);

/// What is told at each row.
fn told(out: &[(LaneName, Entry)]) -> Vec<Told> {
    let days = |seconds: Option<f64>| seconds.unwrap_or(f64::NAN) / 86_400.0;
    let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string);
    predictions(out).iter().map(|p| (text(&p.forecast), text(&p.end_event), [p.t_p10_s, p.t_p50_s, p.t_p90_s].map(days))).collect()
}

#[test]
fn a_velocity_that_rises_is_told_when_it_reaches_the_next_zone() {
    let entries = life(RISES_FROM + RISES_FOR);
    let out = feed(&mut engine(), 1, &entries);
    let told = told(&out);
    assert_eq!(told.len(), RISES_FROM + RISES_FOR);
    assert!(told[..LEARNED - 1].iter().all(|(word, ..)| word.is_none()), "nothing is forecast of what is not known");
    assert!(told[LEARNED + 10..RISES_FROM].iter().all(|(word, ..)| word.as_deref() == Some("no_trend")));

    // The score passes its limit long before; the last third of the way is that of the velocity alone.
    let last_third = RISES_FROM + RISES_FOR * 2 / 3;
    let good = |(row, (word, event, [p10, p50, p90])): (usize, &Told)| {
        let left = (RISES_FROM + RISES_FOR - row) as f64 * ROW_S as f64 / 86_400.0;
        assert_eq!((word.as_deref(), event.as_deref()), (Some("time_to_limit"), Some("a:zone_c")), "row {row}");
        assert!(p10 <= p50 && p50 <= p90, "row {row}: {p10} {p50} {p90}");
        (p50 - left).abs() < 0.3 * left.max(0.5)
    };
    let until = RISES_FROM + RISES_FOR - 60;
    let within = told.iter().enumerate().skip(last_third).take(until - last_third).filter(|told| good((told.0, told.1))).count();
    assert!(10 * within > 9 * (until - last_third), "{within} of {}", until - last_third);
}

#[test]
fn probabilities_and_quantiles_are_of_one_distribution() {
    let out = feed(&mut engine(), 1, &life(RISES_FROM + RISES_FOR / 2));
    let predictions = predictions(&out);
    let last = predictions.last().unwrap();
    assert_eq!([last.horizon_1_s, last.horizon_2_s, last.horizon_3_s], [1.0, 7.0, 30.0].map(|days| Some(days * 86_400.0)));
    let [within_1, within_2, within_3] = [last.p_fail_1, last.p_fail_2, last.p_fail_3].map(Option::unwrap);
    assert!(0.0 <= within_1 && within_1 <= within_2 && within_2 <= within_3 && within_3 <= 1.0, "{last:?}");
    let p50 = last.t_p50_s.unwrap();
    for (horizon, within) in [(last.horizon_2_s, within_2), (last.horizon_3_s, within_3)] {
        assert!((within >= 0.5) == (p50 <= horizon.unwrap()), "{last:?}");
    }
}

#[test]
fn a_restart_changes_nothing_and_maintenance_begins_anew() {
    let entries = life(RISES_FROM + RISES_FOR / 2);
    let mut undisturbed = engine();
    let out = feed(&mut undisturbed, 1, &entries);
    let cut = entries.len() - 500;
    let mut outputs = feed(&mut engine(), 1, &entries[..0]);
    let mut first = engine();
    outputs.extend(feed(&mut first, 1, &entries[..cut]));
    let mut second = Engine::restore(Bundles::offered_in(&models()), &first.snapshot()).unwrap();
    outputs.extend(feed(&mut second, cut as u64 + 1, &entries[cut..]));
    assert!(outputs == out && second.snapshot() == undisturbed.snapshot());

    assert!(second.view("pump").unwrap().prognosis.is_some());
    let at = (1_000_000 + (RISES_FROM + RISES_FOR / 2) * ROW_S) as f64;
    feed(&mut second, entries.len() as u64 + 1, &[event(at, EventKind::Command, Some("maintenance_done"))]);
    let view = second.view("pump").unwrap();
    assert_eq!((view.forecast, view.prognosis, view.health), (None, None, None));
}
