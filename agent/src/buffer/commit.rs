//! The commit loop: gathers what stages append, commits it in groups, and only then tells who appended it.
//!
//! It runs on a thread of its own and ends when every [`Appender`] is gone, after a last commit. Nobody is
//! told of a commit that did not happen: their callbacks are dropped unused.
use std::{sync::Arc, time::Duration};

use hark_protocol::topics::{GapReason, LaneName, Origin};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{BufferError, FollowError, Log, Position, Writer, group::Group, marks::SourceMark};
use crate::{clock::Clock, hold::Hold, record::Entry};

/// Flash is written in pages of so many bytes. A commit that does not fill one costs as much as one that does. What waits is counted before it is
/// compressed and with all lanes together, so this is a rule of thumb.
const PAGE_BYTES: usize = 4096;

/// When to commit.
#[derive(Clone, Copy, Debug)]
pub struct CommitPolicy {
    /// Longest time an entry waits for its commit: while less than a page waits. Half of it where more does.
    pub max_delay: Duration,
    /// A commit comes earlier when so many encoded bytes wait.
    pub max_bytes: usize,
    /// A commit comes earlier when so many appends wait.
    pub max_appends: usize,
    /// Databases unused for one to two times this long are closed.
    pub idle_after: Duration,
    /// Between two looks at what the readers no longer need, and at the space.
    pub housekeeping_every: Duration,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self {
            max_delay: Duration::from_millis(500),
            max_bytes: 256 * 1024,
            max_appends: 8192,
            idle_after: Duration::from_secs(60),
            housekeeping_every: Duration::from_secs(1),
        }
    }
}

impl CommitPolicy {
    /// How long the first of `bytes` waits.
    fn patience(&self, bytes: usize) -> Duration {
        if bytes < PAGE_BYTES { self.max_delay } else { self.max_delay / 2 }
    }
}

/// What the commit loop is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to commit.
    pub policy: CommitPolicy,
    /// Bytes allowed under the data directory, as in [`super::LogSettings`].
    pub quota_bytes: u64,
    /// Older records are given up; `None`: only space decides.
    pub max_age: Option<Duration>,
    /// What the readings of this gateway come from, for the events that the loop itself writes.
    pub origin: Origin,
    /// Who still needs what.
    pub hold: Arc<Hold>,
    /// Gives the time of these events.
    pub clock: Clock,
    /// Ends the waiting for a disk that takes nothing.
    pub stop: CancellationToken,
}

impl Settings {
    /// For a log that may grow and is given back by nobody: tests and benchmarks.
    pub fn unbounded(policy: CommitPolicy) -> Self {
        let (hold, clock, stop) = (Arc::default(), Clock::new(), CancellationToken::new());
        Self { policy, quota_bytes: u64::MAX, max_age: None, origin: Origin::Live, hold, clock, stop }
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
        done: oneshot::Sender<()>,
    },
    /// Put the partition that holds `from` aside and name what is lost with it.
    Quarantine {
        /// Lane.
        lane: LaneName,
        /// First record that cannot be read.
        from: Position,
        /// After it is done, or the disk refused.
        done: oneshot::Sender<Result<(), BufferError>>,
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
    ///
    /// # Errors
    /// [`AppendError::Stopped`] if the commit loop has ended.
    pub fn blocking_name_gap(&self, lane: LaneName, from: Position, to: Position, reason: GapReason) -> Result<(), AppendError> {
        let (done, named) = oneshot::channel();
        self.requests.blocking_send(Request::NameGap { lane, from, to, reason, done }).map_err(|_| AppendError::Stopped)?;
        named.blocking_recv().map_err(|_| AppendError::Stopped)
    }

    /// Has the partition that holds `from` put aside and waits until what is lost is named. From a thread outside the runtime.
    ///
    /// # Errors
    /// [`FollowError`], when the disk refuses or the commit loop has ended.
    pub fn blocking_quarantine(&self, lane: LaneName, from: Position) -> Result<(), FollowError> {
        let (done, saved) = oneshot::channel();
        self.requests.blocking_send(Request::Quarantine { lane, from, done }).map_err(|_| AppendError::Stopped)?;
        Ok(saved.blocking_recv().map_err(|_| AppendError::Stopped)??)
    }
}

fn one_answer() -> (Done, oneshot::Receiver<Result<Committed, AppendError>>) {
    let (sender, receiver) = oneshot::channel();
    // Nobody waits any more: the entries are stored all the same.
    (Box::new(move |outcome| drop(sender.send(outcome))), receiver)
}

/// Runs until every [`Appender`] is dropped. Blocks: to be called on a thread of its own, outside any async runtime.
///
/// A disk that takes nothing is no end: what waits stays in memory, bounded by the senders' windows, and is tried again until it is taken, or until
/// a stop is asked for.
///
/// # Errors
/// The first failure that waiting does not mend. Uncommitted appends are dropped without their `done` being called.
pub fn run(writer: Writer, log: Log, mut requests: mpsc::Receiver<Request>, settings: Settings) -> Result<(), BufferError> {
    let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let timer = timer.map_err(|error| BufferError::io("start the timer of", "commit loop".as_ref(), error))?;
    let (policy, clock) = (settings.policy, settings.clock.clone());
    let mut group = Group::new(writer, log, settings, timer)?;
    group.start()?;
    let mut housekeeping_at = clock.monotonic();
    loop {
        let deadline = group.first_at().map_or(housekeeping_at, |first_at| first_at + policy.patience(group.pending_bytes()));
        match group.receive(&mut requests, deadline.saturating_sub(clock.monotonic())) {
            Received::Request(request) => {
                // With the channel full its senders wait; with an urgent append someone does. Take what is there, then commit.
                if requests.capacity() == 0 {
                    group.hurry();
                }
                group.take(request)?;
                while group.has_room() {
                    let Ok(request) = requests.try_recv() else { break };
                    group.take(request)?;
                }
                if group.has_room() && !group.is_due() && clock.monotonic() < deadline {
                    continue;
                }
            }
            Received::Nothing => {}
            Received::End => return group.end(),
        }
        group.commit()?;
        if group.must_look() || clock.monotonic() >= housekeeping_at {
            group.keep_house()?;
            housekeeping_at = clock.monotonic() + policy.housekeeping_every;
        }
    }
}

/// What came while the loop waited.
pub(super) enum Received {
    Request(Request),
    Nothing,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_no_page_waits_twice_as_long() {
        let policy = CommitPolicy::default();
        assert_eq!(policy.patience(0), policy.max_delay);
        assert_eq!(policy.patience(PAGE_BYTES - 1), Duration::from_millis(500));
        assert_eq!(policy.patience(PAGE_BYTES), Duration::from_millis(250));
    }
}
