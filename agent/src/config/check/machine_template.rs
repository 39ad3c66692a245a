//! `templates/*.toml`: what machines of a class have in common, and how an asset's file adds to it.
//!
//! `template = "pump"` in an asset's file stands for all of `templates/pump.toml`. What the file says itself goes before: a value replaces the template's, a
//! table is joined with it key by key, `[[point]]` and `[[waveform]]` by their `id`. `without = ["seal.temperature"]` leaves points and waveforms out, and with
//! them what the template tells by such a point: its operating state, or its load. Thresholds are those of a point: `[operating]` of another one stands alone.
//! The template's numbers are in its unit: of a point that the file gives another one they are left out too.
use std::{fs, path::Path};

use toml::{Table, Value};

use super::faults::Faults;

const TEMPLATE: &str = "template";
const WITHOUT: &str = "without";
/// Arrays whose elements have an `id`.
const BY_ID: [&str; 2] = ["point", "waveform"];
const OPERATING: &str = "operating";
/// Keys of a point whose numbers are in its unit.
const IN_UNIT: [&str; 5] = ["range", "max_rate", "stuck_within", "limits", "severity"];
/// What is of one machine alone.
const OF_ONE: [&str; 3] = ["id", "name", "path"];

/// The table of an asset's file together with its template, if it names one, from `dir`.
pub(super) fn resolve(mut asset: Table, dir: Option<&Path>, faults: &mut Faults) -> Table {
    let without = names(asset.remove(WITHOUT), faults);
    let Some(name) = asset.remove(TEMPLATE) else {
        if !without.is_empty() {
            faults.add(WITHOUT, "says nothing alone; expected `template` beside it");
        }
        return asset;
    };
    let Some(mut template) = load(&name, dir, faults) else { return asset };
    for unknown in without.iter().filter(|id| !leave_out(&mut template, id)) {
        faults.add(WITHOUT, format!("`{unknown}` is no point or waveform of the template"));
    }
    let is_own = |id: &&String| elements(&asset, "point").any(|point| id_of(point) == Some(id.as_str()));
    let in_another_unit = leave_out_numbers(&mut template, &asset);
    let gone: Vec<&String> = without.iter().filter(|id| !is_own(id)).chain(&in_another_unit).collect();
    let own = |table: &Table| table.get(OPERATING).and_then(|operating| operating.get("point")).cloned();
    drop_if(&mut template, OPERATING, |point| gone.iter().any(|id| *id == point) || own(&asset).is_some_and(|own| own.as_str() != Some(point)));
    if let Some(operating) = template.get_mut(OPERATING).and_then(Value::as_table_mut) {
        drop_if(operating, "load", |point| gone.iter().any(|id| *id == point));
    }
    // The template is the class, unless one of the two says otherwise.
    template.entry("class").or_insert(name);
    join(&mut template, asset);
    template
}

fn names(value: Option<Value>, faults: &mut Faults) -> Vec<String> {
    match value.unwrap_or(Value::Array(Vec::new())).try_into() {
        Ok(names) => names,
        Err(_) => {
            faults.add(WITHOUT, "is no list of ids; expected for example [\"current\"]");
            Vec::new()
        }
    }
}

fn load(name: &Value, dir: Option<&Path>, faults: &mut Faults) -> Option<Table> {
    let Some(dir) = dir else {
        faults.add(TEMPLATE, "stands for a file of the gateway's configuration; expected the whole configuration of the asset here");
        return None;
    };
    let word = name.as_str().filter(|name| !name.is_empty() && !name.contains(['/', '\\', '.']));
    let Some(word) = word else {
        faults.add(TEMPLATE, format!("{name} is no name of a template; expected for example \"pump\" for templates/pump.toml"));
        return None;
    };
    let path = dir.join(format!("{word}.toml"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let known = known(dir).join(", ");
            faults.add(TEMPLATE, format!("`{word}` cannot be read from {}: {error}; there are: {known}", path.display()));
            return None;
        }
    };
    match text.parse::<Table>() {
        Err(error) => {
            faults.unread(&path, error.to_string().trim_end().replace('\n', "\n    "));
            None
        }
        Ok(template) => {
            for key in OF_ONE.iter().chain([&TEMPLATE, &WITHOUT]).filter(|key| template.contains_key(**key)) {
                faults.add(TEMPLATE, format!("`{word}` has `{key}`, which only the file of an asset may have"));
            }
            Some(template)
        }
    }
}

