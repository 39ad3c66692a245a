//! `hark.toml`: the gateway with its buffer and Kafka. Sources have files of their own.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use hark_protocol::topics::Name;

use super::{annunciation::check_annunciation, faults::Faults, mqtt::check_mqtt, serial::check_serial};
use crate::config::{
    Asset, Buffer, Config, Gateway, Http, Kafka, Mqtt, Serial, Snapshots,
    file::{HarkFile, KafkaTable},
};

/// Faster ones are noise in a compacted topic, slower ones tell of a dead gateway too late.
const HEARTBEAT_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// An hour is less than any outage worth buffering for.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(3_600)..=Duration::from_secs(3_650 * 86_400);
/// In less the two would shut each other out without end; after a day the buffer of the one that waits may be full.
const DUPLICATE_WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// More often is only for tests; less often makes a start read on for long.
const CHECKPOINT_EVERY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// A slow card may need seconds for one call.
const STORE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(3_600);
/// Senders wait for the commit: a node's ring holds 20 s.
const COMMIT_MAX_DELAY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
/// What is kept of raw blocks is beside everything else in memory.
const SNAPSHOT_MEMORY_MOST: u64 = 1 << 30;

pub(super) fn check_gateway(raw: HarkFile, dir: &Path, assets: BTreeMap<Name, Asset>, faults: &mut Faults) -> Config {
    let id = faults.name("gateway.id", &raw.gateway.id);
    let buffer = Buffer {
        dir: dir.join(&raw.buffer.dir),
        quota_bytes: faults.bytes("buffer.quota", &raw.buffer.quota),
        commit_max_delay: faults.duration("buffer.commit_max_delay", &raw.buffer.commit_max_delay, COMMIT_MAX_DELAY),
        commit_bytes: faults.bytes("buffer.commit_bytes", &raw.buffer.commit_bytes) as usize,
        in_flight_bytes: faults.bytes("buffer.in_flight_bytes", &raw.buffer.in_flight_bytes) as usize,
        max_age: raw.buffer.max_age.map(|text| faults.duration("buffer.max_age", &text, MAX_AGE)),
        store_timeout: faults.duration("buffer.store_timeout", &raw.buffer.store_timeout, STORE_TIMEOUT),
    };
    const SMALLEST_QUOTA: u64 = 64 << 20;
    if buffer.quota_bytes < SMALLEST_QUOTA {
        faults.add("buffer.quota", "at least 64 MiB are needed: each of four lanes keeps whole partitions");
    }
    if buffer.in_flight_bytes < 1 << 20 {
        faults.add("buffer.in_flight_bytes", "at least 1 MiB is needed, four messages of the largest size");
    }
    let kafka = raw.kafka.map(|kafka| {
        check_brokers(&kafka, faults);
        Kafka {
            brokers: kafka.brokers,
            topic_prefix: kafka.topic_prefix,
            batch_records: kafka.batch_records.clamp(1, 100_000),
            batch_bytes: faults.bytes("kafka.batch_bytes", &kafka.batch_bytes).clamp(64 << 10, 64 << 20) as usize,
            delivery: kafka.delivery,
            metered: kafka.metered,
            backlog_bytes_per_s: faults
                .bytes("kafka.backlog_rate", kafka.backlog_rate.as_deref().unwrap_or(if kafka.metered { "256 KiB" } else { "64 MiB" }))
                .max(1 << 10),
            duplicate_wait: faults.duration("kafka.duplicate_wait", &kafka.duplicate_wait, DUPLICATE_WAIT),
            plaintext_accepted: kafka.plaintext_accepted,
        }
    });
    let mqtt: Vec<Mqtt> = raw.mqtt.into_iter().enumerate().map(|(i, table)| check_mqtt(i, table, dir, &id, &assets, faults)).collect();
    let serial: Vec<Serial> = raw.serial.into_iter().enumerate().map(|(i, table)| check_serial(i, table, dir, &assets, faults)).collect();
    refuse_repetitions(&mqtt, &serial, faults);
    Config {
        gateway: Gateway {
            id,
            origin: raw.gateway.origin,
            heartbeat_every: faults.duration("gateway.heartbeat_every", &raw.gateway.heartbeat_every, HEARTBEAT_EVERY),
        },
        buffer,
        kafka,
        http: Http { listen: raw.http.listen },
        annunciation: raw.annunciation.map(|table| check_annunciation(table, &mqtt, faults)),
        snapshots: Snapshots {
            memory_bytes: faults.bytes("snapshots.memory", &raw.snapshots.memory).min(SNAPSHOT_MEMORY_MOST) as usize,
            bytes_per_day: faults.bytes("snapshots.per_day", &raw.snapshots.per_day),
        },
        mqtt,
        serial,
        assets,
        models: dir.join(raw.inference.models),
        checkpoint_every: raw.inference.checkpoint_every.map(|text| faults.duration("inference.checkpoint_every", &text, CHECKPOINT_EVERY)),
    }
}

