//! What goes into the next transaction, read from the lanes in their order and wholly in memory before the transaction begins.
//!
//! A cursor passes a gap only in the transaction that carries the event which names it, or later. In the lane of the events alone it may be earlier:
//! there the event stands behind the gap, and where both do not fit into one transaction the lane must go on all the same.
use hark_protocol::topics::{EventKind, GapReason, LaneName, Name};

use super::{
    cursor::{Disk, PerLane},
    message::{Message, Sender},
};
use crate::{
    buffer::{BufferError, FollowError, Followed, Follower, Log, Position, commit::Appender},
    record::{Body, Entry},
};

/// Which lanes go together, in the order of sending: what a person must know first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Events and alarms.
    Urgent,
    /// Predictions and inputs.
    Bulk,
}

impl Group {
    fn lanes(self) -> [LaneName; 2] {
        match self {
            Self::Urgent => [LaneName::Events, LaneName::Alarms],
            Self::Bulk => [LaneName::Predictions, LaneName::Inputs],
        }
    }
}

/// How much may go into a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most records.
    pub records: usize,
    /// About so many bytes of JSON.
    pub bytes: usize,
    /// More records may go if an event is to be reached. Not while small batches are needed to find a record that Kafka refuses.
    pub may_grow: bool,
}

/// Messages, and where the lanes stand when Kafka has them.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order.
    pub messages: Vec<Message>,
    /// Where each message stands in the log.
    pub places: Vec<(LaneName, Position)>,
    /// Places of all lanes after it.
    pub reached: PerLane<Position>,
    /// Bytes of JSON.
    pub bytes: usize,
    /// A limit ended it: more waits.
    pub full: bool,
}

/// A way to read a lane: after a place, at most so many records and bytes.
type Read = fn(&mut Follower, Position, usize, usize) -> Result<Followed, FollowError>;

/// A batch that was read before its turn.
pub(super) struct Ahead {
    group: Group,
    from: PerLane<Position>,
    /// See [`Log::gaps_named`].
    gaps_named: u64,
    pub(super) batch: Batch,
}

/// The lanes as forward reads them.
pub struct Lanes {
    log: Log,
    disk: Disk,
    sender: Sender,
    followers: PerLane<Follower>,
    /// Where Kafka has each.
    at: PerLane<Position>,
    pub(super) ahead: Option<Ahead>,
    /// The last incarnation met, as it stands in records.
    incarnation: (u32, Name),
}

impl Lanes {
    /// Opens a reader per lane, at `at`.
    ///
    /// # Errors
    /// [`BufferError`] if the log refuses.
    pub fn new(log: Log, appender: &Appender, sender: Sender, at: PerLane<Position>) -> Result<Self, BufferError> {
        let [a, b, c, d] = LaneName::ALL.map(|lane| Follower::new(&log, lane, appender.clone()));
        let disk = Disk::of(&log);
        Ok(Self { followers: [a?, b?, c?, d?], log, disk, sender, at, ahead: None, incarnation: (0, "".into()) })
    }

    /// Where Kafka has each lane.
    pub fn at(&self) -> PerLane<Position> {
        self.at
    }

    /// Kafka has the lanes up to here.
    pub fn reached(&mut self, reached: PerLane<Position>) {
        self.at = reached;
    }

    /// The incarnations on this disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Reads the next batch of `group`.
    ///
    /// # Errors
    /// [`FollowError`]; nothing moved.
    pub fn gather(&mut self, group: Group, limits: Limits) -> Result<Batch, FollowError> {
        match self.ahead.take_if(|ahead| ahead.group == group) {
            Some(ahead) if self.is_next(&ahead, limits) => {
                let mut batch = ahead.batch;
                let others = LaneName::ALL.into_iter().filter(|lane| !group.lanes().contains(lane));
                others.for_each(|lane| batch.reached[lane as usize] = self.at[lane as usize]);
                Ok(batch)
            }
            _ => self.gather_from(self.at, group, limits, Follower::read),
        }
    }

    /// Reads the batch of `group` after the one that ends at `reached`, while that is on its way. What cannot be read is met in its turn, and what is not
    /// full may have become more by then.
    pub fn read_ahead(&mut self, reached: PerLane<Position>, group: Group, limits: Limits) {
        let gaps_named = self.log.gaps_named();
        // A transaction is open: nothing is waited for.
        let look = |follower: &mut Follower, at, records, bytes| Ok(follower.look(at, records, bytes)?);
        let batch = self.gather_from(reached, group, limits, look).ok().filter(|batch| batch.full);
        self.ahead = batch.map(|batch| Ahead { group, from: reached, gaps_named, batch });
    }

    /// Forgets what was read ahead: a connection is over, and the next one may be days away.
    pub fn forget_ahead(&mut self) {
        self.ahead = None;
    }

