//! A recorded file: separated values with a header, separator and decimal sign found out from its beginning.
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use hark_protocol::topics::Timestamp;

use crate::{
    config::TimeUnit,
    source::decode::{
        lines::{TIME_COLUMNS, number},
        time,
    },
};

/// So many bytes at the beginning decide on separator and decimal sign.
const SAMPLE_BYTES: u64 = 64 << 10;
const SEPARATORS: [u8; 4] = [b';', b'\t', b',', b'|'];

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no header line with separated names.
    #[error("`{path}`, line 1: expected a header with column names separated by `;`, `,`, a tab or `|`; give --separator if it is another one")]
    NoHeader {
        /// Which.
        path: PathBuf,
    },
    /// No column tells the time.
    #[error("`{path}`, line 1: no column is named {}; name one so, or say with --period how many seconds the rows are apart", TIME_COLUMNS.join(", "))]
    NoTime {
        /// Which.
        path: PathBuf,
    },
    /// A cell of the time column is no time.
    #[error(
        "`{path}`, line {line}, column `{column}`: `{cell}` is no time; expected ISO 8601 such as 2025-03-01T12:00:00Z, or seconds, ms, us or ns since 1970"
    )]
    BadTime {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        cell: String,
    },
    /// A line does not fit the header.
    #[error("`{path}`, line {line}: expected {expected} values as in the header, found {found}")]
    Width {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Columns of the header.
        expected: usize,
        /// Values in the line.
        found: usize,
    },
}

/// What the caller knows about a file already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Format {
    /// Separator; found out where `None`.
    pub separator: Option<u8>,
    /// Decimal sign is a comma; found out where `None`.
    pub decimal_comma: Option<bool>,
    /// Rows are so far apart, microseconds, and the time column, if any, is not looked at.
    pub period_us: Option<i64>,
}

/// An open file, read row by row in constant memory.
pub struct Table {
    path: PathBuf,
    reader: csv::Reader<BufReader<File>>,
    columns: Vec<String>,
    decimal_comma: bool,
    /// Index of the time column; `None` where rows are numbered by a period.
    time_column: Option<usize>,
    period_us: i64,
    next_ts: Timestamp,
    record: csv::ByteRecord,
}

/// One row: time, and the cells in the order of [`Table::columns`].
#[derive(Clone, Debug, PartialEq)]
pub struct TableRow {
    /// Its time, UTC.
    pub ts: Timestamp,
    /// Trimmed text of each cell.
    pub cells: Vec<String>,
}

impl Table {
    /// Opens `path`. With a period, the first row is at `first_ts`. Columns that are `measured` decide on the decimal sign.
    pub fn open(path: &Path, format: Format, first_ts: Timestamp, measured: impl Fn(&str) -> bool) -> Result<Self, TableError> {
        let failed = |source| TableError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut sample = Vec::new();
        (&mut file).take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let sample = String::from_utf8_lossy(&sample);
        let separator = match format.separator {
            Some(separator) => separator,
            None => detect_separator(&sample).ok_or_else(|| TableError::NoHeader { path: path.to_owned() })?,
        };
        let mut reader = csv_reader(separator, BufReader::new(file));
        let columns = columns(&mut reader).map_err(failed)?;
        let decimal_comma = match format.decimal_comma {
            Some(decimal_comma) => decimal_comma,
            None => detect_decimal_comma(csv_reader(separator, sample.as_bytes()), &columns, measured),
        };
        let is_time = |column: &String| TIME_COLUMNS.contains(&column.to_ascii_lowercase().as_str());
        let time_column = match format.period_us {
            Some(_) => None,
            None => Some(columns.iter().position(is_time).ok_or_else(|| TableError::NoTime { path: path.to_owned() })?),
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            columns,
            decimal_comma,
            time_column,
            period_us: format.period_us.unwrap_or(0),
            next_ts: first_ts,
            record: csv::ByteRecord::new(),
        })
    }

    /// Names in the header.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The decimal sign is a comma; a point is taken too.
    pub fn decimal_comma(&self) -> bool {
        self.decimal_comma
    }

    /// Time of the next row where rows are numbered by a period.
    pub fn next_ts(&self) -> Timestamp {
        self.next_ts
    }

    /// Line of the row that was read last, from 1.
    pub fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    /// The next row; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<TableRow>, TableError> {
        let more =
            self.reader.read_byte_record(&mut self.record).map_err(|error| TableError::Read { path: self.path.clone(), source: error.into() })?;
        if !more {
            return Ok(None);
        }
        let line = self.line();
        if self.record.len() != self.columns.len() {
            return Err(TableError::Width { path: self.path.clone(), line, expected: self.columns.len(), found: self.record.len() });
        }
        let cells: Vec<String> = self.record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
        let ts = match self.time_column {
            None => self.next_ts,
            Some(index) => time::from_text(&cells[index], &TimeUnit::Auto).ok_or_else(|| TableError::BadTime {
                path: self.path.clone(),
                line,
                column: self.columns[index].clone(),
                cell: cells[index].clone(),
            })?,
        };
        self.next_ts = Timestamp(ts.0.saturating_add(self.period_us));
        Ok(Some(TableRow { ts, cells }))
    }
}

