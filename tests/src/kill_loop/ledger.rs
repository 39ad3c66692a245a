//! What was sent against what Kafka has. Pure: it is shown records in the order of their partitions and knows nothing of brokers or agents.
//!
//! What can be promised of order, and is checked here:
//! - **per key**: the records of one lane under one key are in the order of the log: incarnation after incarnation, and by `seq` within one. Hark alone
//!   decides this, so it holds for every source.
//! - **numbers of one machine**: they rise. MQTT (4.6) has a broker send again after a reconnect in the original order, before anything newer. So a
//!   receiver sees 1 2 3, then perhaps 1 2 3 again, then 4; what is seen *first* rises, and with repetitions left out everything does. This needs one
//!   publisher and one topic per machine, which is what is sent here.
//! - **frames of a node**: none, beyond the order per key; the node's ring may have dropped some, which it counts.
//!
//! A repetition is counted as doubled and is then left out of the check of order: it is one fault and not two.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use hark_protocol::topics::{Event, EventKind, LaneName};
use serde::Deserialize;

use crate::support::KafkaRecord;

/// How many examples of each kind of finding are kept.
const EXAMPLES: u64 = 3;

/// What every record of a lane says of itself.
#[derive(Debug, Deserialize)]
struct Line {
    inc: String,
    lane: LaneName,
    seq: u64,
    asset: Option<String>,
    point: Option<String>,
    value: Option<f64>,
    source_seq: Option<u64>,
}

/// What the machines say that they sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Numbers 0 to this, by machine.
    pub count: BTreeMap<String, u64>,
    /// Sent once and never acknowledged, since the connection broke: they may have arrived or not, and once at most.
    pub uncertain: BTreeSet<(String, u64)>,
    /// The node's asset, and frames that its ring had dropped or that still waited when it ended.
    pub node: Option<(String, u64)>,
}

/// The end of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged to the sender and neither in Kafka nor named in a gap; and positions of the log that are in neither.
    pub lost: u64,
    /// Records beyond one per event id, readings beyond one per number.
    pub duplicated: u64,
    /// Records that stand behind one that follows them.
    pub disordered: u64,
    /// Records in Kafka, records that gaps name.
    pub records: [u64; 2],
    /// Records that gaps name, by lane.
    pub named: BTreeMap<&'static str, u64>,
    /// How often each kind of finding was met.
    pub findings: BTreeMap<&'static str, u64>,
    /// Some of each.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        (self.lost, self.duplicated, self.disordered) == (0, 0, 0)
    }
}

/// What Kafka has shown so far.
#[derive(Debug, Default)]
pub struct Ledger {
    places: BTreeMap<(String, LaneName), BTreeSet<u64>>,
    gaps: Vec<(String, LaneName, u64, u64)>,
    /// By machine: numbers seen.
    numbers: BTreeMap<String, BTreeSet<u64>>,
    /// By point: frames seen.
    frames: BTreeMap<String, BTreeSet<u64>>,
    keys: BTreeMap<(String, String, LaneName), KeyOrder>,
    verdict: Verdict,
}

/// The last place under a key, and the incarnations that were followed by another.
#[derive(Debug, Default)]
struct KeyOrder {
    inc: String,
    seq: u64,
    over: BTreeSet<String>,
}

impl Ledger {
    /// Takes the next record of a topic whose records belong to lanes.
    ///
    /// # Errors
    /// When the record is none of Hark's.
    pub fn take(&mut self, record: &KafkaRecord) -> Result<()> {
        let value = record.value.as_deref().with_context(|| format!("a tombstone in {}", record.topic))?;
        let line: Line = serde_json::from_str(value).with_context(|| format!("not a record of a lane: {value}"))?;
        let at = format!("{}/{}/{} at {}/{}@{}", line.inc, line.lane, line.seq, record.topic, record.partition, record.offset);
        self.verdict.records[0] += 1;
        if !self.places.entry((line.inc.clone(), line.lane)).or_default().insert(line.seq) {
            self.verdict.duplicated += 1;
            self.find("position twice", &at);
            return Ok(());
        }
        let key = (record.topic.clone(), record.key.clone().unwrap_or_default(), line.lane);
        if !self.keys.entry(key).or_default().follows(&line) {
            self.verdict.disordered += 1;
            self.find("out of the order of the log", &at);
        }
        if record.topic.ends_with("events.v1") {
            self.take_event(value)?;
        } else if let (Some(asset), Some(point)) = (&line.asset, &line.point) {
            self.take_reading(asset, point, &line, &at);
        }
        Ok(())
    }

    /// Records that stood twice so far.
    pub fn duplicated(&self) -> u64 {
        self.verdict.duplicated
    }

