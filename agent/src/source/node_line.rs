//! A serial line with sensor nodes: from bytes to what is stored and what is acknowledged afterwards. Pure.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use hark_protocol::{
    node::{Ack, Body, Decoder, Frame, Kind, MAX_FRAME, TimeSync, encode, offset_and_delay},
    topics::LaneName,
};
use tracing::info;

use super::{
    counters::SourceCounters,
    line_blocks::{LineBlocks, Place},
    node::{self, NodeSession, Verdict, samples},
    node_report::{Report, check_function, dropped, dropped_earlier, numbers_vanished, report},
    registry::{Context, Intake},
    snapshot::{Fetched, Wanted},
};
use crate::{
    buffer::marks::{NodeMark, SourceMarks},
    clock::Now,
    config::Node,
    record::Entry,
};

/// As many frames of a node wait at most: what its rings hold.
const HELD_MAX: usize = 1_024;
/// The same report of a node becomes an event this often at most; all of them are counted.
const REPORT_EVERY_MS: u64 = 60_000;

/// A frame that may be acknowledged once it is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durable {
    pub(super) node: u32,
    pub(super) ack: Ack,
}

/// What came of the bytes of one read, by lane.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) inputs: Part,
    pub(super) events: Part,
    /// Raw blocks that were wanted and are whole.
    pub(super) blocks: Vec<Fetched>,
}

/// What goes to one lane, in one append.
#[derive(Default)]
pub(super) struct Part {
    pub(super) entries: Vec<Entry>,
    /// How far each node is stored in this lane, these entries included.
    pub(super) marks: BTreeMap<u32, NodeMark>,
    /// Acknowledged once it is durable.
    pub(super) durable: Vec<Durable>,
}

impl Taken {
    fn part(&mut self, lane: LaneName) -> &mut Part {
        if lane == LaneName::Events { &mut self.events } else { &mut self.inputs }
    }
}

impl Part {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.marks.is_empty() && self.durable.is_empty()
    }
}

/// The line; it outlives a lost connection.
pub(super) struct NodeLine {
    /// Nothing is sent before this time since boot.
    pub(super) deaf_until: Duration,
    nodes: BTreeMap<u32, Node>,
    sessions: BTreeMap<u32, NodeSession>,
    blocks: LineBlocks,
    /// Frames that wait, by kind and seq: new ones and repeated ones come mixed, and the acknowledgement of one that is taken for the first stands for
    /// all before it.
    held: BTreeMap<u32, BTreeMap<(Kind, u32), Frame>>,
    decoder: Decoder,
    /// The agent's own start, so that nodes can tell its numbers apart from those of an earlier one.
    boot: u32,
    seqs: [u32; Kind::COUNT],
    session_began: bool,
    /// Nodes that test themselves, as the inputs lane was told.
    testing: BTreeSet<u32>,
    /// When a node last had a report of this name stored, ms since boot.
    reported_ms: BTreeMap<(u32, &'static str), u64>,
}

impl NodeLine {
    /// The line called `source`, its nodes known as far as `stored` tells of them. Raw blocks have up to `samples_max` samples.
    pub(super) fn new(nodes: BTreeMap<u32, Node>, source: &str, stored: &SourceMarks, samples_max: usize) -> Self {
        let restore = |&node: &u32| Some((node, NodeSession::restore(&stored.node(source, node)?)));
        let boot = fastrand::u32(1..);
        Self {
            deaf_until: Duration::ZERO,
            sessions: nodes.keys().filter_map(restore).collect(),
            blocks: LineBlocks::new(nodes.keys().copied(), samples_max, boot),
            nodes,
            held: BTreeMap::new(),
            decoder: Decoder::new(),
            boot,
            seqs: [0; Kind::COUNT],
            session_began: false,
            testing: BTreeSet::new(),
            reported_ms: BTreeMap::new(),
        }
    }

    /// Ids of the configured nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.nodes.keys().copied()
    }

    /// Whether a node began anew since the last call.
    pub(super) fn session_began(&mut self) -> bool {
        std::mem::take(&mut self.session_began)
    }

