//! What a reader says, as the log keeps it. The reader itself is run by a scenario, before a real Kafka.
use std::{path::Path, thread};

use hark_protocol::topics::Origin;
use serde_json::{Value, json};

use super::*;
use crate::{
    buffer::{
        Log, LogSettings,
        commit::{self, CommitPolicy},
    },
    hold::Hold,
    source::{
        registry::Registry,
        snapshot::{Snapshots, refusal_of},
    },
};

/// A log with its commit loop, and the agent's end of a reader.
struct Gateway {
    log: Log,
    appender: Appender,
    counters: Arc<Counters>,
    config: Config,
    committing: thread::JoinHandle<()>,
}

impl Gateway {
    fn start(dir: &Path) -> Self {
        let mut config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        config.buffer.dir = dir.to_owned();
        let (log, writer) = Log::open(dir, LogSettings::new(config.buffer.quota_bytes)).unwrap();
        let (appender, requests) = commit::channel(16);
        let settings = commit::Settings {
            policy: CommitPolicy::default(),
            quota_bytes: config.buffer.quota_bytes,
            max_age: None,
            origin: Origin::Simulated,
            hold: Arc::new(Hold::new()),
            clock: Clock::new(),
            stop: CancellationToken::new(),
        };
        let commit_log = log.clone();
        let committing = thread::spawn(move || commit::run(writer, commit_log, requests, settings).unwrap());
        Self { log, appender, counters: Arc::default(), config, committing }
    }

    fn feedback(&self) -> Feedback {
        let kafka = self.config.kafka.clone().unwrap();
        let (registry, clock) = (Arc::new(Registry::new(&self.config.assets, self.config.gateway.origin)), Clock::new());
        let (_, snapshots) = Snapshots::new(registry, self.appender.clone(), clock.clone(), &self.config.snapshots, Arc::default());
        Feedback::open(&self.config, kafka, self.appender.clone(), self.counters.clone(), snapshots.allowance(), clock).unwrap()
    }

    fn events(&self, lane: LaneName) -> Vec<(Option<Name>, Event)> {
        let entries = self.log.reader(lane).unwrap().read(self.log.start(lane), 100, 1 << 20).unwrap();
        let event = |entry: Entry| match entry.body {
            Body::Event(event) => Some((entry.stamp.asset, *event)),
            _ => None,
        };
        entries.into_iter().filter_map(|(_, entry)| event(entry)).collect()
    }

    fn stop(self) {
        let Self { log, appender, committing, .. } = self;
        drop((log, appender));
        committing.join().unwrap();
    }
}

fn began(next: i64) -> Line {
    line(json!({"began": {"place": {"cluster": "c", "next": {"0": next}}}}))
}

fn record(offset: i64, id: &str, asset: &str) -> Line {
    record_with(offset, id, asset, &[])
}

fn record_with(offset: i64, id: &str, asset: &str, further: &[(&str, &str)]) -> Line {
    let mut value: Value = serde_json::from_str(include_str!("../../../config/kafka/schemas/hark.feedback.v1.example.json")).unwrap();
    let all = [("gw", "gw-hall3-01"), ("asset", asset), ("command_id", id), ("expires_at", "2126-01-01T00:00:00Z")];
    for (key, text) in all.iter().chain(further) {
        value[*key] = (*text).into();
    }
    let value = value.to_string();
    line(json!({"record": {"partition": 0, "offset": offset, "bytes": value.len(), "value": value}}))
}

fn line(value: Value) -> Line {
    serde_json::from_str(&value.to_string()).unwrap()
}

/// A command is durable before the place behind it is, and a place that was stored is where a next reader begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_a_record_and_then_the_place_moves() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path());
    gateway.config.gateway.id = "gw-hall3-01".into();
    let mut feedback = gateway.feedback();
    let asset = gateway.config.assets.keys().next().unwrap().clone();
    for line in [began(5), record(5, "c-1", &asset), record(6, "c-2", "nowhere"), line(json!("end"))] {
        feedback.take(line).await.unwrap();
    }
    let inputs = gateway.events(LaneName::Inputs);
    let [(Some(of), command)] = &inputs[..] else { panic!("{inputs:?}") };
    assert_eq!((of, command.kind, command.command_id.as_deref()), (&asset, EventKind::Command, Some("c-1")));
    let answers = gateway.events(LaneName::Events);
    let [(None, answer)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((answer.kind, answer.command_id.as_deref(), answer.result.as_deref()), (EventKind::Audit, Some("c-2"), Some("refused")));
    assert!(answer.text.as_deref().unwrap().contains("nowhere"));
    assert_eq!(gateway.counters.outcomes(), [("taken", 1), ("unknown_asset", 1)]);
    assert_eq!(gateway.feedback().place.place().to_string(), "0@7");
    drop(feedback);
    gateway.stop();
}

/// Inference answers by the record alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_beyond_the_budget_is_refused_in_the_record_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path());
    (gateway.config.gateway.id, gateway.config.snapshots.bytes_per_day) = ("gw-hall3-01".into(), 0);
    let mut feedback = gateway.feedback();
    let further = [("action", "snapshot_request"), ("point", "de-h")];
    for line in [began(0), record_with(0, "c-1", "fan-7", &further), record(1, "c-2", "fan-7")] {
        feedback.take(line).await.unwrap();
    }
    let inputs = gateway.events(LaneName::Inputs);
    let refused: Vec<bool> = inputs.iter().map(|(_, command)| refusal_of(command).is_some()).collect();
    assert_eq!(refused, [true, false]);
    drop(feedback);
    gateway.stop();
}

/// What is for others moves the place too, and is not stored each time.
#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_what_is_for_others_is_stored_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path());
    let mut feedback = gateway.feedback();
    assert_ne!(&*gateway.config.gateway.id, "gw-hall3-01");
    for line in [began(0), record(0, "c-1", "pump"), line(json!("end")), record(1, "c-2", "pump"), line(json!("end"))] {
        feedback.take(line).await.unwrap();
    }
    assert_eq!((feedback.place.place().to_string(), gateway.feedback().place.place().to_string()), ("0@2".into(), "0@1".into()));
    assert!(gateway.events(LaneName::Inputs).is_empty() && gateway.events(LaneName::Events).is_empty());
    drop(feedback);
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_reader_could_not_do_is_remembered_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path());
    let mut feedback = gateway.feedback();
    feedback.take(line(json!({"problem": {"problem": "no topic"}}))).await.unwrap();
    assert_eq!((feedback.problem.as_deref(), gateway.counters.is_reading()), (Some("no topic"), false));
    feedback.take(began(0)).await.unwrap();
    assert_eq!((feedback.problem.as_deref(), gateway.counters.is_reading()), (None, true));
    drop(feedback);
    gateway.stop();
}
