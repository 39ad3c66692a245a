//! Cleaning: what a reading of a point that is scored, or tells the operating state, is worth, judged by the readings of that point before it.
//!
//! The log keeps each reading as it came; what is judged here goes to the window. A point is checked for what is configured (`max_rate`, `stuck_after`,
//! `clips`) and for silence; range and plausible time are judged at the source, and what the source found bad stays bad.
//!
//! | check | value | reason |
//! |---|---|---|
//! | moves faster than `max_rate` | bad; the next one decides: back again, it was a spike; still there, a step, taken as uncertain | `rate_of_change` |
//! | stays within `stuck_within` for `stuck_after`; without them, stands still as it never did ([`super::still`]) | bad until it moves; uncertain where it may be the machine | `stuck` |
//! | stands at an end of its range that `clips` names | uncertain | `clipping` |
//! | no reading for longer than the point's stale limit | missing; what comes next continues nothing | `stale` |
//!
//! Pure: a function of the readings and their times.
use std::collections::VecDeque;

use hark_protocol::topics::{Quality, QualityReason, Reading, Timestamp};
use serde::{Deserialize, Serialize};

use super::{asset::micros, still::Found};
use crate::config::{self, Clips, Point};

/// So many spikes within [`SPIKES_WITHIN_US`] say something of the instrument: a loose contact, not a chance.
const SPIKES_MANY: usize = 3;
/// An hour.
const SPIKES_WITHIN_US: i64 = 3_600_000_000;

/// How often a point is read, microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Rows are so far apart: a rate is never measured over less, for times of readings jitter.
    pub(super) grid_us: i64,
    /// A value older than this is missing.
    pub(super) stale_us: i64,
}

impl Pace {
    pub(super) fn of(asset: &config::Asset, point: &Point) -> Self {
        Self { grid_us: micros(asset.grid).max(1), stale_us: micros(asset.stale_after(point)) }
    }
}

/// A value with what it is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    /// `None` where the quality is bad.
    pub(super) value: Option<f64>,
    pub(super) quality: Quality,
    /// Why it is not good.
    pub(super) reason: Option<QualityReason>,
}

impl Judged {
    /// A reading that is not to be used.
    pub(super) const NOTHING: Self = Self { value: None, quality: Quality::Bad, reason: Some(QualityReason::Source) };

    /// What the source says of `reading`.
    pub(super) fn of(reading: &Reading) -> Self {
        Self { value: reading.value.filter(|value| value.is_finite()), quality: reading.quality, reason: reading.reason }
    }
}

/// What is remembered of a point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cleaner {
    /// The newest reading; silence is measured from here.
    heard: Option<Timestamp>,
    /// The last value that was believed.
    believed: Option<(Timestamp, f64)>,
    /// A value too far from it, if the newest one was: the next one decides.
    suspect: Option<(Timestamp, f64)>,
    /// The values since then lie between these.
    still: Option<Still>,
    /// When the last spikes came, the oldest first.
    spikes: VecDeque<Timestamp>,
    /// What is wrong with the newest reading.
    fault: Option<Fault>,
}

/// Values that hardly move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Still {
    since: Timestamp,
    low: f64,
    high: f64,
}

/// What is wrong with a point's values now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) reason: QualityReason,
    /// How bad the values are for it.
    pub(super) quality: Quality,
}

impl Fault {
    /// What other points show is not what it says.
    pub(super) const CONTRADICTED: Self = Self { reason: QualityReason::Contradicted, quality: Quality::Uncertain };
}

impl Cleaner {
    /// Judges a reading of `point` that came as `given` with time `ts`. One older than the newest is passed as it is: the past is judged already.
    pub(super) fn judge(&mut self, ts: Timestamp, given: Judged, point: &Point, pace: Pace) -> Judged {
        if self.heard.is_some_and(|heard| ts < heard) {
            return given;
        }
        if self.is_silent(ts, pace) {
            (self.believed, self.suspect, self.still) = (None, None, None);
        }
        self.heard = Some(ts);
        let judged = match given.value {
            Some(value) if given.quality != Quality::Bad => self.check(ts, value, given, point, pace),
            _ => bad(given.reason.unwrap_or(QualityReason::Source)),
        };
        self.fault = judged.reason.map(|reason| Fault { reason, quality: judged.quality });
        judged
    }

