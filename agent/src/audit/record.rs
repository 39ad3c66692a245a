//! What the audit reads from a message: whose it is, and, of an event, what it says of gaps and incarnations. Pure.
use hark_protocol::topics::{EventKind, GapReason, LaneName};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::ledger::SEQ_MAX;
use crate::forward::cursor::PerLane;

/// Where a record stands in a log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// Gateway.
    pub gw: String,
    /// Incarnation.
    pub inc: String,
    /// Lane.
    pub lane: LaneName,
    /// Seq.
    pub seq: u64,
}

/// What an event says that the audit needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Telling {
    /// These records are lost.
    Gap {
        /// Lane.
        lane: LaneName,
        /// Incarnation.
        inc: String,
        /// First lost seq.
        from: u64,
        /// Last lost seq.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// An incarnation came after this one.
    Opened {
        /// The one before.
        predecessor: String,
        /// Where its lanes ended, as far as that is said.
        last_seq: PerLane<Option<u64>>,
    },
}

#[derive(Deserialize)]
struct Fields {
    kind: EventKind,
    gap_lane: Option<LaneName>,
    gap_inc: Option<String>,
    gap_from_seq: Option<u64>,
    gap_to_seq: Option<u64>,
    gap_reason: Option<GapReason>,
    predecessor: Option<String>,
    last_seq_json: Option<String>,
}

impl Place {
    /// From the headers that every record carries; from the value where a tool between has dropped them. `None` if neither tells.
    pub fn of<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>, value: Option<&[u8]>) -> Option<Self> {
        let (mut gw, mut inc, mut lane, mut seq) = (None, None, None, None);
        for (key, value) in headers {
            let text = || Some(std::str::from_utf8(value?).ok()?.to_owned());
            match key {
                "gw" => gw = text(),
                "inc" => inc = text(),
                "lane" => lane = text().and_then(|text| LaneName::ALL.into_iter().find(|lane| lane.as_str() == text)),
                "seq" => seq = text().and_then(|text| text.parse().ok()),
                _ => {}
            }
        }
        let of_headers = || Some(Self { gw: gw?, inc: inc?, lane: lane?, seq: seq? });
        of_headers().or_else(|| fields(value?)).filter(|place| (1..=SEQ_MAX).contains(&place.seq))
    }
}

impl Telling {
    /// From the value of an event; `None` if it tells of neither.
    pub fn of(value: &[u8]) -> Option<Self> {
        let Fields { kind, gap_lane, gap_inc, gap_from_seq, gap_to_seq, gap_reason, predecessor, last_seq_json } = fields(value)?;
        match kind {
            EventKind::Gap => Some(Self::Gap { lane: gap_lane?, inc: gap_inc?, from: gap_from_seq?, to: gap_to_seq?, reason: gap_reason? }),
            EventKind::IncarnationOpened => {
                let last: Value = last_seq_json.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                Some(Self::Opened { predecessor: predecessor?, last_seq: LaneName::ALL.map(|lane| last.get(lane.as_str())?.as_u64()) })
            }
            _ => None,
        }
    }
}

/// The fields of a value, also of one that is wrapped for Kafka Connect as `{"schema": …, "payload": …}`.
fn fields<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok().or_else(|| {
        let mut wrapped: Value = serde_json::from_slice(value).ok()?;
        serde_json::from_value(wrapped.get_mut("payload")?.take()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        pairs.iter().map(|(key, value)| (*key, Some(value.as_bytes())))
    }

    #[test]
    fn headers_tell_or_else_the_value() {
        let place = Place { gw: "g".into(), inc: "i".into(), lane: LaneName::Alarms, seq: 7 };
        let all = [("gw", "g"), ("inc", "i"), ("sv", "1"), ("lane", "alarms"), ("seq", "7")];
        assert_eq!(Place::of(headers(&all), None), Some(place.clone()));
        let value = br#"{"gw":"g","inc":"i","lane":"alarms","seq":7,"ts":"x"}"#;
        assert_eq!(Place::of(headers(&all[..3]), Some(value)), Some(place.clone()));
        let wrapped = [br#"{"schema":{},"payload":"#.as_slice(), value, b"}"].concat();
        assert_eq!(Place::of(headers(&[]), Some(&wrapped)), Some(place));
        assert_eq!(Place::of(headers(&[]), Some(b"junk")), None);
        assert_eq!(Place::of(headers(&[("gw", "g"), ("inc", "i"), ("lane", "alarms"), ("seq", "0")]), None), None);
    }

    #[test]
    fn events_tell_of_gaps_and_incarnations() {
        let gap = br#"{"kind":"gap","gap_lane":"inputs","gap_inc":"i","gap_from_seq":3,"gap_to_seq":9,"gap_reason":"quota"}"#;
        let expected = Telling::Gap { lane: LaneName::Inputs, inc: "i".into(), from: 3, to: 9, reason: GapReason::Quota };
        assert_eq!(Telling::of(gap), Some(expected));
        assert_eq!(Telling::of(br#"{"kind":"gap","gap_lane":"inputs","gap_inc":"i","gap_from_seq":null}"#), None, "all of it was delivered");
        let opened = br#"{"kind":"incarnation_opened","predecessor":"p","last_seq_json":"{\"inputs\":5,\"events\":2}"}"#;
        let expected = Telling::Opened { predecessor: "p".into(), last_seq: [Some(5), None, None, Some(2)] };
        assert_eq!(Telling::of(opened), Some(expected));
        assert_eq!(Telling::of(br#"{"kind":"incarnation_opened"}"#), None);
        assert_eq!(Telling::of(br#"{"kind":"tick"}"#), None);
    }
}
