//! Operating states and regimes on the engine: a machine that starts, stops and changes its load is learned and scored while it runs steadily.
use hark_protocol::topics::OperatingState::{self, Off, Running, Transient};

use super::*;

/// How the machine is run, second by second.
#[derive(Clone, Copy)]
struct Duty {
    seconds: u32,
    /// `/min`, at the end; the way to it is even.
    speed: f64,
    load: f64,
    faulty: bool,
}

const fn duty(seconds: u32, speed: f64, load: f64) -> Duty {
    Duty { seconds, speed, load, faulty: false }
}

const OFF: Duty = duty(40, 0.0, 0.0);
const RUN_UP: Duty = duty(20, 1480.0, 10.0);
const RUN_DOWN: Duty = duty(20, 0.0, 0.0);

/// Running at `load` for `seconds`.
const fn run(seconds: u32, load: f64) -> Duty {
    duty(seconds, 1480.0, load)
}

/// In a fault `b` no longer follows `a`.
const fn faulty(seconds: u32, load: f64) -> Duty {
    Duty { faulty: true, ..run(seconds, load) }
}

/// The machine and its log: `a` and `b` depend on speed and load, which are not scored.
struct Plant {
    noise: Noise,
    second: u32,
    speed: f64,
    load: f64,
    habit: f64,
    seq: u64,
}

impl Plant {
    fn new() -> Self {
        Self { noise: Noise(7), second: 1_000, speed: 0.0, load: 0.0, habit: 0.0, seq: 0 }
    }

    fn entries(&mut self, duties: &[Duty]) -> Vec<Entry> {
        duties.iter().flat_map(|duty| self.perform(*duty)).collect()
    }

    fn perform(&mut self, Duty { seconds, speed, load, faulty }: Duty) -> Vec<Entry> {
        let mut entries = Vec::new();
        let (from, before) = (self.speed, self.load);
        for n in 1..=seconds {
            let part = f64::from(n) / f64::from(seconds);
            self.speed = from + part * (speed - from);
            // The load follows at once where the speed stays, else with it.
            self.load = if speed == from { load } else { before + part * (load - before) };
            self.second(faulty, &mut entries);
        }
        entries
    }

    fn second(&mut self, faulty: bool, entries: &mut Vec<Entry>) {
        self.habit = 0.8 * self.habit + self.noise.next();
        let turns = self.speed / 1480.0;
        let a = turns * (40.0 + 4.0 * self.load + self.habit);
        let b = if faulty { turns * 12.0 * self.noise.next() } else { 2.0 * a + 0.1 * self.noise.next() } - 3.0 * turns * turns * self.load;
        let time = f64::from(self.second);
        let values =
            [(0.0, "speed", self.speed + self.noise.next()), (0.1, "load", self.load + 0.05 * self.noise.next()), (0.2, "a", a), (0.3, "b", b)];
        entries.extend(values.map(|(after, point, value)| reading(time + after, point, Some(value))));
        self.second += 1;
    }

    fn feed(&mut self, engine: &mut Engine, duties: &[Duty]) -> Vec<(LaneName, Entry)> {
        let entries = self.entries(duties);
        let out = feed(engine, self.seq + 1, &entries);
        self.seq += entries.len() as u64;
        out
    }
}

fn threshold(reached_at: f64, left_below: f64) -> config::Threshold {
    config::Threshold { reached_at, left_below }
}

fn operating() -> config::Operating {
    config::Operating {
        point: "speed".into(),
        idle: Some(threshold(50.0, 40.0)),
        running: threshold(600.0, 570.0),
        settle: Duration::from_secs(10),
        steady_rate: Some(20.0),
        score_idle: false,
        load: None,
    }
}

/// Three regimes: below 20, up to 30, and above.
fn with_load() -> config::Operating {
    let load = config::Load { point: "load".into(), bounds: vec![threshold(20.0, 19.0), threshold(30.0, 29.0)] };
    config::Operating { load: Some(load), ..operating() }
}

