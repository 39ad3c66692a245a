//! From the log to Kafka, exactly once, on one thread.
//!
//! ```text
//! connect ─► how far has Kafka each lane? ─► read a batch ─► one transaction: records and the cursors of all lanes ─► read the next …
//!    ▲                                                                    │
//!    └────────────── wait ◄── drop the client ◄── whatever goes wrong ◄───┘
//! ```
//! A transaction begins only when its batch is in memory, since an open one holds up the readers of its partitions. Whether a commit whose answer was
//! lost took place is told by Kafka's cursors after the next connect. Events and alarms have transactions of their own, before predictions and inputs.
//!
//! - `delivery` decides what follows from what happened, [`cursor`] where to go on; both are pure.
//! - `batch` reads the lanes, `latest` the values outside the sequence, `mark` remembers on this disk.
//! - [`kafka`] is the client, behind `destination`.
mod batch;
mod connect;
pub mod cursor;
mod delivery;
mod destination;
pub mod kafka;
mod latest;
mod mark;
mod message;
mod refused;
mod reports;
mod send;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod stage_tests;

use std::{sync::Arc, time::Duration};

use hark_protocol::topics::LaneName;
use tracing::{error, info, warn};

#[cfg(test)]
pub(crate) use self::mark::Mark as StoredMark;
use self::{
    batch::{Group, Lanes},
    cursor::PerLane,
    delivery::{BatchBytes, Failed, Failure, Next, Pace, Recovery, Search, Suspicion},
    destination::{Destination, Session},
    kafka::Kafka,
    latest::Latest,
    mark::{Address, Mark},
    refused::Refused,
    reports::GRACE,
};
pub use self::{
    mark::stored as stored_mark,
    message::{Sender, gateway_stamp},
};
use crate::{
    buffer::{BufferError, Cursor, FollowError, Follower, Log, Position, commit::Appender},
    causes,
    clock::Clock,
    config::{self, Config, Delivery},
    hold::Hold,
    status::{Link, Status},
    stop::Stop,
};

/// Between transactions, where the link costs nothing and where it does.
const LIVE_EVERY: Duration = Duration::from_millis(200);
const METERED_EVERY: Duration = Duration::from_secs(1);
/// Without new inputs the loop looks after its other duties so often.
const IDLE: Duration = Duration::from_millis(200);
/// A disk that did not take the marks is asked again after so long.
const STORE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Brokers forget cursors some days after their last commit.
const RECOMMIT_EVERY: Duration = Duration::from_secs(86_400);

/// The forwarding stage.
pub struct Forward<D = Kafka> {
    destination: D,
    config: config::Kafka,
    gateway: config::Gateway,
    log: Log,
    appender: Appender,
    hold: Arc<Hold>,
    status: Arc<Status>,
    clock: Clock,
    lanes: Lanes,
    latest: Latest,
    /// They failed when they were tried last.
    latest_failed: bool,
    mark: Mark,
    /// Holds the highest ordinal that Kafka named, so that the next start goes above it.
    seen: Cursor,
    /// What it shall hold.
    highest_ordinal: u32,
    /// The disk took neither: the next try.
    store_again_at: Duration,
    store_problem_logged: bool,
    refused: Refused,
    /// Places of other disks under this gateway id, by lane.
    others: PerLane<Vec<(cursor::Short, u64)>>,
    lineage_due: bool,
    committed_at: Duration,
    recovery: Recovery,
    searches: Searches,
    pace: Pace,
    batch_bytes: BatchBytes,
    suspicion: Suspicion,
    suspicious: bool,
    last_problem: String,
}

/// Each kind of batch is searched for refused records by itself.
#[derive(Debug, Default)]
struct Searches {
    urgent: Search,
    bulk: Search,
    latest: Search,
}

/// Why a connection is over.
#[derive(Debug)]
enum Ended {
    /// Asked to, or the log has ended.
    Stopped,
    /// Something of the last transaction may still be under way.
    Suspicious,
    /// It failed.
    Failed(Failed),
    /// The log cannot be read now.
    Unreadable(BufferError),
}

impl From<FollowError> for Ended {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Buffer(error) => Self::Unreadable(error),
            // The commit loop says itself why it ended.
            FollowError::Append(_) => Self::Stopped,
        }
    }
}

impl Forward {
    /// Opens readers and the local mark.
    ///
    /// # Errors
    /// [`BufferError`] if the log refuses.
    pub fn new(
        config: &Config,
        kafka: config::Kafka,
        log: Log,
        appender: Appender,
        hold: Arc<Hold>,
        status: Arc<Status>,
        clock: Clock,
    ) -> Result<Self, BufferError> {
        let destination = Kafka::new(kafka.clone(), config.gateway.id.clone());
        Self::with(destination, config, kafka, log, appender, hold, status, clock)
    }
}

