//! Sensors that stand still on a pump that runs, stops and starts: what is said of them, and what of the machine.
use hark_protocol::topics::OperatingState::{self, Off, Running, Unknown};

use super::*;

const CURRENT: usize = 0;
const FLOW: usize = 1;
const VIBRATION: usize = 3;
const POINTS: [&str; 4] = ["current", "flow", "pressure", "v_rms"];

type Outputs = Vec<(LaneName, Entry)>;

/// The current tells whether it runs; at a standstill current and flow are 0 exactly, as a converter with a cut-off has them.
struct Pump {
    engine: Engine,
    noise: Noise,
    load: f64,
    second: u32,
    seq: u64,
}

impl Pump {
    fn new(edit: impl FnOnce(&mut config::Asset)) -> Self {
        let engine = engine_with(|asset| {
            let plain = asset.points[0].clone();
            asset.points = POINTS.map(|id| config::Point { id: id.into(), ..plain.clone() }).into();
            asset.points[FLOW].limits = Some(config::Limits { low: Some(50.0), only_running: true, ..config::Limits::default() }.into());
            let vibration = &mut asset.points[VIBRATION];
            (vibration.unit, vibration.severity) = ("mm/s".into(), Some("2-rigid".into()));
            vibration.limits = Some(config::Limits { high: Some(4.5), only_running: true, ..config::Limits::default() }.into());
            let running = config::Threshold { reached_at: 5.0, left_below: 4.0 };
            let settle = Duration::from_secs(10);
            asset.operating =
                Some(config::Operating { point: "current".into(), idle: None, running, settle, steady_rate: None, score_idle: false, load: None });
            asset.alarm.on_delay = Duration::from_secs(15);
            edit(asset);
        });
        Self { engine, noise: Noise(7), load: 0.0, second: 1_000, seq: 0 }
    }

    /// Runs, or stands, for so many seconds, with what `sick` makes of the values.
    fn feed(&mut self, seconds: u32, runs: bool, sick: impl Fn(&mut [f64; 4])) -> Outputs {
        let mut entries = Vec::new();
        for _ in 0..seconds {
            self.load = 0.9 * self.load + self.noise.next();
            let mut noise = || self.noise.next();
            let mut values = if runs {
                [
                    40.0 + self.load + 0.2 * noise(),
                    100.0 + 3.0 * self.load + 0.5 * noise(),
                    6.0 - 0.05 * self.load + 0.03 * noise(),
                    0.9 + 0.03 * noise(),
                ]
            } else {
                [0.0, 0.0, 2.0 + 0.01 * noise(), 0.02 + 0.003 * noise()]
            };
            sick(&mut values);
            let time = f64::from(self.second);
            entries.extend((0..).zip(POINTS).zip(values).map(|((n, point), value)| reading(time + 0.1 * f64::from(n), point, Some(value))));
            self.second += 1;
        }
        let out = feed(&mut self.engine, self.seq + 1, &entries);
        self.seq += entries.len() as u64;
        out
    }

    fn run(&mut self, seconds: u32) -> Outputs {
        self.feed(seconds, true, |_| {})
    }

    fn stop(&mut self, seconds: u32) -> Outputs {
        self.feed(seconds, false, |_| {})
    }

    /// Learned over a stop.
    fn learned() -> Self {
        let mut pump = Self::new(|_| {});
        let mut out = pump.run(120);
        out.extend(pump.stop(60));
        out.extend(pump.run(150));
        assert_eq!((pump.engine.baselines().count(), said(&out)), (1, Vec::new()));
        pump
    }

    fn state(&self) -> OperatingState {
        self.engine.view("pump").unwrap().state
    }

    fn instruments(&self) -> String {
        self.engine.asset_records(Timestamp(0)).remove(0).1.instruments_json.to_string()
    }
}

/// Instrument, status and text of each event of an instrument.
fn said(out: &[(LaneName, Entry)]) -> Vec<(String, String, String)> {
    let event = |(_, entry): &(LaneName, Entry)| if let Body::Event(event) = &entry.body { Some(event.clone()) } else { None };
    let words = |event: Box<Event>| [event.source, event.what, event.text].map(|name| name.as_deref().unwrap_or_default().to_owned());
    let of_instruments = out.iter().filter_map(event).filter(|event| event.kind == EventKind::Instrument).map(words);
    of_instruments.map(|[source, what, text]| (source, what, text)).collect()
}

