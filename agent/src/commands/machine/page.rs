//! Machines and their alarms as a person reads them in a terminal.
use hark_protocol::topics::{Alarm, AlarmState, Asset, Phase, Priority, Timestamp};
use serde_json::Value;

use crate::{
    commands::words::{age, count, table},
    local::message::Machine,
};

/// All alarms at `now`, the most urgent first, then the oldest.
pub(super) fn alarms(machines: &[Machine], now: Timestamp) -> String {
    let mut alarms: Vec<(&Machine, &Alarm)> = machines.iter().flat_map(|machine| machine.alarms.iter().map(move |alarm| (machine, alarm))).collect();
    alarms.sort_by(|(_, a), (_, b)| b.priority.cmp(&a.priority).then(a.since.cmp(&b.since)));
    let mut text: String = alarms.iter().map(|(machine, alarm)| block(machine, alarm, now)).collect::<Vec<_>>().join("\n");
    let silenced: Vec<&Machine> =
        machines.iter().filter(|machine| machine.alarms.is_empty() && machine.state.alarm_state != AlarmState::Normal).collect();
    for machine in &silenced {
        text += &format!("{}: {}\n", machine.asset, state_words(machine.state.alarm_state));
    }
    if alarms.is_empty() && silenced.is_empty() {
        text = format!("No alarm. {}\n", watched(machines));
    }
    text
}

/// One alarm in full.
fn block(machine: &Machine, alarm: &Alarm, now: Timestamp) -> String {
    let head = format!("{}  {} · {}: {}\n", priority_word(alarm.priority), machine.asset, machine.state.name, alarm.what);
    let since = alarm.since.parse().map_or_else(|_| alarm.since.to_string(), |since| when(since, now));
    let mut lines = vec![("state", until_words(alarm)), ("since", since)];
    if let Some(value) = alarm.value {
        let unit = alarm.unit.as_deref().filter(|unit| *unit != "1").map(|unit| format!(" {unit}")).unwrap_or_default();
        let limit = alarm.limit.map(|limit| format!(", limit {}{unit}", number(limit))).unwrap_or_default();
        let quality = serde_json::to_value(alarm.quality).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default();
        lines.push(("value", format!("{}{unit}{limit}; data {quality}", number(value))));
    }
    let contributors = [
        (&alarm.contrib_1_point, alarm.contrib_1_share),
        (&alarm.contrib_2_point, alarm.contrib_2_share),
        (&alarm.contrib_3_point, alarm.contrib_3_share),
    ];
    let parts: Vec<String> =
        contributors.into_iter().filter_map(|(point, share)| Some(format!("{} {:.0} %", point.as_ref()?, 100.0 * share?))).collect();
    let optional = [
        ("from", (!parts.is_empty()).then(|| parts.join(", "))),
        ("besides", besides(alarm)),
        ("cause", alarm.cause.as_deref().map(str::to_owned)),
        ("check", alarm.advice.as_deref().map(str::to_owned)),
        ("by", alarm.respond_by.as_deref().map(|by| by.parse().map_or_else(|_| by.to_owned(), minute))),
        ("otherwise", alarm.consequence.as_deref().map(str::to_owned)),
        ("mode", alarm.failure_mode.as_deref().map(|mode| format!("{mode} (ISO 14224)"))),
        ("baseline", alarm.baseline_id.as_deref().map(str::to_owned)),
    ];
    lines.extend(optional.into_iter().filter_map(|(title, value)| Some((title, value?))));
    let case = alarm.case_id.as_deref().map(|case| format!(", case {case}")).unwrap_or_default();
    lines.push(("alarm", format!("{}{case}", alarm.alarm_id)));
    head + &lines.into_iter().map(|(title, value)| format!("  {title:<10}{value}\n")).collect::<String>()
}

