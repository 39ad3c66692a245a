//! Raw blocks of one sensor node: what is wanted of it, what it was asked, and what has come so far. Pure.
//!
//! One block at a time. The question is repeated until the node answers; the node repeats its chunks until they are acknowledged, and its session
//! ([`super::node`]) gives them in order and once. A block ends whole, or given up for a [`Reason`], within the times below. It lies in memory alone: with
//! the agent, or with the node, it is gone.
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use hark_protocol::{
    node::{CHUNK_SAMPLES, Channel, Command, Hello, SnapshotChunk},
    topics::Name,
};

/// A question that is not answered is asked again after this.
const ASK_AGAIN_MS: u64 = 2_000;
/// A node that says nothing to a question for so long does not answer. Ten questions, and far longer than its first frames wait.
const ANSWER_MS: u64 = 20_000;
/// So long without a new chunk, and the block is given up: the session waits for a lost frame for 12.5 s at most.
const STALLED_MS: u64 = 30_000;
/// A block is whole by then, or given up: the largest one over half of a line of 9 600 baud takes 5 to 8 minutes.
const WHOLE_MS: u64 = 600_000;
/// Most samples of a block.
pub(super) const SAMPLES_MAX: usize = 65_536;
/// Blocks that wait for the one at hand.
const WAITING_MAX: usize = 8;

/// A block that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) channel: u8,
    /// Name of the channel: the point of the block.
    pub(super) point: Name,
    /// Alarm or command behind it.
    pub(super) cause_id: Name,
    /// The point was asked for by name, so that somebody waits for an answer.
    pub(super) by_name: bool,
}

/// A block that came whole.
#[derive(Debug, PartialEq)]
pub(super) struct Whole {
    pub(super) wish: Wish,
    /// Node time of the last sample.
    pub(super) end_us: u64,
    /// Sampling rate, Hz.
    pub(super) fs_hz: f64,
    /// UCUM unit of a count times `scale`.
    pub(super) unit: &'static str,
    /// Physical value of one count.
    pub(super) scale: f64,
    pub(super) counts: Vec<i16>,
    /// Shaft speed as the block began to come, Hz.
    pub(super) speed_hz: Option<f64>,
}

/// A block that does not come.
#[derive(Debug, PartialEq)]
pub(super) struct GivenUp {
    pub(super) wish: Wish,
    pub(super) reason: Reason,
    /// Of the node, where it said hello.
    pub(super) firmware: Option<String>,
}

/// Why a block does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The node's hello says so.
    NoRawBlocks,
    /// Its hello has no such channel, or one without samples.
    NoWaveform,
    /// The node was not heard.
    Silent,
    /// The node is heard, and answers nothing.
    NoAnswer,
    /// The node says no.
    Refused,
    /// The node started anew, and its block is gone.
    Restarted,
    /// Chunks stay away, or take too long.
    Stalled,
    /// It has more samples than are taken.
    TooLarge,
    /// Chunks are missing for good, or do not fit one another.
    Broken,
}

impl Reason {
    /// Name for counters and events.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoRawBlocks => "no_raw_blocks",
            Self::NoWaveform => "no_waveform",
            Self::Silent => "node_silent",
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
            Self::Restarted => "node_restarted",
            Self::Stalled => "stalled",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
        }
    }

    /// What is to be said of the node.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NoRawBlocks => "this node's firmware gives no raw blocks",
            Self::NoWaveform => "the node takes no samples on this channel",
            Self::Silent => "nothing was heard from the node",
            Self::NoAnswer => "the node sends and does not answer: its firmware gives no raw blocks, or nothing reaches it",
            Self::Refused => "the node refused, as one may that still sends another block",
            Self::Restarted => "the node started anew, and its block is gone",
            Self::Stalled => "its chunks stay away, or take too long",
            Self::TooLarge => "the block has more samples than are taken",
            Self::Broken => "chunks are missing for good, or do not fit one another",
        }
    }
}

/// How a block ended.
pub(super) type Ended = Result<Whole, GivenUp>;

/// What came of a chunk.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// More are to come.
    Part,
    /// It was the last one, in one way or the other.
    Ended(Ended),
    /// Nobody waits for it: it was asked for by an earlier start of the agent. `first`: of its block, nobody was told yet.
    Unasked {
        /// Whether to tell.
        first: bool,
    },
}

/// What is between the agent and one node about raw blocks.
#[derive(Debug)]
pub(super) struct NodeBlocks {
    samples_max: usize,
    hello: Option<Hello>,
    heard_ms: Option<u64>,
    /// Shaft speed as the node said last, Hz.
    pub(super) speed_hz: Option<f64>,
    waiting: VecDeque<Wish>,
    current: Option<Current>,
    next_id: u32,
    /// Chunks of this id are of no use, and somebody was told.
    told_id: Option<u32>,
}

/// The block at hand.
#[derive(Debug)]
struct Current {
    wish: Wish,
    stage: Stage,
    /// Since when the node is asked for its hello, or for the block.
    since_ms: u64,
    /// When the question was asked last, and under which number.
    asked: Option<(u64, u32)>,
}