/// Instrument and status of each, without the words.
fn statuses(out: &[(LaneName, Entry)]) -> Vec<(String, String)> {
    said(out).into_iter().map(|(id, status, _)| (id, status)).collect()
}

fn of(statuses: &[(&str, &str)]) -> Vec<(String, String)> {
    statuses.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect()
}

/// The points whose alarms were raised.
fn raised(out: &[(LaneName, Entry)]) -> Vec<String> {
    let raised = alarms(out).into_iter().filter(|alarm| alarm.state == AlarmState::ActiveUnacknowledged);
    raised.map(|alarm| alarm.point.as_deref().unwrap_or_default().to_owned()).collect()
}

/// What stands is the machine: its sensors are in order, it is off, and limits of running are none of it.
#[test]
fn a_pump_that_stops_has_no_stuck_sensor() {
    let mut pump = Pump::learned();
    for _ in 0..3 {
        let out = pump.stop(400);
        assert_eq!((pump.state(), said(&out), raised(&out)), (Off, Vec::new(), Vec::new()));
        assert!(predictions(&out).iter().all(|p| p.state != Unknown && p.quality == Quality::Good));
        let out = pump.run(100);
        assert_eq!((pump.state(), said(&out), raised(&out)), (Running, Vec::new(), Vec::new()));
    }
}

/// A load that does not change for a night.
#[test]
fn a_steady_current_is_uncertain_and_tells_the_state_all_the_same() {
    let mut pump = Pump::learned();
    let out = pump.feed(400, true, |values| values[CURRENT] = 41.0);
    assert_eq!((pump.state(), statuses(&out)), (Running, of(&[("current", "off_spec")])));
    assert!(predictions(&out)[60..].iter().all(|p| p.score.is_some() && p.reason.is_none() && p.health.is_some() && p.quality == Quality::Uncertain));
    assert_eq!(statuses(&pump.run(100)), of(&[("current", "normal")]));
}

/// Each keeps its last value, wherever that is: no running machine does.
#[test]
fn a_frozen_source_of_a_running_pump_has_no_health() {
    let mut pump = Pump::learned();
    let out = pump.feed(200, true, |values| *values = [41.0, 100.0, 6.0, 25.0]);
    let failed = r#"{"current":"failure","flow":"failure","pressure":"failure","v_rms":"failure"}"#;
    assert_eq!((pump.state(), &*pump.instruments()), (Unknown, failed));
    let last = predictions(&out).last().copied().unwrap().clone();
    assert_eq!((last.score, last.health, last.reason), (None, None, Some(ScoreReason::MissingPoint)));
    pump.run(100);
    assert_eq!((pump.state(), pump.instruments().contains("failure")), (Running, false));
}

/// It may be a loss of flow, which a meter with a cut-off shows so: what the score makes of it is advice that says how much its data is worth.
#[test]
fn a_flow_that_stands_far_from_what_was_learned_is_uncertain() {
    for value in [0.0, 200.0] {
        let mut pump = Pump::learned();
        let out = pump.feed(200, true, |values| values[FLOW] = value);
        assert_eq!((pump.state(), statuses(&out)), (Running, of(&[("flow", "off_spec")])), "{value}");
        assert!(said(&out)[0].2.contains("may be the machine where it can be so"), "{:?}", said(&out));
        let late = &predictions(&out)[60..];
        assert!(late.iter().all(|p| p.score.is_some() && p.above && p.reason.is_none() && p.quality == Quality::Uncertain));
    }
    let mut pump = Pump::learned();
    let out = pump.feed(200, true, |values| values[FLOW] = 103.0);
    assert_eq!(statuses(&out), of(&[("flow", "failure")]), "there a sensor stands, and no machine");
    assert!(predictions(&out)[60..].iter().all(|p| p.reason == Some(ScoreReason::Reduced)));
}

