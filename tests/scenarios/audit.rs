//! `hark audit` proves promises 1 and 2 from Kafka alone: clean while an agent runs and is killed, and a topic that somebody doctored is found out.
#![expect(clippy::print_stdout, reason = "what the audit said, for --nocapture")]
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark_protocol::topics::{ALARMS, EVENTS, GATEWAYS, PREDICTIONS, READINGS, SNAPSHOTS, Topic};
use hark_tests::support::{Agent, Kafka, KafkaRecord, Mosquitto, PREFIX, Settings, publish, start_ready, wait_until};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const GATEWAY: &str = "gw-audit";
const MACHINES: [&str; 6] = ["pump-1", "pump-2", "fan-7", "press-3", "mixer-4", "drive-5"];
/// Topics with records of lanes.
const LANE_TOPICS: [Topic; 5] = [READINGS, PREDICTIONS, ALARMS, EVENTS, SNAPSHOTS];
/// Topics that carry cursors.
const CURSOR_TOPICS: [Topic; 5] = [READINGS, PREDICTIONS, ALARMS, EVENTS, GATEWAYS];
const SOON: Duration = Duration::from_secs(120);

struct Site {
    agent: Agent,
    kafka: Kafka,
    mosquitto: Mosquitto,
    _dir: tempfile::TempDir,
}

/// What the audit said.
struct Said {
    exit: i32,
    json: Value,
}

impl Site {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let kafka = Kafka::start(&dir.path().join("kafka"))?;
        kafka.create_topics(PREFIX)?;
        let mosquitto = Mosquitto::start(&dir.path().join("mosquitto"), Settings::Plant)?;
        let tables = format!(
            "[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{PREFIX}\"\n\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\nsession_expiry = \"1h\"\n\n\
             [[mqtt.topic]]\ntemplate = \"plant/{{asset}}/{{point}}\"\npayload = {{ value = \"/value\" }}\n",
            kafka.bootstrap(),
            mosquitto.port()
        );
        let assets = MACHINES.map(|id| (id.to_owned(), format!("id = \"{id}\"\n\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n")));
        let agent = Agent::configure(PROGRAM, &dir.path().join("agent"), GATEWAY, &tables, &assets)?;
        Ok(Self { agent, kafka, mosquitto, _dir: dir })
    }

    /// `count` readings of each machine, in turn.
    fn publish(&self, count: u32) -> Result<()> {
        for first in (0..count).step_by(50) {
            for machine in MACHINES {
                let topic = format!("plant/{machine}/flow");
                publish(&self.mosquitto, &topic, (first..count.min(first + 50)).map(|number| format!("{{\"value\":{number}}}")))?;
            }
        }
        Ok(())
    }

    fn wait_until_delivered(&self, accepted: f64) -> Result<()> {
        wait_until("everything to be in Kafka", SOON, || {
            self.agent
                .metrics()
                .is_ok_and(|m| m.sum("hark_source_readings_accepted_total") >= Some(accepted) && m.sum("hark_buffer_records") == Some(0.0))
        })
        .with_context(|| self.agent.log_tail())
    }

    /// Audits the topics under `prefix`.
    fn audit(&self, prefix: &str, patience: &str) -> Result<Said> {
        let brokers = self.kafka.bootstrap();
        said(&["--brokers", &brokers, "--gateway", GATEWAY, "--topic-prefix", prefix, "--patience", patience])
    }

    /// Audits a copy under `prefix` in which `doctor` has hurt what it names, and nothing else: that is found, `count` times.
    fn check_doctored(&self, prefix: &str, fault: &str, count: u64, doctor: impl FnOnce(&mut Vec<KafkaRecord>) -> Vec<String>) -> Result<()> {
        let mut hurt = Vec::new();
        self.copy(prefix, |records| hurt = doctor(records))?;
        let Said { exit, json } = self.audit(prefix, "1")?;
        ensure!(exit == 1 && json[fault] == count && json["faults"] == count, "{prefix}: exit {exit}, {json}");
        ensure!(examples(&json, fault) == hurt, "{prefix}: {hurt:?} were hurt: {json}");
        Ok(())
    }

    /// Copies all that `doctor` leaves of the records to topics under `prefix`, each to its partition, and the cursors as they are.
    fn copy(&self, prefix: &str, doctor: impl FnOnce(&mut Vec<KafkaRecord>)) -> Result<()> {
        self.kafka.create_topics(prefix)?;
        let mut records = Vec::new();
        for topic in LANE_TOPICS {
            records.extend(self.kafka.read_committed(&topic.full_name(PREFIX))?);
        }
        doctor(&mut records);
        let producer: ThreadedProducer<DefaultProducerContext> =
            ClientConfig::new().set("bootstrap.servers", self.kafka.bootstrap()).set("enable.idempotence", "true").create()?;
        for record in &records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let topic = record.topic.replacen(PREFIX, prefix, 1);
            let key = record.key.clone().unwrap_or_default();
            let sent =
                BaseRecord::to(&topic).partition(record.partition).key(&key).headers(headers).payload(record.value.as_deref().unwrap_or_default());
            producer.send(sent).map_err(|(error, _)| error)?;
        }
        producer.flush(SOON)?;
        self.copy_cursors(prefix)
    }

    fn copy_cursors(&self, prefix: &str) -> Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap()).set("group.id", format!("hark-cursor.{GATEWAY}")).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create()?;
        let mut asked = TopicPartitionList::new();
        for topic in CURSOR_TOPICS {
            asked.add_partition(&topic.full_name(PREFIX), 0);
        }
        let committed = consumer.committed_offsets(asked, SOON)?;
        let mut copies = TopicPartitionList::new();
        for element in committed.elements().iter().filter(|element| matches!(element.offset(), Offset::Offset(_))) {
            let mut copy = copies.add_partition(&element.topic().replacen(PREFIX, prefix, 1), 0);
            copy.set_offset(element.offset())?;
            copy.set_metadata(element.metadata());
        }
        ensure!(copies.count() >= 4, "the agent left cursors of {} topics: {committed:?}", copies.count());
        consumer.commit(&copies, CommitMode::Sync).context("failed to commit the copies of the cursors")
    }
}

