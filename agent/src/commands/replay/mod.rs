//! `hark replay`: a recorded file through the same log, inference and alarms as live readings, as fast as the machine allows.
//!
//! ```text
//! table, messages ─► rows ─► journal (a log of its own) ─► inference ─► line      (playback drives it)
//! ```
//! One line of JSON per row or message of the file, in order, with what the agent would have known after it.
mod journal;
mod json_lines;
mod line;
mod missing;
mod playback;
mod rows;

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::ArgGroup;

use self::{
    json_lines::LineError,
    line::Line,
    missing::Missing,
    playback::{PERIOD_START, Playback},
};
use super::{
    ConfigArgs, EXIT_CONFIG, EXIT_INTERRUPTED, stop_on_signal,
    table::{Format, TableError},
};
use crate::{
    buffer::BufferError,
    config::{self, Asset, Config},
    inference::{
        Bundles, InferenceError,
        assignment::{Accepted, assign},
        verification,
    },
    stop::Stop,
};

/// Rows between two progress reports.
const PROGRESS_ROWS: u64 = 100_000;

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
    let mut playback = Playback::new(asset, &config.models)?;
    let mut first_ts = PERIOD_START;
    if let Some(path) = &args.commission {
        first_ts = playback.commission(path, format, stop)?;
    }

    let mut input = playback.open(&args.input, format, first_ts)?;
    let before = playback.counters();
    let (mut summary, mut missing) = (Summary::default(), Missing::default());
    let progress = io::stderr().is_terminal();
    let played = playback.play(&mut input, args.commission_rows, stop, |ts, view| {
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
    let counters = playback.counters();
    (summary.alarms, summary.advices) = (playback.alarms, playback.advices);
    (summary.bad, summary.late) = (counters.bad - before.bad, counters.late - before.late);
    summary.left_out = playback.left_out();
    summary.commissioned = std::mem::take(&mut playback.commissioned);
    summary.unscored = (summary.scored == 0).then(|| playback.unscored(&before, &missing, summary.rows, needed));
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

#[cfg(test)]
mod tests;
