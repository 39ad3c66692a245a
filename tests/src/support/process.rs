//! A child process that dies with the test, however the test ends.
use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// The kernel gives back the memory of a JVM first, which takes its time on a machine that writes much.
const KILLED_WITHIN: Duration = Duration::from_secs(60);

/// A running program with its output in a file. Dropping it kills exactly this process, by its pid, and reaps it.
///
/// When the test program itself is killed (by `timeout`, say), no destructor runs; the kernel then kills the child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments`; both output streams are appended to the file `log`. `name` is for messages.
    ///
    /// # Errors
    /// When the log cannot be opened or `setpriv` (util-linux) cannot be started. A missing `program` shows as an early end.
    pub fn start(name: &str, program: &Path, arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("failed to open {}", log.display()))?;
        let child = spawn(command(program, arguments, environment, output)?).with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its exit status, `None` while it runs.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("failed to ask for the state of {}", self.name))
    }

    /// Fails, with the end of its output, if it no longer runs: for use in a loop that waits for it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early with {status}; end of {}:\n{}", self.name, self.log.display(), self.log_tail()),
        }
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it still runs after `deadline`; it is killed then.
    pub fn stop(mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let what = format!("{} (log {}) to stop", self.name, self.log.display());
        wait_for(&what, deadline, || self.exited())
    }

    /// Kills it without warning (SIGKILL) and reaps it.
    ///
    /// # Errors
    /// When the kernel does not end it.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        wait_for(&format!("the kernel to end {}", self.name), KILLED_WITHIN, || self.exited()).map(drop)
    }

    /// Stops it where it is (SIGSTOP): to its peers it looks like a machine that hangs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Process::pause`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // The child is not reaped before `exited` says so, thus the number cannot belong to a stranger.
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("failed to signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already refuses the signal; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, arguments: &[&str], environment: &[(&str, &str)], output: File) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stderr(output.try_clone().context("failed to share the log")?).stdout(output);
    Ok(command)
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// The kernel's "parent died" signal comes when the *thread* that started the child ends, and a test's thread ends before the program does.
/// So one thread that lives as long as the program starts all children.
fn spawn(command: Command) -> Result<Child> {
    static ORDERS: OnceLock<SyncSender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Order>(1);
        #[expect(clippy::disallowed_methods, reason = "no pipeline in the tests; this thread must outlive every test")]
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Nobody waits for the reply when the test has panicked meanwhile; dropping the child is harmless, the signal is set.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = sync_channel(1);
    orders.send((command, reply)).context("the starting thread has ended")?;
    Ok(answer.recv().context("the starting thread has ended")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &Path) -> Process {
        Process::start("sleeper", Path::new("sleep"), &["600"], &[], log).expect("sleep is everywhere")
    }

    fn runs(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let process = sleeper(&dir.path().join("log"));
        let pid = process.pid();
        assert!(runs(pid));
        drop(process);
        assert!(!runs(pid));
    }

    #[test]
    fn stopping_waits_for_the_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let status = sleeper(&dir.path().join("log")).stop(Duration::from_secs(60)).expect("sleep stops at once");
        assert!(!status.success());
    }

    #[test]
    fn an_early_end_shows_the_output() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let arguments = ["-c", "echo the disk is on fire; exit 3"];
        let mut process = Process::start("shell", Path::new("sh"), &arguments, &[], &dir.path().join("log")).expect("sh is everywhere");
        let failure = wait_for("the end of the shell", Duration::from_secs(60), || Ok(process.check_running().err())).expect("it ends");
        assert!(failure.to_string().contains("the disk is on fire"), "{failure}");
    }
}