    /// A reading came whose time runs ahead: it is not used, and says that the instrument is there. `now` is the asset's time.
    pub(super) fn ahead(&mut self, now: Timestamp) {
        self.heard = self.heard.max(Some(now));
        self.fault = Some(Fault { reason: QualityReason::Clock, quality: Quality::Uncertain });
    }

    /// What the newest reading, which is worth `judged` by itself, is worth by what was `found` of how its value stands.
    pub(super) fn stands(&mut self, judged: Judged, found: Found) -> Judged {
        let standing = match found {
            Found::Moves => return judged,
            Found::Stuck => bad(QualityReason::Stuck),
            // What else is wrong with it says more.
            Found::Doubtful if judged.quality != Quality::Good => return judged,
            Found::Doubtful => Judged { quality: Quality::Uncertain, reason: Some(QualityReason::Stuck), ..judged },
        };
        self.fault = Some(Fault { reason: QualityReason::Stuck, quality: standing.quality });
        standing
    }

    /// The gateway's clock stepped: a time that cannot be trusted is no fault of the instrument.
    pub(super) fn excuse_clock(&mut self) {
        self.fault = self.fault.filter(|fault| fault.reason != QualityReason::Clock);
    }

    /// What is wrong with the point at `now`. A point that never came is silent from the first time it was asked for.
    pub(super) fn fault(&mut self, now: Timestamp, pace: Pace) -> Option<Fault> {
        self.heard.get_or_insert(now);
        if self.is_silent(now, pace) {
            return Some(Fault { reason: QualityReason::Stale, quality: Quality::Bad });
        }
        self.fault.or_else(|| self.spikes_often(now).then_some(Fault { reason: QualityReason::Spike, quality: Quality::Good }))
    }

    /// Readings are missing, or times were corrected: what comes next continues nothing.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    fn check(&mut self, ts: Timestamp, value: f64, given: Judged, point: &Point, pace: Pace) -> Judged {
        let mut judged = Judged { value: Some(value), ..given };
        if let Some(max_rate) = point.checks.max_rate {
            let reaches = |from: (Timestamp, f64)| (value - from.1).abs() <= max_rate * seconds(ts, from.0).max(pace.grid_us as f64 / 1e6);
            match (self.believed, self.suspect.take()) {
                (Some(believed), suspect) if !reaches(believed) => {
                    if !suspect.is_some_and(reaches) {
                        self.suspect = Some((ts, value));
                        return bad(QualityReason::RateOfChange);
                    }
                    // It stayed: a step, which the point should not be able to.
                    (judged.quality, judged.reason) = (Quality::Uncertain, Some(QualityReason::RateOfChange));
                }
                (_, Some(spike)) => self.remember_spike(spike.0),
                _ => {}
            }
        }
        self.believed = Some((ts, value));
        if clips(point, value) {
            // A cut signal stands still by nature: the cut is what is wrong.
            self.still = None;
            return Judged { quality: Quality::Uncertain, reason: Some(QualityReason::Clipping), ..judged };
        }
        if self.is_stuck(ts, value, point) { bad(QualityReason::Stuck) } else { judged }
    }

    fn is_stuck(&mut self, ts: Timestamp, value: f64, point: &Point) -> bool {
        let Some(stuck) = point.checks.stuck else { return false };
        let begun = Still { since: ts, low: value, high: value };
        let grown = self.still.map(|still| Still { low: still.low.min(value), high: still.high.max(value), ..still });
        let still = grown.filter(|still| still.high - still.low <= stuck.within).unwrap_or(begun);
        self.still = Some(still);
        seconds(ts, still.since) >= stuck.after.as_secs_f64()
    }

    fn is_silent(&self, now: Timestamp, pace: Pace) -> bool {
        self.heard.is_some_and(|heard| now.0.saturating_sub(heard.0) > pace.stale_us)
    }

    fn remember_spike(&mut self, ts: Timestamp) {
        if self.spikes.len() == SPIKES_MANY {
            self.spikes.pop_front();
        }
        self.spikes.push_back(ts);
    }

    fn spikes_often(&self, now: Timestamp) -> bool {
        self.spikes.len() == SPIKES_MANY && self.spikes.iter().all(|spike| now.0.saturating_sub(spike.0) <= SPIKES_WITHIN_US)
    }
}

