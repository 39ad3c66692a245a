//! The inference stage, one thread: read the inputs lane in order, let the engine decide, append what follows.
//!
//! The engine is a function of the log alone. Its state is stored as a checkpoint now and then; after a start it goes on from there and leaves out
//! what the log already holds, by the cause that each output carries.
use std::{path::Path, sync::Arc, time::Duration};

use hark_protocol::topics::{Event, EventKind, LaneName, Name, Origin};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::{Bundles, Engine, InferenceError, configured::Configured};
use crate::{
    buffer::{
        BufferError, FollowError, Followed, Follower, Gap, Log, Position, SmallFile,
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
    },
    status::{InferenceNumbers, Status},
    stop::Stop,
};

/// Lanes that inference writes to.
const OUTPUTS: [LaneName; 3] = [LaneName::Events, LaneName::Alarms, LaneName::Predictions];
const BATCH_RECORDS: usize = 2_048;
const BATCH_BYTES: usize = 1 << 20;
/// Shortest time between checkpoints that nobody asked for: what a crash makes inference read again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// Flash that checkpoints may use: a large state, as during commissioning, is stored less often.
const CHECKPOINT_BYTES_PER_SECOND: u64 = 1_000;
/// Most bytes of a checkpoint.
const CHECKPOINT_MAX_BYTES: usize = 64 << 20;
/// Most bytes of rows that all machines together may collect for commissioning: a checkpoint holds them, beside all else.
pub const COLLECTED_MAX_BYTES: usize = 56 << 20;
/// What a store costs beyond its content: the file system writes whole blocks, an inode, a directory and its journal.
const BLOCK_BYTES: u64 = 4_096;
const STORE_OVERHEAD_BYTES: u64 = 2 * BLOCK_BYTES;
const IDLE: Duration = Duration::from_millis(200);

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
}

/// The stage.
pub struct Inference {
    engine: Engine,
    links: Links,
    follower: Follower,
    emitted: Emitted,
    origin: Origin,
    processed: Position,
    checkpoint: Checkpoints,
    /// There was a state before this start, and it is gone.
    lost: bool,
    /// The log was read to where it ended at the start.
    caught_up: bool,
    read_problem_logged: bool,
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

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    position: Position,
    engine: Vec<u8>,
}

/// When a checkpoint is due, and where the stored ones are.
struct Checkpoints {
    file: SmallFile,
    /// As configured; otherwise the flash that they may use decides.
    fixed: Option<Duration>,
    every: Duration,
    stored_at: Duration,
    /// Of the newer generation.
    newest: Option<Position>,
    /// What `Hold` was told.
    reported: Option<Position>,
    wanted: bool,
    problem_logged: bool,
}

impl Inference {
    /// Goes on from the last checkpoint; without one, from the first record of the log.
    ///
    /// # Errors
    /// [`StageError`] if the bundle is unusable or the log cannot be read.
    pub fn new(config: &Config, bundles: Bundles, links: Links) -> Result<Self, StageError> {
        let (file, content) = open_checkpoint(&config.buffer.dir)?;
        let start = links.log.start(LaneName::Inputs);
        let Beginning { mut engine, restored, lost } = begin(content.as_deref(), config, bundles, &links.configured, start)?;
        engine.check(&config.assets)?;
        let processed = restored.unwrap_or(start);
        let emitted = Emitted(OUTPUTS.map(|lane| links.log.last_cause(lane)));
        let checkpoint = Checkpoints {
            file,
            fixed: config.checkpoint_every,
            every: config.checkpoint_every.unwrap_or(CHECKPOINT_EVERY),
            stored_at: links.clock.monotonic(),
            newest: restored,
            reported: None,
            // Until one is stored, a start would lose the state again and say so again.
            wanted: lost,
            problem_logged: false,
        };
        let follower = Follower::new(&links.log, LaneName::Inputs, links.appender.clone())?;
        let origin = config.gateway.origin;
        Ok(Self { engine, links, follower, emitted, origin, processed, checkpoint, lost, caught_up: false, read_problem_logged: false })
    }

    /// Runs until `stop`, and then until the lane is read to its end.
    ///
    /// # Errors
    /// [`StageError`] if the log is closed.
    pub fn run(mut self, stop: &Stop) -> Result<(), StageError> {
        self.publish();
        if self.lost {
            self.tell_of_loss()?;
        }
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
            if self.checkpoint.is_due(self.links.hold.take_checkpoint_wanted(), self.links.clock.monotonic()) {
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
                self.links.appender.blocking_append(Append { lane, entries, marks: Vec::new(), urgent: lane == LaneName::Alarms, done: None })?;
            }
        }
        if records.iter().any(|(_, entry)| is_change(entry)) {
            // Behind a change the state is another one: a start must not have to find the way through it again.
            self.checkpoint.wanted = true;
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
        let status = &self.links.status;
        status.set_baselines(self.engine.baselines().map(|(asset, baseline)| (asset.clone(), baseline.clone())).collect());
        status.set_assets(self.engine.asset_records(self.links.clock.now().ts));
        status.set_inference(InferenceNumbers { counters: self.engine.counters().named().to_vec() });
    }

