//! MQTT v5 sources. Only this file and `annunciate/mqtt.rs` name the client.
//!
//! Two parts, joined by bounded channels. [`Poll`] owns the connection: it receives, and tells the broker what is durable, only on the connection on
//! which it came (on a later one the broker sends it again anyway). [`Decode`], on a thread of its own, turns messages into entries, knows what is
//! stored already, and hands the rest to the log.
//!
//! When the log takes nothing for some seconds, [`Poll`] leaves the broker without a word, which keeps the session, and comes back when there is room.
use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rumqttc::Outgoing;
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode},
    },
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use super::mqtt_decode::{Decode, MAX_MESSAGE_BYTES};
use super::{
    counters::SourceCounters,
    decode::DecodeError,
    mqtt_decode::{Durable, Received},
    mqtt_session::MqttSession,
    registry::Intake,
    template::Template,
};
use crate::{
    backoff::Backoff,
    buffer::{
        commit::Appender,
        marks::{MESSAGES_MAX, StoredMessage},
    },
    clock::Clock,
    config::{Credentials, Mqtt},
};

/// Largest packet, stated to the broker when connecting; the client's own default of 10 KiB would cut off waveform blocks. A broker drops what is larger
/// without a word to anyone, so the limit stands well above [`MAX_MESSAGE_BYTES`]: what exceeds that one arrives, and is counted.
const MAX_PACKET_BYTES: u32 = 2 << 20;
/// Messages that the broker may send ahead of our acknowledgement: as many as are remembered, so that each of them is known when it comes again. The
/// bytes in flight are bounded apart from it.
const RECEIVE_MAXIMUM: u16 = MESSAGES_MAX as u16;
const _: () = assert!(MESSAGES_MAX <= u16::MAX as usize);
/// Acknowledgements waiting for the socket.
const REQUESTS: usize = 4_096;
/// Messages between polling and decoding. The window in bytes is what bounds them in practice.
const MESSAGES: usize = 16_384;
/// Appends whose messages are durable and wait to be acknowledged: the broker sends no more than [`RECEIVE_MAXIMUM`] messages ahead, and what waits
/// from earlier connections is only counted. There is no more of that than the window holds.
const DURABLE: usize = 2 * u16::MAX as usize;
/// For saying goodbye to a broker when stopping.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A message weighs at least this much of the window: its own bytes are not all it takes.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 512;
/// Between two pings.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A connection that ends earlier counts as a try that failed.
const LASTS: Duration = Duration::from_secs(10);
/// So long the window may keep the connection from being served. Then we leave by ourselves: a broker that hears nothing for one and a half
/// [`KEEP_ALIVE`] breaks the connection, and until then it fills buffers that nobody reads.
const HELD_UP_MAX: Duration = Duration::from_secs(10);

/// A message as the client gives it.
pub(super) struct Message(Publish);

impl Message {
    /// `None` for QoS 0: nobody waits for its acknowledgement.
    pub(super) fn packet_id(&self) -> Option<u16> {
        (self.0.qos != QoS::AtMostOnce).then_some(self.0.pkid)
    }

    /// The broker says that it sent it before.
    pub(super) fn dup(&self) -> bool {
        self.0.dup
    }

    pub(super) fn retain(&self) -> bool {
        self.0.retain
    }

    pub(super) fn topic(&self) -> &[u8] {
        &self.0.topic
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.0.payload
    }
}

/// Receives and acknowledges.
pub struct Poll {
    config: Mqtt,
    client: AsyncClient,
    events: EventLoop,
    templates: Arc<Vec<Template>>,
    clock: Clock,
    window: Arc<Semaphore>,
    window_bytes: usize,
    /// When the connection was last served: read from and written to.
    served_at: Duration,
    pub(super) held_up_max: Duration,
    /// Counts connections.
    generation: u64,
    /// Whether that connection is up. Events of a lost one may still come before the next one is told of: the client keeps them.
    up: bool,
    /// Since when it is.
    connected_at: Duration,
    /// Messages that came over it and are not acknowledged.
    unacknowledged: u64,
    /// `None` when leaving.
    received: Option<mpsc::Sender<Received>>,
    acks: Acks,
    /// That the broker is away was logged since it was last there.
    absence_logged: bool,
    counters: Arc<SourceCounters>,
}

/// What is durable and waits for the client.
struct Acks {
    durable: mpsc::Receiver<Vec<Durable>>,
    waiting: VecDeque<Durable>,
    /// Nothing more will become durable.
    complete: bool,
    farewell_said: bool,
}

