//! The agent's status pages, read over a plain socket.
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Asks `address` for `path` and reads until the server closes the connection.
///
/// # Errors
/// When nobody listens, the answer takes longer than five seconds or is no HTTP.
pub fn http_get(address: SocketAddr, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN).with_context(|| format!("failed to connect to {address}"))?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    // HTTP/1.0: the body ends with the connection and never comes in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("failed to send the request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("failed to read the answer")?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("{address}{path} gave no HTTP answer"))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    status_line.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some(Response { status: status_line.next()?.parse().ok()?, body: body.to_owned() })
}

/// A page of `/metrics` (OpenMetrics text): values by name with labels as written, `hark_records_total{lane="inputs"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads a page. Lines that are not samples are passed over.
    pub fn parse(page: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(page.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The value of exactly this series.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// The sum over all label values of `name`; `None` if there is no such series.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        self.0.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| *value).reduce(|a, b| a + b)
    }

    /// All series, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(series, value)| (series.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno");
        assert_eq!(answer, Some(Response { status: 503, body: "no".to_owned() }));
        for broken in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 many OK\r\n\r\n"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn metrics_are_found_by_series_and_summed_by_name() {
        let page = "# HELP hark_x records\n# TYPE hark_x counter\nhark_x_total{lane=\"a b\"} 2\nhark_x_total{lane=\"c\"} 3.5\nhark_y -1\n# EOF\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.get("hark_x_total{lane=\"a b\"}"), Some(2.0));
        assert_eq!(metrics.sum("hark_x_total"), Some(5.5));
        assert_eq!(metrics.sum("hark_x"), None);
        assert_eq!(metrics.get("hark_y"), Some(-1.0));
        assert_eq!(metrics.iter().count(), 3);
    }
}
