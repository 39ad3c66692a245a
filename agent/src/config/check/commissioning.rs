//! `[commissioning]` of a machine's file: how much normal running is learned from.
use std::{ops::RangeInclusive, time::Duration};

use super::faults::{DAY, Faults};
use crate::{
    config::{Asset, COMMISSIONING_ROWS_LEAST, Commissioning, file::CommissioningTable},
    inference::{ROWS_BLOCK, checkpoint::COLLECTED_MAX_BYTES},
};

/// Running to learn from unless configured: a day, with what a day brings.
const RUNNING: &str = "24h";
const RUNNING_RANGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(90 * DAY.as_secs());
/// Starts to see unless configured: what comes once may be chance.
const STARTS: u32 = 2;
/// Running is so many rows at least, whatever the grid.
const ROWS_OF_RUNNING_LEAST: usize = 400;
/// Checks the table of a machine with rows so far apart. Without operating states (`has_states`) nobody can count starts.
pub(super) fn check_commissioning(raw: &CommissioningTable, grid: Duration, has_states: bool, faults: &mut Faults) -> Commissioning {
    if raw.rows.is_some() && raw.running.is_some() {
        faults.add("commissioning.rows", "says the same as `running`; expected one of them");
    }
    let rows = match raw.rows {
        Some(rows) => {
            if rows < COMMISSIONING_ROWS_LEAST {
                faults.add("commissioning.rows", format!("{rows} are too few to learn from: expected {COMMISSIONING_ROWS_LEAST} at least"));
            }
            rows
        }
        None => {
            let running = faults.duration("commissioning.running", raw.running.as_deref().unwrap_or(RUNNING), RUNNING_RANGE);
            let rows = running.as_nanos().div_ceil(grid.as_nanos().max(1));
            usize::try_from(rows).unwrap_or(usize::MAX).max(ROWS_OF_RUNNING_LEAST)
        }
    };
    if !has_states && raw.starts.is_some_and(|starts| starts > 0) {
        faults.add("commissioning.starts", "needs to know when the machine runs; expected `[operating]`, or 0");
    }
    Commissioning { rows, starts: if has_states { raw.starts.unwrap_or(STARTS) } else { 0 }, adapts: raw.adapts.unwrap_or(true) }
}

/// While machines are commissioned, all their rows are kept, those of each regime, and a checkpoint must hold them.
pub(super) fn refuse_too_many_rows<'a>(assets: impl Iterator<Item = &'a Asset>, faults: &mut Faults) {
    let bytes = |asset: &Asset| {
        let scored = asset.points.iter().filter(|point| point.scored).count();
        let (regimes, settle) = asset.operating.as_ref().map_or((1, Duration::ZERO), |operating| (operating.regimes(), operating.settle));
        // Rows of a machine that may have begun to change are left out in the end, and kept until then.
        let spare = (settle.as_nanos() / asset.grid.as_nanos().max(1)) as usize;
        // Where starts are waited for, the oldest rows go a block at a time.
        let waiting = if asset.commissioning.starts > 0 { ROWS_BLOCK } else { 0 };
        asset.commissioning.rows.saturating_add(spare + waiting).saturating_mul(scored * regimes * size_of::<f64>())
    };
    let of_each: Vec<(usize, &Asset)> = assets.map(|asset| (bytes(asset), asset)).collect();
    let found = of_each.iter().fold(0_usize, |sum, (bytes, _)| sum.saturating_add(*bytes));
    let Some((most, largest)) = of_each.iter().max_by_key(|(bytes, _)| *bytes).filter(|_| found > COLLECTED_MAX_BYTES) else { return };
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    faults.add(
        "commissioning",
        format!(
            "rows of all machines take {} MiB while they are collected (rows × scored points × regimes × 8 bytes; most of all `{}` with {} MiB); expected {} MiB at most: \
             a coarser `grid`, or less of `running` (or `rows`)",
            mib(found),
            largest.id,
            mib(*most),
            mib(COLLECTED_MAX_BYTES)
        ),
    );
}
