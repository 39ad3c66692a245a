//! `hark buffer`: what is in the buffer, with the agent running or stopped.
mod export;
mod status;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Subcommand;
use hark_protocol::topics::{LaneName, Name};

pub use self::{export::ExportArgs, status::StatusArgs};
use super::{EXIT_CONFIG, EXIT_INTERRUPTED, stop_on_signal};
use crate::{
    buffer::{BufferError, Log, StoreError},
    causes, config,
    local::client::{Client, ClientError},
    pipeline,
    stop::Stop,
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
    /// Directory with hark.toml and assets/*.toml; with --dir it may be left out [default: /etc/hark]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Data directory, instead of the configured one: a copy, or a disk from another box
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The buffer, and what the configuration tells of it.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    /// Gateway id; `None` where no configuration tells it. The directory does not say whose it is.
    gateway: Option<Name>,
    quota_bytes: Option<u64>,
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
    /// What was asked for can never be.
    #[error("{0}")]
    Arguments(String),
    /// There is none.
    #[error("there is no directory `{0}`: no agent has run with this configuration, or its buffer.dir is not right; --dir names another")]
    NoDirectory(PathBuf),
    /// There is something else.
    #[error("`{0}` is no buffer: no agent has started in it, and none of its lanes is there; name the folder that buffer.dir of the gateway names")]
    NoBuffer(PathBuf),
    /// The directory is another user's.
    #[error("failed to read `{path}`: it belongs to the agent's user; ask as root or as that user, for example with `sudo -u hark`")]
    NotAllowed {
        /// What in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The directory cannot be read.
    #[error(transparent)]
    Buffer(BufferError),
    /// An agent has the directory, and no socket.
    #[error(
        "an agent uses `{0}` but does not listen at its socket there: it is starting or stopping, or its log says why it has none. Ask again, or stop it"
    )]
    NotListening(PathBuf),
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
    /// Nobody can read what is printed.
    #[error("failed to print")]
    Print(#[from] io::Error),
}

