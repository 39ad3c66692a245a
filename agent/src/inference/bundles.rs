//! Where bundles are found by hash: the one that the models directory offers now, and copies of those used before.
//!
//! Inputs that were stored before a new bundle came are processed with the one that was in force then, also when the agent is updated with a
//! backlog in its buffer. So each bundle is copied into the data directory before a change record names it.
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use hark_protocol::topics::Name;

use super::{Bundle, BundleError, InferenceError};

/// Folder of the Stage A bundle under the models directory.
pub const STAGE_A: &str = "stage-a";
/// Copies under the data directory.
const COPIES: &str = "bundles";

/// The bundles that can be used.
#[derive(Clone, Debug)]
pub struct Bundles {
    models: PathBuf,
    copies: Option<PathBuf>,
}

impl Bundles {
    /// Those under `models`, without copies of earlier ones.
    pub fn offered_in(models: &Path) -> Self {
        Self { models: models.to_owned(), copies: None }
    }

    /// The same with copies under the data directory `data`.
    pub fn with_copies_in(models: &Path, data: &Path) -> Self {
        Self { copies: Some(data.join(COPIES)), ..Self::offered_in(models) }
    }

    /// The Stage A bundle that the models directory offers.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where it is refused.
    pub fn offered(&self) -> Result<Bundle, InferenceError> {
        self.offered_at(STAGE_A)
    }

    /// The bundle in `folder` of the models directory.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where it is refused.
    pub fn offered_at(&self, folder: &str) -> Result<Bundle, InferenceError> {
        open(&self.folder(folder))
    }

    /// Where the models directory has `folder`.
    pub(super) fn folder(&self, folder: &str) -> PathBuf {
        self.models.join(folder)
    }

    /// The Stage A bundle with this hash: a copy of it, or the one offered if it is that one.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where there is none, or it is refused.
    pub fn by_hash(&self, hash: &str) -> Result<Bundle, InferenceError> {
        self.with_hash(STAGE_A, hash)
    }

    /// The bundle with this hash: a copy of it, or the one in `folder` of the models directory if it is that one.
    ///
    /// # Errors
    /// [`InferenceError::Bundle`] where there is none, or it is refused.
    pub(super) fn with_hash(&self, folder: &str, hash: &str) -> Result<Bundle, InferenceError> {
        if let Some(copy) = self.copy(hash) {
            return Ok(copy);
        }
        let offered = self.offered_at(folder)?;
        if offered.hash() == hash {
            return Ok(offered);
        }
        let source = BundleError::Unusable { bundle: hash.to_owned(), what: "neither a copy nor the models directory has it".to_owned() };
        Err(InferenceError::Bundle { folder: self.folder(folder), source: Box::new(source) })
    }

    /// The copy with this hash, if there is one that can be used.
    pub(super) fn copy(&self, hash: &str) -> Option<Bundle> {
        // A hash comes from the log or from a checkpoint; as part of a path it must be one.
        let is_hash = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let copy = self.copies.as_ref().map(|copies| copies.join(hash)).filter(|copy| is_hash && copy.exists())?;
        match open(&copy) {
            Ok(bundle) if bundle.hash() == hash => return Some(bundle),
            Ok(_) => tracing::error!(folder = %copy.display(), "the copy of a bundle is another one"),
            Err(error) => tracing::error!(%error, "the copy of a bundle cannot be used"),
        }
        None
    }

    /// Copies the offered Stage A `bundle` and those that `assigned` has for machines, durably; and gives up copies of all others except those in `kept`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep(&self, bundle: &Bundle, assigned: &[(Name, Bundle)], kept: &[&str]) -> io::Result<()> {
        self.copy_of(bundle, STAGE_A)?;
        assigned.iter().try_for_each(|(folder, bundle)| self.copy_of(bundle, folder))?;
        let Some(copies) = &self.copies else { return Ok(()) };
        let in_use: Vec<&str> = std::iter::once(bundle.hash()).chain(assigned.iter().map(|(_, bundle)| bundle.hash())).collect();
        for entry in fs::read_dir(copies)? {
            let entry = entry?;
            let name = entry.file_name();
            if !in_use.iter().chain(kept).any(|hash| name == *hash) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn copy_of(&self, bundle: &Bundle, folder: &str) -> io::Result<()> {
        let Some(copies) = &self.copies else { return Ok(()) };
        let copy = copies.join(bundle.hash());
        if !copy.exists() {
            let aside = copies.join("new");
            if aside.exists() {
                fs::remove_dir_all(&aside)?;
            }
            fs::create_dir_all(&aside)?;
            for name in bundle.file_names() {
                let mut file = File::create(aside.join(name))?;
                file.write_all(&fs::read(self.folder(folder).join(name))?)?;
                file.sync_all()?;
            }
            File::open(&aside)?.sync_all()?;
            fs::rename(&aside, &copy)?;
            File::open(copies)?.sync_all()?;
        }
        Ok(())
    }
}

fn open(folder: &Path) -> Result<Bundle, InferenceError> {
    Bundle::open(folder).map_err(|source| InferenceError::Bundle { folder: folder.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stage-a")
    }

    #[test]
    fn a_bundle_is_found_by_its_hash_after_another_one_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (models, data) = (dir.path().join("models"), dir.path().join("data"));
        fs::create_dir_all(models.join(STAGE_A)).unwrap();
        for entry in fs::read_dir(shipped()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), models.join(STAGE_A).join(entry.file_name())).unwrap();
        }
        let bundles = Bundles::with_copies_in(&models, &data);
        let first = bundles.offered().unwrap();
        bundles.keep(&first, &[], &[]).unwrap();
        let manifest = models.join(STAGE_A).join("manifest.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, format!("{text}\n# another hash\n")).unwrap();
        let second = bundles.offered().unwrap();
        assert_ne!(first.hash(), second.hash());
        bundles.keep(&second, &[], &[first.hash()]).unwrap();
        for bundle in [&first, &second] {
            assert_eq!(bundles.by_hash(bundle.hash()).unwrap().hash(), bundle.hash());
        }
        bundles.keep(&second, &[], &[]).unwrap();
        assert!(bundles.by_hash(first.hash()).is_err(), "given up, and no longer offered");
        assert!(bundles.by_hash("../../etc").is_err());
    }
}
