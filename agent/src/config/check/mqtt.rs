//! `[[mqtt]]`: a broker, its topics, and as whom to connect.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hark_protocol::topics::Name;

use super::{faults::Faults, gateway::refuse_plain_text, known_asset, payload::check_shape};
use crate::config::{Asset, Credentials, Mqtt, Topic, file::MqttTable};

pub(super) fn check_mqtt(index: usize, raw: MqttTable, dir: &Path, gateway: &str, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Mqtt {
    let key = format!("mqtt[{index}]");
    if raw.plaintext_accepted.is_none() {
        refuse_plain_text(&format!("{key}.host"), &raw.host, faults);
    }
    if raw.topics.is_empty() {
        faults.add(&key, "has no `[[mqtt.topic]]`: nothing would be read from it");
    }
    let topics = raw
        .topics
        .into_iter()
        .enumerate()
        .map(|(i, topic)| {
            let key = format!("{key}.topic[{i}]");
            let shape = check_shape(&key, topic.payload, faults);
            let captures = |what: &str| topic.template.split('/').any(|level| level == format!("{{{what}}}"));
            if !captures("asset") && topic.asset.is_none() && shape.asset.is_none() {
                faults.add(&key, "names no asset: capture `{asset}` in the template, set `asset`, or `payload.asset`");
            }
            if !captures("point") && topic.point.is_none() && shape.point.is_none() && shape.values.is_none() {
                faults.add(&key, "names no point: capture `{point}` in the template, set `point`, `payload.point` or `payload.values`");
            }
            Topic { asset: known_asset(&key, topic.asset, assets, faults), point: topic.point.map(Into::into), template: topic.template, shape }
        })
        .collect();
    Mqtt {
        name: faults.name(&format!("{key}.name"), &raw.name),
        host: raw.host,
        port: raw.port,
        client_id: raw.client_id.unwrap_or_else(|| format!("hark-{gateway}-{}", raw.name)),
        session_expiry: faults.duration(&format!("{key}.session_expiry"), &raw.session_expiry),
        credentials: check_credentials(&key, raw.username, raw.password_file, dir, faults),
        topics,
        plaintext_accepted: raw.plaintext_accepted,
    }
}

/// A password stands in a file of its own, which only the agent's user may read: `hark.toml` is shown, copied and mailed.
fn check_credentials(key: &str, username: Option<String>, file: Option<PathBuf>, dir: &Path, faults: &mut Faults) -> Option<Credentials> {
    let Some(username) = username else {
        if file.is_some() {
            faults.add(&format!("{key}.password_file"), "needs `username` beside it");
        }
        return None;
    };
    let Some(file) = file.map(|file| dir.join(file)) else { return Some(Credentials { username, password: String::new() }) };
    match fs::read_to_string(&file) {
        Ok(text) => Some(Credentials { username, password: text.trim_end_matches(['\r', '\n']).to_owned() }),
        Err(error) => {
            faults.add(&format!("{key}.password_file"), format!("cannot read `{}`: {error}", file.display()));
            None
        }
    }
}