fn engine(operating: Option<config::Operating>) -> Engine {
    engine_with(|asset| {
        asset.points.extend(["speed", "load"].map(|id| config::Point { id: id.into(), scored: false, ..asset.points[0].clone() }));
        asset.operating = operating;
    })
}

/// With the on-delay of a plant, and enough rows for a limit that holds: what is left are alarms of states.
fn slow_engine(operating: config::Operating) -> Engine {
    engine_with(|asset| {
        asset.points.extend(["speed", "load"].map(|id| config::Point { id: id.into(), scored: false, ..asset.points[0].clone() }));
        (asset.operating, asset.commissioning.rows, asset.alarm.on_delay) = (Some(operating), 400, Duration::from_secs(15));
    })
}

fn state_events(out: &[(LaneName, Entry)]) -> Vec<(OperatingState, Option<&str>, &str)> {
    let event = |entry: &'_ Entry| if let Body::Event(event) = &entry.body { Some(event.clone()) } else { None };
    let of_state = out.iter().filter_map(|(_, entry)| event(entry)).filter(|event| event.kind == EventKind::OperatingState);
    let leak = |name: Name| -> &'static str { Box::leak(name.to_string().into_boxed_str()) };
    of_state.map(|event| (event.state.unwrap(), event.what.map(leak), leak(event.text.unwrap()))).collect()
}

fn raised(out: &[(LaneName, Entry)]) -> usize {
    alarms(out).iter().filter(|alarm| alarm.state == AlarmState::ActiveUnacknowledged).count()
}

#[test]
fn starts_and_stops_raise_no_alarm_and_a_fault_in_running_does() {
    let mut engine = engine(Some(operating()));
    let mut plant = Plant::new();
    // Commissioned over two starts: 190 - 10 seconds of the first run and so on, less the 10 before each stop.
    let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(100, 10.0), RUN_DOWN, OFF, RUN_UP, run(100, 10.0), RUN_DOWN]);
    assert_eq!(events(&out).iter().filter(|event| event.1 == "accepted").count(), 1);
    for _ in 0..6 {
        let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(120, 10.0), RUN_DOWN]);
        assert_eq!(raised(&out), 0);
        let (mut scored, mut steady) = (0, 0);
        for prediction in predictions(&out) {
            let of_state = prediction.reason == Some(ScoreReason::OperatingState) && prediction.health.is_none() && prediction.regime.is_none();
            assert_eq!(of_state, prediction.state != OperatingState::Running, "{prediction:?}");
            steady += usize::from(prediction.state == OperatingState::Running);
            scored += usize::from(prediction.score.is_some());
        }
        // 120 seconds, less those to settle, and three that fill the window.
        assert!((105..=120).contains(&steady) && scored == steady - 3, "{scored} of {steady}");
    }
    let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(60, 10.0), faulty(40, 10.0)]);
    assert_eq!(raised(&out), 1);
    assert_eq!(predictions(&out).last().unwrap().regime.as_deref(), Some("running"));
    // The alarm stays while the machine stands still, and over the next start.
    let out = plant.feed(&mut engine, &[RUN_DOWN, OFF, RUN_UP, faulty(40, 10.0)]);
    assert_eq!(alarms(&out).len(), 0);
    assert!(predictions(&out).iter().all(|p| p.above) && engine.view("pump").unwrap().advice);
}

/// What makes the test above worth its name: the same duty without `[operating]` is alarm after alarm.
#[test]
fn without_operating_states_the_same_starts_raise_alarms() {
    let mut engine = engine(None);
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[RUN_UP, run(150, 10.0)]);
    let out = plant.feed(&mut engine, &[run(60, 10.0), RUN_DOWN, OFF, RUN_UP, run(120, 10.0)]);
    assert!(raised(&out) > 0);
    assert!(predictions(&out).iter().all(|p| p.state == OperatingState::Unknown && p.regime.is_none()));
}

