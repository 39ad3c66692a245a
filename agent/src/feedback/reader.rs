//! `hark feedback-reader`: the process that reads the topic and says what it finds, line by line. The agent starts it; it may crash.
//!
//! It is told what to read on its standard input and ends when that ends, thus with the agent, however that comes to its end.
use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use super::{
    VALUE_MAX_BYTES,
    message::{Line, Order},
    place::Place,
};
use crate::{
    audit::kafka::{KafkaFailure, Reader, Record, Source},
    causes,
    clock::Clock,
    forward::kafka::cursor_group,
};

/// Longest order: brokers, names and offsets.
const ORDER_MAX_BYTES: u64 = 1 << 20;
/// Fetched ahead of what the agent has taken.
const AHEAD_KBYTES: u32 = 1_024;
/// What is new comes at once all the same; a link that costs by volume bears some hundred bytes so often.
const WAITS: Duration = Duration::from_secs(30);

/// Reads until the input or the output ends.
pub fn main() -> ExitCode {
    // Told apart from the agent in lists of processes.
    let _unnamed = std::fs::write("/proc/self/comm", "hark-feedback");
    let order = match order(io::stdin().lock()) {
        Ok(order) => order,
        Err(error) => return fail(&format!("no order was given: {error}; the agent starts this by itself")),
    };
    #[expect(clippy::disallowed_methods, reason = "it ends the process, so nobody needs to join it")]
    let watching = thread::Builder::new().name("agent".to_owned()).spawn(|| {
        // There is nothing more to hear but the end, at which whatever the client is waiting for does not matter.
        let _ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    if let Err(error) = watching {
        return fail(&format!("the system gives no thread: {error}"));
    }
    match follow(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&causes::chain(&failure)),
    }
}

fn order(input: impl BufRead) -> io::Result<Order> {
    let mut line = Vec::new();
    input.take(ORDER_MAX_BYTES).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

fn fail(problem: &str) -> ExitCode {
    say(&Line::Problem { problem: problem.to_owned() });
    // Not by way of `main`: a client that is closed in order may wait for brokers.
    std::process::exit(1)
}

fn follow(order: &Order) -> Result<(), KafkaFailure> {
    let (client, group) = (format!("hark-feedback.{}", order.gateway), cursor_group(&order.gateway));
    let reader = Reader { brokers: &order.brokers, client: &client, group: &group, ahead_kbytes: AHEAD_KBYTES, waits: WAITS };
    let source = Source::open(reader, Clock::new())?;
    let mut partitions = source.partitions(&order.topic)?;
    let place: Place = order.place.found(source.cluster(), &mut partitions);
    if !say(&Line::Began { place }) {
        return Ok(());
    }
    source.follow(&order.topic, &partitions, |record| !say(&record.map_or(Line::End, |(partition, record)| line(partition, &record))))
}

fn line(partition: i32, record: &Record<'_>) -> Line {
    let value = record.value().unwrap_or_default();
    Line::Record { partition, offset: record.offset(), value: text(value), bytes: value.len() as u64 }
}

/// The value, if it is text of a sensible length.
fn text(value: &[u8]) -> Option<String> {
    if value.len() > VALUE_MAX_BYTES { None } else { String::from_utf8(value.to_vec()).ok() }
}

/// False if nobody listens.
fn say(line: &Line) -> bool {
    let mut bytes = serde_json::to_vec(line).expect("plain data into growing memory cannot fail");
    bytes.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&bytes).and_then(|()| output.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_line() {
        let given = Order { brokers: "k:9092".into(), gateway: "gw".into(), topic: "t".into(), place: Place::default() };
        let mut bytes = serde_json::to_vec(&given).unwrap();
        bytes.extend_from_slice(b"\nmore");
        assert_eq!(order(&*bytes).unwrap(), given);
        assert!(order(&b"{}"[..]).is_err() && order(&b""[..]).is_err());
    }

    #[test]
    fn a_value_is_text_of_a_sensible_length() {
        assert_eq!(text(b"{}").as_deref(), Some("{}"));
        assert_eq!((text(&[0xff]), text(&vec![b'x'; VALUE_MAX_BYTES + 1])), (None, None));
        assert!(text(&vec![b'x'; VALUE_MAX_BYTES]).is_some());
    }

    #[test]
    fn each_line_is_understood() {
        let mut partitions = [crate::audit::kafka::Partition { number: 3, low: 5, high: 9, next: 5 }];
        let place = Place::default().found(Some("cluster".into()), &mut partitions);
        let record = Line::Record { partition: 3, offset: 5, value: text(b"{}\n"), bytes: 3 };
        for line in [Line::Began { place }, record, Line::End, Line::Problem { problem: "none".into() }] {
            let bytes = serde_json::to_vec(&line).unwrap();
            assert_eq!(serde_json::from_slice::<Line>(&bytes).unwrap(), line);
            assert!(!bytes.contains(&b'\n'));
        }
    }

    #[test]
    fn the_longest_line_is_taken() {
        let record = Line::Record { partition: i32::MAX, offset: i64::MAX, value: text(&vec![1; VALUE_MAX_BYTES]), bytes: u64::MAX };
        assert!(serde_json::to_vec(&record).unwrap().len() <= super::super::LINE_MAX_BYTES);
    }
}
