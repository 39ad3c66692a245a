//! What the inputs lane was told of configuration, bundle and program: at the start the differences become change records, before any source runs.
//!
//! A file says what was recorded last. It is stored after the records are durable: after a crash in between they are recorded again, which changes
//! nothing. A change that comes while the agent runs is announced first, for the same reason.
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hark_protocol::topics::{Event, EventKind, LaneName, Name, TsSource};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::assignment::Accepted;
use super::change::{BUNDLE, CONFIGURATION, PROGRAM};
use crate::{
    buffer::{
        BufferError, Position, SmallFile,
        commit::{AppendError, Appender},
    },
    clock::Clock,
    config::{self, Config, ForecastModel},
    record::{Body, Entry, Stamp},
};

const FILE: &str = "configured";
const FORM: u32 = 3;
/// Bundles of which copies are kept: no backlog reaches further back than so many updates.
const BUNDLES_MAX: usize = 4;
/// Removed assets that are remembered: no backlog tells of more.
const REMOVED_MAX: usize = 256;

/// The last records of each subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Recorded {
    program: Option<Name>,
    /// Hashes and places, the one in force last.
    bundles: Vec<(Name, Position)>,
    /// Forecasting bundles of machines, by folder, the one in use last.
    forecasting: BTreeMap<Name, Vec<Name>>,
    /// What was said of each asset, and where.
    assets: BTreeMap<Name, (Told, Position)>,
}

/// What the log was told of an asset last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Told {
    /// The configuration with this hash.
    Configured(Name),
    /// It is configured no longer. Remembered, for the record that says so may be lost before inference has read it.
    Removed,
    /// Nobody knows: a change is on its way, or the record is lost.
    Unsure,
}

impl Told {
    fn hash(&self) -> Option<&Name> {
        if let Self::Configured(hash) = self { Some(hash) } else { None }
    }
}

/// What is configured, and what of it is recorded.
#[derive(Debug)]
pub struct Configured {
    stored: Mutex<(SmallFile, Recorded)>,
    assets: BTreeMap<Name, config::Asset>,
    bundle: Name,
    origin: hark_protocol::topics::Origin,
    clock: Clock,
}

/// A difference between what is configured and what is recorded.
struct Difference {
    subject: Subject,
    event: Event,
}

#[derive(Clone, PartialEq)]
enum Subject {
    Program,
    Bundle,
    Asset(Name),
}

impl Configured {
    /// What `config` says now, with the `bundle` offered, beside what was recorded under its data directory.
    ///
    /// # Errors
    /// [`BufferError`] if the disk cannot be read.
    pub fn open(config: &Config, bundle: Name, clock: Clock) -> Result<Self, BufferError> {
        let (file, content) = SmallFile::open_hint(&config.buffer.dir, FILE)?;
        let recorded = content.as_deref().and_then(decode).unwrap_or_default();
        Ok(Self { stored: Mutex::new((file, recorded)), assets: config.assets.clone(), bundle, origin: config.gateway.origin, clock })
    }

    /// The forecasting bundles that served last under the data directory of `config`.
    ///
    /// # Errors
    /// [`BufferError`] if the disk cannot be read.
    pub fn accepted(config: &Config) -> Result<Accepted, BufferError> {
        let (_, content) = SmallFile::open_hint(&config.buffer.dir, FILE)?;
        let recorded = content.as_deref().and_then(decode).unwrap_or_default();
        Ok(recorded.forecasting.into_iter().filter_map(|(folder, mut hashes)| Some((folder, hashes.pop()?))).collect())
    }

    /// The bundles whose copies are needed, the newest last.
    pub fn bundles(&self) -> Vec<Name> {
        let recorded = &self.stored().1;
        recorded.bundles.iter().map(|(hash, _)| hash).chain(recorded.forecasting.values().flatten()).cloned().collect()
    }

    /// Appends a change record for each difference and returns when they are durable. Gives how many.
    ///
    /// # Errors
    /// [`AppendError::Stopped`] if the commit loop has ended.
    pub async fn record(&self, appender: &Appender) -> Result<usize, AppendError> {
        let differences = self.differences();
        let entries = self.entries(&differences);
        if entries.is_empty() {
            return Ok(0);
        }
        match appender.append_durably(LaneName::Inputs, entries, true).await {
            Ok(committed) => self.note(&differences, committed.first),
            Err(refused @ AppendError::Refused(_)) => {
                warn!(%refused, "the changes are recorded one by one");
                for difference in &differences {
                    match appender.append_durably(LaneName::Inputs, self.entries(std::slice::from_ref(difference)), true).await {
                        Ok(committed) => self.note(std::slice::from_ref(difference), committed.first),
                        Err(AppendError::Refused(problem)) => {
                            error!(asset = difference.asset().as_deref(), %problem, "a configuration is too large to be recorded and does not act");
                        }
                        Err(stopped) => return Err(stopped),
                    }
                }
            }
            Err(stopped) => return Err(stopped),
        }
        Ok(differences.len())
    }