/// Without `steady_rate` a run-down is scored until the speed has left running: what it did to the score is undone.
#[test]
fn the_rows_before_a_stop_are_neither_learned_nor_remembered() {
    let mut engine = engine(Some(config::Operating { steady_rate: None, ..operating() }));
    let mut plant = Plant::new();
    let quick = Duty { seconds: 5, ..RUN_DOWN };
    let learned = |engine: &Engine| (engine.view("pump").unwrap().progress.unwrap() * ROWS as f64).round();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(100, 10.0)]);
    let before = learned(&engine);
    plant.feed(&mut engine, &[quick, OFF]);
    // Of the run-down four rows are above 570 a minute.
    assert!((before - 10.0..before - 5.0).contains(&learned(&engine)), "{} of {before}", learned(&engine));
    plant.feed(&mut engine, &[RUN_UP, run(120, 10.0)]);
    let limit = 1.0;
    let out = plant.feed(&mut engine, &[quick]);
    let score = |p: &&Prediction| p.score.unwrap_or(0.0);
    let (first, most) = (score(&predictions(&out)[0]), predictions(&out).iter().map(score).fold(0.0, f64::max));
    assert!(most > 0.1 + first, "the run-down is seen before it is told: {first} to {most}");
    let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(60, 10.0)]);
    assert_eq!(raised(&out), 0);
    assert!(predictions(&out).iter().all(|p| p.score.is_none_or(|score| score < limit) && !p.above));
}

/// Without `steady_rate` the speed must have left running within `settle`; with it a run-down may last as long as it likes.
#[test]
fn quick_and_slow_run_downs_raise_no_alarm() {
    for (steady_rate, seconds) in [(None, 5), (None, 15), (Some(20.0), 20), (Some(20.0), 60)] {
        let mut engine = slow_engine(config::Operating { steady_rate, ..with_load() });
        let mut plant = Plant::new();
        let run_down = Duty { seconds, ..RUN_DOWN };
        for _ in 0..6 {
            plant.feed(&mut engine, &[OFF, RUN_UP, run(120, 10.0), run(120, 25.0), run_down]);
        }
        assert_eq!(engine.baselines().count(), 2);
        for _ in 0..6 {
            let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(60, 10.0), run(60, 25.0), run(30, 10.0), run_down]);
            assert_eq!(raised(&out), 0, "{steady_rate:?}, {seconds} s");
        }
    }
}

/// Commissioning would have its last rows from the run-down, whose scores then set the limit.
#[test]
fn commissioning_does_not_end_within_a_run_down() {
    let mut engine = engine(Some(config::Operating { steady_rate: None, ..operating() }));
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP]);
    while engine.view("pump").unwrap().progress.unwrap() * (ROWS as f64) < 148.0 {
        plant.feed(&mut engine, &[run(1, 10.0)]);
    }
    plant.feed(&mut engine, &[Duty { seconds: 5, ..RUN_DOWN }, OFF]);
    assert_eq!(engine.baselines().count(), 0);
    plant.feed(&mut engine, &[RUN_UP, run(60, 10.0)]);
    assert_eq!(engine.baselines().next().unwrap().1.rows, ROWS as u64);
}

