//! A source against a broker of a few lines, which does to it what brokers and networks do, and a log that commits when the test says so.
#![expect(clippy::disallowed_methods, reason = "tests have no pipeline: the parts of the source run here, and end when they are dropped")]
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use hark_protocol::topics::{LaneName, Name, Origin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    counters::SourceCounters,
    mqtt::{MESSAGE_OVERHEAD_BYTES, open},
    mqtt_session::{SESSION_BEGAN, identity},
    registry::{Intake, Registry},
};
use crate::{
    buffer::{
        BufferError, Position,
        commit::{self, Append, AppendError, Committed, Request},
        marks::{SourceMark, StoredMessage},
    },
    clock::Clock,
    config::{self, Mqtt, Shape, Topic},
    record::{Body, Entry},
};

const TOPIC: &str = "plant/pump-1/flow";
const SOON: Duration = Duration::from_secs(60);
/// Long enough for something that must not happen to happen.
const A_WHILE: Duration = Duration::from_millis(200);
const WINDOW: usize = 4 * MESSAGE_OVERHEAD_BYTES;

/// The running source, and both ends around it.
struct Source {
    listener: TcpListener,
    requests: mpsc::Receiver<Request>,
    counters: Arc<SourceCounters>,
    stop: CancellationToken,
    polling: JoinHandle<()>,
}

/// A connection as the broker sees it.
struct Peer(TcpStream);

/// What the source sends.
#[derive(Debug, PartialEq)]
enum Sent {
    Connect { clean_start: bool, session_expiry_s: Option<u32> },
    Subscribe { packet_id: u16 },
    PubAck(u16),
    Ping,
    Disconnect,
    Closed,
}

async fn source(stored: &[StoredMessage], window_bytes: usize, held_up_max: Duration) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shape = Shape { value: Some("/value".into()), ..Shape::default() };
    let config = Mqtt {
        name: "plant".into(),
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        client_id: "hark-test".into(),
        session_expiry: Duration::from_secs(3_600),
        credentials: None,
        topics: vec![Topic { template: "plant/{asset}/{point}".into(), shape, asset: None, point: None }],
        plaintext_accepted: None,
    };
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut asset = config::load(&shipped).unwrap().assets.into_values().next().unwrap();
    asset.id = "pump-1".into();
    asset.points[0].id = "flow".into();
    asset.points[0].range = None;
    let registry = Arc::new(Registry::new(&BTreeMap::from([(Name::from("pump-1"), asset)]), Origin::Live));
    let clock = Clock::new();
    let counters = Arc::new(SourceCounters::new("plant".into(), "mqtt", "redelivery", clock.clone()));
    let (appender, requests) = commit::channel(64);
    let (mut poll, decode) = open(&config, Intake::new(registry), appender, clock, window_bytes, stored, counters.clone());
    poll.held_up_max = held_up_max;
    let stop = CancellationToken::new();
    // Ends when polling ends.
    thread::spawn(move || decode.run());
    let polling = tokio::spawn(poll.run(stop.clone()));
    Source { listener, requests, counters, stop, polling }
}

impl Source {
    /// The next connection, accepted and subscribed.
    async fn accept(&mut self, session_present: bool) -> Peer {
        let (stream, _) = tokio::time::timeout(SOON, self.listener.accept()).await.expect("no connection").unwrap();
        let mut peer = Peer(stream);
        assert_eq!(peer.next().await, Sent::Connect { clean_start: false, session_expiry_s: Some(3_600) }, "the session is kept");
        peer.send(&[0x20, 3, u8::from(session_present), 0, 0]).await;
        let subscribed = peer.next().await;
        let Sent::Subscribe { packet_id } = subscribed else { panic!("{subscribed:?} instead of a subscription") };
        let [high, low] = packet_id.to_be_bytes();
        peer.send(&[0x90, 4, high, low, 0, 1]).await;
        peer
    }

    /// The next append that is not empty of everything.
    async fn append(&mut self) -> Append {
        match tokio::time::timeout(SOON, self.requests.recv()).await.expect("no append") {
            Some(Request::Append(append)) => append,
            _ => panic!("neither gap nor quarantine comes from a source"),
        }
    }

    /// Appends until one has values; gives these.
    async fn values(&mut self) -> (Vec<f64>, Append) {
        loop {
            let append = self.append().await;
            let values = values(&append);
            if !values.is_empty() {
                return (values, append);
            }
            commit(append);
        }
    }

    async fn nothing_is_appended(&mut self) {
        assert!(tokio::time::timeout(A_WHILE, self.requests.recv()).await.is_err(), "an append without need");
    }

    fn counted(&self, cause: &str) -> u64 {
        self.counters.causes().iter().filter(|(_, name, _)| *name == cause).map(|(_, _, count)| count).sum()
    }
}

fn values(append: &Append) -> Vec<f64> {
    let value = |entry: &Entry| if let Body::Reading(reading) = &entry.body { reading.value } else { None };
    append.entries.iter().filter_map(value).collect()
}

