//! The books against histories of which the truth is known.
use std::collections::{BTreeMap, BTreeSet};

use hark_protocol::topics::{GapReason, LaneName};
use proptest::prelude::*;

use uuid::Uuid;

use super::{
    findings::{End, Findings, Row},
    ledger::{Expired, Ledger, Seen},
};
use crate::{buffer::Incarnation, forward::cursor::Short};

const LANE: LaneName = LaneName::Inputs;
const GW: &str = "gw";

fn record(ledger: &mut Ledger, inc: &str, seq: u64, partition: usize) {
    timed(ledger, inc, seq, partition, Some(seq as i64));
}

fn seen(inc: &str, seq: u64) -> Seen<'_> {
    Seen { lane: LANE, inc, seq, key: "z", contradiction: None, topic: 9, partition: 27, appended_ms: None }
}

fn timed(ledger: &mut Ledger, inc: &str, seq: u64, partition: usize, appended_ms: Option<i64>) {
    let key = ["a", "b", "c"][partition % 3];
    ledger.record(Seen { key, topic: partition / 3, partition, appended_ms, ..seen(inc, seq) });
}

/// Records 1 to `count` of incarnation `i`, in turn in three partitions, and a cursor at the last.
fn whole(count: u64) -> Ledger {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 3, count);
    (1..=count).for_each(|seq| record(&mut ledger, "i", seq, seq as usize % 3));
    ledger
}

fn only_row(findings: &Findings) -> &Row {
    assert_eq!(findings.rows.len(), 1, "{findings:#?}");
    &findings.rows[0]
}

#[test]
fn what_is_whole_is_clean() {
    let findings = whole(100).findings();
    let row = only_row(&findings);
    assert_eq!((row.from, row.to, row.end, row.delivered, row.ordinal), (1, 100, End::Cursor, 100, Some(3)));
    assert_eq!((findings.faults(), findings.unsure(), row.beyond), (0, 0, 0));
}

#[test]
fn removed_repeated_and_swapped_records_are_named() {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 1, 9);
    for seq in [1, 2, 3, 5, 5, 7, 6, 8, 9, 10] {
        record(&mut ledger, "i", seq, 0);
    }
    let findings = ledger.findings();
    let row = only_row(&findings);
    assert_eq!((row.missing.count, row.missing.examples.as_slice()), (1, ["gw/i/inputs/4".to_owned()].as_slice()));
    assert_eq!((row.doubled.count, row.doubled.examples.as_slice()), (1, ["gw/i/inputs/5".to_owned()].as_slice()));
    assert_eq!((row.disordered.count, row.disordered.examples.as_slice()), (1, ["gw/i/inputs/6".to_owned()].as_slice()));
    assert_eq!((row.beyond, findings.faults()), (1, 3));
}

#[test]
fn a_gap_excuses_what_is_missing_once_and_nothing_that_is_there() {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 1, 20);
    (1..=4).chain(11..=20).for_each(|seq| record(&mut ledger, "i", seq, 0));
    ledger.gap(LANE, "i", 5, 8, GapReason::Quota);
    ledger.gap(LANE, "i", 8, 12, GapReason::Age);
    ledger.gap(LANE, "i", 21, 30, GapReason::Quota);
    let findings = ledger.findings();
    let row = only_row(&findings);
    assert_eq!(row.gaps, BTreeMap::from([("quota".to_owned(), 4), ("age".to_owned(), 4)]));
    assert_eq!((row.gapped_twice.count, row.contradicted.count, row.missing.count), (1, 2, 0));
    assert_eq!(row.gapped_twice.examples, ["gw/i/inputs/8"]);
}

#[test]
fn earlier_incarnations_end_where_their_successors_say() {
    let mut ledger = whole(10);
    for seq in 1..=5 {
        ledger.record(seen("h", seq));
    }
    ledger.opened("i", "h", [Some(7), None, None, None]);
    let findings = ledger.findings();
    assert_eq!((findings.rows[0].inc.as_str(), findings.rows[0].to, findings.rows[0].end), ("h", 7, End::Successor));
    assert_eq!(findings.rows[0].missing.examples, ["gw/h/inputs/6 to 7"]);

    // Nobody says where `g` ended, and `j` is beyond the cursor.
    for (inc, seqs) in [("g", [1, 3]), ("j", [2, 3])] {
        for seq in seqs {
            ledger.record(Seen { key: inc, appended_ms: Some(-5), ..seen(inc, seq) });
        }
    }
    ledger.opened("h", "g", [None; 4]);
    ledger.opened("j", "i", [Some(10), None, None, None]);
    let findings = ledger.findings();
    let told: Vec<_> = findings.rows.iter().map(|row| (row.inc.as_str(), row.end, row.missing.count, row.beyond)).collect();
    assert_eq!(told, [("g", End::HighestSeen, 1, 0), ("h", End::Successor, 2, 0), ("i", End::Cursor, 0, 0), ("j", End::BeyondCursor, 0, 2)]);
}

