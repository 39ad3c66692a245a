//! Gaps of a lane of an incarnation, put in order. Pure.
use std::ops::RangeInclusive;

use hark_protocol::topics::GapReason;

use super::{findings::Row, ledger::Track};

/// Enters the gaps from `from` to `to` that lost something into the row, and gives them in order and joined.
pub(super) fn join(track: &Track, from: u64, to: u64, row: &mut Row, id: &impl Fn(u64) -> String) -> Vec<RangeInclusive<u64>> {
    let lost = track.gaps.iter().filter(|(_, _, reason)| *reason != GapReason::DeliveredElsewhere);
    let mut gaps: Vec<(u64, u64, GapReason)> = lost.map(|(first, last, reason)| ((*first).max(from), (*last).min(to), *reason)).collect();
    gaps.retain(|(first, last, _)| first <= last);
    gaps.sort_by_key(|(first, last, _)| (*first, *last));
    let mut joined: Vec<RangeInclusive<u64>> = Vec::new();
    for (first, last, reason) in gaps {
        let covered = joined.last().map_or(0, |range| *range.end());
        if covered >= first {
            let twice = first..=covered.min(last);
            row.gapped_twice.add(length(&twice), || span(id, &twice));
        }
        let new = first.max(covered.saturating_add(1))..=last;
        if new.is_empty() {
            continue;
        }
        *row.gaps.entry(word(reason)).or_default() += length(&new);
        let delivered = track.seen.count(new.clone());
        row.contradicted.add(delivered, || span(id, &new));
        joined.push(new);
    }
    joined
}

/// What was delivered under another name or to another Kafka, in order and joined. That says where records are and takes none away: it may be said again,
/// and of records that are here too.
pub(super) fn elsewhere(track: &Track) -> Vec<RangeInclusive<u64>> {
    let of_reason = track.gaps.iter().filter(|(_, _, reason)| *reason == GapReason::DeliveredElsewhere);
    let mut gaps: Vec<RangeInclusive<u64>> = of_reason.map(|(first, last, _)| *first..=*last).collect();
    gaps.sort_by_key(|gap| *gap.start());
    let mut joined: Vec<RangeInclusive<u64>> = Vec::new();
    for gap in gaps {
        match joined.last_mut().filter(|last| *last.end() >= *gap.start()) {
            Some(last) => *last = *last.start()..=*last.end().max(gap.end()),
            None => joined.push(gap),
        }
    }
    joined
}

/// The reason as it stands in records.
pub(super) fn word(reason: GapReason) -> String {
    serde_json::to_value(reason).ok().and_then(|reason| reason.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What is left of `range` without `named`, which is in order and does not overlap.
pub(super) fn without(range: RangeInclusive<u64>, named: &[RangeInclusive<u64>]) -> Vec<RangeInclusive<u64>> {
    let (mut at, end) = range.into_inner();
    let mut rest = Vec::new();
    let first = named.partition_point(|gap| *gap.end() < at);
    for gap in named[first..].iter().take_while(|gap| *gap.start() <= end) {
        if at < *gap.start() {
            rest.push(at..=gap.start() - 1);
        }
        at = gap.end() + 1;
    }
    if at <= end {
        rest.push(at..=end);
    }
    rest
}

pub(super) fn span(id: &impl Fn(u64) -> String, range: &RangeInclusive<u64>) -> String {
    if range.start() == range.end() { id(*range.start()) } else { format!("{} to {}", id(*range.start()), range.end()) }
}

pub(super) fn length(range: &RangeInclusive<u64>) -> u64 {
    range.end() - range.start() + 1
}
