//! What the findings of an audit mean. Pure.
use hark_protocol::topics::LaneName;

use crate::{
    audit::{Audited, Findings, Question, Row},
    config::Delivery,
};

/// What the findings mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Each record is there once, or named.
    Clean,
    /// Something is not as promised.
    Fault,
    /// Not enough is known for either.
    Unknown,
}

/// Without cursors.
const CAN_TELL: &str =
    "what is told is which seqs are neither there nor in a gap, up to the highest that came; records that are there twice may have been sent again";

/// The verdict, and why nothing more can be told.
pub fn of(question: &Question, audited: &Audited) -> (Verdict, Vec<String>) {
    let findings = &audited.findings;
    let at_least_once = question.delivery == Some(Delivery::AtLeastOnce);
    let no_cursors = audited.cursors.iter().all(Option::is_none);
    let mut reasons = Vec::new();
    if audited.own == 0 && no_cursors {
        reasons.push("no record and no cursor of this gateway: are gateway id and topic prefix right?".to_owned());
    } else if at_least_once {
        reasons.push(format!("The audit is for exactly_once, and this gateway is configured with delivery = \"at_least_once\": {CAN_TELL}"));
    } else if audited.unclaimed > 0 {
        reasons.push(format!("The audit is for exactly_once, and {} records stand beyond cursors that are newer than they: they were delivered at_least_once. Then {CAN_TELL}", audited.unclaimed));
    } else if no_cursors && question.delivery.is_none() {
        reasons.push(format!("The audit is for exactly_once, and Kafka has no cursors of this gateway: it delivers at_least_once, or was away so long that they expired. Then {CAN_TELL}"));
    } else if no_cursors {
        reasons.push(format!("Kafka has no cursors of this gateway, which expire while it is away: {CAN_TELL}"));
    } else {
        let one = |lane: &LaneName| format!("lane {lane} has no cursor: how far its records should reach is not known");
        reasons.extend(findings.without_cursor.iter().map(one));
    }
    if findings.unsure() > 0 {
        let partitions: Vec<String> = audited.blind.iter().map(|(lane, partition)| format!("{partition} for {lane}")).collect();
        reasons.push(format!("what is missing may have expired with partitions that hold nothing to tell by: {}", partitions.join(", ")));
    }
    // The events that tell where an incarnation ended may expire before its records; without that excuse they should be there.
    if !findings.open_ended().is_empty() && !lost_beginning(findings) {
        reasons.push(format!("nothing tells where these ended, though no event has expired: {}", open_ended(findings)));
    }
    // Without transactions what is sent again stands there twice, and what is on its way is not told from what is lost.
    let promised_once = if no_cursors { question.delivery == Some(Delivery::ExactlyOnce) } else { !at_least_once && audited.unclaimed == 0 };
    let faults =
        if promised_once { findings.faults() } else { findings.misplaced() + findings.rows.iter().map(|row| row.altered.count).sum::<u64>() };
    let verdict = match faults {
        0 if reasons.is_empty() => Verdict::Clean,
        0 => Verdict::Unknown,
        _ => Verdict::Fault,
    };
    (verdict, reasons)
}

/// Whether a partition that holds events has lost its beginning.
pub fn lost_beginning(findings: &Findings) -> bool {
    findings.from_later.contains(&LaneName::Events) || findings.blind.iter().any(|(lane, _)| *lane == LaneName::Events)
}

/// Lanes of incarnations of which nobody tells how far they went.
pub fn open_ended(findings: &Findings) -> String {
    let one = |row: &&Row| format!("{} of {} (checked to {})", row.lane, row.inc, row.to);
    findings.open_ended().iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        audit::{End, Tally},
        commands::audit::page::page,
    };

    /// Seven inputs of one incarnation.
    pub fn audited(end: End, from_later: Vec<LaneName>) -> Audited {
        let tally = Tally::default;
        let row = Row {
            lane: LaneName::Inputs,
            inc: "old".to_owned(),
            ordinal: None,
            from: 1,
            to: 7,
            end,
            delivered: 7,
            gaps: BTreeMap::new(),
            missing: tally(),
            unsure: tally(),
            doubled: tally(),
            disordered: tally(),
            between_disks: tally(),
            altered: tally(),
            contradicted: tally(),
            gapped_twice: tally(),
            beyond: 0,
        };
        let findings = Findings { rows: vec![row], from_later, ..Findings::default() };
        let cursors = [Some((7, "new".to_owned())), None, None, None];
        Audited { findings, cursors, unclaimed: 0, records: 7, own: 7, unreadable: 0, expired: Vec::new(), blind: Vec::new(), misplaced: tally() }
    }

    #[track_caller]
    fn check(audited: &Audited, delivery: Option<Delivery>, expected: Verdict, says: &str) {
        let question = Question { brokers: String::new(), topic_prefix: String::new(), gateway: "gw".to_owned(), patience: Duration::ZERO, delivery };
        let (verdict, reasons) = of(&question, audited);
        let page = page(&question, audited, verdict, &reasons);
        assert!(verdict == expected && page.contains(says), "{verdict:?}\n{page}");
    }

    #[test]
    fn an_end_that_nobody_tells_is_not_called_clean_without_a_word() {
        check(&audited(End::Successor, Vec::new()), None, Verdict::Clean, "Clean: each record");
        check(
            &audited(End::HighestSeen, Vec::new()),
            None,
            Verdict::Unknown,
            "nothing tells where these ended, though no event has expired: inputs of old (checked to 7)",
        );
        let expired = audited(End::HighestSeen, vec![LaneName::Events]);
        check(&expired, None, Verdict::Clean, "have expired: inputs of old (checked to 7)\nClean as far as it is known");
    }

    #[test]
    fn without_transactions_it_says_what_can_be_told_and_no_more() {
        let mut audited = audited(End::NoCursor, Vec::new());
        audited.cursors = [const { None }; 4];
        audited.findings.without_cursor = LaneName::ALL.to_vec();
        audited.findings.rows[0].doubled = Tally { count: 1, examples: vec!["gw/i/inputs/5".to_owned()] };
        let configured = "The audit is for exactly_once, and this gateway is configured with delivery = \"at_least_once\": what is told is";
        check(&audited, Some(Delivery::AtLeastOnce), Verdict::Unknown, configured);
        check(&audited, None, Verdict::Unknown, "it delivers at_least_once, or was away so long that they expired. Then what is told is");
        check(&audited, Some(Delivery::ExactlyOnce), Verdict::Fault, "Kafka has no cursors of this gateway, which expire while it is away: what");
        // The cursors are of a time before the configuration was changed.
        audited.cursors[0] = Some((7, "old".to_owned()));
        audited.unclaimed = 3;
        check(&audited, None, Verdict::Unknown, "3 records stand beyond cursors that are newer than they: they were delivered at_least_once");
        audited.findings.rows[0].altered = Tally { count: 1, examples: vec!["gw/i/inputs/6".to_owned()] };
        check(&audited, Some(Delivery::AtLeastOnce), Verdict::Fault, "gw/i/inputs/6");
    }
}