#[derive(Debug)]
enum Stage {
    /// The node has not said what it can.
    Hello,
    /// Its block of this id is wanted.
    Asked(u32),
    /// It comes. `progress_ms`: when something last came.
    Coming { id: u32, progress_ms: u64, block: Option<Box<Partial>> },
}

impl NodeBlocks {
    /// Takes blocks of up to `samples_max` samples. Their ids begin with `first_id`, which is to be another one at each start of the agent.
    pub(super) fn new(samples_max: usize, first_id: u32) -> Self {
        Self { samples_max, hello: None, heard_ms: None, speed_hz: None, waiting: VecDeque::new(), current: None, next_id: first_id, told_id: None }
    }

    /// Something came from the node.
    pub(super) fn heard(&mut self, now_ms: u64) {
        self.heard_ms = Some(now_ms);
    }

    /// The node says what it can.
    pub(super) fn hello(&mut self, hello: &Hello) {
        self.hello = Some(hello.clone());
    }

    /// Wants a block; false where too many wait.
    pub(super) fn want(&mut self, wish: Wish) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push_back(wish);
        }
        room
    }

    /// The node started anew, or is heard for the first time: what it was asked it does not know.
    pub(super) fn began(&mut self, now_ms: u64) -> Option<Ended> {
        self.hello = None;
        let current = self.current.as_mut()?;
        if matches!(current.stage, Stage::Coming { .. }) {
            return self.give_up(Reason::Restarted);
        }
        current.enter(Stage::Hello, now_ms);
        None
    }

    /// Goes on with what is due. To be called some times a second.
    pub(super) fn tend(&mut self, now_ms: u64) -> Option<Ended> {
        if self.current.is_none() {
            let wish = self.waiting.pop_front()?;
            self.current = Some(Current { wish, stage: Stage::Hello, since_ms: now_ms, asked: None });
        }
        let current = self.current.as_mut()?;
        if let (Stage::Hello, Some(hello)) = (&current.stage, &self.hello) {
            if !hello.capabilities.snapshot {
                return self.give_up(Reason::NoRawBlocks);
            }
            if channel(hello, current.wish.channel).is_none() {
                return self.give_up(Reason::NoWaveform);
            }
            current.enter(Stage::Asked(self.next_id), now_ms);
            self.next_id = self.next_id.wrapping_add(1);
        }
        let heard = self.heard_ms.is_some_and(|heard_ms| heard_ms >= current.since_ms);
        let passed = |since_ms: u64, most_ms: u64| now_ms >= since_ms.saturating_add(most_ms);
        match current.stage {
            Stage::Hello | Stage::Asked(_) if !passed(current.since_ms, ANSWER_MS) => None,
            Stage::Hello | Stage::Asked(_) => self.give_up(if heard { Reason::NoAnswer } else { Reason::Silent }),
            Stage::Coming { progress_ms, .. } if passed(progress_ms, STALLED_MS) || passed(current.since_ms, WHOLE_MS) => {
                self.give_up(Reason::Stalled)
            }
            Stage::Coming { .. } => None,
        }
    }

    /// The question that is due, with its number: the one that it had before, so that the node knows it, or the next one of `seq`.
    pub(super) fn question(&mut self, now_ms: u64, seq: &mut u32) -> Option<(u32, Command)> {
        let current = self.current.as_mut()?;
        let command = match current.stage {
            Stage::Hello => Command::SendHello,
            Stage::Asked(id) => Command::Snapshot { id, channel: current.wish.channel },
            Stage::Coming { .. } => return None,
        };
        let number = match current.asked {
            Some((at_ms, _)) if now_ms < at_ms + ASK_AGAIN_MS => return None,
            Some((_, number)) => number,
            None => {
                *seq = seq.wrapping_add(1);
                *seq
            }
        };
        current.asked = Some((now_ms, number));
        Some((number, command))
    }

    /// Whether the command `seq` was asked from here.
    pub(super) fn asked(&self, seq: u32) -> bool {
        self.current.as_ref().and_then(|current| current.asked).is_some_and(|(_, number)| number == seq)
    }

    /// The node carries out what it was asked last, or refuses.
    pub(super) fn answered(&mut self, done: bool, now_ms: u64) -> Option<Ended> {
        if !done {
            return self.give_up(Reason::Refused);
        }
        let current = self.current.as_mut()?;
        // The hello itself is awaited, and chunks say more than a word.
        if let Stage::Asked(id) = current.stage {
            current.stage = Stage::Coming { id, progress_ms: now_ms, block: None };
        }
        None
    }

    /// Takes a chunk of a frame with the time `time_us`, in its turn.
    pub(super) fn chunk(&mut self, time_us: u64, chunk: &SnapshotChunk, now_ms: u64) -> Received {
        let waits = |current: &&mut Current| matches!(current.stage, Stage::Asked(id) | Stage::Coming { id, .. } if id == chunk.id);
        let Some(current) = self.current.as_mut().filter(waits) else {
            return Received::Unasked { first: self.told_id.replace(chunk.id) != Some(chunk.id) };
        };
        let block = match &mut current.stage {
            Stage::Coming { block, .. } => block.take(),
            _ => None,
        };
        let taken = match block {
            Some(block) => block.take(time_us, chunk, self.samples_max),
            None if chunk.channel == current.wish.channel => Partial::begin(time_us, chunk, self.speed_hz, self.samples_max),
            None => Err(Reason::Broken),
        };
        match taken {
            Err(reason) => self.give_up(reason).map_or(Received::Part, Received::Ended),
            Ok(block) if block.is_whole() => self.finish(block).map_or(Received::Part, Received::Ended),
            Ok(block) => {
                current.stage = Stage::Coming { id: chunk.id, progress_ms: now_ms, block: Some(Box::new(block)) };
                Received::Part
            }
        }
    }

    fn finish(&mut self, block: Partial) -> Option<Ended> {
        let Current { wish, .. } = self.current.take()?;
        self.told_id = Some(block.like.id);
        let Partial { begin_us, like, counts, speed_hz, .. } = block;
        let unit = self.hello.as_ref().and_then(|hello| channel(hello, wish.channel)).map_or("1", |channel| channel.quantity.unit());
        let fs_hz = f64::from(like.fs_hz);
        let length_us = (1e6 * (counts.len() - 1) as f64 / fs_hz) as u64;
        Some(Ok(Whole { wish, end_us: begin_us.saturating_add(length_us), fs_hz, unit, scale: f64::from(like.scale), counts, speed_hz }))
    }

    /// `None` where nobody waits for an answer: of what an alarm brings with it, a channel without samples is no failure.
    fn give_up(&mut self, reason: Reason) -> Option<Ended> {
        let Current { wish, stage, .. } = self.current.take()?;
        if let Stage::Asked(id) | Stage::Coming { id, .. } = stage {
            self.told_id = Some(id);
        }
        let told = reason != Reason::NoWaveform || wish.by_name;
        let firmware = self.hello.as_ref().map(|hello| hello.firmware.as_str().to_owned());
        told.then_some(Err(GivenUp { wish, reason, firmware }))
    }
}

