//! `hark audit`: the proof from Kafka that nothing is lost and nothing doubled, as a table or as JSON.
mod page;
mod verdict;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use self::verdict::Verdict;
use super::complain;
use crate::{
    audit::{self, Question},
    causes,
    clock::Clock,
    config,
    words::count,
};

/// Nothing can be told: also where the arguments or the configuration have faults.
const EXIT_UNKNOWN: u8 = 2;
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `hark audit`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Reads the gateway's cursors, then every committed record of the topics readings, predictions, alarms, events and snapshots. Each seq of each lane and \
incarnation up to the cursor must be there exactly once, or inside exactly one gap event, and in order per key, and its value and key must be its own. What is \
beyond the cursor is on its way. The agent may run meanwhile; nothing is written, and no group is joined.

It is for delivery = \"exactly_once\": without the cursors that come with it, it tells what is missing between records and can prove nothing.

Where Kafka has dropped old records the audit starts where every partition that lost its beginning still has everything, and says so.

  hark audit --config /etc/hark
  hark audit --brokers kafka-1:9092 --gateway gw-hall-3 --json | jq .verdict

Exit codes: 0 clean, 1 a fault was found, 2 could not tell (Kafka away, no cursor, at_least_once, expired, an end that nothing \
tells; wrong arguments; the answer could not be written).")]
pub struct AuditArgs {
    /// Directory with hark.toml, for what the options below do not say
    #[arg(long, value_name = "DIR", default_value = "/etc/hark")]
    config: PathBuf,
    /// Kafka, host:port, several separated by commas
    #[arg(long, value_name = "BROKERS", value_parser = filled)]
    brokers: Option<String>,
    /// Before each topic name; hark. unless configured
    #[arg(long, value_name = "PREFIX")]
    topic_prefix: Option<String>,
    /// Gateway id
    #[arg(long, value_name = "ID", value_parser = filled)]
    gateway: Option<String>,
    /// How long to wait for what is missing at first: markers of transactions reach partitions one by one
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Print one JSON object, with every start of the agent
    #[arg(long)]
    json: bool,
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
    let (verdict, reasons) = verdict::of(&question, &audited);
    let text = if args.json { page::json(&question, &audited, verdict, &reasons) } else { page::page(&question, &audited, verdict, &reasons) };
    if let Err(error) = print(&text) {
        complain(&format!("the answer of the audit could not be written to standard output: {error}"));
        return ExitCode::from(EXIT_UNKNOWN);
    }
    match verdict {
        Verdict::Clean => ExitCode::SUCCESS,
        Verdict::Fault => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(EXIT_UNKNOWN),
    }
}

/// A reader who has seen enough, such as `head`, is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// An argument that says something.
fn filled(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
}

/// From the options; the configuration is read only for what they leave open.
fn question(args: &AuditArgs) -> Result<Question, String> {
    let patience = Duration::from_secs(args.patience);
    if let (Some(brokers), Some(gateway)) = (&args.brokers, &args.gateway) {
        let topic_prefix = args.topic_prefix.clone().unwrap_or_else(|| "hark.".to_owned());
        return Ok(Question { brokers: brokers.clone(), topic_prefix, gateway: gateway.clone(), patience, delivery: None });
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
        delivery: configured.map(|kafka| kafka.delivery),
    })
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
    use clap::Parser;

    use super::*;
    use crate::commands::{Arguments, Command};

    fn asked(arguments: &[&str]) -> Result<Question, String> {
        let all = ["hark", "audit"].iter().chain(arguments);
        let Command::Audit(args) = Arguments::try_parse_from(all).map_err(|error| error.to_string())?.command else { panic!("not an audit") };
        question(&args)
    }

    #[test]
    fn what_is_asked_comes_from_the_options_or_from_the_configuration() {
        let only_options = asked(&["--brokers", "b:1", "--gateway", "g", "--config", "/nowhere"]).unwrap();
        assert_eq!((only_options.topic_prefix.as_str(), only_options.delivery), ("hark.", None));
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
        let configured = asked(&["--config", config, "--gateway", "other"]).unwrap();
        assert_eq!((configured.gateway.as_str(), configured.delivery), ("other", Some(config::Delivery::ExactlyOnce)));
    }

    #[test]
    fn without_a_configuration_it_says_what_does_without() {
        let problem = asked(&["--config", "/nowhere", "--gateway", "g"]).unwrap_err();
        assert!(problem.contains("/nowhere") && problem.ends_with("(--brokers and --gateway together do without a configuration)"), "{problem}");
    }

    #[test]
    fn an_empty_argument_is_refused_at_once() {
        for arguments in [["--brokers", "", "--gateway", "g"], ["--brokers", "b:1", "--gateway", " "]] {
            let problem = asked(&arguments).unwrap_err();
            assert!(problem.contains("it is empty"), "{problem}");
        }
    }
}
