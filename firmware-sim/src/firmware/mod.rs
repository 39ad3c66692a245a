//! The node's firmware: what would run on a microcontroller, without `std` and without an allocator.
//!
//! Interrupt → fixed ring → DC removal, filters, decimation → features → frame → [`OutBox`]. The surroundings call four functions:
//! [`Firmware::sample`] from the sampling interrupt, [`Firmware::receive`] per byte from the line, [`Firmware::run`] from the main loop, and
//! [`Firmware::transmit`] until nothing is due. Node time comes with each call, in microseconds since the start.
pub mod filter;
pub mod moments;
pub mod outbox;
pub mod ring;
pub mod snapshot;
pub mod spectrum;
pub mod vibration;

use hark_protocol::node::{
    ANY_NODE, Ack, Body, BootReason, Capabilities, Channel, Command, Decoder, Features, Frame, Hello, Kind, MAX_FRAME, NodeEvent, Quantity, Status,
    TimeSync, Value, encode,
};
use heapless::{Deque, Vec};
pub use outbox::OutBox;
pub use ring::SampleRing;
pub use snapshot::SNAPSHOT_SAMPLES;
pub use vibration::{BLOCK_SAMPLES, BearingOrders};

/// Name and version of this firmware, counted on its own: a release of the simulator does not change what nodes send.
const FIRMWARE: &str = "hark-node 1.2.0";
/// Frames that may wait for acknowledgement: 20 s of two channels at six blocks a second.
pub const OUTBOX_FRAMES: usize = 256;
/// Samples between interrupt and main loop: 77 ms at 26 667 Hz.
pub const RING_SAMPLES: usize = 2_048;
/// Channel number of the vibration sensor.
pub const VIBRATION_CHANNEL: u8 = 0;
/// Channel number of the process values.
pub const PROCESS_CHANNEL: u8 = 1;
/// Chunks of a raw block that wait for acknowledgement at most: enough to fill a line of 115 200 baud until the agent has committed the first of them.
const CHUNKS_WAITING: usize = 8;
/// A status frame goes out this often.
const STATUS_EVERY_US: u64 = 5_000_000;
/// A self-test lasts this long.
const SELF_TEST_US: u64 = 2_000_000;

/// What a node is built and set up for.
#[derive(Clone, Copy, Debug)]
pub struct FirmwareConfig {
    /// Node id, not [`ANY_NODE`].
    pub node: u32,
    /// Boot id, a new one at each start.
    pub boot: u32,
    /// Why it starts.
    pub boot_reason: BootReason,
    /// Samples per second.
    pub rate_hz: f32,
    /// Acceleration of the largest sample, g.
    pub range_g: f32,
    /// The bearing next to the sensor, for envelope lines.
    pub bearing: Option<BearingOrders>,
    /// An unacknowledged frame is sent again after so many microseconds.
    pub resend_after_us: u64,
    /// Its signals are simulated.
    pub simulated: bool,
}

/// Process values as the node's slow inputs read them; a value that is not connected is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessValues {
    /// Of the bearing housing, degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Of the shaft, 1/min.
    pub speed_rpm: Option<f32>,
    /// Percent of nominal.
    pub load_percent: Option<f32>,
    /// Of the motor, A.
    pub current_a: Option<f32>,
}

/// The node. About 250 kB, all of it allocated at the start.
#[derive(Debug)]
pub struct Firmware {
    config: FirmwareConfig,
    ring: SampleRing<RING_SAMPLES>,
    vibration: vibration::Vibration,
    clipped: u32,
    overruns_told: u32,
    process: ProcessValues,
    supply_v: f32,
    snapshot: snapshot::Snapshot,
    outbox: OutBox<OUTBOX_FRAMES>,
    /// Sent once, without acknowledgement.
    replies: Deque<Vec<u8, MAX_FRAME>, 8>,
    seq: [u32; Kind::COUNT],
    decoder: Decoder,
    bad_frames: u32,
    last_command: Option<(u32, u32)>,
    status_due_us: u64,
    self_test_end_us: Option<u64>,
    restart_asked: bool,
    blocks: u64,
}

impl Firmware {
    /// Starts the node and queues its hello.
    pub fn new(config: FirmwareConfig, now_us: u64) -> Self {
        let mut firmware = Self {
            config,
            ring: SampleRing::new(),
            vibration: vibration::Vibration::new(config.rate_hz),
            clipped: 0,
            overruns_told: 0,
            process: ProcessValues::default(),
            supply_v: 3.3,
            snapshot: snapshot::Snapshot::new(config.rate_hz),
            outbox: OutBox::new(config.resend_after_us),
            replies: Deque::new(),
            seq: [0; Kind::COUNT],
            decoder: Decoder::new(),
            bad_frames: 0,
            last_command: None,
            status_due_us: now_us,
            self_test_end_us: None,
            restart_asked: false,
            blocks: 0,
        };
        firmware.say_hello(now_us);
        firmware
    }

