//! Corrections of the gateway's clock become records of the inputs lane: inference must know that times before and after do not fit together.
//!
//! Time since boot never jumps, so a step shows as a change of the difference between the two clocks. Nothing stored is rewritten.
use std::time::Duration;

use hark_protocol::topics::{Event, EventKind, LaneName, Origin, TsSource};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    buffer::commit::{Append, Appender},
    clock::{Clock, STEP, Sight},
    record::{Body, Entry, Stamp},
};

/// Between two looks; until the next one, readings may already carry the corrected time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How far a correction may be wrong that is measured between two looks: an adjusted clock runs at most 500 ppm off, the rest is the time of looking.
const UNCERTAINTY_MS: f64 = 1.0;

/// What was last seen of the clocks.
#[derive(Clone, Copy, Debug)]
pub struct ClockWatch {
    /// The difference that records have accounted for.
    offset_us: i64,
    /// The difference at the last look.
    seen_us: i64,
    synced: bool,
}

impl ClockWatch {
    /// A watch that begins with `sight`.
    pub fn new(sight: Sight) -> Self {
        Self { offset_us: sight.offset_us, seen_us: sight.offset_us, synced: sight.synced }
    }

    /// The record that `sight` calls for: the clock was set, or became known to be right.
    pub fn look(&mut self, sight: Sight) -> Option<Event> {
        let stepped = sight.offset_us.abs_diff(self.seen_us) > STEP.as_micros() as u64;
        let became_synced = sight.synced && !self.synced;
        (self.seen_us, self.synced) = (sight.offset_us, sight.synced);
        if !stepped && !became_synced {
            return None;
        }
        let offset_ms = sight.offset_us.saturating_sub(self.offset_us) as f64 / 1e3;
        self.offset_us = sight.offset_us;
        let what = if became_synced { "synced" } else { "stepped" };
        let text = match (stepped, became_synced) {
            (true, true) => format!("the clock was set by {:.3} s and is synchronised now", offset_ms / 1e3),
            (true, false) => format!("the clock was set by {:.3} s", offset_ms / 1e3),
            (false, _) => "the clock is synchronised now".to_owned(),
        };
        Some(Event {
            text: Some(text.into()),
            what: Some(what.into()),
            offset_ms: Some(offset_ms),
            uncertainty_ms: Some(UNCERTAINTY_MS),
            ..Event::new(EventKind::Clock)
        })
    }
}

/// A clock record at the present time.
pub fn entry(event: Event, clock: &Clock, origin: Origin) -> Entry {
    let now = clock.now();
    let event = Event { boot: Some(now.boot), ..event };
    let stamp = Stamp { asset: None, ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin };
    Entry { stamp, cause: None, body: Body::Event(event.into()) }
}

/// Appends clock records until `stop`, or until the log is closed.
pub async fn run(appender: Appender, clock: Clock, origin: Origin, stop: CancellationToken) {
    let mut watch = ClockWatch::new(clock.sight());
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        let Some(event) = watch.look(clock.sight()) else { continue };
        let (offset_ms, text) = (event.offset_ms, event.text.clone().unwrap_or_default());
        if event.what.as_deref() == Some("synced") {
            info!(offset_ms, "{text}")
        } else {
            warn!(offset_ms, "{text}")
        }
        let entries = vec![entry(event, &clock, origin)];
        if appender.append(Append { lane: LaneName::Inputs, entries, marks: Vec::new(), urgent: true, done: None }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;
    const START: Sight = Sight { offset_us: 1_000 * HOUR_US, synced: false };

    fn offset_ms(watch: &mut ClockWatch, sight: Sight) -> Option<f64> {
        watch.look(sight).map(|event| event.offset_ms.unwrap())
    }

    #[test]
    fn an_hour_both_ways_and_fifty_years_are_one_record_each() {
        let mut watch = ClockWatch::new(START);
        let at = |us: i64| Sight { offset_us: START.offset_us + us, ..START };
        let fifty_years_us = 50 * 365 * 24 * HOUR_US;
        for (us, expected) in [
            (0, None),
            (HOUR_US, Some(3_600_000.0)),
            (HOUR_US, None),
            (0, Some(-3_600_000.0)),
            (fifty_years_us, Some(fifty_years_us as f64 / 1e3)),
            (fifty_years_us, None),
        ] {
            assert_eq!(offset_ms(&mut watch, at(us)), expected, "{us}");
        }
    }

    #[test]
    fn slow_adjustment_is_no_step_but_is_told_when_the_clock_becomes_known() {
        let mut watch = ClockWatch::new(START);
        for n in 1..=100 {
            assert!(watch.look(Sight { offset_us: START.offset_us + n * 900_000, synced: false }).is_none());
        }
        let synced = Sight { offset_us: START.offset_us + 90_000_000, synced: true };
        let event = watch.look(synced).unwrap();
        assert_eq!((event.offset_ms, event.what.as_deref()), (Some(90_000.0), Some("synced")));
        assert!(watch.look(synced).is_none());
        assert!(watch.look(Sight { synced: false, ..synced }).is_none(), "a time service that stops corrects nothing");
    }
}
