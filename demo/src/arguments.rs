//! What a person can ask of the demo, and the help that teaches it.
use std::time::Duration;

use clap::Parser;

/// See Hark at work in two minutes: sensors, agent, Kafka, predictions and alarms, all on this machine and with nothing installed.
///
/// Three simulated machines live a fast life. Hark first learns what normal looks like (about 35 s), then scores every machine. In two of them a
/// fault begins to grow: their score passes its limit, health falls, an alarm comes. The third one changes load all the time and must stay quiet.
#[derive(Clone, Debug, Parser)]
#[command(name = "hark-demo", bin_name = "cargo demo --", version, max_term_width = 110, after_help = HELP)]
pub struct Arguments {
    /// End by itself after so long, for example 90s or 2m, and print a summary
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub run_for: Option<Duration>,
    /// Lines of text instead of the live view (also chosen by NO_COLOR and when the output is no terminal)
    #[arg(long)]
    pub plain: bool,
    /// Print the summary as JSON, as the last line on stdout
    #[arg(long)]
    pub json: bool,
    /// A real Kafka instead of the embedded stand-in; topics `demo.*` are created there if absent
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub kafka: Option<String>,
    /// A real MQTT v5 broker instead of the embedded stand-in
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub mqtt: Option<String>,
    /// Before each topic name; `hark.` belongs to real plants and is refused
    #[arg(long, value_name = "PREFIX", default_value = "demo.", value_parser = prefix)]
    pub prefix: String,
    /// All randomness of the machines follows from it: another seed, other noise, the same alarms (rehearsed with 480 seeds, none of which alarmed
    /// the healthy machine)
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep the directory with configuration, buffer and log of the agent (a demo that fails keeps it anyway)
    #[arg(long)]
    pub keep: bool,
}

const HELP: &str = "\
What runs:
  sensor nodes ──serial (pty)──┐
  sensors ──── MQTT broker ────┴─► hark run ──► buffer on disk ──► Kafka ──► this view
  The agent is the real program in a process of its own. The view shows only what came back from Kafka, and the agent's own /metrics.
  MQTT broker and Kafka are embedded stand-ins (rumqttd, librdkafka's mock cluster) unless --mqtt and --kafka name real ones.

Examples:
  cargo demo                               watch; q or Ctrl-C ends, Ctrl-C again ends at once
  cargo demo -- --for 90s                  the whole story, then a summary
  cargo demo -- --for 90s --json           the same for a program: summary on the last line
  cargo demo -- --kafka 127.0.0.1:9092     against a real Kafka

Lost and duplicated are counted, not assumed: every record carries incarnation, lane and sequence
number; what the agent's buffer accepted is compared with what a read_committed consumer got back.

Exit codes: 0 nothing lost, nothing twice, and (from 85 s on) the faulty machines alarmed and the
healthy one did not; 1 otherwise, or ended at once and not counted; 2 wrong arguments.";

/// `90s`, `2m`, `1500ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        _ => return Err("write for example 90s or 2m".to_owned()),
    };
    let amount: f64 = number.parse().map_err(|_| "write for example 90s or 2m".to_owned())?;
    Duration::try_from_secs_f64(amount * seconds).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("write HOST:PORT, for example 127.0.0.1:9092".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    if text.starts_with("hark.") {
        return Err("topics under `hark.` belong to real plants; simulated records must not get there".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if text.len() < 2 || text.len() > 60 || !text.ends_with('.') || !text.chars().all(allowed) {
        return Err("letters, digits, `-` and `.`, ending with `.`, for example `demo.`".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_addresses_and_prefixes() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("soon").is_err() && duration("3 parsecs").is_err());
        assert!(address("127.0.0.1:9092").is_ok() && address("9092").is_err());
        assert!(prefix("demo.").is_ok() && prefix("hark.").is_err() && prefix("demo").is_err() && prefix("a b.").is_err());
    }

    #[test]
    fn the_help_teaches_the_form_that_works() {
        use clap::CommandFactory;
        let alias = include_str!("../../.cargo/config.toml");
        // An alias that ends in `--` would hand the person's own `--` to the demo.
        assert!(alias.contains("demo = \"run -p hark-demo\"\n"), "{alias}");
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("Usage: cargo demo -- [OPTIONS]") && help.contains("cargo demo -- --for 90s --json"), "{help}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
