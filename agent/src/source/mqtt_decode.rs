//! From the messages of an MQTT session to the log, on a thread of its own.
use std::sync::{Arc, atomic::Ordering};

use hark_protocol::topics::{LaneName, Quality};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    counters::SourceCounters,
    decode::{DecodeError, json},
    mqtt::Message,
    mqtt_session::{MqttSession, SESSION_BEGAN, Verdict, identity},
    registry::{Context, Intake},
    template::Template,
};
use crate::{
    buffer::{
        commit::{Append, AppendError, Appender, Committed},
        marks::{SourceMark, StoredMessage},
    },
    clock::{Clock, Now},
    record::Entry,
};

/// Largest message that is decoded; a larger one is counted and acknowledged.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// Messages that become one append at most.
const BATCH_MESSAGES: usize = 1_024;

/// What the connection tells, in the order in which it happened there.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are messages")]
pub(super) enum Received {
    /// A message on its way to the log.
    Message {
        /// As the client gave it.
        message: Message,
        /// Connection on which it came.
        generation: u64,
        /// Its share of the window.
        window: OwnedSemaphorePermit,
    },
    /// The broker knows nothing of the messages before.
    SessionBegan,
}

/// What is left of a message once it is durable and its bytes are given back: what the broker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) packet_id: u16,
    pub(super) generation: u64,
}

/// Decodes and appends.
pub struct Decode {
    pub(super) templates: Arc<Vec<Template>>,
    pub(super) intake: Intake,
    pub(super) session: MqttSession,
    pub(super) clock: Clock,
    pub(super) appender: Appender,
    pub(super) received: mpsc::Receiver<Received>,
    pub(super) durable: mpsc::Sender<Vec<Durable>>,
    pub(super) window: Arc<Semaphore>,
    pub(super) window_bytes: usize,
    pub(super) counters: Arc<SourceCounters>,
}

/// What a batch of messages becomes.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// What of it must be remembered.
    marks: Vec<StoredMessage>,
    /// What the broker waits for, in order of arrival. Also messages without entries: what cannot be decoded, and what is stored already, is acknowledged
    /// in its turn, or it would come again for ever.
    durable: Vec<Durable>,
    windows: Vec<OwnedSemaphorePermit>,
}

impl Decode {
    /// Runs on its own thread until polling ends or the log is closed.
    pub fn run(mut self) {
        let mut received = Vec::with_capacity(BATCH_MESSAGES);
        while self.received.blocking_recv_many(&mut received, BATCH_MESSAGES) > 0 {
            let now = self.clock.now();
            let mut batch = Batch::default();
            received.drain(..).for_each(|received| self.take(received, &now, &mut batch));
            if self.append(batch).is_err() {
                break;
            }
        }
    }

    fn take(&mut self, received: Received, now: &Now, batch: &mut Batch) {
        let (message, generation, window) = match received {
            Received::Message { message, generation, window } => (message, generation, window),
            Received::SessionBegan => {
                self.session = MqttSession::default();
                return batch.marks.push(SESSION_BEGAN);
            }
        };
        batch.windows.push(window);
        // A packet id is what the broker waits for; QoS 0 has none, and is never repeated.
        let identity = message.packet_id().map(|packet_id| identity(packet_id, message.topic(), message.payload()));
        batch.durable.extend(message.packet_id().map(|packet_id| Durable { packet_id, generation }));
        if identity.is_some_and(|identity| self.session.judge(identity, message.dup()) == Verdict::Repeated) {
            return self.counters.count("message", "repeated", 1);
        }
        let before = batch.entries.len();
        if let Err(error) = self.decode(&message, now, &mut batch.entries) {
            self.counters.rejected(error);
        }
        // What left nothing in the log leaves nothing that could be there twice.
        batch.marks.extend(identity.filter(|_| batch.entries.len() > before));
    }

    fn append(&self, batch: Batch) -> Result<(), AppendError> {
        let Batch { entries, marks, durable, windows } = batch;
        if entries.is_empty() && marks.is_empty() && windows.is_empty() {
            return Ok(());
        }
        let readings = entries.len() as u64;
        let marks = if marks.is_empty() { Vec::new() } else { vec![SourceMark::Mqtt { source: self.counters.name.clone(), messages: marks }] };
        let (acknowledge, counters) = (self.durable.clone(), self.counters.clone());
        let done = move |outcome: Result<Committed, AppendError>| {
            match outcome {
                Ok(_) => drop(counters.accepted.fetch_add(readings, Ordering::Relaxed)),
                // It will never fit: acknowledged, or it would come again for ever.
                Err(AppendError::Refused(_)) => counters.rejected(DecodeError::TooLarge),
                Err(AppendError::Stopped) => return,
            }
            // The window is given back here and not with the acknowledgement: acknowledgements wait for polling, and polling waits for the window.
            let bytes: usize = windows.iter().map(OwnedSemaphorePermit::num_permits).sum();
            counters.in_flight_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
            drop(windows);
            // Cannot be full, see `mqtt::DURABLE`. Closed means that the agent stops.
            if !durable.is_empty() {
                let _ = acknowledge.try_send(durable);
            }
        };
        // A sender whose window is nearly used up stands still until the commit: then it must not wait for others.
        let urgent = self.window.available_permits() < self.window_bytes / 4;
        self.appender.blocking_append(Append { lane: LaneName::Inputs, entries, marks, urgent, done: Some(Box::new(done)) })
    }

    fn decode(&mut self, message: &Message, now: &Now, entries: &mut Vec<Entry>) -> Result<(), DecodeError> {
        if message.payload().len() > MAX_MESSAGE_BYTES {
            return Err(DecodeError::TooLarge);
        }
        let topic = std::str::from_utf8(message.topic()).map_err(|_| DecodeError::NotUtf8)?;
        let matched = self.templates.iter().find_map(|template| Some((template, template.captures(topic)?)));
        let (template, captures) = matched.ok_or(DecodeError::WrongShape)?;
        if message.packet_id().is_none() {
            // Nobody sends it again: what the source says of its guarantee does not hold for these.
            self.counters.count("message", "qos_0", 1);
        }
        if message.retain() {
            // The last known value is not a fresh one; its own time says when it was measured, and without one it is uncertain.
            self.counters.count("message", "retained", 1);
        }
        let context = Context {
            asset: captures.asset.or(template.topic.asset.as_deref()),
            point: captures.point.or(template.topic.point.as_deref()),
            self_test: false,
        };
        for sample in json::decode(message.payload(), &template.topic.shape)? {
            match sample {
                Ok(mut sample) => {
                    if message.retain() && sample.time.is_none() {
                        sample.quality = sample.quality.max(Quality::Uncertain);
                    }
                    self.intake.take(sample, context, now, &self.counters, entries);
                }
                Err(error) => self.counters.rejected(error),
            }
        }
        Ok(())
    }
}
