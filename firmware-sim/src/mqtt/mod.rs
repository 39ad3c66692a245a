//! A simulated machine whose sensors speak MQTT: JSON scalars, and raw blocks of acceleration.
mod publisher;

use std::io;
use std::time::Duration;

use jiff::Timestamp;
pub use publisher::{Broker, Publisher, PublisherStats};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::disturbance::Disturbance;
use crate::handle::{NodeHandle, SharedStats};
use crate::machine::{Machine, MachineConfig};
use crate::sensor::{RATE_HZ, Sensor};
use crate::stop::Stop;

/// A machine behind an MQTT broker.
#[derive(Clone, Debug)]
pub struct MqttNodeConfig {
    /// The machine it watches.
    pub machine: MachineConfig,
    /// Everything random follows from it.
    pub seed: u64,
    /// Where it publishes.
    pub broker: Broker,
    /// Topic of a scalar, `{"value":…,"ts":…}` with milliseconds; `{area}`, `{asset}` and `{point}` are filled in.
    pub topic: String,
    /// Topic of a raw block, `{t0, fs, unit, scale, samples}` with `t0` in milliseconds.
    pub waveform_topic: String,
    /// Area in the topics.
    pub area: String,
    /// Asset in the topics.
    pub asset: String,
    /// Point of the raw blocks.
    pub waveform_point: String,
    /// Samples in a raw block; 0 for none.
    pub waveform_samples: usize,
    /// Scalars and a block this often.
    pub block_every: Duration,
    /// What goes wrong with the sensor. The others change nothing here ([`Kind::is_of_sensor`](crate::disturbance::Kind::is_of_sensor)).
    pub disturbances: Vec<Disturbance>,
}

impl MqttNodeConfig {
    /// A healthy machine `asset` in area `demo`, five blocks of 8192 samples a second.
    pub fn new(broker: Broker, asset: impl Into<String>) -> Self {
        Self {
            machine: MachineConfig::default(),
            seed: 1,
            broker,
            topic: "plant/{area}/{asset}/{point}".into(),
            waveform_topic: "plant/{area}/{asset}/{point}/waveform".into(),
            area: "demo".into(),
            asset: asset.into(),
            waveform_point: "de-h".into(),
            waveform_samples: 8_192,
            block_every: Duration::from_millis(200),
            disturbances: Vec::new(),
        }
    }

    fn topic(&self, template: &str, point: &str) -> String {
        template.replace("{area}", &self.area).replace("{asset}", &self.asset).replace("{point}", point)
    }
}

/// A simulated machine on MQTT.
#[derive(Debug)]
pub struct MqttNode;

impl MqttNode {
    /// Starts it on a thread of its own. It connects by itself, again and again; while the broker is away blocks are left out and counted.
    pub fn spawn(config: MqttNodeConfig) -> io::Result<NodeHandle> {
        NodeHandle::spawn("mqtt-node", move |stop, stats| run(config, stop, stats))
    }
}

async fn run(config: MqttNodeConfig, mut stop: Stop, stats: SharedStats) -> io::Result<()> {
    let mut machine = Machine::new(config.machine, config.seed);
    let mut publisher = Publisher::new(config.broker.clone());
    let mut block_at = Instant::now() + config.block_every;
    let mut simulated = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = publisher.turn() => {}
            () = sleep_until(block_at) => {
                block_at += config.block_every;
                simulated += config.block_every;
                machine.advance(config.block_every.as_secs_f64());
                let sensor = Sensor::at(simulated, &config.disturbances);
                for (topic, payload) in messages(&config, &mut machine, sensor, Timestamp::now()) {
                    if publisher.has_room() {
                        publisher.publish(topic, payload).await;
                    } else {
                        stats.update(|stats| stats.dropped += 1);
                    }
                }
                stats.update(|stats| stats.blocks += 1);
            }
        }
        tell(&machine, &publisher, &stats);
    }
    publisher.close().await;
    Ok(())
}

/// What the sensors publish after one block.
fn messages(config: &MqttNodeConfig, machine: &mut Machine, sensor: Sensor, now: Timestamp) -> Vec<(String, String)> {
    let values = machine.process_values();
    let scalars = [("temperature", values.temperature_c), ("speed", values.speed_rpm), ("load", values.load_percent), ("current", values.current_a)];
    let ts = now.as_millisecond();
    let mut messages: Vec<_> = scalars
        .into_iter()
        .filter_map(|(point, value)| Some((config.topic(&config.topic, point), json!({ "value": value?, "ts": ts }).to_string())))
        .collect();
    if config.waveform_samples > 0 {
        let mut samples_g = vec![0.0; config.waveform_samples];
        machine.write_block(&mut samples_g, sensor.rate_hz);
        let samples: Vec<i16> = samples_g.iter().map(|sample_g| sensor.digitise(*sample_g)).collect();
        let t0 = ts - (1_000.0 * config.waveform_samples as f64 / RATE_HZ) as i64;
        let block = json!({ "t0": t0, "fs": RATE_HZ, "unit": "[g]", "scale": sensor.scale(), "samples": samples });
        messages.push((config.topic(&config.waveform_topic, &config.waveform_point), block.to_string()));
    }
    messages
}

fn tell(machine: &Machine, publisher: &Publisher, stats: &SharedStats) {
    let done = publisher.stats();
    stats.update(|stats| {
        stats.damage = machine.damage();
        stats.sent = done.sent;
        stats.acknowledged = done.acknowledged;
        stats.refused = done.refused;
        stats.disconnects = done.disconnects;
        stats.waiting = publisher.waiting() as u64;
    });
}