/// It waits for the starts with the newest rows, and goes on doing so after a restart.
#[test]
fn commissioning_waits_for_starts_and_keeps_the_newest_rows() {
    let mut engine = engine_with(|asset| {
        asset.points.extend(["speed", "load"].map(|id| config::Point { id: id.into(), scored: false, ..asset.points[0].clone() }));
        (asset.operating, asset.commissioning.starts) = (Some(operating()), 2);
    });
    let mut plant = Plant::new();
    let stop = [RUN_DOWN, OFF, RUN_UP];
    let progress = |engine: &Engine| {
        let asset = engine.asset_records(Timestamp(0)).remove(0).1;
        let rows = asset.commissioning_rows.unwrap();
        (rows, asset.commissioning_running_s.unwrap(), asset.commissioning_starts.unwrap(), asset.commissioning_progress.unwrap())
    };
    plant.feed(&mut engine, &[RUN_UP, run(80, 10.0)]);
    let (rows, running_s, starts, _) = progress(&engine);
    assert!((50..90).contains(&rows) && running_s == rows as f64 && starts == 0, "{rows} {running_s} {starts}");
    plant.feed(&mut engine, &stop);
    plant.feed(&mut engine, &[run(1_400, 10.0)]);
    assert_eq!(progress(&engine), (ROWS as u64, ROWS as f64, 1, 0.75), "all rows, and one of two starts");
    engine = Engine::restore(Bundles::offered_in(&models()), &engine.snapshot()).unwrap();
    let before_start = plant.seq;
    plant.feed(&mut engine, &stop);
    assert_eq!((engine.baselines().count(), progress(&engine).2), (0, 1), "it has to settle first");
    let out = plant.feed(&mut engine, &[run(30, 10.0)]);
    let (_, baseline) = engine.baselines().next().unwrap();
    assert_eq!((baseline.starts, &*baseline.verdict), (Some(2), "accepted"));
    let from: u64 = baseline.input_from.rsplit('/').next().unwrap().parse().unwrap();
    assert!(from > 4 * 1_000 && from < before_start, "{from}: without the first rows");
    assert!(baseline.rows < (ROWS + ROWS_BLOCK) as u64 + 30, "{}", baseline.rows);
    let text = |entry: &Entry| if let Body::Event(event) = &entry.body { event.text.clone() } else { None };
    assert!(out.iter().filter_map(|(_, entry)| text(entry)).any(|text| text.contains("rows after 2 starts")));
}

/// A person may know that it never stops.
#[test]
fn accepting_does_not_wait_for_starts_and_says_so() {
    let mut engine = engine_with(|asset| {
        asset.points.extend(["speed", "load"].map(|id| config::Point { id: id.into(), scored: false, ..asset.points[0].clone() }));
        (asset.operating, asset.commissioning.starts) = (Some(operating()), 2);
    });
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(300, 10.0)]);
    feed(&mut engine, 100_000, &[event(f64::from(plant.second), EventKind::Command, Some("commissioning_accepted"))]);
    let (_, baseline) = engine.baselines().next().unwrap();
    assert_eq!((baseline.starts, &*baseline.verdict, baseline.remarks.as_deref()), (Some(1), "accepted_with_remarks", Some("after 1 of 2 starts")));
}

#[test]
fn a_standstill_is_no_delay_of_an_alarm() {
    let mut engine = engine(Some(operating()));
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(220, 10.0)]);
    let out = plant.feed(&mut engine, &[faulty(14, 10.0), Duty { seconds: 1, ..RUN_DOWN }, OFF]);
    assert!(raised(&out) == 0 && predictions(&out).iter().any(|p| p.above), "over the limit for less than settling and the delay");
    let out = plant.feed(&mut engine, &[RUN_UP, faulty(60, 10.0)]);
    let predictions = predictions(&out);
    let first = |is: &dyn Fn(&Prediction) -> bool| predictions.iter().position(|p| is(p)).unwrap();
    let (scored, above, alarm) = (first(&|p| p.score.is_some()), first(&|p| p.above), rows_before_the_first_alarm(&out));
    assert!(above >= scored && alarm - above == 15, "scored {scored}, above {above}, alarm {alarm}");
}

