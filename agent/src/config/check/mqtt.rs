//! `[[mqtt]]`: a broker, its topics, and as whom to connect.
use std::{
    collections::BTreeMap,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use hark_protocol::topics::Name;

use super::{
    faults::{DAY, Faults},
    gateway::refuse_plain_text,
    known_asset,
    payload::check_shape,
};
use crate::{
    config::{
        Asset, Credentials, Mqtt, Topic,
        file::{MqttTable, TopicTable},
    },
    source::template::{self, Template},
};

/// A session that ends with the connection would lose what is published meanwhile.
const SESSION_EXPIRY: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(365 * DAY.as_secs());

pub(super) fn check_mqtt(index: usize, raw: MqttTable, dir: &Path, gateway: &str, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Mqtt {
    let key = format!("mqtt[{index}]");
    let host = raw.host.trim_start_matches('[').trim_end_matches(']');
    match host {
        "" => faults.add(&format!("{key}.host"), "is empty; expected a host name or an address"),
        host => refuse_plain_text(&format!("{key}.host"), host, raw.plaintext_accepted.as_deref(), faults),
    }
    if raw.port == 0 {
        faults.add(&format!("{key}.port"), "is 0; expected 1 to 65535");
    }
    if raw.topics.is_empty() {
        faults.add(&key, "has no `[[mqtt.topic]]`: nothing would be read from it");
    }
    let topics: Vec<Topic> =
        raw.topics.into_iter().enumerate().map(|(i, topic)| check_topic(&format!("{key}.topic[{i}]"), topic, assets, faults)).collect();
    refuse_overlaps(&key, &topics, faults);
    Mqtt {
        name: faults.name(&format!("{key}.name"), &raw.name),
        host: raw.host,
        port: raw.port,
        client_id: raw.client_id.unwrap_or_else(|| format!("hark-{gateway}-{}", raw.name)),
        session_expiry: faults.duration(&format!("{key}.session_expiry"), &raw.session_expiry, SESSION_EXPIRY),
        credentials: check_credentials(&key, raw.username, raw.password_file, dir, faults),
        topics,
        plaintext_accepted: raw.plaintext_accepted,
    }
}

fn check_topic(key: &str, raw: TopicTable, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) -> Topic {
    for fault in template::faults(&raw.template) {
        faults.add(&format!("{key}.template"), format!("`{}` {fault}", raw.template.escape_debug()));
    }
    let shape = check_shape(key, raw.payload, faults);
    let captures = |what: &str| raw.template.split('/').any(|level| level == format!("{{{what}}}"));
    let asset_varies = captures("asset") || shape.asset.is_some();
    if !asset_varies && raw.asset.is_none() {
        faults.add(key, "names no asset: capture `{asset}` in the template, set `asset`, or `payload.asset`");
    }
    if !captures("point") && raw.point.is_none() && shape.point.is_none() && shape.values.is_none() {
        faults.add(key, "names no point: capture `{point}` in the template, set `point`, `payload.point` or `payload.values`");
    }
    if let Some(point) = &raw.point {
        let asset = raw.asset.as_deref().filter(|_| !asset_varies);
        check_point(&format!("{key}.point"), point, asset, shape.waveform, assets, faults);
    }
    Topic { asset: known_asset(key, raw.asset, assets, faults), point: raw.point.map(Into::into), template: raw.template, shape }
}

/// A point that `asset` has, or where that is not known beforehand, any asset.
fn check_point(key: &str, point: &str, asset: Option<&str>, waveform: bool, assets: &BTreeMap<Name, Asset>, faults: &mut Faults) {
    let has = |asset: &Asset| if waveform { asset.waveforms.iter().any(|w| &*w.id == point) } else { asset.takes(point) };
    let expected = if waveform { "the id of a `[[waveform]]`" } else { "the id or column of a `[[point]]`" };
    match asset {
        Some(id) if assets.get(id).is_some_and(|asset| !has(asset)) => {
            faults.add(key, format!("`{point}` is not known to `{id}`; expected {expected} in its file"));
        }
        None if !faults.unread && !assets.values().any(has) => {
            faults.add(key, format!("`{point}` is not known to any asset; expected {expected} in assets/"));
        }
        _ => {}
    }
}

/// A message that two filters of a session match is delivered twice by Mosquitto, as MQTT allows, and would be stored twice.
fn refuse_overlaps(key: &str, topics: &[Topic], faults: &mut Faults) {
    let usable = topics.iter().enumerate().filter(|(_, topic)| template::faults(&topic.template).is_empty());
    let filters: Vec<(usize, String)> = usable.map(|(i, topic)| (i, Template::new(topic.clone()).filter())).collect();
    for (count, (i, filter)) in filters.iter().enumerate() {
        for (j, earlier) in &filters[..count] {
            if template::overlaps(filter, earlier) {
                let (this, other) = (&topics[*i].template, &topics[*j].template);
                let what = format!(
                    "`{this}` overlaps with `{other}` of topic[{j}]; expected templates of which at most one matches a topic, or messages are stored twice"
                );
                faults.add(&format!("{key}.topic[{i}].template"), what);
            }
        }
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
