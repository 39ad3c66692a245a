//! Records of a lane as lines of JSON, page by page: what `hark buffer export` prints, with the agent running or stopped.
use hark_protocol::topics::{GapReason, LaneName};
use serde_json::json;

use super::message::{ExportRequest, PageEnd};
use crate::{
    buffer::{BufferError, Gap, Log, Position},
    forward::Sender,
};

/// Most records and encoded bytes of a page: a few milliseconds of work, and no connection is held longer.
const PAGE_RECORDS: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;

/// A page: flat JSON objects, and where the next one begins.
#[derive(Debug)]
pub struct Page {
    /// Records exactly as they go to Kafka; between them a line with `gap_from_seq` and `gap_to_seq` for what is missing.
    pub lines: Vec<Vec<u8>>,
    /// How it ends.
    pub end: PageEnd,
}

/// The page of `log` that `request` asks for.
///
/// # Errors
/// [`BufferError`] if the disk refuses. Damage is no error but a line that names what cannot be read.
pub fn page(log: &Log, sender: &Sender, request: &ExportRequest) -> Result<Page, BufferError> {
    let lane = request.lane;
    let limit = request.limit.unwrap_or(PAGE_RECORDS).min(PAGE_RECORDS);
    let last = request.to.unwrap_or(Position { ordinal: u32::MAX, seq: u64::MAX });
    let mut lines = Vec::new();
    let mut after = begin(log, lane, request.from, last, &mut lines);
    let mut reader = log.reader(lane)?;
    let (mut records, mut bytes) = (0, 0);
    let mut more = true;
    while records < limit && bytes < PAGE_BYTES {
        let read = match reader.read(after, limit - records, PAGE_BYTES) {
            Ok(read) if read.is_empty() => {
                more = false;
                break;
            }
            Ok(read) => read,
            Err(_) if log.following(lane, after).is_none_or(|next| next > last) => {
                more = false;
                break;
            }
            // Kafka has all of it: it was given back.
            Err(BufferError::Hole { named: Some(gap), .. }) if !gap.is_named() => {
                after = gap.to;
                continue;
            }
            Err(BufferError::Hole { named: Some(gap), .. }) => {
                lines.push(gap_line(log, lane, gap.from, gap.to, Some(gap.reason), Some(gap.event)));
                after = gap.to;
                continue;
            }
            Err(BufferError::Hole { from, to, named: None, .. }) => {
                lines.push(gap_line(log, lane, from, to, None, None));
                after = to;
                continue;
            }
            Err(BufferError::Damaged { .. }) => {
                let Some(from) = log.following(lane, after) else { break };
                let to = log.before_next_partition(lane, from);
                lines.push(gap_line(log, lane, from, to, Some(GapReason::Damaged), None));
                after = to;
                continue;
            }
            Err(error) => return Err(error),
        };
        for (position, entry) in read {
            if position > last {
                more = false;
                break;
            }
            let inc = log.incarnation_id(position.ordinal).unwrap_or_default().to_string().into();
            let line = sender.message(lane, position, &inc, &entry).value;
            bytes += line.len();
            lines.push(line);
            records += 1;
            after = position;
        }
        if !more {
            break;
        }
    }
    let next = more.then_some(Position { seq: after.seq + 1, ..after });
    Ok(Page { lines, end: PageEnd { records, next } })
}

/// The place to read after. What lies before the oldest record on disk was delivered and given back, or is named in gaps: these get their lines.
fn begin(log: &Log, lane: LaneName, from: Option<Position>, last: Position, lines: &mut Vec<Vec<u8>>) -> Position {
    let start = log.start(lane);
    let after = from.map_or_else(Position::default, |from| Position { seq: from.seq.saturating_sub(1), ..from });
    if after >= start {
        return after;
    }
    let passed = |gap: &Gap| gap.lane == lane && gap.is_named() && gap.to > after && gap.to <= start && gap.from <= last;
    for gap in log.gaps().into_iter().filter(passed) {
        lines.push(gap_line(log, lane, gap.from, gap.to, Some(gap.reason), Some(gap.event)));
    }
    start
}

/// The line for missing records. Without an event they are not named yet: the agent does so when it meets them.
fn gap_line(log: &Log, lane: LaneName, from: Position, to: Position, reason: Option<GapReason>, event: Option<Position>) -> Vec<u8> {
    let line = json!({
        "gap_lane": lane,
        "gap_inc": log.incarnation_id(from.ordinal).map(|id| id.to_string()),
        "gap_ordinal": from.ordinal,
        "gap_from_seq": from.seq,
        "gap_to_seq": to.seq,
        "gap_reason": reason,
        "gap_event": event.map(|event| event.to_string()),
    });
    line.to_string().into_bytes()
}