/// The alarm says what was seen `settle` ago, when the score may have stood elsewhere already.
#[test]
fn an_alarm_of_the_score_tells_of_the_row_that_it_was_made_of() {
    let mut engine = engine(Some(operating()));
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(220, 10.0)]);
    let faults = [5, 6, 7, 9, 12, 15, 30].into_iter().flat_map(|seconds| [faulty(seconds, 10.0), run(120, 10.0)]);
    let out = plant.feed(&mut engine, &faults.collect::<Vec<_>>());
    let (mut told, mut elsewhere) = (0, 0);
    for (n, (_, entry)) in out.iter().enumerate() {
        let Body::Alarm(alarm) = &entry.body else { continue };
        let of_row = |(_, entry): &&(LaneName, Entry)| matches!(&entry.body, Body::Prediction(p) if p.input_to == alarm.input_to);
        let Some((_, row)) = out.iter().find(of_row) else { panic!("no row of {alarm:?}") };
        let Body::Prediction(then) = &row.body else { unreachable!() };
        let age = (entry.stamp.ts.0 - row.stamp.ts.0) as f64 / 1e6;
        assert!((10.0..12.5).contains(&age), "{age} s");
        let of_alarm = (alarm.value, &alarm.contrib_1_point, alarm.contrib_1_share, &alarm.baseline_id, &alarm.input_from);
        assert_eq!(of_alarm, (then.score, &then.contrib_1_point, then.contrib_1_share, &then.baseline_id, &then.input_from));
        assert_eq!(alarm.state == AlarmState::ActiveUnacknowledged, then.above, "{alarm:?}");
        let now = out[n..].iter().find_map(|(_, entry)| if let Body::Prediction(p) = &entry.body { p.score } else { None });
        elsewhere += u32::from((now > Some(1.0)) != (alarm.value > Some(1.0)));
        told += 1;
    }
    assert!(told > 4 && elsewhere > 0, "{told} told, the score stood elsewhere at {elsewhere}");
}

#[test]
fn each_change_of_state_is_an_event_and_a_prediction() {
    let mut engine = engine(Some(operating()));
    let mut plant = Plant::new();
    let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(60, 10.0)]);
    assert_eq!(state_events(&out).iter().map(|event| event.0).collect::<Vec<_>>(), [Transient, Off, Transient, Running]);
    assert_eq!(state_events(&out)[3].2, "the machine is running, regime `running`");
    let record = engine.asset_records(Timestamp(0)).remove(0).1;
    assert_eq!((record.state, record.regime.as_deref()), (Running, Some("running")));
    // Speed falls silent: unknown, which is no state to score in.
    let seconds = (0..10).map(|n| f64::from(plant.second) + f64::from(n));
    let silent: Vec<Entry> = seconds.flat_map(|second| ["a", "b"].map(|point| reading(second, point, Some(80.0)))).collect();
    let out = feed(&mut engine, 10_000, &silent);
    assert_eq!(state_events(&out).iter().map(|event| event.0).collect::<Vec<_>>(), [OperatingState::Unknown]);
    let last = predictions(&out).last().copied().unwrap().clone();
    assert_eq!((last.state, last.reason, last.quality), (OperatingState::Unknown, Some(ScoreReason::MissingPoint), Quality::Bad));
}

/// A point that tells the state is cleaned as it is configured, scored or not.
#[test]
fn a_stuck_speed_tells_no_state() {
    let mut engine = engine_with(|asset| {
        let stuck = config::Stuck { after: Duration::from_secs(20), within: 0.0 };
        asset.points.push(config::Point { id: "speed".into(), scored: false, ..asset.points[0].clone() });
        asset.points[3].checks = config::Checks { stuck: Some(stuck), ..config::Checks::default() };
        asset.operating = Some(operating());
    });
    let mut noise = Noise(3);
    let second = |n: u32, speed: f64, value: f64| {
        [("speed", speed), ("a", value), ("b", 2.0 * value)].map(|(point, value)| reading(f64::from(n), point, Some(value)))
    };
    let moving: Vec<Entry> = (1_000..1_030).flat_map(|n| second(n, 1480.0 + f64::from(n % 2), noise.next())).collect();
    feed(&mut engine, 1, &moving);
    assert_eq!(engine.view("pump").unwrap().state, Running);
    let still: Vec<Entry> = (1_030..1_060).flat_map(|n| second(n, 1480.0, noise.next())).collect();
    feed(&mut engine, 1_000, &still);
    let view = engine.view("pump").unwrap();
    assert_eq!((view.state, view.reason), (OperatingState::Unknown, Some(ScoreReason::MissingPoint)));
}

