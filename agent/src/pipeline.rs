//! The whole agent on one screen: what is opened, what runs, and in which order it stops.
//!
//! ```text
//! sources ──► commit loop ──► log ──► inference ──► commit loop ──► log ──► forward ──► Kafka
//! ```
//! Sources wait in async tasks, everything behind them is ordinary code on its own thread. This is the only place that spawns.
#![expect(clippy::disallowed_methods, reason = "the pipeline is where stages are spawned")]
use std::{path::Path, sync::Arc, thread, time::Duration};

use hark_protocol::topics::{EventKind, LaneName};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    annunciate::{command, mqtt::Annunciator},
    backoff::Backoff,
    buffer::{
        BufferError, Log, LogSettings, Writer,
        commit::{self, Append, Appender, CommitPolicy},
        watch,
    },
    causes,
    clock::Clock,
    commands::EXIT_STORE_HUNG,
    config::{Config, SerialFormat},
    feedback::Feedback,
    forward::{self, Forward},
    hold::Hold,
    inference::{
        Bundles,
        assignment::assign,
        checkpoint,
        configured::Configured,
        stage::{Inference, Links, StageError},
        verification,
    },
    local::{self, Local},
    record::{Body, Entry, Stamp},
    source::{
        clock_watch,
        counters::SourceCounters,
        mqtt,
        registry::{Intake, Registry},
        serial::SerialSource,
        silence,
        snapshot::Snapshots,
    },
    status::{Status, http},
    stop::Stop,
};

/// Appends that wait for the commit loop; their bytes are bounded by the sources' windows, and one raw block.
const APPENDS: usize = 1_024;
/// Between two tries to open the buffer on a disk that refuses.
const DISK_RETRY_FIRST: Duration = Duration::from_secs(1);
const DISK_RETRY_MOST: Duration = Duration::from_secs(30);
/// Between two looks at what sources counted.
const LOG_CAUSES_EVERY: Duration = Duration::from_secs(1);

