//! Commands of people that come over Kafka: `hark.feedback.v1`, read beside the agent and stored like those of the local socket.
//!
//! ```text
//! Kafka ─► reader (a process of its own) ─lines─► decision ─► commit loop ─► inputs lane ─► inference, which applies each id once
//! ```
//! The consumer of librdkafka 2.12.1 may crash while a broker restarts (its issue 5280), so it runs in a child process ([`reader`]), which is started
//! again whenever it ends and ends when the agent does. What a record asks for is decided here (`decision`, pure).
//!
//! How far the topic was read (`place`) is stored only after a command is durable in the log, so after a crash the last ones are read and stored again.
//! That doubles nothing: inference remembers the ids of commands that it has applied, in its checkpoint and by replay from there.
mod counters;
mod decision;
mod message;
mod place;
pub mod reader;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, process::Stdio, sync::Arc, time::Duration};

use hark_protocol::topics::{self, Event, EventKind, LaneName, Name, TsSource};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdout, Command},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::counters::Counters;
use self::{
    decision::{Here, Refusal, decide},
    message::{Line, Order},
    place::PlaceFile,
};
use crate::{
    backoff::Backoff,
    buffer::{
        BufferError,
        commit::{AppendError, Appender},
    },
    causes,
    clock::Clock,
    config::{self, Config},
    record::{Body, Entry, Stamp},
    source::snapshot::Allowance,
};

/// The hidden subcommand that reads. Programs that contain the agent pass it on to [`crate::main`].
pub const ROLE: &str = "feedback-reader";
/// Most bytes of a record's value that are looked at. The longest sensible command has some 40 000.
const VALUE_MAX_BYTES: usize = 64 << 10;
/// Longest line of the reader: JSON may write a byte as six.
const LINE_MAX_BYTES: usize = 6 * VALUE_MAX_BYTES + 4_096;
/// Before a reader that has ended is started again.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);
/// A reader that lived as long as this has worked.
const WORKED_FOR: Duration = Duration::from_secs(60);
/// Between two stores of the place where nothing was for this gateway: to read that again costs nothing but the link.
const STORE_EVERY: Duration = Duration::from_secs(60);

/// Commands from Kafka.
pub struct Feedback {
    gateway: config::Gateway,
    assets: BTreeSet<Name>,
    kafka: config::Kafka,
    topic: String,
    place: PlaceFile,
    stored_at: Option<Duration>,
    appender: Appender,
    counters: Arc<Counters>,
    allowance: Allowance,
    clock: Clock,
    /// What the reader could not do, so that it is told once.
    problem: Option<String>,
}

impl Feedback {
    /// Goes on where the data directory says.
    ///
    /// # Errors
    /// [`BufferError`] if the disk cannot be read.
    pub fn open(
        config: &Config,
        kafka: config::Kafka,
        appender: Appender,
        counters: Arc<Counters>,
        allowance: Allowance,
        clock: Clock,
    ) -> Result<Self, BufferError> {
        let topic = topics::FEEDBACK.full_name(&kafka.topic_prefix);
        let place = PlaceFile::open(&config.buffer.dir, &topic)?;
        let (gateway, assets) = (config.gateway.clone(), config.assets.keys().cloned().collect());
        Ok(Self { gateway, assets, kafka, topic, place, stored_at: None, appender, counters, allowance, clock, problem: None })
    }