    /// Whether a configuration stands at or before `position` of the inputs lane: who begins to read behind it finds it nowhere.
    pub fn told_before(&self, position: Position) -> bool {
        self.stored().1.assets.values().any(|(told, at)| *told != Told::Removed && *at <= position)
    }

    /// Records `from` to `to` of the inputs lane are lost: what they said is said again. From a thread outside the runtime.
    ///
    /// # Errors
    /// [`AppendError`] if the log does not take it.
    pub fn blocking_repair(&self, from: Position, to: Position, appender: &Appender) -> Result<(), AppendError> {
        let differences = self.lost_differences(from, to);
        if differences.is_empty() {
            return Ok(());
        }
        let committed = appender.blocking_append_durably(LaneName::Inputs, self.entries(&differences), true)?;
        warn!(records = differences.len(), "change records were lost with a part of the buffer and are repeated");
        self.note(&differences, committed.first);
        Ok(())
    }

    fn lost_differences(&self, from: Position, to: Position) -> Vec<Difference> {
        let lost = self.stored().1.lose(from, to);
        let mut differences = self.differences();
        // What a person changed while the agent runs differs from the files, and stays.
        differences.retain(|difference| lost.contains(&difference.subject));
        differences
    }

    /// A change of `asset` is about to be appended: until [`Self::changed`], nobody knows what is recorded.
    pub fn announce(&self, asset: &Name) {
        let mut stored = self.stored();
        stored.1.assets.entry(asset.clone()).or_insert((Told::Unsure, Position::default())).0 = Told::Unsure;
        store(&mut stored);
    }

    /// The announced change is durable at `position`. The file of the asset wins again at the next start. Of two changes at once the one that stands
    /// later in the log is in force, whichever is told of first.
    pub fn changed(&self, asset: Name, hash: Name, position: Position) {
        let mut stored = self.stored();
        if stored.1.assets.get(&asset).is_none_or(|(_, at)| *at <= position) {
            stored.1.assets.insert(asset, (Told::Configured(hash), position));
            store(&mut stored);
        }
    }

    fn stored(&self) -> MutexGuard<'_, (SmallFile, Recorded)> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the order in which they act: what computes, then what is computed.
    fn differences(&self) -> Vec<Difference> {
        let recorded = self.stored().1.clone();
        let program: Name = env!("CARGO_PKG_VERSION").into();
        let mut differences = Vec::new();
        if recorded.program.as_ref() != Some(&program) {
            differences.push(Difference { subject: Subject::Program, event: change(PROGRAM, recorded.program.as_ref(), Some(&program)) });
        }
        let bundle = recorded.bundles.last().map(|(hash, _)| hash);
        if bundle != Some(&self.bundle) {
            differences.push(Difference { subject: Subject::Bundle, event: change(BUNDLE, bundle, Some(&self.bundle)) });
        }
        let gone = recorded.assets.iter().filter(|(id, (told, _))| *told != Told::Removed && !self.assets.contains_key(*id));
        for (id, (told, _)) in gone {
            differences.push(Difference { subject: Subject::Asset(id.clone()), event: change(CONFIGURATION, told.hash(), None) });
        }
        for (id, asset) in &self.assets {
            let before = recorded.assets.get(id).and_then(|(told, _)| told.hash());
            if before == Some(&asset.hash) {
                continue;
            }
            let event = change(CONFIGURATION, before, Some(&asset.hash));
            let event = Event { detail_json: Some(configuration(asset)), ..event };
            differences.push(Difference { subject: Subject::Asset(id.clone()), event });
        }
        differences
    }

    fn entries(&self, differences: &[Difference]) -> Vec<Entry> {
        let now = self.clock.now();
        let entry = |difference: &Difference| {
            let stamp = Stamp { asset: difference.asset(), ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin: self.origin };
            Entry { stamp, cause: None, body: Body::Event(difference.event.clone().into()) }
        };
        differences.iter().map(entry).collect()
    }

