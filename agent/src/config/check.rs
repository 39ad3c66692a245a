//! From the files as written to a [`Config`] that cannot be wrong. Every fault is reported, not only the first.
use std::{
    collections::BTreeMap,
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hark_protocol::topics::Name;
use sha2::{Digest, Sha256};

use super::{
    AlarmSettings, Asset, Bearing, Buffer, Commissioning, Config, Credentials, CsvLines, Gateway, Http, Kafka, Mqtt, Node, Point, Serial,
    SerialFormat, Shape, TimeUnit, Topic, Waveform,
    file::{AssetFile, HarkFile, MqttTable, PointTable, SerialFormatName, SerialTable, ShapeTable, WaveformTable},
};
use crate::signal::{FEATURES, feature_unit};

/// All faults of a configuration directory.
#[derive(Debug)]
pub struct ConfigError {
    /// One line each: file, key, what is wrong, what was expected.
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration has {} fault{}", self.faults.len(), if self.faults.len() == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

/// Loads `dir/hark.toml` and `dir/assets/*.toml`. Relative paths in them are relative to `dir`.
///
/// # Errors
/// [`ConfigError`] with every fault found.
pub fn load(dir: &Path) -> Result<Config, ConfigError> {
    let mut faults = Faults::default();
    let file = dir.join("hark.toml");
    let hark: Option<HarkFile> = parse(&file, &mut faults);
    let mut assets = BTreeMap::new();
    for path in asset_files(&dir.join("assets"), &mut faults) {
        let Some(raw) = parse::<AssetFile>(&path, &mut faults) else { continue };
        faults.file = path.display().to_string();
        let asset = check_asset(raw, &mut faults);
        let id = asset.id.clone();
        if assets.insert(id.clone(), asset).is_some() {
            faults.add("id", format!("`{id}` is the id of another file too; ids are unique in the fleet"));
        }
    }
    faults.file = file.display().to_string();
    let config = hark.map(|raw| check_gateway(raw, dir, assets, &mut faults));
    match config {
        Some(config) if faults.found.is_empty() => Ok(config),
        _ => Err(ConfigError { faults: faults.found }),
    }
}

#[derive(Default)]
struct Faults {
    file: String,
    found: Vec<String>,
}

impl Faults {
    fn add(&mut self, key: &str, what: impl fmt::Display) {
        self.found.push(format!("{}: {key}: {what}", self.file));
    }

    fn duration(&mut self, key: &str, text: &str) -> Duration {
        match text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok()) {
            Some(duration) => duration,
            // The friendly format has no days in a signed duration; a plant writes `7d`.
            None => match text.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok()) {
                Some(days) => Duration::from_secs(u64::from(days) * 86_400),
                None => {
                    self.add(key, format!("`{text}` is no duration; write for example `250ms`, `30s`, `15m`, `7d`"));
                    Duration::ZERO
                }
            },
        }
    }

    fn bytes(&mut self, key: &str, text: &str) -> u64 {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text[digits.len()..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        match (digits.parse::<u64>().ok(), factor) {
            (Some(count), Some(factor)) => count.saturating_mul(factor),
            _ => {
                self.add(key, format!("`{text}` is no size; write for example `256 KiB`, `64 MiB`, `2 GiB`"));
                0
            }
        }
    }

    fn name(&mut self, key: &str, text: &str) -> Name {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 120 || !text.chars().all(allowed) {
            self.add(key, format!("`{text}` is no name; use 1 to 120 of letters, digits, `-`, `_`, `.`"));
        }
        text.into()
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, faults: &mut Faults) -> Option<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.found.push(format!("{}: cannot be read: {error}", path.display()));
            return None;
        }
    };
    toml::from_str(&text)
        .map_err(|error| faults.found.push(format!("{}: {}", path.display(), error.to_string().trim_end().replace('\n', "\n    "))))
        .ok()
}

fn asset_files(dir: &Path, faults: &mut Faults) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            faults.found.push(format!("{}: cannot be listed: {error}; it holds one file per machine", dir.display()));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

