//! Promise 5 without brokers: killed anywhere, any number of times, the outputs in the log are those of a run that nothing disturbed.
//!
//! The log is played by vectors. A kill loses the engine, the outputs that were not durable yet (lane by lane another part of them), and now and then
//! inputs that nobody has read yet, which a gap then names; a start restores the newest checkpoint or the one before it, and reads on.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use hark_protocol::topics::{Clock, Quality, Reading, ScoreReason, Timestamp, TsSource};
use proptest::prelude::*;

use super::*;
use crate::{
    config,
    inference::{baseline::tests::Noise, configured},
    record::Stamp,
};

const SECOND: i64 = 1_000_000;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn asset(hash: &str, stale_s: u64, scored: &[&str]) -> config::Asset {
    let point = |id: &&str| config::Point {
        id: (*id).into(),
        unit: "1".into(),
        column: None,
        range: None,
        map: BTreeMap::new(),
        scored: scored.contains(id),
        checks: config::Checks { max_rate: Some(60.0), stuck: Some(config::Stuck { after: Duration::from_secs(8), within: 0.0 }), clips: None },
        limits: None,
        severity: None,
        ignore_fall: false,
        stale_after: None,
    };
    config::Asset {
        id: "pump".into(),
        name: "Pump".into(),
        path: None,
        class: None,
        grid: Duration::from_secs(1),
        stale_after: Duration::from_secs(stale_s),
        predict_every: Duration::from_secs(2),
        commissioning: config::Commissioning { rows: 60, starts: 0, adapts: true },
        alarm: config::AlarmSettings { on_delay: Duration::from_secs(2), off_delay: Duration::from_secs(3), latch: false },
        forecast: config::Forecast::default(),
        instrument: config::InstrumentSettings { on_delay: Duration::from_secs(2), off_delay: Duration::from_secs(3) },
        operating: None,
        points: ["a", "b", "c"].iter().map(point).collect(),
        waveforms: Vec::new(),
        hash: hash.into(),
    }
}

/// The asset with operating states and two load regimes, both told from the point that is not scored.
fn operated_asset(hash: &str) -> config::Asset {
    let threshold = |at: f64| config::Threshold { reached_at: at, left_below: 0.9 * at };
    let operating = config::Operating {
        point: "c".into(),
        idle: Some(threshold(50.0)),
        running: threshold(600.0),
        settle: Duration::from_secs(3),
        steady_rate: Some(30.0),
        score_idle: true,
        load: Some(config::Load { point: "c".into(), bounds: vec![threshold(1_000.0)] }),
    };
    let mut asset = config::Asset { operating: Some(operating), ..asset(hash, 4, &["a", "b"]) };
    asset.points[2].checks = config::Checks::default();
    asset
}

/// What may happen to the asset, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Run(usize),
    Fault(usize),
    /// The machine is off (0), idle (1), running (2) or running at full load (3) from now on.
    Speed(u8),
    Silent(usize),
    /// A point of the machine is stuck (0), has spikes (1) or says nothing (2).
    Sick(u8, usize),
    BackInTime,
    Command(u8),
    Configure(u8),
    Clock(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (10_usize..90).prop_map(Step::Run),
        4 => (5_usize..30).prop_map(Step::Fault),
        4 => (0_u8..4).prop_map(Step::Speed),
        3 => (1_usize..12).prop_map(Step::Silent),
        3 => (0_u8..3, 5_usize..30).prop_map(|(how, rows)| Step::Sick(how, rows)),
        1 => Just(Step::BackInTime),
        3 => (0_u8..6).prop_map(Step::Command),
        2 => (0_u8..6).prop_map(Step::Configure),
        1 => (-4_000_i64..4_000).prop_map(Step::Clock),
    ]
}

/// The inputs lane that `steps` make.
struct Lane {
    entries: Vec<Entry>,
    now_us: i64,
    noise: Noise,
    a: f64,
    /// What `c` says; else it follows `b`.
    speed: Option<f64>,
}

impl Lane {
    fn of(steps: &[Step]) -> Vec<Entry> {
        let mut lane = Self { entries: Vec::new(), now_us: 1_000 * SECOND, noise: Noise(7), a: 0.0, speed: None };
        lane.configure(0);
        lane.rows(80, true);
        steps.iter().for_each(|step| lane.step(*step));
        lane.entries
    }

