//! MQTT v5 sources: the only file that names the client.
//!
//! Three parts, joined by bounded channels. [`Poll`] owns the connection and does nothing but receive; [`Decode`], on a thread of its own, turns
//! messages into entries and hands them to the log; [`Acknowledge`] tells the broker once they are durable, and only on the connection on which
//! they came: on a later one the broker sends them again anyway.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{LaneName, Quality};
use rumqttc::Outgoing;
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::{
    counters::SourceCounters,
    decode::{DecodeError, json},
    registry::{Context, Intake},
    template::Template,
};
use crate::{
    backoff::Backoff,
    buffer::commit::{Append, AppendError, Appender, Committed},
    clock::Clock,
    config::{Credentials, Mqtt},
};

/// Largest message that is decoded; a larger one is counted and acknowledged.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// Largest packet, stated to the broker when connecting; the client's own default of 10 KiB would cut off waveform blocks. A broker drops what is larger
/// without a word to anyone, so the limit stands well above [`MAX_MESSAGE_BYTES`]: what exceeds that one arrives, and is counted.
const MAX_PACKET_BYTES: u32 = 2 << 20;
/// Messages that the broker may send ahead of our acknowledgement; the bytes in flight are bounded apart from it.
const RECEIVE_MAXIMUM: u16 = u16::MAX;
/// Acknowledgements waiting for the connection's task.
const REQUESTS: usize = 4_096;
/// Messages between polling and decoding. The window in bytes is what bounds them in practice.
const MESSAGES: usize = 16_384;
/// Appends whose messages are durable and wait to be acknowledged: the broker sends no more than [`RECEIVE_MAXIMUM`] messages ahead, and what waits
/// from an earlier connection is only counted.
const DURABLE: usize = 2 * RECEIVE_MAXIMUM as usize;
/// Messages that become one append at most.
const BATCH_MESSAGES: usize = 1_024;
/// For saying goodbye to a broker when stopping.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A message weighs at least this much of the window: its own bytes are not all it takes.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// A message on its way to the log.
struct Received {
    publish: Publish,
    generation: u64,
    window: OwnedSemaphorePermit,
}

/// What is left of a message once it is durable and its bytes are given back: what the broker waits for.
struct Durable {
    packet_id: u16,
    qos: QoS,
    generation: u64,
}

/// Receives.
pub struct Poll {
    config: Mqtt,
    client: AsyncClient,
    events: EventLoop,
    templates: Arc<Vec<Template>>,
    window: Arc<Semaphore>,
    window_bytes: usize,
    generation: Arc<AtomicU64>,
    messages: mpsc::Sender<Received>,
    /// Set when the last acknowledgement has been handed to the client.
    acknowledged: CancellationToken,
    /// That the broker is away was logged since it was last there.
    absence_logged: bool,
    counters: Arc<SourceCounters>,
}

/// Decodes and appends.
pub struct Decode {
    templates: Arc<Vec<Template>>,
    intake: Intake,
    clock: Clock,
    appender: Appender,
    messages: mpsc::Receiver<Received>,
    durable: mpsc::Sender<Vec<Durable>>,
    window: Arc<Semaphore>,
    window_bytes: usize,
    counters: Arc<SourceCounters>,
}

/// Acknowledges.
pub struct Acknowledge {
    client: AsyncClient,
    durable: mpsc::Receiver<Vec<Durable>>,
    generation: Arc<AtomicU64>,
    /// Says so when it is dropped, which is at the end in any case.
    _acknowledged: DropGuard,
    counters: Arc<SourceCounters>,
}

/// The three parts of one broker's source.
pub fn open(
    config: &Mqtt,
    intake: Intake,
    appender: Appender,
    clock: Clock,
    in_flight_bytes: usize,
    counters: Arc<SourceCounters>,
) -> (Poll, Decode, Acknowledge) {
    let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX)));
    options.set_manual_acks(true);
    options.set_max_packet_size(Some(MAX_PACKET_BYTES));
    options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
    options.set_keep_alive(Duration::from_secs(30));
    options.set_connection_timeout(10);
    if let Some(Credentials { username, password }) = &config.credentials {
        options.set_credentials(username, password);
    }
    let (client, events) = AsyncClient::new(options, REQUESTS);
    let templates = Arc::new(config.topics.iter().cloned().map(Template::new).collect::<Vec<_>>());
    let (messages_tx, messages) = mpsc::channel(MESSAGES);
    let (durable_tx, durable) = mpsc::channel(DURABLE);
    let generation = Arc::new(AtomicU64::new(0));
    let acknowledged = CancellationToken::new();
    let window = Arc::new(Semaphore::new(in_flight_bytes));
    let poll = Poll {
        config: config.clone(),
        client: client.clone(),
        events,
        templates: templates.clone(),
        window: window.clone(),
        window_bytes: in_flight_bytes,
        generation: generation.clone(),
        messages: messages_tx,
        acknowledged: acknowledged.clone(),
        absence_logged: false,
        counters: counters.clone(),
    };
    let decode = Decode {
        templates,
        intake,
        clock,
        appender,
        messages,
        durable: durable_tx,
        window,
        window_bytes: in_flight_bytes,
        counters: counters.clone(),
    };
    (poll, decode, Acknowledge { client, durable, generation, _acknowledged: acknowledged.drop_guard(), counters })
}

