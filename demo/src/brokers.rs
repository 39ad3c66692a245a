//! Where messages go through: embedded stand-ins for Kafka and MQTT, or real brokers that the person named.
//!
//! The stand-ins live in this process. The mock cluster of librdkafka keeps records in memory and speaks the real protocol, transactions included;
//! rumqttd is a real broker, only small. Neither is for anything but a first look.
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{Arc, mpsc::sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hark::stop::Stop;
use hark_protocol::topics::TOPICS;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
    mocking::MockCluster,
};
use rumqttd::{Broker, ConnectionSettings, RouterConfig, ServerSettings};

/// For a real broker to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of one block of readings and more; the agent takes packets of up to 256 KiB.
const MQTT_PAYLOAD_BYTES: usize = 256 << 10;

/// Host and port of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    fn parse(text: &str) -> Result<Self> {
        let (host, port) = text.rsplit_once(':').with_context(|| format!("`{text}` is no HOST:PORT"))?;
        Ok(Self { host: host.to_owned(), port: port.parse().with_context(|| format!("`{text}` has no port"))? })
    }
}

/// A Kafka with the demo's topics.
#[derive(Debug)]
pub struct Kafka {
    /// `host:port`, as clients take it.
    pub bootstrap: String,
    /// It is the embedded stand-in.
    pub embedded: bool,
    thread: Option<(Arc<Stop>, JoinHandle<()>)>,
}

impl Kafka {
    /// Starts the stand-in with all topics under `prefix`; it ends when this is dropped.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn embedded(prefix: &str) -> Result<Self> {
        let stop = Arc::new(Stop::default());
        let (ready, started) = sync_channel(1);
        let (theirs, prefix) = (stop.clone(), prefix.to_owned());
        let run = move || {
            // The cluster stays on the thread that made it.
            let cluster = match mock_cluster(&prefix) {
                Ok(cluster) => cluster,
                Err(error) => {
                    let _starter_waits = ready.send(Err(error));
                    return;
                }
            };
            let _starter_waits = ready.send(Ok(cluster.bootstrap_servers()));
            while !theirs.wait(Duration::from_secs(3_600)) {}
        };
        let thread = thread::Builder::new().name("embedded-kafka".into()).spawn(run)?;
        let bootstrap = started.recv().context("the embedded Kafka ended")??;
        Ok(Self { bootstrap, embedded: true, thread: Some((stop, thread)) })
    }

    /// Reaches a real Kafka and creates the topics under `prefix` that are absent, without replication.
    ///
    /// # Errors
    /// When it cannot be reached within ten seconds or refuses to create them.
    pub fn real(bootstrap: &str, prefix: &str) -> Result<Self> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        let names: Vec<String> = TOPICS.iter().map(|topic| topic.full_name(prefix)).collect();
        let settings: Vec<Vec<(&str, String)>> = TOPICS.iter().map(|topic| topic.settings()).collect();
        let topics: Vec<NewTopic<'_>> = TOPICS
            .iter()
            .zip(&names)
            .zip(&settings)
            .map(|((topic, name), settings)| {
                let new = NewTopic::new(name, i32::try_from(topic.partitions).unwrap_or(1), TopicReplication::Fixed(1));
                settings.iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(ANSWERS_WITHIN)).request_timeout(Some(ANSWERS_WITHIN));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let created = runtime.block_on(admin.create_topics(&topics, &options)).with_context(|| format!("failed to create topics at {bootstrap}"))?;
        for result in created {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => bail!("Kafka at {bootstrap} refuses to create `{topic}`: {code}"),
            }
        }
        Ok(Self { bootstrap: bootstrap.to_owned(), embedded: false, thread: None })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        if self.embedded { "embedded stand-in (librdkafka mock cluster, in memory)".to_owned() } else { format!("real, {}", self.bootstrap) }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            stop.request();
            let _its_panic_was_printed = thread.join();
        }
    }
}

fn mock_cluster(prefix: &str) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let cluster = MockCluster::new(1).context("failed to start the embedded Kafka")?;
    for topic in TOPICS {
        let partitions = i32::try_from(topic.partitions).unwrap_or(1);
        cluster.create_topic(&topic.full_name(prefix), partitions, 1).with_context(|| format!("failed to create {}", topic.name))?;
    }
    Ok(cluster)
}

/// An MQTT v5 broker.
#[derive(Debug)]
pub struct Mqtt {
    /// Where it listens.
    pub address: Address,
    /// It is the embedded stand-in.
    pub embedded: bool,
}

impl Mqtt {
    /// Starts the stand-in on a free port of loopback and waits until it listens. It has no way to be stopped and ends with the process.
    ///
    /// # Errors
    /// When it does not listen within ten seconds.
    pub fn embedded() -> Result<Self> {
        let port = free_port()?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = mqtt_config(listen);
        let run = move || {
            if let Err(error) = Broker::new(config).start() {
                eprintln!("the embedded MQTT broker ended: {error}");
            }
        };
        thread::Builder::new().name("embedded-mqtt".into()).spawn(run)?;
        if !wait_until(ANSWERS_WITHIN, || TcpStream::connect_timeout(&listen, Duration::from_secs(1)).is_ok()) {
            bail!("the embedded MQTT broker does not listen on {listen}");
        }
        Ok(Self { address: Address { host: Ipv4Addr::LOCALHOST.to_string(), port }, embedded: true })
    }

    /// Checks that a real broker takes connections.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn real(text: &str) -> Result<Self> {
        let address = Address::parse(text)?;
        let targets = (address.host.as_str(), address.port).to_socket_addrs().with_context(|| format!("failed to look up {text}"))?;
        let reached = targets.into_iter().any(|target| TcpStream::connect_timeout(&target, ANSWERS_WITHIN).is_ok());
        if !reached {
            bail!("no MQTT broker answers at {text}");
        }
        Ok(Self { address, embedded: false })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        if self.embedded { "embedded stand-in (rumqttd)".to_owned() } else { format!("real, {}:{}", self.address.host, self.address.port) }
    }
}

fn mqtt_config(listen: SocketAddr) -> rumqttd::Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: MQTT_PAYLOAD_BYTES,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "demo".into(), listen, tls: None, next_connection_delay_ms: 1, connections };
    // A subscriber that is behind by more than 16 MiB loses messages here; the agent is behind by less than one.
    let router = RouterConfig {
        max_connections: 16,
        max_outgoing_packet_count: 200,
        max_segment_size: 4 << 20,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    rumqttd::Config { router, v5: Some([("demo".into(), server)].into()), ..rumqttd::Config::default() }
}

/// A TCP port of loopback that nobody listens on now.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free TCP port on loopback")?.local_addr()?.port())
}

/// Asks again and again until `condition` holds (true) or the time is over (false).
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if std::time::Instant::now() >= deadline {
            return false;
        }
        thread::park_timeout(Duration::from_millis(30));
    }
}
