//! How a stage on a thread of its own learns that it shall end.
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A request to stop. It cannot be taken back.
#[derive(Debug, Default)]
pub struct Stop {
    /// When it was made.
    requested: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Stop {
    /// Asks for it and wakes who waits here.
    #[expect(clippy::disallowed_methods, reason = "bounds waits alone; no decision about a record follows from it")]
    pub fn request(&self) {
        self.lock().get_or_insert_with(Instant::now);
        self.changed.notify_all();
    }

    /// Whether it was asked for.
    pub fn requested(&self) -> bool {
        self.lock().is_some()
    }

    /// What is left of `grace`, which begins with the request; `None` before it.
    #[expect(clippy::disallowed_methods, reason = "bounds waits alone; no decision about a record follows from it")]
    pub fn left_of(&self, grace: Duration) -> Option<Duration> {
        self.lock().map(|requested| grace.saturating_sub(requested.elapsed()))
    }

    /// Waits for it, at most `timeout`; true if it was asked for.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.changed.wait_timeout_while(self.lock(), timeout, |requested| requested.is_none()).unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was asked for `ago`.
    #[cfg(test)]
    pub(crate) fn requested_before(ago: Duration) -> Self {
        Self { requested: Mutex::new(Instant::now().checked_sub(ago)), changed: Condvar::new() }
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

    #[test]
    fn a_grace_begins_with_the_first_request() {
        let grace = Duration::from_secs(5);
        assert_eq!(Stop::default().left_of(grace), None);
        let stop = Stop::requested_before(Duration::from_secs(3));
        stop.request();
        assert!(stop.left_of(grace).is_some_and(|left| left <= Duration::from_secs(2) && !left.is_zero()));
        assert_eq!(stop.left_of(Duration::from_secs(2)), Some(Duration::ZERO));
    }
}
