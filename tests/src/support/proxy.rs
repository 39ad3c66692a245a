//! A network between two programs that can fail on command: a TCP proxy on loopback.
//!
//! It stands in front of a broker. What a fault holds back is not lost: it waits in the proxy (one chunk per direction and connection) and in the
//! sockets' own buffers, and goes on when the fault is healed, as TCP does after a partition. Only [`Proxy::cut`] and [`Fault::Refuse`] end connections.
#![expect(clippy::disallowed_methods, reason = "no pipeline in the tests: one thread accepts, two per connection carry; all end with the proxy")]
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{free_port, wait_for};

/// One read of one direction.
const CHUNK_BYTES: usize = 64 << 10;
/// More than any scenario opens; what comes beyond is closed at once.
const CONNECTIONS_MAX: usize = 256;
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// A peer that takes nothing for so long loses its connection, so that no thread waits for ever.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// What is wrong with the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Nobody listens; open connections end.
    Refuse,
    /// New connections are accepted, nothing is carried in either direction.
    Silent,
    /// What clients say does not arrive; what the broker says does.
    Deaf,
    /// What the broker says does not arrive: requests are obeyed and never answered.
    Mute,
    /// Every chunk arrives so much later.
    Delay(Duration),
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// The proxy. Dropping it ends all connections and threads.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    closed: bool,
    next_id: u64,
    /// Both sockets of each connection, to end it from outside.
    connections: BTreeMap<u64, [TcpStream; 2]>,
    /// Connections accepted so far.
    accepted: u64,
}

impl Proxy {
    /// A proxy on a free port, in front of `upstream` on loopback, which need not run yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(upstream: u16) -> Result<Self> {
        let port = free_port()?;
        let listener = listen(port)?;
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, upstream));
        let shared = Arc::new(Shared { port, upstream, state: Mutex::default(), changed: Condvar::new() });
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || accept(&shared, listener)
        });
        Ok(Self { shared, accepting: Some(accepting) })
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// The port of the program behind it.
    pub fn upstream(&self) -> u16 {
        self.shared.upstream.port()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// From now on `fault`; [`Fault::None`] heals.
    pub fn set(&self, fault: Fault) {
        {
            let mut state = self.shared.state();
            state.fault = fault;
            if fault == Fault::Refuse {
                state.cut();
            }
        }
        self.shared.changed.notify_all();
        self.shared.wake_accept();
    }

    /// Ends all open connections, now; new ones are carried.
    pub fn cut(&self) {
        self.shared.state().cut();
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.closed = true;
            state.cut();
        }
        self.shared.changed.notify_all();
        self.shared.wake_accept();
        // The carrying threads end by themselves: their sockets are shut.
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl State {
    fn cut(&mut self) {
        for socket in std::mem::take(&mut self.connections).into_values().flatten() {
            // A peer that has gone already refuses.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn holds(&self, direction: Direction) -> bool {
        match self.fault {
            Fault::Silent => true,
            Fault::Deaf => direction == Direction::Up,
            Fault::Mute => direction == Direction::Down,
            Fault::None | Fault::Refuse | Fault::Delay(_) => false,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `accept` blocks; a connection of our own makes it look at the state again. Where nobody listens it waits on the condition instead.
    fn wake_accept(&self) {
        drop(TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)), CONNECTS_WITHIN));
    }

    /// Waits until this direction of connection `id` may carry a chunk; false if the connection has ended.
    fn may_carry(&self, id: u64, direction: Direction) -> bool {
        let mut state = self.state();
        let open = |state: &State| !state.closed && state.connections.contains_key(&id);
        if let Fault::Delay(delay) = state.fault {
            let delayed = self.changed.wait_timeout_while(state, delay, |state| open(state) && matches!(state.fault, Fault::Delay(_)));
            state = delayed.unwrap_or_else(PoisonError::into_inner).0;
        }
        let state = self.changed.wait_while(state, |state| open(state) && state.holds(direction)).unwrap_or_else(PoisonError::into_inner);
        open(&state)
    }

    fn end(&self, id: u64) {
        for socket in self.state().connections.remove(&id).into_iter().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }
}

/// A port that was closed a moment ago may be held yet, by a child process that another thread has forked and that has not begun its program.
fn listen(port: u16) -> Result<TcpListener> {
    wait_for("a port to be let go", CONNECTS_WITHIN, || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()))
        .with_context(|| format!("failed to listen on port {port}"))
}

