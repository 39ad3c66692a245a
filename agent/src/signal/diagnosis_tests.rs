//! Verdicts on simulated machines; the limits were set on others, with other seeds, resonances and bearings.
use super::*;
use crate::{
    config::Bearing,
    signal::{
        BlockUnit, Features, Setting,
        simulated::{Machine as Simulated, Strikes},
    },
};

const BEARING_6205: Bearing = Bearing { elements: 9, element_mm: 7.940, pitch_mm: 39.04, contact_deg: 0.0 };
const SPEED_HZ: f64 = 29.95;

fn verdict(machine: &Simulated, known: &Machine) -> Diagnosis {
    let setting = Setting {
        fs_hz: machine.fs_hz,
        unit: BlockUnit::MetresPerSecondSquared,
        speed_hz: known.speed_hz,
        bearing: known.speed_hz.map(|_| &BEARING_6205),
        envelope_band_hz: (2_000.0, 5_000.0),
    };
    Features::new().diagnose(&machine.samples(), &setting, known).unwrap()
}

fn known() -> Machine {
    Machine { speed_hz: Some(SPEED_HZ), class: Class::named("2-rigid"), ..Machine::default() }
}

/// Strikes at `order` times the shaft frequency, whose load changes with `load`: order, depth.
fn struck(seed: u64, order: f64, load: (f64, f64)) -> Simulated {
    let strikes = Strikes { load: (load.0 * SPEED_HZ, load.1), ..Strikes::at(order * SPEED_HZ, 0.5) };
    Simulated { strikes: Some(strikes), ..Simulated::healthy(seed) }
}

#[test]
fn bearing_faults_are_named() {
    for seed in 1..=3 {
        for (order, load, fault) in [(3.5848, (1.0, 0.0), Fault::Outer), (5.4152, (1.0, 0.9), Fault::Inner), (4.7135, (0.3983, 0.8), Fault::Ball)] {
            // The strikes come 0.7 % late in the mean.
            let diagnosis = verdict(&struck(seed, 0.993 * order, load), &known());
            assert_eq!(diagnosis.fault, Verdict::Named(fault), "seed {seed}: {diagnosis:?}");
            assert!(diagnosis.candidates[0].evidence.iter().all(Evidence::holds));
        }
    }
}

/// A cut makes impacts at the rate of what was cut.
#[test]
fn of_a_block_that_was_cut_nothing_is_named() {
    let mut machine = Simulated { noise: 0.0, electrical: 0.0, ..Simulated::healthy(1) };
    machine.orders_mm_s[1] = (1.0, 20.0);
    let cut: Vec<f64> = machine.samples().into_iter().map(|sample| sample.clamp(-3.0, 3.0)).collect();
    let setting = Setting {
        fs_hz: machine.fs_hz,
        unit: BlockUnit::MetresPerSecondSquared,
        speed_hz: Some(SPEED_HZ),
        bearing: Some(&BEARING_6205),
        envelope_band_hz: (2_000.0, 5_000.0),
    };
    let diagnosis = Features::new().diagnose(&cut, &setting, &known()).unwrap();
    assert_eq!((diagnosis.fault, diagnosis.zone, &diagnosis.asked[..]), (Verdict::NotDetermined, Some(Zone::D), &[][..]));
    assert!(diagnosis.reason.unwrap().contains("cut"));
}

/// It strikes at each of its turns, so seldom that some thirty of them are in a block. Twice BSF lies halfway between two of this cage's lines; of a 6205 it
/// lies near one of them, and a cage that strikes hard is then taken for an element.
#[test]
fn a_cage_is_named_by_its_own_lines() {
    let bearing_6203 = Bearing { elements: 8, element_mm: 6.746, pitch_mm: 28.4988, contact_deg: 0.0 };
    for seed in 1..=3 {
        let machine = Simulated { strikes: Some(Strikes::at(0.995 * 0.3816 * SPEED_HZ, 1.0)), ..Simulated::healthy(seed) };
        let setting = Setting {
            fs_hz: machine.fs_hz,
            unit: BlockUnit::MetresPerSecondSquared,
            speed_hz: Some(SPEED_HZ),
            bearing: Some(&bearing_6203),
            envelope_band_hz: (2_000.0, 5_000.0),
        };
        let diagnosis = Features::new().diagnose(&machine.samples(), &setting, &known()).unwrap();
        assert_eq!(diagnosis.fault, Verdict::Named(Fault::Cage), "seed {seed}: {diagnosis:?}");
        assert!(diagnosis.candidates[0].evidence.iter().all(|evidence| evidence.indicator == "lines at FTF" && evidence.holds()));
    }
}