#[test]
fn cursors_tell_of_other_disks_and_of_the_lineage() {
    let ids: Vec<Uuid> = (1..=3).map(|n| Uuid::from_bytes([n; 16])).collect();
    let names: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let short = |at: usize, ordinal| Short::from(Incarnation { ordinal, id: ids[at] });
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, &names[2], 9, 2);
    ledger.lineage(short(2, 9), None);
    ledger.lineage(short(1, 8), Some([4, 0, 0, 0]));
    ledger.other(LANE, short(0, 8), 5);
    // The other disk had delivered 5 of 7 when it was taken over from; of this disk's earlier start one is missing.
    ledger.opened("later", &names[0], [Some(7), None, None, None]);
    for (inc, seqs) in [(0, 1..=5), (1, 1..=3), (2, 1..=2)] {
        seqs.for_each(|seq| record(&mut ledger, &names[inc], seq, 0));
    }
    let findings = ledger.findings();
    let mut told: Vec<_> = findings.rows.iter().map(|row| (row.inc.clone(), row.ordinal, row.to, row.end, row.missing.count)).collect();
    told.sort();
    let expected = [(None, 5, End::OtherDisk, 0), (Some(8), 4, End::Successor, 1), (Some(9), 2, End::Cursor, 0)];
    for ((name, told), (ordinal, to, end, missing)) in names.iter().zip(told).zip(expected) {
        assert_eq!(told, (name.clone(), ordinal, to, end, missing));
    }
}

#[test]
fn an_incarnation_of_which_nothing_arrived_is_missed() {
    let mut ledger = whole(3);
    ledger.opened("i", "h", [Some(4), Some(0), None, None]);
    let findings = ledger.findings();
    assert_eq!((findings.rows[0].inc.as_str(), findings.rows[0].missing.count), ("h", 4));
    assert_eq!(findings.rows.len(), 2);
}

#[test]
fn incarnations_that_come_back_are_out_of_order() {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 2, 2);
    ledger.opened("i", "h", [Some(2), None, None, None]);
    for (inc, seq) in [("h", 1), ("i", 1), ("h", 2), ("i", 2)] {
        record(&mut ledger, inc, seq, 0);
    }
    let findings = ledger.findings();
    let late: Vec<_> = findings.rows.iter().map(|row| (row.disordered.count, row.disordered.examples.as_slice())).collect();
    assert_eq!(late, [(1, ["gw/h/inputs/2".to_owned()].as_slice()), (0, [].as_slice())]);
}

#[test]
fn a_partition_that_lost_its_beginning_moves_the_start() {
    // Partition 1 (seqs 1, 4, 7 …) lost everything before 40.
    let expired = |first_ms| {
        let mut ledger = Ledger::new(GW);
        ledger.cursor(LANE, "i", 1, 99);
        ledger.expired(Expired { partition: 1, first_ms }, &[LANE]);
        (1..=99).filter(|seq| seq % 3 != 1 || *seq >= 40).for_each(|seq| timed(&mut ledger, "i", seq, seq as usize % 3, Some(seq as i64 * 20_000)));
        ledger
    };
    let findings = expired(None).findings();
    assert_eq!((only_row(&findings).from, findings.faults(), findings.unsure(), findings.from_later.as_slice()), (40, 0, 0, [LANE].as_slice()));
    // Another gateway's record shows that the partition is whole since 20 already: what it lacks of ours from then on is missing.
    let findings = expired(Some(20 * 20_000)).findings();
    let row = only_row(&findings);
    assert_eq!((row.from, row.missing.count), (23, 5), "{row:?}");
    // What another partition lacks after the start is missing.
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 1, 99);
    ledger.expired(Expired { partition: 1, first_ms: None }, &[LANE]);
    (40..=99).filter(|seq| *seq != 50).for_each(|seq| record(&mut ledger, "i", seq, seq as usize % 3));
    assert_eq!(only_row(&ledger.findings()).missing.examples, ["gw/i/inputs/50"]);
}

