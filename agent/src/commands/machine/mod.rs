//! What a person tells a running agent about a machine, or asks about it: `hark alarm`, `hark event`, `hark commission`.
//!
//! All of it goes over the local socket. A command becomes a record of the log and acts from there on, in every replay too.
pub mod alarm;
pub mod commission;
pub mod event;
mod page;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{EXIT_CONFIG, complain};
use crate::{
    causes, config,
    inference::AlarmFlood,
    local::{
        client::{Client, ClientError},
        message::{Answer, CommandRequest, Machine, Request, Stored},
    },
};

/// Exit codes of these commands, for their help.
const EXIT_CODES: &str = "\
The agent is asked over its local socket (hark.sock in the data directory, for the agent's user and root); it must run.

Exit codes: 0 done, 1 failed or refused, 2 the arguments or the configuration have faults.";

/// Which agent; shared by these commands.
#[derive(Clone, Debug, clap::Args)]
struct AgentArgs {
    /// Directory with hark.toml and assets/*.toml; with --dir it may be left out [default: /etc/hark]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Data directory of the agent, instead of the configured one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Who says it, and why; shared by the commands that change something.
#[derive(Clone, Debug, clap::Args)]
struct WordArgs {
    /// Who you are, for the records [default: the user id at the socket]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// What others should know about it
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was tried.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// What was asked for can never be.
    #[error("{0}")]
    Arguments(String),
    /// The agent did not answer, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Inference said no.
    #[error("refused:{}the refusal stands in the log as an event", set_off(.0))]
    Refused(String),
    /// Nobody can read what is printed.
    #[error("failed to print")]
    Print(#[from] io::Error),
}

fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has enough, as with `| head`.
        Err(Failure::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&causes::chain(&failure));
            if matches!(failure, Failure::Config(_) | Failure::Arguments(_)) { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

impl AgentArgs {
    fn client(&self) -> Result<Client, Failure> {
        if let (None, Some(dir)) = (&self.config, &self.dir) {
            return Ok(Client::new(dir));
        }
        let config = config::load(self.config.as_deref().unwrap_or(Path::new("/etc/hark")))?;
        Ok(Client::new(self.dir.as_deref().unwrap_or(&config.buffer.dir)))
    }

    /// All machines, or the one that is `wanted`, and whether there is a flood of alarms on this gateway.
    fn machines(&self, wanted: Option<&str>) -> Result<(Vec<Machine>, Option<AlarmFlood>), Failure> {
        let Answer::Machines { machines, flood } = self.client()?.ask(&Request::Machines)? else {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        };
        let Some(wanted) = wanted else { return Ok((machines, flood)) };
        let known: Vec<String> = machines.iter().map(|machine| machine.asset.to_string()).collect();
        let found: Vec<Machine> = machines.into_iter().filter(|machine| *machine.asset == *wanted).collect();
        if found.is_empty() {
            return Err(Failure::Arguments(format!("this gateway has no asset `{wanted}`; known are: {}", known.join(", "))));
        }
        Ok((found, flood))
    }

    /// Gives the command and says what came of it.
    fn command(&self, request: CommandRequest, word: WordArgs, done: &str) -> Result<(), Failure> {
        let asset = request.asset.clone();
        let request = Request::Command(CommandRequest { actor: word.actor, comment: word.comment, ..request });
        let Answer::Stored(stored) = self.client()?.ask(&request)? else {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        };
        say(&stored, &asset, done)
    }
}

fn say(stored: &Stored, asset: &str, done: &str) -> Result<(), Failure> {
    let place = stored.position.map(|position| position.to_string()).unwrap_or_default();
    match (stored.result.as_deref(), &stored.text) {
        (Some("success"), text) => Ok(write!(io::stdout().lock(), "{}", done_words(asset, done, &place, text.as_deref()))?),
        (Some(_), text) => Err(Failure::Refused(text.clone().unwrap_or_default())),
        (None, _) => Ok(writeln!(
            io::stdout().lock(),
            "{asset}: stored as record {place} of the inputs; inference has older ones to read and will come to it"
        )?),
    }
}

/// What was done, and below what there is to say of it.
fn done_words(asset: &str, done: &str, place: &str, text: Option<&str>) -> String {
    let said: String = text.into_iter().flat_map(str::lines).map(|line| format!("  {line}\n")).collect();
    format!("{asset}: {done} (record {place} of the inputs)\n{said}")
}

/// What was said, between what introduces it and what follows: several lines stand below.
fn set_off(text: &str) -> String {
    if text.contains('\n') { format!("\n  {}\n", text.replace('\n', "\n  ")) } else { format!(" {text}; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(result: Option<&str>, text: Option<&str>) -> Stored {
        let [result, text] = [result, text].map(|word| word.map(str::to_owned));
        Stored { position: None, event_id: String::new(), command_id: None, result, text, hash_before: None, hash_after: None }
    }

    #[test]
    fn a_refusal_is_a_failure_and_a_backlog_is_none() {
        assert!(say(&stored(Some("success"), None), "pump-1", "acknowledged").is_ok());
        assert!(say(&stored(None, None), "pump-1", "acknowledged").is_ok());
        let refused = say(&stored(Some("refused"), Some("there is no such alarm")), "pump-1", "acknowledged").unwrap_err();
        assert_eq!(refused.to_string(), "refused: there is no such alarm; the refusal stands in the log as an event");
        assert_eq!(done_words("pump-1", "accepted", "1/7", None), "pump-1: accepted (record 1/7 of the inputs)\n");
        let of_both = done_words("pump-1", "accepted", "1/7", Some("regime `a`: on 200 rows\nregime `b`: few"));
        assert_eq!(of_both, "pump-1: accepted (record 1/7 of the inputs)\n  regime `a`: on 200 rows\n  regime `b`: few\n");
        let of_each = say(&stored(Some("refused"), Some("regime `a`: few\nregime `b`: fewer")), "pump-1", "accepted").unwrap_err();
        assert_eq!(of_each.to_string(), "refused:\n  regime `a`: few\n  regime `b`: fewer\nthe refusal stands in the log as an event");
    }

    #[test]
    fn without_an_agent_the_error_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let agent = AgentArgs { config: None, dir: Some(dir.path().to_owned()) };
        let failure = agent.machines(None).unwrap_err();
        assert!(failure.to_string().starts_with("no agent listens at"), "{failure}");
    }
}
