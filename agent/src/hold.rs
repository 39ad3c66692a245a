//! Who still needs the records of the log: only what is behind every reader may be given back.
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use hark_protocol::topics::LaneName;

use crate::buffer::Position;

/// The stored places of all readers. A place that is not stored would be read again after a crash, so only stored ones count.
#[derive(Debug)]
pub struct Hold {
    places: Mutex<Places>,
    checkpoint_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Places {
    forward: [Position; LaneName::ALL.len()],
    /// What Kafka has, stored here or not.
    delivered: [Position; LaneName::ALL.len()],
    /// Inference's checkpoint in the inputs lane.
    checkpoint: Position,
}

impl Hold {
    /// Holds everything until the readers say where they are.
    pub fn new() -> Self {
        Self { places: Mutex::default(), checkpoint_wanted: AtomicBool::new(false) }
    }

    /// Forward stored its cursor of `lane`.
    pub fn forward_stored(&self, lane: LaneName, position: Position) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).forward[lane as usize] = position;
    }

    /// Kafka has `lane` up to `position`.
    pub fn delivered(&self, lane: LaneName, position: Position) {
        let places = &mut self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let delivered = &mut places.delivered[lane as usize];
        *delivered = position.max(*delivered);
    }

    /// Inference stored a checkpoint: everything up to `position` of the inputs lane is in it.
    pub fn checkpoint_stored(&self, position: Position) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).checkpoint = position;
    }

    /// Up to where Kafka has `lane`: what is removed of that is not lost, whether a full disk takes forward's cursor or not.
    pub fn in_kafka(&self, lane: LaneName) -> Position {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.forward[lane as usize].max(places.delivered[lane as usize])
    }

    /// Where inference's stored checkpoint is.
    pub fn checkpoint(&self) -> Position {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).checkpoint
    }

    /// As after a start: only what is stored is known.
    #[cfg(test)]
    pub fn forget_delivered(&self) {
        self.places.lock().unwrap().delivered = Default::default();
    }

    /// Asks inference to store a checkpoint now.
    pub fn want_checkpoint(&self) {
        self.checkpoint_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_checkpoint_wanted(&self) -> bool {
        self.checkpoint_wanted.swap(false, Ordering::Relaxed)
    }

    /// The last record of `lane` that nobody needs.
    pub fn behind(&self, lane: LaneName) -> Position {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let forward = places.forward[lane as usize];
        if lane == LaneName::Inputs { forward.min(places.checkpoint) } else { forward }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_wait_for_the_slower_reader() {
        let hold = Hold::new();
        let at = |seq| Position { ordinal: 1, seq };
        hold.forward_stored(LaneName::Inputs, at(9));
        hold.forward_stored(LaneName::Alarms, at(5));
        assert_eq!(hold.behind(LaneName::Inputs), Position::default());
        hold.checkpoint_stored(at(7));
        hold.delivered(LaneName::Alarms, at(6));
        assert_eq!(hold.behind(LaneName::Inputs), at(7));
        assert_eq!((hold.behind(LaneName::Alarms), hold.in_kafka(LaneName::Alarms)), (at(5), at(6)), "what is not stored would be read again");
    }
}
