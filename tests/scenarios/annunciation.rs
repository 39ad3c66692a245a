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
    ensure!(listed.contains("`temperature` above its high limit") && listed.contains("value     91.5 °C, limit 80 °C"), "{listed}");
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

/// More alarms than a person can deal with: the command goes on for the most urgent one and says that others wait; all of them are told on the broker. An
/// instrument that is worked on is out of all that.
#[test]
fn a_flood_of_alarms_leaves_the_horn_to_the_most_urgent() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let (horn, heard) = (dir.path().join("horn"), dir.path().join("heard"));
    program(&horn, &format!("read word\nprintf '%s %s %s\\n' \"$HARK_ASSET\" \"$HARK_ALARM_STATE\" \"$HARK_HELD_BACK\" >> {}\n", heard.display()))?;
    let point = |n: usize| format!("[[point]]\nid = \"t{n}\"\nunit = \"Cel\"\nscored = false\nlimits = {{ high = 80.0, high_high = 120.0 }}\n");
    let machine = |id: &str| {
        let points: String = (1..=3).map(point).collect();
        (id.to_owned(), format!("id = \"{id}\"\n[alarm]\non_delay = \"0s\"\noff_delay = \"0s\"\n{points}"))
    };
    let mut agent = configured(dir.path(), broker.port(), &horn, &["boiler", "m1", "m2", "m3", "m4", "m5"].map(machine))?;
    start_ready(&mut agent)?;
    ensure!(agent.command(&["alarm", "out-of-service", "boiler", "--instrument", "t1"])?.starts_with("boiler: instrument `t1` out of service"));
    for n in 1..=5 {
        for t in 1..=3 {
            publish(&broker, &format!("plant/m{n}/t{t}"), [HOT.to_owned()])?;
        }
    }
    let lines = || fs::read_to_string(&heard).unwrap_or_default();
    let listed = || agent.command(&["alarm", "list"]).unwrap_or_default();
    wait_until("the flood", SOON, || listed().starts_with("ALARM FLOOD: 15 new alarms since ")).with_context(listed)?;
    let told = || lines().lines().filter(|line| line.starts_with('m')).count();
    let before = told();
    ensure!(listed().ends_with("boiler: instrument `t1` is out of service, its values do not count\n"), "{}", listed());
    publish(&broker, "plant/boiler/t1", ["{\"value\":130}".to_owned()])?;
    publish(&broker, "plant/boiler/t2", ["{\"value\":130}".to_owned()])?;
    wait_until("the horn", SOON, || lines().contains("boiler active_unacknowledged ")).with_context(|| format!("{}\n{}", lines(), listed()))?;
    let held_back = lines().lines().find_map(|line| line.strip_prefix("boiler active_unacknowledged ")?.parse::<usize>().ok());
    // One may have been on its way.
    ensure!(held_back.is_some_and(|held_back| held_back > 0) && told() <= before + 1, "{before}\n{}", lines());
    for n in 1..=5 {
        wait_told(&broker, &format!("hark/alarms/gw-told/m{n}"), "each machine", |told| told["count"] == 3)?;
    }
    wait_told(&broker, "hark/alarms/gw-told/boiler", "the boiler", |told| told["count"] == 2 && told["alarms"][0]["point"] == "t2")?;
    agent.stop().map(drop)
}

/// Writes asset, state and what comes on its input to a file that appears at once.
fn horn(dir: &Path) -> Result<std::path::PathBuf> {
    let (horn, heard) = (dir.join("horn"), dir.join("heard"));
    let heard = heard.display();
    program(
        &horn,
        &format!(
            "[ -e {heard} ] && exit 0\nprintf '%s %s %s' \"$HARK_ASSET\" \"$HARK_ALARM_STATE\" \"$(cat)\" > {heard}.new\nmv {heard}.new {heard}\n"
        ),
    )?;
    Ok(horn)
}

fn program(path: &Path, script: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{script}"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn agent(dir: &Path, port: u16, horn: &Path) -> Result<Agent> {
    let asset = "id = \"fan\"\nname = \"Exhaust fan\"\n[alarm]\non_delay = \"0s\"\noff_delay = \"0s\"\n\
                 [[point]]\nid = \"temperature\"\nunit = \"Cel\"\nscored = false\nlimits = { high = 80.0 }\n";
    configured(dir, port, horn, &[("fan".to_owned(), asset.to_owned())])
}

fn configured(dir: &Path, port: u16, horn: &Path, assets: &[(String, String)]) -> Result<Agent> {
    let tables = format!(
        "[kafka]\nbrokers = \"127.0.0.1:1\"\n[annunciation]\nbroker = \"plant\"\ncommand = [\"{}\"]\ncommand_every = \"1s\"\n\
         [[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {port}\nsession_expiry = \"1h\"\n\
         [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
        horn.display()
    );
    Agent::configure(PROGRAM, &dir.join("agent"), "gw-told", &tables, assets)
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
