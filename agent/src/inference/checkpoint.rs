//! The checkpoint of inference: its state at a place of the inputs lane, in two generations, and what a start makes of it.
use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::{Bundles, Engine, InferenceError, configured::Configured, stage::StageError};
use crate::{
    buffer::{BufferError, Position, SmallFile},
    causes,
    config::Config,
};

/// Shortest time between checkpoints that nobody asked for: what a crash makes inference read again.
const SHORTEST: Duration = Duration::from_secs(10);
/// Flash that checkpoints may use: a large state, as during commissioning, is stored less often.
const BYTES_PER_SECOND: u64 = 1_000;
/// Most bytes of a checkpoint.
const MAX_BYTES: usize = 64 << 20;
/// Most bytes of rows that all machines together may collect for commissioning: a checkpoint holds them, beside all else.
pub const COLLECTED_MAX_BYTES: usize = 56 << 20;
/// What a store costs beyond its content: the file system writes whole blocks, an inode, a directory and its journal.
const BLOCK_BYTES: u64 = 4_096;
const STORE_OVERHEAD_BYTES: u64 = 2 * BLOCK_BYTES;

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    position: Position,
    engine: Vec<u8>,
}

/// When a checkpoint is due, and where the stored ones are.
pub(super) struct Checkpoints {
    file: SmallFile,
    /// As configured; otherwise the flash that they may use decides.
    fixed: Option<Duration>,
    every: Duration,
    /// When one was stored last, or tried.
    stored_at: Duration,
    /// Of the newer generation.
    newest: Option<Position>,
    /// What `Hold` was told.
    reported: Option<Position>,
    wanted: bool,
    problem_logged: bool,
}

impl Checkpoints {
    /// Those in the data directory, and where and how inference begins at `now`: with the newest one or, without it, with the first record of the log.
    ///
    /// # Errors
    /// If the directory cannot be read or the model bundle is unusable.
    pub(super) fn open(
        config: &Config,
        bundles: Bundles,
        configured: &Configured,
        start: Position,
        now: Duration,
    ) -> Result<(Self, Beginning), StageError> {
        let (file, content) = open(&config.buffer.dir)?;
        let beginning = begin(content.as_deref(), config, bundles, configured, start)?;
        // Until one is stored, a start would lose the state again and say so again.
        let wanted = beginning.lost;
        Ok((Self { wanted, ..Self::new(file, config.checkpoint_every, beginning.restored, now) }, beginning))
    }

    fn new(file: SmallFile, fixed: Option<Duration>, newest: Option<Position>, stored_at: Duration) -> Self {
        Self { file, fixed, every: fixed.unwrap_or(SHORTEST), stored_at, newest, reported: None, wanted: false, problem_logged: false }
    }

    /// One is due at once.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether one is due at `now`; one that was asked for is at once.
    pub(super) fn is_due(&mut self, wanted: bool, now: Duration) -> bool {
        self.wanted |= wanted;
        self.wanted || now.saturating_sub(self.stored_at) >= self.every
    }

    /// Begins a store at `now`: false if both generations hold `position` already. An idle gateway stores the same place twice and then no more.
    pub(super) fn begin(&mut self, position: Position, now: Duration) -> bool {
        self.stored_at = now;
        let stored = self.newest == Some(position) && self.reported == Some(position);
        self.wanted &= !stored;
        !stored
    }

    /// Stores the state at `position`, all of whose outputs are durable; gives the place up to which inputs may be given back.
    ///
    /// # Errors
    /// If the state cannot be encoded. A disk that does not take it is logged, and tried again when the next one is due.
    pub(super) fn store(&mut self, engine: &Engine, position: Position) -> Result<Option<Position>, BufferError> {
        let checkpoint = Checkpoint { position, engine: engine.snapshot() };
        Ok(self.store_bytes(&postcard::to_stdvec(&checkpoint).map_err(BufferError::Encode)?, position))
    }

    /// The place up to which inputs may be given back is where the older generation stands, which must be of use when the newer is damaged; where a
    /// checkpoint was wanted because space is needed, the newer has to do.
    fn store_bytes(&mut self, bytes: &[u8], position: Position) -> Option<Position> {
        let wanted = std::mem::take(&mut self.wanted);
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
    SHORTEST.max(Duration::from_secs(cost / BYTES_PER_SECOND))
}

/// The last input that the checkpoint in `dir` holds; `None` without a checkpoint that can be read.
pub fn position_in(dir: &Path) -> Option<Position> {
    let (_, content) = open(dir).ok()?;
    postcard::take_from_bytes(&content?).ok().map(|(position, _)| position)
}

/// Whether the disk gives the checkpoint, if there is one; what is damaged in it counts as given.
///
/// # Errors
/// [`BufferError`] with what the disk says.
pub fn readable_in(dir: &Path) -> Result<(), BufferError> {
    open(dir).map(drop)
}

fn open(dir: &Path) -> Result<(SmallFile, Option<Vec<u8>>), BufferError> {
    SmallFile::open_up_to(dir, "checkpoint", MAX_BYTES)
}

/// What a start begins with.
pub(super) struct Beginning {
    pub(super) engine: Engine,
    /// Where the checkpoint was taken.
    pub(super) restored: Option<Position>,
    /// There was a state before this start, and it is gone.
    pub(super) lost: bool,
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
mod tests {
    use super::*;
    use crate::clock::Clock;

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

    #[test]
    fn checkpoints_stay_within_their_share_of_flash() {
        for bytes in [100_u64, 4_096, 20_000, 1 << 20] {
            let written = bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES + STORE_OVERHEAD_BYTES;
            let rate = written as f64 / every(bytes).as_secs_f64();
            assert!(rate <= 1.1 * BYTES_PER_SECOND as f64, "{bytes}: {rate}");
        }
    }

    #[test]
    fn inputs_are_held_for_the_older_generation_unless_space_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = SmallFile::open(dir.path(), "checkpoint").unwrap();
        let mut checkpoints = Checkpoints::new(file, None, None, Duration::ZERO);
        let at = |seq| Position { ordinal: 1, seq };
        assert_eq!(checkpoints.store_bytes(b"1", at(1)), None);
        assert_eq!(checkpoints.store_bytes(b"2", at(2)), Some(at(1)));
        checkpoints.want();
        assert_eq!(checkpoints.store_bytes(b"3", at(3)), Some(at(3)));
        assert!(!checkpoints.is_due(false, Duration::from_secs(9)));
        assert!(checkpoints.is_due(true, Duration::from_secs(1)));
    }
}
