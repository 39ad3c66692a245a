//! A Kafka in memory with the semantics that matter: transactions, aborts, fencing, commits whose answer is lost, agents that die at any step.
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use hark_protocol::topics::LaneName;

use super::{
    cursor::{Cursors, KafkaCursor, Lineage, PerLane},
    delivery::{Failed, Failure},
    destination::{Destination, Progress, Session},
    message::Message,
};
use crate::stop::Stop;

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The agent dies; what it has begun stays as it is.
    Dies,
    /// The step does not take place.
    Fails,
    /// It takes place, and the agent does not hear of it.
    AnswerLost,
    /// The broker gives up the open transaction.
    GivesUp,
}

/// The broker; clones are the same one.
#[derive(Clone, Default)]
pub struct FakeKafka(Arc<Mutex<Broker>>);

/// Offset and text of each lane's cursor.
type Offsets = PerLane<Option<(u64, String)>>;

#[derive(Default)]
pub struct Broker {
    epoch: u64,
    open: Option<(Vec<Message>, Option<Progress>)>,
    /// What a `read_committed` consumer sees.
    pub committed: Vec<Message>,
    pub cursors: Offsets,
    /// After each transaction: how many records are committed, and the cursors.
    pub history: Vec<(usize, Offsets)>,
    lineage: String,
    /// One per step; none after them.
    pub faults: VecDeque<Fault>,
    /// Steps taken.
    pub steps: usize,
    /// The agent is dead.
    pub died: bool,
    /// Records that are refused: lane and seq.
    pub refused: BTreeSet<(LaneName, u64)>,
    /// More bytes do not go together, as with a slow link or a small queue.
    pub most_bytes: Option<usize>,
    /// Its id.
    pub cluster: Option<String>,
    /// What each client has counted by the time it is connected.
    pub disturbances: u64,
    /// Takes place before the next commit.
    pub before_commit: Option<Box<dyn FnOnce() + Send>>,
}

/// One producer.
pub struct FakeSession {
    broker: FakeKafka,
    epoch: u64,
}

impl FakeKafka {
    /// The broker itself, for the test.
    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        self.0.lock().unwrap()
    }

    /// Forgets all cursors, as brokers do some days after the last commit.
    pub fn expire(&self) {
        let mut broker = self.broker();
        (broker.cursors, broker.lineage) = Default::default();
    }

    fn step(&self, epoch: u64, act: impl FnOnce(&mut Broker)) -> Result<(), Failed> {
        let failed = |failure| Err(Failed::new(failure, "fake"));
        let mut broker = self.broker();
        broker.steps += 1;
        if broker.died {
            return failed(Failure::Again);
        }
        let fault = broker.faults.pop_front().unwrap_or(Fault::None);
        if epoch != broker.epoch {
            return failed(Failure::Fenced);
        }
        match fault {
            Fault::None => act(&mut broker),
            Fault::Dies => broker.died = true,
            Fault::Fails => {}
            Fault::AnswerLost => act(&mut broker),
            Fault::GivesUp => (broker.open, broker.epoch) = (None, epoch + 1),
        }
        match fault {
            Fault::None => Ok(()),
            Fault::GivesUp => failed(Failure::Fenced),
            _ => failed(Failure::Again),
        }
    }
}

impl Broker {
    fn commit(&mut self) {
        let Some((messages, progress)) = self.open.take() else { return };
        self.committed.extend(messages);
        let Some(progress) = progress else { return };
        self.cursors = progress.lanes.map(|cursor| Some((cursor.seq, cursor.metadata())));
        if let Some((present, lineage)) = progress.lineage {
            self.lineage = lineage.metadata(present);
        }
        self.history.push((self.committed.len(), self.cursors.clone()));
    }
}

impl Destination for FakeKafka {
    type Session = FakeSession;

    fn connect(&mut self, _stop: &Stop) -> Result<(FakeSession, Option<Cursors>), Failed> {
        let before = self.broker().epoch;
        self.step(before, |broker| (broker.open, broker.epoch) = (None, broker.epoch + 1))?;
        let epoch = self.broker().epoch;
        self.step(epoch, |_| {})?;
        let broker = self.broker();
        let lanes = broker.cursors.clone().map(|cursor| cursor.and_then(|(seq, metadata)| KafkaCursor::parse(seq, &metadata)));
        let cursors = Cursors { lanes, lineage: Lineage::parse(&broker.lineage) };
        Ok((FakeSession { broker: self.clone(), epoch }, Some(cursors)))
    }

    fn send_aside(&mut self, _messages: &[Message], _stop: &Stop) {}
}

impl Session for FakeSession {
    fn send(&mut self, messages: &[Message], progress: Option<&Progress>, _stop: &Stop, meanwhile: &mut dyn FnMut()) -> Result<(), Failed> {
        let bytes: usize = messages.iter().map(|message| message.value.len()).sum();
        if self.broker.broker().most_bytes.is_some_and(|most| bytes > most) {
            return Err(Failed::new(Failure::Again, "too slow"));
        }
        let step = |act: &mut dyn FnMut(&mut Broker)| self.broker.step(self.epoch, act);
        step(&mut |broker| broker.open = Some(Default::default()))?;
        let (first, second) = messages.split_at(messages.len() / 2);
        for part in [first, second] {
            step(&mut |broker| broker.open.iter_mut().for_each(|(open, _)| open.extend(part.iter().cloned())))?;
        }
        let refused = self.broker.broker().refused.clone();
        let refused: Vec<usize> = (0..messages.len()).filter(|at| messages[*at].place.is_some_and(|place| refused.contains(&place))).collect();
        if let (Some(&first), Some(&last)) = (refused.first(), refused.last()) {
            self.broker.broker().open = None;
            // Neighbours in the same set of records are refused with it, as brokers do; what is too large for the client is known exactly.
            let known = messages[first].place.is_some_and(|(lane, _)| lane == LaneName::Alarms);
            let candidates = if known { vec![first] } else { (first.saturating_sub(1)..=(last + 1).min(messages.len() - 1)).collect() };
            return Err(Failed::new(Failure::Refused(candidates), "too large"));
        }
        step(&mut |broker| broker.open.iter_mut().for_each(|(_, open)| *open = progress.cloned()))?;
        meanwhile();
        let before_commit = self.broker.broker().before_commit.take();
        before_commit.into_iter().for_each(|act| act());
        step(&mut Broker::commit)
    }

    fn cluster(&self) -> Option<String> {
        self.broker.broker().cluster.clone()
    }

    fn disturbances(&self) -> u64 {
        self.broker.broker().disturbances
    }
}
