//! What records and cursors tell of incarnations, put together. Pure.
use std::collections::{BTreeMap, BTreeSet};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{ledger::Ledger, order::Known};
use crate::forward::cursor::{PerLane, Short};

/// What is told of incarnations, put together.
pub(super) struct Told<'a> {
    pub(super) known: Vec<Known>,
    pub(super) ends: BTreeMap<usize, PerLane<Option<u64>>>,
    pub(super) others: BTreeMap<(LaneName, usize), u64>,
    /// Those of the disk that delivers, with their ordinals.
    on_disk: BTreeMap<usize, u32>,
    successors: &'a BTreeMap<usize, BTreeSet<usize>>,
}

impl<'a> Told<'a> {
    pub(super) fn of(ledger: &'a Ledger) -> Self {
        let ids: Vec<Option<Uuid>> = ledger.incs.iter().map(|inc| inc.parse().ok()).collect();
        let find = |short: Short| ids.iter().position(|id| id.is_some_and(|id| short.is(id)));
        let mut told = Self {
            known: ledger.known.clone(),
            ends: ledger.ends.clone(),
            others: BTreeMap::new(),
            on_disk: BTreeMap::new(),
            successors: &ledger.successors,
        };
        for (short, last_seq) in &ledger.lineage {
            let Some(inc) = find(*short) else { continue };
            told.known[inc].ordinal.get_or_insert(short.ordinal());
            told.on_disk.insert(inc, short.ordinal());
            let Some(last_seq) = last_seq else { continue };
            let ends = told.ends.entry(inc).or_default();
            ends.iter_mut().zip(last_seq).for_each(|(end, last)| *end = (*end).max(Some(*last)));
        }
        for (lane, short, seq) in &ledger.others {
            let Some(inc) = find(*short) else { continue };
            let end = told.others.entry((*lane, inc)).or_default();
            *end = (*end).max(*seq);
        }
        told
    }

    /// Whether `later` came after `earlier` on one disk, so that all of `earlier` had to be sent before. Where a disk was copied, the longer end of the
    /// incarnation that both have belongs to one of them alone.
    pub(super) fn is_on_one_disk(&self, earlier: usize, later: usize) -> bool {
        let successors = |inc: usize| self.successors.get(&inc).into_iter().flatten().copied();
        if successors(earlier).count() > 1 {
            return false;
        }
        let ordinal = |inc| self.on_disk.get(&inc);
        if ordinal(earlier).zip(ordinal(later)).is_some_and(|(earlier, later)| earlier < later) {
            return true;
        }
        let (mut waiting, mut met) = (vec![earlier], BTreeSet::new());
        while let Some(inc) = waiting.pop() {
            if inc == later {
                return true;
            }
            waiting.extend(successors(inc).filter(|next| met.insert(*next)));
        }
        false
    }
}
