//! Faults of a configuration, collected; and the words that many keys share: durations, sizes, names.
use std::{fmt, ops::RangeInclusive, path::Path, time::Duration};

use hark_protocol::topics::Name;

/// A day.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

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

/// Takes note of faults on the way through the files.
#[derive(Default)]
pub(super) struct Faults {
    /// File that is being looked at.
    pub(super) file: String,
    found: Vec<String>,
    /// A file could not be read: what it holds is not known, so nothing is said about names that it may define.
    pub(super) unread: bool,
}

impl Faults {
    pub(super) fn add(&mut self, key: &str, what: impl fmt::Display) {
        self.found.push(format!("{}: {key}: {what}", self.file));
    }

    /// A file that gives nothing to check.
    pub(super) fn unread(&mut self, path: &Path, what: impl fmt::Display) {
        self.unread = true;
        self.found.push(format!("{}: {what}", path.display()));
    }

    pub(super) fn into_result<T>(self, checked: Option<T>) -> Result<T, ConfigError> {
        match checked {
            Some(checked) if self.found.is_empty() => Ok(checked),
            _ => Err(ConfigError { faults: self.found }),
        }
    }

    /// A duration; the ends of `range` are allowed.
    pub(super) fn duration(&mut self, key: &str, text: &str, range: RangeInclusive<Duration>) -> Duration {
        let Some(duration) = parse_duration(text) else {
            self.add(key, format!("`{text}` is no duration; write for example `250ms`, `30s`, `15m`, `7d`"));
            return *range.start();
        };
        if !range.contains(&duration) {
            self.add(key, format!("`{text}` is out of range; expected {} to {}", written(*range.start()), written(*range.end())));
        }
        duration
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

/// A duration such as `250ms`, `30s`, `15m`, `7d`; `None` where the text is none.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    // The friendly format has no days in a signed duration; a plant writes `7d`.
    let days = || text.strip_suffix('d')?.trim().parse::<u32>().ok().map(|days| DAY * days);
    text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok()).or_else(days)
}

/// As a plant writes it: in the largest unit that needs no fraction.
fn written(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}
