//! One transaction: send, and what follows from the answer.
use std::time::Duration;

use hark_protocol::topics::{GapReason, LaneName};
use tracing::{error, warn};

use super::{
    Ended, Forward, Turn,
    batch::{Batch, Group, Limits},
    cursor::PerLane,
    delivery::{Failed, Failure},
    destination::{Destination, Progress, Session},
    kafka::TRANSACTION_TIMEOUT,
    message::Message,
};
use crate::{buffer::Position, config::Delivery, stop::Stop};

/// Most events and alarms in a transaction of their own.
const URGENT_RECORDS: usize = 100;

/// What a transaction carries.
#[derive(Clone, Copy, Default)]
struct Load<'a> {
    messages: &'a [Message],
    /// Of JSON.
    bytes: usize,
    /// Where the lanes stand after it; without this it moves no cursor.
    reached: Option<PerLane<Position>>,
    /// What comes after it, if more waits.
    next: Option<(Group, Limits)>,
}

impl<D: Destination> Forward<D> {
    /// Sends the next batch of `group`, if there is any.
    pub(super) fn send_group(&mut self, group: Group, session: &mut D::Session, stop: &Stop) -> Result<Turn, Ended> {
        let (most, search) = match group {
            Group::Urgent => (URGENT_RECORDS, &self.searches.urgent),
            Group::Bulk => (self.config.batch_records, &self.searches.bulk),
        };
        let limits = Limits { records: most.min(search.limit()), bytes: self.batch_bytes.get(), may_grow: search.limit() == usize::MAX };
        let batch = self.lanes.gather(group, limits)?;
        if batch.reached == self.lanes.at() {
            return Ok(Turn::default());
        }
        let began = self.clock.monotonic();
        let next = (batch.full && group == Group::Bulk).then_some((group, limits));
        let load = Load { messages: &batch.messages, bytes: batch.bytes, reached: Some(batch.reached), next };
        if let Err(failed) = self.transact(session, &load, stop)? {
            return Err(self.settle_failure(group, &batch, failed));
        }
        self.advance(batch.reached, Some(batch.messages.len() as u64), batch.bytes);
        let search = match group {
            Group::Urgent => &mut self.searches.urgent,
            Group::Bulk => &mut self.searches.bulk,
        };
        if search.delivered(batch.messages.len()) {
            warn!(records = search.limit(), "a topic takes no larger batches; raise its max.message.bytes to 1 MiB");
        }
        if group == Group::Bulk {
            self.pace.sent(began, batch.bytes, batch.full);
        }
        Ok(Turn { moved: true, full: batch.full })
    }

    /// Commits the cursors alone.
    pub(super) fn recommit(&mut self, session: &mut D::Session, stop: &Stop) -> Result<(), Ended> {
        self.transact(session, &Load { reached: Some(self.lanes.at()), ..Load::default() }, stop)?.map_err(Ended::Failed)
    }

    /// Sends the next of the latest values that are due; true if more are. They move no cursor.
    pub(super) fn send_latest(&mut self, session: &mut D::Session, stop: &Stop) -> Result<bool, Ended> {
        let messages = self.next_latest();
        if messages.is_empty() {
            return Ok(false);
        }
        let bytes = messages.iter().map(|message| message.value.len()).sum();
        if let Err(failed) = self.transact(session, &Load { messages: &messages, bytes, ..Load::default() }, stop)? {
            self.latest_failed = true;
            if let Failure::Refused(candidates) = &failed.failure {
                self.refuse_latest(&messages, candidates, &failed.text);
            }
            return Err(Ended::Failed(failed));
        }
        self.latest_failed = false;
        self.latest.sent(messages.len(), true);
        Ok(self.latest.has_more())
    }

    /// As many of the latest values that are due as go together.
    pub(super) fn next_latest(&mut self) -> Vec<Message> {
        self.latest.next(self.config.batch_records.min(self.searches.latest.limit()), self.batch_bytes.get())
    }

