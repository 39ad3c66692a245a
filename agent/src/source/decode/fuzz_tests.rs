//! Inputs that are nearly as configured: documents of the right keys in wrong places, lines of the right columns with wrong cells, all the way to
//! readings. Whatever arrives, nothing panics, what comes of it is bounded by what came, and every value is a finite number or missing.
use std::sync::Arc;

use hark_protocol::topics::{Clock as ClockState, Origin, Timestamp};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value as Json, json};

use super::{Value, json, line_reader::LineReader, lines::LineDecoder};
use crate::{
    clock::{Clock, Now},
    config::{self, Config, CsvLines, SerialFormat, Shape},
    record::{Body, Entry},
    source::{
        counters::SourceCounters,
        registry::{Context, Intake, Registry},
    },
};

const GATEWAY: &str = r#"
[gateway]
id = "gw"
[[serial]]
name = "lines"
path = "port"
format = "csv"
asset = "pump"
separator = ";"
decimal_comma = true
[[mqtt]]
name = "plant"
host = "127.0.0.1"
[[mqtt.topic]]
template = "bare/{asset}/{point}"
[[mqtt.topic]]
template = "scalar/{asset}/{point}"
payload = { value = "/value", time = "/ts", time_unit = "ms", quality = "/q", sequence = "/seq" }
[[mqtt.topic]]
template = "batch/{asset}"
payload = { values = "/values", time = "/ts" }
[[mqtt.topic]]
template = "array/{area}"
payload = { array = "/values", asset = "/id", point = "/point", value = "/value", time = "/ts", quality = "/q" }
[[mqtt.topic]]
template = "waveform/{asset}/{point}"
payload = { waveform = true, time_unit = "ms" }
[[mqtt.topic]]
template = "blocks/{asset}/{point}"
payload = { array = "/values", value = "/value", waveform = true, time = "/ts" }
"#;
const PUMP: &str = r#"
id = "pump"
[[point]]
id = "flow"
unit = "l/min"
column = "Volume flow"
range = [0.0, 100.0]
[[point]]
id = "state"
unit = "1"
map = { RUN = 1.0, STOP = 0.0 }
[[waveform]]
id = "vib"
unit = "m/s2"
speed_rpm = 1500.0
features = ["v_rms", "a_rms", "crest", "kurtosis", "skewness", "peak_to_peak", "env.rms"]
envelope_band_hz = [100.0, 400.0]
"#;

/// The keys and columns that the configuration knows, and some that it does not.
const KEYS: [&str; 15] = ["value", "values", "ts", "q", "seq", "id", "point", "t0", "fs", "unit", "scale", "samples", "flow", "state", "colour"];
const TEXTS: [&str; 18] = [
    "",
    "RUN",
    "NaN",
    "inf",
    "1e999",
    "1,5",
    "-0",
    "good",
    "pump",
    "flow",
    "vib",
    "[g]",
    "m/s2",
    "um",
    "2026-01-01T00:00:00Z",
    "1767225600",
    "noon",
    "\u{feff}ts",
];
const COLUMNS: [&str; 6] = ["ts", "Time", "flow", "Volume flow", "state", "colour"];

fn configured() -> Config {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    std::fs::write(folder.path().join("hark.toml"), GATEWAY).unwrap();
    std::fs::write(folder.path().join("assets/pump.toml"), PUMP).unwrap();
    config::load(folder.path()).unwrap()
}

fn shapes(config: &Config) -> Vec<Shape> {
    config.mqtt[0].topics.iter().map(|topic| topic.shape.clone()).collect()
}

fn csv(config: &Config) -> CsvLines {
    match &config.serial[0].format {
        SerialFormat::Csv(csv) => csv.clone(),
        other => panic!("{other:?} is not what the file says"),
    }
}

/// From samples to what the log would get.
struct Bench {
    intake: Intake,
    counters: SourceCounters,
    now: Now,
    entries: Vec<Entry>,
}

