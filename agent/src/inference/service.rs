//! Instruments that people work on: out of service (ISA-18.2-2016, state H), their status `check_function` (NAMUR NE 107: the signal is temporarily not
//! valid since somebody works on the device).
//!
//! A value that a calibrator or a loose plug gives is none of the machine's. So while an instrument is out of service its readings have no usable value,
//! which the score then does without as it does for one that failed, the limits of its points do not apply, and its faults are no faults. The log keeps
//! the readings as they come. It returns by the word of a person, or by itself at a time that was said.
use std::collections::{BTreeMap, BTreeSet};

use hark_protocol::topics::{Event, InstrumentStatus, LaneName, Name, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Emit, Shared,
    alarm_record::Told,
    alarms::Silence,
    instrument::{self, Change, Instrument},
    report,
    run::AssetRun,
};
use crate::{config, record::Body, source::node_report};

/// The instruments of an asset that are out of service, and until when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Service {
    out: BTreeMap<Name, Option<Timestamp>>,
}

impl Service {
    /// Whether `instrument` is out of service.
    pub(super) fn is_out(&self, instrument: &str) -> bool {
        self.out.contains_key(instrument)
    }

    /// Those that are.
    pub(super) fn instruments(&self) -> impl Iterator<Item = &Name> {
        self.out.keys()
    }

    /// When the next of them returns by itself.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.out.values().flatten().copied().min()
    }

    /// Those whose time is over at `now`.
    fn over(&self, now: Timestamp) -> Vec<Name> {
        self.out.iter().filter(|(_, until)| until.is_some_and(|until| until <= now)).map(|(id, _)| id.clone()).collect()
    }
}

/// The instrument behind each point of `asset`: the waveform that it is computed from, else as [`instrument::of_point`] says.
pub(super) fn instruments_of(asset: &config::Asset) -> BTreeMap<Name, Name> {
    let waveform_of = |point: &str| {
        asset.waveforms.iter().map(|waveform| &waveform.id).find(|id| point.strip_prefix(&***id).is_some_and(|rest| rest.starts_with('.')))
    };
    let instrument = |point: &Name| waveform_of(point).cloned().unwrap_or_else(|| instrument::of_point(point).into());
    asset.points.iter().map(|point| (point.id.clone(), instrument(&point.id))).collect()
}

impl AssetRun {
    /// Whether the instrument behind `point` is out of service.
    pub(super) fn is_worked_on(&self, point: &str) -> bool {
        let service = &self.state.service;
        !service.out.is_empty() && self.instrument_of.get(point).is_some_and(|instrument| service.is_out(instrument))
    }

