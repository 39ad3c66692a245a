//! Where readings come from: serial ports and MQTT brokers.
//!
//! A source decodes, hands entries to the log, and acknowledges upstream only what is durable there. What it cannot use it counts by cause
//! ([`counters`]) and acknowledges, so that one bad message holds nothing up.
mod budget;
pub mod clock_watch;
pub mod counters;
pub mod decode;
mod line_blocks;
pub mod mqtt;
mod mqtt_decode;
mod mqtt_session;
#[cfg(test)]
mod mqtt_tests;
pub mod node;
mod node_block;
mod node_line;
pub mod node_report;
pub mod registry;
mod ring;
pub mod serial;
pub mod silence;
pub mod snapshot;
pub mod template;
mod waveform;