/// What stood beside it: state, regime, second opinion.
fn besides(alarm: &Alarm) -> Option<String> {
    let evidence: Value = serde_json::from_str(alarm.evidence_json.as_deref()?).ok()?;
    let word = |key: &str| evidence.get(key).and_then(Value::as_str).filter(|word| *word != "unknown").map(|word| format!("{key} {word}"));
    let ratio = |key: &str, name: &str| Some(format!("{name} {} of its limit", number(evidence.get(key)?.as_f64()?)));
    let parts: Vec<String> = [word("state"), word("regime"), ratio("t2", "T²"), ratio("q", "Q")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// How far each machine is.
pub(super) fn commissioning(machines: &[Machine]) -> String {
    let row = |machine: &Machine| {
        let baseline = machine.baselines.iter().rev().find(|baseline| Some(&baseline.baseline_id) == machine.state.baseline_id.as_ref());
        let of_baseline = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        vec![
            machine.asset.to_string(),
            progress(&machine.state),
            of_baseline(baseline.map(|baseline| baseline.verdict.replace('_', " "))),
            of_baseline(baseline.map(|baseline| count(baseline.rows))),
            of_baseline(baseline.and_then(|baseline| baseline.accepted_by.as_deref().map(str::to_owned))),
            of_baseline(baseline.map(|baseline| baseline.baseline_id.to_string())),
            baseline.and_then(|baseline| baseline.remarks.as_deref().map(str::to_owned)).unwrap_or_default(),
        ]
    };
    if machines.is_empty() {
        return "No machine is configured.\n".to_owned();
    }
    table(&["machine", "phase", "verdict", ">rows", "accepted by", "baseline", "remarks"], &machines.iter().map(row).collect::<Vec<_>>())
}

fn progress(state: &Asset) -> String {
    match (state.phase, state.commissioning_progress, state.health_reason.as_deref()) {
        (_, _, Some("no_scored_points")) => "no scored points".to_owned(),
        (_, _, Some("commissioning_refused")) => "refused".to_owned(),
        (Phase::Commissioning, Some(progress), _) => format!("commissioning, {:.0} %", (100.0 * progress).floor()),
        (Phase::Commissioning, None, _) => "commissioning".to_owned(),
        (Phase::Scoring, _, _) => "scoring".to_owned(),
    }
}

fn watched(machines: &[Machine]) -> String {
    let scoring = machines.iter().filter(|machine| machine.state.phase == Phase::Scoring).count();
    let of = |count: usize, word: &str| format!("{count} machine{} {word}", if count == 1 { "" } else { "s" });
    let learned = machines.len() - scoring;
    if learned == 0 {
        return format!("{}.", of(scoring, "scored"));
    }
    format!(
        "{}, {} commissioned: of these only limits alarm.",
        of(scoring, "scored"),
        if scoring == 0 { of(learned, "being") } else { format!("{learned} being") }
    )
}

fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::Advice => "ADVICE",
        Priority::Low => "LOW",
        Priority::Medium => "MEDIUM",
        Priority::High => "HIGH",
    }
}

fn state_words(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Normal => "normal",
        AlarmState::ActiveUnacknowledged => "active, not acknowledged",
        AlarmState::ActiveAcknowledged => "active, acknowledged",
        AlarmState::ReturnedUnacknowledged => "gone, not acknowledged",
        AlarmState::Shelved => "shelved",
        AlarmState::Suppressed => "suppressed by the operating state",
        AlarmState::OutOfService => "out of service",
    }
}

fn until_words(alarm: &Alarm) -> String {
    let until = alarm.until.as_deref().and_then(|until| until.parse().ok());
    state_words(alarm.state).to_owned() + &until.map(|until| format!(" until {}", minute(until))).unwrap_or_default()
}

/// `2026-11-29 23:10:01 UTC, 5 min ago`
fn when(ts: Timestamp, now: Timestamp) -> String {
    let passed_s = now.0.saturating_sub(ts.0) as f64 / 1e6;
    if passed_s < 0.0 { minute(ts) } else { format!("{}, {} ago", minute(ts), age(passed_s)) }
}

fn minute(ts: Timestamp) -> String {
    let text = ts.to_string();
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => text,
    }
}

/// Four digits that count, without noise.
fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_that_count() {
        let cases = [(82.126, "82.13"), (80.0, "80"), (0.0, "0"), (12_345.6, "12346"), (0.001_234_56, "0.001235"), (-1.5, "-1.5")];
        cases.iter().for_each(|(value, text)| assert_eq!(number(*value), *text));
    }

    #[test]
    fn times_are_short_and_tell_how_long_ago() {
        let ts = "2026-11-29T23:10:01.5Z".parse().unwrap();
        assert_eq!(when(ts, Timestamp(ts.0 + 300_000_000)), "2026-11-29 23:10:01 UTC, 5 min ago");
        assert_eq!(when(ts, Timestamp(ts.0 - 1)), "2026-11-29 23:10:01 UTC");
    }
}
