//! MQTT against a small broker of our own that drops connections: QoS 1 messages arrive all the same.
#![expect(clippy::disallowed_methods, reason = "tests start their own threads and join them")]
#![expect(clippy::unwrap_used, reason = "tests")]
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use hark_firmware_sim::mqtt::Broker;
use hark_firmware_sim::replay::{Shape, TimeText};
use hark_firmware_sim::{MqttNode, MqttNodeConfig, ReplayConfig, Stop, replay_to_mqtt};

const DEADLINE: Duration = Duration::from_secs(30);

/// Speaks as much MQTT 5 as a publisher needs. The first connection ends, unacknowledged, at its `drop_after`-th message.
fn broker(drop_after: Option<usize>) -> (u16, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        let mut drop_after = drop_after;
        while let Ok((stream, _)) = listener.accept() {
            // A connection that ends is what this broker is for.
            let _ended = serve(stream, drop_after.take(), &sender);
        }
    });
    (port, messages)
}

fn serve(mut stream: TcpStream, drop_after: Option<usize>, messages: &Sender<(String, String)>) -> std::io::Result<()> {
    let mut count = 0;
    loop {
        let (kind, body) = packet(&mut stream)?;
        match kind >> 4 {
            1 => stream.write_all(&[0x20, 3, 0, 0, 0])?,
            3 => {
                assert_eq!(kind & 0x06, 0x02, "QoS 1");
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let id = [body[topic_end], body[topic_end + 1]];
                assert_eq!(body[topic_end + 2], 0, "no properties");
                count += 1;
                if drop_after.is_some_and(|drop_after| count > drop_after) {
                    return Ok(());
                }
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let _test_may_be_over = messages.send((text(&body[2..topic_end]), text(&body[topic_end + 3..])));
                stream.write_all(&[0x40, 2, id[0], id[1]])?;
            }
            12 => stream.write_all(&[0xD0, 0])?,
            _ => return Ok(()),
        }
    }
}

fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let kind = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

fn recording(rows: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text =
        (0..rows).fold("datetime;A;B\n".to_owned(), |text, row| text + &format!("2020-03-09 10:{:02}:{:02};{row}.50;-1e-3\n", row / 60, row % 60));
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_replay_survives_a_lost_connection() {
    let (port, messages) = broker(Some(37));
    let file = recording(200);
    let (_handle, stop) = Stop::new();
    let config = ReplayConfig { time: TimeText::Rfc3339, ..ReplayConfig::new(file.path()) };
    let report = replay_to_mqtt(&config, Broker::new("127.0.0.1", port, "test"), "plant/demo/pump/{point}", &Shape::Scalars, stop).unwrap();
    assert_eq!((report.rows, report.messages, report.acknowledged, report.refused), (200, 400, 400, 0));
    let arrived: BTreeSet<_> = messages.try_iter().collect();
    let expected: BTreeSet<_> = (0..200)
        .flat_map(|row| {
            let ts = format!("2020-03-09T10:{:02}:{:02}Z", row / 60, row % 60);
            [("A", format!("{row}.50")), ("B", "-1e-3".to_owned())]
                .map(|(point, value)| (format!("plant/demo/pump/{point}"), format!("{{\"value\":{value},\"ts\":\"{ts}\"}}")))
        })
        .collect();
    assert_eq!(arrived, expected);
}

#[test]
fn a_batch_is_one_message_per_row() {
    let (port, messages) = broker(None);
    let file = recording(3);
    let (_handle, stop) = Stop::new();
    let report = replay_to_mqtt(&ReplayConfig::new(file.path()), Broker::new("127.0.0.1", port, "test"), "plant/all", &Shape::Batch, stop).unwrap();
    assert_eq!((report.rows, report.messages), (3, 3));
    let expected = r#"{"ts":"2020-03-09 10:00:01","values":{"A":1.50,"B":-1e-3}}"#;
    assert_eq!(messages.try_iter().nth(1), Some(("plant/all".into(), expected.into())));
}

/// The block says the range it was taken with, and its peaks stand at the end of it.
#[test]
fn a_sensor_on_mqtt_clips_too() {
    let (port, messages) = broker(None);
    let disturbances = vec!["clipping@0..1e9".parse().unwrap()];
    let config = MqttNodeConfig { waveform_samples: 1_024, disturbances, ..MqttNodeConfig::new(Broker::new("127.0.0.1", port, "test"), "fan-2") };
    let _node = MqttNode::spawn(config).unwrap();
    let (_, block) = std::iter::repeat_with(|| messages.recv_timeout(DEADLINE).unwrap()).find(|(topic, _)| topic.ends_with("/waveform")).unwrap();
    let block: serde_json::Value = serde_json::from_str(&block).unwrap();
    assert_eq!(block["scale"], 1.0 / 32_768.0);
    let samples: Vec<i64> = block["samples"].as_array().unwrap().iter().map(|sample| sample.as_i64().unwrap()).collect();
    let clipped = samples.iter().filter(|sample| **sample == i64::from(i16::MAX)).count();
    assert!((300..700).contains(&clipped), "{clipped} of 1024: what goes up from gravity");
}

#[test]
fn a_machine_publishes_scalars_and_raw_blocks() {
    let (port, messages) = broker(None);
    let config = MqttNodeConfig { waveform_samples: 1_024, ..MqttNodeConfig::new(Broker::new("127.0.0.1", port, "test"), "fan-2") };
    let node = MqttNode::spawn(config).unwrap();
    let mut topics = BTreeSet::new();
    while topics.len() < 5 {
        let (topic, payload) = messages.recv_timeout(DEADLINE).unwrap();
        let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
        if topic.ends_with("/waveform") {
            assert_eq!(payload["samples"].as_array().unwrap().len(), 1_024);
            assert!(payload["t0"].is_i64() && payload["unit"] == "[g]" && payload["fs"] == 26_667.0);
        } else {
            assert!(payload["value"].is_f64() && payload["ts"].is_i64(), "{payload}");
        }
        topics.insert(topic);
    }
    let expected = ["current", "de-h/waveform", "load", "speed", "temperature"].map(|point| format!("plant/demo/fan-2/{point}"));
    assert_eq!(topics, BTreeSet::from(expected));
    let begin = Instant::now();
    while node.stats().acknowledged < 5 {
        assert!(begin.elapsed() < DEADLINE, "{:?}", node.stats());
        std::thread::yield_now();
    }
    assert_eq!(node.stop().unwrap().refused, 0);
}