impl Bench {
    fn new(config: &Config) -> Self {
        Self {
            intake: Intake::new(Arc::new(Registry::new(&config.assets, Origin::Live))),
            counters: SourceCounters::new("fuzz".into(), "mqtt", "none", Clock::new()),
            now: Now { ts: Timestamp(1_767_225_600_000_000), log_ms: 5, boot: "boot".into(), state: ClockState::Synced },
            entries: Vec::new(),
        }
    }

    fn take(&mut self, sample: super::Sample, point: &str) {
        let context = Context { asset: Some("pump"), point: Some(point), self_test: false };
        self.intake.take(sample, context, &self.now, &self.counters, &mut self.entries);
    }

    fn all_finite_or_missing(&self) -> bool {
        self.entries.iter().all(|entry| match &entry.body {
            Body::Reading(reading) => reading.value.is_none_or(f64::is_finite),
            _ => false,
        })
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(&TEXTS[..]).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn number() -> impl Strategy<Value = Json> {
    prop_oneof![
        (-10.0..10.0).prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        // Times a scale, they are no longer finite.
        select(&[1.7e308, -1.7e308][..]).prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        select(&[0_u64, 192, 1_767_225_600, 1_767_225_600_000, 4_291_747_200_000][..]).prop_map(Json::from),
    ]
}

fn leaf() -> impl Strategy<Value = Json> {
    prop_oneof![1 => Just(Json::Null), 1 => any::<bool>().prop_map(Json::from), 5 => number(), 3 => text().prop_map(Json::from)]
}

/// A block with some of its keys, most of them as they should be.
fn block() -> impl Strategy<Value = Json> {
    let fs = prop_oneof![4 => (1.0..50_000.0).prop_map(Json::from), 1 => leaf()];
    let unit = option::of(prop_oneof![3 => select(&["[g]", "m/s2", "um"][..]).prop_map(Json::from), 1 => leaf()]);
    let scale = option::of(prop_oneof![3 => (0.0..2.0).prop_map(Json::from), 1 => leaf()]);
    let samples = prop_oneof![6 => vec(number(), 0..80).prop_map(Json::from), 1 => vec(leaf(), 0..8).prop_map(Json::from), 1 => leaf()];
    (option::of(leaf()), option::weighted(0.9, fs), unit, scale, option::weighted(0.9, samples)).prop_map(|(t0, fs, unit, scale, samples)| {
        let keys = [("t0", t0), ("fs", fs), ("unit", unit), ("scale", scale), ("samples", samples)];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<serde_json::Map<_, _>>().into()
    })
}

fn document() -> impl Strategy<Value = Json> {
    let inner = prop_oneof![3 => leaf(), 1 => block()];
    let nested = inner.prop_recursive(3, 48, 6, |inner| {
        let object = vec((select(&KEYS[..]), inner.clone()), 0..6);
        prop_oneof![
            vec(inner, 0..6).prop_map(Json::from),
            object.prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    let scalar =
        || (leaf(), leaf(), leaf(), leaf()).prop_map(|(value, ts, q, seq)| json!({"value": value, "ts": ts, "q": q, "seq": seq, "id": "pump"}));
    let points = vec((select(&KEYS[..]), leaf()), 0..6)
        .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>());
    let framed_block = (block(), leaf()).prop_map(|(value, ts)| json!({"value": value, "ts": ts}));
    let element = prop_oneof![3 => scalar(), 2 => framed_block, 1 => nested.clone()];
    prop_oneof![
        1 => leaf(),
        2 => block(),
        2 => scalar(),
        2 => vec(element, 0..6).prop_map(|values| json!({"values": values, "ts": 1_767_225_600_000_u64})),
        2 => (points, leaf()).prop_map(|(values, ts)| json!({"values": values, "ts": ts})),
        1 => nested,
    ]
}

/// A header of known and unknown columns, or cells of all kinds, or the line of another program; with the line end of some system.
fn line() -> impl Strategy<Value = String> {
    let header = vec(select(&COLUMNS[..]).prop_map(str::to_owned), 1..5);
    let number = (-1e3..1e3).prop_map(|value: f64| format!("{value:.2}").replace('.', ","));
    let cell = prop_oneof![3 => number, 2 => text()];
    let cells = prop_oneof![1 => header.boxed(), 3 => vec(cell, 1..5).boxed()].prop_map(|cells| cells.join(";"));
    (prop_oneof![9 => cells, 1 => ".{0,30}"], select(&["\n", "\r\n", "\r"][..])).prop_map(|(line, end)| line + end)
}

#[test]
fn documents_near_the_configured_shapes_give_finite_readings() {
    let config = configured();
    let shapes = shapes(&config);
    proptest!(|(document in document(), shape in select(shapes), point in select(&["flow", "state", "vib"][..]))| {
        let payload = document.to_string();
        let mut bench = Bench::new(&config);
        let samples = json::decode(payload.as_bytes(), &shape).unwrap_or_default();
        prop_assert!(samples.len() <= payload.len(), "{} samples of {} bytes", samples.len(), payload.len());
        for sample in samples.into_iter().flatten() {
            if let Value::Block(block) = &sample.value {
                prop_assert!(!block.samples.is_empty() && block.samples.len() <= payload.len() && !block.samples.iter().any(|v| v.is_infinite()));
            }
            bench.take(sample, point);
        }
        prop_assert!(bench.all_finite_or_missing(), "{:?}", bench.entries);
    });
}

#[test]
fn lines_near_the_configured_columns_give_finite_readings() {
    let config = configured();
    let csv = csv(&config);
    proptest!(|(lines in vec(line(), 0..12), silent: bool, configured in option::of(vec(select(&COLUMNS[..]).prop_map(str::to_owned), 1..5)))| {
        let text = lines.concat();
        let mut bench = Bench::new(&config);
        let mut decoder = LineDecoder::new(CsvLines { columns: configured, ..csv.clone() }, bench.intake.names("pump"));
        let mut reader = LineReader::default();
        reader.opened(silent);
        for line in text.bytes().filter_map(|byte| reader.push(byte)).flatten() {
            let samples = decoder.decode(&line).unwrap_or_default();
            prop_assert!(samples.len() <= line.len() + 1, "a cell is at least a separator");
            samples.into_iter().for_each(|sample| bench.take(sample, ""));
        }
        prop_assert!(bench.all_finite_or_missing(), "{:?}", bench.entries);
    });
}

/// The generators reach what they are for: else the properties above would hold of nothing.
#[test]
fn the_generators_reach_every_kind_of_sample() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let config = configured();
    let (mut runner, mut numbers, mut blocks, mut bad_elements) = (TestRunner::deterministic(), 0, 0, 0);
    for _ in 0..500 {
        let payload = document().new_tree(&mut runner).unwrap().current().to_string();
        for sample in shapes(&config).iter().flat_map(|shape| json::decode(payload.as_bytes(), shape).unwrap_or_default()) {
            match sample {
                Ok(sample) => match sample.value {
                    Value::Block(_) => blocks += 1,
                    Value::Number(_) => numbers += 1,
                    Value::Text(_) | Value::Missing => {}
                },
                Err(_) => bad_elements += 1,
            }
        }
    }
    let mut lines = 0;
    for _ in 0..100 {
        let mut decoder = LineDecoder::new(csv(&config), Bench::new(&config).intake.names("pump"));
        for line in vec(line(), 12).new_tree(&mut runner).unwrap().current() {
            lines += usize::from(decoder.decode(line.as_bytes()).is_ok_and(|samples| !samples.is_empty()));
        }
    }
    let least = numbers.min(blocks).min(bad_elements).min(lines);
    assert!(least >= 30, "{numbers} numbers, {blocks} blocks, {bad_elements} bad elements, {lines} lines of values");
}
