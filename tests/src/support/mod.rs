//! Real programs around the agent, each started in its own directory on loopback and stopped by its pid when dropped.
mod agent;
mod bench;
mod http;
mod kafka;
mod load;
pub mod machine;
mod mosquitto;
mod mqtt;
mod ports;
mod process;
mod proxy;
mod random;
mod reading;
mod recording;
mod wait;
mod witness;

pub use agent::Agent;
pub use bench::{COMMISSIONING_ROWS, PREFIX, TestBench, start_ready, wait_ready};
pub use http::{Metrics, Response, http_get};
pub use kafka::{Kafka, KafkaRecord};
pub use load::{Connection, Load};
pub use mosquitto::{Mosquitto, Settings};
pub use mqtt::publish;
pub use ports::free_port;
pub use process::Process;
pub use proxy::{Fault, Proxy};
pub use random::Random;
pub use reading::reading;
pub use recording::Recording;
pub use wait::{wait_for, wait_until};
pub use witness::{Eye, Witness};

use std::path::{Path, PathBuf};

/// A path in the clone, whatever the working directory is.
pub fn in_clone(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
