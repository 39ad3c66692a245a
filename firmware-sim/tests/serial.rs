//! A node on a pseudo terminal: a reader that goes away and comes back loses nothing that fits the ring, and sees each frame's bytes whole.
#![expect(clippy::disallowed_methods, reason = "tests start their own threads and join them")]
#![expect(clippy::unwrap_used, reason = "tests")]
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hark_firmware_sim::replay::{Pace, Positive};
use hark_firmware_sim::{ReplayConfig, SerialNode, SerialNodeConfig, Stop, replay_to_pty};
use hark_protocol::node::{ANY_NODE, Ack, Body, Decoder, Frame, Kind, MAX_FRAME, encode};

const DEADLINE: Duration = Duration::from_secs(30);

fn open(link: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32).open(link).unwrap()
}

/// Reads and acknowledges until `enough` says so; frames are kept in the order of their seq.
fn read_until(port: &mut File, seen: &mut BTreeMap<Kind, Vec<Frame>>, enough: impl Fn(&BTreeMap<Kind, Vec<Frame>>) -> bool) {
    let (mut decoder, mut bytes, begin) = (Decoder::new(), [0; 512], Instant::now());
    while !enough(seen) {
        assert!(begin.elapsed() < DEADLINE, "seen {:?}", seen.iter().map(|(kind, frames)| (kind, frames.len())).collect::<Vec<_>>());
        let count = port.read(&mut bytes).unwrap();
        for frame in bytes[..count].iter().filter_map(|byte| decoder.push(*byte)).flatten() {
            let frames = seen.entry(frame.kind()).or_default();
            if frame.seq == frames.len() as u32 + 1 {
                frames.push(frame.clone());
            }
            let ack = Ack { boot: frame.boot, kind: frame.kind(), seq: frames.len() as u32 };
            let mut out = [0; MAX_FRAME];
            let len = encode(&Frame { node: ANY_NODE, boot: 1, seq: 1, time_us: 0, dropped: 0, body: Body::Ack(ack) }, &mut out).unwrap();
            port.write_all(&out[..len]).unwrap();
        }
    }
}

#[test]
fn a_reader_that_restarts_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("node");
    let block_every = Duration::from_millis(60);
    let resend_after = Duration::from_millis(200);
    let node = SerialNode::spawn(SerialNodeConfig { block_every, resend_after, ..SerialNodeConfig::new(&link) }).unwrap();
    let mut seen = BTreeMap::new();
    let features = |count: usize| move |seen: &BTreeMap<Kind, Vec<Frame>>| seen.get(&Kind::Features).is_some_and(|frames| frames.len() >= count);

    read_until(&mut open(&link), &mut seen, features(6));
    let before = node.stats().blocks;
    let begin = Instant::now();
    while node.stats().blocks < before + 20 {
        assert!(begin.elapsed() < DEADLINE && !node.is_finished(), "the node goes on without a reader");
        std::thread::yield_now();
    }
    read_until(&mut open(&link), &mut seen, features(6 + 50));

    let times: Vec<_> = seen[&Kind::Features].iter().filter(|f| matches!(&f.body, Body::Features(f) if f.channel == 0)).map(|f| f.time_us).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == block_every.as_micros() as u64), "every block, in order: {times:?}");
    let stats = node.stop().unwrap();
    assert_eq!(stats.dropped, 0);
    assert!(stats.received_bytes > 0);
    assert!(!link.exists(), "the name goes with the node");
}

/// Two nodes at a time, on a computer that is busy with both: what a node sends follows from seed and boot, not from when its thread gets its turn.
#[test]
fn the_same_seed_and_boot_give_the_same_bytes_on_a_port() {
    let directory = tempfile::tempdir().unwrap();
    let start = |name: &str, boot| {
        let link = directory.path().join(name);
        let node = SerialNode::spawn(SerialNodeConfig { boot: Some(boot), ..SerialNodeConfig::new(&link) }).unwrap();
        (node, open(&link))
    };
    let nodes = [start("a", 5), start("b", 5), start("c", 6)];
    let [a, b, c] = nodes.each_ref().map(|(_, port)| {
        let mut bytes = vec![0; 3_000];
        (&*port).read_exact(&mut bytes).unwrap();
        bytes
    });
    let kinds: BTreeSet<Kind> = frames(&a).iter().map(Frame::kind).collect();
    assert_eq!(kinds, BTreeSet::from([Kind::Hello, Kind::Features, Kind::Status]));
    assert!(a == b, "{:#?}\n{:#?}", frames(&a), frames(&b));
    assert!(a != c);
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    bytes.iter().filter_map(|byte| decoder.push(*byte)).flatten().collect()
}

#[test]
fn a_name_that_is_no_link_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("precious");
    std::fs::write(&link, "data").unwrap();
    assert!(SerialNode::spawn(SerialNodeConfig::new(&link)).is_err());
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "data");
}

#[test]
fn a_recording_arrives_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("a.csv"), directory.path().join("logger"));
    let text = (0..500).fold("ts,a,b\n".to_owned(), |text, row| text + &format!("{row},{}.10,\n", row * 3));
    std::fs::write(&file, &text).unwrap();
    let (_handle, stop) = Stop::new();
    let (config, port) = (ReplayConfig::new(&file), link.clone());
    let replay = std::thread::spawn(move || replay_to_pty(&config, &port, stop).unwrap());
    let begin = Instant::now();
    while !link.exists() {
        assert!(begin.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    let mut received = vec![0; text.len() + 1];
    open(&link).read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), format!("\n{text}"));
    let report = replay.join().unwrap();
    assert_eq!((report.rows, report.stopped), (500, false));
}

#[test]
fn a_recording_in_real_time_stops_between_two_rows_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("a.csv"), directory.path().join("logger"));
    std::fs::write(&file, "ts,a\n1000,1\n4600,2\n").unwrap();
    let (handle, stop) = Stop::new();
    let (config, port) = (ReplayConfig { pace: Pace::Speed(Positive::new(1.0).unwrap()), ..ReplayConfig::new(&file) }, link.clone());
    let replay = std::thread::spawn(move || replay_to_pty(&config, &port, stop).unwrap());
    let begin = Instant::now();
    while !link.exists() {
        assert!(begin.elapsed() < DEADLINE);
        std::thread::yield_now();
    }
    let mut received = [0; 13];
    open(&link).read_exact(&mut received).unwrap();
    assert_eq!(&received, b"\nts,a\n1000,1\n");
    handle.ask();
    let report = replay.join().unwrap();
    assert_eq!((report.rows, report.stopped), (1, true));
}