fn check_gateway(raw: HarkFile, dir: &Path, assets: BTreeMap<Name, Asset>, faults: &mut Faults) -> Config {
    let id = faults.name("gateway.id", &raw.gateway.id);
    let buffer = Buffer {
        dir: dir.join(&raw.buffer.dir),
        quota_bytes: faults.bytes("buffer.quota", &raw.buffer.quota),
        commit_max_delay: faults.duration("buffer.commit_max_delay", &raw.buffer.commit_max_delay),
        commit_bytes: faults.bytes("buffer.commit_bytes", &raw.buffer.commit_bytes) as usize,
        in_flight_bytes: faults.bytes("buffer.in_flight_bytes", &raw.buffer.in_flight_bytes) as usize,
    };
    const SMALLEST_QUOTA: u64 = 64 << 20;
    if buffer.quota_bytes < SMALLEST_QUOTA {
        faults.add("buffer.quota", "at least 64 MiB are needed: each of four lanes keeps whole partitions");
    }
    if buffer.in_flight_bytes < 1 << 20 {
        faults.add("buffer.in_flight_bytes", "at least 1 MiB is needed, four messages of the largest size");
    }
    let kafka = raw.kafka.map(|kafka| {
        if kafka.plaintext_accepted.is_none() {
            for broker in kafka.brokers.split(',') {
                let host = broker.trim().rsplit_once(':').map_or(broker, |(host, _)| host);
                refuse_plain_text("kafka.brokers", host, faults);
            }
        }
        Kafka {
            brokers: kafka.brokers,
            topic_prefix: kafka.topic_prefix,
            batch_records: kafka.batch_records.clamp(1, 100_000),
            batch_bytes: faults.bytes("kafka.batch_bytes", &kafka.batch_bytes).clamp(64 << 10, 64 << 20) as usize,
            plaintext_accepted: kafka.plaintext_accepted,
        }
    });
    let mqtt = raw.mqtt.into_iter().enumerate().map(|(i, table)| check_mqtt(i, table, dir, &id, &assets, faults)).collect();
    let serial = raw.serial.into_iter().enumerate().map(|(i, table)| check_serial(i, table, dir, &assets, faults)).collect();
    Config {
        gateway: Gateway {
            id,
            origin: raw.gateway.origin,
            heartbeat_every: faults.duration("gateway.heartbeat_every", &raw.gateway.heartbeat_every),
        },
        buffer,
        kafka,
        http: Http { listen: raw.http.listen },
        mqtt,
        serial,
        assets,
        models: dir.join(raw.inference.models),
    }
}

/// Until TLS is configured, plain text leaves the box only with a stated reason.
fn refuse_plain_text(key: &str, host: &str, faults: &mut Faults) {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        faults.add(key, format!("plain text to `{host}` is refused; set `plaintext_accepted = \"<reason>\"` if the line is protected otherwise"));
    }
}

