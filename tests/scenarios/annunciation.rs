//! Alarms on the plant's own network and through the hands of a person, with Kafka away: a real broker, the real agent, its real commands.
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use hark_tests::support::{Agent, Mosquitto, Settings, publish, start_ready, wait_until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(60);
const HOT: &str = "{\"value\":91.5}";
const TOLD: &str = "hark/alarms/gw-told/fan";

/// A limit is passed, acknowledged, shelved and returned to, over restarts and kills; the plant's broker and the command hear of each.
#[test]
fn the_plant_hears_of_alarms_without_kafka() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let horn = horn(dir.path())?;
    let mut agent = agent(dir.path(), broker.port(), &horn)?;
    start_ready(&mut agent)?;
    wait_told(&broker, TOLD, "the machine is normal", |told| told["alarm_state"] == "normal" && told["count"] == 0)?;
    wait_told(&broker, "hark/alarms/gw-told", "the agent is there", |told| told["online"] == true)?;

    publish(&broker, "plant/fan/temperature", [HOT.to_owned()])?;
    wait_told(&broker, TOLD, "the alarm", |told| told["alarm_state"] == "active_unacknowledged" && told["alarms"][0]["value"] == 91.5)?;
    wait_until("the horn", SOON, || fs::read_to_string(dir.path().join("heard")).is_ok_and(|heard| heard.starts_with("fan active_unacknowledged {")))
        .with_context(|| agent.log_tail())?;

    let listed = agent.command(&["alarm", "list"])?;
    ensure!(listed.contains("`temperature` above its high limit") && listed.contains("value     91.5 Cel, limit 80 Cel"), "{listed}");
    ensure!(agent.command(&["alarm", "ack", "fan", "--actor", "M. Weber"])?.starts_with("fan: acknowledged"));
    wait_told(&broker, TOLD, "the acknowledgement", |told| told["alarms"][0]["state"] == "active_acknowledged")?;
    let again = agent.output(&["alarm", "ack", "fan"])?;
    ensure!(again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains("no such alarm"), "{again:?}");

    // Who is killed says so, by the broker's hand; what a person decided outlives it.
    agent.command(&["alarm", "shelve", "fan", "--for", "8h"])?;
    agent.kill()?;
    wait_told(&broker, "hark/alarms/gw-told", "the agent is gone", |told| told["online"] == false)?;
    broker.restart()?;
    start_ready(&mut agent)?;
    wait_told(&broker, "hark/alarms/gw-told", "the agent is back", |told| told["online"] == true)?;
    wait_told(&broker, TOLD, "the shelved alarm", |told| told["alarm_state"] == "shelved" && told["alarms"][0]["until"].is_string())?;
    ensure!(agent.command(&["alarm", "unshelve", "fan"])?.starts_with("fan: no longer shelved"));
    wait_told(&broker, TOLD, "what still holds", |told| told["alarm_state"] == "active_unacknowledged")?;

    publish(&broker, "plant/fan/temperature", ["{\"value\":60}".to_owned()])?;
    wait_told(&broker, TOLD, "the return", |told| told["alarm_state"] == "returned_unacknowledged")?;
    agent.command(&["alarm", "ack", "fan"])?;
    wait_told(&broker, TOLD, "the end", |told| told["alarm_state"] == "normal" && told["count"] == 0)?;
    agent.stop()?;
    wait_told(&broker, "hark/alarms/gw-told", "the farewell", |told| told["online"] == false)
}

/// Writes asset, state and what comes on its input to a file that appears at once.
fn horn(dir: &Path) -> Result<std::path::PathBuf> {
    let (horn, heard) = (dir.join("horn"), dir.join("heard"));
    let heard = heard.display();
    fs::write(
        &horn,
        format!(
            "#!/bin/sh\n[ -e {heard} ] && exit 0\nprintf '%s %s %s' \"$HARK_ASSET\" \"$HARK_ALARM_STATE\" \"$(cat)\" > {heard}.new\nmv {heard}.new {heard}\n"
        ),
    )?;
    fs::set_permissions(&horn, fs::Permissions::from_mode(0o755))?;
    Ok(horn)
}

fn agent(dir: &Path, port: u16, horn: &Path) -> Result<Agent> {
    let tables = format!(
        "[kafka]\nbrokers = \"127.0.0.1:1\"\n[annunciation]\nbroker = \"plant\"\ncommand = [\"{}\"]\ncommand_every = \"1s\"\n\
         [[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {port}\nsession_expiry = \"1h\"\n\
         [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
        horn.display()
    );
    let asset = "id = \"fan\"\nname = \"Exhaust fan\"\n[alarm]\non_delay = \"0s\"\noff_delay = \"0s\"\n\
                 [[point]]\nid = \"temperature\"\nunit = \"Cel\"\nscored = false\nlimits = { high = 80.0 }\n";
    Agent::configure(PROGRAM, &dir.join("agent"), "gw-told", &tables, &[("fan".into(), asset.to_owned())])
}

/// Waits until the message retained on `topic` is as wanted.
fn wait_told(broker: &Mosquitto, topic: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    let mut last = None;
    wait_until(what, SOON, || {
        last = retained(broker.port(), topic);
        last.as_ref().is_some_and(&wanted)
    })
    .with_context(|| format!("{topic} has {last:?}"))
}

fn retained(port: u16, topic: &str) -> Option<Value> {
    let output = Command::new("mosquitto_sub").args(["-p", &port.to_string(), "-t", topic, "--retained-only", "-C", "1", "-W", "2"]).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}
