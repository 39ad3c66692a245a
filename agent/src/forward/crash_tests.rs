//! The real log and the real forward against a Kafka that dies, lies and fences at every step: nothing lost, nothing doubled, in order.
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use hark_protocol::topics::{Clock as ClockState, Event, EventKind, GapReason, LaneName, Origin};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    Ended, Forward,
    cursor::KafkaCursor,
    fake::{FakeKafka, Fault},
    message::gateway_stamp,
};
use crate::{
    buffer::{
        BufferError, Incarnation, Log, LogSettings, Position,
        commit::{self, Appender, CommitPolicy},
    },
    clock::Clock,
    config,
    hold::Hold,
    record::{Body, Entry},
    status::Status,
    stop::Stop,
};

/// A running agent: log, commit loop and forward.
pub(super) struct Gateway {
    pub(super) log: Log,
    pub(super) appender: Appender,
    commit: JoinHandle<Result<(), BufferError>>,
    pub(super) forward: Forward<FakeKafka>,
    pub(super) status: Arc<Status>,
    pub(super) stop: Stop,
    hold: Arc<Hold>,
}

impl Gateway {
    fn start(dir: &Path, kafka: &FakeKafka) -> Self {
        let (log, writer) = Log::open(dir, LogSettings::new(64 << 20)).unwrap();
        let mut config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        config.buffer.dir = dir.to_owned();
        let mut settings = config.kafka.clone().unwrap();
        settings.batch_records = 7;
        let clock = Clock::new();
        let (appender, requests) = commit::channel(64);
        let (hold, status) = (Arc::new(Hold::new()), Arc::new(Status::new(&config, log.clone(), Vec::new(), &clock)));
        let forward =
            Forward::with(kafka.clone(), &config, settings, log.clone(), appender.clone(), hold.clone(), status.clone(), clock.clone()).unwrap();
        let commit_log = log.clone();
        let settings = commit::Settings { hold: hold.clone(), clock, ..commit::Settings::unbounded(CommitPolicy::default()) };
        let commit = std::thread::spawn(move || commit::run(writer, commit_log, requests, settings));
        let stop = Stop::default();
        // Forward then drains and returns instead of waiting for more.
        stop.request();
        Self { log, appender, hold, commit, forward, status, stop }
    }

    pub(super) fn append(&self, lane: LaneName, count: u64) {
        let clock = Clock::new().now();
        let entry = Entry {
            stamp: gateway_stamp(clock.ts, ClockState::Synced, Origin::Live),
            cause: None,
            body: Body::Event(Event::new(EventKind::Tick).into()),
        };
        self.appender.blocking_append_durably(lane, vec![entry; count as usize], true).unwrap();
    }

    /// One connection. True if everything was delivered.
    pub(super) fn connect_once(&mut self) -> bool {
        // Its grace begins anew.
        self.stop = Stop::requested_before(Duration::ZERO);
        let ended = self.forward.connection(&self.stop);
        self.check_conservation();
        matches!(ended, Ended::Stopped)
    }

    pub(super) fn deliver_all(&mut self) {
        for _ in 0..100 {
            if self.connect_once() {
                return;
            }
        }
        panic!("not delivered after 100 connections");
    }

    fn check_conservation(&self) {
        let records = self.status.conservation();
        assert_eq!(records.accepted, records.delivered + records.buffered + records.gaps, "{records:?}");
    }

    /// Ends without storing anything further. Tells how far each lane came.
    fn kill(self) -> (Incarnation, [u64; 4]) {
        let ended = (self.log.incarnation(), LaneName::ALL.map(|lane| self.log.committed(lane).seq));
        let Self { log, appender, commit, forward, .. } = self;
        drop((log, appender, forward));
        commit.join().unwrap().unwrap();
        ended
    }
}

/// A gateway over its restarts.
pub(super) struct Life {
    dir: PathBuf,
    kafka: FakeKafka,
    gateway: Option<Gateway>,
    /// What each incarnation accepted.
    accepted: BTreeMap<String, [u64; 4]>,
}

impl Life {
    pub(super) fn new(dir: &Path, kafka: &FakeKafka) -> Self {
        Self { dir: dir.to_owned(), kafka: kafka.clone(), gateway: None, accepted: BTreeMap::new() }
    }

