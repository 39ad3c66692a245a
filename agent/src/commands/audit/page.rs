//! The answer of an audit: a table with what was found, or JSON.
use std::collections::BTreeMap;

use hark_protocol::topics::LaneName;
use serde_json::json;

use super::verdict::{Verdict, lost_beginning, open_ended};
use crate::{
    audit::{Audited, End, Question, Row, Tally},
    words::{count, table},
};

const COLUMNS: [&str; 12] =
    ["lane", "incarnation", ">from", ">to", ">delivered", ">in gaps", ">missing", ">doubled", ">disordered", ">altered", ">beyond", "checked to"];
/// Incarnations of each lane that are shown in any case.
const NEWEST: usize = 8;
/// As it stands in records.
const ELSEWHERE: &str = "delivered_elsewhere";

/// The answer for a person.
pub fn page(question: &Question, audited: &Audited, verdict: Verdict, reasons: &[String]) -> String {
    let mut text =
        format!("Gateway {} in {}*, {} of {} records\n\n", question.gateway, question.topic_prefix, count(audited.own), count(audited.records));
    text += &table(&COLUMNS, &lines(&audited.findings.rows));
    text += "\n";
    for (reason, records) in gaps_by_reason(&audited.findings.rows) {
        text += &match reason {
            ELSEWHERE => format!("Delivered before under another gateway id, topic prefix or Kafka cluster, as the agent says: {}\n", count(records)),
            _ => format!("In gaps, {reason}: {}\n", count(records)),
        };
    }
    if !audited.findings.from_later.is_empty() {
        let lanes: Vec<_> = audited.findings.from_later.iter().map(|lane| lane.as_str()).collect();
        text += &format!("Started later than the first record for {}: {} lost their beginning\n", lanes.join(", "), audited.expired.join(", "));
    }
    if audited.unreadable > 0 {
        text += &format!("{} records tell of no gateway\n", count(audited.unreadable));
    }
    for row in &audited.findings.rows {
        text += &examples(row);
    }
    text += &named("away from the partition of their key", &audited.misplaced);
    for reason in reasons {
        text += &format!("{reason}\n");
    }
    let open_ended = open_ended(&audited.findings);
    if !open_ended.is_empty() && lost_beginning(&audited.findings) {
        text += &format!("Not known where these ended, since the events that tell it have expired: {open_ended}\n");
    }
    text + match verdict {
        Verdict::Clean if open_ended.is_empty() => "Clean: each record is there exactly once or named in exactly one gap, in order\n",
        Verdict::Clean => {
            "Clean as far as it is known how many there were: each record is there exactly once or named in exactly one gap, in order\n"
        }
        Verdict::Fault => "FAULT\n",
        Verdict::Unknown => "Could not tell\n",
    }
}

/// The rows that tell something and the newest ones of each lane; what is complete and older in one line, since a gateway may have started hundreds of times.
fn lines(rows: &[Row]) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for lane in LaneName::ALL {
        let of_lane: Vec<&Row> = rows.iter().filter(|row| row.lane == lane).collect();
        let older = of_lane.len().saturating_sub(NEWEST);
        let (complete, told): (Vec<_>, Vec<_>) = of_lane.into_iter().zip(0..).partition(|(row, index)| *index < older && is_complete(row));
        if !complete.is_empty() {
            let delivered = complete.iter().map(|(row, _)| row.delivered).sum();
            let elsewhere = complete.iter().flat_map(|(row, _)| row.gaps.values()).sum();
            let name = format!("{} older starts, complete", complete.len());
            let cells = [lane.as_str(), &name, "1", "-", &count(delivered), &count(elsewhere), "0", "0", "0", "0", "0", "their ends"];
            lines.push(cells.map(str::to_owned).to_vec());
        }
        lines.extend(told.into_iter().map(|(told, _)| row(told)));
    }
    lines
}

