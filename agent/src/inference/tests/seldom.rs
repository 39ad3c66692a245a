//! A point that is heard once a minute beside two that are heard each second.
use hark_protocol::topics::Zone;

use super::*;

/// Rows from one value of the seldom point to the next.
const EVERY: usize = 60;
/// Rows of commissioning: a hundred of its values.
const LEARNED: usize = 100 * EVERY;

fn engine() -> Engine {
    engine_of(|_| {})
}

fn engine_of(edit: impl FnOnce(&mut config::Asset)) -> Engine {
    engine_with(|asset| {
        let stale_after = Some(Duration::from_secs(90));
        let seldom = config::Point { id: "c".into(), stale_after, ..asset.points[0].clone() };
        asset.points.push(seldom);
        asset.commissioning.rows = LEARNED;
        asset.predict_every = Duration::from_secs(1_000_000);
        edit(asset);
    })
}

/// The readings of `row`; `shift` is what the level of the seldom point is moved by, in its standard deviations.
struct Machine {
    noise: Noise,
    a: f64,
    row: usize,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self { noise: Noise(seed), a: 0.0, row: 0 }
    }

    fn row(&mut self, shift: f64) -> Vec<Entry> {
        let second = 1000.0 + self.row as f64;
        let b = 2.0 * self.a + 0.1 * self.noise.next();
        self.a = 0.8 * self.a + self.noise.next();
        let c = self.row.is_multiple_of(EVERY).then(|| reading(second, "c", Some(2.0 + 0.1 * (shift + self.noise.next()))));
        self.row += 1;
        c.into_iter().chain([reading(second, "a", Some(self.a)), reading(second + 0.1, "b", Some(b))]).collect()
    }
}

/// Lets `rows` pass and gives the part of them that was above the limit, and all outputs.
fn live(engine: &mut Engine, machine: &mut Machine, rows: usize, shift: f64) -> (f64, Vec<(LaneName, Entry)>) {
    let (mut above, mut out) = (0, Vec::new());
    for _ in 0..rows {
        let seq = 10 * machine.row as u64;
        out.extend(feed(engine, seq, &machine.row(shift)));
        above += usize::from(engine.view("pump").unwrap().above);
    }
    (above as f64 / rows as f64, out)
}

#[test]
fn a_level_that_is_left_is_seen_and_named() {
    let (mut engine, mut machine) = (engine(), Machine::new(21));
    live(&mut engine, &mut machine, LEARNED + 50 * EVERY, 0.0);
    assert!(engine.view("pump").unwrap().score.is_some_and(|score| score < 1.0), "{:?}", engine.view("pump"));
    live(&mut engine, &mut machine, 10 * EVERY, 6.0);
    let view = engine.view("pump").unwrap();
    assert!(view.above && &*view.contributions[0].0 == "c", "{:?} {:?}", view.score, view.contributions);
    // It stays in sight for as long as it lasts, and no longer.
    let (above, _) = live(&mut engine, &mut machine, 100 * EVERY, 6.0);
    assert!(above > 0.99, "{above}");
    live(&mut engine, &mut machine, 20 * EVERY, 0.0);
    assert!(!engine.view("pump").unwrap().above);
}

#[test]
fn a_healthy_machine_raises_nothing() {
    let (mut engine, mut machine) = (engine(), Machine::new(22));
    live(&mut engine, &mut machine, LEARNED, 0.0);
    let (above, out) = live(&mut engine, &mut machine, 100_000, 0.0);
    assert_eq!((above, alarms(&out).len()), (0.0, 0));
}

/// The others are judged as if it were not there, while it stays where it was.
#[test]
fn the_others_are_seen_as_before() {
    let (mut engine, mut machine) = (engine(), Machine::new(23));
    live(&mut engine, &mut machine, LEARNED + 100, 0.0);
    let push = |machine: &mut Machine| {
        machine.row(0.0).into_iter().map(|mut entry| {
            let is_b = matches!(&entry.body, Body::Reading(reading) if &*reading.point == "b");
            if let Body::Reading(reading) = &mut entry.body {
                reading.value = reading.value.map(|value| if is_b { value + 2.0 } else { value });
            }
            entry
        })
    };
    for _ in 0..30 {
        let (seq, entries) = (10 * machine.row as u64, push(&mut machine).collect::<Vec<_>>());
        feed(&mut engine, seq, &entries);
    }
    let view = engine.view("pump").unwrap();
    assert!(view.above && &*view.contributions[0].0 == "b", "{:?} {:?}", view.score, view.contributions);
}

