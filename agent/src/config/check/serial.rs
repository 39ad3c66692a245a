//! `[[serial]]`: a port and what is spoken on it.
use std::{collections::BTreeMap, path::Path};

use hark_protocol::topics::Name;

use super::{
    faults::Faults,
    known_asset,
    payload::{check_shape, check_time_unit},
};
use crate::{
    config::{
        Asset, CsvLines, Node, Serial, SerialFormat,
        file::{SerialFormatName, SerialTable},
    },
    source::decode::lines::TIME_COLUMNS,
};

pub(super) fn check_serial(index: usize, raw: SerialTable, dir: &Path, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Serial {
    let key = format!("serial[{index}]");
    let asset = known_asset(&key, raw.asset, assets, faults);
    let format = match raw.format {
        SerialFormatName::Node => {
            let mut nodes = BTreeMap::new();
            for node in raw.nodes {
                let asset = known_asset(&key, Some(node.asset), assets, faults).unwrap_or_default();
                check_channels(&key, node.id, &node.channels, assets.get(&asset), faults);
                if nodes.insert(node.id, Node { asset, channels: node.channels }).is_some() {
                    faults.add(&format!("{key}.node"), format!("id {} stands twice", node.id));
                }
            }
            if nodes.is_empty() {
                faults.add(&key, "speaks the node protocol but names no `[[serial.node]]`");
            }
            SerialFormat::Node { nodes }
        }
        SerialFormatName::Csv => {
            if asset.is_none() {
                faults.add(&format!("{key}.asset"), "is needed: lines of values do not name their machine");
            }
            let separator = raw.separator.unwrap_or(',');
            if !separator.is_ascii() || (raw.decimal_comma && separator == ',') {
                faults.add(&format!("{key}.separator"), "must be one ASCII character other than the decimal sign");
            }
            if let (Some(columns), Some(asset)) = (&raw.columns, asset.as_ref().and_then(|id| assets.get(id))) {
                check_columns(&format!("{key}.columns"), columns, asset, faults);
            }
            SerialFormat::Csv(CsvLines {
                asset: asset.unwrap_or_default(),
                separator: u8::try_from(separator).unwrap_or(b','),
                decimal_comma: raw.decimal_comma,
                columns: raw.columns,
                time_unit: check_time_unit(&key, raw.time_unit.as_deref(), raw.zone, faults),
            })
        }
        SerialFormatName::Json => {
            let shape = check_shape(&key, raw.payload, faults);
            if asset.is_none() && shape.asset.is_none() {
                faults.add(&key, "names no asset: set `asset` or `payload.asset`");
            }
            if shape.point.is_none() && shape.values.is_none() {
                faults.add(&key, "names no point: set `payload.point` or `payload.values`");
            }
            SerialFormat::Json { asset, shape }
        }
    };
    Serial { name: faults.name(&format!("{key}.name"), &raw.name), path: dir.join(raw.path), baud: raw.baud, format }
}

/// Written by hand, unlike a header, which may name more than the asset's file: a name that is not known is a slip of the pen.
fn check_columns(key: &str, columns: &[String], asset: &Asset, faults: &mut Faults) {
    let is_time = |column: &str| TIME_COLUMNS.contains(&column);
    for (i, column) in columns.iter().enumerate().filter(|(_, column)| !column.is_empty()) {
        if !is_time(column) && !asset.takes(column) {
            let times = TIME_COLUMNS.join("`, `");
            faults.add(
                key,
                format!(
                    "`{column}` is no point of `{}`; expected the id or column of a point, `{times}` for the time, or `\"\"` to leave it out",
                    asset.id
                ),
            );
        }
        if columns[..i].contains(column) {
            faults.add(key, format!("`{column}` stands twice; expected each column once"));
        }
    }
    if columns.iter().filter(|column| is_time(column)).count() > 1 {
        faults.add(key, "has several columns for the time; expected at most one");
    }
    if columns.iter().all(|column| column.is_empty() || is_time(column)) {
        faults.add(key, format!("names no point; expected at least one of `{}`", asset.id));
    }
}

/// Each channel gives `<name>.<quantity>`, a bare quantity where the name is empty.
fn check_channels(key: &str, node: u32, channels: &[String], asset: Option<&Asset>, faults: &mut Faults) {
    let key = format!("{key}.node.channels");
    if channels.is_empty() {
        faults.add(&key, format!("of node {node} are empty; expected the name of each channel, beginning with channel 0"));
    }
    let Some(asset) = asset else { return };
    for channel in channels.iter().filter(|channel| !channel.is_empty()) {
        if !asset.takes_channel(channel) {
            faults.add(
                &key,
                format!("`{channel}` of node {node} is no beginning of a point; expected points such as `{channel}.v_rms` in `{}`", asset.id),
            );
        }
    }
}
