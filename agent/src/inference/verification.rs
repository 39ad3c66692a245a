//! A look at a bundle before it is trusted, in a process of its own: a bad graph can abort a process, eat its memory or never end.
//!
//! The child opens the bundle as the agent would (limits of size, hashes, operators, shapes, golden output twice on one state), runs it some more, and says
//! in one line of JSON what it found. It may use 1 GiB and 20 s of processor time, and is killed after 30 s.
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Resource, Rlimit, Signal, setrlimit},
};
use serde::{Deserialize, Serialize};

use super::Bundle;
use crate::{causes, clock::Clock};

/// The subcommand that the agent starts itself with.
pub const ROLE: &str = "bundle-verifier";
/// Address space of the child.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const CPU_S_MAX: u64 = 20;
const WITHIN: Duration = Duration::from_secs(30);
/// Runs that are timed; the median counts.
const RUNS: usize = 50;
/// A slow model is told by fewer runs.
const RUNS_WITHIN: Duration = Duration::from_secs(3);
/// A slower model would hold up the rows of all machines.
const RUN_MAX: Duration = Duration::from_millis(10);

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    /// Why the bundle is refused.
    refused: Option<String>,
    /// Median time of a run.
    run_us: Option<f64>,
}

/// Has a child look at the bundle in `folder`. Gives the median time of a run, microseconds.
///
/// # Errors
/// Why the bundle is refused, or the child could not be had, in words.
pub fn in_child(folder: &Path) -> Result<f64, String> {
    // Also where the program's file was replaced by another version meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hark").arg(ROLE).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("the process that verifies it cannot be started: {error}"))?;
    let said = listen(&mut child);
    // It is ours, and not waited for yet: its pid is nobody else's. One that has ended is not harmed.
    let _ = child.kill();
    let status = child.wait().map_err(|error| format!("the process that verifies it is lost: {error}"))?;
    let said = said.ok_or_else(|| format!("it was not verified within {} s", WITHIN.as_secs()))?;
    match serde_json::from_str::<Finding>(&said) {
        Ok(Finding { refused: Some(reason), .. }) => Err(reason),
        Ok(Finding { run_us: Some(run_us), .. }) => Ok(run_us),
        _ => Err(format!("the process that verified it {}", end(status))),
    }
}

/// How a child ended that said nothing, in words.
fn end(status: ExitStatus) -> String {
    let signal = status.signal().and_then(Signal::from_named_raw);
    match signal {
        Some(Signal::XCPU) => format!("took more than {CPU_S_MAX} s of processor time"),
        Some(Signal::ABORT) => format!("aborted: the graph asks for more than {} MiB, or the model runtime failed on it", MEMORY_BYTES_MAX >> 20),
        _ => format!("said nothing and ended with {status}"),
    }
}

/// What the child says, which is nothing if it dies; `None` where it is silent for too long.
fn listen(child: &mut Child) -> Option<String> {
    let mut out = BufReader::new(child.stdout.take()?);
    let timeout = Timespec { tv_sec: WITHIN.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(out.get_ref(), PollFlags::IN)], Some(&timeout));
    let mut line = String::new();
    // A line is written at once, so who has begun to read it can read it to its end.
    (ready.ok()? > 0).then(|| out.read_line(&mut line).ok())??;
    Some(line)
}

/// The child: looks at the bundle in `folder` and prints what it found.
pub fn main(folder: &Path) -> ExitCode {
    let limited = limit(Resource::As, MEMORY_BYTES_MAX).and_then(|()| limit(Resource::Cpu, CPU_S_MAX));
    let found = limited.map_err(|error| format!("no limits can be set: {error}")).and_then(|()| look(folder));
    let finding = match found {
        Ok(run) => Finding { refused: None, run_us: Some(run.as_secs_f64() * 1e6) },
        Err(reason) => Finding { refused: Some(reason), run_us: None },
    };
    let refused = finding.refused.is_some();
    let line = format!("{}\n", serde_json::to_string(&finding).expect("text and a finite number"));
    let told = std::io::stdout().lock().write_all(line.as_bytes());
    if refused || told.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn limit(resource: Resource, most: u64) -> Result<(), rustix::io::Errno> {
    // At the maximum the kernel kills without saying why; what is current comes first and has a signal of its own.
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most + 1) })
}

/// Opens the bundle and times it. Fails with the reason why it is refused.
pub(crate) fn look(folder: &Path) -> Result<Duration, String> {
    let bundle = Bundle::open(folder).map_err(|error| causes::chain(&error))?;
    let clock = Clock::new();
    let times = bundle.times(RUNS, RUNS_WITHIN, || clock.monotonic()).map_err(|error| causes::chain(&error))?;
    let run = times[times.len() / 2];
    if run > RUN_MAX {
        return Err(format!("a run takes {:.1} ms, {} ms at most are possible", run.as_secs_f64() * 1e3, RUN_MAX.as_millis()));
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_says_nothing_has_an_end_in_words() {
        let words = |signal: Signal| end(ExitStatus::from_raw(signal.as_raw()));
        assert_eq!(words(Signal::XCPU), "took more than 20 s of processor time");
        assert!(words(Signal::ABORT).contains("more than 1024 MiB"));
        assert!(words(Signal::KILL).contains("signal: 9"));
    }
}