    fn push(&mut self, asset: Option<&str>, body: Body) {
        let stamp = Stamp {
            asset: asset.map(Into::into),
            ts: Timestamp(self.now_us),
            ts_source: TsSource::Gateway,
            clock: Clock::Synced,
            origin: Origin::Live,
        };
        self.entries.push(Entry { stamp, cause: None, body });
    }

    fn rows(&mut self, rows: usize, healthy: bool) {
        for _ in 0..rows {
            let b = if healthy { 2.0 * self.a + 0.1 * self.noise.next() } else { 9.0 * self.noise.next() };
            self.row(Some(b), 0.5 * b);
        }
    }

    fn sick_rows(&mut self, how: u8, rows: usize) {
        for row in 0..rows {
            let b = 2.0 * self.a + 0.1 * self.noise.next();
            let said = match how {
                0 => Some(1.0),
                1 => Some(if row % 4 == 1 { 500.0 } else { b }),
                _ => None,
            };
            self.row(said, 0.5 * b);
        }
    }

    fn row(&mut self, b: Option<f64>, c: f64) {
        self.a = 0.8 * self.a + self.noise.next();
        for (point, value) in [("a", Some(self.a)), ("b", b), ("c", Some(self.speed.map_or(c, |speed| speed + c)))] {
            let Some(value) = value else { continue };
            let reading = Reading {
                point: point.into(),
                value: Some(value),
                unit: "1".into(),
                quality: Quality::Good,
                reason: None,
                source_seq: None,
                boot: "boot".into(),
                log_ms: 0,
            };
            self.push(Some("pump"), Body::Reading(reading));
        }
        self.now_us += SECOND;
    }

    fn configure(&mut self, which: u8) {
        let config = match which {
            0 => asset("h0", 4, &["a", "b"]),
            1 => asset("h1", 9, &["a", "b"]),
            2 => asset("h2", 4, &["a", "b", "c"]),
            4 | 5 => operated_asset("h4"),
            _ => {
                let event = Event { what: Some("configuration".into()), ..Event::new(EventKind::Change) };
                return self.push(Some("pump"), Body::Event(event.into()));
            }
        };
        let event = Event {
            what: Some("configuration".into()),
            hash_after: Some(config.hash.clone()),
            detail_json: Some(configured::configuration(&config)),
            ..Event::new(EventKind::Change)
        };
        self.push(Some("pump"), Body::Event(event.into()));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Run(rows) => self.rows(rows, true),
            Step::Fault(rows) => self.rows(rows, false),
            Step::Sick(how, rows) => self.sick_rows(how, rows),
            Step::Speed(which) => self.speed = Some([0.0, 300.0, 800.0, 1_480.0][usize::from(which)]),
            Step::Silent(ticks) => {
                for _ in 0..ticks {
                    self.now_us += SECOND;
                    self.push(Some("pump"), Body::Event(Event::new(EventKind::Tick).into()));
                }
            }
            Step::BackInTime => {
                let now_us = std::mem::replace(&mut self.now_us, 5 * SECOND);
                self.rows(40, true);
                self.now_us = now_us;
            }
            Step::Command(which) => {
                let word = ["acknowledge", "commissioning_accepted", "maintenance_done", "acknowledge", "sing", "acknowledge"][usize::from(which)];
                let event = Event {
                    command: Some(word.into()),
                    command_id: Some(format!("c{}", which % 4).into()),
                    actor: Some("mw".into()),
                    ..Event::new(EventKind::Command)
                };
                let asset = if which == 5 { "stranger" } else { "pump" };
                self.push(Some(asset), Body::Event(event.into()));
            }
            Step::Configure(which) => self.configure(which),
            Step::Clock(seconds) => {
                self.now_us += seconds * SECOND;
                let event = Event { offset_ms: Some(seconds as f64 * 1e3), ..Event::new(EventKind::Clock) };
                self.push(None, Body::Event(event.into()));
            }
        }
    }
}

/// Where inference is killed, and what survives.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// After so many inputs of this life.
    after: usize,
    /// Inputs per checkpoint in this life.
    checkpoint_every: usize,
    /// Of the outputs since the last checkpoint, in percent, what is durable; lane by lane.
    durable: [u8; OUTPUTS.len()],
    /// The newer generation of the checkpoint is damaged.
    damaged: bool,
    /// So many inputs beyond the last one that was ever read begins a gap, so long.
    gap: Option<(usize, usize)>,
}

