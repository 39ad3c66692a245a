//! A machine as it is configured: its points, waveforms, limits and delays.
use std::{collections::BTreeMap, time::Duration};

use hark_protocol::{node::Quantity, topics::Name};
use serde::{Deserialize, Serialize};

use crate::signal::{diagnosis::Fault, speed::Search};

/// One machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asset {
    /// Unique in the fleet.
    pub id: Name,
    /// For people.
    pub name: Name,
    /// ISA-95 path.
    pub path: Option<Name>,
    /// Machine class.
    pub class: Option<Name>,
    /// Rows of the model are so far apart.
    pub grid: Duration,
    /// A value older than this is missing, unless its point says otherwise.
    pub stale_after: Duration,
    /// Between predictions while nothing changes; zero: one per row.
    pub predict_every: Duration,
    /// Commissioning of the anomaly score.
    pub commissioning: Commissioning,
    /// When a score over its limit is an alarm.
    pub alarm: AlarmSettings,
    /// How far ahead its trends are followed.
    #[serde(default)]
    pub forecast: Forecast,
    /// When a faulty reading is a faulty instrument.
    #[serde(default)]
    pub instrument: InstrumentSettings,
    /// How its operating state is told; `None`: it is not, and all rows are taken for normal running.
    #[serde(default)]
    pub operating: Option<Operating>,
    /// Scalar points in the order of the file, derived features included.
    pub points: Vec<Point>,
    /// Points that carry waveforms.
    pub waveforms: Vec<Waveform>,
    /// SHA-256 of the resolved configuration of this asset, hex.
    pub hash: Name,
}

impl Asset {
    /// Whether a source may call one of its points so: by id or column.
    pub fn takes(&self, name: &str) -> bool {
        self.points.iter().any(|point| &*point.id == name || point.column.as_deref() == Some(name))
    }

    /// A value of `point` that is older than this is missing.
    pub fn stale_after(&self, point: &Point) -> Duration {
        point.stale_after.unwrap_or(self.stale_after)
    }

    /// After so long without a reading of a scored point it is silent: its own limit, or that of its points where all of them hold longer.
    pub fn silent_after(&self) -> Duration {
        let shortest = self.points.iter().filter(|point| point.scored).map(|point| self.stale_after(point)).min();
        shortest.map_or(self.stale_after, |shortest| shortest.max(self.stale_after))
    }

    /// Whether the point with this id holds the strength of a fault that rules name.
    pub fn is_fault(&self, point: &str) -> bool {
        self.waveforms.iter().any(|waveform| waveform.faults().into_iter().any(|fault| *waveform.point_of(fault) == *point))
    }

    /// Whether a node's channel may be called so: some of its features are points.
    pub fn takes_channel(&self, channel: &str) -> bool {
        Quantity::ALL.iter().any(|quantity| self.takes(&format!("{channel}.{}", quantity.name())))
    }
}

/// Whether `point` may come from the `channel` of a node: a quantity behind its name, or a bare one where it has none.
pub fn is_of_channel(point: &str, channel: &str) -> bool {
    let quantity = if channel.is_empty() { Some(point) } else { point.strip_prefix(channel).and_then(|rest| rest.strip_prefix('.')) };
    Quantity::ALL.iter().any(|known| Some(known.name()) == quantity)
}

/// Fewer rows say nothing of how far a score strays.
pub const COMMISSIONING_ROWS_LEAST: usize = 130;
/// More rows than there ever are: commissioning ends by the word of a person alone.
pub const ROWS_UNTIL_ACCEPTED: usize = u32::MAX as usize;

/// Commissioning of the anomaly score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commissioning {
    /// Rows of normal running to collect in all, of each regime.
    pub rows: usize,
    /// Starts of the machine to see meanwhile; 0 where nothing tells its operating state.
    #[serde(default)]
    pub starts: u32,
    /// Afterwards the means follow accepted normal running, slowly and not far.
    #[serde(default = "adapts")]
    pub adapts: bool,
}

fn adapts() -> bool {
    true
}

/// How trends are followed, and how far ahead; and the model that knows how such machines fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// So much running is one value of a trend.
    pub window: Duration,
    /// Ascending: the probability of a limit within each of them is told.
    pub horizons: [Duration; 3],
    /// Farther ahead nothing is told.
    pub cap: Duration,
    /// An end that is so likely within the first horizon is an alarm, 0 to 1.
    #[serde(default = "likely")]
    pub alarm: f64,
    /// Of machines whose failures a model has seen.
    #[serde(default)]
    pub model: Option<ForecastModel>,
}

/// A model of Stage B for a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForecastModel {
    /// Folder of its bundle under the directory of models, such as `turbofan-rul/with-age`.
    pub folder: Name,
    /// Rows of the machine's life before the first one of its records; `None` where nobody knows.
    pub age_rows: Option<u64>,
    /// SHA-256 of the manifest of the bundle in use, hex; `None` until it is opened, and where it is refused.
    #[serde(default)]
    pub bundle: Option<Name>,
    /// Why the bundle in the folder is not in use, in words.
    #[serde(default)]
    pub refused: Option<Name>,
}

