//! A CSV file row by row, with its cells kept as text.
use std::fs::File;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{Pace, ReplayConfig, TimeText};

/// Names that a time column goes by.
const TIME_NAMES: [&str; 4] = ["ts", "time", "timestamp", "datetime"];

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be opened or read.
    #[error("failed to open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not CSV.
    #[error("failed to read a row")]
    Csv(#[from] csv::Error),
    /// The pace needs a time and no column has one.
    #[error("no column of the header is a time ({}); name one, or choose rows per second", TIME_NAMES.join(", "))]
    NoTimeColumn,
    /// The named column does not exist.
    #[error("column `{0}` is not in the header")]
    NoColumn(String),
    /// A time cannot be read although the pace or the output needs it.
    #[error("row {row}: `{text}` is no time")]
    Time {
        /// Row number, from 1 after the header.
        row: u64,
        /// The cell.
        text: String,
    },
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    cells: csv::StringRecord,
    /// Its time in seconds since 1970, where there is one.
    pub time_s: Option<f64>,
    /// Its time as it is passed on.
    pub time: Option<String>,
}

/// An open file.
#[derive(Debug)]
pub struct Recording {
    reader: csv::Reader<File>,
    header: csv::StringRecord,
    delimiter: u8,
    time_column: Option<usize>,
    time: TimeText,
    time_needed: bool,
    row: u64,
}

impl Recording {
    /// Opens the file and reads its header.
    pub fn open(config: &ReplayConfig) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Open { path: config.file.clone(), source };
        let delimiter = delimiter(&first_line(File::open(&config.file).map_err(failed)?).map_err(failed)?);
        let file = File::open(&config.file).map_err(failed)?;
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
        let header = reader.headers()?.clone();
        let named = |name: &str| header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        let time_column = match &config.time_column {
            Some(name) => Some(named(name).ok_or_else(|| RecordingError::NoColumn(name.clone()))?),
            None => TIME_NAMES.into_iter().find_map(named),
        };
        let paced_by_time = matches!(config.pace, Pace::Speed(_));
        if paced_by_time && time_column.is_none() {
            return Err(RecordingError::NoTimeColumn);
        }
        let time_needed = config.time == TimeText::Rfc3339 || paced_by_time;
        Ok(Self { reader, header, delimiter, time_column, time: config.time, time_needed, row: 0 })
    }

    /// The next row; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Row>, RecordingError> {
        let mut cells = csv::StringRecord::new();
        if !self.reader.read_record(&mut cells)? {
            return Ok(None);
        }
        self.row += 1;
        let text = self.time_column.and_then(|column| cells.get(column));
        let instant = text.and_then(parse_time);
        if instant.is_none() && self.time_needed && self.time_column.is_some() {
            return Err(RecordingError::Time { row: self.row, text: text.unwrap_or_default().into() });
        }
        let Some(text) = text else { return Ok(Some(Row { cells, time_s: None, time: None })) };
        let time = match (self.time, instant) {
            (TimeText::Rfc3339, Some(instant)) => instant.to_string(),
            _ => text.to_owned(),
        };
        Ok(Some(Row { time_s: instant.map(|instant| instant.as_nanosecond() as f64 / 1e9), time: Some(time), cells }))
    }

    /// The header as a line.
    pub fn header_line(&self) -> String {
        self.join(self.header.iter())
    }

    /// A row as a line, its cells as they stand in the file but for the time.
    pub fn line(&self, row: &Row) -> String {
        self.join(row.cells.iter().enumerate().map(|(column, cell)| match &row.time {
            Some(time) if Some(column) == self.time_column => time.as_str(),
            _ => cell,
        }))
    }

    /// Column name and `{"value":…,"ts":…}` of each cell that is not empty.
    pub fn scalars(&self, row: &Row) -> Vec<(String, String)> {
        let ts = row.time.as_deref().map(json_text).map(|ts| format!(",\"ts\":{ts}")).unwrap_or_default();
        self.values(row).map(|(point, cell)| (point.to_owned(), format!("{{\"value\":{}{ts}}}", json_text(cell)))).collect()
    }

    /// `{"ts":…,"values":{…}}` of a row.
    pub fn batch(&self, row: &Row) -> String {
        let values: Vec<_> = self.values(row).map(|(point, cell)| format!("{}:{}", json_string(point), json_text(cell))).collect();
        let ts = row.time.as_deref().map(json_text).map(|ts| format!("\"ts\":{ts},")).unwrap_or_default();
        format!("{{{ts}\"values\":{{{}}}}}", values.join(","))
    }

    /// Empty cells of a row.
    pub fn empty(&self, row: &Row) -> u64 {
        row.cells.iter().filter(|cell| cell.trim().is_empty()).count() as u64
    }

    fn values<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'a str, &'a str)> {
        let cells = self.header.iter().map(str::trim).zip(row.cells.iter().map(str::trim)).enumerate();
        cells.filter(|(column, (_, cell))| Some(*column) != self.time_column && !cell.is_empty()).map(|(_, pair)| pair)
    }

    fn join<'a>(&self, cells: impl Iterator<Item = &'a str>) -> String {
        let delimiter = char::from(self.delimiter);
        let quoted = |cell: &str| match cell.contains([delimiter, '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.to_owned(),
        };
        let cells: Vec<_> = cells.map(quoted).collect();
        format!("{}\n", cells.join(&delimiter.to_string()))
    }
}

