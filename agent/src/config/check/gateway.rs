//! `hark.toml`: the gateway with its buffer and Kafka. Sources have files of their own.
use std::{collections::BTreeMap, net::IpAddr, path::Path};

use hark_protocol::topics::Name;

use super::{faults::Faults, mqtt::check_mqtt, serial::check_serial};
use crate::config::{Asset, Buffer, Config, Gateway, Http, Kafka, file::HarkFile};

pub(super) fn check_gateway(raw: HarkFile, dir: &Path, assets: BTreeMap<Name, Asset>, faults: &mut Faults) -> Config {
    let id = faults.name("gateway.id", &raw.gateway.id);
    let buffer = Buffer {
        dir: dir.join(&raw.buffer.dir),
        quota_bytes: faults.bytes("buffer.quota", &raw.buffer.quota),
        commit_max_delay: faults.duration("buffer.commit_max_delay", &raw.buffer.commit_max_delay),
        commit_bytes: faults.bytes("buffer.commit_bytes", &raw.buffer.commit_bytes) as usize,
        in_flight_bytes: faults.bytes("buffer.in_flight_bytes", &raw.buffer.in_flight_bytes) as usize,
    };
    const SMALLEST_QUOTA: u64 = 64 << 20;
    if buffer.quota_bytes < SMALLEST_QUOTA {
        faults.add("buffer.quota", "at least 64 MiB are needed: each of four lanes keeps whole partitions");
    }
    if buffer.in_flight_bytes < 1 << 20 {
        faults.add("buffer.in_flight_bytes", "at least 1 MiB is needed, four messages of the largest size");
    }
    let kafka = raw.kafka.map(|kafka| {
        if kafka.plaintext_accepted.is_none() {
            for broker in kafka.brokers.split(',') {
                let host = broker.trim().rsplit_once(':').map_or(broker, |(host, _)| host);
                refuse_plain_text("kafka.brokers", host, faults);
            }
        }
        Kafka {
            brokers: kafka.brokers,
            topic_prefix: kafka.topic_prefix,
            batch_records: kafka.batch_records.clamp(1, 100_000),
            batch_bytes: faults.bytes("kafka.batch_bytes", &kafka.batch_bytes).clamp(64 << 10, 64 << 20) as usize,
            plaintext_accepted: kafka.plaintext_accepted,
        }
    });
    let mqtt = raw.mqtt.into_iter().enumerate().map(|(i, table)| check_mqtt(i, table, dir, &id, &assets, faults)).collect();
    let serial = raw.serial.into_iter().enumerate().map(|(i, table)| check_serial(i, table, dir, &assets, faults)).collect();
    Config {
        gateway: Gateway {
            id,
            origin: raw.gateway.origin,
            heartbeat_every: faults.duration("gateway.heartbeat_every", &raw.gateway.heartbeat_every),
        },
        buffer,
        kafka,
        http: Http { listen: raw.http.listen },
        mqtt,
        serial,
        assets,
        models: dir.join(raw.inference.models),
    }
}

/// Until TLS is configured, plain text leaves the box only with a stated reason.
pub(super) fn refuse_plain_text(key: &str, host: &str, faults: &mut Faults) {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        faults.add(key, format!("plain text to `{host}` is refused; set `plaintext_accepted = \"<reason>\"` if the line is protected otherwise"));
    }
}
