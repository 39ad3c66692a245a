//! The only place that reads a clock. Everything else is given its time.
//!
//! Wall-clock time names events; time since boot orders them and measures how long things take, since it never jumps.
#![expect(clippy::disallowed_methods, reason = "this is the clock module")]
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use hark_protocol::topics::{Clock as ClockState, Name, Timestamp};

/// A jump of the wall clock against time since boot beyond this is a step, not drift (NTP steps at 128 ms; a second is out of doubt).
pub const STEP: Duration = Duration::from_secs(1);

/// What the gateway's clocks say at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Now {
    /// Wall clock, UTC.
    pub ts: Timestamp,
    /// Milliseconds since boot, suspend included.
    pub log_ms: u64,
    /// Boot id.
    pub boot: Name,
    /// How far the wall clock can be trusted.
    pub state: ClockState,
}

/// So long after a step every reading of the clock says so: many read it, and none may take the word away from the others.
const STEPPED_FOR: Duration = Duration::from_secs(1);

/// How the wall clock stands to time since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Wall clock minus time since boot, microseconds.
    pub offset_us: i64,
    /// A time service says that the wall clock is right.
    pub synced: bool,
}

/// The gateway's clocks. Cheap to clone; clones share the step detection.
#[derive(Clone, Debug)]
pub struct Clock {
    boot: Name,
    /// Wall clock minus time since boot, microseconds, when last read.
    offset_us: Arc<AtomicI64>,
    /// When the last step was seen, microseconds since boot.
    stepped_us: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Opens the clocks and reads the kernel's boot id; where there is none (a container without `/proc`), a random one stands in.
    pub fn new() -> Self {
        let boot =
            std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| uuid::Uuid::new_v4().to_string(), |id| id.trim().to_owned());
        Self { boot: boot.into(), offset_us: Arc::new(AtomicI64::new(wall_us() - boot_us())), stepped_us: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// Reads both clocks. The state is `stepped` for a second after a jump was seen, else `synced` or `unsynced`.
    pub fn now(&self) -> Now {
        let (wall, since_boot) = (wall_us(), boot_us());
        let offset = wall - since_boot;
        let before = self.offset_us.swap(offset, Ordering::Relaxed);
        if offset.abs_diff(before) > STEP.as_micros() as u64 {
            self.stepped_us.store(since_boot, Ordering::Relaxed);
        }
        let stepped_for = since_boot.saturating_sub(self.stepped_us.load(Ordering::Relaxed));
        let state = if stepped_for < STEPPED_FOR.as_micros() as i64 {
            ClockState::Stepped
        } else if synced() {
            ClockState::Synced
        } else {
            ClockState::Unsynced
        };
        Now { ts: Timestamp(wall), log_ms: u64::try_from(since_boot / 1_000).unwrap_or(0), boot: self.boot.clone(), state }
    }

    /// How the clocks stand to each other now; takes no part in the step detection of [`Self::now`].
    pub fn sight(&self) -> Sight {
        Sight { offset_us: wall_us() - boot_us(), synced: synced() }
    }

    /// Time since boot: for durations and deadlines.
    pub fn monotonic(&self) -> Duration {
        Duration::from_micros(u64::try_from(boot_us()).unwrap_or(0))
    }
}

fn wall_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn boot_us() -> i64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec * 1_000_000 + t.tv_nsec / 1_000
}

/// systemd-timesyncd says so by a file; without that file nothing is known, and "unsynced" is the honest word.
fn synced() -> bool {
    Path::new("/run/systemd/timesync/synchronized").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_reported_for_a_second() {
        let clock = Clock::new();
        assert_ne!(clock.now().state, ClockState::Stepped);
        clock.offset_us.fetch_sub(3_600_000_000, Ordering::Relaxed);
        assert_eq!(clock.now().state, ClockState::Stepped);
        assert_eq!(clock.now().state, ClockState::Stepped, "whoever reads it next is told too");
        clock.stepped_us.fetch_sub(1_000_000, Ordering::Relaxed);
        assert_ne!(clock.now().state, ClockState::Stepped);
    }

    #[test]
    fn time_since_boot_never_runs_back() {
        let clock = Clock::new();
        let first = clock.now();
        let second = clock.now();
        assert!(second.log_ms >= first.log_ms);
        assert_eq!(first.boot, second.boot);
    }
}
