//! Time for assets that say nothing: a tick in the inputs lane, so that their silence is in the log as their readings are.
//!
//! A tick's time is the event time of the asset's last reading plus the time since boot that has passed since it was taken: a sensor with a skewed
//! clock, or a recording of last year, is not overtaken by the gateway's clock. An asset in its rhythm gives no ticks. One that fell silent gives the
//! first after a quarter of its stale limit (that of its points, where all of them hold longer), or after one and a half grid steps where that is more, then one every quarter; after two stale limits
//! everybody who reads them knows, and the distance doubles with each tick, up to a minute. Where somebody silenced alarms, or took something out of service,
//! until some time, a silent asset has a tick then besides: what is over by the log's time is so at once.
//!
//! Across a restart silence goes on from where its ticks had come to, once inference has read the log to its end; the time in between does not
//! count. An asset of which the log knows nothing either gives no tick before its first reading.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hark_protocol::topics::{Event, EventKind, LaneName, Name, Origin, Timestamp, TsSource};
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::commit::{Append, Appender},
    clock::Clock,
    config::Asset,
    record::{Body, Entry, Stamp},
};

/// Ticks come no closer than this, however short the stale limit.
const CLOSEST_MS: u64 = 100;
/// Distance of ticks of an asset that has been silent for long.
const FARTHEST_MS: u64 = 60_000;

/// How long silence may last before it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    first_ms: u64,
    quarter_ms: u64,
    stale_ms: u64,
}

impl Limits {
    fn of(asset: &Asset) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let silent_after = asset.silent_after();
        let quarter_ms = ms(silent_after / 4).max(CLOSEST_MS);
        Self { quarter_ms, first_ms: quarter_ms.max(ms(asset.grid * 3 / 2)), stale_ms: ms(silent_after) }
    }

    /// From one tick to the next, after `silent_ms`.
    fn distance_ms(&self, silent_ms: u64) -> u64 {
        // Behind two stale limits each distance is the one before, twice: what has passed since then grows by just that.
        let doubled = silent_ms.saturating_sub(self.stale_ms.saturating_mul(2)).saturating_add(self.quarter_ms);
        doubled.min(FARTHEST_MS).max(self.quarter_ms)
    }
}

/// An asset as it was heard last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Event time of its last reading.
    last: Timestamp,
    /// Event time at `at_ms`.
    base: Timestamp,
    at_ms: u64,
    /// The next tick is due, ms since boot.
    due_ms: u64,
}

/// The rhythm of one asset.
#[derive(Debug)]
pub struct Rhythm {
    limits: Limits,
    heard: Option<Heard>,
    /// A tick is wanted at this event time, if the asset is silent then.
    wanted: Option<Timestamp>,
    /// The last one that was wanted and given.
    given: Option<Timestamp>,
}

impl Rhythm {
    /// An asset that was not heard yet.
    pub fn new(asset: &Asset) -> Self {
        Self { limits: Limits::of(asset), heard: None, wanted: None, given: None }
    }

    /// A scored point had a reading of event time `ts`.
    pub fn heard(&mut self, ts: Timestamp, now_ms: u64) {
        self.heard = Some(Heard { last: ts, base: ts, at_ms: now_ms, due_ms: now_ms.saturating_add(self.limits.first_ms) });
    }

    /// The log says that the last reading was at `last` and that ticks came up to `base`. Whoever was heard since the start knows better.
    pub fn resume(&mut self, last: Timestamp, base: Timestamp, now_ms: u64) {
        if self.heard.is_none() {
            let silent_ms = silent_ms(last, base);
            let wait_ms = if base > last { self.limits.distance_ms(silent_ms) } else { self.limits.first_ms };
            self.heard = Some(Heard { last, base, at_ms: now_ms, due_ms: now_ms.saturating_add(wait_ms) });
        }
    }

    /// Another configuration is in force.
    pub fn configure(&mut self, asset: &Asset) {
        self.limits = Limits::of(asset);
    }

    /// Something ends at event time `ts`, the next that does; `None` where nothing does. Who has not read the tick yet wants the same again.
    pub fn want(&mut self, ts: Option<Timestamp>) {
        self.wanted = ts.filter(|_| ts != self.given);
    }

    #[cfg(test)]
    pub(crate) fn wanted(&self) -> Option<Timestamp> {
        self.wanted
    }

