//! A file through the agent's path, without ports and clock.
use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

use hark_protocol::topics::{AlarmState, EventKind, LaneName, Name, Priority, ScoreReason, Timestamp};

use super::{
    super::table::{Format, Table},
    ReplayError,
    journal::Journal,
    json_lines::{self, JsonLines},
    missing::Missing,
    rows::Rows,
};
use crate::{
    buffer::Position,
    config::Asset,
    inference::{AssetView, Engine, EngineCounters},
    record::{Body, Entry},
    stop::Stop,
};

/// Rows that are appended to the log at a time.
const BATCH_ROWS: usize = 2_048;
/// Rows that a period numbers start here (2000-01-01): any earlier time counts as a clock that was never set.
pub(super) const PERIOD_START: Timestamp = Timestamp(946_684_800_000_000);

/// A recorded file.
pub(super) enum Input {
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
pub(super) struct Playback {
    asset: Asset,
    rows: Rows,
    journal: Journal,
    engine: Engine,
    outputs: Vec<(LaneName, Entry)>,
    pub(super) alarms: u64,
    pub(super) advices: u64,
    /// What inference said of commissioning last.
    commissioning: Option<Name>,
    /// How it ended with baselines.
    pub(super) commissioned: Vec<String>,
    /// Why it could not be accepted yet.
    too_few_rows: Option<Name>,
}

impl Playback {
    pub(super) fn new(asset: Asset, models: &Path) -> Result<Self, ReplayError> {
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
    pub(super) fn open(&self, path: &Path, format: Format, first_ts: Timestamp) -> Result<Input, ReplayError> {
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
    pub(super) fn commission(&mut self, path: &Path, format: Format, stop: &Stop) -> Result<Timestamp, ReplayError> {
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
    pub(super) fn play(
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

    pub(super) fn counters(&self) -> EngineCounters {
        self.engine.counters()
    }

    /// Values that no point took, by cause.
    pub(super) fn left_out(&self) -> Vec<(&'static str, u64)> {
        self.rows.left_out()
    }

    fn view(&self) -> AssetView {
        self.engine.view(&self.asset.id).expect("the engine was made for this asset")
    }

    /// Why the `rows` rows of the input gave no score, for people; `before` are the counters at its beginning, `needed` the rows that commissioning needs.
    pub(super) fn unscored(&self, before: &EngineCounters, missing: &Missing, rows: u64, needed: usize) -> String {
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
        let told = self.too_few_rows.as_deref().or(self.commissioning.as_deref());
        match view.reason {
            Some(ScoreReason::Commissioning) if told.is_some() => told.unwrap_or_default().to_owned(),
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
