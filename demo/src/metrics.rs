//! The agent's `/metrics`, read over a plain socket.
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Far above any page of three machines.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// A page of OpenMetrics text: whole numbers by series as written, `hark_records_total{lane="inputs"}`.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Asks the agent on this port of loopback; `None` if it does not answer properly within a second.
    pub fn read(port: u16) -> Option<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN).ok()?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
        stream.set_write_timeout(Some(ANSWERS_WITHIN)).ok()?;
        // HTTP/1.0: the body ends with the connection and never comes in chunks.
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| Self::parse(body))
    }

    fn parse(page: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The value of exactly this series; 0 where it is absent.
    pub fn get(&self, series: &str) -> u64 {
        self.0.get(series).copied().unwrap_or(0)
    }

    /// The sum over all labels of `name`.
    pub fn sum(&self, name: &str) -> u64 {
        self.0.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_and_summed() {
        let page = Metrics::parse("# TYPE hark_x counter\nhark_x_total{lane=\"a\"} 2\nhark_x_total{lane=\"b\"} 3\nhark_y 7\n# EOF\n");
        assert_eq!((page.get("hark_x_total{lane=\"b\"}"), page.sum("hark_x_total"), page.sum("hark_x"), page.get("hark_y")), (3, 5, 0, 7));
    }
}
