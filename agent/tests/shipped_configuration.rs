//! Every file in `config/` that the agent reads is one that it accepts.
use std::path::Path;

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
