//! Machines and their alarms as a person reads them in a terminal.
use std::{cmp::Reverse, collections::BTreeMap};

use hark_protocol::topics::{Alarm, AlarmState, Asset, InstrumentStatus, Phase, Priority, Quality, Timestamp};
use serde_json::Value;

use crate::{
    inference::AlarmFlood,
    local::message::{BaselineSummary, Machine},
    words::{age, count, table},
};

/// All alarms at `now`, the most urgent first, then the oldest; behind them what is silenced, and what people work on.
pub(super) fn alarms(machines: &[Machine], flood: Option<&AlarmFlood>, now: Timestamp) -> String {
    let mut alarms: Vec<(&Machine, &Alarm)> = machines.iter().flat_map(|machine| machine.alarms.iter().map(move |alarm| (machine, alarm))).collect();
    alarms.sort_by_key(|(_, alarm)| (alarm.state.is_silenced(), Reverse(alarm.priority), alarm.since.clone()));
    let mut text: String = alarms.iter().map(|(machine, alarm)| block(machine, alarm, now)).collect::<Vec<_>>().join("\n");
    let silenced: Vec<&Machine> =
        machines.iter().filter(|machine| machine.alarms.is_empty() && machine.state.alarm_state != AlarmState::Normal).collect();
    for machine in &silenced {
        text += &format!("{}: {}\n", machine.asset, machine.state.alarm_state.words());
    }
    if alarms.is_empty() && silenced.is_empty() {
        text = format!("No alarm. {}\n", watched(machines));
    }
    let in_hand: String = machines.iter().flat_map(in_hand).collect();
    flood.map(|flood| flood_words(flood, now)).unwrap_or_default() + &text + &in_hand
}

fn flood_words(flood: &AlarmFlood, now: Timestamp) -> String {
    let since = flood.since.parse().map_or_else(|_| flood.since.to_string(), |since| when(since, now));
    format!("ALARM FLOOD: {} new alarms since {since}. The alarm command is run for those of high priority alone until it is over.\n\n", flood.alarms)
}

/// The instruments of a machine that are out of service, so that none is forgotten.
fn in_hand(machine: &Machine) -> Vec<String> {
    let instruments: BTreeMap<String, InstrumentStatus> = serde_json::from_str(&machine.state.instruments_json).unwrap_or_default();
    let in_hand = instruments.into_iter().filter(|(_, status)| *status == InstrumentStatus::CheckFunction);
    in_hand.map(|(id, _)| format!("{}: instrument `{id}` is out of service, its values do not count\n", machine.asset)).collect()
}

/// One alarm in full.
fn block(machine: &Machine, alarm: &Alarm, now: Timestamp) -> String {
    let head = format!("{}  {} · {}: {}\n", priority_word(alarm.priority), machine.asset, machine.state.name, alarm.what);
    let since = alarm.since.parse().map_or_else(|_| alarm.since.to_string(), |since| when(since, now));
    let mut lines = vec![("state", until_words(alarm)), ("since", since)];
    if let Some(value) = alarm.value {
        let unit = alarm.unit.as_deref().filter(|unit| *unit != "1").map(|unit| format!(" {}", unit_words(unit))).unwrap_or_default();
        let limit = alarm.limit.map(|limit| format!(", limit {}{unit}", number(limit))).unwrap_or_default();
        let quality = serde_json::to_value(alarm.quality).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default();
        // A score is one over its limit: it is the only alarm that is of no point.
        let words =
            if alarm.point.is_none() { format!("score {} times its limit", number(value)) } else { format!("{}{unit}{limit}", number(value)) };
        lines.push(("value", format!("{words}; data {quality}{}", old(alarm, now))));
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
        ("chatters", chatters(alarm)),
        ("cause", alarm.cause.as_deref().map(str::to_owned)),
        ("check", alarm.advice.as_deref().map(str::to_owned)),
        ("by", alarm.respond_by.as_deref().map(|by| by.parse().map_or_else(|_| by.to_owned(), |by| due(by, now)))),
        ("support", alarm.confidence.map(|confidence| format!("{confidence:.2} of 1"))),
        ("otherwise", alarm.consequence.as_deref().map(str::to_owned)),
        ("mode", alarm.failure_mode.as_deref().map(|mode| format!("{mode} (ISO 14224)"))),
        ("baseline", alarm.baseline_id.as_deref().map(str::to_owned)),
    ];
    lines.extend(optional.into_iter().filter_map(|(title, value)| Some((title, value?))));
    let case = alarm.case_id.as_deref().map(|case| format!(", case {case}")).unwrap_or_default();
    lines.push(("alarm", format!("{}{case}", alarm.alarm_id)));
    head + &lines.into_iter().map(|(title, value)| format!("  {title:<10}{value}\n")).collect::<String>()
}

