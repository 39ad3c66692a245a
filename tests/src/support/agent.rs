//! The agent under test: the real program, in a directory of its own.
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Metrics, Process, free_port, http_get, in_clone, wait_for};

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// A gateway: its configuration directory and, while it runs, its agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    dir: PathBuf,
    http: SocketAddr,
    environment: Vec<(&'static str, String)>,
    process: Option<Process>,
}

impl Agent {
    /// Lays out a configuration in `dir`: `tables` is what stands in `hark.toml` after gateway, buffer directory, pages and models; `assets` are the
    /// asset files by id. `program` is `env!("CARGO_BIN_EXE_hark-under-test")`.
    ///
    /// # Errors
    /// When a file cannot be written or no port is free.
    pub fn configure(program: &str, dir: &Path, gateway: &str, tables: &str, assets: &[(String, String)]) -> Result<Self> {
        Self::configure_buffer(program, dir, gateway, "dir = \"data\"", tables, assets)
    }

    /// The same with all of the table `[buffer]`.
    ///
    /// # Errors
    /// As [`Agent::configure`].
    pub fn configure_buffer(program: &str, dir: &Path, gateway: &str, buffer: &str, tables: &str, assets: &[(String, String)]) -> Result<Self> {
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        std::fs::create_dir_all(dir.join("assets"))?;
        let models = in_clone("models").canonicalize().context("models/ is missing")?;
        let hark = format!(
            "[gateway]\nid = \"{gateway}\"\n\n[buffer]\n{buffer}\n\n[http]\nlisten = \"{http}\"\n\n[inference]\nmodels = \"{}\"\n\n{tables}\n",
            models.display()
        );
        std::fs::write(dir.join("hark.toml"), hark)?;
        for (id, text) in assets {
            std::fs::write(dir.join("assets").join(format!("{id}.toml")), text)?;
        }
        Ok(Self { program: program.into(), dir: dir.to_owned(), http, environment: Vec::new(), process: None })
    }

    /// Gives it these variables beside its own from the next start on.
    pub fn set_environment(&mut self, environment: &[(&'static str, String)]) {
        self.environment = environment.to_vec();
    }

    /// Starts it and waits until its pages answer.
    ///
    /// # Errors
    /// When it ends early or does not answer in time, with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let http = self.http;
        wait_for("the agent's pages to answer", STARTS_WITHIN, || {
            self.check_running()?;
            Ok(http_get(http, "/healthz").is_ok_and(|answer| answer.status == 200).then_some(()))
        })
    }

    /// Starts it and waits for nothing: it may still be opening its log when this returns.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        self.launch_under(&[])
    }

    /// The same as the argument of another program, such as `strace`.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch_under(&mut self, wrapper: &[&str]) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let (program, config) = (self.program.display().to_string(), self.dir.display().to_string());
        let command: Vec<&str> = wrapper.iter().copied().chain([&*program, "run", "--config", &config]).collect();
        let mut environment = vec![("NO_COLOR", "1")];
        environment.extend(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        let process = Process::start("agent", Path::new(command[0]), &command[1..], &environment, &self.log())?;
        self.process = Some(process);
        Ok(())
    }

    /// Fails, with the end of its log, if it has ended by itself.
    ///
    /// # Errors
    /// When it does not run.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.as_mut().context("the agent does not run")?.check_running()
    }

    /// Asks it to stop and waits; it must end in order.
    ///
    /// # Errors
    /// When it does not, with the end of its log.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let process = self.process.take().context("the agent does not run")?;
        let log = process.log().to_owned();
        let status = process.stop(STOPS_WITHIN)?;
        ensure!(status.success(), "the agent ended with {status}; log {}", log.display());
        Ok(status)
    }

    /// Kills it without warning.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the agent does not run")?.kill()
    }

    /// Waits until it has ended by itself, and gives how.
    ///
    /// # Errors
    /// When it does not run, or goes on.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the agent does not run")?;
        wait_for("the agent to end by itself", within, || process.exited())
    }

    /// One scrape of `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&http_get(self.http, "/metrics")?.body))
    }

    /// The running agent, to pause it or to read its pid.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the agent does not run")
    }

    /// Address of its pages.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its configuration directory, with `data/` and `agent.log`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs another subcommand with this configuration and gives what it prints.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!("`{}` ended with {}: {}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr));
        }
        String::from_utf8(output.stdout).context("the output is no text")
    }

    /// Runs another subcommand with this configuration, whatever it ends with.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(&self.program).args(arguments).arg("--config").arg(&self.dir).output().context("failed to start the program")
    }

    /// The file with its log, which goes on over its starts.
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(Process::log_tail).unwrap_or_default()
    }
}