fn said(arguments: &[&str]) -> Result<Said> {
    let table = Command::new(PROGRAM).arg("audit").args(arguments).output().context("failed to start the program")?;
    println!("{}{}", String::from_utf8_lossy(&table.stdout), String::from_utf8_lossy(&table.stderr));
    let output = Command::new(PROGRAM).args(["audit", "--json"]).args(arguments).output().context("failed to start the program")?;
    let exit = output.status.code().context("it was killed")?;
    let json = serde_json::from_slice(&output.stdout).with_context(|| format!("exit {exit}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Said { exit, json })
}

/// What `json` names as examples of `fault`, in all its rows or of the whole.
fn examples(json: &Value, fault: &str) -> Vec<String> {
    let rows = json["rows"].as_array().into_iter().flatten().map(|row| &row[fault]["examples"]);
    let lists = rows.chain([&json[format!("{fault}_first")]]).filter_map(Value::as_array);
    lists.flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

fn id(record: &KafkaRecord) -> String {
    let header = |key: &str| record.headers.get(key).map(String::as_str).unwrap_or_default();
    ["gw", "inc", "lane", "seq"].map(header).join("/")
}

/// The places of two readings of one machine that follow each other in a partition, in the middle of it.
fn neighbours(records: &[KafkaRecord]) -> (usize, usize) {
    let of_one: Vec<usize> =
        (0..records.len()).filter(|at| records[*at].key.as_deref() == Some("fan-7") && records[*at].topic.ends_with(READINGS.name)).collect();
    let middle = of_one.len() / 2;
    (of_one[middle], of_one[middle + 1])
}

/// The audit asks nobody but Kafka: it is clean while readings come in, while the agent is dead, and after several starts.
#[test]
fn an_agent_that_runs_and_is_killed_is_clean() -> Result<()> {
    let mut site = Site::new()?;
    let dir = site.agent.dir().to_owned();
    let config = dir.display().to_string();
    start_ready(&mut site.agent)?;
    // Before anything is there nothing can be told.
    wait_until("something to be in Kafka", SOON, || site.agent.metrics().is_ok_and(|m| m.sum("hark_forward_delivered_total") > Some(0.0)))?;
    for round in 0..3 {
        site.publish(300)?;
        let running = said(&["--config", &config])?;
        ensure!(running.exit == 0 && running.json["verdict"] == "clean", "round {round}, while it runs: {}", running.json);
        site.agent.kill()?;
        let dead = said(&["--config", &config])?;
        ensure!(dead.exit == 0, "round {round}, while it is dead: {}", dead.json);
        start_ready(&mut site.agent)?;
    }
    site.wait_until_delivered(0.0)?;
    let at_last = said(&["--config", &config])?;
    ensure!(at_last.exit == 0 && at_last.json["faults"] == 0, "{}", at_last.json);
    let readings = site.kafka.read_committed(&READINGS.full_name(PREFIX))?.len();
    ensure!(readings == 3 * 300 * MACHINES.len(), "{readings} readings arrived");
    let inputs = |row: &&Value| row["lane"] == "inputs" && row["end"] != "beyond_cursor";
    let rows: Vec<&Value> = at_last.json["rows"].as_array().into_iter().flatten().filter(inputs).collect();
    ensure!(rows.len() >= 3 && rows.iter().all(|row| row["from"] == 1), "{rows:#?}");
    let judged: u64 = rows.iter().filter_map(|row| row["delivered"].as_u64()).sum();
    ensure!(judged >= readings as u64, "{judged} of {readings} readings were judged");
    site.agent.stop()?;
    look_at_the_buffer(&site, &dir)
}

/// `hark buffer` says the same of the stopped agent's directory as of the running agent, and changes nothing in it.
fn look_at_the_buffer(site: &Site, dir: &Path) -> Result<()> {
    let status: Value = serde_json::from_str(&site.agent.command(&["buffer", "status", "--json"])?)?;
    ensure!(status["running"] == false && status["incarnations"].as_array().is_some_and(|starts| starts.len() == 4), "{status}");
    for lane in status["lanes"].as_array().into_iter().flatten() {
        let number = |name: &str| lane[name].as_u64().unwrap_or(0);
        let lost: u64 = lane["lost"].as_object().into_iter().flatten().filter_map(|(_, records)| records.as_u64()).sum();
        ensure!(number("accepted") == number("delivered") + number("waiting") + number("missing") + lost, "{lane}");
    }
    ensure!(status["lanes"][0]["delivered"].as_u64() >= Some(1) && status["since"] == 1, "{status}");
    println!("{}", site.agent.command(&["buffer", "status"])?);
    let export = site.agent.command(&["buffer", "export", "--lane", "events"])?;
    ensure!(export.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["lane"] == "events")), "{export}");
    ensure!(!dir.join("data/hark.sock").exists(), "the socket is still there");
    interrupt_an_export(dir)
}

/// At a signal an export ends after whole lines and takes its copies away, at a second one at once.
fn interrupt_an_export(dir: &Path) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let start = || {
        let mut command = Command::new(PROGRAM);
        command.args(["buffer", "export", "--config"]).arg(dir).env("TMPDIR", temporary.path()).stdout(Stdio::piped()).spawn()
    };
    let terminate = |child: &Child| kill_process(Pid::from_child(child), Signal::TERM);
    let mut first = start()?;
    let mut lines = BufReader::new(first.stdout.take().context("no output")?).lines();
    lines.next().context("nothing was exported")??;
    terminate(&first)?;
    for line in lines {
        serde_json::from_str::<Value>(&line?)?;
    }
    let code = first.wait()?.code();
    // All of it may have been printed before the signal came to it.
    ensure!(code == Some(130) || code == Some(0), "{code:?}");
    ensure!(fs::read_dir(temporary.path())?.next().is_none(), "copies are left");

    let mut second = start()?;
    let mut unread = second.stdout.take().context("no output")?;
    unread.read_exact(&mut [0])?;
    wait_until("an export that nobody reads to end", SOON, || terminate(&second).is_err() || second.try_wait().is_ok_and(|ended| ended.is_some()))?;
    ensure!(second.wait()?.code() == Some(130), "{:?}", second.wait());
    Ok(())
}

