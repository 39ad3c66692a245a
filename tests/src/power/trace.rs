//! What a program did to its files, read from the output of `strace -f -xx -y`. Pure.
//!
//! Threads overlap, so a call has a begin and an end. What matters of them differs: a write may be on the disk from its begin on, and a sync covers
//! what was written before it began, from its end on.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

/// The calls to record: all that change files or make them durable, and those that say which file a number means.
pub const CALLS: &str = "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,sync,\
syncfs,msync,copy_file_range,sendfile,splice,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,close,dup,dup2,dup3,fcntl";

/// Number of a call in the trace.
pub type Id = usize;

/// A step of the program, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `fd` now means the file `path`.
    Opened {
        /// File number.
        fd: i32,
        /// Absolute.
        path: PathBuf,
        /// Made if absent.
        create: bool,
        /// Emptied.
        truncate: bool,
    },
    /// `to` now means the same as `from`.
    Duplicated {
        /// Known number.
        from: i32,
        /// New number.
        to: i32,
    },
    /// `fd` means nothing any more.
    Closed {
        /// File number.
        fd: i32,
    },
    /// The next bytes without a place of their own go there.
    Seeked {
        /// File number.
        fd: i32,
        /// Place.
        at: u64,
    },
    /// Bytes go to a file; where no place is given, to where the last ones ended.
    WriteBegan {
        /// Call.
        id: Id,
        /// File number.
        fd: i32,
        /// Place.
        at: Option<u64>,
        /// What.
        bytes: Vec<u8>,
    },
    /// The write has returned.
    WriteEnded {
        /// Call.
        id: Id,
    },
    /// The file has this length now.
    Resized {
        /// File number.
        fd: i32,
        /// Bytes.
        length: u64,
        /// It never gets shorter by it.
        grow_only: bool,
    },
    /// Asks that what was written so far be durable.
    SyncBegan {
        /// Call.
        id: Id,
        /// File number, of a directory too.
        fd: i32,
        /// `fdatasync`: only what is needed to read the bytes back.
        data_only: bool,
    },
    /// It is.
    SyncEnded {
        /// Call.
        id: Id,
    },
    /// A directory was made.
    MadeDirectory(PathBuf),
    /// A name for a file that is not on this disk.
    LinkedOut(PathBuf),
    /// Something has another name.
    Renamed(PathBuf, PathBuf),
    /// A name of a file or directory is gone.
    Removed(PathBuf),
    /// The program wrote this line on its standard output.
    Said(String),
}

/// Reads a trace. What a call means that is not known here is not guessed: it is an error if it touches a file under `dir`.
///
/// # Errors
/// When the trace does not look as expected.
pub fn parse(trace: &str, dir: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut unfinished: BTreeMap<&str, (Id, String)> = BTreeMap::new();
    for (id, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        let step = if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            let call = Call::new(begun).with_context(|| format!("line {id}"))?;
            unfinished.insert(thread, (id, begun.to_owned()));
            call.began(id, &mut steps)
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (begun_id, mut text) = unfinished.remove(thread).with_context(|| format!("line {id} resumes nothing"))?;
            text.push_str(resumed.split_once(" resumed>").context("a resumed call")?.1);
            Call::new(&text).and_then(|call| call.ended(begun_id, dir, &mut steps))
        } else {
            Call::new(rest).and_then(|call| call.began(id, &mut steps).and_then(|()| call.ended(id, dir, &mut steps)))
        };
        step.with_context(|| format!("line {id} of the trace: {}", line.chars().take(300).collect::<String>()))?;
    }
    Ok(steps)
}

/// One call as it stands in a line, whole or without its result.
struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    /// `None` while it runs or if it failed.
    result: Option<i64>,
    /// The whole line, to look for paths.
    text: &'a str,
}