/// No running machine vibrates twice the same for long.
#[test]
fn a_vibration_that_stands_on_a_running_pump_is_no_value() {
    for value in [0.0, 0.9, 25.0] {
        let mut pump = Pump::learned();
        let out = pump.feed(200, true, |values| values[VIBRATION] = value);
        assert_eq!(statuses(&out), of(&[("v_rms", "failure")]), "{value}");
        assert!(predictions(&out)[60..].iter().all(|p| p.reason == Some(ScoreReason::Reduced) && p.quality == Quality::Uncertain));
        // It stands as before while the pump does, which is no recovery.
        let out = pump.feed(200, false, |values| values[VIBRATION] = value);
        assert_eq!((pump.state(), statuses(&out)), (Off, Vec::new()));
        assert_eq!(statuses(&pump.run(100)), of(&[("v_rms", "normal")]));
    }
}

#[test]
fn a_vibration_that_is_dead_while_the_pump_is_learned_has_failed() {
    let mut pump = Pump::new(|_| {});
    let dead = |values: &mut [f64; 4]| values[VIBRATION] = 0.0;
    pump.feed(180, true, dead);
    let remarks = pump.engine.baselines().next().unwrap().1.remarks.clone();
    assert_eq!(remarks.as_deref(), Some("without any change of v_rms"));
    let out = pump.feed(100, true, dead);
    assert!(pump.instruments().contains(r#""v_rms":"failure""#), "{}", pump.instruments());
    let last = predictions(&out).last().copied().unwrap().clone();
    assert_eq!((last.reason, last.health), (Some(ScoreReason::Reduced), None));
}

#[test]
fn a_pump_most_sensors_of_which_never_moved_is_not_learned_unless_a_person_says_so() {
    let dead = |values: &mut [f64; 4]| *values = [values[0], 100.0, 6.0, 0.9];
    let mut pump = Pump::new(|_| {});
    let out = pump.feed(200, true, dead);
    assert_eq!(
        (events(&out).iter().find(|event| event.0 == "commissioning").map(|event| event.2), pump.engine.baselines().count()),
        (Some("refused"), 0)
    );
    let refused = "3 of 4 scored points never changed their value (`flow`, `pressure`, `v_rms`)";
    let text = |(_, entry): &(LaneName, Entry)| if let Body::Event(event) = &entry.body { event.text.clone() } else { None };
    assert!(out.iter().filter_map(text).any(|text| text.contains(refused)));
    let mut pump = Pump::new(|asset| asset.commissioning.rows = 1_000);
    pump.feed(200, true, dead);
    feed(&mut pump.engine, 50_000, &[event(f64::from(pump.second), EventKind::Command, Some("commissioning_accepted"))]);
    let remarks = pump.engine.baselines().next().unwrap().1.remarks.clone().unwrap();
    assert!(remarks.contains("without any change of flow, pressure, v_rms"), "{remarks}");
}

/// What is told to be off is heard of nobody: a dead current must not silence a pump that shakes itself to pieces.
#[test]
fn a_dead_current_of_a_running_pump_silences_it_for_minutes_alone() {
    let mut pump = Pump::learned();
    let dead = |values: &mut [f64; 4]| (values[CURRENT], values[VIBRATION]) = (0.0, values[VIBRATION] + 8.0);
    let out = pump.feed(305, true, dead);
    assert_eq!((pump.state(), said(&out), raised(&out)), (Off, Vec::new(), Vec::new()), "it may be a stop");
    // Now and then a point is where it was not in the few rows that were learned.
    let out = pump.feed(500, true, dead);
    assert_eq!((pump.state(), statuses(&out)), (Unknown, of(&[("current", "off_spec")])));
    assert!(
        said(&out)[0].2.ends_with("it says that the machine does not run, and most other points go on as they did while it ran"),
        "{:?}",
        said(&out)
    );
    assert_eq!(raised(&out), ["v_rms"]);
    let text = |(_, entry): &(LaneName, Entry)| if let Body::Event(event) = &entry.body { event.text.clone() } else { None };
    assert!(
        out.iter().filter_map(text).any(|text| text.contains("is in a state that is not known: the point that tells it says that it does not run"))
    );
    // The current is there again, and the pump is at once what it says.
    let out = pump.run(100);
    assert_eq!((pump.state(), statuses(&out)), (Running, of(&[("current", "normal")])));
}
