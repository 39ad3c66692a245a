//! The one way in which the log makes a file survive a power cut. Tests see here what is durable, and take the rest away.
use std::{fs::File, io, path::Path};

/// Makes the content of `file`, which lies at `path`, durable. The path serves the tests alone.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if recorder::is_taken_out() {
        return Ok(());
    }
    #[cfg(test)]
    recorder::ask(path)?;
    file.sync_data()?;
    durable(path);
    Ok(())
}

/// Makes a file with all that is known of it durable, or the entries of a directory.
pub(super) fn sync_all(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    recorder::ask(path)?;
    File::open(path)?.sync_all()?;
    durable(path);
    Ok(())
}

#[cfg(not(test))]
fn durable(_path: &Path) {}

#[cfg(test)]
use recorder::durable;

/// What a power cut leaves of the files under a directory: what was made durable, and of all that was written since some pages and not others.
#[cfg(test)]
pub(super) mod recorder {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs, io,
        path::{Path, PathBuf},
        sync::{Mutex, MutexGuard, PoisonError},
    };

    const PAGE: usize = 4096;

    /// Content that is durable, by file, under each directory that is recorded.
    static RECORDED: Mutex<BTreeMap<PathBuf, BTreeMap<PathBuf, Vec<u8>>>> = Mutex::new(BTreeMap::new());

    /// Directories under which nothing can be made durable.
    static REFUSED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

    fn refused() -> MutexGuard<'static, BTreeSet<PathBuf>> {
        REFUSED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing under `root` can be made durable.
    pub(in crate::buffer) fn refuse(root: &Path) {
        refused().insert(root.to_owned());
    }

    /// It can again.
    pub(in crate::buffer) fn allow(root: &Path) {
        refused().remove(root);
    }

    /// What the disk says.
    pub(super) fn ask(path: &Path) -> io::Result<()> {
        if refused().iter().any(|root| path.starts_with(root)) { Err(rustix::io::Errno::IO.into()) } else { Ok(()) }
    }

    fn recorded() -> MutexGuard<'static, BTreeMap<PathBuf, BTreeMap<PathBuf, Vec<u8>>>> {
        RECORDED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this run shall show that the tests notice a missing barrier: `.ci/run` sets the variable and expects them to fail.
    pub(super) fn is_taken_out() -> bool {
        std::env::var_os("HARK_TEST_WITHOUT_BARRIER").is_some()
    }

    /// Records what becomes durable under `root` from now on. What lies there already is.
    pub(in crate::buffer) fn start(root: &Path) {
        let mut files = BTreeMap::new();
        look(root, &mut files);
        recorded().insert(root.to_owned(), files);
    }

    fn look(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, files);
            } else {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }

    /// Forgets it.
    pub(in crate::buffer) fn end(root: &Path) {
        recorded().remove(root);
    }

    pub(super) fn durable(path: &Path) {
        for (root, files) in recorded().iter_mut() {
            if path.starts_with(root) && path.is_file() {
                files.insert(path.to_owned(), fs::read(path).unwrap_or_default());
            }
        }
    }

    /// Copies `root` to `target` as a power cut at this moment leaves it: of the pages of `db` files that are not durable each is there or not, by chance.
    /// Directory entries and small files, which are replaced as a whole, are taken as they are: the replay of recorded system calls looks at these.
    pub(in crate::buffer) fn cut(root: &Path, target: &Path, random: &mut fastrand::Rng) {
        let files = recorded().get(root).cloned().unwrap_or_default();
        copy(root, target, &files, random);
    }

    fn copy(from: &Path, to: &Path, durable: &BTreeMap<PathBuf, Vec<u8>>, random: &mut fastrand::Rng) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &target, durable, random);
            } else if path.file_name().is_some_and(|name| name == "db") {
                let written = fs::read(&path).unwrap();
                fs::write(target, torn(durable.get(&path).map_or(&[][..], Vec::as_slice), &written, random)).unwrap();
            } else {
                fs::copy(&path, target).unwrap();
            }
        }
    }

    /// `written` where chance wrote it back, `durable` where not.
    fn torn(durable: &[u8], written: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut content = written.to_vec();
        let share = random.f64();
        for (at, page) in content.chunks_mut(PAGE).enumerate() {
            let before = durable.get(at * PAGE..).unwrap_or_default();
            let before = &before[..before.len().min(page.len())];
            if page[..before.len()] != *before || page.len() > before.len() {
                if random.f64() < share {
                    continue;
                }
                page[..before.len()].copy_from_slice(before);
                page[before.len()..].fill(0);
            }
        }
        content
    }
}
