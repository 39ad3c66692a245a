//! Corrections of the gateway's clock.
use super::*;

fn gateway_time(entry: Entry) -> Entry {
    Entry { stamp: Stamp { ts_source: TsSource::Gateway, ..entry.stamp }, ..entry }
}

fn clock_record(offset_ms: Option<f64>) -> Entry {
    let event = Event { offset_ms, ..Event::new(EventKind::Clock) };
    Entry { stamp: Stamp { asset: None, ..stamp(0.0) }, cause: None, body: Body::Event(event.into()) }
}

#[test]
fn a_step_of_the_clock_costs_a_window_and_no_more() {
    for (offset_s, synced_only) in [(-3_600.0, false), (3_600.0, false), (1.7e9, false), (-3_600.0, true)] {
        let mut engine = engine_with(|_| {});
        let (before, after): (Vec<Entry>, Vec<Entry>) = (machine(ROWS + 10, usize::MAX), machine(20, usize::MAX));
        feed(&mut engine, 1, &before.into_iter().map(gateway_time).collect::<Vec<_>>());
        let moved = |entry: Entry| {
            let ts = Timestamp(entry.stamp.ts.0 + ((ROWS + 10) as i64) * SECOND + (offset_s * 1e6) as i64);
            gateway_time(Entry { stamp: Stamp { ts, ..entry.stamp }, ..entry })
        };
        let after: Vec<Entry> = after.into_iter().map(moved).collect();
        let offset_ms = if synced_only { Some(3.0) } else { Some(offset_s * 1e3) };
        feed(&mut engine, 1000, &[clock_record(offset_ms)]);
        let out = feed(&mut engine, 1001, &after);
        let filling = reasons(&out).iter().filter(|reason| **reason == Some(ScoreReason::WindowFilling)).count();
        let scored = predictions(&out).iter().filter(|p| p.score.is_some()).count();
        if synced_only {
            assert_eq!((engine.counters().late, scored), (40, 0), "without a step in the record there is none");
        } else {
            assert_eq!((filling, scored, engine.counters().late, engine.counters().clock_corrections), (3, 17, 0, 1), "{offset_s}");
        }
    }
}

/// A node's times follow the gateway's clock within seconds of its being set back: no hundred late readings are needed to see it.
#[test]
fn a_node_that_follows_a_clock_set_back_goes_on_at_once() {
    let mut engine = engine_with(|_| {});
    let entries = machine(ROWS + 20, usize::MAX);
    let (before, after) = entries.split_at(2 * (ROWS + 10));
    feed(&mut engine, 1, before);
    feed(&mut engine, 1000, &[clock_record(Some(-600_000.0))]);
    let back = |entry: &Entry| Entry { stamp: Stamp { ts: Timestamp(entry.stamp.ts.0 - 600 * SECOND), ..entry.stamp.clone() }, ..entry.clone() };
    let out = feed(&mut engine, 1001, &after.iter().map(back).collect::<Vec<_>>());
    let scored = predictions(&out).iter().filter(|p| p.score.is_some()).count();
    assert_eq!((scored, engine.counters().late, engine.counters().clock_set_back), (7, 0, 1));
}

#[test]
fn a_sensor_with_its_own_clock_does_not_mind_the_gateways() {
    let mut engine = engine_with(|_| {});
    let entries = machine(ROWS + 20, usize::MAX);
    feed(&mut engine, 1, &entries[..2 * (ROWS + 10)]);
    feed(&mut engine, 1000, &[clock_record(None)]);
    let out = feed(&mut engine, 1001, &entries[2 * (ROWS + 10)..]);
    assert!(predictions(&out).iter().all(|p| p.score.is_some()));
    assert_eq!(engine.counters().clock_corrections, 0);
}

/// A velocity that fell silent in zone D is no better after the clock stepped, whoever noticed that: nobody heard of it.
#[test]
fn a_velocity_that_died_in_a_bad_zone_is_not_forgotten_when_clocks_step() {
    for (offset_s, is_told) in [(-3_600, true), (3_600, true), (-3_600, false)] {
        let mut engine = engine_with(|asset| {
            asset.points[1].unit = "mm/s".into();
            asset.points[1].severity = Some("2-rigid".into());
        });
        let word = |engine: &Engine| engine.asset_records(Timestamp(0)).pop().unwrap().1.health_reason.unwrap().to_string();
        let mut entries: Vec<Entry> = machine(ROWS + 300, usize::MAX).into_iter().map(gateway_time).collect();
        let after = entries.split_off(2 * (ROWS + 40));
        entries.insert(2 * (ROWS + 20), gateway_time(reading(1_000.0 + (ROWS + 20) as f64, "note", Some(9.0))));
        feed(&mut engine, 1, &entries);
        assert_eq!(word(&engine), "severity_stale");
        if is_told {
            feed(&mut engine, 1_000, &[clock_record(Some(offset_s as f64 * 1e3))]);
            assert_eq!(word(&engine), "severity_stale", "before any reading: {offset_s}");
        }
        let moved =
            |entry: &Entry| Entry { stamp: Stamp { ts: Timestamp(entry.stamp.ts.0 + offset_s * SECOND), ..entry.stamp.clone() }, ..entry.clone() };
        for (seq, entry) in (1_001..).zip(&after) {
            feed(&mut engine, seq, &[moved(entry)]);
            assert_eq!(word(&engine), "severity_stale", "{offset_s}, told {is_told}, {seq}");
        }
        assert!(engine.counters().clock_corrections + engine.counters().clock_set_back > 0, "it was noticed");
        let last = moved(after.last().unwrap()).stamp.ts.0 as f64 / SECOND as f64;
        feed(&mut engine, 9_000, &[gateway_time(reading(last, "note", Some(1.0)))]);
        assert_ne!(word(&engine), "severity_stale", "it speaks again: {offset_s}");
    }
}