    /// Stores a checkpoint. What follows from the inputs before it must be durable first, or a crash would lose it.
    fn store(&mut self) -> Result<(), StageError> {
        self.checkpoint.stored_at = self.links.clock.monotonic();
        let wanted = std::mem::take(&mut self.checkpoint.wanted);
        // An idle gateway stores the same place twice, once per generation, and then no more.
        if self.checkpoint.newest == Some(self.processed) && self.checkpoint.reported == Some(self.processed) {
            return Ok(());
        }
        self.links.appender.blocking_append_durably(LaneName::Predictions, Vec::new(), true)?;
        let checkpoint = Checkpoint { position: self.processed, engine: self.engine.snapshot() };
        let bytes = postcard::to_stdvec(&checkpoint).map_err(BufferError::Encode)?;
        if let Some(place) = self.checkpoint.store(&bytes, self.processed, wanted) {
            self.links.hold.checkpoint_stored(place);
        }
        Ok(())
    }
}

impl Checkpoints {
    /// Whether one is due at `now`; one that was asked for is at once.
    fn is_due(&mut self, wanted: bool, now: Duration) -> bool {
        self.wanted |= wanted;
        self.wanted || now.saturating_sub(self.stored_at) >= self.every
    }

    /// Stores the state at `position`; gives the place up to which inputs may be given back. That is where the older generation stands, which must be
    /// of use when the newer is damaged; where space is needed at once, the newer has to do.
    fn store(&mut self, bytes: &[u8], position: Position, wanted: bool) -> Option<Position> {
        self.every = self.fixed.unwrap_or_else(|| every(bytes.len() as u64));
        if let Err(problem) = self.file.store(bytes) {
            // Nothing is lost: a start reads on from the one before.
            if !std::mem::replace(&mut self.problem_logged, true) {
                error!(error = %causes::chain(&problem), bytes = bytes.len(), "a checkpoint cannot be stored, trying again");
            }
            return None;
        }
        self.problem_logged = false;
        let older = self.newest.replace(position);
        self.reported = if wanted { Some(position) } else { older };
        self.reported
    }
}

/// How often a checkpoint of `bytes` may be stored.
fn every(bytes: u64) -> Duration {
    let cost = bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES + STORE_OVERHEAD_BYTES;
    CHECKPOINT_EVERY.max(Duration::from_secs(cost / CHECKPOINT_BYTES_PER_SECOND))
}

fn is_change(entry: &Entry) -> bool {
    matches!(&entry.body, Body::Event(event) if event.kind == EventKind::Change)
}

/// The last input that the checkpoint in `dir` holds; `None` without a checkpoint that can be read.
pub fn checkpoint_position(dir: &Path) -> Option<Position> {
    let (_, content) = open_checkpoint(dir).ok()?;
    postcard::take_from_bytes(&content?).ok().map(|(position, _)| position)
}

fn open_checkpoint(dir: &Path) -> Result<(SmallFile, Option<Vec<u8>>), BufferError> {
    SmallFile::open_up_to(dir, "checkpoint", CHECKPOINT_MAX_BYTES)
}

/// What a start begins with.
struct Beginning {
    engine: Engine,
    /// Where the checkpoint was taken.
    restored: Option<Position>,
    lost: bool,
}

/// Goes on from the checkpoint's `content`, or begins before the log's first record, `start`. Where records before it told of the configuration, they
/// are not read again, and without a state it is not known any more; what is configured now comes nearest.
fn begin(content: Option<&[u8]>, config: &Config, bundles: Bundles, configured: &Configured, start: Position) -> Result<Beginning, InferenceError> {
    match content.map(|bytes| restore(&bundles, bytes)) {
        Some(Ok((engine, position))) => {
            info!(%position, "inference goes on from its checkpoint");
            return Ok(Beginning { engine, restored: Some(position), lost: false });
        }
        Some(Err(problem)) => error!(problem, "the checkpoint cannot be used, inference begins with what is in the buffer"),
        None if configured.told_before(start) => error!("the checkpoint is gone, inference begins with what is in the buffer"),
        None => return Ok(Beginning { engine: Engine::empty(bundles)?, restored: None, lost: false }),
    }
    Ok(Beginning { engine: Engine::with_assets(&config.assets, bundles)?, restored: None, lost: true })
}

fn restore(bundles: &Bundles, bytes: &[u8]) -> Result<(Engine, Position), String> {
    let Checkpoint { position, engine } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
    let engine = Engine::restore(bundles.clone(), &engine).map_err(|error| error.to_string())?;
    Ok((engine, position))
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings of a machine that nobody told it of would be counted as unknown, for ever.
    #[test]
    fn without_its_checkpoint_inference_knows_the_machines() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut config = crate::config::load(&repository.join("config")).unwrap();
        config.buffer.dir = dir.path().to_owned();
        let bundles = Bundles::offered_in(&repository.join("models"));
        let configured = Configured::open(&config, "bundle".into(), Clock::new()).unwrap();
        let at = |seq| Position { ordinal: 1, seq };
        let known = |content: Option<&[u8]>, start| {
            let Beginning { engine, restored, lost } = begin(content, &config, bundles.clone(), &configured, start).unwrap();
            (engine.configurations().count(), restored, lost)
        };
        assert_eq!(known(None, at(0)), (0, None, false), "a new box: all stands in the log");
        configured.changed("pump-1".into(), "hash".into(), at(5));
        assert_eq!(known(None, at(4)), (0, None, false), "killed before its first checkpoint");
        assert_eq!(known(None, at(5)), (2, None, true));
        assert_eq!(known(Some(b"junk"), at(5)), (2, None, true));
        let checkpoint = Checkpoint { position: at(7), engine: Engine::empty(bundles.clone()).unwrap().snapshot() };
        assert_eq!(known(Some(&postcard::to_stdvec(&checkpoint).unwrap()), at(5)), (0, Some(at(7)), false));
    }
}
