//! A burst larger than everything that the agent may hold at once gets through: the agent makes the broker wait and never stands still itself.
use std::time::Duration;

use anyhow::Result;
use hark_tests::support::{Agent, Connection, Load, Metrics, Mosquitto, Settings, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
/// With [`PADDING`] some fifteen times the bytes that a source may hold (2 MiB), and more than twice the acknowledgements that may wait.
const MESSAGES: usize = 12_000;
const PADDING: usize = 2_500;
const SOON: Duration = Duration::from_secs(30);
const ALL_ARRIVED: Duration = Duration::from_secs(120);

/// Every message of the burst is durable in the agent, acknowledged to the broker, and its bytes are given back.
#[test]
fn a_burst_larger_than_the_window_gets_through() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Unlimited)?;
    let tables = format!(
        "[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\n\n\
         [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
        mosquitto.port()
    );
    let asset = "id = \"pump\"\n\n[[point]]\nid = \"flow\"\nunit = \"1\"\n".to_owned();
    let mut agent = Agent::configure(PROGRAM, &dir.path().join("agent"), "gw-burst", &tables, &[("pump".to_owned(), asset)])?;
    agent.start()?;
    let shows = |agent: &Agent, wanted: &[(&str, usize)]| {
        let all = |metrics: Metrics| wanted.iter().all(|(name, value)| metrics.sum(name) == Some(*value as f64));
        agent.metrics().is_ok_and(all)
    };
    wait_until("the agent to subscribe", SOON, || shows(&agent, &[("hark_source_connected", 1)]))?;

    let padding = "x".repeat(PADDING);
    let load = Load { messages: MESSAGES, window: 4_096, interval: Duration::ZERO };
    Connection::open(mosquitto.port(), "burst")?.publish(&load, |index, topic, payload| {
        topic.push_str("plant/pump/flow");
        payload.push_str(&format!("{{\"value\":{index},\"note\":\"{padding}\"}}"));
    })?;
    let through =
        [("hark_source_readings_accepted_total", MESSAGES), ("hark_source_acknowledged_total", MESSAGES), ("hark_source_in_flight_bytes", 0)];
    wait_until(&format!("{MESSAGES} messages to be durable and acknowledged; {}", dir.path().display()), ALL_ARRIVED, || shows(&agent, &through))?;
    agent.stop()?;
    Ok(())
}