    /// It begins where Kafka stands, nothing was given up since, and it is not too large for `limits`.
    fn is_next(&self, ahead: &Ahead, limits: Limits) -> bool {
        ahead.group.lanes().iter().all(|&lane| ahead.from[lane as usize] == self.at[lane as usize])
            && ahead.gaps_named == self.log.gaps_named()
            && ahead.batch.messages.len() <= limits.records
            && ahead.batch.bytes <= limits.bytes.saturating_mul(2)
    }

    fn gather_from(&mut self, from: PerLane<Position>, group: Group, limits: Limits, read: Read) -> Result<Batch, FollowError> {
        let mut batch = Batch { reached: from, ..Batch::default() };
        for lane in group.lanes() {
            self.gather_lane(lane, limits, &mut batch, read)?;
        }
        Ok(batch)
    }

    fn gather_lane(&mut self, lane: LaneName, mut limits: Limits, batch: &mut Batch, read: Read) -> Result<(), FollowError> {
        loop {
            let records = limits.records.saturating_sub(batch.messages.len());
            if records == 0 || batch.bytes >= limits.bytes {
                batch.full = true;
                return Ok(());
            }
            let at = batch.reached[lane as usize];
            // The log's encoding is about a fifth of the JSON.
            match read(&mut self.followers[lane as usize], at, records.min(DECODED), (limits.bytes - batch.bytes).div_ceil(5))? {
                Followed::Records(records) if records.is_empty() => return Ok(()),
                Followed::Records(records) => records.into_iter().for_each(|(position, entry)| self.push(lane, position, entry, batch)),
                Followed::Gap(gap) => {
                    let event_on_its_way = gap.event <= batch.reached[LaneName::Events as usize];
                    if !event_on_its_way && lane != LaneName::Events {
                        return Ok(());
                    }
                    // The event that names a gap in the events themselves stands behind it: the batch goes on until it has the event, if the link takes
                    // that much at once. It follows in a later one else.
                    if !event_on_its_way && limits.may_grow {
                        limits = Limits { records: limits.records.max(MANY_EVENTS), ..limits };
                    }
                    batch.reached[lane as usize] = gap.to;
                }
            }
        }
    }

    fn push(&mut self, lane: LaneName, position: Position, mut entry: Entry, batch: &mut Batch) {
        if lane == LaneName::Events {
            self.trim_gap(&mut entry);
        }
        if self.incarnation.0 != position.ordinal {
            self.incarnation = (position.ordinal, self.log.incarnation_id(position.ordinal).unwrap_or_default().to_string().into());
        }
        let message = self.sender.message(lane, position, &self.incarnation.1, &entry);
        batch.bytes += message.value.len();
        batch.messages.push(message);
        batch.places.push((lane, position));
        batch.reached[lane as usize] = position;
    }

    /// Records that were in an open transaction when they were given up may have been delivered: the event names what Kafka's cursor does not have.
    fn trim_gap(&self, entry: &mut Entry) {
        let Body::Event(event) = &mut entry.body else { return };
        let (EventKind::Gap, Some(lane), Some(from), Some(to)) = (event.kind, event.gap_lane, event.gap_from_seq, event.gap_to_seq) else { return };
        // Events are read by forward alone: what it had on its way is never given up. And what was delivered elsewhere is not here.
        if lane == LaneName::Events || event.gap_reason == Some(GapReason::DeliveredElsewhere) {
            return;
        }
        let Some(ordinal) = event.gap_inc.as_deref().and_then(|inc| self.disk.ordinal(inc)) else { return };
        let at = self.at[lane as usize];
        let delivered_to = if at.ordinal == ordinal { at.seq } else { to * u64::from(at.ordinal > ordinal) };
        if delivered_to >= to {
            event.text = Some(format!("records {from} to {to} of lane {lane} were given up, but they had been delivered").into());
            (event.gap_lane, event.gap_inc, event.gap_from_seq, event.gap_to_seq) = (None, None, None, None);
            (event.gap_bytes, event.gap_reason) = (None, None);
        } else if delivered_to >= from {
            event.text =
                Some(format!("records {} to {to} of lane {lane} are lost; those from {from} on had been delivered", delivered_to + 1).into());
            event.gap_from_seq = Some(delivered_to + 1);
        }
    }

    /// Records of all lanes between the present places and `reached`.
    pub fn distance(&self, reached: PerLane<Position>) -> u64 {
        LaneName::ALL.iter().map(|&lane| self.disk.distance(lane, self.at[lane as usize], reached[lane as usize])).sum()
    }
}

/// Entries that are decoded at a time.
const DECODED: usize = 256;

/// As many events go into a batch at most that must reach the one which names a gap.
const MANY_EVENTS: usize = 16_000;
