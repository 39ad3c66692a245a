//! `hark features`: features and diagnosis of a recorded waveform, or features of recorded rows, from the code that the agent runs.
mod line;
mod rows;
mod samples;

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{ArgGroup, builder::PossibleValuesParser};

use self::{
    line::Lines,
    rows::{RowsArgs, RowsError},
    samples::{Format, Samples, SamplesError},
};
use super::{EXIT_CONFIG, EXIT_INTERRUPTED, stop_on_signal};
use crate::{
    causes,
    config::{self, Bearing, ConfigError},
    signal::{
        BLOCK_SAMPLES_MAX, BlockUnit, Setting, bearing,
        diagnosis::Machine,
        severity::{CLASSES, Class},
        speed::{SHARE, SHARE_MAX, Search},
    },
    stop::Stop,
};

/// Arguments of `hark features`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
One line of JSON per block. Features: v_rms (mm/s RMS, 10 to 1000 Hz), v_1x to v_3x (mm/s RMS at multiples of the shaft frequency), a_rms, a_rms.low and \
a_rms.high (g, all, below and above 1 kHz), peak_to_peak (g), crest, kurtosis, skewness, env.rms (g) and env.bpfo, .bpfi, .bsf, .ftf (three harmonics over \
the local median, in --band). What cannot be computed is null: without a speed there are no orders, without a bearing no fault lines. With --track \
`speed_origin` says whether `speed_hz` is that of the line at 1x (tracked) or, where it does not stand out, the one given (nominal).

`fault` is what physical rules make of it: outer, inner, ball, cage, unbalance, misalignment, looseness, gear, cavitation, none, or not_determined with a \
`reason`; each of the `candidates` has its evidence: value, limit, source. `none` is the answer of the rules that were asked; `not_asked` are the faults \
whose rules lacked something: looseness, misalignment and unbalance need --class, those of a bearing --bearing, gear --teeth, cavitation --vanes. Severity \
zones are guidance: verify them.

A bearing is one of those known (6203, 6205), a geometry ELEMENTS,ELEMENT_MM,PITCH_MM[,CONTACT_DEG] (outer ring fixed), or with --config the one of a \
waveform, ASSET/WAVEFORM.

  hark features --input de.npy --fs 12000 --unit '[g]' --rpm 1797 --bearing 6205
  hark features --input pump.i16 --scale 0.00048828125 --fs 26667 --unit '[g]' --rpm 1480 --bearing pump-1/de-h --config /etc/hark --class 2-rigid
  sox in.wav -t f32 - | hark features --input - --format f32 --fs 48000 --unit m/s2 --speed 24.7 | jq -r '[.start_s, .v_rms, .fault] | @tsv'

With --rows, rows of a machine instead: what a forecasting model takes, one line of CSV per row, numbers in full. --spec says which: points with their units, \
value, means, deviations, slopes, drift and age, by operating regime; `features.toml` of a bundle, and the head of agent/src/inference/row_features/\
specification.rs, show its form. Columns: that of --life, row (from 1 on in each life), without (why a row has none: a value that is missing, settings of no \
known regime; its features are empty, nothing is filled in), then the features.

  hark features --rows engines.csv --life unit --spec models/turbofan-rul/with-age/features.toml > features.csv

Exit codes: 0 done, 1 the file failed, 2 the arguments or the configuration have faults, 130 interrupted after whole lines.")]
pub struct FeaturesArgs {
    #[command(flatten)]
    waveform: Option<WaveformArgs>,
    #[command(flatten, next_help_heading = "Rows")]
    rows: Option<RowsArgs>,
}

