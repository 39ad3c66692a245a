//! A simulated node that runs on a thread of its own.
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::stop::{Stop, StopHandle};

/// What a running node has done. Fields that do not apply to its way of sending stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeStats {
    /// Blocks of vibration simulated.
    pub blocks: u64,
    /// The machine's hidden damage, 0 as new to 1 failed.
    pub damage: f64,
    /// Frames or messages sent, repetitions included.
    pub sent: u64,
    /// Messages acknowledged by the broker.
    pub acknowledged: u64,
    /// Messages that the broker refused.
    pub refused: u64,
    /// Frames or messages that wait for acknowledgement.
    pub waiting: u64,
    /// Frames dropped by the node's full ring, or messages not made because the broker was away.
    pub dropped: u64,
    /// Bytes received from the agent.
    pub received_bytes: u64,
    /// Restarts of the node.
    pub restarts: u32,
    /// Connections lost.
    pub disconnects: u64,
}

/// Owner of a node's thread: the node runs until [`NodeHandle::stop`] or until this is dropped.
#[derive(Debug)]
pub struct NodeHandle {
    stop: StopHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
    stats: SharedStats,
}

impl NodeHandle {
    /// Runs `run` on a thread with its own single-threaded runtime.
    pub(crate) fn spawn<F>(name: &str, run: impl FnOnce(Stop, SharedStats) -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>>,
    {
        let (handle, stop) = Stop::new();
        let stats = SharedStats::default();
        let theirs = stats.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(run(stop, theirs)))?;
        Ok(Self { stop: handle, thread: Some(thread), stats })
    }

    /// What it has done so far.
    pub fn stats(&self) -> NodeStats {
        self.stats.get()
    }

    /// Whether its thread has ended by itself, which only an error does.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it, waits for it, and tells what it did.
    pub fn stop(mut self) -> io::Result<NodeStats> {
        self.join()?;
        Ok(self.stats.get())
    }

    fn join(&mut self) -> io::Result<()> {
        self.stop.ask();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("simulated node panicked")),
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        let _nobody_is_left_to_tell = self.join();
    }
}

/// Numbers that a node's thread writes and its owner reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedStats(Arc<Mutex<NodeStats>>);

impl SharedStats {
    pub(crate) fn get(&self) -> NodeStats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut NodeStats)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
