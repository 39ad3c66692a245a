//! Where things stand in a payload, and the unit of its time.
use super::faults::Faults;
use crate::config::{Shape, TimeUnit, file::ShapeTable};

pub(super) fn check_shape(key: &str, raw: ShapeTable, faults: &mut Faults) -> Shape {
    for (name, pointer) in [
        ("array", &raw.array),
        ("asset", &raw.asset),
        ("point", &raw.point),
        ("value", &raw.value),
        ("values", &raw.values),
        ("time", &raw.time),
        ("quality", &raw.quality),
        ("sequence", &raw.sequence),
    ] {
        if pointer.as_deref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
            faults.add(&format!("{key}.payload.{name}"), "is no JSON pointer; start it with `/`, or leave it empty for the whole payload");
        }
    }
    if raw.value.is_some() && raw.values.is_some() {
        faults.add(&format!("{key}.payload"), "has both `value` (one point) and `values` (an object of points)");
    }
    Shape {
        time_unit: check_time_unit(key, raw.time_unit.as_deref(), raw.zone, faults),
        array: raw.array,
        asset: raw.asset,
        point: raw.point,
        value: raw.value,
        values: raw.values,
        waveform: raw.waveform,
        time: raw.time,
        quality: raw.quality,
        sequence: raw.sequence,
    }
}

pub(super) fn check_time_unit(key: &str, unit: Option<&str>, zone: Option<String>, faults: &mut Faults) -> TimeUnit {
    match (unit, zone) {
        (None, _) => TimeUnit::Auto,
        (Some("s"), _) => TimeUnit::S,
        (Some("ms"), _) => TimeUnit::Ms,
        (Some("us"), _) => TimeUnit::Us,
        (Some("ns"), _) => TimeUnit::Ns,
        (Some("iso8601"), _) => TimeUnit::Iso8601,
        (Some("iso8601_local"), Some(zone)) if jiff::tz::TimeZone::get(&zone).is_ok() => TimeUnit::Iso8601Local(zone),
        (Some("iso8601_local"), zone) => {
            faults.add(&format!("{key}.zone"), format!("`{}` is no IANA time zone; write for example `Europe/Berlin`", zone.unwrap_or_default()));
            TimeUnit::Iso8601
        }
        (Some(other), _) => {
            faults.add(&format!("{key}.time_unit"), format!("`{other}` is none of s, ms, us, ns, iso8601, iso8601_local"));
            TimeUnit::Auto
        }
    }
}
