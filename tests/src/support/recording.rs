//! Recorded files for the scenarios: made here, and real ones where a folder with them lies beside the clone.
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Random, in_clone};

/// A file of separated values with a time column, and the names of its other columns.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file.
    pub file: PathBuf,
    /// Columns that carry measurements, in order.
    pub columns: Vec<String>,
    /// Rows after the header.
    pub rows: usize,
}

impl Recording {
    /// Writes `rows` rows of a machine with coupled values to `file`, one a second; `seed` sets the noise. From `fault_row` on one value drifts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn synthetic(file: PathBuf, seed: u64, rows: usize, fault_row: usize) -> Result<Self> {
        let columns: Vec<String> = ["Flow", "Pressure", "Current", "Voltage", "Temperature", "Vibration RMS"].map(str::to_owned).into();
        let mut text = format!("datetime;{}\n", columns.join(";"));
        let mut random = Random::new(seed);
        let mut load = 0.0_f64;
        for row in 0..rows {
            load = 0.9 * load + 0.1 * random.unit();
            let drift = row.saturating_sub(fault_row) as f64 * 0.01;
            let seconds = row % 60;
            let minutes = row / 60;
            let values = [
                120.0 + 20.0 * load + random.unit(),
                3.0 - load + 0.1 * random.unit(),
                5.0 + 2.0 * load + 0.1 * random.unit() + drift,
                230.0 + random.unit(),
                60.0 + 5.0 * load + 0.2 * random.unit(),
                0.8 + 0.05 * random.unit() + drift,
            ];
            let cells: Vec<String> = values.iter().map(|value| format!("{value:.6}")).collect();
            writeln!(text, "2026-03-01 {:02}:{:02}:{seconds:02};{}", minutes / 60, minutes % 60, cells.join(";"))?;
        }
        fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
        Ok(Self { file, columns, rows })
    }

    /// Unpacks a real recording, `name` without `.csv.gz`, from the evaluation data beside the clone; `None` where there is none.
    ///
    /// # Errors
    /// When it is there but cannot be unpacked.
    pub fn real(name: &str, dir: &Path) -> Result<Option<Self>> {
        let packed = in_clone("../shared/data/skab").join(format!("{name}.csv.gz"));
        if !packed.exists() {
            return Ok(None);
        }
        let unpacked = Command::new("gzip").arg("-dc").arg(&packed).output().context("failed to start gzip")?;
        ensure!(unpacked.status.success(), "gzip could not unpack {}", packed.display());
        let text = String::from_utf8(unpacked.stdout).context("the recording is no text")?;
        let header = text.lines().next().context("the recording is empty")?;
        let columns = header.split(';').filter(|name| !matches!(*name, "datetime" | "anomaly" | "changepoint")).map(str::to_owned).collect();
        let rows = text.lines().filter(|line| !line.trim().is_empty()).count() - 1;
        let file = dir.join(format!("{}.csv", name.replace('/', "-")));
        fs::write(&file, &text)?;
        Ok(Some(Self { file, columns, rows }))
    }

    /// An asset file with one scored point per column; each row gives a prediction, so that all can be compared. It is patient: a file played on a
    /// busy machine pauses, and silence is no row of the file.
    pub fn asset_file(&self, id: &str) -> String {
        let mut text = format!(
            "id = \"{id}\"\ngrid = \"1s\"\nstale_after = \"10m\"\npredict_every = \"0s\"\n\n[commissioning]\nrows = 400\n\n[alarm]\non_delay = \"5s\"\noff_delay = \"10s\"\n"
        );
        for (index, column) in self.columns.iter().enumerate() {
            text.push_str(&format!("\n[[point]]\nid = \"p{index}\"\nunit = \"1\"\ncolumn = \"{column}\"\n"));
        }
        text
    }
}
