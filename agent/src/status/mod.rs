//! What the agent can say of itself at any moment: the ground for the heartbeat, `/metrics` and the status page.
//!
//! Stages write here what changed; none of them waits here.
mod forwarded;
mod heartbeat;
pub mod http;
mod metrics;
mod page;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{self, Name};
use tokio::sync::watch;

use self::forwarded::Forwarded;
pub use self::forwarded::{Conservation, ForwardNumbers, Link};
use crate::{
    buffer::{BufferCounters, Log},
    clock::Clock,
    config, feedback,
    inference::AlarmFlood,
    source::{counters::SourceCounters, snapshot::SnapshotCounters},
};

/// Counters of inference, copied from the engine after each batch.
#[derive(Clone, Debug, Default)]
pub struct InferenceNumbers {
    /// By name, for `/metrics`.
    pub counters: Vec<(&'static str, u64)>,
}

/// What became of a command: done, with what there is to say of it, or why not.
pub type Outcome = Result<Option<Name>, Name>;

/// Outcomes that are remembered: who asked waits for some seconds.
const OUTCOMES_MAX: usize = 256;

/// Everything that can be asked.
pub struct Status {
    log: Log,
    buffer: Arc<BufferCounters>,
    quota_bytes: u64,
    plaintext_accepted: Option<Name>,
    clock: Clock,
    started: Duration,
    sources: Vec<Arc<SourceCounters>>,
    link: AtomicU8,
    delivery: config::Delivery,
    forwarded: Mutex<Forwarded>,
    assets: Mutex<BTreeMap<Name, topics::Asset>>,
    alarms: Mutex<Vec<(Name, topics::Alarm)>>,
    alarm_flood: Mutex<Option<AlarmFlood>>,
    alarm_changes: watch::Sender<u64>,
    outcomes: watch::Sender<VecDeque<(Name, Outcome)>>,
    baselines: Mutex<Vec<(Name, Arc<topics::Baseline>)>>,
    inference: Mutex<InferenceNumbers>,
    snapshots: Arc<SnapshotCounters>,
    feedback: Arc<feedback::Counters>,
}

impl Status {
    /// A status of an agent that has just opened its log.
    pub fn new(config: &config::Config, log: Log, sources: Vec<Arc<SourceCounters>>, clock: &Clock) -> Self {
        let link = if config.kafka.is_some() { Link::Reconnecting } else { Link::NotConfigured };
        let forwarded = Forwarded::of(&log);
        Self {
            buffer: log.counters(),
            log,
            quota_bytes: config.buffer.quota_bytes,
            plaintext_accepted: plaintext_accepted(config),
            clock: clock.clone(),
            started: clock.monotonic(),
            sources,
            link: AtomicU8::new(link as u8),
            delivery: config.kafka.as_ref().map(|kafka| kafka.delivery).unwrap_or_default(),
            forwarded: Mutex::new(forwarded),
            assets: Mutex::default(),
            alarms: Mutex::default(),
            alarm_flood: Mutex::default(),
            alarm_changes: watch::Sender::default(),
            outcomes: watch::Sender::default(),
            baselines: Mutex::default(),
            inference: Mutex::default(),
            snapshots: Arc::default(),
            feedback: Arc::default(),
        }
    }

    /// Why plain text may leave this box, by destination.
    pub fn plaintext_accepted(&self) -> Option<&Name> {
        self.plaintext_accepted.as_ref()
    }

    /// Where commands from Kafka are counted.
    pub fn feedback(&self) -> &Arc<feedback::Counters> {
        &self.feedback
    }

    /// The disk does not take what is appended at the moment.
    pub fn is_stalled(&self) -> bool {
        self.buffer.stalled.load(Ordering::Relaxed)
    }

    /// The present state of all assets.
    pub fn set_assets(&self, assets: Vec<(Name, topics::Asset)>) {
        let assets: BTreeMap<Name, topics::Asset> = assets.into_iter().collect();
        let mut known = lock(&self.assets);
        let states = |assets: &BTreeMap<Name, topics::Asset>| assets.iter().map(|(id, asset)| (id.clone(), asset.alarm_state)).collect::<Vec<_>>();
        let changed = states(&known) != states(&assets);
        *known = assets;
        drop(known);
        if changed {
            self.tell_of_alarms();
        }
    }