impl Current {
    fn enter(&mut self, stage: Stage, now_ms: u64) {
        (self.stage, self.since_ms, self.asked) = (stage, now_ms, None);
    }
}

/// The channel of a number, if it has samples.
fn channel(hello: &Hello, number: u8) -> Option<&Channel> {
    hello.channels.iter().find(|channel| channel.channel == number && channel.rate_hz > 0.0)
}

/// A block of which more chunks are to come.
#[derive(Debug)]
struct Partial {
    begin_us: u64,
    /// All but `chunk` and `samples` is the same in each; `chunk` is that of the last one.
    like: SnapshotChunk,
    counts: Vec<i16>,
    speed_hz: Option<f64>,
}

impl Partial {
    fn begin(begin_us: u64, chunk: &SnapshotChunk, speed_hz: Option<f64>, samples_max: usize) -> Result<Self, Reason> {
        let SnapshotChunk { chunk: index, chunks, fs_hz, scale, .. } = *chunk;
        let sound = index == 0 && chunks > 0 && fs_hz.is_finite() && fs_hz > 0.0 && scale.is_finite() && scale > 0.0;
        if !sound {
            return Err(Reason::Broken);
        }
        // Before any memory is taken for it. All chunks but the last are full.
        if usize::from(chunks - 1) * CHUNK_SAMPLES >= samples_max {
            return Err(Reason::TooLarge);
        }
        let mut block = Self { begin_us, like: chunk.clone(), counts: Vec::new(), speed_hz };
        block.append(chunk, samples_max)?;
        Ok(block)
    }

    /// The next chunk. One that came before changes nothing.
    fn take(mut self, begin_us: u64, chunk: &SnapshotChunk, samples_max: usize) -> Result<Self, Reason> {
        let SnapshotChunk { channel, chunks, fs_hz, scale, .. } = self.like;
        let alike = (chunk.channel, chunk.chunks, begin_us) == (channel, chunks, self.begin_us) && (chunk.fs_hz, chunk.scale) == (fs_hz, scale);
        if !alike || chunk.chunk > self.like.chunk.saturating_add(1) {
            return Err(Reason::Broken);
        }
        if chunk.chunk > self.like.chunk {
            self.like.chunk = chunk.chunk;
            self.append(chunk, samples_max)?;
        }
        Ok(self)
    }

    fn append(&mut self, chunk: &SnapshotChunk, samples_max: usize) -> Result<(), Reason> {
        let full = chunk.samples.len() == CHUNK_SAMPLES;
        if chunk.chunk >= chunk.chunks || chunk.samples.is_empty() || !full && chunk.chunk + 1 < chunk.chunks {
            return Err(Reason::Broken);
        }
        if self.counts.len() + chunk.samples.len() > samples_max {
            return Err(Reason::TooLarge);
        }
        self.counts.extend_from_slice(&chunk.samples);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.like.chunk + 1 == self.like.chunks
    }
}
