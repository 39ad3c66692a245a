//! From the files as written to a [`Config`] that cannot be wrong. Every fault is reported, not only the first.
mod annunciation;
mod asset;
mod commissioning;
mod faults;
mod forecast;
mod gateway;
mod limits;
mod machine_template;
mod mqtt;
mod operating;
mod payload;
mod serial;
#[cfg(test)]
mod tests;
mod waveform;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hark_protocol::topics::Name;
use serde::Deserialize;

pub use self::faults::ConfigError;
pub(crate) use self::faults::parse_duration;
use self::{asset::check_asset, commissioning::refuse_too_many_rows, faults::Faults, gateway::check_gateway};
use super::{
    Asset, Config,
    file::{AssetFile, HarkFile},
};

/// Loads `dir/hark.toml` and `dir/assets/*.toml`. Relative paths in them are relative to `dir`.
///
/// # Errors
/// [`ConfigError`] with every fault found.
pub fn load(dir: &Path) -> Result<Config, ConfigError> {
    let mut faults = Faults::default();
    let config = read(dir, &mut faults);
    faults.into_result(config)
}

/// The same for `hark run`, which would do nothing without a machine or without a source; `hark replay` brings its own readings.
///
/// # Errors
/// [`ConfigError`] with every fault found.
pub fn load_to_run(dir: &Path) -> Result<Config, ConfigError> {
    let mut faults = Faults::default();
    let config = read(dir, &mut faults);
    if let Some(config) = &config {
        if config.assets.is_empty() && !faults.unread {
            faults.file = dir.join("assets").display().to_string();
            faults.add("*.toml", "there is none; expected one file per machine, at least one");
        }
        faults.file = dir.join("assets").display().to_string();
        refuse_too_many_rows(config.assets.values(), &mut faults);
        if config.mqtt.is_empty() && config.serial.is_empty() {
            faults.file = dir.join("hark.toml").display().to_string();
            faults.add("mqtt, serial", "there is no source; expected at least one `[[mqtt]]` or `[[serial]]`");
        }
    }
    faults.into_result(config)
}

/// What is no fault of `config` and may still not be meant, one line each.
pub fn doubts(config: &Config) -> Vec<String> {
    config.assets.values().flat_map(limits::doubts).collect()
}

/// Checks the text of one asset's file; `file` is its name in faults.
///
/// # Errors
/// [`ConfigError`] with every fault found.
pub fn check_asset_text(file: &str, text: &str) -> Result<Asset, ConfigError> {
    let mut faults = Faults::default();
    faults.file = file.to_owned();
    let raw = parse_asset(file.as_ref(), text, None, &mut faults);
    let asset = raw.map(|raw| check_asset(raw, &mut faults));
    refuse_too_many_rows(asset.iter(), &mut faults);
    faults.into_result(asset)
}

fn read(dir: &Path, faults: &mut Faults) -> Option<Config> {
    let file = dir.join("hark.toml");
    let hark: Option<HarkFile> = parse(&file, faults);
    let mut assets = BTreeMap::new();
    for path in asset_files(&dir.join("assets"), faults) {
        let Some(text) = read_file(&path, faults) else { continue };
        let Some(raw) = parse_asset(&path, &text, Some(&dir.join("templates")), faults) else { continue };
        faults.file = path.display().to_string();
        let asset = check_asset(raw, faults);
        let id = asset.id.clone();
        if assets.insert(id.clone(), asset).is_some() {
            faults.add("id", format!("`{id}` is the id of another file too; ids are unique in the fleet"));
        }
    }
    faults.file = file.display().to_string();
    hark.map(|raw| check_gateway(raw, dir, assets, faults))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, faults: &mut Faults) -> Option<T> {
    parse_text(path, &read_file(path, faults)?, faults)
}

fn read_file(path: &Path, faults: &mut Faults) -> Option<String> {
    fs::read_to_string(path).map_err(|error| faults.unread(path, format!("cannot be read: {error}"))).ok()
}

/// An asset's file with what its template from `templates` says. Where it names one, faults are told of both together, without a line.
fn parse_asset(path: &Path, text: &str, templates: Option<&Path>, faults: &mut Faults) -> Option<AssetFile> {
    let asset = parse_text::<toml::Table>(path, text, faults)?;
    if !asset.contains_key("template") && !asset.contains_key("without") {
        return parse_text(path, text, faults);
    }
    faults.file = path.display().to_string();
    let resolved = machine_template::resolve(asset, templates, faults);
    AssetFile::deserialize(resolved)
        .map_err(|error| faults.unread(path, format!("together with its template: {}", error.to_string().trim_end())))
        .ok()
}

fn parse_text<T: serde::de::DeserializeOwned>(path: &Path, text: &str, faults: &mut Faults) -> Option<T> {
    toml::from_str(text).map_err(|error| faults.unread(path, error.to_string().trim_end().replace('\n', "\n    "))).ok()
}

fn asset_files(dir: &Path, faults: &mut Faults) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            faults.unread(dir, format!("cannot be listed: {error}; it holds one file per machine"));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

fn known_asset(key: &str, asset: Option<String>, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Option<Name> {
    let id = asset?;
    if !assets.contains_key(id.as_str()) && !faults.unread {
        faults.add(&format!("{key}.asset"), format!("`{id}` has no file in assets/"));
    }
    Some(id.into())
}
