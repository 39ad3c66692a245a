//! The socket as its clients meet it, with a real log and a real commit loop behind it.
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use hark_protocol::topics::{Event, EventKind, FeedbackAction, GapReason, LaneName, Origin};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    BufferReport, CONNECTIONS, Known, LINE_MAX_BYTES, Local, Voices,
    client::{Client, ClientError},
    message::{Answer, ChangeRequest, CommandRequest, ExportRequest, Problem, Request, Stored},
    page, socket_path,
};
use crate::{
    buffer::{
        BufferError, Log, LogSettings, Position,
        commit::{self, Appender, CommitPolicy},
    },
    clock::Clock,
    config::{self, Config},
    forward::{Sender, StoredMark, gateway_stamp},
    hold::Hold,
    inference::configured::Configured,
    record::{Body, Entry},
    source::{registry::Registry, snapshot::Snapshots},
    status::Status,
};

/// An agent without sources, inference and Kafka.
struct Agent {
    dir: TempDir,
    config: Config,
    log: Log,
    appender: Appender,
    status: Arc<Status>,
    hold: Arc<Hold>,
    stop: CancellationToken,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(dir: TempDir) -> Self {
        Self::start_with(dir, |_| {})
    }

    fn start_with(dir: TempDir, edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        config.buffer.dir = dir.path().to_owned();
        edit(&mut config);
        let clock = Clock::new();
        let (log, writer) = Log::open(dir.path(), LogSettings::new(config.buffer.quota_bytes)).unwrap();
        let (appender, requests) = commit::channel(16);
        let status = Arc::new(Status::new(&config, log.clone(), Vec::new(), &clock));
        let commit_log = log.clone();
        let settings = loop_settings(config.buffer.quota_bytes, clock.clone());
        let hold = settings.hold.clone();
        let committing = thread::spawn(move || {
            commit::run(writer, commit_log, requests, settings).unwrap();
        });
        let configured = Arc::new(Configured::open(&config, "bundle".into(), clock.clone()).unwrap());
        let registry = Arc::new(Registry::new(&config.assets, config.gateway.origin));
        let (_, snapshots) = Snapshots::new(registry, appender.clone(), clock.clone(), &config.snapshots, Arc::default());
        let allowance = snapshots.allowance();
        let voices = Voices { log: log.clone(), appender: appender.clone(), status: status.clone(), configured, allowance, clock };
        let serving = serve(&config, voices);
        Self { dir, config, log, appender, status, hold, stop: serving.0, threads: vec![serving.1, committing] }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path())
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(socket_path(self.dir.path())).unwrap()
    }

    /// What comes back for `bytes` until the agent or the last answer ends the connection.
    fn raw(&self, bytes: &[u8]) -> Vec<Value> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn inputs(&self) -> Vec<(Position, Entry)> {
        self.log.reader(LaneName::Inputs).unwrap().read(self.log.start(LaneName::Inputs), 100, 1 << 20).unwrap()
    }

    fn report(&self) -> BufferReport {
        match self.client().ask(&Request::Status) {
            Ok(Answer::Status(report)) => *report,
            other => panic!("{other:?}"),
        }
    }

    fn stop(self) -> TempDir {
        let Self { dir, log, appender, stop, threads, .. } = self;
        stop.cancel();
        drop((log, appender));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        dir
    }
}

fn loop_settings(quota_bytes: u64, clock: Clock) -> commit::Settings {
    commit::Settings {
        policy: CommitPolicy::default(),
        quota_bytes,
        max_age: None,
        origin: Origin::Simulated,
        hold: Arc::new(Hold::new()),
        clock,
        stop: CancellationToken::new(),
    }
}

fn serve(config: &Config, voices: Voices) -> (CancellationToken, thread::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let local = {
        let _entered = runtime.enter();
        Arc::new(Local::open(config, voices).unwrap())
    };
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        let tasks: Vec<_> = (0..CONNECTIONS).map(|_| runtime.spawn(local.clone().serve(stopped.clone()))).collect();
        drop(local);
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
    (stop, thread)
}

/// What is told of the directory of a stopped agent.
fn stopped_report(dir: &Path, config: &Config) -> BufferReport {
    let quota_bytes = config.buffer.quota_bytes;
    let log = Log::inspect(dir, LogSettings::new(quota_bytes)).unwrap();
    let known = Known { gateway: Some(&config.gateway.id), quota_bytes: Some(quota_bytes), status: None };
    BufferReport::of(&log, dir, known, &Clock::new()).unwrap()
}

