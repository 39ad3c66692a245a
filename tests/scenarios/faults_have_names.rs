//! Promise 4: what is wrong is called by its name, and what is in order is not. Drawn faults, in one process; the figures of 100 seeds are the program's
//! `injected_faults`.
use anyhow::{Result, ensure};
use hark_tests::injected::{self, CLASSED_LEAST, NAMED_LEAST};

const SEEDS: std::ops::Range<u64> = 1..11;

#[test]
fn faults_of_machines_are_named() -> Result<()> {
    let tally = injected::machines(SEEDS, true)?;
    ensure!(tally.is_kept(NAMED_LEAST), "{tally}");
    Ok(())
}

#[test]
fn faults_of_instruments_have_their_class() -> Result<()> {
    let tally = injected::instruments(SEEDS, true)?;
    ensure!(tally.is_kept(CLASSED_LEAST), "{tally}");
    Ok(())
}
