//! The configuration that the demo writes for the agent: the same files that a plant writes, `hark.toml` and one file per machine.
use std::{ffi::OsStr, fmt::Write, fs, io, path::Path};

use crate::{
    brokers::Address,
    machines::{ALARM_AFTER, BLOCK_EVERY, COMMISSIONING_ROWS, MACHINES, Machine, SPEED_RPM, Way, topic_root},
};

/// Points of a sensor node: id, unit, scored. Names and units are those of the node protocol.
const NODE_POINTS: [(&str, &str, bool); 14] = [
    ("de-h.v_rms", "mm/s", true),
    ("de-h.a_rms", "[g]", true),
    ("de-h.crest", "1", false),
    ("de-h.kurtosis", "1", true),
    ("de-h.peak_to_peak", "[g]", false),
    ("de-h.env.rms", "[g]", true),
    ("de-h.env.bpfo", "1", true),
    ("de-h.env.bpfi", "1", false),
    ("de-h.env.bsf", "1", false),
    ("de-h.env.ftf", "1", false),
    ("temperature", "Cel", true),
    ("speed", "/min", true),
    ("load", "%", true),
    ("current", "A", false),
];
/// Scalars that the machine on MQTT publishes: id, unit, scored.
const MQTT_SCALARS: [(&str, &str, bool); 4] = [("temperature", "Cel", true), ("speed", "/min", true), ("load", "%", true), ("current", "A", false)];

/// What the files depend on.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Id of the gateway in all records.
    pub gateway: &'a str,
    /// Bootstrap address of Kafka.
    pub kafka: &'a str,
    /// It is the stand-in, which takes transactions without keeping their promises.
    pub embedded: bool,
    /// Before each topic name.
    pub prefix: &'a str,
    /// MQTT broker.
    pub mqtt: &'a Address,
    /// Port of the status pages.
    pub http_port: u16,
}

/// Begin of the name of a demo's directory, and of the gateway in it.
pub const DIRECTORY_PREFIX: &str = "hark-demo-";

/// Id of the gateway of the demo in `directory`, with its random end: demos on one Kafka must not take each other's records for their own.
pub fn gateway(directory: &Path) -> String {
    let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
    format!("demo-{}", name.strip_prefix(DIRECTORY_PREFIX).unwrap_or(name))
}

/// Writes `hark.toml` and `assets/*.toml` into `directory`.
///
/// # Errors
/// What the file system says.
pub fn write(directory: &Path, settings: &Settings<'_>) -> io::Result<()> {
    let assets = directory.join("assets");
    fs::create_dir_all(&assets)?;
    fs::write(directory.join("hark.toml"), hark_toml(directory, settings))?;
    for machine in MACHINES {
        fs::write(assets.join(format!("{}.toml", machine.asset)), asset_toml(&machine))?;
    }
    Ok(())
}

fn hark_toml(directory: &Path, settings: &Settings<'_>) -> String {
    let Settings { gateway, kafka, embedded, prefix, mqtt, http_port } = settings;
    let delivery = if *embedded { "at_least_once" } else { "exactly_once" };
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
    let (root, host, port) = (topic_root(gateway), &mqtt.host, mqtt.port);
    let accepted = "plaintext_accepted = \"demo with simulated readings\"";
    let mut text = format!(
        r#"# Written by the demo; config/hark.toml explains every key.
[gateway]
id = "{gateway}"
origin = "simulated"
heartbeat_every = "1s"

[buffer]
dir = "buffer"
quota = "64 MiB"

[kafka]
brokers = "{kafka}"
topic_prefix = "{prefix}"
delivery = "{delivery}"
{accepted}

[http]
listen = "127.0.0.1:{http_port}"

[inference]
models = "{models}"

[[mqtt]]
name = "broker"
host = "{host}"
port = {port}
client_id = "hark-{gateway}-agent"
session_expiry = "60s"
{accepted}

[[mqtt.topic]]
template = "{root}/{{asset}}/{{point}}"
payload = {{ value = "/value", time = "/ts", time_unit = "ms" }}

[[mqtt.topic]]
template = "{root}/{{asset}}/{{point}}/waveform"
payload = {{ waveform = true, time_unit = "ms" }}
"#
    );
    for machine in MACHINES {
        if let Way::Serial { node } = machine.way {
            let (asset, path) = (machine.asset, directory.join(machine.port()));
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                r#"
[[serial]]
name = "{asset}"
path = "{}"
baud = 921600
format = "node"

[[serial.node]]
id = {node}
asset = "{asset}"
channels = ["de-h", ""]
"#,
                path.display()
            );
        }
    }
    text
}

