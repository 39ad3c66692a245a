//! A source's time, in the unit it is declared in.
use hark_protocol::topics::Timestamp;
use jiff::{civil::DateTime, tz::TimeZone};
use serde_json::Value;

use crate::config::TimeUnit;

/// Reads a JSON number or text as a time. `None` if it is neither, or outside years -9999 to 9999.
pub fn from_json(value: &Value, unit: &TimeUnit) -> Option<Timestamp> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) => from_integer(integer, unit),
            None => from_number(number.as_f64()?, unit),
        },
        Value::String(text) => from_text(text, unit),
        _ => None,
    }
}

/// Reads a text: a number in `unit`, or ISO 8601. Text without an offset is UTC unless the unit names a zone.
pub fn from_text(text: &str, unit: &TimeUnit) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(integer) = text.parse::<i64>() {
        return from_integer(integer, unit);
    }
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number, unit);
    }
    if let Ok(absolute) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(absolute.as_microsecond()));
    }
    // With its zone in brackets, as in 2025-03-01T12:00:00[Europe/Berlin]; a plain parse would pass over the brackets.
    if text.ends_with(']') {
        return text.parse::<jiff::Zoned>().ok().map(|zoned| Timestamp(zoned.timestamp().as_microsecond()));
    }
    let local: DateTime = text.parse().ok()?;
    let zone = match unit {
        TimeUnit::Iso8601Local(name) => TimeZone::get(name).ok()?,
        _ => TimeZone::UTC,
    };
    Some(Timestamp(local.to_zoned(zone).ok()?.timestamp().as_microsecond()))
}

fn from_integer(value: i64, unit: &TimeUnit) -> Option<Timestamp> {
    let us = match micros_per(unit, value as f64)? {
        Scale::Times(factor) => value.checked_mul(factor)?,
        Scale::Over(divisor) => value.div_euclid(divisor),
    };
    in_range(us)
}

fn from_number(value: f64, unit: &TimeUnit) -> Option<Timestamp> {
    if !value.is_finite() {
        return None;
    }
    let us = match micros_per(unit, value)? {
        Scale::Times(factor) => value * factor as f64,
        Scale::Over(divisor) => value / divisor as f64,
    };
    // Half a microsecond is far below what a float of seconds since 1970 can tell.
    in_range(us.round() as i64)
}

enum Scale {
    Times(i64),
    Over(i64),
}

/// Limits by magnitude after domain reference section 5: they hold from 1973 (ms) to 5138 (s).
fn micros_per(unit: &TimeUnit, value: f64) -> Option<Scale> {
    let magnitude = value.abs();
    Some(match unit {
        TimeUnit::S => Scale::Times(1_000_000),
        TimeUnit::Ms => Scale::Times(1_000),
        TimeUnit::Us => Scale::Times(1),
        TimeUnit::Ns => Scale::Over(1_000),
        TimeUnit::Auto if magnitude < 1e11 => Scale::Times(1_000_000),
        TimeUnit::Auto if magnitude < 1e14 => Scale::Times(1_000),
        TimeUnit::Auto if magnitude < 1e17 => Scale::Times(1),
        TimeUnit::Auto => Scale::Over(1_000),
        TimeUnit::Iso8601 | TimeUnit::Iso8601Local(_) => return None,
    })
}

fn in_range(us: i64) -> Option<Timestamp> {
    jiff::Timestamp::from_microsecond(us).is_ok().then_some(Timestamp(us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, unit: TimeUnit, expected: Option<&str>) {
        assert_eq!(from_text(text, &unit).map(|ts| ts.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn units_and_magnitudes() {
        check("1650006388", TimeUnit::S, Some("2022-04-15T07:06:28.000000Z"));
        check("1650006388943", TimeUnit::Ms, Some("2022-04-15T07:06:28.943000Z"));
        check("1680962879.62", TimeUnit::Auto, Some("2023-04-08T14:07:59.620000Z"));
        check("1650006388943", TimeUnit::Auto, Some("2022-04-15T07:06:28.943000Z"));
        check("1650006388943000", TimeUnit::Auto, Some("2022-04-15T07:06:28.943000Z"));
        check("1650006388943000123", TimeUnit::Auto, Some("2022-04-15T07:06:28.943000Z"));
        check("0", TimeUnit::Auto, Some("1970-01-01T00:00:00.000000Z"));
    }

    #[test]
    fn iso_text() {
        check("2020-02-08 13:30:47", TimeUnit::Auto, Some("2020-02-08T13:30:47.000000Z"));
        check("2020-02-08T13:30:47+02:00", TimeUnit::Iso8601, Some("2020-02-08T11:30:47.000000Z"));
        check("2018-01-17T18:59:50", TimeUnit::Iso8601Local("Europe/Berlin".into()), Some("2018-01-17T17:59:50.000000Z"));
        check("2018-01-17T18:59:50[Europe/Berlin]", TimeUnit::Auto, Some("2018-01-17T17:59:50.000000Z"));
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in ["", "noon", "NaN", "inf", "9e99", "-9e18"] {
            check(text, TimeUnit::S, None);
        }
        check("1650006388", TimeUnit::Iso8601, None);
    }
}
