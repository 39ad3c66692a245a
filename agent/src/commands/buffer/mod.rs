//! `hark buffer`: what is in the buffer, with the agent running or stopped.
mod export;
mod status;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

pub use self::{export::ExportArgs, status::StatusArgs};
use super::{ConfigArgs, EXIT_CONFIG};
use crate::{
    buffer::{BufferError, Log, LogSettings},
    causes,
    config::{self, Config},
    local::client::{Client, ClientError},
};

/// Arguments of `hark buffer`.
#[derive(Debug, clap::Args)]
pub struct BufferArgs {
    /// What to do
    #[command(subcommand)]
    pub command: BufferCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum BufferCommand {
    /// Lanes, positions, ages, cursors, gaps, incarnations, quota.
    Status(StatusArgs),
    /// Records as lines of JSON, exactly as they go to Kafka.
    Export(ExportArgs),
}

/// Which buffer; shared by both.
#[derive(Clone, Debug, clap::Args)]
pub struct WhereArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Data directory, instead of the configured one: a copy, or a disk from another box
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was tried.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The agent did not answer, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is none.
    #[error("there is no directory `{0}`: no agent has run with this configuration, or its buffer.dir is not right; --dir names another")]
    NoDirectory(PathBuf),
    /// The directory cannot be read.
    #[error(transparent)]
    Buffer(BufferError),
    /// An agent has the directory, and no socket.
    #[error(
        "an agent uses `{0}` but does not listen at its socket there: it is starting or stopping, or its log says why it has none. Ask again, or stop it"
    )]
    NotListening(PathBuf),
    /// Nobody can read what is printed.
    #[error("failed to print")]
    Print(#[from] io::Error),
}

impl From<BufferError> for Failure {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::InUse { dir } => Self::NotListening(dir),
            error => Self::Buffer(error),
        }
    }
}

/// Who knows.
enum Source {
    /// The agent that runs.
    Agent(Client),
    /// The directory of one that does not.
    Directory(Log),
}

/// Runs the subcommand.
pub fn main(args: &BufferArgs) -> ExitCode {
    let done = match &args.command {
        BufferCommand::Status(args) => status::run(args),
        BufferCommand::Export(args) => export::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has enough, as with `| head`.
        Err(Failure::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            super::complain(&causes::chain(&failure));
            if matches!(failure, Failure::Config(_)) { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

impl WhereArgs {
    fn load(&self) -> Result<Config, Failure> {
        let mut config = config::load(&self.config.config)?;
        if let Some(dir) = &self.dir {
            config.buffer.dir.clone_from(dir);
        }
        Ok(config)
    }
}

impl Source {
    /// The agent with this data directory, if one answers; else the directory itself.
    fn open(dir: &Path, quota_bytes: u64, answers: impl FnOnce(&Client) -> Result<(), ClientError>) -> Result<Self, Failure> {
        let client = Client::new(dir);
        match answers(&client) {
            Ok(()) => Ok(Self::Agent(client)),
            Err(ClientError::NoAgent { .. }) if !dir.exists() => Err(Failure::NoDirectory(dir.to_owned())),
            Err(ClientError::NoAgent { .. }) => Ok(Self::Directory(Log::inspect(dir, LogSettings::new(quota_bytes))?)),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_told_apart_from_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let open = |dir: &Path| Source::open(dir, 1 << 30, |_| Err(ClientError::NoAgent { path: dir.join("hark.sock") }));
        assert!(matches!(open(&dir.path().join("none")), Err(Failure::NoDirectory(_))));
        assert!(matches!(open(dir.path()), Ok(Source::Directory(_))), "an agent may not have run in it yet");
    }
}