    /// `differences` are durable from `first` on.
    fn note(&self, differences: &[Difference], first: Position) {
        let mut stored = self.stored();
        for (seq, Difference { subject, event }) in (first.seq..).zip(differences) {
            let at = Position { seq, ..first };
            info!(what = event.what.as_deref(), asset = subject.asset().as_deref(), before = event.hash_before.as_deref(), after = event.hash_after.as_deref(), position = %at, "change recorded");
            let recorded = &mut stored.1;
            match (subject, &event.hash_after) {
                (Subject::Program, hash) => recorded.program = hash.clone(),
                (Subject::Bundle, hash) => {
                    recorded.bundles.retain(|(known, _)| Some(known) != hash.as_ref());
                    recorded.bundles.extend(hash.clone().map(|hash| (hash, at)));
                    let superfluous = recorded.bundles.len().saturating_sub(BUNDLES_MAX);
                    recorded.bundles.drain(..superfluous);
                }
                (Subject::Asset(id), hash) => {
                    let told = hash.clone().map_or(Told::Removed, Told::Configured);
                    recorded.assets.insert(id.clone(), (told, at));
                    let model = self.assets.get(id).and_then(|asset| asset.forecast.model.as_ref());
                    model.into_iter().for_each(|model| recorded.serves(model));
                }
            }
        }
        stored.1.forget_removed();
        store(&mut stored);
    }
}

impl Recorded {
    /// Takes note that what stands `from` to `to` is lost; gives what it was about.
    fn lose(&mut self, from: Position, to: Position) -> Vec<Subject> {
        let is_lost = |at: &Position| (from..=to).contains(at);
        let mut lost = Vec::new();
        for (id, (told, _)) in self.assets.iter_mut().filter(|(_, (_, at))| is_lost(at)) {
            *told = Told::Unsure;
            lost.push(Subject::Asset(id.clone()));
        }
        if self.bundles.iter().any(|(_, at)| is_lost(at)) {
            self.bundles.retain(|(_, at)| !is_lost(at));
            lost.push(Subject::Bundle);
        }
        lost
    }

    /// The bundle of a machine's model is in use from now on.
    fn serves(&mut self, model: &ForecastModel) {
        let Some(hash) = &model.bundle else { return };
        let of_folder = self.forecasting.entry(model.folder.clone()).or_default();
        of_folder.retain(|known| known != hash);
        of_folder.push(hash.clone());
        let superfluous = of_folder.len().saturating_sub(BUNDLES_MAX);
        of_folder.drain(..superfluous);
    }

    /// Of the removed assets the newest [`REMOVED_MAX`] stay.
    fn forget_removed(&mut self) {
        let mut removed: Vec<Position> = self.assets.values().filter(|(told, _)| *told == Told::Removed).map(|(_, at)| *at).collect();
        removed.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(&newest_forgotten) = removed.get(REMOVED_MAX) {
            self.assets.retain(|_, (told, at)| *told != Told::Removed || *at > newest_forgotten);
        }
    }
}

impl Difference {
    fn asset(&self) -> Option<Name> {
        self.subject.asset()
    }
}

impl Subject {
    fn asset(&self) -> Option<Name> {
        if let Self::Asset(id) = self { Some(id.clone()) } else { None }
    }
}

/// A configuration as a change record holds it.
pub fn configuration(asset: &config::Asset) -> Name {
    serde_json::to_string(asset).expect("a checked configuration has text keys and finite numbers").into()
}

fn change(what: &str, before: Option<&Name>, after: Option<&Name>) -> Event {
    Event { what: Some(what.into()), hash_before: before.cloned(), hash_after: after.cloned(), ..Event::new(EventKind::Change) }
}

/// A file that cannot be stored is no reason to stop: the same changes are recorded again at the next start.
fn store(stored: &mut MutexGuard<'_, (SmallFile, Recorded)>) {
    let (file, recorded) = &mut **stored;
    let bytes = postcard::to_allocvec(&(FORM, &*recorded)).expect("plain data into growing memory cannot fail");
    if let Err(problem) = file.store(&bytes) {
        warn!(%problem, "what was recorded of the configuration cannot be noted");
    }
}

