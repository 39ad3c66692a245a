//! The latest values on the compacted topics: heartbeat, changed assets, new baselines. They stand outside the sequence.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hark_protocol::topics::{self, Name};

use super::message::{Message, Sender, gateway_stamp};
use crate::{clock::Clock, config, status::Status};

/// What was sent of them, what is due, and when the next heartbeat is.
pub struct Latest {
    gateway: config::Gateway,
    sender: Sender,
    inc: Name,
    status: Arc<Status>,
    clock: Clock,
    due_at: Duration,
    due: VecDeque<Due>,
    assets: BTreeMap<Name, topics::Asset>,
    /// By asset and id.
    baselines: BTreeSet<(Name, Name)>,
    /// What Kafka has some value of since this start, by topic and key.
    delivered: BTreeSet<(Name, Name)>,
    /// By topic and key: refused for good.
    left_out: BTreeSet<(Name, Name)>,
}

struct Due {
    message: Message,
    of: Of,
}

enum Of {
    Gateway,
    Asset(Name, Box<topics::Asset>),
    Baseline(Name, Name),
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
            due: VecDeque::new(),
            assets: BTreeMap::new(),
            baselines: BTreeSet::new(),
            delivered: BTreeSet::new(),
            left_out: BTreeSet::new(),
        }
    }

    /// What was sent may have been lost: everything is due again.
    pub fn again(&mut self) {
        (self.due_at, self.assets, self.baselines) = (Duration::ZERO, BTreeMap::new(), BTreeSet::new());
        self.due.clear();
    }

    /// Kafka refuses this one: it is not sent again before the next start.
    pub fn leave_out(&mut self, message: &Message) {
        self.left_out.insert(name(message));
        self.due.retain(|due| name(&due.message) != name(message));
    }

    /// How long until [`Latest::next`] gives something.
    pub fn wait(&self) -> Duration {
        if self.has_more() { Duration::ZERO } else { self.due_at.saturating_sub(self.clock.monotonic()) }
    }

    /// Whether some of what is due is still to be sent.
    pub fn has_more(&self) -> bool {
        !self.due.is_empty()
    }

    /// The first messages that are due, so many and about so many bytes at most; none until the next heartbeat. They stay due until
    /// [`Latest::sent`].
    pub fn next(&mut self, records: usize, bytes: usize) -> Vec<Message> {
        let now = self.clock.monotonic();
        if self.due.is_empty() && now >= self.due_at {
            self.due_at = now + self.gateway.heartbeat_every;
            self.collect();
        }
        let mut sum = 0;
        let fits = |(at, due): &(usize, &Due)| {
            sum += due.message.value.len();
            *at == 0 || (*at < records && sum <= bytes)
        };
        self.due.iter().enumerate().take_while(fits).map(|(_, due)| due.message.clone()).collect()
    }

    /// The first `count` of what is due were sent; `delivered` if Kafka said so.
    pub fn sent(&mut self, count: usize, delivered: bool) {
        for Due { message, of } in self.due.drain(..count.min(self.due.len())) {
            match of {
                Of::Gateway => {}
                Of::Asset(id, asset) => drop(self.assets.insert(id, *asset)),
                Of::Baseline(asset, id) => drop(self.baselines.insert((asset, id))),
            }
            if delivered {
                self.delivered.insert(name(&message));
            }
        }
    }

    fn collect(&mut self) {
        let at = self.clock.now();
        let stamp = gateway_stamp(at.ts, at.state, self.gateway.origin);
        let heartbeat = self.status.heartbeat(&self.gateway);
        let heartbeat = self.sender.compacted(topics::GATEWAYS, self.gateway.id.clone(), &self.inc, None, &stamp, heartbeat);
        let mut due = vec![Due { message: heartbeat, of: Of::Gateway }];
        for (id, asset) in self.status.assets().into_iter().filter(|(id, asset)| self.assets.get(id) != Some(asset)) {
            let message = self.sender.compacted(topics::ASSETS, id.clone(), &self.inc, Some(id.clone()), &stamp, &asset);
            due.push(Due { message, of: Of::Asset(id, asset.into()) });
        }
        for (asset, baseline) in self.status.baselines() {
            let of = (asset, baseline.baseline_id.clone());
            if !self.baselines.contains(&of) {
                let key: Name = format!("{}/{}", of.0, of.1).into();
                let message = self.sender.compacted(topics::BASELINES, key, &self.inc, Some(of.0.clone()), &stamp, &*baseline);
                due.push(Due { message, of: Of::Baseline(of.0, of.1) });
            }
        }
        due.retain(|due| !self.left_out.contains(&name(&due.message)));
        // After the heartbeat what Kafka has nothing of: over a link that breaks again and again each gets its turn.
        due.sort_by_key(|due| !matches!(due.of, Of::Gateway) && self.delivered.contains(&name(&due.message)));
        self.due = due.into();
    }
}

fn name(message: &Message) -> (Name, Name) {
    (message.topic.clone(), message.key.clone())
}