/// Arguments for a waveform.
#[derive(Clone, Debug, clap::Args)]
#[command(group(ArgGroup::new("turning").args(["speed", "rpm"])))]
pub struct WaveformArgs {
    /// Recorded waveform of one channel; `-` is standard input
    #[arg(long, value_name = "FILE", required = false, required_unless_present = "rows")]
    input: PathBuf,
    /// How it is written; told from the name's ending if not given
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Samples per second
    #[arg(long, value_name = "HZ", value_parser = parse_positive, required = false, required_unless_present = "rows")]
    fs: f64,
    /// Unit of a sample, after --scale: `[g]` or `m/s2`
    #[arg(long, value_parser = parse_unit, required = false, required_unless_present = "rows")]
    unit: BlockUnit,
    /// Every sample is multiplied by it, such as g per count [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = parse_scale, allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Shaft frequency
    #[arg(long, value_name = "HZ", value_parser = parse_positive)]
    speed: Option<f64>,
    /// Shaft speed per minute, instead of --speed
    #[arg(long, value_name = "RPM", value_parser = parse_positive)]
    rpm: Option<f64>,
    /// The speed is nominal: the line at 1x is looked for so far about it, as a part of it, block by block
    #[arg(long, value_name = "PART", value_parser = parse_search, requires = "turning")]
    track: Option<f64>,
    /// Bearing: a name, a geometry or ASSET/WAVEFORM
    #[arg(long, value_name = "BEARING")]
    bearing: Option<String>,
    /// Directory with hark.toml and assets/*.toml, for the bearing of a waveform
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Band of the envelope features, Hz
    #[arg(long, value_name = "LOW,HIGH", value_parser = parse_band, default_value = "2000,5000")]
    band: (f64, f64),
    /// Machine class for the severity zone (ISO 10816-3): 1 above 300 kW, 2 above 15 kW; rigid or flexible support
    #[arg(long, value_parser = PossibleValuesParser::new(CLASSES.map(|class| class.name)))]
    class: Option<String>,
    /// Teeth of the gear on this shaft
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..1_000))]
    teeth: Option<u32>,
    /// Vanes of the pump on this shaft
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..100))]
    vanes: Option<u32>,
    /// Samples of a block
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u32).range(256..=BLOCK_SAMPLES_MAX as i64))]
    block: u32,
}

fn parse_positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0).ok_or_else(|| "expected a number above 0".to_owned())
}

fn parse_search(text: &str) -> Result<f64, String> {
    let within = |part: &f64| *part > 0.0 && *part <= SHARE_MAX;
    text.parse().ok().filter(within).ok_or_else(|| format!("expected a part of the speed up to {SHARE_MAX}, such as {SHARE}"))
}

fn parse_scale(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite() && *value != 0.0).ok_or_else(|| "expected a number other than 0".to_owned())
}

fn parse_unit(text: &str) -> Result<BlockUnit, String> {
    BlockUnit::named(text).ok_or_else(|| "expected an acceleration: `[g]` or `m/s2`".to_owned())
}

fn parse_band(text: &str) -> Result<(f64, f64), String> {
    let band = text.split_once(',').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    band.filter(|(low, high): &(f64, f64)| *low > 0.0 && low < high && high.is_finite())
        .ok_or_else(|| "expected LOW,HIGH such as 2000,5000".to_owned())
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was tried.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was asked for can never be.
    #[error("{0}")]
    Arguments(String),
    /// The file cannot be used.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// There is nothing in it.
    #[error("`{0}` holds no sample")]
    Empty(PathBuf),
    /// Nobody can read what is printed.
    #[error("failed to print")]
    Print(#[from] io::Error),
    /// The rows cannot be used.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// Whether another call would help, with the same file.
    fn is_of_arguments(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Arguments(_) | Self::Rows(RowsError::Read { .. } | RowsError::Specification { .. } | RowsError::NoColumn { .. })
        )
    }
}

