//! Status of an instrument after NAMUR NE 107, apart from the health of the machine.
//!
//! An instrument is a sensor with all points that come from it: `de-h` for `de-h.v_rms` and `de-h.kurtosis`, else the point alone. Its status follows the
//! worst fault of its points, with a delay on the way there and one on the way back. Both are measured in time that faults stand, less the time between
//! them, so a contact that fails now and then neither flutters nor goes unseen.
use hark_protocol::topics::{InstrumentStatus, Name, Quality, QualityReason, Timestamp};
use serde::{Deserialize, Serialize};

use super::clean::Fault;
use crate::signal::channel_and_feature;

/// How long it takes until a status changes, microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    /// To a worse one.
    pub(super) on_us: i64,
    /// To a better one.
    pub(super) off_us: i64,
}

/// A status that changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) from: InstrumentStatus,
    pub(super) to: InstrumentStatus,
    /// What brought it about; `None` where nothing is wrong any more.
    pub(super) reason: Option<QualityReason>,
}

/// Status of one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Instrument {
    status: InstrumentStatus,
    /// What was found last, and when.
    seen: Option<(Timestamp, Option<Fault>)>,
    /// Microseconds on the way to another status.
    level_us: f64,
}

impl Default for Instrument {
    fn default() -> Self {
        Self { status: InstrumentStatus::Normal, seen: None, level_us: 0.0 }
    }
}

impl Instrument {
    /// Status now.
    pub(super) fn status(&self) -> InstrumentStatus {
        self.status
    }

    /// Takes what is wrong at `now`. The time since it was asked last counts for what was found then.
    pub(super) fn observe(&mut self, fault: Option<Fault>, now: Timestamp, delays: Delays) -> Option<Change> {
        // Its source says when it tests itself. What it says then is no fault; but one that falls silent fails.
        let is_testing = self.status == InstrumentStatus::CheckFunction;
        let tells = |fault: &Fault| if is_testing { fault.reason == QualityReason::Stale } else { fault.reason != QualityReason::CheckFunction };
        let fault = fault.filter(tells);
        if is_testing && fault.is_none() {
            (self.seen, self.level_us) = (Some((now, None)), 0.0);
            return None;
        }
        if let Some((then, found)) = self.seen {
            // After a clock was set back no time has passed.
            let passed_us = now.0.saturating_sub(then.0).max(0) as f64;
            let status = found.map_or(if is_testing { self.status } else { InstrumentStatus::Normal }, status_of);
            let (toward, away) = if self.status == InstrumentStatus::Normal { (delays.on_us, delays.off_us) } else { (delays.off_us, delays.on_us) };
            if status == self.status {
                self.level_us = (self.level_us - passed_us * toward as f64 / away.max(1) as f64).max(0.0);
            } else {
                self.level_us += passed_us;
            }
        }
        self.seen = Some((now, fault));
        let to = fault.map_or(InstrumentStatus::Normal, status_of);
        let delay_us = if to > self.status { delays.on_us } else { delays.off_us };
        if to == self.status || self.level_us < delay_us as f64 {
            return None;
        }
        let change = Change { from: self.status, to, reason: fault.map(|fault| fault.reason) };
        (self.status, self.level_us) = (to, 0.0);
        Some(change)
    }

    /// It tests itself from `ts` on, as its source says: that shows at once, and what was found before is not continued.
    pub(super) fn begin_test(&mut self, ts: Timestamp) {
        *self = Self { status: InstrumentStatus::CheckFunction, seen: Some((ts, None)), level_us: 0.0 };
    }

    /// The test is over.
    pub(super) fn end_test(&mut self) {
        if self.status == InstrumentStatus::CheckFunction {
            *self = Self::default();
        }
    }

    /// Whether it tests itself, and a measurement of `ts` says that it does no longer: what told the end of the test may be lost.
    pub(super) fn outlived_test(&self, ts: Timestamp) -> bool {
        self.status == InstrumentStatus::CheckFunction && self.seen.is_none_or(|(since, _)| ts > since)
    }

    /// What was found last says nothing of the time that follows: readings are missing, or times were corrected.
    pub(super) fn restart(&mut self) {
        (self.seen, self.level_us) = (None, 0.0);
    }
}

/// The class of a fault (NE 107, as OPC 10000-100 "DeviceHealth" and domain reference section 3 assign it).
pub(super) fn status_of(fault: Fault) -> InstrumentStatus {
    match fault.reason {
        QualityReason::Clipping | QualityReason::OutOfRange | QualityReason::Clock => InstrumentStatus::OffSpec,
        QualityReason::Spike => InstrumentStatus::MaintenanceRequired,
        QualityReason::CheckFunction => InstrumentStatus::CheckFunction,
        _ if fault.quality == Quality::Bad => InstrumentStatus::Failure,
        _ => InstrumentStatus::OffSpec,
    }
}

