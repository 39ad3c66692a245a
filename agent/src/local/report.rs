//! What is in the buffer, told the same way by a running agent and from the directory of a stopped one.
use std::{collections::BTreeMap, fs, path::Path};

use hark_protocol::topics::{GapReason, LaneName};
use serde::{Deserialize, Serialize};

use super::message::as_text;
use crate::{
    buffer::{Account, BufferError, Gap, Ledger, Log, LogSettings, Position, stored_cursors},
    clock::Clock,
    forward::stored_mark,
    inference::checkpoint,
    status::Status,
};

/// Everything under the data directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BufferReport {
    /// Gateway id; `None` where no configuration tells whose directory it is.
    pub gateway: Option<String>,
    /// The data directory.
    pub dir: String,
    /// Whether an agent told this; else it was read from the disk.
    pub running: bool,
    /// The disk does not take what is appended: senders are held back.
    #[serde(default)]
    pub stalled: bool,
    /// Bytes allowed under the directory; `None` without a configuration.
    pub quota_bytes: Option<u64>,
    /// Bytes it takes on disk, everything counted.
    pub used_bytes: u64,
    /// Ordinal of the oldest start that is remembered: since then the records of the lanes are counted. `None` if the agent never started.
    pub since: Option<u32>,
    /// The lanes.
    pub lanes: Vec<LaneReport>,
    /// Ranges that are lost and named, until Kafka has their lane beyond them.
    pub gaps: Vec<GapReport>,
    /// Starts of the agent that are remembered, oldest first.
    pub incarnations: Vec<IncarnationReport>,
    /// Named places as they are stored on disk.
    pub cursors: Vec<CursorReport>,
    /// Damaged partitions that were put aside.
    pub quarantine: Vec<PutAside>,
    /// The way to Kafka; `None` without an agent.
    pub link: Option<LinkReport>,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Its name.
    pub lane: LaneName,
    /// Directories it consists of.
    pub partitions: usize,
    /// Oldest record on disk.
    #[serde(with = "as_text")]
    pub first: Option<Position>,
    /// Newest record.
    #[serde(with = "as_text")]
    pub last: Option<Position>,
    /// Records from the oldest to the newest, those named in gaps left out.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Its share of the quota.
    pub quota_bytes: Option<u64>,
    /// Age of the oldest record on disk by its own time, seconds.
    pub oldest_s: Option<f64>,
    /// Last record that Kafka has.
    #[serde(with = "as_text")]
    pub acked: Option<Position>,
    /// Records durably appended since [`BufferReport::since`]: the sum of the four that follow.
    pub accepted: u64,
    /// Of these, what Kafka has.
    pub delivered: u64,
    /// On this disk, still to be delivered.
    pub waiting: u64,
    /// Named in gaps, by reason.
    pub lost: BTreeMap<GapReason, u64>,
    /// Neither in Kafka nor on this disk, and in no gap yet.
    pub missing: u64,
    /// Last input that inference's checkpoint holds; inputs alone.
    #[serde(with = "as_text")]
    pub checkpoint: Option<Position>,
}

/// A range that is lost and named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapReport {
    /// Lane.
    pub lane: LaneName,
    /// First lost record.
    #[serde(with = "as_text")]
    pub from: Option<Position>,
    /// Last lost record.
    #[serde(with = "as_text")]
    pub to: Option<Position>,
    /// How many.
    pub records: u64,
    /// Why.
    pub reason: GapReason,
    /// The event that says so, in the events lane.
    #[serde(with = "as_text")]
    pub event: Option<Position>,
}

/// A start of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncarnationReport {
    /// Orders the starts on this disk.
    pub ordinal: u32,
    /// Identifies it in the fleet.
    pub id: String,
    /// The one that runs.
    pub present: bool,
    /// Last seq per lane, in the order of the lanes; 0 without records.
    pub last_seq: [u64; LaneName::ALL.len()],
}

/// A named place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CursorReport {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(with = "as_text")]
    pub position: Option<Position>,
}

/// Something in quarantine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PutAside {
    /// Directory name.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
}

/// The way to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// `connected`, `reconnecting`, `blocked`, `not_configured`.
    pub state: String,
    /// Records that Kafka acknowledged since the start.
    pub delivered: u64,
}

/// What a report is made of besides the log and its directory.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// Gateway id.
    pub gateway: Option<&'a str>,
    /// Bytes allowed under the directory.
    pub quota_bytes: Option<u64>,
    /// Of the running agent: it knows what Kafka has this moment, and the link.
    pub status: Option<&'a Status>,
}

