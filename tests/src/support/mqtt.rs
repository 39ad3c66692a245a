//! A publisher like those of a plant.
#![expect(clippy::disallowed_methods, reason = "one deadline for many answers")]
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rumqttc::v5::{
    Client, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};

use super::Mosquitto;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// Publishes `payloads` on `topic` with QoS 1, in order, and returns when the broker has acknowledged all of them.
///
/// # Errors
/// When the broker goes away or does not acknowledge within a minute.
pub fn publish(broker: &Mosquitto, topic: &str, payloads: impl IntoIterator<Item = String>) -> Result<()> {
    let payloads: Vec<String> = payloads.into_iter().collect();
    let mut unacknowledged = payloads.len();
    // All are queued before the first is sent, since one thread both publishes and drives the connection.
    let (client, mut connection) = Client::new(MqttOptions::new("publisher", "127.0.0.1", broker.port()), payloads.len() + 1);
    for payload in payloads {
        client.publish(topic, QoS::AtLeastOnce, false, payload)?;
    }
    let give_up_at = Instant::now() + ACKNOWLEDGED_WITHIN;
    while unacknowledged > 0 {
        match connection.recv_timeout(give_up_at.saturating_duration_since(Instant::now())) {
            Ok(Ok(Event::Incoming(Packet::PubAck(_)))) => unacknowledged -= 1,
            Ok(event) => drop(event.context("lost the broker while publishing")?),
            Err(reason) => bail!("{unacknowledged} messages were not acknowledged: {reason:?}"),
        }
    }
    Ok(())
}