/// The separator that stands most often in the header.
fn detect_separator(sample: &str) -> Option<u8> {
    let header = sample.lines().find(|line| !line.trim().is_empty())?;
    let count = |separator: u8| header.bytes().filter(|byte| *byte == separator).count();
    SEPARATORS.into_iter().filter(|separator| count(*separator) > 0).max_by_key(|separator| count(*separator))
}

fn csv_reader<R: Read>(separator: u8, from: R) -> csv::Reader<R> {
    csv::ReaderBuilder::new().delimiter(separator).flexible(true).trim(csv::Trim::All).from_reader(from)
}

fn columns<R: Read>(reader: &mut csv::Reader<R>) -> Result<Vec<String>, io::Error> {
    let header = reader.byte_headers()?;
    Ok(header.iter().map(|cell| String::from_utf8_lossy(cell).trim_start_matches('\u{feff}').to_owned()).collect())
}

/// False where more measured cells are numbers with a point than with a comma. Without either, as while a machine stands still, a comma that comes
/// later is a decimal sign, and a point too.
fn detect_decimal_comma(mut sample: csv::Reader<&[u8]>, columns: &[String], measured: impl Fn(&str) -> bool) -> bool {
    let measured: Vec<bool> = columns.iter().map(|column| measured(column)).collect();
    let (mut commas, mut points) = (0usize, 0usize);
    // The sample may end within a line: what cannot be read of it does not count.
    for record in sample.byte_records().map_while(Result::ok) {
        for cell in record.iter().zip(&measured).filter(|(_, measured)| **measured).filter_map(|(cell, _)| std::str::from_utf8(cell).ok()) {
            let is_number = |decimal_comma| number(cell, decimal_comma).is_some();
            commas += usize::from(cell.contains(',') && is_number(true));
            points += usize::from(cell.contains('.') && is_number(false));
        }
    }
    commas >= points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(content: &str, format: Format) -> Result<(bool, Vec<TableRow>), TableError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.csv");
        std::fs::write(&path, content).unwrap();
        let mut table = Table::open(&path, format, Timestamp(0), |column| column != "ignored")?;
        let mut rows = Vec::new();
        while let Some(row) = table.next_row()? {
            rows.push(row);
        }
        Ok((table.decimal_comma(), rows))
    }

    #[track_caller]
    fn check(content: &str, decimal_comma: bool, ts: &str, second_cell: &str) {
        let (comma, rows) = rows(content, Format::default()).unwrap();
        assert_eq!((comma, rows[0].ts.to_string().as_str(), rows[0].cells[1].as_str()), (decimal_comma, ts, second_cell));
    }

    #[test]
    fn separators_and_decimal_signs_are_found_out() {
        check("datetime;a\n2020-03-09 10:14:33;0,25\n", true, "2020-03-09T10:14:33.000000Z", "0,25");
        check("\u{feff}Time,a\r\n1583748873000, 1.5 \r\n", false, "2020-03-09T10:14:33.000000Z", "1.5");
        check("ts\ta\tb\n1583748873.5\t1\t\"x y\"\n", false, "2020-03-09T10:14:33.500000Z", "1");
    }

    #[test]
    fn the_decimal_sign_is_that_of_the_measured_cells() {
        let comma = |content: &str| rows(content, Format::default()).unwrap().0;
        assert!(comma("ts;a\n1;\"0,25\"\n"), "in quotes");
        assert!(comma("ts,a\n1,\"0,25\"\n"), "in quotes, with a comma as separator");
        assert!(comma("ts;a;ignored\n1;0,25;1.5\n2;1;2.5\n"), "what is not measured does not count");
        assert!(!comma("ts;a\n1;0.25\n"));
        assert!(comma("ts;a\n1;0\n"), "undecided takes both");
    }

    #[test]
    fn a_period_numbers_the_rows() {
        let (_, rows) = rows("a,b\n1,2\n3,4\n", Format { period_us: Some(500_000), ..Format::default() }).unwrap();
        assert_eq!(rows.iter().map(|row| row.ts.0).collect::<Vec<_>>(), [0, 500_000]);
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        let error = |content: &str| rows(content, Format::default()).unwrap_err().to_string();
        assert!(error("a;b\n1;2\n").contains("--period"));
        assert!(error("lonely\n1\n").contains("line 1: expected a header"));
        let text = error("ts;b\n2020-01-01;1\nnoon;2\n");
        assert!(text.contains("line 3, column `ts`: `noon` is no time"), "{text}");
        let text = error("ts;b\n2020-01-01T00:00:00Z;1;9\n");
        assert!(text.contains("line 2: expected 2 values as in the header, found 3"), "{text}");
    }
}