/// Off, it shows nothing: that is held into the next run, and is no level of a machine that runs.
#[test]
fn what_is_held_from_a_stop_is_not_its_level() {
    let threshold = |at: f64| config::Threshold { reached_at: at, left_below: 0.9 * at };
    let operating = config::Operating {
        point: "note".into(),
        idle: None,
        running: threshold(600.0),
        settle: Duration::from_secs(3),
        steady_rate: None,
        score_idle: false,
        load: None,
    };
    let mut engine = engine_of(|asset| asset.operating = Some(operating));
    let (mut machine, mut scored) = (Machine::new(24), 0);
    for row in 0..LEARNED + 20 * EVERY {
        // It stands still around every fourth value.
        let is_off = row > LEARNED && (row + 10) % (4 * EVERY) < 30;
        let (shift, speed) = if is_off { (-20.0, 0.0) } else { (0.0, 1480.0) };
        let (second, seq) = (1000.0 + row as f64, 10 * row as u64);
        let entries = [vec![reading(second, "note", Some(speed))], machine.row(shift)].concat();
        feed(&mut engine, seq, &entries);
        let view = engine.view("pump").unwrap();
        assert!(!view.above, "row {row}: {:?} {:?}", view.score, view.contributions);
        scored += usize::from(view.score.is_some());
    }
    assert!(scored > 16 * EVERY, "{scored}");
}

#[test]
fn with_too_few_values_it_has_no_part() {
    let mut engine = engine_of(|asset| asset.commissioning.rows = 4 * EVERY);
    let mut machine = Machine::new(25);
    let (_, out) = live(&mut engine, &mut machine, 5 * EVERY, 0.0);
    let (above, _) = live(&mut engine, &mut machine, 5 * EVERY, 100.0);
    assert_eq!(above, 0.0);
    let baselines: Vec<_> = engine.baselines().map(|(_, baseline)| baseline.remarks.as_deref()).collect();
    assert_eq!(baselines, [Some("too few values of c to judge it")]);
    assert!(out.iter().any(|(lane, _)| *lane == LaneName::Events));
}

#[test]
fn a_restored_engine_goes_on_number_for_number() {
    let mut machine = Machine::new(26);
    let entries: Vec<Entry> = (0..LEARNED + 20 * EVERY).flat_map(|row| machine.row(if row > LEARNED { 6.0 } else { 0.0 })).collect();
    let mut undisturbed = engine();
    let expected = feed(&mut undisturbed, 1, &entries);
    for cut in [entries.len() / 2, entries.len() - 15 * EVERY, entries.len() - 1] {
        let mut before = engine();
        let mut out = feed(&mut before, 1, &entries[..cut]);
        let mut after = Engine::restore(Bundles::offered_in(&models()), &before.snapshot()).unwrap();
        out.extend(feed(&mut after, cut as u64 + 1, &entries[cut..]));
        assert!(out == expected && after.snapshot() == undisturbed.snapshot(), "cut at {cut}");
    }
}

/// While a sensor has no usable value, the level of the others counts on.
#[test]
fn it_is_seen_without_one_of_the_others() {
    let (mut engine, mut machine) = (engine(), Machine::new(27));
    live(&mut engine, &mut machine, LEARNED + 100, 0.0);
    for _ in 0..10 * EVERY {
        let (seq, entries) = (10 * machine.row as u64, machine.row(6.0));
        let without_b = entries.into_iter().filter(|entry| !matches!(&entry.body, Body::Reading(reading) if &*reading.point == "b"));
        feed(&mut engine, seq, &without_b.collect::<Vec<_>>());
    }
    let view = engine.view("pump").unwrap();
    assert!(view.above && view.reason == Some(ScoreReason::Reduced) && &*view.contributions[0].0 == "c", "{view:?}");
}

