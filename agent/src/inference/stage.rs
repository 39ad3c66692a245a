//! The inference stage, one thread: read the inputs lane in order, let the engine decide, append what follows.
//!
//! The engine is a function of the log alone. Its state is stored as a checkpoint now and then; after a start it goes on from there and leaves out
//! what the log already holds, by the cause that each output carries.
use std::{sync::Arc, time::Duration};

use hark_protocol::topics::{Event, EventKind, LaneName, Name, Origin};
use tracing::{error, info, warn};

use super::{
    Bundles, Engine, InferenceError,
    checkpoint::{Beginning, Checkpoints},
    configured::Configured,
};
use crate::{
    buffer::{
        BufferError, FollowError, Followed, Follower, Gap, Log, Position,
        commit::{Append, AppendError, Appender},
    },
    causes,
    clock::{Clock, STEP},
    config::Config,
    hold::Hold,
    record::{Body, Cause, Entry, Stamp},
    source::{
        clock_watch,
        silence::{self, Rhythms},
        snapshot::{self, Wanted},
    },
    status::{InferenceNumbers, Status},
    stop::Stop,
};

/// Lanes that inference writes to.
const OUTPUTS: [LaneName; 3] = [LaneName::Events, LaneName::Alarms, LaneName::Predictions];
const BATCH_RECORDS: usize = 2_048;
const BATCH_BYTES: usize = 1 << 20;
const IDLE: Duration = Duration::from_millis(200);
/// What inference may go on reading after it was asked to stop. What is left is read at the next start, with the same answer.
const GRACE: Duration = Duration::from_secs(15);

