//! Errors with their causes.
use std::error::Error;

/// `error` and what it was caused by, outermost first, for one line of a log.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
