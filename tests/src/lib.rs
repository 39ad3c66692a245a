//! What the end-to-end scenarios stand on; the scenarios themselves are in `tests/scenarios/`, each named after the promise it keeps.
//!
//! Scenarios that need a real Kafka (Java) and a real Mosquitto are behind the feature `real-brokers`:
//! `cargo test --workspace` needs neither, and with the feature a missing broker is a failure, never a silent skip.
//!
//! Everything here returns errors that name what was waited for and where the log is. It waits for conditions, with a deadline, never for time.
pub mod injected;
pub mod kill_loop;
pub mod plant;
pub mod power;
pub mod support;
