//! The commit loop: gathers what stages append, commits it in groups, and only then tells who appended it.
//!
//! It runs on a thread of its own and ends when every [`Appender`] is gone, after a last commit, or at the first failure of the store. Nobody is
//! told of a commit that did not happen: their callbacks are dropped unused.
use std::{ops::ControlFlow, time::Duration};

use hark_protocol::topics::LaneName;
use tokio::sync::{mpsc, oneshot};

use super::{BufferCounters, BufferError, Log, Position, Writer};
use crate::{clock::Clock, record::Entry};

/// When to commit.
#[derive(Clone, Copy, Debug)]
pub struct CommitPolicy {
    /// Longest time an entry waits for its commit.
    pub max_delay: Duration,
    /// A commit comes earlier when so many encoded bytes wait.
    pub max_bytes: usize,
    /// A commit comes earlier when so many appends wait.
    pub max_appends: usize,
    /// Databases unused for one to two times this long are closed.
    pub idle_after: Duration,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self { max_delay: Duration::from_millis(250), max_bytes: 256 * 1024, max_appends: 8192, idle_after: Duration::from_secs(60) }
    }
}

/// Where the entries of an [`Append`] stand, now durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Lane they are in.
    pub lane: LaneName,
    /// First one; after `last` if there were no entries.
    pub first: Position,
    /// Last one.
    pub last: Position,
}

/// Why an append was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// An entry is too large or does not encode. None of the append was stored; the log goes on.
    #[error("append refused")]
    Refused(#[source] BufferError),
    /// The commit loop has ended, by its own failure or at shutdown. Whether the entries are stored is unknown, most likely not.
    #[error("buffer has stopped")]
    Stopped,
}

/// Called after the durable commit, on the thread of the commit loop and in the order of appends: it must be quick and must not wait.
pub type Done = Box<dyn FnOnce(Result<Committed, AppendError>) + Send>;

/// Entries for one lane, committed together.
pub struct Append {
    /// Lane.
    pub lane: LaneName,
    /// Entries in order.
    pub entries: Vec<Entry>,
    /// Do not wait for others: an alarm, or a sender whose window is full.
    pub urgent: bool,
    /// Who wants to know.
    pub done: Option<Done>,
}

/// What the commit loop is asked to do.
pub enum Request {
    /// Store this.
    Append(Append),
    /// Give up the partitions of a lane that lie wholly at or before a place.
    Reclaim {
        /// Lane.
        lane: LaneName,
        /// Place behind every reader.
        upto: Position,
    },
}

/// The sending end, for any number of stages.
#[derive(Clone, Debug)]
pub struct Appender {
    requests: mpsc::Sender<Request>,
}

/// A bounded way to the commit loop.
pub fn channel(appends: usize) -> (Appender, mpsc::Receiver<Request>) {
    let (requests, receiver) = mpsc::channel(appends);
    (Appender { requests }, receiver)
}

impl Appender {
    /// Hands over an append, waiting for room. May be cancelled: then nothing was handed over.
    ///
    /// # Errors
    /// [`AppendError::Stopped`] if the commit loop has ended; `append.done` is dropped unused.
    pub async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.requests.send(Request::Append(append)).await.map_err(|_| AppendError::Stopped)
    }

    /// The same from a thread outside the runtime.
    pub fn blocking_append(&self, append: Append) -> Result<(), AppendError> {
        self.requests.blocking_send(Request::Append(append)).map_err(|_| AppendError::Stopped)
    }

    /// Appends and waits until the entries are durable. If cancelled after the hand-over, they are stored all the same.
    pub async fn append_durably(&self, lane: LaneName, entries: Vec<Entry>, urgent: bool) -> Result<Committed, AppendError> {
        let (done, committed) = one_answer();
        self.append(Append { lane, entries, urgent, done: Some(done) }).await?;
        committed.await.map_err(|_| AppendError::Stopped)?
    }

    /// The same from a thread outside the runtime.
    pub fn blocking_append_durably(&self, lane: LaneName, entries: Vec<Entry>, urgent: bool) -> Result<Committed, AppendError> {
        let (done, committed) = one_answer();
        self.blocking_append(Append { lane, entries, urgent, done: Some(done) })?;
        committed.blocking_recv().map_err(|_| AppendError::Stopped)?
    }

    /// Asks to give up what lies at or before `upto`, waiting for room in the channel, not for the deed.
    pub async fn reclaim(&self, lane: LaneName, upto: Position) -> Result<(), AppendError> {
        self.requests.send(Request::Reclaim { lane, upto }).await.map_err(|_| AppendError::Stopped)
    }

    /// The same from a thread outside the runtime.
    pub fn blocking_reclaim(&self, lane: LaneName, upto: Position) -> Result<(), AppendError> {
        self.requests.blocking_send(Request::Reclaim { lane, upto }).map_err(|_| AppendError::Stopped)
    }
}

