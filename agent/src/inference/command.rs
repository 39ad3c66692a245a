//! What people ask for, applied once, and answered by an event that says who asked and what came of it.
use std::collections::VecDeque;

use hark_protocol::topics::{Event, EventKind, Name};
use serde::{Deserialize, Serialize};

/// Commands whose ids are remembered. A sender repeats a command within minutes, people give a few a day.
const REMEMBERED: usize = 1_024;

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

/// The answer to `command`: done, or why not.
pub(super) fn answer(command: &Event, outcome: Result<(), &'static str>) -> Event {
    Event {
        text: outcome.err().map(Into::into),
        what: command.command.clone(),
        actor: command.actor.clone(),
        result: Some(if outcome.is_ok() { "success" } else { "refused" }.into()),
        source: command.source.clone(),
        command: command.command.clone(),
        command_id: command.command_id.clone(),
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
