//! What is measured: who sends what to which broker.
use std::{fmt::Write as _, time::Duration};

use hark_tests::support::{Load, Settings};

/// How the messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// `{"value":…,"ts":…}`, the point in the topic.
    Single,
    /// `{"ts":…,"readings":[{"p":…,"v":…},…]}`, all points of an asset in one message.
    Array,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name on the command line and in the table.
    pub name: &'static str,
    /// How the broker is set.
    pub settings: Settings,
    /// How the messages look.
    pub payload: Payload,
    /// Machines.
    pub assets: usize,
    /// Points of each machine.
    pub points: usize,
    /// Readings to send.
    pub readings: usize,
    /// Readings per second; as fast as the broker takes them if `None`.
    pub rate: Option<f64>,
    /// Messages that may wait for the broker's acknowledgement. Mosquitto grants 20 by default.
    pub window: usize,
    /// Rows of commissioning; with `None` the machines never get to scoring, and of inference only the alignment of rows runs.
    pub commissioning_rows: Option<usize>,
    /// How often each machine's prediction is published.
    pub predict_every: &'static str,
    /// Whether an agent runs. Without one a bare subscriber takes the messages: what the broker and the generator can do by themselves.
    pub agent: bool,
}

impl Case {
    /// All of them, in the order in which they run. `quick` sends a tenth or less.
    pub fn all(quick: bool) -> Vec<Self> {
        let count = |full: usize, short: usize| if quick { short } else { full };
        let base = Self {
            name: "single",
            settings: Settings::Unlimited,
            payload: Payload::Single,
            assets: 20,
            points: 100,
            readings: count(600_000, 40_000),
            rate: None,
            window: 8_192,
            commissioning_rows: None,
            predict_every: "0s",
            agent: true,
        };
        let defaults = Self { settings: Settings::Defaults, window: 20, ..base.clone() };
        vec![
            Self { name: "broker-only", agent: false, ..base.clone() },
            base.clone(),
            Self { name: "single-plant", settings: Settings::Plant, window: 4_096, ..base.clone() },
            Self { name: "single-defaults", readings: count(200_000, 20_000), ..defaults.clone() },
            Self { name: "paced-defaults", readings: count(20_000, 3_000), rate: Some(1_000.0), ..defaults },
            Self { name: "array", payload: Payload::Array, readings: count(3_000_000, 200_000), window: 256, ..base.clone() },
            Self { name: "latency", readings: count(30_000, 5_000), rate: Some(1_000.0), ..base.clone() },
            Self { name: "steady", points: 5, readings: count(12_000, 2_000), rate: Some(100.0), predict_every: "30s", ..base.clone() },
            Self {
                name: "scoring",
                payload: Payload::Array,
                points: 8,
                readings: count(320_000, 80_000),
                window: 256,
                commissioning_rows: Some(300),
                ..base
            },
        ]
    }

    /// Readings in one message.
    pub fn per_message(&self) -> usize {
        match self.payload {
            Payload::Single => 1,
            Payload::Array => self.points,
        }
    }

    /// The messages to send.
    pub fn load(&self) -> Load {
        let interval = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.per_message() as f64 / rate));
        Load { messages: self.readings / self.per_message(), window: self.window, interval }
    }

    /// The topic of message `index`, which goes to `topic`, and its payload, appended to `payload`. `now_ms` is the time of publishing.
    ///
    /// The value of each reading is its number, so that each can be told from all others. With scoring, the time of the readings goes on by one
    /// second per row, whatever the clock says.
    pub fn message(&self, index: usize, now_ms: i64, started_ms: i64, topic: &mut String, payload: &mut String) {
        let (asset, turn) = (index % self.assets, index / self.assets);
        let row_ms = || started_ms - 86_400_000 + turn as i64 * 1_000;
        let ts = if self.commissioning_rows.is_some() { row_ms() } else { now_ms };
        // Writing to a String cannot fail.
        let _ = match self.payload {
            Payload::Single => {
                let _ = write!(topic, "plant/hall/a{asset}/p{}", turn % self.points);
                write!(payload, "{{\"value\":{index}.5,\"ts\":{ts}}}")
            }
            Payload::Array => {
                let _ = write!(topic, "plant/hall/a{asset}");
                let _ = write!(payload, "{{\"ts\":{ts},\"readings\":[");
                for point in 0..self.points {
                    let comma = if point == 0 { "" } else { "," };
                    let _ = write!(payload, "{comma}{{\"p\":\"p{point}\",\"v\":{}.5}}", index * self.points + point);
                }
                payload.write_str("]}")
            }
        };
    }

    /// The `[[mqtt.topic]]` table that reads these messages.
    pub fn topic_table(&self) -> &'static str {
        match self.payload {
            Payload::Single => {
                "[[mqtt.topic]]\ntemplate = \"plant/hall/{asset}/{point}\"\npayload = { value = \"/value\", time = \"/ts\", time_unit = \"ms\" }\n"
            }
            Payload::Array => {
                "[[mqtt.topic]]\ntemplate = \"plant/hall/{asset}\"\n\
                 payload = { array = \"/readings\", point = \"/p\", value = \"/v\", time = \"/ts\", time_unit = \"ms\" }\n"
            }
        }
    }

    /// The asset files by id.
    pub fn asset_files(&self) -> Vec<(String, String)> {
        let rows = self.commissioning_rows.unwrap_or(2000);
        let file = |asset: usize| {
            let id = format!("a{asset}");
            let mut text = format!("id = \"{id}\"\ngrid = \"1s\"\npredict_every = \"{}\"\n\n[commissioning]\nrows = {rows}\n", self.predict_every);
            for point in 0..self.points {
                let _ = write!(text, "\n[[point]]\nid = \"p{point}\"\nunit = \"1\"\n");
            }
            (id, text)
        };
        (0..self.assets).map(file).collect()
    }
}