impl<'a> Call<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let (name, rest) = text.split_once('(').context("no call")?;
        // Strings and paths are in hexadecimal: no bracket in them, and no equals sign.
        let (arguments, result) = match rest.rsplit_once(" = ") {
            Some((arguments, result)) => (arguments.trim_end().strip_suffix(')').context("no end of the arguments")?, Some(result)),
            None => (rest, None),
        };
        let result = result.and_then(|result| result.split(['<', ' ']).next()?.parse().ok()).filter(|result: &i64| *result >= 0);
        Ok(Self { name, arguments: arguments.split(", ").collect(), result, text })
    }

    /// What counts from the begin of the call.
    fn began(&self, id: Id, steps: &mut Vec<Step>) -> Result<()> {
        match self.name {
            "write" if self.fd()? == 1 => {
                let said = String::from_utf8_lossy(&self.bytes()?).into_owned();
                steps.extend(said.lines().filter(|line| !line.is_empty()).map(|line| Step::Said(line.to_owned())));
            }
            "write" | "writev" => steps.push(Step::WriteBegan { id, fd: self.fd()?, at: None, bytes: self.bytes()? }),
            "pwrite64" => {
                let at = self.arguments.get(3).context("no place")?.parse()?;
                steps.push(Step::WriteBegan { id, fd: self.fd()?, at: Some(at), bytes: self.bytes()? });
            }
            "fsync" | "fdatasync" => steps.push(Step::SyncBegan { id, fd: self.fd()?, data_only: self.name == "fdatasync" }),
            // At its begin: another thread may be given the number before the end is seen.
            "close" => steps.push(Step::Closed { fd: self.fd()? }),
            _ => {}
        }
        Ok(())
    }

    /// What counts from its end.
    fn ended(&self, id: Id, dir: &Path, steps: &mut Vec<Step>) -> Result<()> {
        let Some(result) = self.result else { return self.failed(dir) };
        let step = match self.name {
            "write" if self.fd()? == 1 => return Ok(()),
            "write" | "writev" | "pwrite64" => {
                ensure!(self.bytes()?.len() as i64 == result, "a write that wrote a part");
                Step::WriteEnded { id }
            }
            "fsync" | "fdatasync" => Step::SyncEnded { id },
            "openat" | "open" | "creat" => {
                let flags = self.arguments.get(2 - usize::from(self.name != "openat")).copied().unwrap_or_default();
                let create = self.name == "creat" || flags.contains("O_CREAT");
                let truncate = self.name == "creat" || flags.contains("O_TRUNC");
                ensure!(!flags.contains("O_APPEND") || !self.touches(dir), "a file that is appended to");
                Step::Opened { fd: i32::try_from(result)?, path: self.opened()?, create, truncate }
            }
            "dup" | "dup2" | "dup3" => Step::Duplicated { from: self.fd()?, to: i32::try_from(result)? },
            "fcntl" if self.arguments.get(1).is_some_and(|what| what.starts_with("F_DUPFD")) => {
                Step::Duplicated { from: self.fd()?, to: i32::try_from(result)? }
            }
            "ftruncate" => Step::Resized { fd: self.fd()?, length: self.arguments.get(1).context("no length")?.parse()?, grow_only: false },
            "fallocate" => {
                ensure!(self.arguments.get(1) == Some(&"0"), "fallocate that does more than to allocate");
                let number = |index: usize| self.arguments.get(index).context("no number")?.parse::<u64>().context("no number");
                Step::Resized { fd: self.fd()?, length: number(2)? + number(3)?, grow_only: true }
            }
            "mkdir" => Step::MadeDirectory(self.path(0)?),
            "mkdirat" => Step::MadeDirectory(self.path_at(0)?),
            "symlink" => Step::LinkedOut(self.path(1)?),
            "rename" => Step::Renamed(self.path(0)?, self.path(1)?),
            "renameat" | "renameat2" => Step::Renamed(self.path_at(0)?, self.path_at(2)?),
            "unlink" | "rmdir" => Step::Removed(self.path(0)?),
            "unlinkat" => Step::Removed(self.path_at(0)?),
            // No barrier: it flushes neither the drive nor the length of the file.
            "sync_file_range" | "fcntl" | "close" => return Ok(()),
            "lseek" => Step::Seeked { fd: self.fd()?, at: result as u64 },
            name => {
                ensure!(!self.touches(dir), "{name} is not known here");
                return Ok(());
            }
        };
        steps.push(step);
        Ok(())
    }

    /// Calls that fail change nothing; a write or sync that fails is beyond what is replayed here.
    fn failed(&self, dir: &Path) -> Result<()> {
        let matters = matches!(self.name, "pwrite64" | "fsync" | "fdatasync" | "ftruncate") && self.touches(dir);
        if matters { bail!("a call that failed") } else { Ok(()) }
    }

    fn touches(&self, dir: &Path) -> bool {
        let hex: String = dir.display().to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        self.text.contains(&hex)
    }

    fn fd(&self) -> Result<i32> {
        Ok(self.arguments.first().and_then(|text| text.split('<').next()).context("no file number")?.parse()?)
    }

    /// All strings of the arguments, joined: one for a write, one per part for a `writev`.
    fn bytes(&self) -> Result<Vec<u8>> {
        ensure!(!self.text.contains("\"..."), "strace has cut the bytes off; raise -s");
        let strings = self.text.split('"').skip(1).step_by(2);
        strings.map(unhex).collect::<Result<Vec<_>>>().map(|parts| parts.concat())
    }

    fn path(&self, argument: usize) -> Result<PathBuf> {
        let text = self.arguments.get(argument).context("no path")?;
        let path = string(text)?;
        ensure!(path.is_absolute(), "a path that is not absolute");
        Ok(path)
    }

    /// The path in two arguments, a directory's number and a name in it.
    fn path_at(&self, argument: usize) -> Result<PathBuf> {
        let directory = self.arguments.get(argument).context("no directory")?;
        let directory = directory.split_once('<').context("no directory")?.1.trim_end_matches("(deleted)").trim_end_matches('>');
        Ok(bytes_path(unhex(directory)?).join(string(self.arguments.get(argument + 1).context("no name")?)?))
    }

    fn opened(&self) -> Result<PathBuf> {
        let result = self.text.rsplit_once(" = ").context("no result")?.1;
        let path = result.split_once('<').context("no path in the result")?.1.trim_end().trim_end_matches("(deleted)").trim_end_matches('>');
        Ok(bytes_path(unhex(path)?))
    }
}

