//! `/metrics`: the status as Prometheus reads it, in the OpenMetrics text format.
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use hark_protocol::topics::LaneName;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{Link, Status, heartbeat::rss_bytes, lock};

/// The text of one scrape.
///
/// # Errors
/// [`fmt::Error`] if it cannot be written, which memory alone can cause.
pub(super) fn scrape(status: &Arc<Status>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("hark");
    registry.register_collector(Box::new(Scrape(status.clone())));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

struct Scrape(Arc<Status>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// A metric with its values by labels.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: MetricType,
    values: Vec<(Vec<(&'a str, String)>, u64)>,
}

impl Family<'_> {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (labels, value) in &self.values {
            if labels.is_empty() {
                Self::encode_value(&mut metric, self.kind, *value)?;
            } else {
                Self::encode_value(&mut metric.encode_family(labels)?, self.kind, *value)?;
            }
        }
        Ok(())
    }

    fn encode_value(metric: &mut prometheus_client::encoding::MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
        match kind {
            MetricType::Counter => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            // Gauges are signed in the text format; none of ours comes near the sign.
            _ => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.sources().iter().chain(&self.buffer()).chain(&self.rest()) {
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}

impl Scrape {
    fn sources(&self) -> Vec<Family<'_>> {
        type Field = fn(&crate::source::counters::SourceCounters) -> u64;
        let fields: [(&str, &str, MetricType, Field); 7] = [
            ("source_messages", "Messages, frames or lines received", MetricType::Counter, |s| s.messages.load(Ordering::Relaxed)),
            ("source_bytes", "Bytes received", MetricType::Counter, |s| s.bytes.load(Ordering::Relaxed)),
            ("source_readings_accepted", "Readings durably appended", MetricType::Counter, |s| s.accepted.load(Ordering::Relaxed)),
            ("source_acknowledged", "Messages acknowledged to the sender", MetricType::Counter, |s| s.acknowledged.load(Ordering::Relaxed)),
            ("source_connections", "Connections opened", MetricType::Counter, |s| s.connections.load(Ordering::Relaxed)),
            ("source_in_flight_bytes", "Bytes received and not yet durable", MetricType::Gauge, |s| s.in_flight_bytes.load(Ordering::Relaxed)),
            ("source_connected", "1 while connected", MetricType::Gauge, |s| u64::from(s.connected.load(Ordering::Relaxed))),
        ];
        let by_source = |field: Field| self.0.sources.iter().map(|s| (vec![("source", s.name.to_string())], field(s))).collect();
        let mut families: Vec<Family<'_>> =
            fields.into_iter().map(|(name, help, kind, field)| Family { name, help, kind, values: by_source(field) }).collect();
        let causes = self.0.sources.iter().flat_map(|s| {
            let label = |(group, cause, count): (&str, &str, u64)| {
                (vec![("source", s.name.to_string()), ("group", group.to_owned()), ("cause", cause.to_owned())], count)
            };
            s.causes().into_iter().map(label).collect::<Vec<_>>()
        });
        let help = "What was not as expected: rejected messages, dropped values, quality reasons, connections, by cause";
        families.push(Family { name: "source_cause", help, kind: MetricType::Counter, values: causes.collect() });
        families
    }

    fn buffer(&self) -> Vec<Family<'_>> {
        let buffer = &self.0.buffer;
        let by_lane = |field: &dyn Fn(LaneName) -> u64| LaneName::ALL.iter().map(|&lane| (vec![("lane", lane.to_string())], field(lane))).collect();
        let counter = |name, help, value: &std::sync::atomic::AtomicU64| Family {
            name,
            help,
            kind: MetricType::Counter,
            values: vec![(vec![], value.load(Ordering::Relaxed))],
        };
        vec![
            Family {
                name: "buffer_appended",
                help: "Records durably appended",
                kind: MetricType::Counter,
                values: by_lane(&|lane| buffer.appended(lane)),
            },
            Family {
                name: "buffer_records",
                help: "Records that Kafka has not acknowledged",
                kind: MetricType::Gauge,
                values: by_lane(&|lane| self.0.buffered(lane)),
            },
            Family {
                name: "buffer_oldest_seconds",
                help: "Age of the oldest record that Kafka has not acknowledged, by its event time",
                kind: MetricType::Gauge,
                values: by_lane(&|lane| self.0.oldest_s(lane).map_or(0, |seconds| seconds.max(0.0).round() as u64)),
            },
            Family {
                name: "buffer_bytes",
                help: "Bytes on disk under the data directory",
                kind: MetricType::Gauge,
                values: vec![(vec![], self.0.log.disk_bytes().unwrap_or(0))],
            },
            Family { name: "buffer_quota_bytes", help: "Bytes allowed there", kind: MetricType::Gauge, values: vec![(vec![], self.0.quota_bytes)] },
            counter("buffer_refused", "Appends refused because an entry was too large", &buffer.refused),
            counter("buffer_commits", "Commits that wrote something", &buffer.commits),
            counter("buffer_committed_bytes", "Encoded bytes committed, before compression", &buffer.committed_bytes),
            counter("buffer_frame_bytes", "Bytes handed to the store, compressed", &buffer.frame_bytes),
            counter("buffer_reclaimed_bytes", "Bytes on disk given back", &buffer.reclaimed_bytes),
            counter("buffer_evicted_bytes", "Bytes on disk given up although somebody needed them", &buffer.evicted_bytes),
            counter("buffer_quarantined", "Damaged partitions put aside", &buffer.quarantined),
            Family { name: "buffer_lost", help: "Records named in gaps", kind: MetricType::Counter, values: by_lane(&|lane| buffer.lost(lane)) },
            Family {
                name: "buffer_stalled",
                help: "1 while the disk takes nothing and senders are held back",
                kind: MetricType::Gauge,
                values: vec![(vec![], u64::from(buffer.stalled.load(Ordering::Relaxed)))],
            },
            Family {
                name: "buffer_gaps_pending",
                help: "Gaps that forward or inference has still to pass",
                kind: MetricType::Gauge,
                values: vec![(vec![], self.0.log.gaps().len() as u64)],
            },
            counter("buffer_errors", "Commits and reclaims that failed", &buffer.errors),
        ]
    }

    fn rest(&self) -> Vec<Family<'_>> {
        let status = &self.0;
        let single = |name, help, kind, value| Family { name, help, kind, values: vec![(vec![], value)] };
        let counted = |name, help, value| single(name, help, MetricType::Counter, value);
        let (records, numbers) = (status.conservation(), status.forward_numbers());
        let inference = lock(&status.inference).clone();
        let assets = status.assets();
        let feedback = status.feedback();
        vec![
            counted("forward_delivered", "Records acknowledged by Kafka", records.delivered),
            counted("forward_transactions", "Transactions committed", numbers.transactions),
            counted("forward_aborted", "Transactions that failed", numbers.aborted),
            counted("forward_recycled", "Connections given up because something might still have been under way", numbers.recycled),
            counted("forward_refused", "Records that Kafka refused for good", numbers.refused),
            counted("forward_fenced", "Times that another producer was first", numbers.fenced),
            counted("forward_cursor_expired", "Times that Kafka had no cursors of what was delivered", numbers.cursor_expired),
            counted("forward_cursor_behind", "Times that Kafka's cursor of a lane was behind what Kafka had acknowledged", numbers.cursor_behind),
            counted("forward_take_over", "Other disks whose place was taken", numbers.take_over),
            counted("records_accepted", "Records found in the buffer at the start or appended since: delivered + buffered + gaps", records.accepted),
            counted("gap_records", "Records named in gaps", records.gaps),
            single("forward_connected", "1 while Kafka takes records", MetricType::Gauge, u64::from(status.link() == Link::Connected)),
            Family {
                name: "inference",
                help: "What inference did, by kind",
                kind: MetricType::Counter,
                values: inference.counters.iter().map(|(kind, count)| (vec![("kind", (*kind).to_owned())], *count)).collect(),
            },
            single(
                "alarm_flood",
                "1 while there are more new alarms than a person can deal with",
                MetricType::Gauge,
                u64::from(status.alarm_flood().is_some()),
            ),
            Family {
                name: "snapshots",
                help: "Raw blocks that were wanted, by what became of them",
                kind: MetricType::Counter,
                values: status.snapshots().named().into_iter().map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count)).collect(),
            },
            Family {
                name: "feedback",
                help: "Records of the topic of commands, by what became of them",
                kind: MetricType::Counter,
                values: feedback.outcomes().into_iter().map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count)).collect(),
            },
            counted("feedback_reader_starts", "Processes started to read commands from Kafka", feedback.starts()),
            single("feedback_reading", "1 while commands are read from Kafka", MetricType::Gauge, u64::from(feedback.is_reading())),
            Family {
                name: "asset_above_limit",
                help: "1 while the score is over its limit",
                kind: MetricType::Gauge,
                values: assets.iter().map(|(id, asset)| (vec![("asset", id.to_string())], u64::from(asset.above))).collect(),
            },
            single("process_resident_memory_bytes", "Resident memory of the agent", MetricType::Gauge, rss_bytes().unwrap_or(0)),
        ]
    }
}