fn commit_seen(request: Option<Request>, seen: &mut Vec<f64>) {
    let Some(Request::Append(append)) = request else { panic!("no append") };
    seen.extend(values(&append));
    commit(append);
}

fn commit(append: Append) {
    let at = Position { ordinal: 1, seq: 1 };
    (append.done.expect("a source wants to know"))(Ok(Committed { lane: LaneName::Inputs, first: at, last: at }));
}

fn stored(append: &Append) -> Vec<StoredMessage> {
    let messages = |mark: &SourceMark| match mark {
        SourceMark::Mqtt { source, messages } if &**source == "plant" => messages.clone(),
        _ => panic!("a mark of somebody else"),
    };
    append.marks.iter().flat_map(messages).collect()
}

fn payload(value: f64) -> Vec<u8> {
    format!("{{\"value\":{value}}}").into_bytes()
}

fn message(packet_id: u16, value: f64) -> StoredMessage {
    identity(packet_id, TOPIC.as_bytes(), &payload(value))
}

/// Messages are acknowledged in the order of their arrival, each after its commit, and never without one.
#[tokio::test]
async fn acknowledgements_follow_the_commits_in_order() {
    let mut source = source(&[], 1 << 20, SOON).await;
    let mut broker = source.accept(true).await;
    broker.publish(7, false, 1.0).await;
    let (values, first) = source.values().await;
    assert_eq!((values, stored(&first)), (vec![1.0], vec![message(7, 1.0)]));
    broker.publish(3, false, 2.0).await;
    let (_, second) = source.values().await;
    broker.nothing_comes().await;
    commit(first);
    assert_eq!(broker.next().await, Sent::PubAck(7));
    broker.nothing_comes().await;
    // The log fails: whoever waits is dropped without a word.
    drop(second);
    broker.nothing_comes().await;
    // The log ends.
    source.requests.close();
    broker.publish(4, false, 3.0).await;
    assert_eq!([broker.next().await, broker.next().await], [Sent::Disconnect, Sent::Closed], "nothing more can become durable");
}

/// What the log refuses for ever is acknowledged in its turn; a commit that did not happen acknowledges nothing.
#[tokio::test]
async fn only_what_the_log_refused_for_good_is_acknowledged_without_being_stored() {
    let mut source = source(&[], 1 << 20, SOON).await;
    let mut broker = source.accept(true).await;
    broker.publish(1, false, 1.0).await;
    let (_, append) = source.values().await;
    (append.done.expect("the source wants to know"))(Err(AppendError::Stopped));
    broker.nothing_comes().await;
    broker.publish(2, false, 2.0).await;
    let (_, append) = source.values().await;
    (append.done.expect("the source wants to know"))(Err(AppendError::Refused(BufferError::EntryTooLarge { bytes: 1 })));
    assert_eq!(broker.next().await, Sent::PubAck(2));
    assert_eq!(source.counted("too_large"), 1);
}

/// A message on its way when the connection breaks comes again on the next one: stored once, acknowledged there, after its commit.
#[tokio::test]
async fn a_repetition_of_what_is_on_its_way_is_acknowledged_after_its_commit() {
    let mut source = source(&[], 1 << 20, SOON).await;
    let mut broker = source.accept(true).await;
    broker.publish(5, false, 1.0).await;
    let (_, on_its_way) = source.values().await;
    drop(broker);
    let mut broker = source.accept(true).await;
    broker.publish(5, true, 1.0).await;
    let repetition = source.append().await;
    assert_eq!((repetition.entries.len(), repetition.marks.len()), (0, 0));
    commit(on_its_way);
    broker.nothing_comes().await;
    commit(repetition);
    assert_eq!(broker.next().await, Sent::PubAck(5));
    broker.nothing_comes().await;
    assert_eq!([source.counted("repeated"), source.counted("older_connection")], [1, 1]);
}

/// Written to the socket is not received: an acknowledgement that goes down with its connection is followed by the same message.
#[tokio::test]
async fn a_message_whose_acknowledgement_was_lost_is_stored_once() {
    let mut source = source(&[], 1 << 20, SOON).await;
    let mut broker = source.accept(true).await;
    broker.publish(5, false, 1.0).await;
    commit(source.values().await.1);
    assert_eq!(broker.next().await, Sent::PubAck(5), "and the broker fails before it acts on it");
    drop(broker);
    let mut broker = source.accept(true).await;
    broker.publish(5, true, 1.0).await;
    let repetition = source.append().await;
    assert_eq!(repetition.entries.len(), 0);
    commit(repetition);
    assert_eq!(broker.next().await, Sent::PubAck(5));
}

/// What an earlier start of the agent stored is not stored again, unless the broker has lost the session.
#[tokio::test]
async fn a_restarted_agent_knows_what_it_stored() {
    let marks = [message(5, 1.0), message(6, 2.0)];
    let mut first = source(&marks, 1 << 20, SOON).await;
    let mut broker = first.accept(true).await;
    broker.publish(5, true, 1.0).await;
    commit(first.append().await);
    assert_eq!(broker.next().await, Sent::PubAck(5));
    // In use again, with an equal reading.
    broker.publish(6, false, 2.0).await;
    assert_eq!(first.values().await.0, [2.0]);

    let mut second = source(&marks, 1 << 20, SOON).await;
    let mut broker = second.accept(false).await;
    let began = second.append().await;
    assert_eq!(stored(&began), [SESSION_BEGAN], "also those who come later shall know");
    broker.publish(5, true, 1.0).await;
    assert_eq!(second.values().await.0, [1.0]);
}

