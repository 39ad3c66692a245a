//! Severity of an asset's vibration: the zone of its worst point that has a class of machines, apart from the anomaly score, and a ceiling for health.
//!
//! The standard judges a machine that runs as it should (ISO 20816-1:2016, 6.2), so values count while it is running, or where nothing tells its state now. A
//! value that is older than its point's stale limit says nothing: a dead sensor is no machine in zone A. One that died in zone C or D leaves a machine of
//! which nobody knows that it is any better, until it speaks again or the machine was maintained, also where clocks step meanwhile.
use std::collections::BTreeMap;

use hark_protocol::topics::{Name, Timestamp, Zone};
use serde::{Deserialize, Serialize};

/// Before all times: how old a value is that came before a clock stepped cannot be told.
const LONG_AGO: Timestamp = Timestamp(i64::MIN);

/// The zones of an asset's points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Severity {
    zones: BTreeMap<Name, (Zone, Timestamp)>,
}

impl Severity {
    /// The newest value of `point`, at `ts`, is in `zone`.
    pub(super) fn take(&mut self, point: &Name, zone: Zone, ts: Timestamp) {
        match self.zones.get_mut(point) {
            Some(known) => *known = (zone, ts),
            None => drop(self.zones.insert(point.clone(), (zone, ts))),
        }
    }

    /// The worst zone among values that are not older at `now` than `stale_us` says of their point; `None` without one.
    pub(super) fn worst(&self, now: Timestamp, stale_us: impl Fn(&str) -> i64) -> Option<Zone> {
        let fresh = self.zones.iter().filter(|(point, (_, ts))| now.0.saturating_sub(ts.0) <= stale_us(point));
        fresh.map(|(_, (zone, _))| *zone).max()
    }

    /// The worst zone among the last values of points that have said nothing for longer than that.
    pub(super) fn worst_lost(&self, now: Timestamp, stale_us: impl Fn(&str) -> i64) -> Option<Zone> {
        let lost = self.zones.iter().filter(|(point, (_, ts))| now.0.saturating_sub(ts.0) > stale_us(point));
        lost.map(|(_, (zone, _))| *zone).max()
    }

    /// Points that are judged no longer have no zone.
    pub(super) fn retain(&mut self, is_judged: impl Fn(&Name) -> bool) {
        self.zones.retain(|point, _| is_judged(point));
    }

    /// The machine is another one now.
    pub(super) fn restart(&mut self) {
        self.zones.clear();
    }

    /// Times from here on do not continue those before: each point has said nothing for long, until its next value.
    pub(super) fn clock_stepped(&mut self) {
        self.zones.values_mut().for_each(|(_, ts)| *ts = LONG_AGO);
    }
}

/// The best health that a machine in `zone` can have, 0 to 100.
pub(super) fn ceiling(zone: Zone) -> f64 {
    match zone {
        Zone::A | Zone::B => 100.0,
        Zone::C => 50.0,
        Zone::D => 20.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bad_zones_are_a_ceiling() {
        assert_eq!([Zone::A, Zone::B, Zone::C, Zone::D].map(ceiling), [100.0, 100.0, 50.0, 20.0]);
    }

    #[test]
    fn the_worst_fresh_zone_counts() {
        let mut severity = Severity::default();
        assert_eq!(severity.worst(Timestamp(0), |_| 10), None);
        severity.take(&"de".into(), Zone::D, Timestamp(100));
        severity.take(&"nde".into(), Zone::A, Timestamp(105));
        assert_eq!(
            [105, 110, 111, 115, 116].map(|now| severity.worst(Timestamp(now), |_| 10)),
            [Some(Zone::D), Some(Zone::D), Some(Zone::A), Some(Zone::A), None]
        );
        assert_eq!([110, 111, 116].map(|now| severity.worst_lost(Timestamp(now), |_| 10)), [None, Some(Zone::D), Some(Zone::D)]);
        severity.take(&"nde".into(), Zone::C, Timestamp(112));
        assert_eq!(severity.worst(Timestamp(112), |_| 100), Some(Zone::D));
        severity.take(&"de".into(), Zone::B, Timestamp(113));
        assert_eq!(severity.worst(Timestamp(113), |_| 100), Some(Zone::C));
        severity.take(&"de".into(), Zone::B, Timestamp(120));
        assert_eq!(severity.worst(Timestamp(123), |_| 10), Some(Zone::B));
        let own = |point: &str| if point == "de" { 30 } else { 2 };
        assert_eq!([122, 150, 151].map(|now| severity.worst(Timestamp(now), own)), [Some(Zone::B), Some(Zone::B), None]);
        severity.retain(|point| **point == *"nde");
        assert_eq!((severity.worst(Timestamp(123), |_| 10), severity.worst_lost(Timestamp(123), |_| 10)), (None, Some(Zone::C)));
        severity.take(&"nde".into(), Zone::A, Timestamp(123));
        severity.take(&"de".into(), Zone::D, Timestamp(123));
        severity.clock_stepped();
        // Whatever the clock says then, before or after.
        let of = |severity: &Severity, now: i64| (severity.worst(Timestamp(now), |_| 10), severity.worst_lost(Timestamp(now), |_| 10));
        assert_eq!([23, 120, 1_000].map(|now| of(&severity, now)), [(None, Some(Zone::D)); 3]);
        severity.take(&"de".into(), Zone::B, Timestamp(23));
        assert_eq!(of(&severity, 24), (Some(Zone::B), Some(Zone::A)));
        severity.restart();
        assert_eq!(of(&severity, 24), (None, None));
    }
}