fn string(argument: &str) -> Result<PathBuf> {
    let inner = argument.strip_prefix('"').and_then(|text| text.strip_suffix('"')).context("no string")?;
    Ok(bytes_path(unhex(inner)?))
}

fn bytes_path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

/// `\x68\x69` to `hi`. What is not escaped, such as the `:` in `pipe:[1]`, stands for itself.
fn unhex(text: &str) -> Result<Vec<u8>> {
    let (text, mut bytes, mut at) = (text.as_bytes(), Vec::with_capacity(text.len() / 4), 0);
    while at < text.len() {
        if text[at..].starts_with(b"\\x") && at + 4 <= text.len() {
            let digits = std::str::from_utf8(&text[at + 2..at + 4])?;
            bytes.push(u8::from_str_radix(digits, 16).with_context(|| format!("{digits} is not hexadecimal"))?);
            at += 4;
        } else {
            bytes.push(text[at]);
            at += 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn calls_that_overlap_have_a_begin_and_an_end() {
        let (file, other) = (hex("/d/a"), hex("/d/b"));
        let trace = format!(
            "7 openat(AT_FDCWD<{d}>, \"{file}\", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 3<{file}>\n\
             7 fsync(3<{file}> <unfinished ...>\n\
             8 pwrite64(3<{file}>, \"{hi}\", 2, 5) = 2\n\
             7 <... fsync resumed>)              = 0\n\
             8 write(1<{pipe}>, \"{said}\", 3) = 3\n\
             8 renameat(AT_FDCWD<{d}>, \"{file}\", AT_FDCWD<{d}>, \"{other}\") = 0\n\
             8 unlinkat(4<{d}>, \"{b}\", 0) = 0\n\
             8 unlink(\"{other}\") = -1 ENOENT (No such file or directory)\n\
             8 +++ exited with 0 +++\n",
            d = hex("/d"),
            hi = hex("hi"),
            pipe = hex("pipe:[1]"),
            said = hex("ok\n"),
            b = hex("b"),
        );
        let expected = [
            Step::Opened { fd: 3, path: "/d/a".into(), create: true, truncate: false },
            Step::SyncBegan { id: 1, fd: 3, data_only: false },
            Step::WriteBegan { id: 2, fd: 3, at: Some(5), bytes: b"hi".to_vec() },
            Step::WriteEnded { id: 2 },
            Step::SyncEnded { id: 1 },
            Step::Said("ok".into()),
            Step::Renamed("/d/a".into(), "/d/b".into()),
            Step::Removed("/d/b".into()),
        ];
        assert_eq!(parse(&trace, Path::new("/d")).unwrap(), expected);
    }

    #[test]
    fn an_unknown_call_on_the_files_is_refused() {
        let trace = format!("7 sendfile(3<{}>, 4, NULL, 9) = 9\n", hex("/d/a"));
        assert!(parse(&trace, Path::new("/d")).is_err());
        assert_eq!(parse(&trace, Path::new("/elsewhere")).unwrap(), []);
    }
}
