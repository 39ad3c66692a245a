//! Summaries as retained messages on a broker of the plant, `<topic>/<gateway>/<asset>`; `<topic>/<gateway>` says whether the agent is there, by its will
//! also when it was killed or cut off.
use std::{pin::pin, sync::Arc, time::Duration};

use hark_protocol::topics::Name;
use rumqttc::Outgoing;
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{LastWill, Packet, PubAckReason},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{News, Panel};
use crate::{
    backoff::Backoff,
    config::{Credentials, Mqtt},
    status::Status,
};

/// Messages that wait for the socket; one per asset, and what changes while they are written.
const REQUESTS: usize = 1_024;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
const ONLINE: &str = r#"{"online":true}"#;
const OFFLINE: &str = r#"{"online":false}"#;

/// The connection that tells of alarms.
pub struct Annunciator {
    broker: Name,
    topic: String,
    client: AsyncClient,
    events: EventLoop,
    panel: Panel,
    changes: watch::Receiver<u64>,
    /// That the broker is away, or refuses, was logged.
    problem_logged: bool,
}

impl Annunciator {
    /// Tells of `gateway`'s alarms on `broker` under `topic`.
    pub fn new(broker: &Mqtt, topic: &str, gateway: &Name, status: Arc<Status>) -> Self {
        let topic = format!("{topic}/{gateway}");
        // A client of its own: what it says must not wait behind what is read.
        let mut options = MqttOptions::new(format!("{}-alarms", broker.client_id), &broker.host, broker.port);
        options.set_clean_start(true);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_connection_timeout(10);
        options.set_last_will(LastWill::new(&topic, OFFLINE, QoS::AtLeastOnce, true, None));
        if let Some(Credentials { username, password }) = &broker.credentials {
            options.set_credentials(username, password);
        }
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let changes = status.alarm_changes();
        Self { broker: broker.name.clone(), topic, client, events, panel: Panel::new(gateway.clone(), status), changes, problem_logged: false }
    }

    /// Runs until `stop`; connects again by itself, and then tells everything anew.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut up = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = self.next(up) => event,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    info!(broker = %self.broker, topic = self.topic, "alarms are told on the broker");
                    (up, self.problem_logged) = (true, false);
                    backoff.reset();
                    self.panel.forget();
                    self.publish(&self.topic, ONLINE);
                    self.tell();
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => self.acknowledged(ack.reason),
                Ok(_) => {}
                Err(problem) => {
                    up = false;
                    if !std::mem::replace(&mut self.problem_logged, true) {
                        warn!(broker = %self.broker, %problem, "alarms cannot be told on the broker, trying again");
                    }
                    if tokio::time::timeout(backoff.next_wait(), stop.cancelled()).await.is_ok() {
                        break;
                    }
                }
            }
        }
        if up {
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.leave()).await;
        }
    }

    /// The next event of the connection; meanwhile tells what changes. The client is polled to the end of each step, or it may lose what it has begun
    /// to write.
    async fn next(&mut self, up: bool) -> Result<Event, ConnectionError> {
        let Self { events, client, panel, changes, topic, .. } = self;
        let mut step = pin!(events.poll());
        loop {
            tokio::select! {
                biased;
                event = &mut step => return event,
                Ok(()) = changes.changed(), if up => tell(client, topic, panel),
            }
        }
    }

    fn tell(&mut self) {
        tell(&self.client, &self.topic, &mut self.panel);
    }

    fn publish(&self, topic: &str, payload: &str) {
        // Its queue has just been emptied.
        let _ = self.client.try_publish(topic, QoS::AtLeastOnce, true, payload.as_bytes().to_vec());
    }

    fn acknowledged(&mut self, reason: PubAckReason) {
        let taken = matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        if !taken && !std::mem::replace(&mut self.problem_logged, true) {
            error!(broker = %self.broker, ?reason, topic = self.topic, "the broker takes no alarms; its access list must allow us to write below this topic");
        }
    }

    /// Says goodbye: a will comes only from who does not.
    async fn leave(mut self) {
        self.publish(&self.topic, OFFLINE);
        let _ = self.client.try_disconnect();
        while !matches!(self.events.poll().await, Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect))) {}
    }
}

/// Replaces the retained message of each asset whose alarms changed. What the client cannot take is told with the next change or connection.
fn tell(client: &AsyncClient, topic: &str, panel: &mut Panel) {
    for news in panel.news() {
        let (asset, payload) = match &news {
            News::Changed(summary) => (&summary.asset, serde_json::to_vec(summary).unwrap_or_default()),
            // An empty message takes the retained one away.
            News::Removed(asset) => (asset, Vec::new()),
        };
        if client.try_publish(format!("{topic}/{asset}"), QoS::AtLeastOnce, true, payload).is_err() {
            panel.forget_one(asset);
        }
    }
}