impl Received {
    /// Gives back its bytes. `None` if the broker waits for nothing.
    fn release(self, counters: &SourceCounters) -> Option<Durable> {
        counters.in_flight_bytes.fetch_sub(self.window.num_permits() as u64, Ordering::Relaxed);
        let Publish { pkid, qos, .. } = self.publish;
        (qos != QoS::AtMostOnce).then_some(Durable { packet_id: pkid, qos, generation: self.generation })
    }
}

impl Poll {
    /// Runs until `stop`; connects again by itself. The session stays on the broker.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = self.events.poll() => event,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    backoff.reset();
                    self.connected(ack.session_present);
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => self.subscribed(&ack.return_codes),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let received = tokio::select! {
                        () = stop.cancelled() => break,
                        received = self.admit(publish) => received,
                    };
                    if received.is_err() {
                        break; // Decoding has ended: the agent is stopping.
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    self.disconnected(&error);
                    if tokio::time::timeout(backoff.next_wait(), stop.cancelled()).await.is_ok() {
                        break;
                    }
                }
            }
        }
        let counters = self.counters.clone();
        self.leave().await;
        counters.connected.store(false, Ordering::Relaxed);
    }

    /// Goes on long enough to tell the broker what became durable, then disconnects; the session stays. What arrives meanwhile is not
    /// acknowledged, so the broker sends it again after the next start.
    async fn leave(self) {
        let Self { mut events, client, messages, acknowledged, .. } = self;
        drop(messages);
        let farewell = async {
            let mut said = false;
            loop {
                tokio::select! {
                    () = acknowledged.cancelled(), if !said => said = client.try_disconnect().is_ok(),
                    event = events.poll() => if event.is_err() || matches!(event, Ok(Event::Outgoing(Outgoing::Disconnect))) { return },
                }
            }
        };
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, farewell).await;
    }

    fn connected(&mut self, session_present: bool) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.absence_logged = false;
        info!(source = %self.config.name, host = %self.config.host, port = self.config.port, session_present, "broker connected");
        // Subscribing again is harmless, and needed where the broker lost the session. One packet for all filters, so that one answer tells of
        // all. `try`: the queue is empty after a connect.
        // A retained message comes with a new subscription alone, or it would be stored again at every connection.
        let filter = |path: String| Filter { retain_forward_rule: RetainForwardRule::OnNewSubscribe, ..Filter::new(path, QoS::AtLeastOnce) };
        let filters = self.templates.iter().map(|template| filter(template.filter()));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            warn!(source = %self.config.name, %error, "subscription could not be queued");
        }
    }

    /// Only now does the broker keep messages for us; before, "connected" would promise too much. The codes are in the order of the filters.
    fn subscribed(&mut self, codes: &[SubscribeReasonCode]) {
        let refused = refused(&self.templates, codes);
        if refused.is_empty() {
            return self.counters.connected.store(true, Ordering::Relaxed);
        }
        self.counters.count("connection", "subscription_refused", refused.len() as u64);
        error!(source = %self.config.name, refused = refused.join(", "), "the broker does not grant QoS 1 on these topics; its access list must allow `{}` to read them", self.config.client_id);
    }

    fn disconnected(&mut self, error: &rumqttc::v5::ConnectionError) {
        // An older generation ends here, also for acknowledgements that are on their way.
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.counters.connected.store(false, Ordering::Relaxed);
        if !std::mem::replace(&mut self.absence_logged, true) {
            warn!(source = %self.config.name, host = %self.config.host, port = self.config.port, %error, "broker not connected, trying again");
        }
        // A broker that sends more than it was told to takes the connection down with it, each time; the client says so only in words.
        if error.to_string().to_ascii_lowercase().contains("payload size") {
            self.counters.rejected(DecodeError::TooLarge);
        }
        self.counters.count("connection", "lost", 1);
    }

    /// Waits for room in the window. While it waits nothing is polled, so the broker is held back by TCP and by its own in-flight limit.
    async fn admit(&mut self, publish: Publish) -> Result<(), ()> {
        self.counters.received(publish.payload.len());
        let weight = (publish.payload.len() + publish.topic.len() + MESSAGE_OVERHEAD_BYTES).min(self.window_bytes);
        let window = self.window.clone().acquire_many_owned(u32::try_from(weight).unwrap_or(u32::MAX)).await.map_err(|_| ())?;
        self.counters.in_flight_bytes.fetch_add(window.num_permits() as u64, Ordering::Relaxed);
        let generation = self.generation.load(Ordering::Relaxed);
        self.messages.send(Received { publish, generation, window }).await.map_err(|_| ())
    }
}

