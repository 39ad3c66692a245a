//! Free ports for programs that must know theirs before they start and keep it across restarts.
use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, bail};

/// Below the range from which Linux takes the ports of outgoing connections. A client that keeps trying a closed port inside that range
/// sooner or later connects to itself, and then the restarted broker finds its port taken.
const FIRST: u32 = 12_000;
const COUNT: u32 = 18_000;

/// A TCP port of loopback that nobody listens on. Each call in a process gives another one; processes begin at different places.
///
/// # Errors
/// When the whole range is in use.
pub fn free_port() -> Result<u16> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // A prime stride, so that test programs with neighbouring pids do not try the same ports at the same moment.
    let start = std::process::id().wrapping_mul(7_919) % COUNT;
    for _ in 0..COUNT {
        let offset = (start + CALLS.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("12 000 + 18 000 fits 16 bits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free TCP port from {FIRST} to {}", FIRST + COUNT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports = [free_port().expect("some port is free"), free_port().expect("some port is free")];
        assert_ne!(ports[0], ports[1]);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("nobody else took it");
        }
    }
}
