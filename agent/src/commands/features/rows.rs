//! `hark features --rows`: features of recorded rows for training a forecasting model, from the code that the agent runs.
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use hark_protocol::topics::Timestamp;

use super::super::table::{Format, Table, TableError};
use crate::{
    inference::row_features::{Life, NoFeatures, Specification, SpecificationError},
    source::decode::{Value, lines::value},
    stop::Stop,
};

/// Arguments for rows.
#[derive(Clone, Debug, clap::Args)]
pub struct RowsArgs {
    /// Recorded rows instead of a waveform: a header with the names of points, and a line of values each
    #[arg(long, value_name = "FILE", required = false, requires = "spec", conflicts_with = "WaveformArgs")]
    rows: PathBuf,
    /// Which features, as in `features.toml` of a forecasting bundle
    #[arg(long, value_name = "FILE", required = false, requires = "rows")]
    spec: PathBuf,
    /// Column that names the life a row belongs to; means, windows and age begin anew where its value changes
    #[arg(long, value_name = "COLUMN", requires = "rows")]
    life: Option<String>,
    /// Column that tells which row of its life the first one is, from 1, where a record begins later than the life
    #[arg(long, value_name = "COLUMN", requires = "rows")]
    age: Option<String>,
}

/// Why rows have no features.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    /// The specification cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The specification is none.
    #[error("cannot use the specification `{path}`")]
    Specification {
        /// Which.
        path: PathBuf,
        /// Why.
        source: SpecificationError,
    },
    /// The file is no table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The header lacks what the specification names.
    #[error("`{path}`, line 1: no column is named {}; there are {}", .missing.join(", "), .columns.join(", "))]
    NoColumn {
        /// Which file.
        path: PathBuf,
        /// Names that are missed.
        missing: Vec<String>,
        /// Names that are there.
        columns: Vec<String>,
    },
    /// A cell of a point is no number.
    #[error("`{path}`, line {line}, column `{column}`: `{cell}` is no number; a value that is missing is an empty cell")]
    NoNumber {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        cell: String,
    },
    /// A cell of the age is no count.
    #[error("`{path}`, line {line}, column `{column}`: `{cell}` is no age; expected a whole number of rows from 1")]
    NoAge {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        cell: String,
    },
    /// Nobody can read what is printed.
    #[error("failed to print")]
    Print(#[from] io::Error),
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
}

/// Rows without features, of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Without {
    pub(super) rows: u64,
    pub(super) of: u64,
    /// Line and reason of the first.
    pub(super) first: Option<(u64, String)>,
}

impl Without {
    /// What a person should know; nothing where all rows have features.
    pub(super) fn remark(&self) -> Option<String> {
        let (line, reason) = self.first.as_ref()?;
        Some(format!("{} of {} rows have no features, the first in line {line}: {reason}", self.rows, self.of))
    }
}

/// Columns of the file by what they are for.
struct Columns {
    points: Vec<usize>,
    settings: Vec<usize>,
    life: Option<usize>,
    age: Option<usize>,
}