/// The two parts of one broker's source. `stored`: what the log tells of its session.
pub fn open(
    config: &Mqtt,
    intake: Intake,
    appender: Appender,
    clock: Clock,
    in_flight_bytes: usize,
    stored: &[StoredMessage],
    counters: Arc<SourceCounters>,
) -> (Poll, Decode) {
    let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX)));
    options.set_manual_acks(true);
    options.set_max_packet_size(Some(MAX_PACKET_BYTES));
    options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
    options.set_keep_alive(KEEP_ALIVE);
    options.set_connection_timeout(10);
    if let Some(Credentials { username, password }) = &config.credentials {
        options.set_credentials(username, password);
    }
    let (client, events) = AsyncClient::new(options, REQUESTS);
    let templates = Arc::new(config.topics.iter().cloned().map(Template::new).collect::<Vec<_>>());
    let (received_tx, received) = mpsc::channel(MESSAGES);
    let (durable_tx, durable) = mpsc::channel(DURABLE);
    let window = Arc::new(Semaphore::new(in_flight_bytes));
    let poll = Poll {
        config: config.clone(),
        client,
        events,
        templates: templates.clone(),
        served_at: clock.monotonic(),
        held_up_max: HELD_UP_MAX,
        clock: clock.clone(),
        window: window.clone(),
        window_bytes: in_flight_bytes,
        generation: 0,
        up: false,
        connected_at: Duration::ZERO,
        unacknowledged: 0,
        received: Some(received_tx),
        acks: Acks { durable, waiting: VecDeque::new(), complete: false, farewell_said: false },
        absence_logged: false,
        counters: counters.clone(),
    };
    let session = MqttSession::restore(stored);
    let window_bytes = in_flight_bytes;
    let decode = Decode { templates, intake, session, clock, appender, received, durable: durable_tx, window, window_bytes, counters };
    (poll, decode)
}

/// The agent is stopping.
struct Stopping;