impl From<BufferError> for Failure {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::InUse { dir } | BufferError::Store { source: StoreError::InUse { dir }, .. } => Self::NotListening(dir),
            BufferError::Io { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Self::NotAllowed { path, source },
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
    let stop = Arc::new(Stop::default());
    // At a signal the copies of partitions are taken away.
    let _signals = stop_on_signal(stop.clone());
    let done = match &args.command {
        BufferCommand::Status(args) => status::run(args),
        BufferCommand::Export(args) => export::run(args, &stop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has enough, as with `| head`.
        Err(Failure::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(failure) => {
            super::complain(&causes::chain(&failure));
            if matches!(failure, Failure::Config(_) | Failure::Arguments(_)) { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

impl WhereArgs {
    fn load(&self) -> Result<Place, Failure> {
        if let (None, Some(dir)) = (&self.config, &self.dir) {
            return Ok(Place { dir: dir.clone(), gateway: None, quota_bytes: None });
        }
        let config = config::load(self.config.as_deref().unwrap_or(Path::new("/etc/hark")))?;
        let dir = self.dir.clone().unwrap_or(config.buffer.dir);
        Ok(Place { dir, gateway: Some(config.gateway.id), quota_bytes: Some(config.buffer.quota_bytes) })
    }
}

impl Source {
    /// The agent with this data directory, if one answers; else the directory itself.
    fn open(place: &Place, answers: impl FnOnce(&Client) -> Result<(), ClientError>) -> Result<Self, Failure> {
        let dir = &place.dir;
        let client = Client::new(dir);
        let unanswered = match answers(&client) {
            Ok(()) => return Ok(Self::Agent(client)),
            Err(error @ (ClientError::NoAgent { .. } | ClientError::Forbidden { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        // Whether anybody listens there is not told to another user, but the lock says whether an agent runs.
        match inspect(dir, place.quota_bytes) {
            Err(Failure::NotListening(_)) if matches!(unanswered, ClientError::Forbidden { .. }) => Err(unanswered.into()),
            opened => opened.map(Self::Directory),
        }
    }
}

fn inspect(dir: &Path, quota_bytes: Option<u64>) -> Result<Log, Failure> {
    let listed = fs::read_dir(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Failure::NoDirectory(dir.to_owned()),
        io::ErrorKind::NotADirectory => Failure::NoBuffer(dir.to_owned()),
        io::ErrorKind::PermissionDenied => Failure::NotAllowed { path: dir.to_owned(), source },
        _ => Failure::Buffer(BufferError::io("list", dir, source)),
    })?;
    let mut names = listed.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let is_ours = |name: String| name.starts_with("incarnations.") || LaneName::ALL.iter().any(|lane| lane.as_str() == name);
    if !names.any(is_ours) {
        return Err(Failure::NoBuffer(dir.to_owned()));
    }
    // The quota says how large partitions become, which only matters to who writes.
    Ok(Log::inspect(dir, pipeline::log_settings(dir, quota_bytes.unwrap_or(0))?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::LogSettings;

    fn place(dir: &Path) -> Place {
        Place { dir: dir.to_owned(), gateway: None, quota_bytes: None }
    }

    fn unanswered(dir: &Path) -> Result<Source, Failure> {
        Source::open(&place(dir), |_| Err(ClientError::NoAgent { path: dir.join("hark.sock") }))
    }

    #[test]
    fn a_directory_that_is_not_there_or_is_no_buffer_is_told_apart_from_one_that_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(unanswered(&dir.path().join("none")), Err(Failure::NoDirectory(_))));
        fs::create_dir(dir.path().join("photos")).unwrap();
        fs::write(dir.path().join("notes"), "").unwrap();
        assert!(matches!(unanswered(dir.path()), Err(Failure::NoBuffer(_))));
        assert!(matches!(unanswered(&dir.path().join("notes")), Err(Failure::NoBuffer(_))));
        drop(Log::open(dir.path(), LogSettings::new(1 << 30)).unwrap());
        assert!(matches!(unanswered(dir.path()), Ok(Source::Directory(_))));
    }

    #[test]
    fn a_socket_of_another_user_says_nothing_where_no_agent_runs() {
        let dir = tempfile::tempdir().unwrap();
        let forbidden = || Source::open(&place(dir.path()), |_| Err(ClientError::Forbidden { path: dir.path().join("hark.sock") }));
        let running = Log::open(dir.path(), LogSettings::new(1 << 30)).unwrap();
        assert!(matches!(forbidden(), Err(Failure::Client(ClientError::Forbidden { .. }))));
        drop(running);
        assert!(matches!(forbidden(), Ok(Source::Directory(_))));
    }

    #[test]
    fn a_directory_needs_no_configuration() {
        let args = WhereArgs { config: None, dir: Some("/mnt/copy".into()) };
        let place = args.load().unwrap();
        assert_eq!((place.dir, place.gateway, place.quota_bytes), ("/mnt/copy".into(), None, None));
        let shipped = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../config"));
        let place = WhereArgs { config: shipped, dir: Some("/mnt/copy".into()) }.load().unwrap();
        assert_eq!((place.dir, place.gateway.as_deref()), ("/mnt/copy".into(), Some("gw-hall-3")));
        assert!(matches!(WhereArgs { config: Some("/none".into()), dir: Some("/mnt/copy".into()) }.load(), Err(Failure::Config(_))));
    }

    #[test]
    fn what_another_user_may_not_read_is_told_with_what_to_do() {
        let refused = BufferError::io("open", Path::new("/var/lib/hark/lock"), io::ErrorKind::PermissionDenied.into());
        let failure = Failure::from(refused);
        assert!(matches!(failure, Failure::NotAllowed { .. }) && failure.to_string().contains("as root"), "{failure}");
    }
}
