use std::time::Duration;

use OperatingState::{Idle, Off, Running, Transient, Unknown};

use super::*;
use crate::config::Load;

const STALE_US: StaleOf = StaleOf { level: 5_000_000, load: 5_000_000 };

fn threshold(reached_at: f64, left_below: f64) -> Threshold {
    Threshold { reached_at, left_below }
}

/// Off below 50, running from 600, settling for 3 s.
fn settings() -> config::Operating {
    config::Operating {
        point: "speed".into(),
        idle: Some(threshold(50.0, 40.0)),
        running: threshold(600.0, 570.0),
        settle: Duration::from_secs(3),
        steady_rate: None,
        score_idle: false,
        load: None,
    }
}

fn with_load() -> config::Operating {
    config::Operating { load: Some(Load { point: "current".into(), bounds: vec![threshold(8.0, 7.0), threshold(14.0, 13.0)] }), ..settings() }
}

fn at(second: f64) -> Timestamp {
    Timestamp((second * 1e6) as i64)
}

/// Gives the point one value a second, from second `from` on; tells the state after each.
fn states(operating: &mut Operating, from: u32, values: &[f64]) -> Vec<OperatingState> {
    let state = |(second, value): (u32, &f64)| {
        let ts = at(f64::from(second));
        operating.observe("speed", ts, *value);
        operating.pass(ts);
        operating.told()
    };
    (from..).zip(values).map(state).collect()
}

#[test]
fn a_start_and_a_run_down_are_transient_and_settle() {
    let mut operating = Operating::new(settings(), STALE_US);
    assert_eq!(states(&mut operating, 0, &[0.0; 4]), [Transient, Transient, Transient, Off]);
    assert_eq!(states(&mut operating, 4, &[100.0, 100.0, 100.0, 100.0, 700.0]), [Transient, Transient, Transient, Idle, Transient]);
    assert_eq!(states(&mut operating, 9, &[1480.0; 4]), [Transient, Transient, Running, Running]);
    assert_eq!(
        states(&mut operating, 13, &[900.0, 500.0, 100.0, 0.0, 0.0, 0.0, 0.0]),
        [Running, Transient, Transient, Transient, Transient, Transient, Off]
    );
}

#[test]
fn without_idle_what_does_not_run_is_off() {
    let mut operating = Operating::new(config::Operating { idle: None, ..settings() }, STALE_US);
    assert_eq!(states(&mut operating, 0, &[500.0; 4])[3], Off);
    assert_eq!(states(&mut operating, 4, &[600.0; 4])[3], Running);
}

#[test]
fn noise_at_a_threshold_does_not_flap() {
    let mut operating = Operating::new(settings(), STALE_US);
    states(&mut operating, 0, &[610.0; 4]);
    assert_eq!(states(&mut operating, 4, &[590.0, 605.0, 571.0, 601.0]), [Running; 4], "within the deadband");
    assert_eq!(states(&mut operating, 8, &[569.0, 590.0, 590.0, 590.0]), [Transient, Transient, Transient, Idle], "below it, and not back yet");
}

#[test]
fn a_quick_move_is_transient_and_noise_or_drift_are_not() {
    let settings = config::Operating { steady_rate: Some(10.0), ..settings() };
    let mut operating = Operating::new(settings, STALE_US);
    states(&mut operating, 0, &[1000.0; 4]);
    // 30 within three seconds are allowed: noise of 25 and a drift of 9 a second are no move.
    assert_eq!(states(&mut operating, 4, &[1025.0, 1000.0, 1025.0, 1000.0]), [Running; 4]);
    assert_eq!(states(&mut operating, 8, &[1009.0, 1018.0, 1027.0, 1036.0, 1045.0, 1054.0]), [Running; 6]);
    // A run-down is seen long before the threshold.
    assert_eq!(states(&mut operating, 14, &[1000.0, 965.0, 930.0]), [Transient; 3]);
    assert_eq!(states(&mut operating, 17, &[930.0; 3]), [Transient, Transient, Running]);
}

#[test]
fn load_regimes_settle_and_have_deadbands() {
    let mut operating = Operating::new(with_load(), STALE_US);
    let mut feed = |second: u32, current: f64| {
        let ts = at(f64::from(second));
        operating.observe("speed", ts, 1480.0);
        operating.observe("current", ts, current);
        operating.at(ts)
    };
    let running = |band| Condition { state: Running, regime: Some(Regime::Load(band)) };
    let transient = Condition { state: Transient, regime: None };
    let steps = [(7.9, 0), (8.0, 1), (7.1, 1), (20.0, 2), (13.5, 2), (12.0, 1), (2.0, 0)];
    let mut second = 0;
    let mut last = None;
    for (current, band) in steps {
        let changed = last.replace(band) != Some(band);
        for n in 0..4 {
            let expected = if changed && n < 3 { transient } else { running(band) };
            assert_eq!(feed(second, current), expected, "{current} A at second {second}");
            second += 1;
        }
    }
    assert_eq!(
        [Regime::Load(0), Regime::Load(2), Regime::Running, Regime::Idle].map(|regime| regime.name().to_string()),
        ["load-1", "load-3", "running", "idle"]
    );
}