    /// The event time of the tick that is due at `now_ms`.
    pub fn tick(&mut self, now_ms: u64) -> Option<Timestamp> {
        let heard = self.heard.as_mut()?;
        let passed_us = i64::try_from(now_ms.saturating_sub(heard.at_ms).saturating_mul(1_000)).unwrap_or(i64::MAX);
        let ts = Timestamp(heard.base.0.saturating_add(passed_us));
        // While readings come they do it.
        let is_silent = now_ms.saturating_sub(heard.at_ms) >= self.limits.first_ms || heard.base > heard.last;
        let is_wanted = is_silent && self.wanted.is_some_and(|wanted| wanted <= ts);
        if now_ms < heard.due_ms && !is_wanted {
            return None;
        }
        if is_wanted {
            self.given = self.wanted.take();
        }
        heard.due_ms = now_ms.saturating_add(self.limits.distance_ms(silent_ms(heard.last, ts)));
        Some(ts)
    }
}

fn silent_ms(last: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.0.saturating_sub(last.0) / 1_000).unwrap_or(0)
}

/// The rhythms of all assets. Sources say what they take; one task asks who is silent.
#[derive(Debug, Default)]
pub struct Rhythms(BTreeMap<Name, Arc<Mutex<Rhythm>>>);

impl Rhythms {
    /// Assets that were not heard yet.
    pub fn new(assets: &BTreeMap<Name, Asset>) -> Self {
        Self(assets.iter().map(|(id, asset)| (id.clone(), Arc::new(Mutex::new(Rhythm::new(asset))))).collect())
    }

    /// The rhythm of `asset`; `None` if it is not configured.
    pub fn of(&self, asset: &str) -> Option<&Arc<Mutex<Rhythm>>> {
        self.0.get(asset)
    }

    /// Who is due at `now_ms`, with the event time of the tick.
    fn due(&self, now_ms: u64) -> Vec<(Name, Timestamp)> {
        self.0.iter().filter_map(|(asset, rhythm)| Some((asset.clone(), lock(rhythm).tick(now_ms)?))).collect()
    }

    /// How often to ask, so that no tick is late by more than a quarter of its distance.
    fn ask_every(&self) -> Duration {
        let closest = self.0.values().map(|rhythm| lock(rhythm).limits.quarter_ms).min().unwrap_or(FARTHEST_MS);
        Duration::from_millis((closest / 4).clamp(CLOSEST_MS / 4, 1_000))
    }
}

/// The rhythm behind its lock.
pub fn lock(rhythm: &Mutex<Rhythm>) -> MutexGuard<'_, Rhythm> {
    rhythm.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends ticks until `stop`, or until the log is closed.