    pub(super) fn gateway(&mut self) -> &mut Gateway {
        self.gateway.get_or_insert_with(|| Gateway::start(&self.dir, &self.kafka))
    }

    pub(super) fn end(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            let (incarnation, last) = gateway.kill();
            self.accepted.insert(incarnation.id.to_string(), last);
            self.kafka.broker().died = false;
        }
    }

    /// Connects once with these faults; starts again if the agent died of them.
    pub(super) fn connect(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.kafka.broker().faults = faults.into_iter().collect();
        self.gateway().connect_once();
        self.kafka.broker().faults.clear();
        check_cursors(&self.kafka);
        if self.kafka.broker().died {
            self.end();
        }
    }

    pub(super) fn finish(&mut self) {
        self.gateway().deliver_all();
        self.end();
    }
}

type Place = (String, LaneName);
type Seqs = BTreeMap<Place, Vec<u64>>;
type Gaps = Vec<(Place, RangeInclusive<u64>)>;

/// What a `read_committed` consumer sees: the seqs of each lane of each incarnation in their order, and the ranges that gaps name.
fn committed(kafka: &FakeKafka) -> (Seqs, Gaps) {
    first_committed(kafka, usize::MAX)
}

fn first_committed(kafka: &FakeKafka, count: usize) -> (Seqs, Gaps) {
    let (mut seqs, mut gaps) = (Seqs::new(), Gaps::new());
    for message in kafka.broker().committed.iter().take(count) {
        let Some((lane, seq)) = message.place else { continue };
        seqs.entry((message.inc.to_string(), lane)).or_default().push(seq);
        let json: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
        if let (Some(inc), Ok(lane)) = (json["gap_inc"].as_str(), serde_json::from_value(json["gap_lane"].clone())) {
            gaps.push(((inc.to_owned(), lane), json["gap_from_seq"].as_u64().unwrap()..=json["gap_to_seq"].as_u64().unwrap()));
        }
    }
    (seqs, gaps)
}

/// Everything up to a cursor is there or named in a gap, after the last transaction.
fn check_cursors(kafka: &FakeKafka) {
    let last = kafka.broker().history.last().cloned();
    last.iter().for_each(|(count, cursors)| check_moment(kafka, *count, cursors));
}

fn check_moment(kafka: &FakeKafka, count: usize, cursors: &[Option<(u64, String)>]) {
    let (mut seqs, gaps) = first_committed(kafka, count);
    gaps.into_iter().for_each(|(place, gap)| seqs.entry(place).or_default().extend(gap));
    for (lane, cursor) in LaneName::ALL.into_iter().zip(cursors) {
        let Some((seq, metadata)) = cursor else { continue };
        let inc = KafkaCursor::parse(*seq, metadata).unwrap().incarnation.id.to_string();
        let there = seqs.remove(&(inc.clone(), lane)).unwrap_or_default();
        // Where other events are refused in between, the name of one that is lost comes later.
        let is_later = |seq: u64| lane == LaneName::Events && kafka.broker().refused.contains(&(lane, seq));
        let missing: Vec<u64> = (1..=*seq).filter(|seq| !there.contains(seq) && !is_later(*seq)).collect();
        assert!(missing.is_empty(), "{lane} of {inc}: cursor {seq} has passed {missing:?}");
    }
}

/// Each record that was accepted is committed exactly once or inside exactly one gap, in order within its lane and incarnation.
pub(super) fn check(kafka: &FakeKafka, lives: &[&Life]) {
    let (mut seqs, gaps) = committed(kafka);
    let accepted: BTreeMap<&String, &[u64; 4]> = lives.iter().flat_map(|life| &life.accepted).collect();
    for (inc, last) in accepted {
        for lane in LaneName::ALL {
            let place = (inc.clone(), lane);
            let found = seqs.remove(&place).unwrap_or_default();
            assert!(found.is_sorted(), "{lane} of {inc} is out of order: {found:?}");
            let lost = gaps.iter().filter(|(of, _)| *of == place).flat_map(|(_, gap)| gap.clone());
            let mut all: Vec<u64> = found.iter().copied().chain(lost).collect();
            all.sort_unstable();
            assert_eq!(all, (1..=last[lane as usize]).collect::<Vec<_>>(), "{lane} of {inc}");
        }
    }
    assert!(seqs.is_empty(), "records that nobody accepted: {seqs:?}");
}