fn stored(answer: Answer) -> Stored {
    match answer {
        Answer::Stored(stored) => stored,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Result<Answer, ClientError>) -> Problem {
    match answer {
        Err(ClientError::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

fn event(entry: &Entry) -> &Event {
    match &entry.body {
        Body::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_in_the_log_when_it_is_answered() {
    let agent = Agent::start();
    let request = CommandRequest {
        alarm_id: Some("1/7".into()),
        comment: Some("seen it".into()),
        command_id: Some("c-1".into()),
        ..CommandRequest::new("pump-1", FeedbackAction::Acknowledge)
    };
    let answer = stored(agent.client().ask(&Request::Command(request)).unwrap());
    let inputs = agent.inputs();
    let (position, entry) = &inputs[0];
    assert_eq!((answer.position, answer.command_id.as_deref()), (Some(*position), Some("c-1")));
    assert_eq!(answer.event_id, format!("{}/{}/inputs/1", agent.config.gateway.id, agent.log.incarnation().id));
    let event = event(entry);
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(entry.stamp.asset.as_deref(), Some("pump-1"));
    assert_eq!((event.kind, event.command.as_deref(), event.alarm_id.as_deref()), (EventKind::Command, Some("acknowledge"), Some("1/7")));
    assert_eq!((event.actor.as_deref(), event.text.as_deref()), (Some(&*format!("uid:{uid}")), Some("seen it")));

    assert_eq!((answer.result, answer.text), (None, None), "nobody has read it yet");

    // What inference made of it is told with the answer.
    agent.status.add_outcomes([("c-2".into(), Err("there is no such alarm".into()))]);
    let again = CommandRequest { command_id: Some("c-2".into()), ..CommandRequest::new("pump-1", FeedbackAction::Acknowledge) };
    let answer = stored(agent.client().ask(&Request::Command(again)).unwrap());
    assert_eq!((answer.result.as_deref(), answer.text.as_deref()), (Some("refused"), Some("there is no such alarm")));

    // Without an id it gets one; an actor that is named counts.
    let named = CommandRequest { actor: Some("ann".into()), ..CommandRequest::new("fan-7", FeedbackAction::MaintenanceDone) };
    let answer = stored(agent.client().ask(&Request::Command(named)).unwrap());
    let inputs = agent.inputs();
    let event = self::event(&inputs[2].1);
    assert_eq!((event.actor.as_deref(), event.command_id.as_deref()), (Some("ann"), answer.command_id.as_deref()));
    assert!(answer.command_id.is_some_and(|id| id.len() == 36));
    agent.stop();
}

/// The log keeps the refusal with the command: what was left of the day's bytes no replay could find out.
#[test]
fn a_snapshot_beyond_the_budget_is_refused_in_the_record_of_the_command() {
    let agent = Agent::start_with(tempfile::tempdir().unwrap(), |config| config.snapshots.bytes_per_day = 0);
    let asked = CommandRequest { point: Some("de-h".into()), ..CommandRequest::new("fan-7", FeedbackAction::SnapshotRequest) };
    stored(agent.client().ask(&Request::Command(asked)).unwrap());
    let inputs = agent.inputs();
    let refusal = crate::source::snapshot::refusal_of(event(&inputs[0].1));
    assert!(refusal.as_deref().is_some_and(|refusal| refusal.contains("`per_day` of `[snapshots]`")), "{refusal:?}");
    agent.stop();
}

#[test]
fn a_change_is_checked_like_the_file_and_stored_resolved() {
    let agent = Agent::start();
    let change = |configuration: &str| {
        let request = ChangeRequest { asset: "pump-1".into(), configuration: configuration.into(), actor: None, comment: None };
        agent.client().ask(&Request::Change(request))
    };
    let text = "id = \"pump-1\"\ngrid = \"2s\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n";
    let answer = stored(change(text).unwrap());
    let resolved = config::check_asset_text("pump-1.toml", text).unwrap();
    let inputs = agent.inputs();
    let event = event(&inputs[0].1);
    assert_eq!((event.kind, event.what.as_deref()), (EventKind::Change, Some("configuration")));
    assert_eq!(event.hash_before.as_deref(), Some(&*agent.config.assets["pump-1"].hash));
    assert_eq!((event.hash_after.as_deref(), answer.hash_after.as_deref()), (Some(&*resolved.hash), Some(&*resolved.hash)));
    let stored: config::Asset = serde_json::from_str(event.detail_json.as_deref().unwrap()).unwrap();
    assert_eq!(format!("{stored:?}"), format!("{resolved:?}"));

    let faulty = "id = \"pump-2\"\ngrid = \"soon\"\n[commissioning]\nrows = 5\n";
    let problem = refused(change(faulty));
    assert_eq!(problem.faults.len(), 2, "{problem}");
    assert_eq!(refused(change("id = \"pump-2\"\n")).faults, ["configuration: id: is `pump-2`; expected `pump-1`"]);
    assert!(refused(change("id = \"pump-1\"\ncolour = \"red\"\n")).faults[0].contains("colour"));
    assert_eq!(agent.inputs().len(), 1, "something refused was stored");
    agent.stop();
}

#[test]
fn what_cannot_be_done_is_answered_with_advice() {
    let agent = Agent::start();
    let problem = refused(agent.client().ask(&Request::Command(CommandRequest::new("pump-9", FeedbackAction::Acknowledge))));
    assert_eq!((problem.attempted.as_str(), problem.problem.as_str()), ("acknowledge on pump-9", "this gateway has no asset `pump-9`"));
    assert!(problem.advice.contains("fan-7, pump-1"), "{problem}");
    let long = CommandRequest { comment: Some("x".repeat(5_000)), ..CommandRequest::new("pump-1", FeedbackAction::Acknowledge) };
    assert!(refused(agent.client().ask(&Request::Command(long))).problem.contains("4096"));
    for garbage in ["", "nonsense", "[]", "{}", r#"{"ask":"dance"}"#, r#"{"ask":"command","asset":"pump-1","command":"explode"}"#, "\u{0}\u{1}"] {
        let answers = agent.raw(format!("{garbage}\n{{\"ask\":\"status\"}}\n").as_bytes());
        assert_eq!((answers.len(), &answers[0]["answer"], &answers[1]["answer"]), (2, &json!("error"), &json!("status")), "{garbage}: {answers:?}");
    }
    assert!(agent.raw(b"\xff\xfe\n")[0]["advice"].as_str().unwrap().contains("one JSON object per line"));
    assert!(agent.inputs().is_empty());
    agent.stop();
}

#[test]
fn half_lines_and_lines_that_are_too_long_do_nothing() {
    let agent = Agent::start();
    // Whole as JSON, but the line did not end: who wrote it may have been cut off.
    let command = br#"{"ask":"command","asset":"pump-1","command":"acknowledge"}"#;
    let answers = agent.raw(command);
    assert_eq!(answers[0]["problem"], "the line has no end");
    let long = vec![b' '; LINE_MAX_BYTES + 1];
    let mut stream = agent.connect();
    stream.write_all(&long).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("more than 262144 bytes"), "{text}");
    let mut longest = vec![b' '; LINE_MAX_BYTES - command.len()];
    longest.extend_from_slice(command);
    longest.push(b'\n');
    assert_eq!(agent.raw(&longest)[0]["answer"], "stored");
    assert_eq!(agent.inputs().len(), 1);
    agent.stop();
}

#[test]
fn clients_that_go_away_or_say_nothing_hold_nobody_up() {
    let agent = Agent::start();
    for _ in 0..3 * CONNECTIONS {
        let mut stream = agent.connect();
        stream.write_all(b"{\"ask\":\"status\"}\n{\"ask\":\"sta").unwrap();
    }
    let silent: Vec<_> = (1..CONNECTIONS).map(|_| agent.connect()).collect();
    assert!(matches!(agent.client().ask(&Request::Status), Ok(Answer::Status(_))));
    drop(silent);
    let dir = agent.stop();
    assert!(!socket_path(dir.path()).exists());
    assert!(matches!(Client::new(dir.path()).ask(&Request::Status), Err(ClientError::NoAgent { .. })));
}

#[test]
fn the_socket_of_a_killed_agent_is_replaced_and_is_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(dir.path());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(std::os::unix::net::UnixListener::bind(path.with_extension("new")).unwrap());
    assert!(matches!(Client::new(dir.path()).ask(&Request::Status), Err(ClientError::NoAgent { .. })));
    let agent = Agent::start_in(dir);
    assert!(matches!(agent.client().ask(&Request::Status), Ok(Answer::Status(_))));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    agent.stop();
}

#[test]
fn running_and_stopped_tell_and_export_the_same() {
    let agent = Agent::start();
    for n in 0..5 {
        let command = CommandRequest { command_id: Some(format!("c-{n}")), ..CommandRequest::new("pump-1", FeedbackAction::Acknowledge) };
        agent.client().ask(&Request::Command(command)).unwrap();
    }
    let ask = |from, to, limit| ExportRequest { lane: LaneName::Inputs, from, to, limit };
    let at = |seq| Some(Position { ordinal: 1, seq });
    let whole = agent.client().page(ask(None, None, None)).unwrap();
    assert_eq!((whole.lines.len(), whole.end.next), (5, None));
    let part = agent.client().page(ask(at(2), at(4), None)).unwrap();
    assert_eq!((part.lines.as_slice(), part.end.next), (&whole.lines[1..4], None));
    let first = agent.client().page(ask(None, None, Some(2))).unwrap();
    assert_eq!((first.lines.as_slice(), first.end.next), (&whole.lines[..2], at(3)));
    let second: Value = serde_json::from_slice(&whole.lines[1]).unwrap();
    assert_eq!((&second["command_id"], &second["seq"], &second["lane"]), (&json!("c-1"), &json!(2), &json!("inputs")));

    let running = agent.report();
    let (config, inc) = (agent.config.clone(), agent.log.incarnation());
    let dir = agent.stop();
    let log = Log::inspect(dir.path(), LogSettings::new(config.buffer.quota_bytes)).unwrap();
    let stopped = stopped_report(dir.path(), &config);
    assert_eq!((running.running, stopped.running), (true, false));
    assert_eq!((running.lanes[0].first, running.lanes[0].last, running.lanes[0].records), (at(1), at(5), 5));
    assert_eq!((stopped.lanes[0].first, stopped.lanes[0].last, stopped.lanes[0].records), (at(1), at(5), 5));
    assert_eq!((running.incarnations[0].present, stopped.incarnations[0].present), (true, false));
    assert_eq!((running.incarnations[0].last_seq, stopped.incarnations[0].last_seq), ([5, 0, 0, 0], [5, 0, 0, 0]));
    assert_eq!(stopped.incarnations[0].id, inc.id.to_string());
    assert!(running.link.is_some() && stopped.link.is_none());
    let sender = Sender::new(config.gateway.id, "");
    assert_eq!(page(&log, &sender, &ask(None, None, None), None, |_, _| false).unwrap().lines, whole.lines);
}

#[test]
fn gaps_are_told_until_kafka_has_their_lane_beyond_them_and_counted_for_good() {
    let agent = Agent::start();
    for _ in 0..5 {
        agent.client().ask(&Request::Command(CommandRequest::new("pump-1", FeedbackAction::Acknowledge))).unwrap();
    }
    let at = |seq| Position { ordinal: 1, seq };
    agent.appender.blocking_name_gap(LaneName::Inputs, at(2), at(3), GapReason::Quota).unwrap();
    agent.appender.blocking_name_gap(LaneName::Inputs, at(5), at(5), GapReason::Refused).unwrap();
    assert_eq!(agent.report().gaps.len(), 2);
    // Kafka has the first four inputs, and the event that names the first gap.
    let acked = [at(4), Position::default(), Position::default(), at(1)];
    let mut mark = StoredMark::open(agent.dir.path(), Duration::ZERO).unwrap();
    mark.moved(acked, 0, Duration::ZERO);
    mark.store(Duration::ZERO).unwrap();
    agent.status.placed(acked);
    let at_once = agent.report();
    agent.hold.checkpoint_stored(at(4));
    LaneName::ALL.iter().for_each(|&lane| agent.hold.forward_stored(lane, acked[lane as usize]));
    while agent.log.gaps().len() > 1 {
        agent.client().ask(&Request::Command(CommandRequest::new("pump-1", FeedbackAction::Acknowledge))).unwrap();
    }
    let later = agent.report();
    let config = agent.config.clone();
    let dir = agent.stop();
    let stopped = stopped_report(dir.path(), &config);
    // The next start begins a new partition of events, which repeats what the one before said.
    let again = Agent::start_in(dir);
    again.appender.blocking_name_gap(LaneName::Events, Position { ordinal: 1, seq: 2 }, Position { ordinal: 1, seq: 2 }, GapReason::Damaged).unwrap();
    let dir = again.stop();
    for report in [at_once, later, stopped, stopped_report(dir.path(), &config)] {
        let (inputs, events) = (&report.lanes[LaneName::Inputs as usize], &report.lanes[LaneName::Events as usize]);
        let told: Vec<_> = report.gaps.iter().filter(|gap| gap.lane == LaneName::Inputs).map(|gap| (gap.from, gap.to)).collect();
        assert_eq!(told, [(Some(at(5)), Some(at(5)))], "{report:#?}");
        assert_eq!((report.since, inputs.delivered, inputs.missing), (Some(1), 2, 0), "{report:#?}");
        assert_eq!(inputs.lost, [(GapReason::Quota, 2), (GapReason::Refused, 1)].into(), "{report:#?}");
        for lane in [inputs, events] {
            assert_eq!(lane.accepted, lane.delivered + lane.waiting + lane.missing + lane.lost.values().sum::<u64>(), "{lane:#?}");
        }
    }
}

#[test]
fn an_export_names_what_is_missing() -> Result<(), BufferError> {
    let dir = tempfile::tempdir().unwrap();
    let settings = LogSettings { partition_min_bytes: 4_000, partition_max_bytes: 4_000, ..LogSettings::new(1 << 30) };
    let (log, mut writer) = Log::open(dir.path(), settings)?;
    let now = Clock::new().now();
    let stamp = gateway_stamp(now.ts, now.state, Origin::Simulated);
    let entry = |event: Event| Entry { stamp: stamp.clone(), cause: None, body: Body::Event(event.into()) };
    for n in 0..60_u64 {
        let mut random = fastrand::Rng::with_seed(n);
        let noise: String = (0..1_500).map(|_| char::from(b'0' + random.u8(0..64))).collect();
        writer.append(LaneName::Inputs, &entry(Event { text: Some(noise.into()), ..Event::new(EventKind::Tick) }))?;
        writer.commit()?;
    }
    let (appender, requests) = commit::channel(1);
    let (commit_log, settings_of_loop) = (log.clone(), loop_settings(1 << 30, Clock::new()));
    let committing = thread::spawn(move || commit::run(writer, commit_log, requests, settings_of_loop).unwrap());
    let at = |seq| Position { ordinal: 1, seq };
    appender.blocking_name_gap(LaneName::Inputs, at(1), at(3), GapReason::Quota).unwrap();
    drop((appender, log));
    committing.join().unwrap();
    let mut partitions: Vec<_> = std::fs::read_dir(dir.path().join("inputs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    partitions.sort();
    // Three are enough: one that is gone, one that is damaged, the rest.
    assert!(partitions.len() > 6, "{partitions:?}");
    std::fs::remove_dir_all(&partitions[2]).unwrap();
    std::fs::write(partitions[4].join("header"), b"junk").unwrap();
    // All that the lane has.
    std::fs::remove_dir_all(dir.path().join("events")).unwrap();

    let log = Log::inspect(dir.path(), settings)?;
    let sender = Sender::new("gw".into(), "");
    let unsaved = |_: &Path, _| false;
    let events = page(&log, &sender, &ExportRequest { lane: LaneName::Events, from: None, to: None, limit: None }, None, unsaved)?.lines;
    let events: Vec<Value> = events.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let [line] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&line["gap_from_seq"], &line["gap_to_seq"], &line["gap_reason"]), (&json!(1), &json!(1), &json!("torn_tail")));
    assert_eq!(line["gap_event"], Value::Null, "{line}");
    let sender = Sender::new("gw".into(), "");
    let mut seqs = Vec::new();
    let mut request = ExportRequest { lane: LaneName::Inputs, from: None, to: None, limit: None };
    loop {
        let page = page(&log, &sender, &request, None, unsaved)?;
        for line in page.lines {
            let line: Value = serde_json::from_slice(&line).unwrap();
            match line.get("gap_ordinal") {
                Some(_) if line["gap_reason"].is_null() => panic!("no reason: {line}"),
                Some(_) => seqs.extend(line["gap_from_seq"].as_u64().unwrap()..=line["gap_to_seq"].as_u64().unwrap()),
                None => seqs.push(line["seq"].as_u64().unwrap()),
            }
        }
        let Some(next) = page.end.next else { break };
        request.from = Some(next);
    }
    assert_eq!(seqs, (1..=60).collect::<Vec<_>>(), "each record or the gap that holds it, once");

    // What Kafka has is not lost, whatever became of it here.
    request.from = None;
    let lines = page(&log, &sender, &request, Some(at(59)), unsaved)?.lines;
    assert!(lines.iter().all(|line| !String::from_utf8_lossy(line).contains("gap_ordinal")), "{}", lines.len());
    Ok(())
}