#[test]
fn idle_is_a_regime_where_it_is_scored() {
    for score_idle in [false, true] {
        let mut operating = Operating::new(config::Operating { score_idle, ..settings() }, STALE_US);
        states(&mut operating, 0, &[100.0; 4]);
        assert_eq!(operating.at(at(3.0)), Condition { state: Idle, regime: score_idle.then_some(Regime::Idle) });
    }
}

#[test]
fn without_a_value_the_state_is_unknown_and_settles_anew() {
    let mut operating = Operating::new(with_load(), STALE_US);
    assert_eq!(operating.pass(at(0.0)), None, "unknown from the start on");
    states(&mut operating, 1, &[1000.0; 4]);
    assert_eq!(operating.at(at(4.0)), Condition { state: Running, regime: None }, "nothing is known of the load");
    assert_eq!(operating.pass(at(9.0)), None, "as old as the stale limit");
    let unknown = Condition { state: Unknown, regime: None };
    assert_eq!(operating.pass(at(9.1)), Some(Change { from: Running, to: unknown, is_start: false }));
    assert_eq!(states(&mut operating, 10, &[1000.0; 4]), [Transient, Transient, Transient, Running]);
    operating.restart();
    assert_eq!((operating.told(), operating.at(at(13.0))), (Running, unknown));
    assert_eq!(operating.pass(at(14.0)), Some(Change { from: Running, to: unknown, is_start: false }));
}

/// Speed after speed, for ten seconds each: the starts that are told.
fn starts(operating: &mut Operating, from: u32, speeds: &[f64]) -> usize {
    let seconds = (from..).zip(speeds.iter().flat_map(|speed| [*speed; 10]));
    let mut is_start = |(second, speed): (u32, f64)| {
        let ts = at(f64::from(second));
        operating.observe("speed", ts, speed);
        operating.pass(ts).is_some_and(|change| change.is_start)
    };
    seconds.filter(|second| is_start(*second)).count()
}

#[test]
fn a_start_is_a_machine_that_stood_and_runs() {
    for (speeds, expected) in
        [(&[1000.0][..], 0), (&[0.0, 1000.0], 1), (&[1000.0, 100.0, 1000.0], 1), (&[0.0, 100.0, 1000.0, 0.0, 1000.0], 2), (&[0.0, 100.0, 0.0], 0)]
    {
        assert_eq!(starts(&mut Operating::new(settings(), STALE_US), 0, speeds), expected, "{speeds:?}");
    }
    // Too short to be told.
    let mut operating = Operating::new(settings(), STALE_US);
    states(&mut operating, 0, &[1000.0, 1000.0, 1000.0, 1000.0, 0.0, 1000.0, 1000.0, 1000.0, 1000.0]);
    assert_eq!((operating.told(), operating.stood), (Running, false));
    // Readings are missing between.
    assert_eq!(starts(&mut operating, 20, &[0.0]), 0);
    operating.restart();
    assert_eq!(starts(&mut operating, 40, &[1000.0]), 1);
}

#[test]
fn what_comes_late_changes_nothing_until_it_shows_that_the_clock_was_set_back() {
    let mut operating = Operating::new(settings(), STALE_US);
    states(&mut operating, 1_000, &[1000.0; 4]);
    for n in 1..LATE_RUN_MAX {
        operating.observe("speed", at(f64::from(n)), 0.0);
        assert_eq!(operating.at(at(1_003.0)).state, Running, "value {n}");
    }
    operating.observe("speed", at(100.0), 0.0);
    assert_eq!(operating.pass(at(100.0)).unwrap().to.state, Transient);
    assert_eq!([100.0, 102.9, 103.0].map(|second| operating.at(at(second)).state), [Transient, Transient, Off]);
}

#[test]
fn a_row_before_a_change_that_is_known_by_now_is_not_steady() {
    let mut operating = Operating::new(config::Operating { settle: Duration::ZERO, ..settings() }, STALE_US);
    states(&mut operating, 0, &[1000.0, 1000.0, 0.0]);
    assert_eq!([1.0, 2.0].map(|second| operating.at(at(second)).state), [Transient, Off]);
}

