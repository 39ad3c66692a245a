//! `hark buffer export`
use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use clap::builder::PossibleValuesParser;
use hark_protocol::topics::LaneName;

use super::{Failure, Source, WhereArgs};
use crate::{
    buffer::Position,
    forward::Sender,
    local::{
        self, Page,
        client::{Client, ClientError},
        message::{ExportRequest, parse_position},
    },
    stop::Stop,
};

/// Arguments of `hark buffer export`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
One line per record, a flat JSON object exactly as it goes to Kafka, lane by lane. Where records are missing a line names the gap: gap_lane, gap_inc, \
gap_ordinal, gap_from_seq, gap_to_seq, gap_reason, gap_event (null: no event names it yet). What Kafka has and was given back is not there, nor is a gap \
before it. With --dir alone gw is `unknown`: the directory does not say whose it is, --config does.

A running agent is asked, a thousand records at a time; it is not held up. Of a stopped one nothing in the directory is changed: each partition is \
copied into memory (some 20 MB at a time, and for a moment a small directory in TMPDIR) and read there. An agent may start meanwhile.

  hark buffer export --lane alarms | jq -r '[.ts, .asset, .state] | @tsv'
  hark buffer export --lane inputs --from 3/1200 --limit 10

Exit codes: 0 done, 1 failed, 2 the arguments or the configuration have faults, 130 interrupted after whole lines.")]
pub struct ExportArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Lane: inputs, predictions, alarms or events; all if left out
    #[arg(long, value_name = "LANE", value_parser = PossibleValuesParser::new(LaneName::ALL.map(LaneName::as_str)), hide_possible_values = true)]
    lane: Option<String>,
    /// First position, ordinal/seq
    #[arg(long, value_name = "POS", value_parser = parse_position, requires = "lane")]
    from: Option<Position>,
    /// Last position, ordinal/seq
    #[arg(long, value_name = "POS", value_parser = parse_position, requires = "lane")]
    to: Option<Position>,
    /// Most records per lane
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Prints the records, until `stop` is asked for.
pub(super) fn run(args: &ExportArgs, stop: &Stop) -> Result<(), Failure> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        return Err(Failure::Arguments(format!("cannot export from {from} to {to}: --from lies behind --to, turn them round")));
    }
    let place = args.place.load()?;
    let sender = Sender::new(place.gateway.clone().unwrap_or_else(|| "unknown".into()), "");
    let probe = |client: &Client| client.page(first_page(LaneName::Events, None, None, Some(0))).map(drop);
    let source = Source::open(&place, probe)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let lanes = LaneName::ALL.into_iter().filter(|lane| args.lane.as_deref().is_none_or(|wanted| wanted == lane.as_str()));
    for lane in lanes {
        let mut request = first_page(lane, args.from, args.to, args.limit);
        let mut printed = 0;
        loop {
            if stop.requested() {
                out.flush()?;
                return Err(Failure::Interrupted);
            }
            let page = source.page(&sender, &request)?;
            printed += page.lines.len();
            for line in page.lines {
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            }
            request.limit = request.limit.map(|limit| limit.saturating_sub(page.end.records));
            let Some(next) = page.end.next.filter(|_| request.limit != Some(0)) else { break };
            request.from = Some(next);
        }
        if let (0, Some(from)) = (printed, args.from) {
            eprintln!("lane {lane} has nothing from {from} on; `hark buffer status` tells what it has");
        }
    }
    Ok(out.flush()?)
}

fn first_page(lane: LaneName, from: Option<Position>, to: Option<Position>, limit: Option<usize>) -> ExportRequest {
    ExportRequest { lane, from, to, limit }
}

impl Source {
    fn page(&self, sender: &Sender, request: &ExportRequest) -> Result<Page, Failure> {
        match self {
            Self::Agent(client) => client.page(request.clone()).map_err(|error: ClientError| error.into()),
            Self::Directory(log) => {
                let save = |dir: &Path, _| log.salvage(request.lane, dir);
                Ok(local::page(log, sender, request, local::acked(log.dir(), None)?[request.lane as usize], save)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_the_begin_is_a_fault_of_the_arguments() {
        let at = |seq| Some(Position { ordinal: 2, seq });
        let place = WhereArgs { config: None, dir: Some("/none".into()) };
        let run = |from, to| super::run(&ExportArgs { place: place.clone(), lane: Some("inputs".into()), from, to, limit: None }, &Stop::default());
        assert!(matches!(run(at(9), at(8)), Err(Failure::Arguments(_))));
        assert!(matches!(run(at(9), at(9)), Err(Failure::NoDirectory(_))));
    }
}