#[test]
fn it_is_seen_beside_others_that_stand_still() {
    // By policy no machine is learned most points of which never move: a person knows why.
    let mut engine = engine_of(|asset| (asset.alarm.on_delay, asset.commissioning.rows) = (Duration::from_secs(30), 10 * LEARNED));
    let mut machine = Machine::new(28);
    let mut live = |engine: &mut Engine, rows: usize, shift: f64| {
        for _ in 0..rows {
            let (seq, mut entries) = (10 * machine.row as u64, machine.row(shift));
            for entry in &mut entries {
                match &mut entry.body {
                    Body::Reading(reading) if &*reading.point != "c" => reading.value = Some(7.0),
                    _ => {}
                }
            }
            feed(engine, seq, &entries);
        }
        engine.view("pump").unwrap()
    };
    live(&mut engine, LEARNED, 0.0);
    let accepted = event(1_000.0 + LEARNED as f64, EventKind::Command, Some("commissioning_accepted"));
    feed(&mut engine, 10 * LEARNED as u64, &[accepted]);
    let healthy = live(&mut engine, 50 * EVERY, 0.0);
    assert!(healthy.score.is_some() && !healthy.above, "{healthy:?}");
    assert!(live(&mut engine, 10 * EVERY, 6.0).above);
    assert!(!live(&mut engine, 30 * EVERY, 0.0).above);
}

/// Each of the three by the limit of its own: 3 s for `a` and `b`, 90 s for `c`.
#[test]
fn a_dead_sensor_is_missing_in_its_own_time_however_long_another_holds() {
    let failed = |out: &[(LaneName, Entry)]| {
        let failed = |(_, entry): &(LaneName, Entry)| match &entry.body {
            Body::Event(event) if event.kind == EventKind::Instrument => Some((event.source.clone().unwrap(), entry.stamp.ts.0 / SECOND)),
            _ => None,
        };
        out.iter().filter_map(failed).collect::<Vec<_>>()
    };
    let without = |point: &str| {
        let (mut engine, mut machine) = (engine(), Machine::new(24));
        let (_, out) = live(&mut engine, &mut machine, 10 * EVERY, 0.0);
        assert_eq!((failed(&out), engine.counters().rows_missing_point), (vec![], 0), "commissioning goes on between values of `c`");
        let mut out = Vec::new();
        for _ in 0..3 * EVERY {
            let (seq, entries) = (10 * machine.row as u64, machine.row(0.0));
            let heard = |entry: &Entry| !matches!(&entry.body, Body::Reading(reading) if &*reading.point == point);
            out.extend(feed(&mut engine, seq, &entries.into_iter().filter(heard).collect::<Vec<_>>()));
        }
        (failed(&out), engine.counters().rows_missing_point, engine.view("pump").unwrap().missing_points)
    };
    // Values of 1599 s and, of `c`, 1540 s were the last.
    assert_eq!(without("a"), (vec![("a".into(), 1_607)], 176, vec!["a".into()]));
    assert_eq!(without("c"), (vec![("c".into(), 1_636)], 148, vec!["c".into()]));
}

#[test]
fn a_severity_zone_holds_as_long_as_its_value() {
    let mut engine = engine_of(|asset| {
        let is_velocity = |point: &&mut config::Point| &*point.id == "c";
        asset.points.iter_mut().filter(is_velocity).for_each(|point| point.severity = Some("2-rigid".into()));
    });
    let mut machine = Machine::new(25);
    live(&mut engine, &mut machine, EVERY, 20.0);
    let mut zone = |second: f64| {
        feed(&mut engine, 10_000, &[reading(second, "a", Some(0.0)), reading(second, "b", Some(0.0))]);
        engine.asset_records(Timestamp(0)).remove(0).1.zone
    };
    assert_eq!([1_080.0, 1_090.0, 1_091.0].map(&mut zone), [Some(Zone::C), Some(Zone::C), None]);
}
