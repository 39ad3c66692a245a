//! The command on files: lines, errors, the stop.
use std::{f64::consts::TAU, fs};

use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: FeaturesArgs,
}

/// 2 mm/s RMS at 100 Hz in m/s2, one number a line.
fn sine(samples: usize) -> String {
    let amplitude = 2e-3 * 2f64.sqrt() * TAU * 100.0;
    (0..samples).map(|i| format!("{}\n", amplitude * (TAU * 100.0 * i as f64 / 8_192.0).cos())).collect()
}

fn features(name: &str, text: impl AsRef<[u8]>, more: &[&str]) -> Result<(usize, Vec<Value>), Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    let cli = Cli::try_parse_from(["x", "--input", path.to_str().unwrap(), "--fs", "8192", "--unit", "m/s2"].iter().chain(more)).unwrap();
    let mut out = Vec::new();
    let left = run(&cli.args.waveform.unwrap(), &Stop::default(), &mut out)?;
    Ok((left, String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()))
}

#[test]
fn a_line_per_block_and_the_rest_is_counted() {
    let (left, lines) = features("x.csv", sine(20_000), &["--block", "8192", "--rpm", "6000", "--bearing", "6205", "--class", "2-rigid"]).unwrap();
    assert_eq!((left, lines.len()), (20_000 - 2 * 8_192, 2));
    let line = &lines[1];
    assert_eq!((&line["block"], &line["start_s"], &line["speed_hz"], &line["zone"]), (&2.into(), &1.0.into(), &100.0.into(), &"B".into()));
    for (name, expected) in [("v_rms", 2.0), ("v_1x", 2.0), ("crest", 1.414), ("kurtosis", 1.5), ("bpfo_hz", 358.48), ("bsf_2x_hz", 471.35)] {
        let value = line[name].as_f64().unwrap();
        assert!((value - expected).abs() < 0.01, "{name} is {value}, expected {expected}");
    }
    assert_eq!(line["fault"], "none");
}

/// Zero vibration is none of the machine's, and nothing that a longer block would tell.
#[test]
fn a_flat_line_says_that_the_sensor_is_stuck() {
    let (_, lines) = features("x.csv", "9.81\n".repeat(8_192), &["--rpm", "1797", "--bearing", "6205", "--class", "2-rigid"]).unwrap();
    let (fault, reason) = (&lines[0]["fault"], lines[0]["reason"].as_str().unwrap());
    assert!(fault == "not_determined" && reason.contains("all samples are equal"), "{fault}: {reason}");
    assert!(lines[0]["zone"].is_null() && lines[0]["not_asked"].as_array().unwrap().len() == 9, "{}", lines[0]);
}

/// `none` is no word about what was not looked for.
#[test]
fn the_rules_that_were_not_asked_are_named() {
    #[track_caller]
    fn check(more: &[&str], expected: &[&str]) {
        let (_, lines) = features("x.csv", sine(16_384), &[&["--block", "16384"][..], more].concat()).unwrap();
        assert_eq!(lines[0]["not_asked"], Value::from(expected), "{more:?}");
    }
    let of_bearing = ["outer", "inner", "ball", "cage"];
    let others = ["cavitation", "gear", "looseness", "misalignment", "unbalance"];
    check(&[], &[&of_bearing[..], &others].concat());
    check(&["--rpm", "6000", "--bearing", "6205"], &others);
    check(&["--rpm", "6000", "--bearing", "6205", "--class", "2-rigid"], &others[..2]);
    check(&["--rpm", "6000", "--class", "2-rigid", "--teeth", "31"], &[&of_bearing[..], &others[..1]].concat());
    check(&["--rpm", "600", "--bearing", "6205", "--class", "2-rigid", "--teeth", "31", "--vanes", "6"], &[]);
    let remark = |more: &[&str]| {
        let cli = Cli::parse_from(["x", "--input", "x.csv", "--fs", "8192", "--unit", "m/s2"].iter().chain(more));
        cli.args.waveform.unwrap().not_asked()
    };
    assert!(remark(&["--rpm", "6000"]).unwrap().contains("looseness, misalignment and unbalance"));
    assert_eq!((remark(&["--rpm", "6000", "--class", "2-rigid"]), remark(&[])), (None, None));
}

#[test]
fn the_speed_is_tracked_where_it_is_asked_for() {
    let line: String = (0..8_192).map(|i| format!("{}\n", (TAU * 90.3 * f64::from(i) / 8_192.0).cos())).collect();
    let told = |more: &[&str]| {
        let (_, lines) = features("x.csv", &line, more).unwrap();
        ((10.0 * lines[0]["speed_hz"].as_f64().unwrap()).round() / 10.0, lines[0]["speed_origin"].clone())
    };
    assert_eq!(told(&["--speed", "92", "--track", "0.05"]), (90.3, "tracked".into()));
    assert_eq!(told(&["--speed", "25", "--track", "0.05"]), (25.0, "nominal".into()));
    assert_eq!(told(&["--speed", "92"]), (92.0, Value::Null));
}

#[test]
fn a_short_file_is_one_block_and_what_it_lacks_is_null() {
    let (left, lines) = features("x.txt", sine(1_000), &[]).unwrap();
    assert_eq!((left, lines.len(), &lines[0]["samples"]), (0, 1, &1_000.into()));
    assert!(lines[0]["env.bpfo"].is_null() && lines[0]["v_rms"].is_null() && lines[0]["zone"].is_null());
    assert_eq!((&lines[0]["fault"], &lines[0]["reason"]), (&"not_determined".into(), &"not given: the speed, the bearing, the class".into()));
}

#[test]
fn faults_of_the_arguments_say_what_to_do() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
    for (name, more, expected) in [
        ("x.dat", &[][..], "--format"),
        ("x.i16", &[], "--scale"),
        ("x.csv", &["--bearing", "608"], "known are 6203, 6205"),
        ("x.csv", &["--bearing", "9,40,39"], "impossible"),
        ("x.csv", &["--bearing", "8.5,7,39"], "impossible"),
        ("x.csv", &["--bearing", "pump-1/de-h"], "--config"),
        ("x.csv", &["--bearing", "pump-1/nde", "--config", shipped], "pump-1/de-h"),
    ] {
        let failure = features(name, "", more).unwrap_err();
        assert!(matches!(&failure, Failure::Arguments(text) if text.contains(expected)), "{failure}");
    }
    assert!(matches!(features("x.csv", "de\n", &[]), Err(Failure::Empty(_))));
}

#[test]
fn a_bearing_is_found_by_name_geometry_and_waveform() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let bpfo = |text| bearing::orders(&find_bearing(text, Some(&shipped)).unwrap()).unwrap().bpfo;
    for text in ["6205", "9,7.94,39.04", "9, 7.94, 39.04, 0", "pump-1/de-h"] {
        assert!((bpfo(text) - 3.5848).abs() < 1e-3, "{text}");
    }
}

#[test]
fn a_stop_ends_it_before_the_next_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    fs::write(&path, sine(1_000)).unwrap();
    let cli = Cli::parse_from(["x", "--input", path.to_str().unwrap(), "--fs", "8192", "--unit", "m/s2"]);
    let stop = Stop::default();
    stop.request();
    let mut out = Vec::new();
    assert!(matches!(run(&cli.args.waveform.unwrap(), &stop, &mut out), Err(Failure::Interrupted)));
    assert!(out.is_empty());
}
