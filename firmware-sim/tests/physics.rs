//! The simulated signals give the reference values of domain reference section 8, measured by the node's own firmware.
//!
//! The table gives one seeded run each, so tolerances are wide where a value depends on the draw: velocity 5 %, RMS 12 %, crest and kurtosis 35 %.
//! The envelope line varies most from draw to draw: the median of nine is compared, within 50 %.
use hark_firmware_sim::firmware::vibration::{BLOCK_SAMPLES, Vibration};
use hark_firmware_sim::machine::{BEARING_6205, Fault, Impacts, Law, Machine, MachineConfig, Noise, Profile, Signal};
use hark_firmware_sim::sensor::RATE_HZ;
use hark_protocol::node::Quantity;
use std::collections::BTreeMap;
use std::time::Duration;

const SHAFT_HZ: f64 = 29.95;

type Features = BTreeMap<&'static str, f64>;

fn measure(samples_g: &[f64], blocks: usize) -> Option<Features> {
    let mut vibration = Vibration::new(RATE_HZ as f32);
    let mut last = None;
    for sample_g in samples_g {
        if vibration.push(*sample_g as f32) {
            last = vibration.features(Some(BEARING_6205.orders()), Some(SHAFT_HZ as f32));
        }
    }
    assert_eq!(samples_g.len(), blocks * BLOCK_SAMPLES);
    Some(last?.iter().map(|value| (value.quantity.name(), f64::from(value.value))).collect())
}

/// Features of the second of two blocks, after the filters have settled, and the same by plain formulas.
fn features(signal: Signal) -> (Features, Vec<f64>) {
    features_of_draw(signal, 7)
}

fn features_of_draw(signal: Signal, seed: u64) -> (Features, Vec<f64>) {
    let mut samples_g = vec![0.0; 2 * BLOCK_SAMPLES];
    signal.write(&mut samples_g, RATE_HZ, &mut Noise::new(seed, 3));
    let measured = measure(&samples_g, 2).expect("a moving machine has features");
    (measured, samples_g.split_off(BLOCK_SAMPLES))
}

fn healthy() -> Signal {
    Signal { shaft_hz: SHAFT_HZ, velocity_mm_s: [0.8, 0.0, 0.0], noise_g: 0.02, gravity_g: 1.0, ..Signal::default() }
}

fn outer_race(amplitude_g: f64, slip: f64) -> Signal {
    let frequency_hz = f64::from(BEARING_6205.orders().bpfo) * SHAFT_HZ;
    Signal { impacts: Some(Impacts::at(frequency_hz, amplitude_g, slip)), ..healthy() }
}

fn near(measured: &Features, name: &str, expected: f64, tolerance: f64) {
    let value = measured[name];
    assert!(
        (value - expected).abs() <= tolerance * expected,
        "{name} is {value}, expected {expected} within {:.0} %; all: {measured:?}",
        100.0 * tolerance
    );
}

#[test]
fn the_reference_table_is_reproduced() {
    let table = [
        ("healthy", healthy(), [0.81, 0.027, 4.1, 2.8, 3.0]),
        ("outer race 0.2 g", outer_race(0.2, 0.01), [0.81, 0.042, 6.0, 7.2, 54.0]),
        ("outer race 2 g", outer_race(2.0, 0.01), [0.86, 0.33, 6.8, 14.4, 62.0]),
        ("outer race 8 g", outer_race(8.0, 0.02), [1.40, 1.32, 7.0, 14.5, 47.0]),
        ("unbalance 6 mm/s", Signal { velocity_mm_s: [6.0, 0.0, 0.0], ..healthy() }, [6.02, 0.118, 2.2, 1.7, 3.0]),
    ];
    for (case, signal, [v_rms, a_rms, crest, kurtosis, bpfo]) in table {
        let (measured, _) = features(signal);
        near(&measured, "v_rms", v_rms, 0.05);
        near(&measured, "a_rms", a_rms, 0.12);
        near(&measured, "crest", crest, 0.35);
        near(&measured, "kurtosis", kurtosis, 0.35);
        let mut lines: Vec<f64> = (1..=9).map(|seed| features_of_draw(signal, seed).0["env.bpfo"]).collect();
        lines.sort_by(f64::total_cmp);
        // The table has a line over its own median; the sum of three over one median is 5 in noise, and stands out further in a fault.
        let line = lines[4];
        let is_fault = case.starts_with("outer");
        assert!(if is_fault { line > bpfo } else { (3.5..7.0).contains(&line) }, "{case}: {line}, the table has {bpfo}");
        if is_fault {
            assert!(measured["env.bpfi"] < 0.5 * measured["env.bpfo"], "{case}");
        }
    }
}