impl Forecast {
    /// SHA-256 of the manifest of the forecasting bundle in use; `None` without one.
    pub fn bundle(&self) -> Option<&Name> {
        self.model.as_ref()?.bundle.as_ref()
    }
}

impl Default for Forecast {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self { window: Duration::from_secs(3_600), horizons: [days(1), days(7), days(30)], cap: days(365), alarm: likely(), model: None }
    }
}

fn likely() -> f64 {
    0.5
}

/// When a score over its limit becomes an alarm and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmSettings {
    /// Over the limit for so long.
    pub on_delay: Duration,
    /// Back below the middle between it and the median of normal rows for so long; of a point, behind the deadband of its limit.
    pub off_delay: Duration,
    /// An alarm that has returned waits for a person, also where one acknowledged it while it stood.
    #[serde(default)]
    pub latch: bool,
}

/// When the status of an instrument (NE 107) follows what is wrong with its readings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstrumentSettings {
    /// Something is wrong for so long.
    pub on_delay: Duration,
    /// Nothing is wrong any more for so long.
    pub off_delay: Duration,
}

impl Default for InstrumentSettings {
    fn default() -> Self {
        Self { on_delay: Duration::from_secs(30), off_delay: Duration::from_secs(60) }
    }
}

/// How the operating state of a machine is told from one point: below `idle` it is off, from `running` on it is running, idle in between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operating {
    /// The point: speed, current, a vibration level, or a state of the control as a number.
    pub point: Name,
    /// From here on idle; `None`: a machine that does not run is off.
    pub idle: Option<Threshold>,
    /// From here on running; above `idle`.
    pub running: Threshold,
    /// For so long after a change, and after the last quick move of `point`, the machine is transient.
    pub settle: Duration,
    /// A move by more than this per second, in the unit of `point`, is quick, measured over `settle`; above 0.
    pub steady_rate: Option<f64>,
    /// Idle is learned and scored too, as a regime of its own.
    pub score_idle: bool,
    /// Load regimes of running; `None`: it is one regime.
    pub load: Option<Load>,
}

/// A threshold with its deadband, both in the unit of the point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Reached from below at this value.
    pub reached_at: f64,
    /// Left again below this one, which is not above `reached_at`.
    pub left_below: f64,
}

/// Load regimes: one below the first bound, one from each bound on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The point that tells the load.
    pub point: Name,
    /// Bounds, ascending, at least one.
    pub bounds: Vec<Threshold>,
}

impl Operating {
    /// How many regimes are learned and scored, each with weights of its own.
    pub fn regimes(&self) -> usize {
        self.load.as_ref().map_or(1, |load| load.bounds.len() + 1) + usize::from(self.score_idle)
    }

    /// Whether a regime of `other` is the same in this one: other delays change no regime, other thresholds do.
    pub fn has_regimes_of(&self, other: &Self) -> bool {
        let Self { settle, steady_rate, .. } = self.clone();
        Self { settle, steady_rate, ..other.clone() } == *self
    }
}

/// A scalar point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Unique within the asset.
    pub id: Name,
    /// UCUM unit.
    pub unit: Name,
    /// Name in files and lines; the id where not given.
    pub column: Option<String>,
    /// Plausible range; a value outside is bad.
    pub range: Option<(f64, f64)>,
    /// Text to number: `RUN = 1`.
    pub map: BTreeMap<String, f64>,
    /// Takes part in the score.
    pub scored: bool,
    /// An older value is missing; `None`: as the asset says.
    #[serde(default)]
    pub stale_after: Option<Duration>,
    /// What is asked of its values beyond the range.
    #[serde(default)]
    pub checks: Checks,
    /// Limits beyond which its value is an alarm, from the first reading on.
    #[serde(default)]
    pub limits: Option<Box<Limits>>,
    /// Class of machines by which its value, a velocity RMS in mm/s, is in a severity zone: a name of [`crate::signal::severity::CLASSES`].
    #[serde(default)]
    pub severity: Option<Name>,
    /// That it is below what was learned is no anomaly, as of vibration while a machine runs in.
    #[serde(default)]
    pub ignore_fall: bool,
}

/// Which limit of a point, named after OPC 10000-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Below it a response is needed at once.
    LowLow,
    /// Below it a response is needed within the shift.
    Low,
    /// Above it a response is needed within the shift.
    High,
    /// Above it a response is needed at once.
    HighHigh,
}

impl Level {
    /// From the lowest up.
    pub const ALL: [Self; 4] = [Self::LowLow, Self::Low, Self::High, Self::HighHigh];

    /// Beyond it is above it.
    pub fn is_upper(self) -> bool {
        matches!(self, Self::High | Self::HighHigh)
    }

    /// Its name for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::LowLow => "low-low",
            Self::Low => "low",
            Self::High => "high",
            Self::HighHigh => "high-high",
        }
    }
}