fn decode(bytes: &[u8]) -> Option<Recorded> {
    let (form, rest) = postcard::take_from_bytes::<u32>(bytes).ok()?;
    if form != FORM {
        return None;
    }
    postcard::from_bytes(rest).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn configured(dir: &Path, edit: impl FnOnce(&mut Config)) -> Configured {
        let mut config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap();
        config.buffer.dir = dir.to_owned();
        edit(&mut config);
        Configured::open(&config, "bundle-1".into(), Clock::new()).unwrap()
    }

    fn told(differences: &[Difference]) -> Vec<(String, Option<String>, bool)> {
        let text = |name: Option<Name>| name.map(|name| name.to_string());
        differences.iter().map(|d| (d.event.what.as_deref().unwrap().to_owned(), text(d.asset()), d.event.hash_after.is_some())).collect()
    }

    #[test]
    fn each_difference_is_recorded_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = Position { ordinal: 1, seq: 1 };
        let first = configured(dir.path(), |_| {});
        let expected = [("program", None), ("bundle", None), ("configuration", Some("fan-7")), ("configuration", Some("pump-1"))];
        let expected = expected.map(|(what, asset)| (what.to_owned(), asset.map(str::to_owned), true));
        assert_eq!(told(&first.differences()), expected);
        first.note(&first.differences(), at);
        assert_eq!(told(&configured(dir.path(), |_| {}).differences()), []);
        let changed = configured(dir.path(), |config| {
            config.assets.remove("fan-7");
            config.assets.get_mut("pump-1").unwrap().hash = "other".into();
        });
        let expected = [("configuration".to_owned(), Some("fan-7".to_owned()), false), ("configuration".to_owned(), Some("pump-1".to_owned()), true)];
        assert_eq!(told(&changed.differences()), expected);
    }

    #[test]
    fn a_change_that_was_cut_off_is_recorded_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = configured(dir.path(), |_| {});
        first.note(&first.differences(), Position { ordinal: 1, seq: 1 });
        first.announce(&"pump-1".into());
        let unsure = configured(dir.path(), |_| {});
        assert_eq!(told(&unsure.differences()), [("configuration".to_owned(), Some("pump-1".to_owned()), true)]);
        unsure.changed("pump-1".into(), "other".into(), Position { ordinal: 1, seq: 9 });
        assert_eq!(configured(dir.path(), |_| {}).differences().len(), 1, "the file wins at the next start");
    }

    /// Otherwise it, and an alarm of it, would stay in the engine for ever.
    #[test]
    fn a_removal_is_recorded_whatever_is_lost() {
        let removal = [("configuration".to_owned(), Some("pump-1".to_owned()), false)];
        let at = |seq| Position { ordinal: 1, seq };
        let without = |dir: &Path| configured(dir, |config| drop(config.assets.remove("pump-1")));
        let lost = |configured: &Configured, from, to| told(&configured.lost_differences(at(from), at(to)));

        // The record of the removal falls into a gap.
        let dir = tempfile::tempdir().unwrap();
        let first = configured(dir.path(), |_| {});
        first.note(&first.differences(), at(1));
        let removed = without(dir.path());
        removed.note(&removed.differences(), at(20));
        assert_eq!(lost(&removed, 10, 19), []);
        assert_eq!(lost(&without(dir.path()), 20, 20), removal);
        assert_eq!(lost(&without(dir.path()), 1, 4).len(), 2, "what was said of it before the removal is not said again");

        // A change of the asset was cut off, and then its file went.
        let dir = tempfile::tempdir().unwrap();
        let first = configured(dir.path(), |_| {});
        first.note(&first.differences(), at(1));
        first.announce(&"pump-1".into());
        assert_eq!(told(&without(dir.path()).differences()), removal);
    }

    #[test]
    fn only_what_is_lost_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let configured = configured(dir.path(), |_| {});
        configured.note(&configured.differences(), Position { ordinal: 1, seq: 1 });
        configured.announce(&"pump-1".into());
        let changed = |hash: &str, seq| configured.changed("pump-1".into(), hash.into(), Position { ordinal: 1, seq });
        changed("later", 11);
        changed("earlier", 10);
        assert_eq!(configured.stored().1.assets["pump-1"], (Told::Configured("later".into()), Position { ordinal: 1, seq: 11 }));
        let lost = configured.lost_differences(Position::default(), Position { ordinal: 1, seq: 4 });
        assert_eq!(told(&lost).iter().filter(|(_, asset, _)| asset.as_deref() == Some("pump-1")).count(), 0, "{:?}", told(&lost));
    }

    #[test]
    fn removed_assets_are_forgotten_in_the_end() {
        let mut recorded = Recorded::default();
        recorded.assets.insert("here".into(), (Told::Configured("hash".into()), Position::default()));
        for seq in 1..=REMOVED_MAX as u64 + 9 {
            recorded.assets.insert(format!("gone-{seq}").into(), (Told::Removed, Position { ordinal: 1, seq }));
        }
        recorded.forget_removed();
        assert_eq!((recorded.assets.len(), recorded.assets.contains_key("gone-9")), (1 + REMOVED_MAX, false));
        assert!(recorded.assets.contains_key("gone-10") && recorded.assets.contains_key("here"));
    }

    #[test]
    fn a_configuration_survives_its_record() {
        let dir = tempfile::tempdir().unwrap();
        for asset in configured(dir.path(), |_| {}).assets.values() {
            let read: config::Asset = serde_json::from_str(&configuration(asset)).unwrap();
            assert_eq!(format!("{read:?}"), format!("{asset:?}"));
        }
    }
}
