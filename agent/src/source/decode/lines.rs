//! Lines of separated values, from a serial port.
use std::collections::BTreeSet;

use hark_protocol::topics::Quality;

use super::{DecodeError, Sample, Value, time};
use crate::config::CsvLines;

/// Column names that mean the time of the line.
pub const TIME_COLUMNS: [&str; 4] = ["ts", "time", "timestamp", "datetime"];

/// A number as devices and historians print it. Not finite is still a number; empty or other text is `None`.
pub fn number(text: &str, decimal_comma: bool) -> Option<f64> {
    let text = text.trim();
    if decimal_comma { text.replacen(',', ".", 1).parse().ok() } else { text.parse().ok() }
}

/// What a cell says. A recorded file and a serial line share it, so that both give the same numbers.
pub fn value(cell: &str, decimal_comma: bool) -> Value {
    match number(cell, decimal_comma) {
        Some(number) => Value::Number(number),
        None if cell.is_empty() => Value::Missing,
        None => Value::Text(cell.to_owned()),
    }
}

/// The decoder of one port: remembers the header.
#[derive(Clone, Debug)]
pub struct LineDecoder {
    format: CsvLines,
    /// Names that a header can have for the points of the asset.
    known: BTreeSet<String>,
    columns: Option<Vec<String>>,
}

impl LineDecoder {
    /// A decoder that waits for a header unless the format names its columns. `known` are the names of the asset's points, by which a header is told
    /// from a banner and from values.
    pub fn new(format: CsvLines, known: BTreeSet<String>) -> Self {
        Self { columns: format.columns.clone(), known, format }
    }

    /// Forgets the header: whoever speaks next may have another one.
    pub fn reset(&mut self) {
        self.columns.clone_from(&self.format.columns);
    }

    /// Decodes one line without its line end. A header line gives no samples.
    ///
    /// # Errors
    /// [`DecodeError`] when the line cannot be used.
    pub fn decode(&mut self, line: &[u8]) -> Result<Vec<Sample>, DecodeError> {
        let line = std::str::from_utf8(line).map_err(|_| DecodeError::NotUtf8)?.trim();
        let cells: Vec<&str> = line.split(char::from(self.format.separator)).map(str::trim).collect();
        if self.is_header(&cells) {
            return self.take_header(&cells).map(|()| Vec::new());
        }
        let columns = self.columns.as_ref().ok_or(DecodeError::NoHeader)?;
        if cells.len() != columns.len() {
            return Err(DecodeError::WrongColumns);
        }
        let mut line_time = None;
        let mut samples = Vec::with_capacity(cells.len());
        for (column, cell) in columns.iter().zip(cells) {
            if is_time_column(column) {
                line_time = Some(time::from_text(cell, &self.format.time_unit).ok_or(()));
            } else if !column.is_empty() {
                samples.push(Sample {
                    asset: Some(self.format.asset.to_string()),
                    point: Some(column.clone()),
                    value: value(cell, self.format.decimal_comma),
                    time: None,
                    quality: Quality::Good,
                    sequence: None,
                });
            }
        }
        samples.iter_mut().for_each(|sample| sample.time = line_time);
        Ok(samples)
    }

    /// A header names a point, perhaps beside columns that nobody asked for, and has no value in it. It may come at any time: the sender started
    /// again, or is another one. A banner names no point.
    fn is_header(&self, cells: &[&str]) -> bool {
        let is_value = |cell: &str| number(cell, self.format.decimal_comma).is_some() || time::from_text(cell, &self.format.time_unit).is_some();
        cells.iter().any(|&cell| self.known(cell).is_some()) && !cells.iter().any(|cell| is_value(cell))
    }

    /// The point or column of this name, in the configuration's spelling.
    fn known(&self, cell: &str) -> Option<&String> {
        self.known.iter().find(|known| known.eq_ignore_ascii_case(cell))
    }

    /// The configuration has the last word: a header that contradicts it is counted, since one of the two is wrong. So is one that lacks what the
    /// header before it had: it may be a line of a log that names a point. Then nothing is taken until a header comes, since which one is right
    /// cannot be told.
    fn take_header(&mut self, cells: &[&str]) -> Result<(), DecodeError> {
        let Some(configured) = &self.format.columns else {
            let header: Vec<String> = cells.iter().map(|&cell| self.known(cell).map_or_else(|| cell.to_owned(), Clone::clone)).collect();
            let told = |columns: &[String]| -> Vec<String> {
                let mut told: Vec<_> =
                    columns.iter().filter(|name| is_time_column(name) || self.known.contains(*name)).map(|n| n.to_lowercase()).collect();
                told.sort();
                told
            };
            let twice = told(&header).windows(2).any(|pair| pair[0] == pair[1]);
            let lacks = self.columns.take().is_some_and(|before| told(&before).iter().any(|name| !told(&header).contains(name)));
            if twice || lacks {
                return Err(DecodeError::WrongColumns);
            }
            self.columns = Some(header);
            return Ok(());
        };
        let agrees = configured.len() == cells.len() && configured.iter().zip(cells).all(|(column, cell)| column.is_empty() || column == cell);
        if agrees { Ok(()) } else { Err(DecodeError::WrongColumns) }
    }
}