/// Limits of a point in its unit, and what whoever set them knows about what is beyond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// See [`Level`].
    pub low_low: Option<f64>,
    /// See [`Level`].
    pub low: Option<f64>,
    /// See [`Level`].
    pub high: Option<f64>,
    /// See [`Level`].
    pub high_high: Option<f64>,
    /// How far back behind a limit a value counts as back, 0 or more.
    pub deadband: f64,
    /// They do not apply while the machine is known not to run, and are suppressed by design then: a pump that is off has no pressure. It needs `[operating]`.
    pub only_running: bool,
    /// What has happened beyond them, in the place of "`x` above its high limit".
    #[serde(default)]
    pub what: Option<Name>,
    /// Likely cause.
    pub cause: Option<Name>,
    /// What to check.
    pub check: Option<Name>,
    /// What happens otherwise.
    pub otherwise: Option<Name>,
    /// ISO 14224 failure mode.
    pub failure_mode: Option<Name>,
}

impl Limits {
    /// The limit of `level`, if there is one.
    pub fn of(&self, level: Level) -> Option<f64> {
        match level {
            Level::LowLow => self.low_low,
            Level::Low => self.low,
            Level::High => self.high,
            Level::HighHigh => self.high_high,
        }
    }
}

/// What is asked of the values of a point: nothing, unless configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// Fastest change, in the point's unit per second, above 0.
    pub max_rate: Option<f64>,
    /// When a value that hardly moves is stuck.
    pub stuck: Option<Stuck>,
    /// Which ends of the range are end stops of the instrument.
    pub clips: Option<Clips>,
}

/// When a value that hardly moves is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stuck {
    /// It did not leave a band for so long.
    pub after: Duration,
    /// Width of the band in the point's unit, 0 or more.
    pub within: f64,
}

/// Ends of a range at which the values of an instrument are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clips {
    /// The lower one.
    Low,
    /// The upper one.
    High,
    /// Either.
    Both,
}

/// A point that carries waveform blocks; its features become scalar points `<id>.<feature>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waveform {
    /// Point id of the block.
    pub id: Name,
    /// UCUM unit expected of a sample: `[g]` or `m/s2`.
    pub unit: Name,
    /// Features to compute, by name: `v_rms`, `a_rms`, `crest`, `kurtosis`, `peak_to_peak`, `env.bpfo` …
    pub features: Vec<Name>,
    /// Shaft speed where no point tells it, Hz.
    pub speed_hz: Option<f64>,
    /// Point that tells the shaft speed, with its unit (`/min` or `Hz`).
    pub speed_point: Option<Name>,
    /// Where no point tells it, the line at 1x is looked for so far about `speed_hz`, as a part of it; 0: never.
    #[serde(default)]
    pub speed_search: f64,
    /// Bearing for the envelope lines.
    pub bearing: Option<Bearing>,
    /// Band of the envelope, Hz.
    pub envelope_band_hz: (f64, f64),
    /// Class for the severity zone: that of its velocity.
    #[serde(default)]
    pub class: Option<Name>,
    /// Teeth of the gear on the shaft.
    #[serde(default)]
    pub teeth: Option<u32>,
    /// Vanes of the pump on the shaft.
    #[serde(default)]
    pub vanes: Option<u32>,
    /// How often the rules that name faults are asked; `None` where no speed is known.
    #[serde(default)]
    pub diagnose_every: Option<Duration>,
}

impl Waveform {
    /// Id of the point with the strength of a fault.
    pub fn point_of(&self, fault: Fault) -> Name {
        format!("{}.{}", self.id, fault.indicator()).into()
    }

    /// Where the line at 1x is looked for; `None`: nowhere.
    pub fn search(&self) -> Option<Search> {
        self.speed_hz.filter(|_| self.speed_search > 0.0).map(|nominal_hz| Search { nominal_hz, share: self.speed_search })
    }

    /// Id of the point with the speed that was found by the line at 1x, null where none was: then the orders of that block are those of the nominal speed.
    pub fn speed_tracked(&self) -> Name {
        format!("{}.speed_tracked", self.id).into()
    }

    /// The faults that its rules can name, by what is known of the machine.
    pub fn faults(&self) -> Vec<Fault> {
        let can_name = |fault: &Fault| match fault {
            Fault::Outer | Fault::Inner | Fault::Ball | Fault::Cage => self.bearing.is_some(),
            Fault::Unbalance | Fault::Misalignment | Fault::Looseness => self.class.is_some(),
            Fault::Gear => self.teeth.is_some(),
            Fault::Cavitation => self.vanes.is_some(),
        };
        self.diagnose_every.map_or(Vec::new(), |_| Fault::ALL.into_iter().filter(can_name).collect())
    }
}

/// Geometry of a rolling bearing with its outer ring fixed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bearing {
    /// Number of rolling elements.
    pub elements: u32,
    /// Diameter of an element, mm.
    pub element_mm: f64,
    /// Pitch diameter, mm.
    pub pitch_mm: f64,
    /// Contact angle, degrees.
    pub contact_deg: f64,
}
