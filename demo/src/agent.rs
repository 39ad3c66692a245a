//! The real agent in a process of its own: this program again, with a hidden first argument.
use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use hark::{
    buffer::{Log, LogSettings},
    commands,
};
use hark_protocol::topics::LaneName;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// The hidden first argument; what follows are the agent's own arguments.
pub const ROLE: &str = "agent";
/// For sources, inference and forward to finish after SIGINT: more than the agent's own grace.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// For an answer over the local socket: it comes within milliseconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// As configured; opening the log does not depend on it.
const QUOTA_BYTES: u64 = 64 << 20;

/// Runs as the agent.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // A demo that is killed takes its agent along. Where the kernel refuses, only that is missing.
    let _ = set_parent_process_death_signal(Some(Signal::INT));
    match commands::Arguments::try_parse_from(std::iter::once(OsString::from("hark")).chain(arguments)) {
        Ok(arguments) => commands::run(arguments),
        Err(error) => error.exit(),
    }
}

/// The running agent. Dropping it kills exactly this process.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts `hark run` with the configuration in `directory`; its output goes to `agent.log` there.
    /// Call it from a thread that lives as long as the demo: the kernel tells the agent when that thread ends.
    ///
    /// # Errors
    /// When the program or its log cannot be opened.
    pub fn start(directory: &Path) -> Result<Self> {
        let log = directory.join("agent.log");
        let output = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let program = std::env::current_exe().context("failed to find this program")?;
        let child = Command::new(program)
            .args([ROLE, "run", "--config"])
            .arg(directory)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A Ctrl-C of the terminal is for the demo, which then stops everything in its order.
            .process_group(0)
            .spawn()
            .context("failed to start the agent")?;
        Ok(Self { child, log })
    }

    /// What `hark alarm list` says of it now, as it is printed; `None` if it says nothing, or not soon: an agent may hang.
    pub fn alarms(directory: &Path, wait: &mut dyn FnMut(Duration, &mut dyn FnMut() -> bool) -> bool) -> Option<String> {
        let (program, said) = (std::env::current_exe().ok()?, directory.join("alarms.txt"));
        let mut command = Command::new(program);
        command.args([ROLE, "alarm", "list", "--config"]).arg(directory).stdin(Stdio::null()).stdout(File::create(&said).ok()?).stderr(Stdio::null());
        let (mut child, mut status) = (command.spawn().ok()?, None);
        let ended = wait(ANSWERS_WITHIN, &mut || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if !ended {
            let _ended_meanwhile = child.kill();
            let _ = child.wait();
        }
        fs::read_to_string(said).ok().filter(|text| status.is_some_and(|status| status.success()) && !text.is_empty())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its exit status; `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of its output.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// SIGINT, then SIGKILL after a deadline. `wait` is given a timeout and a condition, and waits for it.
    pub fn stop(mut self, wait: &mut dyn FnMut(Duration, &mut dyn FnMut() -> bool) -> bool) -> Stopped {
        let mut status = self.exited();
        if status.is_none() {
            // Not reaped before `exited` says so, thus the number cannot belong to a stranger.
            let _ended_meanwhile = kill_process(Pid::from_child(&self.child), Signal::INT);
        }
        let by_itself = wait(STOPS_WITHIN, &mut || {
            status = self.exited();
            status.is_some()
        });
        if !by_itself {
            let _ended_meanwhile = self.child.kill();
            status = self.child.wait().ok();
        }
        Stopped { clean: by_itself && status.is_some_and(|status| status.success()), status }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Refused where it has ended already; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the agent ended.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// By itself after SIGINT, with success.
    pub clean: bool,
    /// Exit status, where the system told it.
    pub status: Option<ExitStatus>,
}

/// What the buffer of a stopped agent says it accepted: the last sequence number by incarnation and lane.
///
/// # Errors
/// When the buffer cannot be opened.
pub fn accepted(directory: &Path) -> Result<Vec<(String, LaneName, u64)>> {
    let (log, _writer) = Log::open(&directory.join("buffer"), LogSettings::new(QUOTA_BYTES)).context("failed to open the agent's buffer")?;
    let lanes = |ended: &hark::buffer::Ended| {
        let (inc, ended) = (ended.incarnation.id.to_string(), *ended);
        LaneName::ALL.map(|lane| (inc.clone(), lane, ended.last_seq(lane)))
    };
    Ok(log.ended().iter().flat_map(lanes).collect())
}
