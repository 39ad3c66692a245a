//! What the agent is told: `hark.toml` for the gateway and one file per machine in `assets/`.
//!
//! The files are parsed into raw structs that refuse unknown keys ([`file`]), then checked once into types that cannot be wrong: below those of
//! the gateway, in `asset.rs` those of a machine.
mod asset;
mod check;
mod file;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub use asset::{
    AlarmSettings, Asset, Bearing, COMMISSIONING_ROWS_LEAST, Checks, Clips, Commissioning, Forecast, ForecastModel, InstrumentSettings, Level,
    Limits, Load, Operating, Point, ROWS_UNTIL_ACCEPTED, Stuck, Threshold, Waveform, is_of_channel,
};
pub(crate) use check::parse_duration;
pub use check::{ConfigError, check_asset_text, doubts, load, load_to_run};
use hark_protocol::topics::{Name, Origin};

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// This box.
    pub gateway: Gateway,
    /// Where the log lies and how it commits.
    pub buffer: Buffer,
    /// Where records go; `None`: nowhere (they stay in the buffer).
    pub kafka: Option<Kafka>,
    /// Status pages.
    pub http: Http,
    /// MQTT brokers.
    pub mqtt: Vec<Mqtt>,
    /// Serial ports.
    pub serial: Vec<Serial>,
    /// Alarms on the plant's own network.
    pub annunciation: Option<Annunciation>,
    /// Raw blocks around alarms.
    pub snapshots: Snapshots,
    /// Machines, by id.
    pub assets: BTreeMap<Name, Asset>,
    /// Directory of model bundles.
    pub models: PathBuf,
    /// Between checkpoints of inference; `None`: as often as flash allows.
    pub checkpoint_every: Option<Duration>,
}

/// How many raw blocks of waveforms are kept and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// Bytes of samples kept in memory, of all waveforms together.
    pub memory_bytes: usize,
    /// Bytes of samples sent in 24 h.
    pub bytes_per_day: u64,
}

/// This box.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Unique in the fleet.
    pub id: Name,
    /// What the readings come from.
    pub origin: Origin,
    /// Between heartbeats.
    pub heartbeat_every: Duration,
}

/// The durable log.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Data directory.
    pub dir: PathBuf,
    /// Bytes allowed under it.
    pub quota_bytes: u64,
    /// Longest time a reading waits for its commit.
    pub commit_max_delay: Duration,
    /// A commit comes earlier when so many bytes wait.
    pub commit_bytes: usize,
    /// Most bytes of undecoded and uncommitted messages per source.
    pub in_flight_bytes: usize,
    /// Older records are given up although Kafka does not have them; `None`: only space decides.
    pub max_age: Option<Duration>,
    /// A call of the store that makes no progress for so long ends the process.
    pub store_timeout: Duration,
}

/// Central Kafka.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Before each topic name: `hark.`, or `demo.` for the demo.
    pub topic_prefix: String,
    /// Most records handed over at once.
    pub batch_records: usize,
    /// Most bytes handed over at once.
    pub batch_bytes: usize,
    /// How often a record may arrive.
    pub delivery: Delivery,
    /// The link costs by volume: commit once a second, send a backlog slowly.
    pub metered: bool,
    /// Bytes of JSON a second at which a backlog is sent at most.
    pub backlog_bytes_per_s: u64,
    /// Before the next try where another agent runs under this gateway id.
    pub duplicate_wait: Duration,
    /// Plain text beyond loopback is accepted, because of this.
    pub plaintext_accepted: Option<String>,
}

/// How often a record may arrive in Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Once, for consumers that read committed records.
    #[default]
    ExactlyOnce,
    /// Again after a crash, for clusters without transactions.
    AtLeastOnce,
}

impl Delivery {
    /// Word in records and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

/// Status pages.
#[derive(Clone, Debug)]
pub struct Http {
    /// Loopback by default; port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
}

/// One MQTT broker.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// Name in counters and log.
    pub name: Name,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Client id: the broker keeps the session under it.
    pub client_id: String,
    /// How long the broker keeps the session while the agent is away.
    pub session_expiry: Duration,
    /// As whom to connect; `None`: anonymous.
    pub credentials: Option<Credentials>,
    /// What to subscribe to.
    pub topics: Vec<Topic>,
    /// Plain text beyond loopback is accepted, because of this.
    pub plaintext_accepted: Option<String>,
}