/// The filters on which the broker does not grant QoS 1, with its reason.
fn refused(templates: &[Template], codes: &[SubscribeReasonCode]) -> Vec<String> {
    let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce));
    let refused = templates.iter().zip(codes).filter(|(_, code)| !granted(code));
    refused.map(|(template, code)| format!("{} ({code:?})", template.filter())).collect()
}

impl Decode {
    /// Runs on its own thread until polling ends or the log is closed.
    pub fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MESSAGES);
        while self.messages.blocking_recv_many(&mut batch, BATCH_MESSAGES) > 0 {
            let mut entries = Vec::with_capacity(batch.len());
            let now = self.clock.now();
            for received in &batch {
                if let Err(error) = self.decode(&received.publish, &now, &mut entries) {
                    self.counters.rejected(error);
                }
            }
            let readings = entries.len() as u64;
            let (durable, counters) = (self.durable.clone(), self.counters.clone());
            let messages = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_MESSAGES));
            // Also for a batch without entries: what cannot be decoded is acknowledged, in its turn, or it would come again for ever.
            let done = move |outcome: Result<Committed, AppendError>| {
                match outcome {
                    Ok(_) => counters.accepted.fetch_add(readings, Ordering::Relaxed),
                    Err(_) => {
                        counters.rejected(DecodeError::TooLarge);
                        0
                    }
                };
                // The window is given back here and not with the acknowledgement: acknowledgements wait for polling, and polling waits for the window.
                let durable_messages: Vec<Durable> = messages.into_iter().filter_map(|received| received.release(&counters)).collect();
                // Cannot be full, see DURABLE. Closed means that the agent stops.
                if !durable_messages.is_empty() {
                    let _ = durable.try_send(durable_messages);
                }
            };
            // A sender whose window is nearly used up stands still until the commit: then it must not wait for others.
            let urgent = self.window.available_permits() < self.window_bytes / 4;
            if self
                .appender
                .blocking_append(Append { lane: LaneName::Inputs, entries, marks: Vec::new(), urgent, done: Some(Box::new(done)) })
                .is_err()
            {
                break;
            }
        }
    }

    fn decode(&mut self, publish: &Publish, now: &crate::clock::Now, entries: &mut Vec<crate::record::Entry>) -> Result<(), DecodeError> {
        if publish.payload.len() > MAX_MESSAGE_BYTES {
            return Err(DecodeError::TooLarge);
        }
        let topic = std::str::from_utf8(&publish.topic).map_err(|_| DecodeError::NotUtf8)?;
        let matched = self.templates.iter().find_map(|template| Some((template, template.captures(topic)?)));
        let (template, captures) = matched.ok_or(DecodeError::WrongShape)?;
        if publish.qos == QoS::AtMostOnce {
            // Nobody sends it again: what the source says of its guarantee does not hold for these.
            self.counters.count("message", "qos_0", 1);
        }
        if publish.retain {
            // The last known value is not a fresh one; its own time says when it was measured, and without one it is uncertain.
            self.counters.count("message", "retained", 1);
        }
        let context =
            Context { asset: captures.asset.or(template.topic.asset.as_deref()), point: captures.point.or(template.topic.point.as_deref()) };
        for sample in json::decode(&publish.payload, &template.topic.shape)? {
            match sample {
                Ok(mut sample) => {
                    if publish.retain && sample.time.is_none() {
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

impl Acknowledge {
    /// Runs until decoding has ended and everything durable is acknowledged.
    pub async fn run(mut self) {
        while let Some(messages) = self.durable.recv().await {
            for Durable { packet_id, qos, generation } in messages {
                if generation == self.generation.load(Ordering::Relaxed) {
                    // The client takes the whole message and looks at these two.
                    if self.client.ack(&Publish { pkid: packet_id, qos, ..Publish::default() }).await.is_err() {
                        return; // The connection's task has ended.
                    }
                    self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.counters.count("acknowledgement", "older_connection", 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Shape, Topic};

    #[test]
    fn a_filter_without_qos_1_counts_as_refused() {
        let template = |text: &str| Template::new(Topic { template: text.into(), shape: Shape::default(), asset: None, point: None });
        let templates = ["hall/{asset}/{point}", "yard/#", "roof/+"].map(template);
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        assert_eq!(refused(&templates, &[granted; 3]), [""; 0]);
        let codes = [granted, SubscribeReasonCode::NotAuthorized, SubscribeReasonCode::Success(QoS::AtMostOnce)];
        assert_eq!(refused(&templates, &codes), ["yard/# (NotAuthorized)", "roof/+ (Success(AtMostOnce))"]);
    }
}
