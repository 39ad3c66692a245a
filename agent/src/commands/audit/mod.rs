//! `hark audit`: the proof from Kafka that nothing is lost and nothing doubled, as a table or as JSON.
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use hark_protocol::topics::LaneName;
use serde_json::json;

use super::{
    complain,
    words::{count, table},
};
use crate::{
    audit::{self, Audited, End, Findings, Question, Row, Tally},
    causes,
    clock::Clock,
    config,
};

/// Nothing can be told: also where the arguments or the configuration have faults.
const EXIT_UNKNOWN: u8 = 2;
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Incarnations of each lane that are shown in any case.
const NEWEST: usize = 8;

/// Arguments of `hark audit`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Reads the gateway's cursors, then every committed record of the topics readings, predictions, alarms, events and snapshots. Each seq of each lane and \
incarnation up to the cursor must be there exactly once, or inside exactly one gap event, and in order per key. What is beyond the cursor is on its \
way. The agent may run meanwhile; nothing is written, and no group is joined.

Where Kafka has dropped old records the audit starts where every partition that lost its beginning still has everything, and says so.

  hark audit --config /etc/hark
  hark audit --brokers kafka-1:9092 --gateway gw-hall-3 --json | jq .verdict

Exit codes: 0 clean, 1 a fault was found, 2 could not tell (Kafka away, no cursor, expired, an end that nothing \
tells; wrong arguments).")]
pub struct AuditArgs {
    /// Directory with hark.toml, for what the options below do not say
    #[arg(long, value_name = "DIR", default_value = "/etc/hark")]
    config: PathBuf,
    /// Kafka, host:port, several separated by commas
    #[arg(long, value_name = "BROKERS")]
    brokers: Option<String>,
    /// Before each topic name; hark. unless configured
    #[arg(long, value_name = "PREFIX")]
    topic_prefix: Option<String>,
    /// Gateway id
    #[arg(long, value_name = "ID")]
    gateway: Option<String>,
    /// How long to wait for what is missing at first: markers of transactions reach partitions one by one
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Print one JSON object, with every start of the agent
    #[arg(long)]
    json: bool,
}

/// What the findings mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    Fault,
    Unknown,
}

/// Audits and prints.
pub fn main(args: &AuditArgs) -> ExitCode {
    let question = match question(args) {
        Ok(question) => question,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(EXIT_UNKNOWN);
        }
    };
    let clock = Clock::new();
    let mut progress = Progress { clock: clock.clone(), shown_at: None };
    let audited = audit::run(&question, &clock, &mut |read, total| progress.show(read, total));
    progress.clear();
    let audited = match audited {
        Ok(audited) => audited,
        Err(failure) => {
            complain(&format!("nothing can be told of {} at {}: {}", question.gateway, question.brokers, causes::chain(&failure)));
            return ExitCode::from(EXIT_UNKNOWN);
        }
    };
    let (verdict, reasons) = verdict(&audited);
    let text = if args.json { json(&question, &audited, verdict, &reasons) } else { page(&question, &audited, verdict, &reasons) };
    if let Err(error) = io::stdout().lock().write_all(text.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        complain(&format!("failed to print: {error}"));
    }
    match verdict {
        Verdict::Clean => ExitCode::SUCCESS,
        Verdict::Fault => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(EXIT_UNKNOWN),
    }
}

/// From the options; the configuration is read only for what they leave open.
fn question(args: &AuditArgs) -> Result<Question, String> {
    let patience = Duration::from_secs(args.patience);
    if let (Some(brokers), Some(gateway)) = (&args.brokers, &args.gateway) {
        let topic_prefix = args.topic_prefix.clone().unwrap_or_else(|| "hark.".to_owned());
        return Ok(Question { brokers: brokers.clone(), topic_prefix, gateway: gateway.clone(), patience });
    }
    let config = config::load(&args.config).map_err(|faults| format!("{faults}\n(--brokers and --gateway together do without a configuration)"))?;
    let configured = config.kafka.as_ref();
    let brokers = args.brokers.clone().or_else(|| configured.map(|kafka| kafka.brokers.clone()));
    let topic_prefix = args.topic_prefix.clone().or_else(|| configured.map(|kafka| kafka.topic_prefix.clone()));
    Ok(Question {
        brokers: brokers.ok_or("no Kafka is configured; say where it is with --brokers")?,
        topic_prefix: topic_prefix.unwrap_or_else(|| "hark.".to_owned()),
        gateway: args.gateway.clone().unwrap_or_else(|| config.gateway.id.to_string()),
        patience,
    })
}