/// All that it accepted was delivered, here or elsewhere, to its known end.
fn is_complete(row: &Row) -> bool {
    let lost_nothing = row.gaps.keys().all(|reason| reason == ELSEWHERE);
    row.end == End::Successor && row.faults() == 0 && row.unsure.count == 0 && lost_nothing && row.beyond == 0 && row.from == 1
}

fn row(row: &Row) -> Vec<String> {
    let empty = row.from > row.to;
    let place = |seq: u64| if empty { "-".to_owned() } else { seq.to_string() };
    let missing = if row.unsure.count > 0 { format!("{}?", count(row.unsure.count)) } else { count(row.missing.count) };
    let end = match row.end {
        End::Cursor => "cursor",
        End::OtherDisk => "other disk",
        End::Successor => "its end",
        End::HighestSeen => "highest seen",
        End::NoCursor => "highest, no cursor",
        End::BeyondCursor => "beyond cursor",
    };
    vec![
        row.lane.to_string(),
        row.ordinal.map_or_else(|| row.inc.clone(), |ordinal| format!("{} ({ordinal})", row.inc)),
        place(row.from),
        place(row.to),
        count(row.delivered),
        count(row.gaps.values().sum()),
        missing,
        count(row.doubled.count),
        count(row.disordered.count),
        count(row.altered.count),
        count(row.beyond),
        end.to_owned(),
    ]
}

fn gaps_by_reason(rows: &[Row]) -> BTreeMap<&str, u64> {
    let mut sums = BTreeMap::new();
    for (reason, records) in rows.iter().flat_map(|row| &row.gaps) {
        *sums.entry(reason.as_str()).or_default() += records;
    }
    sums
}

fn examples(row: &Row) -> String {
    let kinds: [(&str, &Tally); 8] = [
        ("missing", &row.missing),
        ("missing or expired", &row.unsure),
        ("doubled", &row.doubled),
        ("out of order", &row.disordered),
        ("after records of another disk under this gateway id, between which no order is promised (no fault)", &row.between_disks),
        ("altered on the way", &row.altered),
        ("there although a gap names it", &row.contradicted),
        ("in more than one gap", &row.gapped_twice),
    ];
    kinds.into_iter().map(|(kind, tally)| named(kind, tally)).collect()
}

/// A line with how many and the first of them; nothing where there is none.
fn named(kind: &str, Tally { count: found, examples }: &Tally) -> String {
    if *found == 0 {
        return String::new();
    }
    let more = if *found > examples.len() as u64 { " …" } else { "" };
    format!("{} {kind}: {}{more}\n", count(*found), examples.join(", "))
}