/// Writes a header and a line per row until the file ends or `stop` is asked for.
pub(super) fn run(args: &RowsArgs, stop: &Stop, out: &mut dyn Write) -> Result<Without, RowsError> {
    let specification = read_specification(&args.spec)?;
    let measured = |column: &str| specification.points.iter().any(|point| point.name == column);
    // Rows are counted, not dated: a column of times may be there or not.
    let mut table = Table::open(&args.rows, Format { period_us: Some(1), ..Format::default() }, Timestamp(0), measured)?;
    let columns = Columns::find(args, table.columns(), &specification)?;
    let mut out = csv::Writer::from_writer(out);
    let names = specification.names();
    let first = args.life.iter().map(String::as_str).chain(["row", "without"]);
    out.write_record(first.chain(names.iter().map(String::as_str))).map_err(io::Error::from)?;

    let (mut without, mut life, mut current) = (Without::default(), Life::new(&specification), None);
    while let Some(row) = table.next_row()? {
        if stop.requested() {
            out.flush()?;
            return Err(RowsError::Interrupted);
        }
        let numbers = |indices: &[usize]| -> Result<Vec<Option<f64>>, RowsError> {
            indices.iter().map(|&index| number(&args.rows, &table, index, &row.cells[index])).collect()
        };
        let (values, settings) = (numbers(&columns.points)?, numbers(&columns.settings)?);
        let of_life = columns.life.map(|index| row.cells[index].clone());
        if current.as_ref() != Some(&of_life) {
            let before = columns.age.map_or(Ok(0), |index| rows_before(&args.rows, &table, index, &row.cells[index]))?;
            life = Life::since(&specification, before);
            current = Some(of_life.clone());
        }
        let features = life.push(&specification, &values, &settings);
        without.of += 1;
        let mut cells: Vec<String> = of_life.into_iter().chain([life.rows().to_string()]).collect();
        match features {
            Ok(features) => {
                cells.push(String::new());
                cells.extend(features.iter().map(|feature| format!("{feature:?}")));
            }
            Err(reason) => {
                let reason = in_words(&reason);
                without.rows += 1;
                without.first.get_or_insert((table.line(), reason.clone()));
                cells.push(reason);
                cells.resize(cells.len() + names.len(), String::new());
            }
        }
        out.write_record(&cells).map_err(io::Error::from)?;
    }
    out.flush()?;
    Ok(without)
}

fn read_specification(path: &Path) -> Result<Specification, RowsError> {
    let text = fs::read_to_string(path).map_err(|source| RowsError::Read { path: path.to_owned(), source })?;
    Specification::parse(&text).map_err(|source| RowsError::Specification { path: path.to_owned(), source })
}

fn number(path: &Path, table: &Table, index: usize, cell: &str) -> Result<Option<f64>, RowsError> {
    match value(cell, table.decimal_comma()) {
        Value::Number(number) => Ok(Some(number)),
        Value::Missing => Ok(None),
        _ => Err(RowsError::NoNumber { path: path.to_owned(), line: table.line(), column: table.columns()[index].clone(), cell: cell.to_owned() }),
    }
}

fn rows_before(path: &Path, table: &Table, index: usize, cell: &str) -> Result<u64, RowsError> {
    cell.parse::<u64>().ok().and_then(|age| age.checked_sub(1)).ok_or_else(|| RowsError::NoAge {
        path: path.to_owned(),
        line: table.line(),
        column: table.columns()[index].clone(),
        cell: cell.to_owned(),
    })
}

fn in_words(reason: &NoFeatures) -> String {
    match reason {
        NoFeatures::Missing(names) => format!("missing {}", names.join(" ")),
        NoFeatures::UnknownRegime => "unknown regime".to_owned(),
    }
}