/// The verdict, and why nothing more can be told.
fn verdict(audited: &Audited) -> (Verdict, Vec<String>) {
    let findings = &audited.findings;
    let mut reasons = Vec::new();
    if audited.own == 0 && audited.cursors.iter().all(Option::is_none) {
        reasons.push("no record and no cursor of this gateway: are gateway id and topic prefix right?".to_owned());
    }
    for lane in &findings.without_cursor {
        reasons
            .push(format!("lane {lane} has no cursor: how far its records should reach is not known (cursors expire with a gateway that is away)"));
    }
    if findings.unsure() > 0 {
        let partitions: Vec<String> = audited.blind.iter().map(|(lane, partition)| format!("{partition} for {lane}")).collect();
        reasons.push(format!("what is missing may have expired with partitions that hold nothing to tell by: {}", partitions.join(", ")));
    }
    // The events that tell where an incarnation ended may expire before its records; without that excuse they should be there.
    if !findings.open_ended().is_empty() && !lost_beginning(findings) {
        reasons.push(format!("nothing tells where these ended, though no event has expired: {}", open_ended(findings)));
    }
    let verdict = match findings.faults() {
        0 if reasons.is_empty() => Verdict::Clean,
        0 => Verdict::Unknown,
        _ => Verdict::Fault,
    };
    (verdict, reasons)
}

/// Whether a partition that holds events has lost its beginning.
fn lost_beginning(findings: &Findings) -> bool {
    findings.from_later.contains(&LaneName::Events) || findings.blind.iter().any(|(lane, _)| *lane == LaneName::Events)
}

/// Lanes of incarnations of which nobody tells how far they went.
fn open_ended(findings: &Findings) -> String {
    let one = |row: &&Row| format!("{} of {} (checked to {})", row.lane, row.inc, row.to);
    findings.open_ended().iter().map(one).collect::<Vec<_>>().join(", ")
}

const COLUMNS: [&str; 11] =
    ["lane", "incarnation", ">from", ">to", ">delivered", ">in gaps", ">missing", ">doubled", ">disordered", ">beyond", "checked to"];

fn page(question: &Question, audited: &Audited, verdict: Verdict, reasons: &[String]) -> String {
    let mut text =
        format!("Gateway {} in {}*, {} of {} records\n\n", question.gateway, question.topic_prefix, count(audited.own), count(audited.records));
    text += &table(&COLUMNS, &lines(&audited.findings.rows));
    text += "\n";
    for (reason, records) in gaps_by_reason(&audited.findings.rows) {
        text += &format!("In gaps, {reason}: {}\n", count(records));
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
            let (lane, name, zero) = (lane.to_string(), format!("{} older starts, complete", complete.len()), || "0".to_owned());
            let end = "their ends".to_owned();
            lines.push(vec![lane, name, "1".to_owned(), "-".to_owned(), count(delivered), zero(), zero(), zero(), zero(), zero(), end]);
        }
        lines.extend(told.into_iter().map(|(told, _)| row(told)));
    }
    lines
}

/// All that it accepted was delivered, to its known end.
fn is_complete(row: &Row) -> bool {
    row.end == End::Successor && row.faults() == 0 && row.unsure.count == 0 && row.gaps.is_empty() && row.beyond == 0 && row.from == 1
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
    let kinds: [(&str, &Tally); 6] = [
        ("missing", &row.missing),
        ("missing or expired", &row.unsure),
        ("doubled", &row.doubled),
        ("out of order", &row.disordered),
        ("there although a gap names it", &row.contradicted),
        ("in more than one gap", &row.gapped_twice),
    ];
    let found = kinds.into_iter().filter(|(_, tally)| tally.count > 0);
    found.map(|(kind, tally)| format!("{kind}: {}{}\n", tally.examples.join(", "), if tally.count > 5 { " …" } else { "" })).collect()
}

