//! The legend: what is being shown, and what comes next, in words that follow from what was read.
use crate::{
    machines::{ALARM_AFTER, Fate},
    scene::{Scene, Standing},
};

/// Two sentences or three: now, and next.
pub fn legend(scene: &Scene) -> String {
    if let Some(what) = scene.stopping {
        return format!(
            "Stopping: {what}. The sensors end first, then the agent empties its buffer, then everything that came back is counted. Ctrl-C ends at once, \
             without counting."
        );
    }
    let of = |standing: Standing| names(scene, |machine_standing, _| machine_standing == standing);
    let (alarms, warnings, learning) = (of(Standing::Advice), of(Standing::Warning), of(Standing::Learning));
    let quiet_faults = names(scene, |standing, fate| matches!(fate, Fate::Fault { .. }) && standing >= Standing::Returned);
    if scene.machines.iter().all(|machine| machine.standing() == Standing::Waiting) {
        return "Starting: the agent opens its buffer and finds sensors, MQTT and Kafka. Next: it learns what normal looks like, for about 35 s."
            .to_owned();
    }
    if !learning.is_empty() && alarms.is_empty() && warnings.is_empty() {
        return format!(
            "Learning what normal looks like: {learning}. Nothing is scored yet, since nobody told the agent anything about these machines. Next: a limit \
             from the last of these rows, then scores."
        );
    }
    if !alarms.is_empty() {
        let next = if quiet_faults.is_empty() {
            "The machine under changing load should stay quiet.".to_owned()
        } else {
            format!("Next: {quiet_faults}, where a fault grows too.")
        };
        return format!("ADVICE on {alarms}: the score stayed over its limit, and the contributors say where to look. {next}");
    }
    if !warnings.is_empty() {
        let delay_s = ALARM_AFTER.as_secs();
        return format!("First warning: {warnings} behaves otherwise than learned. Next: advice, if the score stays over its limit for {delay_s} s.");
    }
    format!("Normal running: every score is under its limit. Next: hidden faults begin to grow ({}); scores rise, health falls.", faults(scene))
}

fn names(scene: &Scene, chosen: impl Fn(Standing, Fate) -> bool) -> String {
    let chosen = scene.machines.iter().filter(|machine| chosen(machine.standing(), machine.machine.fate));
    chosen.map(|machine| machine.machine.asset).collect::<Vec<_>>().join(", ")
}

fn faults(scene: &Scene) -> String {
    let fault = |machine: &crate::scene::MachineScene| match machine.machine.fate {
        Fate::Healthy => None,
        Fate::Fault { what, after, .. } => Some(format!("{what} on {} from {} s", machine.machine.asset, after.as_secs())),
    };
    scene.machines.iter().filter_map(fault).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use hark_protocol::topics::Phase;

    use super::*;

    #[test]
    fn the_legend_follows_what_was_read() {
        let mut scene = Scene::new(Instant::now());
        assert!(legend(&scene).starts_with("Starting"));
        scene.machines.iter_mut().for_each(|machine| machine.phase = Some(Phase::Commissioning));
        assert!(legend(&scene).starts_with("Learning what normal looks like: pump-1, fan-7, motor-3"));
        scene.machines.iter_mut().for_each(|machine| machine.phase = Some(Phase::Scoring));
        assert!(legend(&scene).starts_with("Normal running"));
        scene.machines[1].above = true;
        assert!(legend(&scene).starts_with("First warning: fan-7"));
        scene.stopping = Some("the agent");
        assert!(legend(&scene).starts_with("Stopping: the agent"));
    }
}