fn bad(reason: QualityReason) -> Judged {
    Judged { value: None, quality: Quality::Bad, reason: Some(reason) }
}

fn clips(point: &Point, value: f64) -> bool {
    let Some(((low, high), clips)) = point.range.zip(point.checks.clips) else { return false };
    (clips != Clips::High && value <= low) || (clips != Clips::Low && value >= high)
}

fn seconds(to: Timestamp, from: Timestamp) -> f64 {
    to.0.saturating_sub(from.0) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::config::{Checks, Stuck};

    const SECOND: i64 = 1_000_000;
    const PACE: Pace = Pace { grid_us: SECOND, stale_us: 5 * SECOND };

    fn point(checks: Checks) -> Point {
        Point {
            id: "flow".into(),
            unit: "1".into(),
            column: None,
            range: Some((0.0, 100.0)),
            map: BTreeMap::new(),
            scored: true,
            limits: None,
            severity: None,
            ignore_fall: false,
            stale_after: None,
            checks,
        }
    }

    /// Readings one second apart from 100 s on; their reasons, and the values that are left.
    #[track_caller]
    fn check(checks: Checks, values: &[f64], expected: &[(Option<f64>, Option<QualityReason>)]) -> Cleaner {
        let (mut cleaner, point) = (Cleaner::default(), point(checks));
        let judge = |(second, value): (i64, &f64)| {
            let judged = cleaner.judge(Timestamp((100 + second) * SECOND), good(*value), &point, PACE);
            assert_eq!(judged.value.is_none(), judged.quality == Quality::Bad, "bad is null");
            assert_eq!(judged.reason.is_none(), judged.quality == Quality::Good);
            (judged.value, judged.reason)
        };
        let found: Vec<_> = (0..).zip(values).map(judge).collect();
        assert_eq!(found, expected);
        cleaner
    }

    fn good(value: f64) -> Judged {
        Judged { value: Some(value), quality: Quality::Good, reason: None }
    }

    fn plain(values: &[f64]) -> Vec<(Option<f64>, Option<QualityReason>)> {
        values.iter().map(|value| (Some(*value), None)).collect()
    }

    const RATE: Checks = Checks { max_rate: Some(2.0), stuck: None, clips: None };
    const STUCK: Checks = Checks { max_rate: None, stuck: Some(Stuck { after: Duration::from_secs(3), within: 0.5 }), clips: None };

    #[test]
    fn without_a_check_every_value_is_good() {
        let values = [0.0, 0.0, 100.0, 0.0, 0.0, 0.0, 1e300];
        check(Checks::default(), &values, &plain(&values));
    }

    #[test]
    fn a_spike_is_left_out_and_what_follows_is_good() {
        let expected = [(Some(5.0), None), (None, Some(QualityReason::RateOfChange)), (Some(6.0), None), (Some(8.0), None)];
        let mut cleaner = check(RATE, &[5.0, 90.0, 6.0, 8.0], &expected);
        assert_eq!((cleaner.spikes.len(), cleaner.fault(Timestamp(104 * SECOND), PACE)), (1, None), "one is chance");
    }

    #[test]
    fn a_step_is_believed_once_it_stays() {
        let rate = Some(QualityReason::RateOfChange);
        let cleaner = check(RATE, &[5.0, 90.0, 91.0, 90.0], &[(Some(5.0), None), (None, rate), (Some(91.0), rate), (Some(90.0), None)]);
        assert!(cleaner.spikes.is_empty());
        // A signal that is somewhere else each time is never believed, until so much time has passed that it may be.
        check(RATE, &[5.0, 90.0, 30.0, 70.0], &[(Some(5.0), None), (None, rate), (None, rate), (None, rate)]);
    }

    #[test]
    fn a_rate_is_not_measured_over_less_than_a_row() {
        let (mut cleaner, point) = (Cleaner::default(), point(RATE));
        cleaner.judge(Timestamp(100 * SECOND), good(1.0), &point, PACE);
        assert_eq!(cleaner.judge(Timestamp(100 * SECOND + 1_000), good(2.9), &point, PACE), good(2.9));
    }

    #[test]
    fn many_spikes_within_an_hour_are_a_fault_for_an_hour() {
        let mut values = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..3 {
            values.extend([5.0, 90.0]);
            expected.extend([(Some(5.0), None), (None, Some(QualityReason::RateOfChange))]);
        }
        values.push(5.0);
        expected.push((Some(5.0), None));
        let mut cleaner = check(RATE, &values, &expected);
        let mut reason_at = |second: i64| {
            cleaner.heard = Some(Timestamp(second * SECOND));
            cleaner.fault(Timestamp(second * SECOND), PACE).map(|fault| fault.reason)
        };
        assert_eq!([107, 3_701, 3_702].map(&mut reason_at), [Some(QualityReason::Spike), Some(QualityReason::Spike), None]);
    }

    #[test]
    fn what_stands_still_for_too_long_is_stuck_until_it_moves() {
        let stuck = (None, Some(QualityReason::Stuck));
        let values = [7.0, 9.0, 9.4, 9.1, 9.5, 9.5, 9.6, 9.6];
        let mut expected = plain(&values);
        (expected[4], expected[5]) = (stuck, stuck);
        check(STUCK, &values, &expected);
        check(Checks::default(), &[9.0; 8], &plain(&[9.0; 8]));
    }

    #[test]
    fn silence_is_no_standing_still_and_what_follows_continues_nothing() {
        let both = point(Checks { stuck: STUCK.stuck, ..RATE });
        let mut cleaner = Cleaner::default();
        for second in [100, 101, 102] {
            cleaner.judge(Timestamp(second * SECOND), good(5.0), &both, PACE);
        }
        let silent = |cleaner: &mut Cleaner, second: i64| cleaner.fault(Timestamp(second * SECOND), PACE).map(|fault| fault.reason);
        assert_eq!((silent(&mut cleaner, 107), silent(&mut cleaner, 108)), (None, Some(QualityReason::Stale)));
        assert_eq!(cleaner.judge(Timestamp(108 * SECOND), good(5.0), &both, PACE), good(5.0), "not stuck since 100 s");
        cleaner.judge(Timestamp(120 * SECOND), good(99.0), &both, PACE);
        assert_eq!(cleaner.believed, Some((Timestamp(120 * SECOND), 99.0)), "no step either");
    }

    #[test]
    fn the_ends_of_the_range_are_end_stops_where_it_is_said() {
        let clipping = Some(QualityReason::Clipping);
        for (clips, low, high) in [(None, None, None), (Some(Clips::Low), clipping, None), (Some(Clips::High), None, clipping)] {
            let checks = Checks { clips, ..Checks::default() };
            check(checks, &[0.0, 50.0, 100.0], &[(Some(0.0), low), (Some(50.0), None), (Some(100.0), high)]);
        }
        // A cut signal is cut, not stuck.
        check(Checks { clips: Some(Clips::Both), ..STUCK }, &[100.0; 6], &[(Some(100.0), clipping); 6]);
    }

    #[test]
    fn what_the_source_says_stays_and_hides_nothing() {
        let point = point(Checks { clips: Some(Clips::Both), ..RATE });
        let mut cleaner = Cleaner::default();
        let uncertain = |value| Judged { value: Some(value), quality: Quality::Uncertain, reason: Some(QualityReason::Source) };
        assert_eq!(cleaner.judge(Timestamp(SECOND), uncertain(5.0), &point, PACE), uncertain(5.0));
        let failed = Judged { value: None, quality: Quality::Bad, reason: Some(QualityReason::Communication) };
        assert_eq!(cleaner.judge(Timestamp(2 * SECOND), failed, &point, PACE), failed);
        assert_eq!(cleaner.fault(Timestamp(2 * SECOND), PACE).unwrap().reason, QualityReason::Communication);
        let claimed = Judged { value: Some(5.0), quality: Quality::Bad, reason: None };
        assert_eq!(cleaner.judge(Timestamp(3 * SECOND), claimed, &point, PACE), bad(QualityReason::Source));
        // The past is judged already.
        assert_eq!(cleaner.judge(Timestamp(SECOND), good(80.0), &point, PACE), good(80.0));
        assert_eq!(cleaner.judge(Timestamp(4 * SECOND), good(80.0), &point, PACE), bad(QualityReason::RateOfChange));
        cleaner.ahead(Timestamp(5 * SECOND));
        assert_eq!(cleaner.fault(Timestamp(5 * SECOND), PACE).unwrap().reason, QualityReason::Clock);
    }
}