    /// One transaction, timed. The outer error: a new connection is wanted first.
    fn transact(&mut self, session: &mut D::Session, load: &Load<'_>, stop: &Stop) -> Result<Result<(), Failed>, Ended> {
        let Load { messages, bytes, reached, next } = *load;
        if self.suspicious || self.suspicion.disturbed(session.disturbances()) {
            return Err(Ended::Suspicious);
        }
        let exactly_once = self.config.delivery == Delivery::ExactlyOnce;
        let progress = reached.filter(|_| exactly_once).map(|reached| Progress {
            lanes: LaneName::ALL.map(|lane| self.cursor(lane, reached[lane as usize])),
            lineage: self.lineage_due.then(|| (self.log.incarnation(), self.lanes.disk().lineage())),
        });
        let began = self.clock.monotonic();
        let mut reading = Duration::ZERO;
        let sent = session.send(messages, progress.as_ref(), stop, &mut || {
            // A backlog: the disk and the encoder work while the network does.
            if let (Some(reached), Some((group, limits))) = (reached, next) {
                let began = self.clock.monotonic();
                self.lanes.read_ahead(reached, group, limits);
                reading = self.clock.monotonic().saturating_sub(began);
            }
        });
        let open_for = self.clock.monotonic().saturating_sub(began);
        // What the disk took says nothing of the link.
        let took = open_for.saturating_sub(reading);
        match sent {
            Ok(()) => {
                if reached.is_some() {
                    self.recovery.delivered();
                    self.status.forward(|numbers| numbers.transactions += 1);
                    (self.lineage_due, self.committed_at) = (false, began);
                }
                self.batch_bytes.took(bytes, took);
                self.suspicious = self.suspicion.took(bytes, took) && exactly_once;
                Ok(Ok(()))
            }
            Err(mut failed) => {
                if reached.is_some() {
                    self.status.forward(|numbers| numbers.aborted += 1);
                }
                if !matches!(failed.failure, Failure::Refused(_)) {
                    self.batch_bytes.failed();
                }
                // The broker gave up a transaction that took too long: that looks like a rival and is none.
                if failed.failure == Failure::Fenced && open_for >= TRANSACTION_TIMEOUT.mul_f64(0.8) {
                    failed.failure = Failure::Again;
                }
                Ok(Err(failed))
            }
        }
    }

    /// A batch failed: what was taken all the same is passed, and a record that is refused for good is named in a gap.
    fn settle_failure(&mut self, group: Group, batch: &Batch, failed: Failed) -> Ended {
        let mut reached = self.lanes.at();
        batch.places[..failed.taken].iter().for_each(|(lane, position)| reached[*lane as usize] = *position);
        self.advance(reached, Some(failed.taken as u64), 0);
        let Failure::Refused(candidates) = &failed.failure else { return Ended::Failed(failed) };
        let search = match group {
            Group::Urgent => &mut self.searches.urgent,
            Group::Bulk => &mut self.searches.bulk,
        };
        let Some(index) = search.refused(candidates) else { return Ended::Failed(failed) };
        let ((lane, position), message) = (batch.places[index], &batch.messages[index]);
        error!(
            lane = lane.as_str(),
            %position,
            topic = &*message.topic,
            bytes = message.value.len(),
            said = failed.text,
            "Kafka refuses a record for good; it is named in a gap and kept under refused/"
        );
        self.status.forward(|numbers| numbers.refused += 1);
        if let Err(source) = self.refused.keep(lane, position, message, &failed.text) {
            warn!(%source, "a refused record could not be kept");
        }
        match self.appender.blocking_name_gap(lane, position, position, GapReason::Refused) {
            Ok(()) => Ended::Failed(failed),
            Err(_) => Ended::Stopped,
        }
    }

    /// A latest value that Kafka refuses is left out from now on: its next one may be smaller, but nothing waits for it.
    fn refuse_latest(&mut self, messages: &[Message], candidates: &[usize], said: &str) {
        if let Some(message) = self.searches.latest.refused(candidates).and_then(|index| messages.get(index)) {
            error!(topic = &*message.topic, key = &*message.key, bytes = message.value.len(), said, "Kafka refuses a latest value; it is left out");
            self.status.forward(|numbers| numbers.refused += 1);
            self.latest.leave_out(message);
        }
    }
}
