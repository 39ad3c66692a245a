//! `hark model`: which bundles there are, what each says of itself, and whether it can be trusted.
pub(crate) mod card;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

use super::{ConfigArgs, EXIT_CONFIG, complain};
use crate::{
    causes,
    config::{self, Asset, Config},
    inference::{self, BundleError, Manifest, verification},
    words::{bytes, table},
};

/// Folders below the directory of models that are looked into.
const DEPTH: usize = 3;

/// Arguments of `hark model`.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// The bundles in the configured directory of models, and the machines that name them.
    List(ListArgs),
    /// Look at a bundle as the agent does before it trusts it, in a process with limits of memory and time.
    Verify(VerifyArgs),
    /// The card of a bundle: what it is for, needs, was trained on and reached. Nothing is run.
    Show(ShowArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Looked at are the manifest, sizes, the SHA-256 of every file, operators, shapes, the golden output (twice on one state), that all that comes out is finite, \
and how long a run takes; with --asset also whether the machine has the points in their units, the rate and the age that the model needs.

  hark model verify /etc/hark/models/turbofan-rul/with-age --asset engine-4 --config /etc/hark

Exit codes: 0 it can be used, 1 it is refused, with the reason, 2 the arguments or the configuration have faults.")]
struct VerifyArgs {
    /// Folder of the bundle
    folder: PathBuf,
    /// And whether this machine has what it needs
    #[arg(long, value_name = "ID")]
    asset: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct ShowArgs {
    /// Folder of the bundle
    folder: PathBuf,
}

/// Runs the subcommand.
pub fn main(args: &ModelArgs) -> ExitCode {
    match &args.action {
        Action::List(args) => with_config(&args.config, |config| say(&list(&config))),
        Action::Verify(args) => verify(args),
        Action::Show(args) => match card::of(&args.folder) {
            Ok(card) => say(&card),
            Err(error) => refuse(&args.folder, &causes::chain(&error)),
        },
    }
}

fn with_config(args: &ConfigArgs, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match config::load(&args.config) {
        Ok(config) => then(config),
        Err(faults) => {
            complain(&faults.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn say(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("failed to print: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn refuse(folder: &Path, reason: &str) -> ExitCode {
    complain(&format!("the bundle in `{}` is refused: {reason}", folder.display()));
    ExitCode::FAILURE
}

fn verify(args: &VerifyArgs) -> ExitCode {
    let run_us = match verification::in_child(&args.folder) {
        Ok(run_us) => run_us,
        Err(reason) => return refuse(&args.folder, &reason),
    };
    let manifest = match Manifest::read(&args.folder) {
        Ok(manifest) => manifest,
        Err(error) => return refuse(&args.folder, &causes::chain(&error)),
    };
    let text = format!("{} {}: whole, golden output reproduced twice, {run_us:.0} µs a run\n", manifest.name, manifest.version);
    let Some(id) = &args.asset else { return say(&text) };
    with_config(&args.config, |config| match config.assets.get(id.as_str()) {
        Some(asset) => match inference::refusal_for(&args.folder, asset) {
            Ok(None) => say(&format!("{text}{id} has what it needs\n")),
            Ok(Some(reason)) => refuse(&args.folder, &format!("for {id}: {reason}")),
            Err(error) => refuse(&args.folder, &causes::chain(&error)),
        },
        None => {
            let known: Vec<&str> = config.assets.keys().map(|id| &**id).collect();
            complain(&format!("no machine is called `{id}`; configured are: {}", known.join(", ")));
            ExitCode::from(EXIT_CONFIG)
        }
    })
}

/// A line per bundle, in the order of their folders.
fn list(config: &Config) -> String {
    let mut folders = Vec::new();
    find(&config.models, DEPTH, &mut folders);
    folders.sort();
    if folders.is_empty() {
        return format!("There is no bundle in `{}`.\n", config.models.display());
    }
    let row = |folder: &PathBuf| {
        let name = folder.strip_prefix(&config.models).unwrap_or(folder).display().to_string();
        let users = config.assets.values().filter(|asset| uses(asset, &name)).map(|asset| asset.id.to_string()).collect::<Vec<_>>().join(", ");
        match Manifest::read(folder) {
            Ok(manifest) => {
                let size = manifest.files.keys().filter_map(|file| Some(fs::metadata(folder.join(file)).ok()?.len())).sum();
                vec![name, manifest.name, manifest.version, manifest.role, bytes(size), users]
            }
            Err(error) => vec![name, causes::chain(&error), "–".to_owned(), "–".to_owned(), "–".to_owned(), users],
        }
    };
    table(&["folder", "name", "version", "role", ">size", "used by"], &folders.iter().map(row).collect::<Vec<_>>())
}

/// Stage A serves every machine with scored points.
fn uses(asset: &Asset, folder: &str) -> bool {
    let named = asset.forecast.model.as_ref().is_some_and(|model| *model.folder == *folder);
    named || (folder == inference::STAGE_A && asset.points.iter().any(|point| point.scored))
}

fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| depth > 0 && path.is_dir()) {
        if Manifest::is_in(&path) {
            found.push(path);
        } else {
            find(&path, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn bundles_are_listed_with_who_uses_them() {
        let mut config = config::load(&repository().join("config")).unwrap();
        config.models = repository().join("models");
        let text = list(&config);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
        assert_eq!(lines[0], ["folder", "name", "version", "role", "size", "used by"]);
        assert!(lines.iter().any(|line| (line[0], line[3], line[5..].first()) == ("stage-a", "anomaly", Some(&"fan-7, pump-1"))), "{text}");
        assert!(lines.iter().any(|line| line[0] == "turbofan-rul/with-age" && line[3] == "forecast" && line.len() == 5), "{text}");
        config.models = repository().join("config");
        assert!(list(&config).starts_with("There is no bundle in"));
    }

    #[test]
    fn a_folder_that_is_no_bundle_is_named_in_the_list() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("odd")).unwrap();
        fs::write(dir.path().join("odd/manifest.toml"), "schema = 1").unwrap();
        let mut config = config::load(&repository().join("config")).unwrap();
        config.models = dir.path().to_owned();
        assert!(list(&config).contains("is not a valid manifest"), "{}", list(&config));
    }
}
