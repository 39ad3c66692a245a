//! A model bundle: a folder with `manifest.toml`, `model.onnx` and golden vectors.
//!
//! Order of trust: the manifest is read, every file is read once into memory and compared with its hash, only then is the graph built, and the
//! golden input must give the golden output twice on the same state (a recurrent state that leaks shows in the second run).
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    forecast_manifest::{ForecastManifest, Need},
    golden::{self, GoldenTensor},
    model::{Element, Input, MODEL_BYTES_MAX, ModelError, Plan, Signature},
    row_features::{Specification, SpecificationError},
};

const MANIFEST: &str = "manifest.toml";
const MODEL: &str = "model.onnx";
/// Most points of an asset that one plan scores; `regression` then holds 196 608 values.
pub const POINTS_MAX: usize = 256;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file of the bundle cannot be read.
    #[error("cannot read `{path}` of the model bundle")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `manifest.toml` is not a manifest.
    #[error("`{path}` is not a valid manifest")]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The manifest contradicts itself or asks for what this version cannot do.
    #[error("the manifest of bundle `{bundle}` is not usable: {what}")]
    Unusable {
        /// Name of the bundle.
        bundle: String,
        /// What is wrong.
        what: String,
    },
    /// A file is not the one that the manifest names.
    #[error("`{file}` of bundle `{bundle}` was changed: its SHA-256 is {actual}, the manifest says {expected}")]
    Hash {
        /// Name of the bundle.
        bundle: String,
        /// File concerned.
        file: String,
        /// Found.
        actual: String,
        /// Wanted.
        expected: String,
    },
    /// A golden file is not of the form `name 4x3 values…`.
    #[error("line {line} of `{file}` of bundle `{bundle}` is not a golden tensor: {what}")]
    Golden {
        /// Name of the bundle.
        bundle: String,
        /// File concerned.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The model does not answer as it did when it was made.
    #[error("bundle `{bundle}` does not reproduce its golden output: run {run}, output `{output}`, value {index} is {actual}, expected {expected}")]
    Mismatch {
        /// Name of the bundle.
        bundle: String,
        /// 1 or 2.
        run: usize,
        /// Output tensor.
        output: String,
        /// Which value of it, from 0.
        index: usize,
        /// Found.
        actual: f64,
        /// Wanted.
        expected: f64,
    },
    /// The features that a forecasting model takes cannot be computed.
    #[error("`{file}` of bundle `{bundle}` cannot be used")]
    Features {
        /// Name of the bundle.
        bundle: String,
        /// File concerned.
        file: String,
        /// Why.
        source: SpecificationError,
    },
    /// The graph cannot be built or run.
    #[error("model of bundle `{bundle}` failed")]
    Model {
        /// Name of the bundle.
        bundle: String,
        /// Why.
        source: ModelError,
    },
}

/// `manifest.toml`. Unknown keys are refused: a key that this version does not know may forbid what it would do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Form of the manifest; 1.
    pub schema: u32,
    /// Name of the bundle.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for: `anomaly`, or `forecast` where there is a table of this name.
    pub role: String,
    /// One sentence.
    pub about: String,
    /// Type of all inputs and outputs.
    pub element: Element,
    /// Rows of history before the scored row.
    #[serde(default)]
    pub lags: usize,
    /// ONNX operator set.
    pub opset: u32,
    /// Operators that the graph may use.
    pub operators: Vec<String>,
    /// What the numbers inside were trained on.
    pub training_data: String,
    /// SPDX expression.
    pub licence: String,
    /// Golden vectors.
    pub golden: GoldenFiles,
    /// What a forecasting model takes, needs and gives.
    pub forecast: Option<ForecastManifest>,
    /// SHA-256 of each other file, hex.
    pub files: BTreeMap<String, String>,
    /// Inputs in order.
    pub input: Vec<Tensor>,
    /// Outputs in order.
    pub output: Vec<Tensor>,
}

/// Where the golden vectors stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenFiles {
    /// File of the inputs.
    pub input: String,
    /// File of the outputs.
    pub output: String,
    /// Largest difference allowed, relative to the larger of 1 and the expected value.
    pub tolerance: f64,
}

/// Name and shape of a tensor. A dimension is a number, `n` (points) or `history` (lags times points).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Name in the graph.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<String>,
}

