//! Faults of what turns, by the velocities at multiples of the shaft frequency: unbalance, misalignment, looseness, gear.
//!
//! A healthy machine has such lines too, so none is a fault while the severity is in zone A or B; of a machine whose class is not known none is named.
//! The ratios are common practice, in no clause that was checked: they name a candidate, and the evidence lets a person judge.
use super::{
    diagnosis::{Candidate, Evidence, Fault},
    severity::{self, Class, Zone},
    spectrum::Velocities,
};

/// Where the ratios come from.
const PRACTICE: &str = "common practice, no clause; verify";
/// Where the ratio of sidebands comes from.
const SIDEBAND_RATIO: &str = "sideband energy ratio, Hanna et al. 2011; verify";
/// The shaft's lines together, at least so much of the velocity RMS.
const OF_SHAFT_MIN: f64 = 0.7;
/// The largest order is so many times what lies beside it: noise has something at every order.
const STANDS_OUT: f64 = 2.0;
/// A quarter of the shaft frequency is so many bins at least, else the line itself reaches there.
const QUARTER_BINS: f64 = 3.0;
/// Unbalance: 1x at least so much of the velocity RMS.
const UNBALANCE_MIN: f64 = 0.8;
/// The line at half the shaft frequency is asked for from so many bins on: nearer to 1x it is the foot of that.
const HALF_BINS: f64 = 6.0;
/// Misalignment: 2x at least so much of 1x.
const MISALIGNMENT_MIN: f64 = 0.5;
/// Looseness: so many of the orders 1 to 10 reach a fifth of the largest.
const LOOSE_ORDERS_MIN: usize = 5;
/// What counts for it.
const LOOSE_PART: f64 = 0.2;
/// Gear: sidebands at 1, 2 and 3 times the shaft about the mesh, together at least so much of the mesh.
const GEAR_MIN: f64 = 1.0;
/// Those at 2 and 3 times, together at least so much of the mesh.
const GEAR_FURTHER_MIN: f64 = 0.5;
/// Those sidebands, in the mean over what lies between them.
const GEAR_OVER_FLOOR_MIN: f64 = 5.0;

/// Velocity RMS at multiples of the shaft frequency, mm/s; an order that the block does not resolve is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orders {
    /// Over the severity band.
    pub v_rms: f64,
    /// At half the shaft frequency; 0 where the block does not tell it from 1x.
    pub half: f64,
    /// At 1x to 10x.
    pub whole: [f64; 10],
    /// A quarter of the shaft frequency beside the largest of these, on the quieter side; 0 where the block does not tell it from that.
    pub beside: f64,
}

impl Orders {
    /// Reads them from a spectrum.
    pub fn of(velocities: &Velocities<'_>, v_rms: f64, speed_hz: f64) -> Self {
        let at = |order: f64| line(velocities, order, speed_hz).unwrap_or(0.0);
        let whole: [f64; 10] = std::array::from_fn(|index| at(index as f64 + 1.0));
        let largest = (1..).zip(whole).max_by(|a, b| a.1.total_cmp(&b.1)).map_or(1.0, |(order, _)| f64::from(order));
        let quiet = |order: f64| velocities.line(order * speed_hz, 0.0).map_or(0.0, |line| line.v_mm_s);
        let is_apart = 0.25 * speed_hz >= QUARTER_BINS * velocities.step_hz;
        let beside = if is_apart { quiet(largest - 0.25).min(quiet(largest + 0.25)) } else { 0.0 };
        let half = if 0.5 * speed_hz >= HALF_BINS * velocities.step_hz { at(0.5) } else { 0.0 };
        Self { v_rms, half, whole, beside }
    }
}

/// Velocity RMS in mm/s at `order` times the shaft frequency, whose error is at most 2 %.
pub fn line(velocities: &Velocities<'_>, order: f64, speed_hz: f64) -> Option<f64> {
    velocities.line(order * speed_hz, (0.02 * order * speed_hz).min(0.2 * speed_hz)).map(|line| line.v_mm_s)
}