fn json(question: &Question, audited: &Audited, verdict: Verdict, reasons: &[String]) -> String {
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
        "in_gaps": gaps_by_reason(&findings.rows),
        "delivered": findings.rows.iter().map(|row| row.delivered).sum::<u64>(),
        "records_read": audited.records,
        "records_of_gateway": audited.own,
        "records_unreadable": audited.unreadable,
        "cursors": cursors,
        "lost_beginning": audited.expired,
        "from_later": findings.from_later,
        "end_unknown": findings.open_ended().iter().map(|row| json!({"lane": row.lane, "inc": row.inc, "to": row.to})).collect::<Vec<_>>(),
        "rows": findings.rows,
    });
    value.to_string() + "\n"
}

/// A line that is written over, on a terminal alone.
struct Progress {
    clock: Clock,
    shown_at: Option<Duration>,
}

impl Progress {
    fn show(&mut self, read: u64, total: u64) {
        // Asking the clock for each record would cost more than the record.
        if !read.is_multiple_of(1_024) || !io::stderr().is_terminal() {
            return;
        }
        let now = self.clock.monotonic();
        if self.shown_at.is_none_or(|shown_at| now >= shown_at + PROGRESS_EVERY) {
            self.shown_at = Some(now);
            let _ = write!(io::stderr().lock(), "\r{} of about {} records", count(read), count(total.max(read)));
        }
    }

    fn clear(&self) {
        if self.shown_at.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(end: End, from_later: Vec<LaneName>) -> Audited {
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
            contradicted: tally(),
            gapped_twice: tally(),
            beyond: 0,
        };
        let findings = Findings { rows: vec![row], from_later, ..Findings::default() };
        Audited { findings, cursors: [const { None }; 4], records: 7, own: 7, unreadable: 0, expired: Vec::new(), blind: Vec::new() }
    }

    #[test]
    fn complete_older_starts_are_one_line_and_what_tells_something_is_shown() {
        let one = audited(End::Successor, Vec::new()).findings.rows.remove(0);
        let numbered = |n: usize| Row { inc: format!("inc-{n}"), ..one.clone() };
        let mut rows: Vec<Row> = (0..NEWEST + 5).map(numbered).collect();
        rows[1].gaps.insert("quota".to_owned(), 3);
        rows[2].doubled.count = 1;
        let lines = lines(&rows);
        let names: Vec<&str> = lines.iter().map(|line| line[1].as_str()).collect();
        assert_eq!(names[..4], ["3 older starts, complete", "inc-1", "inc-2", "inc-5"]);
        assert_eq!((lines.len(), lines[0][4].as_str()), (NEWEST + 3, "21"));
    }

    #[track_caller]
    fn check(audited: &Audited, expected: Verdict, says: &str) {
        let question = Question { brokers: String::new(), topic_prefix: String::new(), gateway: "gw".to_owned(), patience: Duration::ZERO };
        let (verdict, reasons) = verdict(audited);
        let page = page(&question, audited, verdict, &reasons);
        assert!(verdict == expected && page.contains(says), "{verdict:?}\n{page}");
    }

    #[test]
    fn an_end_that_nobody_tells_is_not_called_clean_without_a_word() {
        check(&audited(End::Successor, Vec::new()), Verdict::Clean, "Clean: each record");
        check(
            &audited(End::HighestSeen, Vec::new()),
            Verdict::Unknown,
            "nothing tells where these ended, though no event has expired: inputs of old (checked to 7)",
        );
        let expired = audited(End::HighestSeen, vec![LaneName::Events]);
        check(&expired, Verdict::Clean, "have expired: inputs of old (checked to 7)\nClean as far as it is known");
    }
}
