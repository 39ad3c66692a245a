//! One case from an empty broker to the count in Kafka.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock; its receiver ends with the case")]
use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use hark_tests::support::{
    Agent, Connection, Kafka, Metrics, Mosquitto,
    machine::{Usage, now_ms},
    wait_for, wait_until,
};

use super::{arrivals::Arrivals, case::Case, report::Row};

const CONNECTS_WITHIN: Duration = Duration::from_secs(60);
const ARRIVES_WITHIN: Duration = Duration::from_secs(300);
/// When nothing more comes from the broker for so long, the rest was dropped there.
const QUIET: Duration = Duration::from_secs(5);
/// Asking for the metrics costs the agent time too.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// What all cases share.
#[derive(Debug)]
pub struct Bench {
    /// Each case gets a directory in it.
    pub dir: PathBuf,
    /// The one Kafka; each case has topics of its own there.
    pub kafka: Kafka,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// When the first message was written, milliseconds since 1970.
    first_ms: i64,
    /// From then to the broker's last acknowledgement.
    took: Duration,
}

/// Processor time of those who work on the readings.
struct Usages {
    agent: Usage,
    mosquitto: Usage,
    kafka: Usage,
    generator: Usage,
}

impl Bench {
    /// Runs `case`.
    ///
    /// # Errors
    /// When a program does not start or ends, or what was sent does not arrive in time.
    pub fn run(&self, case: &Case) -> Result<Row> {
        let dir = self.dir.join(case.name);
        let mosquitto = Mosquitto::start(&dir.join("mosquitto"), case.settings)?;
        if case.agent { self.through_agent(case, &dir, &mosquitto) } else { through_broker(case, &mosquitto) }
    }

    fn through_agent(&self, case: &Case, dir: &Path, mosquitto: &Mosquitto) -> Result<Row> {
        let prefix = format!("{}.", case.name);
        self.kafka.create_topics(&prefix)?;
        let mut agent = self.configure(case, &dir.join("agent"), &prefix, mosquitto.port())?;
        agent.start()?;
        // What it says of its own start has been sent too: the first transaction of a new Kafka takes longer than any later one.
        wait_until("the agent to connect", CONNECTS_WITHIN, || {
            let connected = |metrics: &Metrics| {
                metrics.get("hark_source_connected{source=\"plant\"}") == Some(1.0)
                    && metrics.get("hark_forward_connected") == Some(1.0)
                    && metrics.sum("hark_buffer_records") == Some(0.0)
            };
            agent.metrics().is_ok_and(|metrics| connected(&metrics))
        })?;

        let before = self.usages(&agent, mosquitto)?;
        let sent = send(case, mosquitto.port())?;
        let metrics = all_through(case, &agent)?;
        let after = self.usages(&agent, mosquitto)?;
        agent.stop()?;

        let arrivals = Arrivals::count(&self.kafka, &prefix, case.readings)?;
        let received = metrics.sum("hark_source_messages_total").unwrap_or_default() as usize;
        Ok(row(case, sent, &before, &after, &arrivals, received))
    }

    fn configure(&self, case: &Case, dir: &Path, prefix: &str, port: u16) -> Result<Agent> {
        let program = std::env::current_exe().context("this program does not know where it lies")?.display().to_string();
        let tables = format!(
            "[kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\n\n[[mqtt]]\nname = \"plant\"\nhost = \"127.0.0.1\"\nport = {port}\n\n{}",
            self.kafka.bootstrap(),
            case.topic_table()
        );
        Agent::configure(&program, dir, "gw-bench", &tables, &case.asset_files())
    }

    fn usages(&self, agent: &Agent, mosquitto: &Mosquitto) -> Result<Usages> {
        Ok(Usages {
            agent: Usage::of(agent.process()?.pid())?,
            mosquitto: Usage::of(mosquitto.process()?.pid())?,
            kafka: Usage::of(self.kafka.process()?.pid())?,
            generator: Usage::of(std::process::id())?,
        })
    }
}

fn send(case: &Case, port: u16) -> Result<Sent> {
    let mut generator = Connection::open(port, "generator")?;
    let first_ms = now_ms();
    let took = generator.publish(&case.load(), |index, topic, payload| case.message(index, now_ms(), first_ms, topic, payload))?;
    Ok(Sent { first_ms, took })
}