impl<D: Destination> Forward<D> {
    #[expect(clippy::too_many_arguments, reason = "what `new` takes, and where it goes")]
    fn with(
        destination: D,
        config: &Config,
        kafka: config::Kafka,
        log: Log,
        appender: Appender,
        hold: Arc<Hold>,
        status: Arc<Status>,
        clock: Clock,
    ) -> Result<Self, BufferError> {
        let now = clock.monotonic();
        let mark = Mark::open(&config.buffer.dir, now)?;
        // Without a mark nothing was ever given back: what is missing on the disk was given up, and its gap is passed like any other.
        let at = mark.lanes().unwrap_or_default();
        status.placed(at);
        if let Some(stored) = mark.lanes() {
            LaneName::ALL.iter().for_each(|&lane| hold.forward_stored(lane, stored[lane as usize]));
        }
        let sender = Sender::new(config.gateway.id.clone(), &kafka.topic_prefix);
        let inc = log.incarnation().id.to_string().into();
        let every = if kafka.metered { METERED_EVERY } else { LIVE_EVERY };
        let batch_bytes =
            if kafka.metered { kafka.batch_bytes.min(usize::try_from(kafka.backlog_bytes_per_s).unwrap_or(usize::MAX)) } else { kafka.batch_bytes };
        Ok(Self {
            lanes: Lanes::new(log.clone(), &appender, sender.clone(), at)?,
            latest: Latest::new(config.gateway.clone(), sender, inc, status.clone(), clock.clone()),
            latest_failed: false,
            seen: log.cursor("kafka")?,
            highest_ordinal: 0,
            store_again_at: now,
            store_problem_logged: false,
            refused: Refused::new(&config.buffer.dir),
            recovery: Recovery::new(kafka.duplicate_wait),
            pace: Pace::new(every, kafka.backlog_bytes_per_s),
            batch_bytes: BatchBytes::new(batch_bytes),
            gateway: config.gateway.clone(),
            config: kafka,
            destination,
            log,
            appender,
            hold,
            status,
            clock,
            mark,
            others: Default::default(),
            lineage_due: true,
            committed_at: now,
            searches: Searches::default(),
            suspicion: Suspicion::default(),
            suspicious: false,
            last_problem: String::new(),
        })
    }

    /// Runs until `stop` and then until the log is empty, the grace is over or Kafka is away.
    pub fn run(mut self, stop: &Stop) {
        loop {
            let ended = self.connection(stop);
            let next = match ended {
                Ended::Stopped => break,
                Ended::Suspicious => {
                    self.status.forward(|numbers| numbers.recycled += 1);
                    // A stop does not end it: the rest may be sent within the grace.
                    stop.wait(self.recovery.suspicious());
                    if is_over(stop) {
                        break;
                    }
                    continue;
                }
                Ended::Failed(failed) => self.after(failed),
                Ended::Unreadable(source) => {
                    let text = source.to_string();
                    if text != self.last_problem {
                        error!(error = %causes::chain(&source), "the buffer cannot be read; trying again");
                        self.last_problem = text;
                    }
                    Next { link: Link::Reconnecting, wait: Follower::RETRY_AFTER, duplicate: false }
                }
            };
            if self.wait_out(next, stop) {
                break;
            }
        }
        self.store();
    }

    /// One connection, from its begin to its end.
    fn connection(&mut self, stop: &Stop) -> Ended {
        self.lanes.forget_ahead();
        let (mut session, cursors) = match self.destination.connect(stop) {
            Ok(connected) => connected,
            Err(failed) => return Ended::Failed(failed),
        };
        self.recovery.connected();
        self.suspicion.new_client(session.disturbances());
        (self.suspicious, self.lineage_due) = (false, true);
        let address = Address { gateway: self.gateway.id.to_string(), topic_prefix: self.config.topic_prefix.clone(), cluster: session.cluster() };
        if let Err(ended) = self.reconcile(cursors.as_ref(), address) {
            return ended;
        }
        if self.status.link() != Link::Connected {
            info!(brokers = %self.config.brokers, delivery = self.config.delivery.as_str(), "Kafka connected");
            self.status.set_link(Link::Connected);
            // The latest values may have been lost with the connection.
            self.latest.again();
        }
        self.deliver(&mut session, stop)
    }

    /// Sends until it is stopped or something fails.
    fn deliver(&mut self, session: &mut D::Session, stop: &Stop) -> Ended {
        loop {
            let (began, stopping) = (self.clock.monotonic(), stop.requested());
            let turn = match self.turn(session, stop) {
                Ok(turn) => turn,
                Err(ended) => return ended,
            };
            self.last_problem.clear();
            self.store_if_due();
            if is_over(stop) {
                warn!("stopping with records in the buffer; they are sent after the next start");
                return Ended::Stopped;
            }
            if stopping && !turn.moved {
                return Ended::Stopped;
            }
            if !stopping && !turn.full {
                self.pause(began, turn.moved, stop);
            }
        }
    }

