//! Writes `config/kafka/`: `cargo run -p hark-protocol --example write-schemas`. A test fails when the files are out of step with the types.
mod catalogue;
mod examples;

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/kafka");
    fs::create_dir_all(folder.join("schemas"))?;
    for contract in catalogue::contracts()? {
        if (contract.round_trip)(&contract.example)? != contract.example {
            return Err(format!("the example of {} does not survive being read and written", contract.topic.name).into());
        }
    }
    for file in catalogue::files()? {
        fs::write(folder.join(&file.path), file.text)?;
    }
    Ok(())
}
