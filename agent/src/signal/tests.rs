//! The reference table of domain reference section 8, on signals made by the model of section 7.
use std::f64::consts::{SQRT_2, TAU};

use super::{simulated::Noise, *};

const FS_HZ: f64 = 26_667.0;
const N: usize = 32_768;
const SPEED_HZ: f64 = 29.95;
const BEARING_6205: Bearing = Bearing { elements: 9, element_mm: 7.940, pitch_mm: 39.04, contact_deg: 0.0 };

/// Of a block without speed and bearing.
const SETTING: Setting<'static> = Setting { fs_hz: FS_HZ, unit: BlockUnit::G, speed_hz: None, bearing: None, envelope_band_hz: (2_000.0, 5_000.0) };

/// A machine with 1x vibration of `v_mm_s` and an outer race defect of `fault_g`, slip `slip`; in g, on 1 g of gravity with 20 mg of noise.
fn machine(v_mm_s: f64, fault_g: f64, slip: f64) -> Vec<f64> {
    let mut noise = Noise(5);
    let amplitude = SQRT_2 * v_mm_s * TAU * SPEED_HZ / 9_806.65;
    let mut samples: Vec<f64> = (0..N).map(|i| 1.0 + amplitude * (TAU * SPEED_HZ * i as f64 / FS_HZ).cos() + 0.02 * noise.next()).collect();
    let bpfo_hz = 3.5848 * SPEED_HZ;
    let (w, damping) = (TAU * 3_200.0, 0.05f64);
    let mut strike_s = 0.003;
    while fault_g > 0.0 && strike_s < N as f64 / FS_HZ {
        let first = (strike_s * FS_HZ).ceil() as usize;
        for (i, sample) in samples.iter_mut().enumerate().skip(first).take(1_000) {
            let t = i as f64 / FS_HZ - strike_s;
            *sample += fault_g * (-damping * w * t).exp() * (w * (1.0 - damping * damping).sqrt() * t).sin();
        }
        strike_s += (1.0 + slip * noise.next()) / bpfo_hz;
    }
    samples
}

fn of(samples: &[f64], unit: BlockUnit, speed_hz: Option<f64>) -> Vec<Option<f64>> {
    let wanted: Vec<Name> = FEATURES.iter().map(|&name| name.into()).collect();
    let found = Features::new().block_features(samples, &Setting { unit, speed_hz, bearing: Some(&BEARING_6205), ..SETTING }, &wanted);
    found.into_iter().map(|(_, _, value)| value).collect()
}

/// Compares with a row of the table: v mm/s, a RMS g, crest, kurtosis; one seeded run, so within 10 % (crest and kurtosis 25 %).
#[track_caller]
fn check(v_mm_s: f64, fault_g: f64, slip: f64, expected: [f64; 4]) -> f64 {
    let found = of(&machine(v_mm_s, fault_g, slip), BlockUnit::G, Some(SPEED_HZ));
    let value = |name: &str| FEATURES.iter().position(|&f| f == name).and_then(|i| found[i]).unwrap_or(f64::NAN);
    for (name, expected, tolerance) in
        [("v_rms", expected[0], 0.1), ("a_rms", expected[1], 0.1), ("crest", expected[2], 0.25), ("kurtosis", expected[3], 0.25)]
    {
        let actual = value(name);
        assert!((actual - expected).abs() <= tolerance * expected, "{name} is {actual}, the table says {expected}");
    }
    value("env.bpfo")
}

#[test]
fn healthy_machine() {
    let line = check(0.8, 0.0, 0.0, [0.81, 0.027, 4.1, 2.8]);
    assert!(line < 8.0, "{line}");
}

#[test]
fn early_outer_race_defect_shows_in_the_envelope_and_not_in_the_velocity() {
    let line = check(0.8, 0.2, 0.01, [0.81, 0.042, 6.0, 7.2]);
    assert!(line > 30.0, "{line}");
}

#[test]
fn outer_race_defect() {
    let line = check(0.8, 2.0, 0.01, [0.86, 0.33, 6.8, 14.4]);
    assert!(line > 30.0, "{line}");
}

#[test]
fn unbalance_shows_in_the_velocity_and_not_in_the_envelope() {
    let line = check(6.0, 0.0, 0.0, [6.02, 0.118, 2.2, 1.7]);
    assert!(line < 8.0, "{line}");
}

#[test]
fn lines_and_bands_add_up_to_what_the_machine_has() {
    let found = of(&machine(6.0, 0.0, 0.0), BlockUnit::G, Some(SPEED_HZ));
    let value = |name: &str| FEATURES.iter().position(|&f| f == name).and_then(|i| found[i]).unwrap_or(f64::NAN);
    assert!((value("v_1x") - 6.0).abs() < 0.05, "{}", value("v_1x"));
    assert!(value("v_2x") < 0.1 && value("v_3x") < 0.1);
    // 20 mg of white noise up to 13.3 kHz: 12.3 of it above 1 kHz.
    assert!((value("a_rms.high") - 0.02 * (12.33f64 / 13.33).sqrt()).abs() < 5e-4, "{}", value("a_rms.high"));
    assert!((value("a_rms.low").hypot(value("a_rms.high")) - value("a_rms")).abs() < 2e-3);
}

#[test]
fn units_of_the_block_do_not_matter() {
    let in_g = machine(0.8, 0.2, 0.01);
    let in_si: Vec<f64> = in_g.iter().map(|g| g * STANDARD_GRAVITY).collect();
    for (a, b) in of(&in_g, BlockUnit::G, Some(SPEED_HZ)).into_iter().zip(of(&in_si, BlockUnit::MetresPerSecondSquared, Some(SPEED_HZ))) {
        let (a, b) = (a.unwrap_or(f64::NAN), b.unwrap_or(f64::NAN));
        assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} {b}");
    }
}

#[test]
fn what_cannot_be_computed_is_none() {
    let samples = machine(0.8, 0.0, 0.0);
    let without_speed = of(&samples, BlockUnit::G, None);
    for (name, value) in FEATURES.iter().zip(&without_speed) {
        let needs_speed = name.starts_with("v_") && *name != "v_rms" || name.starts_with("env.") && *name != "env.rms";
        assert_eq!(value.is_none(), needs_speed, "{name}");
    }
    assert!(of(&[f64::NAN; 64], BlockUnit::G, Some(SPEED_HZ)).iter().all(Option::is_none));
    assert!(of(&[], BlockUnit::G, Some(SPEED_HZ)).iter().all(Option::is_none));
    let unknown = Features::new().block_features(&samples, &SETTING, &["rms".into()]);
    assert_eq!(unknown, vec![("rms".into(), "1", None)]);
}

#[test]
fn a_changed_block_length_is_planned_anew() {
    let mut features = Features::new();
    let samples = machine(0.8, 0.0, 0.0);
    let mut a_rms = |length: usize| features.block_features(&samples[..length], &SETTING, &["a_rms".into(), "v_rms".into()]);
    let (long, short, again) = (a_rms(N), a_rms(16_384), a_rms(N));
    assert_ne!(long, short);
    assert_eq!(long, again);
}
