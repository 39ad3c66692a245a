//! `[annunciation]`: how alarms are told on the plant's own network.
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use hark_protocol::topics::Name;

use super::faults::Faults;
use crate::{
    config::{AlarmCommand, Annunciation, Mqtt, file::AnnunciationTable},
    source::template::Template,
};

/// More often a horn is noise, less often it is no alarm.
const COMMAND_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

pub(super) fn check_annunciation(raw: AnnunciationTable, brokers: &[Mqtt], faults: &mut Faults) -> Annunciation {
    if raw.broker.is_none() && raw.command.is_empty() {
        faults.add("annunciation", "says nothing; expected `broker`, `command` or both");
    }
    let every = faults.duration("annunciation.command_every", &raw.command_every, COMMAND_EVERY);
    let mut words = raw.command.into_iter();
    let command = words.next().map(|program| AlarmCommand { program: PathBuf::from(program), arguments: words.collect(), every });
    if let Some(command) = command.as_ref().filter(|command| !command.program.is_absolute()) {
        let program = command.program.display();
        faults.add("annunciation.command", format!("`{program}` is no absolute path; expected the program, then its arguments, without a shell"));
    }
    let mqtt = raw.broker.map(|broker| check_broker(broker.into(), raw.topic, brokers, faults));
    Annunciation { mqtt, command }
}

fn check_broker(broker: Name, topic: String, brokers: &[Mqtt], faults: &mut Faults) -> (Name, String) {
    const KEY: &str = "annunciation.topic";
    if topic.is_empty() || topic.contains(['+', '#', '\0']) || topic.starts_with(['$', '/']) || topic.ends_with('/') {
        faults.add(KEY, format!("`{}` is no topic to publish below; expected for example `hark/alarms`", topic.escape_debug()));
    }
    match brokers.iter().find(|known| known.name == broker) {
        None => {
            let known: Vec<&str> = brokers.iter().map(|broker| &*broker.name).collect();
            faults.add("annunciation.broker", format!("`{broker}` is no `[[mqtt]]` of this file; known are: {}", known.join(", ")));
        }
        Some(known) => {
            // What is told there would come back as readings.
            let reads = known.topics.iter().find(|read| Template::new((*read).clone()).captures(&format!("{topic}/gateway/asset")).is_some());
            if let Some(read) = reads {
                faults.add(KEY, format!("`{topic}` is below `{}`, which is read on the same broker; expected another one", read.template));
            }
        }
    }
    (broker, topic)
}
