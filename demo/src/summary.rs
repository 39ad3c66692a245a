//! What the demo found: counts, the machines' stories, and whether it went as it should.
use std::{collections::BTreeMap, fmt::Write};

use hark_protocol::topics::{LaneName, Phase};
use serde::Serialize;

use crate::{
    ledger::Stretch,
    machines::Fate,
    pulse::Scrape,
    scene::{MachineScene, Scene},
};

/// From this running time on, faulty machines must have alarmed.
const JUDGED_FROM_S: f64 = 85.0;

/// What the agent accepted, as far as it could be found out.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Last seq by incarnation and lane, from the buffer of the stopped agent; `None` where it could not be opened.
    pub buffer: Option<Vec<(Stretch, u64)>>,
    /// `/metrics`, last asked after the sensors had stopped.
    pub metrics: Option<Scrape>,
}

/// The summary, in the form of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Records accepted in the lane of readings.
    pub readings_accepted: u64,
    /// Different readings that came back from Kafka.
    pub readings_delivered: u64,
    /// Predictions that came back.
    pub predictions: u64,
    /// Alarms raised.
    pub alarms: u64,
    /// Records of all lanes accepted by the buffer.
    pub records_accepted: u64,
    /// Different records of all lanes that came back.
    pub records_delivered: u64,
    /// Accepted and never came back.
    pub lost: u64,
    /// Came back again.
    pub duplicated: u64,
    /// Records that the agent named in gap events.
    pub gap_records: u64,
    /// In the order of the view.
    pub machines: Vec<MachineSummary>,
    /// From the agent's start to the request to stop.
    pub seconds: f64,
    /// Kafka was the embedded stand-in.
    pub embedded_kafka: bool,
    /// MQTT was the embedded stand-in.
    pub embedded_mqtt: bool,
    /// What was not as it should be; empty is good.
    pub faults: Vec<String>,
}

/// One machine's story.
#[derive(Clone, Debug, Serialize)]
pub struct MachineSummary {
    /// Asset id.
    pub asset: &'static str,
    /// `healthy` or `fault`: what the demo arranged.
    pub expected: &'static str,
    /// The arranged fault.
    pub fault: Option<&'static str>,
    /// Phase at the end; `null` if nothing of it came back.
    pub phase: Option<Phase>,
    /// An alarm was raised at some time.
    pub alarmed: bool,
    /// Commissioning ended, seconds since the start.
    pub commissioned_s: Option<f64>,
    /// First score over its limit.
    pub warned_s: Option<f64>,
    /// First alarm.
    pub alarmed_s: Option<f64>,
    /// At the end.
    pub health: Option<f64>,
    /// At the end.
    pub score: Option<f64>,
    /// Limit of the score.
    pub limit: Option<f64>,
}

/// How it ran, beside the counts.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// From the agent's start to the request to stop.
    pub seconds: f64,
    /// Kafka was the embedded stand-in.
    pub embedded_kafka: bool,
    /// MQTT was the embedded stand-in.
    pub embedded_mqtt: bool,
    /// The agent ended before it was asked to.
    pub agent_ended_early: bool,
    /// What went wrong on the way.
    pub faults: Vec<String>,
}

impl Summary {
    /// Counts and judges.
    pub fn of(scene: &Scene, accepted: &Accepted, course: Course) -> Self {
        let lanes = LaneName::ALL.map(|lane| LaneCount::of(scene, accepted, lane));
        let mut summary = Self {
            readings_accepted: lanes[LaneName::Inputs as usize].accepted,
            readings_delivered: scene.count("readings.v1"),
            predictions: scene.count("predictions.v1"),
            alarms: scene.alarms,
            records_accepted: lanes.iter().map(|lane| lane.accepted).sum(),
            records_delivered: scene.ledger.delivered(),
            lost: lanes.iter().map(|lane| lane.lost).sum(),
            duplicated: scene.ledger.duplicates(),
            gap_records: scene.gap_records,
            machines: scene.machines.iter().map(MachineSummary::of).collect(),
            seconds: (course.seconds * 10.0).round() / 10.0,
            embedded_kafka: course.embedded_kafka,
            embedded_mqtt: course.embedded_mqtt,
            faults: course.faults,
        };
        summary.faults.extend(scene.unreadable.clone());
        summary.judge(accepted, course.agent_ended_early);
        summary
    }

    fn judge(&mut self, accepted: &Accepted, agent_ended_early: bool) {
        if accepted.buffer.is_none() && accepted.metrics.is_none() {
            self.faults.push("what the agent accepted could not be found out".to_owned());
        }
        match self.lost {
            0 => {}
            // What the buffer has accepted it still has: the next start of that agent would send it.
            lost if agent_ended_early => self.faults.push(format!("{lost} records did not come back: the agent ended before it had sent them")),
            lost => self.faults.push(format!("{lost} records were lost")),
        }
        if self.duplicated > 0 {
            self.faults.push(format!("{} records came twice", self.duplicated));
        }
        if self.seconds < JUDGED_FROM_S {
            return;
        }
        for machine in &self.machines {
            match (machine.expected, machine.alarmed) {
                ("healthy", true) => self.faults.push(format!("{} is healthy and alarmed", machine.asset)),
                ("fault", false) => self.faults.push(format!("{} has a fault and did not alarm", machine.asset)),
                _ => {}
            }
            if machine.phase != Some(Phase::Scoring) {
                self.faults.push(format!("{} is not scored", machine.asset));
            }
        }
    }