#[test]
fn an_emptied_partition_makes_what_is_missing_unsure_and_nothing_else() {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 1, 30);
    ledger.expired(Expired { partition: 1, first_ms: None }, &[LANE]);
    (1..=30).filter(|seq| seq % 3 != 1).for_each(|seq| record(&mut ledger, "i", seq, seq as usize % 3));
    let findings = ledger.findings();
    assert_eq!((findings.faults(), findings.unsure(), findings.blind.as_slice()), (0, 10, [(LANE, 1)].as_slice()));
    // A partition that never had any of ours is no reason for doubt.
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 1, 30);
    ledger.expired(Expired { partition: 5, first_ms: None }, &[LANE]);
    (1..=30).for_each(|seq| record(&mut ledger, "i", seq, seq as usize % 3));
    assert_eq!((ledger.findings().faults(), ledger.findings().unsure()), (0, 0));
}

#[test]
fn a_lane_without_a_cursor_is_told_and_looked_at_as_far_as_it_came() {
    let mut ledger = Ledger::new(GW);
    ledger.opened("i", "h", [Some(2), None, None, None]);
    [("h", 1), ("i", 1), ("i", 3)].into_iter().for_each(|(inc, seq)| record(&mut ledger, inc, seq, 0));
    let findings = ledger.findings();
    assert_eq!(findings.without_cursor, [LANE]);
    let told: Vec<_> = findings.rows.iter().map(|row| (row.end, row.to, row.missing.count, row.beyond)).collect();
    assert_eq!(told, [(End::Successor, 2, 1, 0), (End::NoCursor, 3, 1, 0)]);
    assert!(findings.open_ended().is_empty());
}

#[test]
fn a_value_of_another_record_is_named() {
    let mut ledger = whole(5);
    ledger.cursor(LANE, "i", 3, 6);
    ledger.record(Seen { contradiction: Some("its value is of gw/i/inputs/2"), ..seen("i", 6) });
    let findings = ledger.findings();
    let altered = &only_row(&findings).altered;
    assert_eq!((findings.faults(), altered.count, altered.examples[0].as_str()), (1, 1, "gw/i/inputs/6 (its value is of gw/i/inputs/2)"));
}

#[test]
fn a_key_in_two_partitions_of_a_topic_is_named() {
    let mut ledger = whole(90);
    ledger.cursor(LANE, "i", 3, 93);
    // `a` has its own partition in each topic; of this one it has a second.
    ledger.record(Seen { key: "a", topic: 1, partition: 4, ..seen("i", 91) });
    ledger.record(Seen { key: "a", topic: 0, partition: 2, ..seen("i", 92) });
    ledger.record(Seen { key: "a", topic: 0, partition: 2, lane: LaneName::Events, ..seen("i", 1) });
    ledger.cursor(LaneName::Events, "i", 3, 1);
    record(&mut ledger, "i", 93, 0);
    let findings = ledger.findings();
    let [stray] = findings.strays.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((stray.key.as_str(), stray.home, stray.partition, stray.records), ("a", 0, 2, 2));
    assert_eq!((stray.first.as_str(), findings.faults(), findings.misplaced()), ("gw/i/inputs/92", 2, 2));
}

/// Disordered and between disks, by incarnation.
fn orders(ledger: &Ledger) -> BTreeMap<String, (u64, u64)> {
    ledger.findings().rows.into_iter().map(|row| (row.inc, (row.disordered.count, row.between_disks.count))).collect()
}

#[test]
fn between_disks_that_were_alive_at_once_no_order_is_promised() {
    let fight = |opened: &[(&str, &str)]| {
        let mut ledger = Ledger::new(GW);
        ledger.taken_over("a", "b");
        ledger.taken_over("b", "a");
        ledger.cursor(LANE, "b", 2, 3);
        opened.iter().for_each(|(inc, before)| ledger.opened(inc, before, [Some(3), None, None, None]));
        for (inc, seq) in [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)] {
            record(&mut ledger, inc, seq, 0);
        }
        orders(&ledger)
    };
    let told = |a, b| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    assert_eq!(fight(&[]), told((0, 2), (0, 0)));
    assert_eq!(fight(&[("b", "a")]), told((2, 0), (0, 0)), "on one disk");
    let copied = fight(&[("b", "a"), ("c", "a")]);
    assert_eq!((copied["a"], copied["b"]), ((0, 2), (0, 0)), "a copy went on from `a`, too");
    // By way of another one, of which no record is left.
    assert_eq!(fight(&[("x", "a"), ("b", "x")])["a"], (2, 0));
}

#[test]
fn order_within_an_incarnation_is_promised_in_a_fight_too() {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "b", 2, 1);
    ledger.taken_over("b", "a");
    for (inc, seq) in [("a", 1), ("a", 3), ("b", 1), ("a", 2)] {
        record(&mut ledger, inc, seq, 0);
    }
    assert_eq!(orders(&ledger), BTreeMap::from([("a".to_owned(), (1, 0)), ("b".to_owned(), (0, 0))]));
}

