//! Raw blocks of the nodes of a serial line: from what is wanted of an asset to its nodes and channels, and from their frames to blocks and reports. Pure.
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hark_protocol::node::{Body, Command, Frame, NodeEvent, Quantity, SnapshotChunk};

use super::{
    counters::SourceCounters,
    node::NodeSession,
    node_block::{Ended, NodeBlocks, Received, Wish},
    node_line::Taken,
    node_report::{Report, given_up, unasked},
    registry::Intake,
    ring::Kept,
    snapshot::{Fetched, Wanted},
};
use crate::{clock::Now, config::Node};

/// Of each node of a line.
#[derive(Debug)]
pub(super) struct LineBlocks(BTreeMap<u32, NodeBlocks>);

/// Of which node something is said, when, and to whom.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) id: u32,
    pub(super) node: &'a Node,
    pub(super) now: &'a Now,
    pub(super) intake: &'a Intake,
    pub(super) counters: &'a SourceCounters,
}

impl LineBlocks {
    /// Of these `nodes`; see [`NodeBlocks::new`].
    pub(super) fn new(nodes: impl Iterator<Item = u32>, samples_max: usize, first_id: u32) -> Self {
        Self(nodes.map(|node| (node, NodeBlocks::new(samples_max, first_id))).collect())
    }

    /// Wants the block of the channel that is named, else of all of the asset's that have a name; false where a node has too many to give.
    pub(super) fn want(&mut self, nodes: &BTreeMap<u32, Node>, wanted: &Wanted) -> bool {
        let mut room = true;
        for (id, node) in nodes.iter().filter(|(_, node)| node.asset == wanted.asset) {
            let channels = (0..=u8::MAX).zip(&node.channels).filter(|(_, name)| wanted.is_of(&node.asset, name));
            for (channel, name) in channels {
                let (point, by_name) = (name.as_str().into(), wanted.point.is_some());
                let wish = Wish { channel, point, cause_id: wanted.cause_id.clone(), by_name };
                room &= self.0.get_mut(id).is_some_and(|blocks| blocks.want(wish));
            }
        }
        room
    }

    /// What is due with a node: the question to it, with its number, which may be the next one of `seq`.
    pub(super) fn tend(&mut self, place: Place<'_>, seq: &mut u32, taken: &mut Taken) -> Option<(u32, Command)> {
        let blocks = self.0.get_mut(&place.id)?;
        let ended = blocks.tend(place.now.log_ms);
        let question = blocks.question(place.now.log_ms, seq);
        place.ended(ended, None, taken);
        question
    }

    /// A node started anew, or is heard for the first time.
    pub(super) fn began(&mut self, place: Place<'_>, taken: &mut Taken) {
        let ended = self.0.get_mut(&place.id).and_then(|blocks| blocks.began(place.now.log_ms));
        place.ended(ended, None, taken);
    }

    /// A node is heard.
    pub(super) fn heard(&mut self, id: u32, now_ms: u64) {
        if let Some(blocks) = self.0.get_mut(&id) {
            blocks.heard(now_ms);
        }
    }

    /// A frame in its turn, `new` or stored before. True where it answers a question of ours, which no log needs.
    pub(super) fn take(&mut self, frame: &Frame, new: bool, session: &NodeSession, place: Place<'_>, taken: &mut Taken) -> bool {
        let Some(blocks) = self.0.get_mut(&place.id) else { return false };
        match &frame.body {
            Body::Hello(hello) => blocks.hello(hello),
            Body::Features(features) if new => {
                let speed = features.values.iter().find(|value| value.quantity == Quantity::Speed && value.value.is_finite());
                blocks.speed_hz = speed.map(|speed| f64::from(speed.value) / 60.0).or(blocks.speed_hz);
            }
            Body::Snapshot(chunk) if new => self.chunk(frame.time_us, chunk, session, place, taken),
            // Of an earlier question, or of an earlier start of the agent, too: nobody else asks.
            Body::Event(NodeEvent::CommandDone { seq } | NodeEvent::CommandRefused { seq }) if new => {
                let done = matches!(frame.body, Body::Event(NodeEvent::CommandDone { .. }));
                let ended = if blocks.asked(*seq) { blocks.answered(done, place.now.log_ms) } else { None };
                place.ended(ended, None, taken);
                return true;
            }
            _ => {}
        }
        false
    }

    fn chunk(&mut self, time_us: u64, chunk: &SnapshotChunk, session: &NodeSession, place: Place<'_>, taken: &mut Taken) {
        let Some(blocks) = self.0.get_mut(&place.id) else { return };
        match blocks.chunk(time_us, chunk, place.now.log_ms) {
            Received::Part => {}
            Received::Ended(ended) => place.ended(Some(ended), Some(session), taken),
            Received::Unasked { first } => {
                place.counters.count("raw_block", "unasked_chunk", 1);
                if first {
                    place.counters.count("raw_block", "agent_restarted", 1);
                    place.report(unasked(place.id), taken);
                }
            }
        }
    }
}

impl Place<'_> {
    fn report(self, report: Report, taken: &mut Taken) {
        taken.events.entries.push(report.entry(self.node, &self.counters.name, self.now, self.intake.origin()));
    }

    /// A block is handed on, or it is said why there is none. `session` knows the node's time.
    fn ended(self, ended: Option<Ended>, session: Option<&NodeSession>, taken: &mut Taken) {
        match ended {
            None => {}
            Some(Err(failed)) => {
                self.counters.count("raw_block", failed.reason.name(), 1);
                self.report(given_up(self.id, &failed), taken);
            }
            Some(Ok(whole)) => {
                let time = session.and_then(|session| session.utc(whole.end_us));
                let block = Kept {
                    stamp: self.intake.stamp(&self.node.asset, time, self.now),
                    fs_hz: whole.fs_hz,
                    unit: whole.unit.into(),
                    scale: whole.scale,
                    counts: whole.counts,
                    speed_hz: whole.speed_hz,
                };
                taken.blocks.push(Fetched { point: whole.wish.point, cause_id: whole.wish.cause_id, block });
            }
        }
    }
}