fn asset_toml(machine: &Machine) -> String {
    let Machine { asset, name, class, .. } = machine;
    let (grid_ms, on_delay_s) = (BLOCK_EVERY.as_millis(), ALARM_AFTER.as_secs());
    let mut text = format!(
        r#"id = "{asset}"
name = "{name}"
path = "demo/site/hall-1"
class = "{class}"
grid = "{grid_ms}ms"
stale_after = "3s"
predict_every = "1s"

[commissioning]
rows = {COMMISSIONING_ROWS}

[alarm]
on_delay = "{on_delay_s}s"
off_delay = "10s"
"#
    );
    let mut point = |id: &str, unit: &str, scored: bool| {
        let _ = write!(text, "\n[[point]]\nid = \"{id}\"\nunit = \"{unit}\"\nscored = {scored}\n");
    };
    match machine.way {
        Way::Serial { .. } => NODE_POINTS.iter().for_each(|(id, unit, scored)| point(id, unit, *scored)),
        Way::Mqtt => {
            MQTT_SCALARS.iter().for_each(|(id, unit, scored)| point(id, unit, *scored));
            let _ = write!(
                text,
                r#"
[[point]]
id = "de-h.v_rms"
unit = "mm/s"
severity = "2-rigid"

[[waveform]]
id = "de-h"
unit = "[g]"
diagnose_every = "1s"
speed_rpm = {SPEED_RPM}
speed_point = "speed"
bearing = {{ elements = 9, element_mm = 7.94, pitch_mm = 39.04 }}
"#
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::Origin;

    use super::*;

    #[test]
    fn each_demo_has_a_gateway_of_its_own() {
        let gateways = [0; 2].map(|_| gateway(tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir().unwrap().path()));
        assert_ne!(gateways[0], gateways[1]);
        assert!(gateways.iter().all(|gateway| gateway.starts_with("demo-") && !gateway.contains("hark") && gateway.len() > 8), "{gateways:?}");
    }

    #[test]
    fn the_agent_accepts_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let mqtt = Address { host: "broker.example".into(), port: 1_883 };
        let gateway = gateway(directory.path());
        write(
            directory.path(),
            &Settings { gateway: &gateway, kafka: "kafka.example:9092", embedded: false, prefix: "demo.", mqtt: &mqtt, http_port: 9_464 },
        )
        .unwrap();
        let config = hark::config::load(directory.path()).unwrap();
        assert_eq!((&*config.gateway.id, config.gateway.origin), (&*gateway, Origin::Simulated));
        assert_eq!(config.kafka.unwrap().topic_prefix, "demo.");
        assert!(config.models.join("stage-a/manifest.toml").exists());
        assert_eq!(config.serial.len(), 2);
        assert_eq!(config.assets.len(), MACHINES.len());
        for machine in MACHINES {
            let asset = &config.assets[machine.asset];
            let scored = asset.points.iter().filter(|point| point.scored).count();
            // Least squares of three lags needs twice as many rows as unknowns per point, while a fifth and three rows of each other fifth are held back.
            assert!((COMMISSIONING_ROWS / 5 - 4) * 4 > 2 * (3 * scored + 1), "{}: {scored} scored points", machine.asset);
            assert_eq!(asset.grid, BLOCK_EVERY);
        }
    }
}
