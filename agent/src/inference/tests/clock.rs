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