/// A bundle whose hashes and golden output were found right.
#[derive(Clone, Debug)]
pub struct Bundle {
    manifest: Manifest,
    model: Vec<u8>,
    /// Of a forecasting bundle.
    features: Option<Specification>,
    golden_input: Arc<[GoldenTensor]>,
    model_hash: String,
    hash: String,
}

impl Manifest {
    /// What the bundle in `folder` says of itself; nothing of it is checked.
    ///
    /// # Errors
    /// [`BundleError`] where there is no manifest that can be read.
    pub fn read(folder: &Path) -> Result<Self, BundleError> {
        Self::with_text(folder).map(|(manifest, _)| manifest)
    }

    /// Whether `folder` is one of a bundle.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    fn with_text(folder: &Path) -> Result<(Self, String), BundleError> {
        let path = folder.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(|source| BundleError::Read { path: path.clone(), source })?;
        let manifest = toml::from_str(&text).map_err(|source| BundleError::Manifest { path, source: Box::new(source) })?;
        Ok((manifest, text))
    }
}

impl Bundle {
    /// Opens the bundle in `folder`. Fails where a file is missing or changed, or the golden output is not reproduced.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let (manifest, text) = Manifest::with_text(folder)?;
        check_manifest(&manifest)?;
        let mut files = read_files(folder, &manifest)?;
        let golden_input = golden::parse(&manifest.name, &manifest.golden.input, &files[&manifest.golden.input])?;
        let golden_output = golden::parse(&manifest.name, &manifest.golden.output, &files[&manifest.golden.output])?;
        let model = files.remove(MODEL).expect("check_manifest demands this file");
        let features = specification(&manifest, &files)?;
        let bundle = Self {
            features,
            golden_input: golden_input.into(),
            model_hash: manifest.files[MODEL].clone(),
            hash: sha256(text.as_bytes()),
            manifest,
            model,
        };
        bundle.check_golden(&golden_output)?;
        Ok(bundle)
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The features that a forecasting model takes, as many as its input has values; `None` for other models.
    pub fn features(&self) -> Option<&Specification> {
        self.features.as_ref()
    }

    /// SHA-256 of `model.onnx`, hex.
    pub fn model_hash(&self) -> &str {
        &self.model_hash
    }