#[test]
fn combs_that_fit_one_part_name_it() {
    use Part::{Ball, Cage, Inner, Outer};
    #[track_caller]
    fn check(combs: &[(Part, f64)], expected: Result<Option<Fault>, &str>) {
        let combs: Vec<Comb> = combs.iter().map(|&(part, evidence)| comb(part, evidence, 0.0, if part == Ball { 140.0 } else { 107.4 })).collect();
        match (bearing_candidate(&combs), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.map(|candidate| candidate.fault), expected),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    check(&[(Outer, 36.0), (Ball, 20.0), (Inner, 12.0), (Cage, 3.0)], Ok(Some(Fault::Outer)));
    check(&[(Outer, 19.9), (Ball, 3.0), (Inner, 3.0), (Cage, 3.0)], Ok(None));
    check(&[(Ball, 38.0), (Outer, 36.0), (Inner, 12.0), (Cage, 3.0)], Err("Ball (38) and Outer (36)"));
    check(&[(Ball, 38.0), (Cage, 36.0), (Outer, 12.0), (Inner, 3.0)], Ok(Some(Fault::Ball)));
    check(&[(Cage, 36.0), (Ball, 13.0), (Outer, 12.0), (Inner, 3.0)], Ok(Some(Fault::Ball)));
    check(&[(Cage, 36.0), (Outer, 12.0), (Ball, 11.0), (Inner, 3.0)], Ok(Some(Fault::Cage)));
    check(&[(Cage, 30.0), (Inner, 29.0), (Ball, 13.0), (Outer, 3.0)], Err("Ball (30) and Inner (29)"));
    check(&[], Ok(None));
}

/// Of some bearings BPFO and twice BSF are nearly the same.
#[test]
fn lines_of_a_ring_and_an_element_are_told_by_their_sidebands() {
    let named = |of_sidebands: f64| {
        let combs = [comb(Part::Ball, 36.0 + of_sidebands, of_sidebands, 108.0), comb(Part::Outer, 36.0, 0.0, 107.4)];
        bearing_candidate(&combs).map(|found| found.map(|candidate| candidate.fault))
    };
    assert_eq!((named(2.0), named(12.0)), (Ok(Some(Fault::Outer)), Ok(Some(Fault::Ball))));
}

fn comb(part: Part, evidence: f64, of_sidebands: f64, line_hz: f64) -> Comb {
    Comb { part, evidence, of_sidebands, line_hz }
}

#[test]
fn healthy_machines_have_no_fault() {
    for seed in 1..=10 {
        let diagnosis = verdict(&Simulated::healthy(seed), &known());
        assert_eq!((diagnosis.fault, &diagnosis.reason, diagnosis.zone), (Verdict::None, &None, Some(Zone::A)), "seed {seed}");
    }
}

#[test]
fn strikes_at_another_rate_are_no_bearing_fault_but_not_nothing() {
    // Between the orders of the parts, more than the slip away from each of them.
    let diagnosis = verdict(&Simulated { strikes: Some(Strikes::at(2.63 * SPEED_HZ, 2.0)), ..Simulated::healthy(1) }, &known());
    assert_eq!(diagnosis.fault, Verdict::NotDetermined, "{diagnosis:?}");
    assert!(diagnosis.reason.unwrap().contains("kurtosis"));
}

#[test]
fn what_the_shaft_does_each_turn_is_no_bearing_fault() {
    // Of this bearing BPFO is 3.06 and BPFI 4.94: within the slip of whole orders.
    let bearing = Bearing { elements: 8, element_mm: 23.5, pitch_mm: 100.0, contact_deg: 0.0 };
    let machine = Simulated { strikes: Some(Strikes { slip: 0.0, ..Strikes::at(SPEED_HZ, 1.0) }), ..Simulated::healthy(1) };
    let setting = Setting {
        fs_hz: machine.fs_hz,
        unit: BlockUnit::MetresPerSecondSquared,
        speed_hz: Some(SPEED_HZ),
        bearing: Some(&bearing),
        envelope_band_hz: (2_000.0, 5_000.0),
    };
    let diagnosis = Features::new().diagnose(&machine.samples(), &setting, &known()).unwrap();
    assert!(!matches!(diagnosis.fault, Verdict::Named(_)), "{diagnosis:?}");
}

#[test]
fn without_the_speed_nothing_is_said() {
    let diagnosis = verdict(&struck(1, 3.5848, (1.0, 0.0)), &Machine::default());
    assert_eq!(diagnosis.fault, Verdict::NotDetermined);
    assert!(diagnosis.reason.unwrap().contains("not given: the speed, the bearing, the class"));
}

#[test]
fn a_block_without_room_for_the_bearing_is_not_called_good() {
    let diagnosis = verdict(&Simulated { length: 2_048, ..Simulated::healthy(1) }, &known());
    assert_eq!(diagnosis.fault, Verdict::NotDetermined);
    assert!(diagnosis.reason.unwrap().contains("too short"));
}

#[test]
fn unbalance_in_a_bad_zone_is_named_with_its_zone() {
    let mut machine = Simulated::healthy(1);
    machine.orders_mm_s[1].1 = 6.0;
    let diagnosis = verdict(&machine, &known());
    assert_eq!((diagnosis.fault, diagnosis.zone), (Verdict::Named(Fault::Unbalance), Some(Zone::D)), "{diagnosis:?}");
    let without_class = verdict(&machine, &Machine { class: None, ..known() });
    assert_eq!((without_class.fault, without_class.zone), (Verdict::None, None));
}

#[test]
fn noise_that_swells_at_the_vane_pass_is_cavitation() {
    let swelling = Simulated { noise: 0.2, swell: (7.0 * SPEED_HZ, 0.8), ..Simulated::healthy(1) };
    let pump = Machine { vanes: Some(7), ..known() };
    assert_eq!(verdict(&swelling, &pump).fault, Verdict::Named(Fault::Cavitation));
    assert_eq!(verdict(&Simulated::healthy(1), &pump).fault, Verdict::None);
    assert_eq!(verdict(&swelling, &known()).fault, Verdict::NotDetermined, "the vanes are not known");
    let sound = Simulated { swell: (7.0 * SPEED_HZ, 0.2), noise: 1.0, length: 262_144, ..swelling };
    assert_eq!(verdict(&sound, &pump).fault, Verdict::None, "any pump does that, and a long block shows it");
}
