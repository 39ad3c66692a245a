//! A program that is run when alarms of an asset change, as for a horn, a lamp, a text message.
//!
//! It runs as the agent's own user, with nothing of its environment but `PATH` and what tells of the alarm; the [`Summary`] comes on its standard input as
//! one line of JSON. At most one runs at a time and one per `command_every`; of an asset that changes meanwhile the newest state is told.
use std::{collections::BTreeMap, io, process::Stdio, sync::Arc, time::Duration};

use hark_protocol::topics::{AlarmState, Name};
use tokio::{io::AsyncWriteExt, process::Command, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{News, Panel, Summary};
use crate::{config::AlarmCommand, status::Status};

/// A program that takes longer is ended.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Runs the program until `stop`.
pub async fn run(command: AlarmCommand, gateway: Name, status: Arc<Status>, stop: CancellationToken) {
    let mut changes = status.alarm_changes();
    let mut panel = Panel::new(gateway, status);
    let mut waiting: BTreeMap<Name, Box<Summary>> = BTreeMap::new();
    // Of what is normal when first seen nobody need hear.
    let mut heard: BTreeMap<Name, AlarmState> = BTreeMap::new();
    loop {
        for news in panel.news() {
            let News::Changed(summary) = news else { continue };
            let before = heard.insert(summary.asset.clone(), summary.alarm_state);
            if before.is_some() || summary.alarm_state != AlarmState::Normal {
                waiting.insert(summary.asset.clone(), summary);
            }
        }
        if let Some((_, summary)) = waiting.pop_first() {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = run_once(&command, &summary) => tell(&command, &summary, ended),
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

async fn run_once(command: &AlarmCommand, summary: &Summary) -> io::Result<Option<i32>> {
    let state = serde_json::to_value(summary.alarm_state)?;
    let mut line = serde_json::to_vec(summary)?;
    line.push(b'\n');
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut child = Command::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .env("PATH", path)
        .env("HARK_ASSET", &*summary.asset)
        .env("HARK_ALARM_STATE", state.as_str().unwrap_or_default())
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

fn tell(command: &AlarmCommand, summary: &Summary, ended: io::Result<Option<i32>>) {
    let program = command.program.display();
    match ended {
        Ok(Some(0)) => info!(asset = %summary.asset, state = ?summary.alarm_state, %program, "alarm command run"),
        Ok(code) => warn!(asset = %summary.asset, %program, code, "the alarm command says that it failed"),
        Err(problem) => warn!(asset = %summary.asset, %program, %problem, "the alarm command could not be run"),
    }
}