    /// SHA-256 of the manifest, hex. It holds the hashes of all other files, so it stands for the whole bundle.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Its files.
    pub(super) fn file_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(MANIFEST).chain(self.manifest.files.keys().map(String::as_str))
    }

    /// A plan for `points` points (1 to [`POINTS_MAX`]).
    pub(super) fn plan(&self, points: usize) -> Result<Plan, BundleError> {
        if points == 0 || points > POINTS_MAX {
            return Err(self.unusable(format!("{points} scored points asked for, 1 to {POINTS_MAX} are possible")));
        }
        let mut inputs = Vec::new();
        for tensor in &self.manifest.input {
            inputs.push((tensor.name.clone(), self.concrete(tensor, points)?));
        }
        let outputs: Vec<String> = self.manifest.output.iter().map(|tensor| tensor.name.clone()).collect();
        let signature = Signature { element: self.manifest.element, inputs: &inputs, outputs: &outputs, operators: &self.manifest.operators };
        Plan::build(&self.model, signature).map_err(|source| self.failed(source))
    }

    fn concrete(&self, tensor: &Tensor, points: usize) -> Result<Vec<usize>, BundleError> {
        let dimension = |text: &String| match text.as_str() {
            "n" => Ok(points),
            "history" => Ok(self.manifest.lags * points),
            number => number.parse().map_err(|_| self.unusable(format!("`{number}` is no dimension of `{}`", tensor.name))),
        };
        tensor.shape.iter().map(dimension).collect()
    }

    fn check_golden(&self, outputs: &[GoldenTensor]) -> Result<(), BundleError> {
        let (mut plan, tensors) = self.ready()?;
        for run in 1..=2 {
            let found = plan.run(&tensors.iter().collect::<Vec<_>>()).map_err(|source| self.failed(source))?;
            self.compare(run, &found, outputs)?;
        }
        Ok(())
    }

    /// The times of `runs` runs on the golden input, after as many to warm up, ascending; of fewer, one at least, where these would take longer than `within`.
    /// `now` tells a time that does not step.
    ///
    /// # Errors
    /// [`BundleError`] where a run fails.
    pub fn times(&self, runs: usize, within: Duration, now: impl Fn() -> Duration) -> Result<Vec<Duration>, BundleError> {
        let (mut plan, tensors) = self.ready()?;
        let inputs: Vec<&Input> = tensors.iter().collect();
        let (mut taken, enough) = (Vec::with_capacity(2 * runs), now() + within);
        while taken.len() < 2 * runs && (taken.is_empty() || now() < enough) {
            let begun = now();
            plan.run(&inputs).map_err(|source| self.failed(source))?;
            taken.push(now().saturating_sub(begun));
        }
        let mut timed = taken.split_off(taken.len() / 2);
        timed.sort_unstable();
        Ok(timed)
    }

    /// A plan for the golden input, and that.
    fn ready(&self) -> Result<(Plan, Vec<Input>), BundleError> {
        let points = self.golden_input.first().and_then(|window| window.shape.last().copied()).unwrap_or(0);
        let tensors: Result<Vec<Input>, ModelError> = self.golden_input.iter().map(|tensor| Input::new(&tensor.shape, &tensor.values)).collect();
        Ok((self.plan(points)?, tensors.map_err(|source| self.failed(source))?))
    }

    fn compare(&self, run: usize, found: &[Vec<f64>], expected: &[GoldenTensor]) -> Result<(), BundleError> {
        let same_sizes = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.len() == e.values.len());
        if !same_sizes {
            return Err(self.unusable("the golden output has another number of values than the model".to_owned()));
        }
        for (values, tensor) in found.iter().zip(expected) {
            for (index, (&actual, &expected)) in values.iter().zip(&tensor.values).enumerate() {
                if (actual - expected).abs() > self.manifest.golden.tolerance * expected.abs().max(1.0) {
                    let (bundle, output) = (self.manifest.name.clone(), tensor.name.clone());
                    return Err(BundleError::Mismatch { bundle, run, output, index, actual, expected });
                }
            }
        }
        Ok(())
    }

    fn unusable(&self, what: String) -> BundleError {
        BundleError::Unusable { bundle: self.manifest.name.clone(), what }
    }

    fn failed(&self, source: ModelError) -> BundleError {
        BundleError::Model { bundle: self.manifest.name.clone(), source }
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), BundleError> {
    let refuse = |what: String| Err(BundleError::Unusable { bundle: manifest.name.clone(), what });
    if manifest.schema != 1 {
        return refuse(format!("schema {} is not known, this version reads schema 1", manifest.schema));
    }
    if !(manifest.golden.tolerance.is_finite() && manifest.golden.tolerance >= 0.0) {
        return refuse("the golden tolerance is not a number of at least 0".to_owned());
    }
    for file in [MODEL, &manifest.golden.input, &manifest.golden.output] {
        if !manifest.files.contains_key(file) {
            return refuse(format!("`{file}` has no hash in [files]"));
        }
    }
    if (manifest.role == "forecast") != manifest.forecast.is_some() {
        return refuse(format!("role `{}` and the table [forecast] do not go together", manifest.role));
    }
    if let Some(fault) = manifest.forecast.as_ref().and_then(ForecastManifest::fault) {
        return refuse(fault);
    }
    if let Some(name) = manifest.files.keys().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        return refuse(format!("`{name}` is not a plain file name"));
    }
    Ok(())
}

/// Reads each file of the manifest once; what is hashed is what is used.
fn read_files(folder: &Path, manifest: &Manifest) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
    let mut files = BTreeMap::new();
    for (name, expected) in &manifest.files {
        let path = folder.join(name);
        let failed = |source| BundleError::Read { path: path.clone(), source };
        if fs::metadata(&path).map_err(failed)?.len() > MODEL_BYTES_MAX as u64 {
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "larger than a model may be")));
        }
        let content = fs::read(&path).map_err(failed)?;
        let actual = sha256(&content);
        if !actual.eq_ignore_ascii_case(expected) {
            return Err(BundleError::Hash { bundle: manifest.name.clone(), file: name.clone(), actual, expected: expected.clone() });
        }
        files.insert(name.clone(), content);
    }
    Ok(files)
}

