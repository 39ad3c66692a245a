//! What a case gave: a line for people, a line of JSON, and the table at the end.
use serde_json::json;

/// One case. Processor times are microseconds per reading, over all cores.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Name of the case.
    pub case: &'static str,
    /// Readings sent.
    pub readings: usize,
    /// Readings per second that the broker acknowledged to the generator.
    pub published_per_s: f64,
    /// Readings per second from the first publish to the last arrival in Kafka.
    pub through_per_s: f64,
    /// Readings that the broker acknowledged and never gave to the agent.
    pub dropped_by_broker: usize,
    /// Readings that the agent received and that are not in Kafka.
    pub lost: usize,
    /// Records in Kafka beyond one per reading.
    pub doubled: usize,
    /// Half of the readings were in Kafka so soon after publishing.
    pub p50_ms: Option<i64>,
    /// 99 of 100.
    pub p99_ms: Option<i64>,
    /// All.
    pub max_ms: Option<i64>,
    /// Resident memory of the agent before the load.
    pub idle_mib: f64,
    /// After it.
    pub after_mib: f64,
    /// At most, from the start on.
    pub peak_mib: f64,
    /// Written to flash by the agent at this pace, GB a day.
    pub flash_gb_a_day: f64,
    /// Of the agent.
    pub agent_us: f64,
    /// Of Mosquitto.
    pub mosquitto_us: f64,
    /// Of Kafka.
    pub kafka_us: f64,
    /// Of the generator.
    pub generator_us: f64,
}

const HEAD: [&str; 17] = [
    "case",
    "readings",
    "sent/s",
    "through/s",
    "dropped",
    "lost",
    "doubled",
    "p50 ms",
    "p99 ms",
    "max ms",
    "idle MiB",
    "after",
    "peak",
    "GB/day",
    "agent µs",
    "mosq µs",
    "kafka µs",
];

impl Row {
    /// One line of JSON.
    pub fn json(&self) -> String {
        json!({
            "case": self.case,
            "readings": self.readings,
            "published_per_s": self.published_per_s,
            "through_per_s": self.through_per_s,
            "dropped_by_broker": self.dropped_by_broker,
            "lost": self.lost,
            "doubled": self.doubled,
            "latency_p50_ms": self.p50_ms,
            "latency_p99_ms": self.p99_ms,
            "latency_max_ms": self.max_ms,
            "agent_rss_idle_mib": self.idle_mib,
            "agent_rss_after_mib": self.after_mib,
            "agent_rss_peak_mib": self.peak_mib,
            "agent_written_gb_a_day": self.flash_gb_a_day,
            "agent_cpu_us": self.agent_us,
            "mosquitto_cpu_us": self.mosquitto_us,
            "kafka_cpu_us": self.kafka_us,
            "generator_cpu_us": self.generator_us,
        })
        .to_string()
    }

    /// A line that says the case is done.
    pub fn text(&self) -> String {
        format!("{}: {:.0} readings/s, {} lost, {} dropped by the broker", self.case, self.through_per_s, self.lost, self.dropped_by_broker)
    }

    fn cells(&self) -> [String; HEAD.len()] {
        let milliseconds = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let whole = |value: f64| format!("{value:.0}");
        [
            self.case.to_owned(),
            self.readings.to_string(),
            whole(self.published_per_s),
            whole(self.through_per_s),
            self.dropped_by_broker.to_string(),
            self.lost.to_string(),
            self.doubled.to_string(),
            milliseconds(self.p50_ms),
            milliseconds(self.p99_ms),
            milliseconds(self.max_ms),
            whole(self.idle_mib),
            whole(self.after_mib),
            whole(self.peak_mib),
            format!("{:.2}", self.flash_gb_a_day),
            format!("{:.1}", self.agent_us),
            format!("{:.1}", self.mosquitto_us),
            format!("{:.1}", self.kafka_us),
        ]
    }
}

/// All rows, aligned.
pub fn table(rows: &[Row]) -> String {
    let lines: Vec<[String; HEAD.len()]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let line = |cells: &[String; HEAD.len()]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let gap = " ".repeat(width(column) - cell.chars().count());
            if column == 0 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        padded.collect::<Vec<_>>().join("  ")
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}