/// Waits until the agent has everything that the broker did not drop, and Kafka has everything of the agent.
fn all_through(case: &Case, agent: &Agent) -> Result<Metrics> {
    let (mut accepted, mut changed_at, mut asked_at) = (0.0, Instant::now(), Instant::now());
    wait_for(&format!("{} readings in Kafka", case.readings), ARRIVES_WITHIN, || {
        if asked_at.elapsed() < ASK_EVERY {
            return Ok(None);
        }
        asked_at = Instant::now();
        let metrics = agent.metrics().with_context(|| agent.log_tail())?;
        let now = metrics.sum("hark_source_readings_accepted_total").unwrap_or_default();
        if now > accepted {
            (accepted, changed_at) = (now, Instant::now());
        }
        let complete = accepted >= case.readings as f64 || changed_at.elapsed() > QUIET;
        let forwarded = metrics.sum("hark_buffer_records") == Some(0.0);
        Ok((complete && forwarded).then_some(metrics))
    })
}

/// The same messages through the broker to a subscriber that does nothing but acknowledge.
fn through_broker(case: &Case, mosquitto: &Mosquitto) -> Result<Row> {
    let pids = || anyhow::Ok((Usage::of(mosquitto.process()?.pid())?, Usage::of(std::process::id())?));
    let before = pids()?;
    let mut subscriber = Connection::open(mosquitto.port(), "subscriber")?;
    subscriber.subscribe()?;
    let started = Instant::now();
    let sent = thread::scope(|scope| {
        let receiving = scope.spawn(|| subscriber.receive(case.load().messages));
        let sent = send(case, mosquitto.port())?;
        receiving.join().map_err(|_| anyhow!("the subscriber panicked"))??;
        anyhow::Ok(sent)
    })?;
    let took = started.elapsed();
    let after = pids()?;
    let per_reading = |cpu_s: f64| cpu_s * 1e6 / case.readings as f64;
    Ok(Row {
        case: case.name,
        readings: case.readings,
        published_per_s: case.readings as f64 / sent.took.as_secs_f64(),
        through_per_s: case.readings as f64 / took.as_secs_f64(),
        mosquitto_us: per_reading(after.0.cpu_s - before.0.cpu_s),
        generator_us: per_reading(after.1.cpu_s - before.1.cpu_s),
        ..Row::default()
    })
}

fn row(case: &Case, sent: Sent, before: &Usages, after: &Usages, arrivals: &Arrivals, received_messages: usize) -> Row {
    let per_reading = |before: Usage, after: Usage| (after.cpu_s - before.cpu_s) * 1e6 / arrivals.distinct.max(1) as f64;
    let received = received_messages * case.per_message();
    let through_s = (arrivals.last_ms - sent.first_ms).max(1) as f64 / 1e3;
    // With scoring the readings carry times of their own.
    let latency = |part| if case.commissioning_rows.is_some() { None } else { arrivals.latency_ms(part) };
    Row {
        case: case.name,
        readings: case.readings,
        published_per_s: case.readings as f64 / sent.took.as_secs_f64(),
        through_per_s: arrivals.distinct as f64 / through_s,
        dropped_by_broker: case.readings.saturating_sub(received),
        lost: received.min(case.readings).saturating_sub(arrivals.distinct),
        doubled: arrivals.doubled,
        p50_ms: latency(0.5),
        p99_ms: latency(0.99),
        max_ms: latency(1.0),
        idle_mib: before.agent.rss_kib as f64 / 1024.0,
        after_mib: after.agent.rss_kib as f64 / 1024.0,
        peak_mib: after.agent.peak_kib as f64 / 1024.0,
        flash_gb_a_day: (after.agent.written_bytes - before.agent.written_bytes) as f64 / through_s * 86_400.0 / 1e9,
        agent_us: per_reading(before.agent, after.agent),
        mosquitto_us: per_reading(before.mosquitto, after.mosquitto),
        kafka_us: per_reading(before.kafka, after.kafka),
        generator_us: per_reading(before.generator, after.generator),
    }
}