    /// Records seen so far.
    pub fn records(&self) -> u64 {
        self.verdict.records[0]
    }

    /// Whether everything in `sent` that the broker acknowledged has been seen.
    pub fn has_all(&self, sent: &Sent) -> bool {
        sent.count.iter().all(|(machine, count)| self.missing(sent, machine, *count).next().is_none())
    }

    /// Compares with what was sent.
    pub fn verdict(mut self, sent: &Sent) -> Verdict {
        let gaps: u64 = self.gaps.iter().map(|(_, _, from, to)| to + 1 - from).sum();
        self.verdict.records[1] = gaps;
        let mut lost = 0;
        for (machine, count) in &sent.count {
            let missing: Vec<u64> = self.missing(sent, machine, *count).collect();
            lost += missing.len() as u64;
            if let Some(first) = missing.first() {
                self.find("numbers missing", &format!("{} of {machine}, the first is {first}", missing.len()));
            }
        }
        // Numbers do not tell which position they had; what gaps name in the inputs lane may be any of them.
        let named: u64 = self.gaps.iter().filter(|gap| gap.1 == LaneName::Inputs).map(|(_, _, from, to)| to + 1 - from).sum();
        let frames = self.lost_frames(sent);
        let holes = self.holes();
        self.verdict.lost = (lost + frames).saturating_sub(named) + holes;
        self.verdict
    }

    fn missing<'a>(&'a self, sent: &'a Sent, machine: &'a str, count: u64) -> impl Iterator<Item = u64> + 'a {
        let seen = self.numbers.get(machine);
        (0..count).filter(move |number| seen.is_none_or(|seen| !seen.contains(number)) && !sent.uncertain.contains(&(machine.to_owned(), *number)))
    }

    fn take_event(&mut self, value: &str) -> Result<()> {
        let event: Event = serde_json::from_str(value).with_context(|| format!("no event: {value}"))?;
        if event.kind != EventKind::Gap {
            return Ok(());
        }
        // A gap whose records all were delivered after all has no range any more.
        if let (Some(lane), Some(inc), Some(from), Some(to)) = (event.gap_lane, event.gap_inc, event.gap_from_seq, event.gap_to_seq) {
            self.find("gap", &format!("{inc}/{lane}/{from} to {to}, {:?}", event.gap_reason));
            *self.verdict.named.entry(lane.as_str()).or_default() += to + 1 - from;
            self.gaps.push((inc.to_string(), lane, from, to));
        }
        Ok(())
    }

    fn take_reading(&mut self, asset: &str, point: &str, line: &Line, at: &str) {
        let Some(frame) = line.source_seq else { return self.take_number(asset, line, at) };
        if !self.frames.entry(point.to_owned()).or_default().insert(frame) {
            self.verdict.duplicated += 1;
            self.find("frame twice in the log", &format!("{frame} of {asset}: {at}"));
        }
    }

    fn take_number(&mut self, machine: &str, line: &Line, at: &str) {
        let number = line.value.unwrap_or(-1.0) as u64;
        let seen = self.numbers.entry(machine.to_owned()).or_default();
        let last = seen.last().copied();
        if !seen.insert(number) {
            self.verdict.duplicated += 1;
            self.find("number twice in the log", &format!("{number} of {machine}: {at}"));
        } else if let Some(last) = last.filter(|last| *last > number) {
            self.verdict.disordered += 1;
            self.find("number out of order", &format!("{number} of {machine} after {last}: {at}"));
        }
    }

    /// Frames that the node had acknowledged and that are not there, beyond those that it says it dropped.
    fn lost_frames(&mut self, sent: &Sent) -> u64 {
        let Some((asset, dropped)) = &sent.node else { return 0 };
        let seen: BTreeSet<u64> = self.frames.values().flatten().copied().collect();
        let missing = seen.last().copied().unwrap_or(0) - seen.len() as u64;
        let lost = missing.saturating_sub(*dropped);
        if lost > 0 {
            self.find("frames missing", &format!("{missing} of {asset}, its ring dropped {dropped}"));
        }
        lost
    }

    /// Positions up to the last known one of their incarnation and lane that are neither in Kafka nor in a gap, and those that are there twice over:
    /// in two gaps, or in Kafka and in a gap.
    fn holes(&mut self) -> u64 {
        let mut ranges: BTreeMap<(&str, LaneName), Vec<(u64, u64)>> = BTreeMap::new();
        for ((inc, lane), seqs) in &self.places {
            ranges.entry((inc, *lane)).or_default().extend(seqs.iter().map(|seq| (*seq, *seq)));
        }
        for (inc, lane, from, to) in &self.gaps {
            ranges.entry((inc, *lane)).or_default().push((*from, *to));
        }
        let (mut holes, mut first) = (0, None);
        for ((inc, lane), mut ranges) in ranges {
            ranges.sort_unstable();
            let mut next = 1;
            for (from, to) in ranges {
                if from != next {
                    holes += from.abs_diff(next);
                    first.get_or_insert_with(|| format!("{inc}/{lane}/{}", from.min(next)));
                }
                next = next.max(to + 1);
            }
        }
        if let Some(first) = first {
            self.find("positions not in exactly one of Kafka and the gaps", &format!("{holes}, the first is {first}"));
        }
        holes
    }

    fn find(&mut self, kind: &'static str, example: &str) {
        let count = self.verdict.findings.entry(kind).or_default();
        *count += 1;
        if *count <= EXAMPLES {
            self.verdict.examples.push(format!("{kind}: {example}"));
        }
    }
}

