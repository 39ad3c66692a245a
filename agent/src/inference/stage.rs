//! The inference stage, one thread: read the inputs lane in order, let the engine decide, append what follows.
//!
//! The engine is a function of the log alone. Its state is stored as a checkpoint now and then; after a start it goes on from there and leaves out
//! what the log already holds, by the cause that each output carries.
use std::{path::Path, sync::Arc, time::Duration};

use hark_protocol::topics::LaneName;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{Engine, InferenceError};
use crate::{
    buffer::{
        BufferError, Log, Position, Reader, SmallFile,
        commit::{Append, AppendError, Appender},
    },
    clock::Clock,
    config::Config,
    hold::Hold,
    record::{Cause, Entry},
    status::{InferenceNumbers, Status},
    stop::Stop,
};

/// Lanes that inference writes to.
const OUTPUTS: [LaneName; 3] = [LaneName::Events, LaneName::Alarms, LaneName::Predictions];
const BATCH_RECORDS: usize = 2_048;
const BATCH_BYTES: usize = 1 << 20;
/// Shortest time between checkpoints: what a crash makes inference read again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// Flash that checkpoints may use: a large state, as during commissioning, is stored less often.
const CHECKPOINT_BYTES_PER_SECOND: usize = 4_000;
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

/// The stage.
pub struct Inference {
    engine: Engine,
    log: Log,
    reader: Reader,
    appender: Appender,
    hold: Arc<Hold>,
    status: Arc<Status>,
    clock: Clock,
    checkpoint: SmallFile,
    processed: Position,
    stored: Position,
    stored_at: Duration,
    checkpoint_every: Duration,
    /// The last output of each lane that the log held at the start.
    emitted: [Option<Cause>; OUTPUTS.len()],
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    position: Position,
    engine: Vec<u8>,
}

impl Inference {
    /// Loads the bundle and the last checkpoint.
    ///
    /// # Errors
    /// [`StageError`] if the bundle is unusable or the log cannot be read.
    pub fn new(config: &Config, log: Log, appender: Appender, hold: Arc<Hold>, status: Arc<Status>, clock: Clock) -> Result<Self, StageError> {
        let dir: &Path = &config.buffer.dir;
        let (checkpoint, content) = SmallFile::open(dir, "checkpoint")?;
        let (engine, processed) = match content.as_deref().map(|bytes| restored(config, bytes)) {
            Some(Ok((engine, position))) => {
                info!(%position, "inference goes on from its checkpoint");
                (engine, position)
            }
            Some(Err(problem)) => {
                warn!(problem, "checkpoint cannot be used, inference begins with what is in the buffer");
                (Engine::new(&config.assets, &config.models)?, log.start(LaneName::Inputs))
            }
            None => (Engine::new(&config.assets, &config.models)?, log.start(LaneName::Inputs)),
        };
        let mut emitted = [None; OUTPUTS.len()];
        for (lane, emitted) in OUTPUTS.iter().zip(&mut emitted) {
            *emitted = last_cause(&log, *lane)?;
        }
        hold.checkpoint_stored(processed);
        let reader = log.reader(LaneName::Inputs)?;
        let stored_at = clock.monotonic();
        Ok(Self {
            engine,
            log,
            reader,
            appender,
            hold,
            status,
            clock,
            checkpoint,
            processed,
            stored: processed,
            stored_at,
            checkpoint_every: CHECKPOINT_EVERY,
            emitted,
        })
    }

    /// Runs until `stop`, and then until the lane is read to its end.
    ///
    /// # Errors
    /// [`StageError`] if the log fails.
    pub fn run(mut self, stop: &Stop) -> Result<(), StageError> {
        self.publish();
        loop {
            let records = self.reader.read(self.processed, BATCH_RECORDS, BATCH_BYTES)?;
            if records.is_empty() {
                if stop.requested() {
                    return self.store();
                }
                self.log.wait(LaneName::Inputs, self.processed, IDLE);
            } else {
                self.process(&records)?;
                self.publish();
            }
            if self.clock.monotonic().saturating_sub(self.stored_at) >= self.checkpoint_every {
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
                incarnation = (position.ordinal, self.log.incarnation_id(position.ordinal).unwrap_or_default().to_string());
            }
            self.engine.process(*position, &incarnation.1, entry, &mut produced);
            self.processed = *position;
            for (lane, entry) in produced.drain(..) {
                let index = OUTPUTS.iter().position(|output| *output == lane).unwrap_or_default();
                if entry.cause > self.emitted[index] {
                    outputs[index].push(entry);
                }
            }
        }
        for (lane, entries) in OUTPUTS.into_iter().zip(outputs) {
            if !entries.is_empty() {
                self.appender.blocking_append(Append { lane, entries, marks: Vec::new(), urgent: lane == LaneName::Alarms, done: None })?;
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        self.status.set_baselines(self.engine.baselines().map(|(asset, baseline)| (asset.clone(), baseline.clone())).collect());
        for (id, asset) in self.engine.asset_records(self.clock.now().ts) {
            self.status.set_asset(id, asset);
        }
        self.status.set_inference(InferenceNumbers { counters: self.engine.counters().named().to_vec() });
    }

    /// Stores a checkpoint. What follows from the inputs before it must be durable first, or a crash would lose it.
    fn store(&mut self) -> Result<(), StageError> {
        self.stored_at = self.clock.monotonic();
        if self.processed == self.stored {
            return Ok(());
        }
        self.appender.blocking_append_durably(LaneName::Predictions, Vec::new(), true)?;
        let checkpoint = Checkpoint { position: self.processed, engine: self.engine.snapshot() };
        let bytes = postcard::to_stdvec(&checkpoint).map_err(BufferError::Encode)?;
        self.checkpoint.store(&bytes)?;
        self.checkpoint_every = CHECKPOINT_EVERY.max(Duration::from_secs((bytes.len() / CHECKPOINT_BYTES_PER_SECOND) as u64));
        self.stored = self.processed;
        self.hold.checkpoint_stored(self.processed);
        Ok(())
    }
}

/// The last input that the checkpoint in `dir` holds; `None` without a checkpoint that can be read.
pub fn checkpoint_position(dir: &Path) -> Option<Position> {
    let (_, content) = SmallFile::open(dir, "checkpoint").ok()?;
    postcard::take_from_bytes(&content?).ok().map(|(position, _)| position)
}

fn restored(config: &Config, bytes: &[u8]) -> Result<(Engine, Position), String> {
    let Checkpoint { position, engine } = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
    let engine = Engine::restore(&config.assets, &config.models, &engine).map_err(|error| error.to_string())?;
    Ok((engine, position))
}

/// The cause of the newest output in `lane`, by looking back from its end.
fn last_cause(log: &Log, lane: LaneName) -> Result<Option<Cause>, BufferError> {
    let Some(ended) = log.predecessor() else { return Ok(None) };
    let last = ended.last_seq(lane);
    let mut reader = log.reader(lane)?;
    // Events of other origin stand among those of inference; a few hundred records back is more than a start or a lost link adds.
    let from = Position { ordinal: ended.incarnation.ordinal, seq: last.saturating_sub(512) }.max(log.start(lane));
    let mut newest = None;
    let mut at = from;
    loop {
        let records = reader.read(at, BATCH_RECORDS, BATCH_BYTES)?;
        let Some((position, _)) = records.last() else { return Ok(newest) };
        at = *position;
        newest = records.iter().filter_map(|(_, entry)| entry.cause).next_back().max(newest);
    }
}