/// Accepts until the proxy is closed; while connections are refused the port has no listener.
fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    let mut listener = Some(listener);
    loop {
        let refused = {
            let state = shared.state();
            if state.closed {
                return;
            }
            state.fault == Fault::Refuse
        };
        if refused {
            listener = None;
            let state = shared.changed.wait_while(shared.state(), |state| !state.closed && state.fault == Fault::Refuse);
            drop(state);
            continue;
        }
        // Only a stranger that took the port meanwhile stands in the way; the scenario then fails for want of a connection.
        let Some(open) = listener.take().or_else(|| listen(shared.port).ok()) else { return };
        if let Ok((client, _)) = open.accept() {
            carry(shared, client);
        }
        listener = Some(open);
    }
}

/// Connects a client with the program behind the proxy. A client whose other side does not answer loses its connection.
fn carry(shared: &Arc<Shared>, client: TcpStream) {
    {
        let state = shared.state();
        if state.closed || state.fault == Fault::Refuse || state.connections.len() >= CONNECTIONS_MAX {
            return;
        }
    }
    let Ok(server) = TcpStream::connect_timeout(&shared.upstream, CONNECTS_WITHIN) else { return };
    let Ok([for_client, for_server]) = sockets(&client, &server) else { return };
    let id = {
        let mut state = shared.state();
        state.next_id += 1;
        state.accepted += 1;
        let id = state.next_id;
        state.connections.insert(id, [for_client, for_server]);
        id
    };
    let Ok([from_client, from_server]) = sockets(&client, &server) else { return shared.end(id) };
    for (direction, from, to) in [(Direction::Up, from_client, server), (Direction::Down, from_server, client)] {
        let shared = shared.clone();
        thread::spawn(move || pump(&shared, id, direction, from, to));
    }
}

/// Second handles of both sockets, with the settings that both share.
fn sockets(client: &TcpStream, server: &TcpStream) -> std::io::Result<[TcpStream; 2]> {
    for socket in [client, server] {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(TAKEN_WITHIN))?;
    }
    Ok([client.try_clone()?, server.try_clone()?])
}

/// Carries one direction until either side ends; then the other direction ends too.
fn pump(shared: &Shared, id: u64, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut chunk) {
        if !shared.may_carry(id, direction) || to.write_all(&chunk[..bytes]).is_err() {
            break;
        }
    }
    shared.end(id);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    /// A program that says everything back, and a proxy before it.
    fn echo() -> Proxy {
        let listener = listen(free_port().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream));
            }
        });
        Proxy::start(port).unwrap()
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap()
    }

    fn says_back(stream: &mut TcpStream, within: Duration) -> bool {
        stream.set_read_timeout(Some(within)).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
    }

    #[test]
    fn what_is_held_back_arrives_after_healing() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        for fault in [Fault::Silent, Fault::Deaf, Fault::Mute] {
            proxy.set(fault);
            stream.write_all(b"ping").unwrap();
            assert!(!says_back(&mut stream, SHORT), "{fault:?}");
            proxy.set(Fault::None);
            assert!(says_back(&mut stream, LONG), "{fault:?}");
        }
    }

    #[test]
    fn a_delay_delays_and_a_silent_network_accepts() {
        let proxy = echo();
        proxy.set(Fault::Delay(SHORT));
        let mut stream = connect(&proxy);
        let began = Instant::now();
        stream.write_all(b"ping").unwrap();
        assert!(says_back(&mut stream, LONG) && began.elapsed() >= 2 * SHORT);
        proxy.set(Fault::Silent);
        let mut second = connect(&proxy);
        second.write_all(b"ping").unwrap();
        assert!(!says_back(&mut second, SHORT));
        proxy.set(Fault::None);
        assert!(says_back(&mut second, LONG));
    }

    #[test]
    fn cutting_ends_connections_and_refusing_keeps_new_ones_out() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        stream.write_all(b"ping").unwrap();
        assert!(says_back(&mut stream, LONG));
        proxy.cut();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        let mut stream = connect(&proxy);
        stream.write_all(b"ping").unwrap();
        assert!(says_back(&mut stream, LONG));

        proxy.set(Fault::Refuse);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.port()));
        crate::support::wait_until("connections to be refused", LONG, || TcpStream::connect_timeout(&address, SHORT).is_err()).unwrap();
        proxy.set(Fault::None);
        crate::support::wait_until("connections to be accepted", LONG, || TcpStream::connect_timeout(&address, SHORT).is_ok()).unwrap();
        let mut stream = connect(&proxy);
        stream.write_all(b"ping").unwrap();
        assert!(says_back(&mut stream, LONG));
    }

    #[test]
    fn dropping_it_frees_the_port() {
        let proxy = echo();
        let (port, mut stream) = (proxy.port(), connect(&proxy));
        stream.write_all(b"ping").unwrap();
        drop(proxy);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        listen(port).unwrap();
    }
}
