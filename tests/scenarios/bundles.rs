//! A bundle that is bad in any one way is refused with a reason that names it, and hurts nobody: the real `hark model verify`, on bundles made bad from those
//! that ship, and on graphs (`tests/data/bundles`, written by `models/examples/bad.py`) that end, stall or eat the process that runs them.
#![expect(clippy::print_stdout, reason = "the transcript of what is said, for --nocapture")]
#![expect(clippy::disallowed_methods, reason = "how long a refusal takes is part of what is promised")]
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hark_tests::support::{Agent, in_clone};
use sha2::{Digest, Sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const WITHIN: Duration = Duration::from_secs(40);
const MANIFEST: &str = "manifest.toml";
const GOLDEN_OUTPUT: &str = "golden-output.txt";

/// A copy of a shipped bundle, to be harmed.
struct Copied(tempfile::TempDir);

impl Copied {
    fn of(bundle: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for entry in fs::read_dir(in_clone("models").join(bundle))? {
            let entry = entry?;
            fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
        }
        Ok(Self(folder))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Replaces text in the manifest, which must have it.
    fn manifest(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.path(MANIFEST))?;
        ensure!(text.contains(from), "the bundle changed, this test needs `{from}`");
        Ok(fs::write(self.path(MANIFEST), text.replacen(from, to, 1))?)
    }

    /// Replaces a file, and its hash with it: as the maker of a bad bundle would.
    fn sealed(&self, file: &str, content: &[u8]) -> Result<()> {
        let hash = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.manifest(&hash(&fs::read(self.path(file))?), &hash(content))?;
        Ok(fs::write(self.path(file), content)?)
    }

    fn verify(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(PROGRAM);
        command.args(["model", "verify"]).arg(self.0.path()).args(arguments).stdin(Stdio::null());
        command.output().context("hark cannot be started")
    }

    /// It is refused, in time and with `reason`, by a process that lives to say so.
    fn is_refused(&self, what: &str, arguments: &[&str], reason: &str) -> Result<()> {
        let begun = Instant::now();
        let output = self.verify(arguments)?;
        let (taken, said) = (begun.elapsed(), String::from_utf8_lossy(&output.stderr).into_owned());
        println!("{what}, {:.1} s: {}", taken.as_secs_f64(), said.trim());
        ensure!(output.status.code() == Some(1), "{what}: {}, {said}", output.status);
        ensure!(said.contains("is refused") && reason.split('|').any(|either| said.contains(either)), "{what}: `{reason}` was expected: {said}");
        ensure!(taken < WITHIN, "{what}: it took {taken:?}");
        ensure!(said.len() < 800, "{what}: nobody reads {} characters", said.len());
        Ok(())
    }
}

type Harm = fn(&Copied) -> Result<()>;

const HARMS: [(&str, Harm, &str); 15] = [
    ("no bundle", |bundle| Ok(fs::remove_file(bundle.path(MANIFEST))?), "manifest.toml` of the model bundle: No such file"),
    ("a manifest of garbage", |bundle| Ok(fs::write(bundle.path(MANIFEST), b"PK = [")?), "is not a valid manifest"),
    ("a key of a later version", |bundle| bundle.manifest("schema = 1", "schema = 1\ncolour = 2"), "unknown field `colour`"),
    ("another schema", |bundle| bundle.manifest("schema = 1", "schema = 2"), "schema 2 is not known"),
    ("an element that nothing runs", |bundle| bundle.manifest("\"float32\"", "\"float16\""), "unknown variant `float16`"),
    (
        "an element that the graph has not",
        |bundle| bundle.manifest("\"float32\"", "\"float64\""),
        "`features` of the graph is float, its manifest says float64",
    ),
    ("levels that do not rise", |bundle| bundle.manifest("[0.05, 0.1,", "[0.05, 0.05,"), "the levels of [forecast] are not numbers"),
    ("a need that no feature has", |bundle| bundle.manifest("needs = []", "needs = [\"age\"]"), "age is a feature and no need"),
    ("a file outside of the folder", |bundle| bundle.manifest("[files]", "[files]\n\"../x\" = \"00\""), "`../x` is not a plain file name"),
    ("a file that is missing", |bundle| Ok(fs::remove_file(bundle.path("features.toml"))?), "features.toml` of the model bundle: No such file"),
    ("a file that is too large", grow, "larger than a model may be"),
    ("one changed bit", flip, "`model.onnx` of bundle `example-pytorch` was changed"),
    ("an operator that is not listed", |bundle| bundle.manifest("\"Tanh\"", "\"Sin\""), "operator `Tanh`, which its manifest does not list"),
    ("another golden output", other_golden, "does not reproduce its golden output: run 1, output `remaining_life`"),
    ("no graph at all", |bundle| bundle.sealed("model.onnx", b"\xff\xff\xff\xff"), "the model runtime failed"),
];

fn grow(bundle: &Copied) -> Result<()> {
    Ok(fs::OpenOptions::new().write(true).open(bundle.path("model.onnx"))?.set_len((32 << 20) + 1)?)
}

fn flip(bundle: &Copied) -> Result<()> {
    let mut bytes = fs::read(bundle.path("model.onnx"))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(bundle.path("model.onnx"), bytes)?)
}

