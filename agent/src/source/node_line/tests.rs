//! Frames of a line, in the order in which they come: what is taken of them, and what is told.
use std::sync::Arc;

use hark_protocol::{
    node::{Features, NodeEvent, Quantity, Status, Value},
    topics::{Clock as ClockState, EventKind, Origin, QualityReason, Timestamp, TsSource},
};

use super::{
    node::{HOLD_MS, RING_SENT_MS},
    *,
};
use crate::{
    buffer::marks::SourceMark,
    clock::Clock,
    config,
    record::Body as EntryBody,
    source::{node_block::SAMPLES_MAX, node_report::self_test_of, registry::Registry},
};

const NODE: u32 = 7;
const AT_US: i64 = 1_767_225_600_000_000;

struct Line {
    line: NodeLine,
    intake: Intake,
    counters: SourceCounters,
}

fn line() -> Line {
    resumed(&SourceMarks::default())
}

fn resumed(stored: &SourceMarks) -> Line {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let assets = config::load(&shipped).unwrap().assets;
    let node = Node { asset: "fan-7".into(), channels: vec!["de-h".into(), "".into()] };
    Line {
        line: NodeLine::new(BTreeMap::from([(NODE, node)]), "line", stored, SAMPLES_MAX),
        intake: Intake::new(Arc::new(Registry::new(&assets, Origin::Simulated))),
        counters: SourceCounters::new("line".into(), "serial", "replay", Clock::new()),
    }
}

impl Line {
    fn take(&mut self, frame: &Frame, log_ms: u64) -> Taken {
        let mut bytes = [0; MAX_FRAME];
        let length = encode(frame, &mut bytes).unwrap();
        let now = Now { ts: Timestamp(AT_US + log_ms as i64 * 1_000), log_ms, boot: "boot".into(), state: ClockState::Synced };
        let mut taken = Taken::default();
        self.line.take(&bytes[..length], &now, &mut self.intake, &self.counters, &mut taken);
        taken
    }

    fn counted(&self, cause: &str) -> u64 {
        self.counters.causes().iter().filter(|(_, name, _)| *name == cause).map(|(_, _, count)| count).sum()
    }
}

fn frame(seq: u32, time_us: u64, dropped: u32, body: Body) -> Frame {
    Frame { node: NODE, boot: 3, seq, time_us, dropped, body }
}

fn features() -> Body {
    let mut values = Features { channel: 0, values: Default::default() };
    values.values.push(Value { quantity: Quantity::VRms, value: 1.5 }).ok().unwrap();
    Body::Features(values)
}

fn events(taken: &Taken) -> Vec<(EventKind, String, Option<u64>)> {
    let event = |entry: &Entry| match &entry.body {
        EntryBody::Event(event) => Some((event.kind, event.what.as_deref().unwrap_or_default().to_owned(), event.count)),
        _ => None,
    };
    taken.events.entries.iter().filter_map(event).collect()
}

/// New frames and repeated ones come mixed: none may be passed over, for the acknowledgement of a later one would stand for it.
#[test]
fn a_backlog_is_taken_in_its_order_and_keeps_its_times() {
    let mut line = line();
    for (seq, time_us, log_ms) in [(51, 15_000_000, 10_000), (41, 5_000_000, 10_050), (30, 1_000_000, 10_060), (42, 6_000_000, 10_070)] {
        let early = line.take(&frame(seq, time_us, 0, features()), log_ms);
        assert!(early.inputs.is_empty());
    }
    assert!(line.line.session_began() && !line.line.session_began());
    // The gateway asked at 10.1 s; the node's clock then showed 20 s.
    let t1_us = (AT_US + 10_100_000) as u64;
    line.take(&frame(1, 0, 0, Body::TimeSync(TimeSync::Reply { t1_us, t2_us: 20_000_000, t3_us: 20_000_000 })), 10_100);
    let taken = line.take(&frame(52, 16_000_000, 18, features()), 10_000 + HOLD_MS);
    // What lies before was acknowledged to an earlier start, or dropped by the ring; what lies between is counted as dropped.
    assert_eq!(taken.inputs.durable.iter().map(|durable| durable.ack.seq).collect::<Vec<_>>(), [30, 41, 42, 51, 52]);
    assert_eq!((taken.inputs.entries[1].stamp.ts, taken.inputs.entries[1].stamp.ts_source), (Timestamp(AT_US - 4_900_000), TsSource::Sensor));
    assert!(line.take(&frame(54, 17_000_000, 18, features()), 13_000).inputs.is_empty(), "from now on a gap is waited for");
}