/// What the orders show of a machine of `class`; `None` where the severity is good, or the velocity not that of the shaft.
pub fn candidate(orders: &Orders, class: &Class) -> Option<Candidate> {
    if class.zone(orders.v_rms) < Zone::C {
        return None;
    }
    let severity = Evidence { indicator: "v_rms", value: orders.v_rms, limit: class.b_c, unit: "mm/s", source: severity::SOURCE };
    let whole = orders.whole.iter().map(|v| v * v).sum::<f64>();
    let of_shaft = practice("orders over v_rms", (whole + orders.half * orders.half).sqrt() / orders.v_rms, OF_SHAFT_MIN);
    let [first, second, ..] = orders.whole;
    let largest = orders.whole.iter().copied().fold(0.0, f64::max);
    if largest < STANDS_OUT * orders.beside {
        return None;
    }
    let loose = orders.whole.iter().filter(|v| **v >= LOOSE_PART * largest).count();
    // Two lines that are next to nothing have a ratio too, and a line near half the speed without the shaft's own is that of a belt or a whirl.
    let of_both = |ratio: f64, line: f64, other: f64| if line.min(other) >= LOOSE_PART * largest.max(orders.half) { ratio } else { 0.0 };
    let of_any = |ratio: f64, line: f64| if line >= LOOSE_PART * largest { ratio } else { 0.0 };
    let rules = [
        (Fault::Looseness, practice("orders of a fifth of the largest", loose as f64, LOOSE_ORDERS_MIN as f64)),
        (Fault::Looseness, practice("0.5x over 1x", of_both(orders.half / first, orders.half, first), LOOSE_PART)),
        (Fault::Misalignment, practice("2x over 1x", of_any(second / first, second), MISALIGNMENT_MIN)),
        (Fault::Unbalance, practice("1x over v_rms", first / orders.v_rms, UNBALANCE_MIN)),
    ];
    let (fault, evidence) = rules.into_iter().find(|(_, evidence)| evidence.holds())?;
    of_shaft.holds().then(|| Candidate { fault, evidence: vec![severity, of_shaft, evidence] })
}

/// A gear of `teeth` on this shaft: sidebands at the shaft's distance about its mesh, together above the mesh itself and above what lies between them. A
/// wheel out of centre has those next to the mesh, a bad tooth further ones too, long before all are as high as the mesh.
pub fn gear(velocities: &Velocities<'_>, teeth: u32, speed_hz: f64) -> Option<Candidate> {
    let mesh = velocities.line(f64::from(teeth) * speed_hz, 0.3 * speed_hz)?;
    let beside = |distance: f64| velocities.line(mesh.f_hz + distance * speed_hz, 0.1 * speed_hz).map(|line| line.v_mm_s);
    let together = |distances: &[f64]| distances.iter().map(|distance| beside(*distance)).collect::<Option<Vec<f64>>>().map(sum_of_several);
    let all = together(&[-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])?;
    let further = together(&[-3.0, -2.0, 2.0, 3.0])?;
    let between = together(&[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])?;
    let rules = [
        (Evidence { indicator: "sidebands over gear mesh", value: all / mesh.v_mm_s, limit: GEAR_MIN, unit: "1", source: SIDEBAND_RATIO }, all),
        (practice("sidebands from the second on over gear mesh", further / mesh.v_mm_s, GEAR_FURTHER_MIN), further * 6.0 / 4.0),
    ];
    let found =
        rules.into_iter().map(|(ratio, sidebands)| [ratio, practice("sidebands over what lies between", sidebands / between, GEAR_OVER_FLOOR_MIN)]);
    let evidence = found.into_iter().find(|evidence| evidence.iter().all(Evidence::holds))?;
    Some(Candidate { fault: Fault::Gear, evidence: evidence.to_vec() })
}

/// The largest counts as much as the second: a line of something else that stands at the place of one is no gear's.
fn sum_of_several(mut lines: Vec<f64>) -> f64 {
    lines.sort_by(f64::total_cmp);
    let largest = lines.len().saturating_sub(1);
    lines.iter().take(largest).sum::<f64>() + largest.checked_sub(1).map_or(0.0, |second| lines[second])
}