/// The answer as one JSON object on a line.
pub fn json(question: &Question, audited: &Audited, verdict: Verdict, reasons: &[String]) -> String {
    let findings = &audited.findings;
    let cursors: serde_json::Map<_, _> = LaneName::ALL
        .into_iter()
        .zip(&audited.cursors)
        .map(|(lane, cursor)| (lane.to_string(), cursor.as_ref().map_or(serde_json::Value::Null, |(seq, inc)| json!({"inc": inc, "seq": seq}))))
        .collect();
    let value = json!({
        "gateway": question.gateway,
        "topic_prefix": question.topic_prefix,
        "verdict": match verdict { Verdict::Clean => "clean", Verdict::Fault => "fault", Verdict::Unknown => "could_not_tell" },
        "reasons": reasons,
        "faults": findings.faults(),
        "missing": findings.rows.iter().map(|row| row.missing.count).sum::<u64>(),
        "unsure": findings.unsure(),
        "doubled": findings.rows.iter().map(|row| row.doubled.count).sum::<u64>(),
        "disordered": findings.rows.iter().map(|row| row.disordered.count).sum::<u64>(),
        "between_disks": findings.rows.iter().map(|row| row.between_disks.count).sum::<u64>(),
        "altered": findings.rows.iter().map(|row| row.altered.count).sum::<u64>(),
        "misplaced": audited.misplaced.count,
        "misplaced_first": audited.misplaced.examples,
        "in_gaps": gaps_by_reason(&findings.rows),
        "delivered": findings.rows.iter().map(|row| row.delivered).sum::<u64>(),
        "records_read": audited.records,
        "records_of_gateway": audited.own,
        "records_unreadable": audited.unreadable,
        "records_unclaimed": audited.unclaimed,
        "cursors": cursors,
        "lost_beginning": audited.expired,
        "from_later": findings.from_later,
        "end_unknown": findings.open_ended().iter().map(|row| json!({"lane": row.lane, "inc": row.inc, "to": row.to})).collect::<Vec<_>>(),
        "rows": findings.rows,
    });
    value.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::audit::verdict::{self, tests::audited};

    #[test]
    fn complete_older_starts_are_one_line_and_what_tells_something_is_shown() {
        let one = audited(End::Successor, Vec::new()).findings.rows.remove(0);
        let numbered = |n: usize| Row { inc: format!("inc-{n}"), ..one.clone() };
        let mut rows: Vec<Row> = (0..NEWEST + 5).map(numbered).collect();
        rows[1].gaps.insert("quota".to_owned(), 3);
        rows[2].altered.count = 1;
        rows[3].gaps.insert(ELSEWHERE.to_owned(), 2);
        let lines = lines(&rows);
        let names: Vec<&str> = lines.iter().map(|line| line[1].as_str()).collect();
        assert_eq!(names[..4], ["3 older starts, complete", "inc-1", "inc-2", "inc-5"]);
        assert_eq!((lines.len(), lines[0][4].as_str(), lines[0][5].as_str()), (NEWEST + 3, "21", "2"));
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Audited), exit: Verdict, says: &str, (key, value): (&str, serde_json::Value)) {
        let question =
            Question { brokers: String::new(), topic_prefix: String::new(), gateway: "gw".to_owned(), patience: Duration::ZERO, delivery: None };
        let mut audited = audited(End::Successor, Vec::new());
        change(&mut audited);
        let (verdict, reasons) = verdict::of(&question, &audited);
        let (page, json) = (page(&question, &audited, verdict, &reasons), json(&question, &audited, verdict, &reasons));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(verdict == exit && page.contains(says) && json[key] == value, "{verdict:?}\n{page}\n{json}");
    }

    fn tally(example: &str) -> Tally {
        Tally { count: 7, examples: vec![example.to_owned()] }
    }

    #[test]
    fn each_kind_of_finding_has_words_a_number_and_a_verdict() {
        let altered = |audited: &mut Audited| audited.findings.rows[0].altered = tally("gw/i/inputs/3 (its value is of no record)");
        check(altered, Verdict::Fault, "7 altered on the way: gw/i/inputs/3 (its value is of no record) …", ("altered", 7.into()));
        let between = |audited: &mut Audited| audited.findings.rows[0].between_disks = tally("gw/i/inputs/3");
        check(between, Verdict::Clean, "between which no order is promised (no fault): gw/i/inputs/3", ("between_disks", 7.into()));
        let elsewhere = |audited: &mut Audited| audited.findings.rows[0].gaps.extend([(ELSEWHERE.to_owned(), 7)]);
        let says = "Delivered before under another gateway id, topic prefix or Kafka cluster, as the agent says: 7";
        check(elsewhere, Verdict::Clean, says, ("in_gaps", json!({ELSEWHERE: 7})));
        let misplaced = |audited: &mut Audited| {
            let stray = crate::audit::Stray { key: "a".to_owned(), home: 1, partition: 2, records: 7, first: "gw/i/inputs/3".to_owned() };
            audited.findings.strays = vec![stray];
            audited.misplaced = tally("gw/i/inputs/3 in readings/2");
        };
        check(misplaced, Verdict::Fault, "7 away from the partition of their key: gw/i/inputs/3 in readings/2", ("misplaced", 7.into()));
    }
}