    /// All assets.
    pub fn assets(&self) -> Vec<(Name, topics::Asset)> {
        lock(&self.assets).iter().map(|(id, asset)| (id.clone(), asset.clone())).collect()
    }

    /// The alarms that are shown, by asset, the most urgent first.
    pub fn set_alarms(&self, alarms: Vec<(Name, topics::Alarm)>) {
        let mut known = lock(&self.alarms);
        let changed = *known != alarms;
        *known = alarms;
        drop(known);
        if changed {
            self.tell_of_alarms();
        }
    }

    /// Whether there are more new alarms than a person can deal with.
    pub fn set_alarm_flood(&self, flood: Option<AlarmFlood>) {
        let before = std::mem::replace(&mut *lock(&self.alarm_flood), flood.clone());
        if before.is_some() != flood.is_some() {
            self.tell_of_alarms();
        }
    }

    /// The present flood of alarms.
    pub fn alarm_flood(&self) -> Option<AlarmFlood> {
        lock(&self.alarm_flood).clone()
    }

    /// Says to who listens that alarms may have changed.
    fn tell_of_alarms(&self) {
        self.alarm_changes.send_modify(|changes| *changes += 1);
    }

    /// Counts what may have changed in [`Self::alarms`], in [`Self::alarm_flood`], or in the states of [`Self::assets`].
    pub fn alarm_changes(&self) -> watch::Receiver<u64> {
        self.alarm_changes.subscribe()
    }

    /// The same, as they are now.
    pub fn alarms(&self) -> Vec<(Name, topics::Alarm)> {
        lock(&self.alarms).clone()
    }

    /// What inference did with commands, by their ids.
    pub fn add_outcomes(&self, outcomes: impl IntoIterator<Item = (Name, Outcome)>) {
        let mut outcomes = outcomes.into_iter().peekable();
        if outcomes.peek().is_some() {
            self.outcomes.send_modify(|known| {
                known.extend(outcomes);
                let superfluous = known.len().saturating_sub(OUTCOMES_MAX);
                known.drain(..superfluous);
            });
        }
    }

    /// What inference does with the command with this id, once it has come to it.
    pub async fn outcome(&self, command_id: &str) -> Outcome {
        let of = |known: &VecDeque<(Name, Outcome)>| known.iter().rev().find(|(id, _)| **id == *command_id).map(|(_, outcome)| outcome.clone());
        let mut told = self.outcomes.subscribe();
        let known = told.wait_for(|known| of(known).is_some()).await;
        // It cannot be closed while this is borrowed.
        known.ok().and_then(|known| of(&known)).unwrap_or_else(|| Err("the agent is stopping".into()))
    }

    /// The baselines that predictions name, by asset.
    pub fn set_baselines(&self, baselines: Vec<(Name, Arc<topics::Baseline>)>) {
        *lock(&self.baselines) = baselines;
    }

    /// The baselines that predictions name, by asset.
    pub fn baselines(&self) -> Vec<(Name, Arc<topics::Baseline>)> {
        lock(&self.baselines).clone()
    }

    /// What inference has done.
    pub fn set_inference(&self, numbers: InferenceNumbers) {
        *lock(&self.inference) = numbers;
    }

    /// What became of raw blocks that were wanted.
    pub fn snapshots(&self) -> &Arc<SnapshotCounters> {
        &self.snapshots
    }
}

/// Why plain text leaves this box, by destination; `None` where nothing says that it may.
fn plaintext_accepted(config: &config::Config) -> Option<Name> {
    let kafka = config.kafka.iter().map(|kafka| ("kafka", &kafka.plaintext_accepted));
    let mqtt = config.mqtt.iter().map(|mqtt| (&*mqtt.name, &mqtt.plaintext_accepted));
    let reasons: Vec<String> = kafka.chain(mqtt).filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_deref()?))).collect();
    (!reasons.is_empty()).then(|| reasons.join("; ").into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
