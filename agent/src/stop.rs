//! How a stage on a thread of its own learns that it shall end.
use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// A request to stop. It cannot be taken back.
#[derive(Debug, Default)]
pub struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Asks for it and wakes who waits here.
    pub fn request(&self) {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it was asked for.
    pub fn requested(&self) -> bool {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it, at most `timeout`; true if it was asked for.
    pub fn wait(&self, timeout: Duration) -> bool {
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_timeout_while(requested, timeout, |requested| !*requested).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_the_wait() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::ZERO));
        stop.request();
        assert!(stop.wait(Duration::from_secs(3600)));
    }
}
