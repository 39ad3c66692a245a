//! The end of a run, for all its threads: a wait that ends early.
use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Set once, by the end of the run or by Ctrl-C.
#[derive(Debug, Default)]
pub struct Halt {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Halt {
    /// Asks everyone to end.
    pub fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether that was asked.
    pub fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `length`, or until it is set; true if so.
    pub fn wait(&self, length: Duration) -> bool {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_timeout_while(set, length, |set| !*set).unwrap_or_else(PoisonError::into_inner).0
    }
}
