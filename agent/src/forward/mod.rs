//! From the log to Kafka, one thread: read each lane after its cursor, send, wait for the answers, move the cursors.
//!
//! Records are dropped from the log only after Kafka has acknowledged them; a time-out means "keep". There is one way to recover from anything:
//! drop the client, wait with jitter, connect, go on from the cursors. Delivery is at least once so far: what was acknowledged after the last
//! stored cursor is sent again after a crash, under the same `event_id`.
mod kafka;
mod message;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hark_protocol::topics::{self, EventKind, GapReason, LaneName, Name};
use tracing::{error, info, warn};

use self::kafka::{Destination, DestinationError, GRACE, Outcome};
pub use self::message::{Message, Sender, gateway_stamp};
use crate::{
    backoff::Backoff,
    buffer::{BufferError, Cursor, Log, Position, Reader, commit::Appender},
    clock::Clock,
    config::{self, Config},
    hold::Hold,
    record::{Body, Entry},
    status::{Link, Status},
    stop::Stop,
};

/// Lanes in the order of sending: what a person must know first.
const ORDER: [LaneName; 4] = [LaneName::Events, LaneName::Alarms, LaneName::Predictions, LaneName::Inputs];
/// Cursors are stored so often; a crash sends again what was acknowledged since.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// Without records the loop looks after its other duties so often.
const IDLE: Duration = Duration::from_millis(200);

/// The forwarding stage.
pub struct Forward {
    kafka: config::Kafka,
    gateway: config::Gateway,
    sender: Sender,
    log: Log,
    appender: Appender,
    lanes: Vec<Lane>,
    hold: Arc<Hold>,
    status: Arc<Status>,
    clock: Clock,
    stored_at: Duration,
    heartbeat_at: Option<Duration>,
    assets_sent: BTreeMap<Name, topics::Asset>,
    /// By asset and id.
    baselines_sent: BTreeSet<(Name, Name)>,
}

struct Lane {
    name: LaneName,
    reader: Reader,
    cursor: Cursor,
    /// Acknowledged up to here; `cursor` follows.
    sent: Position,
}

/// A message, and the place in the log that it stands for.
struct Item {
    message: Message,
    place: Option<(usize, Position)>,
}

