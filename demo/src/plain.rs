//! Lines of text: each change as a line, and a block with the state every few seconds.
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use hark_protocol::topics::LaneName;

use crate::{
    pulse::Scrape,
    scene::{MachineScene, Scene, Standing},
};

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
            writeln!(out, "[{:>5.1} s] status", scene.elapsed().as_secs_f64())?;
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
    lines.extend(data_path(scene, Instant::now()));
    lines.extend(scene.problem.iter().map(|problem| format!("problem: Kafka {problem}")));
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
pub fn data_path(scene: &Scene, now: Instant) -> [String; 3] {
    let scrape = scene.pulse.last().cloned().unwrap_or_default();
    let waiting = LaneName::ALL.map(|lane| format!("{lane} {}", scrape.waiting[lane as usize])).join(", ");
    let [readings, predictions, alarms, events] = ["readings.v1", "predictions.v1", "alarms.v1", "events.v1"].map(|topic| scene.count(topic));
    let states: u64 = ["assets.v1", "gateways.v1", "baselines.v1"].map(|topic| scene.count(topic)).iter().sum();
    [
        flow(scene, &scrape, now),
        format!("waiting in the buffer: {waiting}"),
        format!("in Kafka: readings {readings}, predictions {predictions}, alarms {alarms}, events {events}, states {states}"),
    ]
}

/// From the sensors to Kafka, as far as it is known: an agent that says nothing is not said to be well.
fn flow(scene: &Scene, scrape: &Scrape, now: Instant) -> String {
    if scene.agent_ended {
        return "sensors > agent ended > Kafka".to_owned();
    }
    if let Some(silent) = scene.pulse.silent(now) {
        return format!("sensors > agent silent for {} s > Kafka unknown", silent.as_secs());
    }
    let (readings_per_s, memory_mib, link) = (scene.pulse.readings_per_s(), scrape.resident_bytes >> 20, scene.pulse.link(now));
    format!("sensors > {readings_per_s:.0} readings/s > agent ({memory_mib} MiB) > Kafka {link}")
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
    fn the_flow_is_told_as_far_as_it_is_known() {
        let begin = Instant::now();
        let mut scene = Scene::new(begin);
        let flow = |scene: &Scene, after_s| data_path(scene, begin + Duration::from_secs(after_s))[0].clone();
        assert_eq!(flow(&scene, 1), "sensors > 0 readings/s > agent (0 MiB) > Kafka not reached yet");
        for (at_s, readings) in [(1, 180), (2, 360)] {
            let scrape = Scrape { readings, connected: true, resident_bytes: 52 << 20, ..Scrape::default() };
            scene.scraped(scrape, begin + Duration::from_secs(at_s));
        }
        assert_eq!(flow(&scene, 4), "sensors > 180 readings/s > agent (52 MiB) > Kafka connected");
        assert_eq!(flow(&scene, 5), "sensors > agent silent for 3 s > Kafka unknown");
        let away = Scrape { readings: 540, waiting: [9, 0, 0, 0], resident_bytes: 52 << 20, ..Scrape::default() };
        scene.scraped(away, begin + Duration::from_secs(3));
        assert_eq!(flow(&scene, 4), "sensors > 180 readings/s > agent (52 MiB) > Kafka away for 2 s");
        scene.agent_ended = true;
        assert_eq!(flow(&scene, 9), "sensors > agent ended > Kafka");
        let notes: Vec<_> = scene.take_notes().into_iter().map(|note| note.text).collect();
        assert_eq!(notes, ["gateway: Kafka connected", "gateway: Kafka away, records wait in the buffer"]);
    }

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