/// The instruments behind `points`, in the order of their first points, with the indices of these.
pub(super) fn of_points(points: &[Name]) -> Vec<(Name, Vec<usize>)> {
    let mut instruments: Vec<(Name, Vec<usize>)> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let id = of_point(point);
        match instruments.iter_mut().find(|(known, _)| **known == *id) {
            Some((_, points)) => points.push(index),
            None => instruments.push((id.into(), vec![index])),
        }
    }
    instruments
}

/// The instrument behind a point: a feature's point is named after the channel it is computed from.
pub(super) fn of_point(point: &str) -> &str {
    channel_and_feature(point).map_or(point, |(channel, _)| channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const DELAYS: Delays = Delays { on_us: 10 * SECOND, off_us: 20 * SECOND };

    fn fault(reason: QualityReason, quality: Quality) -> Option<Fault> {
        Some(Fault { reason, quality })
    }

    /// Asks once a second from `from` on; gives the seconds at which the status changed, and to what.
    fn changes(instrument: &mut Instrument, from: i64, until: i64, found: impl Fn(i64) -> Option<Fault>) -> Vec<(i64, InstrumentStatus)> {
        let mut observe = |second: i64| Some((second, instrument.observe(found(second), Timestamp(second * SECOND), DELAYS)?.to));
        (from..until).filter_map(&mut observe).collect()
    }

    #[test]
    fn a_fault_becomes_a_status_after_its_delay_and_goes_after_another() {
        let mut instrument = Instrument::default();
        let stuck = |second: i64| if (100..150).contains(&second) { fault(QualityReason::Stuck, Quality::Bad) } else { None };
        let expected = [(110, InstrumentStatus::Failure), (170, InstrumentStatus::Normal)];
        assert_eq!(changes(&mut instrument, 0, 300, stuck), expected);
        assert_eq!(instrument.status(), InstrumentStatus::Normal);
    }

    #[test]
    fn what_comes_and_goes_does_not_flutter() {
        let of_ten = |bad: i64| move |second: i64| if second % 10 < bad { fault(QualityReason::Communication, Quality::Bad) } else { None };
        assert_eq!(changes(&mut Instrument::default(), 0, 10_000, of_ten(2)), [], "seldom bad");
        let mut instrument = Instrument::default();
        assert_eq!(changes(&mut instrument, 0, 10_000, of_ten(6)).len(), 1, "mostly bad: once");
        assert_eq!(changes(&mut instrument, 10_000, 20_000, of_ten(5)), [], "hardly better");
    }

    #[test]
    fn a_worse_fault_takes_over_and_a_milder_one_later() {
        let mut instrument = Instrument::default();
        let found = |second: i64| match second {
            0..50 => fault(QualityReason::Clipping, Quality::Uncertain),
            50..100 => fault(QualityReason::Stale, Quality::Bad),
            _ => fault(QualityReason::Spike, Quality::Good),
        };
        let expected = [(10, InstrumentStatus::OffSpec), (60, InstrumentStatus::Failure), (120, InstrumentStatus::MaintenanceRequired)];
        assert_eq!(changes(&mut instrument, 0, 200, found), expected);
    }

    #[test]
    fn a_clock_set_back_and_a_gap_count_for_nothing() {
        let mut instrument = Instrument::default();
        let stale = fault(QualityReason::Stale, Quality::Bad);
        instrument.observe(stale, Timestamp(1_000 * SECOND), DELAYS);
        assert_eq!(instrument.observe(stale, Timestamp(5 * SECOND), DELAYS), None);
        assert_eq!(instrument.observe(stale, Timestamp(6 * SECOND), DELAYS), None);
        instrument.restart();
        assert_eq!(instrument.observe(stale, Timestamp(500 * SECOND), DELAYS), None);
    }

    #[test]
    fn classes_are_those_of_the_table() {
        for (reason, quality, status) in [
            (QualityReason::SensorFault, Quality::Bad, InstrumentStatus::Failure),
            (QualityReason::Communication, Quality::Bad, InstrumentStatus::Failure),
            (QualityReason::RateOfChange, Quality::Bad, InstrumentStatus::Failure),
            (QualityReason::Source, Quality::Uncertain, InstrumentStatus::OffSpec),
            (QualityReason::NotANumber, Quality::Bad, InstrumentStatus::Failure),
            (QualityReason::Clipping, Quality::Uncertain, InstrumentStatus::OffSpec),
            (QualityReason::OutOfRange, Quality::Bad, InstrumentStatus::OffSpec),
            (QualityReason::Clock, Quality::Uncertain, InstrumentStatus::OffSpec),
            (QualityReason::Spike, Quality::Good, InstrumentStatus::MaintenanceRequired),
            (QualityReason::CheckFunction, Quality::Bad, InstrumentStatus::CheckFunction),
        ] {
            assert_eq!(status_of(Fault { reason, quality }), status, "{reason:?}");
        }
    }

    #[test]
    fn features_of_a_channel_are_one_instrument() {
        for (point, instrument) in
            [("de-h.v_rms", "de-h"), ("de-h.env.bpfo", "de-h"), ("pump.flow", "pump.flow"), ("v_rms", "v_rms"), (".crest", ".crest")]
        {
            assert_eq!(of_point(point), instrument);
        }
    }
}
