//! The node's bytes are a contract with firmware in the field. If a golden test fails, the change is wrong, not the test.
#![expect(clippy::unwrap_used, reason = "tests")]
use hark_protocol::node::{
    Ack, Body, BootReason, CHUNK_SAMPLES, Capabilities, Channel, Command, DecodeError, Decoder, Features, Frame, Hello, Kind, MAX_FRAME, NodeEvent,
    Quantity, SnapshotChunk, Status, TimeSync, VALUES_MAX, VERSION, Value, crc32, encode,
};
use proptest::prelude::*;

/// One frame of each kind, version 1; computed by hand from the description in `wire.rs`, not by the code under test.
const GOLDEN: [(Kind, &str); 8] = [
    (Kind::Ack, "1c0107effdb6f50dac02cec2f1050307effdb6f50d01ac0259ba043d00"),
    (Kind::Command, "100107effdb6f50dac02cec2f1050306020905820ff82800"),
    (Kind::TimeSync, "1f0107effdb6f50dac02cec2f1050305018080f9c0c1c482030a14dc126a0f00"),
    (Kind::Event, "180107effdb6f50dac02cec2f105030403ff887a038c2a4b00"),
    (Kind::Status, "1f0107effdb6f50dac02cec2f1050303901c023333534001054001a425e85d00"),
    (Kind::Snapshot, "110107effdb6f50dac02cec2f1050302090301020956d04640daff39050d0201feff03ffff03ed4023fc00"),
    (Kind::Features, "100107effdb6f50dac02cec2f1050301020206295c4f3f0601075842eb3cf29b00"),
    (Kind::Hello, "0f0107effdb6f50dac02cec2f10503140f6861726b2d6e6f646520302e312e3001010103010102130456d0460107804150b640d300"),
];

fn example(kind: Kind) -> Frame {
    let body = match kind {
        Kind::Hello => Body::Hello(Hello {
            firmware: "hark-node 0.1.0".try_into().unwrap(),
            boot_reason: BootReason::BrownOut,
            capabilities: Capabilities { snapshot: true, time_sync: true, self_test: false, simulated: true },
            channels: [Channel { channel: 0, quantity: Quantity::Acceleration, rate_hz: 26_667.0, range: 16.0 }].into_iter().collect(),
        }),
        Kind::Features => Body::Features(Features {
            channel: 0,
            values: [Value { quantity: Quantity::VRms, value: 0.81 }, Value { quantity: Quantity::EnvBpfo, value: 54.0 }].into_iter().collect(),
        }),
        Kind::Snapshot => Body::Snapshot(SnapshotChunk {
            id: 9,
            channel: 0,
            chunk: 1,
            chunks: 2,
            fs_hz: 26_667.0,
            scale: 0.000_488,
            samples: [0, 1, -1, i16::MAX, i16::MIN].into_iter().collect(),
        }),
        Kind::Status => {
            Body::Status(Status { uptime_s: 3_600, overruns: 2, supply_v: 3.3, self_test: true, waiting: 5, capacity: 64, bad_frames: 1 })
        }
        Kind::Event => Body::Event(NodeEvent::ClockStepped { by_us: -1_000_000 }),
        Kind::TimeSync => Body::TimeSync(TimeSync::Reply { t1_us: 1_700_000_000_000_000, t2_us: 10, t3_us: 20 }),
        Kind::Command => Body::Command(Command::Snapshot { id: 9, channel: 0 }),
        Kind::Ack => Body::Ack(Ack { boot: 0xDEAD_BEEF, kind: Kind::Features, seq: 300 }),
    };
    Frame { node: 7, boot: 0xDEAD_BEEF, seq: 300, time_us: 12_345_678, dropped: 3, body }
}

fn bytes(frame: &Frame) -> Vec<u8> {
    let mut out = [0; MAX_FRAME];
    let len = encode(frame, &mut out).unwrap();
    out[..len].to_vec()
}