fn kill() -> impl Strategy<Value = Kill> {
    let gap = prop::option::weighted(0.4, (0_usize..60, 1_usize..40));
    (1_usize..200, 1_usize..80, prop::array::uniform3(0_u8..=100), prop::bool::weighted(0.2), gap)
        .prop_map(|(after, checkpoint_every, durable, damaged, gap)| Kill { after, checkpoint_every, durable, damaged, gap })
}

type Lanes = [Vec<Entry>; OUTPUTS.len()];

fn incarnation(at: usize) -> Position {
    // A few incarnations, each with its own numbers.
    Position { ordinal: 1 + (at / 97) as u32, seq: 1 + (at % 97) as u64 }
}

/// The inputs lane, and of each record whether a gap names it.
struct Inputs<'a> {
    entries: &'a [Entry],
    lost: Vec<bool>,
}

impl Inputs<'_> {
    /// Takes what follows the first `at` records, one record or a whole gap; gives how many are behind it then.
    fn feed(&self, engine: &mut Engine, at: usize, emitted: Emitted, lanes: &mut Lanes) -> usize {
        if self.lost[at] {
            engine.pass_gap();
            return at + self.lost[at..].iter().take_while(|lost| **lost).count();
        }
        let mut produced = Vec::new();
        let position = incarnation(at);
        engine.process(position, &format!("inc-{}", position.ordinal), &self.entries[at], &mut produced);
        for (lane, entry) in produced {
            if !emitted.has(lane, entry.cause) {
                lanes[OUTPUTS.iter().position(|output| *output == lane).unwrap()].push(entry);
            }
        }
        at + 1
    }

    fn lose(&mut self, from: usize, length: usize) {
        self.lost.iter_mut().skip(from).take(length).for_each(|lost| *lost = true);
    }
}

fn undisturbed(inputs: &Inputs<'_>) -> Lanes {
    let mut engine = Engine::empty(Bundles::offered_in(&models())).unwrap();
    let (mut lanes, mut at) = (Lanes::default(), 0);
    while at < inputs.entries.len() {
        at = inputs.feed(&mut engine, at, Emitted::default(), &mut lanes);
    }
    lanes
}

/// What is in the log in the end: the outputs, and the inputs with the gaps that came.
fn killed<'a>(entries: &'a [Entry], kills: &[Kill]) -> (Lanes, Inputs<'a>) {
    let bundles = Bundles::offered_in(&models());
    let mut inputs = without_gaps(entries);
    let mut lanes = Lanes::default();
    // Two generations: how many inputs they hold, and the state.
    let mut checkpoints: [Option<(usize, Vec<u8>)>; 2] = [None, None];
    let forever = Kill { after: usize::MAX, checkpoint_every: 50, durable: [100; 3], damaged: false, gap: None };
    let mut furthest = 0;
    for kill in kills.iter().copied().chain([forever]) {
        let newest = checkpoints[1].clone().filter(|_| !kill.damaged).or_else(|| checkpoints[0].clone());
        let (mut at, mut engine) = match &newest {
            Some((at, state)) => (*at, Engine::restore(bundles.clone(), state).unwrap()),
            None => (0, Engine::empty(bundles.clone()).unwrap()),
        };
        let emitted = Emitted(std::array::from_fn(|index| lanes[index].iter().filter_map(|entry| entry.cause).max()));
        let mut durable: [usize; OUTPUTS.len()] = std::array::from_fn(|index| lanes[index].len());
        let mut lived = 0;
        while at < entries.len() && lived < kill.after {
            (at, lived) = (inputs.feed(&mut engine, at, emitted, &mut lanes), lived + 1);
            if lived % kill.checkpoint_every == 0 {
                // Outputs first: a checkpoint says that they are there.
                durable = std::array::from_fn(|index| lanes[index].len());
                checkpoints = [checkpoints[1].take(), Some((at, engine.snapshot()))];
            }
        }
        if lived == kill.after {
            for (index, lane) in lanes.iter_mut().enumerate() {
                let since = lane.len() - durable[index];
                lane.truncate(durable[index] + since * usize::from(kill.durable[index]) / 100);
            }
        }
        furthest = furthest.max(at);
        if let Some((ahead, length)) = kill.gap {
            inputs.lose(furthest + ahead, length);
        }
    }
    (lanes, inputs)
}