impl Forward {
    /// Opens readers and cursors.
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
        let mut lanes = Vec::new();
        for name in ORDER {
            let cursor = log.cursor(&format!("forward-{name}"))?;
            let sent = cursor.position().unwrap_or_else(|| log.start(name));
            hold.forward_stored(name, sent);
            status.acknowledged(name, sent);
            lanes.push(Lane { name, reader: log.reader(name)?, cursor, sent });
        }
        let sender = Sender { gateway: config.gateway.id.clone(), topic_prefix: kafka.topic_prefix.clone() };
        let gateway = config.gateway.clone();
        Ok(Self {
            kafka,
            gateway,
            sender,
            log,
            appender,
            lanes,
            hold,
            status,
            stored_at: clock.monotonic(),
            clock,
            heartbeat_at: None,
            assets_sent: BTreeMap::new(),
            baselines_sent: BTreeSet::new(),
        })
    }

    /// Runs until `stop` and then until the log is empty, the grace is over or Kafka is away.
    ///
    /// # Errors
    /// [`BufferError`] if the log cannot be read or a cursor cannot be stored.
    pub fn run(mut self, stop: &Stop) -> Result<(), BufferError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut last_problem = String::new();
        loop {
            match Destination::open(&self.kafka, &self.gateway.id) {
                Ok(destination) => {
                    info!(brokers = %self.kafka.brokers, "Kafka connected");
                    self.status.set_link(Link::Connected);
                    backoff.reset();
                    last_problem.clear();
                    // The latest values may have been lost with the connection.
                    (self.heartbeat_at, self.assets_sent, self.baselines_sent) = (None, BTreeMap::new(), BTreeSet::new());
                    if self.deliver(&destination, stop)? {
                        break;
                    }
                    self.status.set_link(Link::Reconnecting);
                    warn!(brokers = %self.kafka.brokers, "Kafka did not take a batch, connecting again; nothing is lost");
                }
                Err(problem) => self.report(&problem, &mut last_problem),
            }
            if stop.wait(backoff.next_wait()) {
                break;
            }
        }
        self.store()
    }

    /// The same problem is logged once, however often it is met.
    fn report(&self, problem: &DestinationError, last: &mut String) {
        self.status.set_link(match problem {
            DestinationError::Unreachable { .. } => Link::Reconnecting,
            DestinationError::Client { .. } | DestinationError::TopicsMissing { .. } => Link::Blocked,
        });
        let text = problem.to_string();
        if *last != text {
            match problem {
                DestinationError::Unreachable { source, .. } => warn!(%source, "{text}, trying again; readings stay in the buffer"),
                DestinationError::Client { source, .. } => error!(%source, "{text}; readings stay in the buffer"),
                DestinationError::TopicsMissing { .. } => error!("{text}; readings stay in the buffer"),
            }
            *last = text;
        }
    }

    /// Sends until stopped (true) or until a batch fails (false).
    fn deliver(&mut self, destination: &Destination, stop: &Stop) -> Result<bool, BufferError> {
        let mut deadline = None;
        loop {
            if deadline.is_none() && stop.requested() {
                deadline = Some(self.clock.monotonic() + GRACE);
            }
            let mut items = self.latest_values();
            self.gather(&mut items)?;
            if items.is_empty() {
                if stop.requested() {
                    return Ok(true);
                }
                let inputs = self.lanes.last().map_or(Position::default(), |lane| lane.sent);
                self.log.wait(LaneName::Inputs, inputs, IDLE);
            } else {
                let (messages, places): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.message, item.place)).unzip();
                let outcomes = destination.send(&messages, stop);
                if !self.settle(&messages, &places, &outcomes) {
                    self.store()?;
                    return Ok(false);
                }
            }
            if self.clock.monotonic().saturating_sub(self.stored_at) >= STORE_EVERY {
                self.store()?;
            }
            if deadline.is_some_and(|deadline| self.clock.monotonic() > deadline) {
                warn!("stopping with records in the buffer; they are sent after the next start");
                return Ok(true);
            }
        }
    }

    /// Fills the batch from the lanes, in their order.
    fn gather(&mut self, items: &mut Vec<Item>) -> Result<(), BufferError> {
        let (mut records, mut bytes) = (self.kafka.batch_records, self.kafka.batch_bytes);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if records == 0 || bytes == 0 {
                break;
            }
            // The log's encoding is about a fifth of the JSON; the budget is in JSON bytes.
            for (position, entry) in lane.reader.read(lane.sent, records, bytes / 5)? {
                let inc = self.log.incarnation_id(position.ordinal).unwrap_or_default().to_string();
                let message = self.sender.message(lane.name, position, &inc, &entry);
                records -= 1;
                bytes = bytes.saturating_sub(message.value.len());
                items.push(Item { message, place: Some((index, position)) });
            }
        }
        Ok(())
    }

    /// Heartbeat, changed assets and new baselines; outside the sequence, so they need no place.
    fn latest_values(&mut self) -> Vec<Item> {
        let now = self.clock.monotonic();
        if self.heartbeat_at.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.heartbeat_at = Some(now + self.gateway.heartbeat_every);
        let at = self.clock.now();
        let inc = self.log.incarnation().id.to_string();
        let stamp = gateway_stamp(at.ts, at.state, self.gateway.origin);
        let heartbeat = self.status.heartbeat(&self.gateway);
        let mut messages = vec![self.sender.compacted(topics::GATEWAYS, self.gateway.id.clone(), &inc, None, &stamp, heartbeat)];
        for (id, asset) in self.status.assets() {
            if self.assets_sent.get(&id) != Some(&asset) {
                messages.push(self.sender.compacted(topics::ASSETS, id.clone(), &inc, Some(id.clone()), &stamp, &asset));
                self.assets_sent.insert(id, asset);
            }
        }
        for (asset, baseline) in self.status.baselines() {
            if self.baselines_sent.insert((asset.clone(), baseline.baseline_id.clone())) {
                let key: Name = format!("{asset}/{}", baseline.baseline_id).into();
                messages.push(self.sender.compacted(topics::BASELINES, key, &inc, Some(asset), &stamp, &*baseline));
            }
        }
        messages.into_iter().map(|message| Item { message, place: None }).collect()
    }

    /// Moves each lane up to its first record that was not taken. False if any record of a lane must be sent again.
    fn settle(&mut self, messages: &[Message], places: &[Option<(usize, Position)>], outcomes: &[Outcome]) -> bool {
        let mut stuck = vec![false; self.lanes.len()];
        let mut failed = false;
        for ((message, place), outcome) in messages.iter().zip(places).zip(outcomes) {
            let Some((index, position)) = *place else {
                failed |= *outcome == Outcome::Failed;
                continue;
            };
            let passed = match outcome {
                Outcome::Delivered => true,
                Outcome::Refused => self.name_gap(self.lanes[index].name, position, message),
                Outcome::Failed => false,
            };
            stuck[index] |= !passed;
            if !stuck[index] {
                self.lanes[index].sent = position;
                if *outcome == Outcome::Delivered {
                    self.status.delivered(1);
                }
            }
        }
        for lane in &self.lanes {
            self.status.acknowledged(lane.name, lane.sent);
        }
        !failed && !stuck.contains(&true)
    }

    /// A record that Kafka refuses for good is named in a gap, durably, before it is passed over. False if the log is closed.
    fn name_gap(&self, lane: LaneName, position: Position, message: &Message) -> bool {
        let at = self.clock.now();
        let mut event = topics::Event::new(EventKind::Gap);
        event.gap_lane = Some(lane);
        event.gap_inc = self.log.incarnation_id(position.ordinal).map(|id| id.to_string().into());
        event.gap_from_seq = Some(position.seq);
        event.gap_to_seq = Some(position.seq);
        event.gap_bytes = Some(message.value.len() as u64);
        event.gap_reason = Some(GapReason::Refused);
        event.text = Some(format!("Kafka refused record {} of lane {lane} on {}", position.seq, message.topic).into());
        let entry = Entry { stamp: gateway_stamp(at.ts, at.state, self.gateway.origin), cause: None, body: Body::Event(event.into()) };
        let named = self.appender.blocking_append_durably(LaneName::Events, vec![entry], true).is_ok();
        if named {
            self.status.gap(1);
            error!(
                lane = lane.as_str(),
                seq = position.seq,
                topic = message.topic,
                bytes = message.value.len(),
                "Kafka refuses a record for good; it is named in a gap"
            );
        }
        named
    }

    /// Stores the cursors that moved and gives back what nobody needs any more.
    fn store(&mut self) -> Result<(), BufferError> {
        self.stored_at = self.clock.monotonic();
        for lane in &mut self.lanes {
            if lane.cursor.position() != Some(lane.sent) {
                lane.cursor.store(lane.sent)?;
                self.hold.forward_stored(lane.name, lane.sent);
            }
        }
        Ok(())
    }
}
