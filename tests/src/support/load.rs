//! A load generator: MQTT v5 at QoS 1 over plain sockets, many messages a system call.
//!
//! A client library costs more per message than the agent does, and the generator runs on the cores of what it measures.
#![expect(clippy::disallowed_methods, reason = "a load at a fixed rate waits for time")]
use std::{
    io::{BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// No answer for so long is a broker that hangs.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Messages written at once.
const CHUNK: usize = 256;

const CONNACK: u8 = 0x20;
const PUBLISH_QOS1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// How many messages are published, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages.
    pub messages: usize,
    /// Messages that may wait for the broker's acknowledgement; at least 1, far below 65 535.
    pub window: usize,
    /// Between two messages; zero: as fast as the broker takes them.
    pub interval: Duration,
}

/// An MQTT connection without a client library: the few packets that a load needs.
#[derive(Debug)]
pub struct Connection {
    write: TcpStream,
    read: BufReader<TcpStream>,
}

impl Connection {
    /// Connects with a clean session and no keep-alive.
    ///
    /// # Errors
    /// When the broker does not accept.
    pub fn open(port: u16, client: &str) -> Result<Self> {
        let write = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("failed to connect to the broker")?;
        write.set_nodelay(true)?;
        write.set_read_timeout(Some(ANSWERS_WITHIN))?;
        write.set_write_timeout(Some(ANSWERS_WITHIN))?;
        let read = BufReader::with_capacity(1 << 16, write.try_clone()?);
        let mut connection = Self { write, read };
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend([5, 0x02, 0, 0]); // version 5, clean start, no keep-alive
        body.extend([0]); // no properties
        text(&mut body, client);
        let mut packet = Vec::new();
        wrap(&mut packet, 0x10, &body);
        connection.write.write_all(&packet)?;
        let (kind, answer) = connection.packet()?;
        ensure!(kind == CONNACK && answer.get(1) == Some(&0), "the broker refuses the connection: {answer:?}");
        Ok(connection)
    }

    /// Publishes; `message` appends topic and payload of the message with this number to two empty strings. Returns when the broker has acknowledged
    /// all, with the time that it took.
    ///
    /// # Errors
    /// When the broker refuses a message, hangs or closes the connection.
    pub fn publish(&mut self, load: &Load, mut message: impl FnMut(usize, &mut String, &mut String)) -> Result<Duration> {
        let (started, mut sent, mut acknowledged) = (Instant::now(), 0_usize, 0_usize);
        let (mut buffer, mut topic, mut payload) = (Vec::new(), String::new(), String::new());
        while sent < load.messages {
            let room = (load.window - (sent - acknowledged)).min(CHUNK).min(load.messages - sent);
            let due = if load.interval.is_zero() { room } else { room.min(due(load.interval, started, sent)) };
            buffer.clear();
            for index in sent..sent + due {
                topic.clear();
                payload.clear();
                message(index, &mut topic, &mut payload);
                publish_packet(&mut buffer, &topic, index, &payload);
            }
            self.write.write_all(&buffer).context("failed to publish")?;
            sent += due;
            // Room for half a chunk at least: with less the system calls would get smaller and smaller.
            while sent - acknowledged > load.window - load.window.min(CHUNK) / 2 {
                self.acknowledgement()?;
                acknowledged += 1;
            }
        }
        while acknowledged < sent {
            self.acknowledgement()?;
            acknowledged += 1;
        }
        Ok(started.elapsed())
    }

    /// Subscribes to everything at QoS 1.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn subscribe(&mut self) -> Result<()> {
        let mut body = vec![0, 1, 0]; // packet id 1, no properties
        text(&mut body, "#");
        body.push(1);
        let mut packet = Vec::new();
        wrap(&mut packet, SUBSCRIBE, &body);
        self.write.write_all(&packet)?;
        let (kind, answer) = self.packet()?;
        ensure!(kind == SUBACK && answer.last() == Some(&1), "the broker refuses the subscription: {answer:?}");
        Ok(())
    }

    /// Receives `count` messages and acknowledges each, as many at once as have come.
    ///
    /// # Errors
    /// When the broker hangs or closes the connection.
    pub fn receive(&mut self, count: usize) -> Result<()> {
        let mut answers = Vec::new();
        for _ in 0..count {
            let (kind, body) = self.packet()?;
            ensure!(kind & 0xf6 == PUBLISH_QOS1, "the broker sends packet {kind:#x}");
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
            answers.extend([PUBACK, 2, body[2 + topic], body[3 + topic]]);
            if self.read.buffer().is_empty() {
                self.write.write_all(&answers)?;
                answers.clear();
            }
        }
        Ok(self.write.write_all(&answers)?)
    }

    fn acknowledgement(&mut self) -> Result<()> {
        let (kind, body) = self.packet()?;
        // Reason codes from 0x80 are refusals; "no subscriber" is none.
        ensure!(kind == PUBACK && body.get(2).is_none_or(|reason| *reason < 0x80), "the broker refuses a message: {kind:#x} {body:?}");
        Ok(())
    }

    /// First byte and body of the next packet.
    fn packet(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.read.read_exact(&mut byte).context("the broker is silent or has closed the connection")?;
        let (kind, mut length, mut shift) = (byte[0], 0_usize, 0);
        loop {
            self.read.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                bail!("the broker sends no MQTT");
            }
        }
        let mut body = vec![0; length];
        self.read.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

/// How many messages are due by now beyond those sent; waits for the first of them.
fn due(interval: Duration, started: Instant, sent: usize) -> usize {
    let at = interval.mul_f64(sent as f64);
    let early = at.saturating_sub(started.elapsed());
    std::thread::sleep(early);
    (((started.elapsed() - at).as_secs_f64() / interval.as_secs_f64()) as usize).max(1)
}

fn publish_packet(buffer: &mut Vec<u8>, topic: &str, index: usize, payload: &str) {
    buffer.push(PUBLISH_QOS1);
    length(buffer, 2 + topic.len() + 2 + 1 + payload.len());
    text(buffer, topic);
    // Never zero; used again long after its acknowledgement, the window being far smaller than the range.
    let packet_id = u16::try_from(index % 65_535).expect("below 65 535") + 1;
    buffer.extend(packet_id.to_be_bytes());
    buffer.push(0); // no properties
    buffer.extend(payload.as_bytes());
}

fn wrap(packet: &mut Vec<u8>, kind: u8, body: &[u8]) {
    packet.push(kind);
    length(packet, body.len());
    packet.extend(body);
}

fn text(buffer: &mut Vec<u8>, text: &str) {
    let bytes = u16::try_from(text.len()).expect("our own texts are short");
    buffer.extend(bytes.to_be_bytes());
    buffer.extend(text.as_bytes());
}

fn length(buffer: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        buffer.push(if length == 0 { low } else { low | 0x80 });
        if length == 0 {
            return;
        }
    }
}
