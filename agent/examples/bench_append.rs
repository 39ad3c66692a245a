//! Group-commit append of small readings: readings per second, flash bytes per payload byte, commit latency.
//!
//! `cargo run -p hark --example bench_append [-- <directory> [<seconds>]]`; the directory should be on the disk in question, not in memory.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and at a fixed rate it waits for time")]
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hark::{
    buffer::{Log, LogSettings, Position},
    record::{Body, Entry, Stamp},
};
use hark_protocol::topics::{Clock, LaneName, Origin, Quality, Reading, Timestamp, TsSource};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let mut report = vec![format!("load average at the start: {}", fs::read_to_string("/proc/loadavg")?.trim())];
    for (name, readings, every) in [
        ("full speed, commit per 256 KiB", usize::MAX, Duration::ZERO),
        ("100 readings/s, commit per 250 ms", 25, Duration::from_millis(250)),
        ("100 readings/s, commit per 1 s", 100, Duration::from_secs(1)),
    ] {
        report.push(run(&root, name, readings, every, Duration::from_secs(seconds))?);
    }
    report.push(format!("load average at the end: {}", fs::read_to_string("/proc/loadavg")?.trim()));
    let text = report.join("\n") + "\n";
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}

/// Appends for `length`: commits of `readings` each (or of 256 KiB), one every `every`. Reads everything back at the end.
fn run(root: &Path, name: &str, readings: usize, every: Duration, length: Duration) -> Outcome<String> {
    let dir = root.join(format!("log-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let (log, mut writer) = Log::open(&dir, LogSettings::new(8 << 30))?;
    let (mut n, mut latencies, mut payload, started, written_before) = (0_u64, Vec::new(), 0_u64, Instant::now(), written_bytes()?);
    while started.elapsed() < length {
        let mut group = 0;
        while group < readings && writer.pending_bytes() < 256 * 1024 {
            writer.append(LaneName::Inputs, &reading(n))?;
            n += 1;
            group += 1;
        }
        payload += writer.pending_bytes() as u64;
        let before = Instant::now();
        writer.commit()?;
        latencies.push(before.elapsed());
        std::thread::sleep(every.saturating_sub(before.elapsed()));
    }
    let (elapsed, written) = (started.elapsed(), written_bytes()? - written_before);
    let frames = log.counters().frame_bytes.load(std::sync::atomic::Ordering::Relaxed);
    let (read, read_time) = read_back(&log)?;
    let partitions = log.partitions(LaneName::Inputs).0;
    let disk = log.disk_bytes()?;
    drop((log, writer));
    let opening = Instant::now();
    drop(Log::open(&dir, LogSettings::new(8 << 30))?);
    let opening = opening.elapsed();
    fs::remove_dir_all(&dir)?;
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(format!(
        "{name}: {n} readings in {:.1} s = {:.0}/s, {} bytes encoded each\n  \
         written {:.2} bytes per encoded byte, {:.2} per compressed byte, {:.2} GB a day at this rate\n  \
         commit p50 {:.1} ms, p99 {:.1} ms, {} commits, {partitions} partitions, {:.1} MB on disk for {:.1} MB of frames\n  \
         read back {read} at {:.0}/s; next start in {:.0} ms",
        elapsed.as_secs_f64(),
        n as f64 / elapsed.as_secs_f64(),
        payload / n.max(1),
        written as f64 / payload as f64,
        written as f64 / frames as f64,
        written as f64 / elapsed.as_secs_f64() * 86_400.0 / 1e9,
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        latencies.len(),
        disk as f64 / 1e6,
        frames as f64 / 1e6,
        read as f64 / read_time.as_secs_f64(),
        opening.as_secs_f64() * 1e3,
    ))
}

fn read_back(log: &Log) -> Outcome<(u64, Duration)> {
    let (mut reader, mut after, mut read, started) = (log.reader(LaneName::Inputs)?, Position::default(), 0, Instant::now());
    loop {
        let records = reader.read(after, 16_000, 6 << 20)?;
        let Some((last, _)) = records.last() else { return Ok((read, started.elapsed())) };
        after = *last;
        read += records.len() as u64;
    }
}

/// What this process caused to be written to the block layer.
fn written_bytes() -> Outcome<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}

/// About 100 bytes encoded, with digits that differ as those of real sensors do.
fn reading(n: u64) -> Entry {
    let noise = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / 16_777_216.0;
    let reading = Reading {
        point: ["de-h.v_rms", "de-h.kurtosis", "de-v.v_rms", "winding.temperature", "shaft.speed"][n as usize % 5].into(),
        value: Some(20.0 + noise),
        unit: "mm/s".into(),
        quality: Quality::Good,
        reason: None,
        source_seq: Some(n),
        boot: "5f0c1a52-90a1-4a8b-a2a5-0c5a2f9f7a11".into(),
        log_ms: n * 10,
    };
    let stamp = Stamp {
        asset: Some(["pump-17", "fan-03", "gearbox-line-2"][n as usize % 3].into()),
        ts: Timestamp(1_760_000_000_000_000 + n as i64 * 10_000),
        ts_source: TsSource::Gateway,
        clock: Clock::Synced,
        origin: Origin::Simulated,
    };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}
