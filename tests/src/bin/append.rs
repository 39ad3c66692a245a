//! What the log costs: readings per second through the commit loop, barriers and bytes written to flash at given rates, commit latency, the next start.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin append`, then
//! `target/release/append [<directory> [<seconds>]]`; the directory should be on the disk in question, not in memory.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and at a fixed rate it waits for time")]
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use hark::buffer::{
    Log, LogSettings, Position,
    commit::{self, Append, CommitPolicy, Settings},
};
use hark_protocol::topics::LaneName;
use hark_tests::support::{machine, reading};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Readings per append at full speed: as many as a busy MQTT source hands over at once.
const BATCH: u64 = 1_024;
/// At a given rate an append comes so often at most, like the reads of a serial port.
const APPEND_EVERY: Duration = Duration::from_millis(20);

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let mut report = vec![format!("load average at the start: {}", machine::load_average()?)];
    for rate in [None, Some(10), Some(100), Some(1_000), Some(100_000)] {
        report.push(run(&root, rate, Duration::from_secs(seconds))?);
    }
    report.push(format!("load average at the end: {}", machine::load_average()?));
    let text = report.join("\n") + "\n";
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}

/// Appends for `length` at `rate` readings/s, or as fast as the loop takes them. Reads everything back at the end and opens the log once more.
fn run(root: &Path, rate: Option<u64>, length: Duration) -> Outcome<String> {
    let dir = root.join(format!("log-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let (log, writer) = Log::open(&dir, LogSettings::new(8 << 30))?;
    let (appender, requests) = commit::channel(64);
    let looped = thread::spawn({
        let (log, settings) = (log.clone(), Settings::unbounded(CommitPolicy::default()));
        move || commit::run(writer, log, requests, settings)
    });
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let (mut n, started, written_before) = (0_u64, Instant::now(), machine::Usage::of(std::process::id())?.written_bytes);
    while started.elapsed() < length {
        let due = rate.map_or(n + BATCH, |rate| (started.elapsed().as_secs_f64() * rate as f64) as u64);
        if due > n {
            let (latencies, sent) = (latencies.clone(), Instant::now());
            let done: commit::Done = Box::new(move |_| {
                if let Ok(mut latencies) = latencies.lock() {
                    latencies.push(sent.elapsed());
                }
            });
            let entries = (n..due).map(reading).collect();
            appender.blocking_append(Append { lane: LaneName::Inputs, entries, marks: Vec::new(), urgent: false, done: Some(done) })?;
            n = due;
        }
        if rate.is_some() {
            thread::sleep(APPEND_EVERY);
        }
    }
    drop(appender);
    looped.join().map_err(|_| "the commit loop panicked")??;
    let (elapsed, written) = (started.elapsed(), machine::Usage::of(std::process::id())?.written_bytes - written_before);
    let counters = log.counters();
    let (commits, frames, payload) = (counters.commits.load(Relaxed), counters.frame_bytes.load(Relaxed), counters.committed_bytes.load(Relaxed));
    let (read, read_time) = read_back(&log)?;
    let (partitions, disk) = (log.partitions(LaneName::Inputs).0, log.disk_bytes()?);
    drop(log);
    let opening = Instant::now();
    drop(Log::open(&dir, LogSettings::new(8 << 30))?);
    let opening = opening.elapsed();
    fs::remove_dir_all(&dir)?;
    let mut latencies = std::mem::take(&mut *latencies.lock().map_err(|_| "a callback panicked")?);
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
    Ok(format!(
        "{}: {n} readings = {:.0}/s, {} bytes encoded each\n  \
         {:.1} barriers/s, {:.2} GB a day to flash: {:.2} bytes per encoded byte, {:.2} per compressed byte, {:.0} per barrier; {:.2} MB/s\n  \
         append to durable p50 {:.1} ms, p99 {:.1} ms; {partitions} partitions, {:.1} MB on disk for {:.1} MB of frames\n  \
         read back {read} at {:.0}/s; next start in {:.0} ms",
        rate.map_or("full speed".to_owned(), |rate| format!("{rate} readings/s")),
        per_second(n),
        payload / n.max(1),
        per_second(commits),
        per_second(written) * 86_400.0 / 1e9,
        written as f64 / payload as f64,
        written as f64 / frames as f64,
        written as f64 / commits.max(1) as f64,
        per_second(written) / 1e6,
        at(0.5),
        at(0.99),
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
