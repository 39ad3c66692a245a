//! `hark replay`: a recorded file through the same cleaning, inference and alarms as live readings, as fast as the machine allows.
//!
//! One line of JSON per row of the file, in order, with what the agent would have known after that row.
use std::{
    collections::BTreeMap,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::ArgGroup;
use hark_protocol::topics::{
    Clock as ClockState, Event, EventKind, LaneName, Name, OperatingState, Origin, Phase, Quality, ScoreReason, Timestamp, TsSource,
};
use serde::Serialize;

use super::{
    ConfigArgs, EXIT_CONFIG,
    table::{Format, Table, TableError, TableRow},
};
use crate::{
    buffer::Position,
    clock::{Clock, Now},
    config::{self, Asset, Config},
    inference::{AssetView, Engine, InferenceError},
    record::{Body, Entry, Stamp},
    source::{
        counters::SourceCounters,
        decode::{
            Sample,
            lines::{TIME_COLUMNS, value},
        },
        registry::{Context, Intake, Registry},
    },
};

/// Rows between two progress reports.
const PROGRESS_ROWS: u64 = 100_000;
/// Rows that a period numbers start here (2000-01-01): any earlier time counts as a clock that was never set.
const PERIOD_START: Timestamp = Timestamp(946_684_800_000_000);

/// Arguments of `hark replay`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group(ArgGroup::new("commissioning").args(["commission", "commission_rows"])),
    after_help = "\
The file needs a header. Columns are matched with the asset's points by `column` or id; others are ignored. The time is taken from a column named
ts, time, timestamp or datetime (ISO 8601, without a zone UTC, or a number since 1970 in s, ms, us or ns), or from --period.
A cell that is empty or no number is a bad value, never zero.

  hark replay --config config --asset pump-1 --input june.csv --commission may.csv > june.jsonl

Exit codes: 0 done, 1 the file or the model failed, 2 the arguments or the configuration have faults."
)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Asset whose points the columns are
    #[arg(long, value_name = "ID")]
    pub asset: String,
    /// Recorded file: separated values with a header
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
    /// Output cannot be written.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the input.
    pub rows: u64,
    /// Lines with a score.
    pub scored: u64,
    /// Lines with the score over its limit.
    pub above: u64,
    /// Alarms raised.
    pub alarms: u64,
    /// Readings without a usable value.
    pub bad: u64,
    /// Readings older than the row before them.
    pub late: u64,
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
    match run(args, &config, &mut BufWriter::new(io::stdout().lock()), &mut io::stderr()) {
        Ok(summary) if summary.output_closed => ExitCode::SUCCESS,
        Ok(s) => {
            let Summary { rows, scored, above, alarms, bad, late, .. } = s;
            eprintln!("{rows} rows, {scored} scored, {above} over the limit, {alarms} alarms; {bad} bad and {late} late readings");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

/// Replays `args.input` and writes one line of JSON per row to `out`. Progress goes to `diagnostics` where standard error is a terminal.
/// A reader of `out` that goes away ends it without an error.
pub fn run(args: &ReplayArgs, config: &Config, out: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<Summary, ReplayError> {
    let known = || config.assets.keys().map(|id| &**id).collect::<Vec<_>>().join(", ");
    let asset = config.assets.get(args.asset.as_str()).ok_or_else(|| ReplayError::UnknownAsset { asked: args.asset.clone(), known: known() })?;
    let mut asset = asset.clone();
    set_commissioning(&mut asset, args);
    let format = Format { separator: args.separator, decimal_comma: args.decimal.map(|decimal| decimal.0), period_us: args.period };
    let mut replay = Replay::new(asset, &config.models)?;
    let mut first_ts = PERIOD_START;
    if let Some(path) = &args.commission {
        first_ts = replay.commission(path, format)?;
    }

    let mut table = replay.open(&args.input, format, first_ts)?;
    let mut summary = Summary::default();
    let progress = io::stderr().is_terminal();
    while let Some(row) = table.next_row()? {
        replay.feed(&row, &table);
        let view = replay.view();
        summary.rows += 1;
        summary.scored += u64::from(view.score.is_some());
        summary.above += u64::from(view.above);
        match write_line(out, &Line::new(summary.rows, row.ts, &view)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Summary { output_closed: true, ..summary }),
            written => written.map_err(ReplayError::Write)?,
        }
        if progress && summary.rows % PROGRESS_ROWS == 0 {
            // Progress that cannot be shown is no reason to stop.
            let _ = write!(diagnostics, "\r{} rows", summary.rows);
        }
    }
    match out.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => summary.output_closed = true,
        flushed => flushed.map_err(ReplayError::Write)?,
    }
    if progress && summary.rows >= PROGRESS_ROWS {
        let _ = writeln!(diagnostics);
    }
    let counters = replay.engine.counters();
    Ok(Summary { alarms: replay.alarms, bad: counters.bad, late: counters.late, ..summary })
}

/// A number of rows given by hand keeps the configured part held back; a file of its own is used to its end.
fn set_commissioning(asset: &mut Asset, args: &ReplayArgs) {
    let settings = &mut asset.commissioning;
    // More rows than any file has: it ends by being accepted at the end of the file.
    let rows = if args.commission.is_some() { Some(u32::MAX) } else { args.commission_rows };
    if let Some(rows) = rows {
        *settings = settings.scaled_to(rows as usize);
    }
}

fn write_line(out: &mut dyn Write, line: &Line<'_>) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// The live path without ports, log and clock.
struct Replay {
    asset: Asset,
    engine: Engine,
    intake: Intake,
    counters: SourceCounters,
    boot: Name,
    seq: u64,
    entries: Vec<Entry>,
    outputs: Vec<(LaneName, Entry)>,
    alarms: u64,
}

impl Replay {
    fn new(asset: Asset, models: &Path) -> Result<Self, InferenceError> {
        let assets = BTreeMap::from([(asset.id.clone(), asset.clone())]);
        Ok(Self {
            engine: Engine::new(&assets, models)?,
            intake: Intake::new(Arc::new(Registry::new(&assets, Origin::Replay))),
            // The clock in it dates connection times, of which a file has none.
            counters: SourceCounters::new("replay".into(), "none", Clock::new()),
            asset,
            boot: "replay".into(),
            seq: 0,
            entries: Vec::new(),
            outputs: Vec::new(),
            alarms: 0,
        })
    }

    /// Opens a file and checks that every scored point has its column.
    fn open(&self, path: &Path, format: Format, first_ts: Timestamp) -> Result<Table, ReplayError> {
        let table = Table::open(path, format, first_ts)?;
        let carried = |point: &config::Point| table.columns().iter().any(|column| is_column_of(point, column));
        let missing: Vec<&str> = self.asset.points.iter().filter(|point| point.scored && !carried(point)).map(|point| &*point.id).collect();
        if !missing.is_empty() {
            return Err(ReplayError::NoColumn { path: path.to_owned(), missing: missing.join(", "), columns: table.columns().join(", ") });
        }
        Ok(table)
    }

    /// Commissions on all of `path`; gives the time at which a file without times goes on.
    fn commission(&mut self, path: &Path, format: Format) -> Result<Timestamp, ReplayError> {
        let mut table = self.open(path, format, PERIOD_START)?;
        while let Some(row) = table.next_row()? {
            self.feed(&row, &table);
        }
        let accept = Event { command: Some("commissioning_accepted".into()), ..Event::new(EventKind::Command) };
        self.outputs.clear();
        self.process(Entry { stamp: self.stamp(table.next_ts()), cause: None, body: Body::Event(accept.into()) });
        if self.engine.view(&self.asset.id).is_none_or(|view| view.baseline_id.is_none()) {
            let said = self.outputs.iter().find_map(|(_, entry)| if let Body::Event(event) = &entry.body { event.text.as_deref() } else { None });
            return Err(ReplayError::Commissioning { path: path.to_owned(), why: said.unwrap_or("it has no usable row").to_owned() });
        }
        // Another file, another time: its rows do not continue these.
        self.engine.restart_windows(Some(&self.asset.id));
        Ok(table.next_ts())
    }

    /// Feeds the cells of a row as the serial decoder would, then lets its time pass, so that a row with a bad cell is closed too.
    fn feed(&mut self, row: &TableRow, table: &Table) {
        self.outputs.clear();
        let now = Now { ts: row.ts, log_ms: u64::try_from(row.ts.as_millis()).unwrap_or(0), boot: self.boot.clone(), state: ClockState::Synced };
        for (column, cell) in table.columns().iter().zip(&row.cells) {
            if TIME_COLUMNS.contains(&column.as_str()) || !self.asset.points.iter().any(|point| is_column_of(point, column)) {
                continue;
            }
            let sample = Sample {
                asset: None,
                point: Some(column.clone()),
                value: value(cell, table.decimal_comma()),
                time: None,
                quality: Quality::Good,
                sequence: None,
            };
            let context = Context { asset: Some(&self.asset.id), point: None };
            self.intake.take(sample, context, &now, &self.counters, &mut self.entries);
        }
        for entry in std::mem::take(&mut self.entries) {
            self.process(entry);
        }
        if let Some(due) = self.engine.row_due(&self.asset.id) {
            self.process(Entry { stamp: self.stamp(due), cause: None, body: Body::Event(Event::new(EventKind::Tick).into()) });
        }
    }

    fn stamp(&self, ts: Timestamp) -> Stamp {
        Stamp { asset: Some(self.asset.id.clone()), ts, ts_source: TsSource::Gateway, clock: ClockState::Synced, origin: Origin::Replay }
    }

    fn process(&mut self, entry: Entry) {
        self.seq += 1;
        let was = self.view().alarm;
        self.engine.process(Position { ordinal: 1, seq: self.seq }, "replay", &entry, &mut self.outputs);
        self.alarms += u64::from(!was && self.view().alarm);
    }

    fn view(&self) -> AssetView {
        self.engine.view(&self.asset.id).expect("the engine was made for this asset")
    }
}

fn is_column_of(point: &config::Point, column: &str) -> bool {
    point.column.as_deref() == Some(column) || *point.id == *column
}

/// One line of output. Names and order are a contract; fields are only added.
#[derive(Serialize)]
struct Line<'a> {
    row: u64,
    ts: String,
    phase: Phase,
    state: OperatingState,
    score: Option<f64>,
    limit: Option<f64>,
    anomaly: Option<f64>,
    above: bool,
    alarm: bool,
    contrib_1_point: Option<&'a str>,
    contrib_1_share: Option<f64>,
    contrib_2_point: Option<&'a str>,
    contrib_2_share: Option<f64>,
    contrib_3_point: Option<&'a str>,
    contrib_3_share: Option<f64>,
    health: Option<f64>,
    reason: Option<ScoreReason>,
    quality: Quality,
    forecast: Option<&'a str>,
    t_p10_s: Option<f64>,
    t_p50_s: Option<f64>,
    t_p90_s: Option<f64>,
    p_fail_1: Option<f64>,
    p_fail_2: Option<f64>,
    p_fail_3: Option<f64>,
}

impl<'a> Line<'a> {
    fn new(row: u64, ts: Timestamp, view: &'a AssetView) -> Self {
        let contribution = |place: usize| view.contributions.get(place).map(|(point, share)| (&**point, *share)).unzip();
        let [first, second, third] = [0, 1, 2].map(contribution);
        Self {
            row,
            ts: ts.to_string(),
            phase: view.phase,
            state: OperatingState::Unknown,
            score: view.score,
            limit: view.limit,
            anomaly: view.anomaly,
            above: view.above,
            alarm: view.alarm,
            contrib_1_point: first.0,
            contrib_1_share: first.1,
            contrib_2_point: second.0,
            contrib_2_share: second.1,
            contrib_3_point: third.0,
            contrib_3_share: third.1,
            health: view.health,
            reason: view.reason,
            quality: view.quality,
            forecast: None,
            t_p10_s: None,
            t_p50_s: None,
            t_p90_s: None,
            p_fail_1: None,
            p_fail_2: None,
            p_fail_3: None,
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