/// What `[forecast]` names as its features, as many as the model takes, with age where and only where it is among the needs.
fn specification(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>) -> Result<Option<Specification>, BundleError> {
    let Some(forecast) = &manifest.forecast else { return Ok(None) };
    let refuse = |what: String| Err(BundleError::Unusable { bundle: manifest.name.clone(), what });
    let Some(content) = files.get(&forecast.features) else {
        return refuse(format!("`{}` has no hash in [files]", forecast.features));
    };
    let specification = Specification::parse(&String::from_utf8_lossy(content)).map_err(|source| BundleError::Features {
        bundle: manifest.name.clone(),
        file: forecast.features.clone(),
        source,
    })?;
    if specification.age != forecast.needs.contains(&Need::Age) {
        return refuse("age is a feature and no need, or a need and no feature".to_owned());
    }
    let (given, taken) = (specification.names().len().to_string(), manifest.input.first().and_then(|input| input.shape.last()));
    if taken != Some(&given) {
        return refuse(format!("there are {given} features, the model takes {}", taken.map_or("none", String::as_str)));
    }
    Ok(Some(specification))
}

/// Hex.
pub(super) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stage-a")
    }

    /// A copy of the shipped bundle with one file changed by `edit`.
    fn changed(file: &str, edit: impl Fn(Vec<u8>) -> Vec<u8>) -> Result<Bundle, BundleError> {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(shipped()).unwrap() {
            let entry = entry.unwrap();
            let content = fs::read(entry.path()).unwrap();
            let content = if entry.file_name() == file { edit(content) } else { content };
            fs::write(folder.path().join(entry.file_name()), content).unwrap();
        }
        Bundle::open(folder.path())
    }

    fn with_text(from: &'static str, to: &'static str) -> impl Fn(Vec<u8>) -> Vec<u8> {
        move |content| {
            let text = String::from_utf8(content).unwrap();
            assert!(text.contains(from), "the bundle changed, this test needs `{from}`");
            text.replacen(from, to, 1).into_bytes()
        }
    }

    #[test]
    fn the_shipped_bundle_reproduces_its_golden_output_and_serves_any_number_of_points() {
        let bundle = Bundle::open(&shipped()).unwrap();
        assert_eq!(bundle.manifest().lags, 3);
        for points in [1, 2, 8, 33] {
            bundle.plan(points).unwrap();
        }
        assert!(matches!(bundle.plan(0), Err(BundleError::Unusable { .. })));
        assert!(matches!(bundle.plan(POINTS_MAX + 1), Err(BundleError::Unusable { .. })));
    }

    #[test]
    fn one_changed_byte_of_the_model_is_refused_by_its_hash() {
        let flipped = changed(MODEL, |mut content| {
            let middle = content.len() / 2;
            content[middle] ^= 1;
            content
        });
        assert!(matches!(flipped, Err(BundleError::Hash { ref file, .. }) if file == MODEL), "{flipped:?}");
    }

    #[test]
    fn an_output_other_than_the_golden_one_is_refused() {
        // The expectation changes and its hash with it, as if the runtime computed something else.
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(shipped()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let golden = folder.path().join("golden-output.txt");
        let before = fs::read_to_string(&golden).unwrap();
        let after = before.replacen("score 1x1 ", "score 1x1 1", 1);
        assert_ne!(before, after);
        fs::write(&golden, &after).unwrap();
        let hex = |text: &str| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let manifest = folder.path().join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap().replace(&hex(&before), &hex(&after));
        fs::write(&manifest, text).unwrap();
        let refused = Bundle::open(folder.path());
        assert!(matches!(refused, Err(BundleError::Mismatch { run: 1, ref output, .. }) if output == "score"), "{refused:?}");
    }

    #[test]
    fn an_operator_that_the_manifest_does_not_list_is_refused() {
        let refused = changed(MANIFEST, with_text("\"Sqrt\", ", ""));
        assert!(matches!(refused, Err(BundleError::Model { source: ModelError::Operator(ref name), .. }) if name == "Sqrt"), "{refused:?}");
    }

    #[test]
    fn another_element_than_that_of_the_graph_is_refused() {
        let refused = changed(MANIFEST, with_text("float64", "float32"));
        let Err(BundleError::Model { source, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(source.to_string(), "`window` of the graph is double, its manifest says float32");
    }

    #[test]
    fn a_manifest_with_an_unknown_key_or_element_is_refused() {
        assert!(matches!(changed(MANIFEST, with_text("schema = 1", "schema = 1\nnew = 2")), Err(BundleError::Manifest { .. })));
        assert!(matches!(changed(MANIFEST, with_text("float64", "float16")), Err(BundleError::Manifest { .. })));
        assert!(matches!(changed(MANIFEST, with_text("schema = 1", "schema = 2")), Err(BundleError::Unusable { .. })));
    }
}
