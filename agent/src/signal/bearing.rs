//! Fault frequencies of a rolling bearing from its geometry, outer ring fixed (domain reference section 7).
use crate::config::Bearing;

/// Multiples of the shaft frequency at which faults repeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orders {
    /// Element passes a defect of the outer ring.
    pub bpfo: f64,
    /// Element passes a defect of the inner ring.
    pub bpfi: f64,
    /// Turn of the cage.
    pub ftf: f64,
    /// Spin of an element. A defect on it strikes both rings, so its envelope line lies at twice this order.
    pub bsf: f64,
}

/// Bearings whose geometry has a source that can be cited: name, geometry, source. Others are told by their geometry.
pub const KNOWN: [(&str, Bearing, &str); 2] = [
    ("6203", Bearing { elements: 8, element_mm: 6.746, pitch_mm: 28.50, contact_deg: 0.0 }, CASE_WESTERN),
    ("6205", Bearing { elements: 9, element_mm: 7.940, pitch_mm: 39.04, contact_deg: 0.0 }, CASE_WESTERN),
];
const CASE_WESTERN: &str = "Case Western Reserve University Bearing Data Center, bearing information (SKF 6205-2RS JEM, 6203-2RS JEM)";

/// With `r = d/D cos(phi)`: BPFO `n/2 (1-r)`, BPFI `n/2 (1+r)`, FTF `(1-r)/2`, BSF `D/(2d) (1-r^2)`.
/// `None` where the geometry is impossible: a size that is not positive, an element not smaller than the pitch diameter.
pub fn orders(bearing: &Bearing) -> Option<Orders> {
    let n = f64::from(bearing.elements);
    let ratio = bearing.element_mm / bearing.pitch_mm;
    let r = ratio * bearing.contact_deg.to_radians().cos();
    let possible = bearing.elements > 0 && bearing.element_mm > 0.0 && ratio.is_finite() && ratio < 1.0 && r.is_finite();
    possible.then(|| Orders { bpfo: n / 2.0 * (1.0 - r), bpfi: n / 2.0 * (1.0 + r), ftf: (1.0 - r) / 2.0, bsf: (1.0 - r * r) / (2.0 * ratio) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(elements: u32, element_mm: f64, pitch_mm: f64, expected: [f64; 4], tolerance: f64) {
        let orders = orders(&Bearing { elements, element_mm, pitch_mm, contact_deg: 0.0 }).unwrap();
        for (actual, expected) in [orders.bpfo, orders.bpfi, orders.ftf, orders.bsf].into_iter().zip(expected) {
            assert!((actual - expected).abs() <= tolerance, "{actual} for {expected}");
        }
        assert!((orders.bpfo + orders.bpfi - f64::from(elements)).abs() < 1e-12);
    }

    #[test]
    fn known_bearings() {
        check(9, 7.940, 39.04, [3.5848, 5.4152, 0.3983, 2.3567], 1e-4);
        check(8, 6.746, 28.50, [3.053, 4.947, 0.3816, 1.994], 1e-3);
    }

    #[test]
    fn bearings_with_a_source_are_possible() {
        for (name, bearing, source) in KNOWN {
            assert!(orders(&bearing).is_some() && !source.is_empty(), "{name}");
        }
    }

    #[test]
    fn impossible_geometry_has_no_orders() {
        for (elements, element_mm, pitch_mm, contact_deg) in
            [(0, 8.0, 39.0, 0.0), (9, 0.0, 39.0, 0.0), (9, 8.0, 0.0, 0.0), (9, 40.0, 39.0, 0.0), (9, 8.0, 39.0, f64::NAN)]
        {
            assert_eq!(orders(&Bearing { elements, element_mm, pitch_mm, contact_deg }), None);
        }
    }
}
