//! What the audit reads from a message: whose it is, whether its value says the same, and, of an event, what it says of gaps and incarnations. Pure.
//!
//! Millions of records go through here: of a value only the few fields are kept that say which record it is.
use std::{borrow::Cow, fmt};

use hark_protocol::topics::{EventKind, GapReason, LaneName};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
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
    /// An incarnation came after this one, on one disk.
    Opened {
        /// The one before.
        predecessor: String,
        /// Where its lanes ended, as far as that is said.
        last_seq: PerLane<Option<u64>>,
    },
    /// An incarnation took over from this one, of another disk.
    TakenOver {
        /// The one of the other disk.
        predecessor: String,
    },
}

/// What the records of a topic are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Readings.
    Reading,
    /// Blocks of samples.
    Snapshot,
    /// Events.
    Event,
    /// Predictions.
    Prediction,
    /// Alarms.
    Alarm,
}

impl Sort {
    /// The lanes that records of this sort are in.
    pub fn lanes(self) -> &'static [LaneName] {
        match self {
            Self::Reading | Self::Snapshot => &[LaneName::Inputs],
            Self::Event => &[LaneName::Inputs, LaneName::Events],
            Self::Prediction => &[LaneName::Predictions],
            Self::Alarm => &[LaneName::Alarms],
        }
    }

    /// Whether a value has what every record of this sort has, and no record of another one in the same lane.
    fn is_that_of(self, claim: &Claim<'_>) -> bool {
        let Claim { log_ms, chunk, kind, phase, alarm_id, .. } = claim;
        match self {
            Self::Reading => log_ms,
            Self::Snapshot => chunk,
            Self::Event => kind,
            Self::Prediction => phase,
            Self::Alarm => alarm_id,
        }
        .is_some()
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Snapshot => "snapshot",
            Self::Event => "event",
            Self::Prediction => "prediction",
            Self::Alarm => "alarm",
        }
    }
}

/// Longest text of a strange value that is quoted.
const QUOTED: usize = 200;

/// What a value says of itself; that of a record which is wrapped for Kafka Connect stands in `payload`.
#[derive(Deserialize)]
struct Claim<'a> {
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    gw: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inc: Option<Cow<'a, str>>,
    lane: Option<LaneName>,
    seq: Option<u64>,
    #[serde(borrow)]
    asset: Option<Cow<'a, str>>,
    log_ms: Option<IgnoredAny>,
    chunk: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    phase: Option<IgnoredAny>,
    alarm_id: Option<IgnoredAny>,
    #[serde(borrow)]
    payload: Option<Box<Claim<'a>>>,
}

#[derive(Deserialize)]
struct Fields {
    kind: EventKind,
    what: Option<String>,
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

    /// What says that a record with this `key` and `value`, in a topic of `sort`, is not the one at this place, as a clause; `None` if nothing does.
    pub fn contradiction(&self, key: &str, value: Option<&[u8]>, sort: Sort) -> Option<String> {
        let claim = value.and_then(|value| serde_json::from_slice::<Claim<'_>>(value).ok());
        let claim = claim.map(|claim| claim.payload.map_or(Claim { payload: None, ..claim }, |payload| *payload));
        let Some(claim) = claim else { return Some("its value is of no record".to_owned()) };
        let is_of_sort = sort.is_that_of(&claim);
        let Claim { event_id, gw, inc, lane, seq, asset, .. } = claim;
        let of_fields = gw.is_some() && inc.is_some() && lane.is_some() && seq.is_some();
        if event_id.is_none() && !of_fields {
            return Some("its value is of no record".to_owned());
        }
        let fields_agree = gw.as_ref().is_none_or(|gw| **gw == self.gw)
            && inc.as_ref().is_none_or(|inc| **inc == self.inc)
            && lane.is_none_or(|lane| lane == self.lane)
            && seq.is_none_or(|seq| seq == self.seq);
        let id_agrees = event_id.as_ref().is_none_or(|event_id| **event_id == self.to_string());
        if !fields_agree || !id_agrees {
            let of_fields =
                || format!("{}/{}/{}/{}", gw.unwrap_or_default(), inc.unwrap_or_default(), lane.map_or("", LaneName::as_str), seq.unwrap_or(0));
            let told = event_id.filter(|_| !id_agrees).map_or_else(of_fields, Cow::into_owned);
            return Some(format!("its value is of {}", quoted(&told)));
        }
        if !sort.lanes().contains(&self.lane) {
            return Some("its topic is of other lanes".to_owned());
        }
        if !is_of_sort {
            return Some(format!("its value is of no {}", sort.as_str()));
        }
        // The key of what is about no machine is the gateway.
        let asset = asset.as_deref().unwrap_or(&self.gw);
        (key != asset).then(|| format!("its key is `{}`, its value about `{}`", quoted(key), quoted(asset)))
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gw, inc, lane, seq } = self;
        write!(f, "{gw}/{inc}/{lane}/{seq}")
    }
}