    /// Reads until `stop`. What was read and is not durable then is read again after the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.read_again_and_again(&stop) => {}
        }
    }

    async fn read_again_and_again(&mut self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        loop {
            let began = self.clock.monotonic();
            let ended = self.read().await;
            self.counters.set_reading(false);
            if self.clock.monotonic().saturating_sub(began) > WORKED_FOR {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            let again_in_s = wait.as_secs_f64();
            // What stops the agent stops the reader too, and may come a moment later.
            if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                return;
            }
            match ended {
                Ok(Ended { said_why: true, how }) => debug!(how, again_in_s, "the reader of commands is started again"),
                Ok(Ended { how, .. }) => warn!(how, again_in_s, "the reader of commands had ended and is started again; no command is lost"),
                Err(ReadError::Stopped) => return,
                Err(error) => warn!(error = %causes::chain(&error), again_in_s, "the reader of commands is started again"),
            }
        }
    }

    /// One life of the reader.
    async fn read(&mut self) -> Result<Ended, ReadError> {
        let (mut child, mut lines) = self.start().await.map_err(ReadError::Start)?;
        self.counters.started();
        let (mut line, mut said_why) = (Vec::new(), false);
        loop {
            line.clear();
            let read = (&mut lines).take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut line).await.map_err(ReadError::Line)?;
            // One that is cut off was not finished by a reader that has ended.
            if line[..read].last() != Some(&b'\n') && read <= LINE_MAX_BYTES {
                break;
            }
            let line = serde_json::from_slice(&line).map_err(ReadError::Garbled)?;
            said_why = matches!(line, Line::Problem { .. });
            self.take(line).await?;
        }
        child.kill().await.map_err(ReadError::Start)?;
        let status = child.wait().await.map_err(ReadError::Start)?;
        Ok(Ended { said_why, how: status.to_string() })
    }

    /// The reader and what it says. It is killed when the child is dropped, and ends itself when its input ends: also when the agent is killed.
    async fn start(&self) -> std::io::Result<(Child, BufReader<ChildStdout>)> {
        // Also where the program's file was replaced by another version meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0("hark")
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C of the terminal is for the agent, which then stops everything in its order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let order = Order {
            brokers: self.kafka.brokers.clone(),
            gateway: self.gateway.id.to_string(),
            topic: self.topic.clone(),
            place: self.place.place().clone(),
        };
        let mut bytes = serde_json::to_vec(&order)?;
        bytes.push(b'\n');
        let missing = || std::io::Error::other("it has no pipe");
        child.stdin.as_mut().ok_or_else(missing)?.write_all(&bytes).await?;
        let lines = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok((child, lines))
    }

    async fn take(&mut self, line: Line) -> Result<(), ReadError> {
        match line {
            Line::Began { place } => {
                info!(topic = self.topic, place = %place, "reading commands");
                self.counters.set_reading(true);
                self.problem = None;
                self.place.set(place);
            }
            Line::Record { partition, offset, value, bytes } => {
                self.record(partition, offset, value.as_deref(), bytes).await?;
                self.place.moved(partition, offset + 1);
            }
            Line::End => self.store(false),
            Line::Problem { problem } => {
                if self.problem.as_ref() != Some(&problem) {
                    warn!(problem, topic = self.topic, "commands cannot be read from Kafka at the moment");
                }
                self.problem = Some(problem);
            }
        }
        Ok(())
    }

    /// Returns once what follows from the record is durable.
    async fn record(&mut self, partition: i32, offset: i64, value: Option<&str>, bytes: u64) -> Result<(), ReadError> {
        let here = Here { gateway: &self.gateway.id, assets: &self.assets };
        let refusal = match decide(value, bytes, here, self.clock.now().ts) {
            Ok((asset, event)) => match self.append(LaneName::Inputs, Some(asset.clone()), self.allowance.judged(&asset, *event.clone())).await {
                Ok(()) => {
                    self.counters.count("taken");
                    info!(partition, offset, command = event.command.as_deref(), command_id = event.command_id.as_deref(), "command taken");
                    // Others may wait behind it for long, and it need not be stored twice.
                    self.place.moved(partition, offset + 1);
                    self.store(true);
                    return Ok(());
                }
                Err(AppendError::Stopped) => return Err(ReadError::Stopped),
                Err(refused @ AppendError::Refused(_)) => Refusal::new("not_storable", causes::chain(&refused)),
            },
            Err(refusal) => refusal,
        };
        self.counters.count(refusal.reason);
        let Some(text) = refusal.text else { return Ok(()) };
        warn!(partition, offset, reason = refusal.reason, text, "a command from Kafka is not applied");
        // Whoever gave it reads the answer in Kafka.
        if let Some(command) = refusal.of {
            let answer =
                Event { text: Some(text.into()), what: command.command.clone(), result: Some("refused".into()), kind: EventKind::Audit, ..*command };
            if matches!(self.append(LaneName::Events, None, answer).await, Err(AppendError::Stopped)) {
                return Err(ReadError::Stopped);
            }
            self.place.moved(partition, offset + 1);
            self.store(true);
        }
        Ok(())
    }

    async fn append(&self, lane: LaneName, asset: Option<Name>, event: Event) -> Result<(), AppendError> {
        let now = self.clock.now();
        let stamp = Stamp { asset, ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin: self.gateway.origin };
        let entry = Entry { stamp, cause: None, body: Body::Event(event.into()) };
        self.appender.append_durably(lane, vec![entry], true).await.map(drop)
    }

    /// Stores the place; where nothing presses only from time to time.
    fn store(&mut self, presses: bool) {
        let now = self.clock.monotonic();
        if !presses && self.stored_at.is_some_and(|at| now.saturating_sub(at) < STORE_EVERY) {
            return;
        }
        self.stored_at = Some(now);
        if let Err(error) = tokio::task::block_in_place(|| self.place.store()) {
            // Commands are applied all the same; after a restart they are read again.
            debug!(error = %causes::chain(&error), "the place in the topic of commands could not be stored");
        }
    }
}

/// How a reader ended by itself.
struct Ended {
    /// It has said why.
    said_why: bool,
    how: String,
}

/// Why the reader is given up.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The log takes no more.
    #[error("the agent is stopping")]
    Stopped,
    #[error("failed to start the reader of commands")]
    Start(#[source] std::io::Error),
    #[error("failed to read what the reader of commands says")]
    Line(#[source] std::io::Error),
    #[error("the reader of commands does not speak as it should")]
    Garbled(#[source] serde_json::Error),
}
