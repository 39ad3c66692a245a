//! What the machine says of itself and of processes. Linux only, as the scenarios are.
use std::{fs, process::Command, time::SystemTime};

use anyhow::{Context, Result};

/// Memory, processor time and bytes written of a process so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident now, KiB.
    pub rss_kib: u64,
    /// Most that was ever resident, KiB.
    pub peak_kib: u64,
    /// Processor time in user and kernel mode, all threads, seconds.
    pub cpu_s: f64,
    /// Bytes that it caused to be written to the block layer; 0 for a process of another user.
    pub written_bytes: u64,
}

impl Usage {
    /// Of process `pid`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has ended"))?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key} of process {pid}"))?;
            line.split_whitespace().next().unwrap_or_default().parse::<u64>().with_context(|| format!("{key} of process {pid}"))
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th fields behind it (proc(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("a processor time");
        let cpu_s = (ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let written_bytes = written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Ok(Self { rss_kib: kib("VmRSS:")?, peak_kib: kib("VmHWM:")?, cpu_s, written_bytes })
    }
}

/// The three averages.
///
/// # Errors
/// Where there is no `/proc`.
pub fn load_average() -> Result<String> {
    let line = fs::read_to_string("/proc/loadavg").context("no load average")?;
    Ok(line.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Processor, cores, memory, kernel, versions and how this program was built.
///
/// # Errors
/// Where there is no `/proc`.
pub fn describe() -> Result<String> {
    let line_of = |path: &str, key: &str| {
        let text = fs::read_to_string(path).with_context(|| format!("no {path}"))?;
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        anyhow::Ok(line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned())
    };
    let cores = std::thread::available_parallelism().context("no number of cores")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        // Mosquitto prints its version on one stream or the other, by version.
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    let mosquitto = first_line("/usr/sbin/mosquitto", "-h").or_else(|| first_line("mosquitto", "-h")).unwrap_or_default();
    let java = first_line("java", "-version").unwrap_or_default();
    let checks = if cfg!(debug_assertions) { "with debug assertions" } else { "without debug assertions" };
    Ok(format!(
        "{} × {cores}, {} of memory, Linux {}\nHark {} {checks}; {mosquitto}; Kafka of tests/kafka/pom.xml on {java}",
        line_of("/proc/cpuinfo", "model name")?,
        line_of("/proc/meminfo", "MemTotal")?,
        kernel.trim(),
        env!("CARGO_PKG_VERSION"),
    ))
}

/// Milliseconds since 1970: the clock that Kafka's times of arrival are from.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