pub async fn run(rhythms: Arc<Rhythms>, appender: Appender, clock: Clock, origin: Origin, stop: CancellationToken) {
    while tokio::time::timeout(rhythms.ask_every(), stop.cancelled()).await.is_err() {
        let now = clock.now();
        let entries: Vec<Entry> = rhythms
            .due(now.log_ms)
            .into_iter()
            .map(|(asset, ts)| Entry {
                stamp: Stamp { asset: Some(asset), ts, ts_source: TsSource::Gateway, clock: now.state, origin },
                cause: None,
                body: Body::Event(Event::new(EventKind::Tick).into()),
            })
            .collect();
        if entries.is_empty() {
            continue;
        }
        let append = Append { lane: LaneName::Inputs, entries, marks: Vec::new(), urgent: false, done: None };
        if appender.append(append).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rhythm(grid_ms: u64, stale_ms: u64) -> Rhythm {
        let assets = crate::config::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap().assets;
        let mut asset = assets.into_values().next().unwrap();
        asset.points.iter_mut().for_each(|point| point.stale_after = None);
        (asset.grid, asset.stale_after) = (Duration::from_millis(grid_ms), Duration::from_millis(stale_ms));
        Rhythm::new(&asset)
    }

    #[test]
    fn an_asset_is_silent_by_its_own_limit_unless_all_its_points_hold_longer() {
        let assets = crate::config::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap().assets;
        let mut asset = assets.into_values().next().unwrap();
        (asset.grid, asset.stale_after) = (Duration::from_secs(1), Duration::from_secs(8));
        let mut first = |stale_s: &dyn Fn(usize, bool) -> Option<u64>| {
            asset.points.iter_mut().enumerate().for_each(|(n, point)| point.stale_after = stale_s(n, point.scored).map(Duration::from_secs));
            let mut rhythm = Rhythm::new(&asset);
            rhythm.heard(Timestamp(0), 0);
            ticks(&mut rhythm, 0, 1_000_000)[0]
        };
        assert_eq!(first(&|_, _| None), 2_000);
        assert_eq!(first(&|n, _| (n > 0).then_some(1_800)), 2_000, "one does not");
        assert_eq!(first(&|n, _| (n > 0).then_some(4)), 2_000, "some hold shorter");
        assert_eq!(first(&|n, is_scored| is_scored.then_some(1_200 + 400 * (n as u64 % 2))), 300_000);
    }

    /// All ticks up to `until_ms`, asked for every 10 ms, as event times in ms.
    fn ticks(rhythm: &mut Rhythm, from_ms: u64, until_ms: u64) -> Vec<i64> {
        (from_ms..=until_ms).step_by(10).filter_map(|now| rhythm.tick(now)).map(|ts| ts.0 / 1_000).collect()
    }

    #[test]
    fn an_asset_in_its_rhythm_gives_no_ticks() {
        let mut rhythm = rhythm(1_000, 5_000);
        for second in 0..60 {
            rhythm.heard(Timestamp(second * 1_000_000), second as u64 * 1_000);
            assert_eq!(ticks(&mut rhythm, second as u64 * 1_000, second as u64 * 1_000 + 990), [0; 0]);
        }
    }

    #[test]
    fn silence_ticks_every_quarter_and_slows_down_after_two_stale_limits() {
        let mut rhythm = rhythm(1_000, 8_000);
        assert_eq!(ticks(&mut rhythm, 0, 100_000), [0; 0], "never heard");
        // Its clock says 1970 and the gateway has been up for a while.
        rhythm.heard(Timestamp(5_000_000), 200_000);
        let seconds: Vec<i64> = ticks(&mut rhythm, 200_000, 200_000 + 400_000).iter().map(|ms| ms / 1_000 - 5).collect();
        assert_eq!(seconds, [2, 4, 6, 8, 10, 12, 14, 16, 18, 22, 30, 46, 78, 138, 198, 258, 318, 378]);
    }

    #[test]
    fn one_and_a_half_grid_steps_are_no_silence() {
        let mut rhythm = rhythm(1_000, 2_000);
        rhythm.heard(Timestamp(0), 0);
        assert_eq!(ticks(&mut rhythm, 0, 2_600), [1_500, 2_000, 2_500]);
    }

    #[test]
    fn silence_goes_on_across_restarts_until_the_asset_is_heard() {
        let mut rhythm = rhythm(1_000, 8_000);
        // Killed every second: each start goes on where the ticks had come to.
        rhythm.resume(Timestamp(0), Timestamp(10_000_000), 50);
        assert_eq!(ticks(&mut rhythm, 50, 4_100), [12_000, 14_000]);
        rhythm.heard(Timestamp(60_000_000), 4_200);
        rhythm.resume(Timestamp(0), Timestamp(14_000_000), 4_300);
        assert_eq!(ticks(&mut rhythm, 4_300, 6_300), [62_000]);
    }

    #[test]
    fn what_ends_at_a_time_has_its_tick_then_and_once() {
        let mut rhythm = rhythm(1_000, 8_000);
        let want = |rhythm: &mut Rhythm, ms: i64| rhythm.want(Some(Timestamp(ms * 1_000)));
        let told = |rhythm: &mut Rhythm, ms: i64, from_ms: u64, until_ms: u64| {
            let tick = |now| {
                want(rhythm, ms);
                rhythm.tick(now)
            };
            (from_ms..=until_ms).step_by(10).filter_map(tick).map(|ts| ts.0 / 1_000).collect::<Vec<i64>>()
        };
        assert_eq!(told(&mut rhythm, 20_500, 0, 100_000), [0; 0], "never heard");
        rhythm.heard(Timestamp(0), 100_000);
        ticks(&mut rhythm, 100_000, 299_000);
        assert_eq!(told(&mut rhythm, 200_500, 299_010, 400_000), [200_500, 260_500], "and on from there");
        assert_eq!(told(&mut rhythm, 1, 400_010, 420_000), [300_010], "what is over already, at once");
        // While readings come they tell the time.
        rhythm.heard(Timestamp(500_000_000), 600_000);
        assert_eq!(told(&mut rhythm, 500_500, 600_000, 601_990), [0; 0]);
        assert_eq!(told(&mut rhythm, 500_500, 602_000, 603_000), [502_000]);
        rhythm.want(None);
        assert_eq!(ticks(&mut rhythm, 603_010, 604_500), [504_000]);
    }

    #[test]
    fn a_stale_limit_of_days_ticks_by_its_quarter() {
        let mut rhythm = rhythm(60_000, 86_400_000);
        rhythm.heard(Timestamp(0), 0);
        assert_eq!(rhythm.tick(21_600_000).unwrap().0, 21_600_000_000);
        assert_eq!(rhythm.tick(21_600_000 + 21_590_000), None);
    }
}
