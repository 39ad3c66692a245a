//! The files as they are written: raw structs that refuse unknown keys. Nothing is decided here; see [`super::check`].
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::{Clips, Delivery};

/// `hark.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HarkFile {
    pub(super) gateway: GatewayTable,
    #[serde(default)]
    pub(super) buffer: BufferTable,
    pub(super) kafka: Option<KafkaTable>,
    #[serde(default)]
    pub(super) http: HttpTable,
    #[serde(default)]
    pub(super) inference: InferenceTable,
    #[serde(default)]
    pub(super) mqtt: Vec<MqttTable>,
    #[serde(default)]
    pub(super) serial: Vec<SerialTable>,
    pub(super) annunciation: Option<AnnunciationTable>,
    #[serde(default)]
    pub(super) snapshots: SnapshotsTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SnapshotsTable {
    pub(super) memory: String,
    pub(super) per_day: String,
}

impl Default for SnapshotsTable {
    fn default() -> Self {
        Self { memory: "16 MiB".into(), per_day: "64 MiB".into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnnunciationTable {
    pub(super) broker: Option<String>,
    #[serde(default = "alarm_topic")]
    pub(super) topic: String,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default = "command_every")]
    pub(super) command_every: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayTable {
    pub(super) id: String,
    #[serde(default)]
    pub(super) origin: hark_protocol::topics::Origin,
    #[serde(default = "heartbeat_every")]
    pub(super) heartbeat_every: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BufferTable {
    pub(super) dir: PathBuf,
    pub(super) quota: String,
    pub(super) commit_max_delay: String,
    pub(super) commit_bytes: String,
    pub(super) in_flight_bytes: String,
    pub(super) max_age: Option<String>,
    pub(super) store_timeout: String,
}

impl Default for BufferTable {
    fn default() -> Self {
        Self {
            dir: "/var/lib/hark".into(),
            quota: "1 GiB".into(),
            commit_max_delay: "500ms".into(),
            commit_bytes: "256 KiB".into(),
            in_flight_bytes: "2 MiB".into(),
            max_age: None,
            store_timeout: "60s".into(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KafkaTable {
    pub(super) brokers: String,
    #[serde(default = "topic_prefix")]
    pub(super) topic_prefix: String,
    #[serde(default = "batch_records")]
    pub(super) batch_records: usize,
    #[serde(default = "batch_bytes")]
    pub(super) batch_bytes: String,
    #[serde(default)]
    pub(super) delivery: Delivery,
    #[serde(default)]
    pub(super) metered: bool,
    pub(super) backlog_rate: Option<String>,
    #[serde(default = "duplicate_wait")]
    pub(super) duplicate_wait: String,
    pub(super) plaintext_accepted: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpTable {
    pub(super) listen: SocketAddr,
}

impl Default for HttpTable {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InferenceTable {
    pub(super) models: PathBuf,
    pub(super) checkpoint_every: Option<String>,
}

impl Default for InferenceTable {
    fn default() -> Self {
        Self { models: "/usr/share/hark/models".into(), checkpoint_every: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MqttTable {
    pub(super) name: String,
    pub(super) host: String,
    #[serde(default = "mqtt_port")]
    pub(super) port: u16,
    pub(super) client_id: Option<String>,
    #[serde(default = "session_expiry")]
    pub(super) session_expiry: String,
    pub(super) plaintext_accepted: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    #[serde(rename = "topic", default)]
    pub(super) topics: Vec<TopicTable>,
}

/// Shape keys stand beside the template, so that one table describes one topic.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicTable {
    pub(super) template: String,
    pub(super) asset: Option<String>,
    pub(super) point: Option<String>,
    #[serde(default)]
    pub(super) payload: ShapeTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ShapeTable {
    pub(super) array: Option<String>,
    pub(super) asset: Option<String>,
    pub(super) point: Option<String>,
    pub(super) value: Option<String>,
    pub(super) values: Option<String>,
    pub(super) waveform: bool,
    pub(super) time: Option<String>,
    pub(super) time_unit: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) quality: Option<String>,
    pub(super) sequence: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SerialTable {
    pub(super) name: String,
    pub(super) path: PathBuf,
    #[serde(default = "baud")]
    pub(super) baud: u32,
    pub(super) format: SerialFormatName,
    pub(super) asset: Option<String>,
    #[serde(default)]
    pub(super) payload: ShapeTable,
    pub(super) separator: Option<char>,
    #[serde(default)]
    pub(super) decimal_comma: bool,
    pub(super) columns: Option<Vec<String>>,
    pub(super) time_unit: Option<String>,
    pub(super) zone: Option<String>,
    #[serde(rename = "node", default)]
    pub(super) nodes: Vec<NodeTable>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SerialFormatName {
    Node,
    Csv,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeTable {
    pub(super) id: u32,
    pub(super) asset: String,
    #[serde(default)]
    pub(super) channels: Vec<String>,
}

/// One file in `assets/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AssetFile {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) path: Option<String>,
    pub(super) class: Option<String>,
    #[serde(default = "grid")]
    pub(super) grid: String,
    pub(super) stale_after: Option<String>,
    #[serde(default = "predict_every")]
    pub(super) predict_every: String,
    #[serde(default)]
    pub(super) commissioning: CommissioningTable,
    #[serde(default)]
    pub(super) alarm: AlarmTable,
    #[serde(default)]
    pub(super) forecast: ForecastTable,
    #[serde(default)]
    pub(super) instrument: InstrumentTable,
    pub(super) operating: Option<OperatingTable>,
    #[serde(rename = "point", default)]
    pub(super) points: Vec<PointTable>,
    #[serde(rename = "waveform", default)]
    pub(super) waveforms: Vec<WaveformTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CommissioningTable {
    pub(super) running: Option<String>,
    pub(super) rows: Option<usize>,
    pub(super) starts: Option<u32>,
    pub(super) adapts: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ForecastTable {
    pub(super) window: Option<String>,
    pub(super) horizons: Option<[String; 3]>,
    pub(super) cap: Option<String>,
    pub(super) alarm: Option<f64>,
    pub(super) model: Option<String>,
    pub(super) age: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlarmTable {
    pub(super) on_delay: String,
    pub(super) off_delay: String,
    pub(super) latch: bool,
}

impl Default for AlarmTable {
    fn default() -> Self {
        Self { on_delay: "15s".into(), off_delay: "60s".into(), latch: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InstrumentTable {
    pub(super) on_delay: String,
    pub(super) off_delay: String,
}

impl Default for InstrumentTable {
    fn default() -> Self {
        Self { on_delay: "30s".into(), off_delay: "60s".into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatingTable {
    pub(super) point: String,
    pub(super) idle: Option<f64>,
    pub(super) running: f64,
    pub(super) deadband: Option<f64>,
    #[serde(default = "settle")]
    pub(super) settle: String,
    pub(super) steady_rate: Option<f64>,
    #[serde(default)]
    pub(super) score_idle: bool,
    pub(super) load: Option<LoadTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadTable {
    pub(super) point: String,
    pub(super) bounds: Vec<f64>,
    pub(super) deadband: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointTable {
    pub(super) id: String,
    pub(super) unit: String,
    pub(super) column: Option<String>,
    pub(super) range: Option<(f64, f64)>,
    #[serde(default)]
    pub(super) map: BTreeMap<String, f64>,
    #[serde(default = "yes")]
    pub(super) scored: bool,
    pub(super) stale_after: Option<String>,
    pub(super) max_rate: Option<f64>,
    pub(super) stuck_after: Option<String>,
    pub(super) stuck_within: Option<f64>,
    pub(super) clips: Option<Clips>,
    pub(super) limits: Option<LimitsTable>,
    pub(super) severity: Option<String>,
    #[serde(default)]
    pub(super) ignore_fall: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    pub(super) low_low: Option<f64>,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    pub(super) high_high: Option<f64>,
    pub(super) deadband: Option<f64>,
    pub(super) only_running: Option<bool>,
    pub(super) what: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) check: Option<String>,
    pub(super) otherwise: Option<String>,
    pub(super) failure_mode: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaveformTable {
    pub(super) id: String,
    pub(super) unit: String,
    pub(super) stale_after: Option<String>,
    pub(super) features: Option<Vec<String>>,
    pub(super) speed_rpm: Option<f64>,
    pub(super) speed_point: Option<String>,
    pub(super) speed_search: Option<f64>,
    pub(super) bearing: Option<BearingTable>,
    pub(super) envelope_band_hz: Option<(f64, f64)>,
    pub(super) teeth: Option<u32>,
    pub(super) vanes: Option<u32>,
    pub(super) diagnose_every: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BearingTable {
    pub(super) elements: u32,
    pub(super) element_mm: f64,
    pub(super) pitch_mm: f64,
    #[serde(default)]
    pub(super) contact_deg: f64,
}

fn heartbeat_every() -> String {
    "10s".into()
}
fn topic_prefix() -> String {
    "hark.".into()
}
fn batch_records() -> usize {
    16_000
}
fn batch_bytes() -> String {
    "6 MiB".into()
}
fn duplicate_wait() -> String {
    "10m".into()
}
fn mqtt_port() -> u16 {
    1883
}
fn session_expiry() -> String {
    "7d".into()
}
fn baud() -> u32 {
    115_200
}
fn grid() -> String {
    "1s".into()
}
fn predict_every() -> String {
    "30s".into()
}
fn alarm_topic() -> String {
    "hark/alarms".into()
}
fn command_every() -> String {
    "10s".into()
}
fn settle() -> String {
    "20s".into()
}
fn yes() -> bool {
    true
}