fn first_line(file: File) -> std::io::Result<String> {
    use std::io::{BufRead, BufReader, Read};
    const HEADER_MAX: u64 = 64 * 1024;
    let mut line = Vec::new();
    BufReader::new(file.take(HEADER_MAX)).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The most frequent of the usual delimiters in a header.
fn delimiter(header: &str) -> u8 {
    let count = |delimiter: u8| header.bytes().filter(|byte| *byte == delimiter).count();
    [b'\t', b';', b','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// RFC 3339, a date and time without zone as UTC, or a number since 1970 by its magnitude (domain reference section 5).
fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let seconds = match number.abs() {
            n if n < 1e11 => number,
            n if n < 1e14 => number / 1e3,
            n if n < 1e17 => number / 1e6,
            _ => number / 1e9,
        };
        return Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok();
    }
    text.parse().ok().or_else(|| Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()))
}

/// A cell as JSON: a number keeps its text; what JSON does not call a number becomes a string.
fn json_text(cell: &str) -> String {
    let is_number =
        cell.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && serde_json::from_str::<serde_json::Number>(cell).is_ok();
    if is_number { cell.to_owned() } else { json_string(cell) }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Positive;

    fn open(text: &str, change: impl FnOnce(&mut ReplayConfig)) -> Result<Recording, RecordingError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let mut config = ReplayConfig::new(file.path());
        change(&mut config);
        Recording::open(&config)
    }

    fn recording(text: &str, change: impl FnOnce(&mut ReplayConfig)) -> Recording {
        open(text, change).unwrap()
    }

    #[test]
    fn numbers_keep_their_text() {
        let mut recording = recording("datetime;A;B;C\n2020-03-09 10:14:33;0.0265880000000000001;;1e5\n", |config| config.time = TimeText::Rfc3339);
        let row = recording.next_row().unwrap().unwrap();
        let expected = [
            ("A".to_owned(), r#"{"value":0.0265880000000000001,"ts":"2020-03-09T10:14:33Z"}"#.to_owned()),
            ("C".to_owned(), r#"{"value":1e5,"ts":"2020-03-09T10:14:33Z"}"#.to_owned()),
        ];
        assert_eq!(recording.scalars(&row), expected);
        assert_eq!(recording.batch(&row), r#"{"ts":"2020-03-09T10:14:33Z","values":{"A":0.0265880000000000001,"C":1e5}}"#);
        assert_eq!(recording.line(&row), "2020-03-09T10:14:33Z;0.0265880000000000001;;1e5\n");
        assert_eq!((recording.empty(&row), recording.header_line().as_str()), (1, "datetime;A;B;C\n"));
        assert!(recording.next_row().unwrap().is_none());
    }

    #[test]
    fn a_time_that_is_given_stays() {
        let mut recording = recording("ts,v\n1650006388943,NaN\n", |_| {});
        let row = recording.next_row().unwrap().unwrap();
        assert_eq!(row.time_s, Some(1_650_006_388.943));
        assert_eq!(recording.scalars(&row), [("v".to_owned(), r#"{"value":"NaN","ts":1650006388943}"#.to_owned())]);
    }

    #[test]
    fn a_time_that_the_pace_needs_must_be_one() {
        let real_time = |config: &mut ReplayConfig| config.pace = Pace::Speed(Positive::new(1.0).unwrap());
        assert!(matches!(open("ts,v\nyesterday,1\n", real_time).unwrap().next_row(), Err(RecordingError::Time { row: 1, .. })));
        assert!(matches!(open("v,ts\n1\n", real_time).unwrap().next_row(), Err(RecordingError::Time { row: 1, .. })));
        assert!(matches!(open("a,b\n1,2\n", real_time), Err(RecordingError::NoTimeColumn)));
    }

    #[test]
    fn only_json_numbers_pass_as_numbers() {
        for (cell, json) in
            [("-1.5", "-1.5"), ("1.", "\"1.\""), (".5", "\".5\""), ("+1", "\"+1\""), ("01", "\"01\""), ("on", "\"on\""), ("[1]", "\"[1]\"")]
        {
            assert_eq!(json_text(cell), json);
        }
    }
}
