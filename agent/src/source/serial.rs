//! Serial sources: the only file that names the port's crate.
//!
//! A port that disappears is opened again as soon as it is back. On a port with the node protocol, frames are acknowledged once they are durable;
//! lines of values have no numbers, so what was sent while nobody listened is gone (guarantee `none`).
use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use hark_protocol::{
    node::{Ack, Body, TimeSync},
    topics::LaneName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tokio_serial::{SerialPortBuilderExt, SerialStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    counters::SourceCounters,
    decode::{DecodeError, json, line_reader::LineReader, lines::LineDecoder},
    node_line::{Durable, NodeLine, Part, Taken},
    registry::{Context, Intake},
    snapshot::LineEnd,
};
use crate::{
    backoff::Backoff,
    buffer::{
        commit::{Append, AppendError, Appender, Committed},
        marks::{SourceMark, SourceMarks},
    },
    clock::{Clock, Now},
    config::{Serial, SerialFormat, Shape},
};

/// A port that says nothing for so long after it was opened is between two lines: at 1200 baud, ten bytes of a line take 83 ms.
const SILENCE: Duration = Duration::from_millis(100);
/// Acknowledgements waiting for the port.
const ACKS: usize = 4_096;
/// Between clock comparisons with nodes.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at what raw blocks are wanted and what is late.
const TEND_EVERY: Duration = Duration::from_millis(500);
/// For the last acknowledgements when stopping.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that takes nothing for so long does not read: what is meant for it is left out for a while, or it would hold up what it sends.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);
const DEAF_FOR: Duration = Duration::from_secs(10);

/// One port's source.
pub struct SerialSource {
    /// Port and what is spoken on it.
    pub config: Serial,
    /// Knows the points.
    pub intake: Intake,
    /// Where entries go.
    pub appender: Appender,
    /// Gives the time of reception.
    pub clock: Clock,
    /// What the log tells of the nodes on this line.
    pub stored: SourceMarks,
    /// Who wants raw blocks of the nodes.
    pub raw_blocks: LineEnd,
    /// Counts.
    pub counters: Arc<SourceCounters>,
}

impl SerialSource {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut speech = Speech::new(&self.config, &self.intake, &self.stored, self.raw_blocks.samples_max);
        let (acks_tx, mut acks) = mpsc::channel(ACKS);
        let mut absent_logged = false;
        while !stop.is_cancelled() {
            match tokio_serial::new(self.config.path.to_string_lossy(), self.config.baud).open_native_async() {
                Ok(mut port) => {
                    backoff.reset();
                    absent_logged = false;
                    self.counters.connections.fetch_add(1, Ordering::Relaxed);
                    self.counters.connected.store(true, Ordering::Relaxed);
                    info!(source = %self.config.name, path = %self.config.path.display(), baud = self.config.baud, "port open");
                    let ended = tokio::select! {
                        () = stop.cancelled() => {
                            drop(acks_tx);
                            let _ = tokio::time::timeout(LEAVE_TIMEOUT, leave(&mut port, &mut speech, &mut acks)).await;
                            break;
                        }
                        ended = self.listen(&mut port, &mut speech, &acks_tx, &mut acks) => ended,
                    };
                    self.counters.connected.store(false, Ordering::Relaxed);
                    self.counters.count("connection", "lost", 1);
                    match ended {
                        Ended::Log => break,
                        Ended::Port(error) => warn!(source = %self.config.name, %error, "port lost, waiting for it"),
                    }
                    speech.interrupted(&self.counters);
                }
                Err(error) if !absent_logged => {
                    absent_logged = true;
                    warn!(source = %self.config.name, path = %self.config.path.display(), %error, "port cannot be opened, trying again");
                }
                Err(_) => {}
            }
            // Who waits for a raw block is told that nobody is there; what would be asked is asked again.
            if self.tend(&mut speech, &acks_tx).await.is_err() {
                break;
            }
            if tokio::time::timeout(backoff.next_wait(), stop.cancelled()).await.is_ok() {
                break;
            }
        }
        self.counters.connected.store(false, Ordering::Relaxed);
    }

    async fn listen(
        &mut self,
        port: &mut SerialStream,
        speech: &mut Speech,
        acks_tx: &mpsc::Sender<Durable>,
        acks: &mut mpsc::Receiver<Durable>,
    ) -> Ended {
        if let Speech::Lines(lines) = speech {
            lines.opened(port).await;
        }
        let mut bytes = vec![0_u8; 4_096];
        let every = |period| {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let (mut compare, mut tend) = (every(COMPARE_EVERY), every(TEND_EVERY));
        loop {
            tokio::select! {
                read = port.read(&mut bytes) => match read {
                    Ok(0) => return Ended::Port(std::io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        self.counters.bytes.fetch_add(count as u64, Ordering::Relaxed);
                        if self.take(&bytes[..count], speech, acks_tx).await.is_err() {
                            return Ended::Log;
                        }
                        if speech.session_began() {
                            compare.reset_immediately();
                        }
                    }
                    Err(error) => return Ended::Port(error),
                },
                Some(durable) = acks.recv() => {
                    for Durable { node, ack } in furthest(std::iter::once(durable).chain(std::iter::from_fn(|| acks.try_recv().ok()))) {
                        match self.send(port, speech, node, Body::Ack(ack)).await {
                            Ok(sent) => self.counters.acknowledged.fetch_add(u64::from(sent), Ordering::Relaxed),
                            Err(error) => return Ended::Port(error),
                        };
                    }
                }
                _ = tend.tick() => {
                    let Ok(questions) = self.tend(speech, acks_tx).await else { return Ended::Log };
                    for question in questions {
                        if let Err(error) = self.write(port, speech, &question).await {
                            return Ended::Port(error);
                        }
                    }
                }
                _ = compare.tick() => {
                    for node in speech.nodes() {
                        let t1_us = u64::try_from(self.clock.now().ts.0).unwrap_or(0);
                        if let Err(error) = self.send(port, speech, node, Body::TimeSync(TimeSync::Request { t1_us })).await {
                            return Ended::Port(error);
                        }
                    }
                }
            }
        }
    }

    /// Sends to a node; false as in [`Self::write`]. It asks for an acknowledgement again by repeating the frame, and a comparison is repeated by us.
    async fn send(&self, port: &mut SerialStream, speech: &mut Speech, node: u32, body: Body) -> std::io::Result<bool> {
        let Speech::Node(line) = speech else { return Ok(false) };
        let bytes = line.frame_for(node, body)?;
        self.write(port, speech, &bytes).await
    }

    /// Writes a frame; false where it was left out because the node does not read.
    async fn write(&self, port: &mut SerialStream, speech: &mut Speech, bytes: &[u8]) -> std::io::Result<bool> {
        let Speech::Node(line) = speech else { return Ok(false) };
        let now = self.clock.monotonic();
        if now < line.deaf_until {
            return Ok(false);
        }
        match tokio::time::timeout(SEND_TIMEOUT, port.write_all(bytes)).await {
            Ok(sent) => sent.map(|()| true),
            Err(_) => {
                line.deaf_until = now + DEAF_FOR;
                self.counters.count("node", "does_not_read", 1);
                Ok(false)
            }
        }
    }

    /// Goes on with raw blocks that are wanted. Gives the questions to nodes.
    async fn tend(&mut self, speech: &mut Speech, acks_tx: &mpsc::Sender<Durable>) -> Result<Vec<Vec<u8>>, ()> {
        let Speech::Node(line) = speech else { return Ok(Vec::new()) };
        while let Some(wanted) = self.raw_blocks.wanted() {
            if !line.want(&wanted) {
                self.raw_blocks.busy();
            }
        }
        let mut taken = Taken::default();
        let questions = line.tend(&self.clock.now(), &self.intake, &self.counters, &mut taken);
        self.store(taken, acks_tx).await?;
        // A frame that cannot be encoded would be a mistake of ours: its block is given up as not answered.
        Ok(questions.unwrap_or_default())
    }

    /// Decodes what arrived and hands it to the log; waiting there holds the line back.
    async fn take(&mut self, bytes: &[u8], speech: &mut Speech, acks_tx: &mpsc::Sender<Durable>) -> Result<(), ()> {
        let now = self.clock.now();
        let mut taken = Taken::default();
        match speech {
            Speech::Node(line) => line.take(bytes, &now, &mut self.intake, &self.counters, &mut taken),
            Speech::Lines(lines) => lines.take(bytes, &now, &mut self.intake, &self.counters, &mut taken),
        }
        self.store(taken, acks_tx).await
    }

    /// Hands over what came of a read.
    async fn store(&self, taken: Taken, acks_tx: &mpsc::Sender<Durable>) -> Result<(), ()> {
        taken.blocks.into_iter().for_each(|block| self.raw_blocks.hand_over(block));
        for (lane, part) in [(LaneName::Events, taken.events), (LaneName::Inputs, taken.inputs)] {
            if !part.is_empty() {
                self.append(lane, part, acks_tx.clone()).await?;
            }
        }
        Ok(())
    }

    /// Each lane has the marks of what it stores itself, and acknowledges that alone: a crash between the two repeats and loses nothing. Events go first,
    /// so that one of a loss is never behind the frame that follows the loss.
    async fn append(&self, lane: LaneName, part: Part, acks_tx: mpsc::Sender<Durable>) -> Result<(), ()> {
        let Part { entries, marks, durable } = part;
        let mark = |(node, mark)| SourceMark::Node { source: self.counters.name.clone(), node, mark };
        let (readings, counters) = (if lane == LaneName::Inputs { entries.len() as u64 } else { 0 }, self.counters.clone());
        let done = move |outcome: Result<Committed, AppendError>| {
            match outcome {
                Ok(_) => drop(counters.accepted.fetch_add(readings, Ordering::Relaxed)),
                // It will never fit: acknowledged, or it would come again for ever.
                Err(AppendError::Refused(_)) => counters.rejected(DecodeError::TooLarge),
                Err(AppendError::Stopped) => return,
            }
            for ack in durable {
                // A full queue loses nothing: the node sends the frame again and is answered then.
                let _ = acks_tx.try_send(ack);
            }
        };
        // Also without entries: the mark of a frame must be durable before its acknowledgement, and that of a repeated one comes after its first commit.
        let marks = marks.into_iter().map(mark).collect();
        self.appender.append(Append { lane, entries, marks, urgent: false, done: Some(Box::new(done)) }).await.map_err(|_| ())
    }
}

/// Acknowledgements are cumulative: of those that wait, the furthest of each kind says all. It need not be the last: a repeated frame is acknowledged
/// again in its turn.
fn furthest(acks: impl Iterator<Item = Durable>) -> impl Iterator<Item = Durable> {
    let mut furthest: BTreeMap<_, Durable> = BTreeMap::new();
    for durable in acks {
        let Durable { node, ack: Ack { boot, kind, seq } } = durable;
        let of_kind = furthest.entry((node, kind, boot)).or_insert(durable);
        of_kind.ack.seq = of_kind.ack.seq.max(seq);
    }
    furthest.into_values()
}

/// Tells the nodes what became durable last, so that they do not send it again to the next start.
async fn leave(port: &mut SerialStream, speech: &mut Speech, acks: &mut mpsc::Receiver<Durable>) {
    while let Some(Durable { node, ack }) = acks.recv().await {
        let Speech::Node(line) = &mut *speech else { return };
        let Ok(bytes) = line.frame_for(node, Body::Ack(ack)) else { return };
        if port.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

enum Ended {
    Port(std::io::Error),
    Log,
}

/// The state of what is spoken on a port; it outlives a lost connection.
enum Speech {
    Node(Box<NodeLine>),
    Lines(Box<Lines>),
}

impl Speech {
    fn new(config: &Serial, intake: &Intake, stored: &SourceMarks, samples_max: usize) -> Self {
        match &config.format {
            SerialFormat::Node { nodes } => Self::Node(Box::new(NodeLine::new(nodes.clone(), &config.name, stored, samples_max))),
            SerialFormat::Csv(csv) => {
                let decoder = LineFormat::Csv(LineDecoder::new(csv.clone(), intake.names(&csv.asset)));
                Self::Lines(Box::new(Lines { reader: LineReader::default(), decoder }))
            }
            SerialFormat::Json { asset, shape } => {
                let decoder = LineFormat::Json { asset: asset.as_deref().map(str::to_owned), shape: shape.clone() };
                Self::Lines(Box::new(Lines { reader: LineReader::default(), decoder }))
            }
        }
    }

    fn nodes(&self) -> Vec<u32> {
        match self {
            Self::Node(line) => line.nodes().collect(),
            Self::Lines(_) => Vec::new(),
        }
    }

    /// Whether a node began anew since the last call: its clock is not known yet.
    fn session_began(&mut self) -> bool {
        match self {
            Self::Node(line) => line.session_began(),
            Self::Lines(_) => false,
        }
    }

    /// The line broke: what was begun is not completed by what comes next.
    fn interrupted(&mut self, counters: &SourceCounters) {
        match self {
            Self::Node(line) => line.interrupted(),
            Self::Lines(lines) => {
                if let Err(error) = lines.reader.closed() {
                    counters.rejected(error);
                }
            }
        }
    }
}

/// A port with one message a line.
struct Lines {
    reader: LineReader,
    decoder: LineFormat,
}

enum LineFormat {
    Csv(LineDecoder),
    Json { asset: Option<String>, shape: Shape },
}

impl Lines {
    /// Waits for the first byte, to see whether it begins a line. Time is not compared but waited for, and the port is looked at before the timer:
    /// on a busy gateway a line may be taken for half, never half of one for a line.
    async fn opened(&mut self, port: &SerialStream) {
        let silent = tokio::time::timeout(SILENCE, port.readable()).await.is_err();
        self.reader.opened(silent);
        if let LineFormat::Csv(decoder) = &mut self.decoder {
            decoder.reset();
        }
    }

    fn take(&mut self, bytes: &[u8], now: &Now, intake: &mut Intake, counters: &SourceCounters, taken: &mut Taken) {
        for &byte in bytes {
            match self.reader.push(byte) {
                None => {}
                Some(Err(error)) => counters.rejected(error),
                Some(Ok(line)) => self.line(&line, now, intake, counters, taken),
            }
        }
    }

    fn line(&mut self, line: &[u8], now: &Now, intake: &mut Intake, counters: &SourceCounters, taken: &mut Taken) {
        counters.messages.fetch_add(1, Ordering::Relaxed);
        let (decoded, asset) = match &mut self.decoder {
            LineFormat::Csv(decoder) => (decoder.decode(line).map(|samples| samples.into_iter().map(Ok).collect()), None),
            LineFormat::Json { asset, shape } => (json::decode(line, shape), asset.as_deref()),
        };
        let context = Context { asset, ..Context::default() };
        for sample in decoded.unwrap_or_else(|error| vec![Err(error)]) {
            match sample {
                Ok(sample) => intake.take(sample, context, now, counters, &mut taken.inputs.entries),
                Err(error) => counters.rejected(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hark_protocol::node::Kind;

    use super::*;

    #[test]
    fn of_acknowledgements_that_wait_the_furthest_goes_out() {
        let ack = |node, boot, kind, seq| Durable { node, ack: Ack { boot, kind, seq } };
        let waiting = [
            ack(7, 1, Kind::Features, 9),
            ack(7, 1, Kind::Features, 3), // repeated
            ack(7, 1, Kind::Event, 2),
            ack(7, 2, Kind::Features, 1), // the node started anew
            ack(8, 1, Kind::Features, 4),
        ];
        let mut sent: Vec<_> = furthest(waiting.into_iter()).map(|Durable { node, ack }| (node, ack.boot, ack.kind, ack.seq)).collect();
        sent.sort();
        let mut expected = [(7, 1, Kind::Features, 9), (7, 1, Kind::Event, 2), (7, 2, Kind::Features, 1), (8, 1, Kind::Features, 4)];
        expected.sort();
        assert_eq!(sent, expected);
    }
}