impl Poll {
    /// Runs until `stop`; connects again by itself. The session stays on the broker.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = self.next() => event,
            };
            if event.is_err() && self.lasted() {
                backoff.reset();
            }
            let taken = tokio::select! {
                () = stop.cancelled() => break,
                taken = self.take(event) => taken,
            };
            match taken {
                Ok(true) => {}
                Ok(false) if tokio::time::timeout(backoff.next_wait(), stop.cancelled()).await.is_ok() => break,
                Ok(false) => {}
                Err(Stopping) => break,
            }
        }
        let counters = self.counters.clone();
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.leave()).await;
        counters.connected.store(false, Ordering::Relaxed);
    }

    /// Whether the connection lasted. An answer to the greeting alone is no success: where two agents share a client id, or the broker sends what ends
    /// the connection, each of them is lost again at once, and with each the broker sends its whole window.
    fn lasted(&self) -> bool {
        self.up && self.clock.monotonic().saturating_sub(self.connected_at) >= LASTS
    }

    /// Goes on long enough to tell the broker what became durable, then disconnects; the session stays. What arrives meanwhile is not
    /// acknowledged, so the broker sends it again after the next start.
    async fn leave(mut self) {
        self.received = None;
        loop {
            match self.next().await {
                Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(event) => self.outgoing(&event),
            }
        }
    }

    /// The next event of the connection; meanwhile gives the client what to acknowledge. The client is polled to the end of each step: given up in the
    /// middle, it may lose a packet that it has begun to write. And only this task gives it acknowledgements, only between two of its steps: it drops
    /// them when it loses the connection, so none can slip into the next one, where the packet id may stand for another message.
    async fn next(&mut self) -> Result<Event, ConnectionError> {
        let Self { events, client, acks, generation, up, counters, .. } = self;
        if events.state.events.is_empty() {
            self.served_at = self.clock.monotonic();
        }
        let mut step = pin!(events.poll());
        loop {
            acks.hand_over(client, up.then_some(*generation), counters);
            tokio::select! {
                biased;
                event = &mut step => return event,
                durable = acks.durable.recv(), if acks.waiting.is_empty() && !acks.complete => match durable {
                    Some(durable) => acks.waiting.extend(durable),
                    None => acks.complete = true,
                },
            }
        }
    }

    /// Acts on an event. False after a failure: then wait before the next.
    async fn take(&mut self, event: Result<Event, ConnectionError>) -> Result<bool, Stopping> {
        match event {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => self.connected(ack.session_present).await?,
            Ok(Event::Incoming(Packet::SubAck(ack))) => self.subscribed(&ack.return_codes),
            Ok(Event::Incoming(Packet::Publish(publish))) => self.admit(Message(publish)).await?,
            Ok(event) => self.outgoing(&event),
            Err(error) => {
                self.disconnected(&error);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counts an acknowledgement that was written. The client tells of it also where the writing failed, after that failure: then nothing is up any more.
    fn outgoing(&mut self, event: &Event) {
        if self.up && matches!(event, Event::Outgoing(Outgoing::PubAck(_))) {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
            self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn tell(&mut self, received: Received) -> Result<(), Stopping> {
        let Some(channel) = &self.received else { return Err(Stopping) };
        channel.send(received).await.map_err(|_| Stopping)
    }

    async fn connected(&mut self, session_present: bool) -> Result<(), Stopping> {
        self.generation += 1;
        (self.up, self.connected_at, self.unacknowledged) = (true, self.clock.monotonic(), 0);
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
        if !session_present {
            self.tell(Received::SessionBegan).await?;
        }
        Ok(())
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

    fn disconnected(&mut self, error: &ConnectionError) {
        self.connection_ended();
        if !std::mem::replace(&mut self.absence_logged, true) {
            warn!(source = %self.config.name, host = %self.config.host, port = self.config.port, %error, "broker not connected, trying again");
        }
        // A broker that sends more than it was told to takes the connection down with it, each time; the client says so only in words.
        if error.to_string().to_ascii_lowercase().contains("payload size") {
            self.counters.rejected(DecodeError::TooLarge);
        }
        self.counters.count("connection", "lost", 1);
    }

    /// What was to be acknowledged on this connection comes again on the next one.
    fn connection_ended(&mut self) {
        self.up = false;
        self.counters.connected.store(false, Ordering::Relaxed);
    }

    /// Waits for room in the window. While it waits nothing is polled, so the broker is held back by TCP and by its own in-flight limit.
    async fn admit(&mut self, message: Message) -> Result<(), Stopping> {
        self.counters.received(message.payload().len());
        if message.packet_id().is_some() {
            self.unacknowledged += 1;
            // Such a broker has not read the receive maximum: after a crash it sends more again than is remembered.
            if self.unacknowledged > u64::from(RECEIVE_MAXIMUM) {
                self.counters.count("connection", "receive_maximum_exceeded", 1);
            }
        }
        let weight = (message.payload().len() + message.topic().len() + MESSAGE_OVERHEAD_BYTES).min(self.window_bytes);
        let room = self.window.clone().acquire_many_owned(u32::try_from(weight).unwrap_or(u32::MAX));
        // Longer than this the connection is not left unserved, however many messages it was held up by.
        let patience = self.held_up_max.saturating_sub(self.clock.monotonic().saturating_sub(self.served_at));
        match tokio::time::timeout(patience, room).await {
            Ok(Ok(window)) => {
                self.counters.in_flight_bytes.fetch_add(window.num_permits() as u64, Ordering::Relaxed);
                self.tell(Received::Message { message, generation: self.generation, window }).await
            }
            Ok(Err(_)) => Err(Stopping),
            Err(_) => self.hold_back(message).await,
        }
    }

    /// Leaves the broker without a word, so that it keeps the session, and waits until half of the window is free. `message` and those that the client
    /// has read ahead are dropped: nobody acknowledged them, so the broker sends them again.
    async fn hold_back(&mut self, message: Message) -> Result<(), Stopping> {
        self.events.clean();
        let read_ahead = std::mem::take(&mut self.events.state.events).into_iter().filter_map(|event| match event {
            Event::Incoming(Packet::Publish(publish)) => Some(Message(publish)),
            _ => None,
        });
        for message in std::iter::once(message).chain(read_ahead) {
            // Nobody sends one with QoS 0 again.
            let group = if message.packet_id().is_some() { "message" } else { "lost" };
            self.counters.count(group, "held_back", 1);
        }
        if self.up {
            warn!(source = %self.config.name, "the buffer takes nothing: disconnected from the broker, which keeps the messages");
        }
        self.connection_ended();
        self.counters.count("connection", "held_back", 1);
        let half = u32::try_from(self.window_bytes / 2).unwrap_or(u32::MAX);
        drop(self.window.acquire_many(half).await.map_err(|_| Stopping)?);
        Ok(())
    }
}

impl Acks {
    /// Gives the client as many acknowledgements as it takes, and the farewell after the last. `connection`: the one that is up.
    fn hand_over(&mut self, client: &AsyncClient, connection: Option<u64>, counters: &SourceCounters) {
        while let Some(durable) = self.waiting.front() {
            if connection != Some(durable.generation) {
                counters.count("acknowledgement", "older_connection", 1);
            // The client takes the whole message and looks at these two.
            } else if client.try_ack(&Publish { pkid: durable.packet_id, qos: QoS::AtLeastOnce, ..Publish::default() }).is_err() {
                return; // Its queue is full: after its next step there is room.
            }
            self.waiting.pop_front();
        }
        if self.complete && !self.farewell_said {
            self.farewell_said = client.try_disconnect().is_ok();
        }
    }
}

/// The filters on which the broker does not grant QoS 1, with its reason.
fn refused(templates: &[Template], codes: &[SubscribeReasonCode]) -> Vec<String> {
    let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce));
    let refused = templates.iter().zip(codes).filter(|(_, code)| !granted(code));
    refused.map(|(template, code)| format!("{} ({code:?})", template.filter())).collect()
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
