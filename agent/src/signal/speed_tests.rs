//! Speeds that are drawn, on machines that are not at their nominal one.
use super::*;
use crate::signal::{simulated::Machine, spectrum::Spectrum};

/// From `low` to `high`, evenly, as `number` counts up.
fn drawn(number: u64, low: f64, high: f64) -> f64 {
    low + (high - low) * (number as f64 * 0.618_033_988_75).fract()
}

/// A machine at `speed_hz` with lines at these orders (mm/s), in noise of 0.2 m/s2.
fn machine(seed: u64, speed_hz: f64, orders: &[(f64, f64)]) -> Machine {
    let mut machine = Machine { speed_hz, electrical: 0.0, orders_mm_s: [(0.0, 0.0); 12], ..Machine::healthy(seed) };
    machine.orders_mm_s[..orders.len()].copy_from_slice(orders);
    machine
}

fn found(machine: &Machine, search: Search, last_hz: Option<f64>) -> Option<f64> {
    let samples = machine.samples();
    let mut spectrum = Spectrum::new(samples.len());
    track(&spectrum.velocities(&samples, 0.0, machine.fs_hz), &search, last_hz).map(|tracked| tracked.hz)
}

/// That of `found` is `hz` to a part of 0.3 %.
#[track_caller]
fn near(found: Option<f64>, hz: f64, what: &str) {
    assert!(found.is_some_and(|found| (found / hz - 1.0).abs() < 0.003), "{found:?} for {hz} Hz, {what}");
}

#[test]
fn a_speed_beside_the_nominal_one_is_found_in_noise() {
    let mut missed = Vec::new();
    for seed in 1..=40 {
        let nominal_hz = drawn(seed, 12.0, 58.0);
        let speed_hz = nominal_hz * drawn(7 * seed, 0.96, 1.04);
        let machine = machine(seed, speed_hz, &[(1.0, drawn(3 * seed, 0.2, 1.2)), (2.0, 0.1), (3.0, 0.05)]);
        match found(&machine, Search { nominal_hz, share: SHARE }, None) {
            None => missed.push(speed_hz),
            found => near(found, speed_hz, &format!("seed {seed}, nominal {nominal_hz}")),
        }
    }
    assert!(missed.len() <= 2, "nothing for {missed:?}");
}

#[test]
fn a_line_of_the_mains_is_not_the_shaft() {
    for seed in 1..=20 {
        // Two and four poles, whose 1x or 2x lies beside 50 Hz; what mains make is larger than what the shaft makes.
        let (nominal_hz, low, high) = if seed % 2 == 0 { (24.67, 24.1, 24.85) } else { (49.0, 48.0, 49.5) };
        let speed_hz = drawn(seed, low, high);
        let orders = [(1.0, 0.3), (2.0, 0.15), (3.0, 0.1), (50.0 / speed_hz, 0.9), (100.0 / speed_hz, 1.2), (150.0 / speed_hz, 0.3)];
        near(found(&machine(seed, speed_hz, &orders), Search { nominal_hz, share: SHARE }, None), speed_hz, &format!("seed {seed}"));
    }
    // The shaft's own lines do not stand out.
    for (nominal_hz, speed_hz) in [(24.67, 24.3), (49.0, 48.7)] {
        let orders = [(1.0, 0.001), (50.0 / speed_hz, 0.9), (100.0 / speed_hz, 1.2), (150.0 / speed_hz, 0.3)];
        assert_eq!(found(&machine(1, speed_hz, &orders), Search { nominal_hz, share: SHARE }, None), None);
    }
}

#[test]
fn a_larger_line_at_2x_is_not_the_shaft() {
    for seed in 1..=20 {
        let (nominal_hz, speed_hz) = (24.67, drawn(seed, 18.0, 31.0));
        let orders = [(1.0, 0.3), (2.0, 3.0), (3.0, 0.5)];
        near(found(&machine(seed, speed_hz, &orders), Search { nominal_hz, share: SHARE_MAX }, None), speed_hz, &format!("seed {seed}"));
        let alone = [(2.0, 3.0)];
        let said = found(&machine(seed, speed_hz, &alone), Search { nominal_hz, share: SHARE }, None);
        assert_eq!(said, None, "which multiple it is nobody can tell");
    }
}

#[test]
fn a_speed_that_changes_between_blocks_is_followed() {
    let (nominal_hz, mut last_hz) = (24.67, None);
    for (block, speed_hz) in (1..).zip([24.8, 24.8, 24.1, 25.4, 23.9, 24.0]) {
        let machine = machine(block, speed_hz, &[(1.0, 0.6), (2.0, 0.2)]);
        last_hz = found(&machine, Search { nominal_hz, share: SHARE }, last_hz);
        near(last_hz, speed_hz, &format!("block {block}"));
    }
}

#[test]
fn of_two_machines_on_one_base_it_is_the_one_of_the_block_before() {
    let (search, other) = (Search { nominal_hz: 24.67, share: SHARE }, 25.5 / 24.0);
    let both = machine(1, 24.0, &[(1.0, 0.5), (2.0, 0.3), (other, 0.5), (2.0 * other, 0.3)]);
    assert_eq!(found(&both, search, None), None, "nobody can tell");
    near(found(&both, search, Some(23.95)), 24.0, "as before");
    near(found(&both, search, Some(25.55)), 25.5, "as before");
}

#[test]
fn noise_alone_has_no_speed() {
    for seed in 1..=20 {
        assert_eq!(found(&machine(seed, 24.0, &[]), Search { nominal_hz: 24.67, share: SHARE }, Some(24.5)), None);
    }
}
