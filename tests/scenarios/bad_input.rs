//! Bad input is counted by cause, shown in `/metrics`, and holds nobody up: a good neighbour's readings go on, and the agent ends in order.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hark_firmware_sim::serial::Pty;
use hark_protocol::node::{Body, Features, Frame, MAX_FRAME, Quantity, VERSION, Value, crc32, encode};
use hark_tests::support::{Agent, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(20);
const ASSET: &str =
    "id = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\nrange = [0.0, 100.0]\n[[point]]\nid = \"vib.v_rms\"\nunit = \"mm/s\"\n";
const PORTS: &str = "[[serial]]\nname = \"lines\"\npath = \"pty-lines\"\nformat = \"csv\"\nasset = \"pump\"\nseparator = \";\"\ncolumns = [\"ts\", \"flow\"]\n\
[[serial]]\nname = \"json\"\npath = \"pty-json\"\nformat = \"json\"\nasset = \"pump\"\npayload = { values = \"\", time = \"/ts\" }\n\
[[serial]]\nname = \"nodes\"\npath = \"pty-nodes\"\nformat = \"node\"\n[[serial.node]]\nid = 7\nasset = \"pump\"\nchannels = [\"vib\"]\n";

/// Garbage on three serial lines: every cause has its counter, and the good line between is stored.
#[test]
fn garbage_on_serial_lines_is_counted_and_holds_nobody_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let open = |name: &str| Pty::open(&dir.path().join(name)).with_context(|| format!("failed to open {name}"));
    let (lines, json, nodes) = (open("pty-lines")?, open("pty-json")?, open("pty-nodes")?);
    let mut agent = Agent::configure(PROGRAM, dir.path(), "gw-bad", PORTS, &[("pump".into(), ASSET.into())])?;
    agent.start()?;
    wait_until("all ports to be open", SOON, || agent.metrics().is_ok_and(|m| m.sum("hark_source_connected") == Some(3.0)))?;

    let send = |pty: &Pty, bytes: &[u8]| send(&runtime, pty, bytes);
    send(&lines, b"\n2026-01-01T00:00:00Z;12.5\n\xff\xfe\x00garbage\n1;2;3\n2026-01-01T00:00:01Z;NaN\n2026-01-01T00:00:02Z;RUN\n")?;
    send(&lines, b"1970-01-01T00:00:00Z;1\n2106-01-01T00:00:00Z;2\nnoon;3\n2026-01-01T00:00:03Z;1e9\n")?;
    send(&lines, &vec![b'x'; 70_000])?;
    send(&lines, b"\n2026-01-01T00:00:04Z;13.5\n")?;
    send(&json, b"\n{\"ts\": 1767225600, \"flow\": 5}\n{half\n[1,2]\n{\"ts\": 1767225601, \"colour\": 5}\n{\"flow\": null}\n")?;
    let (good, stranger, mut wrong_crc) = (frame(7, 1)?, frame(9, 1)?, frame(7, 2)?);
    let middle = wrong_crc.len() / 2;
    wrong_crc[middle] ^= 0x40;
    let (wrong_version, wrong_body) = (sealed(&[VERSION + 1, 7, 1, 3, 9])?, sealed(&[VERSION, 7, 1, 3, 9])?);
    send(&nodes, &[&b"boot banner\r\n\0"[..], &wrong_crc, &wrong_version, &wrong_body].concat())?;
    send(&nodes, &[&good[..10], &[0, 2, 7, 0], &stranger[..], &[0xAA; 900], &[0], &good].concat())?;

    let causes = [
        ("lines", "rejected", "not_utf8", 1.0),
        ("lines", "rejected", "wrong_columns", 1.0),
        ("lines", "rejected", "too_large", 1.0),
        ("lines", "quality", "not_a_number", 1.0),
        ("lines", "quality", "not_mapped", 1.0),
        ("lines", "quality", "out_of_range", 1.0),
        ("lines", "replaced", "implausible_time", 3.0),
        ("json", "rejected", "not_json", 1.0),
        ("json", "rejected", "wrong_shape", 1.0),
        ("json", "dropped", "unknown_point", 1.0),
        ("json", "quality", "source", 1.0),
        ("nodes", "rejected", "cobs", 2.0), // the banner and the half frame
        ("nodes", "rejected", "crc", 1.0),
        ("nodes", "rejected", "version", 1.0),
        ("nodes", "rejected", "body", 1.0),
        ("nodes", "rejected", "truncated", 1.0),
        ("nodes", "rejected", "too_long", 1.0),
        ("nodes", "dropped", "unknown_node", 1.0),
    ];
    // The last message of each port is a good one: what came before it is counted by then.
    wait_until("the good readings", SOON, || {
        // As a node does until it is acknowledged; this one tells no time, so its frames wait for that first.
        let _ = send(&nodes, &good);
        accepted(&agent, "lines") == Some(8.0) && accepted(&agent, "json") == Some(2.0) && accepted(&agent, "nodes") == Some(1.0)
    })
    .with_context(|| format!("{:?}", agent.metrics()))?;
    let metrics = agent.metrics()?;
    for (source, group, cause, expected) in causes {
        let series = format!("hark_source_cause_total{{source=\"{source}\",group=\"{group}\",cause=\"{cause}\"}}");
        ensure!(metrics.get(&series) == Some(expected), "{series} is not {expected} in {metrics:?}");
    }
    agent.stop()?;
    Ok(())
}

