//! The agent's end of the local socket.
use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hark_protocol::topics::{self, Event, EventKind, LaneName, Name, TsSource};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    BufferReport, CONNECTION_TIME, Known, LINE_MAX_BYTES, acked, export,
    message::{Answer, ChangeRequest, CommandRequest, ExportRequest, Machine, Problem, Request, Stored, TEXT_MAX_BYTES, word},
    socket_path,
};
use crate::{
    buffer::{
        Log, Position,
        commit::{AppendError, Appender},
    },
    causes,
    clock::Clock,
    config::{self, Asset, Config},
    forward::Sender,
    inference::configured::{self, Configured},
    record::{Body, Entry, Stamp},
    source::snapshot::Allowance,
    status::{Outcome, Status},
};

/// A disk that takes longer is told of; the record may be stored all the same.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);
/// So long inference is waited for; the command acts in any case.
const OUTCOME_WITHIN: Duration = Duration::from_secs(3);
/// After a failed accept, such as for want of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The socket, and all that an answer is made of.
pub struct Local {
    listener: UnixListener,
    path: PathBuf,
    dir: PathBuf,
    quota_bytes: u64,
    gateway: config::Gateway,
    sender: Sender,
    /// Hash of each asset's configuration at the start.
    assets: std::collections::BTreeMap<Name, Name>,
    voices: Voices,
}

/// What of the agent the socket speaks with.
#[derive(Clone)]
pub struct Voices {
    /// The log.
    pub log: Log,
    /// The way into it.
    pub appender: Appender,
    /// What the agent says of itself.
    pub status: Arc<Status>,
    /// What is recorded of configurations.
    pub configured: Arc<Configured>,
    /// What may still be sent of raw blocks.
    pub allowance: Allowance,
    /// The time of what is appended.
    pub clock: Clock,
}

impl Local {
    /// Opens the socket. The log is open, so a socket that lies there belongs to an agent that was killed: it is replaced.
    ///
    /// # Errors
    /// What the system says, for example that the path is longer than the 107 bytes that a socket may have.
    pub fn open(config: &Config, voices: Voices) -> io::Result<Self> {
        let dir = config.buffer.dir.clone();
        let path = socket_path(&dir);
        let listener = listen(&path)?;
        let gateway = config.gateway.clone();
        let sender = Sender::new(gateway.id.clone(), "");
        let assets = config.assets.iter().map(|(id, asset)| (id.clone(), asset.hash.clone())).collect();
        Ok(Self { listener, path, dir, quota_bytes: config.buffer.quota_bytes, gateway, sender, assets, voices })
    }

