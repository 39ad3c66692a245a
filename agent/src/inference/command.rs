//! What people ask for, applied once, and answered by an event that says who asked and what came of it.
use std::collections::VecDeque;

use hark_protocol::topics::{AlarmState, Event, EventKind, LaneName, Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Emit, Shared,
    alarm_record::Told,
    alarms::{Condition, Shown, Silence},
    ready::Ready,
    run::{AssetRun, started},
};
use crate::{record::Body, source::snapshot, status::Outcome};

/// What was shelved for longer would be forgotten; who wants that takes the asset out of service. Seven days.
const SHELVE_MOST_US: i64 = 7 * 86_400 * 1_000_000;
/// What may be said of an alarm.
const LABELS: [&str; 4] = ["true_alarm", "false_alarm", "not_a_fault", "fixed"];
/// Commands whose ids are remembered: a year of what people give at ten a day, which is as long as their topic keeps them.
const REMEMBERED: usize = 4_096;

/// The commands applied last, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Commands {
    applied: VecDeque<Name>,
}

impl Commands {
    /// Whether the command with this id is new; it no longer is afterwards.
    pub(super) fn is_new(&mut self, id: &Name) -> bool {
        if self.applied.contains(id) {
            return false;
        }
        if self.applied.len() == REMEMBERED {
            self.applied.pop_front();
        }
        self.applied.push_back(id.clone());
        true
    }
}

/// What a command says beyond its subject, in `detail_json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    until: Option<String>,
    label: Option<String>,
    /// A waveform, for a snapshot; an instrument, for its service.
    point: Option<Name>,
}

impl Detail {
    fn of(event: &Event) -> Self {
        event.detail_json.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    fn until(&self) -> Result<Option<Timestamp>, &'static str> {
        let parsed = self.until.as_deref().map(str::parse).transpose();
        parsed.map_err(|_| "`until` is no time; expected RFC 3339 such as 2026-12-01T06:00:00Z")
    }
}

impl AssetRun {
    /// Does what a person asks for, and says of it what they may not expect; otherwise says why not.
    pub(super) fn command(&mut self, event: &Event, shared: &mut Shared, emit: &mut Emit<'_>) -> Outcome {
        let (id, detail) = (event.alarm_id.as_ref(), Detail::of(event));
        let told = Told { actor: event.actor.clone(), comment: event.text.clone() };
        let (alarms, latch) = (&mut self.state.alarms, self.config.alarm.latch);
        let changed = match event.command.as_deref() {
            Some("acknowledge") => some_of(alarms.acknowledge(id), "there is no such alarm to acknowledge")?,
            Some("shelve") => alarms.silence(id, Silence::Shelved { until: shelved_until(&detail, emit.stamp.ts)? })?,
            Some("unshelve") => alarms.end_silence(id, AlarmState::Shelved, latch)?,
            Some("out_of_service") if detail.point.is_some() => {
                let until = later(detail.until()?, emit.stamp.ts)?;
                return done(self.take_out(detail.point.unwrap_or_default(), until, &told, shared, emit));
            }
            Some("return_to_service") if detail.point.is_some() => {
                return done(self.put_back(&detail.point.unwrap_or_default(), &told, shared, emit));
            }
            // Who works on a machine works on all of it.
            Some("out_of_service") => alarms.silence(None, Silence::OutOfService { until: later(detail.until()?, emit.stamp.ts)? })?,
            Some("return_to_service") => alarms.end_silence(None, AlarmState::OutOfService, latch)?,
            Some("label") => return done(self.label(id, &detail)),
            Some("commissioning_accepted") => return self.accept_commissioning(event.actor.as_ref(), shared, emit),
            Some("maintenance_done") => self.begin_anew(event, shared, emit),
            Some(snapshot::COMMAND) => return self.grant_snapshot(event),
            _ => return Err("this version does not know the command".into()),
        };
        changed.iter().for_each(|shown| self.emit_alarm(shown, &told, shared, emit));
        Ok(None)
    }

