//! The other end: how a subcommand or a test asks a running agent. Blocking, one question per connection.
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    CONNECTION_TIME, Page,
    message::{Answer, ExportRequest, Problem, Request},
    socket_path,
};

/// The agent ends the connection before that.
const ANSWERS_WITHIN: Duration = Duration::from_secs(CONNECTION_TIME.as_secs() + 5);

/// Where to ask.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens there.
    #[error("no agent listens at `{path}`")]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is another user's.
    #[error("`{path}` is for the agent's user alone; ask as root or as that user, for example with `sudo -u hark`")]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the agent at `{path}` gave no answer; whether it did what was asked is not known")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The same, while something was asked that changes nothing.
    #[error("the agent at `{path}` broke off before it had answered: it ended, or was held up; ask again")]
    Unanswered {
        /// The socket.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// It answers, and says no.
    #[error(transparent)]
    Refused(#[from] Problem),
}

impl Client {
    /// Asks the agent with this data directory.
    pub fn new(data: &Path) -> Self {
        Self { path: socket_path(data) }
    }

    /// Asks, and gives the answer if it is not a problem.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        self.lines(request).map(|(_, answer)| answer)
    }

    /// Asks for a page of records.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn page(&self, request: ExportRequest) -> Result<Page, ClientError> {
        match self.lines(&Request::Export(request))? {
            (lines, Answer::End(end)) => Ok(Page { lines, end }),
            _ => Err(ClientError::Unanswered { path: self.path.clone(), source: ErrorKind::InvalidData.into() }),
        }
    }

    /// The lines before the answer, and the answer.
    fn lines(&self, request: &Request) -> Result<(Vec<Vec<u8>>, Answer), ClientError> {
        let broken = |source| {
            let path = self.path.clone();
            if request.is_question() { ClientError::Unanswered { path, source } } else { ClientError::Broken { path, source } }
        };
        let mut stream = UnixStream::connect(&self.path).map_err(|error| self.unconnected(error))?;
        let asked = stream.set_read_timeout(Some(ANSWERS_WITHIN)).and_then(|()| {
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            stream.write_all(&line)
        });
        asked.map_err(broken)?;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).split(b'\n') {
            let line = line.map_err(broken)?;
            if !line.starts_with(br#"{"answer":"#) {
                lines.push(line);
                continue;
            }
            return match serde_json::from_slice(&line) {
                Ok(Answer::Error(problem)) => Err(problem.into()),
                Ok(answer) => Ok((lines, answer)),
                Err(error) => Err(broken(error.into())),
            };
        }
        Err(broken(ErrorKind::UnexpectedEof.into()))
    }

    fn unconnected(&self, error: io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            // No socket can have a path that is too long.
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput => ClientError::NoAgent { path },
            ErrorKind::PermissionDenied => ClientError::Forbidden { path },
            _ => ClientError::Broken { path, source: error },
        }
    }
}