#[test]
fn regimes_have_baselines_of_their_own_and_a_change_of_load_is_no_alarm() {
    let mut engine = engine(Some(with_load()));
    let mut plant = Plant::new();
    let out = plant.feed(&mut engine, &[OFF, RUN_UP, run(50, 10.0), run(180, 25.0), run(170, 10.0)]);
    assert_eq!(events(&out).iter().filter(|event| event.1 == "accepted").count(), 2);
    let known: Vec<(String, String)> =
        engine.baselines().map(|(_, baseline)| (baseline.baseline_id.to_string(), baseline.regime.as_deref().unwrap().to_owned())).collect();
    let [(first, second_regime), (last, first_regime)] = &known[..] else { panic!("{known:?}") };
    assert_eq!((&**second_regime, &**first_regime), ("load-2", "load-1"));
    assert!(first.ends_with("-load-2") && last.ends_with("-load-1"), "{known:?}");
    for _ in 0..4 {
        let out = plant.feed(&mut engine, &[run(60, 25.0), run(60, 10.0)]);
        assert_eq!(raised(&out), 0);
        for prediction in predictions(&out).iter().filter(|prediction| prediction.score.is_some()) {
            assert!(prediction.baseline_id.as_ref().unwrap().ends_with(&**prediction.regime.as_ref().unwrap()), "{prediction:?}");
        }
        assert!(predictions(&out).iter().filter(|prediction| prediction.score.is_some()).count() > 80);
    }
    for load in [25.0, 10.0] {
        assert_eq!(raised(&plant.feed(&mut engine, &[run(60, load), faulty(30, load)])), 1, "at {load}");
        plant.feed(&mut engine, &[run(90, load)]);
    }
}

#[test]
fn an_unseen_regime_is_named_once_and_learned_without_an_alarm() {
    let mut engine = engine(Some(with_load()));
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(180, 10.0)]);
    let out = plant.feed(&mut engine, &[run(60, 40.0), run(60, 10.0), run(60, 40.0)]);
    let named: Vec<_> = state_events(&out).into_iter().filter(|event| event.1.is_some()).collect();
    let text = "the machine is in a regime that its commissioning has not seen: `load-3`, `load` from 30 on; no score and no alarm until 150 rows of it are learned";
    assert_eq!(named, [(OperatingState::Running, Some("unseen_regime"), text)]);
    assert_eq!(raised(&out), 0);
    let unseen: Vec<_> = predictions(&out).into_iter().filter(|p| p.reason == Some(ScoreReason::UnseenRegime)).collect();
    assert!(unseen.len() > 80 && unseen.iter().all(|p| p.score.is_none() && p.health.is_none() && p.regime.as_deref() == Some("load-3")));
    let view = engine.view("pump").unwrap();
    assert_eq!((view.reason, view.regime.as_deref(), view.phase), (Some(ScoreReason::UnseenRegime), Some("load-3"), Phase::Commissioning));
    let out = plant.feed(&mut engine, &[run(120, 40.0)]);
    assert_eq!((raised(&out), engine.baselines().count()), (0, 2));
    assert!(predictions(&out).last().unwrap().score.is_some());
    // Maintenance: all regimes begin anew, none is unseen.
    feed(&mut engine, 100_000, &[event(f64::from(plant.second), EventKind::Command, Some("maintenance_done"))]);
    plant.seq = 100_001;
    let out = plant.feed(&mut engine, &[run(30, 40.0), run(30, 10.0)]);
    assert!(state_events(&out).iter().all(|event| event.1.is_none()));
    assert!(predictions(&out).iter().filter(|p| p.regime.is_some()).all(|p| p.reason == Some(ScoreReason::Commissioning)));
}

#[test]
fn a_machine_in_an_alarm_teaches_nothing() {
    let mut engine = engine(Some(with_load()));
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(180, 10.0), faulty(40, 10.0)]);
    let out = plant.feed(&mut engine, &[faulty(200, 40.0)]);
    assert_eq!((engine.baselines().count(), engine.view("pump").unwrap().progress), (1, Some(0.0)));
    assert_eq!(predictions(&out).last().unwrap().reason, Some(ScoreReason::UnseenRegime));
}

