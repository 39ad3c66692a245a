//! The commit loop: gathers what stages append, commits it in groups, and only then tells who appended it.
//!
//! It runs on a thread of its own and ends when every [`Appender`] is gone, after a last commit, or at the first failure of the store. Nobody is
//! told of a commit that did not happen: their callbacks are dropped unused.
use std::{ops::ControlFlow, sync::Arc, time::Duration};

use hark_protocol::topics::{GapReason, LaneName, Origin, TsSource};
use tokio::sync::{mpsc, oneshot};

use super::{BufferCounters, BufferError, Gap, Log, Position, Writer, gaps, marks::SourceMark};
use crate::{
    clock::Clock,
    hold::Hold,
    record::{Body, Entry, Stamp},
};

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
    /// Between two looks at what the readers no longer need.
    pub reclaim_every: Duration,
    /// What the readings of this gateway come from, for the events that the loop itself writes.
    pub origin: Origin,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self {
            max_delay: Duration::from_millis(250),
            max_bytes: 256 * 1024,
            max_appends: 8192,
            idle_after: Duration::from_secs(60),
            reclaim_every: Duration::from_secs(1),
            origin: Origin::Live,
        }
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
    /// What sources must remember of them.
    pub marks: Vec<SourceMark>,
    /// Do not wait for others: an alarm, or a sender whose window is full.
    pub urgent: bool,
    /// Who wants to know.
    pub done: Option<Done>,
}

/// What the commit loop is asked to do.
pub enum Request {
    /// Store this.
    Append(Append),
    /// Say durably that these records are lost.
    NameGap {
        /// Lane.
        lane: LaneName,
        /// First lost record.
        from: Position,
        /// Last lost record, of the same incarnation.
        to: Position,
        /// Why.
        reason: GapReason,
        /// After the gap is named.
        done: oneshot::Sender<Result<(), AppendError>>,
    },
    /// Put the partition that holds `from` aside and name what is lost with it.
    Quarantine {
        /// Lane.
        lane: LaneName,
        /// First record that cannot be read.
        from: Position,
        /// After it is done.
        done: oneshot::Sender<Result<(), AppendError>>,
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
        self.append(Append { lane, entries, marks: Vec::new(), urgent, done: Some(done) }).await?;
        committed.await.map_err(|_| AppendError::Stopped)?
    }

    /// The same from a thread outside the runtime.
    pub fn blocking_append_durably(&self, lane: LaneName, entries: Vec<Entry>, urgent: bool) -> Result<Committed, AppendError> {
        let (done, committed) = one_answer();
        self.blocking_append(Append { lane, entries, marks: Vec::new(), urgent, done: Some(done) })?;
        committed.blocking_recv().map_err(|_| AppendError::Stopped)?
    }

    /// Names a gap and waits until that is durable. From a thread outside the runtime.
    pub fn blocking_name_gap(&self, lane: LaneName, from: Position, to: Position, reason: GapReason) -> Result<(), AppendError> {
        let (done, named) = oneshot::channel();
        self.requests.blocking_send(Request::NameGap { lane, from, to, reason, done }).map_err(|_| AppendError::Stopped)?;
        named.blocking_recv().map_err(|_| AppendError::Stopped)?
    }

    /// Has the partition that holds `from` put aside and waits until what is lost is named. From a thread outside the runtime.
    pub fn blocking_quarantine(&self, lane: LaneName, from: Position) -> Result<(), AppendError> {
        let (done, named) = oneshot::channel();
        self.requests.blocking_send(Request::Quarantine { lane, from, done }).map_err(|_| AppendError::Stopped)?;
        named.blocking_recv().map_err(|_| AppendError::Stopped)?
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
pub fn run(
    writer: Writer,
    log: Log,
    mut requests: mpsc::Receiver<Request>,
    policy: CommitPolicy,
    hold: Arc<Hold>,
    clock: Clock,
) -> Result<(), BufferError> {
    let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timer = timer.map_err(|error| BufferError::io("start the timer of", "commit loop".as_ref(), error))?;
    let mut group = Group { writer, log, policy, hold, clock: clock.clone(), waiting: Vec::new(), due: false, first_at: None };
    let (mut idle_at, mut reclaim_at) = (clock.monotonic() + policy.idle_after, clock.monotonic());
    loop {
        let deadline = group.first_at.map_or(idle_at.min(reclaim_at), |first_at| first_at + policy.max_delay);
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
        if clock.monotonic() >= reclaim_at {
            group.reclaim()?;
            reclaim_at = clock.monotonic() + policy.reclaim_every;
        }
    }
}

/// The appends of the next commit.
struct Group {
    writer: Writer,
    log: Log,
    policy: CommitPolicy,
    hold: Arc<Hold>,
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
            Request::NameGap { lane, from, to, reason, done } => {
                self.name_gap(lane, from, to, reason)?;
                // Who asked may have given up; the gap is named all the same.
                return Ok(drop(done.send(Ok(()))));
            }
            Request::Quarantine { lane, from, done } => {
                self.quarantine(lane, from)?;
                return Ok(drop(done.send(Ok(()))));
            }
        };
        self.due |= append.urgent;
        self.first_at = self.first_at.or_else(|| Some(self.clock.monotonic()));
        let ordinal = self.log.incarnation().ordinal;
        let outcome = match self.writer.append_all(append.lane, &append.entries, &append.marks) {
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

    /// Gives back what every reader has behind it.
    fn reclaim(&mut self) -> Result<(), BufferError> {
        LaneName::ALL.into_iter().try_for_each(|lane| self.writer.reclaim(lane, self.hold.behind(lane)).map(drop))
    }

    fn name_gap(&mut self, lane: LaneName, from: Position, to: Position, reason: GapReason) -> Result<(), BufferError> {
        let inc = self.log.incarnation_id(from.ordinal).unwrap_or_default().to_string();
        let text = format!("records {} to {} of lane {lane} are lost", from.seq, to.seq);
        let now = self.clock.now();
        let stamp = Stamp { asset: None, ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin: self.policy.origin };
        let entry = Entry { stamp, cause: None, body: Body::Event(gaps::event(lane, &inc, from.seq, to.seq, reason, None, &text).into()) };
        let seq = self.writer.append(LaneName::Events, &entry)?;
        let event = Position { ordinal: self.log.incarnation().ordinal, seq };
        self.log.shared.add_gap(Gap { lane, from, to, reason, event });
        self.commit()
    }

    fn quarantine(&mut self, lane: LaneName, from: Position) -> Result<(), BufferError> {
        let to = Position { seq: self.log.shared.last_seq(lane, from.ordinal), ..from };
        self.name_gap(lane, from, to, GapReason::Damaged)
    }
}