fn frames(stream: &[u8]) -> Vec<Result<Frame, DecodeError>> {
    let mut decoder = Decoder::new();
    stream.iter().filter_map(|byte| decoder.push(*byte)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_of_version_1_are_frozen() {
    for kind in Kind::ALL {
        let frame = example(kind);
        assert_eq!(frame.kind(), kind);
        let encoded = bytes(&frame);
        assert!(GOLDEN.contains(&(kind, hex(&encoded).as_str())), "{kind:?}: {}", hex(&encoded));
        assert_eq!(frames(&encoded), [Ok(frame)]);
    }
}

/// What raw blocks need beside these, computed as those were.
#[test]
fn frames_of_raw_blocks_are_frozen() {
    let cannot = Body::Hello(Hello {
        firmware: "hark-node 0.9.0".try_into().unwrap(),
        boot_reason: BootReason::PowerOn,
        capabilities: Capabilities { snapshot: false, time_sync: true, self_test: true, simulated: false },
        channels: [
            Channel { channel: 0, quantity: Quantity::Acceleration, rate_hz: 26_667.0, range: 16.0 },
            Channel { channel: 1, quantity: Quantity::Temperature, rate_hz: 0.0, range: 150.0 },
        ]
        .into_iter()
        .collect(),
    });
    let last = Body::Snapshot(SnapshotChunk {
        id: u32::MAX,
        channel: 0,
        chunk: 56,
        chunks: 57,
        fs_hz: 26_667.0,
        scale: 0.000_488,
        samples: [i16::MIN, i16::MAX].into_iter().collect(),
    });
    for (body, golden) in [
        (Body::Command(Command::SendHello), "150107effdb6f50dac02cec2f105030601ee09c5aa00"),
        (Body::Event(NodeEvent::CommandDone { seq: 300 }), "170107effdb6f50dac02cec2f105030406ac023b9202bb00"),
        (Body::Event(NodeEvent::CommandRefused { seq: 300 }), "170107effdb6f50dac02cec2f105030407ac020cf8c0ba00"),
        (cannot, "0f0107effdb6f50dac02cec2f10503110f6861726b2d6e6f646520302e392e3001030101020202130456d04601058041010a01010101010716438d37f84000"),
        (last, "150107effdb6f50dac02cec2f1050302ffffffff0f0338391356d04640daff3902ffff03feff033646845500"),
    ] {
        let frame = Frame { body, ..example(Kind::Ack) };
        let encoded = bytes(&frame);
        assert_eq!(hex(&encoded), golden, "{frame:?}");
        assert_eq!(frames(&encoded), [Ok(frame)]);
    }
}

/// A variant that this version does not know costs its own frame: the sender hears nothing and has to draw its conclusion.
#[test]
fn an_unknown_command_is_passed_over() {
    let mut content = vec![VERSION];
    content.extend(postcard_of(&Frame { body: Body::Command(Command::Restart), ..example(Kind::Ack) }));
    *content.last_mut().unwrap() = 4;
    let plain = [&content[..], &crc32(&content).to_le_bytes()].concat();
    let mut out = [0; MAX_FRAME];
    let len = cobs::try_encode(&plain, &mut out).unwrap();
    let stream = [&out[..len], &[0], &bytes(&example(Kind::Ack))].concat();
    assert_eq!(frames(&stream), [Err(DecodeError::Body), Ok(example(Kind::Ack))]);
}

#[test]
fn numbers_of_quantities_are_frozen() {
    let names = [
        "v_rms",
        "a_rms",
        "crest",
        "kurtosis",
        "peak_to_peak",
        "env.rms",
        "env.bpfo",
        "env.bpfi",
        "env.bsf",
        "env.ftf",
        "temperature",
        "speed",
        "load",
        "current",
        "pressure",
        "flow",
        "power",
        "voltage",
        "humidity",
        "acceleration",
        "skewness",
    ];
    for (number, quantity) in Quantity::ALL.into_iter().enumerate() {
        assert_eq!(quantity as usize, number);
        assert_eq!(quantity.name(), names[number]);
    }
}

#[test]
fn the_largest_bodies_fit_a_frame() {
    let widest = Value { quantity: Quantity::Skewness, value: f32::MIN };
    let bodies = [
        Body::Snapshot(SnapshotChunk {
            id: u32::MAX,
            channel: u8::MAX,
            chunk: u16::MAX,
            chunks: u16::MAX,
            fs_hz: f32::MAX,
            scale: f32::MAX,
            samples: std::iter::repeat_n(i16::MIN, CHUNK_SAMPLES).collect(),
        }),
        Body::Features(Features { channel: u8::MAX, values: std::iter::repeat_n(widest, VALUES_MAX).collect() }),
        Body::Hello(Hello {
            firmware: "x".repeat(24).as_str().try_into().unwrap(),
            boot_reason: BootReason::Command,
            capabilities: Capabilities::default(),
            channels: std::iter::repeat_n(Channel { channel: u8::MAX, quantity: Quantity::Skewness, rate_hz: f32::MAX, range: f32::MAX }, 8)
                .collect(),
        }),
    ];
    for body in bodies {
        let frame = Frame { node: u32::MAX, boot: u32::MAX, seq: u32::MAX, time_us: u64::MAX, dropped: u32::MAX, body };
        assert_eq!(frames(&bytes(&frame)), [Ok(frame)]);
    }
}

#[test]
fn each_fault_has_its_name() {
    let good = bytes(&example(Kind::Status));
    let sealed = |content: &[u8]| {
        let plain = [content, &crc32(content).to_le_bytes()].concat();
        let mut out = [0; MAX_FRAME + 8];
        let len = cobs::try_encode(&plain, &mut out).unwrap();
        [&out[..len], &[0]].concat()
    };
    let cases = [
        ("cobs", vec![5, 1, 0]),
        ("crc", [&good[..8], &[good[8] ^ 0x40], &good[9..]].concat()),
        ("version", sealed(&[VERSION + 1, 1, 2, 3])),
        ("body", sealed(&[VERSION, 1, 1, 1, 1, 1, 99])),
        ("truncated", vec![2, 7, 0]),
        ("too_long", [vec![1; MAX_FRAME + 1], vec![0]].concat()),
    ];
    for (name, stream) in cases {
        let found = frames(&[stream, good.clone()].concat());
        assert_eq!(found.len(), 2, "{name}");
        assert_eq!(found[0].as_ref().unwrap_err().name(), name);
        assert_eq!(found[1], Ok(example(Kind::Status)), "after {name}");
    }
}

#[test]
fn trailing_bytes_are_no_frame() {
    let mut content = vec![VERSION];
    content.extend(postcard_of(&example(Kind::Ack)));
    content.push(0);
    let plain = [&content[..], &crc32(&content).to_le_bytes()].concat();
    let mut out = [0; MAX_FRAME];
    let len = cobs::try_encode(&plain, &mut out).unwrap();
    assert_eq!(frames(&[&out[..len], &[0]].concat()), [Err(DecodeError::Body)]);
}

#[test]
fn delimiters_in_a_row_are_no_error() {
    assert_eq!(frames(&[0; 10]), []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_garbage_a_delimiter_brings_the_next_frame(garbage in prop::collection::vec(any::<u8>(), 0..2_000), index in 0..Kind::COUNT) {
        let frame = example(Kind::ALL[index]);
        let found = frames(&[&garbage[..], &[0], &bytes(&frame)].concat());
        prop_assert_eq!(found.last(), Some(&Ok(frame)));
    }

    #[test]
    fn changed_bits_never_give_a_wrong_frame(index in 0..Kind::COUNT, flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..6)) {
        let frame = example(Kind::ALL[index]);
        let mut stream = bytes(&frame);
        for (position, bit) in &flips {
            let position = position.index(stream.len());
            stream[position] ^= 1 << bit;
        }
        stream.push(0);
        for result in frames(&stream) {
            prop_assert!(result.is_err() || result == Ok(frame.clone()), "{:?}", result);
        }
    }

    #[test]
    fn any_features_survive_the_line(channel: u8, seq: u32, time_us: u64, values in prop::collection::vec((0..Quantity::ALL.len(), -1e9_f32..1e9), 0..=VALUES_MAX)) {
        let values = values.into_iter().map(|(index, value)| Value { quantity: Quantity::ALL[index], value }).collect();
        let frame = Frame { node: 1, boot: 2, seq, time_us, dropped: 0, body: Body::Features(Features { channel, values }) };
        prop_assert_eq!(frames(&bytes(&frame)), vec![Ok(frame)]);
    }
}

/// Every single bit of every kind, not a sample of them.
#[test]
fn no_single_bit_flip_is_taken_for_a_frame() {
    for kind in Kind::ALL {
        let good = bytes(&example(kind));
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut stream = good.clone();
                stream[position] ^= 1 << bit;
                stream.push(0);
                // A delimiter that became a byte leaves a longer frame, whose checksum then differs.
                assert!(frames(&stream).iter().all(Result::is_err), "{kind:?}, byte {position}, bit {bit}");
            }
        }
    }
}

fn postcard_of(frame: &Frame) -> Vec<u8> {
    let mut out = [0; MAX_FRAME];
    postcard::to_slice(frame, &mut out).unwrap().to_vec()
}
