//! What is known at this moment, from records read back from Kafka and from the agent's `/metrics`: the ground of view, lines and summary.
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use hark_protocol::topics::{Alarm, AlarmState, Asset, Event, Gateway, LaneName, Phase, Prediction};

use crate::{
    ledger::Ledger,
    machines::{MACHINES, Machine},
    metrics::Metrics,
};

/// Scores kept per machine for the sparkline.
const HISTORY: usize = 240;
/// Answers of `/metrics` that the rate is taken over: commits come in steps.
const RECENT: usize = 6;
/// Changes kept until they are printed.
const NOTES: usize = 256;

/// Everything that is shown.
#[derive(Debug)]
pub struct Scene {
    /// When the agent was started.
    pub started: Instant,
    /// In the order of [`MACHINES`].
    pub machines: Vec<MachineScene>,
    /// What came back.
    pub ledger: Ledger,
    /// Records read, by topic name without prefix.
    pub topics: BTreeMap<&'static str, u64>,
    /// Alarms raised: occurrences, not changes.
    pub alarms: u64,
    /// Records that gap events name.
    pub gap_records: u64,
    /// State of the agent's way to Kafka, as its last heartbeat says.
    pub link: Option<String>,
    /// The last good answer of `/metrics`.
    pub metrics: Option<Scrape>,
    /// Readings accepted per second over the last answers.
    pub readings_per_s: f64,
    /// When those answers came, and the readings accepted by then.
    recent: VecDeque<(Instant, u64)>,
    /// Largest event time seen, milliseconds since 1970: the machines' "now".
    pub now_ms: i64,
    /// A problem that the person should know.
    pub problem: Option<String>,
    /// What is being ended, while everything stops.
    pub stopping: Option<&'static str>,
    notes: VecDeque<Note>,
}

/// A change worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Since the start.
    pub at: Duration,
    /// One sentence.
    pub text: String,
}

/// One answer of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Readings durably appended.
    pub readings: u64,
    /// Records durably appended, by lane.
    pub appended: [u64; LaneName::ALL.len()],
    /// Records that Kafka has not acknowledged, by lane.
    pub waiting: [u64; LaneName::ALL.len()],
    /// Resident memory of the agent, bytes.
    pub resident_bytes: u64,
}

impl Scrape {
    /// Reads a page.
    pub fn of(page: &Metrics) -> Self {
        let by_lane = |name: &str| LaneName::ALL.map(|lane| page.get(&format!("{name}{{lane=\"{lane}\"}}")));
        Self {
            readings: page.sum("hark_source_readings_accepted_total"),
            appended: by_lane("hark_buffer_appended_total"),
            waiting: by_lane("hark_buffer_records"),
            resident_bytes: page.get("hark_process_resident_memory_bytes"),
        }
    }

    /// Records that Kafka has not acknowledged.
    pub fn waiting_in_all(&self) -> u64 {
        self.waiting.iter().sum()
    }
}

/// What is known of one machine.
#[derive(Clone, Debug)]
pub struct MachineScene {
    /// What the demo arranged.
    pub machine: Machine,
    /// `None` before its first record.
    pub phase: Option<Phase>,
    /// 0 to 1 while commissioning.
    pub progress: f64,
    /// 0 to 100.
    pub health: Option<f64>,
    /// Now.
    pub score: Option<f64>,
    /// Limit of the score.
    pub limit: Option<f64>,
    /// Score over limit.
    pub above: bool,
    /// The last change of its alarm.
    pub alarm: Option<Alarm>,
    /// Start of the alarm's condition, milliseconds since 1970.
    pub alarm_since_ms: i64,
    /// Point that contributes most, with its share.
    pub contributor: Option<(String, f64)>,
    /// Score as a part of its limit, oldest first.
    pub history: VecDeque<f64>,
    /// When commissioning ended, the score first passed its limit, and the first alarm came; since the start.
    pub milestones: Milestones,
}

/// Moments of a machine's story, seconds since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Milestones {
    /// Commissioning ended.
    pub commissioned_s: Option<f64>,
    /// The score passed its limit for the first time.
    pub warned_s: Option<f64>,
    /// The first alarm.
    pub alarmed_s: Option<f64>,
}

/// State of a machine in one word, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// An alarm is active.
    Alarm,
    /// Score over its limit, not long enough for an alarm.
    Warning,
    /// An alarm ended and nobody acknowledged it.
    Returned,
    /// Scored, under its limit.
    Normal,
    /// Commissioning.
    Learning,
    /// Nothing read yet.
    Waiting,
}

impl Standing {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Alarm => "ALARM",
            Self::Warning => "WARNING: over its limit",
            Self::Returned => "back under its limit",
            Self::Normal => "running normally",
            Self::Learning => "learning what normal is",
            Self::Waiting => "waiting for readings",
        }
    }
}

impl MachineScene {
    fn new(machine: Machine) -> Self {
        Self {
            machine,
            phase: None,
            progress: 0.0,
            health: None,
            score: None,
            limit: None,
            above: false,
            alarm: None,
            alarm_since_ms: 0,
            contributor: None,
            history: VecDeque::with_capacity(HISTORY),
            milestones: Milestones::default(),
        }
    }

    /// Its state in one word.
    pub fn standing(&self) -> Standing {
        match (self.phase, self.alarm.as_ref().map(|alarm| alarm.state)) {
            (None, _) => Standing::Waiting,
            (_, Some(AlarmState::ActiveUnacknowledged | AlarmState::ActiveAcknowledged)) => Standing::Alarm,
            (Some(Phase::Commissioning), _) => Standing::Learning,
            _ if self.above => Standing::Warning,
            (_, Some(AlarmState::ReturnedUnacknowledged)) => Standing::Returned,
            _ => Standing::Normal,
        }
    }
}