fn check_mqtt(index: usize, raw: MqttTable, dir: &Path, gateway: &str, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Mqtt {
    let key = format!("mqtt[{index}]");
    if raw.plaintext_accepted.is_none() {
        refuse_plain_text(&format!("{key}.host"), &raw.host, faults);
    }
    if raw.topics.is_empty() {
        faults.add(&key, "has no `[[mqtt.topic]]`: nothing would be read from it");
    }
    let topics = raw
        .topics
        .into_iter()
        .enumerate()
        .map(|(i, topic)| {
            let key = format!("{key}.topic[{i}]");
            let shape = check_shape(&key, topic.payload, faults);
            let captures = |what: &str| topic.template.split('/').any(|level| level == format!("{{{what}}}"));
            if !captures("asset") && topic.asset.is_none() && shape.asset.is_none() {
                faults.add(&key, "names no asset: capture `{asset}` in the template, set `asset`, or `payload.asset`");
            }
            if !captures("point") && topic.point.is_none() && shape.point.is_none() && shape.values.is_none() {
                faults.add(&key, "names no point: capture `{point}` in the template, set `point`, `payload.point` or `payload.values`");
            }
            Topic { asset: known_asset(&key, topic.asset, assets, faults), point: topic.point.map(Into::into), template: topic.template, shape }
        })
        .collect();
    Mqtt {
        name: faults.name(&format!("{key}.name"), &raw.name),
        host: raw.host,
        port: raw.port,
        client_id: raw.client_id.unwrap_or_else(|| format!("hark-{gateway}-{}", raw.name)),
        session_expiry: faults.duration(&format!("{key}.session_expiry"), &raw.session_expiry),
        credentials: check_credentials(&key, raw.username, raw.password_file, dir, faults),
        topics,
        plaintext_accepted: raw.plaintext_accepted,
    }
}

/// A password stands in a file of its own, which only the agent's user may read: `hark.toml` is shown, copied and mailed.
fn check_credentials(key: &str, username: Option<String>, file: Option<PathBuf>, dir: &Path, faults: &mut Faults) -> Option<Credentials> {
    let Some(username) = username else {
        if file.is_some() {
            faults.add(&format!("{key}.password_file"), "needs `username` beside it");
        }
        return None;
    };
    let Some(file) = file.map(|file| dir.join(file)) else { return Some(Credentials { username, password: String::new() }) };
    match fs::read_to_string(&file) {
        Ok(text) => Some(Credentials { username, password: text.trim_end_matches(['\r', '\n']).to_owned() }),
        Err(error) => {
            faults.add(&format!("{key}.password_file"), format!("cannot read `{}`: {error}", file.display()));
            None
        }
    }
}

fn known_asset(key: &str, asset: Option<String>, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Option<Name> {
    let id = asset?;
    if !assets.contains_key(id.as_str()) {
        faults.add(&format!("{key}.asset"), format!("`{id}` has no file in assets/"));
    }
    Some(id.into())
}

fn check_shape(key: &str, raw: ShapeTable, faults: &mut Faults) -> Shape {
    for (name, pointer) in [
        ("array", &raw.array),
        ("asset", &raw.asset),
        ("point", &raw.point),
        ("value", &raw.value),
        ("values", &raw.values),
        ("time", &raw.time),
        ("quality", &raw.quality),
        ("sequence", &raw.sequence),
    ] {
        if pointer.as_deref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
            faults.add(&format!("{key}.payload.{name}"), "is no JSON pointer; start it with `/`, or leave it empty for the whole payload");
        }
    }
    if raw.value.is_some() && raw.values.is_some() {
        faults.add(&format!("{key}.payload"), "has both `value` (one point) and `values` (an object of points)");
    }
    Shape {
        time_unit: check_time_unit(key, raw.time_unit.as_deref(), raw.zone, faults),
        array: raw.array,
        asset: raw.asset,
        point: raw.point,
        value: raw.value,
        values: raw.values,
        waveform: raw.waveform,
        time: raw.time,
        quality: raw.quality,
        sequence: raw.sequence,
    }
}

fn check_time_unit(key: &str, unit: Option<&str>, zone: Option<String>, faults: &mut Faults) -> TimeUnit {
    match (unit, zone) {
        (None, _) => TimeUnit::Auto,
        (Some("s"), _) => TimeUnit::S,
        (Some("ms"), _) => TimeUnit::Ms,
        (Some("us"), _) => TimeUnit::Us,
        (Some("ns"), _) => TimeUnit::Ns,
        (Some("iso8601"), _) => TimeUnit::Iso8601,
        (Some("iso8601_local"), Some(zone)) if jiff::tz::TimeZone::get(&zone).is_ok() => TimeUnit::Iso8601Local(zone),
        (Some("iso8601_local"), zone) => {
            faults.add(&format!("{key}.zone"), format!("`{}` is no IANA time zone; write for example `Europe/Berlin`", zone.unwrap_or_default()));
            TimeUnit::Iso8601
        }
        (Some(other), _) => {
            faults.add(&format!("{key}.time_unit"), format!("`{other}` is none of s, ms, us, ns, iso8601, iso8601_local"));
            TimeUnit::Auto
        }
    }
}

fn check_serial(index: usize, raw: SerialTable, dir: &Path, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Serial {
    let key = format!("serial[{index}]");
    let asset = known_asset(&key, raw.asset, assets, faults);
    let format = match raw.format {
        SerialFormatName::Node => {
            let mut nodes = BTreeMap::new();
            for node in raw.nodes {
                let asset = known_asset(&key, Some(node.asset), assets, faults).unwrap_or_default();
                if nodes.insert(node.id, Node { asset, channels: node.channels }).is_some() {
                    faults.add(&format!("{key}.node"), format!("id {} stands twice", node.id));
                }
            }
            if nodes.is_empty() {
                faults.add(&key, "speaks the node protocol but names no `[[serial.node]]`");
            }
            SerialFormat::Node { nodes }
        }
        SerialFormatName::Csv => {
            if asset.is_none() {
                faults.add(&format!("{key}.asset"), "is needed: lines of values do not name their machine");
            }
            let separator = raw.separator.unwrap_or(',');
            if !separator.is_ascii() || (raw.decimal_comma && separator == ',') {
                faults.add(&format!("{key}.separator"), "must be one ASCII character other than the decimal sign");
            }
            SerialFormat::Csv(CsvLines {
                asset: asset.unwrap_or_default(),
                separator: u8::try_from(separator).unwrap_or(b','),
                decimal_comma: raw.decimal_comma,
                columns: raw.columns,
                time_unit: check_time_unit(&key, raw.time_unit.as_deref(), raw.zone, faults),
            })
        }
        SerialFormatName::Json => SerialFormat::Json { asset, shape: check_shape(&key, raw.payload, faults) },
    };
    Serial { name: faults.name(&format!("{key}.name"), &raw.name), path: dir.join(raw.path), baud: raw.baud, format }
}

fn check_asset(raw: AssetFile, faults: &mut Faults) -> Asset {
    // The raw tables in their debug form hold every key with its default, so the hash changes with any of them and with nothing else.
    let hash: Name = Sha256::digest(format!("{raw:?}")).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    let grid = faults.duration("grid", &raw.grid);
    if grid < Duration::from_millis(10) {
        faults.add("grid", "must be at least 10ms");
    }
    let stale_after = raw.stale_after.map_or(grid * 5, |text| faults.duration("stale_after", &text));
    let mut points: Vec<Point> = raw.points.into_iter().map(|point| check_point(point, faults)).collect();
    let waveforms: Vec<Waveform> = raw.waveforms.into_iter().map(|waveform| check_waveform(waveform, faults)).collect();
    for waveform in &waveforms {
        for feature in &waveform.features {
            let id: Name = format!("{}.{feature}", waveform.id).into();
            // A point of that name in the file says more about the feature: its range, or that it is not scored.
            if !points.iter().any(|point| point.id == id) {
                points.push(Point { id, unit: feature_unit(feature).into(), column: None, range: None, map: BTreeMap::new(), scored: true });
            }
        }
    }
    for (i, point) in points.iter().enumerate() {
        if points[..i].iter().any(|other| other.id == point.id) {
            faults.add("point.id", format!("`{}` stands twice", point.id));
        }
    }
    let rows = raw.commissioning.rows;
    let held_back = raw.commissioning.held_back.unwrap_or(rows * 15 / 100);
    if held_back < 30 || rows < held_back + 100 {
        faults.add("commissioning", format!("{rows} rows with {held_back} held back are too few: at least 30 held back and 100 to fit on"));
    }
    let id = faults.name("id", &raw.id);
    Asset {
        name: raw.name.map_or_else(|| id.clone(), Into::into),
        id,
        path: raw.path.map(Into::into),
        class: raw.class.map(Into::into),
        grid,
        stale_after,
        predict_every: faults.duration("predict_every", &raw.predict_every),
        commissioning: Commissioning { rows, held_back },
        alarm: AlarmSettings {
            on_delay: faults.duration("alarm.on_delay", &raw.alarm.on_delay),
            off_delay: faults.duration("alarm.off_delay", &raw.alarm.off_delay),
        },
        points,
        waveforms,
        hash,
    }
}

fn check_point(raw: PointTable, faults: &mut Faults) -> Point {
    if let Some((low, high)) = raw.range
        && !(low.is_finite() && high.is_finite() && low < high)
    {
        faults.add("point.range", format!("of `{}` must be [low, high] with low below high", raw.id));
    }
    Point { id: faults.name("point.id", &raw.id), unit: raw.unit.into(), column: raw.column, range: raw.range, map: raw.map, scored: raw.scored }
}

fn check_waveform(raw: WaveformTable, faults: &mut Faults) -> Waveform {
    if !matches!(raw.unit.as_str(), "[g]" | "g" | "m/s2") {
        faults.add("waveform.unit", format!("`{}` of `{}` is no acceleration; use `[g]` or `m/s2`", raw.unit, raw.id));
    }
    let bearing = raw.bearing.map(|b| Bearing { elements: b.elements, element_mm: b.element_mm, pitch_mm: b.pitch_mm, contact_deg: b.contact_deg });
    let features = raw.features.unwrap_or_else(|| default_features(bearing.is_some()));
    for feature in &features {
        if !FEATURES.contains(&feature.as_str()) {
            faults.add("waveform.features", format!("`{feature}` is none of {}", FEATURES.join(", ")));
        }
        if feature.starts_with("env.") && feature != "env.rms" && bearing.is_none() {
            faults.add("waveform.features", format!("`{feature}` needs `bearing`"));
        }
    }
    let band = raw.envelope_band_hz.unwrap_or((2_000.0, 5_000.0));
    if !(band.0 > 0.0 && band.0 < band.1) {
        faults.add("waveform.envelope_band_hz", "must be [low, high] with 0 < low < high");
    }
    Waveform {
        id: faults.name("waveform.id", &raw.id),
        unit: raw.unit.into(),
        features: features.into_iter().map(Into::into).collect(),
        speed_hz: raw.speed_rpm.map(|rpm| rpm / 60.0),
        speed_point: raw.speed_point.map(Into::into),
        bearing,
        envelope_band_hz: band,
    }
}

fn default_features(bearing: bool) -> Vec<String> {
    let lines: &[&str] = if bearing { &["env.bpfo", "env.bpfi"] } else { &[] };
    ["v_rms", "a_rms", "crest", "kurtosis"].iter().chain(lines).map(|&name| name.to_owned()).collect()
}