pub(super) fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(super) fn append_some(life: &mut Life) {
    for (lane, count) in LaneName::ALL.into_iter().zip([12, 5, 3, 2]) {
        life.gateway().append(lane, count);
    }
}

#[test]
fn a_fault_at_any_step_neither_loses_nor_doubles() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    append_some(&mut life);
    life.connect([]);
    let steps = kafka.broker().steps;
    assert!(steps > 20, "{steps} steps");
    for fault in [Fault::Dies, Fault::Fails, Fault::AnswerLost, Fault::GivesUp] {
        for step in 0..steps {
            append_some(&mut life);
            life.connect(std::iter::repeat_n(Fault::None, step).chain([fault]));
        }
    }
    life.finish();
    check(&kafka, &[&life]);
}

#[test]
fn refused_records_are_passed_by_a_gap_each() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    kafka.broker().refused = [(LaneName::Inputs, 2), (LaneName::Inputs, 3), (LaneName::Inputs, 12), (LaneName::Alarms, 3)].into();
    append_some(&mut life);
    life.finish();
    check(&kafka, &[&life]);
    let kept = std::fs::read_dir(dir.path().join("refused")).unwrap().count();
    assert_eq!(kept, 4);
}

#[test]
fn events_refused_one_behind_the_other_are_passed_by_a_gap_each() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    // The second lies before the event that names the first.
    kafka.broker().refused = [(LaneName::Events, 4), (LaneName::Events, 9), (LaneName::Events, 19)].into();
    life.gateway().append(LaneName::Events, 20);
    life.finish();
    check(&kafka, &[&life]);
}

#[test]
fn a_gap_names_only_what_kafka_does_not_have() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    life.gateway().append(LaneName::Inputs, 12);
    life.connect([]);
    life.gateway().append(LaneName::Inputs, 8);
    // After a start the buffer knows only the stored mark, which is behind: it gives up 12 records of which 8 are delivered, and others that all are.
    life.gateway().hold.forget_delivered();
    for (from, to) in [(5, 16), (1, 3)] {
        let at = |seq| Position { ordinal: 1, seq };
        life.gateway().appender.blocking_name_gap(LaneName::Inputs, at(from), at(to), GapReason::Quota).unwrap();
    }
    life.finish();
    check(&kafka, &[&life]);
    let (_, gaps) = committed(&kafka);
    assert_eq!(gaps.iter().map(|(_, gap)| gap.clone()).collect::<Vec<_>>(), [13..=16]);
    let texts: Vec<String> = kafka.broker().committed.iter().map(|message| String::from_utf8_lossy(&message.value).into_owned()).collect();
    assert!(texts.iter().any(|text| text.contains("records 1 to 3 of lane inputs were given up, but they had been delivered")), "{texts:?}");
}

#[test]
fn what_was_given_up_before_kafka_was_ever_reached_has_a_name_there() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    let at = |seq| Position { ordinal: 1, seq };
    life.gateway().append(LaneName::Inputs, 12);
    life.gateway().appender.blocking_name_gap(LaneName::Inputs, at(1), at(12), GapReason::DiskFull).unwrap();
    life.end();
    std::fs::remove_dir_all(dir.path().join("inputs")).unwrap();
    life.gateway().append(LaneName::Inputs, 5);
    life.finish();
    check(&kafka, &[&life]);
}

#[test]
fn no_cursor_passes_a_gap_before_its_event() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    life.gateway().append(LaneName::Inputs, 9);
    // More than go into one transaction before the event of the gap.
    life.gateway().append(LaneName::Events, 250);
    let at = |seq| Position { ordinal: 1, seq };
    life.gateway().appender.blocking_name_gap(LaneName::Inputs, at(4), at(6), GapReason::Quota).unwrap();
    life.finish();
    check(&kafka, &[&life]);
    let history = kafka.broker().history.clone();
    assert!(history.len() > 4, "{} transactions", history.len());
    history.iter().for_each(|(count, cursors)| check_moment(&kafka, *count, cursors));
}

