//! Recorded CSV files, played again in real or shorter time: to a serial port line by line, or to MQTT.
//!
//! Numbers are passed on as the text that stands in the file, so nothing is rounded on the way. Times are used for the pace, and passed on as
//! they are or as RFC 3339.
mod pace;
mod recording;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use pace::{NotPositive, Pace, Positive};
pub use recording::{Recording, RecordingError, Row};
use tokio::time::{Instant, sleep_until};

use crate::mqtt::{Broker, Publisher};
use crate::serial::Pty;
use crate::stop::Stop;

/// How often the unread rest of a serial replay is looked at, and for how many looks in a row there must be none.
const DRAIN_TURN: Duration = Duration::from_millis(10);
const DRAIN_QUIET_TURNS: u32 = 50;

/// How a row's time is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeText {
    /// As it stands in the file.
    Given,
    /// As RFC 3339 in UTC; a time without zone counts as UTC, a number by its magnitude as s, ms, us or ns since 1970.
    Rfc3339,
}

/// What to replay and how fast.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// CSV file with a header; comma, semicolon or tab.
    pub file: PathBuf,
    /// Column of the time; `None` takes the first of `ts`, `time`, `timestamp`, `datetime` in any case, if there is one.
    pub time_column: Option<String>,
    /// How it is passed on.
    pub time: TimeText,
    /// How fast.
    pub pace: Pace,
}

impl ReplayConfig {
    /// A file as fast as possible, times as given.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), time_column: None, time: TimeText::Given, pace: Pace::Fastest }
    }
}

/// Shape of a replay's MQTT messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"value":…,"ts":…}`, one message per cell; `{point}` in the topic is the column.
    Scalars,
    /// `{"ts":…,"values":{…}}`, one message per row.
    Batch,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Rows sent.
    pub rows: u64,
    /// Lines or messages sent.
    pub messages: u64,
    /// Empty cells, which are left out.
    pub empty: u64,
    /// Messages acknowledged by the broker.
    pub acknowledged: u64,
    /// Messages refused by it.
    pub refused: u64,
    /// Whether it was asked to stop before its end.
    pub stopped: bool,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be used.
    #[error("failed to read the recording")]
    Recording(#[from] RecordingError),
    /// The port, or the runtime.
    #[error("failed to replay")]
    Io(#[from] io::Error),
}

/// Plays a file to a pseudo terminal named `link`, after an empty line header first, and returns when a reader has taken everything or `stop` is asked.
pub fn replay_to_pty(config: &ReplayConfig, link: &std::path::Path, stop: Stop) -> Result<ReplayReport, ReplayError> {
    let recording = Recording::open(config)?;
    runtime()?.block_on(to_pty(config, recording, link, stop))
}

/// Plays a file to MQTT with QoS 1 and returns when the broker has acknowledged everything or `stop` is asked.
/// Waits for a broker that is away. `{point}` in `topic` is the column; a batch has none.
pub fn replay_to_mqtt(config: &ReplayConfig, broker: Broker, topic: &str, shape: &Shape, stop: Stop) -> Result<ReplayReport, ReplayError> {
    let recording = Recording::open(config)?;
    runtime()?.block_on(to_mqtt(config, recording, broker, topic, shape, stop))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn to_pty(config: &ReplayConfig, mut recording: Recording, link: &std::path::Path, mut stop: Stop) -> Result<ReplayReport, ReplayError> {
    let pty = Pty::open(link)?;
    let mut report = ReplayReport::default();
    let mut turns = Turns::new(config.pace);
    let played = async {
        // A reader that opens the port in the middle of a line passes over the rest of it; this is the rest, and nothing is lost.
        write_all(&pty, b"\n").await?;
        write_all(&pty, recording.header_line().as_bytes()).await?;
        while let Some(row) = recording.next_row()? {
            turns.wait(row.time_s).await;
            write_all(&pty, recording.line(&row).as_bytes()).await?;
            report.rows += 1;
            report.messages += 1;
        }
        Ok::<_, ReplayError>(drain(&pty).await?)
    };
    let stopped = tokio::select! {
        result = played => { result?; false }
        () = stop.asked() => true,
    };
    Ok(ReplayReport { stopped, ..report })
}

/// Waits until a reader has taken everything: what is left is lost when the near end closes. One look is not enough, because the kernel
/// moves bytes from its first buffer to the one that counts as unread on a worker of its own.
async fn drain(pty: &Pty) -> io::Result<()> {
    let mut quiet_turns = 0;
    while quiet_turns < DRAIN_QUIET_TURNS {
        tokio::time::sleep(DRAIN_TURN).await;
        quiet_turns = if pty.unread()? == 0 { quiet_turns + 1 } else { 0 };
    }
    Ok(())
}

async fn write_all(pty: &Pty, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = pty.write(bytes).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

async fn to_mqtt(
    config: &ReplayConfig,
    mut recording: Recording,
    broker: Broker,
    topic: &str,
    shape: &Shape,
    mut stop: Stop,
) -> Result<ReplayReport, ReplayError> {
    let mut publisher = Publisher::new(broker);
    let mut report = ReplayReport::default();
    let mut turns = Turns::new(config.pace);
    let played = async {
        while let Some(row) = recording.next_row()? {
            turns.wait(row.time_s).await;
            report.empty += recording.empty(&row);
            match shape {
                Shape::Scalars => {
                    for (point, payload) in recording.scalars(&row) {
                        publisher.publish(topic.replace("{point}", &point), payload).await;
                    }
                }
                Shape::Batch => publisher.publish(topic.to_owned(), recording.batch(&row)).await,
            }
            report.rows += 1;
        }
        publisher.flush().await;
        Ok::<_, ReplayError>(())
    };
    let stopped = tokio::select! {
        result = played => { result?; false }
        () = stop.asked() => true,
    };
    let done = publisher.stats();
    publisher.close().await;
    Ok(ReplayReport { stopped, messages: done.sent, acknowledged: done.acknowledged, refused: done.refused, ..report })
}

/// Lets each row wait for its turn.
#[derive(Debug)]
struct Turns {
    pace: Pace,
    before_s: Option<f64>,
    due: Instant,
}

impl Turns {
    fn new(pace: Pace) -> Self {
        Self { pace, before_s: None, due: Instant::now() }
    }

    /// May be cancelled, however long it takes.
    async fn wait(&mut self, time_s: Option<f64>) {
        let pause = self.pace.pause(self.before_s, time_s);
        self.before_s = time_s.or(self.before_s);
        if pause > Duration::ZERO {
            self.due += pause;
            sleep_until(self.due).await;
        }
    }
}