    /// The line broke: what was begun is not completed by what comes next.
    pub(super) fn interrupted(&mut self) {
        self.decoder.reset();
    }

    /// The next frame to `node`, encoded.
    pub(super) fn frame_for(&mut self, node: u32, body: Body) -> std::io::Result<Vec<u8>> {
        let seq = &mut self.seqs[body.kind().index()];
        *seq = seq.wrapping_add(1);
        numbered(node, self.boot, *seq, body)
    }

    /// Raw blocks are wanted; false where one of its nodes has too many to give.
    pub(super) fn want(&mut self, wanted: &Wanted) -> bool {
        self.blocks.want(&self.nodes, wanted)
    }

    /// What is due about raw blocks: the encoded questions to nodes. What became of blocks goes to `taken`.
    pub(super) fn tend(&mut self, now: &Now, intake: &Intake, counters: &SourceCounters, taken: &mut Taken) -> std::io::Result<Vec<Vec<u8>>> {
        let mut questions = Vec::new();
        for (&id, node) in &self.nodes {
            let place = Place { id, node, now, intake, counters };
            if let Some((seq, command)) = self.blocks.tend(place, &mut self.seqs[Kind::Command.index()], taken) {
                questions.push(numbered(id, self.boot, seq, Body::Command(command))?);
            }
        }
        Ok(questions)
    }

    /// Takes what arrived at `now`.
    pub(super) fn take(&mut self, bytes: &[u8], now: &Now, intake: &mut Intake, counters: &SourceCounters, taken: &mut Taken) {
        for &byte in bytes {
            match self.decoder.push(byte) {
                None => {}
                Some(Err(error)) => counters.count("rejected", error.name(), 1),
                Some(Ok(frame)) => self.frame(&frame, now, intake, counters, taken),
            }
        }
    }

    fn frame(&mut self, frame: &Frame, now: &Now, intake: &mut Intake, counters: &SourceCounters, taken: &mut Taken) {
        counters.messages.fetch_add(1, Ordering::Relaxed);
        let Some(node) = self.nodes.get(&frame.node) else { return counters.count("dropped", "unknown_node", 1) };
        let session = self.sessions.entry(frame.node).or_default();
        self.blocks.heard(frame.node, now.log_ms);
        if session.begin(frame, now.log_ms) {
            info!(source = %counters.name, node = frame.node, boot = frame.boot, resumed = session.resumed(), "node session began");
            self.session_began = true;
            self.blocks.began(Place { id: frame.node, node, now, intake, counters }, taken);
            // Their node has started anew and forgotten them.
            let forgotten = self.held.remove(&frame.node).map_or(0, |held| held.len());
            if forgotten > 0 {
                counters.count("lost", "node_restarted", forgotten as u64);
            }
        }
        let earlier = session.dropped_earlier(now.log_ms);
        if earlier > 0 {
            counters.count("lost", "node_ring_earlier", u64::from(earlier));
            taken.events.entries.push(dropped_earlier(earlier).entry(node, &counters.name, now, intake.origin()));
            taken.events.marks.insert(frame.node, session.mark(LaneName::Events));
        }
        session.hold_for_first(frame, now.log_ms);
        if !session.holds() {
            return self.judged(frame, now, intake, counters, taken);
        }
        if frame.kind().needs_ack() {
            self.held.entry(frame.node).or_default().insert((frame.kind(), frame.seq), frame.clone());
            counters.count("node", "held", 1);
        } else {
            self.judged(frame, now, intake, counters, taken);
        }
        self.release(frame.node, now, intake, counters, taken);
    }

    /// Takes the frames that wait, if they need not wait any longer.
    fn release(&mut self, id: u32, now: &Now, intake: &mut Intake, counters: &SourceCounters, taken: &mut Taken) {
        let (Some(node), Some(session)) = (self.nodes.get(&id), self.sessions.get_mut(&id)) else { return };
        let held = self.held.entry(id).or_default();
        if held.is_empty() || held.len() < HELD_MAX && !session.ready(held.values(), now.log_ms) {
            return;
        }
        let vanished = session.release(held.values());
        if vanished > 0 {
            counters.count("lost", "node_numbers", u64::from(vanished));
            taken.events.entries.push(numbers_vanished(vanished).entry(node, &counters.name, now, intake.origin()));
        }
        // Kind by kind, so what tells of a self-test comes behind the readings that it is about.
        let mut by_time: Vec<&Frame> = held.values().collect();
        by_time.sort_by_key(|frame| frame.time_us);
        by_time.into_iter().for_each(|frame| session.take_self_test(frame));
        for frame in std::mem::take(held).into_values() {
            self.judged(&frame, now, intake, counters, taken);
        }
    }