impl Telling {
    /// From the value of an event; `None` if it tells of neither.
    pub fn of(value: &[u8]) -> Option<Self> {
        let Fields { kind, what, gap_lane, gap_inc, gap_from_seq, gap_to_seq, gap_reason, predecessor, last_seq_json } = fields(value)?;
        match kind {
            EventKind::Gap => Some(Self::Gap { lane: gap_lane?, inc: gap_inc?, from: gap_from_seq?, to: gap_to_seq?, reason: gap_reason? }),
            EventKind::IncarnationOpened if what.as_deref() == Some("taken_over") => Some(Self::TakenOver { predecessor: predecessor? }),
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
    #[derive(Deserialize)]
    struct Wrapped<T> {
        payload: T,
    }
    serde_json::from_slice(value).ok().or_else(|| serde_json::from_slice::<Wrapped<T>>(value).ok().map(|wrapped| wrapped.payload))
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
    fn a_value_is_that_of_the_record_which_the_headers_name_or_a_fault() {
        let place = Place { gw: "g".into(), inc: "i".into(), lane: LaneName::Inputs, seq: 7 };
        let contradiction = |value: &[u8]| place.contradiction("g", Some(value), Sort::Reading);
        let check = |value: &str, expected: Option<&str>| {
            let expected = expected.map(|expected| format!("its value is {expected}"));
            assert_eq!(contradiction(value.as_bytes()), expected, "{value}");
            let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{value}}}"#);
            assert_eq!(contradiction(wrapped.as_bytes()), expected, "{wrapped}");
        };
        check(r#"{"event_id":"g/i/inputs/7","gw":"g","inc":"i","lane":"inputs","seq":7,"value":0.5,"log_ms":9,"data_json":"[1,2]"}"#, None);
        check(r#"{"event_id":"g/i/inputs/7","log_ms":9}"#, None);
        check(r#"{"gw":"g","inc":"i","lane":"inputs","seq":7,"log_ms":9}"#, None);
        check(r#"{"event_id":"g/i/inputs/7"}"#, Some("of no reading"));
        check(r#"{"event_id":"g/i/inputs/8","gw":"g","inc":"i","lane":"inputs","seq":8}"#, Some("of g/i/inputs/8"));
        for other in [r#""gw":"h""#, r#""inc":"h""#, r#""lane":"alarms""#, r#""seq":8"#] {
            let told = contradiction(format!(r#"{{"event_id":"g/i/inputs/7",{other}}}"#).as_bytes());
            assert!(told.is_some(), "{other}");
        }
        for none in ["", "junk", "{}", "7", "null", r#"{"event_id":7}"#, r#"{"gw":"g","inc":"i","lane":"inputs"}"#] {
            check(none, Some("of no record"));
        }
        assert_eq!(place.contradiction("g", None, Sort::Event).as_deref(), Some("its value is of no record"));
        let long = format!(r#"{{"event_id":"{}"}}"#, "x".repeat(1_000));
        assert_eq!(contradiction(long.as_bytes()).unwrap().len(), "its value is of ".len() + QUOTED);
    }

    #[test]
    fn a_record_stands_under_its_machine_in_a_topic_of_its_lane() {
        let place = Place { gw: "g".into(), inc: "i".into(), lane: LaneName::Inputs, seq: 7 };
        let check = |key: &str, asset: &str, sort: Sort, expected: Option<&str>| {
            let value = format!(r#"{{"event_id":"g/i/inputs/7","asset":{asset},"kind":"tick"}}"#);
            assert_eq!(place.contradiction(key, Some(value.as_bytes()), sort).as_deref(), expected, "{key} {asset}");
        };
        check("a", r#""a""#, Sort::Event, None);
        check("g", "null", Sort::Event, None);
        check("b", r#""a""#, Sort::Event, Some("its key is `b`, its value about `a`"));
        check("", "null", Sort::Event, Some("its key is ``, its value about `g`"));
        check("a", r#""a""#, Sort::Alarm, Some("its topic is of other lanes"));
        check("a", r#""a""#, Sort::Reading, Some("its value is of no reading"));
        check("a", r#""a""#, Sort::Snapshot, Some("its value is of no snapshot"));
    }

    #[test]
    fn a_value_is_of_the_sort_of_its_topic() {
        let check = |lane: LaneName, telling: &str, expected: &[Sort]| {
            let place = Place { gw: "g".into(), inc: "i".into(), lane, seq: 7 };
            let value = format!(r#"{{"event_id":"{place}",{telling}}}"#);
            let sorts = [Sort::Reading, Sort::Snapshot, Sort::Event, Sort::Prediction, Sort::Alarm];
            let found: Vec<_> = sorts.into_iter().filter(|sort| place.contradiction("g", Some(value.as_bytes()), *sort).is_none()).collect();
            assert_eq!(found, expected, "{value}");
        };
        check(LaneName::Inputs, r#""log_ms":0,"quality":"good""#, &[Sort::Reading]);
        check(LaneName::Inputs, r#""chunk":0"#, &[Sort::Snapshot]);
        for lane in [LaneName::Inputs, LaneName::Events] {
            check(lane, r#""kind":"tick","alarm_id":null"#, &[Sort::Event]);
        }
        check(LaneName::Predictions, r#""phase":"active""#, &[Sort::Prediction]);
        check(LaneName::Alarms, r#""alarm_id":"a""#, &[Sort::Alarm]);
        check(LaneName::Inputs, r#""value":1"#, &[]);
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
        let taken_over = br#"{"kind":"incarnation_opened","what":"taken_over","predecessor":"p","last_seq_json":null}"#;
        assert_eq!(Telling::of(taken_over), Some(Telling::TakenOver { predecessor: "p".into() }));
        assert_eq!(Telling::of(br#"{"kind":"incarnation_opened"}"#), None);
        assert_eq!(Telling::of(br#"{"kind":"tick"}"#), None);
    }
}