fn known(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let tomls = entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> = tomls.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// Leaves out the table `key` if it tells something by such a point.
fn drop_if(table: &mut Table, key: &str, is_such: impl Fn(&str) -> bool) {
    let point = table.get(key).and_then(|told| told.get("point")).and_then(Value::as_str);
    if point.is_some_and(is_such) {
        table.remove(key);
    }
}

fn elements<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a Value> {
    table.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Whether there was one with this id.
fn leave_out(template: &mut Table, id: &str) -> bool {
    let mut found = false;
    for key in BY_ID {
        let Some(elements) = template.get_mut(key).and_then(Value::as_array_mut) else { continue };
        let before = elements.len();
        elements.retain(|element| id_of(element) != Some(id));
        found |= elements.len() < before;
    }
    found
}

/// Leaves out the numbers of points that `asset` has in another unit; gives their ids.
fn leave_out_numbers(template: &mut Table, asset: &Table) -> Vec<String> {
    let own_unit = |id: &str| elements(asset, "point").find(|point| id_of(point) == Some(id))?.get("unit").cloned();
    let mut changed = Vec::new();
    for point in template.get_mut("point").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_table_mut) {
        let id = point.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if own_unit(&id).is_some_and(|unit| point.get("unit") != Some(&unit)) {
            point.retain(|key, _| !IN_UNIT.contains(&key));
            changed.push(id);
        }
    }
    changed
}

/// Adds `further` to `table`, of which it goes before.
fn join(table: &mut Table, further: Table) {
    for (key, value) in further {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(table)), Value::Table(further)) => join(table, further),
            (Some(Value::Array(elements)), Value::Array(further)) if BY_ID.contains(&key.as_str()) => join_by_id(elements, further),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

fn join_by_id(elements: &mut Vec<Value>, further: Vec<Value>) {
    for element in further {
        let known = elements.iter_mut().find(|known| id_of(known).is_some() && id_of(known) == id_of(&element));
        match (known, element) {
            (Some(Value::Table(known)), Value::Table(element)) => join(known, element),
            (_, element) => elements.push(element),
        }
    }
}

fn id_of(element: &Value) -> Option<&str> {
    element.get("id")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUMP: &str = "grid = \"1s\"\n[alarm]\non_delay = \"15s\"\noff_delay = \"60s\"\n\
                        [[point]]\nid = \"flow\"\nunit = \"l/min\"\nlimits = { low = 5.0, high = 90.0 }\n[[point]]\nid = \"current\"\nunit = \"A\"\n";

    const DRIVE: &str = "class = \"drive-unit\"\n[[point]]\nid = \"speed\"\nunit = \"/min\"\n[[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\nspeed_rpm = 1480.0\n\
                         [[waveform]]\nid = \"nde-h\"\nunit = \"[g]\"\n";

    const MILL: &str = "[operating]\npoint = \"current\"\nrunning = 5.0\nsettle = \"30s\"\nload = { point = \"flow\", bounds = [1.0] }\n\
                        [[point]]\nid = \"flow\"\nunit = \"l/min\"\n[[point]]\nid = \"current\"\nunit = \"A\"\n";

    fn resolved(asset: &str) -> (Table, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pump.toml"), PUMP).unwrap();
        fs::write(dir.path().join("drive.toml"), DRIVE).unwrap();
        fs::write(dir.path().join("mill.toml"), MILL).unwrap();
        fs::write(dir.path().join("odd.toml"), "id = \"x\"\n").unwrap();
        fs::write(dir.path().join("nested.toml"), "template = \"pump\"\n").unwrap();
        fs::write(dir.path().join("notes.md"), "no template").unwrap();
        let mut faults = Faults::default();
        faults.file = "a.toml".to_owned();
        let table = resolve(asset.parse().unwrap(), Some(dir.path()), &mut faults);
        (table, faults.into_result(Some(())).err().map(|error| error.faults).unwrap_or_default())
    }

    /// 80 are degrees Celsius.
    #[test]
    fn numbers_of_another_unit_are_left_out() {
        let points = |asset: &str| resolved(asset).0["point"].as_array().unwrap().clone();
        let flow = |asset: &str| points(asset).into_iter().find(|point| id_of(point) == Some("flow")).unwrap();
        let pump = |unit: &str| flow(&format!("template = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"{unit}\"\n"));
        assert!(pump("l/min").get("limits").is_some() && pump("m3/h").get("limits").is_none());
        let own = flow("template = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"m3/h\"\nlimits = { low = 0.3 }\n");
        assert_eq!(own["limits"]["low"].as_float(), Some(0.3));
        let mill = |unit: &str| resolved(&format!("template = \"mill\"\n[[point]]\nid = \"current\"\nunit = \"{unit}\"\n")).0.contains_key(OPERATING);
        assert!(mill("A") && !mill("mA"));
    }

    #[test]
    fn a_file_adds_to_its_template_and_goes_before_it() {
        let (table, faults) = resolved(
            "id = \"p-1\"\ntemplate = \"pump\"\nwithout = [\"current\"]\n[alarm]\non_delay = \"5s\"\n\
             [[point]]\nid = \"flow\"\nlimits = { high = 70.0 }\n[[point]]\nid = \"speed\"\nunit = \"/min\"\n",
        );
        let expected = "grid = \"1s\"\nclass = \"pump\"\nid = \"p-1\"\n[alarm]\non_delay = \"5s\"\noff_delay = \"60s\"\n\
                        [[point]]\nid = \"flow\"\nunit = \"l/min\"\nlimits = { low = 5.0, high = 70.0 }\n[[point]]\nid = \"speed\"\nunit = \"/min\"\n";
        assert_eq!((table, faults), (expected.parse().unwrap(), Vec::new()));
    }

    #[test]
    fn waveforms_are_joined_and_left_out_like_points() {
        let (table, faults) = resolved("template = \"drive\"\nwithout = [\"speed\", \"nde-h\"]\n[[waveform]]\nid = \"de-h\"\nspeed_rpm = 990.0\n");
        let expected = "class = \"drive-unit\"\npoint = []\n[[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\nspeed_rpm = 990.0\n";
        assert_eq!((table, faults), (expected.parse().unwrap(), Vec::new()));
        let (table, _) = resolved("template = \"drive\"\nclass = \"mill\"\n");
        assert_eq!(table["class"].as_str(), Some("mill"));
    }

    #[test]
    fn nothing_is_told_by_a_point_that_is_left_out() {
        let operating = |asset: &str| {
            let (table, faults) = resolved(&format!("template = \"mill\"\n{asset}"));
            assert_eq!(faults, [""; 0]);
            table.get("operating").map(|operating| operating.to_string().replace(' ', "")).unwrap_or_default()
        };
        let (all, own) = (operating(""), "[operating]\npoint = \"speed\"\nrunning = 9.0\n");
        assert!(all.contains("point=\"current\"") && all.contains("load={") && all.contains("settle=\"30s\""), "{all}");
        assert_eq!(operating("without = [\"current\"]"), "");
        let without_load = operating("without = [\"flow\"]");
        assert!(without_load.contains("running=5") && !without_load.contains("load"), "{without_load}");
        assert_eq!(operating("without = [\"current\"]\n[[point]]\nid = \"current\"\nunit = \"A\""), all, "another of that name takes its place");
        // Thresholds of a current are none of a speed.
        for asset in [own.to_owned(), format!("without = [\"current\"]\n{own}")] {
            let own = operating(&asset);
            assert!(own.contains("running=9") && !own.contains("settle") && !own.contains("load"), "{own}");
        }
        let more = operating("[operating]\nrunning = 9.0");
        assert!(more.contains("running=9") && more.contains("settle"), "{more}");
    }

    #[test]
    fn every_shipped_template_makes_a_machine_of_three_lines() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/templates");
        let names = known(&dir);
        assert_eq!(names, ["compressor", "fan", "gearbox", "generic", "pump"]);
        for name in names {
            let machine = |more: &str| {
                let text = format!("id = \"m-1\"\ntemplate = \"{name}\"\n{more}[[point]]\nid = \"further\"\nunit = \"1\"\n");
                let mut faults = Faults::default();
                let raw = super::super::parse_asset(Path::new("m-1.toml"), &text, Some(&dir), &mut faults);
                let asset = super::super::check_asset(raw.unwrap(), &mut faults);
                faults.into_result(Some(())).unwrap();
                asset
            };
            let asset = machine("");
            let of_state = asset.operating.as_ref().map(|operating| operating.point.clone());
            assert_eq!(of_state.is_none(), name == "generic", "{name}");
            // Without the point that tells its state it is taken for running, and valid.
            assert!(of_state.is_none_or(|point| machine(&format!("without = [\"{point}\"]\n")).operating.is_none()), "{name}");
            let warming = |point: &&crate::config::Point| &*point.unit == "Cel";
            assert!(asset.points.iter().filter(warming).all(|point| point.checks.max_rate.is_some()), "{name}: a temperature cannot jump");
            assert_eq!((asset.class.as_deref(), &*asset.points.last().unwrap().id), (Some(&*name), "further"));
        }
    }

    #[test]
    fn what_cannot_be_resolved_is_told() {
        for (asset, expected) in [
            ("template = \"pmp\"", "a.toml: template: `pmp` cannot be read from"),
            ("template = \"pmp\"", "there are: drive, mill, nested, odd, pump"),
            ("template = \"../pump\"", "is no name of a template; expected"),
            ("template = \"pump.old\"", "is no name of a template; expected"),
            ("template = \"\"", "is no name of a template; expected"),
            ("template = \"nested\"", "`nested` has `template`, which only the file of an asset may have"),
            ("template = 1", "template: 1 is no name of a template"),
            ("template = \"odd\"", "template: `odd` has `id`, which only the file of an asset may have"),
            ("template = \"pump\"\nwithout = [\"flw\"]", "without: `flw` is no point or waveform of the template"),
            ("template = \"pump\"\nwithout = 1", "without: is no list of ids"),
            ("without = [\"flow\"]", "without: says nothing alone; expected `template`"),
        ] {
            let (_, faults) = resolved(asset);
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{asset}: {faults:?}");
        }
    }
}