    /// Serves one connection after the other until `stop`. As many of these run side by side as connections are served at a time.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) {
        let serving = async {
            loop {
                match self.listener.accept().await {
                    // A client that takes too long is left; it tells its user that no answer came.
                    Ok((stream, _)) => drop(tokio::time::timeout(CONNECTION_TIME, self.converse(stream)).await),
                    Err(problem) => {
                        warn!(%problem, "the local socket took no connection");
                        let _stopped = tokio::time::timeout(ACCEPT_AGAIN_AFTER, stop.cancelled()).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serving => {}
        }
    }

    /// Answers line by line until the client goes.
    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut line).await?;
            if read == 0 {
                return Ok(());
            }
            let ends = line.last() == Some(&b'\n');
            let (lines, answer) = if ends { self.answer(&line, uid).await } else { (Vec::new(), unended(line.len())) };
            let mut bytes: Vec<u8> = Vec::new();
            for line in lines {
                bytes.extend_from_slice(&line);
                bytes.push(b'\n');
            }
            serde_json::to_writer(&mut bytes, &answer)?;
            bytes.push(b'\n');
            writer.write_all(&bytes).await?;
            if !ends {
                // Where the next request begins is not known.
                return writer.shutdown().await;
            }
        }
    }

    async fn answer(&self, line: &[u8], uid: u32) -> (Vec<Vec<u8>>, Answer) {
        let request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return (Vec::new(), malformed(&error)),
        };
        let alone = |answer: Result<Answer, Problem>| (Vec::new(), answer.unwrap_or_else(Answer::Error));
        match request {
            Request::Status => alone(self.status()),
            Request::Machines => (Vec::new(), Answer::Machines { machines: self.machines(), flood: self.voices.status.alarm_flood() }),
            Request::Command(command) => alone(self.command(command, uid).await),
            Request::Change(change) => alone(self.change(change, uid).await),
            Request::Export(export) => self.export(&export),
        }
    }

    fn status(&self) -> Result<Answer, Problem> {
        let Voices { log, status, clock, .. } = &self.voices;
        let known = Known { gateway: Some(&self.gateway.id), quota_bytes: Some(self.quota_bytes), status: Some(status) };
        let report = || BufferReport::of(log, &self.dir, known, clock);
        let report = tokio::task::block_in_place(report).map_err(|error| unread("tell the state of the buffer", &error))?;
        Ok(Answer::Status(report.into()))
    }

    fn machines(&self) -> Vec<Machine> {
        let status = &self.voices.status;
        let (alarms, baselines) = (status.alarms(), status.baselines());
        let machine = |(asset, state): (Name, topics::Asset)| Machine {
            alarms: alarms.iter().filter(|(id, _)| *id == asset).map(|(_, alarm)| alarm.clone()).collect(),
            baselines: baselines.iter().filter(|(id, _)| *id == asset).map(|(_, baseline)| (&**baseline).into()).collect(),
            asset,
            state,
        };
        status.assets().into_iter().map(machine).collect()
    }

    fn export(&self, request: &ExportRequest) -> (Vec<Vec<u8>>, Answer) {
        let Voices { log, status, appender, .. } = &self.voices;
        // As any reader does who meets damage.
        let save = |_: &Path, from| appender.blocking_quarantine(request.lane, from).is_ok();
        let page = || export::page(log, &self.sender, request, acked(&self.dir, Some(status))?[request.lane as usize], save);
        match tokio::task::block_in_place(page) {
            Ok(page) => (page.lines, Answer::End(page.end)),
            Err(error) => (Vec::new(), Answer::Error(unread(&format!("export lane {}", request.lane), &error))),
        }
    }

    async fn command(&self, request: CommandRequest, uid: u32) -> Result<Answer, Problem> {
        let attempted = format!("{} on {}", word(request.command), request.asset);
        let asset = self.known_asset(&request.asset, &attempted)?;
        if request.has_text_beyond_limit() {
            return Err(too_long(&attempted));
        }
        let command_id = request.command_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let actor = request.actor.clone().unwrap_or_else(|| format!("uid:{uid}"));
        let event = CommandRequest { actor: Some(actor), command_id: Some(command_id.clone()), ..request }.into_event("local");
        let event = self.voices.allowance.judged(&asset, event);
        let stored = self.store(asset.clone(), event, &attempted, "ask again with the same command_id: a command is applied once").await?;
        info!(%asset, command_id, position = ?stored.position, "command taken");
        let outcome = self.outcome(&command_id).await;
        let result = outcome.as_ref().map(|outcome| if outcome.is_ok() { "success" } else { "refused" }.to_owned());
        let text = outcome.and_then(|outcome| outcome.unwrap_or_else(Some)).map(|text| text.to_string());
        Ok(Answer::Stored(Stored { command_id: Some(command_id), result, text, ..stored }))
    }

    /// What inference does with a command; `None` while it has older inputs to read.
    async fn outcome(&self, command_id: &str) -> Option<Outcome> {
        tokio::time::timeout(OUTCOME_WITHIN, self.voices.status.outcome(command_id)).await.ok()
    }

    async fn change(&self, request: ChangeRequest, uid: u32) -> Result<Answer, Problem> {
        let attempted = format!("change the configuration of {}", request.asset);
        let asset = self.known_asset(&request.asset, &attempted)?;
        if [&request.actor, &request.comment].into_iter().flatten().any(|text| text.len() > TEXT_MAX_BYTES) {
            return Err(too_long(&attempted));
        }
        let faulty = |faults| Problem {
            faults,
            ..Problem::new(&*attempted, "the configuration has faults", "correct them and ask again; the asset goes on as it was")
        };
        let resolved: Asset = config::check_asset_text("configuration", &request.configuration).map_err(|error| faulty(error.faults))?;
        if resolved.id != asset {
            return Err(faulty(vec![format!("configuration: id: is `{}`; expected `{asset}`", resolved.id)]));
        }
        let hash_before = self.present_hash(&asset);
        let event = Event {
            text: request.comment.map(Into::into),
            what: Some("configuration".into()),
            actor: Some(request.actor.unwrap_or_else(|| format!("uid:{uid}")).into()),
            source: Some("local".into()),
            hash_before: Some(hash_before.clone()),
            hash_after: Some(resolved.hash.clone()),
            detail_json: Some(configured::configuration(&resolved)),
            ..Event::new(EventKind::Change)
        };
        // Until it is durable the record of what is recorded does not count: whatever happens in between, the next start then says it anew.
        tokio::task::block_in_place(|| self.voices.configured.announce(&asset));
        let stored = self.store(asset.clone(), event, &attempted, "ask again: a change to the same configuration changes nothing").await?;
        let changed = |position| self.voices.configured.changed(asset, resolved.hash.clone(), position);
        tokio::task::block_in_place(|| stored.position.map(changed));
        info!(asset = %request.asset, hash = %resolved.hash, position = ?stored.position, "changed configuration taken");
        Ok(Answer::Stored(Stored { hash_before: Some(hash_before.to_string()), hash_after: Some(resolved.hash.to_string()), ..stored }))
    }

    fn known_asset(&self, asset: &str, attempted: &str) -> Result<Name, Problem> {
        if let Some((id, _)) = self.assets.get_key_value(asset) {
            return Ok(id.clone());
        }
        let known: Vec<&str> = self.assets.keys().map(|id| &**id).collect();
        let advice = format!("known are: {}; a new machine needs its file in assets/ and a restart of the agent", known.join(", "));
        Err(Problem::new(attempted, format!("this gateway has no asset `{asset}`"), advice))
    }

    /// What inference uses now; before it has said so, what the files said at the start.
    fn present_hash(&self, asset: &Name) -> Name {
        let used = self.voices.status.assets().into_iter().find(|(id, _)| id == asset).map(|(_, state)| state.config_hash);
        used.unwrap_or_else(|| self.assets[asset].clone())
    }

    /// Appends an event about `asset` to the inputs lane and waits until it is durable.
    async fn store(&self, asset: Name, event: Event, attempted: &str, again: &str) -> Result<Stored, Problem> {
        let now = self.voices.clock.now();
        let stamp = Stamp { asset: Some(asset), ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin: self.gateway.origin };
        let entry = Entry { stamp, cause: None, body: Body::Event(event.into()) };
        let durable = tokio::time::timeout(DURABLE_WITHIN, self.voices.appender.append_durably(LaneName::Inputs, vec![entry], true)).await;
        match durable {
            Ok(Ok(committed)) => Ok(self.stored(committed.last)),
            Ok(Err(refused @ AppendError::Refused(_))) => {
                let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
                Err(Problem::new(attempted, format!("{refused}: {cause}"), "make it smaller; nothing was stored"))
            }
            Ok(Err(AppendError::Stopped)) => Err(Problem::new(attempted, "the agent is stopping; it may be stored or not", again)),
            Err(_) => {
                let problem = format!("the disk did not take it within {} s; it may be stored later", DURABLE_WITHIN.as_secs());
                Err(Problem::new(attempted, problem, format!("look at the disk, then {again}")))
            }
        }
    }

    fn stored(&self, position: Position) -> Stored {
        let inc = self.voices.log.incarnation_id(position.ordinal).unwrap_or_default();
        let event_id = format!("{}/{inc}/{}/{}", self.gateway.id, LaneName::Inputs, position.seq);
        Stored { position: Some(position), event_id, command_id: None, result: None, text: None, hash_before: None, hash_after: None }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // One that stays behind is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at `path`, which appears only once nobody else may use it.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&aside)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&aside, path)?;
    Ok(listener)
}

fn unended(bytes: usize) -> Answer {
    let (problem, advice) = if bytes > LINE_MAX_BYTES {
        (format!("the line has more than {LINE_MAX_BYTES} bytes"), "send less at a time")
    } else {
        ("the line has no end".to_owned(), "end each request with a line feed")
    };
    Answer::Error(Problem::new("read a request", problem, advice))
}

fn malformed(error: &serde_json::Error) -> Answer {
    let advice = "send one JSON object per line, such as {\"ask\":\"status\"}; ask is one of status, machines, command, change, export";
    Answer::Error(Problem::new("read a request", error.to_string(), advice))
}

fn unread(attempted: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(attempted, causes::chain(error), "look at the disk; the log of the agent says more")
}

fn too_long(attempted: &str) -> Problem {
    Problem::new(attempted, format!("a text has more than {TEXT_MAX_BYTES} bytes"), "write less")
}
