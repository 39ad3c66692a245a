//! Bad messages from a real broker are counted by cause and acknowledged: they do not come again, and a good neighbour's readings go on.
use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use hark_tests::support::{Agent, Mosquitto, Settings, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(20);
const ASSET: &str = "id = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n";

/// Undecodable, unknown and implausible messages, and a session that is resumed with nothing left in it.
#[test]
fn bad_messages_are_counted_and_acknowledged() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
    let tables = format!(
        "[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\n[[mqtt.topic]]\ntemplate = \"plant/{{area}}/{{asset}}/{{point}}\"\n\
         payload = {{ value = \"/value\", time = \"/ts\", time_unit = \"ms\" }}\n",
        broker.port()
    );
    let mut agent = Agent::configure(PROGRAM, &dir.path().join("agent"), "gw-messages", &tables, &[("pump".into(), ASSET.into())])?;
    agent.start()?;
    wait_until("the agent to subscribe", SOON, || agent.metrics().is_ok_and(|m| m.sum("hark_source_connected") == Some(1.0)))?;
    let publish = |topic: &str, payload: &str| publish(broker.port(), topic, payload);
    for (topic, payload) in [
        ("plant/hall/pump/flow", r#"{"value": 1.5, "ts": 1767225600000}"#),
        ("plant/hall/pump/flow", "not json"),
        ("plant/hall/pump/flow", r#"{"value": [1], "ts": 1767225600000}"#),
        ("plant/hall/pump/flow", r#"{"ts": 1767225600000}"#),
        ("plant/hall/pump/colour", r#"{"value": 1.5}"#),
        ("plant/hall/fan/flow", r#"{"value": 1.5}"#),
        ("plant/hall/pump/flow", r#"{"value": 2.5, "ts": 0}"#),
        ("plant/hall/pump/flow", r#"{"value": 3.5, "ts": 4291747200000}"#),
        ("plant/hall/pump/flow", r#"{"value": "NaN", "ts": 1767225601000}"#),
        ("plant/hall/pump/flow", r#"{"value": 4.5, "ts": 1767225602000}"#),
    ] {
        publish(topic, payload)?;
    }
    let is = |series: &str, expected: f64| agent.metrics().is_ok_and(|m| m.get(series) == Some(expected));
    for (group, cause, expected) in [
        ("rejected", "not_json", 1.0),
        ("rejected", "wrong_shape", 2.0),
        ("dropped", "unknown_point", 1.0),
        ("dropped", "unknown_asset", 1.0),
        ("replaced", "implausible_time", 2.0),
        ("quality", "not_a_number", 1.0),
    ] {
        let series = format!("hark_source_cause_total{{source=\"plant\",group=\"{group}\",cause=\"{cause}\"}}");
        wait_until(&format!("{series} to be {expected}"), SOON, || is(&series, expected)).with_context(|| format!("{:?}", agent.metrics()))?;
    }
    wait_until("all ten to be acknowledged, five of them stored", SOON, || {
        is("hark_source_acknowledged_total{source=\"plant\"}", 10.0) && is("hark_source_readings_accepted_total{source=\"plant\"}", 5.0)
    })
    .with_context(|| format!("{:?}", agent.metrics()))?;
    agent.stop()?;

    // The session is resumed: had anything not been acknowledged, it would come again before what is new.
    agent.start()?;
    publish("plant/hall/pump/flow", r#"{"value": 6.5, "ts": 1767225603000}"#)?;
    wait_until("the new message", SOON, || {
        agent.metrics().is_ok_and(|m| m.get("hark_source_messages_total{source=\"plant\"}").is_some_and(|n| n >= 1.0))
    })?;
    let messages = agent.metrics()?.get("hark_source_messages_total{source=\"plant\"}");
    ensure!(messages == Some(1.0), "{messages:?} messages came after the restart, one was sent");
    agent.stop()?;
    Ok(())
}

/// A message over the agent's limit is counted, stops none of those behind it, and a second broker beside it notices nothing.
#[test]
fn a_message_over_the_limit_stops_neither_its_own_broker_nor_another() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let brokers = ["hall", "yard"].map(|name| Mosquitto::start(&dir.path().join(name), Settings::Defaults).map(|broker| (name, broker)));
    let [hall, yard] = brokers;
    let brokers = [hall?, yard?];
    let tables: String = brokers
        .iter()
        .map(|(name, broker)| {
            format!(
                "[[mqtt]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {}\n[[mqtt.topic]]\ntemplate = \"{name}/{{asset}}/{{point}}\"\n\
                 payload = {{ value = \"/value\" }}\n",
                broker.port()
            )
        })
        .collect();
    let mut agent = Agent::configure(PROGRAM, &dir.path().join("agent"), "gw-brokers", &tables, &[("pump".into(), ASSET.into())])?;
    agent.start()?;
    wait_until("both subscriptions", SOON, || agent.metrics().is_ok_and(|m| m.sum("hark_source_connected") == Some(2.0)))?;
    let accepted = |source: &str, expected: f64| {
        let series = format!("hark_source_readings_accepted_total{{source=\"{source}\"}}");
        wait_until(&series, SOON, || agent.metrics().is_ok_and(|m| m.get(&series) == Some(expected)))
            .with_context(|| format!("{:?}", agent.metrics()))
    };

    // Just below the limit and well above it; the latter through a file, since it is too long for a command line.
    let padded = |bytes: usize| format!("{{\"value\": 1.5, \"note\": \"{}\"}}", "x".repeat(bytes));
    let [(_, hall), (_, yard)] = &brokers;
    for (number, bytes) in [(1_u32, 250_000), (2, 300_000)] {
        publish_file(hall.port(), "hall/pump/flow", &padded(bytes), dir.path())?;
        publish(hall.port(), "hall/pump/flow", "{\"value\": 2.5}")?;
        publish(yard.port(), "yard/pump/flow", "{\"value\": 3.5}")?;
        accepted("yard", f64::from(number))?;
        accepted("hall", f64::from(number + 1))?;
    }
    let too_large = "hark_source_cause_total{source=\"hall\",group=\"rejected\",cause=\"too_large\"}";
    ensure!(agent.metrics()?.get(too_large) == Some(1.0), "{:?}", agent.metrics());
    agent.stop().map(drop)
}

/// A broker that wants a password: with the right one the agent connects, with a wrong one it says why not, and its log never shows either.
#[test]
fn a_password_opens_the_broker_and_is_never_shown() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Password)?;
    let tables = format!(
        "[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\nusername = \"hark\"\npassword_file = \"mqtt.password\"\n\
         [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
        broker.port()
    );
    let mut agent = Agent::configure(PROGRAM, &dir.path().join("agent"), "gw-password", &tables, &[("pump".into(), ASSET.into())])?;
    std::fs::write(agent.dir().join("mqtt.password"), "guessed-wrong\n")?;
    agent.start()?;
    wait_until("the refusal in the log", SOON, || agent.log_tail().contains("broker not connected"))?;
    let log = agent.log_tail();
    ensure!(log.contains("NotAuthorized") && !log.contains("guessed-wrong"), "{log}");
    agent.stop()?;

    std::fs::write(agent.dir().join("mqtt.password"), "secret\n")?;
    agent.start()?;
    wait_until("the subscription", SOON, || agent.metrics().is_ok_and(|m| m.sum("hark_source_connected") == Some(1.0)))?;
    ensure!(!agent.log_tail().contains("secret"), "{}", agent.log_tail());
    agent.stop().map(drop)
}

fn publish_file(port: u16, topic: &str, payload: &str, dir: &Path) -> Result<()> {
    let file = dir.join("payload.json");
    std::fs::write(&file, payload)?;
    let status = Command::new("mosquitto_pub").args(["-p", &port.to_string(), "-q", "1", "-t", topic, "-f"]).arg(&file).status();
    let status = status.context("failed to start mosquitto_pub")?;
    ensure!(status.success(), "mosquitto_pub ended with {status}");
    Ok(())
}

fn publish(port: u16, topic: &str, payload: &str) -> Result<()> {
    let port = port.to_string();
    let status =
        Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-t", topic, "-m", payload]).status().context("failed to start mosquitto_pub")?;
    ensure!(status.success(), "mosquitto_pub ended with {status}");
    Ok(())
}
