//! The latest values on the compacted topics: heartbeat, changed assets, new baselines. They stand outside the sequence.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hark_protocol::topics::{self, Name};

use super::message::{Message, Sender, gateway_stamp};
use crate::{clock::Clock, config, status::Status};

/// What was sent of them, and when the next heartbeat is due.
pub struct Latest {
    gateway: config::Gateway,
    sender: Sender,
    inc: Name,
    status: Arc<Status>,
    clock: Clock,
    due_at: Duration,
    assets: BTreeMap<Name, topics::Asset>,
    /// By asset and id.
    baselines: BTreeSet<(Name, Name)>,
    /// By topic and key: refused for good.
    left_out: BTreeSet<(Name, Name)>,
}

impl Latest {
    /// Everything is due.
    pub fn new(gateway: config::Gateway, sender: Sender, inc: Name, status: Arc<Status>, clock: Clock) -> Self {
        Self {
            gateway,
            sender,
            inc,
            status,
            clock,
            due_at: Duration::ZERO,
            assets: BTreeMap::new(),
            baselines: BTreeSet::new(),
            left_out: BTreeSet::new(),
        }
    }

    /// What was sent may have been lost: everything is due again.
    pub fn again(&mut self) {
        (self.due_at, self.assets, self.baselines) = (Duration::ZERO, BTreeMap::new(), BTreeSet::new());
    }

    /// Kafka refuses this one: it is not sent again before the next start.
    pub fn leave_out(&mut self, message: &Message) {
        self.left_out.insert((message.topic.clone(), message.key.clone()));
    }

    /// How long until [`Latest::take`] gives something.
    pub fn wait(&self) -> Duration {
        self.due_at.saturating_sub(self.clock.monotonic())
    }

    /// The messages that are due; none until the next heartbeat.
    pub fn take(&mut self) -> Vec<Message> {
        let now = self.clock.monotonic();
        if now < self.due_at {
            return Vec::new();
        }
        self.due_at = now + self.gateway.heartbeat_every;
        let at = self.clock.now();
        let stamp = gateway_stamp(at.ts, at.state, self.gateway.origin);
        let heartbeat = self.status.heartbeat(&self.gateway);
        let mut messages = vec![self.sender.compacted(topics::GATEWAYS, self.gateway.id.clone(), &self.inc, None, &stamp, heartbeat)];
        for (id, asset) in self.status.assets() {
            if self.assets.get(&id) != Some(&asset) {
                messages.push(self.sender.compacted(topics::ASSETS, id.clone(), &self.inc, Some(id.clone()), &stamp, &asset));
                self.assets.insert(id, asset);
            }
        }
        for (asset, baseline) in self.status.baselines() {
            if self.baselines.insert((asset.clone(), baseline.baseline_id.clone())) {
                let key: Name = format!("{asset}/{}", baseline.baseline_id).into();
                messages.push(self.sender.compacted(topics::BASELINES, key, &self.inc, Some(asset), &stamp, &*baseline));
            }
        }
        messages.retain(|message| !self.left_out.contains(&(message.topic.clone(), message.key.clone())));
        messages
    }
}
