//! The machines of the demo before the agent's inference, in simulated time: whether the story holds for other seeds too.
use std::time::Duration;

use hark::{
    buffer::Position,
    inference::Engine,
    record::{Body, Entry, Stamp},
};
use hark_firmware_sim::simulation::{NodeSimulation, SimulationConfig};
use hark_protocol::{
    node::{self, Ack, Decoder, Frame, MAX_FRAME, encode},
    topics::{AlarmState, Clock, LaneName, Name, Origin, Phase, Quality, Reading, Timestamp, TsSource},
};

use crate::{
    brokers::Address,
    configuration::{self, Settings},
    machines::{BLOCK_EVERY, MACHINES, Machine},
};

/// 2025-06-15, on the grid.
const START_US: u64 = 1_750_000_000_000_000;

/// What became of a machine: seconds at which it first passed its limit and first alarmed.
#[derive(Debug, Default)]
struct Outcome {
    warned_s: Option<f64>,
    alarmed_s: Option<f64>,
}

/// Runs one machine for so long against the configuration that the demo writes.
fn rehearse(machine: &Machine, seed: u64, length: Duration) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let mqtt = Address { host: "127.0.0.1".into(), port: 1_883 };
    configuration::write(
        directory.path(),
        &Settings { gateway: "demo-rehearsal", kafka: "127.0.0.1:9092", embedded: true, prefix: "demo.", mqtt: &mqtt, http_port: 9_464 },
    )
    .unwrap();
    let config = hark::config::load(directory.path()).unwrap();
    let mut engine = Engine::new(&config.assets, &config.models).unwrap();
    let mut node = NodeSimulation::new(SimulationConfig {
        machine: machine.physics(),
        node: 1,
        boot: 1,
        seed: machine.seed(seed),
        resend_after: Duration::from_secs(1),
        disturbances: Vec::new(),
    });
    let (mut decoder, mut bytes, mut out) = (Decoder::new(), Vec::new(), Vec::new());
    let (mut seq, mut outcome) = (0, Outcome::default());
    for block in 1..=(length.as_millis() / BLOCK_EVERY.as_millis()) as u64 {
        let now_us = block * BLOCK_EVERY.as_micros() as u64;
        node.block(now_us);
        bytes.clear();
        node.transmit(now_us, 4_096, &mut bytes);
        let frames: Vec<Frame> = bytes.iter().filter_map(|byte| decoder.push(*byte)?.ok()).collect();
        for frame in &frames {
            acknowledge(&mut node, frame, now_us);
            for entry in entries(frame, machine) {
                seq += 1;
                engine.process(Position { ordinal: 1, seq }, "rehearsal", &entry, &mut out);
            }
        }
        let at_s = now_us as f64 / 1e6;
        for (lane, entry) in out.drain(..) {
            match entry.body {
                Body::Prediction(prediction) if prediction.above => {
                    outcome.warned_s.get_or_insert(at_s);
                }
                Body::Alarm(alarm) if lane == LaneName::Alarms && alarm.state == AlarmState::ActiveUnacknowledged => {
                    outcome.alarmed_s.get_or_insert(at_s);
                }
                _ => {}
            }
        }
    }
    assert!(engine.view(machine.asset).is_some_and(|view| view.phase == Phase::Scoring), "{} was not commissioned", machine.asset);
    outcome
}

fn acknowledge(node: &mut NodeSimulation, frame: &Frame, now_us: u64) {
    let body = node::Body::Ack(Ack { boot: frame.boot, kind: frame.kind(), seq: frame.seq });
    let mut bytes = [0; MAX_FRAME];
    let length = encode(&Frame { node: 1, boot: 9, seq: 1, time_us: 0, dropped: 0, body }, &mut bytes).unwrap();
    node.receive(&bytes[..length], now_us);
}

/// The readings of a frame, named as the demo's configuration names the channels.
fn entries(frame: &Frame, machine: &Machine) -> Vec<Entry> {
    let node::Body::Features(features) = &frame.body else { return Vec::new() };
    let asset: Name = machine.asset.into();
    let stamp = Stamp {
        asset: Some(asset),
        ts: Timestamp((START_US + frame.time_us) as i64),
        ts_source: TsSource::Sensor,
        clock: Clock::Synced,
        origin: Origin::Simulated,
    };
    let prefix = if features.channel == 0 { "de-h." } else { "" };
    let entry = |value: &node::Value| {
        let reading = Reading {
            point: format!("{prefix}{}", value.quantity.name()).into(),
            value: Some(value.value.into()),
            unit: value.quantity.unit().into(),
            quality: Quality::Good,
            reason: None,
            source_seq: None,
            boot: "rehearsal".into(),
            log_ms: 0,
        };
        Entry { stamp: stamp.clone(), cause: None, body: Body::Reading(reading) }
    };
    features.values.iter().map(entry).collect()
}

#[test]
fn under_changing_load_the_healthy_machine_does_not_alarm() {
    // With a working day twice as long the first two passed their limit; the third alarmed with an on-delay of two seconds; the fourth with a limit
    // from two working days.
    for seed in [6, 8, 26, 47] {
        let outcome = rehearse(&MACHINES[0], seed, Duration::from_secs(100));
        assert_eq!(outcome.alarmed_s, None, "seed {seed}");
    }
}

#[test]
fn the_bearing_warns_and_alarms_after_its_fault_began_and_in_time_for_the_summary() {
    let outcome = rehearse(&MACHINES[1], 1, Duration::from_secs(70));
    let (Some(warned_s), Some(alarmed_s)) = (outcome.warned_s, outcome.alarmed_s) else { panic!("{outcome:?}") };
    assert!(38.0 < warned_s && warned_s < alarmed_s && alarmed_s < 70.0, "{outcome:?}");
}
