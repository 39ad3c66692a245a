//! Rows of a recorded file as entries of the inputs lane, decoded as a serial line's would be.
use std::{collections::BTreeMap, sync::Arc};

use hark_protocol::topics::{Clock as ClockState, Event, EventKind, Name, Origin, Quality, Timestamp, TsSource};

use super::{
    super::table::{Table, TableRow},
    json_lines::Message,
};
use crate::{
    clock::{Clock, Now},
    config::{self, Asset},
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

/// What is known of the asset whose points the columns are.
pub(super) struct Rows {
    asset: Asset,
    grid_us: i64,
    intake: Intake,
    counters: SourceCounters,
    boot: Name,
}

impl Rows {
    pub(super) fn new(asset: Asset) -> Self {
        let assets = BTreeMap::from([(asset.id.clone(), asset.clone())]);
        Self {
            grid_us: i64::try_from(asset.grid.as_micros()).unwrap_or(i64::MAX).max(1),
            intake: Intake::new(Arc::new(Registry::new(&assets, Origin::Replay))),
            // The clock in it dates connection times, of which a file has none.
            counters: SourceCounters::new("replay".into(), "file", "none", Clock::new()),
            asset,
            boot: "replay".into(),
        }
    }

    /// Whether a point takes its values from `column`.
    pub(super) fn measured(&self, column: &str) -> bool {
        !TIME_COLUMNS.contains(&column) && self.asset.points.iter().any(|point| is_column_of(point, column))
    }

    /// Scored points that none of `columns` carries.
    pub(super) fn missing(&self, columns: &[String]) -> Vec<&str> {
        let carried = |point: &config::Point| columns.iter().any(|column| is_column_of(point, column));
        self.asset.points.iter().filter(|point| point.scored && !carried(point)).map(|point| &*point.id).collect()
    }

    /// Appends the readings of a row and a tick at the end of its slot, so that a row with a bad cell is closed too. The tick is its last entry.
    pub(super) fn entries(&mut self, row: &TableRow, table: &Table, entries: &mut Vec<Entry>) {
        let now = Now { ts: row.ts, log_ms: u64::try_from(row.ts.as_millis()).unwrap_or(0), boot: self.boot.clone(), state: ClockState::Synced };
        for (column, cell) in table.columns().iter().zip(&row.cells) {
            if !self.measured(column) {
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
            let context = Context { asset: Some(&self.asset.id), ..Context::default() };
            self.intake.take(sample, context, &now, &self.counters, entries);
        }
        let end = row.ts.0.div_euclid(self.grid_us).saturating_add(1).saturating_mul(self.grid_us);
        entries.push(self.event(Timestamp(end), Event::new(EventKind::Tick)));
    }

    /// Appends what a message says, and a tick at its time, so that rows which ended before it are closed. The tick is its last entry.
    pub(super) fn message(&mut self, message: Message, entries: &mut Vec<Entry>) {
        let Message { ts, samples } = message;
        let now = Now { ts, log_ms: u64::try_from(ts.as_millis()).unwrap_or(0), boot: self.boot.clone(), state: ClockState::Synced };
        for sample in samples {
            let context = Context { asset: Some(&self.asset.id), ..Context::default() };
            self.intake.take(sample, context, &now, &self.counters, entries);
        }
        entries.push(self.event(ts, Event::new(EventKind::Tick)));
    }

    /// Values that no point took, by cause.
    pub(super) fn left_out(&self) -> Vec<(&'static str, u64)> {
        let dropped = |(group, cause, count): (&'static str, &'static str, u64)| (group == "dropped").then_some((cause, count));
        self.counters.causes().into_iter().filter_map(dropped).collect()
    }

    /// The word that ends commissioning with what there is.
    pub(super) fn accept(&self, ts: Timestamp) -> Entry {
        self.event(ts, Event { command: Some("commissioning_accepted".into()), ..Event::new(EventKind::Command) })
    }

    fn event(&self, ts: Timestamp, event: Event) -> Entry {
        let stamp = Stamp { asset: Some(self.asset.id.clone()), ts, ts_source: TsSource::Gateway, clock: ClockState::Synced, origin: Origin::Replay };
        Entry { stamp, cause: None, body: Body::Event(event.into()) }
    }
}

fn is_column_of(point: &config::Point, column: &str) -> bool {
    point.column.as_deref() == Some(column) || *point.id == *column
}
