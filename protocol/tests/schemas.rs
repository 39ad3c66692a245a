//! `config/kafka/` says what the Rust types say, and the types keep the record contract: flat objects of primitives, integers below 2^53.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/write-schemas/catalogue.rs"]
mod catalogue;
#[path = "../examples/write-schemas/examples.rs"]
mod examples;

use std::{collections::BTreeSet, fs, path::Path};

use catalogue::{Contract, LARGEST_INTEGER, contracts};
use hark_protocol::topics::TOPICS;
use serde_json::{Map, Value};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/kafka")
}

fn example(contract: &Contract) -> Map<String, Value> {
    serde_json::from_str(&contract.example).unwrap()
}

fn properties(contract: &Contract) -> &Map<String, Value> {
    contract.schema["properties"].as_object().unwrap()
}

/// The alternatives of a field: `anyOf` and `oneOf` are taken apart, all else is one alternative.
fn alternatives(schema: &Value) -> Vec<&Value> {
    let parts: Vec<&Value> = ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten().collect();
    if parts.is_empty() { vec![schema] } else { parts.into_iter().flat_map(alternatives).collect() }
}

/// The JSON types a field may have, by name.
fn types(schema: &Value) -> BTreeSet<String> {
    let names = |part: &Value| match &part["type"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
        _ => vec![format!("untyped {part}")],
    };
    alternatives(schema).into_iter().flat_map(names).collect()
}

#[test]
fn every_topic_has_a_contract() {
    let named: Vec<_> = contracts().unwrap().iter().map(|contract| contract.topic).collect();
    assert_eq!(named, TOPICS);
}

#[test]
fn the_files_are_those_of_the_types() {
    for file in catalogue::files().unwrap() {
        let path = folder().join(&file.path);
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == file.text, "{} is out of step: run `cargo run -p hark-protocol --example write-schemas`", file.path);
    }
}

#[test]
fn no_schema_or_example_is_left_over() {
    let wanted: BTreeSet<String> = catalogue::files().unwrap().into_iter().map(|file| file.path).collect();
    for entry in fs::read_dir(folder().join("schemas")).unwrap() {
        let path = format!("schemas/{}", entry.unwrap().file_name().into_string().unwrap());
        assert!(wanted.contains(&path), "{path} belongs to no topic");
    }
}

#[test]
fn schemas_are_one_flat_object_with_descriptions() {
    const PRIMITIVES: [&str; 5] = ["boolean", "integer", "null", "number", "string"];
    for contract in contracts().unwrap() {
        let name = contract.topic.name;
        assert_eq!(contract.schema["type"], "object", "{name}");
        for key in ["allOf", "anyOf", "oneOf", "$ref", "$defs", "additionalProperties", "unevaluatedProperties"] {
            assert!(contract.schema.get(key).is_none(), "{name} has {key} beside its properties");
        }
        for (field, schema) in properties(&contract) {
            assert!(types(schema).iter().all(|found| PRIMITIVES.contains(&&**found)), "{name}.{field} is {:?}", types(schema));
            assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty() && !text.contains('\n')), "{name}.{field}: {schema}");
        }
    }
}

#[test]
fn integers_are_bounded_by_the_schema() {
    for contract in contracts().unwrap() {
        for (field, schema) in properties(&contract) {
            if types(schema).contains("integer") {
                let (minimum, maximum) = (schema["minimum"].as_i64().unwrap(), schema["maximum"].as_i64().unwrap());
                assert!(minimum >= -LARGEST_INTEGER && maximum <= LARGEST_INTEGER, "{}.{field}: {schema}", contract.topic.name);
            }
        }
    }
}

#[test]
fn the_same_field_means_the_same_everywhere() {
    let contracts = contracts().unwrap();
    for one in &contracts {
        for other in &contracts {
            for (field, schema) in properties(one) {
                if let Some(twin) = properties(other).get(field) {
                    let (types, twins) = (types(schema), types(twin));
                    let or_null = |types: &BTreeSet<String>| types.iter().filter(|name| *name != "null").cloned().collect::<BTreeSet<_>>();
                    assert_eq!(or_null(&types), or_null(&twins), "{field} of {} and {}", one.topic.name, other.topic.name);
                }
            }
        }
    }
}

#[test]
fn examples_are_read_by_the_types_and_written_back_unchanged() {
    for contract in contracts().unwrap() {
        let text = fs::read_to_string(folder().join(format!("schemas/hark.{}.example.json", contract.topic.name))).unwrap();
        assert_eq!((contract.round_trip)(&text).unwrap(), text, "{}", contract.topic.name);
    }
}

#[test]
fn examples_have_the_fields_of_their_schema() {
    for contract in contracts().unwrap() {
        let fields: BTreeSet<&String> = properties(&contract).keys().collect();
        let example = example(&contract);
        assert_eq!(example.keys().collect::<BTreeSet<_>>(), fields, "{}", contract.topic.name);
        for required in contract.schema["required"].as_array().unwrap() {
            assert!(!example[required.as_str().unwrap()].is_null(), "{}.{required} is required", contract.topic.name);
        }
    }
}

#[test]
fn examples_are_flat_and_exact() {
    for contract in contracts().unwrap() {
        for (field, value) in example(&contract) {
            let name = format!("{}.{field}", contract.topic.name);
            assert!(!value.is_object() && !value.is_array(), "{name} is not a primitive");
            assert!(!value.is_u64() && !value.is_i64() || value.as_i64().unwrap().abs() <= LARGEST_INTEGER, "{name} is {value}");
            if let (true, Some(text)) = (field.ends_with("_json"), value.as_str()) {
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{name} holds no JSON");
            }
        }
    }
}

/// The identity stands in front, so that a person who reads a topic sees it first.
#[test]
fn records_begin_with_their_identity() {
    for contract in contracts().unwrap() {
        assert!(contract.example.starts_with("{\n  \"event_id\""), "{}", contract.topic.name);
    }
}

#[test]
fn every_record_says_who_and_when() {
    const COMMON: [&str; 10] = ["event_id", "gw", "inc", "sv", "asset", "ts", "ts_ms", "ts_source", "clock", "origin"];
    for contract in contracts().unwrap() {
        let missing: Vec<_> = COMMON.iter().filter(|field| !properties(&contract).contains_key(**field)).collect();
        assert!(missing.is_empty(), "{} has no {missing:?}", contract.topic.name);
    }
}