    /// The source sends the block, and has said with the command whether it may; what inference knows is whether there is such a point.
    fn grant_snapshot(&self, event: &Event) -> Outcome {
        let point = event.detail_json.as_deref().and_then(snapshot::point_of).ok_or("a snapshot needs a `point`")?;
        // Which of its points come from a node is a matter of sources.
        let known = self.config.waveforms.iter().any(|waveform| waveform.id == point) || self.config.takes_channel(&point);
        match snapshot::refusal_of(event) {
            _ if !known => Err("the asset has no such waveform".into()),
            Some(refusal) => Err(refusal),
            None => Ok(None),
        }
    }

    /// The command itself is the record that training reads.
    fn label(&self, alarm_id: Option<&Name>, detail: &Detail) -> Result<(), &'static str> {
        if !detail.label.as_deref().is_some_and(|label| LABELS.contains(&label)) {
            return Err("a label is one of true_alarm, false_alarm, not_a_fault, fixed");
        }
        if alarm_id.is_some_and(|id| !self.state.raised.has(id)) {
            return Err("this asset never had such an alarm; its id is that of a record of the asset, such as 12/4711");
        }
        Ok(())
    }

    /// The machine is another one now: what was learned of it, and the alarm that came from that, are over. The old baseline stays published.
    fn begin_anew(&mut self, event: &Event, shared: &Shared, emit: &mut Emit<'_>) -> Vec<Shown> {
        self.state.recommission();
        self.begin_life(&shared.forecasters);
        self.ready = Ready::default();
        let done = Event { text: event.text.clone(), actor: event.actor.clone(), what: Some("done".into()), ..Event::new(EventKind::Maintenance) };
        emit.push(LaneName::Events, Body::Event(done.into()));
        emit.push(LaneName::Events, Body::Event(started(event.actor.clone()).into()));
        self.state.alarms.end(&Condition::Anomaly).into_iter().collect()
    }
}

fn done(done: Result<(), &'static str>) -> Outcome {
    done.map(|()| None).map_err(Into::into)
}

fn some_of(changed: Vec<Shown>, none: &'static str) -> Result<Vec<Shown>, &'static str> {
    if changed.is_empty() { Err(none) } else { Ok(changed) }
}

fn shelved_until(detail: &Detail, now: Timestamp) -> Result<Timestamp, &'static str> {
    let until = later(detail.until()?, now)?.ok_or("shelving needs an end, `until`")?;
    if until.0.saturating_sub(now.0) > SHELVE_MOST_US {
        return Err("7 days is the longest that an alarm may be shelved; take the asset out of service instead");
    }
    Ok(until)
}

fn later(until: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, &'static str> {
    if until.is_some_and(|until| until <= now) { Err("`until` has passed already") } else { Ok(until) }
}

/// The answer to `command`: done, or why not.
pub(super) fn answer(command: &Event, outcome: &Outcome) -> Event {
    Event {
        text: outcome.clone().unwrap_or_else(Some),
        what: command.command.clone(),
        actor: command.actor.clone(),
        result: Some(if outcome.is_ok() { "success" } else { "refused" }.into()),
        source: command.source.clone(),
        command: command.command.clone(),
        command_id: command.command_id.clone(),
        // What it was about, for who reads the answer alone.
        detail_json: command.detail_json.clone(),
        alarm_id: command.alarm_id.clone(),
        ..Event::new(EventKind::Audit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commands_are_remembered() {
        let mut commands = Commands::default();
        let id = |n: usize| -> Name { format!("c{n}").into() };
        assert!((0..=REMEMBERED).all(|n| commands.is_new(&id(n))));
        assert!(!commands.is_new(&id(1)) && !commands.is_new(&id(REMEMBERED)));
        assert!(commands.is_new(&id(0)), "forgotten by then");
    }
}
