//! A disk that loses its power: what was made durable is kept, of the rest a random part.
//!
//! Kept are the bytes that an `fsync` or `fdatasync` of their file covered, and the names that an `fsync` of their directory covered. Of what came
//! after, each 4 KiB page of a file is as it was at any moment since, and each change of a name has happened or not: none, all, or all up to some
//! moment, as journals have it. That is what POSIX lets a disk do, and more than any one file system does.
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::trace::{Id, Step};
use crate::support::Random;

const PAGE: u64 = 4096;
/// Number of the top directory.
const TOP: usize = 0;

/// How much of what was not made durable is on the disk all the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Luck {
    /// Nothing.
    Nothing,
    /// Each page with this chance.
    Some(f64),
    /// Everything: as if the program alone had been killed.
    Everything,
}

/// Files and names as the steps so far have left them.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    nodes: Vec<Node>,
    /// What the program sees.
    names: BTreeMap<Name, usize>,
    /// Names of files that are not on this disk: they take nothing of what is written.
    linked_out: BTreeSet<Name>,
    changes: Vec<Change>,
    /// Open files: node and place of the next plain write, by file number.
    open: BTreeMap<i32, (usize, u64)>,
    /// Syncs that run: their node, and what they cover.
    syncs: BTreeMap<Id, (usize, BTreeSet<usize>)>,
    /// Writes under way: node and number of the operation.
    writes: BTreeMap<Id, (usize, usize)>,
    next_operation: usize,
}

/// A name in a directory: number of the directory, and the name.
type Name = (usize, OsString);

/// A file or directory. A directory has no bytes.
#[derive(Debug, Default)]
struct Node {
    is_directory: bool,
    durable: Vec<u8>,
    pending: Vec<Operation>,
    length: u64,
}

/// What was done to a file and is not durable.
#[derive(Debug)]
struct Operation {
    number: usize,
    returned: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Write(u64, Vec<u8>),
    Resize(u64),
}

/// A change of names, with the directories whose sync makes it durable.
#[derive(Debug)]
struct Change {
    number: usize,
    what: Naming,
    waits_for: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Naming {
    Add(Name, usize),
    Move(Name, Name),
    Remove(Name),
}

impl Disk {
    /// An empty directory `dir`.
    pub fn new(dir: &Path) -> Self {
        let top = Node { is_directory: true, ..Node::default() };
        Self {
            dir: dir.to_owned(),
            nodes: vec![top],
            names: BTreeMap::new(),
            linked_out: BTreeSet::new(),
            changes: Vec::new(),
            open: BTreeMap::new(),
            syncs: BTreeMap::new(),
            writes: BTreeMap::new(),
            next_operation: 0,
        }
    }