#[test]
fn the_firmware_agrees_with_plain_formulas() {
    for signal in [healthy(), outer_race(2.0, 0.01)] {
        let (measured, block) = features(signal);
        let n = block.len() as f64;
        let mean = block.iter().sum::<f64>() / n;
        let moment = |power: i32| block.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        let peak = block.iter().fold(0.0_f64, |peak, x| peak.max((x - mean).abs()));
        near(&measured, "a_rms", moment(2).sqrt(), 0.005);
        near(&measured, "kurtosis", moment(4) / moment(2).powi(2), 0.02);
        near(&measured, "crest", peak / moment(2).sqrt(), 0.02);
    }
}

#[test]
fn a_sensor_that_stands_still_has_no_features() {
    assert_eq!(measure(&vec![1.0; BLOCK_SAMPLES], 1), None);
}

/// The remaining time is the truth that forecasts are compared with: at any moment of any life it is what passes until failure.
#[test]
fn the_remaining_time_is_the_time_that_remains() {
    let (healthy, life, step_s) = (Duration::from_secs(20), Duration::from_secs(60), 0.02);
    for law in Law::ALL {
        for (profile, tolerance) in
            [(MachineConfig::default().profile, 0.005), (Profile::Changing { speed_rpm: 1_797.0, period_s: 5.0 * 600.0 }, 0.02)]
        {
            let config = MachineConfig { profile, ..MachineConfig::watched(Fault::OuterRace, law, healthy, life) };
            let mut machine = Machine::new(config, 5);
            let mut told = Vec::new();
            while !machine.failed() {
                told.push(machine.node_time_to_failure().unwrap());
                assert!(told.last() > Some(&0.0), "{law:?}: nothing remains, and it has not failed");
                machine.advance(step_s);
            }
            assert_eq!((machine.damage(), machine.node_time_to_failure()), (1.0, Some(0.0)), "{law:?}");
            let lived_s = step_s * told.len() as f64;
            // A pace that wanders may be far from its mean over a short life.
            let tolerance_s = lived_s * if law == Law::RandomSlope { 0.15 } else { tolerance };
            for (index, told_s) in told.iter().enumerate() {
                let remained_s = lived_s - step_s * index as f64;
                assert!((told_s - remained_s).abs() <= tolerance_s, "{law:?} {profile:?}: {told_s} s told, {remained_s} s remained of {lived_s}");
            }
        }
    }
}

#[test]
fn a_machine_that_does_not_wear_never_fails() {
    let machine = |fault, speed_rpm, load| {
        let watched = MachineConfig::watched(fault, Law::LoadDependent, Duration::from_secs(1), Duration::from_secs(1));
        Machine::new(MachineConfig { profile: Profile::Constant { speed_rpm, load }, ..watched }, 1).node_time_to_failure()
    };
    assert_eq!(machine(Fault::None, 1_797.0, 1.0), None);
    assert_eq!(machine(Fault::OuterRace, 0.0, 1.0), None);
    assert_eq!(machine(Fault::OuterRace, 1_797.0, 0.0), None);
    assert_eq!(machine(Fault::OuterRace, 1_797.0, 0.5), Some(9.0));
}

/// Indicator of each fault at the end of life over its value as new.
#[test]
fn each_fault_shows_in_its_own_features() {
    let cases = [
        (Fault::OuterRace, Quantity::EnvBpfo, 5.0),
        (Fault::Unbalance, Quantity::VRms, 5.0),
        (Fault::Misalignment, Quantity::VRms, 4.0),
        (Fault::Looseness, Quantity::VRms, 5.0),
        (Fault::Cage, Quantity::EnvFtf, 3.0),
        (Fault::Gear, Quantity::ARms, 1.5),
        (Fault::Cavitation, Quantity::EnvRms, 5.0),
    ];
    for (fault, quantity, factor) in cases {
        let mut machine = Machine::new(MachineConfig::watched(fault, Law::Exponential, Duration::from_secs(35), Duration::from_secs(55)), 5);
        let at = |machine: &mut Machine| {
            let mut samples_g = vec![0.0; 2 * BLOCK_SAMPLES];
            machine.write_block(&mut samples_g, RATE_HZ);
            measure(&samples_g, 2).expect("a moving machine has features")[quantity.name()]
        };
        (0..340).for_each(|_| machine.advance(0.1));
        assert!(machine.damage() == 0.0, "34 s are for commissioning");
        let new = at(&mut machine);
        (0..570).for_each(|_| machine.advance(0.1));
        assert!(machine.failed() && machine.node_time_to_failure() == Some(0.0), "{fault:?} has damage {}", machine.damage());
        let failed = at(&mut machine);
        assert!(failed > factor * new, "{fault:?}: {quantity:?} rose from {new} to {failed}");
    }
}