    /// Sampling interrupt: one raw sample of the vibration channel. Never waits; a sample that finds the ring full is counted.
    pub fn sample(&mut self, raw: i16) {
        self.ring.push(raw);
    }

    /// The sensor's range, g, for the samples that follow. A change is told by a hello, which names the range.
    pub fn set_range(&mut self, range_g: f32, now_us: u64) {
        if self.config.range_g != range_g {
            self.config.range_g = range_g;
            self.say_hello(now_us);
        }
    }

    /// The slow inputs were read.
    pub fn set_process_values(&mut self, values: ProcessValues) {
        self.process = values;
    }

    /// The supply was measured, V.
    pub fn set_supply(&mut self, supply_v: f32) {
        self.supply_v = supply_v;
    }

    /// The node's clock was set; told to the agent so that it compares clocks anew.
    pub fn clock_stepped(&mut self, by_us: i64, now_us: u64) {
        self.keep(now_us, Body::Event(NodeEvent::ClockStepped { by_us }));
    }

    /// One turn of the main loop: empties the ring, computes what is complete, queues frames. A block that ends in it has the time `now_us`.
    pub fn run(&mut self, now_us: u64) {
        while let Some(raw) = self.ring.pop() {
            self.snapshot.record(raw, now_us, self.scale());
            self.clipped += u32::from(raw == i16::MAX || raw == i16::MIN);
            if self.vibration.push(f32::from(raw) * self.scale()) {
                self.finish_block(now_us);
            }
        }
        self.finish_self_test(now_us);
        self.tell_status(now_us);
        self.queue_snapshot_chunks();
    }

    /// One byte from the line.
    pub fn receive(&mut self, byte: u8, now_us: u64) {
        match self.decoder.push(byte) {
            None => {}
            Some(Err(_)) => self.bad_frames = self.bad_frames.saturating_add(1),
            Some(Ok(frame)) if frame.node == self.config.node || frame.node == ANY_NODE => self.obey(&frame, now_us),
            Some(Ok(_)) => {}
        }
    }

    /// The next bytes for the line, one frame with its delimiter; `None` when nothing is due.
    pub fn transmit(&mut self, now_us: u64, out: &mut Vec<u8, MAX_FRAME>) -> bool {
        out.clear();
        let encoded = match self.replies.pop_front() {
            Some(reply) => out.extend_from_slice(&reply),
            None => match self.outbox.next_due(now_us) {
                Some(encoded) => out.extend_from_slice(encoded),
                None => return false,
            },
        };
        encoded.is_ok()
    }

    /// Blocks completed since the start.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Frames that wait for acknowledgement.
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Frames dropped because the ring was full.
    pub fn dropped(&self) -> u32 {
        self.outbox.dropped()
    }

    /// Whether the agent asked for a restart; the surroundings then build a new `Firmware` with a new boot id.
    pub fn restart_asked(&self) -> bool {
        self.restart_asked
    }

    /// Acceleration per raw unit, g.
    fn scale(&self) -> f32 {
        self.config.range_g / 32_768.0
    }

    fn say_hello(&mut self, now_us: u64) {
        let channel = |channel, quantity, rate_hz, range| Channel { channel, quantity, rate_hz, range };
        let channels = [
            channel(VIBRATION_CHANNEL, Quantity::Acceleration, self.config.rate_hz, self.config.range_g),
            channel(PROCESS_CHANNEL, Quantity::Temperature, 0.0, 150.0),
        ];
        let hello = Hello {
            firmware: FIRMWARE.try_into().expect("the name fits its 24 bytes"),
            boot_reason: self.config.boot_reason,
            capabilities: Capabilities { snapshot: true, time_sync: true, self_test: true, simulated: self.config.simulated },
            channels: channels.into_iter().collect(),
        };
        self.keep(now_us, Body::Hello(hello));
    }

    fn finish_block(&mut self, now_us: u64) {
        self.blocks += 1;
        let shaft_hz = self.process.speed_rpm.map(|rpm| rpm / 60.0);
        match self.vibration.features(self.config.bearing, shaft_hz) {
            Some(values) => self.keep(now_us, Body::Features(Features { channel: VIBRATION_CHANNEL, values })),
            None => self.keep(now_us, Body::Event(NodeEvent::Stuck { channel: VIBRATION_CHANNEL })),
        }
        let clipped = core::mem::take(&mut self.clipped);
        if clipped > 0 {
            self.keep(now_us, Body::Event(NodeEvent::Clipped { channel: VIBRATION_CHANNEL, samples: clipped }));
        }
        let overruns = self.ring.overruns() - core::mem::replace(&mut self.overruns_told, self.ring.overruns());
        if overruns > 0 {
            self.keep(now_us, Body::Event(NodeEvent::Overrun { channel: VIBRATION_CHANNEL, samples: overruns }));
        }
        self.tell_process_values(now_us);
    }