/// What stops the stage.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The log failed.
    #[error("inference cannot use the buffer")]
    Buffer(#[from] BufferError),
    /// The commit loop has ended.
    #[error("inference cannot append its results")]
    Append(#[from] AppendError),
    /// The model bundle or the state is unusable.
    #[error("inference cannot start")]
    Engine(#[from] InferenceError),
}

/// What the stage is connected to.
pub struct Links {
    /// The log.
    pub log: Log,
    /// The way into it.
    pub appender: Appender,
    /// Who still needs its records.
    pub hold: Arc<Hold>,
    /// Where state is shown.
    pub status: Arc<Status>,
    /// For durations, and for showing how long an asset is silent.
    pub clock: Clock,
    /// When each asset was heard.
    pub rhythms: Arc<Rhythms>,
    /// What the log was told of the configuration.
    pub configured: Arc<Configured>,
    /// Where raw blocks are asked for.
    pub snapshots: snapshot::Requests,
}

/// The stage.
pub struct Inference {
    engine: Engine,
    links: Links,
    follower: Follower,
    emitted: Emitted,
    origin: Origin,
    processed: Position,
    checkpoints: Checkpoints,
    /// There was a state before this start, and it is gone.
    lost: bool,
    /// The log was read to where it ended at the start.
    caught_up: bool,
    read_problem_logged: bool,
    grace: Duration,
}

/// The last output of each lane that the log held at the start: all up to there are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Emitted([Option<Cause>; OUTPUTS.len()]);

impl Emitted {
    fn has(&self, lane: LaneName, cause: Option<Cause>) -> bool {
        let of_lane = OUTPUTS.iter().zip(self.0).find_map(|(output, last)| if *output == lane { last } else { None });
        cause <= of_lane
    }
}

impl Inference {
    /// Goes on from the last checkpoint; without one, from the first record of the log.
    ///
    /// # Errors
    /// [`StageError`] if the bundle is unusable or the log cannot be read.
    pub fn new(config: &Config, bundles: Bundles, links: Links) -> Result<Self, StageError> {
        let start = links.log.start(LaneName::Inputs);
        let (checkpoints, Beginning { mut engine, restored, lost }) =
            Checkpoints::open(config, bundles, &links.configured, start, links.clock.monotonic())?;
        engine.check(&config.assets)?;
        let emitted = Emitted(OUTPUTS.map(|lane| links.log.last_cause(lane)));
        let follower = Follower::new(&links.log, LaneName::Inputs, links.appender.clone())?;
        let origin = config.gateway.origin;
        let processed = restored.unwrap_or(start);
        Ok(Self {
            engine,
            links,
            follower,
            emitted,
            origin,
            processed,
            checkpoints,
            lost,
            caught_up: false,
            read_problem_logged: false,
            grace: GRACE,
        })
    }

    /// Runs until `stop`, and then until the lane is read to its end, or for 15 s.
    ///
    /// # Errors
    /// [`StageError`] if the log is closed.
    pub fn run(mut self, stop: &Stop) -> Result<(), StageError> {
        self.publish();
        if self.lost {
            self.tell_of_loss()?;
        }
        let mut stop_by = None;
        loop {
            match self.follower.read(self.processed, BATCH_RECORDS, BATCH_BYTES) {
                Ok(Followed::Records(records)) if records.is_empty() => {
                    self.catch_up()?;
                    if stop.requested() {
                        return self.store();
                    }
                    self.links.log.wait(LaneName::Inputs, self.processed, IDLE);
                }
                Ok(Followed::Records(records)) => self.process(&records)?,
                Ok(Followed::Gap(gap)) => self.pass(&gap)?,
                Err(FollowError::Append(error)) => return Err(error.into()),
                Err(FollowError::Buffer(problem)) => {
                    self.report(&problem);
                    if stop.wait(Follower::RETRY_AFTER) {
                        return self.store();
                    }
                }
            }
            let now = self.links.clock.monotonic();
            if stop.requested() && now >= *stop_by.get_or_insert(now + self.grace) {
                info!(read_to = %self.processed, "inference reads the rest of the log at the next start");
                return self.store();
            }
            if self.checkpoints.is_due(self.links.hold.take_checkpoint_wanted(), now) {
                self.store()?;
            }
        }
    }

    fn process(&mut self, records: &[(Position, Entry)]) -> Result<(), StageError> {
        let mut outputs: [Vec<Entry>; OUTPUTS.len()] = Default::default();
        let mut produced = Vec::new();
        let mut incarnation = (0, String::new());
        for (position, entry) in records {
            if incarnation.0 != position.ordinal {
                incarnation = (position.ordinal, self.links.log.incarnation_id(position.ordinal).unwrap_or_default().to_string());
            }
            self.engine.process(*position, &incarnation.1, entry, &mut produced);
            self.processed = *position;
            for (lane, entry) in produced.drain(..) {
                if !self.emitted.has(lane, entry.cause) {
                    outputs[OUTPUTS.iter().position(|output| *output == lane).unwrap_or_default()].push(entry);
                }
            }
        }
        for (lane, entries) in OUTPUTS.into_iter().zip(outputs) {
            if !entries.is_empty() {
                entries.iter().filter_map(Wanted::by).for_each(|wanted| self.links.snapshots.ask(wanted));
                self.links.appender.blocking_append(Append { lane, entries, marks: Vec::new(), urgent: lane == LaneName::Alarms, done: None })?;
            }
        }
        if records.iter().any(|(_, entry)| is_change(entry)) {
            // Behind a change the state is another one: a start must not have to find the way through it again.
            self.checkpoints.want();
            for (id, asset) in self.engine.configurations() {
                if let Some(rhythm) = self.links.rhythms.of(id) {
                    silence::lock(rhythm).configure(asset);
                }
            }
        }
        if self.processed.ordinal == self.links.log.incarnation().ordinal {
            self.catch_up()?;
        }
        self.read_problem_logged = false;
        self.publish();
        Ok(())
    }

    /// Each machine is learned anew, which its people should know.
    fn tell_of_loss(&self) -> Result<(), StageError> {
        let scored = self.engine.configurations().filter(|(_, asset)| asset.points.iter().any(|point| point.scored));
        let text = "the checkpoint of inference cannot be read: what was learned of the machine is lost";
        let entry = |id: &Name| {
            let event = Event { what: Some("started".into()), text: Some(text.into()), ..Event::new(EventKind::Commissioning) };
            let entry = clock_watch::entry(event, &self.links.clock, self.origin);
            Entry { stamp: Stamp { asset: Some(id.clone()), ..entry.stamp }, ..entry }
        };
        let entries: Vec<Entry> = scored.map(|(id, _)| entry(id)).collect();
        if !entries.is_empty() {
            self.links.appender.blocking_append(Append { lane: LaneName::Events, entries, marks: Vec::new(), urgent: false, done: None })?;
        }
        Ok(())
    }

    /// Records are lost, and an event says so. What changes said in them is said again.
    fn pass(&mut self, gap: &Gap) -> Result<(), StageError> {
        error!(from = %gap.from, to = %gap.to, reason = ?gap.reason, "readings are missing, all windows begin anew");
        self.engine.pass_gap();
        self.processed = self.processed.max(gap.to);
        self.links.configured.blocking_repair(gap.from, gap.to, &self.links.appender)?;
        self.publish();
        Ok(())
    }

    /// Once, when everything of earlier starts is read: silences go on, and a clock that stands before what was stored is told of.
    fn catch_up(&mut self) -> Result<(), StageError> {
        if std::mem::replace(&mut self.caught_up, true) {
            return Ok(());
        }
        let now = self.links.clock.now();
        for (asset, heard, ticked) in self.engine.silences() {
            if let Some(rhythm) = self.links.rhythms.of(&asset) {
                silence::lock(rhythm).resume(heard, ticked, now.log_ms);
            }
        }
        let ahead_us = self.engine.newest_gateway_time().map_or(0, |newest| newest.0.saturating_sub(now.ts.0));
        if ahead_us > i64::try_from(STEP.as_micros()).unwrap_or(i64::MAX) {
            let text = format!("the clock stands {:.3} s before what was stored last", ahead_us as f64 / 1e6);
            warn!("{text}");
            let event = Event { what: Some("stepped".into()), text: Some(text.into()), ..Event::new(EventKind::Clock) };
            let entries = vec![clock_watch::entry(event, &self.links.clock, self.origin)];
            self.links.appender.blocking_append(Append { lane: LaneName::Inputs, entries, marks: Vec::new(), urgent: true, done: None })?;
        }
        Ok(())
    }

    /// A problem of the disk is logged once until it is over.
    fn report(&mut self, problem: &BufferError) {
        if !std::mem::replace(&mut self.read_problem_logged, true) {
            error!(error = %causes::chain(problem), "inputs cannot be read, trying again");
        }
    }

    fn publish(&mut self) {
        for (asset, end) in self.engine.next_ends() {
            if let Some(rhythm) = self.links.rhythms.of(asset) {
                silence::lock(rhythm).want(end);
            }
        }
        let status = &self.links.status;
        status.set_baselines(self.engine.baselines().map(|(asset, baseline)| (asset.clone(), baseline.clone())).collect());
        status.set_assets(self.engine.asset_records(self.links.clock.now().ts));
        // First: who hears of an alarm must know by then that it is one of a flood.
        status.set_alarm_flood(self.engine.alarm_flood());
        status.set_alarms(self.engine.alarms());
        status.add_outcomes(self.engine.take_outcomes());
        status.set_inference(InferenceNumbers { counters: self.engine.counters().named().to_vec() });
    }

    /// Stores a checkpoint. What follows from the inputs before it must be durable first, or a crash would lose it.
    fn store(&mut self) -> Result<(), StageError> {
        if !self.checkpoints.begin(self.processed, self.links.clock.monotonic()) {
            return Ok(());
        }
        self.links.appender.blocking_append_durably(LaneName::Predictions, Vec::new(), true)?;
        if let Some(place) = self.checkpoints.store(&self.engine, self.processed)? {
            self.links.hold.checkpoint_stored(place);
        }
        Ok(())
    }
}

fn is_change(entry: &Entry) -> bool {
    matches!(&entry.body, Body::Event(event) if event.kind == EventKind::Change)
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;

#[cfg(test)]
mod tests {
    use std::{path::Path, thread};

    use hark_protocol::topics::Timestamp;

    use super::*;
    use crate::{
        buffer::{
            LogSettings,
            commit::{self, CommitPolicy},
            samples,
        },
        inference::checkpoint,
        source::{registry::Registry, snapshot::Snapshots},
    };

    const READINGS: u64 = 2 * BATCH_RECORDS as u64;

    /// One start of an agent whose inference may read on for `grace` after it was asked to stop, which it was before it began. Gives how far it came.
    fn start(config: &Config, grace: Duration, readings: &[Entry]) -> Position {
        start_with(config, grace, readings, &Arc::new(Rhythms::new(&config.assets)))
    }

    fn start_with(config: &Config, grace: Duration, readings: &[Entry], rhythms: &Arc<Rhythms>) -> Position {
        let (log, writer) = Log::open(&config.buffer.dir, LogSettings::new(1 << 30)).unwrap();
        let (appender, requests) = commit::channel(16);
        let commit_log = log.clone();
        let committing = thread::spawn(move || commit::run(writer, commit_log, requests, commit::Settings::unbounded(CommitPolicy::default())));
        appender.blocking_append_durably(LaneName::Inputs, readings.to_vec(), true).unwrap();
        let clock = Clock::new();
        let registry = Arc::new(Registry::new(&config.assets, config.gateway.origin));
        let (snapshots, _) = Snapshots::new(registry, appender.clone(), clock.clone(), &config.snapshots, Arc::default());
        let links = Links {
            snapshots,
            status: Arc::new(Status::new(config, log.clone(), Vec::new(), &clock)),
            configured: Arc::new(Configured::open(config, "bundle".into(), clock.clone()).unwrap()),
            rhythms: rhythms.clone(),
            hold: Arc::default(),
            log,
            appender,
            clock,
        };
        let bundles = Bundles::offered_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models"));
        let stop = Stop::default();
        stop.request();
        Inference { grace, ..Inference::new(config, bundles, links).unwrap() }.run(&stop).unwrap();
        committing.join().unwrap().unwrap();
        checkpoint::position_in(&config.buffer.dir).unwrap()
    }

    /// A machine that says nothing has no reading by which a shelving, or its time out of service, would end.
    #[test]
    fn who_writes_ticks_knows_when_a_silence_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        config.buffer.dir = dir.path().to_owned();
        let rhythms = Arc::new(Rhythms::new(&config.assets));
        let reading = samples::reading(1);
        let asset = config.assets.keys().next().unwrap().clone();
        let stamp = Stamp { asset: Some(asset.clone()), ..reading.stamp };
        let command = |word: &str, until: Option<Timestamp>| {
            let detail = until.map(|until| format!("{{\"until\":\"{until}\"}}").into());
            let event = Event { command: Some(word.into()), detail_json: detail, ..Event::new(EventKind::Command) };
            Entry { stamp: stamp.clone(), cause: None, body: Body::Event(event.into()) }
        };
        let until = |hours: i64| Timestamp(stamp.ts.0 + hours * 3_600_000_000);
        let wanted = |entries: &[Entry]| {
            start_with(&config, GRACE, entries, &rhythms);
            silence::lock(rhythms.of(&asset).unwrap()).wanted()
        };
        let configured = Event {
            what: Some("configuration".into()),
            hash_after: Some(config.assets[&asset].hash.clone()),
            detail_json: Some(crate::inference::configured::configuration(&config.assets[&asset])),
            ..Event::new(EventKind::Change)
        };
        let configured = Entry { stamp: stamp.clone(), cause: None, body: Body::Event(configured.into()) };
        assert_eq!(wanted(&[configured, command("out_of_service", Some(until(8)))]), Some(until(8)));
        assert_eq!(wanted(&[]), Some(until(8)), "after a restart too");
        assert_eq!(wanted(&[command("out_of_service", Some(until(2)))]), Some(until(2)));
        assert_eq!(wanted(&[command("return_to_service", None)]), None);
    }

    /// With a backlog of days, reading on to the end would outlast every supervisor's patience.
    #[test]
    fn a_stop_does_not_wait_for_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        config.buffer.dir = dir.path().to_owned();
        let readings: Vec<Entry> = (0..READINGS).map(samples::reading).collect();
        let stopped = start(&config, Duration::ZERO, &readings);
        assert!((1..READINGS).contains(&stopped.seq), "{stopped}");
        let further = start(&config, Duration::ZERO, &[]);
        assert!(stopped < further, "it goes on from there: {stopped}, {further}");
        assert_eq!(start(&config, GRACE, &[]), Position { ordinal: 1, seq: READINGS });
    }
}
