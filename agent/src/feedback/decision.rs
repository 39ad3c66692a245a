//! What a record of the topic asks of this gateway: a command for its log, or the reason why not. Pure.
use std::collections::BTreeSet;

use hark_protocol::topics::{Event, EventKind, Feedback, FeedbackAction, Name, SCHEMA_VERSION, Timestamp};
use serde::Deserialize as _;
use serde_json::Value;

use super::VALUE_MAX_BYTES;
use crate::local::message::{CommandRequest, TEXT_MAX_BYTES};

/// How commands that came this way name their source.
const SOURCE: &str = "feedback";
/// Of what a sender wrote, in the answer.
const QUOTED_CHARS: usize = 100;
/// 2024-01-01: a clock before it was not set since the power came.
const CLOCK_IS_SET_FROM: Timestamp = Timestamp(1_704_067_200 * 1_000_000);

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    /// Id of the gateway.
    pub(super) gateway: &'a str,
    /// Its machines.
    pub(super) assets: &'a BTreeSet<Name>,
}

/// Why a record is no command for this gateway.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    /// Name of the counter.
    pub(super) reason: &'static str,
    /// What to tell; `None` where nobody need hear of it.
    pub(super) text: Option<String>,
    /// What is known of the command, where it is surely meant for this gateway: then it is answered.
    pub(super) of: Option<Box<Event>>,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: Some(text.into()), of: None }
    }

    fn unsaid(reason: &'static str) -> Self {
        Self { reason, text: None, of: None }
    }

    fn answering(self, value: &Value) -> Self {
        let text = |field: &str| value[field].as_str().map(|text| Name::from(quoted(text)));
        let of = Event {
            actor: text("actor"),
            source: Some(SOURCE.into()),
            command: text("action"),
            command_id: text("command_id"),
            alarm_id: text("alarm_id"),
            ..Event::new(EventKind::Command)
        };
        Self { of: Some(of.into()), ..self }
    }
}

/// The asset and the command in a record of `bytes` bytes, whose value is `None` where it could not be taken as text. `now` is the gateway's clock.
pub(super) fn decide(value: Option<&str>, bytes: u64, here: Here<'_>, now: Timestamp) -> Result<(Name, Box<Event>), Refusal> {
    let Some(value) = value else {
        return Err(if bytes > VALUE_MAX_BYTES as u64 {
            Refusal::new("too_long", format!("it has {bytes} bytes; at most {VALUE_MAX_BYTES} are read"))
        } else {
            Refusal::new("malformed", "it is no text")
        });
    };
    let value: Value = serde_json::from_str(value).map_err(|error| Refusal::new("malformed", format!("it is no JSON: {error}")))?;
    match value["gw"].as_str() {
        Some(gateway) if gateway == here.gateway => {}
        Some(_) => return Err(Refusal::unsaid("other_gateway")),
        None => return Err(Refusal::new("malformed", "it does not say for which gateway it is, `gw`")),
    }
    meant(&value, here, now).map_err(|refusal| if refusal.text.is_some() { refusal.answering(&value) } else { refusal })
}

/// The same of one that is meant for this gateway.
fn meant(value: &Value, here: Here<'_>, now: Timestamp) -> Result<(Name, Box<Event>), Refusal> {
    if value["sv"].as_u64() != Some(u64::from(SCHEMA_VERSION)) {
        return Err(Refusal::new("wrong_version", format!("its `sv` is {}; this version reads {SCHEMA_VERSION}", quoted(&value["sv"].to_string()))));
    }
    if let Some(word) = value["action"].as_str()
        && serde_json::from_value::<FeedbackAction>(value["action"].clone()).is_err()
    {
        return Err(Refusal::new("unknown_action", format!("this version does not know the action `{}`", quoted(word))));
    }
    let feedback = Feedback::deserialize(value).map_err(|error| Refusal::new("malformed", format!("it is not as its schema says: {error}")))?;
    let Ok(expires_at) = feedback.expires_at.parse::<Timestamp>() else {
        return Err(Refusal::new("malformed", "`expires_at` is no time; expected RFC 3339 such as 2026-12-01T06:00:00Z"));
    };
    if expires_at <= now && now >= CLOCK_IS_SET_FROM {
        return Err(Refusal::unsaid("expired"));
    }
    let Some(asset) = here.assets.get(&feedback.asset) else {
        return Err(Refusal::new("unknown_asset", format!("this gateway has no asset `{}`", quoted(&feedback.asset))));
    };
    if feedback.command_id.is_empty() {
        return Err(Refusal::new("malformed", "its `command_id` is empty"));
    }
    let request = request(feedback);
    if request.has_text_beyond_limit() {
        return Err(Refusal::new("too_long", format!("a text has more than {TEXT_MAX_BYTES} bytes")));
    }
    Ok((asset.clone(), request.into_event(SOURCE).into()))
}

