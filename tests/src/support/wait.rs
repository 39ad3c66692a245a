//! Waiting for conditions. The only place in the tests that sleeps.
#![expect(clippy::disallowed_methods, reason = "between two questions to another program there is nothing to wait on; deadlines are by the clock")]
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Asks `condition` until it holds.
///
/// # Errors
/// After `deadline`, with `what` in the message.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, deadline, || Ok(condition().then_some(())))
}

/// Asks `probe` until it has an answer. It is asked at least once.
///
/// # Errors
/// After `deadline`, with `what` in the message; and at once when `probe` fails, which is for what no waiting can mend.
pub fn wait_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let give_up_at = Instant::now() + deadline;
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if Instant::now() >= give_up_at {
            bail!("waited {deadline:?} in vain for {what}");
        }
        std::thread::sleep(POLL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_asked_until_it_holds() {
        let mut asked = 0;
        let waited = wait_until("three questions", Duration::from_secs(60), || {
            asked += 1;
            asked == 3
        });
        assert!(waited.is_ok());
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_deadline_names_what_was_waited_for() {
        let failure = wait_until("godot", Duration::ZERO, || false).expect_err("it never holds");
        assert_eq!(failure.to_string(), "waited 0ns in vain for godot");
    }
}
