//! Machines that send numbers: each its own, in order, over MQTT at QoS 1.
//!
//! A number is published once and never again. Numbers whose acknowledgement was lost with the connection may have arrived or not; they are kept
//! apart as uncertain. So a number that Kafka holds twice was doubled behind the broker, never by the sender.
use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use anyhow::Result;

use super::{Halt, ledger::Sent};
use crate::support::{Connection, Load};

/// Machines; each is an asset with the point `number`.
pub const MACHINES: usize = 4;
/// Messages between two looks at the clock and the stop; a few are on their way at a time.
const BATCH: usize = 40;
const WINDOW: usize = 16;
const RETRY: Duration = Duration::from_millis(100);

/// Name of a machine.
pub fn machine(index: usize) -> String {
    format!("machine-{index}")
}

/// Publishes until `halt`, `per_second` readings in all; connects again by itself. `sent` always tells what may be in Kafka.
pub fn publish(port: u16, per_second: u32, halt: &Halt, sent: &Mutex<Sent>) {
    let mut connection: Option<Connection> = None;
    let load = Load { messages: BATCH, window: WINDOW, interval: Duration::from_secs(1) / per_second };
    let mut numbers: BTreeMap<String, u64> = (0..MACHINES).map(|index| (machine(index), 0)).collect();
    while !halt.is_set() {
        let Some(open) = connection.as_mut() else {
            connection = Connection::open(port, "machines").ok();
            if connection.is_none() {
                halt.wait(RETRY);
            }
            continue;
        };
        let mut batch = Vec::with_capacity(BATCH);
        for index in 0..BATCH {
            let machine = machine(index % MACHINES);
            let number = numbers.entry(machine.clone()).or_default();
            batch.push((machine, *number));
            *number += 1;
        }
        // Uncertain from before the first byte leaves: whoever looks now sees no number that may be missing taken for certain.
        enter(sent, &numbers, &batch);
        if say(open, &load, &batch).is_ok() {
            let mut sent = sent.lock().expect("nobody panics with it");
            for number in &batch {
                sent.uncertain.remove(number);
            }
        } else {
            connection = None;
        }
    }
}

fn enter(sent: &Mutex<Sent>, numbers: &BTreeMap<String, u64>, batch: &[(String, u64)]) {
    let mut sent = sent.lock().expect("nobody panics with it");
    sent.uncertain.extend(batch.iter().cloned());
    sent.count.clone_from(numbers);
}

fn say(connection: &mut Connection, load: &Load, batch: &[(String, u64)]) -> Result<()> {
    connection
        .publish(load, |index, topic, payload| {
            let (machine, number) = &batch[index];
            topic.push_str(&format!("plant/{machine}/number"));
            payload.push_str(&format!("{{\"value\":{number}}}"));
        })
        .map(drop)
}