fn one_answer() -> (Done, oneshot::Receiver<Result<Committed, AppendError>>) {
    let (sender, receiver) = oneshot::channel();
    // Nobody waits any more: the entries are stored all the same.
    (Box::new(move |outcome| drop(sender.send(outcome))), receiver)
}

/// Runs until every [`Appender`] is dropped. Blocks: to be called on a thread of its own, outside any async runtime.
///
/// # Errors
/// The first failure of the store. Uncommitted appends are dropped without their `done` being called.
pub fn run(writer: Writer, log: Log, mut requests: mpsc::Receiver<Request>, policy: CommitPolicy, clock: Clock) -> Result<(), BufferError> {
    let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timer = timer.map_err(|error| BufferError::io("start the timer of", "commit loop".as_ref(), error))?;
    let mut group = Group { writer, log, policy, clock: clock.clone(), waiting: Vec::new(), due: false, first_at: None };
    let mut idle_at = clock.monotonic() + policy.idle_after;
    loop {
        let deadline = group.first_at.map_or(idle_at, |first_at| first_at + policy.max_delay);
        let patience = deadline.saturating_sub(clock.monotonic());
        match timer.block_on(async { tokio::time::timeout(patience, requests.recv()).await }) {
            Ok(Some(request)) => {
                // With the channel full its senders wait; with an urgent append someone does. Take what is there, then commit.
                group.due |= requests.capacity() == 0;
                group.take(request)?;
                if group.gather(&mut requests)?.is_continue() && !group.due && clock.monotonic() < deadline {
                    continue;
                }
            }
            Ok(None) => return group.commit(),
            Err(_) => {}
        }
        group.commit()?;
        if clock.monotonic() >= idle_at {
            group.log.close_idle();
            idle_at = clock.monotonic() + policy.idle_after;
        }
    }
}

/// The appends of the next commit.
struct Group {
    writer: Writer,
    log: Log,
    policy: CommitPolicy,
    clock: Clock,
    waiting: Vec<(Done, Result<Committed, AppendError>)>,
    due: bool,
    /// When the first of them came, as time since boot.
    first_at: Option<Duration>,
}

impl Group {
    /// Takes what waits in the channel; breaks when the group is full.
    fn gather(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<ControlFlow<()>, BufferError> {
        while self.writer.pending_bytes() < self.policy.max_bytes && self.waiting.len() < self.policy.max_appends {
            let Ok(request) = requests.try_recv() else { return Ok(ControlFlow::Continue(())) };
            self.take(request)?;
        }
        Ok(ControlFlow::Break(()))
    }

    fn take(&mut self, request: Request) -> Result<(), BufferError> {
        let append = match request {
            Request::Append(append) => append,
            Request::Reclaim { lane, upto } => return self.writer.reclaim(lane, upto).map(drop),
        };
        self.due |= append.urgent;
        self.first_at = self.first_at.or_else(|| Some(self.clock.monotonic()));
        let ordinal = self.log.incarnation().ordinal;
        let outcome = match self.writer.append_all(append.lane, &append.entries) {
            Ok(seqs) => {
                Ok(Committed { lane: append.lane, first: Position { ordinal, seq: *seqs.start() }, last: Position { ordinal, seq: *seqs.end() } })
            }
            Err(error @ (BufferError::EntryTooLarge { .. } | BufferError::Encode(_))) => {
                BufferCounters::add(&self.log.counters().refused, 1);
                Err(AppendError::Refused(error))
            }
            Err(error) => return Err(error),
        };
        self.waiting.extend(append.done.map(|done| (done, outcome)));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), BufferError> {
        self.writer.commit()?;
        self.due = false;
        self.first_at = None;
        self.waiting.drain(..).for_each(|(done, outcome)| done(outcome));
        Ok(())
    }
}
