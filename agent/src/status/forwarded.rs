//! How far forward has come: the way to Kafka, what was delivered, and where all records are.
use std::sync::atomic::Ordering;

use hark_protocol::topics::LaneName;

use super::{Status, lock};
use crate::buffer::{Gap, Log, Position};

/// State of the way to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No Kafka is configured.
    NotConfigured,
    /// Not reached yet, or lost; trying again.
    Reconnecting,
    /// Records are taken.
    Connected,
    /// Reached, but something must be done there first.
    Blocked,
    /// Another agent runs under this gateway id.
    DuplicateGateway,
}

impl Link {
    const ALL: [Self; 5] = [Self::NotConfigured, Self::Reconnecting, Self::Connected, Self::Blocked, Self::DuplicateGateway];

    /// Word in records and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Reconnecting => "reconnecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
            Self::DuplicateGateway => "duplicate_gateway",
        }
    }
}

/// What forward did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardNumbers {
    /// Records that Kafka has acknowledged.
    pub delivered: u64,
    /// Records passed that are named in gaps.
    pub gap_records: u64,
    /// Transactions committed; without transactions, batches acknowledged.
    pub transactions: u64,
    /// The same that failed, whatever became of them.
    pub aborted: u64,
    /// Connections given up on mere suspicion that something was still under way.
    pub recycled: u64,
    /// Records that Kafka refused for good.
    pub refused: u64,
    /// Times that another producer was first.
    pub fenced: u64,
    /// Connections at which Kafka had no cursors though this disk has a mark.
    pub cursor_expired: u64,
    /// Kafka's cursor of a lane was behind what Kafka had acknowledged.
    pub cursor_behind: u64,
    /// Other disks whose place was taken.
    pub take_over: u64,
}

/// Where forward stands, changed as one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forwarded {
    /// Kafka has each lane up to here.
    acknowledged: [Position; LaneName::ALL.len()],
    /// Records in the buffer when the agent started.
    found: u64,
    numbers: ForwardNumbers,
}

impl Forwarded {
    /// Nothing of what is in `log` was delivered yet, as far as is known.
    pub(super) fn of(log: &Log) -> Self {
        Self { found: found(log, &[Position::default(); LaneName::ALL.len()]), ..Self::default() }
    }
}

/// Records at one moment: `accepted = delivered + buffered + gaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conservation {
    /// Found in the buffer at the start, or appended since.
    pub accepted: u64,
    /// Acknowledged by Kafka.
    pub delivered: u64,
    /// Still to be delivered.
    pub buffered: u64,
    /// Named in gaps: passed by forward, or ahead of it.
    pub gaps: u64,
}

impl Status {
    /// The way to Kafka changed.
    pub fn set_link(&self, link: Link) {
        self.link.store(link as u8, Ordering::Relaxed);
    }

    /// State of the way to Kafka.
    pub fn link(&self) -> Link {
        Link::ALL[usize::from(self.link.load(Ordering::Relaxed))]
    }

    /// Forward begins here: Kafka is known to have the lanes up to `acknowledged`. Before anything is appended in this incarnation.
    pub fn placed(&self, acknowledged: [Position; LaneName::ALL.len()]) {
        let mut forwarded = lock(&self.forwarded);
        (forwarded.acknowledged, forwarded.found) = (acknowledged, found(&self.log, &acknowledged));
    }

    /// Kafka has the lanes up to `acknowledged`: so many more records were delivered, and so many passed that are named in gaps.
    pub fn moved(&self, acknowledged: [Position; LaneName::ALL.len()], delivered: u64, gap_records: u64) {
        let mut forwarded = lock(&self.forwarded);
        forwarded.acknowledged = acknowledged;
        forwarded.numbers.delivered += delivered;
        forwarded.numbers.gap_records += gap_records;
    }

    /// Counts what forward did.
    pub fn forward(&self, count: impl FnOnce(&mut ForwardNumbers)) {
        count(&mut lock(&self.forwarded).numbers);
    }

    /// What forward did since the start.
    pub fn forward_numbers(&self) -> ForwardNumbers {
        lock(&self.forwarded).numbers
    }

    /// Where all records are, at one moment.
    pub fn conservation(&self) -> Conservation {
        const TRIES: usize = 100;
        let mut tries = 0;
        loop {
            let appended = self.appended();
            let forwarded = *lock(&self.forwarded);
            let numbers = forwarded.numbers;
            let gaps = self.log.gaps();
            let ahead: u64 = LaneName::ALL.iter().map(|&lane| named_after(&gaps, lane, forwarded.acknowledged[lane as usize])).sum();
            let buffered = LaneName::ALL.iter().map(|&lane| self.log.depth(lane, forwarded.acknowledged[lane as usize])).sum();
            tries += 1;
            // A commit came in between: what was read belongs to two moments.
            if tries < TRIES && (appended != self.appended() || gaps.len() != self.log.gaps().len()) {
                continue;
            }
            return Conservation { accepted: forwarded.found + appended, delivered: numbers.delivered, buffered, gaps: numbers.gap_records + ahead };
        }
    }

    fn appended(&self) -> u64 {
        LaneName::ALL.iter().map(|&lane| self.log.committed(lane).seq).sum()
    }

    /// The last record of `lane` that Kafka has.
    pub fn acknowledged(&self, lane: LaneName) -> Position {
        lock(&self.forwarded).acknowledged[lane as usize]
    }

    /// Records in `lane` that Kafka has not acknowledged and that are not lost.
    pub fn buffered(&self, lane: LaneName) -> u64 {
        self.log.depth(lane, self.acknowledged(lane))
    }

    /// Seconds since the event of the oldest record in `lane` that Kafka has not acknowledged; `None` without one, or where it cannot be read.
    pub fn oldest_s(&self, lane: LaneName) -> Option<f64> {
        let acknowledged = self.acknowledged(lane);
        let (_, oldest) = self.log.reader(lane).ok()?.read(acknowledged, 1, 1).ok()?.pop()?;
        Some(self.clock.now().ts.0.saturating_sub(oldest.stamp.ts.0) as f64 / 1e6)
    }
}

/// Records behind `acknowledged`.
fn found(log: &Log, acknowledged: &[Position; LaneName::ALL.len()]) -> u64 {
    let gaps = log.gaps();
    let behind = |&lane: &LaneName| {
        let at = acknowledged[lane as usize];
        (log.depth(lane, at) + named_after(&gaps, lane, at)).saturating_sub(log.committed(lane).seq)
    };
    LaneName::ALL.iter().map(behind).sum()
}

/// Records of `lane` after `at` that events name in `gaps`.
fn named_after(gaps: &[Gap], lane: LaneName, at: Position) -> u64 {
    let ahead = gaps.iter().filter(|gap| gap.lane == lane && gap.to > at && gap.event != Position::default());
    ahead.map(|gap| if gap.from > at { gap.records() } else { gap.to.seq - at.seq }).sum()
}