    /// Takes a frame of a known node in its turn.
    fn judged(&mut self, frame: &Frame, now: &Now, intake: &mut Intake, counters: &SourceCounters, taken: &mut Taken) {
        let (Some(node), Some(session)) = (self.nodes.get(&frame.node), self.sessions.get_mut(&frame.node)) else { return };
        let store = |taken: &mut Taken, report: Report| taken.events.entries.push(report.entry(node, &counters.name, now, intake.origin()));
        let durable = Durable { node: frame.node, ack: Ack { boot: frame.boot, kind: frame.kind(), seq: frame.seq } };
        let lane = node::lane(frame.kind());
        let place = Place { id: frame.node, node, now, intake, counters };
        match session.judge(frame, now.log_ms) {
            Verdict::New { lost } => {
                // Also for a frame without entries: acknowledged, it must be known after a restart, or the next one would be waited for in vain.
                taken.part(lane).marks.insert(frame.node, session.mark(lane));
                taken.part(lane).durable.push(durable);
                if lost > 0 {
                    counters.count("lost", "node_ring", u64::from(lost));
                    store(taken, dropped(lost));
                    taken.events.marks.insert(frame.node, session.mark(LaneName::Events));
                }
                session.take_self_test(frame);
                if session.is_testing() != self.testing.contains(&frame.node) {
                    let is_testing = session.is_testing();
                    if is_testing {
                        self.testing.insert(frame.node)
                    } else {
                        self.testing.remove(&frame.node)
                    };
                    let mut entry = check_function(frame.node, node, is_testing).entry(node, &counters.name, now, intake.origin());
                    entry.stamp = intake.stamp(&node.asset, session.utc(frame.time_us), now);
                    taken.inputs.entries.push(entry);
                }
                let context = Context { self_test: session.is_of_self_test(frame), ..Context::default() };
                let answer = self.blocks.take(frame, true, session, place, taken);
                if let (Body::Event(event), false) = (&frame.body, answer) {
                    let report = report(*event);
                    counters.count("node", report.what, 1);
                    let last_ms = self.reported_ms.entry((frame.node, report.what)).or_insert(u64::MAX);
                    if *last_ms == u64::MAX || now.log_ms >= last_ms.saturating_add(REPORT_EVERY_MS) {
                        *last_ms = now.log_ms;
                        store(taken, report);
                    }
                }
                match samples(frame, node, session.utc(frame.time_us)) {
                    Some(samples) => {
                        samples.into_iter().for_each(|s| intake.take(s, context, now, counters, &mut taken.inputs.entries));
                    }
                    None => counters.count("dropped", "unknown_channel", 1),
                }
            }
            Verdict::Repeated => {
                counters.count("node", "repeated", 1);
                self.blocks.take(frame, false, session, place, taken);
                taken.part(lane).durable.push(durable);
            }
            Verdict::Early => counters.count("node", "early", 1),
            Verdict::Passing => {
                if let Body::TimeSync(TimeSync::Reply { t1_us, t2_us, t3_us }) = frame.body {
                    session.compare(offset_and_delay(t1_us, t2_us, t3_us, u64::try_from(now.ts.0).unwrap_or(0)));
                }
            }
        }
    }
}

/// A frame of the agent, which began as `boot`, encoded.
fn numbered(node: u32, boot: u32, seq: u32, body: Body) -> std::io::Result<Vec<u8>> {
    let mut bytes = [0; MAX_FRAME];
    let length = encode(&Frame { node, boot, seq, time_us: 0, dropped: 0, body }, &mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes[..length].to_vec())
}

#[cfg(test)]
mod tests;
