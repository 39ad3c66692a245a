//! What is known at this moment, from records read back from Kafka and from the agent's `/metrics`: the ground of view, lines and summary.
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use hark_protocol::topics::{Alarm, AlarmState, Asset, Event, Phase, Prediction, Priority};

use crate::{
    ledger::Ledger,
    machines::{MACHINES, Machine},
    pulse::{Link, Pulse, Scrape},
};

/// Scores kept per machine for the sparkline.
const HISTORY: usize = 240;
/// Changes kept until they are printed.
const NOTES: usize = 256;

/// Everything that is shown.
#[derive(Debug)]
pub struct Scene {
    /// When the agent was started.
    started: Instant,
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
    /// The agent's answers to `/metrics`.
    pub pulse: Pulse,
    /// The agent has ended, whoever ended it.
    pub agent_ended: bool,
    /// Largest event time seen, milliseconds since 1970: the machines' "now".
    pub now_ms: i64,
    /// Why nothing can be read back at present.
    pub problem: Option<String>,
    /// The first record that could not be read.
    pub unreadable: Option<String>,
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
    /// Advice is: a score over its limit asks for a look and for no response.
    Advice,
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
            Self::Advice => "ADVICE: have a look",
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
        let is_advice = self.alarm.as_ref().is_some_and(|alarm| alarm.priority == Priority::Advice);
        match (self.phase, self.alarm.as_ref().map(|alarm| alarm.state)) {
            (None, _) => Standing::Waiting,
            (_, Some(AlarmState::ActiveUnacknowledged | AlarmState::ActiveAcknowledged)) if is_advice => Standing::Advice,
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
            pulse: Pulse::new(started),
            agent_ended: false,
            now_ms: 0,
            problem: None,
            unreadable: None,
            stopping: None,
            notes: VecDeque::new(),
        }
    }

    /// The agent is about to start.
    pub fn start(&mut self, now: Instant) {
        (self.started, self.pulse) = (now, Pulse::new(now));
    }

    /// Since the agent was started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything stops, and at present `what`.
    pub fn stopping(&mut self, what: &'static str) {
        self.stopping = Some(what);
        self.note(format!("stopping: {what}"));
    }

    /// Changes since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.notes.drain(..).collect()
    }

    /// Different records of `topic` that came back.
    pub fn count(&self, topic: &str) -> u64 {
        self.topics.get(topic).copied().unwrap_or(0)
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
        let at_s = self.elapsed().as_secs_f64();
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
        let at_s = self.elapsed().as_secs_f64();
        let raised = alarm.state == AlarmState::ActiveUnacknowledged;
        let text = if raised {
            self.alarms += 1;
            let word = if alarm.priority == Priority::Advice { "ADVICE" } else { "ALARM" };
            format!("{id}: {word}, {}. {}", alarm.what, alarm.advice.as_deref().unwrap_or_default())
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
        let before = self.pulse.link(at);
        self.pulse.take(scrape, at);
        match (before, self.pulse.link(at)) {
            (Link::NotReached, Link::Connected) => self.note("gateway: Kafka connected".to_owned()),
            (Link::Away(_), Link::Connected) => self.note("gateway: Kafka connected again".to_owned()),
            (Link::Connected, Link::Away(_)) => self.note("gateway: Kafka away, records wait in the buffer".to_owned()),
            _ => {}
        }
    }

    /// A record came that cannot be read.
    pub fn unreadable(&mut self, text: String) {
        if self.unreadable.is_none() {
            self.note(text.clone());
            self.unreadable = Some(text);
        }
    }

    fn phase(&mut self, id: &str, phase: Phase) {
        let at_s = self.elapsed().as_secs_f64();
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
        self.notes.push_back(Note { at: self.elapsed(), text });
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