/// A serial device is unplugged in the middle of a line and comes back as another device under the same name: the half line is counted, the
/// port is opened again, and the port beside it notices nothing.
#[test]
fn a_serial_device_that_disappears_is_taken_up_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let open = |name: &str| Pty::open(&dir.path().join(name)).with_context(|| format!("failed to open {name}"));
    let (lines, json, _nodes) = (open("pty-lines")?, open("pty-json")?, open("pty-nodes")?);
    let mut agent = Agent::configure(PROGRAM, dir.path(), "gw-unplugged", PORTS, &[("pump".into(), ASSET.into())])?;
    agent.start()?;
    let connected = |ports: f64| wait_until("the ports", SOON, || agent.metrics().is_ok_and(|m| m.sum("hark_source_connected") == Some(ports)));
    connected(3.0)?;
    send(&runtime, &lines, b"\n2026-01-01T00:00:00Z;12.5\n2026-01-01T00:00:01Z;1")?;
    wait_until("the whole line", SOON, || accepted(&agent, "lines") == Some(1.0))?;

    drop(lines);
    connected(2.0)?;
    send(&runtime, &json, b"\n{\"ts\": 1767225600, \"flow\": 5}\n")?;
    wait_until("the neighbour's line", SOON, || accepted(&agent, "json") == Some(1.0))?;
    let half_line = "hark_source_cause_total{source=\"lines\",group=\"rejected\",cause=\"half_line\"}";
    ensure!(agent.metrics()?.get(half_line) == Some(1.0), "{:?}", agent.metrics());

    let lines = open("pty-lines")?;
    connected(3.0)?;
    send(&runtime, &lines, b"\n2026-01-01T00:00:02Z;13.5\n")?;
    wait_until("the line after the return", SOON, || accepted(&agent, "lines") == Some(2.0))?;
    agent.stop().map(drop)
}

/// A logger that names its columns itself: the rest of a line that began before the port was opened is no value, a banner is no header, columns in
/// another order after a replug are taken in that order, and any line end is one.
#[test]
fn a_logger_that_comes_and_goes_never_gives_a_wrong_value() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let open = || Pty::open(&dir.path().join("pty-logger")).context("failed to open the port");
    let port = "[[serial]]\nname = \"logger\"\npath = \"pty-logger\"\nformat = \"csv\"\nasset = \"pump\"\nseparator = \";\"\n";
    // Ranges that do not overlap: a value that is not its own point's is bad.
    let asset = "id = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\nrange = [0.0, 10.0]\n[[point]]\nid = \"pressure\"\nunit = \"bar\"\nrange = [100.0, 200.0]\n";
    let mut agent = Agent::configure(PROGRAM, dir.path(), "gw-logger", port, &[("pump".into(), asset.into())])?;

    // Before the agent opens the port, so that it finds the rest of a line there.
    let logger = open()?;
    send(&runtime, &logger, b"23.5;2.5\r\nlogger v1.2; ready\r\nflow;pressure\r\n1;101\r\n2;102\r\n")?;
    agent.start()?;
    wait_until("two lines", SOON, || accepted(&agent, "logger") == Some(4.0)).with_context(|| format!("{:?}", agent.metrics()))?;
    drop(logger);
    wait_until("the port to be gone", SOON, || agent.metrics().is_ok_and(|m| m.sum("hark_source_connected") == Some(0.0)))?;

    let logger = open()?;
    send(&runtime, &logger, b"\r103;3\rpressure;flow\r104;4\r105;5\r")?;
    wait_until("two lines more", SOON, || accepted(&agent, "logger") == Some(8.0)).with_context(|| format!("{:?}", agent.metrics()))?;
    let metrics = agent.metrics()?;
    let cause = |group: &str, cause: &str| metrics.get(&format!("hark_source_cause_total{{source=\"logger\",group=\"{group}\",cause=\"{cause}\"}}"));
    ensure!(cause("rejected", "half_line") == Some(1.0) && cause("rejected", "no_header") == Some(2.0), "{metrics:?}");
    ensure!(cause("quality", "out_of_range").is_none(), "{metrics:?}");
    agent.stop().map(drop)
}

fn send(runtime: &tokio::runtime::Runtime, pty: &Pty, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[runtime.block_on(pty.write(rest))?..];
    }
    Ok(())
}

fn accepted(agent: &Agent, source: &str) -> Option<f64> {
    agent.metrics().ok()?.get(&format!("hark_source_readings_accepted_total{{source=\"{source}\"}}"))
}

/// `content` with its checksum, as COBS of a short run without a zero in it.
fn sealed(content: &[u8]) -> Result<Vec<u8>> {
    let plain = [content, &crc32(content).to_le_bytes()].concat();
    ensure!(!plain.contains(&0) && plain.len() < 254, "{plain:?} needs more than one run");
    Ok([&[plain.len() as u8 + 1], &plain[..], &[0]].concat())
}

fn frame(node: u32, seq: u32) -> Result<Vec<u8>> {
    let mut features = Features { channel: 0, values: Default::default() };
    features.values.push(Value { quantity: Quantity::VRms, value: 1.5 }).ok().context("it is empty")?;
    let mut bytes = [0; MAX_FRAME];
    let length = encode(&Frame { node, boot: 1, seq, time_us: 0, dropped: 0, body: Body::Features(features) }, &mut bytes)?;
    Ok(bytes[..length].to_vec())
}
