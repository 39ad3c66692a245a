//! What is in the buffer, told the same way by a running agent and from the directory of a stopped one.
use std::{fs, path::Path};

use hark_protocol::topics::{GapReason, LaneName};
use serde::{Deserialize, Serialize};

use super::message::as_text;
use crate::{
    buffer::{BufferError, Gap, Log, LogSettings, Position, stored_cursors},
    clock::Clock,
    forward::stored_mark,
    inference::checkpoint,
    status::Status,
};

/// Everything under the data directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BufferReport {
    /// Gateway id.
    pub gateway: String,
    /// The data directory.
    pub dir: String,
    /// Whether an agent told this; else it was read from the disk.
    pub running: bool,
    /// Bytes allowed under the directory.
    pub quota_bytes: u64,
    /// Bytes it takes on disk, everything counted.
    pub used_bytes: u64,
    /// The lanes.
    pub lanes: Vec<LaneReport>,
    /// Ranges that are lost and named, as far as a reader may still meet them.
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
    pub quota_bytes: u64,
    /// Age of the oldest record on disk by its own time, seconds.
    pub oldest_s: Option<f64>,
    /// Last record that Kafka has.
    #[serde(with = "as_text")]
    pub acked: Option<Position>,
    /// Records after it.
    pub waiting: u64,
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

impl BufferReport {
    /// Reads it from `log`, which lies in `dir`. With the `status` of the running agent it knows what Kafka has this moment, and the link.
    ///
    /// # Errors
    /// [`BufferError`] if the disk refuses.
    pub fn of(log: &Log, dir: &Path, gateway: &str, quota_bytes: u64, status: Option<&Status>, clock: &Clock) -> Result<Self, BufferError> {
        let cursors = stored_cursors(&dir.join("cursors"))?;
        let settings = LogSettings::new(quota_bytes);
        let acked = stored_mark(dir)?;
        let place = Place { log, settings, acked, status, clock, checkpoint: checkpoint::position_in(dir) };
        let lanes = LaneName::ALL.into_iter().map(|lane| place.lane(lane)).collect::<Result<_, _>>()?;
        let gaps = log.gaps().into_iter().filter(Gap::is_named).map(|gap| GapReport {
            lane: gap.lane,
            from: Some(gap.from),
            to: Some(gap.to),
            records: gap.records(),
            reason: gap.reason,
            event: Some(gap.event),
        });
        Ok(Self {
            gateway: gateway.to_owned(),
            dir: dir.display().to_string(),
            running: status.is_some(),
            quota_bytes,
            used_bytes: log.disk_bytes()?,
            lanes,
            gaps: gaps.collect(),
            incarnations: incarnations(log),
            cursors: cursors.into_iter().map(|(name, position)| CursorReport { name, position }).collect(),
            quarantine: quarantine(&dir.join("quarantine")),
            link: status.map(|status| LinkReport { state: status.link().as_str().to_owned(), delivered: status.forward_numbers().delivered }),
        })
    }
}

struct Place<'a> {
    log: &'a Log,
    settings: LogSettings,
    acked: Option<[Position; LaneName::ALL.len()]>,
    status: Option<&'a Status>,
    clock: &'a Clock,
    checkpoint: Option<Position>,
}

impl Place<'_> {
    fn lane(&self, lane: LaneName) -> Result<LaneReport, BufferError> {
        let log = self.log;
        let before_first = log.start(lane);
        let records = log.depth(lane, before_first);
        let stored = self.acked.map(|acked| acked[lane as usize]);
        let acked = self.status.map(|status| status.acknowledged(lane)).filter(|position| position.seq > 0).or(stored);
        Ok(LaneReport {
            lane,
            partitions: log.partitions(lane).0,
            first: (records > 0).then_some(Position { seq: before_first.seq + 1, ..before_first }),
            last: log.last(lane),
            records,
            bytes: log.lane_bytes(lane)?,
            quota_bytes: self.settings.lane_quota_bytes(lane),
            oldest_s: self.oldest_s(lane, before_first),
            acked,
            waiting: log.depth(lane, acked.unwrap_or(before_first).max(before_first)),
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