#[test]
fn a_node_that_tells_no_time_gets_the_time_of_reception() {
    let mut line = line();
    assert!(line.take(&frame(1, 5, 0, features()), 10_000).inputs.is_empty());
    let taken = line.take(&frame(2, 6, 0, features()), 10_000 + HOLD_MS);
    assert_eq!((taken.inputs.entries.len(), taken.inputs.entries[0].stamp.ts_source), (2, TsSource::Gateway));
}

/// The oldest frames that survived were encoded before the ring overflowed, so they do not know of it.
#[test]
fn what_the_ring_dropped_before_the_first_contact_is_told() {
    let mut line = line();
    assert!(line.take(&frame(900, 5, 0, features()), 10_000).events.is_empty());
    assert!(line.take(&frame(901, 5, 1_374, features()), 13_000).events.is_empty());
    let taken = line.take(&frame(902, 5, 1_374, features()), 10_000 + RING_SENT_MS);
    assert_eq!(events(&taken), [(EventKind::SourceLoss, "node_ring_earlier".to_owned(), Some(1_374))]);
    assert_eq!(line.counted("node_ring_earlier"), 1_374);
    assert!(events(&line.take(&frame(903, 5, 1_374, features()), 21_000)).is_empty(), "once");
}

#[test]
fn reports_of_a_node_are_counted_and_told_once_a_minute() {
    let mut line = line();
    let clipped = |seq| frame(seq, 0, 0, Body::Event(NodeEvent::Clipped { channel: 0, samples: 9 }));
    line.take(&clipped(1), 0);
    let told: Vec<usize> =
        [(1, 5_000), (2, 6_000), (3, 5_000 + REPORT_EVERY_MS)].map(|(seq, log_ms)| events(&line.take(&clipped(seq), log_ms)).len()).to_vec();
    assert_eq!((told, line.counted("clipped")), (vec![1, 0, 1], 3));
    let overrun = frame(4, 0, 0, Body::Event(NodeEvent::Overrun { channel: 0, samples: 40 }));
    assert_eq!(events(&line.take(&overrun, 70_000)), [(EventKind::SourceLoss, "overrun".to_owned(), Some(40))]);
}

/// As the log holds them after a crash: those of the lanes given.
fn marks(taken: &[(&Part, bool)]) -> SourceMarks {
    let mut stored = SourceMarks::default();
    for (part, kept) in taken {
        for (&node, &mark) in part.marks.iter().filter(|_| *kept) {
            stored.apply(&SourceMark::Node { source: "line".into(), node, mark });
        }
    }
    stored
}

/// The gateway asked at `log_ms`; the node's clock then showed 20 s.
fn comparison(log_ms: u64) -> Frame {
    let t1_us = AT_US as u64 + log_ms * 1_000;
    frame(1, 0, 0, Body::TimeSync(TimeSync::Reply { t1_us, t2_us: 20_000_000, t3_us: 20_000_000 }))
}

fn seqs(part: &Part) -> Vec<u32> {
    part.durable.iter().map(|durable| durable.ack.seq).collect()
}

/// After a restart of the agent what is stored is acknowledged again, and what is new is taken as soon as the clocks were compared.
#[test]
fn a_session_goes_on_after_a_restart_of_the_agent() {
    let mut line = line();
    line.take(&frame(1, 0, 0, features()), 0);
    let before = line.take(&frame(2, 0, 0, features()), HOLD_MS);
    assert_eq!((before.inputs.entries.len(), before.events.is_empty()), (2, true));

    let mut line = resumed(&marks(&[(&before.inputs, true)]));
    for seq in [2, 3, 4] {
        assert!(line.take(&frame(seq, u64::from(seq), 0, features()), 5_000).inputs.is_empty(), "their times are not known yet");
    }
    let taken = line.take(&comparison(5_010), 5_010);
    assert_eq!((seqs(&taken.inputs), taken.inputs.entries.len(), line.counted("repeated")), (vec![2, 3, 4], 2, 1));
    assert_eq!(taken.inputs.entries[0].stamp.ts_source, TsSource::Sensor);
    assert_eq!(line.take(&frame(5, 5, 0, features()), 5_020).inputs.entries.len(), 1);
}