/// Prints one line per block, or per row, to standard output.
pub fn main(args: &FeaturesArgs) -> ExitCode {
    let stop = Arc::new(Stop::default());
    // A wait for standard input is not woken by a request to stop: there the signal itself ends the program, after the whole lines that were flushed.
    let is_file = args.waveform.as_ref().is_none_or(|waveform| waveform.input != Path::new("-"));
    let _signals = is_file.then(|| stop_on_signal(stop.clone()));
    let mut out = BufWriter::new(io::stdout().lock());
    let remarks = match (&args.rows, &args.waveform) {
        (Some(rows), _) => rows::run(rows, &stop, &mut out).map(|without| vec![without.remark()]).map_err(Failure::from),
        (None, Some(waveform)) => run(waveform, &stop, &mut out).map(|samples| vec![left_out(samples), waveform.not_asked()]),
        (None, None) => Err(Failure::Arguments("expected --input or --rows".to_owned())),
    };
    match remarks {
        Ok(remarks) => {
            remarks.iter().flatten().for_each(|remark| super::complain(remark));
            ExitCode::SUCCESS
        }
        // Who reads has enough, as with `| head`.
        Err(Failure::Print(error) | Failure::Rows(RowsError::Print(error))) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Interrupted | Failure::Rows(RowsError::Interrupted)) => ExitCode::from(EXIT_INTERRUPTED),
        Err(failure) => {
            super::complain(&causes::chain(&failure));
            if failure.is_of_arguments() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

impl WaveformArgs {
    /// What each machine may have and nothing was asked about. Without a speed nothing is, and the answer says so itself.
    fn not_asked(&self) -> Option<String> {
        let has_speed = self.speed.or(self.rpm).is_some();
        (has_speed && self.class.is_none())
            .then(|| "without --class no rule was asked for looseness, misalignment and unbalance; `none` says nothing of them".to_owned())
    }
}

fn left_out(samples: usize) -> Option<String> {
    (samples > 0).then(|| format!("the last {samples} samples are less than a block and left out; --block takes shorter ones"))
}

/// Writes a line per block until the file ends or `stop` is asked for; gives the number of samples at the end that fill no block. A file that is
/// shorter than a block is one.
fn run(args: &WaveformArgs, stop: &Stop, out: &mut dyn Write) -> Result<usize, Failure> {
    let format = args.format.or_else(|| Format::of(&args.input)).ok_or_else(|| {
        Failure::Arguments(format!(
            "the ending of `{}` does not tell how it is written; --format does: csv, f32, f64, i16 or npy",
            args.input.display()
        ))
    })?;
    if format == Format::I16 && args.scale.is_none() {
        return Err(Failure::Arguments(
            "integers need --scale, the unit per count: the full range over 32768, as for 16 g: --scale 0.00048828125".into(),
        ));
    }
    let bearing = args.bearing.as_deref().map(|text| find_bearing(text, args.config.as_deref())).transpose()?;
    let setting = Setting {
        fs_hz: args.fs,
        unit: args.unit,
        speed_hz: args.speed.or(args.rpm.map(|rpm| rpm / 60.0)),
        bearing: bearing.as_ref(),
        envelope_band_hz: args.band,
    };
    let machine = Machine { class: args.class.as_deref().and_then(Class::named), teeth: args.teeth, vanes: args.vanes, ..Machine::default() };
    let search = args.track.zip(setting.speed_hz).map(|(share, nominal_hz)| Search { nominal_hz, share });
    let mut lines = Lines::new(setting, machine, bearing.as_ref().and_then(bearing::orders), search);
    let mut samples = Samples::open(&args.input, format, args.scale.unwrap_or(1.0))?;
    let length = args.block as usize;
    let mut block = Vec::with_capacity(length);
    let mut first = true;
    loop {
        if stop.requested() {
            return Err(Failure::Interrupted);
        }
        samples.next_block(length, &mut block)?;
        match block.len() {
            0 if first => return Err(Failure::Empty(args.input.clone())),
            left if left < length && !first => return Ok(left),
            // Who reads a live pipe waits for this block.
            _ => lines.write(&block, out).and_then(|()| out.flush())?,
        }
        first = false;
    }
}

/// A known bearing, a geometry, or that of a configured waveform.
fn find_bearing(text: &str, config: Option<&Path>) -> Result<Bearing, Failure> {
    if let Some((_, bearing, _)) = bearing::KNOWN.iter().find(|(name, ..)| *name == text) {
        return Ok(*bearing);
    }
    if let Some((asset, waveform)) = text.split_once('/') {
        let config =
            config.ok_or_else(|| Failure::Arguments(format!("the bearing of `{text}` is in the configuration; name its directory: --config DIR")))?;
        let config = config::load(config)?;
        let waveform = config.assets.get(asset).and_then(|asset| asset.waveforms.iter().find(|candidate| &*candidate.id == waveform));
        return waveform.and_then(|waveform| waveform.bearing).ok_or_else(|| {
            let known = config.assets.iter().flat_map(|(id, asset)| asset.waveforms.iter().map(move |waveform| (id, waveform)));
            let known: Vec<String> =
                known.filter(|(_, waveform)| waveform.bearing.is_some()).map(|(id, waveform)| format!("{id}/{}", waveform.id)).collect();
            Failure::Arguments(format!("`{text}` is no waveform with a bearing; configured are: {}", known.join(", ")))
        });
    }
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    let geometry = match numbers.as_deref() {
        Some(&[elements, element_mm, pitch_mm]) => Some((elements, element_mm, pitch_mm, 0.0)),
        Some(&[elements, element_mm, pitch_mm, contact_deg]) => Some((elements, element_mm, pitch_mm, contact_deg)),
        _ => None,
    };
    let known = bearing::KNOWN.map(|(name, ..)| name).join(", ");
    let (elements, element_mm, pitch_mm, contact_deg) = geometry.ok_or_else(|| {
        Failure::Arguments(format!("bearing `{text}` is not known; known are {known}; others by geometry, as `9,7.94,39.04`: elements, mm, mm"))
    })?;
    let bearing = Bearing { elements: elements as u32, element_mm, pitch_mm, contact_deg };
    let possible = elements.fract() == 0.0 && elements >= 3.0 && (0.0..90.0).contains(&contact_deg) && bearing::orders(&bearing).is_some();
    possible.then_some(bearing).ok_or_else(|| {
        Failure::Arguments(format!(
            "bearing `{text}` is impossible; expected at least 3 elements, their diameter in mm, a larger pitch diameter, and a contact angle below 90 degrees"
        ))
    })
}

#[cfg(test)]
mod tests;
