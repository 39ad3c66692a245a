//! The real agent as a child process.
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Metrics, Process, Response, free_port, http_get, wait_for};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// The agent sends what is in its buffer for some seconds before it ends.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// An agent with its configuration; it may run, be stopped or killed, and run again on the same data. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    http: SocketAddr,
}

impl Agent {
    /// An agent that does not run yet. `program` is a binary that calls `hark::main` (`env!("CARGO_BIN_EXE_hark-under-test")` in a scenario),
    /// `config` the directory with `hark.toml`, where the caller writes [`Agent::http`] as `http.listen`. Its output goes to `log`.
    ///
    /// # Errors
    /// When no port is free for the status pages.
    pub fn new(program: &Path, config: &Path, log: &Path) -> Result<Self> {
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        Ok(Self { process: None, program: program.to_owned(), config: config.to_owned(), log: log.to_owned(), http })
    }

    /// Where its status pages are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Starts it and returns once `/readyz` says 200: its log is open and its sources are connected.
    ///
    /// # Errors
    /// When it runs already, ends early or is not ready in time; with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let config = self.config.display().to_string();
        let process = Process::start("hark", &self.program, &["run", "--config", &config], &[("RUST_BACKTRACE", "1")], &self.log)?;
        let process = self.process.insert(process);
        wait_for("the agent to be ready", READY_WITHIN, || {
            process.check_running()?;
            // Until it listens the connection is refused, which is no failure yet.
            Ok(http_get(self.http, "/readyz").ok().filter(|answer| answer.status == 200).map(drop))
        })
        .with_context(|| format!("end of its log:\n{}", self.process.as_ref().map(Process::log_tail).unwrap_or_default()))
    }

    /// Kills it without warning.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.take_process()?.kill()
    }

    /// Asks it to stop and checks that it ends well.
    ///
    /// # Errors
    /// When it does not run, does not stop in time, or ends with another exit code than 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.take_process()?.stop(STOPS_WITHIN)?;
        ensure!(status.success(), "the agent ended with {status}; log: {}", self.log.display());
        Ok(())
    }

    /// The running process, to pause it or to read its pid.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the agent does not run")
    }

    /// Reads one of its pages.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        http_get(self.http, path)
    }

    /// Reads `/metrics`.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub fn metrics(&self) -> Result<Metrics> {
        let answer = self.get("/metrics")?;
        ensure!(answer.status == 200, "/metrics answered {}: {}", answer.status, answer.body);
        Ok(Metrics::parse(&answer.body))
    }

    fn take_process(&mut self) -> Result<Process> {
        self.process.take().context("the agent does not run")
    }
}
