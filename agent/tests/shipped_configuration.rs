//! Every file in `config/` that the agent reads is one that it accepts, and the README's steps to one more machine work as they stand there.
use std::{fmt::Write as _, fs, path::Path, process::Command};

use hark::config::SerialFormat;

#[test]
fn the_shipped_configuration_has_no_fault() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let config = hark::config::load_to_run(&dir).unwrap_or_else(|faults| panic!("{faults}"));
    let files = std::fs::read_dir(dir.join("assets")).expect("config/assets is there").count();
    assert_eq!(config.assets.len(), files);
    assert!(!config.mqtt.is_empty() && !config.serial.is_empty());
    let channels = config.serial.iter().find_map(|port| match &port.format {
        SerialFormat::Node { nodes } => nodes.values().next().map(|node| &node.channels[..]),
        _ => None,
    });
    // As the node of firmware-sim numbers them: its vibration sensor is channel 0, its process values are channel 1.
    assert_eq!(channels, Some(&["de-h".to_owned(), String::new()][..]));
}

/// `plant/` is made here as the README's installation makes it; all that follows is what the README says.
#[test]
fn the_steps_of_the_readme_add_a_machine_and_back_test_it() {
    const ROWS: usize = 2_100;
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(clone.join("README.md")).expect("the README is there");
    let (_, steps) = readme.split_once("## Configure a machine").expect("it tells how");
    let (steps, _) = steps.split_once("\n## ").expect("more follows");
    let script: String = steps.split("```sh\n").skip(1).filter_map(|step| step.split_once("```")).map(|(step, _)| step).collect();

    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("target/release")).expect("it is writable");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hark"), at("target/release/hark")).expect("it is writable");
    fs::create_dir(at("plant")).expect("it is writable");
    let copied = Command::new("cp").arg("-r").args([clone.join("config"), clone.join("models"), at("plant")]).status();
    assert!(copied.expect("cp is everywhere").success());
    let mut export = "ts;flow;pressure\n".to_owned();
    for row in 0..ROWS {
        let flow = 120.0 + (row as f64 / 20.0).sin() * 10.0 + (row * 7_919 % 101) as f64 / 50.0;
        let pressure = 3.0 + flow / 100.0 + (row * 104_729 % 97) as f64 / 500.0;
        writeln!(export, "{};{flow:.3};{pressure:.4}", 1_767_225_600 + row).expect("a string takes all");
    }
    fs::write(at("export.csv"), export).expect("it is writable");

    let ran = Command::new("bash").args(["-euc", &script]).current_dir(dir.path()).output().expect("bash is there");
    assert!(ran.status.success(), "{}\n{script}", String::from_utf8_lossy(&ran.stderr));
    let answers = fs::read_to_string(at("answers.jsonl")).expect("the last step writes it");
    assert_eq!(answers.lines().count(), ROWS);
    let last = answers.lines().last().expect("there are some");
    assert!(last.contains("\"phase\":\"scoring\"") && !last.contains("\"score\":null"), "{last}");
}

#[test]
fn all_faults_are_reported_at_once_with_their_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("assets")).expect("it is writable");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("it is writable");
    write("hark.toml", "[gateway]\nid = \"a b\"\n[buffer]\nquota = \"1 MiB\"\n[kafka]\nbrokers = \"10.0.0.1:9092\"\n");
    write("assets/one.toml", "id = \"one\"\ngrid = \"fast\"\n[[point]]\nid = \"p\"\nunit = \"bar\"\nrange = [2.0, 1.0]\n");
    write("assets/two.toml", "id = \"two\"\ncolour = \"red\"\n");
    let faults = hark::config::load(dir.path()).expect_err("it is full of faults").to_string();
    for expected in [
        "`a b` is no name",
        "at least 64 MiB",
        "plain text to `10.0.0.1`",
        "`fast` is no duration",
        "point.range",
        "unknown field `colour`",
        "line 2",
    ] {
        assert!(faults.contains(expected), "{expected} is not in\n{faults}");
    }
}