#[test]
fn the_lineage_tells_of_one_disk_where_events_do_not() {
    let ids = [1, 2].map(|n| Uuid::from_bytes([n; 16]));
    let names = ids.map(|id| id.to_string());
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, &names[1], 2, 2);
    for (at, last) in [(1, None), (0, Some([2, 0, 0, 0]))] {
        ledger.lineage(Short::from(Incarnation { ordinal: at as u32 + 1, id: ids[at] }), last);
    }
    for (at, seq) in [(0, 1), (1, 1), (0, 2), (1, 2)] {
        record(&mut ledger, &names[at], seq, 0);
    }
    assert_eq!(orders(&ledger), BTreeMap::from([(names[0].clone(), (1, 0)), (names[1].clone(), (0, 0))]));
}

#[test]
fn what_was_delivered_elsewhere_is_neither_missing_nor_lost() {
    let mut ledger = Ledger::new(GW);
    ledger.cursor(LANE, "i", 1, 20);
    (8..=20).filter(|seq| *seq != 15).for_each(|seq| record(&mut ledger, "i", seq, 0));
    // Told twice, and of records that came here too.
    ledger.gap(LANE, "i", 1, 9, GapReason::DeliveredElsewhere);
    ledger.gap(LANE, "i", 1, 7, GapReason::DeliveredElsewhere);
    ledger.gap(LANE, "i", 5, 5, GapReason::Refused);
    let findings = ledger.findings();
    let row = only_row(&findings);
    assert_eq!(row.gaps, BTreeMap::from([("delivered_elsewhere".to_owned(), 6), ("refused".to_owned(), 1)]));
    assert_eq!((findings.faults(), row.missing.examples.as_slice()), (1, ["gw/i/inputs/15".to_owned()].as_slice()));
}

/// What was done to a record on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Delivered,
    Removed,
    Repeated,
    InGap,
    GapAndDelivered,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Delivered),
        1 => Just(Fate::Removed),
        1 => Just(Fate::Repeated),
        1 => Just(Fate::InGap),
        1 => Just(Fate::GapAndDelivered),
    ]
}

proptest! {
    /// Each fate of each record is found, once, and nothing else.
    #[test]
    fn every_fault_is_found_and_none_is_made_up(
        histories in prop::collection::vec(prop::collection::vec((fate(), 0..4_usize), 0..120), 1..4),
        cut in 0..120_usize,
    ) {
        let mut ledger = Ledger::new(GW);
        let last = histories.len() - 1;
        let cursor = histories[last].len().saturating_sub(cut) as u64;
        ledger.cursor(LANE, &last.to_string(), last as u32 + 1, cursor);
        let mut expected = BTreeMap::new();
        for (at, history) in histories.iter().enumerate() {
            let inc = at.to_string();
            if at > 0 {
                ledger.opened(&inc, &(at - 1).to_string(), [Some(histories[at - 1].len() as u64), None, None, None]);
            }
            let mut sums = [0_u64; 4];
            for (seq, (fate, partition)) in (1..).zip(history) {
                let judged = at < last || seq <= cursor;
                if !matches!(fate, Fate::Removed | Fate::InGap) {
                    record(&mut ledger, &inc, seq, *partition);
                }
                if *fate == Fate::Repeated {
                    record(&mut ledger, &inc, seq, *partition);
                    sums[1] += 1;
                }
                if matches!(fate, Fate::InGap | Fate::GapAndDelivered) {
                    ledger.gap(LANE, &inc, seq, seq, GapReason::Refused);
                    sums[2] += u64::from(judged);
                }
                sums[0] += u64::from(judged && *fate == Fate::Removed);
                sums[3] += u64::from(judged && *fate == Fate::GapAndDelivered);
            }
            expected.insert(inc, sums);
        }
        let findings = ledger.findings();
        let mut told = BTreeSet::new();
        for row in &findings.rows {
            let sums = [row.missing.count, row.doubled.count, row.gaps.values().sum(), row.contradicted.count];
            prop_assert_eq!(sums, expected[&row.inc], "incarnation {}", &row.inc);
            prop_assert_eq!((row.disordered.count, row.gapped_twice.count, row.unsure.count), (0, 0, 0));
            let judged = if row.from > row.to { 0 } else { row.to };
            prop_assert_eq!(judged, row.delivered + row.gaps.values().sum::<u64>() - row.contradicted.count + row.missing.count);
            told.insert(row.inc.clone());
        }
        for (inc, sums) in expected {
            prop_assert!(told.contains(&inc) || sums == [0; 4], "incarnation {} is not told of", inc);
        }
    }
}