/// Librdkafka would take more, such as a default port; what is meant shall stand there.
fn check_brokers(kafka: &KafkaTable, faults: &mut Faults) {
    const KEY: &str = "kafka.brokers";
    if kafka.brokers.trim().is_empty() {
        return faults.add(KEY, "is empty; expected `host:port`, several separated by commas");
    }
    for broker in kafka.brokers.split(',').map(str::trim) {
        match host_before_port(broker) {
            Some(host) => refuse_plain_text(KEY, host, kafka.plaintext_accepted.as_deref(), faults),
            None => faults.add(KEY, format!("`{broker}` is no broker; expected `host:port`, several separated by commas")),
        }
    }
}

/// The host of `host:port` or `[IPv6]:port`.
fn host_before_port(broker: &str) -> Option<&str> {
    let (host, port) = broker.rsplit_once(':')?;
    port.parse::<NonZeroU16>().ok()?;
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    (!host.is_empty() && !host.contains([':', '/', ' '])).then_some(host)
}

/// Until TLS is configured, plain text leaves the box only with a stated reason.
pub(super) fn refuse_plain_text(key: &str, host: &str, accepted: Option<&str>, faults: &mut Faults) {
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback && accepted.is_none_or(|reason| reason.trim().is_empty()) {
        faults.add(key, format!("plain text to `{host}` is refused; set `plaintext_accepted = \"<reason>\"` if the line is protected otherwise"));
    }
}

/// What must not be the same for two sources.
fn refuse_repetitions(mqtt: &[Mqtt], serial: &[Serial], faults: &mut Faults) {
    let mqtt: Vec<(String, &Mqtt)> = mqtt.iter().enumerate().map(|(i, broker)| (format!("mqtt[{i}]"), broker)).collect();
    let serial: Vec<(String, &Serial)> = serial.iter().enumerate().map(|(i, port)| (format!("serial[{i}]"), port)).collect();
    let names = mqtt.iter().map(|(key, broker)| (key, broker.name.to_string()));
    let names = names.chain(serial.iter().map(|(key, port)| (key, port.name.to_string())));
    refuse_repeated("name", names, "expected a name of its own, by which counters and log tell the sources apart", faults);
    let clients = mqtt.iter().map(|(key, broker)| (key, format!("{}` at `{}:{}", broker.client_id, broker.host, broker.port)));
    refuse_repeated("client_id", clients, "expected another one: a broker ends the older of two connections", faults);
    let paths = serial.iter().map(|(key, port)| (key, port.path.display().to_string()));
    refuse_repeated("path", paths, "expected another port: one has one reader", faults);
}

fn refuse_repeated<'a>(what: &str, entries: impl Iterator<Item = (&'a String, String)>, expected: &str, faults: &mut Faults) {
    let mut first_with = BTreeMap::new();
    for (key, value) in entries {
        match first_with.get(&value) {
            Some(first) => faults.add(&format!("{key}.{what}"), format!("`{value}` is that of {first} too; {expected}")),
            None => drop(first_with.insert(value, key)),
        }
    }
}
