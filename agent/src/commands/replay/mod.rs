//! `hark replay`: a recorded file through the same log, inference and alarms as live readings, as fast as the machine allows.
//!
//! ```text
//! table, messages ─► rows ─► journal (a log of its own) ─► inference ─► line
//! ```
//! One line of JSON per row or message of the file, in order, with what the agent would have known after it.
mod journal;
mod json_lines;
mod line;
mod missing;
mod rows;
pub(super) mod table;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::ArgGroup;
use hark_protocol::topics::{AlarmState, EventKind, LaneName, Name, Priority, ScoreReason, Timestamp};

use self::{
    journal::Journal,
    json_lines::{JsonLines, LineError},
    line::Line,
    missing::Missing,
    rows::Rows,
    table::{Format, Table, TableError},
};
use super::{ConfigArgs, EXIT_CONFIG, EXIT_INTERRUPTED, stop_on_signal};
use crate::{
    buffer::{BufferError, Position},
    config::{self, Asset, Config},
    inference::{
        AssetView, Bundles, Engine, EngineCounters, InferenceError,
        assignment::{Accepted, assign},
        verification,
    },
    record::{Body, Entry},
    stop::Stop,
};

/// Rows that are appended to the log at a time.
const BATCH_ROWS: usize = 2_048;
/// Rows between two progress reports.
const PROGRESS_ROWS: u64 = 100_000;
/// Rows that a period numbers start here (2000-01-01): any earlier time counts as a clock that was never set.
const PERIOD_START: Timestamp = Timestamp(946_684_800_000_000);

/// Arguments of `hark replay`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group(ArgGroup::new("commissioning").args(["commission", "commission_rows"])),
    after_help = "\
A table needs a header. Columns are matched with the asset's points by `column` or id; others are ignored. The time is taken from a column named \
ts, time, timestamp or datetime (ISO 8601, without a zone UTC, or a number since 1970 in s, ms, us or ns), or from --period. \
A cell that is empty or no number is a bad value, never zero.

A file whose first character is a brace holds JSON lines, each a message as on MQTT, answered by a line of what is known after it. A row ends once all \
scored points have a value in it, or a later one begins, and is in the answers from then on. A message is {\"ts\", \"point\", \"value\"}, or {\"ts\", \"values\": {POINT: VALUE, …}}, or a block of a configured waveform \
{\"t0\", \"point\", \"fs\", \"unit\", \"scale\", \"samples\": […]}, which becomes features as it would on the gateway; \"quality\" and \"seq\" may stand beside.

  hark replay --config /etc/hark --asset pump-2 --input june.csv --commission may.csv > june.jsonl

While it runs it keeps a few MiB in the directory for temporary files (TMPDIR).

Exit codes: 0 done, 1 the file or the model failed, 2 the arguments or the configuration have faults, 130 interrupted."
)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Asset whose points the columns are
    #[arg(long, value_name = "ID")]
    pub asset: String,
    /// Recorded file: separated values with a header, or JSON lines
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Rows are so many seconds apart, where no column tells the time
    #[arg(long, value_name = "SECONDS", value_parser = parse_period)]
    pub period: Option<i64>,
    /// Commission on this file first, all of it, without output
    #[arg(long, value_name = "FILE")]
    pub commission: Option<PathBuf>,
    /// Commission on the first N rows of the input instead of the number configured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub commission_rows: Option<u32>,
    /// Separator, one character or `tab`; found out if not given
    #[arg(long, value_name = "C", value_parser = parse_separator)]
    pub separator: Option<u8>,
    /// Decimal sign, `,` or `.`; found out if not given
    #[arg(long, value_name = "SIGN", value_parser = parse_decimal)]
    pub decimal: Option<DecimalComma>,
}

/// Whether the decimal sign is a comma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecimalComma(pub bool);

fn parse_period(text: &str) -> Result<i64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds such as 1 or 0.5".to_owned())?;
    let us = (seconds * 1e6).round();
    if (1.0..1e15).contains(&us) { Ok(us as i64) } else { Err("expected seconds above 0".to_owned()) }
}