/// The same command as it would come over the local socket.
fn request(feedback: Feedback) -> CommandRequest {
    let text = |text: Option<Name>| text.map(|text| text.to_string());
    CommandRequest {
        alarm_id: text(feedback.alarm_id),
        actor: Some(feedback.actor.to_string()),
        command_id: Some(feedback.command_id.to_string()),
        comment: text(feedback.comment),
        until: text(feedback.until),
        label: text(feedback.label),
        failure_mode: text(feedback.failure_mode),
        point: text(feedback.point),
        ..CommandRequest::new(&feedback.asset, feedback.action)
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXAMPLE: &str = include_str!("../../../config/kafka/schemas/hark.feedback.v1.example.json");

    /// What is decided at `now` of the published example with `changes`, on its gateway.
    fn decided(changes: Value, now: &str) -> Result<(Name, Box<Event>), Refusal> {
        let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
        for (key, change) in changes.as_object().unwrap() {
            if change == "(left out)" {
                value.as_object_mut().unwrap().remove(key);
            } else {
                value[key] = change.clone();
            }
        }
        of(&value.to_string(), now)
    }

    fn of(value: &str, now: &str) -> Result<(Name, Box<Event>), Refusal> {
        let assets = ["pump-p101".into()].into();
        decide(Some(value), value.len() as u64, Here { gateway: "gw-hall3-01", assets: &assets }, now.parse().unwrap())
    }

    const IN_TIME: &str = "2026-05-11T15:30:00Z";

    #[test]
    fn the_published_example_is_a_command() {
        let (asset, event) = decided(json!({}), IN_TIME).unwrap();
        assert_eq!(&*asset, "pump-p101");
        let said = [&event.command, &event.command_id, &event.actor, &event.source, &event.alarm_id, &event.text].map(Option::as_deref);
        let expected = [
            "shelve",
            "0d0c6f2e-7a35-4b8f-b0a9-7f0e6a1c9d55",
            "m.huber",
            "feedback",
            "pump-p101/de-h.env.bpfo/2026-05-11T14:02:30Z",
            "bearing ordered, change on Wednesday",
        ];
        assert_eq!(said, expected.map(Some));
        let detail: Value = serde_json::from_str(event.detail_json.as_deref().unwrap()).unwrap();
        assert_eq!(detail, json!({"until": "2026-05-13T06:00:00.000000Z", "label": "true_alarm", "failure_mode": "VIB", "point": "de-h.env.bpfo"}));
        assert_eq!(event.kind, EventKind::Command);
    }

    #[test]
    fn what_may_be_left_out_may() {
        let optional = ["inc", "alarm_id", "point", "until", "label", "failure_mode", "comment"];
        let changes: serde_json::Map<_, _> = optional.iter().map(|key| ((*key).to_owned(), json!("(left out)"))).collect();
        let more = json!({"action": "maintenance_done", "from_a_later_version": 1});
        let all = changes.into_iter().chain(more.as_object().unwrap().clone()).collect();
        assert_eq!(decided(Value::Object(all), IN_TIME).unwrap().1.command.as_deref(), Some("maintenance_done"));
    }

    #[test]
    fn each_refusal_has_its_name() {
        let check = |changes: Value, reason: &str, told: bool| {
            let refusal = decided(changes.clone(), IN_TIME).unwrap_err();
            assert_eq!((refusal.reason, refusal.text.is_some(), refusal.of.is_some()), (reason, told, told), "{changes}");
        };
        check(json!({"gw": "gw-hall3-02", "asset": 5, "sv": 9}), "other_gateway", false);
        check(json!({"expires_at": "2026-05-11T15:30:00Z"}), "expired", false);
        check(json!({"expires_at": "2026-05-11T15:29:59Z", "asset": "pump-9"}), "expired", false);
        check(json!({"asset": "pump-9"}), "unknown_asset", true);
        check(json!({"action": "sing"}), "unknown_action", true);
        check(json!({"action": null}), "malformed", true);
        check(json!({"sv": 2, "action": "sing"}), "wrong_version", true);
        check(json!({"sv": "(left out)"}), "wrong_version", true);
        check(json!({"actor": "(left out)"}), "malformed", true);
        check(json!({"command_id": ""}), "malformed", true);
        check(json!({"command_id": 7}), "malformed", true);
        check(json!({"expires_at": "tomorrow"}), "malformed", true);
        check(json!({"comment": "x".repeat(TEXT_MAX_BYTES + 1)}), "too_long", true);
    }

    #[test]
    fn what_nobody_can_be_answered_about_is_told_all_the_same() {
        for value in ["", "{", "5", "[]", "null", "{}", r#"{"gw": 5}"#, "\u{0}"] {
            let refusal = of(value, IN_TIME).unwrap_err();
            assert_eq!((refusal.reason, refusal.text.is_some(), refusal.of.is_some()), ("malformed", true, false), "{value}");
        }
        let here = Here { gateway: "gw", assets: &BTreeSet::new() };
        let reason = |bytes| decide(None, bytes, here, Timestamp(0)).unwrap_err().reason;
        assert_eq!([reason(0), reason(7), reason(VALUE_MAX_BYTES as u64 + 1)], ["malformed", "malformed", "too_long"]);
    }

    #[test]
    fn an_answer_names_the_command() {
        let of = decided(json!({"asset": "pump-9"}), IN_TIME).unwrap_err().of.unwrap();
        assert_eq!((of.command.as_deref(), of.actor.as_deref()), (Some("shelve"), Some("m.huber")));
        assert_eq!(of.command_id.as_deref(), Some("0d0c6f2e-7a35-4b8f-b0a9-7f0e6a1c9d55"));
        let long = decided(json!({"action": "x".repeat(10_000)}), IN_TIME).unwrap_err();
        assert!(long.text.unwrap().len() < 200 && long.of.unwrap().command.unwrap().len() == QUOTED_CHARS);
    }

    #[test]
    fn a_clock_that_is_not_set_judges_nothing() {
        let past = json!({"expires_at": "1999-01-01T00:00:00Z"});
        assert!(decided(past.clone(), "1970-01-01T00:05:00Z").is_ok());
        assert!(decided(past.clone(), "2023-12-31T23:59:59Z").is_ok());
        assert_eq!(decided(past, "2024-01-01T00:00:00Z").unwrap_err().reason, "expired");
    }
}