impl Columns {
    fn find(args: &RowsArgs, columns: &[String], specification: &Specification) -> Result<Self, RowsError> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            let index = columns.iter().position(|column| column == name);
            missing.extend(index.is_none().then(|| format!("`{name}`")));
            index.unwrap_or(0)
        };
        let points = specification.points.iter().map(|point| find(&point.name)).collect();
        let settings = specification.setting_names().map(&mut find).collect();
        let [life, age] = [&args.life, &args.age].map(|column| column.as_deref().map(&mut find));
        if missing.is_empty() {
            return Ok(Self { points, settings, life, age });
        }
        Err(RowsError::NoColumn { path: args.rows.clone(), missing, columns: columns.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::FeaturesArgs, *};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: FeaturesArgs,
    }

    const SPECIFICATION: &str = r#"
        age = true
        features = { value = true, mean = [2] }
        point = [{ name = "T24", unit = "[degR]" }]
        [regimes]
        settings = [{ name = "mach", unit = "1", scale = 0.1 }]
        distance_max = 1.0
        centre = [{ at = [0.8], mean = [600.0], deviation = [2.0] }]
    "#;

    fn features(rows: &str, specification: &str, more: &[&str]) -> Result<(String, Without), RowsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("rows.csv"), rows).unwrap();
        fs::write(path("spec.toml"), specification).unwrap();
        let args = ["x", "--rows", &path("rows.csv"), "--spec", &path("spec.toml")];
        let cli = Cli::try_parse_from(args.iter().chain(more)).unwrap();
        let mut out = Vec::new();
        let without = run(&cli.args.rows.unwrap(), &Stop::default(), &mut out)?;
        Ok((String::from_utf8(out).unwrap(), without))
    }

    #[test]
    fn a_line_per_row_and_each_life_begins_anew() {
        let rows = "unit,mach,T24,time\n1,0.8,601,x\n1,0.8,600.1,x\n2,0.8,598,x\n";
        let (lines, without) = features(rows, SPECIFICATION, &["--life", "unit"]).unwrap();
        let (ln_2, ln_3) = (1f64.ln_1p(), 2f64.ln_1p());
        let second = (600.1 - 600.0) / 2.0;
        let expected = [
            "unit,row,without,T24.value,T24.mean_2,age".to_owned(),
            format!("1,1,,0.5,0.5,{ln_2}"),
            format!("1,2,,{second:?},{:?},{ln_3}", (0.5 + second) / 2.0),
            format!("2,1,,-1.0,-1.0,{ln_2}"),
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
        assert_eq!((without.rows, without.of, without.remark()), (0, 3, None));
        let late = features("cycle,mach,T24\n99,0.8,601\n7,0.8,601\n", SPECIFICATION, &["--age", "cycle"]).unwrap().0;
        let rows_of_late: Vec<&str> = late.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        assert_eq!(rows_of_late, ["99", "100"], "the first row of a life tells its age, the others follow");
        let (lines, _) = features(rows, SPECIFICATION, &[]).unwrap();
        assert!(lines.lines().last().unwrap().starts_with("3,,-1.0,"), "one life without --life: {lines}");
    }

    #[test]
    fn a_row_without_features_says_why() {
        let rows = "mach;T24\n0,8;\n0,5;600,5\n0,8;600,5\n";
        let (lines, without) = features(rows, SPECIFICATION, &[]).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[1..3], ["1,missing T24,,,", "2,unknown regime,,,"]);
        assert!(lines[3].starts_with("3,,0.25,0.25,"), "decimal commas are read: {}", lines[3]);
        assert_eq!(without.remark().unwrap(), "2 of 3 rows have no features, the first in line 2: missing T24");
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let error = |rows: &str, specification: &str, more: &[&str]| crate::causes::chain(&features(rows, specification, more).unwrap_err());
        for (text, expected) in [
            (error("mach,T24\n0.8,1\n0.8,warm\n", SPECIFICATION, &[]), "rows.csv`, line 3, column `T24`: `warm` is no number"),
            (error("mach,T24\n0.8,1,2\n", SPECIFICATION, &[]), "rows.csv`, line 2: expected 2 values"),
            (
                error("mach,T30\n0.8,1\n", SPECIFICATION, &["--life", "unit"]),
                "rows.csv`, line 1: no column is named `T24`, `unit`; there are mach, T30",
            ),
            (error("mach,T24\n0,1\n", SPECIFICATION, &["--age", "mach"]), "line 2, column `mach`: `0` is no age"),
            (error("mach,T24\n", "point = []", &[]), "spec.toml`: `point`: 0 are listed"),
            (error("mach,T24\n", "points = 1", &[]), "unknown field `points`"),
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn rows_or_a_waveform_are_asked_for() {
        let parsed = |args: &[&str]| Cli::try_parse_from(["x"].iter().chain(args));
        let rows = parsed(&["--rows", "r.csv", "--spec", "s.toml"]).unwrap().args;
        assert!(rows.rows.is_some() && rows.waveform.is_none());
        let waveform = parsed(&["--input", "w.csv", "--fs", "1000", "--unit", "m/s2"]).unwrap().args;
        assert!(waveform.rows.is_none() && waveform.waveform.is_some());
        for (args, expected) in [
            (&[][..], "--input"),
            (&["--rows", "r.csv"], "--spec"),
            (&["--spec", "s.toml"], "--rows"),
            (&["--rows", "r.csv", "--spec", "s.toml", "--fs", "1000"], "cannot be used with"),
            (&["--input", "w.csv", "--fs", "1000", "--unit", "m/s2", "--life", "unit"], "--rows"),
        ] {
            let refused = parsed(args).unwrap_err().to_string();
            assert!(refused.contains(expected), "{args:?}: {refused}");
        }
    }
}