    /// Sends what there is: latest values, then what is urgent, then the rest, one transaction each.
    fn turn(&mut self, session: &mut D::Session, stop: &Stop) -> Result<Turn, Ended> {
        // What failed last goes last: neither they nor the lanes are held up for ever.
        let go_last = self.latest_failed;
        let mut more_latest = if go_last { false } else { self.send_latest(session, stop)? };
        let mut turn = self.send_group(Group::Urgent, session, stop)?;
        if stop.requested() || self.pace.wait(self.clock.monotonic()).is_zero() {
            let bulk = self.send_group(Group::Bulk, session, stop)?;
            // A backlog goes on at its pace.
            let full = turn.full || bulk.full && self.pace.wait(self.clock.monotonic()).is_zero();
            turn = Turn { moved: turn.moved || bulk.moved, full };
        }
        if self.config.delivery == Delivery::ExactlyOnce && self.clock.monotonic().saturating_sub(self.committed_at) >= RECOMMIT_EVERY {
            self.lineage_due = true;
            self.recommit(session, stop)?;
        }
        if go_last {
            more_latest = self.send_latest(session, stop)?;
        }
        Ok(Turn { full: turn.full || more_latest, ..turn })
    }

    /// Waits: after a transaction until the next one may begin, else until there is something to send.
    fn pause(&self, began: Duration, moved: bool, stop: &Stop) {
        let every = if self.config.metered { METERED_EVERY } else { LIVE_EVERY };
        let inputs = self.lanes.at()[LaneName::Inputs as usize];
        if moved || self.log.wait(LaneName::Inputs, inputs, Duration::ZERO) {
            let now = self.clock.monotonic();
            let paced = self.pace.wait(now).min(every);
            stop.wait(if paced.is_zero() { (began + every).saturating_sub(now) } else { paced });
        } else {
            self.log.wait(LaneName::Inputs, inputs, IDLE);
        }
    }

    /// What follows from a failure. The same problem is logged once, however often it is met.
    fn after(&mut self, failed: Failed) -> Next {
        let next = self.recovery.failed(&failed.failure, self.clock.monotonic());
        self.status.set_link(next.link);
        let Failed { failure, text, .. } = failed;
        if failure == Failure::Fenced {
            self.status.forward(|numbers| numbers.fenced += 1);
        }
        if next.link == Link::DuplicateGateway {
            error!(gateway = %self.gateway.id, wait_s = next.wait.as_secs(), "another agent runs under this gateway id; nothing is lost, give one of them another id");
        } else if text != self.last_problem {
            match &failure {
                Failure::Blocked(advice) => error!(advice, "{text}; readings stay in the buffer"),
                Failure::Refused(_) => {}
                _ => warn!("{text}, trying again; readings stay in the buffer"),
            }
            self.last_problem = text;
        }
        if next.duplicate {
            self.tell_duplicate();
        }
        next
    }

    /// Waits before the next try. Where that is long, latest values are sent aside, so that the fleet sees what this gateway waits for. True if stopped.
    fn wait_out(&mut self, next: Next, stop: &Stop) -> bool {
        let until = self.clock.monotonic() + next.wait;
        loop {
            self.store_if_due();
            let mut wait = until.saturating_sub(self.clock.monotonic());
            if wait.is_zero() || stop.requested() {
                return stop.requested();
            }
            if matches!(next.link, Link::Blocked | Link::DuplicateGateway) {
                let messages = self.next_latest();
                if !messages.is_empty() {
                    self.destination.send_aside(&messages, stop);
                    self.latest.sent(messages.len(), false);
                }
                wait = wait.min(self.latest.wait().max(IDLE));
            }
            if stop.wait(wait.min(METERED_EVERY)) {
                return true;
            }
        }
    }

    fn store_if_due(&mut self) {
        let now = self.clock.monotonic();
        if now >= self.store_again_at && (self.mark.is_due(now) || self.has_seen_more()) {
            self.store();
        }
    }

    /// Stores the mark and what was seen, and gives back what nobody needs any more. A disk that takes nothing costs space, and after a start a question
    /// to Kafka; the marks before still stand.
    fn store(&mut self) {
        let now = self.clock.monotonic();
        let seen = if self.has_seen_more() { self.seen.store(Position { ordinal: self.highest_ordinal, seq: 0 }) } else { Ok(()) };
        if let Err(problem) = self.mark.store(now).and(seen) {
            self.store_again_at = now + STORE_AGAIN_AFTER;
            if !std::mem::replace(&mut self.store_problem_logged, true) {
                error!(error = &problem as &dyn std::error::Error, "how far Kafka has the records cannot be stored, trying again; delivery goes on");
            }
        } else if std::mem::take(&mut self.store_problem_logged) {
            info!("how far Kafka has the records is stored again");
        }
        if let Some(stored) = self.mark.lanes() {
            LaneName::ALL.iter().for_each(|&lane| self.hold.forward_stored(lane, stored[lane as usize]));
        }
    }

    /// Kafka named an ordinal above ours and above what is stored.
    fn has_seen_more(&self) -> bool {
        self.highest_ordinal > self.seen.position().map_or(self.log.incarnation().ordinal, |seen| seen.ordinal)
    }
}

/// A stop was asked for, and what is left waits for the next start.
fn is_over(stop: &Stop) -> bool {
    stop.left_of(GRACE) == Some(Duration::ZERO)
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// A lane moved.
    moved: bool,
    /// More waits and may be sent now.
    full: bool,
}

/// The lane's place in a list by lane.
fn of(lanes: &PerLane<Position>, lane: LaneName) -> Position {
    lanes[lane as usize]
}