/// Part of the machine is learned, and what was asked for was not done.
#[test]
fn accepting_a_machine_with_a_regime_that_makes_no_baseline_is_a_refusal() {
    let mut engine = engine_with(|asset| {
        asset.points.extend(["speed", "load"].map(|id| config::Point { id: id.into(), scored: false, ..asset.points[0].clone() }));
        // Else what stands still is no value.
        asset.points.iter_mut().for_each(|point| point.checks.stuck = Some(config::Stuck { after: Duration::from_secs(86_400), within: 0.0 }));
        asset.operating = Some(with_load());
    });
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(150, 10.0)]);
    let still = |mut entry: Entry| {
        if let Body::Reading(reading) = &mut entry.body
            && ["a", "b"].contains(&&*reading.point)
        {
            reading.value = Some(100.0);
        }
        entry
    };
    let second: Vec<Entry> = plant.entries(&[run(150, 25.0)]).into_iter().map(still).collect();
    feed(&mut engine, 50_000, &second);
    let mut accept = event(f64::from(plant.second), EventKind::Command, Some("commissioning_accepted"));
    if let Body::Event(event) = &mut accept.body {
        event.command_id = Some("c1".into());
    }
    feed(&mut engine, 60_000, &[accept]);
    let outcome = engine.take_outcomes().pop().unwrap().1;
    let said = outcome.expect_err("it is a refusal");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("regime `load-1`: commissioned on "), "{said}");
    assert_eq!(
        lines[1..],
        ["regime `load-2`: commissioning refused: no scored point changed its value; it begins anew with `hark event maintenance`"]
    );
    assert_eq!(engine.baselines().count(), 1);
}

#[test]
fn accepting_ends_the_commissioning_of_every_regime_with_enough_rows() {
    let mut engine = engine(Some(with_load()));
    let mut plant = Plant::new();
    let accept = |second: u32| [event(f64::from(second), EventKind::Command, Some("commissioning_accepted"))];
    plant.feed(&mut engine, &[OFF, RUN_UP]);
    assert_eq!(events(&feed(&mut engine, 50_000, &accept(plant.second)))[1..], [("audit", "commissioning_accepted", "refused")]);
    plant.seq = 50_001;
    plant.feed(&mut engine, &[run(160, 10.0), run(160, 25.0), run(20, 40.0)]);
    let out = feed(&mut engine, 60_000, &accept(plant.second));
    let words: Vec<_> = events(&out).iter().map(|event| event.1).collect();
    assert_eq!(words, ["accepted", "accepted", "too_few_rows", "commissioning_accepted"], "of each regime");
    let text = |at: usize| if let Body::Event(event) = &out[at].1.body { event.text.as_deref().unwrap() } else { "" };
    assert!(text(0).starts_with("regime `load-1`: ") && text(0).contains("of 150 rows"), "{}", text(0));
    assert!(text(2).starts_with("regime `load-3`: ") && text(2).contains("at least 130 are needed"), "{}", text(2));
    assert_eq!(text(3), [text(0), text(1), text(2)].join("\n"), "the answer tells of each");
    assert_eq!(state_events(&out), []);
    plant.seq = 60_001;
    let out = plant.feed(&mut engine, &[run(20, 40.0), run(40, 10.0)]);
    let last = predictions(&out).last().copied().unwrap().clone();
    assert_eq!((last.regime.as_deref(), last.baseline_id.as_deref()), (Some("load-1"), Some("2-60000-load-1")));
    // What was seen before others were accepted goes on being commissioned.
    assert!(predictions(&out)[..20].iter().all(|p| p.regime.is_none() || p.reason == Some(ScoreReason::Commissioning)));
    // Its rows go on where they were; of each regime the baselines are kept.
    plant.feed(&mut engine, &[run(170, 40.0)]);
    let regimes: Vec<_> = engine.baselines().map(|(_, baseline)| baseline.regime.as_deref().unwrap()).collect();
    assert_eq!(regimes, ["load-1", "load-2", "load-3"]);
    let out = feed(&mut engine, 90_000, &accept(plant.second));
    assert_eq!(events(&out), [("audit", "commissioning_accepted", "refused")], "there is nothing more to accept");
    let Body::Event(answer) = &out[0].1.body else { panic!("it is an event") };
    let said: Vec<&str> = answer.text.as_deref().unwrap().lines().collect();
    assert_eq!((said.len(), said[0]), (3, "regime `load-1`: it is learned already, its baseline is 2-60000-load-1"));
}