fn without_gaps(entries: &[Entry]) -> Inputs<'_> {
    Inputs { entries, lost: vec![false; entries.len()] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn killed_anywhere_the_outputs_are_those_of_an_undisturbed_run(
        steps in prop::collection::vec(step(), 1..14),
        kills in prop::collection::vec(kill(), 0..12),
    ) {
        let entries = Lane::of(&steps);
        let (found, inputs) = killed(&entries, &kills);
        let expected = undisturbed(&inputs);
        for ((lane, expected), found) in OUTPUTS.iter().zip(&expected).zip(&found) {
            prop_assert_eq!(expected.len(), found.len(), "outputs in lane {}", lane);
            for (expected, found) in expected.iter().zip(found) {
                prop_assert_eq!(expected, found);
            }
        }
    }
}

/// Killed before the gap, in the windows behind it, and long after: what follows it is said to follow a gap, and is the same each time.
#[test]
fn a_gap_between_two_kills_costs_a_window_and_is_said() {
    let entries = Lane::of(&[Step::Run(80)]);
    let kill = |after, gap| Kill { after, checkpoint_every: 7, durable: [50; 3], damaged: false, gap };
    // The machine is scored from input 181 on; inputs 311 to 322 are lost: four rows.
    let (found, inputs) = killed(&entries, &[kill(300, Some((10, 12))), kill(12, None), kill(5, None), kill(8, None), kill(9, None), kill(40, None)]);
    assert_eq!(found, undisturbed(&inputs));
    let behind_gap = |lanes: &Lanes| {
        let predictions = lanes[2].iter().filter_map(|entry| if let Body::Prediction(prediction) = &entry.body { Some(prediction) } else { None });
        predictions.filter(|p| p.reason == Some(ScoreReason::InputGap) && p.quality == Quality::Uncertain && p.score.is_none()).count()
    };
    assert_eq!((behind_gap(&found), behind_gap(&undisturbed(&without_gaps(&entries)))), (2, 0));
}

/// The steps must reach what is to be compared.
#[test]
fn the_steps_reach_scores_alarms_silence_and_answers() {
    let steps = [
        Step::Run(60),
        Step::Sick(0, 20),
        Step::Run(20),
        Step::Sick(1, 20),
        Step::Sick(2, 20),
        Step::Run(20),
        Step::Fault(20),
        Step::Command(0),
        Step::Silent(10),
        Step::Configure(1),
        Step::Run(20),
        Step::Configure(2),
        Step::Run(70),
        Step::Sick(2, 20),
        Step::Speed(2),
        Step::Configure(4),
        Step::Run(80),
        Step::Speed(3),
        Step::Run(20),
        Step::Speed(0),
        Step::Run(20),
    ];
    let [events, alarms, predictions] = undisturbed(&without_gaps(&Lane::of(&steps)));
    let scored = predictions.iter().filter(|entry| matches!(&entry.body, Body::Prediction(p) if p.score.is_some())).count();
    let reduced = predictions.iter().filter(|entry| matches!(&entry.body, Body::Prediction(p) if p.reason == Some(ScoreReason::Reduced))).count();
    assert!(reduced >= 5, "{reduced}");
    let states = events.iter().filter(|entry| matches!(&entry.body, Body::Event(event) if event.kind == EventKind::OperatingState));
    let unseen = states.clone().filter(|entry| matches!(&entry.body, Body::Event(event) if event.what.is_some())).count();
    let in_regime = |entry: &&Entry| matches!(&entry.body, Body::Prediction(p) if p.regime.as_deref() == Some("load-1") && p.score.is_some());
    assert!(states.count() >= 6 && unseen == 1 && predictions.iter().filter(in_regime).count() >= 5);
    let instruments = events.iter().filter(|entry| matches!(&entry.body, Body::Event(event) if event.kind == EventKind::Instrument)).count();
    assert!(instruments >= 4, "{instruments}");
    assert!(events.len() >= 4 + instruments && alarms.len() >= 2 && scored >= 20, "{} {} {scored}", events.len(), alarms.len());
}