fn parse_separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && *byte != b'"' => Ok(*byte),
        _ => Err("expected one character such as ; or tab".to_owned()),
    }
}

fn parse_decimal(text: &str) -> Result<DecimalComma, String> {
    match text {
        "," => Ok(DecimalComma(true)),
        "." => Ok(DecimalComma(false)),
        _ => Err("expected , or .".to_owned()),
    }
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No such asset.
    #[error("asset `{asked}` is not configured; configured are: {known}")]
    UnknownAsset {
        /// Asked for.
        asked: String,
        /// Those there are.
        known: String,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A file of JSON lines cannot be used.
    #[error(transparent)]
    Lines(#[from] LineError),
    /// Scored points that no column carries.
    #[error("`{path}`, line 1: no column for the scored points {missing}; columns are: {columns}. Give the point its `column` in the asset's file")]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Points without a column.
        missing: String,
        /// Columns there are.
        columns: String,
    },
    /// The model cannot be used.
    #[error("cannot start inference")]
    Inference(#[from] InferenceError),
    /// The commissioning file did not give a baseline.
    #[error("`{path}` cannot commission the asset: {why}")]
    Commissioning {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No place for the log.
    #[error("cannot make a temporary directory; TMPDIR names another place")]
    Directory(#[source] io::Error),
    /// The log failed.
    #[error("cannot use the log in the temporary directory; TMPDIR names another place")]
    Log(#[from] BufferError),
    /// Output cannot be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    /// A signal asked for the end.
    #[error("interrupted; the output ends with the last whole line")]
    Interrupted,
}

impl ReplayError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownAsset { .. } => EXIT_CONFIG,
            Self::Interrupted => EXIT_INTERRUPTED,
            _ => 1,
        }
    }
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the input.
    pub rows: u64,
    /// Lines with a score.
    pub scored: u64,
    /// Lines with the score over its limit.
    pub above: u64,
    /// Alarms raised, of priority low and above.
    pub alarms: u64,
    /// Advice given: the score was over its limit for long enough.
    pub advices: u64,
    /// Readings of the input without a usable value.
    pub bad: u64,
    /// Readings of the input older than the row before them.
    pub late: u64,
    /// Values that no point took, by cause, such as `unknown_point`.
    pub left_out: Vec<(&'static str, u64)>,
    /// How commissioning ended with a baseline, of each regime, with its remarks.
    pub commissioned: Vec<String>,
    /// Why no line has a score; `None` where one has.
    pub unscored: Option<String>,
    /// The reader of the output went away before the end.
    pub output_closed: bool,
}

/// Replays, prints to standard output, reports to standard error.
pub fn main(args: &ReplayArgs) -> ExitCode {
    let config = match config::load(&args.config.config) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let stop = Arc::new(Stop::default());
    let _signals = stop_on_signal(stop.clone());
    match run(args, &config, &stop, &mut BufWriter::new(io::stdout().lock()), &mut io::stderr()) {
        Ok(summary) if summary.output_closed => ExitCode::SUCCESS,
        Ok(Summary { rows, scored, above, alarms, advices, bad, late, left_out, commissioned, unscored, .. }) => {
            commissioned.iter().for_each(|how| eprintln!("{how}"));
            eprintln!("{rows} rows, {scored} scored, {above} over the limit; alarms {alarms}, advice {advices}; {bad} bad and {late} late readings");
            left_out.iter().for_each(|(cause, count)| eprintln!("left out: {count} values ({cause})"));
            if let Some(why) = unscored {
                eprintln!("no row has a score: {why}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = error.exit_code();
            eprintln!("{:#}", anyhow::Error::from(error));
            ExitCode::from(code)
        }
    }
}

/// Replays `args.input` and writes one line of JSON per row to `out`. Progress goes to `diagnostics` where standard error is a terminal.
/// A reader of `out` that goes away ends it without an error; a request to stop with one, after whole lines.
pub fn run(args: &ReplayArgs, config: &Config, stop: &Stop, out: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<Summary, ReplayError> {
    let known = || config.assets.keys().map(|id| &**id).collect::<Vec<_>>().join(", ");
    let asset = config.assets.get(args.asset.as_str()).ok_or_else(|| ReplayError::UnknownAsset { asked: args.asset.clone(), known: known() })?;
    let mut asset = asset.clone();
    let needed = args.commission_rows.map_or(asset.commissioning.rows, |rows| rows as usize);
    if args.commission.is_some() || args.commission_rows.is_some() {
        // Commissioning ends by being accepted, at the end of its file or after the rows asked for.
        asset.commissioning = config::Commissioning { rows: config::ROWS_UNTIL_ACCEPTED, starts: 0, ..asset.commissioning };
    }
    let asset = with_model(asset, config, diagnostics);
    let format = Format { separator: args.separator, decimal_comma: args.decimal.map(|decimal| decimal.0), period_us: args.period };
    let mut replay = Replay::new(asset, &config.models)?;
    let mut first_ts = PERIOD_START;
    if let Some(path) = &args.commission {
        first_ts = replay.commission(path, format, stop)?;
    }

    let mut input = replay.open(&args.input, format, first_ts)?;
    let before = replay.engine.counters();
    let (mut summary, mut missing) = (Summary::default(), Missing::default());
    let progress = io::stderr().is_terminal();
    let played = replay.play(&mut input, args.commission_rows, stop, |ts, view| {
        summary.rows += 1;
        missing.take(view);
        summary.scored += u64::from(view.score.is_some());
        summary.above += u64::from(view.above);
        if progress && summary.rows % PROGRESS_ROWS == 0 {
            // Progress that cannot be shown is no reason to stop.
            let _ = write!(diagnostics, "\r{} rows", summary.rows);
        }
        Line::new(summary.rows, ts, view).write(out).map_err(ReplayError::Write)
    });
    match played.and_then(|()| out.flush().map_err(ReplayError::Write)) {
        Err(ReplayError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => summary.output_closed = true,
        ended => ended?,
    }
    if progress && summary.rows >= PROGRESS_ROWS {
        let _ = writeln!(diagnostics);
    }
    let counters = replay.engine.counters();
    (summary.alarms, summary.advices) = (replay.alarms, replay.advices);
    (summary.bad, summary.late) = (counters.bad - before.bad, counters.late - before.late);
    summary.left_out = replay.rows.left_out();
    summary.commissioned = std::mem::take(&mut replay.commissioned);
    summary.unscored = (summary.scored == 0).then(|| replay.unscored(&before, &missing, summary.rows, needed));
    Ok(summary)
}

/// The machine with its forecasting bundle, if its file names one that can be used.
fn with_model(asset: Asset, config: &Config, diagnostics: &mut dyn Write) -> Asset {
    let mut assets = BTreeMap::from([(asset.id.clone(), asset)]);
    let assigned = assign(&mut assets, &Bundles::offered_in(&config.models), &Accepted::new(), verification::in_child);
    for (_, reason) in assigned.refused {
        // A replay whose remarks nobody reads is none the worse for it.
        let _ = writeln!(diagnostics, "no remaining life is told: the model is refused: {reason}");
    }
    assets.pop_first().map(|(_, asset)| asset).expect("one went in")
}

/// A recorded file.
enum Input {
    Table(Table),
    Messages(JsonLines),
}

impl Input {
    /// Appends the entries of the next row or message, with the tick that ends it; gives its time, `None` at the end.
    fn next(&mut self, rows: &mut Rows, entries: &mut Vec<Entry>) -> Result<Option<Timestamp>, ReplayError> {
        match self {
            Self::Table(table) => Ok(table.next_row()?.map(|row| {
                rows.entries(&row, table, entries);
                row.ts
            })),
            Self::Messages(lines) => Ok(lines.next_message()?.map(|message| {
                let ts = message.ts;
                rows.message(message, entries);
                ts
            })),
        }
    }

    fn next_ts(&self) -> Timestamp {
        match self {
            Self::Table(table) => table.next_ts(),
            Self::Messages(lines) => lines.next_ts(),
        }
    }
}

/// The agent's path without ports and clock.
struct Replay {
    asset: Asset,
    rows: Rows,
    journal: Journal,
    engine: Engine,
    outputs: Vec<(LaneName, Entry)>,
    alarms: u64,
    advices: u64,
    /// What inference said of commissioning last.
    commissioning: Option<Name>,
    /// How it ended with baselines.
    commissioned: Vec<String>,
    /// Why it could not be accepted yet.
    too_few_rows: Option<Name>,
}

impl Replay {
    fn new(asset: Asset, models: &Path) -> Result<Self, ReplayError> {
        Ok(Self {
            engine: Engine::new(&BTreeMap::from([(asset.id.clone(), asset.clone())]), models)?,
            rows: Rows::new(asset.clone()),
            journal: Journal::open()?,
            asset,
            outputs: Vec::new(),
            alarms: 0,
            advices: 0,
            commissioning: None,
            commissioned: Vec::new(),
            too_few_rows: None,
        })
    }

    /// Opens a file and checks that every scored point has its column.
    fn open(&self, path: &Path, format: Format, first_ts: Timestamp) -> Result<Input, ReplayError> {
        if json_lines::is_json_lines(path)? {
            return Ok(Input::Messages(JsonLines::open(path, format.period_us, first_ts)?));
        }
        let table = Table::open(path, format, first_ts, |column| self.rows.measured(column))?;
        let missing = self.rows.missing(table.columns());
        if !missing.is_empty() {
            return Err(ReplayError::NoColumn { path: path.to_owned(), missing: missing.join(", "), columns: table.columns().join(", ") });
        }
        Ok(Input::Table(table))
    }

    /// Commissions on all of `path`; gives the time at which a file without times goes on.
    fn commission(&mut self, path: &Path, format: Format, stop: &Stop) -> Result<Timestamp, ReplayError> {
        let mut input = self.open(path, format, PERIOD_START)?;
        self.play(&mut input, None, stop, |_, _| Ok(()))?;
        self.journal.append(&[self.rows.accept(input.next_ts())])?;
        self.infer(&mut VecDeque::new(), &mut |_, _| Ok(()))?;
        if self.view().baseline_id.is_none() {
            let why = self.too_few_rows.as_deref().or(self.commissioning.as_deref()).unwrap_or("it has no usable row").to_owned();
            return Err(ReplayError::Commissioning { path: path.to_owned(), why });
        }
        // Another file, another time: its rows do not continue these.
        self.engine.restart_windows(Some(&self.asset.id));
        Ok(input.next_ts())
    }

    /// Plays `input` to its end; `seen` gets each row's time and what is known after it. Commissioning is accepted after `commission_rows` rows.
    fn play(
        &mut self,
        input: &mut Input,
        commission_rows: Option<u32>,
        stop: &Stop,
        mut seen: impl FnMut(Timestamp, &AssetView) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        let mut rows_left = commission_rows;
        let mut ended = None;
        while ended.is_none() {
            let (mut entries, mut times) = (Vec::new(), VecDeque::with_capacity(BATCH_ROWS));
            while ended.is_none() && times.len() < BATCH_ROWS {
                match input.next(&mut self.rows, &mut entries) {
                    Ok(Some(ts)) => {
                        times.push_back(ts);
                        rows_left = rows_left.map(|rows| rows.saturating_sub(1));
                        if rows_left == Some(0) {
                            entries.push(self.rows.accept(ts));
                            rows_left = None;
                        }
                    }
                    Ok(None) => ended = Some(Ok(())),
                    // The rows before it count.
                    Err(error) => ended = Some(Err(error)),
                }
            }
            self.journal.append(&entries)?;
            self.infer(&mut times, &mut seen)?;
            if stop.requested() {
                return Err(ReplayError::Interrupted);
            }
        }
        ended.unwrap_or(Ok(()))
    }

    /// Gives inference what the log holds. A tick ends a row, whose time is the next of `times`.
    fn infer(
        &mut self,
        times: &mut VecDeque<Timestamp>,
        seen: &mut impl FnMut(Timestamp, &AssetView) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        loop {
            let records = self.journal.read()?;
            if records.is_empty() {
                return Ok(());
            }
            for (position, entry) in &records {
                self.process(*position, entry);
                let row = if matches!(&entry.body, Body::Event(event) if event.kind == EventKind::Tick) { times.pop_front() } else { None };
                if let Some(ts) = row {
                    seen(ts, &self.view())?;
                }
            }
        }
    }

    fn process(&mut self, position: Position, entry: &Entry) {
        self.engine.process(position, "replay", entry, &mut self.outputs);
        for (_, output) in self.outputs.drain(..) {
            match output.body {
                Body::Alarm(alarm) if alarm.state == AlarmState::ActiveUnacknowledged => {
                    *if alarm.priority > Priority::Advice { &mut self.alarms } else { &mut self.advices } += 1;
                }
                Body::Event(event) if event.what.as_deref() == Some("too_few_rows") => self.too_few_rows = event.text,
                Body::Event(event) if event.kind == EventKind::Commissioning => {
                    let accepted = event.text.as_deref().filter(|_| event.what.as_deref() == Some("accepted"));
                    self.commissioned.extend(accepted.map(str::to_owned));
                    self.commissioning = event.text;
                }
                _ => {}
            }
        }
    }

    fn view(&self) -> AssetView {
        self.engine.view(&self.asset.id).expect("the engine was made for this asset")
    }

    /// Why the `rows` rows of the input gave no score, for people; `before` are the counters at its beginning, `needed` the rows that commissioning needs.
    fn unscored(&self, before: &EngineCounters, missing: &Missing, rows: u64, needed: usize) -> String {
        let (counters, view) = (self.engine.counters(), self.view());
        if rows == 0 {
            return "the file has no rows after its header".to_owned();
        }
        if (counters.late - before.late) * 2 > counters.readings - before.readings {
            return "most rows are older than the row before them; if the newest row stands first, sort the file".to_owned();
        }
        if missing.is_most_of(rows) {
            return missing.words();
        }
        match view.reason {
            Some(ScoreReason::Commissioning) if self.too_few_rows.is_some() => self.too_few_rows.as_deref().unwrap_or_default().to_owned(),
            Some(ScoreReason::Commissioning) => {
                let starts = match view.starts_missing {
                    0 => String::new(),
                    missing => format!(" and {missing} more start{}", if missing == 1 { "" } else { "s" }),
                };
                format!("commissioning needs {needed} complete rows{starts}, the file has {rows}; see --commission-rows and --commission")
            }
            Some(ScoreReason::CommissioningRefused) => self.commissioning.as_deref().unwrap_or("commissioning was refused").to_owned(),
            Some(ScoreReason::MissingPoint) => missing.words(),
            Some(ScoreReason::WindowFilling) => {
                format!(
                    "no run of rows fills the window; rows further apart than a few times the grid ({:?}) do not belong together",
                    self.asset.grid
                )
            }
            Some(ScoreReason::OperatingState) => {
                let operating = self.asset.operating.as_ref();
                let point = operating.map_or("", |operating| &*operating.point);
                format!("the machine is not running steadily by `{point}`: see `[operating]` in its file and `state` in the lines")
            }
            Some(ScoreReason::UnseenRegime) => "its regime was not seen by commissioning: see `regime` in the lines".to_owned(),
            Some(ScoreReason::ModelFailed | ScoreReason::InputGap | ScoreReason::Reduced) | None => "the model gave none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
