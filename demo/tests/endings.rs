//! The demo as a process: however it ends, it ends soon, says why, and leaves nothing running.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "a deadline for another program")]
use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const DEADLINE: Duration = Duration::from_secs(60);
/// An end that waits for nobody: an agent that does not answer is given twenty seconds to stop, and Kafka as many.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A running demo. Dropping it kills it, and its agent with it.
struct Demo {
    process: Child,
    out: BufReader<ChildStdout>,
    agent: Pid,
    directory: PathBuf,
}

impl Demo {
    /// Starts it and waits until it has something from Kafka.
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_hark-demo")).arg("--plain").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        // agent: process 123, gateway demo-abcdef, files in /tmp/hark-demo-abcdef
        let line = line_with(&mut out, "agent: process ");
        let words: Vec<&str> = line.split([' ', ',']).collect();
        let agent = Pid::from_raw(words[2].parse().unwrap()).unwrap();
        let directory = words.last().unwrap().into();
        line_with(&mut out, "pump-1: learning");
        Self { process, out, agent, directory }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for its end; gives what it still printed, output and errors.
    fn ended(&mut self, within: Duration) -> (ExitStatus, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < within, "it goes on after {within:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        };
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status, text)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // All of these may have ended, which is what the tests are about.
        let _ = kill_process(self.agent, Signal::KILL);
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn line_with(out: &mut impl BufRead, text: &str) -> String {
    let begin = Instant::now();
    loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0 && begin.elapsed() < DEADLINE, "no line with `{text}`");
        if line.contains(text) {
            return line.trim_end().to_owned();
        }
    }
}

#[test]
fn an_agent_that_dies_ends_the_demo_at_once() {
    let mut demo = Demo::start();
    kill_process(demo.agent, Signal::KILL).unwrap();
    let (status, text) = demo.ended(AT_ONCE);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("the agent ended early (signal: 9 (SIGKILL))"), "{text}");
    assert!(!text.contains("records were lost"), "they are in the buffer:\n{text}");
}

#[test]
fn an_agent_that_hangs_is_seen_and_a_second_interrupt_ends_it_at_once() {
    let mut demo = Demo::start();
    kill_process(demo.agent, Signal::STOP).unwrap();
    line_with(&mut demo.out, "agent silent for ");
    demo.signal(Signal::INT);
    line_with(&mut demo.out, "stopping: the agent");
    demo.signal(Signal::INT);
    let (status, text) = demo.ended(AT_ONCE);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("ended at once"), "{text}");
    assert!(test_kill_process(demo.agent).is_err(), "the agent still runs");
    assert!(!demo.directory.exists());
}
