//! A program that is run when alarms of an asset change, as for a horn, a lamp, a text message.
//!
//! It runs as the agent's own user, with nothing of its environment but `PATH` and what tells of the alarm; the [`Summary`] comes on its standard input as
//! one line of JSON. At most one runs at a time and one per `command_every`; of an asset that changes meanwhile the newest state is told. In an alarm
//! flood it is run for alarms of high priority alone, and told of the flood and of how many machines are held back, whose turn comes when it is over.
use std::{io, process::Stdio, sync::Arc, time::Duration};

use hark_protocol::topics::Name;
use serde::Serialize;
use tokio::{io::AsyncWriteExt, process::Command, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    News, Panel, Summary,
    queue::{Next, Queue},
};
use crate::{config::AlarmCommand, inference::AlarmFlood, status::Status};

/// A program that takes longer is ended.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What comes on its standard input.
#[derive(Debug, Serialize)]
struct Word<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    flood: Option<&'a AlarmFlood>,
    /// Machines that are not told of before the flood is over.
    held_back: usize,
}

/// Runs the program until `stop`.
pub async fn run(command: AlarmCommand, gateway: Name, status: Arc<Status>, stop: CancellationToken) {
    let mut changes = status.alarm_changes();
    let mut panel = Panel::new(gateway, status.clone());
    let mut queue = Queue::default();
    loop {
        for news in panel.news() {
            if let News::Changed(summary) = news {
                queue.add(summary);
            }
        }
        let flood = status.alarm_flood();
        if let Some(Next { summary, held_back }) = queue.next(flood.is_some()) {
            let word = Word { summary: &summary, flood: flood.as_ref(), held_back };
            tokio::select! {
                () = stop.cancelled() => return,
                ended = run_once(&command, &word) => tell(&command, &word, ended),
            }
            if tokio::time::timeout(command.every, stop.cancelled()).await.is_ok() {
                return;
            }
        } else if wait(&mut changes, &stop).await.is_none() {
            return;
        }
    }
}

/// `None` when the agent stops.
async fn wait(changes: &mut watch::Receiver<u64>, stop: &CancellationToken) -> Option<()> {
    tokio::select! {
        () = stop.cancelled() => None,
        changed = changes.changed() => changed.ok(),
    }
}

async fn run_once(command: &AlarmCommand, word: &Word<'_>) -> io::Result<Option<i32>> {
    let state = serde_json::to_value(word.summary.alarm_state)?;
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut child = Command::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .env("PATH", path)
        .env("HARK_ASSET", &*word.summary.asset)
        .env("HARK_ALARM_STATE", state.as_str().unwrap_or_default())
        .env("HARK_HELD_BACK", word.held_back.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let ends = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read need not.
            let _ = stdin.write_all(&line).await;
        }
        child.wait().await
    };
    match tokio::time::timeout(ENDS_WITHIN, ends).await {
        Ok(ended) => Ok(ended?.code()),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {} s and was ended", ENDS_WITHIN.as_secs()))),
    }
}

fn tell(command: &AlarmCommand, word: &Word<'_>, ended: io::Result<Option<i32>>) {
    let (program, Word { summary, held_back, .. }) = (command.program.display(), word);
    match ended {
        Ok(Some(0)) => info!(asset = %summary.asset, state = ?summary.alarm_state, held_back, %program, "alarm command run"),
        Ok(code) => warn!(asset = %summary.asset, %program, code, "the alarm command says that it failed"),
        Err(problem) => warn!(asset = %summary.asset, %program, %problem, "the alarm command could not be run"),
    }
}