/// A thousandth more.
fn other_golden(bundle: &Copied) -> Result<()> {
    let text = fs::read_to_string(bundle.path(GOLDEN_OUTPUT))?;
    let value = text.split_whitespace().nth(2).context("no value")?;
    let other = (1.001 * value.parse::<f64>()?).to_string();
    bundle.sealed(GOLDEN_OUTPUT, text.replacen(value, &other, 1).as_bytes())
}

#[test]
fn a_bundle_that_is_bad_in_one_way_is_refused_for_it() -> Result<()> {
    let sound = Copied::of("examples/pytorch")?.verify(&[])?;
    ensure!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stderr));
    for (what, harm, reason) in HARMS {
        let bundle = Copied::of("examples/pytorch")?;
        harm(&bundle).with_context(|| what.to_owned())?;
        bundle.is_refused(what, &[], reason)?;
    }
    Ok(())
}

/// Graphs of the PyTorch example's signature, and what is said of each; where two limits race, either may win.
const GRAPHS: [(&str, &str); 7] = [
    ("nan", "output 0 of the model is not finite"),
    ("infinity", "output 0 of the model is not finite"),
    ("slow", " ms, 10 ms at most are possible"),
    ("endless", "took more than 20 s of processor time|it was not verified within 30 s"),
    ("memory", "failed to allocate|the graph asks for more than 1024 MiB|it was not verified within 30 s"),
    ("abort", "aborted"),
    ("panic", "the model runtime panicked: attempt to divide by zero"),
];
const OPERATORS: &str =
    "\"Abs\", \"Concat\", \"Conv\", \"Div\", \"Expand\", \"Log\", \"MatMul\", \"ReduceSum\", \"Reshape\", \"Sqrt\", \"Transpose\", ";

#[test]
fn a_graph_that_does_harm_takes_nobody_with_it() -> Result<()> {
    for (graph, reason) in GRAPHS {
        let bundle = Copied::of("examples/pytorch")?;
        bundle.manifest("operators = [", &format!("operators = [{OPERATORS}"))?;
        bundle.sealed("model.onnx", &fs::read(in_clone("tests/data/bundles").join(format!("{graph}.onnx")))?)?;
        // All that ever comes out of them is zeros: they are not refused for their golden output.
        bundle.sealed(GOLDEN_OUTPUT, b"remaining_life 1x1 0\nquantiles 1x7 0 0 0 0 0 0 0\n")?;
        bundle.is_refused(graph, &[], reason)?;
    }
    Ok(())
}

const PUMP: &str = "id = \"pump\"\ngrid = \"1h\"\n[forecast]\nmodel = \"examples/pytorch\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n\
[[point]]\nid = \"ripple\"\nunit = \"bar\"\n[[point]]\nid = \"current\"\nunit = \"A\"\n[[point]]\nid = \"housing\"\nunit = \"Cel\"\n";
const MIXER: &str = "id = \"mixer\"\n[forecast]\nmodel = \"examples/keras\"\nage = 0\n[[point]]\nid = \"torque\"\nunit = \"N.m\"\n\
[[point]]\nid = \"power\"\nunit = \"kW\"\n[[point]]\nid = \"seal\"\nunit = \"Cel\"\n[[point]]\nid = \"leak\"\nunit = \"ml/h\"\n";

#[test]
fn a_machine_without_what_the_model_needs_is_told_what() -> Result<()> {
    for (machine, bundle, text, from, to, reason) in [
        ("pump", "examples/pytorch", PUMP, "", "", None),
        ("mixer", "examples/keras", MIXER, "", "", None),
        ("pump", "examples/pytorch", PUMP, "l/min", "m3/h", Some("`flow` is in m3/h, the model takes l/min")),
        ("pump", "examples/pytorch", PUMP, "\"1h\"", "\"1m\"", Some("its rows are 3600 s apart, the `grid` is 60 s")),
        ("pump", "examples/pytorch", PUMP, "\"housing\"", "\"case\"", Some("it has no point `housing` (Cel)")),
        ("mixer", "examples/keras", MIXER, "age = 0\n", "", Some("it needs the age: `age` in [forecast]")),
    ] {
        let dir = tempfile::tempdir()?;
        ensure!(text.contains(from), "this test needs `{from}`");
        Agent::configure(PROGRAM, dir.path(), "gw-bundles", "", &[(machine.to_owned(), text.replacen(from, to, 1))])?;
        let (bundle, config) = (Copied::of(bundle)?, dir.path().display().to_string());
        let arguments = ["--asset", machine, "--config", &config];
        match reason {
            Some(reason) => bundle.is_refused(&format!("{from} → {to}"), &arguments, &format!("for {machine}: {reason}"))?,
            None => has_what_it_needs(&bundle.verify(&arguments)?)?,
        }
    }
    Ok(())
}

fn has_what_it_needs(output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("has what it needs"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