#[test]
fn a_restored_copy_and_its_original_both_deliver_what_only_they_have() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let (original, restored) = (dir.path().join("original"), dir.path().join("copy"));
    let mut one = Life::new(&original, &kafka);
    append_some(&mut one);
    one.connect([]);
    append_some(&mut one);
    one.end();
    copy(&original, &restored);
    let mut two = Life::new(&restored, &kafka);
    // The original runs on: in new incarnations, delivering and not.
    append_some(&mut one);
    one.connect([]);
    one.end();
    append_some(&mut one);
    one.connect([Fault::None; 12]);
    append_some(&mut one);
    one.end();
    // The copy is restored and runs; then the original again, and so on.
    for _ in 0..3 {
        for life in [&mut two, &mut one] {
            append_some(life);
            life.connect([]);
            append_some(life);
            life.end();
        }
    }
    two.finish();
    one.finish();
    check(&kafka, &[&one, &two]);
    let events = kafka.broker().committed.iter().filter(|message| String::from_utf8_lossy(&message.value).contains("taken_over")).count();
    assert!(events >= 6, "{events} take-overs are told");
}

#[test]
fn two_living_gateways_under_one_id_lose_and_double_nothing() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let mut one = Life::new(&a, &kafka);
    append_some(&mut one);
    one.connect([]);
    one.end();
    copy(&a, &b);
    let mut two = Life::new(&b, &kafka);
    for step in 0..12 {
        for life in [&mut one, &mut two] {
            append_some(life);
            // Shut out in the middle, or with the answer lost.
            life.connect(std::iter::repeat_n(Fault::None, step).chain([if step % 2 == 0 { Fault::GivesUp } else { Fault::AnswerLost }]));
        }
    }
    one.finish();
    two.finish();
    check(&kafka, &[&one, &two]);
}

#[test]
fn a_fresh_directory_under_an_old_id_goes_on_with_an_ordinal_above() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let mut one = Life::new(&a, &kafka);
    for _ in 0..4 {
        append_some(&mut one);
        one.connect([]);
        one.end();
    }
    let mut two = Life::new(&b, &kafka);
    append_some(&mut two);
    two.connect([]);
    two.end();
    assert_eq!(two.gateway().log.incarnation().ordinal, 5, "the one before had 1 and saw 4");
    two.finish();
    check(&kafka, &[&one, &two]);
}

#[test]
fn expired_cursors_are_replaced_by_the_mark() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    append_some(&mut life);
    life.connect([]);
    life.gateway().forward.store();
    life.end();
    kafka.expire();
    append_some(&mut life);
    life.connect([]);
    assert_eq!(life.gateway().status.forward_numbers().cursor_expired, 1);
    life.finish();
    check(&kafka, &[&life]);
}

#[derive(Clone, Debug)]
enum Op {
    Append(LaneName, u64),
    Connect(Vec<Fault>),
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    let lane = prop::sample::select(LaneName::ALL.to_vec());
    let fault =
        prop_oneof![8 => Just(Fault::None), 1 => Just(Fault::Dies), 1 => Just(Fault::Fails), 1 => Just(Fault::AnswerLost), 1 => Just(Fault::GivesUp)];
    prop_oneof![
        4 => (lane, 1..20_u64).prop_map(|(lane, count)| Op::Append(lane, count)),
        4 => prop::collection::vec(fault, 0..40).prop_map(Op::Connect),
        1 => Just(Op::Kill),
    ]
}

fn refused() -> impl Strategy<Value = BTreeSet<(LaneName, u64)>> {
    let lane = prop::sample::select(vec![LaneName::Inputs, LaneName::Events, LaneName::Events]);
    prop::collection::btree_set((lane, 1..30_u64), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_life_delivers_everything_once(ops in prop::collection::vec(op(), 1..30), refused in refused()) {
        let (dir, kafka) = (temporary(), FakeKafka::default());
        kafka.broker().refused = refused;
        let mut life = Life::new(dir.path(), &kafka);
        for op in ops {
            match op {
                Op::Append(lane, count) => life.gateway().append(lane, count),
                Op::Connect(faults) => life.connect(faults),
                Op::Kill => life.end(),
            }
        }
        life.finish();
        check(&kafka, &[&life]);
    }
}