/// Why the agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log could not be opened or failed.
    #[error("the buffer failed")]
    Buffer(#[from] BufferError),
    /// Inference could not start or go on.
    #[error("inference failed")]
    Inference(#[from] StageError),
    /// The status pages could not be served.
    #[error("failed to serve the status pages on {listen}")]
    Http {
        /// Address that was asked for.
        listen: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gave no thread or no runtime.
    #[error("failed to start {what}")]
    Start {
        /// Name of the stage.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A stage panicked: our own mistake.
    #[error("stage {0} ended unexpectedly")]
    Panicked(&'static str),
}

/// Runs the agent until `stop`.
///
/// # Errors
/// [`RunError`]: why it could not start, or the first failure of a stage.
pub async fn run(mut config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let clock = Clock::new();
    let Some((log, writer)) = open_log(&config, &stop).await? else { return Ok(()) };
    let (bundles, configured) = open_models(&mut config, &clock)?;
    let (appender, requests) = commit::channel(APPENDS);
    let counters = source_counters(&config, &clock);
    let status = Arc::new(Status::new(&config, log.clone(), counters.clone(), &clock));
    let hold = Arc::new(Hold::new());
    info!(gateway = %config.gateway.id, incarnation = %log.incarnation().id, ordinal = log.incarnation().ordinal, dir = %config.buffer.dir.display(), "log open");
    if let Some(reasons) = status.plaintext_accepted() {
        warn!(%reasons, "plain text is accepted");
    }

    let listen = config.http.listen;
    let listener = http::bind(listen).await.map_err(|source| RunError::Http { listen, source })?;
    info!(address = %listener.local_addr().unwrap_or(listen), "status pages");
    let registry = Arc::new(Registry::keeping(&config.assets, config.gateway.origin, config.snapshots.memory_bytes));
    let (wanted, mut snapshots) = Snapshots::new(registry.clone(), appender.clone(), clock.clone(), &config.snapshots, status.snapshots().clone());
    let links = Links {
        log: log.clone(),
        appender: appender.clone(),
        hold: hold.clone(),
        status: status.clone(),
        clock: clock.clone(),
        rhythms: registry.rhythms(),
        configured: configured.clone(),
        snapshots: wanted,
    };
    let inference = Inference::new(&config, bundles, links)?;
    let forward = match config.kafka.clone() {
        Some(kafka) => Some(Forward::new(&config, kafka, log.clone(), appender.clone(), hold.clone(), status.clone(), clock.clone())?),
        None => None,
    };
    let allowance = snapshots.allowance();
    let feedback = |kafka| Feedback::open(&config, kafka, appender.clone(), status.feedback().clone(), allowance.clone(), clock.clone());
    let feedback = config.kafka.clone().map(feedback).transpose()?;

    let mut stages = Stages { threads: Vec::new(), failed: stop.clone() };
    let policy = CommitPolicy { max_delay: config.buffer.commit_max_delay, max_bytes: config.buffer.commit_bytes, ..CommitPolicy::default() };
    let settings = commit::Settings {
        policy,
        quota_bytes: config.buffer.quota_bytes,
        max_age: config.buffer.max_age,
        origin: config.gateway.origin,
        hold: hold.clone(),
        clock: clock.clone(),
        stop: stop.clone(),
    };
    let commit_log = log.clone();
    stages.spawn("commit", move || Ok(commit::run(writer, commit_log, requests, settings)?))?;
    let (watch, store_timeout) = (log.store_watch(), config.buffer.store_timeout);
    let watch_stop = stages.spawn_stoppable("watchdog", move |stop| {
        if watch::hung(&watch, store_timeout, stop) {
            error!(seconds = store_timeout.as_secs(), "a call of the store hangs; the process ends so that its supervisor starts it anew");
            std::process::exit(i32::from(EXIT_STORE_HUNG));
        }
        Ok(())
    })?;
    open_incarnation(&log, &appender, &config, &clock).await;
    // Before any reading comes, inference must know by which configuration to take it. A log that refuses has failed, and its thread says why.
    let _ = configured.record(&appender).await;
    let inference_stop = stages.spawn_stoppable("inference", move |stop| Ok(inference.run(stop)?))?;
    let forward_stop = match forward {
        Some(forward) => Some(stages.spawn_stoppable("forward", move |stop| {
            forward.run(stop);
            Ok(())
        })?),
        None => None,
    };

    let mut tasks = start_sources(&config, &registry, &counters, &log, &appender, &clock, &stop, &mut snapshots, &mut stages)?;
    tasks.spawn(snapshots.run(stop.clone()));
    annunciate(&mut tasks, &config, &status, &stop);
    if let Some(feedback) = feedback {
        tasks.spawn(feedback.run(stop.clone()));
    }
    let voices = local::Voices { log: log.clone(), appender, status: status.clone(), configured, allowance, clock };
    match Local::open(&config, voices) {
        Ok(local) => serve_local(&mut tasks, local, &stop),
        // Machines are listened to all the same.
        Err(problem) => error!(%problem, "the local socket cannot be opened: no commands, and no `hark buffer` while the agent runs"),
    }
    // Last of all: who reads that the agent is ready may give it a command in the same moment.
    let pages_stop = CancellationToken::new();
    let pages = tokio::spawn(http::serve(listener, status, config.gateway.id.clone(), pages_stop.clone()));

    // From here on: the order of stopping. Sources and the local socket first, then what follows from their last readings, then the rest of the way.
    let (mut first_failure, ()) = tokio::join!(join_tasks(&mut tasks, &stop), async {
        stop.cancelled().await;
        info!("stopping");
    });
    let join = move || {
        stages.join("decode", &mut first_failure);
        inference_stop.request();
        log.wake();
        stages.join("inference", &mut first_failure);
        if let Some(stop) = forward_stop {
            stop.request();
            log.wake();
        }
        stages.join("forward", &mut first_failure);
        // Where the log fails, all that append fail with it: its own words say why.
        let mut log_failure = None;
        stages.join("commit", &mut log_failure);
        watch_stop.request();
        stages.join("watchdog", &mut first_failure);
        log_failure.or(first_failure).map_or(Ok(()), Err)
    };
    let ended = tokio::task::spawn_blocking(join).await.unwrap_or(Err(RunError::Panicked("shutdown")));
    pages_stop.cancel();
    if tokio::time::timeout(Duration::from_secs(1), pages).await.is_err() {
        info!("a status page was still being read");
    }
    ended
}

/// Opens the log, on a disk that is full, broken or read-only as soon as that has changed. `None` if a stop was asked for meanwhile.
async fn open_log(config: &Config, stop: &CancellationToken) -> Result<Option<(Log, Writer)>, RunError> {
    let (dir, stopping, runtime) = (config.buffer.dir.clone(), stop.clone(), Handle::current());
    let mut backoff = Backoff::new(DISK_RETRY_FIRST, DISK_RETRY_MOST);
    let mut wait = move |error: &BufferError| {
        let wait = backoff.next_wait();
        error!(error = %causes::chain(error), dir = %dir.display(), again_in_s = wait.as_secs_f64().round(), "the buffer cannot be opened: make room, or repair the disk; nothing that was stored is lost, senders are held back");
        runtime.block_on(tokio::time::timeout(wait, stopping.cancelled())).is_err()
    };
    let (dir, quota_bytes) = (config.buffer.dir.clone(), config.buffer.quota_bytes);
    let open = move || {
        // What the stages begin with, too: what was learned of a machine is not given up for a disk that is away for a moment.
        let settings = loop {
            match checkpoint::readable_in(&dir).and_then(|()| log_settings(&dir, quota_bytes)) {
                Ok(settings) => break settings,
                Err(error) if error.is_of_disk() && wait(&error) => {}
                Err(error) => return Err(error),
            }
        };
        Log::open_at_last(&dir, settings, wait)
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(Err(error)) if error.is_of_disk() && stop.is_cancelled() => Ok(None),
        Ok(opened) => Ok(Some(opened?)),
        Err(_) => Err(RunError::Panicked("buffer")),
    }
}

/// What the log in `dir` is opened with: its quota in bytes, and how far its readers had come, so that a lost tail is missed.
///
/// # Errors
/// [`BufferError::Io`] if what they stored cannot be read.
pub fn log_settings(dir: &Path, quota_bytes: u64) -> Result<LogSettings, BufferError> {
    let mut reached = forward::stored_mark(dir)?.unwrap_or_default();
    let inputs = &mut reached[LaneName::Inputs as usize];
    *inputs = checkpoint::position_in(dir).unwrap_or_default().max(*inputs);
    Ok(LogSettings { reached, ..LogSettings::new(quota_bytes) })
}

fn source_counters(config: &Config, clock: &Clock) -> Vec<Arc<SourceCounters>> {
    let guarantee = |format: &SerialFormat| if matches!(format, SerialFormat::Node { .. }) { "replay" } else { "none" };
    let mqtt = config.mqtt.iter().map(|mqtt| (mqtt.name.clone(), "mqtt", "redelivery"));
    let serial = config.serial.iter().map(|serial| (serial.name.clone(), "serial", guarantee(&serial.format)));
    mqtt.chain(serial).map(|(name, kind, guarantee)| Arc::new(SourceCounters::new(name, kind, guarantee, clock.clone()))).collect()
}

/// The model bundles, with copies of those in use in the data directory, and what the log was told of them and of the configuration. Each machine gets its
/// forecasting bundle.
fn open_models(config: &mut Config, clock: &Clock) -> Result<(Bundles, Arc<Configured>), RunError> {
    let bundles = Bundles::with_copies_in(&config.models, &config.buffer.dir);
    let offered = bundles.offered().map_err(StageError::from)?;
    let accepted = Configured::accepted(config)?;
    let assigned = assign(&mut config.assets, &bundles, &accepted, verification::in_child);
    for (asset, reason) in &assigned.refused {
        error!(%asset, reason, "the forecasting bundle that is offered is refused");
    }
    let configured = Configured::open(config, offered.hash().into(), clock.clone())?;
    let kept = configured.bundles();
    if let Err(problem) = bundles.keep(&offered, &assigned.bundles, &kept.iter().map(|hash| &**hash).collect::<Vec<_>>()) {
        warn!(%problem, "the model bundle cannot be copied into the data directory; what waits in the buffer is scored with the one offered");
    }
    Ok((bundles, Arc::new(configured)))
}

#[expect(clippy::too_many_arguments, reason = "what a source needs of the rest, once")]
fn start_sources(
    config: &Config,
    registry: &Arc<Registry>,
    counters: &[Arc<SourceCounters>],
    log: &Log,
    appender: &Appender,
    clock: &Clock,
    stop: &CancellationToken,
    snapshots: &mut Snapshots,
    stages: &mut Stages,
) -> Result<JoinSet<()>, RunError> {
    let marks = log.source_marks();
    let mut each = counters.iter().cloned();
    let mut next_counters = || each.next().expect("one set of counters per source");
    let mut tasks = JoinSet::new();
    let origin = config.gateway.origin;
    tasks.spawn(log_causes(counters.to_vec(), stop.clone()));
    tasks.spawn(silence::run(registry.rhythms(), appender.clone(), clock.clone(), origin, stop.clone()));
    tasks.spawn(clock_watch::run(appender.clone(), clock.clone(), origin, stop.clone()));
    for broker in &config.mqtt {
        let intake = Intake::new(registry.clone());
        let (window, stored) = (config.buffer.in_flight_bytes, marks.messages(&broker.name));
        let (poll, decode) = mqtt::open(broker, intake, appender.clone(), clock.clone(), window, &stored, next_counters());
        tasks.spawn(poll.run(stop.clone()));
        stages.spawn("decode", move || {
            decode.run();
            Ok(())
        })?;
    }
    for port in &config.serial {
        let intake = Intake::new(registry.clone());
        let (appender, clock, stored) = (appender.clone(), clock.clone(), marks.clone());
        let raw_blocks = snapshots.line(port.nodes());
        let source = SerialSource { config: port.clone(), intake, appender, clock, stored, raw_blocks, counters: next_counters() };
        tasks.spawn(source.run(stop.clone()));
    }
    Ok(tasks)
}

/// One task per connection that is served at a time.
fn serve_local(tasks: &mut JoinSet<()>, local: Local, stop: &CancellationToken) {
    let local = Arc::new(local);
    for _ in 0..local::CONNECTIONS {
        tasks.spawn(local.clone().serve(stop.clone()));
    }
}

/// Alarms are told where the plant can hear them, without Kafka.
fn annunciate(tasks: &mut JoinSet<()>, config: &Config, status: &Arc<Status>, stop: &CancellationToken) {
    let Some(annunciation) = &config.annunciation else { return };
    let gateway = &config.gateway.id;
    if let Some((broker, topic)) = &annunciation.mqtt
        && let Some(broker) = config.mqtt.iter().find(|known| known.name == *broker)
    {
        tasks.spawn(Annunciator::new(broker, topic, gateway, status.clone()).run(stop.clone()));
    }
    if let Some(command) = &annunciation.command {
        tasks.spawn(command::run(command.clone(), gateway.clone(), status.clone(), stop.clone()));
    }
}

/// Waits for all tasks, which end when `stop` is cancelled. One that panics cancels it, and is the failure.
async fn join_tasks(tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Option<RunError> {
    let mut failure = None;
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            error!(stage = "source", "stage failed");
            failure.get_or_insert(RunError::Panicked("source"));
            stop.cancel();
        }
    }
    failure
}

/// Tells of what sources met, until `stop`, and then once more.
async fn log_causes(counters: Vec<Arc<SourceCounters>>, stop: CancellationToken) {
    while tokio::time::timeout(LOG_CAUSES_EVERY, stop.cancelled()).await.is_err() {
        counters.iter().for_each(|counters| counters.log_causes());
    }
    counters.iter().for_each(|counters| counters.log_causes());
}

/// The first record of an incarnation names the one before it and where each of its lanes ended.
async fn open_incarnation(log: &Log, appender: &Appender, config: &Config, clock: &Clock) {
    let now = clock.now();
    let mut event = hark_protocol::topics::Event::new(EventKind::IncarnationOpened);
    event.text = Some(format!("Hark {} started", env!("CARGO_PKG_VERSION")).into());
    event.boot = Some(now.boot.clone());
    if let Some(ended) = log.predecessor() {
        event.predecessor = Some(ended.incarnation.id.to_string().into());
        let last: serde_json::Map<_, _> = LaneName::ALL.iter().map(|&lane| (lane.to_string(), ended.last_seq(lane).into())).collect();
        event.last_seq_json = Some(serde_json::Value::Object(last).to_string().into());
    }
    let stamp =
        Stamp { asset: None, ts: now.ts, ts_source: hark_protocol::topics::TsSource::Gateway, clock: now.state, origin: config.gateway.origin };
    let entry = Entry { stamp, cause: None, body: Body::Event(event.into()) };
    // A log that refuses it has failed already, and its thread says why.
    let _ = appender.append(Append { lane: LaneName::Events, entries: vec![entry], marks: Vec::new(), urgent: false, done: None }).await;
}

/// The stages that run on threads. The first one that fails stops all; the first failure is the one that counts.
struct Stages {
    threads: Vec<(&'static str, thread::JoinHandle<Result<(), RunError>>)>,
    failed: CancellationToken,
}

impl Stages {
    fn spawn(&mut self, name: &'static str, stage: impl FnOnce() -> Result<(), RunError> + Send + 'static) -> Result<(), RunError> {
        let failed = self.failed.clone();
        let guarded = move || {
            // Dropped also when the stage panics: then nobody shall wait for it.
            let guard = failed.drop_guard();
            let ended = stage();
            if ended.is_ok() {
                guard.disarm();
            }
            ended
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(guarded).map_err(|source| RunError::Start { what: name, source })?;
        self.threads.push((name, thread));
        Ok(())
    }

    fn spawn_stoppable(
        &mut self,
        name: &'static str,
        stage: impl FnOnce(&Stop) -> Result<(), RunError> + Send + 'static,
    ) -> Result<Arc<Stop>, RunError> {
        let stop = Arc::new(Stop::default());
        let given = stop.clone();
        self.spawn(name, move || stage(&given))?;
        Ok(stop)
    }

    /// Waits for all stages called `name`.
    fn join(&mut self, name: &'static str, first_failure: &mut Option<RunError>) {
        let (wanted, rest) = std::mem::take(&mut self.threads).into_iter().partition(|(thread, _)| *thread == name);
        self.threads = rest;
        let wanted: Vec<(&'static str, thread::JoinHandle<Result<(), RunError>>)> = wanted;
        for (name, thread) in wanted {
            if let Err(failure) = thread.join().unwrap_or(Err(RunError::Panicked(name))) {
                error!(stage = name, "stage failed");
                first_failure.get_or_insert(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_that_panics_stops_the_others_and_is_the_failure() {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.cancelled().await });
        tasks.spawn(async { panic!("as a mistake of ours would") });
        let joined = tokio::time::timeout(Duration::from_secs(30), join_tasks(&mut tasks, &stop)).await;
        assert!(matches!(joined, Ok(Some(RunError::Panicked("source")))), "{joined:?}");
        assert!(stop.is_cancelled());
    }
}
