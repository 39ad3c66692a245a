//! What goes wrong with instruments and lines, as opposed to machines (domain reference section 6.5).
mod line;

use std::str::FromStr;
use std::time::Duration;

pub use line::Line;

/// Kinds of disturbances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Single bits of a frame change.
    BitFlip,
    /// A frame loses its end.
    Truncation,
    /// Several whole frames in a row are lost.
    BurstLoss,
    /// A frame comes twice.
    Duplicate,
    /// Two frames change places.
    Reorder,
    /// The boot loader's text stands between frames.
    BootBanner,
    /// The node restarts for lack of voltage.
    BrownOut,
    /// The node's clock jumps an hour ahead.
    ClockJump,
    /// The sensor gives the same sample for ever.
    StuckAxis,
    /// The sensor's range is set so small that gravity fills it: peaks are cut off.
    Clipping,
    /// The sensor samples 1 % faster than it says.
    SampleRateError,
    /// Nothing comes.
    SilentPort,
    /// Random bytes come without end.
    Babble,
}

impl Kind {
    /// All kinds with their names on the command line.
    pub const NAMES: [(&'static str, Self); 13] = [
        ("bit-flip", Self::BitFlip),
        ("truncation", Self::Truncation),
        ("burst-loss", Self::BurstLoss),
        ("duplicate", Self::Duplicate),
        ("reorder", Self::Reorder),
        ("boot-banner", Self::BootBanner),
        ("brown-out", Self::BrownOut),
        ("clock-jump", Self::ClockJump),
        ("stuck-axis", Self::StuckAxis),
        ("clipping", Self::Clipping),
        ("sample-rate-error", Self::SampleRateError),
        ("silent-port", Self::SilentPort),
        ("babble", Self::Babble),
    ];

    /// Whether it strikes the sensor itself, whatever carries its readings.
    pub fn is_of_sensor(self) -> bool {
        matches!(self, Self::StuckAxis | Self::Clipping | Self::SampleRateError)
    }

    /// Whether it happens once, at its beginning, rather than as long as it lasts.
    pub fn is_moment(self) -> bool {
        matches!(self, Self::BrownOut | Self::ClockJump)
    }
}

/// A disturbance with its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disturbance {
    /// What.
    pub kind: Kind,
    /// From when, counted from the start of the simulation.
    pub from: Duration,
    /// Until when.
    pub to: Duration,
    /// Probability per frame, 0 to 1, for those that strike single frames; that a burst begins with it.
    pub chance: f64,
}

impl Disturbance {
    /// Whether it lasts at this time.
    pub fn is_active(&self, now: Duration) -> bool {
        (self.from..self.to).contains(&now)
    }
}

/// Why a text is no disturbance.
#[derive(Debug, thiserror::Error)]
#[error("expected `KIND@FROM..TO` or `KIND@FROM..TO:CHANCE` with seconds and a chance of 0 to 1, such as `bit-flip@30..60:0.2`; kinds are {}", Kind::NAMES.map(|(name, _)| name).join(", "))]
pub struct ParseError;

impl FromStr for Disturbance {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (name, rest) = text.split_once('@').ok_or(ParseError)?;
        let (times, chance) = rest.split_once(':').unwrap_or((rest, "0.3"));
        let (from, to) = times.split_once("..").ok_or(ParseError)?;
        let seconds = |text: &str| text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or(ParseError);
        let chance = chance.parse().ok().filter(|chance| (0.0..=1.0).contains(chance)).ok_or(ParseError)?;
        let (_, kind) = Kind::NAMES.into_iter().find(|(known, _)| *known == name).ok_or(ParseError)?;
        Ok(Self { kind, from: seconds(from)?, to: seconds(to)?, chance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbances_are_read_from_text() {
        let read: Disturbance = "bit-flip@30..60:0.2".parse().unwrap();
        assert_eq!(read, Disturbance { kind: Kind::BitFlip, from: Duration::from_secs(30), to: Duration::from_secs(60), chance: 0.2 });
        assert!(read.is_active(Duration::from_secs(30)) && !read.is_active(Duration::from_secs(60)));
        for bad in ["bit-flip", "bit-flip@3", "nothing@1..2", "bit-flip@1..2:7", "bit-flip@-1..2"] {
            assert!(bad.parse::<Disturbance>().is_err(), "{bad}");
        }
    }
}