    /// The same for people.
    pub fn text(&self) -> String {
        let mut text = format!("\nHark demo, {:.0} s\n", self.seconds);
        for machine in &self.machines {
            let at = |moment: Option<f64>| moment.map_or_else(|| "never".to_owned(), |s| format!("{s:.0} s"));
            let arranged = machine.fault.unwrap_or("healthy, changing load");
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "  {:<8} {arranged:<24} learned {:<6} over limit {:<6} told {}",
                machine.asset,
                at(machine.commissioned_s),
                at(machine.warned_s),
                at(machine.alarmed_s)
            );
        }
        let stand_ins = if self.embedded_kafka { " (embedded stand-in)" } else { "" };
        let _ = writeln!(
            text,
            "  {} inputs accepted, of which {} readings came back from Kafka{stand_ins}",
            self.readings_accepted, self.readings_delivered
        );
        let _ = writeln!(text, "  {} predictions, {} alarms", self.predictions, self.alarms);
        let _ = writeln!(text, "  {} records in all: {} lost, {} twice", self.records_accepted, self.lost, self.duplicated);
        for fault in &self.faults {
            let _ = writeln!(text, "  NOT AS IT SHOULD BE: {fault}");
        }
        text
    }
}

impl MachineSummary {
    fn of(machine: &MachineScene) -> Self {
        let fault = match machine.machine.fate {
            Fate::Healthy => None,
            Fate::Fault { what, .. } => Some(what),
        };
        let milestones = machine.milestones;
        Self {
            asset: machine.machine.asset,
            expected: machine.machine.fate.word(),
            fault,
            phase: machine.phase,
            alarmed: milestones.alarmed_s.is_some(),
            commissioned_s: milestones.commissioned_s.map(tenths),
            warned_s: milestones.warned_s.map(tenths),
            alarmed_s: milestones.alarmed_s.map(tenths),
            health: machine.health.map(tenths),
            score: machine.score,
            limit: machine.limit,
        }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// One lane: what was accepted, by the highest of three witnesses, and what of it never came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LaneCount {
    accepted: u64,
    lost: u64,
}

impl LaneCount {
    fn of(scene: &Scene, accepted: &Accepted, lane: LaneName) -> Self {
        // Last seq of every stretch of the lane: what the buffer says, or what came back if that is more.
        let mut last: BTreeMap<&Stretch, u64> = scene.ledger.highest().filter(|(stretch, _)| stretch.lane == lane).collect();
        for (stretch, seq) in accepted.buffer.iter().flatten().filter(|(stretch, _)| stretch.lane == lane) {
            let known = last.entry(stretch).or_default();
            *known = (*known).max(*seq);
        }
        let by_seq: u64 = last.values().sum();
        let missing: u64 = last.iter().map(|(stretch, last)| scene.ledger.missing(stretch, *last)).sum();
        // The counter of the running agent is the second witness: it would see a tail that the buffer has forgotten.
        let by_counter = accepted.metrics.as_ref().map_or(0, |scrape| scrape.appended[lane as usize]);
        let unseen = by_counter.saturating_sub(scene.ledger.delivered_in(lane));
        Self { accepted: by_seq.max(by_counter), lost: missing.max(unseen) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn stretch(lane: LaneName) -> Stretch {
        Stretch { gateway: "gw".into(), incarnation: "a".into(), lane }
    }

    fn scene(seqs: &[u64]) -> Scene {
        let mut scene = Scene::new(Instant::now());
        for seq in seqs {
            scene.ledger.take(stretch(LaneName::Inputs), *seq);
        }
        scene
    }

    #[track_caller]
    fn check(seqs: &[u64], buffer: Option<u64>, counter: Option<u64>, accepted: u64, lost: u64) {
        let metrics = counter.map(|count| Scrape { appended: [count, 0, 0, 0], ..Scrape::default() });
        let buffer = buffer.map(|last| vec![(stretch(LaneName::Inputs), last)]);
        let count = LaneCount::of(&scene(seqs), &Accepted { buffer, metrics }, LaneName::Inputs);
        assert_eq!(count, LaneCount { accepted, lost });
    }

    #[test]
    fn a_loss_is_found_by_whichever_witness_saw_it() {
        check(&[1, 2, 3], Some(3), Some(3), 3, 0);
        check(&[1, 3], Some(3), Some(3), 3, 1); // inside
        check(&[1, 2, 3], Some(5), Some(3), 5, 2); // a tail that only the buffer knows
        check(&[1, 2, 3], Some(0), Some(4), 4, 1); // a tail that only the counter knows
        check(&[1, 4], None, None, 4, 2); // nobody knows more than what came back
        check(&[1, 2, 3, 4], Some(4), Some(2), 4, 0); // accepted after the last look at the counter
        check(&[], Some(2), None, 2, 2);
    }

    #[test]
    fn a_short_run_is_not_judged_by_its_alarms_and_a_long_one_is() {
        let accepted = Accepted { buffer: Some(Vec::new()), metrics: None };
        let summary = |seconds| Summary::of(&scene(&[]), &accepted, Course { seconds, ..Course::default() });
        assert_eq!(summary(20.0).faults, Vec::<String>::new());
        assert!(summary(90.0).faults.contains(&"fan-7 has a fault and did not alarm".to_owned()));
        let twice = Summary::of(&scene(&[1, 1]), &accepted, Course::default());
        assert_eq!((twice.duplicated, twice.faults), (1, vec!["1 records came twice".to_owned()]));
    }
}
