//! `/`: what this gateway sees, for a technician with a browser. Plain HTML, no script.
use std::{fmt::Write, sync::atomic::Ordering};

use hark_protocol::topics::{Asset, LaneName, OperatingState, Phase};

use super::Status;

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
<meta http-equiv=\"refresh\" content=\"5\"><title>Hark</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color-scheme:light dark}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem;border-bottom:1px solid #8885}\
td.n{text-align:right;font-variant-numeric:tabular-nums}</style></head><body>";

/// The page.
pub(super) fn page(status: &Status, gateway: &str) -> String {
    let mut html = String::from(HEAD);
    let e = escape;
    // Writing to a String cannot fail.
    let _ = write!(html, "<h1>{}</h1><p>Kafka: <b>{}</b></p>", e(gateway), status.link().as_str());
    if let Some(reasons) = &status.plaintext_accepted {
        let _ = write!(html, "<p>Plain text is accepted. {}</p>", e(reasons));
    }
    if let Some(flood) = status.alarm_flood() {
        let _ = write!(html, "<p><b>Alarm flood</b> since {}: {} new alarms.</p>", e(&flood.since), flood.alarms);
    }
    html.push_str("<h2>Machines</h2><table><tr><th>Machine<th>State<th>Phase<th>Health<th>Time to limit<th>Alarm<th>Data</tr>");
    for (id, asset) in status.assets() {
        let phase = match (asset.phase, asset.commissioning_progress) {
            (Phase::Commissioning, Some(_)) if asset.commissioning_rows.is_none() => asset
                .commissioning_refused
                .as_ref()
                .map_or_else(|| "commissioning refused".to_owned(), |reason| format!("commissioning refused: {}", e(reason))),
            (Phase::Commissioning, Some(progress)) => match (asset.commissioning_starts, asset.commissioning_starts_needed) {
                (Some(starts), Some(needed @ 1..)) => format!("commissioning {:.0} %, {starts} of {needed} starts", progress * 100.0),
                _ => format!("commissioning {:.0} %", progress * 100.0),
            },
            (Phase::Commissioning, None) => "commissioning".to_owned(),
            (Phase::Scoring, _) => "scoring".to_owned(),
        };
        let state = match (asset.state, &asset.regime) {
            (OperatingState::Running, Some(regime)) => e(regime),
            (state, _) => format!("{state:?}").to_lowercase(),
        };
        let health = asset.health.map_or_else(|| "unknown".to_owned(), |health| format!("{health:.0}"));
        let score = match (asset.phase, asset.above) {
            (Phase::Commissioning, _) => "no score yet",
            (Phase::Scoring, true) => "score over its limit",
            (Phase::Scoring, false) => "score within its limit",
        };
        let quality = format!("{:?}", asset.quality).to_lowercase();
        let _ = write!(
            html,
            "<tr><td>{} <small>{}</small><td>{state}<td>{phase}<td class=n>{health}<td>{}<td>{}, {score}<td>{quality}</tr>",
            e(&asset.name),
            e(&id),
            e(&time_to_limit(&asset)),
            asset.alarm_state.words()
        );
    }
    html.push_str("</table><h2>Sources</h2><table><tr><th>Source<th>State<th>Readings<th>If the agent is away</tr>");
    for source in &status.sources {
        let state = if source.connected.load(Ordering::Relaxed) { "connected" } else { "not connected" };
        let guarantee = match source.guarantee {
            "redelivery" => "the broker sends again",
            "replay" => "the node sends again",
            _ => "lost",
        };
        let _ = write!(html, "<tr><td>{}<td>{state}<td class=n>{}<td>{guarantee}</tr>", e(&source.name), source.accepted.load(Ordering::Relaxed));
    }
    html.push_str("</table><h2>Buffer</h2><table><tr><th>Lane<th>Waiting for Kafka</tr>");
    for lane in LaneName::ALL {
        let _ = write!(html, "<tr><td>{lane}<td class=n>{}</tr>", status.buffered(lane));
    }
    html.push_str("</table><p><a href=\"/metrics\">metrics</a></p></body></html>");
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `health_limit` is the health limit, `de-h.v_rms:zone_c` zone c of that point.
fn limit_words(end_event: &str) -> String {
    match end_event.split_once(':') {
        Some((point, limit)) => format!("{point} in {}", limit.replace('_', " ")),
        None => end_event.replace('_', " "),
    }
}

/// When the next limit is reached, for people.
fn time_to_limit(asset: &Asset) -> String {
    let (Some(event), Some([p10, p50, p90])) = (&asset.end_event, asset.t_p10_s.zip(asset.t_p50_s).zip(asset.t_p90_s).map(|((a, b), c)| [a, b, c]))
    else {
        return if asset.forecast.is_some() { "no trend".to_owned() } else { "unknown".to_owned() };
    };
    let unit = if p50 < 2.0 * 86_400.0 { ("h", 3_600.0) } else { ("d", 86_400.0) };
    let [p10, p50, p90] = [p10, p50, p90].map(|seconds| seconds / unit.1);
    let or_more = if asset.capped == Some(true) { " or more" } else { "" };
    format!("{p50:.0} {} ({p10:.0} to {p90:.0}{or_more}) until {}", unit.0, limit_words(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
