//! Lines of text: each change as a line, and a block with the state every few seconds.
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use hark_protocol::topics::LaneName;

use crate::scene::{MachineScene, Scene, Standing};

/// Between two blocks.
const BLOCK_EVERY: Duration = Duration::from_secs(5);

/// Prints what happens.
#[derive(Debug)]
pub struct Plain {
    block_due: Instant,
}

impl Plain {
    /// Prints its first block after five seconds.
    pub fn new() -> Self {
        Self { block_due: Instant::now() + BLOCK_EVERY }
    }

    /// Prints what is new.
    ///
    /// # Errors
    /// When nobody reads the output any more.
    pub fn turn(&mut self, scene: &mut Scene) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for note in scene.take_notes() {
            writeln!(out, "[{:>5.1} s] {}", note.at.as_secs_f64(), note.text)?;
        }
        if Instant::now() >= self.block_due {
            self.block_due += BLOCK_EVERY;
            writeln!(out, "[{:>5.1} s] status", scene.started.elapsed().as_secs_f64())?;
            for line in status(scene) {
                writeln!(out, "    {line}")?;
            }
        }
        out.flush()
    }
}

/// The present state, a line per machine and three for the way to Kafka.
pub fn status(scene: &Scene) -> Vec<String> {
    let mut lines: Vec<String> = scene.machines.iter().map(machine).collect();
    lines.extend(data_path(scene));
    lines.extend(scene.problem.iter().map(|problem| format!("problem: {problem}")));
    lines
}

fn machine(machine: &MachineScene) -> String {
    let standing = machine.standing();
    let name = machine.machine.asset;
    let detail = match standing {
        Standing::Waiting => String::new(),
        Standing::Learning => format!("{:.0} %", 100.0 * machine.progress),
        _ => format!("health {}, {}", health(machine), score(machine)),
    };
    format!("{name:<8} {:<23} {detail}", standing.words()).trim_end().to_owned()
}

/// Three lines: flow, buffer, Kafka.
pub fn data_path(scene: &Scene) -> [String; 3] {
    let scrape = scene.metrics.clone().unwrap_or_default();
    let link = scene.link.as_deref().unwrap_or("not reached yet");
    let memory_mib = scrape.resident_bytes >> 20;
    let waiting = LaneName::ALL.map(|lane| format!("{lane} {}", scrape.waiting[lane as usize])).join(", ");
    let [readings, predictions, alarms, events] = ["readings.v1", "predictions.v1", "alarms.v1", "events.v1"].map(|topic| scene.count(topic));
    let states: u64 = ["assets.v1", "gateways.v1", "baselines.v1"].map(|topic| scene.count(topic)).iter().sum();
    [
        format!("sensors > {:.0} readings/s > agent ({memory_mib} MiB) > Kafka {link}", scene.readings_per_s),
        format!("waiting in the buffer: {waiting}"),
        format!("in Kafka: readings {readings}, predictions {predictions}, alarms {alarms}, events {events}, states {states}"),
    ]
}

/// Health as a number, or that it is unknown.
pub fn health(machine: &MachineScene) -> String {
    machine.health.map_or_else(|| "unknown".to_owned(), |health| format!("{health:.0}"))
}

/// Score against its limit.
pub fn score(machine: &MachineScene) -> String {
    match (machine.score, machine.limit) {
        (Some(score), Some(limit)) => format!("score {} of limit {}", number(score), number(limit)),
        _ => "no score".to_owned(),
    }
}

/// Three digits are enough for a glance.
pub fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::Phase;

    use super::*;

    #[test]
    fn a_machine_is_told_in_words() {
        let mut scene = Scene::new(Instant::now());
        assert_eq!(machine(&scene.machines[0]), "pump-1   waiting for readings");
        (scene.machines[0].phase, scene.machines[0].progress) = (Some(Phase::Commissioning), 0.42);
        assert_eq!(machine(&scene.machines[0]), "pump-1   learning what normal is 42 %");
        let scored = &mut scene.machines[0];
        (scored.phase, scored.health, scored.score, scored.limit, scored.above) = (Some(Phase::Scoring), Some(41.2), Some(2.0), Some(1.5), true);
        assert_eq!(machine(scored), "pump-1   WARNING: over its limit health 41, score 2.00 of limit 1.50");
    }
}
