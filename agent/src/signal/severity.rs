//! Severity zones of broadband vibration velocity: what a standard says of a value without knowing the machine.
//!
//! The boundaries are data with their edition, and guidance: the standard calls them no acceptance limits, and published copies disagree. Change a number
//! only with the clause it comes from.
pub use hark_protocol::topics::Zone;

/// Where the boundaries come from.
pub const SOURCE: &str = "ISO 10816-3:2009 table A.1 (replaced by ISO 20816-3:2022); guidance, verify";

/// A class of machines and its boundaries, velocity RMS in mm/s over 10 to 1000 Hz (2 to 1000 Hz below 600 r/min).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// How it is asked for.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Between A and B.
    pub a_b: f64,
    /// Between B and C.
    pub b_c: f64,
    /// Between C and D.
    pub c_d: f64,
}

/// The classes. Rigid: the lowest natural frequency of machine and support in the measured direction is at least 1.25 times the main excitation.
pub const CLASSES: [Class; 4] = [
    Class { name: "1-rigid", what: "above 300 kW, or shaft height from 315 mm on, rigid support", a_b: 2.3, b_c: 4.5, c_d: 7.1 },
    Class { name: "1-flexible", what: "the same on a flexible support", a_b: 3.5, b_c: 7.1, c_d: 11.0 },
    Class { name: "2-rigid", what: "15 to 300 kW, or shaft height 160 to 315 mm, rigid support", a_b: 1.4, b_c: 2.8, c_d: 4.5 },
    Class { name: "2-flexible", what: "the same on a flexible support", a_b: 2.3, b_c: 4.5, c_d: 7.1 },
];

impl Class {
    /// The class called `name`.
    pub fn named(name: &str) -> Option<Self> {
        CLASSES.into_iter().find(|class| class.name == name)
    }

    /// The zone of a velocity RMS in mm/s. A value equal to a boundary belongs to the lower zone.
    pub fn zone(&self, v_rms_mm_s: f64) -> Zone {
        match v_rms_mm_s {
            v if v <= self.a_b => Zone::A,
            v if v <= self.b_c => Zone::B,
            v if v <= self.c_d => Zone::C,
            _ => Zone::D,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_belongs_to_the_lower_zone() {
        let class = Class::named("2-rigid").unwrap();
        for (v, zone) in [(0.0, Zone::A), (1.4, Zone::A), (1.41, Zone::B), (2.8, Zone::B), (2.81, Zone::C), (4.5, Zone::C), (4.51, Zone::D)] {
            assert_eq!(class.zone(v), zone, "{v} mm/s");
        }
        assert_eq!(Class::named("3-rigid"), None);
    }

    /// As the domain reference quotes them from the table: a change of one is a change of what the standard says.
    #[test]
    fn boundaries_are_those_of_the_table() {
        let boundaries = CLASSES.map(|class| (class.name, [class.a_b, class.b_c, class.c_d]));
        let expected =
            [("1-rigid", [2.3, 4.5, 7.1]), ("1-flexible", [3.5, 7.1, 11.0]), ("2-rigid", [1.4, 2.8, 4.5]), ("2-flexible", [2.3, 4.5, 7.1])];
        assert_eq!(boundaries, expected);
        assert_eq!(CLASSES.map(|class| Class::named(class.name)), CLASSES.map(Some));
    }
}
