//! QoS 1 publishing with a bounded window: every message is sent until the broker acknowledges it.
//!
//! The client library forgets unacknowledged messages when a broker comes back without the session, so the window is kept here and each
//! connection begins with what is still in it, in order. A broker may therefore see a message twice, as QoS 1 allows.
use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Messages under way at most.
const WINDOW: usize = 64;
/// Pause before the next attempt to connect.
const RETRY: Duration = Duration::from_millis(500);

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Client id, unique at the broker.
    pub client_id: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
}

impl Broker {
    /// A broker without credentials.
    pub fn new(host: impl Into<String>, port: u16, client_id: impl Into<String>) -> Self {
        Self { host: host.into(), port, client_id: client_id.into(), credentials: None }
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options.set_keep_alive(Duration::from_secs(10)).set_clean_start(true);
        if let Some((user, password)) = &self.credentials {
            options.set_credentials(user, password);
        }
        options
    }
}

/// A message in the window; `packet_id` once it is on the wire.
#[derive(Debug)]
struct Waiting {
    topic: String,
    payload: String,
    packet_id: Option<u16>,
}

/// One connection with the task that drives it.
#[derive(Debug)]
struct Connection {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    driver: JoinHandle<()>,
}

impl Connection {
    fn open(broker: &Broker) -> Self {
        let (client, event_loop) = AsyncClient::new(broker.options(), WINDOW + 2);
        let (sender, events) = mpsc::channel(WINDOW);
        Self { client, events, driver: tokio::spawn(drive(event_loop, sender)) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Polls the client's event loop in a task of its own, because a poll that is cancelled may lose what it was writing.
async fn drive(mut event_loop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = event_loop.poll().await;
        let ended = event.is_err();
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

/// What a publisher has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Messages given to it.
    pub sent: u64,
    /// Messages that the broker took.
    pub acknowledged: u64,
    /// Messages that the broker refused for good (not authorised, quota).
    pub refused: u64,
    /// Connections lost or not made.
    pub disconnects: u64,
}

/// Publishes with QoS 1 through reconnects.
#[derive(Debug)]
pub struct Publisher {
    broker: Broker,
    connection: Connection,
    window: VecDeque<Waiting>,
    stats: PublisherStats,
}

impl Publisher {
    /// Begins to connect. Needs a runtime.
    pub fn new(broker: Broker) -> Self {
        Self { connection: Connection::open(&broker), broker, window: VecDeque::new(), stats: PublisherStats::default() }
    }

    /// Whether [`Publisher::publish`] would return at once.
    pub fn has_room(&self) -> bool {
        self.window.len() < WINDOW
    }

    /// Publishes a message, waiting for room in the window. If it is cancelled, the message was not taken.
    pub async fn publish(&mut self, topic: String, payload: String) {
        while !self.has_room() {
            self.turn().await;
        }
        self.stats.sent += 1;
        self.window.push_back(Waiting { topic, payload, packet_id: None });
        if let Some(message) = self.window.back() {
            hand_over(&self.connection.client, message);
        }
    }

    /// Waits until the broker has acknowledged everything. May be cancelled.
    pub async fn flush(&mut self) {
        while !self.window.is_empty() {
            self.turn().await;
        }
    }

    /// Waits for one event of the connection and follows it. May be cancelled.
    pub async fn turn(&mut self) {
        match self.connection.events.recv().await {
            Some(Ok(Event::Outgoing(Outgoing::Publish(packet_id)))) => {
                if let Some(message) = self.window.iter_mut().find(|message| message.packet_id.is_none()) {
                    message.packet_id = Some(packet_id);
                }
            }
            Some(Ok(Event::Incoming(Packet::PubAck(ack)))) => {
                let Some(index) = self.window.iter().position(|message| message.packet_id == Some(ack.pkid)) else { return };
                self.window.remove(index);
                match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => self.stats.acknowledged += 1,
                    _ => self.stats.refused += 1,
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.reconnect().await,
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> PublisherStats {
        self.stats
    }

    /// Messages that wait for acknowledgement.
    pub fn waiting(&self) -> usize {
        self.window.len()
    }

    /// Says goodbye, so that the broker does not take the silence for a fault; bounded, the window is given up.
    pub async fn close(mut self) {
        if self.connection.client.try_disconnect().is_ok() {
            let events = &mut self.connection.events;
            let gone = async { while let Some(Ok(_)) = events.recv().await {} };
            let _bounded = tokio::time::timeout(RETRY, gone).await;
        }
    }

    /// The window goes onto a new connection first and the pause comes after, so that cancelling it loses nothing.
    async fn reconnect(&mut self) {
        self.stats.disconnects += 1;
        self.connection = Connection::open(&self.broker);
        for message in &mut self.window {
            message.packet_id = None;
            hand_over(&self.connection.client, message);
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn hand_over(client: &AsyncClient, message: &Waiting) {
    // The client's queue is longer than the window; it refuses only when its event loop has ended, and then the window is handed over anew.
    let _next_connection_repeats_it = client.try_publish(message.topic.as_str(), QoS::AtLeastOnce, false, message.payload.clone());
}
