//! `assets/*.toml`: one machine, its points and waveforms.
use std::{collections::BTreeMap, time::Duration};

use hark_protocol::topics::Name;
use sha2::{Digest, Sha256};

use super::faults::Faults;
use crate::{
    config::{
        AlarmSettings, Asset, Bearing, Commissioning, Point, Waveform,
        file::{AssetFile, PointTable, WaveformTable},
    },
    signal::{FEATURES, feature_unit},
};

pub(super) fn check_asset(raw: AssetFile, faults: &mut Faults) -> Asset {
    // The raw tables in their debug form hold every key with its default, so the hash changes with any of them and with nothing else.
    let hash: Name = Sha256::digest(format!("{raw:?}")).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    let grid = faults.duration("grid", &raw.grid);
    if grid < Duration::from_millis(10) {
        faults.add("grid", "must be at least 10ms");
    }
    let stale_after = raw.stale_after.map_or(grid * 5, |text| faults.duration("stale_after", &text));
    let mut points: Vec<Point> = raw.points.into_iter().map(|point| check_point(point, faults)).collect();
    let waveforms: Vec<Waveform> = raw.waveforms.into_iter().map(|waveform| check_waveform(waveform, faults)).collect();
    for waveform in &waveforms {
        for feature in &waveform.features {
            let id: Name = format!("{}.{feature}", waveform.id).into();
            // A point of that name in the file says more about the feature: its range, or that it is not scored.
            if !points.iter().any(|point| point.id == id) {
                points.push(Point { id, unit: feature_unit(feature).into(), column: None, range: None, map: BTreeMap::new(), scored: true });
            }
        }
    }
    for (i, point) in points.iter().enumerate() {
        if points[..i].iter().any(|other| other.id == point.id) {
            faults.add("point.id", format!("`{}` stands twice", point.id));
        }
    }
    let rows = raw.commissioning.rows;
    let held_back = raw.commissioning.held_back.unwrap_or(rows * 15 / 100);
    if held_back < 30 || rows < held_back + 100 {
        faults.add("commissioning", format!("{rows} rows with {held_back} held back are too few: at least 30 held back and 100 to fit on"));
    }
    let id = faults.name("id", &raw.id);
    Asset {
        name: raw.name.map_or_else(|| id.clone(), Into::into),
        id,
        path: raw.path.map(Into::into),
        class: raw.class.map(Into::into),
        grid,
        stale_after,
        predict_every: faults.duration("predict_every", &raw.predict_every),
        commissioning: Commissioning { rows, held_back },
        alarm: AlarmSettings {
            on_delay: faults.duration("alarm.on_delay", &raw.alarm.on_delay),
            off_delay: faults.duration("alarm.off_delay", &raw.alarm.off_delay),
        },
        points,
        waveforms,
        hash,
    }
}

fn check_point(raw: PointTable, faults: &mut Faults) -> Point {
    if let Some((low, high)) = raw.range
        && !(low.is_finite() && high.is_finite() && low < high)
    {
        faults.add("point.range", format!("of `{}` must be [low, high] with low below high", raw.id));
    }
    Point { id: faults.name("point.id", &raw.id), unit: raw.unit.into(), column: raw.column, range: raw.range, map: raw.map, scored: raw.scored }
}

fn check_waveform(raw: WaveformTable, faults: &mut Faults) -> Waveform {
    if !matches!(raw.unit.as_str(), "[g]" | "g" | "m/s2") {
        faults.add("waveform.unit", format!("`{}` of `{}` is no acceleration; use `[g]` or `m/s2`", raw.unit, raw.id));
    }
    let bearing = raw.bearing.map(|b| Bearing { elements: b.elements, element_mm: b.element_mm, pitch_mm: b.pitch_mm, contact_deg: b.contact_deg });
    let features = raw.features.unwrap_or_else(|| default_features(bearing.is_some()));
    for feature in &features {
        if !FEATURES.contains(&feature.as_str()) {
            faults.add("waveform.features", format!("`{feature}` is none of {}", FEATURES.join(", ")));
        }
        if feature.starts_with("env.") && feature != "env.rms" && bearing.is_none() {
            faults.add("waveform.features", format!("`{feature}` needs `bearing`"));
        }
    }
    let band = raw.envelope_band_hz.unwrap_or((2_000.0, 5_000.0));
    if !(band.0 > 0.0 && band.0 < band.1) {
        faults.add("waveform.envelope_band_hz", "must be [low, high] with 0 < low < high");
    }
    Waveform {
        id: faults.name("waveform.id", &raw.id),
        unit: raw.unit.into(),
        features: features.into_iter().map(Into::into).collect(),
        speed_hz: raw.speed_rpm.map(|rpm| rpm / 60.0),
        speed_point: raw.speed_point.map(Into::into),
        bearing,
        envelope_band_hz: band,
    }
}

fn default_features(bearing: bool) -> Vec<String> {
    let lines: &[&str] = if bearing { &["env.bpfo", "env.bpfi"] } else { &[] };
    ["v_rms", "a_rms", "crest", "kurtosis"].iter().chain(lines).map(|&name| name.to_owned()).collect()
}