/// The log takes nothing: the source leaves without a farewell, so that the broker keeps the session, and comes back when there is room.
#[tokio::test]
async fn a_full_window_ends_the_connection_and_not_the_session() {
    let mut source = source(&[], WINDOW, Duration::from_millis(300)).await;
    let mut broker = source.accept(true).await;
    for packet_id in 1..=9 {
        broker.publish(packet_id, false, f64::from(packet_id)).await;
    }
    assert_eq!(broker.next().await, Sent::Closed);
    assert_eq!((source.counters.connected.load(Ordering::Relaxed), source.counters.in_flight_bytes.load(Ordering::Relaxed) > 0), (false, true));
    let held_back = source.counted("held_back") - 1; // one of them is the connection
    assert!(held_back > 0);
    assert!(tokio::time::timeout(A_WHILE, source.listener.accept()).await.is_err(), "back without room");

    // The log goes on: it commits what comes, and the broker repeats what is not acknowledged.
    let mut seen = Vec::new();
    let mut broker = loop {
        tokio::select! {
            peer = source.listener.accept() => break Peer(peer.unwrap().0),
            append = source.requests.recv() => commit_seen(append, &mut seen),
        }
    };
    assert_eq!(broker.next().await, Sent::Connect { clean_start: false, session_expiry_s: Some(3_600) });
    broker.send(&[0x20, 3, 1, 0, 0]).await;
    assert!(matches!(broker.next().await, Sent::Subscribe { .. }));
    let unacknowledged = 1..=9_u16;
    for packet_id in unacknowledged.clone() {
        broker.publish(packet_id, true, f64::from(packet_id)).await;
        let mut answer = std::pin::pin!(broker.next());
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                append = source.requests.recv() => commit_seen(append, &mut seen),
            }
        };
        assert_eq!(answer, Sent::PubAck(packet_id), "in order, on the new connection");
    }
    assert_eq!(seen, unacknowledged.map(f64::from).collect::<Vec<_>>(), "each once");
    source.nothing_is_appended().await;
    source.stop.cancel();
    assert_eq!(broker.next().await, Sent::Disconnect);
    source.polling.await.unwrap();
}

/// Two agents under one client id throw each other out for ever, and with each connection the broker sends all that is unacknowledged.
#[tokio::test]
async fn connections_that_do_not_last_come_ever_more_slowly() {
    let (mut source, clock) = (source(&[], 1 << 20, SOON).await, Clock::new());
    drop(source.accept(true).await);
    let begun = clock.monotonic();
    for _ in 0..4 {
        drop(source.accept(true).await);
    }
    // Half of 0.2, 0.4, 0.8 and 1.6 s at least.
    assert!(clock.monotonic() - begun >= Duration::from_millis(1_500), "{:?}", clock.monotonic() - begun);
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn publish(&mut self, packet_id: u16, dup: bool, value: f64) {
        let mut body = vec![0, TOPIC.len() as u8];
        body.extend(TOPIC.as_bytes());
        body.extend(packet_id.to_be_bytes());
        body.push(0);
        body.extend(payload(value));
        let mut packet = vec![0x32 | u8::from(dup) << 3, body.len() as u8];
        packet.extend(body);
        self.send(&packet).await;
    }

    /// The next packet of the source, `Closed` if the connection ends without one.
    async fn next(&mut self) -> Sent {
        loop {
            let sent = tokio::time::timeout(SOON, self.read()).await.expect("the source says nothing").unwrap_or(Sent::Closed);
            // On a slow machine the keep-alive comes in between.
            if sent != Sent::Ping {
                return sent;
            }
        }
    }

    async fn nothing_comes(&mut self) {
        assert!(tokio::time::timeout(A_WHILE, self.read()).await.is_err(), "an acknowledgement before its time");
    }

    async fn read(&mut self) -> std::io::Result<Sent> {
        let head = self.0.read_u8().await?;
        let length = self.0.read_u8().await?;
        assert!(length < 0x80, "no packet of the source is that long");
        let mut body = vec![0; length.into()];
        self.0.read_exact(&mut body).await?;
        let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        Ok(match head >> 4 {
            1 => {
                // Protocol name (6 bytes), version, flags, keep alive, then the properties; 0x11 is the session's expiry, which the client writes first.
                let expiry = (body[11] == 0x11).then(|| u32::from_be_bytes([body[12], body[13], body[14], body[15]]));
                Sent::Connect { clean_start: body[7] & 2 != 0, session_expiry_s: expiry }
            }
            4 => Sent::PubAck(id(0)),
            8 => Sent::Subscribe { packet_id: id(0) },
            12 => Sent::Ping,
            14 => Sent::Disconnect,
            other => panic!("packet type {other}"),
        })
    }
}