    fn tell_process_values(&mut self, now_us: u64) {
        let ProcessValues { temperature_c, speed_rpm, load_percent, current_a } = self.process;
        let measured =
            [(Quantity::Temperature, temperature_c), (Quantity::Speed, speed_rpm), (Quantity::Load, load_percent), (Quantity::Current, current_a)];
        let values: Vec<_, _> = measured.into_iter().filter_map(|(quantity, value)| Some(Value { quantity, value: value? })).collect();
        if !values.is_empty() {
            self.keep(now_us, Body::Features(Features { channel: PROCESS_CHANNEL, values }));
        }
    }

    fn finish_self_test(&mut self, now_us: u64) {
        if self.self_test_end_us.is_some_and(|end_us| now_us >= end_us) {
            self.self_test_end_us = None;
            self.keep(now_us, Body::Event(NodeEvent::SelfTestEnded { passed: true }));
            self.status_due_us = now_us;
        }
    }

    fn tell_status(&mut self, now_us: u64) {
        if now_us < self.status_due_us {
            return;
        }
        self.status_due_us = now_us.saturating_add(STATUS_EVERY_US);
        let status = Status {
            uptime_s: (now_us / 1_000_000) as u32,
            overruns: self.ring.overruns(),
            supply_v: self.supply_v,
            self_test: self.self_test_end_us.is_some(),
            waiting: self.outbox.len() as u16,
            capacity: OUTBOX_FRAMES as u16,
            bad_frames: self.bad_frames,
        };
        self.keep(now_us, Body::Status(status));
    }

    /// A few at a time, and none while acknowledgements stay away: the ring is for features.
    fn queue_snapshot_chunks(&mut self) {
        while self.outbox.of(Kind::Snapshot) < CHUNKS_WAITING && self.outbox.len() < OUTBOX_FRAMES / 2 {
            let Some((begin_us, chunk)) = self.snapshot.next_chunk() else { return };
            self.keep(begin_us, Body::Snapshot(chunk));
        }
    }

    fn obey(&mut self, frame: &Frame, now_us: u64) {
        match &frame.body {
            Body::Ack(Ack { boot, kind, seq }) if *boot == self.config.boot => self.outbox.ack(*kind, *seq),
            Body::TimeSync(TimeSync::Request { t1_us }) => self.reply_time(*t1_us, now_us),
            Body::Command(command) if self.last_command != Some((frame.boot, frame.seq)) => {
                self.last_command = Some((frame.boot, frame.seq));
                let done = self.carry_out(*command, now_us);
                let seq = frame.seq;
                let event = if done { NodeEvent::CommandDone { seq } } else { NodeEvent::CommandRefused { seq } };
                self.keep(now_us, Body::Event(event));
            }
            _ => {}
        }
    }

    /// T2 and T3 are the same here: the reply is encoded in the turn in which the request came.
    fn reply_time(&mut self, t1_us: u64, now_us: u64) {
        let body = Body::TimeSync(TimeSync::Reply { t1_us, t2_us: now_us, t3_us: now_us });
        let (_, encoded) = self.encode(now_us, body);
        if self.replies.is_full() {
            let _oldest_is_worth_least = self.replies.pop_front();
        }
        let _room_was_made = self.replies.push_back(encoded);
    }

    fn carry_out(&mut self, command: Command, now_us: u64) -> bool {
        match command {
            Command::Snapshot { id, channel: VIBRATION_CHANNEL } => {
                self.snapshot.start(id, VIBRATION_CHANNEL);
                true
            }
            Command::Snapshot { .. } => false,
            Command::SendHello => {
                self.say_hello(now_us);
                true
            }
            Command::SelfTest if self.self_test_end_us.is_some() => false,
            Command::SelfTest => {
                self.self_test_end_us = Some(now_us.saturating_add(SELF_TEST_US));
                self.keep(now_us, Body::Event(NodeEvent::SelfTestStarted));
                self.status_due_us = now_us;
                true
            }
            Command::Restart => {
                self.restart_asked = true;
                true
            }
        }
    }

    /// Encodes a frame and keeps it until it is acknowledged.
    fn keep(&mut self, time_us: u64, body: Body) {
        let kind = body.kind();
        self.outbox.make_room();
        let (seq, encoded) = self.encode(time_us, body);
        self.outbox.push(kind, seq, &encoded);
    }

    fn encode(&mut self, time_us: u64, body: Body) -> (u32, Vec<u8, MAX_FRAME>) {
        let seq = &mut self.seq[body.kind().index()];
        *seq += 1;
        let frame = Frame { node: self.config.node, boot: self.config.boot, seq: *seq, time_us, dropped: self.outbox.dropped(), body };
        let mut encoded = Vec::new();
        encoded.resize_default(MAX_FRAME).expect("the vector has this capacity");
        let len = encode(&frame, &mut encoded).expect("bodies within their capacities fit a frame (tested in the protocol)");
        encoded.truncate(len);
        (frame.seq, encoded)
    }
}