impl Scene {
    /// Nothing known yet.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            machines: MACHINES.into_iter().map(MachineScene::new).collect(),
            ledger: Ledger::default(),
            topics: BTreeMap::new(),
            alarms: 0,
            gap_records: 0,
            link: None,
            metrics: None,
            readings_per_s: 0.0,
            recent: VecDeque::with_capacity(RECENT),
            now_ms: 0,
            problem: None,
            stopping: None,
            notes: VecDeque::new(),
        }
    }

    /// Changes since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.notes.drain(..).collect()
    }

    /// Different records of `topic` that came back.
    pub fn count(&self, topic: &str) -> u64 {
        self.topics.get(topic).copied().unwrap_or(0)
    }

    /// A heartbeat came back.
    pub fn heartbeat(&mut self, gateway: &Gateway) {
        let before = self.link.replace(gateway.link.to_string());
        if before.as_deref() != Some(&gateway.link) {
            self.note(format!("gateway: Kafka {}", gateway.link));
        }
    }

    /// An event came back.
    pub fn event(&mut self, asset: Option<&str>, event: &Event) {
        if let (Some(from), Some(to)) = (event.gap_from_seq, event.gap_to_seq) {
            self.gap_records += to.saturating_sub(from) + 1;
        }
        if let Some(text) = &event.text {
            self.note(format!("{}: {text}", asset.unwrap_or("gateway")));
        }
    }

    /// The latest state of an asset came back.
    pub fn asset(&mut self, id: &str, asset: &Asset) {
        self.phase(id, asset.phase);
        let Some(machine) = self.machine(id) else { return };
        machine.progress = asset.commissioning_progress.unwrap_or(1.0);
    }

    /// A prediction came back.
    pub fn prediction(&mut self, id: &str, prediction: &Prediction) {
        self.phase(id, prediction.phase);
        let at_s = self.started.elapsed().as_secs_f64();
        let Some(machine) = self.machine(id) else { return };
        machine.health = prediction.health;
        (machine.score, machine.limit) = (prediction.score, prediction.limit);
        machine.contributor = prediction.contrib_1_point.as_ref().map(|point| (point.to_string(), prediction.contrib_1_share.unwrap_or(0.0)));
        if let (Some(score), Some(limit)) = (prediction.score, prediction.limit) {
            if machine.history.len() == HISTORY {
                machine.history.pop_front();
            }
            machine.history.push_back(score / limit);
        }
        if prediction.above == machine.above {
            return;
        }
        machine.above = prediction.above;
        let text = if prediction.above {
            machine.milestones.warned_s.get_or_insert(at_s);
            let first = prediction.contrib_1_point.as_deref().unwrap_or("unknown");
            format!("{id}: WARNING, score over its limit, mostly by {first}")
        } else {
            format!("{id}: score back under its limit")
        };
        self.note(text);
    }

    /// A change of an alarm came back.
    pub fn alarm(&mut self, id: &str, alarm: Alarm) {
        let at_s = self.started.elapsed().as_secs_f64();
        let raised = alarm.state == AlarmState::ActiveUnacknowledged;
        let text = if raised {
            self.alarms += 1;
            format!("{id}: ALARM, {}. {}", alarm.what, alarm.advice.as_deref().unwrap_or_default())
        } else {
            format!("{id}: alarm now {}", state_words(alarm.state))
        };
        if let Some(machine) = self.machine(id) {
            if raised {
                machine.milestones.alarmed_s.get_or_insert(at_s);
            }
            machine.alarm_since_ms = alarm.since.parse::<hark_protocol::topics::Timestamp>().map_or(0, |since| since.as_millis());
            machine.alarm = Some(alarm);
        }
        self.note(text.trim_end().to_owned());
    }

    /// `/metrics` answered.
    pub fn scraped(&mut self, scrape: Scrape, at: Instant) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((at, scrape.readings));
        if let (Some((first_at, first)), true) = (self.recent.front(), self.recent.len() > 1) {
            self.readings_per_s = scrape.readings.saturating_sub(*first) as f64 / (at - *first_at).as_secs_f64().max(0.001);
        }
        self.metrics = Some(scrape);
    }

    fn phase(&mut self, id: &str, phase: Phase) {
        let at_s = self.started.elapsed().as_secs_f64();
        let Some(machine) = self.machine(id) else { return };
        if machine.phase.replace(phase) == Some(phase) {
            return;
        }
        let text = match phase {
            Phase::Commissioning => format!("{id}: learning what normal is"),
            Phase::Scoring => {
                machine.milestones.commissioned_s.get_or_insert(at_s);
                format!("{id}: learned; from now on it is scored")
            }
        };
        self.note(text);
    }

    fn machine(&mut self, id: &str) -> Option<&mut MachineScene> {
        self.machines.iter_mut().find(|machine| machine.machine.asset == id)
    }

    fn note(&mut self, text: String) {
        if self.notes.len() == NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { at: self.started.elapsed(), text });
    }
}

/// An alarm state in words.
pub fn state_words(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Normal => "normal",
        AlarmState::ActiveUnacknowledged => "active, not acknowledged",
        AlarmState::ActiveAcknowledged => "active, acknowledged",
        AlarmState::ReturnedUnacknowledged => "gone before anyone acknowledged it",
        AlarmState::Shelved => "shelved",
        AlarmState::Suppressed => "suppressed",
        AlarmState::OutOfService => "out of service",
    }
}