#[test]
fn other_points_are_not_its_concern() {
    let mut operating = Operating::new(with_load(), STALE_US);
    assert_eq!(["speed", "current", "flow"].map(|point| operating.observe(point, at(1.0), 1.0)), [true, true, false]);
}

#[test]
fn the_points_of_state_and_load_are_stale_in_their_own_time() {
    let mut operating = Operating::new(with_load(), StaleOf { level: 60_000_000, load: 5_000_000 });
    operating.observe("speed", at(0.0), 1480.0);
    operating.observe("current", at(0.0), 10.0);
    let told = |operating: &Operating, second: f64| (operating.at(at(second)).state, operating.at(at(second)).regime);
    assert_eq!(told(&operating, 5.0), (Running, Some(Regime::Load(1))));
    let missing = |second: f64| operating.missing(at(second)).map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!([5.0, 6.0, 61.0].map(missing), ["", "current", "speed current"]);
    assert_eq!([6.0, 60.0, 61.0].map(|second| told(&operating, second)), [(Running, None), (Running, None), (Unknown, None)]);
    operating.configure(&with_load(), StaleOf { level: 60_000_000, load: 40_000_000 });
    assert_eq!(told(&operating, 40.0), (Running, Some(Regime::Load(1))));
    operating.observe("speed", at(59.0), 1480.0);
    assert_eq!(told(&operating, 59.0), (Running, None), "it was running before");
}

/// In which second the state is told unknown: the point shows `speed` from the fourth on, and so many of the others run on.
fn contradicted_from(settings: config::Operating, speed: f64, running_on: impl Fn(u32) -> (usize, usize)) -> Option<u32> {
    let mut operating = Operating::new(settings, STALE_US);
    states(&mut operating, 0, &[1480.0; 4]);
    (4..2_000).find(|&second| {
        let ts = at(f64::from(second));
        operating.observe("speed", ts, speed);
        let (points, of) = running_on(second);
        operating.weigh(ts, RunningOn { points, of });
        operating.pass(ts);
        assert_eq!(operating.contradicted().is_some(), operating.told() == Unknown);
        operating.told() == Unknown
    })
}

/// Told off, or idle, from the seventh second on.
#[test]
fn a_point_that_most_others_contradict_for_minutes_is_not_believed() {
    let off = |points, of| contradicted_from(settings(), 0.0, move |_| (points, of));
    assert_eq!([off(3, 4), off(2, 3), off(2, 2)], [Some(306); 3]);
    assert_eq!([off(2, 4), off(1, 1), off(0, 0)], [None; 3], "half of them, or one alone, may be as they are at a standstill");
    let idle = |points, of| contradicted_from(settings(), 100.0, move |_| (points, of));
    assert_eq!([idle(4, 4), idle(3, 4)], [Some(306), None], "idle is much like running");
    assert_eq!(contradicted_from(settings(), 1480.0, |_| (4, 4)), None, "it runs");
    let slow = config::Operating { settle: Duration::from_secs(60), ..settings() };
    assert_eq!(contradicted_from(slow, 0.0, |_| (3, 4)), Some(663), "a machine that is given long to settle");
    assert_eq!(contradicted_from(settings(), 0.0, |second| if second % 200 < 101 { (4, 4) } else { (0, 4) }), None, "now and then");
    assert_eq!(contradicted_from(settings(), 0.0, |second| (if second % 10 == 9 { 0 } else { 4 }, 4)), Some(382), "mostly");
}

#[test]
fn a_contradiction_ends_with_its_grounds() {
    let contradicted = || {
        let mut operating = Operating::new(settings(), STALE_US);
        for second in 0..310 {
            operating.observe("speed", at(f64::from(second)), 0.0);
            operating.weigh(at(f64::from(second)), RunningOn { points: 4, of: 4 });
        }
        assert_eq!(operating.at(at(309.0)).state, Unknown);
        operating
    };
    let mut operating = contradicted();
    let off = (310..2_000).find(|&second| {
        operating.observe("speed", at(f64::from(second)), 0.0);
        operating.weigh(at(f64::from(second)), RunningOn { points: 1, of: 4 });
        operating.at(at(f64::from(second))).state == Off
    });
    assert_eq!(off, Some(609), "the machine stands, for as long");
    let mut operating = contradicted();
    assert_eq!(states(&mut operating, 310, &[1480.0; 4]), [Transient, Transient, Transient, Running]);
    operating.weigh(at(313.0), RunningOn { points: 4, of: 4 });
    assert_eq!(operating.contradicted(), None);
    assert_eq!(states(&mut operating, 314, &[0.0; 4]), [Transient, Transient, Transient, Off]);
    let mut operating = contradicted();
    operating.restart();
    assert_eq!(operating.contradicted(), None, "what was before is not continued");
}