#[test]
fn other_thresholds_are_other_regimes_and_other_delays_are_not() {
    let mut engine = engine(Some(operating()));
    let mut plant = Plant::new();
    plant.feed(&mut engine, &[OFF, RUN_UP, run(200, 10.0)]);
    let mut configured = engine.configurations().next().unwrap().1.clone();
    let mut configure = |engine: &mut Engine, hash: &str, operating: config::Operating| {
        (configured.hash, configured.operating) = (hash.into(), Some(operating));
        let event = Event {
            what: Some("configuration".into()),
            hash_after: Some(configured.hash.clone()),
            detail_json: Some(configured::configuration(&configured)),
            ..Event::new(EventKind::Change)
        };
        feed(engine, 90_000, &[Entry { stamp: stamp(999.0), cause: None, body: Body::Event(event.into()) }])
    };
    assert!(configure(&mut engine, "h1", config::Operating { settle: Duration::from_secs(30), ..operating() }).is_empty());
    assert!(engine.view("pump").unwrap().baseline_id.is_some());
    assert_eq!(events(&configure(&mut engine, "h2", with_load())), [("commissioning", "started", "")]);
    assert!(engine.view("pump").unwrap().baseline_id.is_none());
}

/// Promise 5 over states and regimes: from a snapshot anywhere the outputs are the same.
#[test]
fn a_restored_engine_goes_on_through_states_and_regimes() {
    let duties = [OFF, RUN_UP, run(190, 10.0), run(60, 25.0), faulty(40, 10.0), RUN_DOWN, OFF, RUN_UP, run(60, 10.0)];
    let entries = Plant::new().entries(&duties);
    let mut undisturbed = engine(Some(with_load()));
    let expected = feed(&mut undisturbed, 1, &entries);
    let mut engine = engine(Some(with_load()));
    let mut out = Vec::new();
    // Nine and four have no common divisor: all places within a row come up.
    for (index, part) in entries.chunks(9).enumerate() {
        let snapshot = engine.snapshot();
        engine = Engine::restore(Bundles::offered_in(&models()), &snapshot).unwrap();
        assert_eq!(engine.snapshot(), snapshot, "before entry {}", 9 * index);
        out.extend(feed(&mut engine, 9 * index as u64 + 1, part));
    }
    assert!(out == expected);
    assert_eq!(engine.shared.baselines, undisturbed.shared.baselines);
    let scored = predictions(&out).iter().filter(|p| p.score.is_some()).count();
    assert!(scored > 40 && state_events(&out).len() > 8 && raised(&out) == 1, "{scored}");
}

/// A limit of a point holds in every state: its delay runs on while rows are set aside.
#[test]
fn a_limit_alarms_while_the_machine_is_off() {
    let mut engine = engine_with(|asset| {
        asset.points.push(config::Point { id: "speed".into(), scored: false, ..asset.points[0].clone() });
        asset.points[1].limits = Some(config::Limits { high: Some(80.0), ..config::Limits::default() }.into());
        asset.operating = Some(operating());
    });
    let second = |n: u32| [("speed", 0.0), ("note", 90.0), ("a", 0.0), ("b", 0.0)].map(|(point, value)| reading(f64::from(n), point, Some(value)));
    let out = feed(&mut engine, 1, &(1_000..1_040).flat_map(second).collect::<Vec<_>>());
    assert_eq!((engine.view("pump").unwrap().state, raised(&out)), (Off, 1));
    assert!(engine.counters().rows_not_steady > 20);
}