fn practice(indicator: &'static str, value: f64, limit: f64) -> Evidence {
    Evidence { indicator, value, limit, unit: "1", source: PRACTICE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{simulated::Machine, spectrum::Spectrum};

    /// The fault of a machine of class 2-rigid with these velocities at its orders.
    #[track_caller]
    fn check(orders: &[(f64, f64)], expected: Option<Fault>) {
        let mut machine = Machine::healthy(1);
        machine.orders_mm_s = [(0.0, 0.0); 12];
        machine.orders_mm_s[..orders.len()].copy_from_slice(orders);
        let samples = machine.samples();
        let mut spectrum = Spectrum::new(samples.len());
        let v_rms = spectrum.velocity_rms(&samples, 0.0, machine.fs_hz, Some(machine.speed_hz)).unwrap();
        let orders = Orders::of(&spectrum.velocities(&samples, 0.0, machine.fs_hz), v_rms, machine.speed_hz);
        let found = candidate(&orders, &Class::named("2-rigid").unwrap());
        assert_eq!(found.map(|candidate| candidate.fault), expected, "{orders:?}");
    }

    #[test]
    fn rotor_faults_by_their_orders() {
        check(&[(1.0, 6.0), (2.0, 0.5)], Some(Fault::Unbalance));
        check(&[(1.0, 3.0), (2.0, 2.5), (3.0, 0.4)], Some(Fault::Misalignment));
        check(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.5), (4.0, 1.0), (5.0, 1.0), (6.0, 0.8)], Some(Fault::Looseness));
        check(&[(0.5, 1.0), (1.0, 3.5)], Some(Fault::Looseness));
        check(&[(2.0, 4.0)], Some(Fault::Misalignment));
    }

    #[test]
    fn no_rotor_fault_in_a_good_zone_or_without_lines_of_the_shaft() {
        check(&[(1.0, 2.5)], None);
        check(&[(3.0, 4.0)], None);
        check(&[(0.48, 4.0)], None);
        check(&[(1.37, 6.0), (1.0, 0.5), (2.0, 0.4)], None);
    }

    /// A line has a foot, and below some hertz a velocity is much of little acceleration: half of a slow shaft's frequency is in neither told from 1x.
    #[test]
    fn a_slow_shaft_is_not_loose_by_the_foot_of_its_line() {
        for speed_hz in [4.5, 5.0, 6.0] {
            let mut machine = Machine { fs_hz: 26_667.0, speed_hz, noise: 0.05, electrical: 0.0, ..Machine::healthy(1) };
            machine.orders_mm_s = [(0.0, 0.0); 12];
            machine.orders_mm_s[1] = (1.0, 5.0);
            let samples = machine.samples();
            let mut spectrum = Spectrum::new(samples.len());
            let v_rms = spectrum.velocity_rms(&samples, 0.0, machine.fs_hz, Some(speed_hz)).unwrap();
            let orders = Orders::of(&spectrum.velocities(&samples, 0.0, machine.fs_hz), v_rms, speed_hz);
            let found = candidate(&orders, &Class::named("2-rigid").unwrap()).map(|candidate| candidate.fault);
            assert_ne!(found, Some(Fault::Looseness), "{speed_hz} Hz: {orders:?}");
        }
    }

    #[test]
    fn noise_seldom_has_orders_however_much_it_is() {
        let is_named = |seed: &u64| {
            // Fourteen turns in a block, so that the bins about the orders are a third of all.
            let machine = Machine { noise: 20.0, length: 5_600, ..Machine::healthy(*seed) };
            let samples = machine.samples();
            let mut spectrum = Spectrum::new(samples.len());
            let v_rms = spectrum.velocity_rms(&samples, 0.0, machine.fs_hz, Some(machine.speed_hz)).unwrap();
            let orders = Orders::of(&spectrum.velocities(&samples, 0.0, machine.fs_hz), v_rms, machine.speed_hz);
            candidate(&orders, &Class::named("2-rigid").unwrap()).is_some()
        };
        // Of 20 blocks 17 without a look beside the orders; an alarm needs two in a row.
        let named = (1..=20).filter(is_named).count();
        assert!(named <= 5, "{named} of 20");
    }

    #[test]
    fn a_gear_shows_in_its_sidebands() {
        let fault = |orders: &[(f64, f64)]| {
            let mut machine = Machine::healthy(1);
            machine.orders_mm_s[..orders.len()].copy_from_slice(orders);
            let samples = machine.samples();
            let mut spectrum = Spectrum::new(samples.len());
            gear(&spectrum.velocities(&samples, 0.0, machine.fs_hz), 31, machine.speed_hz).map(|candidate| candidate.fault)
        };
        let mesh = (31.0, 0.5);
        assert_eq!(fault(&[mesh, (30.0, 0.05), (32.0, 0.05)]), None);
        assert_eq!(fault(&[mesh, (28.0, 0.1), (29.0, 0.15), (30.0, 0.3), (32.0, 0.3), (33.0, 0.15), (34.0, 0.1)]), Some(Fault::Gear));
        assert_eq!(
            fault(&[mesh, (28.0, 0.05), (29.0, 0.08), (30.0, 0.08), (32.0, 0.08), (33.0, 0.08), (34.0, 0.05)]),
            Some(Fault::Gear),
            "a bad tooth"
        );
        assert_eq!(fault(&[mesh, (30.0, 0.2), (32.0, 0.2)]), None, "a wheel a little out of centre");
        assert_eq!(fault(&[mesh, (29.0, 2.0), (30.0, 0.05), (32.0, 0.05)]), None, "a line of something else");
        assert_eq!(fault(&[(1.0, 1.0)]), None, "noise");
    }
}