/// How old a value is that says nothing of now.
fn old(alarm: &Alarm, now: Timestamp) -> String {
    let evidence: Option<Value> = alarm.evidence_json.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let at: Option<Timestamp> = evidence.and_then(|evidence| evidence.get("value_at")?.as_str()?.parse().ok());
    let is_old = |at: &Timestamp| alarm.quality == Quality::Bad && *at < now;
    at.filter(is_old).map(|at| format!(", {} old", age(now.0.saturating_sub(at.0) as f64 / 1e6))).unwrap_or_default()
}

/// It goes to and fro between alarm and normal.
fn chatters(alarm: &Alarm) -> Option<String> {
    let evidence: Value = serde_json::from_str(alarm.evidence_json.as_deref()?).ok()?;
    let of = |key: &str| evidence.get("chattering")?.get(key)?.as_f64();
    Some(format!("raised {} times within {} s: mend its `deadband` or its delays", of("times")?, number(of("within_s")?)))
}

/// What stood beside it: state, regime, second opinion.
fn besides(alarm: &Alarm) -> Option<String> {
    let evidence: Value = serde_json::from_str(alarm.evidence_json.as_deref()?).ok()?;
    let word = |key: &str| evidence.get(key).and_then(Value::as_str).filter(|word| *word != "unknown").map(|word| format!("{key} {word}"));
    let ratio = |key: &str, name: &str| Some(format!("{name} {} times its limit", number(evidence.get(key)?.as_f64()?)));
    let parts: Vec<String> = [word("state"), word("regime"), ratio("t2", "T²"), ratio("q", "Q")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// How far each machine is.
pub(super) fn commissioning(machines: &[Machine]) -> String {
    let row = |machine: &Machine| {
        let baseline = machine.baselines.iter().rev().find(|baseline| Some(&baseline.baseline_id) == machine.state.baseline_id.as_ref());
        let of_baseline = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let state = &machine.state;
        vec![
            machine.asset.to_string(),
            progress(state),
            of_baseline(of_needed(state.commissioning_running_s.map(age), state.commissioning_running_needed_s.map(age))),
            of_baseline(starts(state).or_else(|| Some(baseline?.starts?.to_string()))),
            of_baseline(state.commissioning_rows.or_else(|| Some(baseline?.rows)).map(count)),
            of_baseline(baseline.and_then(|baseline| baseline.limit).map(|limit| format!("{limit:.2}"))),
            of_baseline(baseline.map(|baseline| baseline.verdict.replace('_', " "))),
            of_baseline(baseline.and_then(|baseline| baseline.accepted_by.as_deref().map(str::to_owned))),
            of_baseline(baseline.map(|baseline| baseline.baseline_id.to_string())),
            remarks(state, baseline).unwrap_or_default(),
        ]
    };
    if machines.is_empty() {
        return "No machine is configured.\n".to_owned();
    }
    let titles = ["machine", "phase", ">running", ">starts", ">rows", ">limit", "verdict", "accepted by", "baseline", "remarks"];
    table(&titles, &machines.iter().map(row).collect::<Vec<_>>())
}

/// What was refused, else what stands with the baseline.
fn remarks(state: &Asset, baseline: Option<&BaselineSummary>) -> Option<String> {
    let refused = state.commissioning_refused.as_ref();
    let going_on = if state.commissioning_rows.is_some() { "begun anew: " } else { "" };
    refused.map(|reason| format!("{going_on}{reason}")).or_else(|| baseline?.remarks.as_deref().map(str::to_owned))
}

/// Starts so far, where commissioning waits for some.
fn starts(state: &Asset) -> Option<String> {
    let needed = state.commissioning_starts_needed.filter(|needed| *needed > 0);
    of_needed(state.commissioning_starts.map(|starts| starts.to_string()), needed.map(|needed| needed.to_string()))
}

fn of_needed(have: Option<String>, needed: Option<String>) -> Option<String> {
    Some(format!("{} of {}", have?, needed?))
}

fn progress(state: &Asset) -> String {
    match (state.phase, state.commissioning_progress, state.health_reason.as_deref()) {
        (_, _, Some("no_scored_points")) => "no scored points".to_owned(),
        (_, _, Some("commissioning_refused")) => "refused".to_owned(),
        // It has no rows any more, whatever else is the reason for want of a score now.
        (Phase::Commissioning, Some(_), _) if state.commissioning_rows.is_none() => "refused".to_owned(),
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

fn until_words(alarm: &Alarm) -> String {
    let until = alarm.until.as_deref().and_then(|until| until.parse().ok());
    alarm.state.words().to_owned() + &until.map(|until| format!(" until {}", minute(until))).unwrap_or_default()
}

/// `2026-11-29 23:10:01 UTC, 5 min ago`
fn when(ts: Timestamp, now: Timestamp) -> String {
    let passed_s = now.0.saturating_sub(ts.0) as f64 / 1e6;
    if passed_s < 0.0 { minute(ts) } else { format!("{}, {} ago", minute(ts), age(passed_s)) }
}

/// `2026-11-29 23:10:01 UTC, in 5 min`
fn due(by: Timestamp, now: Timestamp) -> String {
    let left_s = by.0.saturating_sub(now.0) as f64 / 1e6;
    let words = if left_s < 0.0 { format!("overdue for {}", age(-left_s)) } else { format!("in {}", age(left_s)) };
    format!("{}, {words}", minute(by))
}

/// A UCUM code as it stands on instruments.
fn unit_words(unit: &str) -> &str {
    match unit {
        "Cel" => "°C",
        "[degF]" => "°F",
        "[g]" => "g",
        "m/s2" => "m/s²",
        "m3/h" => "m³/h",
        "/min" => "1/min",
        as_it_is => as_it_is,
    }
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

    /// The machine and the alarm of the published examples.
    fn machine() -> (Machine, Alarm) {
        let state = serde_json::from_str(include_str!("../../../../config/kafka/schemas/hark.assets.v1.example.json")).unwrap();
        let alarm: Alarm = serde_json::from_str(include_str!("../../../../config/kafka/schemas/hark.alarms.v1.example.json")).unwrap();
        (Machine { asset: "pump-p101".into(), state, alarms: Vec::new(), baselines: Vec::new() }, alarm)
    }

    fn now() -> Timestamp {
        "2026-05-11T14:07:00.250Z".parse().unwrap()
    }

    /// Everything that an operator reads, word for word.
    #[test]
    fn an_alarm_is_printed_in_full() {
        let (machine, alarm) = machine();
        let evidence = r#"{"state":"running","regime":"load-2","t2":1.52,"q":0.8,"chattering":{"times":3,"within_s":42.5}}"#;
        let urgent = Alarm { evidence_json: Some(evidence.into()), ..alarm.clone() };
        let suppressed = Alarm {
            alarm_id: "1/7".into(),
            case_id: None,
            state: AlarmState::Suppressed,
            priority: Priority::High,
            what: "`pressure` below its low-low limit".into(),
            point: Some("pressure".into()),
            value: Some(0.02),
            limit: Some(1.0),
            unit: Some("bar".into()),
            respond_by: None,
            contrib_1_share: None,
            contrib_2_share: None,
            contrib_3_share: None,
            baseline_id: None,
            failure_mode: Some("PDE".into()),
            advice: None,
            consequence: None,
            cause: None,
            evidence_json: Some(r#"{"state":"off"}"#.into()),
            ..alarm
        };
        let state = Asset { instruments_json: r#"{"de-h":"check_function","flow":"normal"}"#.into(), ..machine.state };
        let machine = Machine { state, alarms: vec![suppressed, urgent], ..machine };
        let flood = AlarmFlood { since: "2026-05-11T14:01:00.25Z".into(), alarms: 12 };
        let expected = "\
ALARM FLOOD: 12 new alarms since 2026-05-11 14:01:00 UTC, 6 min ago. The alarm command is run for those of high priority alone until it is over.

MEDIUM  pump-p101 · Feed pump 101: drive-end bearing, outer ring
  state     active, not acknowledged
  since     2026-05-11 14:02:00 UTC, 5 min ago
  value     0.41 g, limit 0.25 g; data good
  from      de-h.env.bpfo 62 %, de-h.kurtosis 21 %, de-temp 9 %
  besides   state running, regime load-2, T² 1.52 times its limit, Q 0.8 times its limit
  chatters  raised 3 times within 42.5 s: mend its `deadband` or its delays
  cause     spalling of the outer ring
  check     check lubrication; take a second measurement at the drive end; plan the bearing for the next stop
  by        2026-05-20 14:02:30 UTC, in 9.0 d
  support   0.83 of 1
  otherwise seizure of the pump
  mode      VIB (ISO 14224)
  baseline  6-310433-load-2
  alarm     pump-p101/de-h.env.bpfo/2026-05-11T14:02:30Z, case pump-p101/2026-05-09T22:47:00Z

HIGH  pump-p101 · Feed pump 101: `pressure` below its low-low limit
  state     suppressed by design: it does not apply in the present operating state
  since     2026-05-11 14:02:00 UTC, 5 min ago
  value     0.02 bar, limit 1 bar; data good
  besides   state off
  support   0.83 of 1
  mode      PDE (ISO 14224)
  alarm     1/7
pump-p101: instrument `de-h` is out of service, its values do not count
";
        assert_eq!(alarms(&[machine], Some(&flood), now()), expected);
    }

    #[test]
    fn a_value_that_says_nothing_of_now_tells_its_age() {
        let (machine, alarm) = machine();
        let value = |quality: Quality| {
            let evidence_json = Some(r#"{"value_at":"2026-05-11T11:07:00.25Z"}"#.into());
            let machine = Machine { alarms: vec![Alarm { quality, evidence_json, ..alarm.clone() }], ..machine.clone() };
            let text = alarms(&[machine], None, now());
            text.lines().find(|line| line.starts_with("  value")).unwrap().to_owned()
        };
        assert_eq!(value(Quality::Bad), "  value     0.41 g, limit 0.25 g; data bad, 3.0 h old");
        assert_eq!(value(Quality::Good), "  value     0.41 g, limit 0.25 g; data good");
    }

    #[test]
    fn without_an_alarm_it_says_what_is_watched_and_what_is_silent() {
        let (machine, _) = machine();
        let calm = Machine { state: Asset { alarm_state: AlarmState::Normal, ..machine.state.clone() }, ..machine.clone() };
        let learning = Machine { state: Asset { phase: Phase::Commissioning, ..calm.state.clone() }, ..calm.clone() };
        let silent = Machine { state: Asset { alarm_state: AlarmState::OutOfService, ..machine.state.clone() }, ..machine };
        for (machines, expected) in [
            (vec![calm.clone()], "No alarm. 1 machine scored.\n"),
            (vec![learning.clone(), learning.clone()], "No alarm. 0 machines scored, 2 machines being commissioned: of these only limits alarm.\n"),
            (vec![calm.clone(), learning], "No alarm. 1 machine scored, 1 being commissioned: of these only limits alarm.\n"),
            (vec![calm, silent], "pump-p101: out of service\n"),
        ] {
            assert_eq!(alarms(&machines, None, now()), expected);
        }
    }

    #[test]
    fn numbers_have_four_digits_that_count() {
        let cases = [(82.126, "82.13"), (80.0, "80"), (0.0, "0"), (12_345.6, "12346"), (0.001_234_56, "0.001235"), (-1.5, "-1.5")];
        cases.iter().for_each(|(value, text)| assert_eq!(number(*value), *text));
    }

    #[test]
    fn commissioning_tells_what_is_missing() {
        let example: Asset = serde_json::from_str(include_str!("../../../../config/kafka/schemas/hark.assets.v1.example.json")).unwrap();
        let learning = Asset {
            phase: Phase::Commissioning,
            health_reason: None,
            commissioning_progress: Some(0.46),
            commissioning_rows: Some(36_000),
            commissioning_running_s: Some(36_000.0),
            commissioning_running_needed_s: Some(86_400.0),
            commissioning_starts: Some(1),
            commissioning_starts_needed: Some(2),
            baseline_id: None,
            ..example
        };
        let without_states = Asset { commissioning_starts: Some(0), commissioning_starts_needed: Some(0), ..learning.clone() };
        let learning = Asset { commissioning_refused: Some("`t` rose all the time".into()), ..learning };
        let baseline = BaselineSummary {
            baseline_id: "2-300".into(),
            verdict: "accepted".into(),
            remarks: None,
            accepted_by: Some("policy".into()),
            rows: 86_400,
            starts: Some(3),
            limit: Some(1.2),
            input_from: "a/1".into(),
            input_to: "a/9".into(),
        };
        let scored = Asset {
            phase: Phase::Scoring,
            baseline_id: Some("2-300".into()),
            commissioning_rows: None,
            commissioning_running_s: None,
            commissioning_starts: None,
            commissioning_refused: None,
            ..learning.clone()
        };
        let of = |asset: &str, state, baselines| Machine { asset: asset.into(), state, alarms: Vec::new(), baselines };
        let refused =
            Asset { health_reason: Some("no_reading".into()), commissioning_progress: Some(1.0), commissioning_rows: None, ..learning.clone() };
        assert_eq!(progress(&refused), "refused");
        let text = commissioning(&[of("a", learning, vec![]), of("b", without_states, vec![]), of("c", scored, vec![baseline])]);
        let expected = [
            "machine  phase                         running  starts    rows  limit  verdict   accepted by  baseline  remarks",
            "a        commissioning, 46 %  10.0 h of 24.0 h  1 of 2  36 000      –  –         –            –         begun anew: `t` rose all the time",
            "b        commissioning, 46 %  10.0 h of 24.0 h       –  36 000      –  –         –            –",
            "c        scoring                             –       3  86 400   1.20  accepted  policy       2-300",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn times_are_short_and_tell_how_long_ago() {
        let ts = "2026-11-29T23:10:01.5Z".parse().unwrap();
        assert_eq!(when(ts, Timestamp(ts.0 + 300_000_000)), "2026-11-29 23:10:01 UTC, 5 min ago");
        assert_eq!(when(ts, Timestamp(ts.0 - 1)), "2026-11-29 23:10:01 UTC");
        assert_eq!(due(ts, Timestamp(ts.0 - 300_000_000)), "2026-11-29 23:10:01 UTC, in 5 min");
        assert_eq!(due(ts, Timestamp(ts.0 + 30_000_000)), "2026-11-29 23:10:01 UTC, overdue for 30 s");
    }
}