impl KeyOrder {
    /// Whether `line` may stand after what stood before.
    fn follows(&mut self, line: &Line) -> bool {
        if line.inc == self.inc {
            return line.seq > std::mem::replace(&mut self.seq, line.seq);
        }
        self.over.insert(std::mem::replace(&mut self.inc, line.inc.clone()));
        self.seq = line.seq;
        !self.over.contains(&line.inc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(inc: &str, seq: u64, number: u64) -> KafkaRecord {
        let value = format!("{{\"inc\":\"{inc}\",\"lane\":\"inputs\",\"seq\":{seq},\"asset\":\"m\",\"point\":\"number\",\"value\":{number}.0}}");
        KafkaRecord {
            topic: "test.readings.v1".into(),
            partition: 0,
            offset: 0,
            key: Some("m".into()),
            value: Some(value),
            headers: BTreeMap::new(),
            timestamp_ms: None,
        }
    }

    /// Lost, duplicated, disordered, after these (incarnation, seq, number), with 3 numbers sent of which number 2 is uncertain.
    fn check(records: &[(&str, u64, u64)], expected: (u64, u64, u64)) {
        let mut ledger = Ledger::default();
        for (inc, seq, number) in records {
            ledger.take(&reading(inc, *seq, *number)).unwrap();
        }
        let sent = Sent { count: [("m".to_owned(), 3)].into(), uncertain: [("m".to_owned(), 2)].into(), node: None };
        let verdict = ledger.verdict(&sent);
        assert_eq!((verdict.lost, verdict.duplicated, verdict.disordered), expected, "{records:?}: {verdict:?}");
    }

    #[test]
    fn faults_are_told_apart() {
        check(&[("a", 1, 0), ("a", 2, 1), ("a", 3, 2)], (0, 0, 0));
        check(&[("a", 1, 0), ("a", 2, 1)], (0, 0, 0));
        check(&[("a", 1, 0), ("b", 1, 1)], (0, 0, 0));
        check(&[("a", 1, 0)], (1, 0, 0));
        // Sent again by forward: the same position twice.
        check(&[("a", 1, 0), ("a", 2, 1), ("a", 1, 0), ("a", 2, 1)], (0, 2, 0));
        // Taken again from the source: another position, the same number.
        check(&[("a", 1, 0), ("a", 2, 1), ("b", 1, 1)], (0, 1, 0));
        check(&[("a", 1, 1), ("a", 2, 0)], (0, 0, 1));
        // The numbers are in order and the positions are not; and an incarnation that comes back.
        check(&[("a", 2, 0), ("a", 1, 1)], (0, 0, 1));
        check(&[("a", 1, 0), ("b", 1, 1), ("a", 2, 2)], (0, 0, 1));
        check(&[("a", 1, 0), ("a", 3, 1)], (1, 0, 0));
    }

    #[test]
    fn a_gap_stands_for_what_is_missing_once() {
        let mut ledger = Ledger::default();
        ledger.take(&reading("a", 1, 0)).unwrap();
        ledger.take(&reading("a", 3, 2)).unwrap();
        let mut event = Event::new(EventKind::Gap);
        event.gap_lane = Some(LaneName::Inputs);
        event.gap_inc = Some("a".into());
        (event.gap_from_seq, event.gap_to_seq) = (Some(2), Some(2));
        let mut value = serde_json::to_value(&event).unwrap();
        for (name, of) in [("inc", serde_json::json!("a")), ("lane", serde_json::json!("events")), ("seq", serde_json::json!(1))] {
            value[name] = of;
        }
        let gap = KafkaRecord { topic: "test.events.v1".into(), key: Some("gw".into()), value: Some(value.to_string()), ..reading("a", 9, 9) };
        ledger.take(&gap).unwrap();
        let sent = Sent { count: [("m".to_owned(), 3)].into(), ..Sent::default() };
        let verdict = ledger.verdict(&sent);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.records, [3, 1]);
    }
}
