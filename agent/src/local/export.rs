//! Records of a lane as lines of JSON, page by page: what `hark buffer export` prints, with the agent running or stopped.
use std::path::Path;

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

/// The page of `log` that `request` asks for. Kafka has the lane up to `acked`: what is missing before is not lost. `save` is asked, once, to save what
/// can be read of a damaged partition (its directory, and the first record that cannot be read), and says whether it has.
///
/// # Errors
/// [`BufferError`] if the disk refuses. Damage is no error but a line that names what cannot be read.
pub fn page(
    log: &Log,
    sender: &Sender,
    request: &ExportRequest,
    acked: Option<Position>,
    save: impl Fn(&Path, Position) -> bool,
) -> Result<Page, BufferError> {
    let (lane, acked) = (request.lane, acked.unwrap_or_default());
    let limit = request.limit.unwrap_or(PAGE_RECORDS).min(PAGE_RECORDS);
    let last = request.to.unwrap_or(Position { ordinal: u32::MAX, seq: u64::MAX });
    let mut lines = Vec::new();
    let mut after = request.from.map_or_else(Position::default, |from| Position { seq: from.seq.saturating_sub(1), ..from });
    // Of what lies before the oldest record on disk, Kafka's part was given back.
    after = after.max(acked.min(log.start(lane)));
    let mut reader = log.reader(lane)?;
    let (mut records, mut bytes) = (0, 0);
    let (mut more, mut asked) = (true, None);
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
            Err(BufferError::Hole { from, to, named, .. }) => {
                let missing = Missing { lane, from, to: named.map_or(to, |gap| gap.to), reason: reason(log, lane, from), named };
                lines.extend(missing.line(log, acked));
                after = missing.to;
                continue;
            }
            Err(BufferError::Damaged { partition, from, .. }) if asked.replace(from) != Some(from) && save(&partition, from) => continue,
            Err(BufferError::Damaged { .. }) => {
                let Some(from) = log.following(lane, after) else { break };
                let missing = Missing { lane, from, to: log.before_next_partition(lane, from), reason: GapReason::Damaged, named: None };
                lines.extend(missing.line(log, acked));
                after = missing.to;
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

/// What the agent will say of a hole that no event names.
fn reason(log: &Log, lane: LaneName, from: Position) -> GapReason {
    if log.is_salvaged(lane, from) { GapReason::Damaged } else { GapReason::TornTail }
}

/// Records that cannot be read.
struct Missing {
    lane: LaneName,
    from: Position,
    to: Position,
    /// Why, if no event says so yet: what the agent will say when it meets them.
    reason: GapReason,
    /// What an event says of them.
    named: Option<Gap>,
}

impl Missing {
    /// The line that names them, from the first one on that Kafka does not have; none if it has all.
    fn line(&self, log: &Log, acked: Position) -> Option<Vec<u8>> {
        let Self { lane, to, named, .. } = *self;
        if to <= acked {
            return None;
        }
        let named = named.filter(Gap::is_named);
        let from = named.map_or(self.from, |gap| gap.from);
        let from = if from <= acked && from.ordinal == acked.ordinal { Position { seq: acked.seq + 1, ..acked } } else { from };
        let line = json!({
            "gap_lane": lane,
            "gap_inc": log.incarnation_id(from.ordinal).map(|id| id.to_string()),
            "gap_ordinal": from.ordinal,
            "gap_from_seq": from.seq,
            "gap_to_seq": to.seq,
            "gap_reason": named.map_or(self.reason, |gap| gap.reason),
            "gap_event": named.map(|gap| gap.event.to_string()),
        });
        Some(line.to_string().into_bytes())
    }
}
