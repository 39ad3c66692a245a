//! `hark buffer status`
use std::io::{self, Write};

use hark_protocol::topics::{GapReason, LaneName};

use super::{Failure, Source, WhereArgs};
use crate::{
    buffer::Position,
    clock::Clock,
    local::{
        BufferReport, Known,
        client::Client,
        message::{Answer, Request},
    },
    words::{age, bytes, count, table},
};

/// Gaps and incarnations that the table shows; `--json` has all.
const SHOWN: usize = 10;

/// Arguments of `hark buffer status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Positions are ordinal/seq: the how-manieth start of the agent on this disk, and the number of the record in its lane since that start. \
A running agent is asked over its local socket (hark.sock in the data directory, for the agent's user and root). Of a stopped one the directory is \
read, and nothing in it is changed: the newest partition of each lane is copied into memory (some 20 MB, and for a moment a small directory in TMPDIR).

Exit codes: 0 done, 1 failed, 2 the arguments or the configuration have faults.")]
pub struct StatusArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the state.
pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let place = args.place.load()?;
    let mut answer = None;
    let ask = |client: &Client| {
        answer = Some(client.ask(&Request::Status)?);
        Ok(())
    };
    let report = match Source::open(&place, ask)? {
        Source::Directory(log) => {
            let known = Known { gateway: place.gateway.as_deref(), quota_bytes: place.quota_bytes, status: None };
            BufferReport::of(&log, &place.dir, known, &Clock::new())?
        }
        Source::Agent(_) => match answer {
            Some(Answer::Status(report)) => *report,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        },
    };
    let text = if args.json { serde_json::to_string(&report).map_err(io::Error::from)? + "\n" } else { page(&report) };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// The report as a person reads it.
fn page(report: &BufferReport) -> String {
    let agent = if report.running { "running" } else { "stopped" };
    let quota = |quota: u64| format!(" of {} ({} %)", bytes(quota), 100 * report.used_bytes / quota.max(1));
    let mut text = format!("Gateway  {}, agent {agent}\n", report.gateway.as_deref().unwrap_or("unknown (the configuration tells)"));
    text += &format!("Buffer   {}: {}{}\n", report.dir, bytes(report.used_bytes), report.quota_bytes.map(quota).unwrap_or_default());
    if let Some(link) = &report.link {
        text += &format!("Kafka    {}, {} records delivered since the start\n", link.state, count(link.delivered));
    }
    if report.stalled {
        text += "Disk     takes nothing that is appended, so senders are held back: make room, or repair it\n";
    }
    text += "\n";
    text += &table(&LANE_COLUMNS, &report.lanes.iter().map(lane_row).collect::<Vec<_>>());
    if let Some(checkpoint) = report.lanes.iter().find_map(|lane| lane.checkpoint) {
        text += &format!("\nInference's checkpoint holds the inputs up to {checkpoint}.\n");
    }
    text += &accounts(report);
    text += &gaps(report);
    text += &incarnations(report);
    text += &quarantine(report);
    text
}

const LANE_COLUMNS: [&str; 8] = ["lane", ">parts", ">first", ">last", ">records", ">on disk", ">oldest", ">Kafka has"];

fn lane_row(lane: &crate::local::LaneReport) -> Vec<String> {
    vec![
        lane.lane.to_string(),
        lane.partitions.to_string(),
        place(lane.first),
        place(lane.last),
        count(lane.records),
        bytes(lane.bytes),
        lane.oldest_s.map_or_else(none, age),
        place(lane.acked),
    ]
}

/// Where the records are.
fn accounts(report: &BufferReport) -> String {
    let Some(since) = report.since else { return "\nThe agent has not started here yet.\n".to_owned() };
    let since = if since == 1 { "the first start".to_owned() } else { format!("start {since}, the oldest that is remembered") };
    let is_missing = report.lanes.iter().any(|lane| lane.missing > 0);
    let row = |lane: &crate::local::LaneReport| {
        let sum = |numbers: &mut dyn Iterator<Item = u64>| count(numbers.sum());
        let reasons: Vec<_> = lane.lost.iter().map(|(reason, records)| format!("{} {}", word(*reason), count(*records))).collect();
        let mut row = vec![lane.lane.to_string(), count(lane.accepted), count(lane.delivered), count(lane.waiting)];
        row.extend(is_missing.then(|| count(lane.missing)));
        row.extend([sum(&mut lane.lost.values().copied()), reasons.join(", ")]);
        row
    };
    let mut columns = vec!["lane", ">accepted", ">delivered", ">waiting"];
    columns.extend(is_missing.then_some(">missing"));
    columns.extend([">lost", "why"]);
    let sum = if is_missing { "delivered + waiting + missing + lost" } else { "delivered + waiting + lost" };
    let mut text = format!("\nRecords since {since}: accepted = {sum}\n");
    text += &table(&columns, &report.lanes.iter().map(row).collect::<Vec<_>>());
    if is_missing {
        text += "Missing: neither in Kafka nor on this disk, and named by no event yet; the agent names them when it comes to them.\n";
    }
    text
}

/// As records and JSON have it.
fn word(reason: GapReason) -> String {
    serde_json::to_value(reason).ok().and_then(|reason| reason.as_str().map(str::to_owned)).unwrap_or_default()
}

fn gaps(report: &BufferReport) -> String {
    if report.gaps.is_empty() {
        return "\nNo gaps that Kafka has yet to be told of.\n".to_owned();
    }
    let rows: Vec<_> = report.gaps.iter().rev().take(SHOWN).collect();
    let row = |gap: &&crate::local::GapReport| {
        vec![gap.lane.to_string(), place(gap.from), place(gap.to), count(gap.records), word(gap.reason), place(gap.event)]
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let title = format!("\nGaps: records that are lost and named, until Kafka has their lane beyond them{}\n", newest(report.gaps.len()));
    title + &table(&["lane", ">from", ">to", ">records", "reason", ">event"], &rows)
}

fn incarnations(report: &BufferReport) -> String {
    let shown: Vec<_> = report.incarnations.iter().rev().take(SHOWN).collect();
    let row = |start: &&crate::local::IncarnationReport| {
        let mut row = vec![start.ordinal.to_string(), start.id.clone()];
        row.extend(start.last_seq.iter().map(|seq| count(*seq)));
        row.push(if start.present { "runs" } else { "" }.to_owned());
        row
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    let lanes = LaneName::ALL.map(|lane| format!(">{lane}"));
    let mut columns = vec![">start", "incarnation"];
    columns.extend(lanes.iter().map(String::as_str));
    columns.push("");
    format!("\nStarts of the agent, with the last seq of each lane{}\n", newest(report.incarnations.len())) + &table(&columns, &rows)
}

fn quarantine(report: &BufferReport) -> String {
    if report.quarantine.is_empty() {
        return "\nNothing in quarantine.\n".to_owned();
    }
    let rows: Vec<_> = report.quarantine.iter().map(|aside| vec![aside.name.clone(), bytes(aside.bytes)]).collect();
    "\nIn quarantine\n".to_owned() + &table(&["directory", ">on disk"], &rows)
}

fn newest(all: usize) -> String {
    if all > SHOWN { format!(" (the newest {SHOWN} of {all}; --json has all)") } else { String::new() }
}

fn place(position: Option<Position>) -> String {
    position.map_or_else(none, |position| position.to_string())
}

fn none() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{GapReport, IncarnationReport, LaneReport, LinkReport, PutAside};

    #[test]
    fn the_page_is_aligned_and_says_what_is_known() {
        let at = |ordinal, seq| Some(Position { ordinal, seq });
        let lane = |lane, first, last, records| LaneReport {
            lane,
            partitions: 3,
            first,
            last,
            records,
            bytes: 5 << 20,
            quota_bytes: Some(700 << 20),
            oldest_s: first.map(|_| 7_300.0),
            acked: first,
            accepted: records + 17 * u64::from(records > 0),
            delivered: u64::from(records > 0),
            waiting: records,
            lost: if records > 0 { [(GapReason::DiskFull, 12), (GapReason::Refused, 4)].into() } else { Default::default() },
            missing: 0,
            checkpoint: None,
        };
        let mut report = BufferReport {
            gateway: Some("gw-hall-3".into()),
            dir: "/var/lib/hark".into(),
            running: true,
            stalled: false,
            quota_bytes: Some(1 << 30),
            used_bytes: 300 << 20,
            since: Some(1),
            lanes: vec![lane(LaneName::Inputs, at(2, 17), at(12, 1_234_567), 1_300_000), lane(LaneName::Alarms, None, None, 0)],
            gaps: vec![GapReport {
                lane: LaneName::Inputs,
                from: at(2, 1),
                to: at(2, 16),
                records: 16,
                reason: GapReason::DiskFull,
                event: at(12, 4),
            }],
            incarnations: vec![IncarnationReport { ordinal: 12, id: "i-12".into(), present: true, last_seq: [1_234_567, 0, 0, 4] }],
            cursors: Vec::new(),
            quarantine: vec![PutAside { name: "p-1".into(), bytes: 1 << 20 }],
            link: Some(LinkReport { state: "reconnecting".into(), delivered: 16 }),
        };
        let expected = "\
Gateway  gw-hall-3, agent running
Buffer   /var/lib/hark: 300 MiB of 1.0 GiB (29 %)
Kafka    reconnecting, 16 records delivered since the start

lane    parts  first        last    records  on disk  oldest  Kafka has
inputs      3   2/17  12/1234567  1 300 000  5.0 MiB   2.0 h       2/17
alarms      3      -           -          0  5.0 MiB       -          -

Records since the first start: accepted = delivered + waiting + lost
lane     accepted  delivered    waiting  lost  why
inputs  1 300 017          1  1 300 000    16  disk_full 12, refused 4
alarms          0          0          0     0

Gaps: records that are lost and named, until Kafka has their lane beyond them
lane    from    to  records  reason     event
inputs   2/1  2/16       16  disk_full   12/4

Starts of the agent, with the last seq of each lane
start  incarnation     inputs  predictions  alarms  events
   12  i-12         1 234 567            0       0       4  runs

In quarantine
directory  on disk
p-1        1.0 MiB
";
        assert_eq!(page(&report), expected);

        report.stalled = true;
        assert!(page(&report).contains("\nDisk     takes nothing that is appended"));
        (report.gateway, report.quota_bytes, report.since) = (None, None, Some(7));
        (report.lanes[0].accepted, report.lanes[0].missing) = (1_300_020, 3);
        let text = page(&report);
        assert!(text.starts_with("Gateway  unknown (the configuration tells), agent running\nBuffer   /var/lib/hark: 300 MiB\n"), "{text}");
        let told = "\
Records since start 7, the oldest that is remembered: accepted = delivered + waiting + missing + lost
lane     accepted  delivered    waiting  missing  lost  why
inputs  1 300 020          1  1 300 000        3    16  disk_full 12, refused 4
";
        assert!(text.contains(told), "{text}");
    }
}