/// Copies of a run's topics, each with one thing done to it.
#[test]
fn a_doctored_topic_is_found_out() -> Result<()> {
    let mut site = Site::new()?;
    start_ready(&mut site.agent)?;
    site.publish(200)?;
    site.wait_until_delivered(f64::from(200 * MACHINES.len() as u32))?;
    site.agent.stop()?;

    site.copy("faithful.", |_| ())?;
    let faithful = site.audit("faithful.", "20")?;
    ensure!(faithful.exit == 0, "a faithful copy: {}", faithful.json);

    let without_one = |records: &mut Vec<KafkaRecord>| vec![id(&records.remove(neighbours(records).0))];
    site.check_doctored("removed.", "missing", 1, without_one)?;
    site.check_doctored("repeated.", "doubled", 1, |records| {
        let (first, second) = neighbours(records);
        records.insert(second + 1, records[first].clone());
        vec![id(&records[first])]
    })?;
    site.check_doctored("swapped.", "disordered", 1, |records| {
        let (first, second) = neighbours(records);
        records.swap(first, second);
        vec![id(&records[second])]
    })?;
    let holds = |record: &KafkaRecord, what: &str| format!("{} (its value is of {what})", id(record));
    site.check_doctored("replaced.", "altered", 1, |records| {
        let (first, second) = neighbours(records);
        records[first].value = records[second].value.clone();
        vec![holds(&records[first], &id(&records[second]))]
    })?;
    site.check_doctored("exchanged.", "altered", 2, |records| {
        let (first, second) = neighbours(records);
        (records[first].value, records[second].value) = (records[second].value.clone(), records[first].value.clone());
        [(first, second), (second, first)].map(|(at, of)| holds(&records[at], &id(&records[of]))).to_vec()
    })?;
    site.check_doctored("illegible.", "altered", 1, |records| {
        let first = neighbours(records).0;
        records[first].value = Some("{\"value\":".to_owned());
        vec![holds(&records[first], "no record")]
    })?;
    site.check_doctored("emptied.", "altered", 1, |records| {
        let first = neighbours(records).0;
        records[first].value = Some(format!("{{\"event_id\":\"{}\"}}", id(&records[first])));
        vec![holds(&records[first], "no reading")]
    })?;
    site.check_doctored("renamed.", "altered", 1, |records| {
        let first = neighbours(records).0;
        let renamed = &mut records[first];
        renamed.key = Some("fan-8".to_owned());
        vec![format!("{} (its key is `fan-8`, its value about `fan-7`)", id(renamed))]
    })?;
    site.check_doctored("elsewhere.", "altered", 1, |records| {
        let first = neighbours(records).0;
        records[first].topic = SNAPSHOTS.full_name(PREFIX);
        vec![holds(&records[first], "no snapshot")]
    })?;
    site.check_doctored("moved.", "misplaced", 1, |records| {
        let first = neighbours(records).0;
        let moved = &mut records[first];
        let (topic, home) = (READINGS.full_name("moved."), moved.partition);
        moved.partition = i32::from(home == 0);
        vec![format!("{} in {topic}/{}, while most of `fan-7` are in {topic}/{home}", id(moved), moved.partition)]
    })?;

    expire_unevenly(&site)?;
    nobody(&site)
}