fn is_time_column(name: &str) -> bool {
    TIME_COLUMNS.iter().any(|time| name.eq_ignore_ascii_case(time))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::TimeUnit;

    fn decoder(columns: Option<&[&str]>) -> LineDecoder {
        let format = CsvLines {
            asset: "pump".into(),
            separator: b';',
            decimal_comma: true,
            columns: columns.map(|c| c.iter().map(|&name| name.to_owned()).collect()),
            time_unit: TimeUnit::Auto,
        };
        LineDecoder::new(format, ["a", "b"].map(str::to_owned).into())
    }

    fn points(lines: &mut LineDecoder, line: &str) -> Result<Vec<(String, Value)>, DecodeError> {
        let samples = lines.decode(line.as_bytes())?;
        Ok(samples.into_iter().map(|sample| (sample.point.unwrap(), sample.value)).collect())
    }

    #[test]
    fn a_header_names_the_columns() {
        let mut lines = decoder(None);
        assert_eq!(lines.decode(b"2020-01-01 00:00:00;1,5;2"), Err(DecodeError::NoHeader));
        assert_eq!(lines.decode(b"ts;a;b"), Ok(vec![]));
        let samples = lines.decode(b"2020-01-01 00:00:00;1,5;\r").unwrap();
        assert_eq!(samples[0].value, Value::Number(1.5));
        assert_eq!(samples[1].value, Value::Missing);
        assert_eq!(samples[0].time.unwrap().unwrap().to_string(), "2020-01-01T00:00:00.000000Z");
        assert_eq!(lines.decode(b"1;2"), Err(DecodeError::WrongColumns));
        assert_eq!(lines.decode(b"ts;a;b"), Ok(vec![]), "the sender started again");
    }

    #[test]
    fn a_header_may_change_at_any_time() {
        let mut lines = decoder(None);
        points(&mut lines, "a;b").unwrap();
        points(&mut lines, "b;a;colour").unwrap();
        let [a, b] = [("a", 200.0), ("b", 100.0)].map(|(point, value)| (point.to_owned(), Value::Number(value)));
        assert_eq!(points(&mut lines, "100;200;3").unwrap()[..2], [b, a]);
        lines.reset();
        assert_eq!(points(&mut lines, "100;200;3"), Err(DecodeError::NoHeader), "another sender has another header");
    }

    #[test]
    fn a_line_that_names_a_point_and_forgets_the_others_ends_the_header() {
        let mut lines = decoder(None);
        points(&mut lines, "ts;a;b").unwrap();
        assert_eq!(points(&mut lines, "LOW;a;alarm"), Err(DecodeError::WrongColumns));
        assert_eq!(points(&mut lines, "2020-01-01;2;200"), Err(DecodeError::NoHeader), "rather nothing than a wrong value");
        assert_eq!(points(&mut lines, "Ts;B;A"), Ok(vec![]));
        let [a, b] = [("a", 200.0), ("b", 2.0)].map(|(point, value)| (point.to_owned(), Value::Number(value)));
        assert_eq!(points(&mut lines, "2020-01-01;2;200"), Ok(vec![b, a]));
        assert_eq!(points(&mut lines, "ts;a;a"), Err(DecodeError::WrongColumns));
    }

    #[test]
    fn a_banner_is_no_header() {
        let mut lines = decoder(None);
        assert_eq!(points(&mut lines, "logger v1.2; ready"), Err(DecodeError::NoHeader));
        assert_eq!(points(&mut lines, "Time;a"), Ok(vec![]));
        assert_eq!(points(&mut lines, "logger v1.2; ready; set"), Err(DecodeError::WrongColumns));
        assert_eq!(points(&mut lines, "2020-01-01 00:00:00;1,5").unwrap().len(), 1);
        assert_eq!(points(&mut decoder(None), "a"), Ok(vec![]), "one column is enough");
    }

    #[test]
    fn a_header_does_not_overrule_configured_columns() {
        let mut lines = decoder(Some(&["ts", "a", "", "b"]));
        assert_eq!(points(&mut lines, "ts;a;colour;b"), Ok(vec![]));
        assert_eq!(points(&mut lines, "ts;b;colour;a"), Err(DecodeError::WrongColumns));
        assert_eq!(points(&mut lines, "2020-01-01 00:00:00;1;2;3").unwrap()[0], ("a".to_owned(), Value::Number(1.0)));
    }

    #[test]
    fn configured_columns_need_no_header() {
        let mut lines = decoder(Some(&["a", "", "b"]));
        let samples = lines.decode(b"1;ignored;RUN").unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1].value, Value::Text("RUN".into()));
        assert_eq!(samples[1].time, None);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let mut decoder = decoder(None);
            for line in lines {
                let _ = decoder.decode(&line);
            }
        }
    }
}
