//! How fast a recording is played.
use std::str::FromStr;
use std::time::Duration;

/// Nobody waits for longer, and times so far ahead still add up.
const PAUSE_MAX_S: f64 = 1e9;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the other side takes it.
    Fastest,
    /// So many recorded seconds per second; every row needs a time.
    Speed(Positive),
    /// So many rows per second, whatever their times say.
    RowsPerSecond(Positive),
}

impl Pace {
    /// How long a row waits for its turn after the one before it, given their times in seconds since 1970. A time that goes back does not wait.
    pub(super) fn pause(self, before_s: Option<f64>, now_s: Option<f64>) -> Duration {
        let pause_s = match (self, before_s, now_s) {
            (Self::RowsPerSecond(rows), ..) => 1.0 / rows.0,
            (Self::Speed(speed), Some(before_s), Some(now_s)) => (now_s - before_s) / speed.0,
            _ => 0.0,
        };
        Duration::from_secs_f64(pause_s.clamp(0.0, PAUSE_MAX_S))
    }
}

/// A finite number above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Positive(f64);

impl Positive {
    /// `None` for 0, below it, infinite or no number.
    pub fn new(value: f64) -> Option<Self> {
        (value.is_finite() && value > 0.0).then_some(Self(value))
    }
}

/// Why a text is no [`Positive`].
#[derive(Debug, thiserror::Error)]
#[error("expected a number above 0")]
pub struct NotPositive;

impl FromStr for Positive {
    type Err = NotPositive;

    fn from_str(text: &str) -> Result<Self, NotPositive> {
        text.parse().ok().and_then(Self::new).ok_or(NotPositive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pace: Pace, before_s: f64, now_s: f64, pause_s: f64) {
        assert_eq!(pace.pause(Some(before_s), Some(now_s)), Duration::from_secs_f64(pause_s), "{pace:?} {before_s} {now_s}");
    }

    #[test]
    fn rows_keep_their_distance_however_long_it_is() {
        let speed = |speed| Pace::Speed(Positive::new(speed).unwrap());
        check(speed(1.0), 1_000.0, 1_030.0, 30.0);
        check(speed(1.0), 0.0, 90_000.0, 90_000.0);
        check(speed(60.0), 0.0, 90_000.0, 1_500.0);
        check(speed(0.5), 0.0, 30.0, 60.0);
        check(speed(1.0), 30.0, 0.0, 0.0); // a clock that was set back
        check(speed(1e-300), 0.0, 1e11, PAUSE_MAX_S);
        check(Pace::Fastest, 0.0, 30.0, 0.0);
        check(Pace::RowsPerSecond(Positive::new(4.0).unwrap()), 0.0, 30.0, 0.25);
        assert_eq!(speed(1.0).pause(None, Some(5.0)), Duration::ZERO, "the first row");
    }

    #[test]
    fn a_speed_is_above_0_and_finite() {
        assert_eq!("0.5".parse::<Positive>().ok(), Positive::new(0.5));
        for bad in ["0", "-1", "nan", "inf", "-inf", "1e999", "", "fast"] {
            assert!(bad.parse::<Positive>().is_err(), "{bad}");
        }
    }
}
