//! What goes over the local socket. Positions are text, `ordinal/seq`, as everywhere where people read them.
use hark_protocol::topics::{self, Event, EventKind, FeedbackAction, LaneName, Name};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::BufferReport;
use crate::{buffer::Position, inference::AlarmFlood};

/// Longest name, id or comment.
pub const TEXT_MAX_BYTES: usize = 4_096;

/// A question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// What is in the buffer.
    Status,
    /// What is known of the machines.
    Machines,
    /// Do something about an asset.
    Command(CommandRequest),
    /// From now on an asset is configured like this.
    Change(ChangeRequest),
    /// Records of a lane.
    Export(ExportRequest),
}

impl Request {
    /// Whether asking changes nothing of what Hark does.
    pub fn is_question(&self) -> bool {
        matches!(self, Self::Status | Self::Machines | Self::Export(_))
    }
}

/// What a person asks for. It becomes a record of the inputs lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// Asset meant.
    pub asset: String,
    /// What to do.
    pub command: FeedbackAction,
    /// Alarm meant, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_id: Option<String>,
    /// Who asks; left out, it is the user at the other end of the socket, as `uid:1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// A command is applied once by its id; made if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// End of a shelving, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// `true_alarm`, `false_alarm`, `not_a_fault`, `fixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// ISO 14224 failure mode found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<String>,
    /// Point, for a snapshot; instrument, to take it out of service or return it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
}

impl CommandRequest {
    /// A command with nothing further said.
    pub fn new(asset: &str, command: FeedbackAction) -> Self {
        Self {
            asset: asset.to_owned(),
            command,
            alarm_id: None,
            actor: None,
            command_id: None,
            comment: None,
            until: None,
            label: None,
            failure_mode: None,
            point: None,
        }
    }

    /// Whether a text is longer than [`TEXT_MAX_BYTES`].
    pub fn has_text_beyond_limit(&self) -> bool {
        let Self { asset: _, command: _, alarm_id, actor, command_id, comment, until, label, failure_mode, point } = self;
        let texts = [alarm_id, actor, command_id, comment, until, label, failure_mode, point];
        texts.into_iter().flatten().any(|text| text.len() > TEXT_MAX_BYTES)
    }

    /// The record of the inputs lane, about the asset; `source` says which way the command came.
    pub fn into_event(self, source: &str) -> Event {
        let detail = json!({
            "until": self.until,
            "label": self.label,
            "failure_mode": self.failure_mode,
            "point": self.point,
        });
        Event {
            text: self.comment.map(Into::into),
            actor: self.actor.map(Into::into),
            source: Some(source.into()),
            command: Some(word(self.command).into()),
            command_id: self.command_id.map(Into::into),
            alarm_id: self.alarm_id.map(Into::into),
            detail_json: Some(detail.to_string().into()),
            ..Event::new(EventKind::Command)
        }
    }
}

/// The word of an action in records.
pub(super) fn word(action: FeedbackAction) -> String {
    serde_json::to_value(action).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The configuration of an asset, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// Asset meant; `id` in the configuration says the same.
    pub asset: String,
    /// What would stand in the asset's file, TOML.
    pub configuration: String,
    /// Who changes it; left out, as in [`CommandRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why, for those who read it later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A page of a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Lane.
    pub lane: LaneName,
    /// First position wanted; the oldest if left out.
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// Last position wanted.
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub to: Option<Position>,
    /// Most records wanted. A page may hold fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// An answer. For an export it follows after the page's lines, none of which has a field `answer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// What is in the buffer.
    Status(Box<BufferReport>),
    /// What is known of the machines.
    Machines {
        /// All that are configured, by id.
        machines: Vec<Machine>,
        /// More new alarms than a person can deal with, as long as that lasts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flood: Option<AlarmFlood>,
    },
    /// It is in the log, durably.
    Stored(Stored),
    /// The page is complete.
    End(PageEnd),
    /// It was not done.
    Error(Problem),
}

/// Where a command or change stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Its position in the inputs lane: it acts from there on.
    #[serde(with = "as_text")]
    pub position: Option<Position>,
    /// Its id in Kafka.
    pub event_id: String,
    /// Id of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// What inference did with a command: `success`, `refused`; left out where it has not come to it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it was refused, or what there is to say of what was done; a line for each part where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Configuration before a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_before: Option<String>,
    /// Configuration after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_after: Option<String>,
}

/// A machine as this gateway knows it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its id.
    pub asset: Name,
    /// As in `hark.assets.v1`.
    pub state: topics::Asset,
    /// Its alarms that are shown, the most urgent first, as in `hark.alarms.v1`.
    pub alarms: Vec<topics::Alarm>,
    /// What its scores compare with, the one in use last.
    pub baselines: Vec<BaselineSummary>,
}

/// A baseline without its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineSummary {
    /// Key in `hark.baselines.v1`.
    pub baseline_id: Name,
    /// How commissioning ended.
    pub verdict: Name,
    /// What is remarkable about it.
    pub remarks: Option<Name>,
    /// Who accepted it; `policy` where nobody had to.
    pub accepted_by: Option<Name>,
    /// Rows it was fitted on.
    pub rows: u64,
    /// Starts of the machine by then.
    #[serde(default)]
    pub starts: Option<u32>,
    /// Limit of the score.
    #[serde(default)]
    pub limit: Option<f64>,
    /// First record behind it, `inc/seq`.
    pub input_from: Name,
    /// Last one.
    pub input_to: Name,
}

impl From<&topics::Baseline> for BaselineSummary {
    fn from(baseline: &topics::Baseline) -> Self {
        Self {
            baseline_id: baseline.baseline_id.clone(),
            verdict: baseline.verdict.clone(),
            remarks: baseline.remarks.clone(),
            accepted_by: baseline.accepted_by.clone(),
            rows: baseline.rows,
            starts: baseline.starts,
            limit: Some(baseline.limit),
            input_from: baseline.input_from.clone(),
            input_to: baseline.input_to.clone(),
        }
    }
}

/// End of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEnd {
    /// Records on it.
    pub records: usize,
    /// Where to go on; `None` at the end of what was asked for.
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub next: Option<Position>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was asked for.
    pub attempted: String,
    /// What stood in the way.
    pub problem: String,
    /// What to do about it.
    pub advice: String,
    /// All faults of a configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

impl Problem {
    /// A problem without a list of faults.
    pub fn new(attempted: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { attempted: attempted.into(), problem: problem.into(), advice: advice.into(), faults: Vec::new() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.attempted, self.problem)?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))?;
        write!(f, "\n{}", self.advice)
    }
}

impl std::error::Error for Problem {}

/// Reads `ordinal/seq`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_position(text: &str) -> Result<Position, String> {
    let parsed = text.split_once('/').and_then(|(ordinal, seq)| Some(Position { ordinal: ordinal.parse().ok()?, seq: seq.parse().ok()? }));
    parsed.ok_or_else(|| format!("`{text}` is no position; expected ordinal/seq such as 3/1200, as `hark buffer status` shows them"))
}

/// An optional position as text.
pub(super) mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::{Position, parse_position};

    pub(in crate::local) fn serialize<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
        position.map(|position| position.to_string()).serialize(serializer)
    }

    pub(in crate::local) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Position>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_position(&text)).transpose().map_err(D::Error::custom)
    }
}