/// How alarms are told on the plant's own network.
#[derive(Clone, Debug)]
pub struct Annunciation {
    /// Name of the broker, and the topic below which retained messages tell of alarms.
    pub mqtt: Option<(Name, String)>,
    /// A program that is run when alarms change.
    pub command: Option<AlarmCommand>,
}

/// A program that is run when alarms change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmCommand {
    /// Absolute path.
    pub program: PathBuf,
    /// What it is given.
    pub arguments: Vec<String>,
    /// At most one run in so long.
    pub every: Duration,
}

/// User and password at a broker. It never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password, from a file of its own; empty where there is none.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A topic template and the shape of what is published there.
#[derive(Clone, Debug)]
pub struct Topic {
    /// `plant/{area}/{asset}/{point}`: `{name}` captures one level.
    pub template: String,
    /// Shape of the payload.
    pub shape: Shape,
    /// Asset, where neither template nor payload name it.
    pub asset: Option<Name>,
    /// Point, where neither template nor payload name it.
    pub point: Option<Name>,
}

/// Where in a JSON value things stand. Pointers follow RFC 6901; the empty one is the whole value.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// An array of values, each of the shape described by the rest.
    pub array: Option<String>,
    /// Asset id.
    pub asset: Option<String>,
    /// Point id.
    pub point: Option<String>,
    /// The value of one point.
    pub value: Option<String>,
    /// An object whose keys are points.
    pub values: Option<String>,
    /// The value is a waveform block `{t0, fs, unit, scale, samples}`.
    pub waveform: bool,
    /// Time.
    pub time: Option<String>,
    /// Its unit.
    pub time_unit: TimeUnit,
    /// Quality: `good`/`uncertain`/`bad`, a boolean, or an OPC UA status code.
    pub quality: Option<String>,
    /// The source's sequence number.
    pub sequence: Option<String>,
}

impl Shape {
    /// Whether `key` of the object at `pointer` is something that the shape names itself, such as the time, and no point.
    pub fn names(&self, pointer: &str, key: &str) -> bool {
        let named = [&self.asset, &self.time, &self.quality, &self.sequence];
        named.into_iter().flatten().any(|other| other.strip_prefix(pointer).and_then(|rest| rest.strip_prefix('/')) == Some(key))
    }
}

/// Unit of a source's time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Decide by magnitude: below 1e11 s, below 1e14 ms, below 1e17 us, else ns; text is ISO 8601.
    #[default]
    Auto,
    /// Seconds since 1970, fractions allowed.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// ISO 8601 with an offset.
    Iso8601,
    /// ISO 8601 without one, in this IANA zone.
    Iso8601Local(String),
}

/// One serial port.
#[derive(Clone, Debug)]
pub struct Serial {
    /// Name in counters and log.
    pub name: Name,
    /// Device, best by stable name.
    pub path: PathBuf,
    /// Bits per second.
    pub baud: u32,
    /// What is spoken on it.
    pub format: SerialFormat,
}

impl Serial {
    /// The sensor nodes on it, by id; none where no nodes speak.
    pub fn nodes(&self) -> &BTreeMap<u32, Node> {
        static NONE: BTreeMap<u32, Node> = BTreeMap::new();
        if let SerialFormat::Node { nodes } = &self.format { nodes } else { &NONE }
    }
}

/// What is spoken on a serial port.
#[derive(Clone, Debug)]
pub enum SerialFormat {
    /// The node protocol: acknowledged, resent.
    Node {
        /// Nodes by id.
        nodes: BTreeMap<u32, Node>,
    },
    /// Lines of separated values.
    Csv(CsvLines),
    /// One JSON object a line.
    Json {
        /// Asset, where the object does not name it.
        asset: Option<Name>,
        /// Where things stand in the object.
        shape: Shape,
    },
}

/// A sensor node on a port.
#[derive(Clone, Debug)]
pub struct Node {
    /// Asset it sits on.
    pub asset: Name,
    /// Point prefix per channel number: channel 0 named `de-h` gives `de-h.v_rms` and so on, and raw blocks of `de-h`; an empty name gives the bare
    /// quantity, and no raw blocks.
    pub channels: Vec<String>,
}

/// Lines of separated values, also a recorded file.
#[derive(Clone, Debug)]
pub struct CsvLines {
    /// Asset of all values.
    pub asset: Name,
    /// Separator.
    pub separator: u8,
    /// Decimal sign is a comma.
    pub decimal_comma: bool,
    /// Columns in order: a point id, `ts` for the time, empty for none. `None`: a header names them.
    pub columns: Option<Vec<String>>,
    /// Unit of the time column.
    pub time_unit: TimeUnit,
}
