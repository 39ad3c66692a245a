//! How much the log may take, and what goes first.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use hark_protocol::topics::LaneName;
use tracing::{info, warn};

use super::{
    header::{self, Key},
    lane::Expendable,
    log::Shared,
};

/// Lanes that may lose records, lowest first. Events never do: they say what was lost.
pub(super) const EXPENDABLE: [LaneName; 3] = [LaneName::Inputs, LaneName::Predictions, LaneName::Alarms];
/// A gateway whose clock stands before this (2024-01-01) does not know the age of anything.
const CLOCK_SET_MS: i64 = 1_704_067_200_000;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) quota_bytes: u64,
    pub(super) max_age: Option<Duration>,
    /// What may be written until the next look.
    pub(super) headroom_bytes: u64,
}

/// What [`Space::victim`] found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Victim {
    /// This one.
    Partition(LaneName, Key),
    /// One that is being read: soon.
    InUse,
    /// No lane has one to spare.
    Nothing,
}

impl Space {
    /// Whether what is written until the next look may go beyond the quota.
    pub(super) fn is_over(&self, disk_bytes: u64) -> bool {
        disk_bytes.saturating_add(self.headroom_bytes) > self.quota_bytes
    }

    /// Whether there is no time to wait for anybody.
    pub(super) fn is_nearly_full(&self, disk_bytes: u64) -> bool {
        disk_bytes.saturating_add(self.headroom_bytes / 2) > self.quota_bytes
    }

    /// What to give up next: the oldest partition of the lowest lane that has one to spare. One that is being read is waited for: a higher lane
    /// does not go in its place.
    pub(super) fn victim(&self, shared: &Shared) -> Victim {
        let expendable = EXPENDABLE.into_iter().map(|lane| (lane, shared.lane(lane).expendable()));
        match expendable.into_iter().find(|(_, expendable)| *expendable != Expendable::Nothing) {
            Some((lane, Expendable::Oldest(key))) => Victim::Partition(lane, key),
            Some(_) => Victim::InUse,
            None => Victim::Nothing,
        }
    }

    /// An oldest partition whose records are all older than allowed at `now_ms`. Its age is that of a later one: everything in it is older.
    pub(super) fn aged(&self, shared: &Shared, now_ms: i64) -> Option<(LaneName, Key)> {
        let max_age_ms = i64::try_from(self.max_age?.as_millis()).ok()?;
        if now_ms < CLOCK_SET_MS {
            return None;
        }
        EXPENDABLE.into_iter().find_map(|lane| {
            let Expendable::Oldest(key) = shared.lane(lane).expendable() else { return None };
            let lane_of = shared.lane(lane);
            let mut later = std::iter::successors(lane_of.following(key), |next| lane_of.following(*next));
            // One that was made before the clock was set, or saved without its header, does not say when.
            let made_ms = |next| Some(header::read(&lane_of.path(next)).ok()?.created_ms).filter(|made_ms| *made_ms >= CLOCK_SET_MS);
            (later.find_map(made_ms)? < now_ms - max_age_ms).then_some((lane, key))
        })
    }
}

/// A file that only takes up space: on a full disk it goes first, which leaves room to say what is lost.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes: u64,
    missing_logged: bool,
}

impl Ballast {
    const FILE: &str = "ballast";
    const MOST_BYTES: u64 = 16 << 20;

    /// The ballast of the log in `dir`.
    pub(super) fn new(dir: &Path, quota_bytes: u64) -> Self {
        Self { path: dir.join(Self::FILE), bytes: (quota_bytes / 16).min(Self::MOST_BYTES), missing_logged: false }
    }

    /// Takes up the space, if there is plenty.
    pub(super) fn fill(&mut self) {
        let plenty = || {
            let stat = self.path.parent().and_then(|dir| rustix::fs::statvfs(dir).ok());
            stat.is_some_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= 4 * self.bytes)
        };
        // One that is too short is left of a crash while it was made.
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= self.bytes) || !plenty() {
            return;
        }
        let filled = File::create(&self.path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes)?;
            file.sync_all()
        });
        if let Err(error) = filled {
            // Some file systems cannot; a partition then goes first.
            let _ = fs::remove_file(&self.path);
            if !std::mem::replace(&mut self.missing_logged, true) {
                warn!(path = %self.path.display(), %error, "no space can be kept in reserve");
            }
        }
    }

    /// Gives the space back; false if there was none.
    pub(super) fn drop(&self) -> bool {
        let dropped = fs::remove_file(&self.path).is_ok();
        if dropped {
            info!(bytes = self.bytes, "the disk is full: the reserve is given back");
        }
        dropped
    }

    /// The same before the log is open.
    pub(super) fn drop_in(dir: &Path) -> bool {
        fs::remove_file(dir.join(Self::FILE)).is_ok()
    }
}
