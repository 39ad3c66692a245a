//! A power cut without a power switch: the writes and syncs of a real run are recorded with `strace`, and disks are built from them as a cut at any
//! moment may leave them.
mod disk;
mod trace;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

pub use self::{
    disk::{Disk, Luck},
    trace::Step,
};

/// Runs `program` and gives all that it did to files under `dir`, which is empty, and said on its standard output.
///
/// # Errors
/// Without `strace` (Debian package of that name), when the program fails, or does what cannot be replayed.
pub fn record(dir: &Path, trace_file: &Path, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Vec<Step>> {
    let mut command = Command::new("strace");
    // All strings in hexadecimal and whole; numbers of files with their paths.
    command.args(["-f", "-q", "-xx", "-y", "-s", "16777216", "-e", &format!("trace={}", trace::CALLS), "-o"]).arg(trace_file);
    let output =
        command.arg(program).args(arguments).envs(environment.iter().copied()).output().context("failed to start strace; is it installed?")?;
    let tail =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    ensure!(output.status.success(), "{} ended with {}\n{}\n{}", program.display(), output.status, tail(&output.stdout), tail(&output.stderr));
    let text = std::fs::read_to_string(trace_file).context("failed to read the trace")?;
    trace::parse(&text, dir)
}

/// All files under `dir` with their bytes, and all directories, by relative path.
///
/// # Errors
/// When something cannot be read.
pub fn contents(dir: &Path) -> Result<Vec<(PathBuf, Option<Vec<u8>>)>> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let relative = path.strip_prefix(dir)?.to_owned();
            if path.is_dir() {
                open.push(path);
                found.push((relative, None));
            } else {
                found.push((relative, Some(std::fs::read(path)?)));
            }
        }
    }
    found.sort();
    Ok(found)
}