/// Readings and reports are stored in two lanes, each with its own mark: a crash between them repeats neither.
#[test]
fn a_crash_between_two_lanes_doubles_nothing_and_loses_nothing() {
    let overrun = || Body::Event(NodeEvent::Overrun { channel: 0, samples: 40 });
    for (inputs_kept, events_kept) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut line = line();
        line.take(&frame(1, 0, 0, features()), 0);
        let before = line.take(&frame(1, 0, 0, overrun()), HOLD_MS);
        assert_eq!((seqs(&before.inputs), seqs(&before.events)), (vec![1], vec![1]));

        let mut line = resumed(&marks(&[(&before.inputs, inputs_kept), (&before.events, events_kept)]));
        line.take(&frame(1, 0, 0, features()), 5_000);
        let after = line.take(&frame(1, 0, 0, overrun()), 5_000 + HOLD_MS);
        assert_eq!((seqs(&after.inputs), seqs(&after.events)), (vec![1], vec![1]), "both are acknowledged");
        let stored = (after.inputs.entries.len(), after.events.entries.len());
        assert_eq!(stored, (usize::from(!inputs_kept), usize::from(!events_kept)), "{inputs_kept} {events_kept}");
    }
}

/// Its acknowledgement would stand for the ones before it, which the node then forgets.
#[test]
fn the_first_frame_of_a_kind_waits_for_those_before_it_whenever_it_comes() {
    let clipped = |seq| frame(seq, 0, 0, Body::Event(NodeEvent::Clipped { channel: 0, samples: seq }));
    let mut fresh = line();
    fresh.take(&frame(1, 0, 0, features()), 0);
    let before = fresh.take(&frame(2, 0, 0, features()), HOLD_MS);
    let mut resumed = resumed(&marks(&[(&before.inputs, true)]));
    resumed.take(&comparison(4_000), 4_000);
    assert_eq!(seqs(&resumed.take(&frame(3, 0, 0, features()), 4_000).inputs), [3]);
    for (mut line, next) in [(fresh, 3), (resumed, 4)] {
        // The first report was corrupted on the line.
        assert!(line.take(&clipped(2), 5_000).events.is_empty());
        assert!(line.take(&frame(next, 0, 0, features()), 5_100).inputs.is_empty(), "readings wait with it");
        line.take(&clipped(1), 6_000);
        let taken = line.take(&clipped(2), 5_000 + HOLD_MS);
        assert_eq!((seqs(&taken.events), seqs(&taken.inputs), line.counted("clipped")), (vec![1, 2], vec![next], 2));
        assert_eq!(seqs(&line.take(&clipped(3), 8_000).events), [3], "known from now on");
    }
}

/// What comes before was acknowledged to an agent before this one: it is not waited for for ever.
#[test]
fn the_first_frame_of_a_kind_is_taken_after_its_wait() {
    let mut line = line();
    line.take(&frame(30, 0, 0, features()), 0);
    line.take(&frame(31, 0, 0, features()), HOLD_MS);
    let overrun = frame(5, 0, 0, Body::Event(NodeEvent::Overrun { channel: 0, samples: 40 }));
    for (log_ms, expected) in [(5_000, vec![]), (6_000, vec![]), (5_000 + HOLD_MS, vec![5])] {
        assert_eq!(seqs(&line.take(&overrun, log_ms).events), expected, "{log_ms}");
    }
}

/// The data directory was put back to an older state, or another agent had the node meanwhile: it is listened to all the same, and the hole has a name.
#[test]
fn a_node_that_is_ahead_of_the_log_is_taken_and_the_difference_is_told() {
    let mut line = line();
    line.take(&frame(1, 0, 0, features()), 0);
    let before = line.take(&frame(2, 0, 0, features()), HOLD_MS);
    let mut line = resumed(&marks(&[(&before.inputs, true)]));
    line.take(&frame(500, 0, 0, features()), 5_000);
    assert!(line.take(&comparison(5_010), 5_010).inputs.is_empty(), "one of those before may still come");
    let taken = line.take(&frame(501, 0, 0, features()), 5_000 + HOLD_MS);
    assert_eq!(seqs(&taken.inputs), [500, 501]);
    assert_eq!(events(&taken), [(EventKind::SourceLoss, "node_numbers".to_owned(), Some(497))]);
}

#[test]
fn a_frame_without_entries_leaves_its_mark() {
    let mut line = line();
    let mut unknown = Features { channel: 9, values: Default::default() };
    unknown.values.push(Value { quantity: Quantity::VRms, value: 1.5 }).ok().unwrap();
    line.take(&frame(1, 0, 0, Body::Features(unknown)), 0);
    let taken = line.take(&comparison(HOLD_MS), HOLD_MS);
    assert_eq!((taken.inputs.entries.len(), seqs(&taken.inputs)), (0, vec![1]));
    assert_eq!(taken.inputs.marks[&NODE].last_seq[Kind::Features.index()], 1);
}

fn status(boot: u32, seq: u32, time_us: u64, self_test: bool) -> Frame {
    let status = Status { uptime_s: 0, overruns: 0, supply_v: 3.3, self_test, waiting: 0, capacity: 8, bad_frames: 0 };
    Frame { boot, ..frame(seq, time_us, 0, Body::Status(status)) }
}

