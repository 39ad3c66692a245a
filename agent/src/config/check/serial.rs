//! `[[serial]]`: a port and what is spoken on it.
use std::{collections::BTreeMap, path::Path};

use hark_protocol::topics::Name;

use super::{
    faults::Faults,
    known_asset,
    payload::{check_shape, check_time_unit},
};
use crate::config::{
    Asset, CsvLines, Node, Serial, SerialFormat,
    file::{SerialFormatName, SerialTable},
};

pub(super) fn check_serial(index: usize, raw: SerialTable, dir: &Path, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Serial {
    let key = format!("serial[{index}]");
    let asset = known_asset(&key, raw.asset, assets, faults);
    let format = match raw.format {
        SerialFormatName::Node => {
            let mut nodes = BTreeMap::new();
            for node in raw.nodes {
                let asset = known_asset(&key, Some(node.asset), assets, faults).unwrap_or_default();
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
            SerialFormat::Csv(CsvLines {
                asset: asset.unwrap_or_default(),
                separator: u8::try_from(separator).unwrap_or(b','),
                decimal_comma: raw.decimal_comma,
                columns: raw.columns,
                time_unit: check_time_unit(&key, raw.time_unit.as_deref(), raw.zone, faults),
            })
        }
        SerialFormatName::Json => SerialFormat::Json { asset, shape: check_shape(&key, raw.payload, faults) },
    };
    Serial { name: faults.name(&format!("{key}.name"), &raw.name), path: dir.join(raw.path), baud: raw.baud, format }
}