/// Old segments have expired in one partition more than in another: the audit starts later, says so, and still finds a fault.
fn expire_unevenly(site: &Site) -> Result<()> {
    let readings = READINGS.full_name("faithful.");
    let of_fan: Vec<KafkaRecord> =
        site.kafka.read_committed(&readings)?.into_iter().filter(|record| record.key.as_deref() == Some("fan-7")).collect();
    let middle = &of_fan[of_fan.len() / 2];
    site.kafka.delete_records_before(&readings, middle.partition, middle.offset)?;
    let expired = site.audit("faithful.", "1")?;
    ensure!(expired.exit == 0, "after records have expired: {}", expired.json);
    ensure!(expired.json["from_later"] == serde_json::json!(["inputs"]), "{}", expired.json);
    ensure!(expired.json["lost_beginning"] == serde_json::json!([format!("{readings}/{}", middle.partition)]), "{}", expired.json);

    let removed = READINGS.full_name("removed.");
    let early = &of_fan[of_fan.len() / 4];
    site.kafka.delete_records_before(&removed, early.partition, early.offset)?;
    let still = site.audit("removed.", "1")?;
    ensure!((still.exit, &still.json["missing"]) == (1, &Value::from(1)), "a fault after the start: {}", still.json);

    // Nothing is left of a partition: what is missing may have been in it.
    site.kafka.delete_records_before(&readings, middle.partition, -1)?;
    let emptied = site.audit("faithful.", "1")?;
    ensure!(emptied.exit == 2 && emptied.json["unsure"] != 0 && emptied.json["faults"] == 0, "{}", emptied.json);
    Ok(())
}

/// Where there is nothing to tell of, the answer is that nothing can be told.
fn nobody(site: &Site) -> Result<()> {
    let brokers = site.kafka.bootstrap();
    let stranger = said(&["--brokers", &brokers, "--gateway", "nobody", "--topic-prefix", PREFIX, "--patience", "1"])?;
    ensure!((stranger.exit, &stranger.json["verdict"]) == (2, &Value::from("could_not_tell")), "{}", stranger.json);
    let place = ["--gateway", GATEWAY, "--brokers", &brokers, "--topic-prefix"];
    check_words(&[&place[..], &["typo."]].concat(), "there is no topic `typo.events.v1`; is the topic prefix right?")?;
    check_words(&["--gateway", GATEWAY, "--brokers", "127.0.0.1:1"], "is a broker up, and reachable from here?")?;
    check_words(&["--gateway", GATEWAY, "--brokers", ""], "it is empty")?;
    check_words(&["--gateway", GATEWAY, "--config", "/nowhere"], "(--brokers and --gateway together do without a configuration)")?;
    let full = File::options().write(true).open("/dev/full")?;
    let unwritten = Command::new(PROGRAM).arg("audit").args(place).arg(PREFIX).stdout(full).output()?;
    let said = String::from_utf8_lossy(&unwritten.stderr).into_owned();
    ensure!(unwritten.status.code() == Some(2) && said.contains("could not be written to standard output"), "{}: {said}", unwritten.status);
    Ok(())
}

/// Nothing can be told, and the complaint says why.
fn check_words(arguments: &[&str], words: &str) -> Result<()> {
    let output = Command::new(PROGRAM).arg("audit").args(arguments).output().context("failed to start the program")?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && complaint.contains(words) && output.stdout.is_empty(), "{}: {complaint}", output.status);
    Ok(())
}