impl BufferReport {
    /// Reads it from `log`, which lies in `dir`.
    ///
    /// # Errors
    /// [`BufferError`] if the disk refuses.
    pub fn of(log: &Log, dir: &Path, known: Known<'_>, clock: &Clock) -> Result<Self, BufferError> {
        let cursors = stored_cursors(&dir.join("cursors"))?;
        let ledger = log.ledger();
        let acked = acked(dir, known.status)?;
        let place = Place { log, ledger: &ledger, known, acked, clock, checkpoint: checkpoint::position_in(dir) };
        let lanes = LaneName::ALL.into_iter().map(|lane| place.lane(lane)).collect::<Result<_, _>>()?;
        let is_shown = |gap: &&Gap| Some(gap.to) > acked[gap.lane as usize];
        let gaps = ledger.gaps().iter().filter(is_shown).map(|gap| GapReport {
            lane: gap.lane,
            from: Some(gap.from),
            to: Some(gap.to),
            records: gap.records(),
            reason: gap.reason,
            event: Some(gap.event),
        });
        let link = |status: &Status| LinkReport { state: status.link().as_str().to_owned(), delivered: status.forward_numbers().delivered };
        Ok(Self {
            gateway: known.gateway.map(str::to_owned),
            dir: dir.display().to_string(),
            running: known.status.is_some(),
            stalled: known.status.is_some_and(Status::is_stalled),
            quota_bytes: known.quota_bytes,
            used_bytes: log.disk_bytes()?,
            since: ledger.since(),
            lanes,
            gaps: gaps.collect(),
            incarnations: incarnations(log),
            cursors: cursors.into_iter().map(|(name, position)| CursorReport { name, position }).collect(),
            quarantine: quarantine(&dir.join("quarantine")),
            link: known.status.map(link),
        })
    }
}

/// The last record of each lane that Kafka has: as the running agent knows it, else as it is stored in `dir`.
///
/// # Errors
/// If the disk cannot be read.
pub fn acked(dir: &Path, status: Option<&Status>) -> Result<[Option<Position>; LaneName::ALL.len()], BufferError> {
    let stored = stored_mark(dir)?;
    let of_lane = |lane: LaneName| {
        let now = status.map(|status| status.acknowledged(lane)).filter(|position| position.seq > 0);
        now.or(stored.map(|stored| stored[lane as usize])).filter(|position| position.seq > 0)
    };
    Ok(LaneName::ALL.map(of_lane))
}

struct Place<'a> {
    log: &'a Log,
    ledger: &'a Ledger,
    known: Known<'a>,
    acked: [Option<Position>; LaneName::ALL.len()],
    clock: &'a Clock,
    checkpoint: Option<Position>,
}

impl Place<'_> {
    fn lane(&self, lane: LaneName) -> Result<LaneReport, BufferError> {
        let log = self.log;
        let before_first = log.start(lane);
        let records = log.depth(lane, before_first);
        let acked = self.acked[lane as usize];
        let Account { accepted, delivered, waiting, lost, missing } = self.ledger.account(lane, acked.unwrap_or_default());
        Ok(LaneReport {
            lane,
            partitions: log.partitions(lane).0,
            first: (records > 0).then_some(Position { seq: before_first.seq + 1, ..before_first }),
            last: log.last(lane),
            records,
            bytes: log.lane_bytes(lane)?,
            quota_bytes: self.known.quota_bytes.map(|quota| LogSettings::new(quota).lane_quota_bytes(lane)),
            oldest_s: self.oldest_s(lane, before_first),
            acked,
            accepted,
            delivered,
            waiting,
            lost,
            missing,
            checkpoint: self.checkpoint.filter(|_| lane == LaneName::Inputs),
        })
    }

    /// What cannot be read has no age; the gaps and the export say why.
    fn oldest_s(&self, lane: LaneName, before_first: Position) -> Option<f64> {
        let (_, oldest) = self.log.reader(lane).ok()?.read(before_first, 1, 1).ok()?.pop()?;
        Some(self.clock.now().ts.0.saturating_sub(oldest.stamp.ts.0) as f64 / 1e6)
    }
}

fn incarnations(log: &Log) -> Vec<IncarnationReport> {
    let ended = log.ended().iter().map(|ended| IncarnationReport {
        ordinal: ended.incarnation.ordinal,
        id: ended.incarnation.id.to_string(),
        present: false,
        last_seq: ended.last_seq,
    });
    let present = log.incarnation();
    // A directory that is only looked at has no present incarnation.
    let present = (!present.id.is_nil()).then(|| IncarnationReport {
        ordinal: present.ordinal,
        id: present.id.to_string(),
        present: true,
        last_seq: LaneName::ALL.map(|lane| log.committed(lane).seq),
    });
    ended.chain(present).collect()
}

fn quarantine(dir: &Path) -> Vec<PutAside> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PutAside> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some(PutAside { name: entry.file_name().to_string_lossy().into_owned(), bytes: crate::buffer::tree_bytes(&entry.path()).ok()? })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