    /// Takes `instrument` out of service until `until`, or says how long it stays so.
    pub(super) fn take_out(
        &mut self,
        instrument: Name,
        until: Option<Timestamp>,
        told: &Told,
        shared: &mut Shared,
        emit: &mut Emit<'_>,
    ) -> Result<(), &'static str> {
        if !self.instrument_of.values().any(|known| *known == instrument) {
            return Err("the asset has no such instrument; give the id of a point, or of the waveform that it is computed from");
        }
        let before = self.status_of(&instrument);
        self.state.service.out.insert(instrument.clone(), until);
        self.tell_service(&instrument, before, told, shared, emit);
        Ok(())
    }

    /// Returns `instrument` to service.
    pub(super) fn put_back(&mut self, instrument: &Name, told: &Told, shared: &mut Shared, emit: &mut Emit<'_>) -> Result<(), &'static str> {
        let before = self.status_of(instrument);
        self.state.service.out.remove(instrument).ok_or("the instrument is not out of service")?;
        self.tell_service(instrument, before, told, shared, emit);
        Ok(())
    }

    /// Those whose time is over at `now` return by themselves.
    pub(super) fn end_service(&mut self, now: Timestamp, shared: &mut Shared, emit: &mut Emit<'_>) {
        for instrument in self.state.service.over(now) {
            // It is out, so it can be put back.
            let _ = self.put_back(&instrument, &Told::default(), shared, emit);
        }
    }

    /// Sensors behind channels of a node begin, or end, to test themselves, as a record of their source says.
    pub(super) fn self_test(&mut self, event: &Event, shared: &mut Shared, emit: &mut Emit<'_>) {
        let Some((is_testing, channels)) = node_report::self_test_of(event) else { return };
        let is_of = |point: usize| self.cleaned_id(point).is_some_and(|id| channels.iter().any(|channel| config::is_of_channel(id, channel)));
        let of_node: Vec<usize> =
            self.instruments.iter().enumerate().filter(|(_, (_, points))| points.iter().any(|&point| is_of(point))).map(|(index, _)| index).collect();
        for index in of_node {
            self.change_test(index, shared, emit, |instrument, ts| if is_testing { instrument.begin_test(ts) } else { instrument.end_test() });
        }
    }

    /// A measurement of `point` came: its instrument does not test itself any more, whatever became of the record that says so.
    pub(super) fn end_test_by(&mut self, point: &str, shared: &mut Shared, emit: &mut Emit<'_>) {
        let ts = emit.stamp.ts;
        if !self.state.instruments.iter().any(|instrument| instrument.outlived_test(ts)) {
            return;
        }
        let of_point = |index: &usize| self.instruments[*index].1.iter().any(|&other| self.cleaned_id(other).is_some_and(|id| **id == *point));
        if let Some(index) = (0..self.instruments.len()).find(of_point).filter(|index| self.state.instruments[*index].outlived_test(ts)) {
            self.change_test(index, shared, emit, |instrument, _| instrument.end_test());
        }
    }

    fn change_test(&mut self, index: usize, shared: &mut Shared, emit: &mut Emit<'_>, change: impl FnOnce(&mut Instrument, Timestamp)) {
        let id = self.instruments[index].0.clone();
        let before = self.status_of(&id);
        change(&mut self.state.instruments[index], emit.stamp.ts);
        let to = self.status_of(&id);
        if to != before {
            shared.counters.instrument_changes += 1;
            emit.push(LaneName::Events, Body::Event(report::self_test(&id, &Change { from: before, to, reason: None }).into()));
        }
    }

    /// Silences the limits that do not apply: those of instruments that are out of service, and those of a running machine while it is known not to run.
    pub(super) fn silence_inapplicable(&mut self, told: &Told, shared: &mut Shared, emit: &mut Emit<'_>) {
        for shown in self.state.alarms.set_inapplicable(self.inapplicable(), self.config.alarm.latch) {
            self.emit_alarm(&shown, told, shared, emit);
        }
    }

    /// Points whose limits do not apply now, and why.
    pub(super) fn inapplicable(&self) -> BTreeMap<Name, Silence> {
        let is_running = self.state.is_running();
        let silence = |point: &config::Point| {
            let limits = point.limits.as_ref()?;
            let until = self.instrument_of.get(&point.id).and_then(|instrument| self.state.service.out.get(instrument));
            let in_hand = until.map(|until| Silence::OutOfService { until: *until });
            in_hand.or((limits.only_running && !is_running).then_some(Silence::Suppressed))
        };
        self.config.points.iter().filter_map(|point| Some((point.id.clone(), silence(point)?))).collect()
    }

    /// Instruments that are configured no longer cannot be worked on.
    pub(super) fn forget_unknown_instruments(&mut self) {
        let known: BTreeSet<&Name> = self.instrument_of.values().collect();
        self.state.service.out.retain(|id, _| known.contains(id));
    }

    fn status_of(&self, instrument: &Name) -> InstrumentStatus {
        report::instruments(&self.state).into_iter().find(|(id, _)| id == instrument).map_or(InstrumentStatus::Normal, |(_, status)| status)
    }

    /// What people did with an instrument shows at once: nothing has to be waited for that they know.
    fn tell_service(&mut self, instrument: &Name, before: InstrumentStatus, told: &Told, shared: &mut Shared, emit: &mut Emit<'_>) {
        // What its values showed before is not continued.
        let judged = self.instruments.iter().zip(&mut self.state.instruments).find(|((id, _), _)| id == instrument);
        if let Some(((_, points), state)) = judged {
            // A test of its own goes on.
            if state.status() != InstrumentStatus::CheckFunction {
                *state = Instrument::default();
            }
            self.state.cleaners_mut().enumerate().filter(|(point, _)| points.contains(point)).for_each(|(_, cleaner)| cleaner.restart());
        }
        let to = self.status_of(instrument);
        if to != before {
            shared.counters.instrument_changes += 1;
            let event = report::instrument(instrument, &Change { from: before, to, reason: None }, None);
            let event = Event { actor: told.actor.clone(), ..event };
            emit.push(LaneName::Events, Body::Event(event.into()));
        }
        self.silence_inapplicable(told, shared, emit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_from_a_waveform_is_of_its_sensor() {
        let text = "id = \"m\"\n[[point]]\nid = \"de-h2.temperature\"\nunit = \"Cel\"\n[[point]]\nid = \"nde.v_rms\"\nunit = \"mm/s\"\n\
                    [[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\nfeatures = [\"v_rms\", \"env.bpfo\"]\nspeed_rpm = 1480.0\n\
                    bearing = { elements = 9, element_mm = 7.94, pitch_mm = 39.04 }\nenvelope_band_hz = [2000.0, 4000.0]\n";
        let of = instruments_of(&config::check_asset_text("m.toml", text).unwrap());
        let instrument = |point: &str| of.get(point).map(|instrument| &**instrument);
        assert_eq!(
            ["de-h.v_rms", "de-h.env.bpfo", "de-h.fault.outer", "de-h2.temperature", "nde.v_rms", "de-h"].map(instrument),
            [Some("de-h"), Some("de-h"), Some("de-h"), Some("de-h2.temperature"), Some("nde"), None]
        );
    }
}