/// What inference is told of self-tests, and why readings are bad.
fn told(taken: &Taken) -> (Vec<bool>, Vec<Option<QualityReason>>) {
    let event = |entry: &Entry| if let EntryBody::Event(event) = &entry.body { self_test_of(event) } else { None };
    let channels = ["de-h".to_owned(), String::new()];
    let tests = taken.inputs.entries.iter().filter_map(event).inspect(|(_, of)| assert_eq!(of[..], channels)).map(|(is_testing, _)| is_testing);
    let reading = |entry: &Entry| if let EntryBody::Reading(reading) = &entry.body { Some(reading.clone()) } else { None };
    let readings = taken.inputs.entries.iter().filter_map(reading).inspect(|reading| assert_eq!(reading.value.is_none(), reading.reason.is_some()));
    (tests.collect(), readings.map(|reading| reading.reason).collect())
}

/// A line whose frames wait no longer, and whose node's clock is known.
fn settled() -> Line {
    let mut line = line();
    line.take(&frame(1, 1_000_000, 0, features()), 0);
    line.take(&comparison(10), 10);
    assert_eq!(told(&line.take(&frame(2, 2_000_000, 0, features()), HOLD_MS)), (vec![], vec![None; 2]));
    line
}

/// Inference hears of it by the lane that it reads, whether the status or the event comes first, and once.
#[test]
fn what_a_node_says_while_it_tests_itself_is_no_measurement() {
    let bad = Some(QualityReason::CheckFunction);
    for status_first in [true, false] {
        let mut line = settled();
        let mut said = |time_us: u64, is_testing: bool| {
            let event = if is_testing { NodeEvent::SelfTestStarted } else { NodeEvent::SelfTestEnded { passed: true } };
            let seq = if is_testing { 1 } else { 2 };
            let mut frames = [status(3, seq, time_us, is_testing), frame(seq, time_us, 0, Body::Event(event))];
            if !status_first {
                frames.reverse();
            }
            let taken = frames.map(|frame| line.take(&frame, 4_000));
            let stamps: Vec<_> = taken.iter().flat_map(|taken| &taken.inputs.entries).map(|entry| entry.stamp.ts_source).collect();
            assert_eq!((told(&taken[0]), told(&taken[1])), ((vec![is_testing], vec![]), (vec![], vec![])));
            assert_eq!(stamps, [TsSource::Sensor], "by the clock that its readings have");
            if is_testing {
                // One that was on its way, and two of the test.
                let readings = [(3, 4_900_000), (4, 5_500_000), (5, 6_500_000)];
                let taken = readings.map(|(seq, time_us)| told(&line.take(&frame(seq, time_us, 0, features()), 5_000)));
                assert_eq!(taken.map(|(_, readings)| readings), [vec![None], vec![bad], vec![bad]]);
            }
        };
        said(5_000_000, true);
        said(7_000_000, false);
        // The first block was begun in the test; one that is late is of it.
        let after = [(6, 7_500_000), (7, 8_500_000), (8, 6_900_000), (9, 9_000_000)];
        let taken = after.map(|(seq, time_us)| told(&line.take(&frame(seq, time_us, 0, features()), 8_000)));
        assert_eq!(taken.map(|(_, readings)| readings), [vec![bad], vec![None], vec![bad], vec![None]]);
        assert_eq!(told(&line.take(&status(3, 3, 9_500_000, false), 9_000)), (vec![], vec![]));
    }
}

#[test]
fn a_node_that_is_started_anew_tests_itself_no_longer() {
    let mut line = settled();
    assert_eq!(told(&line.take(&status(3, 1, 5_000_000, true), 4_000)).0, [true]);
    let anew = |seq, time_us| Frame { boot: 4, ..frame(seq, time_us, 0, features()) };
    assert_eq!(told(&line.take(&anew(1, 1_000), 20_000)), (vec![], vec![]), "it waits");
    assert_eq!(told(&line.take(&anew(2, 2_000), 20_000 + HOLD_MS)), (vec![false], vec![None; 2]));
}

/// An agent that is started in the middle of it has its word from the next status.
#[test]
fn a_self_test_is_known_after_a_restart_of_the_agent() {
    let mut line = line();
    line.take(&status(3, 40, 5_000_000, true), 0);
    line.take(&comparison(10), 10);
    let taken = line.take(&frame(300, 5_500_000, 0, features()), HOLD_MS);
    assert_eq!(told(&taken), (vec![true], vec![Some(QualityReason::CheckFunction)]));
}