    /// Takes the next step of the program. Files elsewhere are left out.
    ///
    /// # Errors
    /// When the step does not fit what came before.
    pub fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Opened { fd, path, create, truncate } => self.opened(*fd, path, *create, *truncate)?,
            Step::Duplicated { from, to } => {
                if let Some(file) = self.open.get(from).copied() {
                    self.open.insert(*to, file);
                }
            }
            Step::Closed { fd } => drop(self.open.remove(fd)),
            Step::Seeked { fd, at } => {
                if let Some((_, place)) = self.open.get_mut(fd) {
                    *place = *at;
                }
            }
            Step::WriteBegan { id, fd, at, bytes } => {
                if let Some((node, place)) = self.open.get_mut(fd) {
                    let (node, at) = (*node, at.unwrap_or(*place));
                    *place = at + bytes.len() as u64;
                    let number = self.operation(node, What::Write(at, bytes.clone()), false);
                    self.writes.insert(*id, (node, number));
                }
            }
            Step::WriteEnded { id } => {
                if let Some((node, number)) = self.writes.remove(id) {
                    self.nodes[node]
                        .pending
                        .iter_mut()
                        .filter(|operation| operation.number == number)
                        .for_each(|operation| operation.returned = true);
                }
            }
            Step::Resized { fd, length, grow_only } => {
                if let Some((node, _)) = self.open.get(fd).copied() {
                    let length = if *grow_only { self.nodes[node].length.max(*length) } else { *length };
                    self.operation(node, What::Resize(length), true);
                }
            }
            Step::SyncBegan { id, fd, .. } => {
                if let Some((node, _)) = self.open.get(fd).copied() {
                    let operations = self.nodes[node].pending.iter().filter(|operation| operation.returned).map(|operation| operation.number);
                    let changes = self.changes.iter().filter(|change| change.waits_for.contains(&node)).map(|change| change.number);
                    self.syncs.insert(*id, (node, operations.chain(changes).collect()));
                }
            }
            Step::SyncEnded { id } => {
                if let Some((node, covered)) = self.syncs.remove(id) {
                    self.synced(node, &covered);
                }
            }
            Step::MadeDirectory(path) => {
                if let Some(name) = self.name(path)? {
                    self.make(name, true);
                }
            }
            Step::LinkedOut(path) => {
                if let Some(name) = self.name(path)? {
                    self.make(name.clone(), false);
                    self.linked_out.insert(name);
                }
            }
            Step::Renamed(from, to) => self.renamed(from, to)?,
            Step::Removed(path) => {
                if let Some(name) = self.name(path)? {
                    ensure!(self.names.remove(&name).is_some(), "{} is not there", path.display());
                    let parent = name.0;
                    self.change(Naming::Remove(name), [parent]);
                }
            }
            Step::Said(_) => {}
        }
        Ok(())
    }

    /// Writes to `target` what the disk may hold if the power fails now.
    ///
    /// # Errors
    /// When `target` cannot be written.
    pub fn cut(&self, target: &Path, luck: Luck, random: &mut Random) -> Result<()> {
        let unsure = self.changes.iter().filter(|change| !change.waits_for.is_empty()).count();
        let happened = match luck {
            Luck::Nothing => 0,
            Luck::Everything => unsure,
            // None and all are as likely as some.
            Luck::Some(_) => [0, unsure, random.below(unsure + 1)][random.below(3)],
        };
        let (mut names, mut left) = (BTreeMap::<Name, usize>::new(), happened);
        for change in &self.changes {
            if !change.waits_for.is_empty() {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            match &change.what {
                Naming::Add(name, node) => drop(names.insert(name.clone(), *node)),
                Naming::Move(from, to) => {
                    if let Some(node) = names.remove(from) {
                        names.insert(to.clone(), node);
                    }
                }
                Naming::Remove(name) => drop(names.remove(name)),
            }
        }
        self.write(target, TOP, &names, luck, random)
    }

    fn write(&self, target: &Path, directory: usize, names: &BTreeMap<Name, usize>, luck: Luck, random: &mut Random) -> Result<()> {
        fs::create_dir_all(target).with_context(|| format!("failed to create {}", target.display()))?;
        for ((_, name), node) in names.range((directory, OsString::new())..(directory + 1, OsString::new())) {
            let path = target.join(name);
            if self.nodes[*node].is_directory {
                self.write(&path, *node, names, luck, random)?;
            } else {
                fs::write(&path, self.nodes[*node].after_cut(luck, random)).with_context(|| format!("failed to write {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn opened(&mut self, fd: i32, path: &Path, create: bool, truncate: bool) -> Result<()> {
        self.open.remove(&fd);
        if path == self.dir {
            self.open.insert(fd, (TOP, 0));
            return Ok(());
        }
        let Some(name) = self.name(path)?.filter(|name| !self.linked_out.contains(name)) else { return Ok(()) };
        let node = match self.names.get(&name).copied() {
            Some(node) => node,
            None => {
                ensure!(create, "{} is not there", path.display());
                self.make(name, false)
            }
        };
        if truncate && self.nodes[node].length > 0 {
            self.operation(node, What::Resize(0), true);
        }
        self.open.insert(fd, (node, 0));
        Ok(())
    }

    fn renamed(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (Some(from), Some(to)) = (self.name(from)?, self.name(to)?) else { return Ok(()) };
        let node = self.names.remove(&from).with_context(|| format!("{} is not there", from.1.display()))?;
        self.names.insert(to.clone(), node);
        let parents = [from.0, to.0];
        self.change(Naming::Move(from, to), parents);
        Ok(())
    }

    /// Directory and name of a path; `None` if it is elsewhere.
    fn name(&self, path: &Path) -> Result<Option<Name>> {
        let Ok(inside) = path.strip_prefix(&self.dir) else { return Ok(None) };
        let Some(name) = inside.file_name() else { return Ok(None) };
        let mut directory = TOP;
        for part in inside.parent().into_iter().flat_map(Path::iter) {
            let at = (directory, part.to_owned());
            directory = *self.names.get(&at).with_context(|| format!("{} is in no directory", path.display()))?;
        }
        Ok(Some((directory, name.to_owned())))
    }

    fn make(&mut self, name: Name, is_directory: bool) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node { is_directory, ..Node::default() });
        self.names.insert(name.clone(), node);
        let parent = name.0;
        self.change(Naming::Add(name, node), [parent]);
        node
    }

    fn operation(&mut self, node: usize, what: What, returned: bool) -> usize {
        self.next_operation += 1;
        let node = &mut self.nodes[node];
        match &what {
            What::Write(at, bytes) => node.length = node.length.max(at + bytes.len() as u64),
            What::Resize(length) => node.length = *length,
        }
        node.pending.push(Operation { number: self.next_operation, returned, what });
        self.next_operation
    }

    fn change(&mut self, what: Naming, parents: impl IntoIterator<Item = usize>) {
        self.next_operation += 1;
        self.changes.push(Change { number: self.next_operation, what, waits_for: parents.into_iter().collect() });
    }

    fn synced(&mut self, node: usize, covered: &BTreeSet<usize>) {
        for change in self.changes.iter_mut().filter(|change| covered.contains(&change.number)) {
            change.waits_for.remove(&node);
        }
        let Node { durable, pending, .. } = &mut self.nodes[node];
        for operation in pending.extract_if(.., |operation| covered.contains(&operation.number)) {
            match operation.what {
                What::Write(at, bytes) => put(durable, at, &bytes),
                What::Resize(length) => durable.resize(length as usize, 0),
            }
        }
    }
}

impl Node {
    /// The bytes of the file after a power cut.
    fn after_cut(&self, luck: Luck, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        // How many writes each page has seen, and how many of them are on the disk.
        let mut pages: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for piece in self.pending.iter().flat_map(|operation| pieces(&operation.what)) {
            pages.entry(piece.0).or_default().1 += 1;
        }
        for (_, kept) in pages.values_mut() {
            *kept = match luck {
                Luck::Nothing => 0,
                Luck::Everything => *kept,
                Luck::Some(chance) if random.chance(chance) => *kept,
                Luck::Some(_) => random.below(*kept),
            };
        }
        for operation in &self.pending {
            match &operation.what {
                What::Write(..) => {
                    for (page, at, piece) in pieces(&operation.what) {
                        let (seen, kept) = pages.get_mut(&page).expect("counted above");
                        *seen += 1;
                        if *seen <= *kept {
                            put(&mut bytes, at, piece);
                        }
                    }
                }
                What::Resize(length) if luck == Luck::Everything || (luck != Luck::Nothing && random.chance(0.5)) => {
                    bytes.resize(*length as usize, 0)
                }
                What::Resize(_) => {}
            }
        }
        // A file may have got its length before its bytes.
        if matches!(luck, Luck::Some(_)) && random.chance(0.5) && (bytes.len() as u64) < self.length {
            bytes.resize(self.length as usize, 0);
        }
        bytes
    }
}

/// The parts of a write by page: page, place, bytes.
fn pieces(what: &What) -> Vec<(u64, u64, &[u8])> {
    let What::Write(start, bytes) = what else { return Vec::new() };
    let (mut at, mut rest, mut pieces) = (*start, bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min((PAGE - at % PAGE) as usize));
        pieces.push((at / PAGE, at, piece));
        at += piece.len() as u64;
        rest = after;
    }
    pieces
}

fn put(bytes: &mut Vec<u8>, at: u64, piece: &[u8]) {
    let (at, end) = (at as usize, at as usize + piece.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: Id, fd: i32, at: u64, bytes: &[u8]) -> [Step; 2] {
        [Step::WriteBegan { id, fd, at: Some(at), bytes: bytes.to_vec() }, Step::WriteEnded { id }]
    }

    fn sync(id: Id, fd: i32) -> [Step; 2] {
        [Step::SyncBegan { id, fd, data_only: false }, Step::SyncEnded { id }]
    }

    fn disk(steps: impl IntoIterator<Item = Step>) -> Disk {
        let mut disk = Disk::new(Path::new("/d"));
        steps.into_iter().for_each(|step| disk.take(&step).unwrap());
        disk
    }

    fn open(fd: i32, path: &str) -> [Step; 1] {
        [Step::Opened { fd, path: path.into(), create: true, truncate: false }]
    }

    /// Names and contents after a cut.
    fn after(disk: &Disk, luck: Luck, seed: u64) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        disk.cut(dir.path(), luck, &mut Random::new(seed)).unwrap();
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    #[test]
    fn what_was_synced_is_kept_and_nothing_else_for_sure() {
        let steps = [open(3, "/d/a").to_vec(), open(4, "/d").to_vec(), write(1, 3, 0, b"kept").to_vec(), sync(2, 3).to_vec(), sync(3, 4).to_vec()];
        let disk = disk(steps.concat().into_iter().chain(write(5, 3, 2, b"NEW")));
        assert_eq!(after(&disk, Luck::Nothing, 1), [("a".to_owned(), b"kept".to_vec())].into());
        assert_eq!(after(&disk, Luck::Everything, 1), [("a".to_owned(), b"keNEW".to_vec())].into());
    }

    #[test]
    fn a_name_without_a_sync_of_its_directory_may_be_gone() {
        let disk = disk([open(3, "/d/a").to_vec(), write(1, 3, 0, b"kept").to_vec(), sync(2, 3).to_vec()].concat());
        assert_eq!(after(&disk, Luck::Nothing, 1), BTreeMap::new());
        let found: BTreeSet<usize> = (0..50).map(|seed| after(&disk, Luck::Some(0.5), seed).len()).collect();
        assert_eq!(found, [0, 1].into());
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_began() {
        let during =
            [Step::SyncBegan { id: 2, fd: 3, data_only: true }].into_iter().chain(write(5, 3, 0, b"late")).chain([Step::SyncEnded { id: 2 }]);
        let steps = open(3, "/d/a").into_iter().chain(open(4, "/d")).chain(sync(9, 4)).chain(during);
        assert_eq!(after(&disk(steps), Luck::Nothing, 1), [("a".to_owned(), Vec::new())].into());
    }

    #[test]
    fn pages_are_kept_or_lost_one_by_one() {
        let steps = open(3, "/d/a").into_iter().chain(open(4, "/d")).chain(sync(9, 4)).chain(write(1, 3, 0, &[7; 3 * 4096]));
        let disk = disk(steps);
        let pages = |seed| after(&disk, Luck::Some(0.5), seed).remove("a").unwrap().chunks(4096).map(|page| page[0]).collect::<Vec<_>>();
        let found: BTreeSet<Vec<u8>> = (0..200).map(pages).collect();
        assert!(found.contains(&vec![0, 7, 0]) || found.contains(&vec![0, 7]), "{found:?}");
        assert!(found.len() >= 8, "{found:?}");
    }

    #[test]
    fn a_moved_name_is_the_old_one_or_the_new_one() {
        let moved = [Step::Renamed("/d/a".into(), "/d/b".into())];
        let disk = disk(open(3, "/d/a").into_iter().chain(open(4, "/d")).chain(sync(9, 4)).chain(moved));
        let found: BTreeSet<Vec<String>> = (0..50).map(|seed| after(&disk, Luck::Some(0.5), seed).into_keys().collect()).collect();
        assert_eq!(found, [vec!["a".to_owned()], vec!["b".to_owned()]].into());
    }
}
