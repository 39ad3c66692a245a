//! Faults of a configuration, collected; and the words that many keys share: durations, sizes, names.
use std::{fmt, time::Duration};

use hark_protocol::topics::Name;

/// All faults of a configuration directory.
#[derive(Debug)]
pub struct ConfigError {
    /// One line each: file, key, what is wrong, what was expected.
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration has {} fault{}", self.faults.len(), if self.faults.len() == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

#[derive(Default)]
pub(super) struct Faults {
    /// File that is being looked at.
    pub(super) file: String,
    pub(super) found: Vec<String>,
}

impl Faults {
    pub(super) fn add(&mut self, key: &str, what: impl fmt::Display) {
        self.found.push(format!("{}: {key}: {what}", self.file));
    }

    pub(super) fn duration(&mut self, key: &str, text: &str) -> Duration {
        match text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok()) {
            Some(duration) => duration,
            // The friendly format has no days in a signed duration; a plant writes `7d`.
            None => match text.strip_suffix('d').and_then(|days| days.trim().parse::<u32>().ok()) {
                Some(days) => Duration::from_secs(u64::from(days) * 86_400),
                None => {
                    self.add(key, format!("`{text}` is no duration; write for example `250ms`, `30s`, `15m`, `7d`"));
                    Duration::ZERO
                }
            },
        }
    }

    pub(super) fn bytes(&mut self, key: &str, text: &str) -> u64 {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text[digits.len()..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        match (digits.parse::<u64>().ok(), factor) {
            (Some(count), Some(factor)) => count.saturating_mul(factor),
            _ => {
                self.add(key, format!("`{text}` is no size; write for example `256 KiB`, `64 MiB`, `2 GiB`"));
                0
            }
        }
    }

    pub(super) fn name(&mut self, key: &str, text: &str) -> Name {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 120 || !text.chars().all(allowed) {
            self.add(key, format!("`{text}` is no name; use 1 to 120 of letters, digits, `-`, `_`, `.`"));
        }
        text.into()
    }
}
